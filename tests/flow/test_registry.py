"""What an operator sees of all realms at once: sessions, not what lies beside them; and which store is looked at."""

import os
from pathlib import Path

import pytest

from coatcheck import AsyncRegistry, MemoryStore, Registry, open_store
from coatcheck.core.model import Insert
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock
from coatcheck.testing.face import make

BESIDE = ("__Host-coat/converted", "__Host-coat/links")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    """Return a store with three marks and links, then a session, two more, and another session."""
    store = MemoryStore(clock=clock)
    realms = (*BESIDE, BESIDE[0], "__Host-coat", *BESIDE, "admin")
    for number, realm in enumerate(realms):
        clock.wind(1.0)
        record = make(f"handle-{number}", clock, realm=realm, subject="alice")
        store.commit(os.urandom(16), (Insert(record=record),), durable=True)
    return store


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_all_realms_are_those_of_sessions(store: MemoryStore, clock: Clock, limit: int) -> None:
    registry, cursor, found = Registry(store, None, clock), None, []
    while True:
        page = registry.find("alice", limit=limit, cursor=cursor)
        found += [record.handle for record in page.items]
        assert page.items or page.cursor is None
        cursor = page.cursor
        if cursor is None:
            break
    assert found == ["handle-3", "handle-6"]


def test_who_names_the_realm_sees_what_lies_in_it(store: MemoryStore, clock: Clock) -> None:
    shown = Registry(store, BESIDE[0], clock).find()
    assert [record.handle for record in shown.items] == ["handle-0", "handle-2", "handle-4"]


def test_what_makes_a_logout_final_is_not_ended_by_mistake(store: MemoryStore, clock: Clock) -> None:
    assert not Registry(store, None, clock).revoke("handle-0")
    assert Registry(store, None, clock).find(handle="handle-0").items == ()
    assert Registry(store, BESIDE[0], clock).revoke("handle-0")
    assert Registry(store, None, clock).revoke("handle-3")


async def test_a_registry_opens_the_store_that_a_url_names(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    store = open_store(url)
    store.commit(os.urandom(16), (Insert(record=make("one", clock, realm="__Host-coat")),), durable=True)
    registry, awaited = Registry(url, clock=clock), AsyncRegistry(url, clock=clock)
    assert [one.handle for one in registry.find().items] == ["one"]
    assert [one.handle for one in (await awaited.find()).items] == ["one"]
    store.close()
    registry.close()
    await awaited.close()


async def test_it_closes_what_it_opened_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []

    def close(store: SqliteStore) -> None:
        closed.append(store)

    monkeypatch.setattr(SqliteStore, "close", close)
    given = SqliteStore(tmp_path / "given.db")
    Registry(given).close()
    assert closed == []
    Registry(f"sqlite:///{tmp_path}/sessions.db").close()
    assert len(closed) == 1
