"""The receivers on stores behind a network: links and gates are plain records of the contract there, too."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from coatcheck.stores.redis import RedisStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers

from . import test_receivers
from .test_receivers import Shop

PREFIXES = (f"receivers-{number}" for number in count(1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    nodes = server_or_skip(servers.cluster)
    yield nodes
    nodes.stop()


@pytest.fixture
def shop(cluster: servers.Cluster, tmp_path: Path) -> Any:
    clock = Clock()
    return Shop(RedisStore(cluster.url, prefix=next(PREFIXES), shards=1, clock=clock), clock)


@pytest.mark.parametrize(
    "check",
    [
        test_receivers.test_a_sid_ends_its_session_only,
        test_receivers.test_a_sub_ends_all_of_its_sessions_of_that_issuer,
        test_receivers.test_a_session_that_was_stepped_up_is_found_under_its_new_handle,
        test_receivers.test_a_token_counts_once,
        test_receivers.test_a_logout_that_overtakes_its_login,
    ],
    ids=lambda check: check.__name__,
)
def test_on_a_cluster(shop: Shop, check: Any) -> None:
    check(shop)
