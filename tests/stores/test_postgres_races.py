"""PostgreSQL, asked by many at once: processes, threads, loops, cancelled tasks, forks; and a server that dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied, StoreError, Unknown
from coatcheck.core.model import (
    Conflict,
    End,
    EndOthers,
    EventQuery,
    Insert,
    Limit,
    Note,
    Query,
    Record,
    Touch,
    Update,
)
from coatcheck.stores.postgres import AsyncPostgresStore, PostgresStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, make
from tests.conftest import server_or_skip
from tests.support.servers.postgres import Postgres, a_prefix
from tests.support.servers.postgres import server as shared

LONG = int(os.environ.get("COATCHECK_TEST_POSTGRESQL_KILLS", "3"))
"""How often the server is killed; 100 is the long form."""

Admin = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def server() -> Postgres:
    return server_or_skip(shared)


@pytest.fixture(scope="module")
def admin(server: Postgres) -> Iterator[Admin]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def prefix(server: Postgres) -> Iterator[str]:
    yield from a_prefix(server.url)


@pytest.fixture
def store(server: Postgres, prefix: str) -> Iterator[PostgresStore]:
    store = PostgresStore(server.url, prefix=prefix, load_deadline=10, commit_deadline=10)
    store.epochs()
    yield store
    store.close()


def clock_of(store: PostgresStore) -> Clock:
    return Clock(store.epochs().store_now)


# Processes.


def log_in(url: str, prefix: str, who: str, times: int) -> list[str]:
    """Log one subject in, so many times, from four threads; return what went wrong."""
    store = PostgresStore(url, prefix=prefix, load_deadline=10, commit_deadline=10)
    clock = clock_of(store)

    def login(number: int) -> str | None:
        handle = f"{who}{number:03}"
        try:
            insert = Insert(record=make(handle, clock), limit=Limit(3), events=(event("session_created", clock),))
            conflict = store.commit(handle.encode(), [insert], durable=True)
        except StoreError as error:
            return repr(error)
        return None if conflict is None else repr(conflict)

    with ThreadPoolExecutor(4) as pool:
        wrong = [one for one in pool.map(login, range(times)) if one is not None]
    store.close()
    return wrong


def test_two_processes_log_one_subject_in_and_never_is_there_one_too_many(
    server: Postgres, store: PostgresStore, prefix: str
) -> None:
    most = 0
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        works = [pool.submit(log_in, server.url, prefix, who, 200) for who in "ab"]
        while not all(work.done() for work in works):
            most = max(most, len(store.find(Query(subject="ann")).items))
    assert [work.result() for work in works] == [[], []]
    assert 0 < most <= 3
    assert len(store.find(Query(subject="ann")).items) == 3
    assert ended(store) == {"limit": 397}
    with psycopg.connect(server.url) as connection:
        told = connection.execute(f"select name, count(*) from {prefix}events group by name order by name").fetchall()
    assert told == [("excess_sessions_exceeded", 397), ("session_created", 400)]


def ended(store: PostgresStore) -> dict[str, int]:
    found: dict[str, int] = {}
    cursor = None
    while True:
        page = store.find(Query(live=False, limit=500, cursor=cursor))
        for one in page.items:
            if one.ended_because is not None:
                found[one.ended_because] = found.get(one.ended_because, 0) + 1
        cursor = page.cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [None, Limit(3)])
def test_a_login_that_is_held_open_does_not_survive_its_revocation(
    server: Postgres, store: PostgresStore, prefix: str, limit: Limit | None
) -> None:
    clock = clock_of(store)
    login = Insert(record=make("slow", clock), limit=limit, events=(event("session_created", clock),))
    with psycopg.connect(server.url) as holder, ThreadPoolExecutor(2) as pool:
        # It has read, and decided, and now its event cannot be written.
        holder.execute(f"lock table {prefix}events in share mode")
        slow = pool.submit(store.commit, b"slow", [login], durable=True)
        wait_for_locks(server, 1)
        revoke = EndOthers(realm="", subject="ann", because="operator", before=clock.now + 1)
        revocation = pool.submit(store.commit, b"revoke", [revoke], durable=True)
        wait_for_locks(server, 2)
        holder.rollback()
        assert (slow.result(), revocation.result()) == (None, None)
    assert store.load("slow").ended_because == "operator"


def test_a_login_that_waits_for_a_revocation_is_refused(server: Postgres, store: PostgresStore, prefix: str) -> None:
    clock = clock_of(store)
    revoke = EndOthers(
        realm="", subject="ann", because="operator", before=clock.now + 1, events=(event("sessions_revoked", clock),)
    )
    with psycopg.connect(server.url) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute(f"lock table {prefix}events in share mode")
        revocation = pool.submit(store.commit, b"revoke", [revoke], durable=True)
        wait_for_locks(server, 1)
        slow = pool.submit(store.commit, b"slow", [Insert(record=make("slow", clock))], durable=True)
        wait_for_locks(server, 2)
        holder.rollback()
        assert (revocation.result(), slow.result()) == (None, Conflict(None, "epoch"))
    assert store.load("slow") is None


def test_a_conflict_shows_what_is_stored_now(server: Postgres, store: PostgresStore, prefix: str) -> None:
    clock = clock_of(store)
    store.commit(b"i", [Insert(record=make("h", clock))], durable=False)
    base = store.load("h")
    first = Update(record=replace(base, data=b"first"), was=1, events=(event("session_renewed", clock),))
    second = Update(record=replace(base, data=b"second"), was=1)
    with psycopg.connect(server.url) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute(f"lock table {prefix}events in share mode")
        winner = pool.submit(store.commit, b"1", [first], durable=False)
        wait_for_locks(server, 1)
        loser = pool.submit(store.commit, b"2", [second], durable=False)
        wait_for_locks(server, 2)
        holder.rollback()
        assert winner.result() is None
        assert loser.result() == Conflict(store.load("h"), "version")
    assert store.load("h").data == b"first"


def wait_for_locks(server: Postgres, number: int) -> None:
    """Wait until so many connections wait for a lock."""
    asked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'coatcheck'"
    with psycopg.connect(server.url, autocommit=True) as connection:
        until = time.monotonic() + 10
        while connection.execute(asked).fetchall()[0][0] < number:
            assert time.monotonic() < until, "nobody waits for a lock"
            time.sleep(0.01)


# Purge beside traffic.


def test_two_workers_purge_beside_traffic_and_each_end_is_told_once(server: Postgres, prefix: str) -> None:
    clock = Clock()
    stores = [PostgresStore(server.url, prefix=prefix, clock=clock, commit_deadline=10) for _ in range(3)]
    heard: list[str] = []
    for store in stores:
        store.listeners.append(lambda events: heard.extend(one.handle for one in events if one.handle is not None))
    for number in range(600):
        idle_for = 60.0 if number % 3 else 3600.0
        record = make(f"h{number:03}", clock, subject=f"s{number}", idle_for=idle_for)
        assert stores[0].commit(b"%d" % number, [Insert(record=record)], durable=False) is None
    clock.wind(100)
    busy = [f"h{number:03}" for number in range(0, 600, 3)]

    def purge(store: PostgresStore) -> int:
        total = 0
        while done := store.purge(100):
            total += done
        return total

    def traffic(store: PostgresStore) -> int:
        for number, handle in enumerate(busy):
            record = store.load(handle)
            assert record is not None
            touch, update = Touch(handle=handle, seen_at=clock.now), Update(record=record, was=record.version)
            assert store.commit(b"t%d" % number, [touch], durable=False) is None
            assert store.commit(b"u%d" % number, [update], durable=False) is None
        return len(busy)

    with ThreadPoolExecutor(3) as pool:
        first, second, third = (
            pool.submit(purge, stores[0]),
            pool.submit(purge, stores[1]),
            pool.submit(traffic, stores[2]),
        )
        assert first.result() + second.result() == 400
        assert third.result() == 200
    assert len(heard) == len(set(heard)) == 400
    assert len(stores[0].events(EventQuery(name="session_expired", limit=1000)).items) == 400
    assert all(stores[0].load(handle).ended_at is None for handle in busy)
    for store in stores:
        store.close()


def test_a_purge_passes_over_what_somebody_else_holds(server: Postgres, store: PostgresStore, prefix: str) -> None:
    at = clock_of(store).now - 9000
    for number in range(3):
        record = make(f"h{number}", Clock(at), idle_for=60.0)
        assert store.commit(b"%d" % number, [Insert(record=record)], durable=False) is None
    with psycopg.connect(server.url) as holder:
        holder.execute(f"select 1 from {prefix}sessions where handle = 'h1' for update")
        assert [store.purge(100) for _ in range(3)] == [2, 0, 0]
    assert store.purge(100) == 1


# Cancelled tasks.


async def test_whoever_is_cancelled_nobody_gets_the_answer_of_another(server: Postgres, prefix: str) -> None:
    store = AsyncPostgresStore(server.url, prefix=prefix, load_deadline=5, commit_deadline=5, pool_size=4)
    clock = Clock((await store.epochs()).store_now)
    handles = [f"h{number:02}" for number in range(40)]
    for handle in handles:
        record = make(handle, clock, subject=handle, data=handle.encode())
        assert await store.commit(handle.encode(), [Insert(record=record)], durable=False) is None
    wild, wrong = random.Random(7), []

    async def ask(number: int) -> None:
        handle = wild.choice(handles)
        if number % 3:
            record = await store.load(handle)
        elif number % 2:
            found = (await store.find(Query(subject=handle))).items
            record = found[0]
        else:
            record = await store.load(handle)
            update = Update(record=record, was=record.version)
            await store.commit(b"%d" % number, [update], durable=number % 4 == 0)
        if (record.handle, record.data) != (handle, handle.encode()):
            wrong.append((handle, record))

    async def harried(number: int) -> None:
        task = asyncio.create_task(ask(number))
        await asyncio.sleep(wild.random() * 0.01)
        if number % 2:
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    for start in range(0, 1200, 60):
        await asyncio.gather(*(harried(number) for number in range(start, start + 60)))
    assert wrong == []
    hall = store._desk.here()
    await asyncio.sleep(0.05)
    assert (hall._writes._asked, hall._writes._used, hall._loads._used) == (0, set(), set())
    assert {(await store.load(handle)).data for handle in handles} == {handle.encode() for handle in handles}
    await store.close()


async def test_a_cancelled_commit_waits_until_it_is_decided(server: Postgres, prefix: str) -> None:
    store = AsyncPostgresStore(server.url, prefix=prefix, commit_deadline=10)
    clock = Clock((await store.epochs()).store_now)
    heard: list[str] = []
    store.listeners.append(lambda events: heard.extend(one.name for one in events))
    async with await psycopg.AsyncConnection.connect(server.url) as holder:
        await holder.execute(f"lock table {prefix}events in share mode")
        note = [Note(events=(event("noted", clock),))]
        task = asyncio.create_task(store.commit(b"n", note, durable=False))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.sleep(0.1)
        assert not task.done()
        await holder.rollback()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len((await store.events(EventQuery(name="noted"))).items) == 1
    assert heard == ["noted"]
    await store.close()


async def test_loads_of_one_turn_travel_as_one_statement(server: Postgres, prefix: str) -> None:
    store = AsyncPostgresStore(server.url, prefix=prefix, load_deadline=10, commit_deadline=10)
    clock = Clock((await store.epochs()).store_now)
    for number in range(200):
        await store.commit(b"%d" % number, [Insert(record=make(f"h{number:03}", clock, subject=None))], durable=False)
    sent: list[int] = []
    batch = store._house.rounds.batch
    store._house.rounds.batch = lambda handles: (sent.append(len(handles)), batch(handles))[1]
    found = await asyncio.gather(*(store.load(f"h{number:03}") for number in range(200)), store.load("h000"))
    assert [one.handle for one in found] == [*(f"h{number:03}" for number in range(200)), "h000"]
    assert sorted(sent) == [72, 128]
    await store.close()


# Threads with loops of their own, and forks.


def test_two_loops_in_two_threads_share_a_store(server: Postgres, store: PostgresStore, prefix: str) -> None:
    awaited, clock = (
        AsyncPostgresStore(server.url, prefix=prefix, load_deadline=10, commit_deadline=10),
        clock_of(store),
    )
    for handle in ("a", "b"):
        store.commit(handle.encode(), [Insert(record=make(handle, clock, subject=handle))], durable=False)

    async def work(handle: str) -> int:
        found = []
        for _ in range(50):
            found += await asyncio.gather(*(awaited.load(handle) for _ in range(5)))
            record = found[-1]
            await awaited.commit(os.urandom(8), [Update(record=record, was=record.version)], durable=False)
        assert {one.handle for one in found} == {handle}
        return len(found)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda handle: asyncio.run(work(handle)), ("a", "b"))) == [250, 250]

    async def again() -> Record | None:
        # The loops of before are closed: their connections go with them.
        found = await awaited.load("a")
        assert len(awaited._desk._halls) == 1
        await awaited.close()
        return found

    assert asyncio.run(again()).version == 51


def test_a_forked_child_has_connections_of_its_own(server: Postgres, admin: Admin, store: PostgresStore) -> None:
    clock = clock_of(store)
    store.commit(b"i", [Insert(record=make("h", clock))], durable=False)
    stop = store.watch(lambda handle: None)
    mine = backends(admin)
    assert len(mine) == 2
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            link = store._desk._links.take(time.monotonic() + 5, 0)
            inherited = link.connection.info.backend_pid in mine
            store._desk._links.give(link)
            loaded = store.load("h")
            store.commit(b"c", [Update(record=loaded, was=1)], durable=True)
            others = backends(psycopg.connect(server.url, autocommit=True)) - mine
            store.close()
            os.write(writing, b"%d %d %d" % (loaded.version, len(others), inherited))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 100) == b"1 1 0"
    assert store.load("h").version == 2
    assert backends(admin) == mine
    stop()


def backends(connection: Admin) -> set[int]:
    rows = connection.execute("select pid from pg_stat_activity where application_name = 'coatcheck'").fetchall()
    return {pid for (pid,) in rows}


def test_an_awaited_store_survives_a_fork(server: Postgres, store: PostgresStore, prefix: str) -> None:
    awaited = AsyncPostgresStore(server.url, prefix=prefix, load_deadline=10, commit_deadline=10)
    store.commit(b"i", [Insert(record=make("h", clock_of(store)))], durable=False)

    async def load() -> str:
        return (await awaited.load("h")).handle

    with asyncio.Runner() as runner:
        assert runner.run(load()) == "h"
        child = os.fork()
        if not child:
            code = 1
            try:
                answers: list[str] = []
                thread = threading.Thread(target=lambda: answers.append(asyncio.run(load())))
                thread.start()
                thread.join(10)
                code = 0 if answers == ["h"] and len(awaited._desk._halls) == 1 else 1
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert runner.run(load()) == "h"
        runner.run(awaited.close())


# What the server answers when it refuses, and when it dies.


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, NotApplied) for code in ("40001", "40P01", "55P03", "57014", "23505", "53100", "53300", "25006")),
        *((code, StoreError) for code in ("42501", "XX000", "22001")),
    ],
)
@pytest.mark.parametrize("face", ["blocking", "awaited"])
def test_what_the_server_refuses_is_not_applied(
    server: Postgres, admin: Admin, store: PostgresStore, prefix: str, code: str, kind: type[StoreError], face: str
) -> None:
    clock = clock_of(store)
    insert = [Insert(record=make("h", clock), events=(event("session_created", clock),))]
    admin.execute(
        f"create function {prefix}fail() returns trigger language plpgsql as $$ "
        f"begin raise exception 'no' using errcode = '{code}'; end $$;"
        f"create trigger fail before insert on {prefix}events for each row execute function {prefix}fail()"
    )
    with pytest.raises(StoreError) as raised:
        commit(server, store, face, insert)
    assert type(raised.value) is kind
    assert (store.load("h"), store.events(EventQuery()).items) == (None, ())
    admin.execute(f"drop trigger fail on {prefix}events")
    assert commit(server, store, face, insert) is None


@pytest.mark.parametrize("face", ["blocking", "awaited"])
def test_a_connection_that_breaks_while_it_commits_leaves_the_outcome_unknown(
    server: Postgres, admin: Admin, store: PostgresStore, prefix: str, face: str
) -> None:
    admin.execute(
        f"create function {prefix}fail() returns trigger language plpgsql as $$ "
        f"begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;"
        f"create trigger fail before insert on {prefix}sessions for each row execute function {prefix}fail()"
    )
    insert = [Insert(record=make("h", clock_of(store)))]
    with pytest.raises(Unknown, match="may have been written"):
        commit(server, store, face, insert)
    admin.execute(f"drop trigger fail on {prefix}sessions")
    assert commit(server, store, face, insert) is None
    assert commit(server, store, face, insert) is None
    assert store.load("h").version == 1


def commit(server: Postgres, store: PostgresStore, face: str, changes: list[Any]) -> Conflict | None:
    if face == "blocking":
        return store.commit(b"c", changes, durable=True)

    async def committed() -> Conflict | None:
        awaited = AsyncPostgresStore(server.url, prefix=store._house.names.prefix, commit_deadline=10)
        try:
            return await awaited.commit(b"c", changes, durable=True)
        finally:
            await awaited.close()

    return asyncio.run(committed())


def test_what_was_acknowledged_as_durable_survives_a_server_that_is_killed() -> None:
    # A walwriter that sleeps for long: what lies in memory only would be lost for sure.
    own = server_or_skip(lambda: Postgres(own=True, wal_writer_delay="10000ms"))
    store = PostgresStore(own.url, load_deadline=5, commit_deadline=10)
    clock, generation, lost_plain = clock_of(store), store.epochs().generation, 0
    own.kill()
    own.start()
    for number in range(LONG):
        for handle in (f"kept{number}", f"over{number}"):
            insert = Insert(record=make(handle, clock, subject=handle), events=(event(handle, clock),))
            assert store.commit(handle.encode(), [insert], durable=True) is None
        end = [End(handle=f"over{number}", because="logout", events=(event(f"end{number}", clock),))]
        assert store.commit(b"end%d" % number, end, durable=True) is None
        plain = [Insert(record=make(f"plain{number}", clock, subject=None))]
        assert store.commit(b"plain%d" % number, plain, durable=False) is None
        own.kill()
        with pytest.raises(StoreError):
            store.load(f"kept{number}")
        own.start()
        for before in range(number + 1):
            assert store.load(f"kept{before}").ended_at is None
            assert store.load(f"over{before}").ended_because == "logout"
            assert len(store.events(EventQuery(name=f"end{before}")).items) == 1
        assert store.epochs().generation == generation
        lost_plain += store.load(f"plain{number}") is None
    assert lost_plain, "nothing plain was ever lost, so this proves nothing"
    store.close()
    own.kill()
