"""Where old sessions lie, when they lie in no cookie: a Redis, a table, a folder. They are listed, read and deleted.

A shelf blocks; the awaiting flow asks it in a thread. It opens nothing before it is asked, and tells how long an entry
has left by the clock of whoever keeps it. What does not answer is a StoreError: a request waits for a better moment
rather than to be told that it has no session.

Folders name their files by a hash of the key. What they list are those names, each behind a FILE; they may be known to
whoever can list the folder, and say nothing of the key.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from ..core.errors import ConfigError, StoreError

_KEY = re.compile(rb"[A-Za-z0-9_\-]{16,200}").fullmatch
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(?:\.[A-Za-z_][A-Za-z0-9_]{0,62})?").fullmatch
_IS_SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch
_IS_MD5 = re.compile(r"[0-9a-f]{32}").fullmatch
FILE: Final = "#"
"""What stands before the name of a file, in the place of a key; no key has one in it."""
PAGE: Final = 1000
TIMEOUT: Final = 2.0
"""Seconds that an old store gets to answer."""


class Kept(NamedTuple):
    """An entry: its bytes, and the seconds that it has left (None: it does not say)."""

    raw: bytes
    left: float | None


class Shelf(Protocol):
    """Where the sessions of an old library lie; a key is what the cookie says, or what `listed` yields."""

    def get(self, key: str) -> Kept | None:
        """Return a live entry, or None; raise StoreError for every failure."""
        ...

    def delete(self, key: str) -> None:
        """Delete an entry, if it is there."""
        ...

    def listed(self) -> Iterator[str]:
        """Yield what names each entry, dead ones too."""
        ...

    def name_of(self, key: str) -> str:
        """Return what `listed` yields for the entry with this key."""
        ...

    def unlisted(self) -> int:
        """Return how many entries are there that `listed` cannot name."""
        ...


def named(value: bytes) -> str | None:
    """Return the key that a cookie's value is; None: no library makes such a one, so nothing is asked."""
    return value.decode("ascii") if _KEY(value) else None


class RedisShelf:
    """A Redis or Valkey; `server` is a URL, or a client of redis-py (blocking) that the application made."""

    def __init__(self, server: Any, *, prefix: str) -> None:
        """Take the server and what stands before each key."""
        self._server = server
        self._prefix = prefix
        self._client: Any = None if isinstance(server, str) else server

    def get(self, key: str) -> Kept | None:
        """Return an entry."""
        name = self._prefix + key

        def read(client: Any) -> tuple[Any, int]:
            both = client.pipeline(transaction=False).get(name).pttl(name).execute()
            return both[0], both[1]

        raw, left = self._ask(read)
        if raw is None:
            return None
        raw = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else bytes(raw)
        return Kept(raw, left / 1000 if left >= 0 else None)

    def delete(self, key: str) -> None:
        """Delete an entry."""
        self._ask(lambda client: client.delete(self._prefix + key))

    def listed(self) -> Iterator[str]:
        """Yield the keys; one that stays from the first trip to the last is among them."""
        pattern, cursor = re.sub(r"([\\*?\[\]])", r"\\\1", self._prefix) + "*", 0
        while True:
            cursor, names = self._ask(partial(_scanned, cursor=cursor, pattern=pattern))
            for name in names:
                text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
                yield text.removeprefix(self._prefix)
            if not cursor:
                return

    def name_of(self, key: str) -> str:
        """Return the key."""
        return key

    def unlisted(self) -> int:
        """Return 0."""
        return 0

    def _ask(self, verb: Callable[[Any], Any]) -> Any:
        import redis

        if self._client is None:
            self._client = redis.Redis.from_url(self._server, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        try:
            return verb(self._client)
        except redis.RedisError as error:
            message = f"the Redis with the old sessions does not answer ({type(error).__name__})"
            raise StoreError(message) from error


class Table:
    """A table in SQLite, PostgreSQL or MySQL, by a URL as stores have it; `data` may be text or bytes."""

    def __init__(self, url: str, table: str, *, key: str, data: str, ends: str, prefix: str = "") -> None:
        """Name the table, its columns, and what stands before each key. Times are in UTC."""
        for name in (table, key, data, ends):
            if not _NAME(name):
                message = f"a table or column is named by letters, digits and _ (found {name!r:.60})"
                raise ConfigError(message)
        self._url, self._prefix = url, prefix
        scheme = url.partition(":")[0].partition("+")[0]
        if scheme not in _CONNECT:
            message = f"old sessions are read from {', '.join(_CONNECT)} (found {scheme!r})"
            raise ConfigError(message)
        self._connect = _CONNECT[scheme]
        mark = "?" if scheme == "sqlite" else "%s"
        self._get = f"select {data}, {ends} from {table} where {key} = {mark}"  # noqa: S608 - names are checked
        self._delete = f"delete from {table} where {key} = {mark}"  # noqa: S608 - names are checked
        self._list = f"select {key} from {table} where {key} > {mark} order by {key} limit {PAGE}"  # noqa: S608 - names are checked

    def get(self, key: str) -> Kept | None:
        """Return an entry that is not past its end."""
        rows = self._ask(self._get, self._prefix + key)
        if not rows or rows[0][0] is None or rows[0][1] is None:
            return None
        raw, ends = rows[0]
        left = _instant(ends) - time.time()
        if left <= 0:
            return None
        return Kept(raw.encode() if isinstance(raw, str) else bytes(raw), left)

    def delete(self, key: str) -> None:
        """Delete an entry."""
        self._ask(self._delete, self._prefix + key)

    def listed(self) -> Iterator[str]:
        """Yield the keys, in their order."""
        last = ""
        while True:
            names = [str(row[0]) for row in self._ask(self._list, last)]
            yield from (name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))
            if len(names) < PAGE:
                return
            last = names[-1]

    def name_of(self, key: str) -> str:
        """Return the key."""
        return key

    def unlisted(self) -> int:
        """Return 0."""
        return 0

    def _ask(self, statement: str, argument: str) -> list[Any]:
        """Run one statement on a connection of its own: it is asked once a browser."""
        try:
            with closing(self._connect(self._url)) as connection:
                cursor = connection.cursor()
                cursor.execute(statement, (argument,))
                rows = list(cursor.fetchall()) if cursor.description is not None else []
                connection.commit()
                return rows
        except ImportError as error:
            message = f"the driver of {self._url.partition(':')[0]} is missing ({error.name}); install it"
            raise ConfigError(message) from error
        except Exception as error:  # each driver has its own tree of them
            message = f"the table with the old sessions does not answer ({type(error).__name__}: {error})"
            raise StoreError(message) from error


class CachelibFolder:
    """The folder of a cachelib FileSystemCache: an end in 4 bytes, then what its serializer wrote.

    Files are named by a hash of their key.
    """

    def __init__(self, folder: str | Path, *, prefix: str = "session:") -> None:
        """Take the cache_dir and what stands before each key."""
        self._folder, self._prefix = Path(folder), prefix

    def get(self, key: str) -> Kept | None:
        """Return an entry that is not past its end."""
        for path in self._paths(key):
            raw = _file(path)
            if raw is None or len(raw) <= 4:
                continue
            (ends,) = struct.unpack("I", raw[:4])
            left = ends - time.time() if ends else None
            return None if left is not None and left <= 0 else Kept(raw[4:], left)
        return None

    def delete(self, key: str) -> None:
        """Delete an entry."""
        for path in self._paths(key):
            _remove(path)

    def listed(self) -> Iterator[str]:
        """Yield the names of the files that cachelib wrote since 0.14."""
        return (FILE + name for name in _names(self._folder) if _IS_SHA256(name))

    def name_of(self, key: str) -> str:
        """Return the name of the file."""
        return key if key.startswith(FILE) else FILE + hashlib.sha256((self._prefix + key).encode()).hexdigest()

    def unlisted(self) -> int:
        """Return how many files an older cachelib wrote: their names are the same hash in another spelling, MD5."""
        counter = hashlib.md5(b"__wz_cache_count", usedforsecurity=False).hexdigest()
        return sum(1 for name in _names(self._folder) if _IS_MD5(name) and name != counter)

    def _paths(self, key: str) -> list[Path]:
        name = self.name_of(key).removeprefix(FILE)
        if key.startswith(FILE):
            return [self._folder / name]
        older = hashlib.md5((self._prefix + key).encode(), usedforsecurity=False)  # until cachelib 0.14
        return [self._folder / name, self._folder / older.hexdigest()]


class LitestarFolder:
    """The folder of a Litestar FileStore; files are named by a hash of their key."""

    def __init__(self, folder: str | Path) -> None:
        """Take the path of the store, its namespace included."""
        self._folder = Path(folder)

    def get(self, key: str) -> Kept | None:
        """Return an entry that is not past its end."""
        raw = _file(self._path(key))
        if raw is None:
            return None
        try:
            found = msgspec.msgpack.decode(raw, type=_Stored)
        except msgspec.DecodeError:
            return None
        left = None if found.expires_at is None else _instant(found.expires_at) - time.time()
        return None if left is not None and left <= 0 else Kept(found.data, left)

    def delete(self, key: str) -> None:
        """Delete an entry."""
        _remove(self._path(key))

    def listed(self) -> Iterator[str]:
        """Yield the names of the files."""
        return (FILE + name for name in _names(self._folder) if _IS_SHA256(name))

    def name_of(self, key: str) -> str:
        """Return the name of the file."""
        return key if key.startswith(FILE) else FILE + hashlib.blake2s(key.encode()).hexdigest()

    def unlisted(self) -> int:
        """Return 0."""
        return 0

    def _path(self, key: str) -> Path:
        return self._folder / self.name_of(key).removeprefix(FILE)


class _Stored(msgspec.Struct):
    """What Litestar's FileStore writes."""

    expires_at: datetime | None
    data: bytes


def _scanned(client: Any, *, cursor: int, pattern: str) -> tuple[int, list[Any]]:
    found: tuple[int, list[Any]] = client.scan(cursor, match=pattern, count=PAGE)
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        message = f"the folder with the old sessions cannot be read ({error.strerror})"
        raise StoreError(message) from error


def _file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"the folder with the old sessions cannot be read ({error.strerror})"
        raise StoreError(message) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        message = f"a file in the folder with the old sessions cannot be deleted ({error.strerror})"
        raise StoreError(message) from error


def _instant(moment: Any) -> float:
    """Return a column's moment: a datetime or its text, in UTC where it names no zone."""
    when = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


def _sqlite(url: str) -> Any:
    path = unquote(urlsplit(url).path).removeprefix("/")
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, timeout=TIMEOUT)


def _postgresql(url: str) -> Any:
    import psycopg

    return psycopg.connect(url, connect_timeout=int(TIMEOUT))


def _mysql(url: str) -> Any:
    import pymysql  # type: ignore[import-untyped]

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.removeprefix("/")),
        connect_timeout=int(TIMEOUT),
        read_timeout=int(TIMEOUT),
    )


_CONNECT: Final[Mapping[str, Callable[[str], Any]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
}
