"""Awaited connections: the same as the blocking ones, for one event loop each.

Rules
- Everything that belongs to a loop hangs on its `Hall`; a loop that was closed takes its connections along.
- A wait that is cut off, by a deadline or by its caller, closes the connection: an answer may still be under way.
- Loads have SPARE connections to themselves, and travel in batches; see batches.py.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

import psycopg
from psycopg import waiting
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ...core.errors import NotApplied, StoreError
from ...core.model import Handle, Record
from ..batches import Batcher
from ..keeping import AsyncKeeper
from ..rounds import Answer, Round, Steps, adrive
from ..sql import record_of
from .blocking import IDLE_FOR, SPARE, UNDO, drop, readable
from .errors import BrokenError, let_go, named, unreachable
from .house import EVERYTHING, MANY, MIGRATION_DEADLINE, House, log
from .words import inward, literal, outward

T = TypeVar("T")

_INTERVAL: Final = 1.0


class Link:
    """A connection, and the moment until which its answers are awaited."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Let the connection close when a wait of it is cut off; psycopg would first ask the server to cancel."""
        self.connection, self.until, self.since = connection, monotonic(), monotonic()
        self.autocommit = True
        self._cursor = connection.cursor(binary=True, row_factory=tuple_row)

        async def wait(gen: Generator[Any, Any, Any], *_: Any, **__: Any) -> Any:
            try:
                return await waiting.wait_async(gen, connection.pgconn.socket, interval=_INTERVAL)
            except (asyncio.CancelledError, KeyboardInterrupt):
                connection.pgconn.finish()
                drop(gen)
                raise

        vars(connection)["wait"] = wait

    async def send(self, asked: Round) -> Sequence[Answer]:
        """Send the statements of a round together and return their answers."""
        connection, asks = self.connection, asked.asks
        async with asyncio.timeout(self.until - monotonic()):
            if len(asks) == 1:
                await self._cursor.execute(literal(asks[0].text), inward(asks[0].values) or None)
                return [await _answer(self._cursor)]
            async with connection.pipeline():
                cursors = [connection.cursor(binary=True, row_factory=tuple_row) for _ in asks]
                for cursor, ask in zip(cursors, asks, strict=True):
                    await cursor.execute(literal(ask.text), inward(ask.values) or None)
            return [await _answer(cursor) for cursor in cursors]

    def quiet(self) -> bool:
        """Tell whether an idle connection still stands: a server that said anything unasked has said goodbye."""
        return not self.connection.closed and not readable(self.connection.pgconn.socket)

    async def idle(self) -> bool:
        """Make sure that no transaction is left over; False if the connection is of no more use."""
        connection = self.connection
        if connection.closed:
            return False
        if self._at_rest():
            return True
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(UNDO):
                await connection.rollback()
        return not connection.closed and self._at_rest()

    def _at_rest(self) -> bool:
        return self.connection.info.transaction_status == TransactionStatus.IDLE

    def leave(self) -> psycopg.AsyncConnection[Any]:
        """Give the connection its own way of waiting back."""
        vars(self.connection).pop("wait", None)
        return self.connection

    def close(self) -> None:
        """Close the connection; its server need not answer."""
        self.leave().pgconn.finish()


async def _answer(cursor: psycopg.AsyncCursor[Any]) -> Answer:
    brought = cursor.pgresult
    rows = [outward(row) for row in await cursor.fetchall()] if brought is not None and brought.nfields else ()
    return Answer(rows, cursor.rowcount)


class Links(Protocol):
    """Where links come from."""

    async def take(self, until: float) -> Link:
        """Return a link."""
        ...

    async def give(self, link: Link) -> None:
        """Take a link back."""
        ...

    def close(self) -> None:
        """Close what is idle now, and later what is in use."""
        ...

    def bury(self) -> Sequence[Link]:
        """Return every connection, so that a forked child can keep them for ever, unused."""
        ...


class Pool:
    """Connections of our own: made when needed, the last one used is the first one reused."""

    def __init__(self, house: House, size: int) -> None:
        """Open nothing."""
        self._house, self._size, self._asked = house, size, 0
        self._idle: deque[Link] = deque()
        self._used: set[Link] = set()
        self._queue: deque[asyncio.Future[None]] = deque()

    async def take(self, until: float) -> Link:
        """Return a link."""
        if self._asked < self._size:
            self._asked += 1
        else:
            await self._turn(until)
        try:
            link = self._standing() or Link(await dialled(self._house, until))
        except BaseException:
            self._returned()
            raise
        self._used.add(link)
        return link

    async def give(self, link: Link) -> None:
        """Take a link back; close one that failed, and one that nobody needed for long."""
        try:
            usable = await link.idle()
        except BaseException:
            link.close()
            self._used.discard(link)
            self._returned()
            raise
        link.since = monotonic()
        if usable and link in self._used:
            self._idle.append(link)
            if self._idle[0].since < link.since - IDLE_FOR:
                self._idle.popleft().close()
        else:
            link.close()
        self._used.discard(link)
        self._returned()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        idle, self._idle, self._used = self._idle, deque(), set()
        for link in idle:
            link.close()

    def bury(self) -> Sequence[Link]:
        """Return every connection, so that a forked child can keep them for ever, unused."""
        return [*self._idle, *self._used]

    def _standing(self) -> Link | None:
        """Return an idle link whose connection still stands."""
        while self._idle:
            link = self._idle.pop()
            if link.quiet():
                return link
            link.close()
        return None

    async def _turn(self, until: float) -> None:
        """Wait until somebody leaves a place to us; it stays counted on the way."""
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout(until - monotonic()):
                await place
        except BaseException as error:
            if place in self._queue:
                self._queue.remove(place)
            elif not place.cancelled():
                self._returned()
            if not isinstance(error, TimeoutError):
                raise
            message = (
                f"all {self._size} connections to {self._house.place} were busy; nothing was written; "
                "raise pool_size, or look for what keeps them"
            )
            raise NotApplied(message) from None

    def _returned(self) -> None:
        """Leave a place to who waits longest."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._asked -= 1


class Lent:
    """The connections of an application's own psycopg_pool."""

    def __init__(self, house: House) -> None:
        """Take nothing yet."""
        self._house = house

    async def take(self, until: float) -> Link:
        """Borrow a connection."""
        try:
            connection = await self._house.pool.getconn(timeout=max(0.001, until - monotonic()))
        except Exception as error:
            message = f"the pool handed in gave no connection to {self._house.place} ({error}); look at its log"
            raise NotApplied(message) from error
        link = Link(connection)
        link.autocommit = connection.autocommit
        await connection.set_autocommit(True)
        return link

    async def give(self, link: Link) -> None:
        """Return it as it was."""
        usable, connection = await link.idle(), link.leave()
        if usable:
            await connection.set_autocommit(link.autocommit)
        else:
            connection.pgconn.finish()
        await self._house.pool.putconn(connection)

    def close(self) -> None:
        """Do nothing: the pool is the application's."""

    def bury(self) -> Sequence[Link]:
        """Return nothing: what becomes of the pool in a forked child is the application's business."""
        return ()


async def dialled(house: House, until: float) -> psycopg.AsyncConnection[Any]:
    """Return a new connection; raise the contract's error if none can be had in time."""
    try:
        async with asyncio.timeout(until - monotonic()):
            return await psycopg.AsyncConnection.connect(**house.connecting(), autocommit=True)
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise unreachable(error, house.place) from let_go(error)


class Hall:
    """What belongs to one event loop."""

    def __init__(self, house: House, size: int, store: Any) -> None:
        """Open nothing; must be built on its loop."""
        self._house, self._store = house, weakref.ref(store)
        self.loop = asyncio.get_running_loop()
        self._writes: Links = Pool(house, size) if house.pool is None else Lent(house)
        self._loads: Links = Pool(house, SPARE) if house.pool is None else self._writes
        self.batcher: Batcher[Record | None] = Batcher(self._fetch, house.load_deadline)
        self._preparing: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._untold: list[Handle] = []
        self._keeper: AsyncKeeper | None = None

    async def run(self, steps: Callable[[], Steps[T]], within: float, *, load: bool = False) -> T:
        """Run to the end, in time; once more, if the first connection turns out to be broken."""
        until, links = monotonic() + within, self._loads if load else self._writes
        if not self._house.ready:
            await self._prepare(until)
        try:
            return await self._once(steps, until, links)
        except BrokenError:
            return await self._once(steps, until, links)

    def keep(self) -> None:
        """Make sure that a keeper minds the store."""
        store = self._store()
        if self._keeper is None and store is not None:
            self._keeper = AsyncKeeper(store)

    def tell(self, changed: Sequence[Handle]) -> None:
        """Tell watchers everywhere, soon: what changes meanwhile travels along."""
        if changed:
            self._untold += changed if len(changed) <= MANY else [EVERYTHING]
            if self._telling is None:
                self._telling = self.loop.create_task(self._tell())

    async def close(self) -> None:
        """Let go of everything, on its own loop."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.stop()
        if self._telling is not None:
            await asyncio.wait([self._telling], timeout=self._house.commit_deadline)
        self.drop()

    def drop(self) -> None:
        """Let go of the connections; nothing is waited for."""
        self.batcher.close()
        self._loads.close()
        self._writes.close()

    def bury(self) -> Sequence[object]:
        """Return everything, so that a forked child can keep it for ever, unused."""
        return [self, self._loads.bury(), self._writes.bury()]

    async def _once(self, steps: Callable[[], Steps[T]], until: float, links: Links) -> T:
        link = await links.take(until)
        link.until = until
        try:
            return await adrive(steps(), lambda asked: _sent(link, asked, self._house))
        finally:
            await links.give(link)

    async def _fetch(self, handles: list[Handle]) -> list[Record | StoreError | None]:
        """Load a batch; a row that does not decode is the error of its own handle."""
        rows = await self.run(lambda: self._house.rounds.load_all(handles), self._house.load_deadline, load=True)
        found: dict[Handle, Record | StoreError] = {}
        for row in rows:
            try:
                found[row[0]] = record_of(row)
            except StoreError as error:
                found[row[0]] = error
        return [found.get(handle) for handle in handles]

    async def _prepare(self, until: float) -> None:
        """Make sure of the tables, once; callers wait no longer than they may, the making goes on without them."""
        if self._preparing is None:
            self._preparing = self.loop.create_task(self._make())
        task = self._preparing
        await asyncio.wait([task], timeout=until - monotonic())
        if not task.done():
            message = f"{self._house.place}: the tables are still being made; nothing was written; try again"
            raise NotApplied(message)
        self._preparing = None
        await task

    async def _make(self) -> None:
        house, until = self._house, monotonic() + self._house.commit_deadline
        link = await self._writes.take(until)
        link.until = until
        try:
            if not await adrive(house.check(), lambda asked: _sent(link, asked, house)):
                link.until = monotonic() + MIGRATION_DEADLINE
                await adrive(house.make(), lambda asked: _sent(link, asked, house))
        finally:
            await self._writes.give(link)
        house.ready = True

    async def _tell(self) -> None:
        try:
            while self._untold:
                told, self._untold = self._untold, []
                await self.run(partial(self._house.telling, told), self._house.commit_deadline)
        except StoreError as error:
            log.warning("watchers were not told of a change: %s", error)
        finally:
            self._telling = None


async def _sent(link: Link, asked: Round, house: House) -> Sequence[Answer]:
    try:
        return await link.send(asked)
    except (psycopg.Error, TimeoutError, UnicodeError, OverflowError) as error:
        if isinstance(error, psycopg.errors.UndefinedTable):
            # Somebody dropped the tables: the next one to come makes them anew, with a generation of their own.
            house.ready = False
        raise named(error, house.place, decides=asked.decides) from error


class Desk:
    """The halls of one store."""

    def __init__(self, house: House, size: int, store: Any) -> None:
        """Open nothing."""
        self._house, self._size, self._store = house, size, weakref.ref(store)
        self._halls: dict[asyncio.AbstractEventLoop, Hall] = {}
        self._last: Hall | None = None
        _desks.add(self)

    def here(self) -> Hall:
        """Return what belongs to the running loop."""
        loop, last = asyncio.get_running_loop(), self._last
        if last is not None and last.loop is loop:
            return last
        hall = self._halls.get(loop)
        if hall is None:
            for other in [other for other in list(self._halls) if other.is_closed()]:
                if (gone := self._halls.pop(other, None)) is not None:
                    gone.drop()
            self._halls[loop] = hall = Hall(self._house, self._size, self._store())
        self._last = hall
        return hall

    async def close(self) -> None:
        """Let go of what was opened on any loop."""
        halls, self._halls, self._last = self._halls, {}, None
        for loop, hall in halls.items():
            if loop is asyncio.get_running_loop():
                await hall.close()
            elif loop.is_closed():
                hall.drop()
            else:
                with suppress(RuntimeError):  # it was closed just now
                    loop.call_soon_threadsafe(hall.drop)

    def forget(self) -> None:
        """Forget, in a forked child, everything that belongs to its parent."""
        _buried.append([hall.bury() for hall in self._halls.values()])
        self._halls, self._last = {}, None


async def decided(task: asyncio.Task[T]) -> T:
    """Return what a task returns; a caller who is cancelled meanwhile still waits for its end."""
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


_desks: weakref.WeakSet[Desk] = weakref.WeakSet()
_buried: list[object] = []


def _after_fork_in_child() -> None:
    for desk in _desks:
        desk.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
