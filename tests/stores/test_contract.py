"""Every store keeps the contract, in both of its faces."""

from pathlib import Path

import pytest

from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock) -> MemoryStore:
        return MemoryStore(clock=clock)


class TestAsyncMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock) -> AsyncMemoryStore:
        return AsyncMemoryStore(clock=clock)


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock, tmp_path: Path) -> SqliteStore:
        return SqliteStore(tmp_path / "sessions.db", clock=clock)


class TestAsyncSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock, tmp_path: Path) -> AsyncSqliteStore:
        return AsyncSqliteStore(tmp_path / "sessions.db", clock=clock)
