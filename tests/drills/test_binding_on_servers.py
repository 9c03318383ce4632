"""Device binding on every store, through the real flow of both faces: bound, refreshed, raced, ended (DBS-01 to -10).

A binding is a column like any other to a store; what each must do by itself is to let one of two commits through.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck import DeviceBinding
from coatcheck.core import dbsc, proofs
from coatcheck.testing.clock import Clock
from tests.support.stores import KINDS, Make, lent

from . import test_device_binding as drills
from .house import House
from .test_device_binding import Browser

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "core" / "dbsc-vectors.json").read_text("utf-8")
)["vectors"]
CASES = sorted({vector["case"] for vector in VECTORS})


class TwoFaced:
    """A blocking store and its awaited sister on the same tables, as a house takes them."""

    def __init__(self, blocking: Any, awaited: Any) -> None:
        self._blocking, self.awaited = blocking, awaited

    def as_async(self) -> Any:
        """Return the awaited face."""
        return self.awaited

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blocking, name)


@pytest.fixture(scope="module", params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    yield from lent(request.param, tmp_path_factory.mktemp("bound"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["wsgi", "asgi"])
def build(request: pytest.FixtureRequest, make: Make, clock: Clock) -> Iterator[Callable[..., House]]:
    blocking, awaited = make(clock)
    houses: list[House] = []

    def built(**settings: Any) -> House:
        kind = settings.pop("kind", request.param)
        houses.append(House(kind, TwoFaced(blocking, awaited), clock, **settings))
        return houses[-1]

    yield built
    for house in houses:
        if house._runner is not None:
            house._runner.run(awaited.close())
        house.close()
    blocking.close()


@pytest.fixture
def bound(build: Callable[..., House]) -> House:
    return build(binding="opportunistic")


def test_a_bound_session_lives_and_its_copy_dies(bound: House, clock: Clock) -> None:
    """DBS-01, 05, 06: three refreshes; a jar that was copied opens nothing once its bound cookie has aged."""
    browser = Browser(bound).bind()
    thief = browser.copied()
    for _ in range(3):
        clock.wind(400)
        assert browser.refresh().status == 200
        assert browser.user == "alice"
    assert thief.user is None
    thief.key = drills.DeviceKey()
    assert thief.refresh().status == 403
    assert browser.user == "alice"
    assert dbsc.is_bound(browser.record.binding)
    assert browser.record.ended_at is None


@pytest.mark.parametrize(
    "check",
    [
        drills.test_a_new_login_ends_the_old_binding,
        drills.test_a_step_up_is_bound_anew,
        drills.test_a_secret_renewed_by_hand_leaves_the_binding,
    ],
    ids=lambda check: check.__name__.removeprefix("test_"),
)
def test_a_binding_ends_and_goes_on_with_its_session(bound: House, clock: Clock, check: Any) -> None:
    check(bound, clock)


def test_others_that_keep_changing_the_session_do_not_stop_a_refresh(bound: House) -> None:
    drills.test_others_that_keep_changing_the_session_do_not_stop_a_refresh(bound)


def test_one_proof_is_one_refresh(bound: House) -> None:
    """DBS-02: the store lets one commit of twenty through."""
    drills.test_one_proof_is_one_refresh(bound)


def test_a_refresh_beside_a_logout_brings_nothing_back(
    bound: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D31, on real transactions; test_device_races.py plays a thousand orders."""
    monkeypatch.setattr(drills, "ORDERS", 6)
    drills.test_a_refresh_beside_a_logout_brings_nothing_back(bound, clock)


def test_of_two_keys_at_once_one_is_bound(bound: House) -> None:
    """DBS-04: two registrations of one offer meet in the store; the loser's key refreshes nothing."""
    browser = Browser(bound).login()
    other = browser.copied()
    other.offer, other.key = browser.offer, drills.DeviceKey()
    cookie = ("cookie", f"{drills.COOKIE}={browser.jar[drills.COOKIE]}")
    asks = [
        drills.Ask("POST", drills.REGISTER, (*drills.BY_BROWSER, cookie, ("secure-session-response", proof)))
        for proof in (browser.registration(), other.registration())
    ]
    answers = bound.ask_all(asks * 2, parallel=True)
    won = [at for at, answer in enumerate(answers) if answer.status == 200]
    assert len(won) == 1
    assert [answer.status for answer in answers].count(403) == 3
    assert sum(bool(answer.set_cookies) for answer in answers) == 1
    winner, loser = (browser, other) if won[0] % 2 == 0 else (other, browser)
    for one in (winner, loser):
        one.name = answers[won[0]].json["session_identifier"]
    assert loser.refresh().status == 403
    assert winner.refresh().status == 200
    assert winner.user == "alice"


def test_what_one_face_bound_the_other_refreshes(build: Callable[..., House], clock: Clock) -> None:
    """A binding is the same bytes in both faces."""
    house = build(kind="wsgi", binding="opportunistic")
    browser = Browser(house).bind()
    clock.wind(300)
    browser.house = build(kind="asgi", binding="opportunistic")
    assert browser.refresh().status == 200
    assert browser.user == "alice"
    browser.house = house
    assert browser.refresh().status == 200
    assert browser.send("POST", "/logout").status == 303


@pytest.mark.parametrize("case", CASES)
def test_the_keys_of_a_real_browser_are_kept_and_its_proofs_verify(
    build: Callable[..., House], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chromium's recorded proofs; that their challenges were another server's is overlooked here, and here only."""
    first, *later = [vector for vector in VECTORS if vector["case"] == case]
    proof = proofs.read(first["secure_session_response"].encode())
    monkeypatch.setattr(dbsc, "answered", lambda bound, *_: bound.proved + 1)
    monkeypatch.setattr(dbsc, "authorization", lambda _: proof.authorization or "")
    house = build(binding=DeviceBinding(path="/dbsc"), origins=[first["origin"]])
    browser = Browser(house)
    browser.send("POST", "/login", (OURS, drills.FORM), b"user=alice")

    def sent(vector: dict[str, Any]) -> int:
        said = (("sec-secure-session-id", browser.name), ("secure-session-response", vector["secure_session_response"]))
        answer = browser.send("POST", vector["path"], (OURS, *said))
        if answer.status == 200:
            browser.name = answer.json["session_identifier"]
        return answer.status

    assert sent(first) == 200
    assert [sent(vector) for vector in later] == [200] * len(later)
    strange = next(vector for vector in VECTORS if vector["case"] != case and vector["sec_secure_session_id"])
    assert sent(strange) == 403
    assert browser.send("GET", "/me", (OURS,)).json["user"] == "alice"


OURS = ("sec-fetch-site", "same-origin")
