"""Two stores as one, while sessions move from the old to the new: nobody is logged out, nobody comes back.

steps   what is asked of the two, once for both colours
start   whether the move has begun; epochs
one     a session: where it counts, its move, its end
many    commits, limits, listings
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from ...core.model import (
    Change,
    Conflict,
    Epochs,
    Event,
    EventPage,
    EventQuery,
    Handle,
    Instant,
    Query,
    Record,
    RecordPage,
)
from . import many, one, start
from .one import FRESH, Moved
from .start import State
from .steps import NEW, OLD, Script, Side, adrive, drive, is_copy

__all__ = ["FRESH", "AsyncDualStore", "DualStore", "Moved", "is_copy"]

T = TypeVar("T")
Listener: TypeAlias = Callable[[Sequence[Event]], None]

COMMIT_DEADLINE: Final = 2.0
"""Seconds after which no further part of a commit is begun."""


class DualStore:
    """The store of an application whose sessions are moving: it reads the new store, then the old.

    All workers open it before the move begins (`begin`, by `coatcheck migrate`), and until it is over. It is the two
    stores together: both must answer.
    """

    def __init__(self, new: Any, old: Any, *, commit_deadline: float = COMMIT_DEADLINE) -> None:
        """Take two blocking stores; open nothing."""
        self._hold(new, old, State(), [], commit_deadline)
        for store in (new, old):
            store.listeners.append(self._hear)

    def _hold(self, new: Any, old: Any, state: State, listeners: list[Listener], commit_deadline: float) -> None:
        self.new, self.old = new, old
        self.sharded = any(getattr(store, "sharded", False) for store in (new, old))
        self.listeners = listeners
        self._state, self._deadline = state, commit_deadline
        self._stores: dict[Side, Any] = {NEW: new, OLD: old}
        if hasattr(new, "watch") and hasattr(old, "watch"):
            self.watch = self._watch
        if hasattr(new, "as_async") and hasattr(old, "as_async"):
            self.as_async = self._as_async

    def _as_async(self) -> AsyncDualStore:
        face = AsyncDualStore.__new__(AsyncDualStore)
        face._hold(self.new.as_async(), self.old.as_async(), self._state, self.listeners, self._deadline)  # noqa: SLF001
        return face

    def load(self, handle: Handle) -> Record | None:
        """Return the record that counts, ended and expired ones too, or None if there is none."""
        record: Record | None = self.new.load(handle)
        if record is not None and not is_copy(record):  # the common case, without a script
            return record
        return self._run(one.load(self._state, handle))

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes, each where it belongs. Whole in each of the stores; see docs/moving.md."""
        return self._run(many.commit(self._state, commit_id, changes, durable), self._deadline)

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle), of both stores."""
        return self._run(many.find(query))

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones in both stores; return how many."""
        return self._run(many.purge(limit))

    def epochs(self) -> Epochs:
        """Return the new store's clock, the later epochs, and both generations as one."""
        return self._run(start.epochs(self._state))

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events: the new store's, newest first, then the old one's."""
        return self._run(many.events(query))

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before` in both stores; return how many."""
        return self._run(many.forget_events(before, limit, noise=noise))

    def begin(self) -> None:
        """Let the move begin: from now on sessions are created in the new store."""
        self._run(start.begin(self._state))

    def move(self, handle: Handle) -> Moved:
        """Move one session; return what became of it. May be repeated, and done by several at once."""
        return self._run(one.move(self._state, handle))

    @property
    def begun(self) -> bool:
        """Whether the move has begun, as far as this store has heard."""
        return self._state.began

    def fits(self, record: Record) -> bool:
        """Tell whether the new store can hold a record: where it has shards, subjects' handles begin with theirs."""
        return one.fits(self._state.salt or b"", record)

    def close(self) -> None:
        """Close both stores."""
        self.new.close()
        self.old.close()

    def _watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        return _both([store.watch(notice) for store in (self.new, self.old)])

    def _hear(self, events: Sequence[Event]) -> None:
        for listener in self.listeners:
            listener(events)

    def _run(self, script: Script[T], seconds: float | None = None) -> T:
        return drive(script, self._stores, seconds)


class AsyncDualStore:
    """The store of an application whose sessions are moving, awaited; see DualStore."""

    def __init__(self, new: Any, old: Any, *, commit_deadline: float = COMMIT_DEADLINE) -> None:
        """Take two awaited stores; open nothing."""
        self._hold(new, old, State(), [], commit_deadline)
        for store in (new, old):
            store.listeners.append(self._hear)

    def _hold(self, new: Any, old: Any, state: State, listeners: list[Listener], commit_deadline: float) -> None:
        self.new, self.old = new, old
        self.sharded = any(getattr(store, "sharded", False) for store in (new, old))
        self.listeners = listeners
        self._state, self._deadline = state, commit_deadline
        self._stores: dict[Side, Any] = {NEW: new, OLD: old}
        if hasattr(new, "watch") and hasattr(old, "watch"):
            self.watch = self._watch

    async def load(self, handle: Handle) -> Record | None:
        """Return the record that counts, ended and expired ones too, or None if there is none."""
        record: Record | None = await self.new.load(handle)
        if record is not None and not is_copy(record):  # the common case, without a script
            return record
        return await self._run(one.load(self._state, handle))

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes, each where it belongs; a caller who is cancelled meanwhile waits until that is decided."""
        script = many.commit(self._state, commit_id, changes, durable)
        return await _decided(adrive(script, self._stores, self._deadline))

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle), of both stores."""
        return await self._run(many.find(query))

    async def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones in both stores; return how many."""
        return await self._run(many.purge(limit))

    async def epochs(self) -> Epochs:
        """Return the new store's clock, the later epochs, and both generations as one."""
        return await self._run(start.epochs(self._state))

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events: the new store's, newest first, then the old one's."""
        return await self._run(many.events(query))

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before` in both stores; return how many."""
        return await self._run(many.forget_events(before, limit, noise=noise))

    async def begin(self) -> None:
        """Let the move begin: from now on sessions are created in the new store."""
        await self._run(start.begin(self._state))

    async def move(self, handle: Handle) -> Moved:
        """Move one session; return what became of it. May be repeated, and done by several at once."""
        return await self._run(one.move(self._state, handle))

    async def close(self) -> None:
        """Close both stores."""
        await self.new.close()
        await self.old.close()

    async def _watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        return _both([await store.watch(notice) for store in (self.new, self.old)])

    def _hear(self, events: Sequence[Event]) -> None:
        for listener in self.listeners:
            listener(events)

    async def _run(self, script: Script[T]) -> T:
        return await adrive(script, self._stores)


def _both(ends: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def end() -> None:
        for one_end in ends:
            one_end()

    return end


async def _decided(doing: Coroutine[Any, Any, T]) -> T:
    """Await something to its end, also when cancelled: it has several parts, and none must be left out."""
    task = asyncio.ensure_future(doing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()
