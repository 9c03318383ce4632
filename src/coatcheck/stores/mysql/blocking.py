"""Connections that block: PyMySQL behind a small pool of our own, safe between threads, with a deadline for everything.

Rules
- At most `size` connections; who finds them all busy waits until the deadline. The last one given back goes out first.
- Before it goes out again, a connection is looked at: one that the server has closed, or that rested for too long, is
  dropped. What fails while it is used is rolled back or closed before anybody else gets it.
- After a fork the child forgets them all, without closing: they are the parent's.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pymysql  # type: ignore[import-untyped]
from pymysql.constants import CLIENT  # type: ignore[import-untyped]
from pymysql.cursors import Cursor  # type: ignore[import-untyped]

# by name: where PyMySQL stands in for mysqlclient (Django's way), the attribute pymysql.err becomes another module
from pymysql.err import MySQLError  # type: ignore[import-untyped]

from ...core.errors import NotApplied, StoreError
from ..keeping import Keeper
from ..rounds import Answer, Ask, Round, Steps, drive
from . import faults, words
from .address import Parameters
from .home import forgets

T = TypeVar("T")

Connect = Callable[[], Any]
"""Makes a PyMySQL connection."""

RESTED: Final = 120.0
"""Seconds without use after which a connection is not trusted any more: something on the way may have dropped it."""
PAUSE: Final = 0.005
"""Seconds between looks whether the tables are made: few ever wait for that."""
FLAGS: Final = CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS


class Link:
    """A connection, and until when its user waits."""

    __slots__ = ("db", "era", "place", "rested_at", "sound", "until")

    def __init__(self, db: Any, place: str, until: float, era: int) -> None:
        """Begin sound; `era` tells whether the pool was closed meanwhile."""
        self.db, self.place, self.until, self.era = db, place, until, era
        self.sound = True
        self.rested_at = 0.0

    def send(self, asked: Round) -> Sequence[Answer]:
        """Send the statements of a round in one packet and return their answers (see rounds.py)."""
        db = self.db
        left = self.until - time.monotonic()
        if left <= 0:
            raise faults.late(self.place, decides=False)
        cursor = db.cursor(Cursor)
        try:
            text = ";\n".join([cursor.mogrify(ask.text, words.storable(ask.values)) for ask in asked.asks])
        except (MySQLError, ValueError) as error:
            message = f"{self.place}: a value cannot be stored ({error}); nothing was written; store another"
            raise StoreError(message) from error
        # The driver has no other way to say how long the next answer may take.
        db._read_timeout = db._write_timeout = left  # noqa: SLF001
        try:
            cursor.execute(text)
            answers = [_answer(cursor)]
            while len(answers) < len(asked.asks):
                cursor.nextset()
                answers.append(_answer(cursor))
        except Exception as error:
            self.sound = isinstance(error, MySQLError) and not faults.lost(error)
            raise _named(error, self.place, decides=asked.decides) from error
        return answers

    def stale(self) -> bool:
        """Tell whether it has rested for too long, or the server has closed it: then there is something to read."""
        if time.monotonic() - self.rested_at > RESTED or not self.db.open:
            return True
        return _readable(self.db._sock)  # noqa: SLF001 - the driver does not show its socket

    def drop(self) -> None:
        """Close without a word: the server rolls back."""
        self.db._force_close()  # noqa: SLF001 - close() would first say goodbye, and might wait for that


def _named(error: Exception, place: str, *, decides: bool) -> StoreError:
    # The driver says "lost" when it means "late".
    late = isinstance(error.__context__, TimeoutError)
    return faults.named(TimeoutError() if late else error, place, decides=decides, driver=MySQLError)


def _answer(cursor: Any) -> Answer:
    return Answer(cursor.fetchall() if cursor.description else (), cursor.rowcount)


def _readable(socket: Any) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


class Pool:
    """The connections of one store in this process."""

    def __init__(self, connect: Connect | Parameters, place: str, size: int, prepare: Callable[[Link], None]) -> None:
        """Open nothing yet. `prepare` is told of each new connection that is set up."""
        self._connect, self._place, self._size, self._prepare = connect, place, size, prepare
        self._forgotten: list[object] = []
        self._free: list[Link] = []
        self._slots = threading.Semaphore(size)
        self._era = 0
        self._gate = threading.Lock()
        self._keeper: Keeper | None = None
        forgets(self)

    def do(self, steps: Steps[T], until: float) -> T:
        """Run a verb on a connection, before a deadline (of time.monotonic)."""
        slots = self._slots
        if not slots.acquire(timeout=max(0.0, until - time.monotonic())):
            raise faults.exhausted(self._place, self._size)
        try:
            link = self._taken(until)
            try:
                result = drive(steps, link.send)
            except BaseException as error:
                self._give(link, mended=_mended(link, error))
                raise
            self._give(link, mended=True)
            return result
        finally:
            slots.release()

    @contextmanager
    def alone(self, until: float) -> Iterator[None]:
        """Let one thread in at a time."""
        gate = self._gate
        while not gate.acquire(blocking=False):  # who has it waits for the server: a greenlet must be let to
            if time.monotonic() >= until:
                raise faults.late(self._place, decides=False)
            time.sleep(PAUSE)
        try:
            yield
        finally:
            gate.release()

    def keep(self, store: object) -> None:
        """Make sure that a keeper tidies the store."""
        if self._keeper is not None:
            return
        # not within the gate: where greenlets stand for threads, a new one runs at once, and may want to pass it
        begun: Keeper | None = Keeper(store)
        with self._gate:
            if self._keeper is None:
                self._keeper, begun = begun, None
        if begun is not None:
            begun.stop()

    def close(self) -> None:
        """End the keeper and close what is free; what is in use is closed when it comes back."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        self._era += 1
        free, self._free = self._free, []
        while free:
            free.pop().db.close()

    def forget(self) -> None:
        """Forget, in the child, what belongs to the parent; keep it, lest its end closes anything."""
        self._era += 1
        self._forgotten += [*self._free, self._keeper]
        self._free, self._keeper = [], None
        self._slots, self._gate = threading.Semaphore(self._size), threading.Lock()

    def _taken(self, until: float) -> Link:
        free = self._free
        while free:
            try:
                link = free.pop()
            except IndexError:  # another thread was faster
                break
            if not link.stale():
                link.until = until
                return link
            link.drop()
        return self._opened(until)

    def _give(self, link: Link, *, mended: bool) -> None:
        if not mended or link.era != self._era:
            link.drop()
            return
        link.rested_at = time.monotonic()
        self._free.append(link)

    def _opened(self, until: float) -> Link:
        left = until - time.monotonic()
        if left <= 0:
            raise faults.late(self._place, decides=False)
        try:
            link = Link(self._connected(left), self._place, until, self._era)
        except StoreError:
            raise
        except Exception as error:
            raise _named(error, self._place, decides=False) from error
        try:
            link.send(Round([Ask(statement) for statement in words.SESSION]))
            self._prepare(link)
        except BaseException:
            link.drop()
            raise
        return link

    def _connected(self, left: float) -> Any:
        if callable(self._connect):
            db = self._connect()
            if not db.client_flag & CLIENT.MULTI_STATEMENTS:
                message = "a connection was made without client_flag=CLIENT.MULTI_STATEMENTS; make it with this flag"
                raise StoreError(message)
            db.set_character_set("utf8mb4")
            return db
        given = dict(self._connect)
        given["client_flag"] = given.get("client_flag", 0) | FLAGS
        ours = {"autocommit": True, "charset": "utf8mb4", "connect_timeout": left}
        return pymysql.connect(**{**given, **ours, "read_timeout": left, "write_timeout": left})


def _mended(link: Link, error: BaseException) -> bool:
    """Roll back after an error of the server; tell whether the connection is as good as new."""
    if not (link.sound and isinstance(error, NotApplied)):
        return False
    try:
        link.send(Round([Ask("rollback")]))
    except StoreError:
        return False
    return True
