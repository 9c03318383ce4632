// Counts down what the server says is left of this session. Everything works without it.
// It asks a passive path: asking is no activity, so a forgotten tab does not keep a session alive.
"use strict";

(() => {
  const strip = document.querySelector("[data-status]");
  if (!strip) return;

  const part = (name) => strip.querySelector(`[data-part="${name}"]`);
  const form = part("stay");
  let known = null; // {idle_left, left} as the server told it
  let heard = 0; // when it did, by the clock that no one sets

  function words(seconds) {
    if (seconds >= 172800) return `${Math.floor(seconds / 86400)} days`;
    const whole = Math.max(0, Math.ceil(seconds));
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(whole / 3600);
    const rest = `${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
    return hours ? `${hours}:${rest}` : rest;
  }

  function show() {
    if (!known) return;
    const passed = (performance.now() - heard) / 1000;
    const idle = known.idle_left === null ? Infinity : known.idle_left - passed;
    const left = known.left - passed;
    part("idle").textContent = idle === Infinity ? "never" : words(Math.min(idle, left));
    part("left").textContent = words(left);
    const soon = Math.min(idle, left) <= known.warn;
    if (soon && strip.dataset.state !== "soon") {
      part("warning").textContent = left <= known.warn
        ? "This ticket is about to end for good."
        : "Still there? This ticket is about to lapse.";
    }
    if (!soon && strip.dataset.state === "soon") part("warning").textContent = "";
    strip.dataset.state = soon ? "soon" : "live";
    if (Math.min(idle, left) <= -0.5) ask();
  }

  async function ask() {
    known = null;
    let told;
    try {
      const answer = await fetch(strip.dataset.status, { headers: { accept: "application/json" } });
      if (!answer.ok) return;
      told = await answer.json();
    } catch {
      return; // the server is away; the next round asks again
    }
    if (told.alive) {
      const whole = Number(strip.dataset.idle);
      known = { ...told, warn: Math.min(120, whole ? whole / 3 : 120) };
      heard = performance.now();
      part("number").textContent = told.handle;
      show();
    } else if (told.title) {
      strip.dataset.state = "over";
      part("warning").textContent = `${told.title}. ${told.text}`;
      form.hidden = true;
      part("after").hidden = false;
      clearInterval(asking);
      clearInterval(ticking);
    }
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await fetch(form.action, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        headers: { "x-asked-by": "script" },
      });
    } catch {
      // the server is away; the next round asks again
    }
    ask();
  });
  document.addEventListener("visibilitychange", () => document.hidden || ask());

  const ticking = setInterval(show, 1000);
  const asking = setInterval(ask, Number(strip.dataset.idle) > 300 ? 30000 : 5000);
  ask();
})();
