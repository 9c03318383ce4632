"""Measure how long SQLite keeps an event loop waiting: `python -m bench.stalls [--seconds N] [--rate WRITES]`.

Three loops in one run, each with a ticker that wakes every millisecond: an idle one, one in which sessions are
written at the given rate (a plain write each, every hundredth a login), and the same without the store. A stall is how
much later than planned the ticker woke.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.applications import signed_in
from coatcheck import SessionManager, open_async_store
from coatcheck.core.model import Update


async def ticking(seconds: float, work: Callable[[], Awaitable[None]], every: float) -> list[float]:
    """Return the stalls of a loop in which `work` runs every `every` seconds, in milliseconds."""
    stalls: list[float] = []
    until = time.perf_counter() + seconds

    async def tick() -> None:
        while time.perf_counter() < until:
            planned = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            stalls.append((time.perf_counter() - planned) * 1000)

    async def works() -> None:
        due = time.perf_counter()
        while (now := time.perf_counter()) < until:
            await work()
            due = max(due + every, now - 0.05)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    await asyncio.gather(tick(), works())
    return stalls


async def nothing() -> None:
    """Do nothing, as often."""


async def measured(seconds: float, rate: float) -> None:
    """Print the three rows."""
    manager = SessionManager(origins=["https://localhost"])
    print(f"{'ms late':24} {'p50':>7} {'p99':>7} {'p99.9':>7} {'max':>7} {'writes':>8}")
    for name, every in (("idle loop", 1.0), ("the same pace, no store", 1 / rate)):
        show(name, await ticking(seconds, nothing, every), 0)
    with tempfile.TemporaryDirectory() as folder:
        store = open_async_store(f"sqlite:///{Path(folder)}/stalls.db")
        _, insert = signed_in(manager)
        await store.commit(b"0" * 16, (insert,), durable=True)
        record, number = insert.record, 0

        async def write() -> None:
            nonlocal number
            number += 1
            if number % 100 == 0:
                _, another = signed_in(manager)
                await store.commit(b"login %010d" % number, (another,), durable=True)
                return
            update = Update(record=record, was=number - number // 100)
            conflict = await store.commit(b"write %010d" % number, (update,), durable=False)
            if conflict is not None:
                message = f"write {number} met {conflict.why}"
                raise RuntimeError(message)

        show(f"SQLite, {rate:g} writes/s", await ticking(seconds, write, 1 / rate), number)
        await store.close()


def show(name: str, stalls: list[float], writes: int) -> None:
    """Print one row."""
    ordered = sorted(stalls)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99, 0.999)]
    print(f"{name:24} {at[0]:7.2f} {at[1]:7.2f} {at[2]:7.2f} {ordered[-1]:7.2f} {writes:8}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.stalls")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    chosen = parser.parse_args()
    asyncio.run(measured(chosen.seconds, chosen.rate))


if __name__ == "__main__":
    main()
