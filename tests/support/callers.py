"""A store of either face as threads call it: every call is a future, and cancelling it cancels the task behind it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from coatcheck.core.model import Change, Conflict, Handle, Record


class Caller:
    """A store of either face, called from any thread; an awaited one lives in an event loop of its own thread."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.awaited = inspect.iscoroutinefunction(store.load)
        self._pool = ThreadPoolExecutor(32)
        self.loop = asyncio.new_event_loop()
        if self.awaited:
            self._thread = threading.Thread(target=self.loop.run_forever, name="caller", daemon=True)
            self._thread.start()

    def start(self, verb: str, *given: Any, **named: Any) -> Future[Any]:
        """Begin a call; cancelling what is returned cancels the awaiting task."""
        act = getattr(self.store, verb)
        if self.awaited:
            return asyncio.run_coroutine_threadsafe(act(*given, **named), self.loop)
        return self._pool.submit(act, *given, **named)

    def load(self, handle: Handle) -> Record | None:
        return self.start("load", handle).result(30)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool = False) -> Conflict | None:
        conflict: Conflict | None = self.start("commit", commit_id, changes, durable=durable).result(30)
        return conflict

    def close(self) -> None:
        self.start("close").result(30)
        if self.awaited:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(10)
        self._pool.shutdown()
        self.loop.close()
