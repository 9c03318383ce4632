"""What must not be bound to the event loop that used it first: an application may serve several (F12)."""

from __future__ import annotations

import asyncio


class Lock:
    """A lock for each event loop: asyncio's own serves the loop on which somebody first waited, and raises on others.

    A loop is forgotten with the last of those who hold the lock there, or wait for it.
    """

    def __init__(self) -> None:
        """Begin without a loop."""
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}

    async def __aenter__(self) -> None:
        """Wait for the others of this loop."""
        queue = self._queues.setdefault(asyncio.get_running_loop(), _Queue())
        queue.length += 1
        try:
            await queue.turn.acquire()
        except BaseException:
            self._leave(queue)
            raise

    async def __aexit__(self, *_: object) -> None:
        """Let the next one in."""
        queue = self._queues[asyncio.get_running_loop()]
        queue.turn.release()
        self._leave(queue)

    def _leave(self, queue: _Queue) -> None:
        queue.length -= 1
        if not queue.length:
            del self._queues[asyncio.get_running_loop()]


class _Queue:
    """Those of one loop."""

    def __init__(self) -> None:
        self.turn, self.length = asyncio.Lock(), 0
