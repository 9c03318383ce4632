"""The keeper of a store on a server: it purges and forgets, survives what goes wrong, and ends with its store."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import pytest

from coatcheck.core.errors import StoreError
from coatcheck.core.model import End, EventQuery, Insert, Note
from coatcheck.stores import keeping
from coatcheck.stores.keeping import AsyncKeeper, Keeper
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, make

DAY = 86400.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FORGET_EVERY", 0.0)
    monkeypatch.setattr(keeping, "PAUSE", 0.0)


@pytest.fixture
def store() -> MemoryStore:
    """Return a store with 250 overdue sessions, an old tombstone, and facts and noise of each age."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.commit(b"i", [Insert(record=make("gone", clock))], durable=False)
    store.commit(b"e", [End(handle="gone", because="logout")], durable=False)
    clock.wind(8 * DAY)
    for number in range(250):
        store.commit(b"s%d" % number, [Insert(record=make(f"h{number}", clock))], durable=False)
    clock.wind(3600)
    for age in (401, 399, 31, 29):
        for noise in (False, True):
            said = event(f"{'noise' if noise else 'fact'}{age}", clock, at=clock.now - age * DAY, noise=noise)
            store.commit(b"%d%d" % (age, noise), [Note(events=(said,))], durable=False)
    return store


def tidy(store: MemoryStore) -> bool:
    names = {one.name for one in store.events(EventQuery(limit=1000)).items}
    return (
        store.load("gone") is None
        and all(store.load(f"h{number}").ended_because == "idle" for number in range(250))
        and names == {"fact399", "fact31", "fact29", "noise29", "session_expired"}
    )


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


async def comes(true: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(eventually, true)


def test_a_keeper_tidies_and_stops(store: MemoryStore) -> None:
    keeper = Keeper(store, every=0.01)
    assert eventually(lambda: tidy(store))
    keeper.stop()
    assert not keeper._thread.is_alive()


def test_a_keeper_waits_before_its_first_round(store: MemoryStore) -> None:
    keeper = Keeper(store)
    time.sleep(0.1)
    assert store.load("h249").ended_at is None
    keeper.stop()


def test_a_keeper_ends_with_its_store(store: MemoryStore) -> None:
    keeper = Keeper(store, every=0.01)
    assert eventually(lambda: tidy(store))
    forgotten = Keeper(MemoryStore(), every=60)
    gc.collect()
    assert eventually(lambda: not forgotten._thread.is_alive())
    assert keeper._thread.is_alive()
    keeper.stop()


def test_a_keeper_survives_a_store_that_fails_and_a_listener_that_raises(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    purge, failures = store.purge, [StoreError("away"), ZeroDivisionError("a listener")]

    def troubled(limit: int) -> int:
        if failures:
            raise failures.pop(0)
        return purge(limit)

    monkeypatch.setattr(store, "purge", troubled)
    keeper = Keeper(store, every=0.01)
    assert eventually(lambda: tidy(store))
    assert "could not tidy the session store: away" in caplog.text
    assert "a listener of the session store failed" in caplog.text
    keeper.stop()


async def test_an_awaited_keeper_tidies_and_stops(store: MemoryStore) -> None:
    face = store.as_async()
    keeper = AsyncKeeper(face, every=0.01)
    assert await comes(lambda: tidy(store))
    store.commit(b"n", [Note(events=(event("noise99", Clock(), at=1.0, noise=True),))], durable=False)
    assert await comes(lambda: tidy(store))
    await keeper.stop()
    store.commit(b"m", [Note(events=(event("noise99", Clock(), at=1.0, noise=True),))], durable=False)
    await asyncio.sleep(0.1)
    assert not tidy(store)


async def test_an_awaited_keeper_survives_a_store_that_fails(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    face = store.as_async()
    purge, failures = face.purge, [StoreError("away"), ZeroDivisionError("a listener")]

    async def troubled(limit: int) -> int:
        if failures:
            raise failures.pop(0)
        return await purge(limit)

    monkeypatch.setattr(face, "purge", troubled)
    keeper = AsyncKeeper(face, every=0.01)
    assert await comes(lambda: tidy(store))
    assert "could not tidy the session store: away" in caplog.text
    assert "a listener of the session store failed" in caplog.text
    await keeper.stop()


async def test_an_awaited_keeper_that_is_stopped_in_a_round_ends_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    face, begun, ended = store.as_async(), asyncio.Event(), []

    async def slow(limit: int) -> int:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(limit)
        return 0

    monkeypatch.setattr(face, "purge", slow)
    keeper = AsyncKeeper(face, every=0.01)
    await begun.wait()
    await keeper.stop()
    assert ended == [keeping.ROWS]
