"""The stores on which the adapters walk their journey."""

from pathlib import Path
from typing import Any

import pytest

from coatcheck import MemoryStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock
from coatcheck.testing.journey import PreviousRows


class OnMemory:
    """The journey on the memory store."""

    @pytest.fixture
    def store(self, clock: Clock) -> Any:
        return MemoryStore(clock=clock)


class OnSqlite:
    """The journey on a SQLite file, but for row 60, which asks nothing of a store that the others do not."""

    locals().update(dict.fromkeys(name for name in vars(PreviousRows) if name.startswith("test_")))

    @pytest.fixture
    def store(self, clock: Clock, tmp_path: Path) -> Any:
        return SqliteStore(tmp_path / "sessions.db", clock=clock)
