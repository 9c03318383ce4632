"""Ending all of a subject's sessions holds although the clocks of the machines differ (D40; M10, REV-02)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coatcheck import Registry
from coatcheck.testing.clock import Clock
from tests.support.stores import lent

from .conftest import Build
from .house import House

AHEAD = 5.0


@pytest.fixture
def ahead(clock: Clock) -> Clock:
    """Return the clock of a node that runs five seconds ahead of the store and of the other node."""
    return Clock(clock.now + AHEAD)


def wind(by: float, *clocks: Clock) -> None:
    for clock in clocks:
        clock.wind(by)


def test_a_login_on_a_node_ahead_is_ended_by_revoke_all(build: Build, clock: Clock, ahead: Clock) -> None:
    """D40: the thief's login says that it is of five seconds from now; it was there, so it ends."""
    here, there = build(), build(clock=ahead)
    thief = there.visitor(peer="203.0.113.66")
    thief.login("alice")
    here.control.registry.revoke_all("alice")
    assert thief.user is None
    assert here.visitor(thief.token).user is None
    assert here.control.records(live=True) == []
    wind(30, clock, ahead)
    assert thief.user is None


ENDS: dict[str, Callable[[Registry], None]] = {
    "everyone": lambda registry: registry.revoke_everyone(),
    "a tenant": lambda registry: registry.revoke_tenant("acme"),
    "a subject": lambda registry: registry.revoke_all("alice"),
}
"""What can be ended as one."""

every_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


@every_end
def test_who_logged_in_on_a_node_ahead_is_ended_with_everybody(
    build: Build, clock: Clock, ahead: Clock, end: Callable[[Registry], None]
) -> None:
    """D40: by the clock of its node it began after the end; whoever logs in afterwards is let in, on either node."""
    here, there = build(), build(clock=ahead)
    thief = there.visitor(peer="203.0.113.66")
    thief.login("alice", tenant="acme")
    planted = there.visitor(peer="203.0.113.66")
    planted.get("/data?write=cart")
    wind(0.5, clock, ahead)
    end(here.control.registry)
    wind(0.5, clock, ahead)
    owners = [here.visitor(), there.visitor()]
    for owner in owners:
        owner.login("alice", tenant="acme")
    for _ in range(3):
        wind(1, clock, ahead)
        assert [house.visitor(thief.token).user for house in (here, there)] == [None, None]
        assert [house.visitor(owner.token).user for house in (here, there) for owner in owners] == ["alice"] * 4
    if end is ENDS["everyone"]:
        assert planted.get("/data").json == {}


@every_end
def test_a_login_under_way_on_a_node_ahead_does_not_survive(
    build: Build, clock: Clock, ahead: Clock, end: Callable[[Registry], None]
) -> None:
    """D40: it began before the end and is stored after it."""
    _does_not_survive(build(), build(clock=ahead), (clock, ahead), end)


def _does_not_survive(here: House, there: House, clocks: tuple[Clock, Clock], end: Callable[[Registry], None]) -> None:
    thief = there.visitor(peer="203.0.113.66")
    gate = there.control.trouble.hold("commit", "before")
    under_way = there.start(thief.prepare("POST", "/login", OURS_FORM, b"user=alice&tenant=acme"))
    gate.wait_until_reached()
    wind(0.5, *clocks)
    end(here.control.registry)
    wind(0.5, *clocks)
    gate.open()
    (answer,) = under_way.answers()
    thief.keep(answer)
    for _ in range(8):
        wind(1, *clocks)
        assert [house.visitor(thief.token).user for house in (here, there)] == [None, None]


@every_end
@pytest.mark.parametrize("again", ["/reauth", "/data?do=renew"])
def test_a_step_up_under_way_on_a_node_ahead_does_not_survive(
    build: Build, clock: Clock, ahead: Clock, end: Callable[[Registry], None], again: str
) -> None:
    """D40: nor does the successor that a session under way was given."""
    here, there = build(), build(clock=ahead)
    thief = there.visitor(peer="203.0.113.66")
    thief.login("alice", tenant="acme")
    wind(1, clock, ahead)
    gate = there.control.trouble.hold("commit", "before")
    under_way = there.start(thief.prepare("POST", again, OURS_FORM))
    gate.wait_until_reached()
    wind(0.5, clock, ahead)
    end(here.control.registry)
    wind(0.5, clock, ahead)
    gate.open()
    thief.keep(under_way.answers()[0])
    for _ in range(8):
        wind(1, clock, ahead)
        assert [house.visitor(thief.token).user for house in (here, there)] == [None, None]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_nor_does_one_on_a_server(lent_store: Callable[[Clock], Any], end: Callable[[Registry], None]) -> None:
    """D40, where the clock that decides is the server's own."""
    clock = Clock()
    ahead = Clock(clock.now + AHEAD)
    houses = [House("wsgi", lent_store(clock), each) for each in (clock, ahead)]
    _does_not_survive(houses[0], houses[1], (clock, ahead), end)
    for house in houses:
        house.control.plain.close()


@pytest.fixture(scope="module")
def lent_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Clock], Any]]:
    for make in lent("postgresql", tmp_path_factory.mktemp("ahead")):
        yield lambda clock, make=make: make(clock)[0]


def test_a_clock_that_agrees_changes_nothing(build: Build, clock: Clock) -> None:
    """The moment of a login is what it was, to the last bit: no figure of ours is laid on it for nothing."""
    for own in (clock, Clock(clock.now - AHEAD)):  # one that is behind says it earlier than it was, which is safe
        house = build(clock=own)
        visitor = house.visitor()
        visitor.login()
        record = house.record(visitor.token or "")
        assert (record.authenticated_at, record.created_at) == (own.now, own.now)


@pytest.mark.parametrize("owners", ["here", "there"])
def test_a_password_change_ends_the_thief_and_spares_the_owner_on_every_node(
    build: Build, clock: Clock, ahead: Clock, owners: str
) -> None:
    """D40: the owner's new session lives on both nodes, at once and later; the thief's is dead on both."""
    houses = {"here": build(), "there": build(clock=ahead)}
    mine = houses[owners]
    other = houses["there" if owners == "here" else "here"]
    owner, thief = mine.visitor(), other.visitor(peer="203.0.113.66")
    owner.login("alice")
    thief.login("alice")
    wind(1, clock, ahead)
    assert owner.post("/account/password", user="alice").status < 400
    for _ in range(3):
        assert thief.user is None
        assert [house.visitor(owner.token).user for house in houses.values()] == ["alice", "alice"]
        wind(20, clock, ahead)


def test_a_login_under_way_on_a_node_behind_does_not_survive_revoke_all(build: Build, clock: Clock) -> None:
    """D40: it began before the revocation and commits after it, on a node whose clock is five seconds late."""
    here, late = build(), build(clock=Clock(clock.now - AHEAD))
    thief = late.visitor(peer="203.0.113.66")
    gate = late.control.trouble.hold("commit", "before")
    under_way = late.start(thief.prepare("POST", "/login", OURS_FORM, b"user=alice"))
    gate.wait_until_reached()
    clock.wind(0.5)
    here.control.registry.revoke_all("alice")
    gate.open()
    (answer,) = under_way.answers()
    assert answer.token is None, answer
    assert here.control.records(live=True) == []


def test_two_password_changes_at_once_leave_one_session(build: Build, clock: Clock, ahead: Clock) -> None:
    """Whoever commits last has proved who it is last; no third session is left over."""
    here, there = build(), build(clock=ahead)
    visitors: list[Any] = [here.visitor(), there.visitor()]
    for visitor in visitors:
        visitor.login("alice")
    clock.wind(1)
    ahead.wind(1)
    answers = [visitor.post("/account/password", user="alice") for visitor in visitors]
    assert answers[0].status < 400
    live = here.control.records(live=True)
    assert len(live) == 1
    assert [visitor.user for visitor in visitors].count("alice") == 1


OURS_FORM = (
    ("sec-fetch-site", "same-origin"),
    ("origin", "https://app.test"),
    ("content-type", "application/x-www-form-urlencoded"),
)
