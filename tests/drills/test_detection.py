"""A stolen cookie in other hands looks different: what is seen, what follows, whom it hurts (D35, D36, D38; H5, H6).

The owner sits in Chrome on Windows, the thief has a copy of the cookie, Firefox on Linux, and another network.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Refusal
from coatcheck.core.model import Reply, Request
from coatcheck.detection import NetworkChanged, OnSignals, Sight, standard
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, OURS, Answer, Ask, House, Visitor, opened
from .test_near_copies import Worker

CHROME = (
    "user-agent",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
)
CHROME_NEWER = ("user-agent", CHROME[1].replace("142", "143"))
FIREFOX = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
HOME, CAFE, ELSEWHERE = "192.0.2.7", "203.0.113.9", "198.51.100.66"
RENEW, GRACE, HOUR = 900.0, 60.0, 3600.0

Headers = tuple[tuple[str, str], ...]
OWNER: Headers = (*OURS, CHROME)
THIEF: Headers = (*OURS, FIREFOX)


class Owner(Visitor):
    """The owner's browser."""

    def prepare(self, method: str, target: str, headers: Any = OWNER, body: bytes = b"", **more: Any) -> Ask:
        return super().prepare(method, target, headers, body, **more)

    def get(self, target: str, headers: Any = OWNER, **more: Any) -> Answer:
        return super().get(target, headers, **more)


@pytest.fixture(params=["asgi", "wsgi"])
def build(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Build]:
    """Return a maker of houses that look: each door on one store, since what looks is shared by all."""
    houses: list[House] = []

    def made(*policies: Any, **settings: Any) -> House:
        settings = {"detectors": standard(), "policies": list(policies), **settings}
        houses.append(House(request.param, store, clock, **settings))
        return houses[-1]

    with opened("memory" if request.param == "asgi" else "sqlite", tmp_path, clock) as store:
        yield made
        for house in houses:
            house.close()


def owner_in(house: House) -> Owner:
    owner = Owner(house, None, HOME)
    body = owner.prepare("POST", "/login", (*OWNER, FORM), b"user=alice")
    assert owner.keep(house.ask(body)).status == 303
    return owner


FORM = ("content-type", "application/x-www-form-urlencoded")


def stolen(house: House, token: str | None, target: str = "/me", method: str = "GET", **more: Any) -> Answer:
    """Present a copied cookie from the thief's machine."""
    more = {"headers": THIEF, "peer": ELSEWHERE, **more}
    headers = (("cookie", f"{COOKIE}={token}"), *more.pop("headers"))
    return house.ask(Ask(method, target, headers, **more))


def changes(house: House) -> list[dict[str, Any]]:
    return [event.detail for event in house.events("session_context_changed")]


def test_another_place_is_an_event_with_score_reasons_and_what_was_done(build: Build, clock: Clock) -> None:
    """ABU-04: told once an hour and session; a new version of the browser and the same network tell nothing."""
    house = build()
    owner = owner_in(house)
    for headers, peer in ((OWNER, HOME), ((*OURS, CHROME_NEWER), HOME), (OWNER, "192.0.2.200")):
        assert owner.get("/me", headers, peer=peer).status == 200
    assert changes(house) == []
    for _ in range(3):
        assert stolen(house, owner.token).status == 200, "without a policy it is noted only"
    (event,) = house.events("session_context_changed")
    assert (event.subject, event.handle, event.noise) == ("alice", (owner.token or "").split(".")[1], False)
    assert event.client is not None
    assert (event.client.address, event.client.agent) == (ELSEWHERE, FIREFOX[1])
    assert event.detail == {
        "kind": "agent+network+platform",
        "score": 100,
        "action": "note",
        "reasons": [
            "the login was with Chrome, this request is with Firefox",
            "the login was on Windows, this request is from Linux",
            "the login was from 192.0.2.0/24, this request is from 198.51.100.0/24",
        ],
        "known_address": HOME,
        "known_agent": CHROME[1],
    }
    clock.wind(HOUR - 61)
    stolen(house, owner.token)
    assert len(changes(house)) == 1
    clock.wind(61)
    stolen(house, owner.token)
    assert len(changes(house)) == 2


def test_an_anonymous_session_is_not_looked_at(build: Build) -> None:
    """There is nobody to take it from."""
    house = build(OnSignals(step_up=1, end=1))
    token = house.ask(Ask("GET", "/data?write=k", OWNER, peer=HOME)).token
    assert stolen(house, token, "/data").json == {"k": "1"}
    assert changes(house) == []


def test_who_knows_no_secret_causes_no_event(build: Build) -> None:
    """H4: signals come after the proof of the family; a handle alone is noise."""
    house = build(OnSignals(end=1))
    token = owner_in(house).token or ""
    handle = token.split(".")[1]
    commits = house.commits
    assert stolen(house, f"c1.{handle}.{'A' * 24}.{'B' * 24}").status == 401
    assert (changes(house), house.commits) == ([], commits)


def test_the_thief_is_asked_and_the_owner_is_not(build: Build) -> None:
    """D35, D36: the question belongs to the place that raised it; nothing is read there; passing it is a login."""
    house = build(OnSignals(step_up=50))
    owner = owner_in(house)
    copy = owner.token
    for target in ("/private", "/private?within=600"):
        answer = stolen(house, copy, target)
        assert (answer.status, answer.json["error"]) == (401, "reauth_required"), "he came for reads"
    assert owner.get("/private").status == 200, "H5 (a): the owner is not asked the thief's question"
    assert owner.get("/private?within=600").status == 200
    assert stolen(house, copy, "/private").status == 401, "and answers nobody's but her own"
    owner.keep(house.ask(owner.prepare("POST", "/login", (*OWNER, FORM), b"user=alice")))
    assert stolen(house, copy, "/private").json["error"] == "login_required", "her next login takes him down"
    assert owner.get("/private").status == 200
    assert [detail["action"] for detail in changes(house)] == ["step_up"]


def test_an_owner_who_travelled_answers_and_is_at_home_there(build: Build) -> None:
    """H5: only the context of the answering request becomes trusted, in a session of its own."""
    house = build(OnSignals(step_up=50))
    owner = owner_in(house)
    old = owner.token
    away: Headers = THIEF
    assert owner.get("/private", away, peer=CAFE).status == 401
    answered = owner.keep(house.ask(owner.prepare("POST", "/login", (*away, FORM), b"user=alice", peer=CAFE)))
    assert answered.status == 303
    assert old is not None
    assert owner.token is not None
    assert old.split(".")[1:3] != owner.token.split(".")[1:3], "a new handle and family"
    assert owner.get("/private", away, peer=CAFE).status == 200
    assert house.ask(Ask("GET", "/private", (("cookie", f"{COOKIE}={old}"), *OWNER), peer=HOME)).status == 401
    assert owner.get("/private", OWNER, peer=HOME).status == 401, "the old place is the strange one now"


def test_a_login_answers_in_the_very_request_that_brings_it(build: Build) -> None:
    """A handler that logs in and then asks for a login finds one."""
    house = build(OnSignals(step_up=50))
    owner = owner_in(house)
    shown = (("host", "app.test"), ("cookie", f"{COOKIE}={owner.token}"), *THIEF)
    headers = tuple((name.encode(), value.encode()) for name, value in shown)
    session = house.exchange("begin", Request("POST", "https", "/", headers, peer=ELSEWHERE))
    with pytest.raises(Refusal):
        session.require_login()
    session.login("alice")
    session.require_login()


def test_reads_may_go_on_where_the_operator_says_so(build: Build) -> None:
    """D36: then what asks for a fresh proof is refused, and the rest is recorded."""
    house = build(OnSignals(step_up=50, reads="allow"))
    token = owner_in(house).token
    assert stolen(house, token, "/private").status == 200
    assert stolen(house, token, "/private?within=600").json["error"] == "reauth_required"
    assert len(changes(house)) == 1


def test_a_session_may_be_ended_by_its_signals(build: Build) -> None:
    """The event says why, the session says so to its owner, and other sessions live on."""
    house = build(OnSignals(end=80))
    owner, other = owner_in(house), owner_in(house)
    assert owner.get("/me", OWNER, peer=CAFE).status == 200, "20 points are not 80"
    assert stolen(house, owner.token).json["why"] == "context"
    assert owner.get("/me").json["why"] == "context"
    assert other.get("/me").status == 200
    assert [detail["action"] for detail in changes(house)] == ["note", "end"]
    assert house.record(owner.token or "").ended_because == "context"


def test_a_renewal_tells_two_holders_apart_soon(build: Build, clock: Clock) -> None:
    """The thief's request brings him a new secret; the owner's next one is an old one in other hands: theft."""
    house = build(OnSignals(renew=20, step_up=None))
    owner = owner_in(house)
    clock.wind(4 * GRACE - 1)
    assert stolen(house, owner.token).token is None, "never sooner than four graces after the last one"
    clock.wind(1)
    thief = Visitor(house, owner.token, ELSEWHERE)
    assert thief.get("/me", THIEF).token is not None
    clock.wind(1)
    assert thief.get("/me", THIEF).status == 200
    clock.wind(GRACE + 300 + 1)
    assert owner.get("/me").status == 401
    assert [event.detail["kind"] for event in house.events("session_token_reuse")] == ["late"]
    assert thief.get("/me", THIEF).status == 401


def test_who_moves_is_renewed_once_and_lives_there_then(build: Build, clock: Clock) -> None:
    """Nobody honest is hurt by it: in parallel, with answers lost, moving back and forth."""
    house = build(OnSignals(renew=20, step_up=None))
    owner = owner_in(house)
    clock.wind(4 * GRACE)
    first = owner.prepare("GET", "/me", OWNER, peer=CAFE)
    assert house.ask(first).token is not None  # and the answer is lost
    answers = house.ask_all([owner.prepare("GET", "/me", OWNER, peer=CAFE)] * 5, parallel=True)
    assert [answer.status for answer in answers] == [200] * 5
    clock.wind(RENEW)
    owner.get("/me", OWNER, peer=CAFE)
    record = house.record(owner.token or "")
    assert record.client is not None
    assert record.client.address == CAFE
    assert record.subject == "alice"
    for minute in range(12):
        peer = HOME if minute % 2 else CAFE
        assert owner.get("/me", OWNER, peer=peer).status == 200
        clock.wind(61)
    assert house.events("session_token_reuse") == []
    renewed = [event for event in house.events("session_renewed") if event.handle == record.handle]
    assert 2 <= len(renewed) <= 5, "not at every step"


def test_evidence_of_theft_is_answered_whatever_was_asked_before(build: Build, clock: Clock) -> None:
    """D38: lineage comes before signals; a question that is open, or was answered, buys nothing."""
    house = build(OnSignals(step_up=50))
    owner = owner_in(house)
    copy = owner.token
    assert stolen(house, copy, "/private").status == 401
    clock.wind(RENEW)
    owner.get("/me")
    owner.get("/me")
    clock.wind(GRACE + 300 + 1)
    assert stolen(house, copy, "/private").json["error"] == "login_required"
    assert [event.detail["kind"] for event in house.events("session_token_reuse")] == ["late"]
    assert owner.get("/me").json["why"] == "theft"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "seen"),
    [
        ((), "203.0.113.9", False),  # whoever says so himself
        (("192.0.2.0/24",), "203.0.113.9", True),
        (("192.0.2.0/24",), "10.9.9.9, 203.0.113.9", True),  # the client's own word stands left
        (("192.0.2.0/24",), "203.0.113.9, 198.18.0.1", False),
    ],
)
def test_the_network_is_the_one_behind_the_trusted_proxies(
    build: Build, proxies: tuple[str, ...], forwarded: str, seen: bool
) -> None:
    """M3: the login came through the same proxy, from 203.0.113.9 if we believe it."""
    house = build(OnSignals(end=20), detectors=[NetworkChanged()], trusted_proxies=list(proxies))
    login = Ask("POST", "/login", (*OWNER, FORM, ("x-forwarded-for", "198.18.0.9")), b"user=alice", peer=HOME)
    token = house.ask(login).token
    shown = stolen(house, token, headers=(*OWNER, ("x-forwarded-for", forwarded)), peer="192.0.2.8")
    assert (shown.status == 401) == seen


def test_a_device_cannot_be_bound_by_whoever_is_in_doubt(build: Build) -> None:
    """H6: or a thief would make the owner's session his own device's."""
    house = build(OnSignals(step_up=50), binding="opportunistic")
    token = owner_in(house).token
    answer = stolen(house, token, "/coatcheck/device/register", "POST")
    assert answer.status >= 400
    told = [event.detail["why"] for event in house.events("dbsc_registration_refused")]
    assert told == ["whoever brings it must log in again first"]
    assert "registration" in changes(house)[0]["kind"]


@pytest.mark.parametrize("policy", [OnSignals(), OnSignals(step_up=None)])
def test_a_near_copy_is_no_blind_spot(clock: Clock, policy: OnSignals) -> None:
    """H8: a copy vouches for nobody from elsewhere until that is noted, and never for one who is asked."""
    house = Worker("wsgi", MemoryStore(clock=clock), clock, deaf=False, detectors=standard(), policies=[policy])
    owner = owner_in(house)
    house.copied(owner)
    loads = house.loads
    assert stolen(house, owner.token, "/private").status == (401 if policy._steps else 200)
    assert house.loads == loads + 1
    assert len(changes(house)) == 1
    house.copied(owner)
    loads = house.loads
    stolen(house, owner.token, "/private")
    assert house.loads - loads == (1 if policy._steps else 0)


def test_a_handler_may_look_at_the_signals_itself(build: Build) -> None:
    """The hook for an application that knows better: `session.signals`."""
    house = build()
    owner = owner_in(house)
    headers = tuple(
        (name.encode(), value.encode())
        for name, value in (("host", "app.test"), ("cookie", f"{COOKIE}={owner.token}"), *THIEF)
    )
    session = house.exchange("begin", Request("GET", "https", "/", headers, peer=ELSEWHERE))
    assert [signal.name for signal in session.signals] == ["agent", "platform", "network"]


def test_a_detector_that_fails_lets_nobody_in(build: Build) -> None:
    """What should have looked did not: the request fails before the handler, as with a policy, and nothing is lost."""

    class Broken:
        def inspect(self, record: Any, sight: Sight, now: float) -> None:
            if sight.client.address == ELSEWHERE:
                raise LookupError(sight.client.address)

    house = build(detectors=[Broken()])
    owner = owner_in(house)
    cookie = (b"cookie", f"{COOKIE}={owner.token}".encode())
    commits = house.commits
    request = Request("GET", "https", "/me", ((b"host", b"app.test"), cookie), peer=ELSEWHERE)
    for _ in range(2):
        answer = house.exchange("begin", request)
        assert isinstance(answer, Reply)
        assert (answer.status, ELSEWHERE.encode() in answer.body) == (500, False)
    assert house.commits == commits
    assert owner.get("/me").status == 200
