"""The Redis store with real shards: commits that touch two of them, subjects found in theirs, slots that move."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied, StoreError, Unknown
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import (
    Conflict,
    End,
    EndOthers,
    Insert,
    Limit,
    Note,
    RaiseEpoch,
    Record,
    Replace,
    Touch,
    Update,
)
from coatcheck.core.tokens import shard_of
from coatcheck.stores.redis import AsyncRedisStore, RedisStore, trips
from coatcheck.stores.redis.committing import Commit
from coatcheck.stores.redis.format import pack
from coatcheck.stores.redis.keys import SHARDS, Keys
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import Face, event, make
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers

NAMES = (f"sharded-{number}" for number in count(1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    nodes = server_or_skip(servers.cluster)
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module")
def single() -> Iterator[servers.Single]:
    server = server_or_skip(servers.single)
    yield server
    server.stop()


@pytest.fixture(params=[RedisStore, AsyncRedisStore])
def house(request: pytest.FixtureRequest, cluster: servers.Cluster, clock: Clock) -> Iterator["House"]:
    house = House(request.param(cluster.url, prefix=next(NAMES), clock=clock), clock)
    yield house
    house.face.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class House:
    """A store with shards, and records whose handles lie where they must."""

    def __init__(self, store: Any, clock: Clock) -> None:
        self.store, self.clock, self.face = store, clock, Face(store)
        self.salt = self.face.epochs().salt

    def shard(self, subject: str, realm: str = "") -> str:
        return shard_of(self.salt, realm, subject)

    def make(self, name: str, subject: str | None = "ann", **changed: Any) -> Record:
        return make(self.handle(name, subject), self.clock, subject=subject, **changed)

    def handle(self, name: str, subject: str | None = "ann") -> str:
        return (f"{len(name):02}" if subject is None else self.shard(subject)) + name

    def key(self, handle: str) -> str:
        return self.store._desk.keys.record(handle)


def test_there_are_4096_shards_and_the_store_says_so(house: House, cluster: servers.Cluster) -> None:
    assert house.store.sharded
    assert len(house.salt) == 32
    other = RedisStore(cluster.url, prefix=house.store._desk.keys.prefix)
    assert other.epochs().salt == house.salt
    other.close()
    assert len(Keys("p", SHARDS).tags) == 4097
    assert shard_of(house.salt, "", "ann") in Keys("p", SHARDS).tags


def test_a_manager_mints_handles_that_the_store_takes(house: House) -> None:
    manager = SessionManager(clock=house.clock)
    manager.salt = house.salt
    for number in range(20):
        handle = manager.mint(f"user-{number}").handle
        record = make(handle, house.clock, subject=f"user-{number}", realm=manager.realm)
        house.face.done(Insert(record=record))
        assert house.face.have(handle).subject == f"user-{number}"


def test_a_session_outside_its_subjects_shard_is_refused(house: House, cluster: servers.Cluster) -> None:
    wrong = make("zz-wrong", house.clock, subject="ann")
    with pytest.raises(StoreError, match="outside the shard"):
        house.face.commit(Insert(record=wrong))
    assert house.face.load("zz-wrong") is None
    old = house.make("old")
    house.face.done(Insert(record=old))
    with pytest.raises(StoreError, match="another shard"):
        house.face.commit(Replace(record=wrong, old=old.handle, was=1))


def test_a_stored_session_outside_its_subjects_shard_is_not_loaded(house: House, cluster: servers.Cluster) -> None:
    key = house.key("zz-wrong")
    node = cluster.master_of_key(key)
    node.client.execute_command("SET", key, pack(make("zz-wrong", house.clock, subject="ann")), "PX", 60000)
    with pytest.raises(StoreError, match="outside the shard"):
        house.face.load("zz-wrong")
    node.client.execute_command("SET", key, pack(make("zz-wrong", house.clock, subject=None)), "PX", 60000)
    assert house.face.have("zz-wrong").subject is None


# Two shards.


def test_an_anonymous_session_that_logs_in(house: House) -> None:
    face, anonymous, mine = house.face, house.make("anonymous", None), house.make("mine")
    face.done(Insert(record=anonymous))
    end = End(
        handle=anonymous.handle, because="superseded", events=(event("ended", house.clock, handle=anonymous.handle),)
    )
    made = event("made", house.clock, handle=mine.handle, subject="ann")
    face.done(Insert(record=mine, limit=Limit(3), events=(made,)), end, durable=True)
    assert face.have(anonymous.handle).ended_because == "superseded"
    assert face.have(mine.handle).ended_at is None
    assert [one.name for one in face.events(handle=anonymous.handle).items] == ["ended"]
    assert [one.name for one in face.events(realm="", subject="ann").items] == ["made"]
    assert [one.name for one in face.events(subject="ann").items] == ["made"]
    assert sorted(one.name for one in face.events().items) == ["ended", "made"]


def test_a_conflict_of_the_login_leaves_the_anonymous_session_alone(house: House) -> None:
    face, anonymous, mine = house.face, house.make("anonymous", None), house.make("mine")
    face.done(Insert(record=anonymous))
    face.done(Insert(record=house.make("first")))
    login = Insert(record=mine, limit=Limit(1, refuse=True))
    assert face.commit(login, End(handle=anonymous.handle, because="superseded")) == Conflict(None, "limit")
    assert face.have(anonymous.handle).ended_at is None


def test_the_session_of_another_subject_is_ended_first(house: House) -> None:
    """If the second part then fails, somebody is logged out, and nobody is logged in twice."""
    face, bobs, anns = house.face, house.make("bobs", "bob"), house.make("anns", "ann")
    assert house.shard("ann") != house.shard("bob")
    face.done(Insert(record=bobs))
    face.done(Insert(record=house.make("first")))
    login = Insert(record=anns, limit=Limit(1, refuse=True))
    assert face.commit(login, End(handle=bobs.handle, because="superseded")) == Conflict(None, "limit")
    assert face.have(bobs.handle).ended_because == "superseded"
    assert face.load(anns.handle) is None


@pytest.mark.parametrize("lost", [0, 1])
def test_a_commit_cut_between_its_parts_is_finished_by_the_next_try(
    cluster: servers.Cluster, clock: Clock, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    house = House(RedisStore(cluster.url, prefix=next(NAMES), clock=clock, commit_deadline=0.3), clock)
    face, bobs, anns = house.face, house.make("bobs", "bob"), house.make("anns", "ann")
    face.done(Insert(record=bobs))
    changes = [Insert(record=anns, events=(event("made", clock),)), End(handle=bobs.handle, because="superseded")]
    real, calls = Commit._sent, count()

    def failing(self: Commit, tag: str, command: Any) -> Any:
        if next(calls) >= lost:
            message = "cut"
            raise NotApplied(message)
        return (yield from real(self, tag, command))

    with monkeypatch.context() as patched:
        patched.setattr(Commit, "_sent", failing)
        with pytest.raises(NotApplied, match="cut"):
            face.commit(*changes, commit_id=b"login")
    live = [one for one in (bobs, anns) if (found := face.load(one.handle)) is not None and found.ended_at is None]
    assert live == ([bobs] if lost == 0 else [])
    assert face.commit(*changes, commit_id=b"login") is None
    assert (face.have(bobs.handle).ended_because, face.have(anns.handle).ended_at) == ("superseded", None)
    assert len(face.named("made")) == 1
    face.close()


# Subjects.


def test_limits_and_ends_of_others_find_every_session_of_a_subject(house: House) -> None:
    face = house.face
    for number in range(5):
        face.done(Insert(record=house.make(f"h{number}"), limit=Limit(3)))
        face.done(Insert(record=house.make(f"b{number}", f"user-{number}")))
        house.clock.wind(1)
    live = [one.handle[2:] for one in face.find(realm="", subject="ann").items]
    assert live == ["h2", "h3", "h4"]
    assert [one.handle[2:] for one in face.find(realm="", subject="ann", live=False).items] == [
        f"h{n}" for n in range(5)
    ]
    face.done(EndOthers(realm="", subject="ann", keep=(house.handle("h3"),), because="owner"), durable=True)
    assert [one.handle[2:] for one in face.find(realm="", subject="ann").items] == ["h3"]
    assert len(face.find().items) == 6
    slow = house.make("slow", authenticated_at=house.clock.now - 5)
    assert face.commit(Insert(record=slow)) == Conflict(None, "epoch")


def test_everything_is_listed_in_order_over_all_shards(house: House) -> None:
    face = house.face
    for number in range(12):
        face.done(Insert(record=house.make("h", f"u{number}", created_at=house.clock.now - 20 + number)))
        note = event(f"e{number}", house.clock, at=house.clock.now + number // 2, subject=f"u{number}")
        face.done(Note(events=(note,)))
    names, found, cursor = list[str](), list[str | None](), None
    while True:
        page = face.find(limit=5, cursor=cursor)
        found += [one.subject for one in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == [f"u{number}" for number in range(12)]
    while True:
        told = face.events(limit=5, cursor=cursor)
        names += [one.name for one in told.items]
        cursor = told.cursor
        if cursor is None:
            break
    assert sorted(names) == sorted(f"e{number}" for number in range(12))
    times = [int(name[1:]) // 2 for name in names]
    assert times == sorted(times, reverse=True)


def test_purge_walks_every_shard(house: House) -> None:
    face = house.face
    for number in range(10):
        face.done(Insert(record=house.make("h", f"u{number}")))
    face.done(Insert(record=house.make("anonymous", None)))
    house.clock.wind(1800)
    batches = list(iter(lambda: face.purge(4), 0))
    assert sum(batches) == 11
    assert max(batches) <= 4
    assert len(face.named("session_expired")) == 11
    house.clock.wind(8 * 86400)
    assert sum(iter(lambda: face.purge(100), 0)) == 11
    assert face.find(live=False).items == ()
    assert face.forget_events(house.clock.now, 4) == 4
    assert face.forget_events(house.clock.now, 100) == 7


def test_epochs_of_scopes_lie_apart_from_all_shards(house: House) -> None:
    house.face.done(RaiseEpoch(scope="*", events=(event("raised", house.clock),)), durable=True)
    assert house.face.epochs().scopes == {"*": house.clock.now}
    assert len(house.face.named("raised")) == 1


def test_notes_lie_with_those_whom_they_are_about(house: House) -> None:
    about = [{"handle": "zzx"}, {"subject": "ann"}, {}, {"handle": "not a handle"}]
    events = tuple(event(f"n{number}", house.clock, **given) for number, given in enumerate(about))
    for _ in range(2):
        house.face.done(Note(events=events), commit_id=b"n")
    assert len(house.face.events().items) == 4
    assert [one.name for one in house.face.events(handle="zzx").items] == ["n0"]
    assert [one.name for one in house.face.events(realm="", subject="ann").items] == ["n1"]


def test_parallel_logins_of_one_subject_from_two_processes_worth_of_stores(cluster: servers.Cluster) -> None:
    clock, prefix = Clock(time.time()), next(NAMES)
    stores = [RedisStore(cluster.url, prefix=prefix) for _ in range(4)]
    house, problems = House(stores[0], clock), list[BaseException]()

    def work(store: RedisStore, name: str) -> None:
        try:
            for number in range(15):
                store.commit(
                    os.urandom(16), [Insert(record=house.make(f"{name}{number}"), limit=Limit(3))], durable=True
                )
        except Exception as problem:  # noqa: BLE001 - shown below
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(store, "abcd"[at])) for at, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(house.face.find(realm="", subject="ann").items) == 3
    assert len(house.face.events(name="excess_sessions_exceeded").items) == 57
    for store in stores:
        store.close()


def test_all_workers_must_have_the_same_shards(single: servers.Single) -> None:
    prefix = next(NAMES)
    for shards, other in ((SHARDS, 1), (1, SHARDS)):
        first, second = (RedisStore(single.url, prefix=f"{prefix}-{shards}", shards=one) for one in (shards, other))
        first.epochs()
        with pytest.raises(StoreError, match="another number of shards"):
            second.epochs()
        first.close()
        second.close()


def test_a_subject_whose_server_is_away_holds_up_no_other(cluster: servers.Cluster) -> None:
    clock, store = Clock(time.time()), RedisStore(cluster.url, prefix=next(NAMES))
    house, wire = House(store, clock), store._wire
    with wire.queue(("", "ann"), 1):
        for number in range(200):
            with wire.queue(("", f"u{number}"), 0.01):
                pass
        with pytest.raises(NotApplied, match="too many commits about one subject"), wire.queue(("", "ann"), 0.01):
            pass
    assert wire._queues == {}
    house.face.close()


def test_one_server_can_have_shards_too(single: servers.Single, clock: Clock) -> None:
    house = House(RedisStore(single.url, prefix=next(NAMES), shards=SHARDS, clock=clock), clock)
    house.face.done(Insert(record=house.make("h"), limit=Limit(1)))
    assert house.face.have(house.handle("h")).subject == "ann"
    house.clock.wind(1800)
    assert house.face.purge(100) == 1
    house.face.close()


# Slots that move.


def test_a_slot_half_moved_answers_every_load(house: House, cluster: servers.Cluster) -> None:
    face = house.face
    for number in range(6):
        face.done(Insert(record=house.make(f"h{number}")))
    slot = servers.slot_of(house.key(house.handle("h0")))
    source = cluster.master_of(slot)
    target = next(node for node in cluster.masters() if node is not source)
    cluster.begin_move(slot, target)
    try:
        for _ in range(8):
            cluster.move_keys(slot, source, target, most=1)
            assert [face.have(house.handle(f"h{number}")).handle[2:] for number in range(6)] == [
                f"h{n}" for n in range(6)
            ]
            assert face.load(house.handle("nobody")) is None
            for live in (True, False):
                assert len(face.find(realm="", subject="ann", live=live).items) == 6
            face.done(Touch(handle=house.handle("h1"), seen_at=house.clock.wind(1)))
            current = face.have(house.handle("h2"))
            face.done(Update(record=replace(current, data=b"x"), was=current.version))
    finally:
        cluster.end_move(slot, source, target)
    assert face.have(house.handle("h1")).seen_at == house.clock.now
    face.done(EndOthers(realm="", subject="ann", because="owner"), durable=True)
    assert face.find(realm="", subject="ann").items == ()
    cluster.wait_until_healthy()
    cluster.move(slot, source)
    cluster.wait_until_healthy()


def test_a_commit_waits_for_a_slot_that_moves(cluster: servers.Cluster, clock: Clock) -> None:
    house = House(RedisStore(cluster.url, prefix=next(NAMES), clock=clock), clock)
    face = house.face
    for number in range(3):
        face.done(Insert(record=house.make(f"h{number}")))
    slot = servers.slot_of(house.key(house.handle("h0")))
    source = cluster.master_of(slot)
    target = next(node for node in cluster.masters() if node is not source)
    cluster.begin_move(slot, target)
    cluster.move_keys(slot, source, target, most=2)
    threading.Timer(0.3, cluster.end_move, (slot, source, target)).start()
    start = time.monotonic()
    face.done(EndOthers(realm="", subject="ann", because="owner", events=(event("revoked", clock),)), durable=True)
    assert 0.1 < time.monotonic() - start < 2
    assert face.find(realm="", subject="ann").items == ()
    assert len(face.named("revoked")) == 1
    face.close()
    cluster.wait_until_healthy()
    cluster.move(slot, source)
    cluster.wait_until_healthy()


def test_a_slot_that_has_moved_is_asked_at_its_new_owner_from_then_on(
    house: House, cluster: servers.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One redirection is enough: MOVED tells for good, ASK (which the client's MovedError also is) for once."""
    face, handle = house.face, house.handle("h")
    face.done(Insert(record=house.make("h")))
    places = house.store._desk.places
    slot = servers.slot_of(house.key(handle))
    source = cluster.master_of(slot)
    target = next(node for node in cluster.masters() if node is not source)
    cluster.move(slot, target)
    cluster.wait_until_healthy()
    assert places.of(handle[:2])[1] == source.port
    sent: list[bool] = []
    elsewhere = trips.Trip._elsewhere
    monkeypatch.setattr(
        trips.Trip, "_elsewhere", lambda *given, asking: (sent.append(asking), elsewhere(*given, asking=asking))
    )
    for _ in range(3):
        assert face.have(handle).handle == handle
    assert sent == [False]
    assert places.of(handle[:2])[1] == target.port
    cluster.move(slot, source)
    cluster.wait_until_healthy()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_failover_is_survived(make_store: Any) -> None:
    nodes = server_or_skip(lambda: servers.cluster(ours=True, node_timeout=500))
    clock = Clock(time.time())
    house = House(make_store(nodes.url, prefix="failover"), clock)
    records = [house.make("h", f"u{number}") for number in range(20)]
    for record in records:
        house.face.done(Insert(record=record), durable=True)
    time.sleep(0.2)
    nodes.masters()[0].kill()
    until, missing, kinds = time.monotonic() + 20, {one.handle for one in records}, set[type]()
    while missing and time.monotonic() < until:
        for handle in sorted(missing):
            try:
                found = house.face.load(handle)
                house.face.done(Touch(handle=handle, seen_at=clock.now + 1))
            except StoreError as error:
                kinds.add(type(error))
            else:
                assert found is not None
                missing.discard(handle)
    assert missing == set()
    assert kinds <= {NotApplied, Unknown, StoreError}
    house.face.close()
    nodes.stop()


async def test_one_dead_primary_fails_only_its_own_loads(clock: Clock) -> None:
    nodes = server_or_skip(lambda: servers.cluster(ours=True, node_timeout=15000))
    store = AsyncRedisStore(nodes.url, prefix="dead", load_deadline=0.5)
    salt = (await store.epochs()).salt
    records = [make(shard_of(salt, "", f"u{n}") + "h", clock, subject=f"u{n}") for n in range(30)]
    for record in records:
        await store.commit(os.urandom(16), [Insert(record=record)], durable=False)
    dead = nodes.masters()[0]
    slots = {one.handle: nodes.master_of_key(store._desk.keys.record(one.handle)) for one in records}
    dead.pause()
    late = list[str]()

    async def load(handle: str) -> Any:
        start = time.monotonic()
        try:
            return await store.load(handle)
        except StoreError as error:
            return error
        finally:
            if time.monotonic() - start > 0.3:
                late.append(handle)

    found = await asyncio.gather(*(load(one.handle) for one in records))
    dead.resume()
    failed = {one.handle for one, result in zip(records, found, strict=True) if isinstance(result, StoreError)}
    assert failed == {handle for handle, node in slots.items() if node is dead}
    assert failed == set(late)
    assert 0 < len(failed) < 30
    await store.close()
    nodes.stop()


def test_a_node_of_a_cluster_is_no_single_server(cluster: servers.Cluster) -> None:
    for node in cluster.masters()[:2]:
        store = RedisStore(node.url, prefix="wrong")
        if node is not cluster.master_of_key(store._desk.keys.record("h")):
            with pytest.raises(StoreError, match=r"part of a Cluster; name it so: redis\+cluster"):
                store.load("h")
        store.close()
    lone = server_or_skip(servers.single)
    wrong = RedisStore(lone.url.replace("redis://", "redis+cluster://").removesuffix("/0"))
    with pytest.raises(StoreError, match="is no cluster"):
        wrong.load("hh")
    wrong.close()
    lone.stop()


def test_a_client_of_a_cluster_is_taken_over(cluster: servers.Cluster) -> None:
    client = redis.RedisCluster.from_url(cluster.masters()[0].url.removesuffix("/0"))
    store = RedisStore(client=client, prefix=next(NAMES))
    assert store.sharded
    assert store.load("hhh") is None
    store.close()
    client.close()


# Watching.


def test_a_notice_reaches_watchers_at_whatever_node(cluster: servers.Cluster, clock: Clock) -> None:
    house, heard, handles = House(RedisStore(cluster.url, prefix=next(NAMES), clock=clock), clock), list[Any](), []
    stop = house.store.watch(heard.append)
    for number in range(6):
        record = house.make("h", f"u{number}")
        house.face.done(Insert(record=record))
        house.face.done(End(handle=record.handle, because="logout"))
        handles.append(record.handle)
    servers.wait_until(lambda: sorted(heard) == sorted(handles), 5, "the notices")
    stop()
    house.face.close()
