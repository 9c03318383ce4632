"""Compare what two checkouts add to a request: `python -m bench.compare OLD [NEW] [--only memory] [--rounds N]`.

Both are imported into this one process, each with its own `bench/applications.py`, and short blocks of the same case of
either are run in turn, in random order: a machine that slows down slows both. What counts is the processor time of this
thread (work that a store hands to another thread is not in it), less that of the bare application. NEW is this
checkout, if it is not named.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import time
from importlib import util
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).resolve().parent.parent


def world(root: Path) -> Any:
    """Return the applications of a checkout; what was imported of another one before stays with those who have it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "coatcheck"]:
        del sys.modules[name]
    sys.path.insert(0, str(root / "src"))
    try:
        spec = util.spec_from_file_location(f"applications of {root}", root / "bench" / "applications.py")
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        del sys.path[0]
    found = sys.modules["coatcheck"].__file__
    assert root in Path(found or "").parents, f"coatcheck was imported from {found}, not from {root}"
    return module


async def block(case: Any, requests: int) -> float:
    """Return the processor seconds of one request of a block."""
    app, scope, starts = case.app, case.scope, dict[int, Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            starts[message["status"]] = message

    began = time.thread_time()
    for _ in range(requests):
        await app(scope(), receive, send)
    took = time.thread_time() - began
    case.check(starts)
    return took / requests


async def compared(old: list[Any], new: list[Any], rounds: int, requests: int) -> None:
    """Print a line for each case, the bare application's first."""
    bare = old[0]
    print(f"{'CPU us added to one request':34} {'old':>7} {'new':>7} {'new/old':>8} {'quartiles':>13}")
    for one, other in zip(old[1:], new[1:], strict=True):
        pair = (bare, one, other)
        times: dict[Any, list[float]] = {case: [] for case in pair}
        for case in pair:
            await case.prepare()
            await block(case, requests * 2)
        gc.collect()
        gc.freeze()
        for _ in range(rounds):
            for case in random.sample(pair, 3):
                times[case].append(await block(case, requests))
        for case in pair[1:]:
            await case.close()
        base = median(times[bare])
        before, after = (median(times[case]) - base for case in pair[1:])
        low, _, high = quantiles((b - base) / (a - base) for a, b in zip(times[one], times[other], strict=True))
        share = f"{low:.2f}..{high:.2f}"
        print(f"{one.name:34} {before * 1e6:7.2f} {after * 1e6:7.2f} {after / before:8.3f} {share:>13}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="What two checkouts add to a request.")
    parser.add_argument("old", type=Path, help="a checkout: a folder with src and bench")
    parser.add_argument("new", type=Path, nargs="?", default=HERE, help="another one (default: this one)")
    parser.add_argument("--only", default="", help="only cases whose name contains one of these, parted by commas")
    parser.add_argument("--rounds", type=int, default=150, help="blocks of each case (default 150)")
    parser.add_argument("--requests", type=int, default=100, help="requests in a block (default 100)")
    chosen = parser.parse_args()
    words = chosen.only.split(",")

    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name, root in (("old", chosen.old.resolve()), ("new", chosen.new.resolve())):
            place = Path(folder, name)
            place.mkdir()
            cases = world(root).cases(place)
            sides.append([c for c in cases if c.name == "bare" or any(word in c.name for word in words)])
        names = {case.name for case in sides[0]} & {case.name for case in sides[1]}
        old, new = ([case for case in side if case.name in names] for side in sides)
        asyncio.run(compared(old, new, chosen.rounds, chosen.requests))


if __name__ == "__main__":
    main()
