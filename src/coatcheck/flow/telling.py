"""Who is told of what was committed: the listeners, each in a thread of its own, never on a request's time.

Rules
- Told is what the store has committed, by this process, in this realm: once, in the order of the commits; and what
  no store could keep, since it is about its own failure or a fault of ours (flow/troubles.py).
- A listener that is slow, or fails, keeps nobody waiting: not the request, not the other listeners.
- What waits for a listener is bounded; what comes on top of that is lost, counted and said. The audit trail in the
  store is what is complete; a listener is how people hear of it soon.
- A coroutine runs on the application's event loop, if there is one: so it may use the application's own pools.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, TypeAlias
from weakref import WeakSet

from ..core.manager import SessionManager
from ..core.model import Event
from .journal import logger

Listener: TypeAlias = Callable[[Event], Any]

MOST_WAITING = 1000
"""Events that wait for one listener; what comes then is lost."""
MOST_SECONDS = 30.0
"""Seconds that a coroutine may take for one event."""
IDLE = 10.0
"""Seconds without an event after which a listener's thread ends."""
FAREWELL = 2.0
"""Seconds that listeners get for what still waits when the process ends."""
SAID_EVERY = 60.0


class Telling:
    """The listeners of one application on one store."""

    def __init__(self, realm: str, listeners: Sequence[Listener]) -> None:
        """Take whose events, and who hears them; starts nothing."""
        self.realm = realm
        self.posts = [Post(listener) for listener in listeners]

    def __call__(self, events: Sequence[Event]) -> None:
        """Hear what a commit wrote: called by the store, in whatever thread committed."""
        for event in events:
            if event.realm in (self.realm, ""):
                for post in self.posts:
                    post.put(event)

    def here(self) -> None:
        """Take note of the event loop that this runs in, if it does: there, coroutines are awaited."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        for post in self.posts:
            post.loop = loop

    def is_for(self, manager: SessionManager) -> bool:
        """Tell whether it tells the same listeners of the same realm."""
        listeners = [post.listener for post in self.posts]
        return self.realm == manager.realm and listeners == list(manager.settings.on_event)

    def drained(self, seconds: float) -> bool:
        """Wait until everything was told, at most so long; return whether it was."""
        until = monotonic() + seconds
        return all(post.drained(until) for post in self.posts)


def telling_of(manager: SessionManager, store: Any) -> Telling | None:
    """Return what tells this application's listeners of the store's commits; None: there are no listeners."""
    listeners = manager.settings.on_event
    if not listeners:
        return None
    for there in store.listeners:
        if isinstance(there, Telling) and there.is_for(manager):
            return there
    telling = Telling(manager.realm, listeners)
    store.listeners.append(telling)
    return telling


class Post:
    """What waits for one listener, and the thread that hands it over, event by event."""

    def __init__(self, listener: Listener) -> None:
        """Start nothing: the thread begins with the first event, in whatever process that is (servers fork)."""
        self.listener = listener
        self.loop: asyncio.AbstractEventLoop | None = None
        self.lost = 0
        self._said_at = float("-inf")
        self.forget()
        _POSTS.add(self)

    def forget(self) -> None:
        """Begin anew, in a forked child: what waits is its parent's to tell."""
        self._queue: queue.Queue[Event] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, event: Event) -> None:
        """Have an event told, or lose it; never waits."""
        begun = None
        with self._lock:
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                self._lose(event)
            if self._thread is None:
                begun = threading.Thread(target=self._run, name=f"coatcheck: {self.name}", daemon=True)
                self._thread = begun
        if begun is not None:
            begun.start()  # not within the lock: where greenlets stand for threads, it runs at once

    @property
    def name(self) -> str:
        """What the logs call the listener."""
        return getattr(self.listener, "__qualname__", type(self.listener).__qualname__)

    def drained(self, until: float) -> bool:
        """Wait until everything was told, at most until a moment of the monotonic clock."""
        waiting = self._queue
        with waiting.all_tasks_done:
            while waiting.unfinished_tasks and (rest := until - monotonic()) > 0:
                waiting.all_tasks_done.wait(rest)
            return not waiting.unfinished_tasks

    def _lose(self, event: Event) -> None:
        self.lost += 1
        now = monotonic()
        if now - self._said_at >= SAID_EVERY:
            self._said_at = now
            logger.error(
                "on_event: %d events wait for %s, more are lost (%s is; %d so far); they are all in the store",
                *(MOST_WAITING, self.name, event.name, self.lost),
            )

    def _run(self) -> None:
        while True:
            try:
                event = self._queue.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            try:
                self._tell(event)
            except BaseException:  # it ends this thread; the next event begins another
                with self._lock:
                    self._thread = None
                raise
            finally:
                self._queue.task_done()

    def _tell(self, event: Event) -> None:
        try:
            told = self.listener(event)
            if inspect.isawaitable(told):
                self._await(told)
        except Exception:  # noqa: BLE001 - whatever it is: the next event must be told
            logger.exception("on_event: %s failed at %s", self.name, event.name)

    def _await(self, told: Any) -> None:
        waiting: Coroutine[Any, Any, Any] = asyncio.wait_for(told, MOST_SECONDS)
        loop = self.loop
        if loop is not None and loop.is_running():
            asyncio.run_coroutine_threadsafe(waiting, loop).result(MOST_SECONDS + 1)
        else:
            asyncio.run(waiting)


_POSTS: WeakSet[Post] = WeakSet()


@atexit.register
def _farewell() -> None:
    until = monotonic() + FAREWELL
    for post in list(_POSTS):
        post.drained(until)


def _after_fork_in_child() -> None:
    for post in list(_POSTS):
        post.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
