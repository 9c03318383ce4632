"""PostgreSQL tells every process what changes: over NOTIFY, through breaks, and past a pooler that swallows it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from msgspec.structs import replace

from coatcheck.core.model import End, EndOthers, Event, Insert, Touch, Update
from coatcheck.flow.async_store import AsyncWatchedStore
from coatcheck.flow.store import WatchedStore
from coatcheck.stores.postgres import AsyncPostgresStore, PostgresStore, heralds
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import make
from tests.conftest import server_or_skip
from tests.support.servers.postgres import Postgres, a_prefix
from tests.support.servers.postgres import server as shared

Store = PostgresStore


@pytest.fixture(scope="module")
def server() -> Postgres:
    return server_or_skip(shared)


@pytest.fixture
def prefix(server: Postgres) -> Iterator[str]:
    yield from a_prefix(server.url)


@pytest.fixture
def store(server: Postgres, prefix: str) -> Iterator[Store]:
    store = PostgresStore(server.url, prefix=prefix, load_deadline=10, commit_deadline=10)
    clock = Clock(store.epochs().store_now)
    for handle in ("a", "b", "c"):
        assert store.commit(handle.encode(), [Insert(record=make(handle, clock))], durable=False) is None
    yield store
    store.close()


class Heard(list[Any]):
    """What a watcher was told."""

    def until(self, wanted: Callable[[list[Any]], bool], seconds: float = 5.0) -> bool:
        end = time.monotonic() + seconds
        while not wanted(self):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True


def update(store: Store, handle: str) -> None:
    record = store.load(handle)
    assert store.commit(os.urandom(8), [Update(record=record, was=record.version)], durable=False) is None


def end(store: Store, handle: str) -> None:
    assert store.commit(os.urandom(8), [End(handle=handle, because="logout")], durable=True) is None


def test_both_faces_can_be_watched(store: Store, server: Postgres) -> None:
    assert isinstance(store, WatchedStore)
    assert isinstance(AsyncPostgresStore(server.url), AsyncWatchedStore)


def test_another_process_hears_of_every_change_but_activity(store: Store, server: Postgres, prefix: str) -> None:
    other, heard = PostgresStore(server.url, prefix=prefix), Heard()
    stop = other.watch(heard.append)
    at = store.load("a").seen_at
    assert store.commit(b"t", [Touch(handle="a", seen_at=at + 1)], durable=False) is None
    said = Event(name="seen", at=at)
    assert store.commit(b"s", [Touch(handle="c", seen_at=at + 1, events=(said,))], durable=False) is None
    update(store, "b")
    end(store, "a")
    assert heard.until(lambda told: sorted(told) == ["a", "b"])
    assert store.commit(b"e", [EndOthers(realm="", subject="ann", because="owner", keep=("b",))], durable=True) is None
    assert heard.until(lambda told: "c" in told)
    assert sorted(heard) == ["a", "b", "c"]
    stop()
    update(store, "b")
    assert not heard.until(lambda told: len(told) > 3, 0.5)
    other.close()


def test_a_purge_is_told_too(store: Store) -> None:
    heard = Heard()
    stop = store.watch(heard.append)
    late = PostgresStore(
        store._house.dsn, prefix=store._house.names.prefix, clock=Clock(store.load("a").seen_at + 1800)
    )
    assert late.purge(100) == 3
    assert heard.until(lambda told: sorted(told) == ["a", "b", "c"])
    stop()
    late.close()


def test_many_changes_at_once_are_told_as_everything(store: Store) -> None:
    clock = Clock(store.epochs().store_now)
    for number in range(60):
        insert = Insert(record=make(f"m{number}", clock, subject="many"))
        assert store.commit(b"m%d" % number, [insert], durable=False) is None
    heard = Heard()
    stop = store.watch(heard.append)
    assert store.commit(b"e", [EndOthers(realm="", subject="many", because="owner")], durable=True) is None
    assert heard.until(lambda told: told == [None])
    stop()


async def test_an_awaited_store_tells_and_hears(server: Postgres, store: Store, prefix: str) -> None:
    awaited, heard = AsyncPostgresStore(server.url, prefix=prefix), Heard()
    stop = await awaited.watch(heard.append)
    record = await awaited.load("a")
    updates = [Update(record=record, was=1), Update(record=await awaited.load("b"), was=1)]
    await asyncio.gather(*(awaited.commit(os.urandom(8), [change], durable=False) for change in updates))
    await awaited.commit(b"e", [End(handle="c", because="logout")], durable=True)
    assert await asyncio.to_thread(heard.until, lambda told: sorted(told) == ["a", "b", "c"])
    stop()
    await awaited.close()


async def test_close_tells_what_is_left(server: Postgres, store: Store, prefix: str) -> None:
    heard = Heard()
    stop = store.watch(heard.append)
    blocking, awaited = PostgresStore(server.url, prefix=prefix), AsyncPostgresStore(server.url, prefix=prefix)
    update(blocking, "a")
    blocking.close()
    await awaited.commit(b"e", [End(handle="b", because="logout")], durable=False)
    await awaited.close()
    assert await asyncio.to_thread(heard.until, lambda told: sorted(told) == ["a", "b"], 2.0)
    stop()


def test_close_ends_the_herald_and_a_later_use_begins_another(server: Postgres, store: Store, prefix: str) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "coatcheck-herald"}
    other, heard = PostgresStore(server.url, prefix=prefix), Heard()
    stop = other.watch(heard.append)
    for handle in ("a", "b"):
        update(store, handle)
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 9, "it waited for the herald in vain"
        assert heard.until(lambda found, handle=handle: handle in found)
        left = {thread for thread in threading.enumerate() if thread.name == "coatcheck-herald"}
        assert left <= before
    stop()
    other.close()


def test_after_a_break_the_watcher_says_so_and_hears_again(server: Postgres, store: Store) -> None:
    heard = Heard()
    stop = store.watch(heard.append)
    with psycopg.connect(server.url, autocommit=True) as admin:
        for _ in range(2):
            before = len(heard)
            asked = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and "
            asked += "(query like 'select pg_notify%' or query like 'listen%')"
            admin.execute(asked)
            assert heard.until(lambda told, before=before: None in told[before:])
            update(store, "a")
            assert heard.until(lambda told: told[-1] == "a")
    stop()


def test_a_watcher_that_fails_keeps_no_other_from_hearing(store: Store) -> None:
    heard = Heard()

    def fail(handle: str | None) -> None:
        raise ZeroDivisionError

    stops = [store.watch(fail), store.watch(heard.append)]
    update(store, "a")
    update(store, "b")
    assert heard.until(lambda told: told == ["a", "b"])
    for stop in stops:
        stop()


def test_the_last_one_to_go_closes_the_connection(server: Postgres, store: Store) -> None:
    def listening() -> int:
        with psycopg.connect(server.url) as admin:
            asked = "select count(*) from pg_stat_activity where query like '%pg_notify%' or query like 'listen%'"
            return int(admin.execute(asked + " and pid <> pg_backend_pid()").fetchall()[0][0])

    before = listening()
    first, second = store.watch(lambda handle: None), store.watch(lambda handle: None)
    first()
    assert listening() == before + 1
    second()
    assert listening() == before
    assert not any(thread.name == "coatcheck-watcher" for thread in threading.enumerate())


def test_while_the_server_is_away_watching_waits_and_then_says_so(caplog: pytest.LogCaptureFixture) -> None:
    own = server_or_skip(lambda: Postgres(own=True))
    store, heard = PostgresStore(own.url, commit_deadline=0.5), Heard()
    store.epochs()
    own.kill()
    with caplog.at_level(logging.WARNING):
        stop = store.watch(heard.append)
    assert "cannot listen" in caplog.text
    own.start()
    assert heard.until(lambda told: told == [None], 10)
    clock = Clock(store.epochs().store_now)
    store.commit(b"i", [Insert(record=make("h", clock))], durable=False)
    end(store, "h")
    assert heard.until(lambda told: told == [None, "h"])
    stop()
    store.close()
    own.kill()


def test_a_notice_that_cannot_be_sent_is_logged_and_fails_no_commit(
    server: Postgres, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store._house.names), "channel", "x" * 64)
    with caplog.at_level(logging.WARNING):
        update(store, "a")
        assert Heard().until(lambda _: "watchers were not told" in caplog.text)
    monkeypatch.undo()
    assert store.load("a").version == 2
    update(store, "a")


# A pooler.


class Deaf:
    """Passes everything on between a client and the server but notices: as a pooler does that lends out connections."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._socket = socket.create_server(("127.0.0.1", 0))
        netloc = self._target.netloc.rpartition(":")[0] + f":{self._socket.getsockname()[1]}"
        self.url = urlunsplit(self._target._replace(netloc=netloc, query="sslmode=disable&gssencmode=disable"))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                server = socket.create_connection((self._target.hostname, self._target.port))
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        server.close()

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError, EOFError):
            stream = server.makefile("rb")
            while head := stream.read(5):
                kind, length = struct.unpack("!ci", head)
                body = stream.read(length - 4)
                if kind != b"A":
                    client.sendall(head + body)
        client.close()

    def close(self) -> None:
        self._socket.close()


def test_behind_a_pooler_that_swallows_notices_the_watcher_looks_every_second(
    server: Postgres, store: Store, prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heralds, "HEARD_WITHIN", 0.3)
    monkeypatch.setattr(heralds, "POLL_EVERY", 0.1)
    pooler, heard = Deaf(server.url), Heard()
    other = PostgresStore(pooler.url, prefix=prefix)
    with caplog.at_level(logging.WARNING):
        stop = other.watch(heard.append)
        assert heard.until(lambda told: told[:3] == [None, None, None])
    assert caplog.text.count("does not pass NOTIFY on") == 1
    update(other, "a")
    assert other.load("a") == replace(store.load("a"), version=2)
    stop()
    assert not any(thread.name == "coatcheck-watcher" for thread in threading.enumerate())
    other.close()
    pooler.close()
