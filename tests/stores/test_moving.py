"""Two stores as one keep the contract: before the move has begun, and while it is under way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core.model import Change, Conflict, Query, Record, RecordPage, Replace, Update
from coatcheck.stores.moving.steps import FAR
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract

from .moves import LOCAL, async_pair, pair


class Near:
    """A store in whose old half everything lies, with versions as that one counts them."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def load(self, handle: str) -> Record | None:
        return _near(self._store.load(handle))

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        return _seen(self._store.commit(commit_id, [_far(change) for change in changes], durable))

    def find(self, query: Query) -> RecordPage:
        return _listed(self._store.find(query))


class AsyncNear(Near):
    """The same, awaited."""

    async def load(self, handle: str) -> Record | None:
        return _near(await self._store.load(handle))

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        return _seen(await self._store.commit(commit_id, [_far(change) for change in changes], durable))

    async def find(self, query: Query) -> RecordPage:
        return _listed(await self._store.find(query))


def _near(record: Record | None) -> Record | None:
    return record if record is None else replace(record, version=record.version - FAR)


def _far(change: Change) -> Change:
    return replace(change, was=change.was + FAR) if isinstance(change, (Update, Replace)) else change


def _seen(conflict: Conflict | None) -> Conflict | None:
    return conflict if conflict is None else replace(conflict, current=_near(conflict.current))


def _listed(page: RecordPage) -> RecordPage:
    return replace(page, items=tuple(_near(record) for record in page.items))


class TestBegun(StoreContract):
    """Sessions are created in the new store, and the old one is empty."""

    @pytest.fixture(params=LOCAL)
    def store(self, request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Any:
        dual = pair(request.param, tmp_path, clock)
        dual.begin()
        return dual


class TestAsyncBegun(StoreContract):
    @pytest.fixture(params=LOCAL)
    def store(self, request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Any:
        blocking = pair(request.param, tmp_path, clock)
        blocking.begin()
        return blocking.as_async()


class TestNotBegun(StoreContract):
    """Everything lies in the old store, and is written there."""

    @pytest.fixture(params=LOCAL)
    def store(self, request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Any:
        return Near(pair(request.param, tmp_path, clock))


class TestAsyncNotBegun(StoreContract):
    @pytest.fixture(params=LOCAL)
    def store(self, request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Any:
        return AsyncNear(async_pair(request.param, tmp_path, clock))
