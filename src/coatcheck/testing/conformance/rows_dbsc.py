"""Rows of part L: sessions that are bound to their device, in a browser that signs as Chromium does."""

from __future__ import annotations

import re
from typing import Any

from ...core.dbsc import QUOTA_SAFE, WELL_KNOWN, Bound, DeviceBinding, unpacked
from ...core.floods import Floods
from ..browser import Received
from .devices import REFRESH, REGISTER, Device
from .forgeries import NAMES, registrations
from .registry import row
from .rows_cookies import attributes
from .site import ELSEWHERE, ORIGIN, Site, refused
from .verdicts import expect

OFFER = re.compile(r'\(ES256 RS256\);path="[^"]+";challenge="[A-Za-z0-9_-]{43,}"(;authorization="[A-Za-z0-9_-]+")?')
"""Secure-Session-Registration, a list of one inner list with its parameters (RFC 9651)."""

OFFERED = Bound(b"", 0.0)

ARRIVES = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def _bound(site: Site, **settings: object) -> tuple[Site, Device]:
    other = site.with_settings(binding="opportunistic", **settings)
    return other, Device(other).bind()


def _register(device: Device, proof: str) -> Received:
    return device.browser.post(REGISTER, headers={"secure-session-response": proof}, origin=ORIGIN)


def _refresh(device: Device, proof: str | None = None, **headers: str) -> Received:
    said = {} if proof is None else {"secure-session-response": proof}
    return device.browser.post(REFRESH, headers={"sec-secure-session-id": device.name, **said, **headers})


def _good(device: Device) -> str:
    return device.proof(device.offered("challenge"), register=True, authorization=device.offered("authorization"))


@row("DBS-01")
def test_offer(site: Site) -> None:
    """A login offers a binding with its answer, be it 200 or 303; no other answer does, and plain http never."""
    bound = site.with_settings(binding="opportunistic")
    browser = bound.browser()
    for answer in (browser.login(), browser.post("/login", {"user": "alice"}), browser.post("/reauth")):
        offer = answer.header("secure-session-registration") or ""
        expect(f"whether {offer!r} is well formed", bool(OFFER.fullmatch(offer)), wanted=True)
    for page in ("/me", "/data", "/data?write=k", "/form", "/?do=renew"):
        expect(f"the offer at {page}", browser.get(page).header("secure-session-registration"), None)
    local = site.with_settings(binding="opportunistic", allow_insecure_http=True, origins=[])
    plain = local.browser("http://localhost").login()
    expect("the offer on plain http", (plain.status, plain.header("secure-session-registration")), (200, None))


@row("DBS-02")
def test_challenge(site: Site) -> None:
    """A challenge counts for its own login, for registering only, once, and for five minutes."""
    bound = site.with_settings(binding="opportunistic")
    device, other = Device(bound), Device(bound, "bob")
    challenge, foreign = device.offered("challenge"), other.offered("challenge")
    expect("whether two logins have one challenge", challenge == foreign, wanted=False)
    said = device.offered("authorization")
    answer = _register(device, device.proof(foreign, register=True, authorization=said))
    expect("the answer to another login's challenge", (answer.status, answer.cookies), (403, []))
    good = _good(device)
    device.bind()
    expect("the answer to the same proof again", _register(device, good).status, 403)
    expect("the answer to it at the other endpoint", _refresh(device, device.proof(challenge)).status, 403)
    bound.clock.wind(301)
    expect("the answer five minutes later", _register(other, _good(other)).status, 403)


@row("DBS-03")
def test_registration_proof(site: Site) -> None:
    """Each of the 25 wrong proofs gets 403: no key is kept, no cookie is set, and the right one counts afterwards."""
    bound = site.with_settings(binding="opportunistic")
    device, stranger = Device(bound), Device(bound, "bob")
    shown = {"an expired jti", "a jti that was used", "a jwk at the refresh"}
    for name, tries in registrations(device, stranger).items():
        shown.add(name)
        for lines in tries:
            pairs = [("secure-session-response", line) for line in lines]
            _is_refused(bound, f"{name}: {lines}", device.browser.post(REGISTER, headers=pairs, origin=ORIGIN))
    expect("the kinds of wrong proofs", shown, set(NAMES))
    expect("whether it was told", bool(bound.events("dbsc_registration_refused")), wanted=True)
    late = Device(bound, "carol")
    bound.clock.wind(301)
    _is_refused(bound, "an expired jti", _register(late, _good(late)))
    device = Device(bound)
    good = _good(device)
    device.bind()
    told = device.browser.jar[device.bound_cookie]
    expect("the answer to a jti that was used", _register(device, good).status, 403)
    used = device.proof(device.challenge)
    expect("the answer to a refresh", _refresh(device, used).status, 200)
    again = _refresh(device, used)
    expect("the answer to a jti that was used, at the refresh", (again.status, again.cookies), (403, []))
    other = Device(bound, "dave")
    expect("the answer to the right key", device.refresh().status, 200)
    for header in ({"jwk": other.jwk}, {"jwk": device.jwk}):
        for sign in (other.signed, device.signed):
            answer = _refresh(device, device.proof(device.challenge, header=header, sign=sign))
            expect("the answer to a jwk at the refresh", (answer.status, answer.cookies), (403, []))
    expect("whether the first refresh set a new cookie", device.browser.jar[device.bound_cookie] == told, wanted=False)
    expect("the answer to the right key", device.refresh().status, 200)


def _is_refused(site: Site, what: str, answer: Received) -> None:
    expect(f"the answer to {what:.80}", (answer.status, answer.cookies), (403, []))
    keys = [one for one in site.records() if one.binding is not None and (unpacked(one.binding) or OFFERED).alg]
    expect(f"sessions with a key after {what:.80}", keys, [])


@row("DBS-04")
def test_one_key(site: Site) -> None:
    """A second key is refused and told of, and the first goes on; a new login may bring another."""
    bound, device = _bound(site)
    expect("the answer to another key", _register(device, _good(device)).status, 403)
    (event,) = bound.events("dbsc_rebind_refused")
    expect("whose it is", event.subject, "alice")
    expect("the answer to the first key", device.refresh().status, 200)
    device.offer = device.browser.login().header("secure-session-registration") or ""
    device.name = device.challenge = ""
    device.bind()


@row("DBS-05")
def test_registration_answer(site: Site) -> None:
    """The answer is JSON with the rules of the binding, sets the bound cookie, and is not stored."""
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound)
    answer = _register(device, _good(device))
    told = answer.json()
    expect("the answer", (answer.status, answer.header("content-type")), (200, "application/json"))
    expect("what caches are told", answer.header("cache-control"), "no-store")
    expect("its members", told.keys(), {"session_identifier", "refresh_url", "scope", "credentials"})
    expect("where to refresh", told["refresh_url"], REFRESH)
    expect("whether the whole site is meant", told["scope"], told["scope"] | {"include_site": False})
    (credential,) = told["credentials"]
    expect("the cookie that is bound", credential["name"], f"{bound.cookie}-b")
    expect("cookies that were set", [line.partition("=")[0] for line in answer.cookies], [credential["name"]])


@row("DBS-06")
def test_refresh(site: Site) -> None:
    """A refresh without a proof is 403 with a challenge for this session, and with one sets a new cookie."""
    bound, device = _bound(site)
    bound.clock.wind(300)
    answer = _refresh(device)
    challenge = re.fullmatch(r'"([^"]+)";id="([^"]+)"', answer.header("secure-session-challenge") or "")
    expect("the answer without a proof", (answer.status, answer.cookies), (403, []))
    expect("the session that its challenge names", challenge and challenge[2], device.name)
    before = device.browser.jar[device.bound_cookie]
    answered = _refresh(device, device.proof(challenge[1] if challenge else ""))
    expect("the answer to a proof", answered.status, 200)
    expect("whether the next challenge comes with it", bool(answered.header("secure-session-challenge")), wanted=True)
    expect("whether the cookie is a new one", device.browser.jar[device.bound_cookie] == before, wanted=False)


@row("DBS-07")
def test_former_challenge(site: Site) -> None:
    """A proof for the challenge before the newest counts; an aged one is asked again, never ended."""
    bound, device = _bound(site)
    first = device.challenge
    bound.clock.wind(1)
    newer = _refresh(device)
    expect("the answer without a proof", newer.status, 403)
    expect("the answer to the challenge before", _refresh(device, device.proof(first)).status, 200)
    expect("the answer to the same one again", _refresh(device, device.proof(first)).status, 403)
    bound.clock.wind(700)
    aged = _refresh(device, device.proof(device.challenge))
    expect("the answer to an aged one", (aged.status, bool(aged.header("secure-session-challenge"))), (403, True))
    expect("the answer to the one that it brought", device.refresh().status, 200)


@row("DBS-08")
def test_no_fatal_answer(site: Site) -> None:
    """Away or busy is 503 with Retry-After, never 429; a bad proof is asked again, then unknown; a good one counts."""
    bound, device = _bound(site)
    stranger = Device(bound, "bob")
    for verb in ("load", "commit"):
        bound.trouble.fail(verb)
        answer = _refresh(device, device.proof(device.challenge))
        bound.trouble.fail(None)
        expect(f"the answer while {verb} fails", (answer.status, answer.cookies), (503, []))
        expect("whether it says when to come back", bool(answer.header("retry-after")), wanted=True)
    commits = len(bound.trouble.commits)
    said = []
    for _ in range(50):
        answer = _refresh(device, stranger.proof(device.challenge))
        said.append(answer.status)
        asks = bool(answer.header("secure-session-challenge"))
        expect("whether a bad proof is asked again", asks, wanted=answer.status == 403)
    first = said.index(404) if 404 in said else 0
    expect("how many of 50 are asked again first", 5 < first < 50, wanted=True)
    expect("the answers to bad proofs", said, [403] * first + [404] * (50 - first))
    expect("what bad proofs wrote", len(bound.trouble.commits) - commits, 0)
    expect("the answer without a proof", _refresh(device).status, 403)
    expect("the answer to a good one", device.refresh().status, 200)
    unknown = device.browser.post(REFRESH, headers={"sec-secure-session-id": "A" * 42})
    expect("the answer to a session that is not there", unknown.status, 404)
    device.browser.post("/logout")
    _over(device)
    _waits(site)


def _waits(site: Site) -> None:
    """Show the limit: a network that proves nothing waits, and its good proofs are served all the same."""
    bound, device = _bound(site, floods=Floods(refuse=3))
    stranger = Device(bound, "bob")
    bad = {"sec-secure-session-id": device.name, "secure-session-response": stranger.proof(device.challenge)}
    unknown = [
        {"sec-secure-session-id": "A" * 42},
        {"sec-secure-session-id": f"{device.name[:18]}{'A' * 24}"},
        {"sec-secure-session-id": "x"},
    ]
    for asks, status in (([bad] * 6, 403), (unknown * 2, 404)):
        answers = [device.browser.post(REFRESH, headers=headers) for headers in asks]
        expect("the answers", [answer.status for answer in answers], [status] * 3 + [503] * 3)
        waits = [answer.header("retry-after") is not None for answer in answers]
        expect("who is told when to come back", waits, [False] * 3 + [True] * 3)
        expect("the answer to the other kind", _refresh(device, "x").status, 503)
        expect("the answer without a proof", _refresh(device).status, 403)
        expect("the answer to a good proof", device.refresh().status, 200)
        bound.clock.wind(61)
    expect("who the owner is", device.browser.get("/me").status, 200)


@row("DBS-09")
def test_refresh_obeys_the_clocks(site: Site) -> None:
    """A refresh after a revocation, or after the idle time, ends the binding and sets no cookie; it is no activity."""
    bound, device = _bound(site)
    seen = bound.records()[-1].seen_at
    bound.clock.wind(400)
    expect("the answer while all is well", device.refresh().status, 200)
    expect("the activity that it counts as", bound.records()[-1].seen_at - seen, 0)
    bound.control.registry.revoke_all("alice")
    _over(device)
    bound, device = _bound(site)
    for _ in range(9):
        bound.clock.wind(400)
        device.refresh()
    bound.clock.wind(400)
    _over(device)


def _over(device: Device) -> None:
    answer = device.refresh()
    expect("the answer to a refresh of what is over", (answer.status, answer.cookies), (200, []))
    expect("what it says", answer.json(), {"session_identifier": device.name, "continue": False})


@row("DBS-10")
def test_arrival_from_elsewhere(site: Site) -> None:
    """A link from another site with an aged cookie gets one page without data that comes back; a copy then gets 401."""
    bound, device = _bound(site)
    bound.clock.wind(601)
    thief = device.browser.twin()
    page = device.browser.get("/data?a=1", site="cross-site", headers=ARRIVES)
    expect("the answer to the link", page.status, 200)
    expect("where it leads", "url=/data?a=1&amp;coat-bounced=1" in page.text, wanted=True)
    again = thief.get("/data?a=1&coat-bounced=1", site="cross-site", headers=ARRIVES)
    expect("whether a copy is led on", "refresh" in again.text, wanted=False)
    expect("the answer to the copy at a private page", thief.get("/me").status, 401)
    expect("the answer to a form from elsewhere", _posted(device), 403)
    expect("the answer to the refresh", device.refresh().status, 200)
    landed = device.browser.get("/data?a=1&coat-bounced=1")
    expect("where the browser lands", (landed.status, landed.header("location")), (303, "/data?a=1"))


def _posted(device: Device) -> int:
    return device.browser.post("/data", site="cross-site", origin=ELSEWHERE, headers=ARRIVES).status


@row("DBS-11")
def test_relogin_ends_the_binding(site: Site) -> None:
    """After another login the old binding's refresh sets no cookie, and the new session stays."""
    bound, device = _bound(site)
    other = Device(bound, "bob")
    device.browser.login("bob")
    answer = device.refresh()
    expect("cookies of the old refresh", answer.cookies, [])
    over = answer.status == 404 or answer.json()["continue"] is False
    expect("whether it is over", over, wanted=True)
    expect("who is logged in", device.browser.get("/me").json()["user"], "bob")
    expect("the answer to somebody else's", other.bind().refresh().status, 200)


@row("DBS-12")
def test_attributes_are_the_cookies(site: Site) -> None:
    """The attributes that the browser is told are those of the cookie that is set, for every way to set it."""
    for settings in ({}, {"same_site": "Strict"}, {"name": "__Host-Http-coat"}):
        bound = site.with_settings(binding="opportunistic", **settings)
        device = Device(bound)
        answer = _register(device, _good(device))
        (credential,) = answer.json()["credentials"]
        told, was = attributes(f"x; {credential['attributes']}"), attributes(answer.cookies[0])
        del was["max-age"]
        was.pop("expires", None)
        expect("the attributes", told, was)


@row("DBS-13")
def test_lifetime(site: Site) -> None:
    """A bound cookie lasts 600 seconds unless chosen otherwise, and under 300 only with a reason."""
    expect("the lifetime", DeviceBinding().lifetime, 600.0)
    expect("the shortest one", QUOTA_SAFE, 300.0)
    expect("why 299 s are refused", "299" in refused(binding=DeviceBinding(lifetime=299.0)), wanted=True)
    bound, device = _bound(site)
    refreshes = 0
    for _ in range(60):
        bound.clock.wind(60)
        if bound.clock() % 600 < 60:
            refreshes += device.refresh().status == 200
        device.browser.get("/me")
    expect("proofs of an hour, at most six in nine minutes", refreshes <= 40, wanted=True)


@row("DBS-14")
def test_skipped(site: Site) -> None:
    """A browser that says it could not refresh is told of in an event, and gets no session by it."""
    bound, device = _bound(site)
    thief = device.browser.twin()
    del thief.jar[device.bound_cookie]
    bound.clock.wind(61)
    for why in ("unreachable", "server_error", "quota_exceeded"):
        said = {"secure-session-skipped": f'{why};session_identifier="{device.name}"'}
        expect(f"the answer to {why}", thief.get("/me", headers=said).status, 401)
    kinds = {event.detail["kind"] for event in bound.events("dbsc_skipped")}
    expect("what was told", kinds, {"unreachable", "server_error", "quota_exceeded"})


@row("DBS-15")
def test_well_known(site: Site) -> None:
    """The well-known address is JSON of what was named, a provider or relying sites, never both; else it is 404."""
    one, two = "https://one.example", "https://two.example"
    provider: dict[str, Any] = {"relying_origins": [one, two], "registering_origins": [f"https://app.{ORIGIN[8:]}"]}
    for named in (provider, {"provider_origin": one}):
        bound = site.with_settings(binding=DeviceBinding(**named))
        for where in (None, "cross-site"):
            answer = bound.ask("GET", WELL_KNOWN, site=where)
            expect("the answer", (answer.status, answer.header("content-type")), (200, "application/json"))
            expect("what it says", answer.json(), named)
            expect("cookies that it sets", answer.cookies, [])
        expect("the answer to a POST", bound.ask("POST", WELL_KNOWN).status, 405)
        expect("whether a session is bound as ever", Device(bound).bind().refresh().status, 200)
    for settings in ({"binding": "opportunistic"}, {}):
        expect("the answer where nothing is named", site.with_settings(**settings).ask("GET", WELL_KNOWN).status, 404)
    wrongs: list[dict[str, Any]] = [
        {"relying_origins": [one], "provider_origin": two},
        {"provider_origin": "http://one.example"},
        {"relying_origins": [f"{one}/path"]},
        {"registering_origins": ["*.example"]},
    ]
    for wrong in wrongs:
        reason = refused(origins=[ORIGIN], binding=DeviceBinding(**wrong))
        expect(f"whether {wrong} is refused by name", "binding" in reason, wanted=True)


@row("DBS-16")
def test_both_cookies(site: Site) -> None:
    """A bound session without its bound cookie, or with another's, is nobody's, and told of."""
    bound, device = _bound(site)
    other = Device(bound, "bob").bind()
    bound.clock.wind(61)
    without, alone, mixed = (device.browser.twin() for _ in range(3))
    del without.jar[device.bound_cookie]
    del alone.jar[bound.cookie]
    mixed.jar[device.bound_cookie] = other.browser.jar[device.bound_cookie]
    for what, browser in (("without the bound cookie", without), ("with it alone", alone), ("mixed", mixed)):
        expect(f"the answer {what}", browser.get("/me").status, 401)
    expect("what was told", bool(bound.events("dbsc_binding_missing")), wanted=True)
    expect("the answer to both", device.browser.get("/me").status, 200)


@row("DBS-17")
def test_endpoints_are_guarded(site: Site) -> None:
    """The endpoints cannot be framed or read by other sites, and grant nothing to a preflight."""
    bound, device = _bound(site)
    answers = [_refresh(device), device.refresh(), _register(device, "x"), device.browser.get(REFRESH)]
    for answer in answers:
        expect("whether it may be framed", answer.header("x-frame-options"), "DENY")
        expect("who may load it", answer.header("cross-origin-resource-policy"), "same-origin")
    asks = {"access-control-request-method": "POST"}
    for path in (REGISTER, REFRESH):
        preflight = bound.ask("OPTIONS", path, origin=ELSEWHERE, site="cross-site", headers=asks)
        granted = [name for name, _ in (*preflight.headers, *answers[0].headers) if name.lower().startswith("access-")]
        expect(f"what a preflight of {path} is granted", granted, [])


@row("DBS-18")
def test_others_live_as_ever(site: Site) -> None:
    """A browser that ignores the offer keeps an ordinary session for hours."""
    bound = site.with_settings(binding="opportunistic")
    browser = bound.logged_in()
    for _ in range(12):
        bound.clock.wind(1000)
        expect("the answer", browser.get("/me").status, 200)
    expect("cookies in its jar", set(browser.jar), {bound.cookie})
