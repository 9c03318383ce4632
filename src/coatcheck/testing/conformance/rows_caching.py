"""Rows of part J: what caches may keep, what who is not logged in is told, and what happens while the store is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.errors import StoreError, Unknown
from ...core.model import Record
from ...core.policies import Policy
from ..browser import Received
from .registry import row
from .rows_cookies import life
from .site import Site
from .verdicts import Partly, expect, partly

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
def test_errors_say_nothing(site: Site) -> Partly:
    """While the store is away the answer is a short 503 without token, name or trace; nobody's cookie is touched."""
    browser = site.logged_in()
    secrets = (browser.token or "").split(".")[1:]
    for verb, target in (("load", "/me"), ("commit", "/data?write=k"), ("commit", "/reauth")):
        site.trouble.fail(verb)  # type: ignore[arg-type]
        answer = browser.post(target) if target != "/me" else browser.get(target)
        site.trouble.fail(None)
        told = "\n".join([answer.text, *(f"{name}: {value}" for name, value in answer.headers)])
        expect(f"the answer while {verb} fails", (answer.status, answer.cookies), (503, []))
        expect("what it shows", [word for word in (*secrets, *FAULTS, "alice") if word in told], [])
        expect("what caches are told", answer.header("cache-control"), "no-store")
        expect("when to come back", answer.header("retry-after") is not None, wanted=True)
    expect("who is logged in afterwards", browser.get("/me").json()["user"], "alice")
    return partly(
        "While the store is away the answer is a short 503 without token, name or trace; it carries no request id to "
        "find it again by: your proxy or framework adds one."
    )


@row("CCH-06")
def test_fails_closed(site: Site) -> Partly:
    """While the store fails, times out or loses answers nobody counts as logged in; afterwards all is as before."""
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
    return partly(
        "While the store fails, or loses answers, nobody counts as logged in, and afterwards all is as before; there "
        "is no circuit breaker: each request asks the store again, and a slow one is bounded by its driver."
    )


class _Faulty(Policy):
    """A rule of somebody's that breaks."""

    def judge(self, record: Record, signals: Sequence[Any], now: float) -> Any:
        """Break."""
        message = "a fault in somebody's policy"
        raise RuntimeError(message)


@row("CCH-07")
def test_faults_in_hooks(site: Site) -> Partly:
    """A policy that raises refuses the request, and so does a value that cannot be kept; nothing is changed."""
    faulty = site.with_settings(policies=[_Faulty()])
    browser = faulty.browser()
    browser.login()
    answer = browser.get("/me")
    expect("the answer while a policy raises", answer.status >= 500, wanted=True)
    expect("whether anybody is named", "alice" in answer.text, wanted=False)
    expect("its cookies", answer.cookies, [])
    kept = site.logged_in()
    before = site.records()
    refused = kept.post("/?do=unkeepable")
    expect("the answer to a value that cannot be kept", (refused.status, refused.cookies), (500, []))
    expect("whether a record changed", site.records() == before, wanted=True)
    expect("who is logged in afterwards", kept.get("/me").json()["user"], "alice")
    return partly(
        "A policy that raises refuses the request, and so does a value that cannot be kept; the exception goes to your "
        "framework, which logs it: there is no event of ours for it."
    )
