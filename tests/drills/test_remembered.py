"""A remembered login: one record, one token, and never as strong as a login (D61; M6, TMO-14, TMO-15)."""

from typing import Any

import pytest

from coatcheck import Level, timeouts
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import House, Visitor

HOUR, DAY, RENEW = 3600.0, 86_400.0, 900.0


def lapsed(build: Build, clock: Clock, **settings: Any) -> tuple[House, Visitor]:
    """Return a house, and a visitor whose login was remembered and whose plain clocks have passed."""
    house = build(carry=["theme"], **settings)
    owner = house.visitor()
    owner.login(remember="1", level="20")
    assert "; Max-Age=" in (owner.last.set_cookies[0] if owner.last else "")
    owner.get("/data?write=secret&value=1")
    owner.get("/data?write=theme&value=dark")
    clock.wind(HOUR + 1)
    return house, owner


def test_thirty_parallel_requests_after_the_login_lapsed_make_one_session(build: Build, clock: Clock) -> None:
    """D61: none is refused, none makes a second record, the level drops once, the data is cut to the named keys."""
    house, owner = lapsed(build, clock)
    gate = house.control.trouble.hold("commit", "before", times=30)
    pending = house.start(*[owner.prepare("GET", "/me")] * 30)
    gate.wait_until_reached(30)
    gate.open()
    answers = pending.answers()
    assert [answer.status for answer in answers] == [200] * 30
    assert {answer.json["level"] for answer in answers} == {Level.REMEMBERED}
    successors = {answer.token for answer in answers} - {None}
    assert len(successors) <= 1, "whoever renews, renews the one session"
    (record,) = house.control.records()
    assert (record.level, record.subject, record.ended_at) == (Level.REMEMBERED, "alice", None)
    owner.token = successors.pop() if successors else owner.token
    assert owner.get("/data").json == {"theme": "dark"}
    assert owner.user == "alice"
    assert house.events("session_token_reuse") == []


@pytest.mark.parametrize(
    ("method", "target", "asks"),
    [
        ("GET", "/private", False),
        ("GET", "/private?within=99999999", True),
        ("GET", "/private?level=10", True),
        ("GET", "/private?level=5", True),
        ("POST", "/account/email", True),
        ("POST", "/account/password", True),
        ("POST", "/pay", True),
    ],
)
def test_what_is_delicate_asks_for_the_password(
    build: Build, clock: Clock, method: str, target: str, asks: bool
) -> None:
    """D61, TMO-15: it knows who is there, and that is all; the login of before is no proof any more."""
    house, owner = lapsed(build, clock)
    answer = house.ask(owner.prepare(method, target))
    assert (answer.status, "reauth_required" in answer.body.decode()) == ((401, True) if asks else (200, False))


def test_a_password_lifts_it_again_under_another_name(build: Build, clock: Clock) -> None:
    """M6: the login is a new record with a new handle and secret; the remembered token is dead at once."""
    house, owner = lapsed(build, clock)
    owner.get("/me")
    before = owner.token or ""
    owner.login()
    assert (owner.token or "").split(".")[1] != before.split(".")[1]
    assert owner.get("/private?within=60").status == 200
    assert owner.get("/me").json["level"] == Level.AAL1
    assert house.visitor(before).get("/me").status == 401
    assert len(house.control.records(live=True)) == 1
    owner.login(remember="1")
    owner.post("/reauth")
    assert house.record(owner.token or "").persistent, "as it was, for the same subject"


@pytest.mark.parametrize(("generations", "kind"), [(1, "late"), (3, "stale")])
def test_a_copy_of_before_is_found(build: Build, clock: Clock, generations: int, kind: str) -> None:
    """D61: a copied jar meets the same evidence as of any session; all of it ends, at a fortnight's age, too."""
    house, owner = lapsed(build, clock)
    stolen = owner.token
    for _ in range(generations):
        owner.get("/me")
        clock.wind(RENEW)
        owner.get("/me")
        owner.get("/me")
        clock.wind(3 * DAY)
    thief = house.visitor(stolen, peer="203.0.113.66")
    assert thief.get("/me").status == 401
    (told,) = house.events("session_token_reuse")
    assert told.detail["kind"] == kind
    assert owner.get("/me").json["why"] == "theft"
    assert house.control.records(live=True) == []


def test_it_is_listed_and_ended_like_any_session(build: Build, clock: Clock) -> None:
    """M6: there is no second token that a list forgets and a revocation leaves alive."""
    house, owner = lapsed(build, clock)
    owner.get("/me")
    (listed,) = house.control.registry.find("alice").items
    assert listed.persistent
    assert listed.level == Level.REMEMBERED
    phone = house.visitor()
    phone.login()
    assert len(phone.get("/account/sessions").json["sessions"]) == 2
    phone.post("/account/sessions/revoke-others")
    assert owner.get("/me").json["why"] == "owner"


def test_it_ends_by_its_own_clocks(build: Build, clock: Clock) -> None:
    """TMO-14: so long without a request, or so long after the login, however busy it was."""
    chosen = timeouts(remember=10 * DAY, remember_idle=4 * DAY)
    house, owner = lapsed(build, clock, timeouts=chosen)
    owner.get("/me")
    idle = house.visitor(owner.token)
    clock.wind(4 * DAY + 1)
    assert idle.get("/me").json["why"] == "idle"
    house, owner = lapsed(build, clock, timeouts=chosen)
    started = clock.now - HOUR - 1
    while clock.now < started + 9 * DAY:
        assert owner.user == "alice"
        clock.wind(DAY)
    clock.now = started + 10 * DAY
    assert owner.get("/me").json["why"] == "absolute"


def test_where_policy_remembers_nobody_none_is_remembered(build: Build, clock: Clock) -> None:
    house = build(timeouts=timeouts(remember=None))
    owner = house.visitor()
    owner.login(remember="1")
    assert owner.last is not None
    assert "Max-Age" not in owner.last.set_cookies[0]
    clock.wind(HOUR + 1)
    assert owner.get("/me").json["why"] == "idle"
