"""The memory store beyond the contract: it stays small, tidies by itself, and loses nothing between threads."""

import asyncio
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied
from coatcheck.core.model import End, EndOthers, EventQuery, Insert, Note, Query, Touch, Update
from coatcheck.stores import memory
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, make


def insert(store: MemoryStore, clock: Clock, handle: str, **changed: object) -> None:
    assert store.commit(handle.encode(), [Insert(record=make(handle, clock, **changed))], durable=False) is None


def everyone(store: MemoryStore) -> list[str]:
    return [one.handle for one in store.find(Query(live=False, limit=100_000)).items]


def test_both_faces_share_their_records() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    insert(store, clock, "h")
    assert asyncio.run(store.as_async().load("h")) is store.load("h")
    assert store.as_async().listeners is store.listeners


def test_two_stores_have_nothing_in_common() -> None:
    assert MemoryStore().epochs().generation != MemoryStore().epochs().generation


def test_a_full_store_drops_first_what_is_over() -> None:
    clock = Clock()
    store = MemoryStore(most=3, clock=clock)
    insert(store, clock, "overdue")
    clock.wind(1800)
    for handle in ("anonymous", "ann"):
        insert(store, clock, handle, subject=None if handle == "anonymous" else "ann")
    insert(store, clock, "new")
    assert everyone(store) == ["ann", "anonymous", "new"]
    assert [one.handle for one in store.events(EventQuery(name="session_expired")).items] == ["overdue"]


def test_a_full_store_then_drops_the_anonymous_least_recently_seen() -> None:
    clock = Clock()
    store = MemoryStore(most=3, clock=clock)
    insert(store, clock, "ann")
    insert(store, clock, "old", subject=None)
    insert(store, clock, "busy", subject=None)
    store.commit(b"t", [Touch(handle="busy", seen_at=clock.wind(5))], durable=False)
    insert(store, clock, "new", subject=None)
    assert everyone(store) == ["ann", "busy", "new"]


def test_a_store_full_of_logins_refuses_and_says_what_to_do() -> None:
    clock = Clock()
    store = MemoryStore(most=2, clock=clock)
    for handle in "ab":
        insert(store, clock, handle)
    with pytest.raises(NotApplied, match="full: 2 logged-in sessions; raise `most` or use another store"):
        insert(store, clock, "c")
    assert store.commit(b"u", [Update(record=make("a", clock), was=1)], durable=False) is None
    assert everyone(store) == ["a", "b"]


def test_it_purges_by_itself() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    insert(store, clock, "h")
    clock.wind(1800)
    for number in range(300):
        store.commit(b"%d" % number, [Touch(handle="nobody", seen_at=0.0)], durable=False)
    assert store.load("h").ended_because == "idle"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["insert", "login", "end", "touch", "others", "note", "wind"]), max_size=300))
def test_it_stays_bounded_whatever_happens(acts: list[str]) -> None:
    clock = Clock()
    store = MemoryStore(most=20, clock=clock, tombstone=600.0)
    for number, act in enumerate(acts * 3):
        handle = f"{number:05}"
        changes = {
            "insert": [Insert(record=make(handle, clock, subject=None))],
            "login": [Insert(record=make(handle, clock, subject=f"s{number % 5}"))],
            "end": [End(handle=f"{number - 3:05}", because="logout")],
            "touch": [Touch(handle=f"{number - 2:05}", seen_at=clock.now)],
            "others": [EndOthers(realm="", subject=f"s{number}", because="owner")],
            "note": [Note(events=(event("e", clock),))],
            "wind": [],
        }[act]
        clock.wind(100 if act == "wind" else 0)
        try:
            store.commit(b"%d" % number, changes, durable=False)
        except NotApplied:
            assert all(one.subject for one in store.find(Query(limit=99)).items)
    shelf = store._shelf
    assert len(shelf.records) <= 20
    assert len(shelf.subjects) <= 20
    assert len(shelf.due) <= 2 * 20 + 1024 + 1
    assert set().union(*shelf.of_subject.values()) == {one.handle for one in shelf.records.values() if one.subject}


def test_events_are_bounded_and_noise_never_pushes_out_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST_EVENTS", 10)
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.commit(b"fact", [Note(events=(event("fact", clock),))], durable=False)
    for number in range(100):
        store.commit(b"%d" % number, [Note(events=(event("noise", clock, noise=True),))], durable=False)
    assert len(store.events(EventQuery(limit=1000)).items) == 11
    assert len(store.events(EventQuery(noise=False)).items) == 1
    assert len(store._shelf.log._known) == 11


def test_fifty_threads_that_write_fifty_keys_lose_none() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    insert(store, clock, "h", data=b"")

    def append(key: int) -> None:
        while True:
            base = store.load("h")
            update = Update(record=replace(base, data=base.data + bytes([key])), was=base.version)
            if store.commit(os.urandom(8), [update], durable=False) is None:
                return

    workers = [threading.Thread(target=append, args=(key,)) for key in range(50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(store.load("h").data) == list(range(50))
