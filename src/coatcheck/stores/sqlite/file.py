"""One SQLite file: its connections, who may use them, what a fork does to them, and what its errors mean.

Rules
- A connection belongs to one thread and one face, and is opened on first use; building opens nothing.
- Writers of one process queue at `turn` before they ask SQLite, so they wait for each other fairly.
- A fork waits, for a moment, until no connection is in use, and closes them all: SQLite's locks belong to the process,
  and a child that inherits an open file believes that it holds locks which it does not. One that is in use for longer
  is left alone; the child keeps it for ever, unclosed and unused.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, TypeAlias

from ...core.errors import ConfigError, NotApplied, StoreError, Unknown
from ...core.model import Event, Instant
from . import schema

COMMIT_DEADLINE: Final = 2.0
FORK_PATIENCE: Final = 2.5

Synchronous: TypeAlias = Literal["normal", "full"]


class Busy(NotApplied):
    """Somebody else is writing."""


class Servant(Protocol):
    """A thread that serves a file."""

    def stop(self) -> None:
        """End it."""
        ...


class Waking(Protocol):
    """A servant who waits for what this process writes."""

    def wake(self) -> None:
        """Tell it that something was written."""
        ...


class Link:
    """A connection, and who minds it."""

    __slots__ = ("__weakref__", "busy", "db", "era", "full")

    def __init__(self, db: sqlite3.Connection, era: object) -> None:
        """Begin busy: whoever opens a connection is about to use it."""
        self.db, self.era = db, era
        self.busy, self.full = True, False

    def sync(self, full: bool) -> None:
        """Choose whether the next commit waits for the disk."""
        if full is not self.full:
            self.db.execute("pragma synchronous = full" if full else "pragma synchronous = normal")
            self.full = full

    def __del__(self) -> None:
        """Close with the thread (or the store) that it served; busy until that is done, so that a fork waits for it."""
        self.busy = True
        self.db.close()
        self.busy = False


class Here(threading.local):
    """The connection of this thread for one face.

    `wait` is how long it may wait for other writers, in seconds; `timed` if that shrinks from job to job.
    """

    def __init__(self, wait: float, *, timed: bool = False) -> None:
        """Begin without a connection."""
        self.wait, self.timed = wait, timed
        self.link: Link | None = None


class File:
    """The state that all faces of one store share in one process."""

    def __init__(
        self, path: str | os.PathLike[str], synchronous: Synchronous, clock: Callable[[], Instant], tombstone: float
    ) -> None:
        """Remember; open nothing."""
        name = os.fspath(path)
        if not name or name == ":memory:":
            message = f"SqliteStore needs a file, not {name!r}; use MemoryStore for sessions in memory"
            raise ConfigError(message)
        if synchronous not in ("normal", "full"):
            message = f"synchronous is 'normal' or 'full', not {synchronous!r}"
            raise ConfigError(message)
        self.path = str(Path.cwd() / name)
        self.full = synchronous == "full"
        self.clock, self.tombstone = clock, tombstone
        self.errors = StoreErrors(self.path)
        self.turn = threading.Lock()
        self.gate = threading.Lock()
        self.ready = False
        self.commits = 0
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        self.era = object()
        self.links: weakref.WeakSet[Link] = weakref.WeakSet()
        self.servants: dict[str, Servant] = {}
        self.watcher: Waking | None = None
        _files.add(self)

    def take(self, here: Here) -> Link:
        """Return this thread's connection, marked busy; whoever takes it clears the mark."""
        link = here.link
        if link is not None:
            # First the mark, then the look: `retire` does the two in the other order, so one of us sees the other.
            link.busy = True
            if link.era is self.era:
                return link
            link.db.close()
            link.busy = False
        with self.gate:
            here.link = link = self._open(here.wait)
        return link

    def retire(self) -> list[Link]:
        """Close every idle connection; return those in use, which their threads close next time. Needs the gate."""
        self.era = object()
        links = list(self.links)
        for link in links:
            if not link.busy:
                link.db.close()
        return [link for link in links if link.busy]

    def release(self) -> None:
        """Close every connection, those in use a little later."""
        with self.gate:
            self.retire()

    def shut(self, until: float) -> list[Link]:
        """Let nobody open a connection, wait until those in use come back, and close them; return the stragglers."""
        self.gate.acquire()
        while (straying := self.retire()) and time.monotonic() < until:
            time.sleep(0.0005)
        return straying

    def reopen(self) -> None:
        """Let connections be opened again."""
        self.gate.release()

    def _open(self, wait: float) -> Link:
        era = self.era
        self._create()
        db = sqlite3.connect(self.path, timeout=wait, isolation_level=None, check_same_thread=False)
        link = Link(db, era)
        self.links.add(link)
        try:
            db.execute("pragma wal_autocheckpoint = 0")
            db.execute("pragma synchronous = normal")
            schema.ensure(db, self.path, wait)
        except BaseException:
            # nobody will clear its mark, and the traceback keeps it alive: a fork would wait for it
            self.links.discard(link)
            db.close()
            raise
        self.ready = True
        return link

    def _create(self) -> None:
        """Create the file for our own eyes only; a process with a wider umask would let others read sessions."""
        if sqlite3.sqlite_version_info < schema.OLDEST_SQLITE:
            message = f"SQLite {sqlite3.sqlite_version} is too old; coatcheck needs 3.37 or later"
            raise StoreError(message)
        # Only ever a new file: closing a descriptor of one that SQLite has open would drop this process's locks on it.
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            if Path(self.path).is_dir():
                raise _unopened(self.path, error) from error
        except OSError as error:
            raise _unopened(self.path, error) from error

    def forget(self) -> None:
        """Forget, in the child, everything that belonged to the parent."""
        self.links = weakref.WeakSet()
        self.servants = {}
        self.watcher = None
        self.turn = threading.Lock()
        self.gate = threading.Lock()
        self.era = object()


class StoreErrors:
    """Turns what SQLite raises into the errors of the contract: `with file.errors: ...`."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        """Remember which file the sentences are about."""
        self._path = path

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the contract's error in place of a foreign one."""
        if error is not None and isinstance(error, (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError)):
            raise _named(error, self._path) from error


_NOT_APPLIED: Final = {
    sqlite3.SQLITE_FULL: "the disk that holds {path} is full; nothing was written; free some space",
    sqlite3.SQLITE_NOMEM: "SQLite ran out of memory with {path}; nothing was written; try again",
}
_BROKEN: Final = {
    sqlite3.SQLITE_CORRUPT: "{path} is damaged; move it away with its -wal and -shm files and restore a backup",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database; name another path, or move that file away",
    sqlite3.SQLITE_READONLY: "{path} cannot be written; give this process write permission on it and on its directory",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened; check that its directory exists and can be written",
}


def _named(error: Exception, path: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} is locked by another writer; nothing was written; try again")
    if code in _NOT_APPLIED:
        return NotApplied(_NOT_APPLIED[code].format(path=path))
    if code in _BROKEN:
        return StoreError(_BROKEN[code].format(path=path))
    if code == sqlite3.SQLITE_IOERR:
        return Unknown(f"the disk that holds {path} failed ({error}); check it, then try again")
    return StoreError(f"{path}: {error}")


def _unopened(path: str, error: OSError) -> StoreError:
    parent = Path(path).parent
    if Path(path).is_dir():
        return StoreError(f"{path} is a directory; name a file in it, such as {Path(path, 'sessions.db')}")
    if isinstance(error, FileNotFoundError):
        return StoreError(f"the directory {parent} does not exist; create it, or name another path")
    return StoreError(f"{path} cannot be opened ({error.strerror}); give this process write permission on {parent}")


_files: weakref.WeakSet[File] = weakref.WeakSet()
_shut: list[File] = []
_buried: list[object] = []


def _before_fork() -> None:
    _shut[:] = list(_files)
    until = time.monotonic() + FORK_PATIENCE  # for all files together
    for file in _shut:
        _buried.extend(file.shut(until))
        _buried.extend(file.servants.values())


def _after_fork_in_parent() -> None:
    for file in _shut:
        file.reopen()
    _shut.clear()
    _buried.clear()


def _after_fork_in_child() -> None:
    for file in _shut:
        file.forget()
    _shut.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
