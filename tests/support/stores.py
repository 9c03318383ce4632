"""Every kind of store that keeps sessions outside this process, lent to a test module: both faces of it."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from coatcheck.stores.mysql import AsyncMySqlStore, MySqlStore
from coatcheck.stores.postgres import AsyncPostgresStore, PostgresStore
from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres
from tests.support.servers import redis as redis_servers

KINDS = ("sqlite", "postgresql", "mysql", "redis")

Make: TypeAlias = Callable[[Clock], tuple[Any, Any]]
"""Returns the blocking and the awaited face of a store, given a clock."""

_NUMBERS = count(1)
_PATIENT: Any = {"load_deadline": 10.0, "commit_deadline": 20.0}


def lent(kind: str, folder: Path) -> Iterator[Make]:
    """Yield a maker of stores of a kind; what one test left is there for the next one of the module."""
    yield from {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql, "redis": _redis}[kind](folder)


def _sqlite(folder: Path) -> Iterator[Make]:
    def make(clock: Clock) -> tuple[Any, Any]:
        blocking = SqliteStore(folder / f"{next(_NUMBERS)}.db", clock=clock)
        return blocking, blocking.as_async()

    yield make


def _postgresql(_folder: Path) -> Iterator[Make]:
    server = server_or_skip(postgres.server)

    def make(prefix: str) -> Make:
        how: Any = {"prefix": prefix, **_PATIENT}
        return lambda clock: (
            PostgresStore(server.url, clock=clock, **how),
            AsyncPostgresStore(server.url, clock=clock, **how),
        )

    yield from map(make, postgres.a_prefix(server.url))


def _mysql(_folder: Path) -> Iterator[Make]:
    server, name = server_or_skip(mysql.shared)
    url = server.empty(name)
    yield lambda clock: (MySqlStore(url, clock=clock, **_PATIENT), AsyncMySqlStore(url, clock=clock, **_PATIENT))


def _redis(_folder: Path) -> Iterator[Make]:
    server = server_or_skip(redis_servers.single)
    prefix = f"lent-{next(_NUMBERS)}"
    yield lambda clock: (
        RedisStore(server.url, prefix=prefix, clock=clock),
        AsyncRedisStore(server.url, prefix=prefix, clock=clock),
    )
    server.stop()
