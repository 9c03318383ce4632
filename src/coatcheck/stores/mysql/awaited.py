"""Connections that are awaited: asyncmy behind one small pool for each running loop, with a deadline for everything.

Rules
- All state belongs to the loop that runs; what belonged to a loop that was closed is let go of when another begins.
- Loads go through the batcher, in a task that no caller can cancel. A commit runs in a task of its own: a caller who is
  cancelled learns so only when it is decided.
- Whoever is interrupted while an answer is under way closes the connection.
- After a fork the child forgets every loop, without closing anything.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import asyncmy
from asyncmy.constants import CLIENT
from asyncmy.cursors import Cursor
from asyncmy.errors import MySQLError

from ...core.errors import ConfigError, NotApplied, StoreError
from ...core.model import Record
from ..batches import Batcher
from ..keeping import AsyncKeeper
from ..rounds import Answer, Ask, Round, Steps, adrive
from . import faults, words
from .address import Parameters
from .home import forgets

T = TypeVar("T")

RESTED: Final = 120.0
"""Seconds without use after which a connection is not trusted any more: something on the way may have dropped it."""
FLAGS: Final = CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS


class Link:
    """A connection of one loop."""

    __slots__ = ("db", "deciding", "place", "rested_at", "sound")

    def __init__(self, db: Any, place: str) -> None:
        """Begin sound."""
        self.db, self.place = db, place
        self.sound, self.deciding = True, False
        self.rested_at = 0.0

    async def send(self, asked: Round) -> Sequence[Answer]:
        """Send the statements of a round in one packet and return their answers (see rounds.py)."""
        cursor = self.db.cursor(Cursor)
        try:
            text = ";\n".join([cursor.mogrify(ask.text, words.storable(ask.values)) for ask in asked.asks])
        except (MySQLError, ValueError) as error:
            message = f"{self.place}: a value cannot be stored ({error}); nothing was written; store another"
            raise StoreError(message) from error
        self.deciding = asked.decides
        try:
            await cursor.execute(text)
            answers = [await _answer(cursor)]
            while len(answers) < len(asked.asks):
                await cursor.nextset()
                answers.append(await _answer(cursor))
        except Exception as error:
            self.sound = isinstance(error, MySQLError) and not faults.lost(error)
            raise faults.named(error, self.place, decides=asked.decides, driver=MySQLError) from error
        self.deciding = False
        return answers

    def stale(self) -> bool:
        """Tell whether it has rested for too long, or the server has closed it."""
        return time.monotonic() - self.rested_at > RESTED or bool(self.db._stream_broken)  # noqa: SLF001

    def drop(self) -> None:
        """Close without a word: the server rolls back."""
        self.db.close()


async def _answer(cursor: Any) -> Answer:
    return Answer(await cursor.fetchall() if cursor.description else (), cursor.rowcount)


class Pool:
    """The connections of one store in one loop."""

    def __init__(self, connect: Parameters, place: str, size: int, prepare: Callable[[Link], Awaitable[None]]) -> None:
        """Open nothing yet. `prepare` is told of each new connection that is set up."""
        self._connect, self._place, self._size, self._prepare = connect, place, size, prepare
        self._free: list[Link] = []
        self._slots = asyncio.Semaphore(size)
        self._closed = False

    async def do(self, steps: Steps[T], within: float | None) -> T:
        """Run a verb on a connection, within so many seconds; None: the caller sees to that, by cancelling."""
        link: Link | None = None
        try:
            async with asyncio.timeout(within), self._slots:
                link = await self._taken()
                try:
                    result = await adrive(steps, link.send)
                except BaseException as error:
                    self._give(link, mended=await _mended(link, error))
                    raise
                self._give(link, mended=True)
                return result
        except TimeoutError as error:
            if link is None and self._slots.locked():
                raise faults.exhausted(self._place, self._size) from error
            raise faults.late(self._place, decides=link is not None and link.deciding) from error

    async def close(self) -> None:
        """Close what is free; what is in use is closed when it comes back."""
        self._closed = True
        free, self._free = self._free, []
        for link in free:
            await link.db.ensure_closed()

    async def _taken(self) -> Link:
        while self._free:
            link = self._free.pop()
            if not link.stale():
                return link
            link.drop()
        return await self._opened(self._connected())

    def _give(self, link: Link, *, mended: bool) -> None:
        if not mended or self._closed:
            link.drop()
            return
        link.rested_at = time.monotonic()
        self._free.append(link)

    def _connected(self) -> Awaitable[Any]:
        given = dict(self._connect)
        given["client_flag"] = given.get("client_flag", 0) | FLAGS
        return cast("Awaitable[Any]", asyncmy.connect(**{**given, "autocommit": True, "charset": "utf8mb4"}))

    async def _opened(self, connecting: Awaitable[Any]) -> Link:
        try:
            link = Link(await connecting, self._place)
        except StoreError:
            raise
        except TimeoutError as error:
            raise faults.unreachable(self._place, "no answer") from error
        except Exception as error:
            raise faults.named(error, self._place, decides=False, driver=MySQLError) from error
        try:
            await link.send(Round([Ask(statement) for statement in words.SESSION]))
            await self._prepare(link)
        except BaseException:
            link.drop()
            raise
        return link


class LentPool(Pool):
    """A pool of the application's, of its own loop; its connections are ours alone."""

    def __init__(self, pool: Any, place: str, prepare: Callable[[Link], Awaitable[None]]) -> None:
        """Raise ConfigError in another loop than the pool's."""
        if pool._loop is not asyncio.get_running_loop():  # noqa: SLF001 - the driver does not show it
            message = "the asyncmy pool belongs to another event loop; make one in each loop, or give a URL"
            raise ConfigError(message)
        super().__init__({}, place, pool.maxsize, prepare)
        self._pool = pool
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    async def close(self) -> None:
        """Leave it to its owner."""

    async def _taken(self) -> Link:
        try:
            db = await self._pool.acquire()
        except Exception as error:
            raise faults.named(error, self._place, decides=False, driver=MySQLError) from error
        if db in self._known:
            return Link(db, self._place)
        try:
            link = await self._opened(_already(db))
        except BaseException:
            db.close()
            self._pool.release(db)
            raise
        self._known.add(db)
        return link

    def _give(self, link: Link, *, mended: bool) -> None:
        if not mended:
            link.drop()
        self._pool.release(link.db)


async def _already(db: Any) -> Any:
    if db.character_set_name() != "utf8mb4":
        message = "the asyncmy pool speaks another charset; make it with charset='utf8mb4'"
        raise StoreError(message)
    return db


async def _mended(link: Link, error: BaseException) -> bool:
    """Roll back after an error of the server; tell whether the connection is as good as new."""
    if not (link.sound and isinstance(error, NotApplied)):
        return False
    try:
        await link.send(Round([Ask("rollback")]))
    except StoreError:
        return False
    return True


class Here:
    """What a store has in one loop."""

    def __init__(self, pool: Pool, batcher: Batcher[Record | None], keeper: AsyncKeeper) -> None:
        """Begin in the running loop."""
        self.pool, self.batcher, self.keeper = pool, batcher, keeper
        self.ending: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End all of it, in its own loop."""
        await self.keeper.stop()
        self.batcher.close()
        await self.pool.close()


def _closing(here: Here) -> None:
    here.ending = asyncio.get_running_loop().create_task(here.close())


class Loops:
    """What a store has in each loop."""

    def __init__(self, make: Callable[[], Here]) -> None:
        """Begin with none; `make` is called in the loop that needs one."""
        self._make = make
        self._here: dict[asyncio.AbstractEventLoop, Here] = {}
        self._forgotten: list[object] = []
        forgets(self)

    def here(self) -> Here:
        """Return what belongs to the running loop."""
        loop = asyncio.get_running_loop()
        found = self._here.get(loop)
        if found is None:
            for other in [one for one in list(self._here) if one.is_closed()]:
                self._here.pop(other, None)
            found = self._here[loop] = self._make()
        return found

    async def close(self) -> None:
        """Close everything of the running loop now, of others as soon as they come to it."""
        running = asyncio.get_running_loop()
        for loop, here in list(self._here.items()):
            self._here.pop(loop, None)
            if loop is running:
                await here.close()
            elif not loop.is_closed():
                with suppress(RuntimeError):  # it may end in this moment
                    loop.call_soon_threadsafe(_closing, here)

    def forget(self) -> None:
        """Forget, in the child, what belongs to the parent; keep it, lest its end closes anything."""
        self._forgotten.append(self._here)
        self._here = {}


async def decided(work: Coroutine[Any, Any, T]) -> T:
    """Do something to its end; a caller who is cancelled meanwhile learns so afterwards."""
    task = asyncio.get_running_loop().create_task(work)
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
