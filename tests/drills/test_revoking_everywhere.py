"""Ending all of a subject's sessions holds although the clocks of the machines differ (D40; M10, REV-02)."""

from typing import Any

import pytest

from coatcheck.testing.clock import Clock

from .conftest import Build

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
