"""Stores by URL: the one place that knows every store by its scheme, and imports it only when it is asked for.

memory:                              in this process only
sqlite:///sessions.db                a path relative to the working directory
sqlite:////var/lib/app/sessions.db   an absolute path
sqlite:///sessions.db?synchronous=full
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from .memory import AsyncMemoryStore, MemoryStore
    from .sqlite import AsyncSqliteStore, SqliteStore

_KNOWN: Final = "'memory:' and 'sqlite:///path/to/sessions.db'"


def open_store(url: str) -> MemoryStore | SqliteStore:
    """Return the blocking store that a URL names; nothing is opened before its first use."""
    scheme, path, synchronous = _parsed(url)
    if scheme == "memory":
        from .memory import MemoryStore

        return MemoryStore()
    from .sqlite import SqliteStore

    return SqliteStore(path, synchronous=synchronous)


def open_async_store(url: str) -> AsyncMemoryStore | AsyncSqliteStore:
    """Return the awaited store that a URL names; nothing is opened before its first use."""
    return open_store(url).as_async()


def file_of(url: str) -> Path | None:
    """Return the file that a URL names, or None: this store is in none."""
    scheme, path, _ = _parsed(url)
    return Path(path) if scheme == "sqlite" else None


def _parsed(url: str) -> tuple[str, str, Literal["normal", "full"]]:
    parts = urlsplit(url)
    if parts.scheme == "memory":
        if url.rstrip("/") != "memory:":
            message = f"a memory store has no name and no options (found {url!r}); write 'memory:'"
            raise ConfigError(message)
        return "memory", "", "normal"
    if parts.scheme != "sqlite":
        shown = parts.scheme or url
        message = f"no store is known for {shown!r}; this version knows {_KNOWN}, use one of them"
        raise ConfigError(message)
    path = unquote(parts.path[1:])
    if parts.netloc or not path or parts.fragment:
        message = f"sqlite URLs have three slashes and a path, or four for an absolute one; write {_KNOWN}"
        raise ConfigError(message)
    return "sqlite", path, _synchronous(parts.query)


def _synchronous(query: str) -> Literal["normal", "full"]:
    options = parse_qsl(query, keep_blank_values=True)
    if options in ([], [("synchronous", "normal")]):
        return "normal"
    if options == [("synchronous", "full")]:
        return "full"
    message = f"sqlite URLs know one option, ?synchronous=full or normal (found {query!r}); remove the rest"
    raise ConfigError(message)
