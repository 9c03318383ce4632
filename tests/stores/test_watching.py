"""Stores that tell what changed: what is heard, what is not, by whom, and how soon.

A new store that can be watched is one line in KINDS.
"""

import logging
import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core.errors import StoreError
from coatcheck.core.model import Change, End, EndOthers, Handle, Insert, Limit, Note, Replace, Touch, Update
from coatcheck.flow.async_store import AsyncWatchedStore
from coatcheck.flow.store import WatchedStore
from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.postgres import AsyncPostgresStore, PostgresStore
from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore, rows, schema, threads, watching
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import TURN, Face, event, make
from tests.conftest import server_or_skip
from tests.support.servers import postgres as postgres_servers
from tests.support.servers import redis as redis_servers

FORK = multiprocessing.get_context("fork")
QUIET = 0.6
"""Seconds after which what was not heard will not be heard any more: longer than any store takes to tell."""


@dataclass(frozen=True)
class Kind:
    """A store that can be watched; `make` opens it once more on the same data if it is called with the same folder.

    `soon`: seconds within which another process (or, where there is none, this one) is heard.
    """

    name: str
    make: Callable[[Path, Clock], Any]
    soon: float
    shared: bool = True


@cache
def postgres() -> str:
    """Return the URL of a PostgreSQL."""
    return server_or_skip(postgres_servers.server).url


@cache
def redis() -> str:
    """Return the URL of a Redis."""
    return server_or_skip(redis_servers.single).url


def named(folder: Path) -> str:
    """Return a prefix that no other test has."""
    return f"w{sha256(str(folder).encode()).hexdigest()[:12]}_"


KINDS = [
    Kind("memory", lambda _, clock: MemoryStore(clock=clock), 0.0, shared=False),
    Kind("memory, awaited", lambda _, clock: AsyncMemoryStore(clock=clock), 0.0, shared=False),
    Kind("sqlite", lambda folder, clock: SqliteStore(folder / "sessions.db", clock=clock), 0.5),
    Kind("sqlite, awaited", lambda folder, clock: AsyncSqliteStore(folder / "sessions.db", clock=clock), 0.5),
    Kind("postgres", lambda folder, clock: PostgresStore(postgres(), prefix=named(folder), clock=clock), 0.5),
    Kind(
        "postgres, awaited",
        lambda folder, clock: AsyncPostgresStore(postgres(), prefix=named(folder), clock=clock),
        0.5,
    ),
    Kind("redis", lambda folder, clock: RedisStore(redis(), prefix=named(folder), clock=clock), 0.5),
    Kind("redis, awaited", lambda folder, clock: AsyncRedisStore(redis(), prefix=named(folder), clock=clock), 0.5),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def face(kind: Kind, tmp_path: Path, clock: Clock) -> Iterator[Face]:
    face = Face(kind.make(tmp_path, clock))
    for handle in "abc":
        face.done(Insert(record=make(handle, clock)))
    yield face
    face.close()


class Ear:
    """Somebody who listens."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.heard: list[Handle | None] = []
        self.stop = face.watch(self.heard.append)

    def hears(self, *handles: Handle, within: float = 5.0) -> bool:
        """Wait until each of these was named."""
        return self.face.until(lambda: {*handles} <= {*self.heard}, within)

    def hears_nothing(self) -> bool:
        """Wait for long enough; tell whether nothing came."""
        return not self.face.until(lambda: self.heard, QUIET)


CHANGES: list[tuple[str, Callable[[Face, Clock], Change], set[Handle]]] = [
    ("a write", lambda face, clock: Update(record=replace(face.have("a"), data=b"\x01new"), was=1), {"a"}),
    (
        "a renewal",
        lambda face, clock: Update(record=replace(face.have("a"), turn_proof=b"next" * 8, used_at=None), was=1),
        {"a"},
    ),
    ("an end", lambda face, clock: End(handle="a", because="operator"), {"a"}),
    (
        "the end of the others",
        lambda face, clock: EndOthers(realm="", subject="ann", keep=("a",), because="owner"),
        {*"bc"},
    ),
    ("a successor", lambda face, clock: Replace(record=make("d", clock), old="a", was=1), {"a"}),
    ("an eviction", lambda face, clock: Insert(record=make("d", clock), limit=Limit(3)), {"a"}),
]


@pytest.mark.parametrize(("what", "change", "heard"), CHANGES, ids=[row[0] for row in CHANGES])
def test_every_change_of_a_record_is_heard(
    face: Face, clock: Clock, what: str, change: Callable[[Face, Clock], Change], heard: set[Handle]
) -> None:
    ear = Ear(face)
    face.done(change(face, clock))
    assert ear.hears(*heard)
    assert not ({*"abc"} - heard) & {*ear.heard}, "of what did not change nothing is said"


def test_mere_activity_is_not_heard_nor_what_came_to_nothing(face: Face, clock: Clock) -> None:
    face.done(Update(record=replace(face.have("b"), data=b"\x01new"), was=1))
    ear = Ear(face)
    face.until(lambda: False, QUIET)  # what was written before may still be told
    ear.heard.clear()
    clock.wind(60)
    face.done(Touch(handle="a", seen_at=clock.now))
    face.done(Touch(handle="a", seen_at=clock.now, turn_proof=TURN))
    face.done(Note(events=(event("said", clock),)))
    face.done(End(handle="z", because="operator"))
    assert face.commit(Update(record=face.have("b"), was=1)) is not None
    assert face.have("a").seen_at == clock.now
    assert ear.hears_nothing()


def test_what_purge_ends_is_heard(face: Face, clock: Clock) -> None:
    ear = Ear(face)
    clock.wind(3601)
    face.purge()
    assert ear.hears(*"abc")


def test_of_two_who_listen_each_hears_and_each_stops_by_itself(face: Face, clock: Clock) -> None:
    one, two = Ear(face), Ear(face)
    face.done(End(handle="a", because="operator"))
    assert one.hears("a")
    assert two.hears("a")
    one.stop()
    face.done(End(handle="b", because="operator"))
    assert two.hears("b")
    assert "b" not in one.heard
    two.stop()
    two.stop()
    face.done(End(handle="c", because="operator"))
    face.until(lambda: False, QUIET)
    assert "c" not in [*one.heard, *two.heard]


def test_who_stopped_may_listen_again(face: Face) -> None:
    Ear(face).stop()
    ear = Ear(face)
    face.done(End(handle="a", because="operator"))
    assert ear.hears("a")


def test_this_process_is_heard_at_once(face: Face, kind: Kind) -> None:
    ear = Ear(face)
    for handle in "abc":
        began = time.monotonic()
        face.done(End(handle=handle, because="operator"))
        assert ear.hears(handle)
        took = time.monotonic() - began
        assert took < (0.2 if kind.shared else 0.05), took


def test_a_store_says_that_it_can_be_watched(face: Face, kind: Kind) -> None:
    assert isinstance(face.store, AsyncWatchedStore if "awaited" in kind.name else WatchedStore)


# Other processes.


def _end_elsewhere(kind: Kind, folder: Path, now: float, handles: str) -> None:
    face = Face(kind.make(folder, Clock(now)))
    for handle in handles:
        face.done(End(handle=handle, because="operator"))
    face.close()


def run(target: Callable[..., None], *arguments: Any) -> None:
    child = FORK.Process(target=target, args=arguments)
    child.start()
    child.join(30)
    assert child.exitcode == 0


SHARED = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.shared], ids=lambda kind: kind.name, indirect=True
)


@SHARED
def test_another_process_is_heard_in_time(face: Face, kind: Kind, tmp_path: Path, clock: Clock) -> None:
    ear = Ear(face)
    for handle in "abc":
        run(_end_elsewhere, kind, tmp_path, clock.now, handle)
        assert ear.hears(handle, within=kind.soon)


def _listen_in_a_child(kind: Kind, store: Any, folder: Path, heard: Any) -> None:
    """Listen with a store that came through the fork, and with one of our own."""
    face = Face(store)
    ear = Ear(face)
    heard.put("listening")
    good = ear.hears("b")
    ear.stop()
    heard.put(good)


@SHARED
def test_a_forked_child_listens_for_itself(face: Face, kind: Kind, tmp_path: Path) -> None:
    ear = Ear(face)
    heard = FORK.Queue()
    child = FORK.Process(target=_listen_in_a_child, args=(kind, face.store, tmp_path, heard))
    child.start()
    assert heard.get(timeout=10) == "listening"
    face.done(End(handle="b", because="operator"))
    assert heard.get(timeout=10) is True
    child.join(10)
    assert child.exitcode == 0
    face.done(End(handle="c", because="operator"))
    assert ear.hears("b", "c"), "and the parent goes on hearing"


# SQLite only.


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "sessions.db", clock=clock)) as store:
        assert store.commit(b"a", [Insert(record=make("a", clock))], durable=False) is None
        yield store


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _others() -> None:
    """Note whose threads are there before a test: other tests' stores may be open still."""
    _before.clear()
    _before.update(threading.enumerate())


def watchers(expected: int) -> bool:
    """Tell whether so many threads look, or soon will: the last listener does not wait for its thread."""
    end = time.monotonic() + 5
    while True:
        ours = set(threading.enumerate()) - _before
        found = sum(thread.name == "coatcheck-sqlite-watcher" for thread in ours)
        if found == expected or time.monotonic() > end:
            return found == expected
        time.sleep(0.005)


def test_what_a_hand_changes_in_the_file_is_heard(store: SqliteStore) -> None:
    ear = Ear(Face(store))
    with closing(sqlite3.connect(store._file.path)) as db, db:
        db.execute("update coatcheck_sessions set ended_at = 1.0, version = version + 1")
    assert ear.hears("a")
    ear.heard.clear()
    with closing(sqlite3.connect(store._file.path)) as db, db:
        db.execute("delete from coatcheck_sessions")
    assert ear.hears("a")


def test_a_thread_looks_only_while_somebody_listens(store: SqliteStore) -> None:
    assert watchers(0)
    one, two = Ear(Face(store)), Ear(Face(store))
    assert watchers(1)
    one.stop()
    time.sleep(2 * watching.GATHER)
    assert watchers(1)
    two.stop()
    assert watchers(0)
    Ear(Face(store))
    assert watchers(1)
    store.close()
    assert watchers(0)


def test_the_thread_goes_with_its_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "other.db")
    store.watch(lambda handle: None)
    assert watchers(1)
    del store
    assert watchers(0)


def test_changes_that_were_forgotten_before_they_were_heard_are_made_up_for(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = Ear(Face(store))
    store.commit(b"e", [End(handle="a", because="operator")], durable=False)
    assert ear.hears("a")
    ear.heard.clear()
    with closing(sqlite3.connect(store._file.path)) as db, db:
        last = db.execute("select max(id) from coatcheck_changes").fetchone()[0]
        db.execute("insert into coatcheck_changes (id, handle) values (?, 'x')", (last + 7,))
        db.execute("delete from coatcheck_changes where id <= ?", (last,))
    face = Face(store)
    assert face.until(lambda: ear.heard == [None])
    store.commit(b"i", [Insert(record=make("b", clock))], durable=False)
    store.commit(b"f", [End(handle="b", because="operator")], durable=False)
    assert ear.hears("b")


def test_a_file_that_was_put_back_to_an_older_day_is_made_up_for(store: SqliteStore, clock: Clock) -> None:
    ear = Ear(Face(store))
    store.commit(b"e", [End(handle="a", because="operator")], durable=False)
    assert ear.hears("a")
    ear.heard.clear()
    with closing(sqlite3.connect(store._file.path)) as db, db:
        db.execute("delete from coatcheck_changes")
    assert Face(store).until(lambda: ear.heard == [None])
    store.commit(b"i", [Insert(record=make("b", clock))], durable=False)
    store.commit(b"f", [End(handle="b", because="operator")], durable=False)
    assert ear.hears("b")


def test_old_changes_are_forgotten_but_never_the_newest(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHANGES_KEPT", 10)
    store.watch(lambda handle: None)
    for number in range(25):
        update = Update(record=make("a", clock), was=number + 1)
        assert store.commit(os.urandom(8), [update], durable=False) is None
    link = store._file.take(store._here)
    link.busy = False
    counts = []
    for _ in range(2):
        rows.forget_changes(link)
        counts += link.db.execute("select count(*), max(id) from coatcheck_changes").fetchall()
    assert counts == [(10, 25), (10, 25)]


def test_the_keeper_forgets_old_changes(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHANGES_KEPT", 10)
    monkeypatch.setattr(threads, "TICK", 0.01)
    monkeypatch.setattr(threads, "PURGE_EVERY", 0.01)
    with closing(SqliteStore(tmp_path / "sessions.db", clock=clock)) as store:
        store.watch(lambda handle: None)
        store.commit(b"a", [Insert(record=make("a", clock))], durable=False)
        for number in range(30):
            store.commit(os.urandom(8), [Update(record=make("a", clock), was=number + 1)], durable=False)

        def kept() -> int:
            link = store._file.take(store._here)
            link.busy = False
            return int(link.db.execute("select count(*) from coatcheck_changes").fetchone()[0])

        assert Face(store).until(lambda: kept() <= 20)


# Changes are noted only while somebody listens.


def asked(store: SqliteStore, statement: str, *values: object) -> list[Any]:
    """Ask the file by another hand."""
    with closing(sqlite3.connect(store._file.path)) as db, db:
        return [row[0] for row in db.execute(statement, values).fetchall()]


NOTED = "select handle from coatcheck_changes order by id"
LISTENING = "select name from coatcheck_watchers"


def test_what_nobody_listens_for_is_not_noted(store: SqliteStore, clock: Clock) -> None:
    def write(number: int) -> None:
        assert store.commit(os.urandom(8), [Update(record=make("a", clock), was=number)], durable=False) is None

    write(1)
    assert (asked(store, NOTED), asked(store, LISTENING)) == ([], [])
    one, two = Ear(Face(store)), Ear(Face(store))
    write(2)
    assert len(asked(store, LISTENING)) == 1, "one for the process"
    assert one.hears("a")
    assert two.hears("a")
    one.stop()
    write(3)
    two.stop()
    assert Face(store).until(lambda: asked(store, LISTENING) == [])
    write(4)
    assert asked(store, NOTED) == ["a", "a"]
    three = Ear(Face(store))
    write(5)
    assert three.hears("a")
    store.close()
    assert asked(store, LISTENING) == [], "gone with the store"


def test_two_that_begin_to_listen_at_once_are_one_watcher(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, faster, begun = watching._begun, list[Ear](), list[str]()

    def overtaken(*given: Any) -> tuple[str, int]:
        found = begin(*given)
        begun.append(found[0])
        if len(begun) == 1:
            faster.append(Ear(Face(store)))
        return found

    monkeypatch.setattr(watching, "_begun", overtaken)
    ear = Ear(Face(store))
    assert asked(store, LISTENING) == begun[1:]
    assert watchers(1)
    store.commit(b"e", [End(handle="a", because="operator")], durable=False)
    assert ear.hears("a")
    assert faster[0].hears("a")


def test_a_watcher_that_was_forgotten_makes_up_for_it(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process stood still for minutes, and another one's keeper took it for dead."""
    ear = Ear(Face(store))
    (name,) = asked(store, LISTENING)
    asked(store, "delete from coatcheck_watchers")
    asked(store, "update coatcheck_sessions set ended_at = 1.0, version = version + 1")
    assert asked(store, NOTED) == []
    assert Face(store).until(lambda: ear.heard)
    assert ear.heard == [None]
    assert asked(store, LISTENING) == [name]
    store.commit(b"i", [Insert(record=make("b", clock))], durable=False)
    store.commit(b"f", [End(handle="b", because="operator")], durable=False)
    assert ear.hears("b")


def test_the_keeper_forgets_a_watcher_that_was_killed_and_nobody_else(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "TICK", 0.01)
    monkeypatch.setattr(threads, "PURGE_EVERY", 0.01)
    ear = Ear(Face(store))
    (living,) = asked(store, LISTENING)
    asked(store, "insert into coatcheck_watchers (name, until) values ('killed', ?)", time.time() - 1)
    asked(store, "insert into coatcheck_watchers (name, until) values ('busy', ?)", time.time() + 60)
    with closing(SqliteStore(store._file.path, clock=clock)) as other:
        other.commit(b"k", [Insert(record=make("k", clock))], durable=False)  # has a keeper of its own
        assert Face(store).until(lambda: "killed" not in asked(store, LISTENING))
    assert set(asked(store, LISTENING)) == {living, "busy"}
    assert ear.heard == []


def test_a_watcher_says_in_time_that_it_is_still_there(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = "select until from coatcheck_watchers"
    monkeypatch.setattr(watching, "LEASE", 60.0)
    ear, before = Ear(Face(store)), time.time()
    (first,) = asked(store, until)
    assert 0 < first - before < 61
    watcher = store._file.watcher
    assert isinstance(watcher, watching.Watcher)
    watcher._say_at = 0.0
    monkeypatch.setattr(watching, "LEASE", 600.0)
    assert Face(store).until(lambda: asked(store, until)[0] > before + 599)
    assert watcher._say_at > time.monotonic() + 100
    assert ear.heard == []


def test_a_file_of_before_is_heard_as_well(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    with monkeypatch.context() as patch, closing(SqliteStore(path, clock=clock)) as old:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        old.commit(b"a", [Insert(record=make("a", clock))], durable=False)
        old.commit(b"u", [Update(record=make("a", clock), was=1)], durable=False)
        assert asked(old, NOTED) == ["a"], "always noted, then"
    with closing(SqliteStore(path, clock=clock)) as store:
        ear = Ear(Face(store))
        store.commit(b"e", [End(handle="a", because="operator")], durable=False)
        assert ear.hears("a")


def test_a_listener_that_raises_silences_nobody(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(handle: Handle | None) -> None:
        raise ZeroDivisionError

    store.watch(fail)
    ear = Ear(Face(store))
    changes = [Update(record=make("a", clock), was=1), End(handle="a", because="operator")]
    for number, change in enumerate(changes):
        ear.heard.clear()
        store.commit(b"%d" % number, [change], durable=False)
        assert ear.hears("a")
    assert "a listener for changes of the session store failed" in caplog.text


def test_while_the_file_cannot_be_read_that_is_said_once_and_then_made_up_for(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ear = Ear(Face(store))
    looks: list[int] = []

    def fail(*given: object) -> Any:
        looks.append(1)
        message = "the disk is away"
        raise StoreError(message)

    with caplog.at_level(logging.WARNING, logger="coatcheck"), monkeypatch.context() as patch:
        patch.setattr(watching, "POLL", 0.01)
        patch.setattr(rows, "changes_since", fail)
        store.commit(b"e", [End(handle="a", because="operator")], durable=False)
        assert Face(store).until(lambda: len(looks) > 2)
        assert ear.heard == []
    assert ear.hears("a")
    assert [record.getMessage() for record in caplog.records] == [
        "changes of the session store go unheard: the disk is away"
    ]


def test_a_store_that_cannot_be_read_cannot_be_watched(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_text("no database" * 500)
    with pytest.raises(StoreError, match="not a SQLite database"):
        SqliteStore(path).watch(lambda handle: None)
    assert watchers(0)
