"""The receivers on stores behind a network: links and gates are plain records of the contract there, too."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from coatcheck.stores.redis import RedisStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers
from tests.support.stores import Make, lent

from . import test_receivers
from .test_receivers import ISSUER, Shop

PREFIXES = (f"receivers-{number}" for number in count(1))
MONTHS = count(1)
"""Tests share tables: each lives a month after the one before, when what that one left is over."""

BY_SESSION = {"format": "opaque", "id": "s1"}
BY_SUBJECT = {"format": "iss_sub", "iss": ISSUER, "sub": "u1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    nodes = server_or_skip(servers.cluster)
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module", params=["postgresql", "mysql", "redis"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    yield from lent(request.param, tmp_path_factory.mktemp("receivers"))


@pytest.fixture(params=["blocking", "awaited"])
def shop(request: pytest.FixtureRequest, make: Make) -> Iterator[Shop]:
    clock = Clock()
    clock.wind(next(MONTHS) * 30 * 86400)
    blocking, awaited = make(clock)
    shop = Shop(blocking if request.param == "blocking" else awaited, clock)
    yield shop
    blocking.close()
    if shop.runner is not None:
        shop.runner.run(awaited.close())
        shop.runner.close()
    else:
        asyncio.run(awaited.close())


CHECKS = [
    test_receivers.test_a_sid_ends_its_session_only,
    test_receivers.test_a_sub_ends_all_of_its_sessions_of_that_issuer,
    test_receivers.test_a_session_that_was_stepped_up_is_found_under_its_new_handle,
    test_receivers.test_a_token_counts_once,
    test_receivers.test_a_logout_that_overtakes_its_login,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_cluster(cluster: servers.Cluster, check: Any) -> None:
    clock = Clock()
    check(Shop(RedisStore(cluster.url, prefix=next(PREFIXES), shards=1, clock=clock), clock))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_back_channel_logout_on_every_server(shop: Shop, check: Any) -> None:
    """BCL-02, BCL-04, D65, D66."""
    check(shop)


@pytest.mark.parametrize("subject", [BY_SESSION, BY_SUBJECT], ids=["by session", "by subject"])
def test_a_session_revoked_on_every_server(shop: Shop, subject: dict[str, Any]) -> None:
    """SSF-01."""
    one, bob = shop.login(sub="u1", sid="s1"), shop.login("bob", sub="u2", sid="s2")
    shop.clock.wind(5)
    assert shop.event(subject).status == 202
    assert (shop.user(one), shop.user(bob)) == (None, "bob")
    assert shop.begin(one, "GET").ended_because == "caep"


@pytest.mark.parametrize("subject", [BY_SESSION, BY_SUBJECT], ids=["by session", "by subject"])
def test_a_late_event_ends_no_newer_login_on_any_server(shop: Shop, subject: dict[str, Any]) -> None:
    """D67."""
    test_receivers.test_a_late_event_ends_no_newer_login(shop, subject)
