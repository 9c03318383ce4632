"""Measure the cost added to one request: `python -m bench [--blocks N] [--json FILE]`.

Every row runs in turn with its own bare application, in blocks of requests in random order, in one process and one
event loop; the figure is the median of the blocks, less the bare one's. Machines differ: compare rows of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import applications
from bench.applications import Case

GOALS = {
    "memory / no cookie": 3.0,
    "memory / read": 10.0,
    "memory / write": 16.0,
    "near memory / read": 8.0,
    "near sqlite / read": 8.0,
    "sqlite / no cookie": 3.0,
    "sqlite / read": 18.0,
    "sqlite / write": 45.0,
    "sealed alone / read": 16.0,
    "sealed alone / write": 24.0,
    "sealed, memory / read": 16.0,
    "sealed, memory / write": 24.0,
}
"""Microseconds added, as the project promises them."""


async def block(case: Case, requests: int) -> float:
    """Return the seconds that one request of a block took, on average; as in a server, nothing of it is kept."""
    app, scope = case.app, case.scope
    starts: dict[int, Any] = {}

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            starts[message["status"]] = message

    gc.collect()
    began = time.perf_counter()
    for _ in range(requests):
        await app(scope(), receive, send)
    took = time.perf_counter() - began
    case.check(starts)
    return took / requests


async def measure(cases: list[Case], blocks: int, requests: int) -> dict[str, list[float]]:
    """Return each case's block times, the cases taken in random order in every round."""
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for case in cases:
        await case.prepare()
        await block(case, requests)
    for _ in range(blocks):
        for case in random.sample(cases, len(cases)):
            times[case.name].append(await block(case, requests))
    for case in cases:
        await case.close()
    return times


def import_cost() -> tuple[float, float]:
    """Return the milliseconds of a bare interpreter and of one that imports coatcheck (medians)."""
    bare, ours = [], []
    for _ in range(15):
        for found, code in ((bare, "pass"), (ours, "import coatcheck")):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            found.append((time.perf_counter() - began) * 1000)
    return statistics.median(bare), statistics.median(ours)


async def cookie_cost(loops: int = 20_000) -> float:
    """Return the microseconds of finding our cookie in a header of ten."""
    find, header = applications.finder()
    best = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(loops):
            find(header)
        best = min(best, (time.perf_counter() - began) / loops)
    return best * 1e6


def rows(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return one row a case: what it adds to the bare application, its quartiles and its goal."""
    found = []
    for name, blocks in times.items():
        if name.startswith("bare"):
            continue
        bare = times["bare"]
        base = statistics.median(bare)
        low, middle, high = statistics.quantiles([took - base for took in blocks], n=4)
        found.append(
            {
                "case": name,
                "added_us": round(middle * 1e6, 1),
                "quartiles_us": [round(low * 1e6, 1), round(high * 1e6, 1)],
                "goal_us": GOALS.get(name),
            }
        )
    return found


def table(found: list[dict[str, Any]], bare: float) -> str:
    """Return the rows as a table."""
    lines = [f"{'added to one request':34} {'us':>7} {'quartiles':>15} {'goal':>6}"]
    for row in found:
        low, high = row["quartiles_us"]
        goal = "" if row["goal_us"] is None else f"{row['goal_us']:g}"
        mark = "" if not goal else "  ok" if row["added_us"] <= row["goal_us"] else "  ABOVE"
        lines.append(f"{row['case']:34} {row['added_us']:7.1f} {f'{low:.1f}..{high:.1f}':>15} {goal:>6}{mark}")
    lines.append(f"(bare ASGI application: {bare * 1e6:.2f} us)")
    return "\n".join(lines)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run the measurement in one event loop."""
    asyncio.run(main())  # type: ignore[arg-type]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--blocks", type=int, default=40, help="rounds of blocks (default 40)")
    parser.add_argument("--requests", type=int, default=300, help="requests in a block (default 300)")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    chosen = parser.parse_args()

    async def measured() -> None:
        with tempfile.TemporaryDirectory() as folder:
            cases = [
                case
                for case in applications.cases(Path(folder))
                if case.name.startswith("bare") or chosen.only in case.name
            ]
            times = await measure(cases, chosen.blocks, chosen.requests)
        found = rows(times)
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
        print(table(found, statistics.median(times["bare"])))
        if not chosen.only:
            print(f"finding our cookie among ten: {await cookie_cost():.2f} us (goal 1)")
            bare, ours = import_cost()
            print(f"importing coatcheck: {ours - bare:.0f} ms more than bare Python's {bare:.0f} ms (goal 80)")
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=1), "utf-8")

    run(measured)


if __name__ == "__main__":
    main()
