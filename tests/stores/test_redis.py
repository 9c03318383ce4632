"""What the Redis store does beyond the contract, on one server: time-outs, lost answers, limits, keys that all end."""

import asyncio
import datetime as dt
import ipaddress
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from coatcheck.core.errors import ConfigError, NotApplied, StoreError, Unconfirmed, Unknown
from coatcheck.core.model import (
    Client,
    End,
    EndOthers,
    EventQuery,
    Insert,
    Limit,
    Note,
    Query,
    RaiseEpoch,
    Record,
    Touch,
    Update,
)
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.redis import AsyncRedisStore, RedisStore, committing, turns, wire
from coatcheck.stores.redis import format as layout
from coatcheck.stores.redis.faults import broken, code_of, refusal
from coatcheck.stores.redis.keys import SHARDS
from coatcheck.stores.redis.places import target_of, target_of_client
from coatcheck.stores.redis.trips import packed_of
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import TURN, Face, event, full, make
from tests.conftest import server_or_skip
from tests.stores.test_agreement import START, commits
from tests.support.proxy import Proxy
from tests.support.servers import redis as servers
from tests.support.servers.base import free_port

NAMES = (f"more-{number}" for number in count(1))
LIVES = int(os.environ.get("COATCHECK_REDIS_LIVES", "1000"))


@cache
def shared() -> servers.Single:
    return server_or_skip(servers.single)


def shared_url() -> str:
    return shared().url


@pytest.fixture(scope="module")
def single() -> Iterator[servers.Single]:
    yield shared()
    shared().stop()
    shared.cache_clear()


@pytest.fixture
def prefix() -> str:
    return next(NAMES)


@pytest.fixture
def raw(single: servers.Single) -> Iterator[redis.Redis]:
    """Return a plain client of the same server."""
    with redis.Redis.from_url(single.url) as client:
        yield client


@pytest.fixture
def store(single: servers.Single, prefix: str) -> Iterator[RedisStore]:
    store = RedisStore(single.url, prefix=prefix)
    yield store
    store.close()


@pytest.fixture(params=[RedisStore, AsyncRedisStore])
def face(request: pytest.FixtureRequest, single: servers.Single, prefix: str) -> Iterator[Face]:
    face = Face(request.param(single.url, prefix=prefix))
    yield face
    face.close()


@pytest.fixture
def now() -> Clock:
    """Return the real time, standing still."""
    return Clock(time.time())


# Bytes.


def test_a_record_survives_its_bytes(now: Clock) -> None:
    for record in (
        full(now),
        make("h", now, subject=None, client=None, idle_for=None, turn_proof=None, used_at=None, nonce=b""),
        make("h", now, ended_at=now.now, ended_because="logout", successor="n", client=Client(None, "x"), version=7),
    ):
        assert layout.unpack("h", layout.pack(record)) == record


def test_the_header_alone_tells_two_states_apart(now: Clock) -> None:
    record = make("h", now)
    states = [record, replace(record, seen_at=record.seen_at + 1e-6), replace(record, version=2)]
    states += [replace(record, ended_at=now.now, version=2), replace(record, used_at=None)]
    assert len({layout.pack(state)[: layout.HEADER] for state in states}) == len(states)


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x02" * 200, b"\x01" + bytes(56), b"\x01" + bytes(300)])
def test_damaged_bytes_are_a_store_error(value: bytes) -> None:
    with pytest.raises(StoreError, match="'h'"):
        layout.unpack("h", value)


def test_commands_travel_as_the_client_library_would_write_them() -> None:
    commands = [("GET", "schlüssel"), ("EVALSHA", b"\x00\r\n", 5, 1.5, 2**40, ""), ("TIME",)]
    assert packed_of(commands) == b"".join(redis.Connection().pack_commands(commands))


class CountingSocket:
    """A socket's patience, and how often it was set."""

    def __init__(self) -> None:
        self.waits: float | None = None
        self.told = 0

    def gettimeout(self) -> float | None:
        return self.waits

    def settimeout(self, seconds: float) -> None:
        self.waits = seconds
        self.told += 1


def test_a_wait_is_never_longer_than_what_is_left_and_seldom_set_anew() -> None:
    sock = CountingSocket()
    link = SimpleNamespace(_sock=sock)
    for seconds in (0.5, 0.5, 0.5, 0.4, 0.4, 2.0):
        until = time.monotonic() + seconds
        wire.hurry(link, until)
        assert 0.9 * seconds < (sock.waits or 0) <= until - time.monotonic() + 0.005
    assert sock.told == 3
    with pytest.raises(redis.TimeoutError):
        wire.hurry(link, time.monotonic())


def test_another_ones_record_is_refused(now: Clock) -> None:
    with pytest.raises(StoreError, match="with the record of 'other'"):
        layout.unpack("h", layout.pack(make("other", now)))


# Every answer is the ledger's.


@settings(deadline=None, max_examples=int(os.environ.get("COATCHECK_EXAMPLES", "60")))
@given(st.lists(st.tuples(commits, st.booleans()), min_size=3, max_size=20))
def test_redis_and_memory_answer_and_keep_the_same(acts: list[Any]) -> None:
    """Each commit may come twice, and no id comes back later: we keep them for a minute, memory for ever."""
    clock = Clock(START)
    with closing(RedisStore(shared_url(), prefix=next(NAMES), clock=clock)) as store:
        both, heard = (MemoryStore(clock=clock), store), ([], [])
        for one, ears in zip(both, heard, strict=True):
            one.listeners.append(ears.extend)
        for number, ((_, changes, wind, purge), twice) in enumerate(acts):
            for _ in range(1 + twice):
                answers = [one.commit(b"%d" % number, changes, durable=False) for one in both]
                assert answers[0] == answers[1]
            clock.wind(wind)
            if purge:
                assert both[0].purge(100) == both[1].purge(100)
            for asked in ({}, {"realm": "", "subject": "ann"}):
                for live in (True, False):
                    pages = [one.find(Query(live=live, **asked)).items for one in both]
                    assert pages[0] == pages[1]
        logs = [one.events(EventQuery(limit=1000)).items for one in both]
        assert sorted(map(repr, logs[0])) == sorted(map(repr, logs[1]))
        assert sorted(map(repr, heard[0])) == sorted(map(repr, heard[1])) == sorted(map(repr, logs[0]))


# Round trips.


def test_a_touch_and_an_update_alone_are_one_command(store: RedisStore, raw: redis.Redis, now: Clock) -> None:
    store.commit(b"i", [Insert(record=make("h", now))], durable=False)
    record = store.load("h")
    assert record is not None
    for change in (Touch(handle="h", seen_at=now.now + 1), Update(record=replace(record, data=b"x"), was=1)):
        store.commit(b"warm-up", [Touch(handle="nobody", seen_at=now.now)], durable=False)
        store.commit(b"warm-up", [Update(record=make("nobody", now), was=1)], durable=False)
        before = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        gets = raw.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
        store.commit(change.__class__.__name__.encode(), [change], durable=False)
        after = raw.info("commandstats")
        assert (after["cmdstat_evalsha"]["calls"] - before, after["cmdstat_get"]["calls"] - gets) == (1, 0)
    assert store.load("h") == replace(record, data=b"x", version=2, by=b"Update", seen_at=now.now + 1)


def test_scripts_may_be_flushed_between_any_two_calls(face: Face, raw: redis.Redis, now: Clock) -> None:
    changes = [
        Insert(record=make("h", now)),
        Touch(handle="h", seen_at=now.now + 1),
        Update(record=make("h", now, data=b"x"), was=1),
        End(handle="h", because="logout"),
    ]
    for change in changes:
        raw.script_flush()
        face.done(change)
    assert (face.have("h").version, face.have("h").ended_because) == (3, "logout")


# Lifetimes.


def lives(raw: redis.Redis, prefix: str) -> dict[bytes, int]:
    keys = list(raw.scan_iter(f"{prefix}:*", count=1000))
    with raw.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.pttl(key)
        return dict(zip(keys, pipeline.execute(), strict=True))


@pytest.mark.timeout(120 + LIVES // 50)
def test_every_key_has_an_end_and_after_it_nothing_is_left(
    single: servers.Single, raw: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FACTS_KEPT", "NOISE_KEPT"):
        monkeypatch.setattr(f"coatcheck.stores.redis.plan.{name}", 1.0)
    for name in ("MARK_KEPT", "NOTE_KEPT"):
        monkeypatch.setattr(committing, name, 1.0)
    store = RedisStore(single.url, prefix=prefix, tombstone=0.5)
    store._desk.settings = replace(store._desk.settings, epoch_kept=1.0)
    chance = random.Random(5)
    for number in range(LIVES):
        clock, handle, subject = Clock(time.time()), f"s{number}", f"u{chance.randrange(max(2, LIVES // 5))}"
        made = (event("session_created", clock, handle=handle),)
        life = {"idle_for": 0.3, "expires_at": clock.now + chance.choice([0.4, 1.5])}
        owner = chance.choice([subject, subject, None])
        record = make(handle, clock, subject=owner, used_at=None, **life)
        store.commit(os.urandom(16), [Insert(record=record, limit=Limit(3), events=made)], durable=False)
        fate = chance.randrange(5)
        if fate == 0:
            sight = Touch(handle=handle, seen_at=clock.now + 0.1, turn_proof=chance.choice([TURN, None]))
            store.commit(os.urandom(16), [sight], durable=False)
        elif fate == 1:
            store.commit(os.urandom(16), [Update(record=replace(record, data=b"x"), was=1)], durable=False)
        elif fate == 2:
            store.commit(os.urandom(16), [End(handle=handle, because="logout", events=made)], durable=True)
        elif fate == 3 and number % 20 == 0:
            ending = EndOthers(realm="", subject=subject, because="owner", events=(event("revoked", clock),))
            store.commit(os.urandom(16), [ending], durable=True)
        if number % 50 == 0:
            store.commit(os.urandom(16), [Note(events=(event("noise", clock, noise=True),))], durable=False)
            store.purge(100)
        if number % max(250, LIVES // 20) == 7:
            without = {key for key, left in lives(raw, prefix).items() if left == -1}
            assert without <= {f"{prefix}:{{.}}:store".encode()}
    assert len(lives(raw, prefix)) > 10
    until = time.monotonic() + 10
    while lives(raw, prefix).keys() - {f"{prefix}:{{.}}:store".encode()} and time.monotonic() < until:
        time.sleep(0.2)
    assert lives(raw, prefix).keys() <= {f"{prefix}:{{.}}:store".encode()}
    store.close()


def test_a_touch_prolongs_the_life_of_the_key(store: RedisStore, raw: redis.Redis, prefix: str, now: Clock) -> None:
    store.commit(b"i", [Insert(record=make("h", now, seen_at=now.now - 1000))], durable=False)
    key = f"{prefix}:{{.}}:s:h"
    assert raw.pttl(key) / 1000 == pytest.approx(800 + 7 * 86400, abs=5)
    store.commit(b"t", [Touch(handle="h", seen_at=now.now)], durable=False)
    assert raw.pttl(key) / 1000 == pytest.approx(1800 + 7 * 86400, abs=5)
    store.commit(b"e", [End(handle="h", because="logout")], durable=False)
    assert raw.pttl(key) / 1000 == pytest.approx(7 * 86400, abs=5)


def test_an_epoch_outlives_every_session_that_it_could_have_to_refuse(
    store: RedisStore, raw: redis.Redis, prefix: str
) -> None:
    store.commit(b"e", [EndOthers(realm="", subject="ann", because="owner")], durable=True)
    (key,) = raw.keys(f"{prefix}:*:m:*")
    assert raw.pttl(key) / 1000 == pytest.approx(400 * 86400, abs=5)
    clock = Clock(time.time())
    store.commit(
        b"i", [Insert(record=make("h", clock, expires_at=clock.now + 500 * 86400, idle_for=None))], durable=False
    )
    assert raw.pttl(key) / 1000 == pytest.approx(507 * 86400, abs=5)
    store.commit(b"j", [Insert(record=make("short", clock, expires_at=clock.now + 60))], durable=False)
    assert raw.pttl(key) / 1000 == pytest.approx(507 * 86400, abs=5)


def test_names_of_subjects_stand_in_no_key(store: RedisStore, raw: redis.Redis, prefix: str, now: Clock) -> None:
    store.commit(b"i", [Insert(record=make("h", now, subject="ann@example.org"), limit=Limit(1))], durable=False)
    store.commit(b"e", [EndOthers(realm="", subject="ann@example.org", because="owner")], durable=False)
    keys = raw.keys(f"{prefix}:*")
    assert len(keys) >= 4
    assert not [key for key in keys if b"ann" in key]


def test_what_only_led_to_a_dead_record_is_swept_up(
    store: RedisStore, raw: redis.Redis, prefix: str, now: Clock
) -> None:
    for name in ("a", "b"):
        store.commit(name.encode(), [Insert(record=make(name, now))], durable=False)
    raw.delete(f"{prefix}:{{.}}:s:a")
    assert [one.handle for one in store.find(Query(realm="", subject="ann")).items] == ["b"]
    store.commit(b"c", [Insert(record=make("c", now), limit=Limit(2, refuse=True))], durable=False)
    (index,) = raw.keys(f"{prefix}:*:l:*")
    assert set(raw.zrange(index, 0, -1)) == {b"b", b"c"}


def test_a_subject_has_a_thousand_sessions_at_most(
    store: RedisStore, now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "committing"):
        monkeypatch.setattr(f"coatcheck.stores.redis.{module}.MOST_SESSIONS", 5)
    for number in range(7):
        record = make(f"h{number}", now, authenticated_at=now.now + number)
        store.commit(b"%d" % number, [Insert(record=record)], durable=False)
    assert [one.handle for one in store.find(Query(realm="", subject="ann")).items] == ["h2", "h3", "h4", "h5", "h6"]
    gone = store.load("h0")
    assert gone is not None
    assert gone.ended_because == "limit"


def test_the_index_of_ended_sessions_is_bounded(
    store: RedisStore, raw: redis.Redis, prefix: str, now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coatcheck.stores.redis.plan.MOST_SESSIONS", 5)
    for number in range(8):
        store.commit(b"i%d" % number, [Insert(record=make(f"h{number}", now))], durable=False)
        store.commit(b"e%d" % number, [End(handle=f"h{number}", because="logout")], durable=False)
    (index,) = raw.keys(f"{prefix}:*:e:*")
    assert raw.zrange(index, 0, -1) == [b"h3", b"h4", b"h5", b"h6", b"h7"]
    assert raw.keys(f"{prefix}:*:l:*") == []


# Lost answers.


class Cut:
    """A proxy between store and server; told to, it lets a command pass, loses its answer, and may then refuse all."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        self.lose, self.close_then = b"", False
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while request := client.recv(2**20):
                losing = bool(self.lose) and self.lose in request
                server.sendall(request)
                answer = server.recv(2**20)
                if losing:
                    self.lose, self.lost = b"", self.lost + 1
                    if self.close_then:
                        self.close()
                    return
                client.sendall(answer)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def cut(single: servers.Single) -> Iterator[Cut]:
    cut = Cut(port_of(single.url))
    yield cut
    cut.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_lost_answer_is_not_forgotten_when_the_next_try_is_refused(
    make_store: Any, cut: Cut, prefix: str, now: Clock
) -> None:
    face = Face(make_store(cut.url, prefix=prefix, commit_deadline=0.3))
    assert face.load("h") is None
    cut.lose, cut.close_then = b"EVAL", True
    with pytest.raises(Unknown, match="failed"):
        face.done(Insert(record=make("h", now)))
    face.close()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_commit_whose_answer_is_lost_is_applied_and_told_once(
    make_store: Any, cut: Cut, prefix: str, now: Clock
) -> None:
    face = Face(make_store(cut.url, prefix=prefix))
    heard: list[str] = []
    face.store.listeners.append(lambda events: heard.extend(one.name for one in events))
    changes = [
        Insert(record=make("h", now), events=(event("made", now),)),
        Insert(record=make("i", now), limit=Limit(1), events=(event("made", now),)),
        Update(record=make("i", now, data=b"x"), was=1),
        Update(record=make("i", now, data=b"y"), was=2, events=(event("renewed", now),)),
        Touch(handle="i", seen_at=now.now + 0.5, events=(event("touched", now),)),
        Note(events=(event("noted", now),)),
        RaiseEpoch(scope="*", events=(event("raised", now),)),
        EndOthers(realm="", subject="ann", because="owner", events=(event("revoked", now),)),
    ]
    for number, change in enumerate(changes):
        cut.lose = b"EVAL"
        face.done(change, durable=number % 2 == 0)
        assert cut.lost == number + 1
    expected = ["excess_sessions_exceeded", "made", "made", "noted", "raised", "renewed", "revoked", "session_revoked"]
    assert sorted(one.name for one in face.events().items) == sorted([*expected, "touched"])
    assert sorted(heard) == sorted([*expected, "touched"])
    assert (face.have("i").version, face.have("i").ended_because) == (4, "owner")
    face.close()


def test_an_update_that_was_overtaken_after_its_answer_was_lost_conflicts(
    store: RedisStore, cut: Cut, prefix: str, now: Clock
) -> None:
    store.commit(b"i", [Insert(record=make("h", now))], durable=False)
    through = RedisStore(cut.url, prefix=prefix)
    record = store.load("h")
    assert record is not None
    mine, theirs = (Update(record=replace(record, data=data), was=was) for data, was in ((b"mine", 1), (b"theirs", 2)))
    assert through.commit(b"mine", [mine], durable=False) is None
    store.commit(b"theirs", [theirs], durable=False)
    conflict = through.commit(b"mine", [mine], durable=False)
    assert conflict is not None
    assert (conflict.why, store.load("h").data) == ("version", b"theirs")  # type: ignore[union-attr]
    through.close()


# Deadlines.


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Return the URL of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:
        yield f"redis://127.0.0.1:{hole.getsockname()[1]}/0"


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_black_hole_costs_an_error_within_the_deadline(make_store: Any, black_hole: str, now: Clock) -> None:
    face = Face(make_store(black_hole, load_deadline=0.2, commit_deadline=0.4))
    for act, most in ((lambda: face.load("h"), 0.2), (lambda: face.done(Insert(record=make("h", now))), 0.4)):
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"did not answer") as caught:
            act()
        assert time.monotonic() - start < most + 0.15
        assert not caught.value.unsure
    face.close()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_server_that_falls_silent_after_a_commit_was_sent_leaves_it_unknown(make_store: Any, now: Clock) -> None:
    server = server_or_skip(servers.single)
    face = Face(make_store(server.url, load_deadline=0.2, commit_deadline=0.4))
    face.done(Insert(record=make("h", now)))
    (node,) = server.nodes.values()
    node.pause()
    start = time.monotonic()
    with pytest.raises(Unknown, match="may have been applied"):
        face.done(Update(record=make("h", now), was=1))
    with pytest.raises(StoreError, match=r"in time|within") as caught:
        face.load("h")
    assert not caught.value.unsure
    assert time.monotonic() - start < 1.0
    node.resume()
    assert face.have("h").data == b"\x01data"
    face.close()
    server.stop()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_restarted_server_is_met_again_without_an_error(make_store: Any, now: Clock) -> None:
    server = server_or_skip(servers.single)
    face = Face(make_store(server.url))
    (node,) = server.nodes.values()
    for name in "ab":
        face.done(Insert(record=make(name, now)))
        assert face.load(name) is not None
        node.restart()
        assert face.load(name) is None
    face.close()
    server.stop()


def test_an_exhausted_pool_waits_and_then_says_so(single: servers.Single, prefix: str, raw: redis.Redis) -> None:
    store = RedisStore(single.url, prefix=prefix, pool_size=1, load_deadline=0.3)
    assert store.load("h") is None
    pool = next(iter(store._wire._pools.values()))
    assert pool.enter(0)
    with pytest.raises(StoreError, match=r"were busy.*raise pool_size"):
        store.load("h")
    threading.Timer(0.1, pool.leave).start()
    assert store.load("h") is None
    store.close()


async def test_more_tasks_than_connections_wait_their_turn(single: servers.Single, prefix: str) -> None:
    clock, store = Clock(time.time()), AsyncRedisStore(single.url, prefix=prefix, pool_size=2)
    records = [make(f"h{number}", clock, subject=None) for number in range(50)]
    await asyncio.gather(*(store.commit(os.urandom(16), [Insert(record=one)], durable=False) for one in records))
    found = await asyncio.gather(*(store.load(one.handle) for one in records))
    assert [one.handle for one in found if one] == [one.handle for one in records]
    assert len(next(iter(store._here().wire._pools.values()))._idle) <= 2
    await store.close()


def test_a_full_server_refuses_and_writes_nothing(now: Clock) -> None:
    server = server_or_skip(lambda: servers.single(maxmemory="3mb", maxmemory_policy="noeviction"))
    store = RedisStore(server.url, commit_deadline=1)

    def fill() -> None:
        for number in range(1000):
            record = make(f"h{number}", now, data=os.urandom(10_000))
            store.commit(os.urandom(16), [Insert(record=record)], durable=False)

    with pytest.raises(NotApplied, match="no memory left"):
        fill()
    store.close()
    server.stop()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_refusal_stays_one_though_the_last_try_would_come_too_late(now: Clock, make_store: Any) -> None:
    """A try that cannot end in time would turn "nothing was written" into "nobody knows"; it is not begun."""
    server = server_or_skip(lambda: servers.single(maxmemory="3mb", maxmemory_policy="noeviction"))
    with servers.client(server.port) as admin, suppress(redis.ResponseError):
        for number in range(1000):
            admin.set(f"ballast-{number}", "x" * 10_000)
    with Proxy("127.0.0.1", server.port) as network:
        face = Face(make_store(network.url(server.url), commit_deadline=0.5))
        with suppress(NotApplied):
            face.commit(Insert(record=make("warm", now)))
        network.delay(0.02)
        for number in range(8):
            with pytest.raises(NotApplied, match="no memory left"):
                face.commit(Insert(record=make(f"h{number}", now, data=bytes(5_000))))
        network.heal()
        face.close()
    server.stop()


# Tasks, threads, forks.


async def test_a_storm_of_cancellations_never_mixes_up_two_records(single: servers.Single, prefix: str) -> None:
    clock, store, chance = Clock(time.time()), AsyncRedisStore(single.url, prefix=prefix), random.Random(7)
    handles = [f"h{number}" for number in range(40)]
    for handle in handles:
        record = make(handle, clock, subject=handle, data=handle.encode())
        await store.commit(os.urandom(16), [Insert(record=record)], durable=False)

    async def read() -> None:
        handle = chance.choice(handles)
        record = await store.load(handle)
        assert record is not None
        assert (record.handle, record.data[: len(handle)]) == (handle, handle.encode())

    async def write() -> None:
        handle = chance.choice(handles)
        record = await store.load(handle)
        assert record is not None
        update = Update(record=replace(record, data=record.data + b"."), was=record.version)
        await store.commit(os.urandom(16), [update], durable=False)
        await store.find(Query(realm="", subject=handle))

    failed = 0
    for _ in range(40):
        tasks = [asyncio.create_task(chance.choice((read, write))()) for _ in range(30)]
        for task in tasks[::3]:
            asyncio.get_running_loop().call_later(chance.random() * 0.004, task.cancel)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            failed += isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError)
    assert failed == 0
    await store.close()


async def test_a_cancelled_commit_is_decided_before_its_caller_learns_it(single: servers.Single, prefix: str) -> None:
    clock = Clock(time.time())
    with Proxy("127.0.0.1", port_of(single.url)) as network:
        store = AsyncRedisStore(network.url(single.url), prefix=prefix)
        direct = AsyncRedisStore(single.url, prefix=prefix)
        await store.load("h")
        network.delay(0.05)
        for number in range(3):
            insert = Insert(record=make(f"h{number}", clock))
            task = asyncio.create_task(store.commit(os.urandom(16), [insert], durable=True))
            await asyncio.sleep(0.02 + 0.06 * number)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await direct.load(f"h{number}") is not None
        network.heal()
        await store.close()
        await direct.close()


@pytest.mark.parametrize("shards", [1, SHARDS])
def test_the_sessions_of_a_subject_are_one_trip(single: servers.Single, prefix: str, shards: int) -> None:
    clock = Clock(time.time())
    with Proxy("127.0.0.1", port_of(single.url)) as network:
        store = RedisStore(network.url(single.url), prefix=prefix, shards=shards)
        tag = store._desk.keys.tag_of(store.epochs().salt, ("", "ann"))
        handles = [f"{tag if shards > 1 else ''}h{number:03}" for number in range(12)]
        for handle in handles:
            insert = Insert(record=make(handle, clock, created_at=clock.wind(0.001), subject="ann"))
            assert store.commit(os.urandom(16), [insert], durable=False) is None
        asked = []
        for _ in range(4):
            before = network.requests
            assert [record.handle for record in store.find(Query(realm="", subject="ann")).items] == handles
            asked.append(network.requests - before)
        store.close()
    # the least: the store may do its housework beside it
    assert min(asked) == 1


def test_a_listing_reads_on_where_the_script_stops(single: servers.Single, prefix: str) -> None:
    clock, store = Clock(time.time()), RedisStore(single.url, prefix=prefix)
    handles = [f"h{number:03}" for number in range(520)]
    for handle in handles:
        insert = Insert(record=make(handle, clock, created_at=clock.wind(0.001), subject="ann"))
        assert store.commit(os.urandom(16), [insert], durable=False) is None
    assert [record.handle for record in store.find(Query(realm="", subject="ann", limit=600)).items] == handles
    store.close()


def test_under_uvloop_a_connection_that_was_closed_is_our_error_too(single: servers.Single, prefix: str) -> None:
    """It says RuntimeError where asyncio's own transport says nothing; whoever loads must hear of a StoreError."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not for this platform")

    async def talk() -> None:
        store = AsyncRedisStore(single.url, prefix=prefix)
        assert await store.load("h") is None
        (pool,) = store._here().wire._pools.values()
        for link in pool._idle:
            link._writer.transport.abort()
        await asyncio.sleep(0.01)
        assert await store.load("h") is None, "another connection was there to be made"
        await store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as run:
        run.run(talk())


async def test_one_damaged_record_among_64_fails_its_own_caller_only(
    single: servers.Single, raw: redis.Redis, prefix: str
) -> None:
    clock, store = Clock(time.time()), AsyncRedisStore(single.url, prefix=prefix)
    handles = [f"h{number}" for number in range(64)]
    for handle in handles:
        await store.commit(os.urandom(16), [Insert(record=make(handle, clock, subject=None))], durable=False)
    raw.setrange(f"{prefix}:{{.}}:s:h5", 0, b"\x09")
    raw.delete(f"{prefix}:{{.}}:s:h6")
    raw.rpush(f"{prefix}:{{.}}:s:h6", "not a string")
    raw.copy(f"{prefix}:{{.}}:s:h8", f"{prefix}:{{.}}:s:h7", replace=True)
    before = raw.info("stats")["total_commands_processed"]
    found = await asyncio.gather(*(store.load(handle) for handle in handles), return_exceptions=True)
    assert [number for number, one in enumerate(found) if isinstance(one, StoreError)] == [5, 6, 7]
    good = [one.handle for one in found if isinstance(one, Record)]
    assert good == [handle for number, handle in enumerate(handles) if number not in (5, 6, 7)]
    assert raw.info("stats")["total_commands_processed"] - before < 70
    await store.close()


def test_two_loops_in_two_threads_share_a_store(single: servers.Single, prefix: str) -> None:
    store, problems = AsyncRedisStore(single.url, prefix=prefix), list[BaseException]()

    async def work(name: str) -> None:
        clock = Clock(time.time())
        for number in range(50):
            handle = f"{name}{number}"
            await store.commit(os.urandom(16), [Insert(record=make(handle, clock))], durable=False)
            loaded = await asyncio.gather(store.load(handle), store.load(f"{name}0"))
            assert [one.handle for one in loaded if one] == [handle, f"{name}0"]
        await store.close()

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except Exception as problem:  # noqa: BLE001 - shown below
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_forked_child_opens_connections_of_its_own(make_store: Any, single: servers.Single, prefix: str) -> None:
    clock, face = Clock(time.time()), Face(make_store(single.url, prefix=prefix))
    face.done(Insert(record=make("parent", clock)))
    read, write = os.pipe()
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                face = face if make_store is RedisStore else Face(face.store)
                os.read(read, 1)
                for turn in range(30):
                    name = f"c{number}-{turn}"
                    face.done(Insert(record=make(name, clock)))
                    assert face.have(name).handle == name
                    assert face.have("parent").handle == "parent"
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.write(write, b"....")
    for turn in range(30):
        face.done(Insert(record=make(f"p-{turn}", clock)))
        assert face.have(f"p-{turn}").handle == f"p-{turn}"
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert face.have("c3-29").handle == "c3-29"
    os.close(read)
    os.close(write)
    face.close()


def test_threads_share_a_store(store: RedisStore, now: Clock) -> None:
    problems: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(40):
                handle = f"{name}{number}"
                store.commit(os.urandom(16), [Insert(record=make(handle, now), limit=Limit(3))], durable=False)
                record = store.load(handle)
                assert record is not None
                assert record.handle == handle
        except Exception as problem:  # noqa: BLE001 - shown below
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(f"t{number}-",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(store.find(Query(realm="", subject="ann")).items) == 3


# Watching.


def wait_for(true: Any) -> None:
    servers.wait_until(true, 5, "a notice")


def test_watchers_hear_of_changes_but_not_of_sights(store: RedisStore, now: Clock) -> None:
    heard: list[str | None] = []
    stop = store.watch(heard.append)
    store.commit(b"1", [Insert(record=make("a", now))], durable=False)
    store.commit(b"2", [Insert(record=make("b", now))], durable=False)
    store.commit(b"3", [Touch(handle="a", seen_at=now.now + 1)], durable=False)
    store.commit(b"4", [Update(record=make("a", now, data=b"x"), was=1)], durable=False)
    store.commit(b"5", [Update(record=make("a", now), was=2, events=(event("renewed", now),))], durable=True)
    store.commit(b"6", [End(handle="a", because="logout")], durable=True)
    store.commit(b"7", [EndOthers(realm="", subject="ann", because="owner")], durable=True)
    wait_for(lambda: heard == ["a", "a", "a", "b"])
    stop()
    store.commit(b"8", [Insert(record=make("c", now)), End(handle="c", because="logout")], durable=False)
    time.sleep(0.05)
    assert len(heard) == 4


def test_a_watcher_who_was_cut_off_is_told_to_look_at_everything(
    store: RedisStore, raw: redis.Redis, now: Clock
) -> None:
    heard: list[str | None] = []
    stop = store.watch(heard.append)
    raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for(lambda: heard == [None])
    store.commit(b"1", [Insert(record=make("a", now))], durable=False)
    store.commit(b"2", [End(handle="a", because="logout")], durable=False)
    wait_for(lambda: heard == [None, "a"])
    stop()


async def test_async_watchers_hear_the_same(single: servers.Single, raw: redis.Redis, prefix: str) -> None:
    clock, store = Clock(time.time()), AsyncRedisStore(single.url, prefix=prefix)
    heard: list[str | None] = []

    async def until(expected: list[str | None]) -> None:
        async with asyncio.timeout(5):
            while heard != expected:  # noqa: ASYNC110 - a store knows no event
                await asyncio.sleep(0.01)

    stop = await store.watch(heard.append)
    await store.commit(b"1", [Insert(record=make("a", clock))], durable=False)
    await store.commit(b"2", [End(handle="a", because="logout")], durable=False)
    await until(["a"])
    raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(["a", None])
    stop()
    await store.close()


def test_a_watch_on_a_server_that_is_away_is_an_error() -> None:
    store = RedisStore("redis://127.0.0.1:1", commit_deadline=0.2)
    with pytest.raises(StoreError, match="no subscription"):
        store.watch(lambda handle: None)


# The keeper.


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_the_keeper_ends_what_is_overdue(
    make_store: Any, single: servers.Single, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "EVERY", 0.05)
    clock, heard = Clock(time.time()), list[str]()
    face = Face(make_store(single.url, prefix=prefix))
    face.store.listeners.append(lambda events: heard.extend(one.name for one in events))
    for number in range(3):
        face.done(Insert(record=make(f"h{number}", clock, seen_at=clock.now - 1801)))

    def tidied() -> bool:
        if make_store is AsyncRedisStore:
            face._runner.run(asyncio.sleep(0.02))  # type: ignore[union-attr]
        return heard == ["session_expired"] * 3

    servers.wait_until(tidied, 10, "the keeper")
    assert face.have("h0").ended_because == "idle"
    face.close()


def test_of_all_keepers_one_has_its_turn(single: servers.Single, prefix: str) -> None:
    stores = [RedisStore(single.url, prefix=prefix) for _ in range(3)]
    assert [store.turn(0.2) for store in stores] == [True, False, False]
    time.sleep(0.25)
    assert stores[2].turn(0.2)
    for store in stores:
        store.close()


# Servers that will not do.


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_server_that_evicts_is_refused(make_store: Any) -> None:
    server = server_or_skip(lambda: servers.single(maxmemory="50mb", maxmemory_policy="allkeys-lru"))
    face = Face(make_store(server.url))
    with pytest.raises(StoreError, match=r"evicts keys.*allkeys-lru.*set maxmemory-policy noeviction"):
        face.load("h")
    (node,) = server.nodes.values()
    node.client.config_set("maxmemory-policy", "noeviction")
    assert face.load("h") is None
    face.close()
    server.stop()


def test_a_replica_is_refused() -> None:
    pair = server_or_skip(servers.replicated)
    replica = pair.nodes["replica1"]
    store = RedisStore(replica.url, load_deadline=0.1)
    with pytest.raises(StoreError, match="is a replica; name the primary"):
        store.load("h")
    store.close()
    pair.stop()


def locked(server: servers.Single, password: str) -> None:
    (node,) = server.nodes.values()
    node.client.config_set("requirepass", password)


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_what_is_wrong_is_said_in_a_sentence(make_store: Any, now: Clock) -> None:
    server = server_or_skip(servers.single)
    locked(server, "secret")
    port = server.url.rpartition(":")[2]

    def said(url: str) -> str:
        face = Face(make_store(url, load_deadline=0.2))
        with pytest.raises(StoreError) as caught:
            face.load("h")
        face.close()
        return str(caught.value)

    assert "wants a password" in said(server.url)
    assert "does not accept this user name and password" in said(f"redis://:wrong@127.0.0.1:{port}")
    assert "secret" not in said(f"redis://nobody:secret@127.0.0.1:{port}")
    assert "failed" in (refused := said("redis://127.0.0.1:1/0"))
    assert "127.0.0.1:1" in refused
    with socket.create_server(("127.0.0.1", 0)) as http:
        clients = []

        def answer() -> None:
            with suppress(OSError):
                while True:
                    clients.append(http.accept()[0])
                    clients[-1].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert "does not speak as Redis does" in said(f"redis://127.0.0.1:{http.getsockname()[1]}")
        http.close()
    server.stop()


def test_a_password_opens_the_door(now: Clock) -> None:
    server = server_or_skip(servers.single)
    locked(server, "s3cr:t/@")
    port = server.url.rpartition(":")[2]
    store = RedisStore(f"valkey://:s3cr%3At%2F%40@127.0.0.1:{port}")
    assert store.load("h") is None
    store.close()
    server.stop()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_a_user_needs_no_dangerous_commands(make_store: Any, single: servers.Single, prefix: str, now: Clock) -> None:
    (node,) = single.nodes.values() or pytest.skip("not our server")
    rights = ["on", ">pw", f"~{prefix}:*", f"&{prefix}:*", "+@all", "-@dangerous", "-@admin"]
    node.client.execute_command("ACL", "SETUSER", "sessions", *rights)
    face = Face(make_store(single.url.replace("redis://", "redis://sessions:pw@"), prefix=prefix))
    face.done(Insert(record=make("h", now), limit=Limit(1)))
    face.done(EndOthers(realm="", subject="ann", because="owner"), durable=True)
    assert [one.handle for one in face.find(live=False).items] == ["h"]
    other = RedisStore(single.url.replace("redis://", "redis://sessions:pw@"), prefix="elsewhere")
    with pytest.raises(StoreError, match="this user may not"):
        other.load("h")
    other.close()
    face.close()


@pytest.mark.parametrize("make_store", [RedisStore, AsyncRedisStore])
def test_tls_is_spoken_and_certificates_are_checked(make_store: Any, tmp_path: Path, now: Clock) -> None:
    certificate, key = self_signed(tmp_path)
    tls = {"tls_port": (port := free_port()), "tls_cert_file": certificate, "tls_key_file": key}
    server = server_or_skip(lambda: servers.single("redis", **tls, tls_auth_clients="no"))
    trusting = Face(make_store(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"))
    trusting.done(Insert(record=make("h", now)))
    assert trusting.have("h").handle == "h"
    trusting.close()
    wary = Face(make_store(f"rediss://127.0.0.1:{port}", load_deadline=0.3))
    with pytest.raises(StoreError, match="no certificate that we trust"):
        wary.load("h")
    wary.close()
    server.stop()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(begin).not_valid_after(begin + dt.timedelta(days=9))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        made.add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return files


# URLs, clients, options.


def test_urls_name_servers() -> None:
    assert target_of("redis://h:1/3")[:2] == ("single", (("h", 1),))
    assert target_of("redis://h:1/3").options == {"db": 3}
    assert target_of("rediss://ann:pw@h").tls
    assert target_of("valkeys://h").tls
    assert target_of("rediss://h?ssl_ca_certs=/etc/ca.pem&db=4").options == {"ssl_ca_certs": "/etc/ca.pem", "db": 4}
    assert target_of("rediss://ann:p%40w@h").options == {"username": "ann", "password": "p@w"}
    assert target_of("unix:///run/redis.sock?db=2")[:3] == ("single", (("/run/redis.sock", 0),), {"db": 2})
    watched = target_of("redis+sentinel://:pw@a:1,b/main/2")
    assert watched[:2] == ("sentinel", (("a", 1), ("b", 26379)))
    assert (watched.name, watched.options) == ("main", {"password": "pw", "db": 2})
    assert target_of("valkey+cluster://a,[::1]:7,c")[:2] == ("cluster", (("a", 6379), ("::1", 7), ("c", 6379)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h", "no scheme of a Redis store"),
        ("redis://a,b", "names one server"),
        ("redis+sentinel://a,b", "ends with the name"),
        ("redis+cluster://a/3", "one database"),
        ("redis://", "names a host"),
        ("redis://h:port", "no host and port"),
        ("redis://h?socket_timeout=x", "option"),
        ("redis://h?nonsense=1", "no option 'nonsense'"),
    ],
)
def test_a_url_that_is_not_ours_is_refused_when_the_store_is_built(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RedisStore(url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prefix": "a{b}"}, "prefix"),
        ({"shards": 7}, "shards is 1 or 4096"),
        ({"wait_replicas": -1}, "wait_replicas"),
        ({"pool_size": 0}, "pool_size"),
        ({"colour": "red"}, "no option 'colour'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RedisStore("redis://h", **options)


def test_a_store_needs_a_url_or_a_client() -> None:
    for url in (None, "redis://h"):
        with pytest.raises(ConfigError, match="a URL or a client"):
            RedisStore(url, client=redis.Redis() if url else None)
    with pytest.raises(ConfigError, match="client is"):
        RedisStore(client=object())


def test_the_settings_of_a_client_are_taken_over(single: servers.Single, prefix: str) -> None:
    client = redis.Redis.from_url(single.url, socket_timeout=99, decode_responses=True)
    store = RedisStore(client=client, prefix=prefix)
    assert store.load("h") is None
    store.close()
    given = redis.Redis(host="h", port=5, password="pw", ssl=True, db=2)
    target = target_of_client(given)
    assert (target.seeds, target.tls, target.options["password"], target.options["db"]) == ((("h", 5),), True, "pw", 2)
    sentinel = redis.Sentinel([("s", 1)], password="pw").master_for("main")
    assert target_of_client(sentinel)[:2] == ("sentinel", (("s", 1),))
    assert target_of_client(sentinel).name == "main"


def test_a_handle_that_is_none_never_becomes_a_key(
    store: RedisStore, raw: redis.Redis, prefix: str, now: Clock
) -> None:
    for odd in ("", "a b", "{x}", "h\n", "ä", "x" * 65, "a:b"):
        assert store.load(odd) is None
        assert store.find(Query(handle=odd)).items == ()
        assert store.events(EventQuery(handle=odd)).items == ()
        store.commit(b"t", [Touch(handle=odd, seen_at=now.now)], durable=False)
        store.commit(b"e", [End(handle=odd, because="logout")], durable=True)
        with pytest.raises(StoreError, match="a handle is letters"):
            store.commit(b"i", [Insert(record=make(odd, now))], durable=False)
    assert raw.keys(f"{prefix}:*") == []


# The table of errors.


def test_the_table_of_errors() -> None:
    where, error = ("h", 1), redis.exceptions
    refusals = [
        error.ClusterDownError("Hash slot not served"),
        error.TryAgainError("Multiple keys request during rehashing of slot"),
        error.ReadOnlyError("You can't write against a read only replica."),
        error.ResponseError("NOREPLICAS Not enough good replicas to write."),
        error.ResponseError("BUSY Redis is busy running a script."),
        error.ResponseError("MISCONF Errors writing to the AOF file"),
        error.ResponseError("ERR Error running script: Script attempted to access a non local key in a cluster node"),
        error.ResponseError("max number of clients reached"),
        error.ResponseError("Error running script: -READONLY You can't write against a read only replica."),
    ]
    assert [type(refusal(one, where)) for one in refusals] == [NotApplied] * len(refusals)
    for one in (error.NoPermissionError("no"), error.AuthenticationError("invalid username-password pair")):
        found = refusal(one, where)
        assert type(found) is StoreError
    assert refusal(error.ResponseError("WRONGTYPE Operation against a key"), where) is None
    assert code_of(error.AuthenticationError("Authentication required.")) == "NOAUTH"
    reset = error.ConnectionError("Connection reset by peer")
    assert type(broken(reset, where, sent=True, decides=True)) is Unknown
    assert type(broken(reset, where, sent=True, decides=False)) is NotApplied
    assert type(broken(reset, where, sent=False, decides=True)) is NotApplied
    assert type(broken(error.TimeoutError(), where, sent=True, decides=True)) is Unknown
    assert type(broken(error.BusyLoadingError("loading"), where, sent=True, decides=True)) is NotApplied


# Replicas.


def test_a_commit_that_replicas_do_not_confirm_is_unconfirmed_each_time(now: Clock) -> None:
    pair = server_or_skip(servers.replicated)
    store = RedisStore(pair.url, wait_replicas=1, commit_deadline=0.8)
    store.commit(b"i", [Insert(record=make("h", now))], durable=True)
    update = Update(record=make("h", now, data=b"x"), was=1)
    pair.nodes["replica1"].pause()
    store.commit(b"plain", [Touch(handle="h", seen_at=now.now + 1)], durable=False)
    heard: list[str] = []
    store.listeners.append(lambda events: heard.extend(one.name for one in events))
    note = Note(events=(event("noted", now),))
    for _ in range(2):
        with pytest.raises(Unconfirmed):
            store.commit(b"n", [note], durable=True)
    assert heard == ["noted"]
    for change, name in ((update, b"u"), (update, b"u"), (End(handle="h", because="logout"), b"e")) * 2:
        # each try over another connection: WAIT speaks of its own connection's last write only
        store._wire.close()
        with pytest.raises(Unconfirmed, match="0 of 1 replicas"):
            store.commit(name, [change], durable=True)
    record = store.load("h")
    assert record is not None
    assert (record.version, record.ended_because) == (3, "logout")
    pair.nodes["replica1"].resume()
    assert store.commit(b"e", [End(handle="h", because="logout")], durable=True) is None
    store.close()
    pair.stop()
