"""Every row of the check list on every adapter of ours: how many of each verdict, and what is not as we say.

python -m tests.conformance.everywhere                      all of them, two at a time
python -m tests.conformance.everywhere Sanic "Django, sync" these
python -m tests.conformance.everywhere --rows CKE-01 Quart  these rows
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

from coatcheck.testing.conformance import Report, Verdict, judge

from .adapters import EVERY, adapter
from .test_conformance import unlike


def judged(name: str, rows: Sequence[str]) -> tuple[Report, float, float]:
    """Return what is found on an adapter, with the seconds that it took of this process and of the clock."""
    logging.getLogger().addHandler(logging.NullHandler())  # or each attack is written to this terminal
    chosen = adapter(name)
    began, work = time.monotonic(), time.process_time()
    report = judge(chosen, rows)
    return report, time.process_time() - work, time.monotonic() - began


def main(arguments: Sequence[str]) -> int:
    """Judge and print; return 1 where anything is not as we say."""
    parser = argparse.ArgumentParser(prog="tests.conformance.everywhere", description=__doc__.partition("\n")[0])
    parser.add_argument("adapters", nargs="*", metavar="ADAPTER", help=f"of {', '.join(EVERY)}; all if none")
    parser.add_argument("--rows", nargs="+", default=[], metavar="ID", help="these rows; all if none")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time (2)")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.adapters) - set(EVERY))
    if unknown:
        parser.error(f"there is no adapter {', '.join(unknown)}; there are {', '.join(EVERY)}")
    print(f"{'':20} {' '.join(f'{verdict:>14}' for verdict in Verdict)} {'CPU s':>7} {'s':>5}", flush=True)
    odd = 0
    names = chosen.adapters or EVERY
    with contextlib.ExitStack() as stack:
        each: Callable[..., Iterable[tuple[Report, float, float]]] = map
        if chosen.processes > 1:
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(chosen.processes, mp_context=spawn, max_tasks_per_child=1)
            each = stack.enter_context(pool).map
        for report, work, took in each(judged, names, [chosen.rows] * len(names)):
            numbers = " ".join(f"{number:14}" for number in report.sums.values())
            print(f"{report.about:20} {numbers} {work:7.1f} {took:5.0f}", flush=True)
            for said in filter(None, map(unlike, report.findings)):
                odd += 1
                print(f"    {said}", flush=True)
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
