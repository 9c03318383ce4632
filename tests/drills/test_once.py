"""What may happen once happens once, whatever is sent at the same moment (D21, D22; H13)."""

import json
from contextlib import suppress

import pytest

from coatcheck.testing.clock import Clock
from coatcheck.testing.probe import ProbeError

from .conftest import Build
from .house import House

PARALLEL = 50
TRIES = 5


@pytest.mark.parametrize("two_nodes", [False, True])
def test_of_fifty_parallel_requests_one_gets_the_grant(build: Build, two_nodes: bool) -> None:
    """D21."""
    houses = [build(), build()] if two_nodes else [build()]
    visitor = houses[0].visitor()
    visitor.login()
    visitor.get("/data?write=grant&value=pay")
    share = PARALLEL // len(houses)
    pending = [house.start(*[visitor.prepare("POST", "/take?key=grant&hold=go")] * share) for house in houses]
    for house in houses:
        house.control.gate("go").wait_until_reached(share)
    for house in houses:
        house.control.gate("go").open()
    answers = [answer for one in pending for answer in one.answers()]
    assert [answer.status for answer in answers] == [200] * PARALLEL
    assert [answer.json["taken"] for answer in answers].count("pay") == 1
    assert visitor.post("/take?key=grant").json == {"taken": None}


@pytest.mark.parametrize("spoil", ["status=500", "then=raise", "status=503", "then=refuse"])
def test_a_wrong_guess_is_counted_whatever_becomes_of_its_answer(house: House, spoil: str) -> None:
    """D22: 100 wrong codes, each in a request that then fails."""
    visitor = house.visitor()
    visitor.login()
    counts = []
    for _ in range(100):
        with suppress(ProbeError):  # a server would turn it into a 500
            visitor.post(f"/bump?key=wrong&{spoil}")
        counts.append(visitor.get("/data").json["wrong"])
    assert counts == list(range(1, 101))
    assert counts[TRIES] > TRIES, "locked"


def test_parallel_guesses_are_all_counted(house: House) -> None:
    """D22: no two of them see the same count, so at most TRIES of them get a verdict."""
    visitor = house.visitor()
    visitor.login()
    pending = house.start(*[visitor.prepare("POST", "/bump?key=wrong&hold=go")] * PARALLEL)
    house.control.gate("go").wait_until_reached(PARALLEL)
    house.control.gate("go").open()
    assert sorted(answer.json["count"] for answer in pending.answers()) == list(range(1, PARALLEL + 1))


def test_guesses_of_a_session_that_ended_meanwhile_are_refused(house: House, clock: Clock) -> None:
    """Beyond D22: requests that were let in before a logout must not be counted as number 0, again and again."""
    visitor = house.visitor()
    visitor.login()
    pending = house.start(*[visitor.prepare("POST", "/bump?key=wrong&hold=go")] * 10)
    house.control.gate("go").wait_until_reached(10)
    house.ask(visitor.prepare("POST", "/logout"))
    house.control.gate("go").open()
    for answer in pending.answers():
        assert answer.status == 401
        assert json.loads(answer.body)["error"] == "login_required"
        assert answer.token is None


def test_a_grant_of_a_session_that_ended_meanwhile_is_not_given(house: House) -> None:
    """Beyond D21."""
    visitor = house.visitor()
    visitor.login()
    visitor.get("/data?write=grant&value=pay")
    pending = house.start(visitor.prepare("POST", "/take?key=grant&hold=go"))
    house.control.gate("go").wait_until_reached()
    house.ask(visitor.prepare("POST", "/logout"))
    house.control.gate("go").open()
    (answer,) = pending.answers()
    assert answer.status == 401 or answer.json == {"taken": None}
