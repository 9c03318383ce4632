"""The Redis store: sessions in Redis or Valkey, alone, watched by Sentinels, or as a Cluster.

committing, plan, scripts   a commit: read, decide in Python, write in one script
listing, tidying            find, events, epochs; purge
steps, desk                 every verb as steps that do not wait, for both faces
places, trips, faults       where the primaries are, redirections, errors
wire, wire_async            the connections of either face
watching, turns, forks      notices of changes, whose turn it is to tidy, forked children
keys, format                names and bytes
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

from ...core.errors import StoreError
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
from ..batches import Batcher
from ..keeping import AsyncKeeper, Keeper
from . import turns
from .desk import LISTING_DEADLINE, Desk, Loading, Options
from .forks import remember
from .steps import Address
from .turns import AsyncTurns, Turns
from .watching import AsyncWatch, Watch
from .wire import Wire
from .wire_async import AsyncWire

__all__ = ["AsyncRedisStore", "Options", "RedisStore"]

T = TypeVar("T")


class RedisStore:
    """Keeps sessions in Redis or Valkey (6.2 or later), for any number of machines.

    `url` is redis://, rediss://, redis+sentinel://, redis+cluster:// or unix:// (`valkey` may stand for `redis`).
    Threads share it. On a Cluster, sessions are spread over 4,096 shards by their subject.
    """

    def __init__(self, url: str | None = None, **options: Unpack[Options]) -> None:
        """Read URL and options (see `Options`); open nothing yet. Raises ConfigError, naming what is wrong."""
        self._desk = Desk(url, options)
        self._wire = Wire(self._desk.places, self._desk.pool_size)
        self._load_within, self._commit_within = self._desk.load_deadline, self._desk.commit_deadline
        self.listeners: list[Callable[[Sequence[Event]], None]] = self._desk.listeners
        self.sharded = self._desk.keys.sharded
        self._watch = Watch(self._wire, self._desk.keys.channel)
        self._turns = Turns(self)
        self._keeper: Keeper | None = None
        remember(self)

    def forget(self) -> list[Any]:
        """Begin anew, in a forked child."""
        keeper, self._keeper = self._keeper, None
        return [keeper]

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return self._wire.run(lambda: self._desk.load(handle), self._load_within)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none (of those in one shard)."""
        wire, within = self._wire, self._commit_within
        if self._keeper is None:
            self._keeper = Keeper(self._turns, turns.EVERY)
        commit = wire.run(lambda: self._desk.committing(commit_id, changes, durable), within)
        try:
            if commit.queue is None:
                return wire.run(commit.steps, within)
            with wire.queue(commit.queue, within) as left:
                return wire.run(commit.steps, left)
        finally:
            self._desk.tell(commit.written)

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._wire.run(lambda: self._desk.find(query), LISTING_DEADLINE)

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        written: list[Event] = []
        try:
            return self._wire.run(lambda: self._desk.tidier.purge(limit, written), self._commit_within)
        finally:
            self._desk.tell(written)

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return self._wire.run(self._desk.epochs, self._load_within)

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._wire.run(lambda: self._desk.events(query), LISTING_DEADLINE)

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        forget = self._desk.tidier.forget_events
        return self._wire.run(lambda: forget(before, limit, noise=noise), self._commit_within)

    def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return self._wire.run(self._desk.keyring, self._load_within)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return self._wire.run(lambda: self._desk.put_key(name, value, was), self._commit_within)

    def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        generation = secrets.token_hex(16)
        return self._wire.run(lambda: self._desk.renew_generation(generation), self._commit_within)

    def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice`, from the return on, with the handle of each record that changes but for its activity.

        None instead of a handle: something may have gone unheard. Returns what ends the listening.
        """
        return self._watch.add(notice, self._commit_within)

    def close(self) -> None:
        """Stop the threads and close the connections; a later use opens them again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        self._watch.close()
        self._wire.close()

    def turn(self, seconds: float) -> bool:
        """Tell whether it is this process's turn to tidy."""
        return self._wire.run(lambda: self._desk.tidier.turn(seconds), self._load_within)


class AsyncRedisStore:
    """Keeps sessions in Redis or Valkey without making an event loop wait; the arguments are those of RedisStore.

    Loads that are asked for in one turn of the loop travel together. Every running loop has connections of its own,
    closed by `close` in that loop.
    """

    def __init__(self, url: str | None = None, **options: Unpack[Options]) -> None:
        """Read URL and options (see `Options`); open nothing yet. Raises ConfigError, naming what is wrong."""
        self._desk = Desk(url, options)
        self._load_within, self._commit_within = self._desk.load_deadline, self._desk.commit_deadline
        self.listeners: list[Callable[[Sequence[Event]], None]] = self._desk.listeners
        self.sharded = self._desk.keys.sharded
        self._loops: dict[asyncio.AbstractEventLoop, _Here] = {}
        remember(self)

    def forget(self) -> list[Any]:
        """Begin anew, in a forked child."""
        loops, self._loops = self._loops, {}
        return [loops]

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return await self._here().load(handle) if self._desk.keys.sound(handle) else None

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none (of those in one shard); a cancelled caller waits until that is decided."""
        here = self._here()
        here.keep()
        return await _decided(asyncio.ensure_future(self._commit(here.wire, commit_id, changes, durable)))

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return await self._here().wire.run(lambda: self._desk.find(query), LISTING_DEADLINE)

    async def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        written: list[Event] = []
        try:
            return await self._here().wire.run(lambda: self._desk.tidier.purge(limit, written), self._commit_within)
        finally:
            self._desk.tell(written)

    async def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return await self._here().wire.run(self._desk.epochs, self._load_within)

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return await self._here().wire.run(lambda: self._desk.events(query), LISTING_DEADLINE)

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        forget = self._desk.tidier.forget_events
        return await self._here().wire.run(lambda: forget(before, limit, noise=noise), self._commit_within)

    async def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return await self._here().wire.run(self._desk.keyring, self._load_within)

    async def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return await self._here().wire.run(lambda: self._desk.put_key(name, value, was), self._commit_within)

    async def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        generation = secrets.token_hex(16)
        return await self._here().wire.run(lambda: self._desk.renew_generation(generation), self._commit_within)

    async def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice`, from the return on, with the handle of each record that changes but for its activity.

        None instead of a handle: something may have gone unheard. Returns what ends the listening.
        """
        return await self._here().watch.add(notice, self._commit_within)

    async def close(self) -> None:
        """Stop the tasks and close the connections of the running loop; a later use opens them again."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.close()

    async def turn(self, seconds: float) -> bool:
        """Tell whether it is this process's turn to tidy."""
        return await self._here().wire.run(lambda: self._desk.tidier.turn(seconds), self._load_within)

    async def _commit(
        self, wire: AsyncWire, commit_id: bytes, changes: Sequence[Change], durable: bool
    ) -> Conflict | None:
        within = self._commit_within
        commit = await wire.run(lambda: self._desk.committing(commit_id, changes, durable), within)
        try:
            if commit.queue is None:
                return await wire.run(commit.steps, within)
            async with wire.queue(commit.queue, within) as left:
                return await wire.run(commit.steps, left)
        finally:
            self._desk.tell(commit.written)

    def _here(self) -> _Here:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            self._loops = {one: state for one, state in self._loops.items() if not one.is_closed()}
            here = self._loops[loop] = _Here(self._desk, self._load_within, AsyncTurns(self))
        return here


class _Here:
    """What one event loop has of an awaited store."""

    def __init__(self, desk: Desk, within: float, tidy: AsyncTurns) -> None:
        self._desk, self._within, self._turns = desk, within, tidy
        self.wire = AsyncWire(desk.places, desk.pool_size)
        self.watch = AsyncWatch(self.wire, desk.keys.channel)
        self._batchers: dict[Address | None, Batcher[Record | None]] = {}
        self._keeper: AsyncKeeper | None = None

    def load(self, handle: Handle) -> asyncio.Future[Record | None]:
        """Return a future record. Each server has batches of its own: one that is away holds up nobody else's loads."""
        address = self._desk.places.maybe(self._desk.keys.tag(handle))
        batcher = self._batchers.get(address)
        if batcher is None:
            batcher = self._batchers[address] = Batcher(self._fetch, self._within)
        return batcher.load(handle)

    def keep(self) -> None:
        """Make sure that a keeper minds the store."""
        if self._keeper is None:
            self._keeper = AsyncKeeper(self._turns, turns.EVERY)

    async def close(self) -> None:
        """Stop and close everything."""
        if self._keeper is not None:
            await self._keeper.stop()
        await self.watch.close()
        for batcher in self._batchers.values():
            batcher.close()
        await self.wire.close()

    async def _fetch(self, handles: list[Handle]) -> Sequence[Record | StoreError | None]:
        loading = Loading(self._desk, handles)
        try:
            # a little less than the batch has, to be able to say what failed
            await self.wire.run(loading.steps, 0.95 * self._within)
        except StoreError as error:
            loading.fail(error)
        return loading.results()


async def _decided(task: asyncio.Task[T]) -> T:
    """Wait for a task to its end; a caller who is cancelled meanwhile learns so only then."""
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
