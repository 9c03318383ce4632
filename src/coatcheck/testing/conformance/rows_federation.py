"""Rows 1.G: what an identity provider says of its sessions, and what a login by one of them must not take from it."""

from __future__ import annotations

import json
from typing import Any

from ...core.errors import ConfigError
from ...flow.telling import Telling
from ..browser import Browser, Received
from .provider import (
    CAEP,
    CLIENT,
    ISSUER,
    LOGOUT,
    OTHER_ISSUER,
    REVOKED,
    Outlet,
    curve_key,
    event_token,
    key_set,
    logout_token,
    private_key,
)
from .registry import row
from .site import ELSEWHERE, Site
from .verdicts import expect, unfit


@row("FED-01")
def a_login_is_only_as_fresh_as_it_says(site: Site) -> None:
    """A page may ask for a login of at most that age; an older one is refused, with max_age in the answer."""
    browser = site.logged_in()
    expect("a page that asks for a fresh login", browser.get("/private?within=300").status, 200)
    site.clock.wind(301)
    answer = browser.get("/private?within=300")
    expect("the same page later", (answer.status, answer.json()["error"]), (401, "reauth_required"))
    expect("what it asks for", answer.json()["max_age"], 300)


@row("FED-02")
def no_session_begins_on_anothers_page(site: Site) -> None:
    """A callback without this browser's state, a form of another site, its frames and images: none of them logs in."""
    came_back = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    for target in ("/callback?state=s1", "/callback", "/callback?state="):
        answer = site.ask("GET", target, headers=came_back, site="cross-site")
        expect(f"{target} without a state of this browser's", (answer.status, answer.cookies), (400, []))
    browser = _began(site, "s1")
    expect("a callback with another state", browser.get("/callback?state=s2", site="cross-site").status, 400)
    for dest in ("iframe", "frame", "image", "script", "embed", "object", "empty"):
        browser = _began(site, "s1")
        headers = {"sec-fetch-mode": "no-cors", "sec-fetch-dest": dest}
        answer = browser.get("/callback?state=s1", headers=headers, site="cross-site")
        expect(f"a login that another site begins as {dest}", (answer.status, answer.cookies), (403, []))
        expect("who that logs in", browser.get("/me").status, 401)
    answer = site.ask("POST", "/login", form={"user": "mallory"}, site="cross-site", origin=ELSEWHERE)
    expect("a form of another site", (answer.status, answer.cookies), (403, []))
    answer = site.ask("POST", "/login", form={"user": "mallory"}, site=None)
    expect("a form that nothing is known of", (answer.status, answer.cookies), (403, []))
    browser = _began(site, "s1")
    answer = browser.get("/callback?state=s1", headers=came_back, site="cross-site")
    expect("a user who comes back from the provider", answer.status, 303)
    expect("who that is", _who(browser), "alice")


@row("FED-03")
def a_transactions_secrets_count_once(site: Site) -> None:
    """State, nonce and verifier lie in the session of one browser, are taken once, and never move into a login."""
    one, other = _began(site, "s1"), _began(site, "s2")
    expect("the state of another browser", other.get("/callback?state=s1").status, 400)
    expect("the state of this one", one.post("/take?key=state").json()["taken"], "s1")
    expect("the state when it was taken", one.post("/take?key=state").json()["taken"], None)
    browser = _began(site, "s3")
    browser.get("/data?write=nonce&value=n3")
    expect("a callback", browser.get("/callback?state=s3").status, 303)
    expect("what is left of it after the login", browser.get("/data").json(), {})
    expect("the same callback again", browser.get("/callback?state=s3").status, 400)
    shop = site.with_settings(carry=("cart",))
    browser = shop.browser()
    keys = ("state", "nonce", "code_verifier", "oidc_state", "oidc_nonce", "oauth_state", "next")
    browser.post("/replace", json={**dict.fromkeys(keys, "planted"), "cart": [7]})
    browser.login()
    expect("what moved into the login", browser.get("/data").json(), {"cart": [7]})


@row("FED-04")
def a_login_without_evidence_is_of_the_lowest_level(site: Site) -> None:
    """A login that says nothing of its level is AAL1, and is refused where a page asks for more."""
    browser = site.logged_in()
    expect("the level of a plain login", browser.get("/me").json()["level"], 10)
    expect("what asks for two factors", browser.post("/pay").status, 401)
    surer = site.logged_in(level=20)
    expect("the same for a login that says more", surer.post("/pay").status, 200)


@row("FED-05")
def a_user_is_an_issuers_user(site: Site) -> None:
    """Sessions are linked to issuer and sub together, and a token for another audience ends nobody."""
    with Outlet(site) as outlet:
        ours, theirs = outlet.logged_in("ann", "u1"), outlet.logged_in("bob", "u1", issuer=OTHER_ISSUER)
        site.clock.wind(5)
        expect("a token for another client", outlet.logout(_token(site, aud="blog", sub="u1")).status, 400)
        expect("who is logged in then", (_who(ours), _who(theirs)), ("ann", "bob"))
        expect("a token for us", outlet.logout(_token(site, sub="u1")).status, 200)
        expect("who is logged in then", (_who(ours), _who(theirs)), (None, "bob"))


def _began(site: Site, state: str) -> Browser:
    """Return a browser that was sent to a provider."""
    browser = site.browser()
    browser.get(f"/data?write=state&value={state}")
    return browser


# -- back-channel logout -----------------------------------------------------------------------------------------------


def _token(site: Site, *arguments: Any, **claims: Any) -> str:
    return logout_token(site.clock(), *arguments, **claims)


def vectors(now: float) -> list[tuple[str, int, dict[str, Any]]]:
    """Return the vectors of Back-Channel Logout section 2.6: what it is, the status, what differs from a good token."""
    here = json.dumps(key_set()["keys"][0]).encode()
    hs256, es256 = {"alg": "HS256"}, {"alg": "ES256", "kid": "curve"}
    return [
        ("a sid", 200, {"sub": ...}),
        ("a sub", 200, {"sid": ...}),
        ("both", 200, {}),
        ("an audience among others", 200, {"aud": ["blog", CLIENT]}),
        ("a sid that nobody knows", _NOBODY, {"sid": "nobody", "sub": ...}),
        ("typ JWT", 400, {"header": {"typ": "JWT"}}),
        ("no typ", 400, {"header": {"typ": ...}}),
        *((f"alg {none}", 400, {"by": None, "header": {"alg": none}}) for none in ("none", "None", "nOnE", "")),
        ("no signature", 400, {"by": None}),
        ("HS256 by a client secret", 400, {"by": b"a client secret of both", "header": hs256}),
        ("HS256 by the public key", 400, {"by": here, "header": hs256}),
        ("an alg that was not registered", 400, {"by": curve_key(), "header": es256}),
        ("a bad signature", 400, {"by": "evil"}),
        ("a small key", 400, {"by": "small", "header": {"kid": "small"}}),
        ("an unknown kid", 400, {"header": {"kid": "nine"}}),
        ("another iss", 400, {"iss": "https://evil.example"}),
        ("another aud", 400, {"aud": "blog"}),
        ("an iat of ten minutes ago", 400, {"iat": now - 600}),
        ("an iat that is text", 400, {"iat": "soon"}),
        ("an exp that has passed", 400, {"exp": now - 61}),
        ("no exp", 400, {"exp": ...}),
        ("neither sub nor sid", 400, {"sub": ..., "sid": ...}),
        ("no events", 400, {"events": ...}),
        ("an event that is text", 400, {"events": {LOGOUT: "yes"}}),
        ("other events", 400, {"events": {"https://example.com/other": {}}}),
        ("a nonce: an ID token", 400, {"nonce": "n"}),
        ("no jti", 400, {"jti": ...}),
    ]


_NOBODY = 204
"""What stands in a vector for: answered with 200, but nobody's session ends."""


@row("BCL-01")
def a_logout_token_is_checked_whole(site: Site) -> None:
    """The vectors of section 2.6 and more: each is taken or refused as it should be, and a refused one ends nobody."""
    with Outlet(site) as outlet:
        for number, (what, status, differs) in enumerate(vectors(site.clock() + 1)):
            browser = outlet.logged_in("ann", f"u{number}", f"s{number}")
            site.clock.wind(1)
            token = _token(site, **{"sub": f"u{number}", "sid": f"s{number}", **differs})
            expect(f"a logout token with {what}", outlet.logout(token).status, 200 if status == _NOBODY else status)
            expect(f"who is logged in after {what}", _who(browser), None if status == 200 else "ann")
        token = _token(site, sub="u1")
        expect("a token", outlet.logout(token).status, 200)
        expect("the same token again", outlet.logout(token).status, 400)


@row("BCL-02")
def a_logout_ends_what_it_names(site: Site) -> None:
    """A sid ends its session, a sub all of that user's at that issuer; others stay, and each is told why."""
    with Outlet(site) as outlet:
        one, two = outlet.logged_in("ann", "u1", "s1"), outlet.logged_in("ann", "u1", "s2")
        bob, other = outlet.logged_in("bob", "u2", "s3"), outlet.logged_in("ann", "u1", "s1", OTHER_ISSUER)
        own = site.logged_in("ann")
        site.clock.wind(5)
        expect("a logout by sid", outlet.logout(_token(site, sid="s1")).status, 200)
        expect("who is left", [_who(each) for each in (one, two, bob, other, own)], [None, "ann", "bob", "ann", "ann"])
        expect("why the first is over", one.get("/me").json()["why"], "sso_logout")
        three = outlet.logged_in("ann", "u1")
        site.clock.wind(5)
        expect("a logout by sub", outlet.logout(_token(site, sub="u1")).status, 200)
        expect("who is left", [_who(each) for each in (two, three, bob, other, own)], [None, None, "bob", "ann", "ann"])
        expect("a logout by both that do not fit", outlet.logout(_token(site, sub="u1", sid="s3")).status, 200)
        expect("who is left", _who(bob), "bob")


@row("BCL-03")
def a_logout_is_answered_as_the_standard_says(site: Site) -> None:
    """200 with an empty body, or 400 with a JSON error, never cached; a store that is away is no success."""
    with Outlet(site) as outlet:
        outlet.logged_in("ann", "u1")
        site.clock.wind(5)
        good, bad = outlet.logout(_token(site, sub="u1")), outlet.logout("nonsense")
        expect("a good one", (good.status, good.body, good.header("cache-control")), (200, b"", "no-store"))
        _is_error(bad)
        browser = outlet.logged_in("ann", "u1")
        site.clock.wind(5)
        for verb in ("load", "commit", "find"):
            site.trouble.fail(verb)
            _is_error(outlet.logout(_token(site, sub="u1")))
            site.trouble.fail(None)
        expect("the same when the store is back", outlet.logout(_token(site, sub="u1")).status, 200)
        expect("who is logged in then", browser.get("/me").status, 401)


def _is_error(answer: Received) -> None:
    expect("a refusal", (answer.status, answer.header("cache-control")), (400, "no-store"))
    expect("its type", answer.header("content-type"), "application/json")
    said = json.loads(answer.body)
    assert said["error"], "the refusal names no error"
    assert said["error_description"], "the refusal has no description"


@row("BCL-04")
def logout_tokens_are_short_fresh_and_counted_once(site: Site) -> None:
    """A second use, an old iat and a long body are refused; neither cookie nor Origin is asked for."""
    with Outlet(site) as outlet:
        token = _token(site, sub="u1")
        expect("the first use", outlet.logout(token).status, 200)
        browser = outlet.logged_in("ann", "u1")
        expect("the second use", outlet.logout(token).status, 400)
        expect("an iat of three minutes ago", outlet.logout(_token(site, sub="u1", iat=site.clock() - 180)).status, 400)
        long = logout_token(site.clock(), sub="u1", more="x" * 8192)
        expect("a long token", outlet.logout(long).status, 400)
        huge = outlet.send("/logout", b"logout_token=" + b"x" * 100_000, {"content-type": _FORM})
        assert huge.status in (400, 413), f"a body of 100 KB was answered with {huge.status}"
        expect("a GET", outlet.send("/logout", b"", {}, "GET").status, 405)
        expect("who is logged in after all that", _who(browser), "ann")
        site.clock.wind(5)
        crossed = outlet.logout(_token(site, sub="u1"), origin=ISSUER)
        expect("a good one with the Origin of another site", crossed.status, 200)
        expect("who is logged in then", _who(browser), None)


_FORM = "application/x-www-form-urlencoded"


# -- security events ---------------------------------------------------------------------------------------------------


def _opaque(sid: str) -> dict[str, Any]:
    return {"format": "opaque", "id": sid}


def _user(sub: str, iss: str = ISSUER) -> dict[str, Any]:
    return {"format": "iss_sub", "iss": iss, "sub": sub}


@row("SSF-01")
def a_revoked_session_is_heard_of(site: Site) -> None:
    """CAEP's session-revoked ends the sessions of every kind of subject; nobody else's, and no later login."""
    found = {"ann@example.com": "ann"}
    with Outlet(site, subject_of=lambda subject: found.get(str(subject.get("email")))) as outlet:
        subjects: list[tuple[str, dict[str, Any]]] = [
            ("an opaque session", _opaque("s1")),
            ("an issuer's user", _user("u1")),
            ("an e-mail address", {"format": "email", "email": "ann@example.com"}),
            ("a session and its user", {"format": "complex", "session": _opaque("s1"), "user": _user("u1")}),
            ("a user and a device", {"format": "complex", "user": _user("u1"), "device": _opaque("d")}),
            ("a user and a tenant", {"format": "complex", "user": _user("u1"), "tenant": _opaque("t")}),
        ]
        for what, subject in subjects:
            ann, bob = outlet.logged_in("ann", "u1", "s1"), outlet.logged_in("bob", "u2", "s2")
            site.clock.wind(5)
            token = event_token(site.clock(), subject)
            answer = outlet.event(token)
            expect(f"an event about {what}", (answer.status, answer.body), (202, b""))
            expect(f"who is left after {what}", (_who(ann), _who(bob)), (None, "bob"))
            expect("why it is over", ann.get("/me").json()["why"], "caep")
            later = outlet.logged_in("ann", "u1", "s1")
            expect("the same event again", outlet.event(token).status, 202)
            expect("who logged in after the event", _who(later), "ann")
            bob.post("/logout")
            later.post("/logout")
        bob = outlet.logged_in("bob", "u2", "s2")
        site.clock.wind(5)
        for what, token in _bad_events(site.clock()):
            answer = outlet.event(token)
            expect(f"an event with {what}", answer.status, 400)
        expect("who is logged in after all that", _who(bob), "bob")
        told = [event.detail["because"] for event in site.events("identity_provider_notice")]
        expect("what the events were about", set(told), {"caep"})


def _bad_events(now: float) -> list[tuple[str, str]]:
    bob = _user("u2")
    return [
        ("typ JWT", event_token(now, bob, header={"typ": "JWT"})),
        ("an exp", event_token(now, bob, exp=now + 60)),
        ("a sub", event_token(now, bob, sub="u2")),
        ("no subject", event_token(now, ...)),
        ("two events", event_token(now, bob, events={REVOKED: {}, "https://example.com/other": {}})),
        ("an old iat", event_token(now, bob, iat=now - 90_000)),
        ("a timestamp of tomorrow", event_token(now, bob, event={"event_timestamp": now + 86_400})),
        ("only a tenant", event_token(now, {"format": "complex", "tenant": _opaque("t")})),
        ("the user of another issuer", event_token(now, _user("u2", OTHER_ISSUER))),
    ]


@row("SSF-02")
def a_refused_event_says_why_in_the_registered_words(site: Site) -> None:
    """400 with JSON err and description, one of the words of RFC 8935, for each thing that can be wrong."""
    with Outlet(site, authorization="Bearer agreed") as outlet:
        now = site.clock()
        user, known = _user("u1"), {"authorization": "Bearer agreed"}
        wrong = [
            ("another signature", event_token(now, user, "evil"), known, "invalid_key"),
            ("alg none", event_token(now, user, None, header={"alg": "none"}), known, "invalid_key"),
            ("an unknown kid", event_token(now, user, header={"kid": "nine"}), known, "invalid_key"),
            ("another iss", event_token(now, user, iss="https://evil.example"), known, "invalid_issuer"),
            ("another aud", event_token(now, user, aud="https://blog.example"), known, "invalid_audience"),
            ("junk", "junk", known, "invalid_request"),
            ("no events", event_token(now, user, events=...), known, "invalid_request"),
            ("no Authorization", event_token(now, user), {}, "authentication_failed"),
            ("another Authorization", event_token(now, user), {"authorization": "Bearer x"}, "authentication_failed"),
            (
                "a subject that nobody can read",
                event_token(now, {"format": "did", "url": "d"}),
                known,
                "invalid_request",
            ),
            ("a tenant only", event_token(now, {"format": "complex", "tenant": _opaque("t")}), known, "access_denied"),
        ]
        for what, token, headers, code in wrong:
            answer = outlet.event(token, **headers)
            expect(f"the status for {what}", (answer.status, answer.header("content-type")), (400, "application/json"))
            said = json.loads(answer.body)
            expect(f"the word for {what}", said["err"], code)
            assert said["description"], "the refusal has no description"
        expect("a good one", outlet.event(event_token(now, user), **known).status, 202)


@row("SSF-03")
def a_revocation_is_told_to_others(site: Site) -> None:
    """What an operator ends is one signed event a session, which says why and ends the receiver's own."""
    try:
        from ...core import jose
        from ...notify.transmitter import Transmitter
    except ModuleNotFoundError as missing:
        unfit(f"the transmitter needs {missing.name}, which is not installed.")
    outbox: list[str] = []
    party: dict[str, Any] = {"issuer": ISSUER, "audience": CAEP, "outbox": outbox.append, "clock": site.clock}
    for what, key in (("1024 bits", private_key("small")), ("no private part", key_set()["keys"][0])):
        try:
            Transmitter(**party, key=key)
        except ConfigError:
            continue
        message = f"a signing key with {what} is taken"
        raise AssertionError(message)
    teller = Transmitter(**party, key=private_key("one"))
    shop = site.with_settings(on_event=[teller])
    with Outlet(site) as outlet:
        here, other = shop.logged_in(), shop.logged_in()
        (handle, _), bob = _handles(here, other), outlet.logged_in("bob", "bob", "s2")
        there = outlet.logged_in("ann", "alice", handle)
        site.clock.wind(5)
        shop.clock.wind(5)
        shop.control.registry.revoke(handle, actor="root")
        (token,) = _told(shop, outbox)
        header, _ = jose.peek(token)
        expect("its header", header, {"alg": "RS256", "typ": "secevent+jwt", "kid": "one"})
        expect("what the public keys show of the private one", set(teller.keys["keys"][0]) & {"d", "p", "q"}, set())
        claims = jose.verified(token, teller.keys["keys"], ("RS256",), "secevent+jwt")
        ((kind, event),) = claims.pop("events").items()
        expect("the event", kind, REVOKED)
        expect("its members", set(event), {"event_timestamp", "initiating_entity", "reason_admin", "reason_user"})
        expect("when and by whom", (event["event_timestamp"], event["initiating_entity"]), (int(shop.clock()), "admin"))
        assert all(event["reason_admin"].values()), "the event gives no reason"
        jti, iat = claims.pop("jti"), claims.pop("iat")
        user = {"format": "iss_sub", "iss": ISSUER, "sub": "alice"}
        subject = {"format": "complex", "session": {"format": "opaque", "id": handle}, "user": user}
        expect("the other claims", claims, {"iss": ISSUER, "aud": CAEP, "sub_id": subject})
        expect("when it was signed", iat, int(site.clock()))
        expect("what the receiver answers", outlet.event(token).status, 202)
        expect("who is logged in there", (_who(there), _who(bob)), (None, "bob"))
        shop.logged_in()
        shop.control.registry.revoke_all("alice")
        jtis = {jose.peek(each)[1]["jti"] for each in _told(shop, outbox)}
        expect("how many are told of a subject's two", len(jtis - {jti}), 2)
        expect("who the second was", other.get("/me").status, 401)
        shop.logged_in("carol")
        shop.clock.wind(86_400)
        shop.control.registry.purge()
        expect("what is told of an end by the clock", _told(shop, outbox), [])


def _handles(*browsers: Browser) -> tuple[str, ...]:
    return tuple((browser.token or "").split(".")[1] for browser in browsers)


def _told(site: Site, outbox: list[str]) -> list[str]:
    """Return what stands in the outbox once all listeners were told, and empty it."""
    for listener in site.control.plain.listeners:
        if isinstance(listener, Telling):
            expect("whether all was told in time", listener.drained(10.0), wanted=True)
    told = list(outbox)
    outbox.clear()
    return told


def _who(browser: Browser) -> str | None:
    answer = browser.get("/me")
    user: str | None = answer.json()["user"] if answer.status == 200 else None
    return user
