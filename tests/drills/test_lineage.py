"""Old turns: honoured while an honest browser can still hold them, then evidence (D04-D08, D13; TOK-13, -14, -15)."""

from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.model import Record
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import House, Snapshot, Visitor
from .worker import working

RENEW = 900.0
GENERATIONS = 50


def renewed(visitor: Visitor, clock: Clock) -> str:
    """Let the secret be renewed and the new one be seen; return the old one."""
    old = visitor.token or ""
    clock.wind(RENEW + 1)
    assert visitor.get("/me").token, "the answer carries the successor"
    assert visitor.get("/me").status == 200
    return old


def secrets_of(record: Record) -> tuple[Any, ...]:
    return (record.turn_proof, record.former_proof, record.nonce, record.used_at, record.handed_at)


@pytest.mark.parametrize("target", ["/me?hold=go", "/data?hold=go&write=k"])
def test_fifty_parallel_requests_at_renewal_get_one_successor_once(house: House, clock: Clock, target: str) -> None:
    """D04 (TOK-14, CKE-07)."""
    visitor = house.visitor()
    visitor.login()
    before = house.record(visitor.token or "")
    clock.wind(RENEW)
    pending = house.start(*[visitor.prepare("GET", target)] * 50)
    house.control.gate("go").wait_until_reached(50)
    house.control.gate("go").open()
    answers = pending.answers()
    assert [answer.status for answer in answers] == [200] * 50
    successors = [answer.token for answer in answers if answer.token is not None]
    assert len(successors) == 1, "one Set-Cookie"
    record = house.record(visitor.token or "")
    assert record.former_proof == before.turn_proof, "one successor"
    if "write" not in target:
        assert record.version == before.version + 1, "one Update"
    assert len(house.events("session_renewed")) == 1
    assert len(house.control.records()) == 1
    visitor.token = successors[0]
    assert visitor.user == "alice"
    assert house.events("session_token_reuse") == []


def test_a_lost_answer_costs_nobody_anything(house: House, clock: Clock) -> None:
    """D05: the answer with the successor is lost; the old turn comes again at +10, +61, +300 s and + renew."""
    visitor = house.visitor()
    old = visitor.login()
    clock.wind(RENEW)
    lost = house.ask(visitor.prepare("GET", "/me")).token
    assert lost
    handed = secrets_of(house.record(old))
    start = clock.now
    for after, expected in ((10, None), (61, None), (300, None), (RENEW - 1, None), (RENEW, lost), (RENEW + 60, lost)):
        clock.now = start + after
        answer = house.ask(visitor.prepare("GET", "/me"))
        assert (after, answer.status, answer.token) == (after, 200, expected)
        assert secrets_of(house.record(old)) == handed, "no write of the token fields"
    assert {event.name for event in house.events()} == {"session_created", "authn_login_success", "session_renewed"}


def test_an_answer_that_comes_five_minutes_late_is_still_good(house: House, clock: Clock) -> None:
    """D06: the first answer overtaken by its own re-hand: both say the same, in either order."""
    visitor = house.visitor()
    visitor.login()
    clock.wind(RENEW)
    late = house.ask(visitor.prepare("GET", "/me"))
    clock.wind(RENEW)
    visitor.get("/me")
    assert visitor.token == late.token
    clock.wind(10)
    assert visitor.user == "alice"
    clock.wind(290)
    visitor.keep(late)
    assert visitor.user == "alice"
    assert house.events("session_token_reuse") == []


@pytest.mark.parametrize(("on_theft", "alive"), [("end", None), ("note", "alice")])
def test_each_of_fifty_former_generations_is_recognised(
    build: Build, store: Any, clock: Clock, on_theft: str, alive: str | None
) -> None:
    """D07 (TOK-15, C1, P3): recognised at any age, though the store keeps two generations only."""
    house = build(on_theft=on_theft)
    owner = house.visitor()
    owner.login()
    former = [renewed(owner, clock) for _ in range(GENERATIONS)]
    assert len({*former, owner.token}) == GENERATIONS + 1
    clock.wind(400)
    assert owner.user == "alice"
    as_it_was = Snapshot(store)
    for age, token in enumerate(reversed(former)):
        as_it_was.restore()
        clock.wind(0.1)
        seen = len(house.events("session_token_reuse"))
        thief = house.visitor(token, peer="203.0.113.66")
        answer = thief.get("/me")
        assert (answer.status, answer.token) == (401, None)
        told = house.events("session_token_reuse")[seen:]
        if on_theft == "end":
            assert [event.detail["kind"] for event in told] == ["late" if age == 0 else "stale"]
            assert told[0].client is not None
            assert told[0].client.address == "203.0.113.66"
            assert told[0].detail["known_address"] == owner.peer
            assert house.record(token).ended_because == "theft"
        assert owner.user == alive
    kinds = [event.detail["kind"] for event in house.events("session_token_reuse")]
    assert set(kinds) == {"late", "stale"}
    if on_theft == "note":
        assert len(kinds) <= 3, "at most one fact a minute, session and kind"


BOUNDARIES = [
    # seconds after the first sight, by the clock of the node that judges, which is `ahead` of the one that saw
    (0, 59.0, 200, None),
    (0, 64.9, 200, None),
    (0, 65.0, 401, None),
    (0, 299.9, 401, None),
    (0, 300.0, 401, "theft"),
    (4, 59.0, 200, None),
    (4, 66.0, 401, None),
    (4, 306.0, 401, "theft"),
    (-4, 59.0, 200, None),
    (-4, 70.0, 401, None),
    (-4, 306.0, 401, "theft"),
]


@pytest.mark.parametrize(("ahead", "after", "status", "ended"), BOUNDARIES)
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_the_boundaries_of_a_grace_hold_between_nodes_whose_clocks_differ(
    tmp_path: Path, kind: str, ahead: float, after: float, status: int, ended: str | None
) -> None:
    """D08 (M16): two nodes, each with its manager, its clock and its own connections, on one file."""
    here, there = Clock(), Clock()
    there.now = here.now + ahead
    file = tmp_path / "sessions.db"
    one = House(kind, SqliteStore(file, clock=here), here)
    two = House(kind, SqliteStore(file, clock=there), there)
    owner = one.visitor()
    owner.login()
    there.now = here.now + ahead
    old = renewed(owner, here)
    there.now = here.now + ahead + after
    assert two.visitor(old).get("/me").status == status
    assert two.record(old).ended_because == ended
    there.now += 0.1
    assert two.visitor(owner.token).user == (None if ended else "alice")
    reuse = [event.detail["kind"] for event in two.events("session_token_reuse")]
    assert reuse == ([] if status == 200 else ["late" if ended else "straggler"])
    for house in (one, two):
        house.control.plain.close()
        house.close()


def test_a_second_process_honours_what_the_first_renewed_at_once(tmp_path: Path, clock: Clock) -> None:
    """D13, D08 (H8): what the first process has just written counts in the second; no step in between is theft."""
    file = tmp_path / "sessions.db"
    store = SqliteStore(file, clock=clock)
    house = House("wsgi", store, clock)
    owner = house.visitor()
    owner.login()
    with working(file, clock.now + 4) as worker:
        elsewhere = lambda token: worker.ask(house.visitor(token).prepare("GET", "/me"), clock.now + 4)  # noqa: E731
        old = owner.token
        assert elsewhere(old).status == 200, "it has looked at the record before it was renewed"
        clock.wind(RENEW)
        assert owner.get("/me").token
        assert elsewhere(old).status == 200, "former, its successor unseen"
        assert elsewhere(owner.token).status == 200, "the successor, seen here first"
        assert elsewhere(old).status == 200, "former, in its grace"
        assert owner.user == "alice"
        assert house.events("session_token_reuse") == []
        owner.post("/logout")
        assert elsewhere(old).status == 401
        owner.login("bob")
        assert elsewhere(owner.token).json["user"] == "bob"
        clock.wind(RENEW)
        old = owner.token
        owner.get("/me")
        owner.get("/me")
        clock.wind(306)
        assert elsewhere(old).status == 401
        assert house.record(old or "").ended_because == "theft", "a thief met there is out here"
        assert owner.user is None
    store.close()


def test_a_slow_worker_takes_a_request_of_before_the_renewal_for_no_thief(build: Build, clock: Clock) -> None:
    """D13: loaded before the renewal, judged once, answered after it."""
    house = build()
    visitor = house.visitor()
    visitor.login()
    clock.wind(RENEW - 1)
    slow = house.start(visitor.prepare("GET", "/data?hold=slow&write=late"))
    house.control.gate("slow").wait_until_reached()
    clock.wind(2)
    visitor.get("/me")
    visitor.get("/me")
    house.control.gate("slow").open()
    (answer,) = slow.answers()
    assert (answer.status, answer.token) == (200, None)
    assert visitor.get("/data").json == {"late": "1"}
    assert house.events("session_token_reuse") == []


def test_no_renewal_and_no_activity_moves_the_absolute_end(house: House, clock: Clock) -> None:
    """TMO-02, promise 6: a day after the login it is over, however busy it was."""
    visitor = house.visitor()
    visitor.login()
    end = clock.now + 86_400
    while clock.now < end - 901:
        renewed(visitor, clock)
    clock.now = end - 1
    assert visitor.user == "alice"
    clock.now = end
    assert visitor.get("/me").json["why"] == "absolute"
    clock.wind(-3600)
    assert visitor.user is None, "what is over stays over"
