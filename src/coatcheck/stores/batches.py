"""Loads of concurrent requests as one question: a batcher, for one event loop, that knows no driver.

Rules
- What is asked for in one turn of the loop travels together: at most SIZE handles a batch, FLIGHTS batches at a time.
- A batch runs in a task of its own that no caller can cancel. Each caller has his own deadline, counted from his call.
- Results settle one by one: what cannot be decoded fails who asked for it, and nobody else.
- A load never joins a batch that was sent before it was asked for: it would miss what was committed in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from ..core.errors import StoreError
from ..core.model import Handle

T = TypeVar("T")

SIZE: Final = 128
FLIGHTS: Final = 2


class Batcher(Generic[T]):
    """Collects the loads of the running event loop; build it there, and one for each loop.

    `fetch` is given different handles and returns one result for each, in their order: the value, or the StoreError
    that is this one's own. Whatever it raises befalls the whole batch. It is cancelled when the batch takes longer than
    `within` seconds: it must then close its connection, since an answer may still be under way on it.
    """

    def __init__(self, fetch: Callable[[list[Handle]], Awaitable[Sequence[T | StoreError]]], within: float) -> None:
        """Begin idle."""
        self._fetch, self._within = fetch, within
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Handle, list[asyncio.Future[T]]] = {}
        self._due: deque[tuple[float, asyncio.Future[T]]] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._called = False

    def load(self, handle: Handle) -> asyncio.Future[T]:
        """Return the future result; raises (when awaited) StoreError if it does not come in time."""
        loop = self._loop
        future: asyncio.Future[T] = loop.create_future()
        asking = self._waiting.get(handle)
        if asking is None:
            self._waiting[handle] = [future]
            if not self._called and len(self._flights) < FLIGHTS:
                self._called = True
                loop.call_soon(self._depart)
        else:
            asking.append(future)
        until = loop.time() + self._within
        self._due.append((until, future))
        if self._timer is None:
            self._timer = loop.call_at(until, self._expire)
        return future

    def close(self) -> None:
        """Let nobody wait any longer."""
        for flight in self._flights:
            flight.cancel()
        for _, future in self._due:
            if not future.done():
                future.set_exception(StoreError("the session store was closed while it was asked"))
        self._waiting.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _depart(self) -> None:
        self._called = False
        while self._waiting and len(self._flights) < FLIGHTS:
            flight = self._loop.create_task(self._fly(self._boarded()))
            self._flights.add(flight)
            flight.add_done_callback(self._land)

    def _boarded(self) -> dict[Handle, list[asyncio.Future[T]]]:
        """Take the longest waiting from the queue."""
        waiting = self._waiting
        if len(waiting) <= SIZE:
            self._waiting = {}
            return waiting
        first = list(waiting)[:SIZE]
        return {handle: waiting.pop(handle) for handle in first}

    async def _fly(self, batch: dict[Handle, list[asyncio.Future[T]]]) -> None:
        handles = [handle for handle, futures in batch.items() if not all(future.done() for future in futures)]
        if not handles:
            return
        try:
            async with asyncio.timeout(self._within):
                results = await self._fetch(handles)
        except BaseException as error:
            for handle in handles:
                _fail(batch[handle], _named(error, self._within))
            if not isinstance(error, Exception):
                raise
            return
        for handle, result in zip(handles, results, strict=True):
            if isinstance(result, StoreError):
                _fail(batch[handle], result)
            else:
                for future in batch[handle]:
                    if not future.done():
                        future.set_result(result)

    def _land(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._loop.call_exception_handler({"message": "a batch of session loads failed", "exception": error})
        self._depart()

    def _expire(self) -> None:
        """Fail who has waited for too long; then wait for the next one who might."""
        self._timer = None
        now, due = self._loop.time(), self._due
        while due and (due[0][1].done() or due[0][0] <= now):
            _fail([due.popleft()[1]], _late(self._within))
        if due:
            self._timer = self._loop.call_at(due[0][0], self._expire)


def _fail(futures: Sequence[asyncio.Future[T]], error: StoreError) -> None:
    for future in futures:
        if not future.done():
            # Each caller raises an error of his own: a shared one would collect everybody's traceback.
            own = type(error)(*error.args)
            own.__cause__ = error.__cause__
            future.set_exception(own)


def _named(error: BaseException, within: float) -> StoreError:
    if isinstance(error, StoreError):
        return error
    if isinstance(error, TimeoutError):
        return _late(within)
    failed = StoreError(f"the session store could not be asked ({error!r})")
    failed.__cause__ = error
    return failed


def _late(within: float) -> StoreError:
    return StoreError(
        f"the session store did not answer within {within:g} s; check that it is up, or raise load_deadline"
    )
