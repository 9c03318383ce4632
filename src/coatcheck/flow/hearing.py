"""Tells the application what happened: every fact that this process stored, one after the other, beside the requests.

Rules
- A hook never takes a request's time. A plain function is called in a thread of its own; a coroutine function is
  awaited on the event loop that stored the event (or that stored one before), and in that thread where there is none.
- Nothing that a hook does reaches a request: what it raises is logged.
- At most MOST_WAITING events wait for a slow hook; those beyond are dropped, and that is said. The store has them all.
- Noise is not told: anybody could have the hook called by it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from ..core.model import Event
from .journal import logger

Hook: TypeAlias = Callable[[Event], Any]

MOST_WAITING: Final = 1024
_REST: Final = 5.0
"""Seconds without an event after which the thread goes; the next event starts another."""


def listen(listeners: list[Callable[[Sequence[Event]], None]], hook: Hook | None, realm: str) -> None:
    """Have a hook hear the facts of a realm from a store's listeners; once, however often it is asked for."""
    if hook is None or any(isinstance(one, Hearing) and one.is_for(hook, realm) for one in listeners):
        return
    listeners.append(Hearing(hook, realm))


class Hearing:
    """A listener of a store that passes on what happened, to one hook, in order."""

    def __init__(self, hook: Hook, realm: str) -> None:
        """Take what is called, and whose events it hears; starts nothing."""
        self._hook, self._realm = hook, realm
        self._awaited = any(map(inspect.iscoroutinefunction, (hook, type(hook).__call__)))
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._waiting: deque[Event] = deque()
        self._guard = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0

    def is_for(self, hook: Hook, realm: str) -> bool:
        """Tell whether it is this hook's, for this realm."""
        return self._hook == hook and self._realm == realm

    def __call__(self, events: Sequence[Event]) -> None:
        """Take note of what a commit wrote; return at once."""
        told = [event for event in events if not event.noise and event.realm in (self._realm, "")]
        if not told:
            return
        if os.getpid() != self._process:
            self._begin()  # a fork took the events along, but not the thread
        for event in told:
            if len(self._waiting) >= MOST_WAITING:
                self._drop()
            else:
                self._waiting.append(event)
        if not (self._awaited and self._on_loop()):
            self._in_thread()

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            logger.warning("on_event is too slow: %d events were not told to it", self._dropped)

    # -- on an event loop --------------------------------------------------------------------------------------------

    def _on_loop(self) -> bool:
        """Have the events told on the application's event loop; False: there is none."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._on_earlier_loop()
        if self._loop is not loop or self._task is None or self._task.done():
            self._loop = loop
            self._task = loop.create_task(self._tell_awaited())
        return True

    def _on_earlier_loop(self) -> bool:
        """Do so from a thread, on the loop that stored an event before."""
        loop = self._loop
        if loop is None or not loop.is_running():
            return False
        try:
            loop.call_soon_threadsafe(self._on_loop)
        except RuntimeError:  # it was closed just now
            return False
        return True

    async def _tell_awaited(self) -> None:
        while (event := self._next()) is not None:
            await self._heard(event)

    async def _heard(self, event: Event) -> None:
        try:
            await self._hook(event)
        except Exception:  # noqa: BLE001 - it is the application's; the other events must be told
            logger.exception("on_event failed for %s", event.name)

    def _next(self) -> Event | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    # -- in a thread -------------------------------------------------------------------------------------------------

    def _in_thread(self) -> None:
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._tell, name="coatcheck-on-event", daemon=True)
                self._thread.start()
            self._guard.notify()

    def _tell(self) -> None:
        while True:
            event = self._next()
            if event is not None:
                self._told(event)
                continue
            with self._guard:
                if not self._waiting and not self._guard.wait(_REST) and not self._waiting:
                    self._thread = None
                    return

    def _told(self, event: Event) -> None:
        if self._awaited:
            asyncio.run(self._heard(event))
            return
        try:
            answer = self._hook(event)
        except Exception:  # noqa: BLE001 - it is the application's; the other events must be told
            logger.exception("on_event failed for %s", event.name)
            return
        if isinstance(answer, Awaitable):  # a function that returns a coroutine
            asyncio.run(_waited(answer))


async def _waited(answer: Awaitable[Any]) -> None:
    try:
        await answer
    except Exception:  # noqa: BLE001 - as above
        logger.exception("on_event failed")
