"""Rows of part J: what caches may keep, what who is not logged in is told, and what happens while the store is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.breaker import Breaker
from ...core.errors import StoreError, Unknown
from ...core.model import Record
from ...core.policies import Policy
from ..browser import Browser, Received
from .registry import row
from .rows_cookies import life
from .rows_csrf import everything_logged
from .site import Site
from .verdicts import expect

OUTDATED = ("expires", "pragma", "surrogate-control", "cdn-cache-control")
"""What would tell a cache otherwise, beside Cache-Control."""

FAULTS = ("Traceback", "StoreError", "told to fail", "coatcheck/", ".py", "sqlite", "SELECT")
"""What an error page of ours never shows."""


@row("CCH-01")
def test_a_cookie_is_not_cached(site: Site) -> None:
    """Every answer that sets our cookie says no-store, once, whatever the handler said; no cache hands it to others."""
    answers = list(life(site))
    for said in ("public, max-age=600", "s-maxage=600", "private", "immutable"):
        answers.append(site.browser().post(f"/login?cache={said.replace(' ', '%20')}", {"user": "alice"}))
        answers.append(site.browser().post("/login?header=cdn-cache-control:max-age%3D600", {"user": "alice"}))
    for answer in answers:
        if answer.cookies:
            expect("Cache-Control beside a Set-Cookie", answer.all("cache-control"), ["no-store"])
            expect("other words to caches", [name for name in OUTDATED if answer.all(name)], [])
    expect("answers that set a cookie", sum(bool(answer.cookies) for answer in answers) >= 12, wanted=True)
    expect("whether a shared cache may keep a login", _may_share(answers[-1]), wanted=False)


def _may_share(answer: Received) -> bool:
    """Tell whether a shared cache may keep an answer (RFC 9111 §3)."""
    said = {part.strip().partition("=")[0].lower() for part in (answer.header("cache-control") or "").split(",")}
    return not said & {"no-store", "private"} and answer.status in (200, 203, 301, 404, 410)


@row("CCH-02")
def test_private_pages_vary(site: Site) -> None:
    """A page that looked at the session varies by Cookie, keeps the handler's no-store, and others stay cacheable."""
    browser = site.logged_in()
    for page in ("/me", "/data", "/account/sessions", "/form"):
        expect(f"what {page} varies by", "Cookie" in (browser.get(page).header("vary") or ""), wanted=True)
    kept = browser.get("/me?cache=no-store")
    expect("the handler's own words", kept.all("cache-control"), ["no-store"])
    untouched = browser.get("/?cache=public,max-age%3D600")
    expect("what an untouched page varies by", untouched.header("vary"), None)
    expect("an untouched page's own words", untouched.header("cache-control"), "public,max-age=600")


@row("CCH-04")
def test_who_is_not_logged_in(site: Site) -> None:
    """A program gets 401 with a challenge, a browser 303 to the login page with a way back to this site only."""
    answer = site.ask("GET", "/private", headers={"accept": "application/json"})
    expect("the answer to a program", answer.status, 401)
    challenge = answer.header("www-authenticate") or ""
    expect("its challenge", challenge.startswith("Session realm="), wanted=True)
    expect("what it says", answer.json()["error"], "login_required")
    weak = site.logged_in().post("/pay")
    expect("the answer to too weak a login", (weak.status, weak.json()["error"]), (401, "reauth_required"))
    html = {"accept": "text/html,*/*;q=0.8"}
    paged = site.with_settings(login_url="/signin")
    page = paged.ask("GET", "/private", headers=html)
    expect("the answer to a browser", (page.status, page.header("location")), (303, "/signin?next=/private"))
    posted = paged.ask("POST", "/private", headers=html)
    expect("where a form leads", (posted.status, posted.header("location")), (303, "/signin"))
    for target in ("//evil.example/private", "/%5Cevil.example", "/%09/evil.example"):
        location = paged.ask("GET", f"{target}?then=refuse", headers=html).header("location") or "/signin"
        expect(f"where {target} leads back to", "evil" in location.partition("next=")[2], wanted=False)
    expect("whether the login page is asked for again", paged.ask("GET", "/", headers=html).status, 200)


@row("CCH-05")
def test_errors_say_nothing(site: Site) -> None:
    """While the store is away the answer is a short 503 with the request's id, without token, name or trace."""
    browser = site.logged_in()
    secrets = (browser.token or "").split(".")[1:]
    for verb, target in (("load", "/me"), ("commit", "/data?write=k"), ("commit", "/reauth")):
        with everything_logged() as lines:
            site.trouble.fail(verb)  # type: ignore[arg-type]
            answer = browser.post(target) if target != "/me" else browser.get(target)
            site.trouble.fail(None)
        told = "\n".join([answer.text, *(f"{name}: {value}" for name, value in answer.headers)])
        expect(f"the answer while {verb} fails", (answer.status, answer.cookies), (503, []))
        expect("what it shows", [word for word in (*secrets, *FAULTS, "alice") if word in told], [])
        expect("what caches are told", answer.header("cache-control"), "no-store")
        expect("when to come back", answer.header("retry-after") is not None, wanted=True)
        named = answer.header("x-request-id") or "none"
        expect("whether its text names the request", answer.text.endswith(f"Request: {named}\n"), wanted=True)
        expect("whether the log does", any(f"request={named}" in line for line in lines), wanted=True)
    expect("who is logged in afterwards", browser.get("/me").json()["user"], "alice")


@row("CCH-06")
def test_fails_closed(site: Site) -> None:
    """While the store fails, loses answers or is slow nobody counts as logged in; it is left alone, and asked again."""
    browser = site.logged_in()
    for error in (StoreError, Unknown):
        site.trouble.fail("load", error)
        for target in ("/me", "/private", "/data"):
            answer = browser.get(target)
            expect(f"the answer of {target} while the store is away", answer.status, 503)
            expect("its cookies", answer.cookies, [])
        expect("the answer to a stranger", site.ask("GET", "/me").status, 401)
        site.trouble.fail(None)
        expect("the answer afterwards, without a restart", browser.get("/me").status, 200)
    site.trouble.fail("commit")
    expect("the answer to a login that is not kept", site.browser().login("bob").status, 503)
    site.trouble.fail(None)
    expect("sessions of who could not log in", [one for one in site.records() if one.subject == "bob"], [])
    site.trouble.lose_answers(1)
    expect("the answer to a login whose commit was lost on the way back", site.browser().login("carol").status, 200)
    expect("its sessions", len([one for one in site.records() if one.subject == "carol"]), 1)
    _breaks_the_circuit(site, browser)
    slow = site.with_settings(breaker=Breaker(failures=2, slow=1.0))
    browser = slow.logged_in()
    slow.clock.wind(2)
    slow.trouble.meanwhile = lambda: slow.clock.wind(1.5)
    expect("the answer of a store that is slow twice", browser.get("/me").status, 200)  # its clock, and the session
    slow.trouble.meanwhile = None
    expect("the answer once it was slow too often", browser.get("/me").status, 503)
    slow.clock.wind(2)
    expect("the answer afterwards", browser.get("/me").status, 200)


def _breaks_the_circuit(site: Site, browser: Browser) -> None:
    """After five failures in a row the store is not asked any more; then one request at a time finds out."""

    def asked(times: int) -> int:
        """Ask so often, to be refused each time; return how often the store was asked for it."""
        before = len(site.trouble.calls)
        for _ in range(times):
            expect("the answer while the store is away", browser.get("/me").status, 503)
        return len(site.trouble.calls) - before

    site.trouble.fail("load")
    expect("how often it is asked until the circuit opens", asked(10), 5)
    site.clock.wind(0.9)
    expect("how often during the pause", asked(3), 0)
    site.clock.wind(0.2)
    site.trouble.fail("epochs")
    expect("how often after it", asked(3), 1)
    site.clock.wind(1.1)
    expect("how often while the pause is twice as long", asked(3), 0)
    site.trouble.fail(None)
    expect("how often while nobody can know that it is back", asked(3), 0)
    site.clock.wind(1.0)
    expect("the answer of a store that is back", browser.get("/me").json()["user"], "alice")


class _Faulty(Policy):
    """A rule of somebody's that breaks."""

    def judge(self, record: Record, signals: Sequence[Any], now: float) -> Any:
        """Break."""
        message = "a fault in somebody's policy, at alice's"
        raise RuntimeError(message)


@row("CCH-07")
def test_faults_in_hooks(site: Site) -> None:
    """A policy that raises, and a value that cannot be kept, end that request with a plain 500, and are told."""
    faulty = site.with_settings(policies=[_Faulty()])
    browser = faulty.browser()
    browser.login()
    with everything_logged() as lines:
        answer = browser.get("/me")
    expect("the answer while a policy raises", (answer.status, answer.cookies), (500, []))
    expect("what it shows", [word for word in ("alice", "RuntimeError", "policy", *FAULTS) if word in answer.text], [])
    expect("what caches are told", answer.header("cache-control"), "no-store")
    _is_told(lines, answer.header("x-request-id"), "RuntimeError")
    expect("how often it is told in sum", [one.detail["count"] for one in faulty.told("session_internal_error")], [1])
    expect("whether strangers are still served", faulty.ask("GET", "/").status, 200)
    kept = site.logged_in()
    before = site.records()
    with everything_logged() as lines:
        refused = kept.post("/?do=unkeepable")
    expect("the answer to a value that cannot be kept", (refused.status, refused.cookies), (500, []))
    _is_told(lines, None, "DataError")
    expect("whether a record changed", site.records() == before, wanted=True)
    expect("who is logged in afterwards", kept.get("/me").json()["user"], "alice")


def _is_told(lines: list[str], named: str | None, kind: str) -> None:
    ours = [line for line in lines if line.startswith("coatcheck ERROR session_internal_error ")]
    expect("events of the fault", len(ours), 1)
    expect("what it says that it was", f"kind={kind}" in ours[0], wanted=True)
    if named is not None:
        expect("the request that it names", f"request={named}" in ours[0], wanted=True)
    expect("whether the log has the trace", "Traceback" in ours[0], wanted=True)
