"""Sessions for Python web applications: you hand over a coat and get a ticket; the counter decides if it still counts."""

from .core.errors import CoatcheckError, ConfigError, DataError, Refusal, SettledError, StoreError
from .core.manager import SessionManager
from .core.model import Event, Level, Record
from .core.policies import Action, Policy, SessionLimit, Timeouts, Verdict, timeouts
from .core.session import ALL, Session, Typed
from .flow.async_ import AsyncRegistry
from .flow.sync import Registry
from .stores.memory import MemoryStore
from .stores.urls import open_async_store, open_store

__all__ = [
    "ALL",
    "Action",
    "AsyncRegistry",
    "CoatcheckError",
    "ConfigError",
    "DataError",
    "Event",
    "Level",
    "MemoryStore",
    "Policy",
    "Record",
    "Refusal",
    "Registry",
    "Session",
    "SessionLimit",
    "SessionManager",
    "SettledError",
    "StoreError",
    "Timeouts",
    "Typed",
    "Verdict",
    "open_async_store",
    "open_store",
    "timeouts",
]
