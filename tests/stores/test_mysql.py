"""The MySQL store keeps the contract, in both of its faces, on a real server."""

import pytest

from coatcheck.stores.mysql import AsyncMySqlStore, MySqlStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.keeping import KeptKeysContract
from tests.conftest import server_or_skip
from tests.support.servers import mysql


@pytest.fixture
def url() -> str:
    """Return the URL of a database whose tables are empty, or not there yet."""
    server, name = server_or_skip(mysql.shared)
    return server.empty(name)


class TestMySqlStore(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, clock: Clock, url: str) -> MySqlStore:
        return MySqlStore(url, clock=clock)


class TestAsyncMySqlStore(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, clock: Clock, url: str) -> AsyncMySqlStore:
        return AsyncMySqlStore(url, clock=clock)
