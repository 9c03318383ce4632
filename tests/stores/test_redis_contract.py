"""Redis keeps the contract: one server, Debian's Redis, and a Cluster, in both faces."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.keeping import KeptKeysContract
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers

PREFIXES = (f"test-{number}" for number in count(1))


@pytest.fixture(scope="module")
def single() -> Iterator[servers.Single]:
    server = server_or_skip(servers.single)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    nodes = server_or_skip(servers.cluster)
    yield nodes
    nodes.stop()


class TestRedisStore(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, clock: Clock, single: servers.Single) -> RedisStore:
        return RedisStore(single.url, prefix=next(PREFIXES), clock=clock)


class TestAsyncRedisStore(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, clock: Clock, single: servers.Single) -> AsyncRedisStore:
        return AsyncRedisStore(single.url, prefix=next(PREFIXES), clock=clock)


class TestRedisStoreOnACluster(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, clock: Clock, cluster: servers.Cluster) -> RedisStore:
        return RedisStore(cluster.url, prefix=next(PREFIXES), shards=1, clock=clock)


class TestAsyncRedisStoreOnACluster(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, clock: Clock, cluster: servers.Cluster) -> Any:
        return AsyncRedisStore(cluster.url, prefix=next(PREFIXES), shards=1, clock=clock)
