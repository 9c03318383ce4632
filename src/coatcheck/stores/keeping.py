"""The keeper of a store on a server: purges in small batches and forgets old events, while the store is in use.

Rules
- It asks the store itself, by the verbs that anyone may use, so it serves every store. Any number of them may share a
  server: each batch is short, and skips what another one holds.
- `Keeper` is a daemon thread for a blocking store; `AsyncKeeper` lives on one event loop, as a timer between two rounds
  and as a task during one. Neither keeps its store alive, and a forked child has none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
import weakref
from typing import Any, Final

from ..core.errors import StoreError

PURGE_EVERY: Final = 30.0
FORGET_EVERY: Final = 3600.0
ROWS: Final = 100
PAUSE: Final = 0.02
FACTS_KEPT: Final = 400 * 86400.0
NOISE_KEPT: Final = 30 * 86400.0
PATIENCE: Final = 2.0

_KEPT: Final = ((FACTS_KEPT, False), (NOISE_KEPT, True))

_log: Final = logging.getLogger("coatcheck")


class Keeper:
    """One thread that tidies a blocking store."""

    def __init__(self, store: Any, every: float = PURGE_EVERY) -> None:
        """Start at once; the first round comes later."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=_tidy, args=(weakref.ref(store), self._stopped, every), name="coatcheck-keeper", daemon=True
        )
        weakref.finalize(store, self._stopped.set)
        self._thread.start()

    def stop(self) -> None:
        """End, after the batch at hand."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)


def _tidy(store_of: weakref.ref[Any], stopped: threading.Event, every: float) -> None:
    hourly = _Hourly()
    while not stopped.wait(jittered(every)):
        store = store_of()
        if store is None:
            return
        try:
            _round(store, stopped, hourly)
        except StoreError as error:
            _log.warning("could not tidy the session store: %s", error)
        except Exception:  # noqa: BLE001 - a listener is the application's; the keeper must live on
            _log.exception("a listener of the session store failed")
        del store


def _round(store: Any, stopped: threading.Event, hourly: _Hourly) -> None:
    while store.purge(ROWS):
        if stopped.wait(jittered(PAUSE)):
            return
    if hourly.due():
        now = store.epochs().store_now
        for kept, noise in _KEPT:
            while store.forget_events(now - kept, ROWS, noise=noise):
                if stopped.wait(jittered(PAUSE)):
                    return


class AsyncKeeper:
    """Tidies an awaited store on the running event loop."""

    def __init__(self, store: Any, every: float = PURGE_EVERY) -> None:
        """Set the timer of the first round."""
        self._store, self._every, self._hourly = weakref.ref(store), every, _Hourly()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(jittered(every), _wake, weakref.ref(self))

    async def stop(self) -> None:
        """End, in the middle of a round too: a batch is all or nothing."""
        self._timer.cancel()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    def begin(self) -> None:
        """Begin a round."""
        self._task = self._loop.create_task(self._go())

    async def _go(self) -> None:
        store = self._store()
        if store is None:
            return
        try:
            await self._round(store)
        except StoreError as error:
            _log.warning("could not tidy the session store: %s", error)
        except Exception:  # noqa: BLE001 - a listener is the application's; the keeper must live on
            _log.exception("a listener of the session store failed")
        self._timer = self._loop.call_later(jittered(self._every), _wake, weakref.ref(self))

    async def _round(self, store: Any) -> None:
        while await store.purge(ROWS):  # noqa: ASYNC110 - that is no condition to be told of
            await asyncio.sleep(jittered(PAUSE))
        if self._hourly.due():
            now = (await store.epochs()).store_now
            for kept, noise in _KEPT:
                while await store.forget_events(now - kept, ROWS, noise=noise):  # noqa: ASYNC110 - neither is that
                    await asyncio.sleep(jittered(PAUSE))


def _wake(keeper_of: weakref.ref[Any]) -> None:
    keeper = keeper_of()
    if keeper is not None:
        keeper.begin()


class _Hourly:
    """Remembers when events were last forgotten."""

    def __init__(self) -> None:
        self._at = time.monotonic() + jittered(FORGET_EVERY) / 10

    def due(self) -> bool:
        if time.monotonic() < self._at:
            return False
        self._at = time.monotonic() + jittered(FORGET_EVERY)
        return True


def jittered(seconds: float) -> float:
    """Return about so many seconds: workers that started together shall not work together."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads workers, hides nothing
