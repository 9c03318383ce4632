"""Blocking connections: who has one, how long an answer may take, and what happens to one that failed.

Rules
- A connection is used by one thread at a time, and goes back idle or not at all.
- Every wait has an end: for a free connection, for a new one (made in a thread of its own, since looking up a name
  cannot be interrupted) and for each answer.
- Loads are served when all commits are stuck: commits leave SPARE connections to them.
- A forked child forgets the connections without closing them: they are its parent's.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ...core.errors import NotApplied, StoreError
from ..rounds import Answer, Round, Steps, drive
from .errors import BrokenError, OverdueError, let_go, named, unreachable
from .house import MIGRATION_DEADLINE, House
from .words import inward, literal, outward

T = TypeVar("T")

SPARE: Final = 2
PAUSE: Final = 0.005
"""Seconds between looks whether the tables are made: few ever wait for that."""
IDLE_FOR: Final = 300.0
"""Seconds after which a connection that nobody needed is closed."""
UNDO: Final = 0.2
"""Seconds that a failed transaction has to be rolled back; then its connection is closed."""


class Link:
    """A connection, and the moment until which its answers are awaited."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Make every wait of the connection end at `until`."""
        self.connection, self.until, self.since, self.process = connection, monotonic(), monotonic(), os.getpid()
        self.autocommit = True
        self._cursor = connection.cursor(binary=True, row_factory=tuple_row)
        kind = type(connection)

        def wait(gen: Generator[Any, Any, Any], *arguments: Any, **named_arguments: Any) -> Any:
            return kind.wait(connection, _until(gen, self), *arguments, **named_arguments)

        vars(connection)["wait"] = wait

    def send(self, asked: Round) -> Sequence[Answer]:
        """Send the statements of a round together and return their answers."""
        connection, asks = self.connection, asked.asks
        if len(asks) == 1:
            self._cursor.execute(literal(asks[0].text), inward(asks[0].values) or None)
            return [_answer(self._cursor)]
        with connection.pipeline():
            cursors = [connection.cursor(binary=True, row_factory=tuple_row) for _ in asks]
            for cursor, ask in zip(cursors, asks, strict=True):
                cursor.execute(literal(ask.text), inward(ask.values) or None)
        return [_answer(cursor) for cursor in cursors]

    def quiet(self) -> bool:
        """Tell whether an idle connection still stands: a server that said anything unasked has said goodbye."""
        return not self.connection.closed and not readable(self.connection.pgconn.socket)

    def idle(self) -> bool:
        """Make sure that no transaction is left over; False if the connection is of no more use."""
        connection = self.connection
        if connection.closed:
            return False
        if self._at_rest():
            return True
        self.until = monotonic() + UNDO
        with suppress(psycopg.Error, OverdueError):
            connection.rollback()
        return not connection.closed and self._at_rest()

    def _at_rest(self) -> bool:
        return self.connection.info.transaction_status == TransactionStatus.IDLE

    def leave(self) -> psycopg.Connection[Any]:
        """Give the connection its own way of waiting back."""
        vars(self.connection).pop("wait", None)
        return self.connection

    def close(self) -> None:
        """Close the connection; its server need not answer."""
        self.leave().close()


def _until(gen: Generator[Any, Any, T], link: Link) -> Generator[Any, Any, T]:
    """Follow psycopg's waiting, which asks every 0.1 s whether to go on."""
    try:
        asked = next(gen)
        while True:
            ready = yield asked
            if not ready and monotonic() >= link.until:
                link.connection.pgconn.finish()
                drop(gen)
                raise OverdueError
            asked = gen.send(ready)
    except StopIteration as stop:
        result: T = stop.value
        return result


def drop(gen: Generator[Any, Any, Any]) -> None:
    """Close what talked over a connection that is closed: it may want to say a last word, and nobody listens."""
    with suppress(psycopg.Error, RuntimeError):
        gen.close()


def _answer(cursor: psycopg.Cursor[Any]) -> Answer:
    brought = cursor.pgresult
    rows = [outward(row) for row in cursor.fetchall()] if brought is not None and brought.nfields else ()
    return Answer(rows, cursor.rowcount)


class Links(Protocol):
    """Where links come from; a forked child forgets them."""

    def take(self, until: float, spare: int) -> Link:
        """Return a link, but leave `spare` of them to others."""
        ...

    def give(self, link: Link) -> None:
        """Take a link back."""
        ...

    def close(self) -> None:
        """Close what is idle now, and later what is in use."""
        ...

    def bury(self) -> Sequence[Link]:
        """Return every connection, so that a forked child can keep them for ever, unused."""
        ...

    def forget(self) -> None:
        """Begin anew, without any connection."""
        ...


class Pool:
    """Connections of our own: made when needed, the last one used is the first one reused."""

    def __init__(self, house: House, size: int) -> None:
        """Open nothing."""
        self._house, self._size = house, size
        self.forget()

    def forget(self) -> None:
        """Begin anew, without any connection."""
        self._gate = threading.Condition()
        self._idle: deque[Link] = deque()
        self._used: set[Link] = set()
        self._asked = 0

    def bury(self) -> Sequence[Link]:
        """Return every connection, so that a forked child can keep them for ever, unused."""
        return [*self._idle, *self._used]

    def take(self, until: float, spare: int) -> Link:
        """Return a link, but leave `spare` of them to others."""
        most = max(1, self._size - spare)
        with self._gate:
            while self._asked >= most:
                if not self._gate.wait(until - monotonic()):
                    message = (
                        f"all {most} connections to {self._house.place} were busy; nothing was written; "
                        "raise pool_size, or look for what keeps them"
                    )
                    raise NotApplied(message)
            self._asked += 1
        try:
            link = self._standing() or Link(dialled(self._house, until))
        except BaseException:
            self._returned()
            raise
        with self._gate:
            self._used.add(link)
        return link

    def give(self, link: Link) -> None:
        """Take a link back; close one that failed, and one that nobody needed for long."""
        if link.process != os.getpid():
            return
        usable = link.idle()
        link.since = monotonic()
        worn: Link | None = link
        with self._gate:
            kept = usable and link in self._used
            self._used.discard(link)
            if kept:
                self._idle.append(link)
                worn = None
                if self._idle[0].since < link.since - IDLE_FOR:
                    worn = self._idle.popleft()
        self._returned()
        if worn is not None:
            worn.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        with self._gate:
            idle, self._idle, self._used = list(self._idle), deque(), set()
        for link in idle:
            link.close()

    def _standing(self) -> Link | None:
        """Return an idle link whose connection still stands."""
        while True:
            with self._gate:
                if not self._idle:
                    return None
                link = self._idle.pop()
            if link.quiet():
                return link
            link.close()

    def _returned(self) -> None:
        with self._gate:
            self._asked -= 1
            self._gate.notify()


class Lent:
    """The connections of an application's own psycopg_pool."""

    def __init__(self, house: House) -> None:
        """Take nothing yet."""
        self._house = house

    def take(self, until: float, spare: int) -> Link:
        """Borrow a connection."""
        try:
            connection = self._house.pool.getconn(timeout=max(0.001, until - monotonic()))
        except Exception as error:
            message = f"the pool handed in gave no connection to {self._house.place} ({error}); look at its log"
            raise NotApplied(message) from error
        link = Link(connection)
        link.autocommit = connection.autocommit
        connection.set_autocommit(True)
        return link

    def give(self, link: Link) -> None:
        """Return it as it was."""
        usable, connection = link.idle(), link.leave()
        if usable:
            connection.set_autocommit(link.autocommit)
        else:
            connection.close()
        self._house.pool.putconn(connection)

    def close(self) -> None:
        """Do nothing: the pool is the application's."""

    def bury(self) -> Sequence[Link]:
        """Return nothing: what becomes of the pool in a forked child is the application's business."""
        return ()

    def forget(self) -> None:
        """Do nothing."""


class Desk:
    """Runs what is asked of the server, on connections of the house or lent ones."""

    def __init__(self, house: House, size: int) -> None:
        """Open nothing."""
        self._house = house
        self._links: Links = Pool(house, size) if house.pool is None else Lent(house)
        self._gate = threading.Lock()
        _desks.add(self)

    def forget(self) -> None:
        """Forget, in a forked child, everything that belongs to its parent."""
        _buried.append(self._links.bury())
        self._links.forget()
        self._gate = threading.Lock()

    def run(self, steps: Callable[[], Steps[T]], within: float, spare: int = 0) -> T:
        """Run to the end, in time; once more, if the first connection turns out to be broken."""
        until = monotonic() + within
        if not self._house.ready:
            self._prepare(until)
        try:
            return self._once(steps, until, spare)
        except BrokenError:
            return self._once(steps, until, spare)

    def close(self) -> None:
        """Let go of the connections."""
        self._links.close()

    def _once(self, steps: Callable[[], Steps[T]], until: float, spare: int) -> T:
        link = self._links.take(until, spare)
        link.until = until
        try:
            return drive(steps(), lambda asked: _sent(link, asked, self._house))
        finally:
            self._links.give(link)

    def _prepare(self, until: float) -> None:
        """Make sure of the tables, once; who finds others at it waits for them, as long as he may."""
        house = self._house
        while not self._gate.acquire(blocking=False):  # who has it waits for the server: a greenlet must be let to
            if monotonic() >= until:
                message = f"{house.place}: the tables are still being made; nothing was written; try again"
                raise NotApplied(message)
            time.sleep(PAUSE)
        try:
            if house.ready:
                return
            link = self._links.take(until, 0)
            link.until = until
            try:
                if not drive(house.check(), lambda asked: _sent(link, asked, house)):
                    link.until = monotonic() + MIGRATION_DEADLINE
                    drive(house.make(), lambda asked: _sent(link, asked, house))
            finally:
                self._links.give(link)
            house.ready = True
        finally:
            self._gate.release()


def _sent(link: Link, asked: Round, house: House) -> Sequence[Answer]:
    try:
        return link.send(asked)
    except StoreError:
        raise
    except (psycopg.Error, OverdueError, UnicodeError, OverflowError) as error:
        if isinstance(error, psycopg.errors.UndefinedTable):
            # Somebody dropped the tables: the next one to come makes them anew, with a generation of their own.
            house.ready = False
        raise named(error, house.place, decides=asked.decides) from error


def dialled(house: House, until: float) -> psycopg.Connection[Any]:
    """Return a new connection; raise the contract's error if none can be had in time."""
    calls: queue.SimpleQueue[psycopg.Connection[Any] | Exception] = queue.SimpleQueue()
    late = threading.Event()
    threading.Thread(target=_dial, args=(house, calls, late), name="coatcheck-dial", daemon=True).start()
    try:
        outcome = calls.get(timeout=max(0.001, until - monotonic()))
    except queue.Empty:
        late.set()
        _hang_up(calls)
        raise unreachable(OverdueError(), house.place) from None
    if isinstance(outcome, Exception):
        raise unreachable(outcome, house.place) from outcome
    return outcome


def _dial(house: House, calls: queue.SimpleQueue[psycopg.Connection[Any] | Exception], late: threading.Event) -> None:
    try:
        calls.put(psycopg.connect(**house.connecting(), autocommit=True))
    except Exception as error:  # noqa: BLE001 - it is the caller's
        calls.put(let_go(error))
    if late.is_set():
        _hang_up(calls)


def _hang_up(calls: queue.SimpleQueue[psycopg.Connection[Any] | Exception]) -> None:
    """Close what came too late; the caller and the thread both look, so one of them finds it."""
    with suppress(queue.Empty):
        outcome = calls.get_nowait()
        if not isinstance(outcome, Exception):
            outcome.close()


def readable(descriptor: int) -> bool:
    """Tell whether something lies on a socket, unread."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


_desks: weakref.WeakSet[Desk] = weakref.WeakSet()
_buried: list[object] = []


def _after_fork_in_child() -> None:
    for desk in _desks:
        desk.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
