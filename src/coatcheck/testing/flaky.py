"""A store with troubles: fails, loses answers, waits at a gate or dawdles when told to, and counts its calls."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from ..core.errors import StoreError, Unknown
from ..core.model import Change, Conflict, Epochs, EventPage, EventQuery, Handle, Query, Record, RecordPage

Verb: TypeAlias = Literal["load", "commit", "find", "epochs", "events"]

PATIENCE = 10.0
"""Seconds after which a gate that nobody opens lets everybody through, so that a failing test ends."""


class Gate:
    """A place where calls wait until a test opens it; it serves threads and event loops alike."""

    def __init__(self) -> None:
        """Start closed."""
        self._reached = threading.Semaphore(0)
        self._open = threading.Event()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._open.set()

    def wait_until_reached(self, times: int = 1) -> None:
        """Wait until somebody stands at the gate (or that many)."""
        for _ in range(times):
            if not self._reached.acquire(timeout=PATIENCE):
                message = "nobody came to the gate"
                raise TimeoutError(message)

    def wait(self) -> None:
        """Stand at the gate, blocking."""
        self._reached.release()
        self._open.wait(PATIENCE)

    async def wait_async(self) -> None:
        """Stand at the gate without blocking an event loop."""
        self._reached.release()
        until = time.monotonic() + PATIENCE
        while not self._open.is_set() and time.monotonic() < until:  # noqa: ASYNC110 - opened by another thread
            await asyncio.sleep(0.001)


class Trouble:
    """What ails a store: one switchboard for both of its faces."""

    def __init__(self) -> None:
        """Start healthy."""
        self.calls: list[Verb] = []
        self.commits: list[tuple[Change, ...]] = []
        self.loaded: list[Handle] = []
        self.delay = 0.0
        self.meanwhile: Callable[[], object] | None = None  # what happens while the store thinks: a clock goes on
        self._failing: dict[Verb, tuple[type[StoreError], float]] = {}
        self._losing = 0
        self._gates: dict[tuple[Verb, str], list[Gate]] = {}

    def fail(self, verb: Verb | None, error: type[StoreError] = StoreError, times: float = float("inf")) -> None:
        """Fail a verb from now on (or that many times) with an error; None heals everything."""
        if verb is None:
            self._failing.clear()
            self._losing = 0
        else:
            self._failing[verb] = (error, times)

    def lose_answers(self, times: int = 1) -> None:
        """Apply the next commits, but answer that nobody knows."""
        self._losing = times

    def hold(self, verb: Verb, when: Literal["before", "after"] = "before", times: int = 1) -> Gate:
        """Return a gate at which the next call (or calls) of a verb will wait, before or after it is done."""
        gate = Gate()
        self._gates.setdefault((verb, when), []).extend([gate] * times)
        return gate

    def strike(self, verb: Verb) -> None:
        """Count a call, and raise what ails it."""
        self.calls.append(verb)
        if self.meanwhile is not None:
            self.meanwhile()
        error, left = self._failing.get(verb, (StoreError, 0))
        if left > 0:
            self._failing[verb] = (error, left - 1)
            message = f"the store was told to fail its {verb}"
            raise error(message)

    def gate(self, verb: Verb, when: str) -> Gate | None:
        """Return the gate at which this call has to wait, if any."""
        gates = self._gates.get((verb, when))
        return gates.pop(0) if gates else None

    def committed(self, changes: Sequence[Change]) -> None:
        """Note what a commit asked for, and lose its answer if told to."""
        self.commits.append(tuple(changes))
        if self._losing > 0:
            self._losing -= 1
            message = "the answer to a commit was lost"
            raise Unknown(message)


class FlakyStore:
    """A blocking store that does what `trouble` says, and otherwise what the store it wraps does."""

    def __init__(self, store: Any, trouble: Trouble | None = None) -> None:
        """Wrap a blocking store."""
        self.store = store
        self.trouble = trouble or Trouble()
        self.listeners = store.listeners
        if hasattr(store, "watch"):
            self.watch = store.watch
        self.sharded = getattr(store, "sharded", False)

    def as_async(self) -> AsyncFlakyStore:
        """Return the awaited face, with the same troubles; the wrapped store must have one."""
        return AsyncFlakyStore(self.store.as_async(), self.trouble)

    def load(self, handle: Handle) -> Record | None:
        """Load a record."""
        self._before("load")
        self.trouble.loaded.append(handle)
        record: Record | None = self.store.load(handle)
        self._after("load")
        return record

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Commit changes."""
        self._before("commit")
        conflict: Conflict | None = self.store.commit(commit_id, changes, durable)
        self._after("commit")
        self.trouble.committed(changes)
        return conflict

    def find(self, query: Query) -> RecordPage:
        """Find records."""
        self._before("find")
        page: RecordPage = self.store.find(query)
        return page

    def epochs(self) -> Epochs:
        """Read the epochs."""
        self._before("epochs")
        epochs: Epochs = self.store.epochs()
        return epochs

    def events(self, query: EventQuery) -> EventPage:
        """Read events."""
        self._before("events")
        page: EventPage = self.store.events(query)
        return page

    def forget_events(self, before: float, limit: int, *, noise: bool = False) -> int:
        """Forget events."""
        forgotten: int = self.store.forget_events(before, limit, noise=noise)
        return forgotten

    def purge(self, limit: int) -> int:
        """Purge records."""
        purged: int = self.store.purge(limit)
        return purged

    def close(self) -> None:
        """Close the wrapped store."""
        self.store.close()

    def _before(self, verb: Verb) -> None:
        trouble = self.trouble
        trouble.strike(verb)
        if trouble.delay:
            time.sleep(trouble.delay)
        gate = trouble.gate(verb, "before")
        if gate is not None:
            gate.wait()

    def _after(self, verb: Verb) -> None:
        gate = self.trouble.gate(verb, "after")
        if gate is not None:
            gate.wait()


class AsyncFlakyStore:
    """An awaited store that does what `trouble` says, and otherwise what the store it wraps does.

    A commit that waits at a gate, or dawdles, is decided all the same when its caller is cancelled, as the contract
    demands: it is applied, or was not begun.
    """

    def __init__(self, store: Any, trouble: Trouble | None = None) -> None:
        """Wrap an awaited store."""
        if not inspect.iscoroutinefunction(store.commit):
            message = f"{type(store).__name__} is blocking; wrap it in FlakyStore"
            raise TypeError(message)
        self.store = store
        self.trouble = trouble or Trouble()
        self.listeners = store.listeners
        if hasattr(store, "watch"):
            self.watch = store.watch
        self.sharded = getattr(store, "sharded", False)

    async def load(self, handle: Handle) -> Record | None:
        """Load a record."""
        await self._before("load")
        self.trouble.loaded.append(handle)
        record: Record | None = await self.store.load(handle)
        await self._after("load")
        return record

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Commit changes."""
        await self._before("commit")
        conflict: Conflict | None = await self.store.commit(commit_id, changes, durable)
        await self._after("commit")
        self.trouble.committed(changes)
        return conflict

    async def find(self, query: Query) -> RecordPage:
        """Find records."""
        await self._before("find")
        page: RecordPage = await self.store.find(query)
        return page

    async def epochs(self) -> Epochs:
        """Read the epochs."""
        await self._before("epochs")
        epochs: Epochs = await self.store.epochs()
        return epochs

    async def events(self, query: EventQuery) -> EventPage:
        """Read events."""
        await self._before("events")
        page: EventPage = await self.store.events(query)
        return page

    async def forget_events(self, before: float, limit: int, *, noise: bool = False) -> int:
        """Forget events."""
        forgotten: int = await self.store.forget_events(before, limit, noise=noise)
        return forgotten

    async def purge(self, limit: int) -> int:
        """Purge records."""
        purged: int = await self.store.purge(limit)
        return purged

    async def close(self) -> None:
        """Close the wrapped store."""
        await self.store.close()

    async def _before(self, verb: Verb) -> None:
        trouble = self.trouble
        trouble.strike(verb)
        if trouble.delay:
            await asyncio.sleep(trouble.delay)
        gate = trouble.gate(verb, "before")
        if gate is not None:
            await gate.wait_async()

    async def _after(self, verb: Verb) -> None:
        gate = self.trouble.gate(verb, "after")
        if gate is not None:
            await gate.wait_async()
