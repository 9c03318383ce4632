"""A thief between two frameworks: Flask and FastAPI on one store, each of them asked for what the other refused.

One application in two halves is common (an old one and its successor); what one half learns of a stolen jar counts in
the other, and what one of them spells differently (slashes, escapes, repeated headers) is no way around the device.
"""

from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import pytest

from coatcheck import DeviceBinding
from coatcheck.core import dbsc
from coatcheck.core.binder import MOST_BAD
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from tests.support.devices import DeviceKey

from .frameworks import FrameworkHouse
from .house import COOKIE, OURS, Ask, Pairs
from .test_device_binding import BOUND, BY_BROWSER, FROM_ELSEWHERE, ORIGIN, REFRESH, REGISTER, Browser
from .test_lineage import RENEW

Two = tuple[FrameworkHouse, FrameworkHouse]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def build(clock: Clock) -> Iterator[Callable[..., Two]]:
    """Return a maker of both halves, on one store."""
    store, houses = MemoryStore(clock=clock), []

    def made(**settings: Any) -> Two:
        houses.extend(FrameworkHouse(kind, store, clock, **settings) for kind in ("flask", "fastapi"))
        return houses[-2], houses[-1]

    yield made
    for house in houses:
        house.close()


@pytest.fixture(params=["flask first", "fastapi first"])
def two(request: pytest.FixtureRequest, build: Callable[..., Two]) -> Two:
    """Return the two halves, each as the first one."""
    flask, fastapi = build(binding="opportunistic")
    return (flask, fastapi) if request.param == "flask first" else (fastapi, flask)


def at(house: FrameworkHouse, browser: Browser) -> Browser:
    """Return the browser, in front of the other half."""
    browser.house = house
    return browser


def proved(browser: Browser, *said: tuple[str, str]) -> Any:
    """Send headers to the refresh, without any cookie, as who copied only those."""
    return browser.house.ask(Ask("POST", REFRESH, (*BY_BROWSER, *said)))


def named(browser: Browser, proof: str, name: str | None = None) -> tuple[tuple[str, str], ...]:
    return ("sec-secure-session-id", browser.name if name is None else name), ("secure-session-response", proof)


# -- no downgrade ------------------------------------------------------------------------------------------------------


def test_what_one_half_bound_is_bound_in_the_other(two: Two, clock: Clock) -> None:
    """Nor does a secret renewed there, by its clock or by hand, leave the device behind."""
    here, there = two
    browser = Browser(here).bind()
    thief = at(there, browser.copied(without=BOUND))
    clock.wind(61)
    assert thief.user is None
    for step in (RENEW, 1.0):
        clock.wind(step)
        assert at(there, browser).refresh().status == 200
        assert browser.user == "alice"
        assert at(here, browser.copied(without=BOUND)).user is None
    assert browser.send("POST", "/data?do=renew").status == 200
    stripped = at(here, browser.copied(without=BOUND))
    assert (stripped.user, browser.user) == (None, "alice")
    assert dbsc.is_bound(browser.record.binding)


def test_a_thief_in_the_first_minute_gets_no_life_of_his_own(two: Two, clock: Clock) -> None:
    """Requests without the bound cookie are honoured for a minute; nothing that they ask for lasts longer."""
    here, there = two
    browser = Browser(here).bind()
    thief = at(there, browser.copied(without=BOUND))
    assert thief.user == "alice"
    thief.key = DeviceKey()
    thief.offer = browser.offer
    assert thief.register().status == 403, "the session has its key"
    assert thief.send("POST", "/data?do=renew").status == 200
    assert thief.offer == browser.offer, "no other offer came"
    clock.wind(61)
    assert thief.user is None
    thief.name, thief.challenge = thief.record.handle + "A" * 24, ""
    answer = at(here, thief).send("POST", REFRESH, (*BY_BROWSER, ("sec-secure-session-id", thief.name)))
    assert answer.status == 404, "he never learnt what the session is called"


@pytest.mark.parametrize("target", ["/me", "/data", "/private", "/account/sessions"])
@pytest.mark.parametrize(
    "headers",
    [
        (("secure-session-skipped", "unreachable"),),
        (("sec-secure-session-id", "x"), ("secure-session-response", "x")),
        (("secure-session-registration", "none"), ("secure-session-challenge", "none")),
        (("x-device-bound", "true"), ("upgrade", "websocket"), ("purpose", "prefetch")),
        (
            ("x-forwarded-for", "127.0.0.1"),
            ("x-original-url", "/static/app.css"),
            ("x-http-method-override", "OPTIONS"),
        ),
    ],
)
def test_no_header_of_a_thief_stands_for_the_device(
    build: Callable[..., Two], clock: Clock, target: str, headers: Pairs
) -> None:
    here, there = build(binding="opportunistic")
    browser = Browser(here).bind()
    browser.send("GET", "/data?write=k&value=private")
    clock.wind(61)
    for house in (here, there):
        thief = at(house, browser.copied(without=BOUND))
        for method in ("GET", "HEAD"):
            answer = thief.send(method, target, (*OURS, *headers))
            assert b"alice" not in answer.body
            assert b"private" not in answer.body
            assert answer.set_cookies == []


# -- registrations -----------------------------------------------------------------------------------------------------


def test_a_registration_counts_once_in_both_halves_together(two: Two, clock: Clock) -> None:
    """Replayed by a thief with the cookie, at either half: before and after the session was bound, after a login."""
    here, there = two
    browser = Browser(here).login()
    proof = browser.registration()
    thief = browser.copied()
    assert browser.register(proof).status == 200
    for house in (there, here):
        assert (at(house, thief).register(proof).status, thief.jar.get(BOUND)) == (403, None)
    assert at(there, browser).user == "alice"
    assert at(there, thief).register(proof).status == 403
    browser.name = browser.challenge = ""
    browser.login()
    fresh = browser.copied()
    assert at(here, fresh).register(proof).status == 403, "another login's challenge"
    assert browser.register().status == 200
    assert browser.refresh().status == 200


def test_an_offer_of_one_session_binds_no_other(two: Two) -> None:
    """Mallory registers, in the victim's session, with the offer of his own; and the other way round."""
    here, there = two
    victim, mallory = Browser(here).login(), Browser(there).login("mallory")
    for jar, offer in ((victim.jar, mallory.offer), (mallory.jar, victim.offer)):
        mixed = Browser(there)
        mixed.jar, mixed.offer = dict(jar), offer
        assert mixed.register().status == 403
    assert victim.register().status == 200
    assert victim.user == "alice"


# -- refreshes ---------------------------------------------------------------------------------------------------------


def test_only_its_own_key_and_challenge_refresh_a_session(two: Two, clock: Clock) -> None:
    """Names, challenges and keys of two bound sessions, in every other combination, at either half."""
    here, there = two
    ann, bob = Browser(here).bind("ann"), Browser(there).bind("bob")
    ann.key.alg = bob.key.alg = "ES256"
    for house in (here, there):
        for of, key, challenge in (
            (ann, bob.key, ann.challenge),
            (ann, bob.key, bob.challenge),
            (ann, ann.key, bob.challenge),
            (bob, ann.key, ann.challenge),
            (bob, bob.key, ann.challenge),
        ):
            answer = proved(at(house, of), *named(of, key.proof(challenge)))
            assert (answer.status, answer.set_cookies) == (403, [])
    for name in (ann.name[:18] + bob.name[18:], bob.name[:18] + ann.name[18:]):
        answer = proved(at(there, ann), *named(ann, ann.key.proof(ann.challenge), name))
        assert (answer.status, answer.set_cookies) == (404, [])
    assert [at(house, browser).refresh().status for house, browser in ((there, ann), (here, bob))] == [200, 200]


def test_a_proof_counts_once_in_both_halves_together(two: Two, clock: Clock) -> None:
    """One that was caught on its way; also at the same time, and a challenge that both halves gave out."""
    here, there = two
    browser = Browser(here).bind()
    proof = browser.key.proof(browser.challenge)
    asks = [Ask("POST", REFRESH, (*BY_BROWSER, *named(browser, proof)))] * 2
    pending = [house.start(*asks) for house in two]
    answers = [answer for each in pending for answer in each.answers()]
    assert sorted(answer.status for answer in answers) == [200, 403, 403, 403]
    clock.wind(1)
    challenges = []
    for house in (here, there):
        answer = proved(at(house, browser), ("sec-secure-session-id", browser.name))
        challenges.append((answer.header("secure-session-challenge") or "").split('"')[1])
    newer, older = browser.key.proof(challenges[1]), browser.key.proof(challenges[0])
    assert proved(at(here, browser), *named(browser, newer)).status == 200
    assert proved(at(there, browser), *named(browser, older)).status == 403, "one before it, once that was answered"
    assert proved(at(there, browser), *named(browser, newer)).status == 403


def test_a_flood_of_bad_proofs_hurts_nobody_in_the_other_half(two: Two, clock: Clock) -> None:
    """DBS-08, H2: each half counts for itself; the owner is served by both."""
    here, there = two
    browser = Browser(here).bind()
    bad = named(browser, DeviceKey().proof(browser.challenge))
    said = [proved(at(here, browser), *bad).status for _ in range(MOST_BAD + 5)]
    assert said == [403] * MOST_BAD + [404] * 5
    for house in (here, there):
        assert at(house, browser).refresh().status == 200
        assert browser.user == "alice"
    clock.wind(600)
    assert proved(at(here, browser), *bad).status == 403, "ten minutes later he may begin anew"


ODD: list[tuple[str, Pairs]] = [
    ("two names", (("sec-secure-session-id", "{name}"), ("sec-secure-session-id", "{other}"))),
    ("one name twice", (("sec-secure-session-id", "{name}"), ("sec-secure-session-id", "{name}"))),
    ("a list of names", (("sec-secure-session-id", '"{name}", "{other}"'),)),
    ("a name with more behind it", (("sec-secure-session-id", "{name}x"),)),
    ("a name in another alphabet", (("sec-secure-session-id", "{wide}"),)),
    ("a name and a NUL", (("sec-secure-session-id", "{name}%00"),)),
    ("an inner quotation mark", (("sec-secure-session-id", '"{name}""'),)),
    ("an escaped name", (("sec-secure-session-id", "{escaped}"),)),
    ("a space that is none", (("sec-secure-session-id", "\xa0{name}"),)),
]


@pytest.mark.parametrize(("what", "said"), ODD, ids=[what for what, _ in ODD])
def test_a_name_has_one_spelling(build: Callable[..., Two], what: str, said: Pairs) -> None:
    """404 with a good proof, and the other session, whose name stands there too, is not touched either."""
    houses = build(binding="opportunistic")
    browser, other = Browser(houses[0]).bind(), Browser(houses[1]).bind("bob")
    words = {
        "name": browser.name,
        "other": other.name,
        "wide": "\xaa" + browser.name[1:],
        "escaped": browser.name[:-1] + f"%{ord(browser.name[-1]):02x}",
    }
    headers = tuple((str(name), str(value).format(**words)) for name, value in said)
    for house in houses:
        proof = browser.key.proof(browser.challenge)
        answer = proved(at(house, browser), *headers, ("secure-session-response", proof))
        assert (answer.status, answer.set_cookies) == (404, []), what
        assert answer.header("secure-session-challenge") is None
    for house in houses:
        assert at(house, browser).refresh().status == 200
        assert at(house, other).refresh().status == 200


PROOFS: list[tuple[str, Callable[[str, str], tuple[tuple[str, str], ...]]]] = [
    ("twice", lambda good, _: (("secure-session-response", good),) * 2),
    ("a bad one first", lambda good, bad: (("secure-session-response", bad), ("secure-session-response", good))),
    ("a bad one behind", lambda good, bad: (("secure-session-response", good), ("secure-session-response", bad))),
    ("a list", lambda good, bad: (("secure-session-response", f'"{bad}", "{good}"'),)),
    ("inner white space", lambda good, _: (("secure-session-response", good.replace(".", ". ", 1)),)),
    ("another alphabet", lambda good, _: (("secure-session-response", f"\xaa{good}"),)),
    ("one quotation mark", lambda good, _: (("secure-session-response", f'"{good}'),)),
    ("deep nesting", lambda *_: (("secure-session-response", f"{'W1tb' * 900}.{'W1tb' * 60}.AAAA"),)),
]


@pytest.mark.parametrize(("what", "said"), PROOFS, ids=[what for what, _ in PROOFS])
def test_a_proof_has_one_spelling_and_comes_once(build: Callable[..., Two], what: str, said: Any) -> None:
    """At both endpoints: no fault, no cookie, and the proof is not used up by it."""
    houses = build(binding="opportunistic")
    browser = Browser(houses[0]).login()
    good, bad = browser.registration(), DeviceKey().proof("A" * 75, register=True)
    for house in houses:
        browser.house = house
        answer = browser.send("POST", REGISTER, (*BY_BROWSER, *said(good, bad)))
        assert (answer.status, answer.set_cookies) == (403, []), what
    assert browser.register(good).status == 200
    assert browser.user == "alice"
    good = browser.key.proof(browser.challenge)
    for house in houses:
        answer = proved(at(house, browser), ("sec-secure-session-id", browser.name), *said(good, bad))
        assert (answer.status, answer.set_cookies) == (403, []), what
    assert proved(browser, *named(browser, good)).status == 200


# -- where it is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "//private",
        "/private/",
        "/./private",
        "/x/../private",
        "/%70rivate",
        "/private%2f",
        "/private;x=1",
        "/PRIVATE",
        "/private%20",
        "/private%00",
        "/static/../private",
        "/static/%2e%2e/private",
        "/static//private",
        "/private?coat-bounced=1",
        "/private#/static/x",
    ],
)
def test_a_route_for_devices_has_no_other_name(build: Callable[..., Two], clock: Clock, path: str) -> None:
    """Scope confusion: however its path is spelt, no half serves the page to a session that is not bound."""
    houses = build(binding=DeviceBinding(routes=("/private",)))
    browser = Browser(houses[0]).login()
    for house in houses:
        answer = at(house, browser).send("GET", path)
        assert b'"user"' not in answer.body, answer
        assert at(house, browser).user == "alice"


@pytest.mark.parametrize(
    "path", ["/static/../me", "/static/%2e%2e/me", "/static/..%2fme", "/favicon.ico/../me", "/static;/me"]
)
def test_no_path_that_looks_static_shows_a_session(build: Callable[..., Two], clock: Clock, path: str) -> None:
    houses = build(binding="opportunistic")
    browser = Browser(houses[0]).bind()
    clock.wind(61)
    for house in houses:
        answer = at(house, browser.copied(without=BOUND)).send("GET", path)
        assert b"alice" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        f"/{REFRESH}",
        f"{REFRESH}/",
        f"{REFRESH}/x",
        REFRESH.upper(),
        REFRESH.replace("/refresh", "/./refresh"),
        REFRESH.replace("/refresh", "%2frefresh"),
        f"{REFRESH};x",
    ],
)
def test_an_endpoint_has_no_other_name(build: Callable[..., Two], path: str) -> None:
    """A proof counts where the browser was told to bring it; elsewhere it is a header like any other."""
    houses = build(binding="opportunistic")
    browser = Browser(houses[0]).bind()
    for house in houses:
        said = named(browser, browser.key.proof(browser.challenge))
        answer = house.ask(Ask("POST", path, (*BY_BROWSER, *said)))
        if path != REFRESH.replace("/refresh", "%2frefresh"):  # the same path, once it is decoded
            assert answer.set_cookies == []
            assert answer.header("secure-session-challenge") is None


@pytest.mark.parametrize("target", ["/data?q=%C3%BC%20%22%3Cscript%3E", "/data?q=a%0d%0aSet-Cookie:%20x=1&r=%00"])
def test_a_bounce_goes_to_the_same_place_in_both_halves(build: Callable[..., Two], clock: Clock, target: str) -> None:
    """Nothing of the query breaks out of the page, or of the redirect's header, and none of it is lost."""
    houses = build(binding="opportunistic")
    browser = Browser(houses[0]).bind()
    clock.wind(601)
    seen = set()
    for house in houses:
        page = at(house, browser.copied(without=BOUND)).send("GET", target, FROM_ELSEWHERE)
        assert page.status == 200
        assert b"<script>" not in page.body
        assert f'url={escape(target)}&amp;{dbsc.BOUNCED}"'.encode() in page.body
        seen.add(page.body)
    assert len(seen) == 1
    assert browser.refresh().status == 200
    for house in houses:
        landed = at(house, browser).send("GET", f"{target}&{dbsc.BOUNCED}")
        assert (landed.status, landed.header("location"), landed.set_cookies) == (303, target, [])


# -- theft evidence ----------------------------------------------------------------------------------------------------


def test_an_old_secret_is_evidence_in_the_other_half(two: Two, clock: Clock) -> None:
    """Renewed in one, replayed in the other: refused, then theft, and both halves know; bound or not."""
    here, there = two
    for bound in (False, True):
        browser = Browser(here)
        browser = browser.bind() if bound else browser.login()
        old = browser.copied()
        clock.wind(RENEW)
        if bound:
            assert browser.refresh().status == 200
        assert browser.user == "alice"
        assert browser.jar[COOKIE] != old.jar[COOKIE]
        assert browser.user == "alice"
        clock.wind(66)
        thief = at(there, old)
        assert (thief.user, browser.user) == (None, "alice"), "a straggler"
        clock.wind(240)
        assert thief.user is None
        assert (at(here, browser).user, at(there, browser).user) == (None, None)
        assert browser.record.ended_because == "theft"
        if bound:
            answer = browser.refresh()
            assert (answer.json["continue"], answer.set_cookies) == (False, [])
    assert [event.detail["kind"] for event in here.events("session_token_reuse")] == ["straggler", "late"] * 2


def test_the_bound_cookie_of_one_device_is_nobody_elses(two: Two, clock: Clock) -> None:
    """Two bound sessions of one user, their cookies exchanged, doubled and mixed, at either half."""
    here, there = two
    one, other = Browser(here).bind(), Browser(there).bind()
    clock.wind(61)
    for house in (here, there):
        for long, short in ((one, other), (other, one)):
            mixed = at(house, long.copied())
            mixed.jar[BOUND] = short.jar[BOUND]
            assert mixed.user is None
            mixed.jar[BOUND] = f"{long.jar[BOUND]}; {BOUND}={short.jar[BOUND]}"
            assert mixed.user is None
            mixed.jar[BOUND] = f"{long.jar[BOUND]}; {BOUND}={long.jar[BOUND]}"
            assert mixed.user == "alice", "the same value twice is one"
            for spelt in (f'"{long.jar[BOUND]}"', long.jar[BOUND].swapcase(), f"{long.jar[BOUND]}\xa0", ""):
                mixed.jar[BOUND] = spelt
                assert mixed.user is None, spelt
    assert [at(house, browser).user for house in (here, there) for browser in (one, other)] == ["alice"] * 4


def test_the_audience_is_the_application_not_the_half(two: Two) -> None:
    """A browser that says where it brings its proof (a flag of Chromium) is believed for these endpoints only."""
    here, there = two
    browser = Browser(here).bind()
    for audience in (
        f"{ORIGIN}{REGISTER}",
        "https://evil.test" + REFRESH,
        f"{ORIGIN}{REFRESH}/",
        f"{ORIGIN}:8443{REFRESH}",
    ):
        answer = proved(at(there, browser), *named(browser, browser.key.proof(browser.challenge, aud=audience)))
        assert (answer.status, answer.set_cookies) == (403, []), audience
    good = browser.key.proof(browser.challenge, aud=f"{ORIGIN}{REFRESH}")
    assert proved(at(there, browser), *named(browser, good)).status == 200
