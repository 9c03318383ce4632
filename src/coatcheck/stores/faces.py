"""What an application may hand in as its store: a URL, a store of the right face, or a local store of the other one.

Keys that are kept in a store have the same two faces.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any, cast

from ..core.errors import ConfigError
from .nowhere import AsyncNoStore, NoStore
from .urls import open_async_store, open_store


def store_of(given: Any, clock: Callable[[], float] = time.time) -> Any:
    """Return the blocking store that is meant; raise ConfigError for an async one.

    None is for sealed tokens alone; `clock` is the application's.
    """
    if given is None:
        return NoStore(clock)
    if isinstance(given, str):
        return open_store(given)
    if not hasattr(given, "commit"):
        raise ConfigError(_strange(given))
    if inspect.iscoroutinefunction(given.commit):
        name = type(given).__name__
        message = f"{name} needs an async adapter; here use {name.removeprefix('Async')}, or give its URL"
        raise ConfigError(message)
    return given


def async_store_of(given: Any, clock: Callable[[], float] = time.time) -> Any:
    """Return the awaited store that is meant; a local store has both faces and gives its other one."""
    if given is None:
        return AsyncNoStore(clock)
    if isinstance(given, str):
        return open_async_store(given)
    if not hasattr(given, "commit"):
        raise ConfigError(_strange(given))
    if inspect.iscoroutinefunction(given.commit):
        return given
    if hasattr(given, "as_async"):
        return cast("Any", given).as_async()
    name = type(given).__name__
    message = f"{name} would block the event loop; here use Async{name}, or give its URL"
    raise ConfigError(message)


def keys_of(given: Any) -> Any:
    """Return the blocking keys that are meant, or None; raise ConfigError for awaited ones."""
    if given is not None and inspect.iscoroutinefunction(given.look):
        message = "AsyncKeys needs an async adapter; here use Keys, with the blocking store"
        raise ConfigError(message)
    return given


def async_keys_of(given: Any) -> Any:
    """Return the awaited keys that are meant, or None; raise ConfigError for blocking ones."""
    if given is not None and not inspect.iscoroutinefunction(given.look):
        message = "Keys would block the event loop; here use AsyncKeys, with the awaited store"
        raise ConfigError(message)
    return given


def _strange(given: Any) -> str:
    return f"store is a URL such as 'sqlite:///sessions.db' or a store (found {type(given).__name__})"
