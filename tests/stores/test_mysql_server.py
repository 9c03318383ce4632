"""The MySQL store beyond the contract: races, lost connections, deadlines, text, migrations, errors, threads, loops."""

import asyncio
import gc
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncmy
import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace
from pymysql.constants import CLIENT
from pymysql.err import MySQLError, OperationalError

from coatcheck.core.errors import ConfigError, NotApplied, StoreError, Unknown
from coatcheck.core.model import Conflict, End, EndOthers, Event, Insert, Limit, Note, Query, Record, Touch, Update
from coatcheck.stores.mysql import AsyncMySqlStore, MySqlStore, awaited, blocking, faults, schema, words
from coatcheck.stores.rounds import Answer, Ask, Round, Steps
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, make
from tests.conftest import server_or_skip
from tests.support.servers import mysql
from tests.support.servers.base import Server, directory, named

FORK = multiprocessing.get_context("fork")

PATIENT: dict[str, Any] = {"load_deadline": 15.0, "commit_deadline": 15.0}
"""For tests that are not about deadlines: the machine may be busy."""


@pytest.fixture(scope="module")
def server() -> mysql.MySql:
    return server_or_skip(mysql.shared)[0]


@pytest.fixture
def database(server: mysql.MySql) -> str:
    """Return a database whose tables are empty, or not there yet."""
    name = mysql.shared()[1]
    server.empty(name)
    return name


@pytest.fixture
def url(server: mysql.MySql, database: str) -> str:
    return server.url(database)


@pytest.fixture
def new(server: mysql.MySql) -> str:
    """Return the name of a database that has no tables."""
    return server.database()


def test_greenlets_that_come_all_at_once_wait_for_no_lock_of_before(server: mysql.MySql, new: str) -> None:
    """gunicorn --preload -k gevent: the tables are not made yet, and the store's locks are no greenlets'."""
    ask = [sys.executable, "-m", "tests.support.greenlets", server.url(new)]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "8 16\n"), done.stderr


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def store(url: str) -> Iterator[MySqlStore]:
    with closing(MySqlStore(url, **PATIENT)) as store:
        yield store


def have(store: MySqlStore, handle: str = "h") -> Record:
    record = store.load(handle)
    assert record is not None
    return record


def insert(store: MySqlStore, clock: Clock, handle: str = "h", **changed: Any) -> None:
    assert store.commit(handle.encode(), [Insert(record=make(handle, clock, **changed))], durable=True) is None


def asked(store: MySqlStore, statement: str) -> Sequence[Any]:
    """Return what a connection of the store answers."""

    def steps() -> Steps[Answer]:
        answers = yield Round([Ask(statement)])
        return answers[0]

    return store._pool.do(steps(), time.monotonic() + 5).rows


def exit_codes(children: list[Any]) -> list[int | None]:
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]


# What is relied on.


def test_building_a_store_opens_nothing() -> None:
    before = threading.active_count()
    MySqlStore("mysql://nobody@127.0.0.1:1/nothing")
    AsyncMySqlStore("mysql://nobody@127.0.0.1:1/nothing")
    assert threading.active_count() == before


def test_a_connection_is_set_to_what_the_store_relies_on(store: MySqlStore) -> None:
    names = "autocommit, @@character_set_client, @@innodb_lock_wait_timeout, @@sql_mode"
    assert asked(store, f"select @@{names}") == ((1, "utf8mb4", 1, "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"),)
    (isolation,) = asked(
        store, "show session variables where variable_name in ('tx_isolation', 'transaction_isolation')"
    )
    assert isolation[1] == "READ-COMMITTED"
    with store._pool._free[0].db.cursor() as cursor:
        assert cursor.connection.client_flag & CLIENT.FOUND_ROWS


def test_texts_that_only_look_alike_are_different(store: MySqlStore, clock: Clock) -> None:
    texts = [
        "a",
        "a ",
        "A",
        "á",
        "a\u0301",
        "a\0",
        "\0",
        "ß",
        "ss",
        "\U0001f511",
        "%",
        "_",
        "\\",
        "'",
        "; --",
        "?",
        "{p}",
    ]
    for number, text in enumerate(texts):
        record = make(f"{text}.{number}", clock, subject=text, realm=text)
        assert store.commit(b"%d" % number, [Insert(record=record, limit=Limit(1, refuse=True))], durable=True) is None
    for number, text in enumerate(texts):
        (found,) = store.find(Query(subject=text, realm=text)).items
        assert (found.handle, found.subject, found.realm) == (f"{text}.{number}", text, text)
    assert [one.handle for one in store.find(Query(subject="a")).items] == ["a.0"]
    insert(store, clock, "x")
    assert (store.load("X"), store.load("x ")) == (None, None)


def test_times_come_back_to_the_last_bit(store: MySqlStore, clock: Clock) -> None:
    chance = random.Random(1)
    for number in range(50):
        times = [chance.uniform(1.7e9, 1.9e9) for _ in range(4)] + [chance.random() * 10 ** chance.randint(-9, 15)]
        created_at, seen_at, used_at, handed_at, idle_for = times
        record = make(
            f"h{number}",
            clock,
            created_at=created_at,
            seen_at=seen_at,
            used_at=used_at,
            handed_at=handed_at,
            idle_for=idle_for,
            version=1,
            by=b"c",
        )
        assert store.commit(b"c", [Insert(record=record)], durable=True) is None
        assert store.load(f"h{number}") == record


def test_a_megabyte_of_every_byte_comes_back(store: MySqlStore, clock: Clock) -> None:
    data = bytes(range(256)) * 4096
    insert(store, clock, data=data)
    assert have(store).data == data


@pytest.mark.parametrize("surrogate", [0xD800, 0xDC80, 0xDCE4])
def test_text_that_is_not_unicode_is_an_error_and_leaves_nothing(url: str, clock: Clock, surrogate: int) -> None:
    text = chr(surrogate)
    with closing(MySqlStore(url, **PATIENT)) as store:
        with pytest.raises(StoreError, match="cannot be stored"):
            insert(store, clock, subject=text)
        assert store.load("h") is None
        insert(store, clock)

    async def awaited_too() -> None:
        store = AsyncMySqlStore(url)
        with pytest.raises(StoreError, match="cannot be stored"):
            await store.commit(b"i", [Insert(record=make("i", clock, subject=text))], durable=False)
        with pytest.raises(StoreError):
            await store.load(text)
        assert await store.load("i") is None
        assert await store.load("h") is not None
        await store.close()

    asyncio.run(awaited_too())


@pytest.mark.parametrize("changed", [{"subject": "s" * 256}, {"idle_for": float("inf")}])
def test_what_does_not_fit_is_an_error_and_leaves_neither_rows_nor_locks(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock, changed: Any
) -> None:
    change = Insert(record=make("h", clock, **changed), events=(event("session_created", clock),))
    with pytest.raises(StoreError, match="nothing was written"):
        store.commit(b"c", [change], durable=True)
    assert store.load("h") is None
    assert server.ask("select count(*) from coatcheck_events", database=database) == [(0,)]
    assert server.ask("select * from coatcheck_subjects for update nowait", database=database) == []


def test_an_event_that_does_not_fit_is_not_cut_off(store: MySqlStore, clock: Clock) -> None:
    long = Note(events=(event("n" * 256, clock),))
    with pytest.raises(StoreError, match="longer than its column"):
        store.commit(b"c", [long], durable=False)
    assert (
        store.commit(b"d", [Note(events=(event("n", clock, detail={"long": "x" * 100_000}),))], durable=False) is None
    )


def test_an_update_with_the_same_values_is_no_conflict(store: MySqlStore, clock: Clock) -> None:
    insert(store, clock)
    for commit_id in (b"1", b"2"):
        record = have(store)
        assert store.commit(commit_id, [Update(record=record, was=record.version)], durable=False) is None
    assert have(store).version == 3
    assert store.commit(b"t", [Touch(handle="h", seen_at=have(store).seen_at)], durable=False) is None


def test_the_clock_is_the_servers(store: MySqlStore, clock: Clock) -> None:
    assert abs(store.epochs().store_now - time.time()) < 1
    insert(store, clock, expires_at=time.time() - 1)
    insert(store, clock, "later", expires_at=time.time() + 60)
    assert store.purge(10) == 1
    assert have(store).ended_because == "absolute"
    ended_at = have(store).ended_at
    assert ended_at is not None
    assert abs(ended_at - time.time()) < 1


# Races.


def log_in_often(url: str, number: int, start: Any) -> None:
    with closing(MySqlStore(url, **PATIENT)) as store:
        heard: list[Event] = []
        store.listeners.append(heard.extend)
        start.wait()
        for turn in range(200):
            record = make(f"p{number}.{turn}", Clock(time.time()))
            login = Insert(record=record, limit=Limit(3), events=(event("session_created", Clock()),))
            assert store.commit(os.urandom(16), [login], durable=True) is None
            assert len(store.find(Query(subject="ann")).items) <= 3
        assert len([one for one in heard if one.name == "session_created"]) == 200


def test_two_processes_that_log_one_subject_in_never_exceed_its_limit(url: str, store: MySqlStore) -> None:
    start = FORK.Barrier(2)
    assert exit_codes([FORK.Process(target=log_in_often, args=(url, number, start)) for number in range(2)]) == [0, 0]
    assert len(store.find(Query(subject="ann")).items) == 3
    assert len(store.find(Query(subject="ann", live=False, limit=1000)).items) == 400


def test_first_logins_of_a_subject_at_once_do_not_surface_their_deadlocks(url: str, clock: Clock) -> None:
    with closing(MySqlStore(url, pool_size=16, **PATIENT)) as store, ThreadPoolExecutor(16) as pool:
        for turn in range(15):
            start = threading.Barrier(16)

            def log_in(number: int, turn: int = turn, start: threading.Barrier = start) -> Conflict | None:
                record = make(f"{turn}.{number}", clock, subject=f"new{turn}")
                start.wait()
                return store.commit(os.urandom(16), [Insert(record=record, limit=Limit(3))], durable=True)

            assert list(pool.map(log_in, range(16))) == [None] * 16
            assert len(store.find(Query(subject=f"new{turn}")).items) == 3


def test_a_commit_that_loses_a_deadlock_is_tried_again(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    insert(store, clock)
    with closing(server.connect(database)) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("start transaction")
        for number in range(50):  # the transaction that changed less is the victim
            cursor.execute("insert into coatcheck_epochs (scope, epoch) values (%s, 1)", (f"x{number}",))
        cursor.execute("select * from coatcheck_sessions where handle = 'h' for update")
        ending = EndOthers(realm="", subject="ann", because="owner")
        commit = pool.submit(store.commit, b"e", [ending], durable=True)
        assert eventually(lambda: waiting(server, database) == 1)
        time.sleep(0.1)  # it holds the subject now, and waits for the session
        cursor.execute("select * from coatcheck_subjects where subject = 'ann' for update")
        other.rollback()
        assert commit.result(5) is None
    assert have(store).ended_because == "owner"


def test_a_lock_that_is_held_for_too_long_costs_an_error_in_time_and_one_held_briefly_only_time(
    url: str, server: mysql.MySql, database: str, clock: Clock
) -> None:
    store = MySqlStore(url)
    insert(store, clock)
    with closing(server.connect(database)) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        for held, kind in ((4.0, NotApplied), (0.3, None)):
            cursor.execute("start transaction")
            cursor.execute("select * from coatcheck_sessions where handle = 'h' for update")
            began = time.monotonic()
            commit = pool.submit(store.commit, b"e", [End(handle="h", because="logout")], durable=True)
            if kind is None:
                time.sleep(held)
                other.rollback()
                assert commit.result(5) is None
            else:
                assert isinstance(commit.exception(10), kind)
                other.rollback()
                assert have(store).ended_at is None
            assert time.monotonic() - began < 3.5
    assert have(store).ended_because == "logout"
    store.close()


def test_members_are_locked_by_primary_key_and_tombstones_not_at_all(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    for handle in ("a", "b", "dead"):
        insert(store, clock, handle)
    store.commit(b"e", [End(handle="dead", because="logout")], durable=True)
    with closing(server.connect(database)) as other, other.cursor() as cursor:
        cursor.execute("start transaction")
        cursor.execute("select * from coatcheck_sessions where handle = 'dead' for update")
        with closing(MySqlStore(store._home.parameters, commit_deadline=5)) as impatient:
            login = Insert(record=make("c", clock), limit=Limit(1))
            assert impatient.commit(b"c", [login], durable=True) is None
            ending = EndOthers(realm="", subject="ann", because="owner")
            assert impatient.commit(b"o", [ending], durable=True) is None
        other.rollback()
    assert [have(store, handle).ended_because for handle in "abc"] == ["limit", "limit", "owner"]


# Connections that die.


def test_connections_that_were_killed_between_calls_are_not_noticed(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    insert(store, clock)
    for number in range(5):
        assert server.kill_all(database)
        if number % 2:
            assert have(store).handle == "h"
        else:
            touch = [Touch(handle="h", seen_at=clock.wind(1))]
            assert store.commit(b"%d" % number, touch, durable=False) is None


def test_awaited_connections_that_were_killed_between_calls_are_not_noticed(
    url: str, server: mysql.MySql, database: str, clock: Clock
) -> None:
    async def use() -> None:
        store = AsyncMySqlStore(url, **PATIENT)
        await store.commit(b"i", [Insert(record=make("h", clock))], durable=True)
        for number in range(5):
            await asyncio.gather(*(store.load("h") for _ in range(3)))
            assert await asyncio.to_thread(server.kill_all, database)
            await asyncio.sleep(0)
            if number % 2:
                assert await store.load("h") is not None
            else:
                touch = [Touch(handle="h", seen_at=clock.wind(1))]
                assert await store.commit(b"%d" % number, touch, durable=False) is None
        await store.close()

    asyncio.run(use())
    assert eventually(lambda: server.connections(database) == [])


def test_what_is_known_of_a_commit_whose_connection_was_killed_under_way(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    insert(store, clock)
    with closing(server.connect(database)) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        for changes, killed in (
            ([Touch(handle="h", seen_at=clock.now + 1)], Unknown),  # may have been applied: only the caller can judge
            ([End(handle="h", because="logout")], None),  # had only read so far: done again on another connection
        ):
            cursor.execute("start transaction")
            cursor.execute("select * from coatcheck_sessions where handle = 'h' for update")
            ours = set(server.connections(database)) - {other.thread_id()}
            commit = pool.submit(store.commit, b"c", changes, durable=True)
            assert eventually(lambda: waiting(server, database) == 1)
            for one in ours:
                server.ask(f"kill {one}")
            time.sleep(0.1)
            other.rollback()
            if killed is None:
                assert commit.result(5) is None
            else:
                assert isinstance(commit.exception(5), killed)
    assert have(store).ended_because == "logout"


def test_a_load_whose_connection_was_killed_under_way_is_asked_again(
    url: str, store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    insert(store, clock)

    async def awaited_load() -> Record | None:
        other = AsyncMySqlStore(url, **PATIENT)
        try:
            return await other.load("h")
        finally:
            await other.close()

    with closing(server.connect(database)) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        for load in (lambda: store.load("h"), lambda: asyncio.run(awaited_load())):
            cursor.execute("lock tables coatcheck_sessions write")
            loading = pool.submit(load)
            assert eventually(lambda: waiting(server, database) == 1)
            for one in set(server.connections(database)) - {other.thread_id()}:
                server.ask(f"kill {one}")
            cursor.execute("unlock tables")
            assert loading.result(10) is not None


def test_a_connection_that_was_in_use_when_its_store_was_closed_is_closed_afterwards(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    insert(store, clock)
    with closing(server.connect(database)) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("lock tables coatcheck_sessions write")
        loading = pool.submit(store.load, "h")
        assert eventually(lambda: waiting(server, database) == 1)
        store.close()
        cursor.execute("unlock tables")
        assert loading.result(10) is not None
    assert eventually(lambda: server.connections(database) == [])


def test_an_awaited_connection_in_use_is_closed_after_its_store_was(
    url: str, server: mysql.MySql, database: str, clock: Clock
) -> None:
    async def use() -> None:
        store = AsyncMySqlStore(url, **PATIENT)
        await store.commit(b"i", [Insert(record=make("h", clock))], durable=True)
        with closing(server.connect(database)) as other, other.cursor() as cursor:
            cursor.execute("lock tables coatcheck_sessions write")
            touch = [Touch(handle="h", seen_at=clock.now + 1)]
            task = asyncio.create_task(store.commit(b"t", touch, durable=False))
            assert await asyncio.to_thread(eventually, lambda: waiting(server, database) == 1)
            await store.close()
            cursor.execute("unlock tables")
            assert await task is None
        assert await asyncio.to_thread(eventually, lambda: server.connections(database) == [])

    asyncio.run(use())


def freeze(process: Server) -> None:
    process.pause()
    time.sleep(0.1)  # it stops one thread after the other


def test_a_frozen_server_costs_an_error_in_time(url: str, server: mysql.MySql, clock: Clock) -> None:
    if server.server is None:
        pytest.skip("the server is not ours to freeze")
    with closing(MySqlStore(url, pool_size=3)) as store, ThreadPoolExecutor(8) as pool:
        insert(store, clock)
        list(pool.map(store.load, ["h"] * 3))
        freeze(server.server)
        try:
            began = time.monotonic()
            for load in [pool.submit(store.load, "h") for _ in range(8)]:
                assert isinstance(load.exception(5), StoreError)
            assert 0.4 < time.monotonic() - began < 2
            began = time.monotonic()
            with pytest.raises(NotApplied, match="did not answer in time; nothing was written"):
                store.commit(b"e", [End(handle="h", because="logout")], durable=True)
            with pytest.raises(NotApplied, match=r"cannot be reached|did not answer"):
                store.commit(b"t", [Touch(handle="h", seen_at=clock.now + 1)], durable=False)
            assert 3.5 < time.monotonic() - began < 7
        finally:
            server.server.resume()
        assert have(store).ended_at is None


def test_a_frozen_server_leaves_a_single_statement_unknown(url: str, server: mysql.MySql, clock: Clock) -> None:
    if server.server is None:
        pytest.skip("the server is not ours to freeze")

    async def use() -> None:
        store = AsyncMySqlStore(url, commit_deadline=0.4)
        await store.commit(b"i", [Insert(record=make("h", clock))], durable=True)
        assert server.server is not None
        freeze(server.server)
        began = time.monotonic()
        try:
            with pytest.raises(StoreError, match="did not answer within"):
                await store.load("h")
            with pytest.raises(NotApplied):  # the connection was closed, and there is no other
                await store.commit(b"t", [Touch(handle="h", seen_at=clock.now + 1)], durable=False)
        finally:
            server.server.resume()
        assert time.monotonic() - began < 4
        assert await store.load("h") is not None
        freeze(server.server)
        try:
            with pytest.raises(Unknown, match="may have been applied or not"):
                await store.commit(b"u", [Touch(handle="h", seen_at=clock.now + 1)], durable=False)
        finally:
            server.server.resume()
        await store.close()

    asyncio.run(use())


# The pool.


def test_a_pool_is_bounded(url: str, server: mysql.MySql, database: str, clock: Clock) -> None:
    with closing(MySqlStore(url, pool_size=2, **PATIENT)) as store, ThreadPoolExecutor(20) as pool:
        insert(store, clock)
        assert all(pool.map(store.load, ["h"] * 200))
        assert 1 <= len(server.connections(database)) <= 2


def test_who_waits_for_a_connection_for_too_long_is_told(
    url: str, server: mysql.MySql, database: str, clock: Clock
) -> None:
    store = MySqlStore(url, pool_size=2, load_deadline=0.5, commit_deadline=15.0)
    with closing(store), closing(server.connect(database)) as other, ThreadPoolExecutor(2) as pool:
        insert(store, clock)
        with other.cursor() as cursor:
            cursor.execute("start transaction")
            cursor.execute("select * from coatcheck_sessions where handle = 'h' for update")
        touch = [Touch(handle="h", seen_at=clock.now + 1)]
        busy = [pool.submit(store.commit, b"%d" % number, touch, durable=False) for number in range(2)]
        assert eventually(lambda: waiting(server, database) == 2)
        began = time.monotonic()
        with pytest.raises(NotApplied, match=r"all 2 connections to .* stayed busy; .* raise pool_size"):
            store.load("h")
        assert 0.4 < time.monotonic() - began < 2
        other.rollback()
        assert [one.result(5) for one in busy] == [None, None]
        assert store.load("h") is not None


def waiting(server: mysql.MySql, database: str) -> int:
    """Return how many wait for a lock, or are at work, in a database."""
    found = server.ask("select id from information_schema.processlist where command = 'Query' and db = %s", database)
    return len(found)


@pytest.mark.parametrize("face", [blocking, awaited])
def test_a_connection_that_rested_for_long_is_not_trusted(
    store: MySqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, face: Any, url: str
) -> None:
    def id_now() -> int:
        return int(asked(store, "select connection_id()")[0][0])

    if face is blocking:
        first = id_now()
        assert id_now() == first
        monkeypatch.setattr(face, "RESTED", -1.0)
        assert id_now() != first
        return

    async def use() -> None:
        other = AsyncMySqlStore(url)
        await other.load("h")
        (link,) = other._loops.here().pool._free
        await other.load("h")
        assert other._loops.here().pool._free == [link]
        monkeypatch.setattr(face, "RESTED", -1.0)
        await other.load("h")
        assert other._loops.here().pool._free != [link]
        await other.close()

    asyncio.run(use())


def test_a_closed_store_has_no_connections_and_no_keeper_and_opens_again(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    for _ in range(2):
        insert(store, clock, os.urandom(4).hex())
        assert server.connections(database)
        assert [one for one in threading.enumerate() if one.name == "coatcheck-keeper"]
        store.close()
        assert eventually(lambda: server.connections(database) == [])
        assert not [one for one in threading.enumerate() if one.name == "coatcheck-keeper"]


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def use_after_fork(store: MySqlStore, parents: set[int], clock: Clock) -> None:
    for number in range(20):
        assert have(store).handle == "h"
        assert asked(store, "select connection_id()")[0][0] not in parents
        assert store.commit(b"c%d" % number, [Insert(record=make(f"c{number}", clock))], durable=True) is None
    store.close()


def test_a_forked_child_leaves_its_parents_connections_alone(
    store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    insert(store, clock)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store.load, ["h"] * 40))
    parents = set(server.connections(database))
    children = [FORK.Process(target=use_after_fork, args=(store, parents, clock)) for _ in range(1)]
    assert exit_codes(children) == [0]
    assert set(server.connections(database)) >= parents
    assert have(store).handle == "h"
    assert asked(store, "select connection_id()")[0][0] in parents
    assert [have(store, f"c{number}").subject for number in range(20)] == ["ann"] * 20


def use_awaited_after_fork(store: AsyncMySqlStore) -> None:
    assert store._loops._here == {}

    async def use() -> None:
        assert await store.load("h") is not None
        await store.close()

    asyncio.run(use())


def test_a_forked_child_leaves_its_parents_loop_alone(url: str, clock: Clock) -> None:
    store = AsyncMySqlStore(url, **PATIENT)

    async def use() -> None:
        await store.commit(b"i", [Insert(record=make("h", clock))], durable=True)
        child = FORK.Process(target=_in_thread, args=(use_awaited_after_fork, store))
        assert exit_codes([child]) == [0]
        (link,) = store._loops.here().pool._free
        assert await store.load("h") is not None
        assert store._loops.here().pool._free == [link]
        await store.close()

    asyncio.run(use())


def _in_thread(act: Callable[[Any], None], given: Any) -> None:
    """Do it in a thread of the child: the one that forked believes that its parent's loop still runs."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act, given).result(30)


# Loops and cancellation.


def test_two_loops_in_two_threads_may_share_a_store(url: str, clock: Clock) -> None:
    store = AsyncMySqlStore(url, **PATIENT)
    start = threading.Barrier(2)

    async def use(name: str) -> None:
        start.wait()
        for number in range(60):
            handle = f"{name}{number}"
            assert await store.commit(handle.encode(), [Insert(record=make(handle, clock))], durable=True) is None
            found = await asyncio.gather(*(store.load(f"{name}{one}") for one in range(number + 1)))
            assert [one.handle for one in found if one] == [f"{name}{one}" for one in range(number + 1)]
        start.wait()  # the first to close would close for both
        await store.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: asyncio.run(use(name)), "ab"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_loops_that_ended_without_closing_are_let_go_of(url: str, server: mysql.MySql, database: str) -> None:
    store = AsyncMySqlStore(url, **PATIENT)
    for _ in range(3):
        assert asyncio.run(_loaded(store)) is None
        assert len(store._loops._here) == 1
    asyncio.run(_load_and_close(store))
    gc.collect()
    assert eventually(lambda: server.connections(database) == [])


async def _loaded(store: AsyncMySqlStore) -> Record | None:
    return await store.load("nobody")


def test_loops_one_after_another_leave_nothing_behind(url: str, server: mysql.MySql, database: str) -> None:
    store = AsyncMySqlStore(url, **PATIENT)
    for _ in range(4):
        asyncio.run(_load_and_close(store))
    assert eventually(lambda: server.connections(database) == [])
    assert len(store._loops._here) <= 1


async def _load_and_close(store: AsyncMySqlStore) -> None:
    assert await store.load("nobody") is None
    await store.close()


def test_loads_of_one_turn_travel_as_one_statement(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    inner = awaited.Link.send

    async def counted(self: awaited.Link, asked: Round) -> Sequence[Answer]:
        sent.append(len(asked.asks[0].values))
        return await inner(self, asked)

    async def use() -> None:
        store = AsyncMySqlStore(url, **PATIENT)
        for number in range(3):
            await store.commit(b"%d" % number, [Insert(record=make(f"h{number}", clock))], durable=True)
        monkeypatch.setattr(awaited.Link, "send", counted)
        found = await asyncio.gather(*(store.load(f"h{number}") for number in range(64)))
        assert [one is not None for one in found] == [True] * 3 + [False] * 61
        await store.close()

    asyncio.run(use())
    assert sent == [64]


def test_a_row_that_does_not_decode_hurts_only_who_asked_for_it(
    url: str, store: MySqlStore, server: mysql.MySql, database: str, clock: Clock
) -> None:
    for handle in "abc":
        insert(store, clock, handle)
    server.ask("update coatcheck_sessions set details = x'00ff' where handle = 'b'", database=database)
    with pytest.raises(StoreError, match="'b' does not decode"):
        store.load("b")

    async def use() -> None:
        awaited_store = AsyncMySqlStore(url)
        found = await asyncio.gather(*map(awaited_store.load, "abcd"), return_exceptions=True)
        assert [type(one).__name__ for one in found] == ["Record", "Unreadable", "Record", "NoneType"]
        await awaited_store.close()

    asyncio.run(use())


def test_a_storm_of_cancellations_mixes_nothing_up_and_leaves_no_commit_undecided(url: str, clock: Clock) -> None:
    async def use() -> None:
        store, chance = AsyncMySqlStore(url, pool_size=4, **PATIENT), random.Random(7)
        for number in range(20):
            insertion = Insert(record=make(f"h{number}", clock, data=b""))
            assert await store.commit(b"%d" % number, [insertion], durable=True) is None
        known = [await store.load(f"h{number}") for number in range(20)]

        async def write(number: int, byte: int) -> None:
            base = await store.load(f"h{number}")
            assert base is not None
            known[number] = base
            update = Update(record=replace(base, data=base.data + bytes([byte])), was=base.version)
            said = (event("wrote", clock, handle=f"h{number}"),) if byte % 2 else ()
            assert await store.commit(os.urandom(16), [replace(update, events=said)], durable=False) is None

        async def read(number: int) -> None:
            found = await store.load(f"h{number}")
            assert found is not None
            assert found.handle == f"h{number}"

        for turn in range(40):
            tasks = [asyncio.ensure_future(write(number, turn)) for number in range(20)]
            tasks += [asyncio.ensure_future(read(chance.randrange(20))) for _ in range(20)]
            for task in chance.sample(tasks, 20):
                asyncio.get_running_loop().call_later(chance.random() * 0.02, task.cancel)
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
            after = await asyncio.gather(*(store.load(f"h{number}") for number in range(20)))
            await asyncio.sleep(0.002)
            again = await asyncio.gather(*(store.load(f"h{number}") for number in range(20)))
            assert again == after, "a commit went on after its caller had been told"
            for one in after:
                assert one is not None
                assert one.version == len(one.data) + 1
        (link, *_) = store._loops.here().pool._free
        assert link.sound
        await store.close()

    asyncio.run(use())


def test_a_cancelled_commit_is_decided_when_its_caller_hears_of_it(
    url: str, server: mysql.MySql, database: str, clock: Clock
) -> None:
    heard: list[str] = []

    async def use() -> None:
        store = AsyncMySqlStore(url, **PATIENT)
        store.listeners.append(lambda events: heard.extend(one.name for one in events))
        await store.commit(b"i", [Insert(record=make("h", clock))], durable=True)
        with closing(server.connect(database)) as other, other.cursor() as cursor:
            cursor.execute("start transaction")
            cursor.execute("select * from coatcheck_sessions where handle = 'h' for update")
            said = (event("session_revoked", clock),)
            end = End(handle="h", because="logout", events=said)
            task = asyncio.create_task(store.commit(b"e", [end], durable=True))
            for _ in range(3):
                await asyncio.sleep(0.05)
                assert not task.done()
                task.cancel()
            other.rollback()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == ["session_revoked"]
        found = await store.load("h")
        assert found is not None
        assert found.ended_because == "logout"
        await store.close()

    asyncio.run(use())


# What is handed in.


def test_a_callable_that_makes_connections_may_be_handed_in(server: mysql.MySql, database: str, clock: Clock) -> None:
    made: list[Any] = []

    def connect(flags: int = CLIENT.MULTI_STATEMENTS) -> Any:
        where = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
        made.append(pymysql.connect(**where, database=database, client_flag=flags, charset="latin1"))
        return made[-1]

    with closing(MySqlStore(connect)) as store:
        insert(store, clock, subject="Ünï")
        assert (have(store).subject, len(made)) == ("Ünï", 1)
        assert asked(store, "select @@autocommit") == ((1,),)
    assert not made[0].open
    with pytest.raises(StoreError, match=r"client_flag=CLIENT.MULTI_STATEMENTS"):
        MySqlStore(lambda: connect(0)).load("h")


def certificates(place: Path) -> tuple[Path, Path, Path]:
    """Write an authority, and a certificate of its own for localhost with its key."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "localhost")]
    now = datetime.now(UTC)
    found = []
    for name, key in zip(names, keys, strict=True):
        builder = x509.CertificateBuilder().issuer_name(names[0]).subject_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=name is names[0], path_length=None), critical=True)
        address = x509.IPAddress(ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        found.append(builder.sign(keys[0], SHA256()).public_bytes(Encoding.PEM))
    secret = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    paths = tuple(place / name for name in ("ca.pem", "server.pem", "server.key"))
    for path, text in zip(paths, (*found, secret), strict=True):
        path.write_bytes(text)
        path.chmod(0o644)
    return paths[0], paths[1], paths[2]


def test_a_connection_is_encrypted_and_its_certificate_judged_when_the_url_says_so(clock: Clock) -> None:
    if named("COATCHECK_TEST_MYSQL"):
        pytest.skip("the certificates of that server are not ours")
    authority, certificate, key = certificates(directory("tls"))
    server = mysql.own(f"--ssl-ca={authority}", f"--ssl-cert={certificate}", f"--ssl-key={key}")
    try:
        url = server.url(server.database())
        with closing(MySqlStore(f"{url}?ssl_ca={authority}", **PATIENT)) as store:
            insert(store, clock)
            assert asked(store, "show status like 'Ssl_cipher'")[0][1]

        async def use() -> None:
            awaited_store = AsyncMySqlStore(f"{url}?ssl_ca={authority}", **PATIENT)
            assert await awaited_store.load("h") is not None
            (link,) = awaited_store._loops.here().pool._free
            ((_, cipher),) = (await link.send(Round([Ask("show status like 'Ssl_cipher'")])))[0].rows
            assert cipher
            await awaited_store.close()

        asyncio.run(use())
        assert "CERTIFICATE_VERIFY_FAILED" in told(f"{url}?ssl=true")
    finally:
        server.stop()


def test_an_asyncmy_pool_may_be_handed_in(server: mysql.MySql, database: str, clock: Clock) -> None:
    where = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}

    async def use() -> None:
        pool = await asyncmy.create_pool(**where, database=database, maxsize=3)
        store = AsyncMySqlStore(pool, **PATIENT)
        logins = [Insert(record=make(f"h{number}", clock), limit=Limit(3)) for number in range(20)]
        done = await asyncio.gather(
            *(store.commit(b"%d" % number, [login], durable=True) for number, login in enumerate(logins))
        )
        assert done == [None] * 20
        assert len((await store.find(Query(subject="ann"))).items) == 3
        assert pool.size <= 3
        with pytest.raises(StoreError):
            await store.commit(b"long", [Insert(record=make("x" * 65, clock))], durable=True)
        await asyncio.to_thread(server.kill_all, database)
        await asyncio.sleep(0)
        assert await store.load("h19") is not None
        with pytest.raises(ConfigError, match="belongs to another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(store.load("h19")))
        await store.close()
        assert pool.freesize  # it is not ours to close
        pool.close()
        await pool.wait_closed()
        latin = await asyncmy.create_pool(**where, database=database, charset="latin1")
        with pytest.raises(StoreError, match="charset='utf8mb4'"):
            await AsyncMySqlStore(latin).load("h19")
        latin.close()
        await latin.wait_closed()

    asyncio.run(use())


def test_parameters_may_be_handed_in(server: mysql.MySql, database: str, clock: Clock) -> None:
    where = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    with closing(MySqlStore({**where, "database": database}, prefix="other_")) as store:
        insert(store, clock)
        assert server.ask("select handle from other_sessions", database=database) == [("h",)]
    with pytest.raises(ConfigError, match="the database is not named"):
        MySqlStore(where)


# The schema.


def open_first(url: str, start: Any, number: int) -> None:
    start.wait()
    with closing(MySqlStore(url, load_deadline=10, commit_deadline=10)) as store:
        insert(store, Clock(time.time()), f"p{number}")


def test_several_processes_may_open_a_new_database_at_once(server: mysql.MySql) -> None:
    for _ in range(3):
        url = server.url(server.database())
        start = FORK.Barrier(4)
        children = [FORK.Process(target=open_first, args=(url, start, number)) for number in range(4)]
        assert exit_codes(children) == [0] * 4
        with closing(MySqlStore(url, **PATIENT)) as store:
            assert len(store.find(Query(live=False)).items) == 4
            assert store.epochs().generation


def test_who_migrates_waits_for_whoever_does_so_already(server: mysql.MySql, new: str) -> None:
    name = "concat('coatcheck ', left(sha2(concat(database(), '/coatcheck_'), 256), 40))"
    store = MySqlStore(server.url(new), **PATIENT)
    with closing(store), closing(server.connect(new)) as other, ThreadPoolExecutor(1) as pool:
        with other.cursor() as cursor:
            cursor.execute(f"select get_lock({name}, 5)")
        load = pool.submit(store.load, "nobody")
        assert eventually(lambda: waiting(server, new) == 1)
        time.sleep(0.1)
        assert server.ask("show tables", database=new) == []
        with other.cursor() as cursor:
            cursor.execute(f"select release_lock({name})")
        assert load.result(15) is None
        assert server.ask(f"select is_free_lock({name})", database=new) == [(1,)]


def test_every_table_is_innodb_and_compares_texts_byte_by_byte(server: mysql.MySql, new: str, clock: Clock) -> None:
    with closing(MySqlStore(server.url(new), **PATIENT)) as store:
        insert(store, clock)
    engines = server.ask("select table_name, engine from information_schema.tables where table_schema = %s", new)
    assert dict(engines) == {
        f"coatcheck_{name}": "InnoDB" for name in ("meta", "sessions", "subjects", "epochs", "events")
    }
    collations = server.ask(
        "select distinct collation_name from information_schema.columns where table_schema = %s "
        "and collation_name is not null",
        new,
    )
    assert {one for (one,) in collations} <= {"utf8mb4_nopad_bin", "utf8mb4_0900_bin"}


def test_a_newer_schema_is_refused_and_left_alone(server: mysql.MySql, new: str, clock: Clock) -> None:
    with closing(MySqlStore(server.url(new), **PATIENT)) as store:
        insert(store, clock)
    server.ask("update coatcheck_meta set value = '99' where name = 'schema'", database=new)
    with pytest.raises(StoreError, match=r"newer coatcheck \(schema 99, this one knows 1\); upgrade coatcheck"):
        MySqlStore(server.url(new), **PATIENT).load("h")
    assert server.ask("select count(*) from coatcheck_sessions", database=new) == [(1,)]


def test_an_older_schema_is_migrated_and_keeps_its_sessions(
    server: mysql.MySql, new: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(MySqlStore(server.url(new), **PATIENT)) as store:
        insert(store, clock)
        generation = store.epochs().generation
    second = ("create table if not exists {p}later (x int primary key)",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, second))
    with pytest.raises(StoreError, match="are of schema 1, this coatcheck needs 2; run what `coatcheck schema mysql`"):
        MySqlStore(server.url(new), migrate=False).load("h")
    with closing(MySqlStore(server.url(new), **PATIENT)) as store:
        assert have(store).handle == "h"
        assert store.epochs().generation == generation
    assert server.ask("select value from coatcheck_meta where name = 'schema'", database=new) == [("2",)]
    assert server.ask("select count(*) from coatcheck_later", database=new) == [(0,)]


def test_a_migration_that_was_cut_off_is_done_again(
    server: mysql.MySql, new: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut = (*schema._FIRST[:3], "no such statement", *schema._FIRST[3:])
        patch.setattr(schema, "MIGRATIONS", (cut,))
        with pytest.raises(StoreError):
            MySqlStore(server.url(new), **PATIENT).load("h")
    assert server.ask("show tables like '%%events'", database=new) == []
    with closing(MySqlStore(server.url(new), **PATIENT)) as store:
        insert(store, clock)
        assert store.epochs().generation


def test_the_printed_schema_makes_what_a_store_without_rights_to_create_needs(
    server: mysql.MySql, new: str, clock: Clock
) -> None:
    with pytest.raises(StoreError, match="of schema 0, this coatcheck needs 1"):
        MySqlStore(server.url(new), prefix="shop_", migrate=False).load("h")
    for statement in schema.script("shop_").split(";\n"):
        if statement:
            server.ask(statement, database=new)
    user = limited_user(server, new, "select, insert, update, delete")
    with closing(MySqlStore(user, prefix="shop_")) as store:
        insert(store, clock)
        assert store.epochs().generation
        assert store.commit(b"t", [End(handle="h", because="logout")], durable=True) is None
        assert store.commit(b"t", [End(handle="h", because="logout")], durable=True) is None


def limited_user(server: mysql.MySql, database: str, rights: str) -> str:
    """Return the URL with which a new user with these rights logs in."""
    name = f"u{os.urandom(4).hex()}"
    server.ask(f"create user {name}@'%%' identified by 'secret-1'")
    server.ask(f"grant {rights} on {database}.* to {name}@'%%'")
    return f"mysql://{name}:secret-1@{server.host}:{server.port}/{database}"


def test_a_server_that_may_lose_commits_is_warned_of_once(
    server: mysql.MySql, url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def first_uses() -> None:
        store = AsyncMySqlStore(url, **PATIENT)
        notes = [Note(events=(event("e", clock),)) for _ in range(8)]
        await asyncio.gather(*(store.commit(b"%d" % n, [note], durable=False) for n, note in enumerate(notes)))
        await store.close()

    server.ask("set global innodb_flush_log_at_trx_commit = 2")
    try:
        with caplog.at_level(logging.WARNING, "coatcheck"):
            with closing(MySqlStore(url, **PATIENT)) as store:
                insert(store, clock)
                store.close()
                assert have(store).handle == "h"
            asyncio.run(first_uses())
    finally:
        server.ask("set global innodb_flush_log_at_trx_commit = 1")
    said, again = [one.getMessage() for one in caplog.records]
    assert said == again  # once a store
    assert "may lose acknowledged logins and logouts in a power cut (innodb_flush_log_at_trx_commit = 2" in said
    caplog.clear()
    with closing(MySqlStore(url, **PATIENT)) as store:
        assert have(store).handle == "h"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("8.0.16", "MySQL 8.0.17"),
        ("5.7.44-log", "MySQL 8.0.17"),
        ("10.5.9-MariaDB", "MariaDB 10.6.0"),
        ("5.5.5-10.3.1-MariaDB", "MariaDB 10.6.0"),
        ("8.0.17", None),
        ("9.7.4", None),
        ("8.4.0-commercial", None),
        ("10.6.0-MariaDB-1:10.6", None),
        ("5.5.5-11.4.2-MariaDB", None),
    ],
)
def test_servers_that_are_too_old_are_refused(version: str, refused: str | None) -> None:
    home = MySqlStore("mysql://u@127.0.0.1:1/d")._home
    look = schema.Look(len(schema.MIGRATIONS), (version, 1, 0, 0))
    if refused is None:
        assert home.must_migrate(look) is False
        return
    with pytest.raises(StoreError, match=f"coatcheck needs {refused} or later"):
        home.must_migrate(look)


# Errors.


def told(url: str) -> str:
    """Return what every verb of both faces says; it never says None, nor the password."""
    with closing(MySqlStore(url, **PATIENT)) as store:
        with pytest.raises(StoreError) as on_load:
            store.load("h")
        with pytest.raises(StoreError) as on_commit:
            store.commit(b"c", [Touch(handle="h", seen_at=0.0)], durable=False)

    async def awaited_too() -> str:
        store = AsyncMySqlStore(url)
        with pytest.raises(StoreError) as caught:
            await store.load("h")
        await store.close()
        return str(caught.value)

    found = str(on_load.value)
    assert found.partition(" (")[0] == str(on_commit.value).partition(" (")[0]
    assert found.partition(" (")[0] == asyncio.run(awaited_too()).partition(" (")[0]
    password = urlsplit(url).password
    assert not password or password not in found
    return found


STANDING_IN = """
import pymysql
from coatcheck.stores.mysql import MySqlStore
pymysql.install_as_MySQLdb()
import MySQLdb.converters  # as Django does: its errors are made anew, beside those that the driver raises
try:
    MySqlStore("mysql://u:p@127.0.0.1:1/d").epochs()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_errors_are_named_where_the_driver_stands_in_for_mysqlclient() -> None:
    told = subprocess.run([sys.executable, "-c", STANDING_IN], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.startswith("NotApplied the database d of MySQL at 127.0.0.1:1 cannot be reached")


def test_a_wrong_password_is_named(server: mysql.MySql, database: str) -> None:
    where = f"@{server.host}:{server.port}/{database}"
    assert "the user name or the password is wrong" in told(f"mysql://{server.user}:nonsense-9{where}")
    assert "check both" in told(f"mysql://nobody-here:nonsense-9{where}")


def test_a_missing_database_is_named(server: mysql.MySql) -> None:
    assert "there is no such database (Unknown database 'no_such_one'); create it" in told(server.url("no_such_one"))


def test_missing_rights_are_named(server: mysql.MySql, new: str, clock: Clock) -> None:
    user = limited_user(server, new, "select")
    assert "lacks a right (CREATE command denied" in told(user)
    with closing(MySqlStore(server.url(new), **PATIENT)) as store:
        insert(store, clock)
    with closing(MySqlStore(user, **PATIENT)) as reader:
        assert have(reader).handle == "h"
        with pytest.raises(StoreError, match=r"lacks a right \((UPDATE|SELECT, UPDATE).* command denied") as caught:
            reader.commit(b"t", [Touch(handle="h", seen_at=clock.now)], durable=False)
        assert not isinstance(caught.value, (NotApplied, Unknown))
    stranger = limited_user(server, server.database(), "select").rpartition("/")[0]
    assert "this user may not use the database" in told(f"{stranger}/{new}")


def test_an_unreachable_server_is_named() -> None:
    said = told("mysql://u:secret-7@127.0.0.1:1/sessions")
    assert "the database sessions of MySQL at 127.0.0.1:1 cannot be reached" in said
    assert "check that it is up, and host and port" in said
    with pytest.raises(NotApplied):
        MySqlStore("mysql://u@127.0.0.1:1/d").commit(b"t", [Touch(handle="h", seen_at=0.0)], durable=False)


def test_a_server_without_a_connection_to_spare_says_that_nothing_was_written(
    server: mysql.MySql, database: str, clock: Clock
) -> None:
    user = limited_user(server, database, "all")
    name = urlsplit(user).username
    server.ask(f"alter user {name}@'%%' with max_user_connections 1")
    with closing(MySqlStore(user, **PATIENT)) as first, closing(MySqlStore(user, **PATIENT)) as second:
        insert(first, clock)
        with pytest.raises(NotApplied, match="nothing was written; lower pool_size"):
            insert(second, clock, "i")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:p@host", "ends with the name of one database"),
        ("mysql://u:p@host/a/b", "ends with the name of one database"),
        ("mysql://u:p@host:port/a", "cannot be read"),
        ("postgresql://u:p@host/a", "begins with mysql:// or mariadb:// \\(found 'postgresql'\\)"),
        ("mysql://u:p@host/a?charset=latin1", "know .ssl=true, .* \\(found charset=latin1\\); remove the rest"),
        ("mysql://u:p@host/a?ssl_ca=/no/such.pem", "holds no certificate that can be read"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    for face in (MySqlStore, AsyncMySqlStore):
        with pytest.raises(ConfigError, match=words):
            face(url)


@pytest.mark.parametrize("prefix", ["", "Coat", "a-b", "x" * 40, "1a"])
def test_a_prefix_that_cannot_begin_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="cannot begin a table name"):
        MySqlStore("mysql://u@h/d", prefix=prefix)


@pytest.mark.parametrize("where", [None, 5, b"mysql://u@h/d"])
def test_what_names_no_database_is_refused(where: Any) -> None:
    for face in (MySqlStore, AsyncMySqlStore):
        with pytest.raises(ConfigError, match=f"found {type(where).__name__}"):
            face(where)
    with pytest.raises(ConfigError, match="found function"):
        AsyncMySqlStore(lambda: None)


def test_a_pool_of_nothing_is_refused() -> None:
    for face in (MySqlStore, AsyncMySqlStore):
        with pytest.raises(ConfigError, match="pool_size is at least 1"):
            face("mysql://u@h/d", pool_size=0)


@pytest.mark.parametrize(
    ("face", "room", "driver"), [(MySqlStore, "blocking", "pymysql"), (AsyncMySqlStore, "awaited", "asyncmy")]
)
def test_a_missing_driver_is_named(face: Any, room: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import coatcheck.stores.mysql as package

    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(sys.modules, f"coatcheck.stores.mysql.{room}")
    monkeypatch.delattr(package, room)
    with pytest.raises(ConfigError, match=r"needs (PyMySQL|asyncmy) .*; run: pip install 'coatcheck\[mysql\]'"):
        face("mysql://u@h/d")


@pytest.mark.parametrize(
    ("code", "decides", "kind"),
    [
        (1205, True, NotApplied),
        (1213, True, NotApplied),
        (1040, True, NotApplied),
        (1290, True, NotApplied),
        (2003, True, NotApplied),
        (2006, True, NotApplied),
        (2013, True, Unknown),
        (2013, False, NotApplied),
        (1927, True, Unknown),
        (1053, True, Unknown),
        (0, True, Unknown),
        (1146, True, StoreError),
        (4242, True, StoreError),
    ],
)
def test_what_a_driver_says_becomes_an_error_of_the_contract(code: int, decides: bool, kind: type[StoreError]) -> None:
    foreign = OperationalError(code, "what was said.")
    found = faults.named(foreign, "the database", decides=decides, driver=MySQLError)
    assert type(found) in (kind, faults.Contended if kind is NotApplied else kind)
    assert str(found)[-1] != "."


def test_a_connection_to_a_server_that_became_read_only_is_given_up(
    server: mysql.MySql, database: str, clock: Clock
) -> None:
    user = limited_user(server, database, "all")
    with closing(MySqlStore(user, **PATIENT)) as store:
        insert(store, clock)
        server.ask("set global read_only = 1")
        try:
            with pytest.raises(NotApplied, match="read only; nothing was written; connect to the primary"):
                store.commit(b"t", [End(handle="h", because="logout")], durable=True)
            assert store._pool._free == []
        finally:
            server.ask("set global read_only = 0")
        assert store.commit(b"t", [End(handle="h", because="logout")], durable=True) is None


def test_statements_of_a_round_after_the_first_that_fails_take_no_effect(store: MySqlStore, clock: Clock) -> None:
    insert(store, clock)

    def steps() -> Steps[None]:
        yield Round([Ask("select 1"), Ask("no such statement"), Ask("delete from coatcheck_sessions")])

    with pytest.raises(StoreError):
        store._pool.do(steps(), time.monotonic() + 5)
    assert have(store).handle == "h"
    assert words.storable(()) is None
