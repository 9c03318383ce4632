"""Sessions for Python web applications: you hand over a coat and get a ticket; the counter decides if it counts."""

from typing import TYPE_CHECKING, Any

from .core.breaker import Breaker
from .core.dbsc import DeviceBinding
from .core.errors import CoatcheckError, ConfigError, DataError, Refusal, SettledError, StoreError
from .core.floods import Floods
from .core.manager import SessionManager
from .core.model import Event, Level, Record
from .core.policies import Action, Policy, SessionLimit, Timeouts, Verdict, timeouts
from .core.presets import preset
from .core.providers import Provider
from .core.sealed import Sealed
from .core.session import Session, Typed
from .core.stepup import AskAgain, GoTo
from .core.visit import ALL
from .flow import given
from .flow.registry import Registry
from .stores.memory import MemoryStore
from .stores.urls import open_async_store, open_store

if TYPE_CHECKING:
    from .core.keyring import Key, Keyring
    from .flow.async_registry import AsyncRegistry
    from .stores.near import near

__all__ = [
    "ALL",
    "Action",
    "AskAgain",
    "AsyncRegistry",
    "Breaker",
    "CoatcheckError",
    "ConfigError",
    "DataError",
    "DeviceBinding",
    "Event",
    "Floods",
    "GoTo",
    "Key",
    "Keyring",
    "Level",
    "MemoryStore",
    "Policy",
    "Provider",
    "Record",
    "Refusal",
    "Registry",
    "Sealed",
    "Session",
    "SessionLimit",
    "SessionManager",
    "SettledError",
    "StoreError",
    "Timeouts",
    "Typed",
    "Verdict",
    "near",
    "open_async_store",
    "open_store",
    "preset",
    "timeouts",
]

given.learn(open_store, open_async_store)


def __getattr__(name: str) -> Any:
    """Import what few need only when it is asked for; what stands on asyncio is a third of the cost of the rest."""
    if name == "AsyncRegistry":
        from .flow.async_registry import AsyncRegistry

        return AsyncRegistry
    if name == "near":
        from .stores.near import near

        return near
    if name in ("Key", "Keyring"):
        from .core import keyring

        return getattr(keyring, name)
    message = f"module 'coatcheck' has no attribute {name!r}"
    raise AttributeError(message)
