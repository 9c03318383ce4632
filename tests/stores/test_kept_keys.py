"""Every store that keeps keys keeps them as promised; SQLite through a crash of the process, too."""

import sqlite3

import pytest

from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.testing.keeping import KeptKeysContract


class TestMemory(KeptKeysContract):
    @pytest.fixture
    def store(self, clock):
        return MemoryStore(clock=clock)


class TestAsyncMemory(KeptKeysContract):
    @pytest.fixture
    def store(self, clock):
        return AsyncMemoryStore(clock=clock)


class TestSqlite(KeptKeysContract):
    @pytest.fixture
    def store(self, clock, tmp_path):
        return SqliteStore(tmp_path / "sessions.db", clock=clock)


class TestAsyncSqlite(KeptKeysContract):
    @pytest.fixture
    def store(self, clock, tmp_path):
        return AsyncSqliteStore(tmp_path / "sessions.db", clock=clock)


def test_both_faces_and_every_process_see_the_same_keys(tmp_path):
    one, other = SqliteStore(tmp_path / "sessions.db"), SqliteStore(tmp_path / "sessions.db")
    assert one.put_key("ring", b"value", None)
    assert other.keys() == {"ring": b"value"}
    one.close()
    other.close()
    memory = MemoryStore()
    memory.put_key("ring", b"value", None)
    assert memory.as_async()._shelf.keys == {"ring": b"value"}


def test_a_key_is_on_the_disk_before_anybody_seals_with_it(tmp_path):
    """A power cut may not take a key that has sealed something: its commit waits for the disk."""
    store = SqliteStore(tmp_path / "sessions.db")
    store.epochs()
    link = store._file.take(store._here)
    link.busy = False
    link.sync(full=False)
    seen = []
    link.db.set_trace_callback(
        lambda text: (
            seen.append((text.split()[0], link.db.execute("pragma synchronous").fetchone()))
            if text.startswith(("insert", "update"))
            else None
        )
    )
    assert store.put_key("ring", b"value", None)
    assert ("insert", (2,)) in seen
    store.close()


def test_another_process_that_writes_is_waited_for_in_vain_with_a_sentence(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "sessions.db")
    store.epochs()
    blocker = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    blocker.execute("begin immediate")
    store._here.link.db.execute("pragma busy_timeout = 50")
    with pytest.raises(Exception, match="locked by another writer; nothing was written"):
        store.put_key("ring", b"value", None)
    blocker.execute("rollback")
    blocker.close()
    assert store.keys() == {}
    store.close()
