"""Measure stores that hold a million sessions: `python -m bench.million [--count N] [--only sqlite,postgresql,redis]`.

For each store: a look-up among N sessions against one among N/100, in alternating blocks; listing the ten sessions of a
subject; bytes a session; and a purge of half of them while another process keeps writing. The sessions carry about 400
bytes of data. They are written in bulk, by the stores' own functions.

A batch is one call of purge, so no lock is held longer; on SQLite and Redis the lock itself is timed as well (the write
lock of the file; the longest command). "Another's write" is what a commit of the other process took meanwhile, whatever
it waited for. All but CPU is wall time: on a busy machine the longest of them tell more of the machine than of us.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import random
import sqlite3
import statistics
import tempfile
import time
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from coatcheck.core import codec, tokens
from coatcheck.core.errors import StoreError
from coatcheck.core.model import Client as Visitor
from coatcheck.core.model import Handle, Query, Record, Touch
from coatcheck.stores import sql

EACH = 10
"""Sessions of a subject; every second session is idle after an hour."""
HOURS = 2 * 3600.0
LOCK_GOAL_MS = 50.0
PAUSE = (0.01, 0.03)
"""Seconds between two batches, as the stores' own keepers wait: others must get their turn."""

DATA = codec.encode({"text": "x" * 400})
CLIENT = Visitor("192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0")


def visitors(count: int, shard: Callable[[str], str]) -> Iterator[Record]:
    """Yield sessions that began during the last ten minutes, those of a subject far apart from each other."""
    order = [number for number in range(max(1, count // EACH)) for _ in range(EACH)]
    random.Random(1).shuffle(order)
    now = time.time()
    for number, subject in enumerate(order):
        noise = os.urandom(80)
        at = now - 600 + 600 * number / count
        name = f"user-{subject}"
        yield Record(
            realm="",
            handle=shard(name) + _letters(noise[:12]),
            family_proof=noise[16:48],
            turn_proof=noise[48:],
            used_at=at,
            handed_at=at,
            data=DATA,
            created_at=at,
            seen_at=at,
            idle_for=3600.0 if number % 2 else 30 * 86400.0,
            expires_at=at + 30 * 86400,
            subject=name,
            authenticated_at=at,
            methods=("pwd",),
            level=10,
            client=CLIENT,
            by=noise[:16],
        )


def _letters(noise: bytes) -> str:
    return b2a_base64(noise, newline=False).decode().replace("+", "-").replace("/", "_")


class Hall:
    """A store in a fresh place, and what is asked of its server beside the contract."""

    name: ClassVar[str]
    lookup_goal: ClassVar[float]
    url: str
    store: Any
    kind: Any

    def shard(self, _subject: str) -> str:
        """Return the first two characters of a subject's handles: random, unless the store spreads by subject."""
        return _letters(os.urandom(3))[:2]

    def fill(self, records: Iterator[Record]) -> list[Handle]:
        """Write all; return their handles."""
        raise NotImplementedError

    def size(self) -> int:
        """Return the bytes that all of it takes."""
        raise NotImplementedError

    def later(self) -> Any:
        """Return a store whose clock is two hours ahead."""
        return self.kind(self.url, clock=lambda: time.time() + HOURS)

    def trips(self, subject: str) -> str:
        """Return how often a listing goes to the server and back."""
        from tests.support.proxy import Proxy

        where = urlsplit(self.url)
        with Proxy(where.hostname or "127.0.0.1", where.port or 0) as network:
            store = self.kind(network.url(self.url))
            found = [network.requests]
            for _ in range(6):
                store.find(Query(realm="", subject=subject))
                found.append(network.requests)
            store.close()
        # the least: a store may do its housework beside it
        return str(min(after - before for before, after in itertools.pairwise(found)))

    def watch(self, store: Any) -> None:
        """Begin to watch how long a store that purges holds its locks, if that can be seen."""

    def purge(self, store: Any) -> int:
        """Purge one batch."""
        return int(store.purge(100))

    def longest(self) -> float | None:
        """Return the longest time since then, in milliseconds; None: it cannot be seen, the batches must do."""
        return None


class Sqlite(Hall):
    """A file."""

    name, lookup_goal = "sqlite", 2.2

    def __init__(self, folder: Path) -> None:
        """Make it."""
        from coatcheck.stores.sqlite import SqliteStore

        self._path = folder / f"{time.monotonic_ns()}.db"
        self.kind, self.url = SqliteStore, f"sqlite:///{self._path}"
        self.store = SqliteStore(self._path)
        self.store.epochs()

    def fill(self, records: Iterator[Record]) -> list[Handle]:
        """Write all with executemany, in a few transactions."""
        handles: list[Handle] = []
        db = sqlite3.connect(self._path, isolation_level=None)
        statement = sql.with_prefix(sql.ADD, "coatcheck_")
        while some := list(itertools.islice(records, 50_000)):
            db.execute("begin immediate")
            db.executemany(statement, [sql.row_of(one, one.deadline) for one in some])
            db.execute("commit")
            handles += [one.handle for one in some]
        db.execute("pragma wal_checkpoint(truncate)").fetchall()
        db.close()
        return handles

    def size(self) -> int:
        """Return the bytes of the file and its log."""
        return sum(path.stat().st_size for path in self._path.parent.glob(f"{self._path.name}*"))

    def later(self) -> Any:
        """Return a store whose clock is two hours ahead."""
        return self.kind(self._path, clock=lambda: time.time() + HOURS)

    def watch(self, store: Any) -> None:
        """Begin to watch when the file is locked: the statement after `begin` is the first that has the lock."""
        self._held, self._since, began = 0.0, 0.0, False

        def look(statement: str) -> None:
            nonlocal began
            if began:
                self._since = time.perf_counter()
            began = statement.startswith("begin")

        self._traced(store).set_trace_callback(look)

    def purge(self, store: Any) -> int:
        """Purge one batch, and note for how long it had the lock."""
        found = int(store.purge(100))
        if found:
            self._held = max(self._held, time.perf_counter() - self._since)
        return found

    def longest(self) -> float | None:
        """Return the longest time that the file was locked, in milliseconds."""
        return self._held * 1000

    def _traced(self, store: Any) -> sqlite3.Connection:
        """Return the connection of this thread: there is no other way to see what a store asks of it."""
        with store._file.errors:  # noqa: SLF001
            link = store._file.take(store._here)  # noqa: SLF001
            link.busy = False
        found: sqlite3.Connection = link.db
        return found

    def trips(self, subject: str) -> str:
        """Return how many statements a listing is: there is no server to go to."""
        statements: list[str] = []
        db = self._traced(self.store)
        db.set_trace_callback(statements.append)
        self.store.find(Query(realm="", subject=subject))
        db.set_trace_callback(None)
        return f"{len(statements)} (statements)"


class PostgreSql(Hall):
    """A database."""

    name, lookup_goal = "postgresql", 1.6
    _server: ClassVar[Any] = None

    def __init__(self, _folder: Path) -> None:
        """Make it."""
        import psycopg

        from coatcheck.stores.postgres import PostgresStore
        from tests.support.servers.postgres import Postgres

        if PostgreSql._server is None:
            PostgreSql._server = Postgres(own=True, shared_buffers="1GB", max_wal_size="4GB", autovacuum="on")
        name = f"hall_{time.monotonic_ns()}"
        with psycopg.connect(PostgreSql._server.url, autocommit=True) as link:
            link.execute(f"create database {name}")
        self.kind, self.url = PostgresStore, PostgreSql._server.url_of(database=name)
        self.store = PostgresStore(self.url)
        self.store.epochs()

    def fill(self, records: Iterator[Record]) -> list[Handle]:
        """Write all by COPY, the subjects' rows too, and let the planner look at them."""
        import psycopg

        handles, subjects = list[Handle](), set[str]()
        with psycopg.connect(self.url) as link, link.cursor() as cursor:
            with cursor.copy(f"copy coatcheck_sessions ({sql.RECORD_COLUMNS}, due_at) from stdin") as copy:
                for one in records:
                    copy.write_row(sql.row_of(one, one.deadline))
                    handles.append(one.handle)
                    subjects.add(str(one.subject))
            with cursor.copy("copy coatcheck_subjects (realm, subject) from stdin") as copy:
                for subject in subjects:
                    copy.write_row(("", subject))
            link.commit()
            link.autocommit = True
            cursor.execute("vacuum analyze")
            cursor.execute("checkpoint")
        return handles

    def size(self) -> int:
        """Return the bytes of the tables with their indexes and all."""
        import psycopg

        with psycopg.connect(self.url) as link:
            tables = "pg_total_relation_size('coatcheck_sessions') + pg_total_relation_size('coatcheck_subjects')"
            (found,) = link.execute(f"select {tables}").fetchone() or (0,)
        return int(found)


class Redis(Hall):
    """A server."""

    name, lookup_goal = "redis", 1.3

    def __init__(self, _folder: Path) -> None:
        """Start it."""
        from coatcheck.stores.redis import RedisStore
        from tests.support.servers.redis import single

        self._server = single(ours=True)
        self.kind, self.url = RedisStore, self._server.url
        self._empty = self._used()
        self.store = RedisStore(self.url)
        self._salt = self.store.epochs().salt

    def shard(self, subject: str) -> str:
        """Return the first two characters of a subject's handles."""
        return tokens.shard_of(self._salt, "", subject) if self._salt else super().shard(subject)

    def fill(self, records: Iterator[Record]) -> list[Handle]:
        """Write all by pipelines of the script that a commit sends, planned by the store's own code."""
        from redis import Redis as Client

        from coatcheck.stores.redis import scripts
        from coatcheck.stores.redis.plan import Plan

        handles: list[Handle] = []
        settings = self.store._desk.settings  # noqa: SLF001 - a commit each would take twenty times as long
        with Client.from_url(self.url) as client:
            client.script_load(scripts.WRITE)
            while some := list(itertools.islice(records, 500)):
                pipeline = client.pipeline(transaction=False)
                for one in some:
                    plan = Plan(settings, settings.keys.tag(one.handle))
                    plan.keep(one, time.time(), new=True)
                    pipeline.execute_command(*plan.command())
                if set(pipeline.execute()) != {1}:
                    message = "Redis refused a record"
                    raise RuntimeError(message)
                handles += [one.handle for one in some]
        return handles

    def size(self) -> int:
        """Return what the server's memory grew by."""
        return self._used() - self._empty

    def watch(self, store: Any) -> None:
        """Begin to watch for commands over a millisecond: nobody else is served meanwhile."""
        self._server.client.config_set("slowlog-log-slower-than", 1000)
        self._server.client.config_set("slowlog-max-len", 10_000)
        self._server.client.slowlog_reset()

    def longest(self) -> float | None:
        """Return the longest command since, in milliseconds (1: none was longer)."""
        return max((one["duration"] / 1000 for one in self._server.client.slowlog_get(10_000)), default=1.0)

    def _used(self) -> int:
        return int(self._server.client.info("memory")["used_memory"])


HALLS: dict[str, type[Hall]] = {hall.name: hall for hall in (Sqlite, PostgreSql, Redis)}


def lookups(halls: list[Hall], handles: list[list[Handle]], blocks: int, loads: int) -> list[float]:
    """Return the microseconds of a look-up in each hall: medians of blocks, taken in turns."""
    times: list[list[float]] = [[] for _ in halls]
    for _ in range(blocks):
        for place, hall in enumerate(halls):
            chosen = random.choices(handles[place], k=loads)
            load = hall.store.load
            began = time.perf_counter()
            for handle in chosen:
                if load(handle) is None:
                    message = f"{hall.name}: {handle} is gone"
                    raise RuntimeError(message)
            times[place].append((time.perf_counter() - began) / loads)
    return [statistics.median(found) * 1e6 for found in times]


def listings(halls: list[Hall], counts: list[int], blocks: int, finds: int) -> list[float]:
    """Return the microseconds of listing a subject's sessions in each hall, measured likewise."""
    times: list[list[float]] = [[] for _ in halls]
    for _ in range(blocks):
        for place, hall in enumerate(halls):
            subjects = [f"user-{random.randrange(counts[place] // EACH)}" for _ in range(finds)]
            began = time.perf_counter()
            for subject in subjects:
                if len(hall.store.find(Query(realm="", subject=subject)).items) != EACH:
                    message = f"{hall.name}: {subject} has not {EACH} sessions"
                    raise RuntimeError(message)
            times[place].append((time.perf_counter() - began) / finds)
    return [statistics.median(found) * 1e6 for found in times]


def purged(hall: Hall, handles: list[Handle]) -> dict[str, Any]:
    """Purge what is overdue, while another process writes; return how long everything took."""
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    writer = multiprocessing.get_context("spawn").Process(
        target=writes, args=(hall.name, hall.url, random.choices(handles, k=5000), theirs), daemon=True
    )
    writer.start()
    mine.recv()  # it is ready
    store, total, batches, cpu = hall.later(), 0, list[float](), list[float]()
    hall.watch(store)
    began = time.perf_counter()
    while True:
        at, worked = time.perf_counter(), time.thread_time()
        found = hall.purge(store)
        batches.append((time.perf_counter() - at) * 1000)
        cpu.append((time.thread_time() - worked) * 1000)
        if not found:
            break
        total += found
        time.sleep(random.uniform(*PAUSE))
    took = time.perf_counter() - began
    mine.send("enough")
    waits, refused = mine.recv()
    writer.join()
    store.close()
    batches.sort()
    cpu.sort()
    return {
        "purged": total,
        "seconds": round(took, 1),
        "batch_ms": {"p50": _at(batches, 0.5), "p99.9": _at(batches, 0.999), "max": _at(batches, 1)},
        "write_ms": {"p50": _at(waits, 0.5), "p99.9": _at(waits, 0.999), "max": _at(waits, 1)},
        "writes": len(waits),
        "refused": refused,
        "batch_cpu_ms": {"p50": _at(cpu, 0.5), "p99.9": _at(cpu, 0.999), "max": _at(cpu, 1)},
        "longest_lock_ms": hall.longest(),
    }


def writes(name: str, url: str, handles: list[Handle], line: Connection) -> None:
    """Write every other millisecond until told to stop; send how long each write took. Runs in a process of its own."""
    store = _opened(name, url)
    touch = (Touch(handle=handles[0], seen_at=time.time()),)
    store.commit(os.urandom(16), touch, durable=False)
    line.send("ready")
    waits, refused = list[float](), 0
    for handle in itertools.cycle(handles):
        if line.poll(0.002):
            break
        touch = (Touch(handle=handle, seen_at=time.time()),)
        began = time.perf_counter()
        try:
            store.commit(os.urandom(16), touch, durable=False)
        except StoreError:
            refused += 1
        waits.append((time.perf_counter() - began) * 1000)
    store.close()
    line.send((sorted(waits), refused))


def _opened(name: str, url: str) -> Any:
    if name == "sqlite":
        from coatcheck.stores.sqlite import SqliteStore

        return SqliteStore(urlsplit(url).path[1:])
    if name == "postgresql":
        from coatcheck.stores.postgres import PostgresStore

        return PostgresStore(url)
    from coatcheck.stores.redis import RedisStore

    return RedisStore(url)


def _at(ordered: list[float], part: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 2)


def measured(kind: type[Hall], count: int, folder: Path) -> dict[str, Any]:
    """Return all figures of one store."""
    counts = [max(EACH, count // 100), count]
    halls, handles, filling = [], [], 0.0
    for number in counts:
        hall = kind(folder)
        began = time.perf_counter()
        handles.append(hall.fill(visitors(number, hall.shard)))
        filling = time.perf_counter() - began
        halls.append(hall)
    large = halls[1]
    found: dict[str, Any] = {"store": kind.name, "count": count, "fill_seconds": round(filling, 1)}
    found["bytes"] = round(large.size() / count)
    lookups(halls, handles, 1, 2000)
    found["lookup_us"] = lookups(halls, handles, 15, 2000)
    found["listing_us"] = listings(halls, counts, 15, 200)
    found["trips"] = large.trips("user-0")
    found["purge"] = purged(large, handles[1])
    for hall in halls:
        hall.store.close()
    return found


def shown(found: dict[str, Any]) -> str:
    """Return the figures of one store as lines."""
    count, few = found["count"], max(EACH, found["count"] // 100)
    (small, large), (listed, listed_large) = found["lookup_us"], found["listing_us"]
    goal, purge = HALLS[found["store"]].lookup_goal, found["purge"]
    batch, write, locked = purge["batch_ms"], purge["write_ms"], purge["longest_lock_ms"]
    ratio, lock = large / small, batch["max"] if locked is None else locked
    told = "" if locked is None else f"; longest lock {locked:.1f} ms"
    cpu = purge["batch_cpu_ms"]
    looked = f"{small:.1f} us among {few:,}, {large:.1f} us among {count:,}"
    found_all = f"{listed:.0f} us among {few:,}, {listed_large:.0f} us among {count:,}"
    batches = f"p50 {batch['p50']:.1f}, p99.9 {batch['p99.9']:.1f}, longest {batch['max']:.1f} ms{told}"
    others = f"p50 {write['p50']:.1f}, p99.9 {write['p99.9']:.1f}, longest {write['max']:.1f} ms"
    lines = [
        f"{found['store']}: {count:,} sessions of {len(DATA)} bytes of data, filled in {found['fill_seconds']:.0f} s",
        f"  bytes a session   {found['bytes']}",
        f"  look-up           {looked}: x {ratio:.2f} (goal {goal}: {_word(ratio <= goal)})",
        f"  listing {EACH}        {found_all}: x {listed_large / listed:.2f}; round trips: {found['trips']}",
        f"  purge             {purge['purged']:,} in {purge['seconds']:.0f} s, in batches of 100",
        f"  a batch           {batches} (goal {LOCK_GOAL_MS:.0f}: {_word(lock <= LOCK_GOAL_MS)})",
        f"  its CPU           p50 {cpu['p50']:.1f}, p99.9 {cpu['p99.9']:.1f}, longest {cpu['max']:.1f} ms (ours)",
        f"  another's write   {others} ({purge['writes']:,} writes, {purge['refused']} refused)",
    ]
    return "\n".join(lines)


def _word(kept: bool) -> str:
    return "ok" if kept else "ABOVE"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="sessions (default 1,000,000)")
    parser.add_argument("--only", default=",".join(HALLS), help="stores, separated by commas")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores", flush=True)
    found = []
    for name in chosen.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(HALLS[name], chosen.count, Path(folder)))
        print(shown(found[-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
