"""A Redis that lost its marks, or everything, lets nobody in silently, and says so loudly (D39; H7)."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from coatcheck.stores.redis import RedisStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers

from .house import House


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Single]:
    one = server_or_skip(servers.single)
    yield one
    one.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(server: servers.Single, clock: Clock) -> Iterator[RedisStore]:
    with servers.client(server.port) as admin:
        admin.flushall()
    store = RedisStore(server.url, clock=clock)
    yield store
    store.close()


def empty(server: servers.Single, how: str) -> None:
    with servers.client(server.port) as admin:
        if how == "everything":
            admin.flushall()
        else:
            assert admin.delete("coatcheck:{.}:store") == 1


@pytest.mark.parametrize("how", ["everything", "marks"])
def test_d39_who_was_let_in_before_is_refused_and_the_log_says_why(
    server: servers.Single, store: RedisStore, clock: Clock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = House("wsgi", store, clock)
    visitor = house.visitor()
    visitor.login("alice")
    house.control.registry.revoke_before(clock.now - 10)
    assert visitor.user == "alice"
    empty(server, how)
    clock.wind(2)
    with caplog.at_level(logging.CRITICAL):
        assert visitor.user is None
    assert "emptied or restored" in caplog.text
    clock.wind(2)
    other = House("wsgi", store, clock)
    assert other.visitor(visitor.token).user is None, "a process that starts later refuses it, too"
    assert visitor.login("alice")
    assert visitor.user == "alice"


def test_d39_a_process_that_knows_its_store_refuses_another_one_from_the_start(
    server: servers.Single, store: RedisStore, clock: Clock
) -> None:
    generation = store.epochs().generation
    visitor = House("wsgi", store, clock, generation=generation).visitor()
    visitor.login("alice")
    empty(server, "marks")
    late: Any = House("wsgi", store, clock, generation=generation).visitor(visitor.token).get("/me")
    assert late.status == 503
