"""Show that no rule adds a trip to a read: `python -m bench.reads [--rounds N]`; the exit code is 1 if one does.

Each row is one kind of session, read again and again by a browser: how often the store was asked for a record, and for
a commit, and the processor time that the read adds to the bare application, beside that of a plain session. Theft
evidence is kept in the record that is read anyway, so it costs nothing to have; detectors cost what they look at. The
epochs that a process reads once a second are left out. Blocks of all rows take turns in one process, so a machine that
slows down slows all.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from statistics import median
from typing import Any

import msgspec
from msgspec.structs import replace

from bench.applications import HEADERS, Case, read, signed_in, untouched
from coatcheck import MemoryStore, SessionManager
from coatcheck.adapters.asgi import SessionMiddleware
from coatcheck.core import epochs
from coatcheck.core.model import Change, Client, RaiseEpoch
from coatcheck.detection import OnSignals, standard

HERE = Client("192.0.2.7", dict(HEADERS)[b"user-agent"].decode())
AWAY = Client("203.0.113.9", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/140.0")
TENANTS = 1000


class Row(msgspec.Struct):
    """A kind of session: what its record has more than a plain one, the settings, and what the store says besides."""

    name: str
    record: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    changes: tuple[Change, ...] = ()


def rows(now: float) -> list[Row]:
    """Return the rows; the plain session first."""
    scopes = [epochs.scope_of(None, f"tenant-{number}") for number in range(TENANTS)]
    ended = tuple(RaiseEpoch(scope=scope, before=now - 60.0) for scope in scopes)
    looking = {"detectors": standard(), "policies": [OnSignals(step_up=100)]}
    seen = {"client": HERE, "seen_from": HERE}
    return [
        Row("plain"),
        Row("renewed: the former secret is known", {"former_proof": b"f" * 32, "nonce": b"n" * 32, **seen}),
        Row("on_theft='note'", seen, {"on_theft": "note"}),
        Row("on_theft='note', a question is open", {**seen, "suspected_at": now - 5.0}, {"on_theft": "note"}),
        Row(f"of a tenant, beside {TENANTS:,} that ended", {"tenant": "tenant-7"}, changes=ended),
        Row("everybody's sessions ended before", changes=(RaiseEpoch(scope="*", before=now - 60.0),)),
        Row("detectors, nothing strange", {"client": HERE}, looking),
        Row("detectors, from elsewhere", {"client": AWAY}, looking),
    ]


class Counted:
    """A read of one kind of session, and what it asks of its store."""

    def __init__(self, row: Row) -> None:
        self.row, self.loads, self.commits = row, 0, 0
        self.store = MemoryStore().as_async()
        manager = SessionManager(origins=["https://localhost"], **row.settings)
        cookie, insert = signed_in(manager)
        insert = replace(insert, record=replace(insert.record, **row.record))
        load, commit = self.store.load, self.store.commit

        async def counted_load(handle: str) -> Any:
            self.loads += 1
            return await load(handle)

        async def counted_commit(*given: Any, **named: Any) -> Any:
            self.commits += 1
            return await commit(*given, **named)

        app = SessionMiddleware(read, store=self.store, manager=manager)
        self.case = Case(row.name, app, cookie, store=self.store, insert=insert, expect=b"vary")
        self.count = (counted_load, counted_commit)

    async def prepare(self) -> None:
        """Store what the row says; the first read may have something to note, for an hour."""
        await self.case.prepare()
        for number, change in enumerate(self.row.changes):
            await self.store.commit(b"epoch-%d" % number, (change,), durable=True)
        await ask(self.case, 1)

    async def counted(self, requests: int) -> tuple[float, float]:
        """Return how many loads and commits one read takes."""
        self.loads = self.commits = 0
        self.store.load, self.store.commit = self.count  # type: ignore[method-assign]
        await ask(self.case, requests)
        del self.store.load, self.store.commit
        return self.loads / requests, self.commits / requests


async def ask(case: Case, requests: int) -> float:
    """Return the processor seconds of one of so many requests."""
    starts: dict[int, Any] = {}

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            starts[message["status"]] = message

    began = time.thread_time()
    for _ in range(requests):
        await case.app(case.scope(), receive, send)
    took = time.thread_time() - began
    case.check(starts)
    return took / requests


async def measure(rounds: int, requests: int) -> int:
    """Print the rows; return how many asked the store for more than one record a read."""
    bare, counted = Case("bare", untouched), [Counted(row) for row in rows(time.time())]
    for one in counted:
        await one.prepare()
    asked = [await one.counted(requests) for one in counted]
    times: dict[str, list[float]] = {case.name: [] for case in (bare, *(one.case for one in counted))}
    cases = [bare, *(one.case for one in counted)]
    for _ in range(rounds):
        for case in random.sample(cases, len(cases)):
            times[case.name].append(await ask(case, requests))
    base = median(times["bare"])
    plain = median(times["plain"]) - base
    print(f"{'a read of a session':44} {'loads':>6} {'commits':>8} {'CPU us':>7} {'to plain':>9}")
    wrong = 0
    for one, (loads, commits) in zip(counted, asked, strict=True):
        took = median(times[one.row.name]) - base
        print(f"{one.row.name:44} {loads:6g} {commits:8g} {took * 1e6:7.2f} {took / plain:9.2f}")
        wrong += (loads, commits) != (1, 0)
    return wrong


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.reads", description="What a read asks of the store.")
    parser.add_argument("--rounds", type=int, default=150, help="blocks of each row (default 150)")
    parser.add_argument("--requests", type=int, default=100, help="requests in a block (default 100)")
    chosen = parser.parse_args()
    return 1 if asyncio.run(measure(chosen.rounds, chosen.requests)) else 0


if __name__ == "__main__":
    sys.exit(main())
