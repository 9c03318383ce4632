"""Stores by URL: the one place that knows every store by its scheme, and imports it only when it is asked for.

memory:                                              in this process only
sqlite:///sessions.db                                a path relative to the working directory
sqlite:////var/lib/app/sessions.db                   an absolute path
postgresql://user:password@host:5432/database        as libpq knows it, with its options
mysql://user:password@host:3306/database             MySQL and MariaDB
redis://user:password@host:6379/0                    Redis and Valkey; rediss:// with TLS
redis+sentinel://host:26379,host:26379/primary       whoever the Sentinels name
redis+cluster://host:6379,host:6379                  a Cluster
moving+<any of these>?from=<another, percent-encoded>  both, while sessions move (docs/moving.md)

Options of ours follow a question mark, among those of the driver: `prefix`, `load_deadline`, `commit_deadline` and
`pool_size` for every server; `schema` (PostgreSQL); `migrate=no` (PostgreSQL, MySQL); `wait_replicas` (Redis);
`synchronous=full` (SQLite).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from .memory import AsyncMemoryStore, MemoryStore
    from .moving import AsyncDualStore, DualStore
    from .mysql import AsyncMySqlStore, MySqlStore
    from .postgres import AsyncPostgresStore, PostgresStore
    from .redis import AsyncRedisStore, RedisStore
    from .sqlite import AsyncSqliteStore, SqliteStore

    BlockingStore: TypeAlias = MemoryStore | SqliteStore | PostgresStore | MySqlStore | RedisStore | DualStore
    AwaitedStore: TypeAlias = (
        AsyncMemoryStore | AsyncSqliteStore | AsyncPostgresStore | AsyncMySqlStore | AsyncRedisStore | AsyncDualStore
    )

MOVING: Final = "moving+"


def open_store(url: str, *, create: bool = True) -> BlockingStore:
    """Return the blocking store that a URL names; nothing is opened before its first use.

    `create=False`: the tables of a SQL database must be there already. Raises ConfigError for a URL that is not
    understood, and where the driver of the store is not installed.
    """
    store: BlockingStore = _opened(url, awaited=False, create=create)
    return store


def open_async_store(url: str, *, create: bool = True) -> AwaitedStore:
    """Return the awaited store that a URL names; nothing is opened before its first use. See `open_store`."""
    store: AwaitedStore = _opened(url, awaited=True, create=create)
    return store


def file_of(url: str) -> Path | None:
    """Return the file that a URL names, or None: this store is in none."""
    return Path(_path(url)) if not url.startswith(MOVING) and _kind_of(url) is _SQLITE else None


def is_shared(url: str) -> bool:
    """Tell whether other processes can open the same store by this URL; a memory store is its process's own."""
    return url.startswith(MOVING) or _kind_of(url) is not _MEMORY


class _Kind(NamedTuple):
    """A kind of store: its module and two classes, its extra, the options of ours in its URLs, and how to build it."""

    module: str
    blocking: str
    awaited: str
    extra: str
    drivers: tuple[str, ...]
    options: Mapping[str, Callable[[str, str], Any]]
    call: Callable[[type[Any], str, dict[str, Any]], Any]


# What an option may be: its name and text in, its value out.


def _text(_name: str, text: str) -> str:
    return text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        message = f"{name} is a number of seconds above 0 (found {text!r})"
        raise ConfigError(message)
    return seconds


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        message = f"{name} is a whole number (found {text!r})"
        raise ConfigError(message)
    return int(text)


def _yes(name: str, text: str) -> bool:
    if text not in ("yes", "no"):
        message = f"{name} is yes or no (found {text!r})"
        raise ConfigError(message)
    return text == "yes"


def _synchronous(name: str, text: str) -> str:
    if text not in ("normal", "full"):
        message = f"sqlite URLs know one option, ?{name}=full or normal (found {text!r})"
        raise ConfigError(message)
    return text


_ANY_SERVER: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "prefix": _text,
    "load_deadline": _seconds,
    "commit_deadline": _seconds,
    "pool_size": _number,
}


# How a store is built.


def _memory(kind: type[Any], url: str, _options: dict[str, Any]) -> Any:
    if url.rstrip("/") != "memory:":
        message = f"a memory store has no name and no options (found {url!r}); write 'memory:'"
        raise ConfigError(message)
    return kind()


def _sqlite(kind: type[Any], url: str, options: dict[str, Any]) -> Any:
    if urlsplit(url).query:
        found = urlsplit(url).query
        message = f"sqlite URLs know one option, ?synchronous=full or normal (found {found!r}); drop the rest"
        raise ConfigError(message)
    return kind(_path(url), **options)


def _server(kind: type[Any], url: str, options: dict[str, Any]) -> Any:
    return kind(url, **options)


_MEMORY: Final = _Kind("memory", "MemoryStore", "AsyncMemoryStore", "", (), {}, _memory)
_SQLITE: Final = _Kind("sqlite", "SqliteStore", "AsyncSqliteStore", "", (), {"synchronous": _synchronous}, _sqlite)
_POSTGRESQL: Final = _Kind(
    "postgres",
    "PostgresStore",
    "AsyncPostgresStore",
    "postgresql",
    ("psycopg", "psycopg_pool"),
    {**_ANY_SERVER, "schema": _text, "migrate": _yes},
    _server,
)
_MYSQL: Final = _Kind(
    "mysql",
    "MySqlStore",
    "AsyncMySqlStore",
    "mysql",
    ("pymysql", "asyncmy"),
    {**_ANY_SERVER, "migrate": _yes},
    _server,
)
_REDIS: Final = _Kind(
    "redis", "RedisStore", "AsyncRedisStore", "redis", ("redis",), {**_ANY_SERVER, "wait_replicas": _number}, _server
)
_KINDS: Final[Mapping[str, _Kind]] = {
    "memory": _MEMORY,
    "sqlite": _SQLITE,
    **dict.fromkeys(("postgresql", "postgres"), _POSTGRESQL),
    **dict.fromkeys(("mysql", "mariadb"), _MYSQL),
    **{
        name + topology: _REDIS
        for name in ("redis", "rediss", "valkey", "valkeys")
        for topology in ("", "+sentinel", "+cluster")
    },
    "unix": _REDIS,
}
_SHOWN: Final = "memory:, sqlite:///path, postgresql://, mysql://, redis://, redis+sentinel:// and redis+cluster://"


def _opened(url: str, *, awaited: bool, create: bool) -> Any:
    if url.startswith(MOVING):
        return _dual(url, awaited=awaited, create=create)
    kind = _kind_of(url)
    rest, options = _split(url, kind.options)
    if not create and "migrate" in kind.options:
        options["migrate"] = False
    try:
        module = import_module(f".{kind.module}", __package__)
        return kind.call(getattr(module, kind.awaited if awaited else kind.blocking), rest, options)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in kind.drivers:
            raise
        scheme = url.partition(":")[0]
        message = f"{scheme}:// needs {error.name}, which is not installed; pip install 'coatcheck[{kind.extra}]'"
        raise ConfigError(message) from error


def _dual(url: str, *, awaited: bool, create: bool) -> Any:
    new, options = _split(url.removeprefix(MOVING), {"from": _text})
    old = options.get("from")
    if not old:
        message = f"a moving URL names the old store: {MOVING}{_bare(new)}?from=<its URL, percent-encoded>"
        raise ConfigError(message)
    from .moving import AsyncDualStore, DualStore

    pair = [_opened(one, awaited=awaited, create=create) for one in (new, old)]
    return AsyncDualStore(*pair) if awaited else DualStore(*pair)


def _kind_of(url: str) -> _Kind:
    scheme, colon, _ = url.partition(":")
    kind = _KINDS.get(scheme) if colon else None
    if kind is not None:
        return kind
    close = difflib.get_close_matches(scheme, _KINDS, 1) if colon else []
    advice = f"did you mean {close[0]!r}?" if close else f"this version knows {_SHOWN}"
    message = f"no store is known for {(scheme if colon else url)!r:.80}; {advice}"
    raise ConfigError(message)


def _path(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if parts.netloc or not path or parts.fragment:
        message = "sqlite URLs have three slashes and a path, or four for an absolute one: sqlite:///sessions.db"
        raise ConfigError(message)
    return path


def _split(url: str, ours: Mapping[str, Callable[[str, str], Any]]) -> tuple[str, dict[str, Any]]:
    """Return the URL without the options that are ours, and those."""
    base, question, query = url.partition("?")
    kept, options = [], dict[str, Any]()
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in ours:
            kept.append(f"{quote(name, safe='')}={quote(text, safe='/:,')}")
        elif name in options:
            message = f"the URL of the store has {name} twice; keep one"
            raise ConfigError(message)
        else:
            options[name] = ours[name](name, text)
    return base + (question + "&".join(kept) if kept else ""), options


def _bare(url: str) -> str:
    """Return how a sentence may show a URL: no password, no options."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.partition("?")[0].rpartition("@")[2]
