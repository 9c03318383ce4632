"""Redis servers die, freeze and hand on their slots, and the store goes on: bounded errors, nothing durable lost.

Short forms of `python -m bench.chaos`, on real Clusters and Sentinels; that file says what WAIT cannot promise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from coatcheck.core.errors import NotApplied, StoreError, Unconfirmed
from coatcheck.core.model import End, Insert, Query, Touch
from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import make
from tests.conftest import server_or_skip
from tests.support.callers import Caller
from tests.support.crowd import Crowd
from tests.support.servers import redis

DEADLINE = 2.0
GRACE = 1.0
RECOVERY = 8.0
"""Seconds after which nothing may fail any more: the servers need about 2 of them to agree on a new master."""

KINDS = {"NotApplied", "Unknown", "Unconfirmed"}
STORES = {"blocking": RedisStore, "awaited": AsyncRedisStore}


@pytest.fixture(scope="module")
def six() -> Iterator[redis.Cluster]:
    """Return a Cluster of ours."""
    cluster = server_or_skip(lambda: redis.cluster(ours=True))
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(six: redis.Cluster) -> redis.Cluster:
    """Return it whole and healthy, whatever the last test did to it."""
    for node in six.nodes.values():
        if not node.alive:
            node.restart()
    six.wait_until_healthy()
    return six


@pytest.fixture
def watched() -> Iterator[redis.Watched]:
    """Return a master and two replicas with three Sentinels."""
    servers = server_or_skip(lambda: redis.sentinel(ours=True))
    yield servers
    servers.stop()


@pytest.fixture
def pair() -> Iterator[redis.Replicated]:
    """Return a master and its one replica."""
    servers = server_or_skip(lambda: redis.replicated(1))
    yield servers
    servers.stop()


@pytest.fixture(params=STORES)
def face(request: pytest.FixtureRequest) -> Any:
    """Return the class of a face."""
    return STORES[request.param]


def crowd_of(url: str, seed: int) -> Crowd:
    """Return a crowd whose sessions belong to the store at a URL."""
    store = RedisStore(url)
    try:
        return Crowd(store.epochs().salt, seed=seed)
    finally:
        store.close()


def slot(handle: str) -> int:
    return redis.slot_of(f"{{{handle[:2]}}}")


def sound(crowd: Crowd, url: str) -> None:
    """Check what the crowd was promised, now that all is well."""
    store = RedisStore(url)
    crowd.check(store)
    store.close()
    assert crowd.book.broken() == []
    assert [one for one in crowd.book.failures if one.verb == "commit" and one.kind not in KINDS] == []
    assert max(crowd.book.slowest.values()) < DEADLINE + GRACE, crowd.book.slowest
    assert sum(crowd.book.calls.values()) > 200


def test_a_killed_master_of_a_cluster_costs_a_pause_and_nothing_durable(cluster: redis.Cluster, face: Any) -> None:
    crowd = crowd_of(cluster.url, 1)
    store = face(cluster.url, wait_replicas=1)
    victim = cluster.masters()[0]
    with crowd.walking(store, 8):
        time.sleep(1)
        orphans = {kept.handle for kept in crowd.sessions if cluster.master_of(slot(kept.handle)) is victim}
        spared = {kept.handle for kept in crowd.sessions} - orphans
        victim.kill()
        killed = time.monotonic()
        redis.wait_until(lambda: len(cluster.masters()) == 3, 10, "a new master")
        time.sleep(1)
        victim.restart()
        cluster.wait_until_healthy()
        healthy = time.monotonic()
        time.sleep(1.5)
        ended = time.monotonic()
    sound(crowd, cluster.url)
    assert crowd.book.failures, "nobody noticed"
    assert crowd.book.recovered(killed, ended) < RECOVERY
    assert crowd.book.recovered(healthy, ended, confirmed=True) < DEADLINE
    assert [one for one in crowd.book.failures if one.handle in spared] == [], "sessions of other masters failed too"


def test_a_session_revoked_before_a_failover_stays_revoked_after_it(cluster: redis.Cluster, face: Any) -> None:
    crowd = crowd_of(cluster.url, 2)
    store = Caller(face(cluster.url, wait_replicas=1))
    people = [crowd.keep(f"person-{number}") for number in range(30)]
    for number, kept in enumerate(people):
        record = make(kept.handle, Clock(time.time()), subject=kept.subject)
        assert store.commit(b"login %010d" % number, [Insert(record=record)], durable=True) is None
    victim = cluster.master_of(slot(people[0].handle))
    for number, kept in enumerate(people):
        assert store.commit(b"logout %9d" % number, [End(handle=kept.handle, because="operator")], durable=True) is None
    victim.kill()
    redis.wait_until(lambda: len(cluster.masters()) == 3, 10, "a new master")
    for kept in people:
        assert patient(store, kept.handle).ended_because == "operator"
    store.close()


def patient(store: Caller, handle: str, seconds: float = RECOVERY) -> Any:
    """Load until that succeeds."""
    until = time.monotonic() + seconds
    while True:
        try:
            return store.load(handle)
        except StoreError:
            assert time.monotonic() < until, "no load succeeds any more"


def test_a_master_that_was_frozen_revives_nothing_when_it_wakes(cluster: redis.Cluster, face: Any) -> None:
    crowd = crowd_of(cluster.url, 3)
    store = Caller(face(cluster.url))
    kept = crowd.keep("ann")
    victim = cluster.master_of(slot(kept.handle))
    record = make(kept.handle, Clock(time.time()), subject=kept.subject)
    assert store.commit(b"login-----------", [Insert(record=record)], durable=True) is None
    time.sleep(0.2)
    victim.pause()
    try:
        redis.wait_until(lambda: len(cluster.masters()) == 3, 10, "a new master")
        until = time.monotonic() + RECOVERY
        while True:
            try:
                assert store.commit(b"logout----------", [End(handle=kept.handle, because="owner")]) is None
                break
            except NotApplied:
                assert time.monotonic() < until
        assert patient(store, kept.handle).ended_because == "owner"
    finally:
        victim.resume()
    awake = time.monotonic()
    while time.monotonic() < awake + 2:
        assert patient(store, kept.handle).ended_because == "owner", "revived by the old master"
    cluster.wait_until_healthy()
    store.close()


# Slots on their way.


def family(cluster: redis.Cluster, store: Caller, subject: str) -> tuple[list[str], int]:
    """Return ten sessions of one subject, and their slot."""
    crowd = crowd_of(cluster.url, 4)
    handles = [crowd.keep(subject).handle for _ in range(10)]
    for number, handle in enumerate(handles):
        record = make(handle, Clock(time.time()), subject=subject, data=b"%d" % number)
        assert store.commit(b"login %10d" % number, [Insert(record=record)], durable=True) is None
    return handles, slot(handles[0])


def test_loads_succeed_while_a_slot_is_held_half_way(cluster: redis.Cluster, face: Any) -> None:
    store = Caller(face(cluster.url))
    handles, place = family(cluster, store, face.__name__)
    source = cluster.master_of(place)
    target = next(node for node in cluster.masters() if node is not source)
    cluster.begin_move(place, target)
    keys = int(source.client.execute_command("CLUSTER", "COUNTKEYSINSLOT", place))
    for most in (0, keys // 2, keys - keys // 2 - 1, None):
        cluster.move_keys(place, source, target, most=most)
        for _ in range(5):
            for number, handle in enumerate(handles):
                found = store.load(handle)
                assert found is not None
                assert found.data == b"%d" % number
        began = time.monotonic()
        try:
            assert store.commit(b"touch", [Touch(handle=handles[0], seen_at=time.time())]) is None
        except NotApplied:
            assert time.monotonic() - began < DEADLINE + GRACE
    cluster.end_move(place, source, target)
    assert store.commit(b"logout----------", [End(handle=handles[0], because="owner")], durable=True) is None
    ended = store.load(handles[0])
    assert ended is not None
    assert ended.ended_because == "owner"
    assert len(store.start("find", Query(subject=face.__name__)).result(30).items) == 9
    store.close()


def test_a_slot_that_moves_under_load_costs_no_read_and_loses_nothing(cluster: redis.Cluster, face: Any) -> None:
    crowd = crowd_of(cluster.url, 5)
    store = face(cluster.url, wait_replicas=1)
    with crowd.walking(store, 8):
        time.sleep(0.7)
        for _ in range(6):
            place = slot(crowd.sessions[-1].handle)
            source = cluster.master_of(place)
            target = next(node for node in cluster.masters() if node is not source)
            cluster.begin_move(place, target)
            cluster.move_keys(place, source, target, most=2)
            time.sleep(0.3)
            cluster.end_move(place, source, target)
            time.sleep(0.1)
    sound(crowd, cluster.url)
    assert [one for one in crowd.book.failures if one.verb == "load"] == []


# Sentinels, and replicas that do not confirm.


def test_sentinels_name_another_master_and_the_store_goes_on_by_itself(watched: redis.Watched, face: Any) -> None:
    crowd = crowd_of(watched.url, 6)
    store = face(watched.url, wait_replicas=1)
    with crowd.walking(store, 6):
        time.sleep(1)
        victim = watched.master
        victim.kill()
        killed = time.monotonic()
        redis.wait_until(lambda: watched.elected() is watched.master, 15, "an election")
        watched.wait_until_healthy()
        healthy = time.monotonic()
        time.sleep(2.5)
        ended = time.monotonic()
    sound(crowd, watched.url)
    assert crowd.book.failures, "nobody noticed"
    assert crowd.book.recovered(killed, ended) < RECOVERY
    assert crowd.book.recovered(healthy, ended, confirmed=True) < DEADLINE, "it has not recovered"


def test_what_no_replica_confirmed_is_unconfirmed_however_often_it_is_asked(pair: redis.Replicated, face: Any) -> None:
    first, second = Caller(face(pair.url, wait_replicas=1)), Caller(face(pair.url, wait_replicas=1))
    crowd = crowd_of(pair.url, 7)
    ann, bob = crowd.mint("ann"), crowd.mint("bob")
    for handle in (ann, bob):
        record = make(handle, Clock(time.time()), subject=None)
        assert first.commit(handle.encode(), [Insert(record=record)], durable=True) is None
    (replica,) = pair.replicas
    replica.pause()
    revoke = (b"revoke----------", [End(handle=ann, because="operator")])
    for store in (first, first, second):
        began = time.monotonic()
        with pytest.raises(Unconfirmed):
            store.commit(*revoke, durable=True)
        assert time.monotonic() - began < DEADLINE + GRACE
    assert first.commit(b"plain", [Touch(handle=bob, seen_at=time.time())]) is None
    replica.resume()
    assert second.commit(*revoke, durable=True) is None
    pair.master.kill()
    replica.client.execute_command("REPLICAOF", "NO", "ONE")
    heir = RedisStore(replica.url)
    found = heir.load(ann)
    assert found is not None
    assert found.ended_because == "operator"
    for store in (first, second):
        store.close()
    heir.close()
