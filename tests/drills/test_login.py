"""Login changes everything, and no answer wipes a newer login (D12, D16, D17; H3, M4, TOK-04, TOK-12)."""

from typing import Any

import pytest

from coatcheck import ALL
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import House

RENEW = 900.0

PLANTED = {
    "cart": "7 doors",
    "next": "https://evil.test/",
    "state": "planted",
    "nonce": "planted",
    "code_verifier": "planted",
    "oauth_state": "planted",
    "_state_op_RfBk2": "planted",
    "github_oauth_state": "planted",
    "socialaccount_states": "planted",
    "user_id": "admin",
}


@pytest.mark.parametrize(
    ("carry", "moved"),
    [
        ((), set()),
        (["cart"], {"cart"}),
        ({"cart": str.isdigit}, set()),
        ({"cart": lambda value: "doors" in value}, {"cart"}),
        (ALL, {"cart", "user_id"}),
    ],
)
def test_what_a_planted_session_holds_moves_only_by_name(build: Build, carry: Any, moved: set[str]) -> None:
    """D12 (M4, TOK-12, TOK-17): the planted token is dead, next and state have not moved."""
    house = build(carry=carry)
    attacker = house.visitor(peer="203.0.113.66")
    for key, value in PLANTED.items():
        attacker.get(f"/data?write={key}&value={value}")
    planted = attacker.token
    victim = house.visitor(planted)
    assert victim.user is None, "data makes nobody logged in"
    token = victim.login("victim")
    assert not set((planted or "").split(".")[1:]) & set(token.split(".")[1:]), "handle, family and turn are new"
    assert victim.get("/data").json.keys() == moved
    assert attacker.user is None
    assert attacker.get("/data").json == {}
    assert victim.user == "victim"


@pytest.mark.parametrize("again", ["/reauth", "/login", "/data?do=renew", "/account/password"])
def test_no_grace_is_left_to_the_token_of_before(house: House, clock: Clock, again: str) -> None:
    """TOK-04: at login, step-up and renewal by hand the old token is dead at once, and dead twice is no theft."""
    visitor = house.visitor()
    old = visitor.login()
    if again.startswith("/data"):
        visitor.get(again)
    else:
        visitor.post(again, user="alice")
    new = visitor.token
    assert new != old
    for _ in range(2):
        assert house.visitor(old).get("/me").status == 401
    assert house.visitor(new).user == "alice"
    assert len(house.control.records(live=True)) == 1


@pytest.mark.parametrize("late", ["/me", "/data?write=k", "/form", "/missing"])
def test_a_request_with_the_token_of_before_the_login_wipes_nothing(house: House, late: str) -> None:
    """D16: it arrives after the login and is answered without any cookie; loud it is not."""
    visitor = house.visitor()
    visitor.get("/data?write=cart&value=1")
    before = visitor.prepare("GET", late)
    visitor.login()
    answer = house.ask(before)
    assert answer.token is None
    visitor.keep(answer)
    assert visitor.user == "alice"
    for event in house.events("session_use_after_expire"):
        assert event.detail["expected"] is True


def test_a_slow_renewal_is_overtaken_by_a_login_and_hands_out_nothing(house: House, clock: Clock) -> None:
    """D17: the renewal's commit conflicts; its answer, delivered last, has no cookie."""
    visitor = house.visitor()
    visitor.login()
    clock.wind(RENEW)
    slow = house.start(visitor.prepare("GET", "/me?hold=slow"), visitor.prepare("GET", "/data?hold=slow&write=x"))
    house.control.gate("slow").wait_until_reached(2)
    visitor.post("/reauth")
    house.control.gate("slow").open()
    for answer in slow.answers():
        assert answer.token is None
        visitor.keep(answer)
    assert visitor.get("/me").json["level"] == 20
    assert "x" not in visitor.get("/data").json


def test_a_renewal_committed_before_a_login_and_delivered_after_it_costs_one_more_login(
    house: House, clock: Clock
) -> None:
    """D17, its other order, and the limit of what a cookie can do: nothing is deleted, ended or called theft.

    The old token is dead at the login (TOK-04), so the overwritten jar is a stranger's; the login itself lives on.
    """
    visitor = house.visitor()
    visitor.login()
    clock.wind(RENEW)
    late = house.ask(visitor.prepare("GET", "/me"))
    login = visitor.login()
    visitor.keep(late)
    answer = visitor.get("/me")
    assert (answer.status, answer.token) == (401, None)
    assert house.visitor(login).user == "alice"
    assert [event.detail["expected"] for event in house.events("session_use_after_expire")] == [True]
    assert house.events("session_token_reuse") == []


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_login_that_races_a_renewal_wins_whichever_commits_first(house: House, clock: Clock, user: str) -> None:
    """Beyond D17: both have loaded the same record; afterwards one session lives, and it is the login's."""
    visitor = house.visitor()
    old = visitor.login()
    clock.wind(RENEW)
    login = visitor.prepare("POST", "/login?hold=login", body=f"user={user}".encode())
    pending = house.start(login)
    house.control.gate("login").wait_until_reached()
    renewed = house.ask(visitor.prepare("GET", "/me"))
    assert renewed.token
    house.control.gate("login").open()
    (answer,) = pending.answers()
    assert answer.status == 303
    assert answer.token
    visitor.keep(answer)
    assert visitor.user == user
    for loser in (old, renewed.token):
        assert house.visitor(loser).get("/me").status == 401
    assert visitor.user == user
    assert len(house.control.records(live=True)) == 1
    assert house.events("session_token_reuse") == []


def test_a_login_that_races_a_logout_revives_nothing(house: House) -> None:
    """Promise 1: a step-up that was under way when its session was ended is refused."""
    visitor = house.visitor()
    visitor.login()
    pending = house.start(visitor.prepare("POST", "/reauth?hold=login"))
    house.control.gate("login").wait_until_reached()
    thief = house.visitor(visitor.token)
    house.ask(visitor.prepare("POST", "/logout"))
    house.control.gate("login").open()
    (answer,) = pending.answers()
    assert (answer.status, answer.token) == (401, None)
    assert thief.user is None
    assert house.control.records(live=True) == []


def test_an_owner_who_is_refused_and_logs_in_takes_the_thief_down(house: House, clock: Clock) -> None:
    """D73, 2.4: his old token proves the family, so its branch ends with the reason theft."""
    owner = house.visitor()
    stolen = owner.login()
    thief = house.visitor(stolen, peer="203.0.113.66")
    clock.wind(RENEW)
    thief.get("/me")
    assert thief.user == "alice"
    clock.wind(100)
    owner.token = stolen
    assert owner.get("/me").status == 401
    owner.login()
    assert thief.user is None
    assert owner.user == "alice"
    assert house.record(stolen).ended_because == "theft"


HELD = ("late", "stale", "straggler", "ended")


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("on_theft", ["end", "note"])
def test_a_token_that_is_refused_logs_nobody_out_elsewhere(
    build: Build, clock: Clock, held: str, on_theft: str
) -> None:
    """Beyond P6: who holds an old token may end that session; a logout everywhere is for those who are believed."""
    house = build(on_theft=on_theft)
    owner, phone = house.visitor(), house.visitor()
    phone.login()
    old = owner.login()
    for _ in range(2 if held == "stale" else 1):
        clock.wind(RENEW)
        owner.get("/me")
        owner.get("/me")
    if held == "ended":
        owner.post("/logout")
    clock.wind({"straggler": 100}.get(held, 400))
    answer = house.ask(house.visitor(old).prepare("POST", "/logout?everywhere=1"))
    assert answer.status == 303
    assert phone.user == "alice"
