"""The Redis store behind Sentinels: it finds the primary, and finds the next one when that is lost."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from coatcheck.core.errors import ConfigError, StoreError
from coatcheck.core.model import End, Insert, Touch
from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import Face, make
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers


@pytest.fixture(scope="module")
def watched() -> Iterator[servers.Watched]:
    watched = server_or_skip(lambda: servers.sentinel(ours=True))
    yield watched
    watched.stop()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_lost_primary_is_replaced(make_store: Any, watched: servers.Watched) -> None:
    clock = Clock(time.time())
    face = Face(make_store(watched.url, prefix=make_store.__name__, wait_replicas=1))
    face.done(Insert(record=make("h", clock)), durable=True)
    face.done(End(handle="h", because="logout"), durable=True)
    master = watched.master
    master.kill()
    until, found = time.monotonic() + 15, None
    while found is None and time.monotonic() < until:
        try:
            found = face.load("h")
            face.done(Insert(record=make("after", clock)))
        except StoreError:
            found = None
    assert found is not None
    assert found.ended_because == "logout"
    assert face.have("after").ended_at is None
    master.restart()
    watched.wait_until_healthy()
    face.done(Touch(handle="after", seen_at=clock.now + 1))
    face.close()


def test_a_sentinel_that_is_away_is_passed_over(watched: servers.Watched) -> None:
    addresses, _, name = watched.url.removeprefix("redis+sentinel://").partition("/")
    store = RedisStore(f"valkey+sentinel://127.0.0.1:1,{addresses}/{name}", prefix="away")
    assert store.load("h") is None
    store.close()


def test_a_name_that_no_sentinel_knows_is_said(watched: servers.Watched) -> None:
    store = RedisStore(watched.url.rpartition("/")[0] + "/other", load_deadline=0.2)
    with pytest.raises(StoreError, match="know no primary named 'other'"):
        store.load("h")
    store.close()
    with pytest.raises(ConfigError, match="ends with the name"):
        RedisStore(watched.url.rpartition("/")[0])


def test_a_client_of_sentinels_is_taken_over(watched: servers.Watched) -> None:
    given = [one.split(":") for one in watched.url.removeprefix("redis+sentinel://").partition("/")[0].split(",")]
    client = redis.Sentinel([(host, int(port)) for host, port in given]).master_for(watched.url.rpartition("/")[2])
    store = RedisStore(client=client, prefix="taken")
    assert store.load("h") is None
    store.close()
