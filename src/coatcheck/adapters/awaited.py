"""What the sessions of an application stand on where requests are awaited: one for every such adapter to inherit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from ..core.manager import SessionManager, manager_of
from ..core.settings import Keywords
from ..flow.async_ import AsyncExchange
from ..flow.async_registry import AsyncRegistry
from ..flow.async_store import AsyncStore
from ..stores.faces import async_keys_of, async_store_of
from .watching import Watching

if TYPE_CHECKING:
    from ..flow.async_keys import AsyncKeys

ENDED_CODE = 4401
"""The close code of a websocket whose session ended."""


class Awaited:
    """A manager and a store, joined: the exchange, the registry, and the watch over open connections."""

    def __init__(
        self,
        *,
        store: str | AsyncStore | Any | None = None,
        manager: SessionManager | None = None,
        watch_every: float = 0.5,
        watch_recheck: float = 30.0,
        keys: AsyncKeys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Take a store, as a URL ("sqlite:///sessions.db") or async, or None, which is for sealed tokens alone.

        `settings` are those of `Settings`, or `manager` brings them. `keys`: where the sealed tokens' keyring is kept
        in a store, so that it follows rotations. An open websocket or event stream looks at its session when the store
        tells of a change, and every `watch_recheck` seconds; where the store cannot tell, every `watch_every` seconds.
        Raises ConfigError for what is unsafe; opens nothing.
        """
        self.manager = manager_of(manager, settings)
        self.store = async_store_of(store, self.manager.now)
        self.exchange = AsyncExchange(self.manager, self.store, keys=async_keys_of(keys))
        self.registry = AsyncRegistry(self.store, self.manager.realm, self.manager.now)
        self.watching = Watching(self.exchange, watch_every, watch_recheck)
        self.name = self.manager.cookie.name
        self._owns = isinstance(store, str)
        self._excludes = self.manager.excludes if self.manager.settings.exclude else None

    async def shut(self, _app: object = None) -> None:
        """Write what is still to be written, and close a store that was given as a URL: the application goes."""
        await self.exchange.flush()
        if self._owns:
            await self.store.close()
