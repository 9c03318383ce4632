"""When an open connection looks at its session again: as soon as its record changed, and in any case now and then.

Rules
- All connections of one event loop share one watch of the store, from the first of them to the last.
- Listen, then look: so an end at any point of a handshake is met.
- A notice says no more than "look"; what becomes of a connection is decided by the record, read from the store.
- In any case it looks every `recheck` seconds, at the session's own end, and when the epochs rose.
- Where a store cannot be watched, or just now does not answer, it looks every `every` seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from contextvars import Context
from typing import Any

from ..core.errors import StoreError
from ..core.model import Handle
from ..core.session import Session
from ..flow.async_ import EPOCHS_EVERY, AsyncExchange
from ..flow.async_store import AsyncWatchedStore
from ..flow.journal import logger

FAREWELL = 1.0
"""Seconds that telling a client so may take: one that does not read any more is left."""
RETRY = 30.0
"""Seconds until a store that could not be watched is tried again."""
AT_ONCE = 16
"""How many connections of one loop look at the same time; a store that says "look at everything" is not flooded."""


class Watching:
    """The open connections of one application."""

    def __init__(self, exchange: AsyncExchange, every: float, recheck: float) -> None:
        """Take how often to look, in seconds: where the store tells nothing, and where it does."""
        self.exchange, self.every, self.recheck = exchange, every, recheck
        self._lookouts: dict[asyncio.AbstractEventLoop, Lookout] = {}
        if exchange.manager.settings.floods.sockets is not None:
            exchange.manager.sockets_of = self.number

    def over(self, session: Session, at_end: Callable[[str], Awaitable[None]]) -> Watch:
        """Watch over a session until it is over or the watch is stopped; `at_end` tells the client why."""
        loop = asyncio.get_running_loop()
        lookout = self._lookouts.get(loop)
        if lookout is None:
            self._lookouts[loop] = lookout = Lookout(self, loop)
        return Watch(lookout, session, at_end)

    def number(self, handle: Handle) -> int:
        """Return how many websockets a session has open in this process."""
        return sum(lookout.number(handle) for lookout in list(self._lookouts.values()))

    def left(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forget a loop whose last connection is gone."""
        self._lookouts.pop(loop, None)


class Lookout:
    """The open connections of one event loop, and the one watch of the store that serves them."""

    def __init__(self, watching: Watching, loop: asyncio.AbstractEventLoop) -> None:
        """Begin without any."""
        self._watching, self._loop = watching, loop
        self._exchange = watching.exchange
        self._watches: dict[Handle, set[Watch]] = {}
        self._looking = asyncio.Semaphore(AT_ONCE)
        self._beginning: asyncio.Task[None] | None = None
        self._stop: Callable[[], None] | None = None
        self._epochs: asyncio.Task[None] | None = None
        self._retry_at = float("-inf")

    @property
    def pause(self) -> float:
        """The seconds until a connection looks that nobody wakes, if its session does not end before."""
        if self._stop is None:
            return self._watching.every
        return self._watching.recheck * random.uniform(0.75, 1.0)  # noqa: S311 - spreads them, hides nothing

    def join(self, watch: Watch) -> None:
        """Wake this one when its record changes."""
        self._watches.setdefault(watch.handle, set()).add(watch)

    def number(self, handle: Handle) -> int:
        """Return how many websockets of this loop belong to a session."""
        return sum(watch.is_socket for watch in list(self._watches.get(handle, ())))

    def leave(self, watch: Watch) -> None:
        """Wake it no more; with the last one the watch of the store ends."""
        mine = self._watches[watch.handle]
        mine.discard(watch)
        if not mine:
            del self._watches[watch.handle]
        if self._watches:
            return
        self._watching.left(self._loop)
        if self._epochs is not None:
            self._epochs.cancel()
        if self._stop is not None:
            self._loop.run_in_executor(None, self._stop)  # it may wait for a thread
        self._stop = self._epochs = None

    async def listens(self) -> bool:
        """Tell whether the store tells us what changes; begin to listen if we do not yet."""
        store = self._exchange.store
        if self._stop is None and isinstance(store, AsyncWatchedStore) and time.monotonic() >= self._retry_at:
            if self._beginning is None:
                self._beginning = asyncio.create_task(self._begin(store))
            await asyncio.shield(self._beginning)
        return self._stop is not None

    async def look(self, session: Session) -> tuple[str | None, float]:
        """Return why a session is over, or None and how many seconds may pass until the next look."""
        async with self._looking:
            reason, ends_at = await self._exchange.look(session)
        if ends_at is None:  # the store did not answer: ask again soon
            return reason, self._watching.every
        return reason, min(self.pause, max(0.01, ends_at - self._exchange.manager.now()))

    async def _begin(self, store: AsyncWatchedStore) -> None:
        try:
            stop = await store.watch(self._hear)
        except Exception as error:  # noqa: BLE001 - whatever it is: what nobody watches is not left open
            logger.warning("open connections look every %g s: %s", self._watching.every, error)
            self._retry_at = time.monotonic() + RETRY
        else:
            if self._watches:
                self._stop = stop
                self._epochs = asyncio.create_task(self._mind_epochs())
            else:
                self._loop.run_in_executor(None, stop)  # all have left meanwhile
        finally:
            self._beginning = None

    async def _mind_epochs(self) -> None:
        """Wake everybody when what began before some moment no longer counts: no record changes by that."""
        known = None
        while True:
            with suppress(StoreError):
                floor = await self._exchange.floor()
                if known is not None and floor != known:
                    self._wake(None)
                known = floor
            await asyncio.sleep(EPOCHS_EVERY)

    def _hear(self, handle: Handle | None) -> None:
        if handle is None or handle in self._watches:
            with suppress(RuntimeError):  # the loop is closed: nobody is there
                self._loop.call_soon_threadsafe(self._wake, handle)

    def _wake(self, handle: Handle | None) -> None:
        for watches in list(self._watches.values()) if handle is None else [self._watches.get(handle, set())]:
            for watch in watches:
                watch.wake()


class Watch:
    """Looks at the session of an open connection until it is over; then the connection is, too."""

    def __init__(self, lookout: Lookout, session: Session, at_end: Callable[[str], Awaitable[None]]) -> None:
        """Start looking; `at_end` tells the client."""
        record = session.visit.record
        self.handle: Handle = "" if record is None else record.handle
        self.is_socket = session.visit.request.kind == "websocket"
        self.reason: str | None = None
        self._lookout = lookout
        self._session = session
        self._at_end = at_end
        self._ended = asyncio.Event()
        self._woken = asyncio.Event()
        self._pending: asyncio.Future[MutableMapping[str, Any]] | None = None
        lookout.join(self)
        # it outlives the call that begins it, whose context may name a thread that waits for that call alone (asgiref)
        self._task = asyncio.create_task(self._look(), context=Context())
        self._task.add_done_callback(lambda _: lookout.leave(self))

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    async def receive(
        self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], ending: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return the next message, or `ending` once the session is over."""
        if self.reason is not None:
            return ending
        if self._pending is None:
            self._pending = asyncio.ensure_future(receive())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((self._pending, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if self.reason is not None or not self._pending.done():
            return ending
        message, self._pending = self._pending.result(), None
        return message

    def caused(self, error: Exception) -> bool:
        """Tell whether an error is what an application makes of our ending its connection.

        Starlette wraps it in one of its own; what streams from a task group raises a group, of nothing else.
        """
        if isinstance(error, ExceptionGroup):
            return all(self.caused(one) for one in error.exceptions)
        return self.reason is not None and (isinstance(error, OSError) or isinstance(error.__context__, OSError))

    async def stop(self) -> None:
        """Stop looking; where the session is over, see to it that the client was told."""
        if self.reason is None:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._pending is not None:
            self._pending.cancel()

    async def _look(self) -> None:
        self.reason = await self._until_over()
        # the application learns it first: a client that does not read keeps nobody waiting
        self._ended.set()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._at_end(self.reason), FAREWELL)

    async def _until_over(self) -> str:
        lookout = self._lookout
        pause = 0.0 if await lookout.listens() else lookout.pause
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            self._woken.clear()
            if self.handle and (visit := self._session.visit).record is None:
                return visit.ended_because or "logout"  # by its own hand: a logout in it, or a write that met the end
            try:
                await lookout.listens()
                reason, pause = await lookout.look(self._session)
            except Exception:  # noqa: BLE001 - a policy that fails: what nobody watches is not left open
                logger.exception("the session of an open connection could not be judged; the connection is closed")
                return "policy"
            if reason is not None:
                return reason
