"""A store as its keeper sees it: of the keepers of all processes, one at a time purges.

On a Cluster a purge looks into thousands of shards; a hundred workers need not do that each. Nothing breaks if two do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ...core.model import Epochs, Instant
    from . import AsyncRedisStore, RedisStore

EVERY: Final = 30.0


class Turns:
    """Tidies a blocking store when it is this process's turn."""

    def __init__(self, store: RedisStore) -> None:
        """Mind one store."""
        self._store, self._mine = store, False

    def purge(self, limit: int) -> int:
        """Purge a batch, unless others have their turn."""
        self._mine = self._mine or self._store.turn(EVERY / 2)
        done = self._store.purge(limit) if self._mine else 0
        self._mine = done > 0
        return done

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return self._store.epochs()

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete old events."""
        return self._store.forget_events(before, limit, noise=noise)


class AsyncTurns:
    """Tidies an awaited store when it is this process's turn."""

    def __init__(self, store: AsyncRedisStore) -> None:
        """Mind one store."""
        self._store, self._mine = store, False

    async def purge(self, limit: int) -> int:
        """Purge a batch, unless others have their turn."""
        self._mine = self._mine or await self._store.turn(EVERY / 2)
        done = await self._store.purge(limit) if self._mine else 0
        self._mine = done > 0
        return done

    async def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return await self._store.epochs()

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete old events."""
        return await self._store.forget_events(before, limit, noise=noise)
