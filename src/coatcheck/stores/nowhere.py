"""The store that is none: sealed tokens alone, which nobody can list or take back.

It keeps nothing, so it never refuses a commit but for what would be a lie: ending sessions that it does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..core.errors import StoreError
from ..core.model import (
    Change,
    Conflict,
    EndOthers,
    Epochs,
    Event,
    Handle,
    Instant,
    Query,
    RaiseEpoch,
    Record,
    RecordPage,
)


class NoStore:
    """Keeps nothing; tells its listeners what happened."""

    keeps = False

    def __init__(self, clock: Callable[[], Instant] = time.time) -> None:
        """Open nothing; `clock` is the application's own, since there is no other."""
        self._clock = clock
        self.listeners: list[Callable[[Sequence[Event]], None]] = []

    def as_async(self) -> AsyncNoStore:
        """Return the async face."""
        face = AsyncNoStore.__new__(AsyncNoStore)
        face._hold(self)  # noqa: SLF001 - the two faces are one store
        return face

    def load(self, handle: Handle) -> Record | None:
        """Return None: there is nothing."""
        return None

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Tell the listeners; raise StoreError for what claims to end sessions elsewhere."""
        if any(isinstance(change, EndOthers | RaiseEpoch) for change in changes):
            _impossible("ended")
        events = [event for change in changes for event in change.events]
        for listener in self.listeners if events else ():
            listener(events)
        return None

    def find(self, query: Query) -> RecordPage:
        """Raise StoreError."""
        _impossible("listed")

    def purge(self, limit: int) -> int:
        """Do nothing."""
        return 0

    def epochs(self) -> Epochs:
        """Return no epochs."""
        return Epochs(self._clock(), {}, "nowhere")

    def close(self) -> None:
        """Do nothing."""


class AsyncNoStore:
    """Keeps nothing; tells its listeners what happened."""

    keeps = False

    def __init__(self, clock: Callable[[], Instant] = time.time) -> None:
        """Open nothing; `clock` is the application's own, since there is no other."""
        self._hold(NoStore(clock))

    def _hold(self, face: NoStore) -> None:
        self._face, self.listeners = face, face.listeners

    async def load(self, handle: Handle) -> Record | None:
        """Return None: there is nothing."""
        return None

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Tell the listeners; raise StoreError for what claims to end sessions elsewhere."""
        return self._face.commit(commit_id, changes, durable)

    async def find(self, query: Query) -> RecordPage:
        """Raise StoreError."""
        return self._face.find(query)

    async def purge(self, limit: int) -> int:
        """Do nothing."""
        return 0

    async def epochs(self) -> Epochs:
        """Return no epochs."""
        return self._face.epochs()

    async def close(self) -> None:
        """Do nothing."""


def _impossible(what: str) -> NoReturn:
    message = f"sealed tokens without a store lie in the browsers only: they cannot be {what}; name a store"
    raise StoreError(message)
