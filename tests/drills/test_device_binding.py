"""A stolen jar without the device (D23 to D31, D38; H1, H2, H6, M14; DBS-01 to DBS-18, TMO-12, TMO-16).

The honest browser here signs as Chromium does; the thief has its cookies, its identifiers and all that was ever said,
but not the key. test_binding_in_chromium.py asks a real one.
"""

import re
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import DeviceBinding
from coatcheck.core import dbsc
from coatcheck.core.binder import MOST_BAD
from coatcheck.core.model import Record, Update
from coatcheck.testing import probe
from coatcheck.testing.clock import Clock
from tests.support.devices import DeviceKey, encoded

from .conftest import Build
from .house import COOKIE, FORM, ORIGIN, OURS, Answer, Ask, House, Pairs

REGISTER, REFRESH = "/coatcheck/device/register", "/coatcheck/device/refresh"
BOUND = f"{COOKIE}-b"
BAD_PROOFS, ORDERS = 1000, 20
BY_BROWSER = (("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "no-cors"), ("origin", ORIGIN))
FROM_ELSEWHERE = (
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
)
TYPED = (("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))


class Browser:
    """A browser with device binding: a jar, a key, and what it was told."""

    def __init__(self, house: House, alg: str = "ES256") -> None:
        self.house, self.key = house, DeviceKey(alg)
        self.jar: dict[str, str] = {}
        self.offer: str | None = None
        self.name = ""
        self.challenge = ""
        self.told: dict[str, Any] = {}

    def send(self, method: str, target: str, headers: Pairs = OURS, body: bytes = b"") -> Answer:
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        cookies = (("cookie", cookie),) if cookie else ()
        answer = self.house.ask(Ask(method, target, (*cookies, *headers), body))
        for line in answer.set_cookies:
            name, _, value = line.partition(";")[0].partition("=")
            if value:
                self.jar[name] = value
            else:
                self.jar.pop(name, None)
        self.offer = answer.header("secure-session-registration") or self.offer
        again = answer.header("secure-session-challenge")
        if again is not None:
            match = re.fullmatch(r'"([^"]+)";id="([^"]+)"', again)
            assert match
            assert not self.name or match[2] == self.name
            self.challenge = match[1]
        return answer

    def login(self, user: str = "alice", path: str = "/login") -> "Browser":
        self.offer = None
        answer = self.send("POST", path, (*OURS, FORM), f"user={user}".encode())
        assert answer.status < 400, answer.body
        return self

    def of_offer(self, part: str) -> str:
        assert self.offer is not None
        found = re.search(rf'{part}="([^"]*)"', self.offer)
        assert found
        return found[1]

    def registration(self, **changes: Any) -> str:
        said: dict[str, Any] = {"authorization": self.of_offer("authorization")} | changes
        return self.key.proof(said.pop("challenge", self.of_offer("challenge")), register=True, **said)

    def register(self, proof: str | None = None, headers: Pairs = BY_BROWSER) -> Answer:
        said = self.registration() if proof is None else proof
        answer = self.send("POST", REGISTER, (*headers, ("secure-session-response", said)))
        if answer.status == 200:
            self.told = answer.json
            self.name = self.told["session_identifier"]
        return answer

    def bind(self, user: str = "alice") -> "Browser":
        """Log in, register and come back once, so that the session is bound from now on."""
        self.login(user)
        assert self.register().status == 200
        assert self.user == user
        return self

    def refresh(self, proof: str | None = None, headers: Pairs = BY_BROWSER) -> Answer:
        """Refresh as browsers do: with a proof if a challenge is at hand, and again where another is asked for."""
        named = ("sec-secure-session-id", self.name)
        if proof is None and self.challenge:
            proof = self.key.proof(self.challenge)
        answer = self.send("POST", REFRESH, (*headers, named, *_said(proof)))
        if answer.status == 403:
            answer = self.send("POST", REFRESH, (*headers, named, *_said(self.key.proof(self.challenge))))
        return answer

    @property
    def user(self) -> str | None:
        answer = self.send("GET", "/me")
        return answer.json["user"] if answer.status == 200 else None

    @property
    def record(self) -> Record:
        return self.house.record(self.jar[COOKIE])

    def copied(self, *, without: str = "") -> "Browser":
        """Return a thief's client: the same cookies, no key."""
        thief = Browser(self.house)
        thief.jar = {name: value for name, value in self.jar.items() if name != without}
        thief.name, thief.challenge = self.name, ""
        return thief


def _said(proof: str | None) -> tuple[tuple[str, str], ...]:
    return () if proof is None else (("secure-session-response", proof),)


@pytest.fixture
def bound(build: Build) -> House:
    return build(binding="opportunistic")


@pytest.fixture
def required(build: Build) -> House:
    return build(binding="required")


# -- the honest browser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_a_browser_binds_refreshes_and_stays(bound: House, clock: Clock, alg: str) -> None:
    """DBS-01, 04, 05, 06: offered at login, bound by one POST, refreshed for hours; nothing else changes."""
    browser = Browser(bound, alg).login()
    token = browser.jar[COOKIE]
    answer = browser.register()
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    _guarded(answer)
    assert browser.jar[COOKIE] == token, "registration hands out no new token"
    assert browser.told["credentials"] == [
        {"type": "cookie", "name": BOUND, "attributes": "Path=/; Secure; HttpOnly; SameSite=Lax"}
    ]
    assert answer.set_cookies == [f"{BOUND}={browser.jar[BOUND]}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=585"]
    assert browser.told["scope"]["include_site"] is False
    for _ in range(12):
        clock.wind(590)
        old = browser.jar[BOUND]
        answer = browser.refresh()
        assert answer.status == 200
        _guarded(answer)
        assert browser.jar[BOUND] != old
        assert browser.user == "alice"
    assert bound.events("dbsc_bound")[0].detail == {"alg": alg, "other_client": False}


def _guarded(answer: Answer) -> None:
    """DBS-17: nobody frames it, reads it from elsewhere, or stores it."""
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("cross-origin-resource-policy") == "same-origin"
    assert answer.header("access-control-allow-origin") is None


def test_a_browser_without_it_lives_as_ever(bound: House, clock: Clock) -> None:
    """DBS-18: whoever ignores the offer keeps a normal session."""
    visitor = bound.visitor()
    visitor.login()
    for _ in range(30):
        clock.wind(1000)
        assert visitor.user == "alice"
    assert bound.events("session_expired") == []


def test_what_is_bound_is_off_until_it_is_chosen(house: House) -> None:
    browser = Browser(house).login()
    assert browser.offer is None
    assert browser.record.binding is None
    assert house.ask(Ask("POST", REFRESH, OURS)).status == 404, "the path is the application's"


def test_a_lost_answer_to_a_registration_logs_nobody_out(bound: House, clock: Clock) -> None:
    """The key is stored, the browser never heard: until its cookie comes back the session is what it was."""
    browser = Browser(bound).login()
    lost = browser.copied()
    lost.offer, lost.key = browser.offer, browser.key
    assert lost.register().status == 200
    clock.wind(700)
    assert browser.user == "alice"
    assert not dbsc.is_bound(browser.record.binding)


def test_a_lost_answer_to_a_refresh_costs_a_round_trip(bound: House, clock: Clock) -> None:
    browser = Browser(bound).bind()
    proof = browser.key.proof(browser.challenge)
    clock.wind(500)
    browser.copied().send("POST", REFRESH, (("sec-secure-session-id", browser.name), *_said(proof)))
    answer = browser.send("POST", REFRESH, (("sec-secure-session-id", browser.name), *_said(proof)))
    assert answer.status == 403, "the same proof does not count twice"
    assert browser.refresh().status == 200
    assert browser.user == "alice"


def test_a_refresh_shows_that_the_browser_was_told(bound: House, clock: Clock) -> None:
    """A browser that idles after its login is bound by its first refresh, if by nothing before."""
    browser = Browser(bound).login()
    browser.register()
    clock.wind(500)
    assert not dbsc.is_bound(browser.record.binding)
    assert browser.refresh().status == 200
    assert dbsc.is_bound(browser.record.binding)


def test_requests_on_their_way_when_the_binding_began_are_honoured(bound: House, clock: Clock) -> None:
    """H6: for a minute from the first sight of the bound cookie, then never."""
    browser = Browser(bound).bind()
    under_way = browser.copied(without=BOUND)
    clock.wind(59)
    assert under_way.user == "alice"
    refused = under_way.send("POST", "/account/email", (*OURS, FORM), b"email=x")
    assert refused.json["error"] == "binding_required", "enough to read, not for what is delicate"
    clock.wind(2)
    assert under_way.user is None
    assert browser.user == "alice"


def test_a_refresh_is_no_activity_and_no_way_past_the_clocks(bound: House, clock: Clock) -> None:
    """TMO-12, TMO-16, DBS-09: refreshing for ever does not keep an idle session alive, and gets no cookie then."""
    browser = Browser(bound).bind()
    seen = browser.record.seen_at
    for _ in range(7):
        clock.wind(500)
        assert browser.refresh().status == 200
    assert browser.record.seen_at == seen
    clock.wind(200)
    _is_over(browser.refresh(), browser)
    assert browser.user is None


def test_a_disabled_account_gets_no_cookie_from_a_refresh(bound: House, clock: Clock) -> None:
    browser = Browser(bound).bind()
    other = bound.visitor()
    other.login()
    clock.wind(1)
    assert other.post("/logout?everywhere=1").status == 303
    _is_over(browser.refresh(), browser)


def _is_over(answer: Answer, browser: Browser) -> None:
    assert (answer.status, answer.json) == (200, {"session_identifier": browser.name, "continue": False})
    assert answer.set_cookies == []


def test_headers_come_quoted_as_the_draft_has_them(bound: House, clock: Clock) -> None:
    browser = Browser(bound).login()
    assert browser.register(f'"{browser.registration()}"').status == 200
    assert browser.user == "alice"
    clock.wind(500)
    headers = (("sec-secure-session-id", f'"{browser.name}"'), *_said(f'"{browser.key.proof(browser.challenge)}"'))
    assert browser.send("POST", REFRESH, headers).status == 200


def test_a_sites_origin_may_refresh_and_no_csrf_check_stands_in_its_way(bound: House) -> None:
    """CSR-15, E12: the refresh of a session on a subdomain arrives as same-site; a signature guards it."""
    browser = Browser(bound).bind()
    from_site = (("sec-fetch-site", "same-site"), ("origin", "https://test"))
    assert browser.refresh(headers=from_site).status == 200


def test_the_challenge_before_is_tolerated_and_one_of_old_is_asked_again(bound: House, clock: Clock) -> None:
    """DBS-07: a stale answer is 403 with another challenge, which no browser takes for the end."""
    browser = Browser(bound).bind()
    named = ("sec-secure-session-id", browser.name)
    first = browser.challenge
    clock.wind(1)
    assert browser.send("POST", REFRESH, (named,)).status == 403
    assert browser.challenge != first
    answer = browser.send("POST", REFRESH, (named, *_said(browser.key.proof(first))))
    assert answer.status == 200
    clock.wind(601)
    answer = browser.send("POST", REFRESH, (named, *_said(browser.key.proof(browser.challenge))))
    assert (answer.status, answer.set_cookies) == (403, [])
    assert browser.refresh().status == 200


def test_a_store_that_is_away_is_503_and_never_the_end(bound: House) -> None:
    """DBS-08: Chromium forgets a session at 429 and at every other 4xx; it keeps it at 5xx."""
    browser = Browser(bound).bind()
    proof = browser.key.proof(browser.challenge)
    headers = (("sec-secure-session-id", browser.name), *_said(proof))
    for verb in ("load", "commit"):
        bound.control.trouble.fail(verb)
        answer = browser.send("POST", REFRESH, headers)
        assert answer.status == 503
        assert answer.set_cookies == []
        bound.control.trouble.fail(None)
    assert browser.refresh().status == 200


def test_others_that_keep_changing_the_session_do_not_stop_a_refresh(bound: House) -> None:
    browser = Browser(bound).bind()
    browser.send("GET", "/data?write=a&value=1")
    assert browser.refresh().status == 200
    browser.send("GET", "/data?write=b&value=2")
    assert browser.send("GET", "/data").json == {"a": "1", "b": "2"}
    assert dbsc.is_bound(browser.record.binding)


def test_a_secret_renewed_by_hand_leaves_the_binding(bound: House, clock: Clock) -> None:
    """No downgrade: `renew()` hands out another handle, and the browser's identifier goes on leading to it."""
    browser = Browser(bound).bind()
    assert browser.send("GET", "/data?do=renew").status == 200
    clock.wind(500)
    assert browser.refresh().status == 200
    clock.wind(500)
    assert browser.user == "alice"
    assert browser.copied(without=BOUND).user is None


def test_a_new_login_ends_the_old_binding(bound: House, clock: Clock) -> None:
    """DBS-10, F6: the old session's refresh sets no cookie over the new one's."""
    browser = Browser(bound).bind()
    old = browser.copied()
    old.key, old.challenge = browser.key, browser.challenge
    browser.name = browser.challenge = ""
    browser.login("bob")
    browser.key = DeviceKey()
    assert browser.register().status == 200
    old.jar = dict(browser.jar)
    answer = old.refresh()
    assert answer.set_cookies == []
    assert answer.status == 404 or answer.json["continue"] is False
    assert browser.user == "bob"


def test_a_step_up_is_bound_anew(bound: House, clock: Clock) -> None:
    browser = Browser(bound).bind()
    browser.name = browser.challenge = ""
    browser.offer = None
    assert browser.send("POST", "/reauth").status == 200
    assert browser.offer is not None
    browser.key = DeviceKey()
    assert browser.register().status == 200
    assert browser.user == "alice"
    clock.wind(61)
    assert browser.copied(without=BOUND).user is None


def test_logout_takes_both_cookies(bound: House) -> None:
    browser = Browser(bound).bind()
    browser.send("POST", "/logout")
    assert browser.jar == {}


def test_attributes_told_are_those_of_the_cookie(build: Build) -> None:
    """DBS-12, F7: where they differ, every request refreshes and the quota is gone."""
    for settings in ({"same_site": "Strict"}, {"name": "__Host-Http-coat"}):
        browser = Browser(build(binding="opportunistic", **settings)).login()
        answer = browser.register()
        (line,) = answer.set_cookies
        (credential,) = answer.json["credentials"]
        assert line.startswith(f"{credential['name']}=")
        assert line.partition("; ")[2].rpartition("; Max-Age")[0] == credential["attributes"]


def test_a_live_binding_is_no_use_to_a_jar_with_anothers_session(bound: House) -> None:
    """TOK-11: a refresh beside another session's cookie is over: it would overwrite that one's bound cookie."""
    browser, other = Browser(bound).bind(), Browser(bound).bind("bob")
    mixed = browser.copied()
    mixed.key, mixed.challenge = browser.key, browser.challenge
    mixed.jar = dict(other.jar)
    _is_over(mixed.refresh(), browser)
    assert (browser.refresh().status, browser.user, other.user) == (200, "alice", "bob")


# -- the thief ---------------------------------------------------------------------------------------------------------


def test_a_copied_jar_dies_when_its_bound_cookie_has_aged(bound: House, clock: Clock) -> None:
    browser = Browser(bound).bind()
    clock.wind(61)
    thief = browser.copied()
    clock.wind(538)
    assert thief.user == "alice", "ten minutes are what a copy lasts"
    clock.wind(2)
    assert thief.user is None
    assert browser.refresh().status == 200
    assert browser.user == "alice"
    assert thief.user is None
    events = bound.events("dbsc_binding_missing")
    assert [event.detail["kind"] for event in events] == ["aged"]
    assert events[0].subject == "alice"


def test_no_offer_comes_to_whoever_waits(bound: House, clock: Clock) -> None:
    """D23 (H6): a stolen unbound cookie is never offered a binding."""
    browser = Browser(bound).login()
    thief = browser.copied()
    for target in ("/me", "/", "/data?write=a&value=1", "/form", "/data?do=renew", "/private"):
        thief.send("GET", target)
        clock.wind(1000)
    assert thief.offer is None
    assert thief.user == "alice"


def test_a_thief_registers_no_key(bound: House, clock: Clock) -> None:
    """D24, DBS-02, DBS-03: guessed, foreign, expired, reused; the owner's goes through afterwards."""
    browser, other = Browser(bound).login(), Browser(bound).login("bob")
    thief = browser.copied()
    stolen = other.of_offer("challenge")
    for changes in (
        {"challenge": "A" * 75},
        {"challenge": ""},
        {"challenge": stolen, "authorization": other.of_offer("authorization")},
        {"authorization": None},
        {"authorization": "A" * 24},
        {"aud": f"https://evil.test{REGISTER}"},
        {"aud": f"{ORIGIN}{REFRESH}"},
        {"aud": "x"},
        {"aud": ORIGIN},
        {"jwk": DeviceKey().jwk},
    ):
        thief.offer = browser.offer
        answer = thief.register(thief.registration(**changes))
        assert (answer.status, answer.set_cookies) == (403, []), changes
    assert thief.register("no proof").status == 403
    assert thief.send("POST", REGISTER, BY_BROWSER).status == 403
    good = browser.registration()
    doubled = (*BY_BROWSER, ("secure-session-response", good), ("secure-session-response", good))
    assert thief.send("POST", REGISTER, doubled).status == 403
    assert Browser(bound).register(good).status == 403, "without the cookie"
    clock.wind(61)
    assert bound.events("dbsc_registration_refused")
    assert browser.register(browser.registration(aud=f"{ORIGIN}{REGISTER}")).status == 200
    assert browser.user == "alice"


def test_a_session_has_one_key_and_an_offer_one_life(bound: House, clock: Clock) -> None:
    """DBS-04, H6: the second key is refused and told of; after five minutes so is the first."""
    browser = Browser(bound).bind()
    key, browser.key = browser.key, DeviceKey()
    assert browser.register().status == 403
    assert bound.events("dbsc_rebind_refused")[0].subject == "alice"
    browser.key = key
    assert browser.refresh().status == 200
    late = Browser(bound).login("bob")
    clock.wind(300)
    assert late.register().status == 403
    assert not dbsc.is_bound(late.record.binding)


def test_the_offer_needs_the_token_of_its_login(bound: House, clock: Clock) -> None:
    """H6: an old secret of the session, or another session's, registers nothing."""
    browser = Browser(bound).login()
    forged = browser.copied()
    forged.offer = browser.offer
    kind, handle, family, turn = forged.jar[COOKIE].split(".")
    for token in (f"{kind}.{handle}.{'A' * 24}.{turn}", f"{kind}.{handle}.{family[::-1]}.{turn}"):
        forged.jar[COOKIE] = token
        assert forged.register().status == 403
    assert browser.register().status == 200


def test_nothing_that_a_client_says_excuses_a_missing_cookie(bound: House, clock: Clock) -> None:
    """D26, H1, DBS-14, DBS-16: every token of Secure-Session-Skipped; it is an event, and no more."""
    browser = Browser(bound).bind()
    thief = browser.copied(without=BOUND)
    clock.wind(61)
    for why in ("unreachable", "server_error", "quota_exceeded"):
        skipped = (("secure-session-skipped", f'{why};session_identifier="{browser.name}"'),)
        for headers in (skipped, (*TYPED, *skipped), (*OURS, *skipped)):
            answer = thief.send("GET", "/me", headers)
            assert answer.status == 401
            assert answer.set_cookies == []
        assert thief.send("POST", "/echo", (*OURS, *skipped)).json["csrf"] is False
        assert thief.send("GET", "/data", skipped).json == {}
    kinds = {event.detail["kind"] for event in bound.events("dbsc_skipped")}
    assert kinds == {"unreachable", "server_error", "quota_exceeded"}
    assert len(bound.events("dbsc_binding_missing")) == 1, "once a minute, not once a request"


def test_either_cookie_alone_is_nothing(bound: House, clock: Clock) -> None:
    browser, other = Browser(bound).bind(), Browser(bound).bind("bob")
    clock.wind(61)
    assert browser.copied(without=COOKIE).user is None
    assert browser.copied(without=BOUND).user is None
    mixed = browser.copied()
    mixed.jar[BOUND] = other.jar[BOUND]
    assert mixed.user is None, "the long cookie of one with the bound one of another (TOK-11)"
    doubled = browser.copied()
    doubled.jar[BOUND] += f"; {BOUND}={other.jar[BOUND]}"
    assert doubled.user is None
    kinds = {event.detail["kind"] for event in bound.events("dbsc_binding_missing")}
    assert kinds == {"missing", "foreign", "ambiguous"}


def test_a_bounce_is_one_page_without_data(bound: House, clock: Clock) -> None:
    """D27, DBS-10: a link from elsewhere arrives without the bound cookie; curl gets the same, once."""
    browser = Browser(bound).bind()
    browser.send("GET", "/data?write=note&value=private")
    clock.wind(601)
    aged = browser.jar.pop(BOUND)
    answer = browser.send("GET", "/data?a=1&b=%22%3E", FROM_ELSEWHERE)
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    assert b"private" not in answer.body
    assert b'url=/data?a=1&amp;b=%22%3E&amp;coat-bounced=1"' in answer.body
    thief = browser.copied()
    thief.jar[BOUND] = aged
    again = thief.send("GET", "/me?a=1&coat-bounced=1", FROM_ELSEWHERE)
    assert again.status == 401
    assert bound.events("dbsc_binding_missing")
    assert browser.refresh().status == 200
    landed = browser.send("GET", "/data?a=1&coat-bounced=1&b=%22%3E")
    assert (landed.status, landed.header("location")) == (303, "/data?a=1&b=%22%3E")
    assert browser.send("GET", "/data?a=1", FROM_ELSEWHERE).json == {"note": "private"}


@pytest.mark.parametrize("target", ["//evil.test/x", "/%5Cevil.test", "/a%0Ab", "/%09/evil.test"])
def test_a_bounce_leads_nowhere_else(bound: House, clock: Clock, target: str) -> None:
    browser = Browser(bound).bind()
    clock.wind(601)
    answer = browser.copied(without=BOUND).send("GET", target, FROM_ELSEWHERE)
    assert b"refresh" not in answer.body


def test_only_pages_are_bounced(bound: House, clock: Clock) -> None:
    browser = Browser(bound).bind()
    clock.wind(601)
    thief = browser.copied()
    frame = (("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"))
    fetch = (("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"))
    for headers in (frame, fetch, OURS, TYPED, ()):
        assert thief.send("GET", "/me", headers).status == 401
    assert thief.send("HEAD", "/me", FROM_ELSEWHERE).status == 401


def test_static_paths_need_no_proof_and_see_no_session(bound: House, clock: Clock) -> None:
    browser = Browser(bound).bind()
    paths = [rule["path"] for rule in browser.told["scope"]["scope_specification"]]
    assert "/static" in paths
    clock.wind(601)
    for path in ("/static/app.css?do=write", "/favicon.ico"):
        assert browser.send("GET", path, FROM_ELSEWHERE).status == 404
    assert bound.events("dbsc_binding_missing") == []


def test_a_handle_alone_is_a_strangers(bound: House) -> None:
    """D28: 404 for what does not exist, for another's handle, and for a shape that is none; nothing is written."""
    browser = Browser(bound).bind()
    handle = browser.record.handle
    before = bound.commits
    for name in (*[handle + "A" * 24] * 100, "A" * 42, handle, "", f"{browser.name},{browser.name}"):
        answer = bound.ask(Ask("POST", REFRESH, (("sec-secure-session-id", name), *_said("a.b.c"))))
        assert (answer.status, answer.body) == (404, b'{"error":"unknown_device_session"}')
    assert bound.commits == before
    assert browser.refresh().status == 200


def test_bad_proofs_end_nothing_and_write_nothing(bound: House, clock: Clock) -> None:
    """D29, H2: a thousand of them, then the owner; whoever goes on is told that there is no such session."""
    browser = Browser(bound).bind()
    named = ("sec-secure-session-id", browser.name)
    wrong = DeviceKey()
    proofs = [
        wrong.proof(browser.challenge),
        browser.key.proof(browser.challenge, register=True),
        browser.key.proof(browser.challenge, alg="RS256"),
        browser.key.proof(browser.challenge, aud="https://evil.test" + REFRESH),
        browser.key.proof(browser.challenge, der=True),
        browser.key.proof("A" * 75),
        "x" * 5000,
        "a.b.c",
    ]
    stale, before, challenge, asked = 5, bound.commits, browser.challenge, 0
    for number in range(BAD_PROOFS if bound.kind == "wsgi" else BAD_PROOFS // 5):
        headers = (named, *_said(proofs[number % len(proofs)]))
        answer = bound.ask(Ask("POST", REFRESH, headers))
        asked += number % len(proofs) != stale
        assert answer.status == (404 if asked > MOST_BAD and number % len(proofs) != stale else 403)
        assert bool(answer.header("secure-session-challenge")) == (answer.status == 403)
        assert answer.set_cookies == []
    assert bound.commits == before
    browser.challenge = challenge
    assert browser.refresh().status == 200
    bound.flush()
    assert bound.events("dbsc_signature_invalid")[0].noise


def test_a_hundred_strangers_evict_no_challenge(bound: House) -> None:
    """D30, H2: challenges lie in no list."""
    browser = Browser(bound).bind()
    kept = browser.challenge
    before = bound.commits
    for _ in range(100):
        assert bound.ask(Ask("POST", REFRESH, (("sec-secure-session-id", browser.name),))).status == 403
    assert bound.commits == before
    named = ("sec-secure-session-id", browser.name)
    assert browser.send("POST", REFRESH, (named, *_said(browser.key.proof(kept)))).status == 200


def test_a_refresh_beside_a_logout_brings_nothing_back(bound: House, clock: Clock) -> None:
    """D31, M14, E9: whichever comes first, no bound cookie counts after the logout, and no proof twice."""
    for order in range(ORDERS):
        browser = Browser(bound).bind()
        proof = browser.key.proof(browser.challenge)
        cookie = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
        out = Ask("POST", "/logout", (*OURS, ("cookie", cookie)))
        fresh = Ask("POST", REFRESH, (("cookie", cookie), ("sec-secure-session-id", browser.name), *_said(proof)))
        asks = [out, fresh] if order % 2 else [fresh, out]
        answers = bound.ask_all(asks, parallel=True)
        refreshed = answers[order % 2]
        for answer in answers:
            browser.jar.update(_bound_of(answer))
        assert refreshed.status in (200, 404)
        assert browser.user is None
        replayed = bound.ask(fresh)
        assert replayed.set_cookies == []
        assert replayed.status == 404 or replayed.json["continue"] is False


def _bound_of(answer: Answer) -> dict[str, str]:
    lines = [line.partition(";")[0].partition("=") for line in answer.set_cookies]
    return {name: value for name, _, value in lines if name == BOUND and value}


def test_one_proof_is_one_refresh(bound: House) -> None:
    """DBS-02: fifty at once with one proof; the store lets one through, the others are asked again."""
    browser = Browser(bound).bind()
    headers = (("sec-secure-session-id", browser.name), *_said(browser.key.proof(browser.challenge)))
    answers = bound.ask_all([Ask("POST", REFRESH, headers)] * 20, parallel=True)
    assert sorted({answer.status for answer in answers}) == [200, 403]
    assert [answer.status for answer in answers].count(200) == 1


def test_a_dump_of_the_store_binds_and_refreshes_nothing(bound: House) -> None:
    """D45: what a record keeps of a binding is no identifier, no bound cookie and no key."""
    browser = Browser(bound).bind()
    dump = browser.record.binding or b""
    state = dbsc.unpacked(dump)
    assert state is not None
    for secret in (browser.name, browser.name[18:], browser.jar[BOUND]):
        assert secret.encode() not in dump
    thief = Browser(bound)
    thief.jar = {COOKIE: browser.jar[COOKIE], BOUND: encoded(state.cookies[0][0])[:24]}
    thief.name, thief.challenge = browser.record.handle + encoded(state.reference)[:24], ""
    assert thief.send("POST", REFRESH, (("sec-secure-session-id", thief.name),)).status == 404


def test_another_applications_store_rows_are_unknown(build: Build) -> None:
    """C3: two realms on one store; an identifier counts in its own."""
    one, other = build(binding="opportunistic"), build(binding="opportunistic", realm="console")
    browser = Browser(one).bind()
    answer = other.ask(Ask("POST", REFRESH, (("sec-secure-session-id", browser.name),)))
    assert answer.status == 404


def test_the_endpoints_answer_to_post_alone(bound: House) -> None:
    """DBS-17: no CORS grant, no GET."""
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        for path in (REGISTER, REFRESH):
            preflight = (
                ("origin", ORIGIN),
                ("access-control-request-method", "POST"),
                ("sec-fetch-site", "same-origin"),
            )
            answer = bound.ask(Ask(method, path, preflight))
            assert (answer.status, answer.header("allow")) == (405, "POST")
            assert answer.header("access-control-allow-origin") is None


def test_the_endpoints_are_screened_like_any_path(build: Build) -> None:
    """Without origins, only local hosts are served (M3)."""
    house = build(binding="opportunistic", origins=[])
    for path in (REGISTER, REFRESH):
        assert house.ask(Ask("POST", path, host="shop.example")).status == 500


# -- where it is required ----------------------------------------------------------------------------------------------


def test_required_ends_what_stays_unbound(required: House, clock: Clock) -> None:
    """D25, H6: sensitive acts are refused from the start, everything is over after five minutes."""
    visitor = required.visitor()
    visitor.login()
    assert visitor.user == "alice"
    assert visitor.post("/account/email", email="x").json["error"] == "binding_required"
    assert visitor.get("/private?within=600").status == 403
    assert visitor.get("/private").status == 200
    clock.wind(299)
    assert visitor.user == "alice"
    clock.wind(2)
    assert visitor.user is None
    (event,) = required.events("session_expired")
    assert event.detail["reason"] == "unbound"
    assert required.record(visitor.token or "").ended_because == "unbound"


def test_required_lets_the_bound_do_everything(required: House, clock: Clock) -> None:
    browser = Browser(required).bind()
    form = (*OURS, FORM)
    assert browser.send("POST", "/account/email", form, b"email=x").status == 200
    clock.wind(500)
    assert browser.refresh().status == 200
    assert browser.user == "alice"
    assert browser.send("POST", "/account/email", form, b"email=y").status == 200


def test_a_late_binding_is_not_ended_by_requests_under_way(required: House, clock: Clock) -> None:
    browser = Browser(required).login()
    under_way = browser.copied()
    clock.wind(290)
    assert browser.register().status == 200
    assert browser.user == "alice"
    clock.wind(20)
    assert under_way.user == "alice"
    assert browser.user == "alice"


def test_required_for_some_subjects(build: Build, clock: Clock) -> None:
    house = build(binding=DeviceBinding(subjects=lambda subject: subject.startswith("admin")))
    admin, user = house.visitor(), house.visitor()
    admin.login("admin-1")
    user.login("alice")
    clock.wind(301)
    assert admin.user is None
    assert user.user == "alice"


def test_required_for_some_routes(build: Build, clock: Clock) -> None:
    """A page just after the login waits a moment for the browser to bind; then, and for all else, it is refused."""
    house = build(binding=DeviceBinding(routes=("/private",)))
    browser = Browser(house).login()
    waiting = browser.send("GET", "/private", TYPED)
    assert b'content="2;url=/private?coat-bounced=1"' in waiting.body
    assert browser.send("GET", "/private?coat-bounced=1", TYPED).json["error"] == "binding_required"
    assert browser.send("GET", "/private/more").status == 403
    assert browser.send("GET", "/privateer").status == 404
    assert browser.user == "alice"
    assert browser.register().status == 200
    assert browser.user == "alice"
    assert browser.send("GET", "/private?coat-bounced=1", TYPED).header("location") == "/private"
    assert browser.send("GET", "/private", TYPED).json == {"user": "alice"}
    assert browser.copied(without=BOUND).send("GET", "/private").status == 403, "not in the first minute either"


def test_the_switch_back_to_off_is_the_operators(build: Build, clock: Clock) -> None:
    """Turned off, sessions go on as they were; turned on again, what was bound still is."""
    browser = Browser(build(binding="opportunistic")).bind()
    clock.wind(700)
    thief = browser.copied(without=BOUND)
    thief.house = build()
    assert thief.user == "alice"
    thief.house = build(binding="opportunistic")
    assert thief.user is None


def test_a_binding_that_cannot_be_read_is_refused(bound: House, store: Any) -> None:
    """Fail closed: what a later release wrote is asked for by no guess; the browser is told to come back."""
    browser = Browser(bound).bind()
    record = browser.record
    strange = replace(record, binding=b"\x07later")
    assert bound.control.plain.commit(b"0" * 16, (Update(record=strange, was=record.version),), durable=False) is None
    assert browser.user is None
    assert browser.refresh().status == 503


def test_handlers_can_ask(bound: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe.LOOKS, "is_bound", lambda session: session.is_bound)
    browser = Browser(bound).login()
    assert browser.send("GET", "/look?how=is_bound").json == {"found": False}
    browser.register()
    assert browser.user == "alice"
    assert browser.send("GET", "/look?how=is_bound").json == {"found": True}
    assert browser.copied().send("GET", "/look?how=is_bound&do=login").json == {"found": False}, "that is another one"
    assert browser.send("GET", "/look?how=is_bound&do=logout").json == {"found": False}
