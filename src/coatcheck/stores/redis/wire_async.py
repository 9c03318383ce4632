"""The connections of the awaited store: for each running event loop its own, one deadline over everything.

Rules
- A connection goes back to its pool only when every answer was read; whatever else happens, it is closed. So a
  cancelled caller never leaves an answer for somebody else.
- What a loop opened is that loop's; nothing here is shared between loops but the knowledge of where the primaries are.
- Servers that one round asks are asked side by side.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ...core.errors import NotApplied, StoreError, Unconfirmed
from . import faults
from .keys import Tag
from .places import Places
from .steps import Address, Answers, Ask, Steps
from .trips import GREETING, HOPS, Piece, Trip, commands_of, greet
from .wire import ENOUGH, LONGEST_PAUSE, LOOK_EVERY, PAUSE, crowded, given_up, waiting

T = TypeVar("T")


class AsyncWire:
    """Carries what steps ask, for the tasks of one event loop."""

    def __init__(self, places: Places, size: int) -> None:
        """Open nothing yet; `size` is how many connections a server gets from this loop at most."""
        self.places, self._size = places, size
        self._looked_at = 0.0
        self._pools: dict[Address, _Pool] = {}
        self._queues: dict[object, _Queue] = {}
        self._now = asyncio.get_running_loop().time

    async def run(self, steps_of: Callable[[], Steps[T]], seconds: float) -> T:
        """Do what steps say, again and again until it succeeds, makes no sense, or time is over."""
        told: StoreError | None = None
        until, tries, unsure = self._now() + seconds, 0, False
        while True:
            began = self._now()
            try:
                await self._look(until)
                return await self._drive(steps_of(), until)
            except StoreError as error:
                unsure = unsure or error.unsure
                if not error.retry or isinstance(error, Unconfirmed):
                    raise
                told = told if told is not None and isinstance(error, faults.Late) else error
                pause = random.uniform(0, PAUSE * 2 ** min(tries, LONGEST_PAUSE))  # noqa: S311 - jitter, no secret
                now = self._now()
                if now + pause + max(ENOUGH, 1.5 * (now - began)) >= until:
                    raise given_up(told, unsure=unsure, seconds=seconds) from error
            tries += 1
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def queue(self, key: object, seconds: float) -> AsyncIterator[float]:
        """Wait for one's turn among those with the same key; yields the seconds that are left."""
        until = self._now() + seconds
        queue = self._queues.setdefault(key, _Queue())
        queue.length += 1
        try:
            try:
                async with asyncio.timeout(seconds):
                    await queue.turn.acquire()
            except TimeoutError as error:
                raise NotApplied(crowded(seconds)) from error
            try:
                yield max(0.0, until - self._now())
            finally:
                queue.turn.release()
        finally:
            queue.length -= 1
            if not queue.length:
                self._queues.pop(key, None)

    async def where(self, tag: Tag, seconds: float) -> Address:
        """Return the server that has a shard."""
        await self._look(self._now() + seconds)
        return self.places.of(tag)

    async def close(self) -> None:
        """Close every connection that is not in use; those in use are closed when they come back."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def connect(self, address: Address, left: float) -> Any:
        """Return a new connection to a server that may keep sessions."""
        kind, options = self.places.options(address, awaited=True)
        link = kind(**{**options, **waiting(left), "retry": Retry(NoBackoff(), 0)})
        try:
            await link.connect()
            if not self.places.is_sentinel(address):
                await link.send_packed_command(link.pack_commands(GREETING), check_health=False)
                greet([await read(link) for _ in GREETING], address, clustered=self.places.clustered)
            # from here on every round has a deadline of its own
            link.socket_timeout = None
        except BaseException:
            await link.disconnect(nowait=True)
            raise
        return link

    async def _look(self, until: float) -> None:
        """Find out where the primaries are, if we do not know or were told that we are wrong."""
        places, now = self.places, self._now()
        if places.known and not (places.wrong and now - self._looked_at > LOOK_EVERY):
            return
        self._looked_at = now
        try:
            await self._drive(places.find(), until, share=0.5)
        except StoreError:
            if not places.known:
                raise

    async def _drive(self, steps: Steps[T], until: float, share: float = 1.0) -> T:
        try:
            asks = next(steps)
            while True:
                now = self._now()
                asks = steps.send(await self._ask(asks, now + (until - now) * share))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _ask(self, asks: Sequence[Ask], until: float) -> Sequence[Answers]:
        trip = Trip(self.places, asks)
        for _ in range(HOPS):
            due = trip.due()
            if not due:
                break
            if len(due) == 1:
                for address, pieces in due.items():
                    await self._go(trip, address, pieces, until)
            else:
                async with asyncio.TaskGroup() as group:
                    for address, pieces in due.items():
                        group.create_task(self._go(trip, address, pieces, until))
        return trip.answers()

    async def _go(self, trip: Trip, address: Address, pieces: Sequence[Piece], until: float) -> None:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(self._size)
        link, sent, entered = None, False, False
        try:
            async with asyncio.timeout_at(until):
                await pool.places.acquire()
                entered = True
                link = pool.take() or await self.connect(address, max(0.001, until - self._now()))
                commands = commands_of(pieces)
                packed = link.pack_commands(commands)
                sent = True
                await _send(link, packed)
                answers = [await read(link) for _ in commands]
        except (exceptions.RedisError, StoreError, OSError) as error:
            await pool.spoil(link)
            if entered:
                trip.lost(pieces, error, sent=sent)
            else:
                trip.fail(pieces, faults.busy(address, self._size))
        except BaseException:
            await pool.spoil(link)
            raise
        else:
            await pool.give(link)
            trip.came(pieces, answers)
        finally:
            if entered:
                pool.places.release()


class _Queue:
    """Those who commit something about one subject."""

    def __init__(self) -> None:
        self.turn, self.length = asyncio.Lock(), 0


class _Pool:
    """The connections to one server."""

    def __init__(self, size: int) -> None:
        self._idle: list[Any] = []
        self.places = asyncio.Semaphore(size)
        self._closed = False

    def take(self) -> Any | None:
        return self._idle.pop() if self._idle else None

    async def give(self, link: Any) -> None:
        if self._closed:
            await link.disconnect(nowait=True)
        else:
            self._idle.append(link)

    async def spoil(self, link: Any | None) -> None:
        """Close a connection that failed, and all idle ones: they are as old, and likely as dead."""
        if link is not None:
            idle, self._idle = self._idle, []
            for one in (link, *idle):
                await one.disconnect(nowait=True)

    async def close(self) -> None:
        self._closed = True
        while (link := self.take()) is not None:
            await link.disconnect(nowait=True)


async def _send(link: Any, packed: Any) -> None:
    try:
        await link.send_packed_command(packed, check_health=False)
    except RuntimeError as error:  # uvloop's word for a connection that was closed meanwhile
        raise exceptions.ConnectionError(str(error)) from error


async def read(link: Any) -> Any:
    """Return the next answer; a refusal is an answer, too."""
    try:
        return await link.read_response()
    except exceptions.ResponseError as refusal:
        return refusal
