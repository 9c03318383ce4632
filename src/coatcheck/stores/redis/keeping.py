"""The keeper of a store: purges every half minute and forgets old events, in small batches; a thread or a task.

Rules
- Started with the first commit, gone with the store or its loop, unknown to a forked child.
- Of all keepers of all processes one has its turn; nothing breaks if two have it.
- What fails is logged and tried again next time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ...core.errors import StoreError
from .forks import remember
from .plan import FACTS_KEPT, NOISE_KEPT

if TYPE_CHECKING:
    from . import AsyncRedisStore, RedisStore

EVERY: Final = 30.0
FORGET_EVERY: Final = 3600.0
BATCH: Final = 100
PAUSE: Final = 0.02

_log: Final = logging.getLogger("coatcheck")


class Keeper:
    """Minds a blocking store in a thread of its own."""

    def __init__(self, store: RedisStore) -> None:
        """Start nothing yet."""
        self._store = weakref.ref(store)
        self.forget()
        remember(self)

    def forget(self) -> list[Any]:
        """Begin anew, in a forked child."""
        self._stopped, self._free = threading.Event(), threading.Semaphore(1)
        return []

    def start(self) -> None:
        """Start the thread, once."""
        if self._free.acquire(blocking=False):
            arguments = (self._store, self._stopped)
            threading.Thread(target=_keep, args=arguments, name="coatcheck-keeper", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end; a later start begins another."""
        self._stopped.set()
        self.forget()


def _keep(store_of: weakref.ref[RedisStore], stopped: threading.Event) -> None:
    forget_at = time.monotonic() + _jittered(FORGET_EVERY) / 10
    while not stopped.wait(_jittered(EVERY)):
        store = store_of()
        if store is None:
            return
        try:
            if store.turn(EVERY / 2):
                while store.purge(BATCH) and not stopped.wait(_jittered(PAUSE)):
                    pass
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + _jittered(FORGET_EVERY)
                    _forget(store, stopped)
        except StoreError as error:
            _log.warning("could not tidy the session store: %s", error)
        except Exception:  # noqa: BLE001 - a listener is the application's; the keeper must live on
            _log.exception("a listener of the session store failed")
        del store


async def keep(store_of: weakref.ref[AsyncRedisStore]) -> None:
    """Mind an awaited store in a task of its loop."""
    loop = asyncio.get_running_loop()
    forget_at = loop.time() + _jittered(FORGET_EVERY) / 10
    while True:
        await asyncio.sleep(_jittered(EVERY))
        store = store_of()
        if store is None:
            return
        try:
            if await store.turn(EVERY / 2):
                while await store.purge(BATCH):  # noqa: ASYNC110 - a pause between batches
                    await asyncio.sleep(_jittered(PAUSE))
                if loop.time() >= forget_at:
                    forget_at = loop.time() + _jittered(FORGET_EVERY)
                    await _forget_async(store)
        except StoreError as error:
            _log.warning("could not tidy the session store: %s", error)
        except Exception:  # noqa: BLE001 - a listener is the application's; the keeper must live on
            _log.exception("a listener of the session store failed")
        del store


def _forget(store: RedisStore, stopped: threading.Event) -> None:
    for kept, noise in _old():
        while store.forget_events(store.now() - kept, BATCH, noise=noise) and not stopped.wait(_jittered(PAUSE)):
            pass


async def _forget_async(store: AsyncRedisStore) -> None:
    for kept, noise in _old():
        while await store.forget_events(await store.now() - kept, BATCH, noise=noise):  # noqa: ASYNC110
            await asyncio.sleep(_jittered(PAUSE))


def _old() -> Iterator[tuple[float, bool]]:
    yield FACTS_KEPT, False
    yield NOISE_KEPT, True


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads workers, hides nothing
