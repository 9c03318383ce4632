"""The machine of test_store_machine.py on the servers: PostgreSQL, MariaDB, Redis and a Redis Cluster.

A step costs milliseconds there, so fewer are drawn; what a server may do that memory and SQLite do not is to be found
early in an example or not at all. COATCHECK_HYPOTHESIS=long draws many more.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coatcheck.stores.mysql import MySqlStore
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres, redis

from .test_store_machine import LONG, StoreMachine

EXAMPLES = 25
PATIENT: dict[str, Any] = {"load_deadline": 30.0, "commit_deadline": 30.0}
"""The machine says what is lost; a busy computer must not."""

Emptied = Callable[[Callable[[], float]], Any]
"""Returns an empty store with this clock."""


@pytest.fixture(scope="module")
def on_postgresql() -> Iterator[Emptied]:
    server = server_or_skip(postgres.server)
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        hand = Hand(lambda clock: PostgresStore(server.url, prefix="machine_", clock=clock, **PATIENT))
        stack.callback(hand.store.close)
        hand.store.epochs()
        tables = ("sessions", "subjects", "epochs", "events")
        yield hand.emptied(lambda: [admin.execute(f"delete from machine_{name}") for name in tables])


@pytest.fixture(scope="module")
def on_mysql() -> Iterator[Emptied]:
    server, name = server_or_skip(mysql.shared)
    hand = Hand(lambda clock: MySqlStore(server.empty(name), clock=clock, **PATIENT))
    with closing(hand.store):
        yield hand.emptied(lambda: server.empty(name))


@pytest.fixture(scope="module")
def on_redis() -> Iterator[Emptied]:
    yield from _on_redis(server_or_skip(redis.single).url)


@pytest.fixture(scope="module")
def on_a_cluster() -> Iterator[Emptied]:
    yield from _on_redis(server_or_skip(redis.cluster).url)


def _on_redis(url: str) -> Iterator[Emptied]:
    with ExitStack() as stack:
        numbers = count()

        def emptied(clock: Callable[[], float]) -> Any:
            store = RedisStore(url, prefix=f"machine{next(numbers)}", clock=clock, **PATIENT)
            stack.callback(store.close)
            return store

        yield emptied


class Hand:
    """One store for all examples, with the clock of the present one."""

    def __init__(self, make: Callable[[Callable[[], float]], Any]) -> None:
        self._clock: Callable[[], float] = Clock()
        self.store = make(self.now)

    def now(self) -> float:
        return self._clock()

    def emptied(self, empty: Callable[[], object]) -> Emptied:
        def store_with(clock: Callable[[], float]) -> Any:
            empty()
            self._clock = clock
            return self.store

        return store_with


@pytest.mark.timeout(7200 if LONG else 300)
@pytest.mark.parametrize("where", ["on_postgresql", "on_mysql", "on_redis", "on_a_cluster"])
def test_in_any_order_of_steps_the_promises_hold_on_a_server(where: str, request: pytest.FixtureRequest) -> None:
    emptied: Emptied = request.getfixturevalue(where)

    class OnServer(StoreMachine):
        @staticmethod
        def make_store(clock: Clock, _: Path) -> Any:
            return emptied(clock)

        def teardown(self) -> None:
            shutil.rmtree(self.folder)

    budget = settings(
        max_examples=500 if LONG else EXAMPLES,
        stateful_step_count=60 if LONG else 30,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(OnServer, settings=budget)
