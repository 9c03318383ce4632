"""The stores between which sessions move in tests: a line in KINDS, and every test of a move runs on one more kind."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.moving import AsyncDualStore, DualStore
from coatcheck.stores.mysql import AsyncMySqlStore, MySqlStore
from coatcheck.stores.postgres import AsyncPostgresStore, PostgresStore
from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres, redis

PATIENCE = 30.0
"""Seconds for a commit: the machine may be busy."""

_numbers = itertools.count(1)


@functools.cache
def single_redis() -> redis.Single:
    """Return the Redis that these tests share."""
    return server_or_skip(redis.single)


def _sqlite(store: Any, folder: Path, clock: Clock) -> Any:
    return store(folder / f"{next(_numbers)}.db", clock=clock)


def _redis(store: Any, _: Path, clock: Clock) -> Any:
    return store(single_redis().url, prefix=f"move-{next(_numbers)}", clock=clock)


def _postgres(store: Any, _: Path, clock: Clock) -> Any:
    url = server_or_skip(postgres.server).url
    return store(url, prefix=f"move{next(_numbers)}_", clock=clock, load_deadline=PATIENCE, commit_deadline=PATIENCE)


def _mysql(store: Any, _: Path, clock: Clock) -> Any:
    server, database = server_or_skip(mysql.shared)
    prefix = f"move{next(_numbers)}_"
    return store(server.url(database), prefix=prefix, clock=clock, load_deadline=PATIENCE, commit_deadline=PATIENCE)


Makes = Callable[[Any, Path, Clock], Any]

KINDS: dict[str, tuple[type[Any], type[Any], Makes]] = {
    "memory": (MemoryStore, AsyncMemoryStore, lambda store, _, clock: store(clock=clock)),
    "sqlite": (SqliteStore, AsyncSqliteStore, _sqlite),
    "postgresql": (PostgresStore, AsyncPostgresStore, _postgres),
    "mysql": (MySqlStore, AsyncMySqlStore, _mysql),
    "redis": (RedisStore, AsyncRedisStore, _redis),
}
"""Both faces of a kind, and how an empty one is made."""

LOCAL = ("memory", "sqlite")


def made(kind: str, folder: Path, clock: Clock, *, awaited: bool = False) -> Any:
    """Return an empty store."""
    blocking, waiting, make = KINDS[kind]
    return make(waiting if awaited else blocking, folder, clock)


def pair(kind: str, folder: Path, clock: Clock) -> DualStore:
    """Return two empty stores of a kind as one."""
    return DualStore(made(kind, folder, clock), made(kind, folder, clock), commit_deadline=PATIENCE)


def async_pair(kind: str, folder: Path, clock: Clock) -> AsyncDualStore:
    """Return the same, awaited."""
    new, old = (made(kind, folder, clock, awaited=True) for _ in range(2))
    return AsyncDualStore(new, old, commit_deadline=PATIENCE)
