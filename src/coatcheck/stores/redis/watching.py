"""Who is told when a record changes: one subscription a process (or loop), on a connection of its own.

Rules
- A notice is a hint, never the truth: who gets one looks at the record.
- After a new connection everybody is told None: something may have gone unheard.
- A connection that says nothing is asked for a sign of life.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from redis import exceptions

from ...core.errors import StoreError
from ...core.model import Handle
from .forks import remember
from .keys import COMMON
from .wire import Wire
from .wire_async import AsyncWire

Notice: TypeAlias = Callable[[Handle | None], None]

SILENCE: Final = 10.0
"""Seconds without a word until we ask for one; after as many again the connection counts as dead."""
_TICK: Final = 0.5
_CONNECT: Final = 2.0
_LONGEST_PAUSE: Final = 5.0
_FAILURES: Final = (exceptions.RedisError, StoreError, OSError)


class _Audience:
    """Those who are told, and what they are told."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.members: dict[object, Notice] = {}
        self._tries = 0
        self._connected = False

    def tell(self, handle: Handle | None) -> None:
        for notice in list(self.members.values()):
            notice(handle)

    def hear(self, answer: Any) -> bool:
        """Take a message; tell whether it says that we are subscribed."""
        if not isinstance(answer, list) or not answer:
            return False
        if answer[0] == b"message":
            self.tell(answer[2].decode(errors="replace"))
        elif answer[0] == b"subscribe":
            again, self._connected, self._tries = self._connected, True, 0
            if again:
                self.tell(None)
            return True
        return False

    def pause(self) -> float:
        self._tries += 1
        return random.uniform(0, min(_LONGEST_PAUSE, 0.05 * 2.0**self._tries))  # noqa: S311 - jitter, no secret


class Watch:
    """The subscription of a blocking store, in a thread that lives while somebody listens."""

    def __init__(self, wire: Wire, channel: str) -> None:
        """Listen to nothing yet."""
        self._wire, self._channel = wire, channel
        self.forget()
        remember(self)

    def forget(self) -> list[Any]:
        """Begin anew, in a forked child."""
        old = getattr(self, "_link", None)
        self._audience = _Audience(self._channel)
        self._gate, self._ready = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._link: Any = None
        return [old]

    def add(self, notice: Notice, seconds: float) -> Callable[[], None]:
        """Tell somebody from now on; return what ends that."""
        member, begun = object(), None
        with self._gate:
            self._audience.members[member] = notice
            if self._thread is None:
                self._ready = threading.Event()
                begun = self._thread = threading.Thread(target=self._listen, name="coatcheck-watch", daemon=True)
        if begun is not None:
            begun.start()  # not within the gate: where greenlets stand for threads, it runs at once
        if not self._ready.wait(seconds):
            self._remove(member)
            message = f"the session store accepted no subscription within {seconds:g} s; check that it is up"
            raise StoreError(message)
        return lambda: self._remove(member)

    def close(self) -> None:
        """Tell nobody any more."""
        self._audience.members.clear()

    def _remove(self, member: object) -> None:
        self._audience.members.pop(member, None)

    def _listen(self) -> None:
        while not self._idle():
            link = None
            try:
                link = self._link = self._wire.connect(self._wire.where(COMMON, _CONNECT), time.monotonic() + _CONNECT)
                link.send_packed_command(link.pack_command("SUBSCRIBE", self._channel), check_health=False)
                self._follow(link)
            except _FAILURES:
                self._wire.places.wrong = True
                time.sleep(self._audience.pause())
            finally:
                self._link = None
                if link is not None:
                    link.disconnect()

    def _follow(self, link: Any) -> None:
        """Pass on what is said, until nobody listens any more or the connection fails."""
        heard_at, asked = time.monotonic(), False
        while self._audience.members:
            if link.can_read(timeout=_TICK):
                if self._audience.hear(link.read_response()):
                    self._ready.set()
                heard_at, asked = time.monotonic(), False
            elif time.monotonic() - heard_at > SILENCE:
                if asked:
                    raise exceptions.TimeoutError
                link.send_packed_command(link.pack_command("PING"), check_health=False)
                heard_at, asked = time.monotonic(), True

    def _idle(self) -> bool:
        """Tell whether nobody listens; then the thread ends, and the next listener starts another."""
        with self._gate:
            if self._audience.members:
                return False
            self._thread = None
            return True


class AsyncWatch:
    """The subscription of an awaited store, in a task of its loop that lives while somebody listens."""

    def __init__(self, wire: AsyncWire, channel: str) -> None:
        """Listen to nothing yet."""
        self._wire, self._audience = wire, _Audience(channel)
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, notice: Notice, seconds: float) -> Callable[[], None]:
        """Tell somebody from now on; return what ends that."""
        member = object()
        self._audience.members[member] = notice
        if self._task is None or self._task.done():
            self._ready = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._listen())
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except BaseException as error:
            self._remove(member)
            if not isinstance(error, TimeoutError):
                raise
            message = f"the session store accepted no subscription within {seconds:g} s; check that it is up"
            raise StoreError(message) from error
        return lambda: self._remove(member)

    async def close(self) -> None:
        """Tell nobody any more."""
        self._audience.members.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _remove(self, member: object) -> None:
        self._audience.members.pop(member, None)

    async def _listen(self) -> None:
        while self._audience.members:
            link = None
            try:
                link = await self._wire.connect(await self._wire.where(COMMON, _CONNECT), _CONNECT)
                await link.send_packed_command(
                    link.pack_command("SUBSCRIBE", self._audience.channel), check_health=False
                )
                await self._follow(link)
            except _FAILURES:
                self._wire.places.wrong = True
                await asyncio.sleep(self._audience.pause())
            finally:
                if link is not None:
                    await link.disconnect(nowait=True)

    async def _follow(self, link: Any) -> None:
        """Pass on what is said, until nobody listens any more or the connection fails."""
        loop = asyncio.get_running_loop()
        heard_at, asked = loop.time(), False
        while self._audience.members:
            # None: nothing came within the tick (so redis-py says it)
            answer = await link.read_response(timeout=_TICK)
            if answer is not None:
                if self._audience.hear(answer):
                    self._ready.set()
                heard_at, asked = loop.time(), False
            elif loop.time() - heard_at > SILENCE:
                if asked:
                    raise exceptions.TimeoutError
                await link.send_packed_command(link.pack_command("PING"), check_health=False)
                heard_at, asked = loop.time(), True
