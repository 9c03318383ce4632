"""The two servants of a SQLite file: the writer, who waits so that an event loop need not, and the keeper, who tidies.

Rules
- Both are daemon threads, started when first needed, gone with the store, unknown to a forked child.
- The writer does one job at a time, each within its own deadline, and always to its end: a caller who is cancelled
  learns so only when the commit is decided.
- The keeper moves the write-ahead log into the file and purges in small batches. Any number of them may share a file.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from ...core.errors import NotApplied, StoreError
from . import rows
from .file import COMMIT_DEADLINE, Busy, File, Here, Link
from .rows import Done

T = TypeVar("T")

TICK: Final = 1.0
PURGE_EVERY: Final = 30.0
FORGET_EVERY: Final = 3600.0
PAUSE: Final = 0.02
FACTS_KEPT: Final = 400 * 86400.0
NOISE_KEPT: Final = 30 * 86400.0
TRUNCATE_OVER: Final = 16 * 2**20
WARN_OVER: Final = 64 * 2**20

_log: Final = logging.getLogger("coatcheck")


def in_turn(file: File, here: Here, act: Callable[[Link], Done[T]], wait: float) -> T:
    """Do what writes, when the other writers of this process are done; then tell the listeners what it wrote."""
    turn, deadline = file.turn, time.monotonic() + wait
    if not (turn.acquire(timeout=wait) if wait > 0 else turn.acquire(blocking=False)):
        message = f"{file.path} was locked by other writers of this process for {wait:g} s; nothing was written"
        raise Busy(message)
    try:
        with file.errors:
            link = file.take(here)
            try:
                if here.timed:
                    link.db.execute(f"pragma busy_timeout = {max(1, int((deadline - time.monotonic()) * 1000))}")
                before = link.db.total_changes
                result, written = act(link)
                if link.db.total_changes != before:
                    file.commits += 1
                    if file.watcher is not None:
                        file.watcher.wake()
            finally:
                link.busy = False
    finally:
        turn.release()
    if written:
        for listener in file.listeners:
            listener(written)
    return result


def keep(file: File) -> None:
    """Make sure that a keeper minds the file."""
    if "keeper" not in file.servants:
        # not within the gate: where greenlets stand for threads, a new one runs at once, and may want to pass it
        keeper = Keeper(file)
        if file.servants.setdefault("keeper", keeper) is not keeper:
            keeper.stop()


def writer_of(file: File) -> Writer:
    """Return the writer of the file, started if it has none."""
    with file.gate:
        writer = file.servants.get("writer")
        if not isinstance(writer, Writer):
            file.servants["writer"] = writer = Writer(file)
    return writer


def dismiss(file: File) -> None:
    """Send the servants home."""
    servants, file.servants = list(file.servants.values()), {}
    file.watcher = None
    for servant in servants:
        servant.stop()


class Writer:
    """One thread that commits for event loops."""

    def __init__(self, file: File) -> None:
        """Start the thread at the first job."""
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._file = weakref.ref(file)
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        weakref.finalize(file, self._jobs.put, None)

    async def do(self, act: Callable[[Link], Done[T]]) -> T:
        """Have something done; a cancelled caller still waits for its end."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_work, args=(self._file, self._jobs), name="coatcheck-writer", daemon=True
                )
                self._thread.start()
        job = _Job(act)
        self._jobs.put(job)
        return await job.outcome()

    def stop(self) -> None:
        """End when the jobs so far are done."""
        self._jobs.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(COMMIT_DEADLINE)


class _Job(Generic[T]):
    """Something to do before a deadline, and the loop that awaits it."""

    def __init__(self, act: Callable[[Link], Done[T]]) -> None:
        self._act = act
        self._deadline = time.monotonic() + COMMIT_DEADLINE
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()

    def run(self, file: File, here: Here) -> None:
        try:
            result = self._done(file, here)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, not this thread's
            self._tell(self._future.set_exception, error)
        else:
            self._tell(self._future.set_result, result)

    def _done(self, file: File, here: Here) -> T:
        left = self._deadline - time.monotonic()
        if left <= 0:
            message = f"{file.path} had too many commits waiting; nothing was written; try again"
            raise Busy(message)

        return in_turn(file, here, self._act, left)

    def refuse(self) -> None:
        self._tell(self._future.set_exception, NotApplied("the store was closed; nothing was written"))

    def _tell(self, settle: Callable[[Any], None], value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(settle, value)
        except RuntimeError:
            # The loop was closed while we worked; nobody waits any more.
            return

    async def outcome(self) -> T:
        cancelled: asyncio.CancelledError | None = None
        while not self._future.done():
            try:
                await asyncio.wait([self._future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            self._future.exception()
            raise cancelled
        return self._future.result()


def _work(file_of: weakref.ref[File], jobs: queue.SimpleQueue[_Job[Any] | None]) -> None:
    here = Here(COMMIT_DEADLINE, timed=True)
    while (job := jobs.get()) is not None:
        file = file_of()
        if file is None:
            job.refuse()
        else:
            job.run(file, here)
        del file, job


class Keeper:
    """One thread that checkpoints and purges while the store lives."""

    def __init__(self, file: File) -> None:
        """Start at once."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=_tidy, args=(weakref.ref(file), self._stopped), name="coatcheck-keeper", daemon=True
        )
        weakref.finalize(file, self._stopped.set)
        self._thread.start()

    def stop(self) -> None:
        """End, after the batch at hand."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join(COMMIT_DEADLINE)


def _tidy(file_of: weakref.ref[File], stopped: threading.Event) -> None:
    here, round_ = Here(0.1), _Round()
    while not stopped.wait(_jittered(TICK)):
        file = file_of()
        if file is None:
            return
        try:
            round_.go(file, here, stopped)
        except NotApplied:
            # Somebody else is at it; next time.
            pass
        except StoreError as error:
            _log.warning("could not tidy the session store: %s", error)
        except Exception:  # noqa: BLE001 - a listener is the application's; the keeper must live on
            _log.exception("a listener of the session store failed")
        del file


class _Round:
    """What the keeper remembers from one round to the next."""

    def __init__(self) -> None:
        self._commits = -1
        self._purge_at = 0.0
        self._forget_at = time.monotonic() + _jittered(FORGET_EVERY) / 10
        self._warned = False

    def go(self, file: File, here: Here, stopped: threading.Event) -> None:
        commits = file.commits
        if commits != self._commits and self._checkpoint(file, here):
            # The beat was one more; what others committed meanwhile is for the next round.
            self._commits = commits + 1
        if time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + _jittered(PURGE_EVERY)
            self._purge(file, here, stopped)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + _jittered(FORGET_EVERY)
            self._forget(file, here, stopped)

    def _purge(self, file: File, here: Here, stopped: threading.Event) -> None:
        def batch(link: Link) -> Done[int]:
            return rows.purge(link, rows.PURGE_ROWS, file.clock(), file.tombstone)

        while in_turn(file, here, batch, COMMIT_DEADLINE):
            if stopped.wait(_jittered(PAUSE)):
                return
        in_turn(file, here, rows.forget_changes, COMMIT_DEADLINE)
        in_turn(file, here, partial(rows.forget_watchers, now=time.time()), COMMIT_DEADLINE)

    def _forget(self, file: File, here: Here, stopped: threading.Event) -> None:
        for kept, noise in ((FACTS_KEPT, False), (NOISE_KEPT, True)):
            forget = partial(rows.forget_events, before=file.clock() - kept, limit=rows.PURGE_ROWS, noise=noise)
            while in_turn(file, here, forget, COMMIT_DEADLINE):
                if stopped.wait(_jittered(PAUSE)):
                    return

    def _checkpoint(self, file: File, here: Here) -> bool:
        """Tell whether the whole log was moved; if a reader was in the way, the next round tries again."""
        with file.errors:
            link = file.take(here)
            try:
                done = rows.checkpoint(link)
            finally:
                link.busy = False
        if _size(file.path + "-wal") > TRUNCATE_OVER:
            done = in_turn(file, here, rows.truncate, COMMIT_DEADLINE)
            self._warn(file.path)
        if done:
            # The next writer starts the log anew and waits for the disk: better us than a request.
            in_turn(file, here, rows.beat, COMMIT_DEADLINE)
        return done

    def _warn(self, path: str) -> None:
        size = _size(path + "-wal")
        if size > WARN_OVER and not self._warned:
            self._warned = True
            _log.warning("the write-ahead log of %s is %d MB; a reader that never ends pins it", path, size >> 20)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads workers, hides nothing
