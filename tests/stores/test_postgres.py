"""PostgreSQL keeps the contract, in both faces, on a real server; and what only PostgreSQL can get wrong."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from coatcheck.core.errors import ConfigError, NotApplied, StoreError, Unknown
from coatcheck.core.model import (
    Client,
    Conflict,
    End,
    EndOthers,
    Event,
    EventQuery,
    Insert,
    Note,
    Query,
    Replace,
    Touch,
    Update,
)
from coatcheck.stores.postgres import AsyncPostgresStore, PostgresStore, schema
from coatcheck.stores.postgres.words import names
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.face import Face, event, make
from coatcheck.testing.keeping import KeptKeysContract
from tests.conftest import server_or_skip
from tests.support.servers.postgres import Postgres, a_prefix
from tests.support.servers.postgres import server as shared

TABLES = ("sessions", "subjects", "epochs", "events", "meta")

PATIENT: Any = {"load_deadline": 10.0, "commit_deadline": 20.0}
"""Where a test is not about deadlines, a busy machine shall not make it so."""

Admin = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def server() -> Postgres:
    return server_or_skip(shared)


@pytest.fixture(scope="module")
def admin(server: Postgres) -> Iterator[Admin]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def made(server: Postgres) -> None:
    store = PostgresStore(server.url, prefix="contract_")
    store.epochs()
    store.close()


@pytest.fixture
def empty(made: None, admin: Admin) -> None:
    """Empty the tables of the contract: that is quicker than to make them anew for each test."""
    emptied = [f"delete from contract_{name}" for name in TABLES[:4]]
    admin.execute(";".join([*emptied, "delete from contract_meta where name like 'keys:%'"]))


@pytest.fixture
def fresh(server: Postgres) -> Iterator[str]:
    """Return a prefix that no table begins with."""
    yield from a_prefix(server.url)


@pytest.fixture
def store(server: Postgres, fresh: str) -> Iterator[PostgresStore]:
    store = PostgresStore(server.url, prefix=fresh, **PATIENT)
    yield store
    store.close()


@pytest.mark.usefixtures("empty")
class TestPostgresStore(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, server: Postgres, clock: Clock) -> PostgresStore:
        return PostgresStore(server.url, prefix="contract_", clock=clock, **PATIENT)


@pytest.mark.usefixtures("empty")
class TestAsyncPostgresStore(StoreContract, KeptKeysContract):
    @pytest.fixture
    def store(self, server: Postgres, clock: Clock) -> AsyncPostgresStore:
        return AsyncPostgresStore(server.url, prefix="contract_", clock=clock, **PATIENT)


def now(store: PostgresStore) -> Clock:
    """Return a clock that shows the server's time."""
    return Clock(store.epochs().store_now)


def begin(store: PostgresStore, handle: str = "h", **changed: Any) -> None:
    done = store.commit(
        b"begin-" + handle.encode(), [Insert(record=make(handle, now(store), **changed))], durable=False
    )
    assert done is None


def test_greenlets_that_come_all_at_once_wait_for_no_lock_of_before(server: Postgres, fresh: str) -> None:
    """gunicorn --preload -k gevent: the tables are not made yet, and the store's locks and queues are no greenlets'."""
    joint = "&" if "?" in server.url else "?"
    ask = [sys.executable, "-m", "tests.support.greenlets", f"{server.url}{joint}prefix={fresh}"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "8 16\n"), done.stderr


# The server's clock, where a test winds none.


def test_the_servers_clock_clamps_a_sight_from_the_future(store: PostgresStore) -> None:
    begin(store, used_at=None)
    turn = store.load("h").turn_proof
    ahead = now(store).now + 3600
    assert store.commit(b"t", [Touch(handle="h", seen_at=ahead, turn_proof=turn)], durable=False) is None
    found = store.load("h")
    assert found.seen_at == found.used_at < ahead - 3590
    assert store.commit(b"t", [Touch(handle="h", seen_at=ahead)], durable=False) is None
    assert store.commit(b"u", [Update(record=replace(found, seen_at=ahead), was=2)], durable=False) is None
    assert found.seen_at <= store.load("h").seen_at < ahead - 3590


def test_the_servers_clock_ends_what_is_overdue(store: PostgresStore) -> None:
    at = now(store).now
    begin(store, "over", seen_at=at - 3600, created_at=at - 3600)
    begin(store, "fresh")
    assert [one.handle for one in store.find(Query()).items] == ["fresh"]
    assert store.commit(b"e", [End(handle="fresh", because="idle", if_seen_at=at)], durable=False) is None
    assert (store.purge(100), store.purge(100)) == (1, 0)
    assert (store.load("over").ended_because, store.load("fresh").ended_at) == ("idle", None)


@pytest.mark.parametrize("idle_for", [None, 60.0])
def test_a_write_that_shortens_a_session_is_seen_by_purge(store: PostgresStore, idle_for: float | None) -> None:
    begin(store)
    at = store.load("h").seen_at
    shorter = replace(store.load("h"), idle_for=idle_for, expires_at=at + 90)
    assert store.commit(b"u", [Update(record=shorter, was=1)], durable=False) is None
    assert store.load("h") == replace(shorter, version=2, by=b"u")
    late = PostgresStore(store._house.dsn, prefix=store._house.names.prefix, clock=Clock(at + 91))
    assert late.purge(100) == 1
    late.close()


def test_a_write_from_a_clock_ahead_is_seen_by_purge_in_time(store: PostgresStore) -> None:
    begin(store)
    at = store.load("h").seen_at
    ahead = replace(store.load("h"), seen_at=at + 3600, idle_for=60.0)
    assert store.commit(b"u", [Update(record=ahead, was=1)], durable=False) is None
    late = PostgresStore(store._house.dsn, prefix=store._house.names.prefix, clock=Clock(at + 100))
    assert late.purge(100) == 1
    late.close()


def test_a_sight_of_an_ended_session_changes_nothing(store: PostgresStore) -> None:
    begin(store)
    assert store.commit(b"e", [End(handle="h", because="logout")], durable=False) is None
    before = store.load("h")
    for proof in (None, before.turn_proof, b"turn" * 8):
        touch = Touch(handle="h", seen_at=before.seen_at + 1, turn_proof=proof)
        assert store.commit(b"t", [touch], durable=False) is None
    assert store.load("h") == before


def test_a_commit_id_that_was_seen_is_applied_already(store: PostgresStore) -> None:
    begin(store)
    update = Update(record=replace(store.load("h"), data=b"again"), was=1)
    assert store.commit(b"begin-h", [update], durable=False) is None
    assert (store.load("h").version, store.load("h").data) == (1, b"\x01data")


# Text that PostgreSQL cannot hold.


@pytest.mark.parametrize("odd", ["\0", "\1", "\1a", "\1b", "a\0\1b\0", "\1\1a\0a"])
def test_any_character_comes_back(store: PostgresStore, odd: str) -> None:
    begin(store, "h", subject=odd, realm=odd)
    said = Event(name="e", at=1.0, realm=odd, handle="h", subject=odd, client=Client(odd, odd), detail={odd: odd})
    assert store.commit(b"n", [Note(events=(said,))], durable=False) is None
    assert (store.load("h").subject, store.load("h").realm) == (odd, odd)
    assert store.events(EventQuery(subject=odd)).items == (said,)
    assert len(store.find(Query(subject=odd, realm=odd)).items) == 1
    assert store.commit(b"o", [EndOthers(realm=odd, subject=odd, because="owner")], durable=False) is None
    assert store.load("h").ended_because == "owner"


def test_a_database_without_an_encoding_keeps_text_all_the_same(server: Postgres, admin: Admin) -> None:
    admin.execute("drop database if exists plain")
    admin.execute("create database plain encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
    url = urlunsplit(urlsplit(server.url)._replace(path="/plain", query="client_encoding=SQL_ASCII"))
    with PostgresStore_(url, **PATIENT) as store:
        begin(store, subject="Ünï")
        assert store.load("h").subject == "Ünï"
        assert [one.handle for one in store.find(Query(subject="Ünï")).items] == ["h"]
    admin.execute("drop database plain with (force)")


@pytest.mark.parametrize("handle", ["\0", "\ud800", "ü", "x" * 100_000])
def test_a_handle_that_is_none_of_ours_harms_no_other_load(server: Postgres, store: PostgresStore, handle: str) -> None:
    begin(store)

    async def both() -> list[Any]:
        awaited = AsyncPostgresStore(server.url, prefix=store._house.names.prefix, **PATIENT)
        loads = [awaited.load("h"), awaited.load(handle), awaited.load("h")]
        found = await asyncio.gather(*loads, return_exceptions=True)
        await awaited.close()
        return found

    first, odd, last = asyncio.run(both())
    assert first == last == store.load("h")
    assert odd is None or isinstance(odd, StoreError)


async def test_what_cannot_be_sent_is_said_and_breaks_no_connection(server: Postgres, store: PostgresStore) -> None:
    begin(store)
    awaited = AsyncPostgresStore(server.url, prefix=store._house.names.prefix, **PATIENT)
    for kept in (store, awaited):
        for handle in ("\0", "\ud800"):
            with pytest.raises(StoreError, match="cannot keep") as raised:
                await committed(kept, [End(handle=handle, because="logout")])
            assert type(raised.value) is StoreError
        assert await committed(kept, [Touch(handle="h", seen_at=1.0)]) is None
    await awaited.close()


# The two classes of commit.


@pytest.fixture
def trace(store: PostgresStore, admin: Admin) -> Callable[[], list[str]]:
    """Return a function that tells with which synchronous_commit the rows were written since it was last called."""
    begin(store)
    prefix = store._house.names.prefix
    admin.execute(f"create table {prefix}trace (setting text, isolation text)")
    admin.execute(
        f"create function {prefix}traced() returns trigger language plpgsql as $$ begin insert into {prefix}trace "
        "values (current_setting('synchronous_commit'), current_setting('transaction_isolation')); return new; end $$"
    )
    for table in ("sessions", "meta", "subjects", "epochs", "events"):
        admin.execute(
            f"create trigger traced after insert or update on {prefix}{table} "
            f"for each row execute function {prefix}traced()"
        )

    def traced() -> list[str]:
        rows = admin.execute(f"delete from {prefix}trace returning setting, isolation").fetchall()
        assert {isolation for _, isolation in rows} <= {"read committed"}
        return sorted({setting for setting, _ in rows})

    return traced


def changes(store: PostgresStore) -> list[list[Any]]:
    """Return commits of each kind, to be made one after the other."""
    record, clock = store.load("h"), now(store)
    return [
        [Touch(handle="h", seen_at=record.seen_at + 1)],
        [Update(record=replace(record, data=b"1"), was=1)],
        [Update(record=replace(record, data=b"2"), was=2, events=(event("e", clock),))],
        [Insert(record=make("new", clock))],
        [Replace(record=make("next", clock), old="new", was=1)],
        [EndOthers(realm="", subject="ann", because="owner", keep=("h",))],
        [End(handle="h", because="logout")],
    ]


@pytest.mark.parametrize("durable", [False, True])
def test_only_what_must_last_waits_for_the_disk(
    store: PostgresStore, trace: Callable[[], list[str]], durable: bool
) -> None:
    for number, change in enumerate(changes(store)):
        assert store.commit(b"%d" % number, change, durable) is None
        assert trace() == ["on" if durable else "off"], change


def test_a_commit_that_was_applied_before_still_waits_for_the_disk(
    store: PostgresStore, trace: Callable[[], list[str]]
) -> None:
    update = [Update(record=replace(store.load("h"), data=b"1"), was=1)]
    assert store.commit(b"u", update, durable=False) is None
    assert trace() == ["off"]
    assert store.commit(b"u", update, durable=True) is None
    assert trace() == ["on"]
    assert store.commit(b"u", update, durable=False) is None
    assert trace() == []


def test_a_generation_can_be_renewed_and_that_lasts(
    server: Postgres, store: PostgresStore, trace: Callable[[], list[str]]
) -> None:
    before = store.epochs().generation
    renewed = store.renew_generation()
    assert trace() == ["on"]
    assert before != renewed == store.epochs().generation

    async def again() -> tuple[str, str]:
        awaited = AsyncPostgresStore(server.url, prefix=store._house.names.prefix, **PATIENT)
        name, found = await awaited.renew_generation(), await awaited.epochs()
        await awaited.close()
        return name, found.generation

    name, found = asyncio.run(again())
    assert renewed != name == found


def test_the_store_sets_its_own_isolation_and_undoes_no_higher_durability(
    server: Postgres, store: PostgresStore, trace: Callable[[], list[str]]
) -> None:
    options = "-c default_transaction_isolation=serializable -c synchronous_commit=remote_write"
    other = PostgresStore(
        f"{server.url}?options={options.replace(' ', '%20').replace('=', '%3D')}", prefix=store._house.names.prefix
    )
    assert other.commit(b"e", [EndOthers(realm="", subject="ann", because="owner")], durable=True) is None
    assert trace() == ["remote_write"]
    other.close()


# Tables and rights.


def test_whoever_comes_first_makes_the_tables_and_the_others_wait(server: Postgres, fresh: str) -> None:
    stores = [PostgresStore(server.url, prefix=fresh, load_deadline=10, commit_deadline=10) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        generations = {epochs.generation for epochs in pool.map(lambda store: store.epochs(), stores)}
    assert len(generations) == 1
    assert generations != {""}
    for store in stores:
        store.close()


def test_building_a_store_opens_nothing() -> None:
    PostgresStore("postgresql://nobody@127.0.0.1:1/none").close()
    AsyncPostgresStore("postgresql://nobody@127.0.0.1:1/none")


def test_an_administrators_tables_are_taken_as_they_are(server: Postgres, admin: Admin, fresh: str) -> None:
    strict = PostgresStore(server.url, prefix=fresh, migrate=False)
    with pytest.raises(
        StoreError, match=f"are missing, .* run what `coatcheck schema postgresql --schema public --prefix {fresh}`"
    ):
        strict.epochs()
    admin.execute(schema.script(names("public", fresh)))
    assert strict.epochs().generation
    begin(strict)
    with PostgresStore_(server.url, prefix=fresh) as other:
        assert other.load("h") is not None
    strict.close()


def test_tables_of_a_newer_release_are_refused(
    server: Postgres, admin: Admin, store: PostgresStore, fresh: str
) -> None:
    store.epochs()
    admin.execute(f"update {fresh}meta set value = '99' where name = 'schema'")
    with (
        PostgresStore_(server.url, prefix=fresh) as late,
        pytest.raises(StoreError, match=r"newer coatcheck .schema 99"),
    ):
        late.load("h")
    admin.execute(f"update {fresh}meta set value = '0' where name = 'schema'")
    with (
        PostgresStore_(server.url, prefix=fresh, migrate=False) as late,
        pytest.raises(StoreError, match="are missing"),
    ):
        late.load("h")


def test_tables_that_vanish_come_back_with_another_generation(admin: Admin, store: PostgresStore, fresh: str) -> None:
    begin(store)
    before = store.epochs().generation
    for name in TABLES:
        admin.execute(f"drop table {fresh}{name}")
    with pytest.raises(StoreError, match="tables of coatcheck are missing"):
        store.load("h")
    assert store.load("h") is None
    assert store.epochs().generation not in ("", before)


def test_a_schema_of_ones_own_may_have_a_reserved_name(server: Postgres, admin: Admin) -> None:
    admin.execute('drop schema if exists "order" cascade; create schema "order"')
    with PostgresStore_(server.url, schema="order") as store:
        begin(store)
        assert store.load("h").subject == "ann"
    assert admin.execute('select count(*) from "order".coatcheck_sessions').fetchone() == (1,)
    admin.execute('drop schema "order" cascade')


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schema": "Public"}, "'Public' cannot name a schema"),
        ({"schema": 'x"; drop'}, "cannot name a schema"),
        ({"prefix": "x y"}, "cannot begin a table name"),
        ({"dsn": None}, "needs a URL"),
        ({"pool_size": 0}, "pool_size is more than 0 .found 0"),
        ({"load_deadline": -1.0}, "load_deadline is more than 0"),
        ({"dsn": "nonsense secret"}, "does not read; write postgresql://"),
        ({"dsn": "postgresql+psycopg://a:secret@host/x"}, "does not read"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any], words: str) -> None:
    for kind in (PostgresStore, AsyncPostgresStore):
        with pytest.raises(ConfigError, match=words) as raised:
            kind(**{"dsn": "postgresql://localhost", **settings})
        assert "secret" not in str(raised.value)


def test_what_is_wrong_is_said_in_a_sentence_without_the_password(server: Postgres, admin: Admin, fresh: str) -> None:
    ours(server)
    admin.execute("drop role if exists guest")
    admin.execute("create role guest login password 'secret'")
    with PostgresStore_(server.url, prefix=fresh) as store:
        store.epochs()
    wrong = {
        server.url_of(password="secret"): "password authentication failed .*check the user and the password",
        server.url_of(user="stranger", password="secret"): "check the user and the password",
        server.url_of(database="nowhere"): 'database "nowhere" does not exist.*create that database',
        server.url_of(user="guest", password="secret"): "lacks a right .permission denied.*grant it select, insert",
        "postgresql://guest:secret@127.0.0.1:1/postgres": "Connection refused.*check that it is up",
        "postgresql://guest:secret@no.such.host.invalid/postgres": "no.such.host.invalid.*check that it is up",
        server.url + "?target_session_attrs=standby": "replica or read-only",
        server.url + "?options=-cno_such_setting%3D1": "unrecognized configuration parameter",
    }
    for url, words in wrong.items():
        for error in (blocking_error(url, fresh), awaited_error(url, fresh)):
            with pytest.raises(StoreError, match=words):
                raise error
            assert "secret" not in repr(error)
            assert "\n" not in str(error)
    admin.execute("drop role guest")


def test_a_schema_that_is_missing_or_closed_to_us_is_named(server: Postgres, admin: Admin) -> None:
    ours(server)
    with (
        PostgresStore_(server.url, schema="nowhere") as store,
        pytest.raises(StoreError, match=r"schema is missing.*create it"),
    ):
        store.load("h")
    admin.execute("drop role if exists guest")
    admin.execute("create role guest login password 'secret'")
    with (
        PostgresStore_(server.url_of(user="guest", password="secret"), prefix="mine_") as store,
        pytest.raises(StoreError, match="let an administrator run what `coatcheck schema postgresql` prints"),
    ):
        store.load("h")
    admin.execute("drop role guest")


def ours(server: Postgres) -> None:
    if server.server is None:
        pytest.skip("the server that the environment names has users and processes of its own")


def blocking_error(url: str, prefix: str) -> Exception:
    with PostgresStore_(url, prefix=prefix) as store, pytest.raises(StoreError) as raised:
        store.load("h")
    return raised.value


def awaited_error(url: str, prefix: str) -> Exception:
    async def load() -> None:
        store = AsyncPostgresStore(url, prefix=prefix)
        try:
            await store.load("h")
        finally:
            await store.close()

    with pytest.raises(StoreError) as raised:
        asyncio.run(load())
    return raised.value


class PostgresStore_(PostgresStore):  # noqa: N801 - the same, for `with`
    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Connections.


def test_a_connection_that_was_killed_between_two_calls_is_not_missed(admin: Admin, store: PostgresStore) -> None:
    begin(store)
    for number in range(3):
        hang_up(admin)
        assert store.load("h") is not None
        hang_up(admin)
        touch = Touch(handle="h", seen_at=now(store).now + number)
        hang_up(admin)
        assert store.commit(b"%d" % number, [touch], durable=True) is None


async def test_the_same_awaited(admin: Admin, server: Postgres, store: PostgresStore) -> None:
    begin(store)
    awaited = AsyncPostgresStore(server.url, prefix=store._house.names.prefix, **PATIENT)
    for number in range(3):
        assert await awaited.load("h") is not None
        touch = Touch(handle="h", seen_at=now(store).now + number)
        assert await awaited.commit(b"%d" % number, [touch], durable=True) is None
        hang_up(admin)
    await awaited.close()


def hang_up(admin: Admin) -> None:
    """Kill all connections of stores."""
    asked = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'coatcheck'"
    admin.execute(asked)


def connected(admin: Admin) -> int:
    asked = "select count(*) from pg_stat_activity where application_name = 'coatcheck'"
    return int(admin.execute(asked).fetchall()[0][0])


def test_a_store_opens_no_more_connections_than_it_may_and_close_closes_them(
    admin: Admin, server: Postgres, fresh: str
) -> None:
    hang_up(admin)
    store = PostgresStore(server.url, prefix=fresh, pool_size=3, load_deadline=10)
    begin(store)
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: store.load("h"), range(200)))
    assert 1 <= connected(admin) <= 3
    store.close()
    hang_up(admin)
    assert store.load("h") is not None
    store.close()


def test_loads_are_served_when_all_commits_wait_for_a_lock(
    admin: Admin, server: Postgres, store: PostgresStore
) -> None:
    begin(store)
    small = PostgresStore(server.url, prefix=store._house.names.prefix, pool_size=4, commit_deadline=1.0)
    small.load("h")
    with psycopg.connect(server.url) as holder, ThreadPoolExecutor(8) as pool:
        holder.execute(f"select 1 from {store._house.names.prefix}sessions for update")
        end = [End(handle="h", because="logout")]
        ends = [pool.submit(small.commit, b"%d" % number, end, durable=True) for number in range(8)]
        for _ in range(50):
            assert small.load("h") is not None
        holder.rollback()
        for end in ends:
            assert end.exception() is None or isinstance(end.exception(), NotApplied)
    assert small.load("h").ended_because == "logout" or all(end.exception() for end in ends)
    small.close()


def test_a_lock_that_is_held_costs_a_clear_error_in_time(server: Postgres, store: PostgresStore) -> None:
    begin(store)
    quick = PostgresStore(server.url, prefix=store._house.names.prefix, commit_deadline=0.5)
    with psycopg.connect(server.url) as holder:
        holder.execute(f"select 1 from {store._house.names.prefix}sessions for update")
        with pytest.raises(StoreError) as raised:
            quick.commit(b"e", [End(handle="h", because="logout")], durable=True)
        assert isinstance(raised.value, NotApplied), raised.value
    assert store.load("h").ended_at is None
    assert quick.commit(b"e", [End(handle="h", because="logout")], durable=True) is None
    quick.close()


def test_a_row_that_does_not_decode_fails_its_own_load_only(
    admin: Admin, server: Postgres, store: PostgresStore
) -> None:
    for number in range(64):
        begin(store, f"h{number:02}")
    admin.execute(f"update {store._house.names.prefix}sessions set details = 'x' where handle = 'h07'")

    async def all_loads() -> list[Any]:
        awaited = AsyncPostgresStore(server.url, prefix=store._house.names.prefix, **PATIENT)
        await awaited.load("h00")
        loads = [awaited.load(f"h{number:02}") for number in range(64)]
        found = await asyncio.gather(*loads, return_exceptions=True)
        await awaited.close()
        return found

    found = asyncio.run(all_loads())
    assert isinstance(found.pop(7), StoreError)
    assert [one.handle for one in found] == [f"h{number:02}" for number in range(64) if number != 7]
    with pytest.raises(StoreError, match="'h07' does not decode"):
        store.load("h07")
    with pytest.raises(StoreError, match="'h07' does not decode"):
        store.commit(b"e", [End(handle="h07", because="logout")], durable=False)
    assert store.commit(b"e", [End(handle="h08", because="logout")], durable=False) is None


async def test_a_commit_that_was_refused_leaves_its_connection_in_order(
    admin: Admin, server: Postgres, store: PostgresStore, fresh: str
) -> None:
    begin(store)
    admin.execute(f"update {fresh}sessions set details = 'x' where handle = 'h'")
    awaited = AsyncPostgresStore(server.url, prefix=fresh, pool_size=1)
    for kept in (store, awaited):
        other = [Insert(record=make(type(kept).__name__, now(store)))]
        for _ in range(3):
            with pytest.raises(StoreError, match="does not decode"):
                await committed(kept, [End(handle="h", because="logout")])
        asked = "select count(*) from pg_stat_activity where application_name = 'coatcheck' and state like 'idle in %'"
        assert admin.execute(asked).fetchone() == (0,)
        assert await committed(kept, other) is None
        assert store.load(type(kept).__name__) is not None
    await awaited.close()


async def committed(store: Any, changes: list[Any]) -> Any:
    found = store.commit(b"c", changes, durable=True)
    return await found if inspect.isawaitable(found) else found


@pytest.mark.parametrize("face", ["blocking", "awaited"])
def test_a_server_that_hangs_costs_a_clear_error_in_time(
    admin: Admin, server: Postgres, store: PostgresStore, face: str
) -> None:
    ours(server)
    begin(store)
    settings: Any = {"prefix": store._house.names.prefix, "load_deadline": 1.0, "commit_deadline": 1.0}
    held = Face((PostgresStore if face == "blocking" else AsyncPostgresStore)(server.url, **settings))
    held.epochs()
    held.done(Touch(handle="h", seen_at=1.0))
    asked = "select pid from pg_stat_activity where application_name = 'coatcheck' or backend_type = 'client backend'"
    others = [pid for (pid,) in admin.execute(f"{asked} and pid <> pg_backend_pid()").fetchall()]
    others.append(server.server.process.pid)
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        for act, kind in (
            (lambda: held.commit(Touch(handle="h", seen_at=2.0)), Unknown),
            (lambda: held.load("h"), StoreError),
            (lambda: held.commit(End(handle="h", because="logout")), NotApplied),
            (held.find, StoreError),
        ):
            start = time.monotonic()
            with pytest.raises(kind, match=r"in time|did not answer within"):
                act()
            assert time.monotonic() - start < 1.0 + 1.5
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)
    until = time.monotonic() + 20
    while True:
        try:
            assert held.load("h") == store.load("h")
        except StoreError:
            assert time.monotonic() < until
        else:
            break
    held.close()


# A pool of the application's own.


def test_a_pool_that_is_handed_in_is_left_as_it_was(server: Postgres, fresh: str) -> None:
    with ConnectionPool(server.url, min_size=1, max_size=2, kwargs={"row_factory": dict_row}, open=True) as pool:
        store = PostgresStore(pool=pool, prefix=fresh)
        begin(store)
        assert store.commit(b"e", [End(handle="h", because="logout")], durable=True) is None
        assert store.load("h").ended_because == "logout"
        conflict = store.commit(b"u", [Update(record=store.load("h"), was=2)], durable=False)
        assert isinstance(conflict, Conflict)
        silent = ConnectionPool(lambda: server.url, open=False)
        with pytest.raises(ConfigError, match="give it the server's URL beside pool="):
            PostgresStore(pool=silent, prefix=fresh).watch(lambda handle: None)
        store.close()
        with pool.connection() as connection:
            assert connection.execute("select 1 as one").fetchone() == {"one": 1}
            assert connection.autocommit is False
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


async def test_an_awaited_pool_that_is_handed_in_is_left_as_it_was(server: Postgres, fresh: str) -> None:
    async with AsyncConnectionPool(server.url, min_size=1, max_size=4, open=False) as pool:
        store = AsyncPostgresStore(pool=pool, prefix=fresh)
        clock = Clock((await store.epochs()).store_now)
        assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=True) is None
        found = await asyncio.gather(*(store.load("h") for _ in range(20)))
        assert {one.handle for one in found} == {"h"}
        await store.close()
        async with pool.connection() as connection:
            assert connection.autocommit is False


# Indexes: what purge, listings and locks look at stays small.


def test_each_question_has_its_index(admin: Admin, store: PostgresStore) -> None:
    begin(store)
    prefix = store._house.names.prefix
    admin.execute(
        f"insert into {prefix}sessions (handle, realm, subject, created_at, seen_at, idle_for, expires_at, data, "
        f"version, by_commit, details, due_at) select 'x' || n, '', 'subject' || (n / 3), n, n, 1800, 2e9, '', 1, '', "
        f"'', 2e9 + n from generate_series(1, 20000) n"
    )
    admin.execute(
        f"insert into {prefix}events (at, name, realm, handle, subject, noise, detail) select n, 'e', '', "
        f"'x' || n, 'subject' || (n / 3), 0, '{{}}' from generate_series(1, 20000) n"
    )
    admin.execute(f"analyze {prefix}sessions; analyze {prefix}events")
    rounds = store._house.rounds
    lock = rounds.text(rounds._dialect.lock_records(2, 1)).replace("%s", "{}")
    questions = {
        rounds._get.replace("%s", "'x5'"): f"{prefix}sessions_pkey",
        lock.format("array['x5','x6']", "''", "'subject7'"): f"{prefix}sessions_subject",
        rounds.text("select 1 from {p}sessions where due_at <= 5 order by due_at limit 100"): f"{prefix}sessions_due",
        rounds.text("select * from {p}sessions order by created_at, handle limit 100"): f"{prefix}sessions_begun",
        rounds.text(
            "select * from {p}sessions where subject = 'subject7' order by created_at, handle limit 100"
        ): f"{prefix}sessions_subject",
        rounds.text("select * from {p}events order by at desc, id desc limit 100"): f"{prefix}events_at",
        rounds.text(
            "select * from {p}events where subject = 'subject7' order by at desc, id desc limit 100"
        ): f"{prefix}events_subject",
        rounds.text(
            "select * from {p}events where handle = 'x7' order by at desc, id desc limit 100"
        ): f"{prefix}events_handle",
    }
    for question, index in questions.items():
        plan = "\n".join(row[0] for row in admin.execute(f"explain {question}").fetchall())
        assert index in plan, plan
        assert "Seq Scan" not in plan, plan


def test_threads_may_share_a_store(store: PostgresStore) -> None:
    begin(store)
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                begin(store, f"h{number}-{turn}", subject=f"s{number}")
                assert store.load(f"h{number}-{turn}").subject == f"s{number}"
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
