"""The store contract as tests: subclass `StoreContract`, give it your store, and pytest holds the store to its word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .clock import Clock
from .face import Face
from .listings import ListingPromises
from .promises import RecordPromises


class StoreContract(RecordPromises, ListingPromises):
    """What every store promises; subclass it and provide the `store` fixture.

        class TestMyStore(StoreContract):
            @pytest.fixture
            def store(self, clock):
                return MyStore(clock=clock)        # blocking or awaited; empty

    The store must read its time from `clock` (a `coatcheck.testing.clock.Clock`), keep tombstones for seven days and
    be empty. It is closed after each test.
    """

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock that the store reads; the tests wind it."""
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Any:
        """Return the store to test."""
        raise NotImplementedError(StoreContract.__doc__)

    @pytest.fixture
    def face(self, store: Any) -> Iterator[Face]:
        """Return the store, callable without await."""
        face = Face(store)
        yield face
        face.close()
