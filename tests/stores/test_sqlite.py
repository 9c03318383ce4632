"""The SQLite store beyond the contract: files, errors, migrations, durability, threads, processes and loops."""

import asyncio
import gc
import logging
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path

import pytest
from msgspec.structs import replace

from coatcheck.core.errors import ConfigError, NotApplied, StoreError, Unknown
from coatcheck.core.model import Conflict, End, Event, EventQuery, Insert, Note, Query, Record, Touch, Update
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore, file, rows, schema, threads
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, make

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    store = SqliteStore(path, clock=clock)
    yield store
    store.close()


def have(store: SqliteStore, handle: str = "h") -> Record:
    record = store.load(handle)
    assert record is not None
    return record


def insert(store: SqliteStore, clock: Clock, handle: str = "h", **changed: object) -> None:
    assert store.commit(handle.encode(), [Insert(record=make(handle, clock, **changed))], durable=False) is None


# The file.


def test_building_a_store_opens_nothing(path: Path) -> None:
    before = threading.active_count()
    SqliteStore(path)
    AsyncSqliteStore(path)
    assert not path.exists()
    assert threading.active_count() == before


def test_a_relative_path_stays_where_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(SqliteStore("here.db", clock=clock)) as store:
        monkeypatch.chdir("/")
        insert(store, clock)
        assert (tmp_path / "here.db").exists()


def test_a_new_file_is_for_our_eyes_only(store: SqliteStore, path: Path, clock: Clock) -> None:
    insert(store, clock)
    found = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    assert set(found.values()) == {0o600}, found


def test_sessions_outlive_the_store(path: Path, clock: Clock) -> None:
    for handle in "ab":
        with closing(SqliteStore(path, clock=clock)) as store:
            insert(store, clock, handle)
            generation = store.epochs().generation
    with closing(SqliteStore(path, clock=clock)) as store:
        assert [one.handle for one in store.find(Query()).items] == ["a", "b"]
        assert store.epochs().generation == generation


def test_both_faces_see_the_same(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)
    assert asyncio.run(store.as_async().load("h")) == have(store)


def test_a_closed_store_opens_again_when_it_is_used(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)
    store.close()
    assert have(store).handle == "h"


@pytest.mark.parametrize("name", ["", ":memory:"])
def test_a_store_needs_a_file(name: str) -> None:
    with pytest.raises(ConfigError, match="MemoryStore"):
        SqliteStore(name)


def test_synchronous_is_normal_or_full(path: Path) -> None:
    with pytest.raises(ConfigError, match="'normal' or 'full', not 'off'"):
        SqliteStore(path, synchronous="off")  # type: ignore[arg-type]


# Errors.


def told(store: SqliteStore) -> str:
    """Return what both verbs say; they must agree, and never answer None."""
    with closing(store):
        with pytest.raises(StoreError) as on_load:
            store.load("h")
        with pytest.raises(StoreError) as on_commit:
            store.commit(b"c", [Touch(handle="h", seen_at=0.0)], durable=False)
    assert str(on_load.value) == str(on_commit.value)
    return str(on_load.value)


def test_a_directory_is_refused_with_a_sentence(tmp_path: Path) -> None:
    assert "is a directory; name a file in it" in told(SqliteStore(tmp_path))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert f"directory {tmp_path / 'no'} does not exist; create it" in told(SqliteStore(tmp_path / "no" / "s.db"))


def test_a_directory_that_cannot_be_written_is_named() -> None:
    assert "cannot be opened" in told(SqliteStore("/proc/self/sessions.db")).replace(
        "does not exist", "cannot be opened"
    )


def test_a_file_of_another_kind_is_refused(path: Path) -> None:
    path.write_bytes(b"Once upon a time, there was a text file. " * 50)
    assert "is not a SQLite database; name another path" in told(SqliteStore(path))


def test_a_damaged_file_is_named(path: Path, clock: Clock) -> None:
    with closing(SqliteStore(path, clock=clock)) as store:
        for number in range(50):
            insert(store, clock, f"h{number}")
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)
    assert "is damaged; move it away" in told(SqliteStore(path, clock=clock))


def test_a_row_that_does_not_decode_is_an_error_and_never_none(store: SqliteStore, path: Path, clock: Clock) -> None:
    insert(store, clock)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update coatcheck_sessions set details = x'00ff'")
    with pytest.raises(StoreError, match="'h' does not decode"):
        store.load("h")


def test_text_that_is_not_unicode_is_an_error_and_leaves_the_store_usable(store: SqliteStore, clock: Clock) -> None:
    with pytest.raises(StoreError):
        insert(store, clock, "h", subject="\ud800")
    assert store.load("h") is None
    insert(store, clock)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_BUSY, NotApplied, "locked by another writer"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, NotApplied, "locked by another writer"),
        (sqlite3.SQLITE_LOCKED, NotApplied, "locked by another writer"),
        (sqlite3.SQLITE_FULL, NotApplied, "full; nothing was written; free some space"),
        (sqlite3.SQLITE_READONLY, StoreError, "write permission"),
        (sqlite3.SQLITE_IOERR_FSYNC, Unknown, "disk"),
        (sqlite3.SQLITE_CANTOPEN, StoreError, "cannot be opened"),
        (sqlite3.SQLITE_MISUSE, StoreError, "what SQLite said"),
    ],
)
def test_what_sqlite_says_becomes_an_error_of_the_contract(code: int, kind: type[StoreError], words: str) -> None:
    foreign = sqlite3.OperationalError("what SQLite said")
    foreign.sqlite_errorcode = code
    with pytest.raises(StoreError, match=words) as caught, file.StoreErrors("/s.db"):
        raise foreign
    assert isinstance(caught.value, kind)
    assert kind is not StoreError or not isinstance(caught.value, (NotApplied, Unknown))
    assert caught.value.__cause__ is foreign


# The schema.


def test_a_newer_schema_is_refused_and_left_alone(path: Path, clock: Clock) -> None:
    with closing(SqliteStore(path, clock=clock)) as store:
        insert(store, clock)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update coatcheck_meta set value = 99 where name = 'schema'")
    known = len(schema.MIGRATIONS)
    assert f"written by a newer coatcheck (schema 99, this one knows {known}); upgrade" in told(SqliteStore(path))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select count(*) from coatcheck_sessions").fetchone() == (1,)


def test_an_empty_file_and_a_file_of_others_are_made_ours(path: Path, clock: Clock) -> None:
    path.touch()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table sessions (theirs text)")
    with closing(SqliteStore(path, clock=clock)) as store:
        insert(store, clock)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select count(*) from sessions").fetchone() == (0,)
        assert db.execute("pragma journal_mode").fetchone() == ("wal",)


def test_an_older_schema_is_migrated_and_keeps_its_sessions(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(path, clock=clock)) as store:
        insert(store, clock)
        generation = store.epochs().generation
    another = ("alter table {p}sessions add column note text", "create table {p}later (x integer) strict")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, another))
    with closing(SqliteStore(path, clock=clock)) as store:
        assert have(store).handle == "h"
        assert store.epochs().generation == generation
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select value from coatcheck_meta where name = 'schema'").fetchone() == (4,)
        assert db.execute("select count(*) from coatcheck_later").fetchone() == (0,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(path, clock=clock)) as store:
        insert(store, clock)
    with monkeypatch.context() as patch:
        broken = ("create table {p}later (x integer) strict", "no such statement")
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        told(SqliteStore(path, clock=clock))
    with closing(SqliteStore(path, clock=clock)) as store:
        assert have(store).handle == "h"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select 1 from sqlite_schema where name = 'coatcheck_later'").fetchall() == []


def _open_first(path: Path, start: object, number: int) -> None:
    start.wait()  # type: ignore[attr-defined]
    with closing(SqliteStore(path)) as store:
        insert(store, Clock(time.time()), f"p{number}")


def test_several_processes_may_open_a_new_file_at_once(path: Path) -> None:
    for attempt in range(15):
        new = path.with_name(f"{attempt}.db")
        start = FORK.Barrier(4)
        children = [FORK.Process(target=_open_first, args=(new, start, number)) for number in range(4)]
        assert exit_codes(children) == [0] * 4
        with closing(SqliteStore(new)) as store:
            assert len(store.find(Query(live=False)).items) == 4


def test_a_fork_waits_for_no_connection_that_could_not_be_opened(path: Path) -> None:
    path.write_text("no database" * 500)
    store = SqliteStore(path)
    with pytest.raises(StoreError) as kept:
        store.load("A" * 18)
    began = time.monotonic()
    assert exit_codes([FORK.Process(target=int)]) == [0]
    assert time.monotonic() - began < file.FORK_PATIENCE / 2
    assert kept.value.__traceback__ is not None  # it held the connection


def exit_codes(children: list[multiprocessing.Process]) -> list[int | None]:
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    return [child.exitcode for child in children]


# Durability.


def traced(store: SqliteStore, here: file.Here) -> list[str]:
    """Return the list into which the statements of this thread's connection will be written."""
    said: list[str] = []
    link = store._file.take(here)
    link.busy = False
    link.db.set_trace_callback(said.append)
    return said


def test_durable_commits_wait_for_the_disk_and_others_do_not(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)
    link = store._here.link
    assert link is not None
    levels = []
    for durable in (True, False, True):
        update = Update(record=replace(have(store), data=os.urandom(9)), was=have(store).version)
        assert store.commit(os.urandom(8), [update], durable=durable) is None
        levels += link.db.execute("pragma synchronous").fetchall()
    assert levels == [(2,), (1,), (2,)]


def test_with_full_every_commit_waits_for_the_disk(path: Path, clock: Clock) -> None:
    with closing(SqliteStore(path, synchronous="full", clock=clock)) as store:
        insert(store, clock)
        assert store._here.link is not None
        assert store._here.link.db.execute("pragma synchronous").fetchall() == [(2,)]


def test_a_durable_commit_that_was_applied_before_still_writes(store: SqliteStore, clock: Clock) -> None:
    change = [Insert(record=make("h", clock))]
    store.commit(b"c", change, durable=False)
    said = traced(store, store._here)
    store.commit(b"c", change, durable=True)
    assert any("update coatcheck_meta" in one for one in said), said


@pytest.mark.parametrize("durable", [False, True])
def test_an_ordinary_write_alone_is_one_statement_and_a_durable_one_a_transaction_of_it(
    store: SqliteStore, clock: Clock, durable: bool
) -> None:
    insert(store, clock)
    said = traced(store, store._here)
    for change in (Update(record=have(store), was=1), Touch(handle="h", seen_at=clock.now + 1)):
        said.clear()
        assert store.commit(os.urandom(8), [change], durable=durable) is None
        # a trigger's steps show as its statement once more
        told = [one.split()[0] for one, _ in groupby(said) if not one.startswith("pragma")]
        assert told == (["begin", "update", "commit"] if durable else ["update"])
    assert (have(store).version, have(store).seen_at) == (2, clock.now + 1)


def test_a_write_that_is_refused_is_looked_into_and_leaves_no_transaction(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)
    stale = Update(record=replace(have(store), data=b"stale"), was=7)
    said = traced(store, store._here)
    conflict = store.commit(b"u", [stale], durable=False)
    assert conflict == Conflict(have(store), "version")
    assert [one.split()[0] for one, _ in groupby(said)][:3] == ["update", "begin", "update"]
    assert store._here.link is not None
    assert not store._here.link.db.in_transaction
    told = Update(record=have(store), was=1, events=(event("e", clock),))
    assert store.commit(b"e", [told], durable=False) is None
    assert [one.name for one in store.events(EventQuery()).items] == ["e"], "an event needs a transaction"


def test_no_connection_checkpoints_by_itself(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)
    assert store._here.link is not None
    assert store._here.link.db.execute("pragma wal_autocheckpoint").fetchall() == [(0,)]


def test_a_reader_is_never_left_open(store: SqliteStore, clock: Clock) -> None:
    for number in range(3):
        insert(store, clock, f"h{number}")
        store.commit(b"n%d" % number, [Note(events=(event("e", clock),))], durable=False)
    store.find(Query(limit=1))
    store.events(EventQuery(limit=1))
    store.epochs()
    have(store, "h1")
    link = store._file.take(store._here)
    assert rows.truncate(link)[0]
    link.busy = False


# Threads.


def test_fifty_threads_that_write_fifty_keys_lose_none(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock, data=b"")
    run_threads(lambda key: append(store, key), 50)
    assert sorted(have(store).data) == list(range(50))


def append(store: SqliteStore, key: int) -> None:
    """Add a byte to the data of "h", as often as it takes."""
    while True:
        base = have(store)
        update = Update(record=replace(base, data=base.data + bytes([key])), was=base.version)
        if store.commit(os.urandom(16), [update], durable=False) is None:
            return


def run_threads(act: Callable[[int], object], number: int) -> None:
    problems: list[BaseException] = []

    def guarded(key: int) -> None:
        try:
            act(key)
        except BaseException as problem:  # noqa: BLE001
            problems.append(problem)

    workers = [threading.Thread(target=guarded, args=(key,)) for key in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []


def test_a_thread_that_ends_closes_its_connection(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)
    run_threads(lambda _: have(store), 10)
    # SQLite keeps the descriptors of closed connections for the next ones, as long as the file is locked.
    before = len(open_files())
    for _ in range(5):
        run_threads(lambda _: have(store), 10)
    assert len(store._file.links) <= 2
    assert len(open_files()) <= before + 10


def test_a_store_that_is_dropped_takes_its_threads_and_files_with_it(path: Path, clock: Clock) -> None:
    before = set(threading.enumerate())
    store = SqliteStore(path, clock=clock)
    insert(store, clock)

    async def durable(face: AsyncSqliteStore) -> None:
        await face.commit(b"d", [Touch(handle="h", seen_at=clock.now + 1)], durable=True)

    asyncio.run(durable(store.as_async()))
    left = set(threading.enumerate()) - before
    assert {thread.name for thread in left} >= {"coatcheck-keeper", "coatcheck-writer"}
    assert [name for name in open_files() if name.startswith(str(path))] != []
    del store
    gc.collect()
    for thread in left:
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)
    assert [name for name in open_files() if name.startswith(str(path))] == []


def test_a_store_in_use_does_not_keep_the_interpreter_alive(path: Path) -> None:
    program = f"""
import asyncio, time
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.core.model import RaiseEpoch
store = SqliteStore({str(path)!r})
store.commit(b"1", [RaiseEpoch(scope="*")], False)
asyncio.run(store.as_async().commit(b"2", [RaiseEpoch(scope="*")], True))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# Processes.


def _append_all(path: Path, keys: range) -> None:
    with closing(SqliteStore(path, clock=Clock())) as store:
        for key in keys:
            append(store, key)


def test_four_processes_that_write_lose_nothing(store: SqliteStore, path: Path, clock: Clock) -> None:
    insert(store, clock, data=b"")
    children = [FORK.Process(target=_append_all, args=(path, range(low, low + 50))) for low in (0, 50, 100, 150)]
    assert exit_codes(children) == [0] * 4
    assert sorted(have(store).data) == list(range(200))


def test_a_fork_closes_idle_connections_so_that_the_child_inherits_none(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock)

    def child() -> None:
        assert [name for name in open_files() if "sessions.db" in name] == []
        insert(store, clock, "child")
        assert have(store).handle == "h"

    assert forked(child) == 0
    insert(store, clock, "parent")
    assert {one.handle for one in store.find(Query()).items} == {"h", "child", "parent"}


def open_files() -> list[str]:
    found = []
    for name in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(name.readlink()))
    return found


def test_a_fork_in_the_middle_of_everything_leaves_both_sides_whole(store: SqliteStore, clock: Clock) -> None:
    insert(store, clock, data=b"")
    stop = threading.Event()

    def busy(number: int) -> None:
        seen = clock.now
        while not stop.is_set():
            seen += 0.001
            store.commit(os.urandom(8), [Touch(handle="h", seen_at=min(seen, clock.now + 1))], durable=number == 0)
            have(store)

    workers = [threading.Thread(target=busy, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    try:
        for key in range(10):
            assert forked(lambda key=key: append(store, key)) == 0
            append(store, 100 + key)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert sorted(have(store).data) == [*range(10), *range(100, 110)]


def forked(act: Callable[[], object]) -> int:
    """Run something in a forked child and return its exit code; one that hangs is killed and fails."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            os._exit(1)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -9


def test_the_writer_and_the_keeper_start_anew_in_a_child(store: SqliteStore, clock: Clock) -> None:
    face = store.as_async()

    async def durable(handle: str) -> None:
        change = Insert(record=make(handle, clock))
        assert await face.commit(handle.encode(), [change], durable=True) is None

    asyncio.run(durable("parent"))
    assert forked(lambda: asyncio.run(durable("child"))) == 0
    asyncio.run(durable("again"))
    assert len(store.find(Query()).items) == 3


# Event loops.


def locked(path: Path, seconds: float) -> subprocess.Popen[str]:
    """Start a process that holds the write lock for a while; return when it has it."""
    program = f"""
import sqlite3, time
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("begin immediate")
print("locked", flush=True)
time.sleep({seconds})
db.execute("rollback")
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


async def longest_stall(until: asyncio.Task[object]) -> float:
    """Return for how long the loop did not get a turn."""
    worst, last = 0.0, time.perf_counter()
    while not until.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    return worst


async def test_a_writer_elsewhere_does_not_stall_the_loop(path: Path, clock: Clock) -> None:
    store = AsyncSqliteStore(path, clock=clock)
    assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=False) is None
    record = await store.load("h")
    assert record is not None
    # A busy machine stalls every loop now and then, an idle one too; a store that waited in the loop would add 300 ms.
    measured = []
    for attempt in range(10):
        idle = await longest_stall(asyncio.create_task(asyncio.sleep(0.3)))
        update = Update(record=replace(record, data=b"x"), was=attempt + 1)
        stall = await stall_while_locked(store, path, update)
        measured.append((stall, idle))
        if stall < max(0.010, min(2 * idle, 0.1)):
            break
    else:
        pytest.fail(f"the loop stalled (and when idle): {measured}")
    await store.close()


async def stall_while_locked(store: AsyncSqliteStore, path: Path, update: Update) -> float:
    with locked(path, 0.3) as other:
        started = time.perf_counter()
        task = asyncio.create_task(store.commit(os.urandom(8), [update], durable=False))
        stall = await longest_stall(task)
        assert task.result() is None
        assert time.perf_counter() - started > 0.1
        other.wait()
    return stall


async def test_a_lock_that_outlives_the_deadline_is_not_applied(path: Path, clock: Clock) -> None:
    store = AsyncSqliteStore(path, clock=clock)
    assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=False) is None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        started = time.perf_counter()
        results = await asyncio.gather(
            *(store.commit(b"%d" % n, [End(handle="h", because="logout")], durable=n > 0) for n in range(3)),
            return_exceptions=True,
        )
        assert [type(result).__mro__[1] for result in results] == [NotApplied] * 3
        assert 1.5 < time.perf_counter() - started < 3.5
        other.execute("rollback")
    found = await store.load("h")
    assert found is not None
    assert found.ended_at is None
    await store.close()


async def test_a_durable_commit_runs_in_the_writers_thread(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AsyncSqliteStore(path, clock=clock)
    assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=False) is None
    where: set[str] = set()
    inner = rows.commit

    def slow(*given: object) -> object:
        where.add(threading.current_thread().name)
        time.sleep(0.1)
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "commit", slow)
    assert await store.commit(b"e", [End(handle="h", because="logout")], durable=True) is None
    assert where == {"coatcheck-writer"}
    await store.close()


async def test_plain_commits_run_in_the_loops_own_thread(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AsyncSqliteStore(path, clock=clock)
    assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=False) is None
    where: list[threading.Thread] = []
    inner = rows.commit
    monkeypatch.setattr(rows, "commit", lambda *given: where.append(threading.current_thread()) or inner(*given))
    await store.commit(b"t", [Touch(handle="h", seen_at=clock.now + 1)], durable=False)
    assert where == [threading.current_thread()]
    await store.close()


async def test_a_cancelled_caller_never_leaves_a_commit_undecided(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AsyncSqliteStore(path, clock=clock)
    heard: list[str] = []
    store.listeners.append(lambda events: heard.extend(one.name for one in events))
    assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=False) is None
    inner, entered = rows.commit, threading.Event()

    def slow(*given: object) -> object:
        entered.set()
        time.sleep(0.05)
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "commit", slow)
    said = (event("session_revoked", clock),)
    task = asyncio.create_task(store.commit(b"e", [End(handle="h", because="logout", events=said)], durable=True))
    await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await store.load("h")
    assert found is not None
    assert found.ended_because == "logout"
    assert heard == ["session_revoked"]
    await store.close()


def test_three_loops_one_after_another_may_use_one_store(path: Path, clock: Clock) -> None:
    store = AsyncSqliteStore(path, clock=clock)

    async def journey(handle: str, *, durable: bool) -> None:
        assert await store.commit(handle.encode(), [Insert(record=make(handle, clock))], durable=durable) is None
        assert await store.load(handle) is not None

    for number in range(3):
        asyncio.run(journey(f"{number}", durable=True))
        asyncio.run(journey(f"{number}x", durable=False))
    asyncio.run(store.close())


def test_two_loops_in_two_threads_may_use_one_store(path: Path, clock: Clock) -> None:
    store = AsyncSqliteStore(path, clock=clock)

    async def journey(worker: int) -> None:
        for number in range(30):
            handle = f"{worker}-{number}"
            change = Insert(record=make(handle, clock))
            assert await store.commit(handle.encode(), [change], durable=number % 10 == 0) is None
            assert await store.load(handle) is not None

    run_threads(lambda worker: asyncio.run(journey(worker)), 2)
    assert len(store._apart.find(Query(limit=1000)).items) == 60
    store._apart.close()


async def test_a_closed_store_has_a_writer_again_when_it_needs_one(path: Path, clock: Clock) -> None:
    store = AsyncSqliteStore(path, clock=clock)
    assert await store.commit(b"i", [Insert(record=make("h", clock))], durable=True) is None
    await store.close()
    assert await store.commit(b"e", [End(handle="h", because="logout")], durable=True) is None
    await store.close()


# The keeper.


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "TICK", 0.02)
    monkeypatch.setattr(threads, "PURGE_EVERY", 0.05)
    monkeypatch.setattr(threads, "PAUSE", 0.001)


def eventually(true: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.005)


@pytest.mark.usefixtures("hurried")
def test_the_keeper_purges_by_itself_in_bounded_batches(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    inner = rows.purge

    def watched(*given: object, **named: object) -> object:
        done = inner(*given, **named)  # type: ignore[arg-type]
        sizes.append(done[0])
        return done

    monkeypatch.setattr(rows, "purge", watched)
    changes = [Insert(record=make(f"h{number}", clock, subject=None)) for number in range(250)]
    for number, change in enumerate(changes):
        assert store.commit(b"%d" % number, [change], durable=False) is None
    clock.wind(1800)
    eventually(lambda: store.find(Query(live=False, limit=1)).items[0].ended_at is not None)
    eventually(lambda: len(store.events(EventQuery(name="session_expired", limit=1000)).items) == 250)
    clock.wind(8 * 86400)
    eventually(lambda: not store.find(Query(live=False)).items)
    assert max(sizes) <= 100


@pytest.mark.usefixtures("hurried")
def test_the_keeper_forgets_old_events_and_noise_sooner(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "FORGET_EVERY", 0.05)
    for age in (10, 100, 500):
        for noise in (False, True):
            told = Event(name=f"{age} {noise}", at=clock.now - age * 86400.0, noise=noise)
            assert store.commit(os.urandom(16), [Note(events=(told,))], durable=False) is None
    left = {"10 False", "100 False", "10 True"}
    eventually(lambda: {told.name for told in store.events(EventQuery()).items} == left)


@pytest.mark.usefixtures("hurried")
def test_the_keeper_moves_the_log_into_the_file(store: SqliteStore, path: Path, clock: Clock) -> None:
    insert(store, clock)
    size = path.stat().st_size
    for number in range(300):
        insert(store, clock, f"h{number}")
    eventually(lambda: path.stat().st_size > size + 100_000)


@pytest.mark.usefixtures("hurried")
def test_the_keeper_shrinks_a_large_log_and_rests_when_nothing_happens(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = path.with_name(path.name + "-wal")
    monkeypatch.setattr(threads, "TRUNCATE_OVER", 50_000)
    for number in range(100):
        insert(store, clock, f"h{number}")
    eventually(lambda: log.stat().st_size < 50_000)
    time.sleep(0.1)
    before = (log.stat().st_mtime_ns, path.stat().st_mtime_ns)
    time.sleep(0.15)
    assert (log.stat().st_mtime_ns, path.stat().st_mtime_ns) == before


@pytest.mark.usefixtures("hurried")
def test_a_log_that_a_reader_pins_is_warned_of_once(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "TRUNCATE_OVER", 50_000)
    monkeypatch.setattr(threads, "WARN_OVER", 60_000)
    insert(store, clock)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader, caplog.at_level(logging.WARNING, "coatcheck"):
        reader.execute("begin")
        reader.execute("select * from coatcheck_sessions").fetchall()
        for number in range(100):
            insert(store, clock, f"h{number}")
        eventually(lambda: caplog.records)
        for number in range(100, 140):
            insert(store, clock, f"h{number}")
            time.sleep(0.005)
        reader.execute("rollback")
    assert [record.name for record in caplog.records] == ["coatcheck"]
    assert "a reader that never ends pins it" in caplog.text


@pytest.mark.usefixtures("hurried")
def test_the_keeper_survives_errors_and_listeners(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: object) -> None:
        message = "boom"
        raise RuntimeError(message)

    insert(store, clock, "a")
    store.listeners.append(failing)
    clock.wind(1800)
    eventually(lambda: "listener of the session store failed" in caplog.text)
    store.listeners.remove(failing)
    insert(store, clock, "b")
    clock.wind(1800)
    eventually(lambda: have(store, "b").ended_because == "idle")
