"""All stores are one store: whatever is done to two of them, they answer and keep the same.

The SQL stores decide the commonest changes in one statement each, the memory store by the ledger's functions; this
holds them together. Redis has the same test beside its scripts (test_redis.py).
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from coatcheck.core import ledger
from coatcheck.core.model import Change, End, EndOthers, EventQuery, Insert, Limit, Note, Query, Replace, Touch, Update
from coatcheck.core.paging import EventsFrom, RecordsFrom, cursor_of, events_from, records_from
from coatcheck.stores import sql
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.mysql import MySqlStore
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, full, make
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres

START = 1_800_000_000.0
EXAMPLES = int(os.environ.get("COATCHECK_AGREEMENTS", "40"))
"""Sequences of commits that each server is compared by."""

handles = st.sampled_from(["a", "b", "c", "d", "e"])
offsets = st.sampled_from([-60.0, -1.0, 0.0, 1.0, 60.0])
versions = st.integers(1, 4)
turns = st.sampled_from([b"turn-1", b"turn-2", None])
limits = st.sampled_from([None, Limit(1), Limit(2), Limit(2, refuse=True)])


@st.composite
def records(draw: st.DrawFn) -> Any:
    clock = Clock(START + draw(offsets))
    return make(
        draw(handles),
        clock,
        family_proof=draw(st.sampled_from([b"family", b"other family"])),
        turn_proof=draw(turns),
        used_at=draw(st.sampled_from([None, START - 5, START + 5])),
        former_proof=draw(turns),
        nonce=draw(st.sampled_from([None, b"nonce"])),
        data=draw(st.binary(max_size=3)),
        idle_for=draw(st.sampled_from([None, 30.0, 1800.0])),
        expires_at=START + draw(st.sampled_from([30.0, 3600.0])),
        subject=draw(st.sampled_from(["ann", "ann", "bob", None])),
    )


def changes() -> st.SearchStrategy[Change]:
    events = st.sampled_from([(), (event("given", Clock(START)),)])
    times = offsets.map(lambda offset: START + offset)
    maybe = st.one_of(st.none(), times)
    return st.one_of(
        st.builds(Insert, record=records(), limit=limits, events=events),
        st.builds(Update, record=records(), was=versions, events=events),
        st.builds(Replace, record=records(), old=handles, was=versions, limit=limits, events=events),
        st.builds(Touch, handle=handles, seen_at=times, turn_proof=turns, events=events),
        st.builds(End, handle=handles, because=st.just("logout"), if_seen_at=maybe, events=events),
        st.builds(
            EndOthers,
            realm=st.just(""),
            subject=st.sampled_from(["ann", "bob"]),
            keep=st.lists(handles, max_size=2).map(tuple),
            because=st.just("owner"),
            before=maybe,
            events=events,
        ),
        st.builds(Note, events=events),
    )


commits = st.tuples(
    st.sampled_from([b"1", b"2", b"3"]),
    st.lists(changes(), min_size=1, max_size=3).filter(lambda given: sum(map(ledger.is_primary, given)) <= 1),
    st.sampled_from([0.0, 0.0, 1.0, 40.0, 2000.0]),
    st.booleans(),
)


acts_of_a_day = st.lists(commits, min_size=3, max_size=25)


@settings(max_examples=250, deadline=None)
@given(acts_of_a_day)
def test_memory_and_sqlite_answer_and_keep_the_same(acts: list[Any]) -> None:
    clock = Clock(START)
    with tempfile.TemporaryDirectory() as folder, closing(SqliteStore(Path(folder, "s.db"), clock=clock)) as on_disk:
        agree(on_disk, clock, acts)


@pytest.fixture(scope="module")
def on_postgresql() -> Iterator[tuple[Any, Clock, Callable[[], None]]]:
    server = server_or_skip(postgres.server)
    clock = Clock(START)
    store = PostgresStore(server.url, prefix="agreement_", clock=clock)
    store.epochs()
    with psycopg.connect(server.url, autocommit=True) as admin:
        tables = ("sessions", "subjects", "epochs", "events")
        yield store, clock, lambda: [admin.execute(f"delete from agreement_{name}") for name in tables] and None
    store.close()


@pytest.fixture(scope="module")
def on_mysql() -> Iterator[tuple[Any, Clock, Callable[[], None]]]:
    server, name = server_or_skip(mysql.shared)
    clock = Clock(START)
    store = MySqlStore(server.empty(name), clock=clock)
    yield store, clock, lambda: server.empty(name) and None
    store.close()


@pytest.mark.parametrize("where", ["on_postgresql", "on_mysql"])
@pytest.mark.timeout(300)
def test_memory_and_a_server_answer_and_keep_the_same(where: str, request: pytest.FixtureRequest) -> None:
    store, clock, empty = request.getfixturevalue(where)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(acts_of_a_day)
    def holds(acts: list[Any]) -> None:
        clock.now = START
        empty()
        agree(store, clock, acts)

    holds()


def agree(other: Any, clock: Clock, acts: list[Any]) -> None:
    """Do the same to a memory store and another; compare what they answer, keep and tell."""
    both = (MemoryStore(clock=clock), other)
    for commit_id, given_changes, wind, purge in acts:
        one, another = (store.commit(commit_id, given_changes, durable=False) for store in both)
        assert one == another
        clock.wind(wind)
        if purge:
            one_purged, other_purged = (store.purge(3) for store in both)
            assert one_purged == other_purged
        one_page, other_page = (store.find(Query(live=False)).items for store in both)
        assert one_page == other_page
    one_log, other_log = (told(store) for store in both)
    assert one_log == other_log


def told(store: Any) -> list[Any]:
    return sorted((one.at, one.name, one.handle or "", str(one.detail)) for one in store.events(EventQuery()).items)


@given(records(), st.floats(0, 1e12))
def test_a_record_survives_its_row(record: Any, due_at: float) -> None:
    assert sql.record_of(sql.row_of(record, due_at)[:-1]) == record


def test_a_full_record_and_event_survive_their_rows() -> None:
    record = replace(full(Clock()), binding=b"key", ended_at=1.0, ended_because="logout", successor="s")
    assert sql.record_of(sql.row_of(record, 0.0)[:-1]) == record
    fact = event("e", Clock(), realm="r", handle="h", subject="s", client=record.client, detail={"n": 1}, noise=True)
    assert sql.event_of(sql.event_row(fact)) == fact


def test_what_json_does_not_know_is_kept_as_text_and_never_fails_a_commit() -> None:
    fact = event("e", Clock(), detail={"what": object, "when": {1, 2}})
    assert "object" in sql.event_of(sql.event_row(fact)).detail["what"]


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.text(), st.integers(0, 2**62))
def test_a_place_survives_its_cursor(one: float, other: float, text: str, number: int) -> None:
    place, event_place = RecordsFrom(one, other, text), EventsFrom(one, number)
    assert records_from(cursor_of(place)) == place
    assert events_from(cursor_of(event_place)) == event_place
