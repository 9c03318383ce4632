"""The MySQL store: sessions in a MySQL (8.0.17 or later) or MariaDB (10.6 or later) database.

address    URLs and parameters
schema     tables and migrations
words      what these two say differently from other databases
faults     what their errors mean
home       what both faces know of a store
blocking   PyMySQL and its pool
awaited    asyncmy, its pools, one a loop

What "durable" means here is the server's to say. With innodb_flush_log_at_trx_commit = 1 (and sync_binlog = 1 where
there is a binary log) every commit waits for the disk, plain ones too; with other values a power cut, or a crash of the
machine, may take back the last second of acknowledged commits: logouts and revocations among them. No session can ask
for more than the server gives, so both classes of commit are the same, and a server that gives less is warned of at
start. There is no `watch`: the server cannot push, and polling would cost every commit a write to one row.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from ...core.errors import ConfigError, StoreError
from ...core.model import Change, Conflict, Epochs, EventPage, EventQuery, Handle, Instant, Query, Record, RecordPage
from .. import sql
from ..batches import Batcher
from ..keeping import AsyncKeeper
from ..rounds import Done, Steps, adrive, drive
from . import schema
from .address import Parameters, parameters_of
from .faults import Contended
from .home import Home
from .schema import MIGRATIONS, script

if TYPE_CHECKING:
    from . import awaited, blocking

__all__ = ["MIGRATIONS", "AsyncMySqlStore", "MySqlStore", "script"]

T = TypeVar("T")

WEEK: Final = 7 * 86400.0
MIGRATION_PATIENCE: Final = 30.0

Address: TypeAlias = str | Parameters


class MySqlStore:
    """Keeps sessions in a MySQL or MariaDB database, through PyMySQL; any number of threads may use it.

    `where`: a URL (mysql://user:password@host:3306/database; see address.py), the parameters of `pymysql.connect`, or a
    callable that returns a new connection made with client_flag=CLIENT.MULTI_STATEMENTS, for this store alone.
    """

    def __init__(
        self,
        where: Address | Callable[[], Any],
        *,
        prefix: str = "coatcheck_",
        migrate: bool = True,
        load_deadline: float = 0.5,
        commit_deadline: float = 2.0,
        pool_size: int = 10,
        clock: Callable[[], Instant] | None = None,
        tombstone: float = WEEK,
    ) -> None:
        """Open nothing yet.

        With migrate=False the tables must be there (`coatcheck schema mysql`). The deadlines are seconds that a call
        may take with all that it meets; the very first may take longer, when it has to create the tables. `tombstone`
        is how long an ended record can still say why it ended, in seconds; `clock` is for tests.
        """
        try:
            from . import blocking
        except ImportError as error:
            raise _missing("MySqlStore", "PyMySQL", error) from error
        parameters = None if callable(where) else parameters_of(where)
        self._home = Home(parameters, prefix, migrate, clock, tombstone, pool_size)
        self._load_deadline, self._commit_deadline = load_deadline, commit_deadline
        connect = where if callable(where) else self._home.parameters
        self._pool = blocking.Pool(connect, self._home.place, pool_size, self._prepare)
        self.listeners = self._home.listeners

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return self._do(lambda: self._home.rounds.load(handle), self._load_deadline)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none."""
        self._pool.keep(self)
        return self._write(lambda: self._home.rounds.commit(commit_id, changes, durable))

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._do(lambda: self._home.rounds.find(query), self._commit_deadline)

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        return self._write(lambda: self._home.rounds.purge(limit))

    def epochs(self) -> Epochs:
        """Return the server's clock and the epochs."""
        return self._do(self._home.rounds.epochs, self._load_deadline)

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._do(lambda: self._home.rounds.events(query), self._commit_deadline)

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        return self._do(lambda: self._home.rounds.forget_events(before, limit, noise), self._commit_deadline)

    def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return self._do(self._home.rounds.keys, self._load_deadline)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return self._do(lambda: self._home.rounds.put_key(name, value, was), self._commit_deadline)

    def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        generation = secrets.token_hex(16)
        return self._do(lambda: self._home.rounds.renew_generation(generation), self._commit_deadline)

    def close(self) -> None:
        """Stop the keeper and close the connections; a later use opens new ones."""
        self._pool.close()

    def _write(self, verb: Callable[[], Steps[Done[T]]]) -> T:
        done = self._do(verb, self._commit_deadline)
        self._home.tell(done.events)
        return done.result

    def _do(self, verb: Callable[[], Steps[T]], within: float) -> T:
        until, tries = time.monotonic() + within, 0
        while True:
            try:
                return self._pool.do(verb(), until)
            except Contended:
                tries += 1
                pause = _pause(tries)
                if time.monotonic() + pause >= until:
                    raise
                time.sleep(pause)

    def _prepare(self, link: blocking.Link) -> None:
        home = self._home
        if home.ready:
            return
        with self._pool.alone(link.until):
            if not home.ready:
                if home.must_migrate(drive(schema.looked(home.prefix), link.send)):
                    until, link.until = link.until, time.monotonic() + MIGRATION_PATIENCE
                    drive(schema.migrated(home.prefix), link.send)
                    link.until = max(until, time.monotonic() + self._load_deadline)
                home.ready = True


class AsyncMySqlStore:
    """Keeps sessions in a MySQL or MariaDB database, through asyncmy, for any number of event loops.

    `where`: a URL (mysql://user:password@host:3306/database; see address.py), the parameters of `asyncmy.connect`, or
    an asyncmy pool made in the loop that uses the store, and for this store alone. Loads of one turn of the loop travel
    as one statement. For the rest see MySqlStore; `pool_size` counts for each loop.
    """

    def __init__(
        self,
        where: Address | Any,
        *,
        prefix: str = "coatcheck_",
        migrate: bool = True,
        load_deadline: float = 0.5,
        commit_deadline: float = 2.0,
        pool_size: int = 10,
        clock: Callable[[], Instant] | None = None,
        tombstone: float = WEEK,
    ) -> None:
        """Open nothing yet; see MySqlStore."""
        try:
            from . import awaited
        except ImportError as error:
            raise _missing("AsyncMySqlStore", "asyncmy", error) from error
        lent = hasattr(where, "acquire")
        self._home = Home(None if lent else parameters_of(where), prefix, migrate, clock, tombstone, pool_size)
        self._load_deadline, self._commit_deadline = load_deadline, commit_deadline
        self._decided = awaited.decided
        home = self._home

        def make() -> awaited.Here:
            if lent:
                pool: awaited.Pool = awaited.LentPool(where, home.place, self._prepare)
            else:
                pool = awaited.Pool(home.parameters, home.place, pool_size, self._prepare)
            batcher: Batcher[Record | None] = Batcher(lambda handles: self._fetch(pool, handles), load_deadline)
            return awaited.Here(pool, batcher, AsyncKeeper(self))

        self._loops = awaited.Loops(make)
        self.listeners = home.listeners

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return await self._loops.here().batcher.load(handle)

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; a caller who is cancelled meanwhile waits until that is decided."""
        return await self._decided(self._write(lambda: self._home.rounds.commit(commit_id, changes, durable)))

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return await self._do(lambda: self._home.rounds.find(query), self._commit_deadline)

    async def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        return await self._decided(self._write(lambda: self._home.rounds.purge(limit)))

    async def epochs(self) -> Epochs:
        """Return the server's clock and the epochs."""
        return await self._do(self._home.rounds.epochs, self._load_deadline)

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return await self._do(lambda: self._home.rounds.events(query), self._commit_deadline)

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        return await self._do(lambda: self._home.rounds.forget_events(before, limit, noise), self._commit_deadline)

    async def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return await self._do(self._home.rounds.keys, self._load_deadline)

    async def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return await self._do(lambda: self._home.rounds.put_key(name, value, was), self._commit_deadline)

    async def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        generation = secrets.token_hex(16)
        return await self._do(lambda: self._home.rounds.renew_generation(generation), self._commit_deadline)

    async def close(self) -> None:
        """Close the connections of this loop, and have other loops close theirs; a later use opens new ones."""
        await self._loops.close()

    async def _write(self, verb: Callable[[], Steps[Done[T]]]) -> T:
        done = await self._do(verb, self._commit_deadline)
        self._home.tell(done.events)
        return done.result

    async def _do(self, verb: Callable[[], Steps[T]], within: float) -> T:
        pool, until, tries = self._loops.here().pool, time.monotonic() + within, 0
        while True:
            try:
                return await pool.do(verb(), until - time.monotonic())
            except Contended:
                tries += 1
                pause = _pause(tries)
                if time.monotonic() + pause >= until:
                    raise
                await asyncio.sleep(pause)

    async def _fetch(self, pool: awaited.Pool, handles: list[Handle]) -> list[Record | StoreError | None]:
        """Load a batch; the batcher cancels what takes too long."""
        while True:
            try:
                rows = await pool.do(self._home.rounds.load_all(handles), None)
            except Contended:
                await asyncio.sleep(_pause(1))
            else:
                found = {row[0]: row for row in rows}
                return [_decoded(found.get(handle)) for handle in handles]

    async def _prepare(self, link: awaited.Link) -> None:
        home = self._home
        if not home.ready:
            if home.must_migrate(await adrive(schema.looked(home.prefix), link.send)):
                await self._decided(self._migrate(link))
            home.ready = True

    async def _migrate(self, link: awaited.Link) -> None:
        async with asyncio.timeout(MIGRATION_PATIENCE):
            await adrive(schema.migrated(self._home.prefix), link.send)


def _decoded(row: sql.Row | None) -> Record | StoreError | None:
    if row is None:
        return None
    try:
        return sql.record_of(row)
    except StoreError as error:
        return error


def _pause(tries: int) -> float:
    return random.uniform(0.0, 0.0005 * 2 ** min(tries, 6))  # noqa: S311 - jitter, no secret


def _missing(store: str, driver: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{store} needs {driver} ({error}); run: pip install 'coatcheck[mysql]'")
