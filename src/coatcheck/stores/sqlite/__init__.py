"""The SQLite store: sessions in one file, shared by the threads and processes of one machine.

file      connections, forks, errors
schema    tables and migrations
rows      what is asked of a connection
threads   the writer and the keeper
watching  the watcher
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ...core import ledger
from ...core.model import Change, Conflict, Epochs, EventPage, EventQuery, Handle, Instant, Query, Record, RecordPage
from . import rows, threads, watching
from .file import COMMIT_DEADLINE, Busy, File, Here, Link, Synchronous

__all__ = ["AsyncSqliteStore", "SqliteStore"]

WEEK: Final = 7 * 86400.0


class SqliteStore:
    """Keeps sessions in a SQLite file, for any number of threads and processes of one machine.

    The file must lie on a local disk: the write-ahead log does not work on network file systems. The file and its
    tables are created on first use, readable for this user only. `synchronous="full"` makes every commit wait for the
    disk; with "normal", only those that must not be lost to a power cut do (logins, ends, revocations).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: Synchronous = "normal",
        clock: Callable[[], Instant] = time.time,
        tombstone: float = WEEK,
    ) -> None:
        """Open nothing yet. `tombstone` is how long an ended record can still say why it ended, in seconds."""
        self._hold(File(path, synchronous, clock, tombstone))

    def _hold(self, file: File) -> None:
        self._file, self._here = file, Here(COMMIT_DEADLINE)
        self.listeners = file.listeners

    def as_async(self) -> AsyncSqliteStore:
        """Return the async face of the same file."""
        face = AsyncSqliteStore.__new__(AsyncSqliteStore)
        face._hold(self._file)  # noqa: SLF001 - the two faces are one store
        return face

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        file = self._file
        with file.errors:
            link = file.take(self._here)
            try:
                return rows.load(link, handle)
            finally:
                link.busy = False

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; wait for other writers for at most two seconds."""
        file = self._file
        threads.keep(file)
        return threads.in_turn(file, self._here, _committing(file, commit_id, changes, durable), COMMIT_DEADLINE)

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._read(lambda link: rows.find(link, query, self._file.clock()))

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        file = self._file
        act = partial(rows.purge, limit=limit, now=file.clock(), tombstone=file.tombstone)
        return threads.in_turn(file, self._here, act, COMMIT_DEADLINE)

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return self._read(lambda link: rows.epochs(link, self._file.clock()))

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._read(lambda link: rows.events(link, query))

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        act = partial(rows.forget_events, before=before, limit=limit, noise=noise)
        return threads.in_turn(self._file, self._here, act, COMMIT_DEADLINE)

    def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice` with the handle of each record that changes but for its activity; return what ends that.

        Other processes are heard within half a second, this one in a few milliseconds; `close` ends the listening.
        """
        return watching.watch(self._file, self._here, notice)

    def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return self._read(rows.keys)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        act = partial(rows.put_key, name=name, value=value, was=was)
        return threads.in_turn(self._file, self._here, act, COMMIT_DEADLINE)

    def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        act = partial(rows.renew_generation, generation=secrets.token_hex(8))
        return threads.in_turn(self._file, self._here, act, COMMIT_DEADLINE)

    def close(self) -> None:
        """Stop the threads and close the connections of both faces; a later use opens them again."""
        threads.dismiss(self._file)
        self._file.release()

    def _read(self, ask: Callable[[Link], threads.T]) -> threads.T:
        file = self._file
        with file.errors:
            link = file.take(self._here)
            try:
                return ask(link)
            finally:
                link.busy = False


class AsyncSqliteStore:
    """Keeps sessions in a SQLite file, without ever making an event loop wait for a lock or for the disk.

    Loads and plain commits run at once, in the loop's own thread: they take microseconds. A commit that meets another
    writer, or must reach the disk, goes to one writer thread; listings and purges to a worker thread. For the rest see
    SqliteStore.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: Synchronous = "normal",
        clock: Callable[[], Instant] = time.time,
        tombstone: float = WEEK,
    ) -> None:
        """Open nothing yet. `tombstone` is how long an ended record can still say why it ended, in seconds."""
        self._hold(File(path, synchronous, clock, tombstone))

    def _hold(self, file: File) -> None:
        self._file, self._here = file, Here(0.0)
        self._apart = SqliteStore.__new__(SqliteStore)
        self._apart._hold(file)  # noqa: SLF001 - the two faces are one store
        self.listeners = file.listeners

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        file = self._file
        if file.ready:
            try:
                with file.errors:
                    link = file.take(self._here)
                    try:
                        return rows.load(link, handle)
                    finally:
                        link.busy = False
            except Busy:
                # Rare: the log is being recovered or restarted by another process.
                pass
        return await asyncio.to_thread(self._apart.load, handle)

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; a caller who is cancelled meanwhile waits until that is decided."""
        file = self._file
        threads.keep(file)
        act = _committing(file, commit_id, changes, durable)
        if file.ready and not (durable or file.full):
            try:
                return threads.in_turn(file, self._here, act, 0)
            except Busy:
                # Somebody else is writing: the writer thread waits, the loop does not.
                pass
        return await threads.writer_of(file).do(act)

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return await asyncio.to_thread(self._apart.find, query)

    async def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        return await asyncio.to_thread(self._apart.purge, limit)

    async def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return await asyncio.to_thread(self._apart.epochs)

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return await asyncio.to_thread(self._apart.events, query)

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        return await asyncio.to_thread(self._apart.forget_events, before, limit, noise=noise)

    async def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice` with the handle of each record that changes but for its activity; return what ends that.

        It is called by a thread. Other processes are heard within half a second, this one in a few milliseconds;
        `close` ends the listening.
        """
        return await asyncio.to_thread(self._apart.watch, notice)

    async def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return await asyncio.to_thread(self._apart.keys)

    async def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return await threads.writer_of(self._file).do(partial(rows.put_key, name=name, value=value, was=was))

    async def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        return await asyncio.to_thread(self._apart.renew_generation)

    async def close(self) -> None:
        """Stop the threads and close the connections of both faces; a later use opens them again."""
        await asyncio.to_thread(self._apart.close)


def _committing(
    file: File, commit_id: bytes, changes: Sequence[Change], durable: bool
) -> Callable[[Link], rows.Done[Conflict | None]]:
    """Return the commit as something to do with a connection."""
    if len(changes) > 1:
        ledger.check(changes)
    full = durable or file.full
    return lambda link: rows.commit(link, commit_id, changes, full, file.clock(), file.tombstone)
