"""The near cache: copies of records in this process, in front of any store, so that a read need not travel.

Rules
- A copy is only ever handed out by `glance`, where the flow uses it to say yes and nothing else; `load` always asks the
  store, and leaves a copy.
- A copy is at most `max_stale` seconds old, counted from the sending of its load, whatever else fails.
- A store that can be watched tells what changed: its copy is dropped, and so is what a load under way will bring. We
  listen before the first copy is kept. A store that cannot is bound by `max_stale` alone.
- Our own commits drop what they name before and after. Not by name are dropped: the sessions of a subject that
  `EndOthers` ends, and everything where a change reaches further than it says.
- Each process has its own; a forked child starts empty.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, overload

from ..core.errors import ConfigError, StoreError
from ..core.model import (
    Change,
    Conflict,
    End,
    EndOthers,
    Epochs,
    EventPage,
    EventQuery,
    Handle,
    Insert,
    Query,
    RaiseEpoch,
    Record,
    RecordPage,
    Replace,
    Touch,
    Update,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

Notice: TypeAlias = Callable[[Handle | None], None]
Stop: TypeAlias = Callable[[], None]

_PASSED: Final = ("events", "forget_events", "watch")
"""What only some stores can: these verbs are passed on where the store has them."""

_log: Final = logging.getLogger("coatcheck")


class Blocking(Protocol):
    """A store that is called."""

    def load(self, handle: Handle) -> Record | None:
        """Load a record."""
        ...


class Awaited(Protocol):
    """A store that is awaited."""

    def load(self, handle: Handle) -> Awaitable[Record | None]:
        """Load a record."""
        ...


@overload
def near(store: Blocking, max_stale: float = 5.0, most: int = 10_000) -> NearStore: ...
@overload
def near(store: Awaited, max_stale: float = 5.0, most: int = 10_000) -> AsyncNearStore: ...
def near(store: Any, max_stale: float = 5.0, most: int = 10_000) -> NearStore | AsyncNearStore:
    """Return a store with copies of at most `most` records before it, none older than `max_stale` seconds.

    Where the store can be watched, a copy goes as soon as its record changes; where it cannot, a revoked session may
    be read for `max_stale` seconds more, and so may data that another process has changed. Opens nothing.
    """
    if not hasattr(store, "commit"):
        message = f"near takes a store (found {type(store).__name__}); for a URL, near(open_store(url))"
        raise ConfigError(message)
    if max_stale <= 0 or most < 1:
        message = f"near keeps at least one copy for more than 0 seconds (found max_stale={max_stale}, most={most})"
        raise ConfigError(message)
    copies = Copies(max_stale, most, watched=hasattr(store, "watch"))
    return AsyncNearStore(store, copies) if inspect.iscoroutinefunction(store.commit) else NearStore(store, copies)


class NearStore:
    """A blocking store, with copies before it."""

    as_async: Callable[[], AsyncNearStore]
    events: Callable[[EventQuery], EventPage]
    forget_events: Callable[..., int]
    watch: Callable[[Notice], Stop]

    def __init__(self, store: Any, copies: Copies) -> None:
        """Join a store and the copies; applications call `near`."""
        self.store, self.copies = store, copies
        self.glance = copies.glance
        self.listeners = store.listeners
        self.sharded = bool(getattr(store, "sharded", False))
        _pass_on(self, store)
        if hasattr(store, "as_async"):
            self.as_async = lambda: AsyncNearStore(store.as_async(), copies)

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, never a copy."""
        copies = self.copies
        if copies.deaf():
            stop: Stop | None = None
            try:
                stop = self.store.watch(copies.notice)
            except StoreError as error:
                _log.warning("copies of sessions go by their age alone: %s", error)
            finally:
                copies.listens(stop)
        sent = copies.sent(handle)
        try:
            record: Record | None = self.store.load(handle)
        except BaseException:
            copies.failed(handle, sent)
            raise
        copies.came(handle, sent, record)
        return record

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none."""
        self.copies.drop(changes)
        try:
            conflict: Conflict | None = self.store.commit(commit_id, changes, durable)
        finally:
            self.copies.drop(changes)
        return conflict

    def find(self, query: Query) -> RecordPage:
        """Return a page of records, never copies."""
        page: RecordPage = self.store.find(query)
        return page

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones; copies judge their own deadlines."""
        done: int = self.store.purge(limit)
        return done

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        epochs: Epochs = self.store.epochs()
        return epochs

    def close(self) -> None:
        """Forget the copies and close the store."""
        stop = self.copies.forget()
        if stop is not None:
            stop()
        self.store.close()


class AsyncNearStore:
    """An awaited store, with copies before it; each event loop listens for itself."""

    events: Callable[[EventQuery], Awaitable[EventPage]]
    forget_events: Callable[..., Awaitable[int]]
    watch: Callable[[Notice], Awaitable[Stop]]

    def __init__(self, store: Any, copies: Copies) -> None:
        """Join a store and the copies; applications call `near`."""
        self.store, self.copies = store, copies
        self.glance = copies.glance
        self.listeners = store.listeners
        self.sharded = bool(getattr(store, "sharded", False))
        _pass_on(self, store)

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, never a copy."""
        copies, loop = self.copies, _running_loop()
        if copies.deaf(loop):
            stop: Stop | None = None
            try:
                stop = await self.store.watch(copies.notice)
            except StoreError as error:
                _log.warning("copies of sessions go by their age alone: %s", error)
            finally:
                copies.listens(stop, loop)
        sent = copies.sent(handle)
        try:
            record: Record | None = await self.store.load(handle)
        except BaseException:
            copies.failed(handle, sent)
            raise
        copies.came(handle, sent, record)
        return record

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none."""
        self.copies.drop(changes)
        try:
            conflict: Conflict | None = await self.store.commit(commit_id, changes, durable)
        finally:
            self.copies.drop(changes)
        return conflict

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records, never copies."""
        page: RecordPage = await self.store.find(query)
        return page

    async def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones; copies judge their own deadlines."""
        done: int = await self.store.purge(limit)
        return done

    async def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        epochs: Epochs = await self.store.epochs()
        return epochs

    async def close(self) -> None:
        """Forget the copies and close the store."""
        loop = _running_loop()
        stop = self.copies.forget(loop)
        if stop is not None:
            await loop.run_in_executor(None, stop)  # it may wait for a thread
        await self.store.close()


class Copies:
    """The copies that both faces of one store share in one process; safe in threads."""

    def __init__(
        self, max_stale: float, most: int, *, watched: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start empty and deaf. `watched`: the store can tell what changed. `clock` only moves forward."""
        self._max_stale, self._most, self._watched, self._clock = max_stale, most, watched, clock
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Handle, tuple[float, Record]] = {}
        self._under_way: dict[Handle, object] = {}
        self._stops: weakref.WeakKeyDictionary[AbstractEventLoop | _Threads, Stop] = weakref.WeakKeyDictionary()
        self._keeping = not self._watched
        self._retry_at = float("-inf")

    def glance(self, handle: Handle) -> Record | None:
        """Return a copy that is young enough, or None; it takes no lock and waits for nothing."""
        found = self._kept.get(handle)
        if found is None or found[0] <= self._clock():
            return None
        return found[1]

    # -- loads -------------------------------------------------------------------------------------------------------

    def sent(self, handle: Handle) -> tuple[float, object]:
        """Take note that a record is asked for; return what `came` is told."""
        mark = object()
        with self._lock:
            self._under_way[handle] = mark  # of two at once, the later one leaves the copy
        return self._clock(), mark

    def came(self, handle: Handle, sent: tuple[float, object], record: Record | None) -> None:
        """Keep a copy of what a load brought, unless something was heard since it was sent."""
        at, mark = sent
        with self._lock:
            if self._under_way.get(handle) is not mark:
                return
            del self._under_way[handle]
            self._kept.pop(handle, None)
            if record is None or record.handle != handle or record.ended_at is not None or not self._keeping:
                return
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[handle] = (at + self._max_stale, record)

    def failed(self, handle: Handle, sent: tuple[float, object]) -> None:
        """Take note that nothing will come; a copy of before is as good as it was."""
        with self._lock:
            if self._under_way.get(handle) is sent[1]:
                del self._under_way[handle]

    # -- notices -----------------------------------------------------------------------------------------------------

    def notice(self, handle: Handle | None) -> None:
        """Drop a copy, and what a load under way will bring; None: all of them."""
        with self._lock:
            if handle is None:
                self._kept.clear()
                self._under_way.clear()
            else:
                self._kept.pop(handle, None)
                self._under_way.pop(handle, None)

    def drop(self, changes: Sequence[Change]) -> None:
        """Drop what a commit of ours changes."""
        for change in changes:
            if isinstance(change, (Update, Insert, Replace)):
                self.notice(change.record.handle)
            elif isinstance(change, (Touch, End)):
                self.notice(change.handle)
            if isinstance(change, Replace):
                self.notice(change.old)
            if isinstance(change, EndOthers):
                self._drop_subject(change.realm, change.subject)
            elif isinstance(change, (Insert, Replace)) and change.limit is not None:
                self._drop_subject(change.record.realm, change.record.subject)  # it may evict others
            elif isinstance(change, RaiseEpoch) or (isinstance(change, End) and not self._watched):
                self.notice(None)  # an End may follow a replaced session to its successor, which it does not name

    def _drop_subject(self, realm: str, subject: str | None) -> None:
        with self._lock:
            found = [(handle, copy[1]) for handle, copy in self._kept.items()]
            for handle, record in found:
                if record.subject == subject and record.realm == realm:
                    del self._kept[handle]
            self._under_way.clear()  # nobody knows yet whose they are

    # -- listening ---------------------------------------------------------------------------------------------------

    def deaf(self, loop: AbstractEventLoop | None = None) -> bool:
        """Tell whether the caller should begin to listen now; it says by `listens` what came of it."""
        here = loop or _THREADS
        if not self._watched or here in self._stops or self._clock() < self._retry_at:
            return False
        with self._lock:
            if self._clock() < self._retry_at:
                return False
            self._retry_at = self._clock() + RETRY  # nobody else tries meanwhile
        return True

    def listens(self, stop: Stop | None, loop: AbstractEventLoop | None = None) -> None:
        """Take note that notices come from now on (`stop` ends them), or that they do not: then age is the bound."""
        if stop is not None:
            self._stops[loop or _THREADS] = stop
            self._retry_at = float("-inf")
        self.notice(None)  # what changed before is not heard any more
        self._keeping = True

    def forget(self, loop: AbstractEventLoop | None = None) -> Stop | None:
        """Forget the copies; return what ends the listening that was begun here."""
        self._keeping = not self._watched
        self.notice(None)
        return self._stops.pop(loop or _THREADS, None)


class _Threads:
    """What stands for all threads together, where an event loop would stand for itself."""


_THREADS: Final = _Threads()
RETRY: Final = 30.0
"""Seconds until a store that could not be watched is tried again."""

_all: Final[weakref.WeakSet[Copies]] = weakref.WeakSet()


def _pass_on(face: Any, store: Any) -> None:
    for name in _PASSED:
        if hasattr(store, name):
            setattr(face, name, getattr(store, name))


def _running_loop() -> AbstractEventLoop:
    from asyncio import get_running_loop

    return get_running_loop()


def _after_fork_in_child() -> None:
    for copies in list(_all):
        copies._start()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
