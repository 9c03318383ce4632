"""The PostgreSQL store: sessions in a database that many processes on many machines share.

words      names, escapes, and what PostgreSQL's SQL says differently
schema     tables and migrations
errors     what psycopg raises, as errors of the contract
house      the settings of one store
blocking   connections of threads
awaited    connections of event loops
heralds    telling other processes of changes, and hearing of them
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from ...core.errors import ConfigError
from ...core.model import Change, Conflict, Epochs, EventPage, EventQuery, Handle, Instant, Query, Record, RecordPage

try:
    import psycopg as _driver  # noqa: F401 - for this sentence, before the rest of the room asks for it
except ImportError as _error:
    _MESSAGE = f"the PostgreSQL store needs psycopg 3 ({_error}); run: pip install 'coatcheck[postgresql]'"
    raise ConfigError(_MESSAGE) from _error

from ..keeping import Keeper
from . import awaited, blocking
from .blocking import SPARE
from .heralds import Herald, Watcher
from .house import House
from .words import names

__all__ = ["AsyncPostgresStore", "PostgresStore"]

WEEK: Final = 7 * 86400.0


class PostgresStore:
    """Keeps sessions in PostgreSQL, for threads.

    `dsn` is a URL or connection string of libpq, such as postgresql://user:password@host/name; instead of it, or for
    all but the listening connection, `pool` may be a psycopg_pool.ConnectionPool of the application's own. The tables
    are made on first use in `schema`, their names begin with `prefix`; with migrate=False they must be there already
    (`coatcheck schema postgresql` prints them).

    `load_deadline` and `commit_deadline` are the seconds that a load and anything else may take, with all that it
    waits for. At most `pool_size` connections are opened. A plain commit does not wait for the disk; logins, ends and
    revocations do.
    """

    def __init__(  # noqa: PLR0913 - settings, each with a good default
        self,
        dsn: str | None = None,
        *,
        pool: Any = None,
        schema: str = "public",
        prefix: str = "coatcheck_",
        migrate: bool = True,
        load_deadline: float = 0.5,
        commit_deadline: float = 2.0,
        pool_size: int = 10,
        clock: Callable[[], Instant] | None = None,
        tombstone: float = WEEK,
    ) -> None:
        """Open nothing yet. `tombstone` is how long an ended record can still say why it ended, in seconds."""
        self._house = house = House(
            dsn,
            pool,
            names(schema, prefix),
            migrate=migrate,
            load_deadline=load_deadline,
            commit_deadline=commit_deadline,
            pool_size=pool_size,
            clock=clock,
            tombstone=tombstone,
        )
        self.listeners = house.listeners
        self._desk = blocking.Desk(house, pool_size)
        self._herald, self._watcher = Herald(house, self._desk), Watcher(house)
        self._gate = threading.Lock()
        self._keeper: Keeper | None = None
        _stores.add(self)
        weakref.finalize(self, _released, self._herald, self._watcher, self._desk)

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return self._desk.run(partial(self._house.rounds.load, handle), self._house.load_deadline)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; when `durable`, the server's disk has them when this returns."""
        house = self._house
        if self._keeper is None:
            self._keep()
        done = self._desk.run(lambda: house.rounds.commit(commit_id, changes, durable), house.commit_deadline, SPARE)
        self._herald.tell(done.changed)
        house.tell(done.events)
        return done.result

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._desk.run(partial(self._house.rounds.find, query), self._house.commit_deadline, SPARE)

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        house = self._house
        done = self._desk.run(partial(house.rounds.purge, limit), house.commit_deadline, SPARE)
        self._herald.tell(done.changed)
        house.tell(done.events)
        return done.result

    def epochs(self) -> Epochs:
        """Return the server's clock and its epochs."""
        return self._desk.run(self._house.rounds.epochs, self._house.commit_deadline)

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._desk.run(partial(self._house.rounds.events, query), self._house.commit_deadline, SPARE)

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        forget = partial(self._house.rounds.forget_events, before, limit, noise)
        return self._desk.run(forget, self._house.commit_deadline, SPARE)

    def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        renew = partial(self._house.rounds.renew_generation, secrets.token_hex(16))
        return self._desk.run(renew, self._house.commit_deadline)

    def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return self._desk.run(self._house.rounds.keys, self._house.commit_deadline)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return self._desk.run(partial(self._house.rounds.put_key, name, value, was), self._house.commit_deadline)

    def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice` with each record that changes, in whatever process; None: look at everything.

        It is called from a thread of its own. Returns what ends the listening.
        """
        return self._watcher.add(notice)

    def close(self) -> None:
        """Stop the threads and close the connections; a later use opens them again."""
        with self._gate:
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        _released(self._herald, self._watcher, self._desk)

    def _keep(self) -> None:
        if self._keeper is not None:
            return
        # not within the gate: where greenlets stand for threads, a new one runs at once, and may want to pass it
        begun: Keeper | None = Keeper(self)
        with self._gate:
            if self._keeper is None:
                self._keeper, begun = begun, None
        if begun is not None:
            begun.stop()

    def _forget(self) -> None:
        self._gate, self._keeper = threading.Lock(), None
        self._herald.forget()
        self._watcher.forget()


class AsyncPostgresStore:
    """Keeps sessions in PostgreSQL, for event loops; loads that are asked for at once travel as one statement.

    `pool` is a psycopg_pool.AsyncConnectionPool of the application's own. For the rest see PostgresStore.
    """

    def __init__(  # noqa: PLR0913 - settings, each with a good default
        self,
        dsn: str | None = None,
        *,
        pool: Any = None,
        schema: str = "public",
        prefix: str = "coatcheck_",
        migrate: bool = True,
        load_deadline: float = 0.5,
        commit_deadline: float = 2.0,
        pool_size: int = 10,
        clock: Callable[[], Instant] | None = None,
        tombstone: float = WEEK,
    ) -> None:
        """Open nothing yet. `tombstone` is how long an ended record can still say why it ended, in seconds."""
        self._house = house = House(
            dsn,
            pool,
            names(schema, prefix),
            migrate=migrate,
            load_deadline=load_deadline,
            commit_deadline=commit_deadline,
            pool_size=pool_size,
            clock=clock,
            tombstone=tombstone,
        )
        self.listeners = house.listeners
        self._desk = awaited.Desk(house, pool_size, self)
        self._watcher = Watcher(house)
        _stores.add(self)
        weakref.finalize(self, self._watcher.close)

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        hall = self._desk.here()
        if handle.isascii() and handle.isprintable():
            return await hall.batcher.load(handle)
        # What no handle of ours looks like shall not be the misfortune of a whole batch.
        return await hall.run(partial(self._house.rounds.load, handle), self._house.load_deadline, load=True)

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; a caller who is cancelled meanwhile waits until that is decided."""
        hall = self._desk.here()
        hall.keep()
        return await awaited.decided(hall.loop.create_task(self._commit(hall, commit_id, changes, durable)))

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return await self._desk.here().run(partial(self._house.rounds.find, query), self._house.commit_deadline)

    async def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        house, hall = self._house, self._desk.here()
        done = await hall.run(partial(house.rounds.purge, limit), house.commit_deadline)
        hall.tell(done.changed)
        house.tell(done.events)
        return done.result

    async def epochs(self) -> Epochs:
        """Return the server's clock and its epochs."""
        return await self._desk.here().run(self._house.rounds.epochs, self._house.commit_deadline)

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return await self._desk.here().run(partial(self._house.rounds.events, query), self._house.commit_deadline)

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        forget = partial(self._house.rounds.forget_events, before, limit, noise)
        return await self._desk.here().run(forget, self._house.commit_deadline)

    async def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        renew = partial(self._house.rounds.renew_generation, secrets.token_hex(16))
        return await self._desk.here().run(renew, self._house.commit_deadline)

    async def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return await self._desk.here().run(self._house.rounds.keys, self._house.commit_deadline)

    async def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        put = partial(self._house.rounds.put_key, name, value, was)
        return await self._desk.here().run(put, self._house.commit_deadline)

    async def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice` with each record that changes, in whatever process; None: look at everything.

        It is called from a thread of its own. Returns what ends the listening.
        """
        return await asyncio.to_thread(self._watcher.add, notice)

    async def close(self) -> None:
        """Close the connections of all loops; a later use opens them again."""
        await asyncio.to_thread(self._watcher.close)
        await self._desk.close()

    async def _commit(
        self, hall: awaited.Hall, commit_id: bytes, changes: Sequence[Change], durable: bool
    ) -> Conflict | None:
        house = self._house
        done = await hall.run(lambda: house.rounds.commit(commit_id, changes, durable), house.commit_deadline)
        hall.tell(done.changed)
        house.tell(done.events)
        return done.result

    def _forget(self) -> None:
        self._watcher.forget()


def _released(herald: Herald, watcher: Watcher, desk: blocking.Desk) -> None:
    herald.close()
    watcher.close()
    desk.close()


_stores: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in _stores:
        store._forget()  # noqa: SLF001 - our own two classes


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
