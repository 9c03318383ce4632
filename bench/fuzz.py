"""Throw hostile inputs at all that reads them: `python -m bench.fuzz [--inputs N] [--seed S]`.

Inputs are mutations of good ones (bits, bytes, cuts, splices, repeats, words) and plain noise of a seed.
For each target: nothing is raised but the errors it declares, nothing forged is accepted, and no input takes more than
10 ms of CPU. The nightly command is `python -m bench.fuzz --inputs 10000000`; tests/fuzz takes 200,000.

To add a target, write a function that returns a `Target` (fuzz_targets.py), and name it in `TARGETS`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import fuzz_device, fuzz_targets
from bench.fuzz_targets import Target

MOST_SECONDS = 0.010

_WORDS = (
    b"; ",
    b"=",
    b"__Host-coat=",
    b"__Host-coat.1=",
    b"__host-coat=",
    b"c1.",
    b"s1.",
    b".",
    b"..",
    b'"',
    b"\\",
    b"%00",
    b",",
    b"\x00",
    b"\r\n",
    b"\x85",
    b"\xa0",
    "\u2000".encode(),
    b"\xff\xfe",
    b"$Version=1; ",
    b"A" * 18,
    b"-1",
    b"9" * 40,
    b"null",
    b"m.",
    b"\x81",
    b"\x91" * 40,
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xd7\xff" + b"\xff" * 8,
    b"cross-site",
    b"same-origin",
    b"https://",
    b"[" * 50,
    b"{" * 50,
    b"://[::1",
    b"xn--",
    b"=" * 8,
)


@dataclass
class Result:
    """What came of one target; `faults` say how to see each again."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def mutated(chance: random.Random, good: Sequence[bytes]) -> bytes:
    """Return an input: often nearly good, sometimes nothing but noise."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.randrange(200))
    raw = bytearray(chance.choice(good))
    for _ in range(1 if chance.random() < 0.6 else chance.randrange(1, 6)):
        act, at = chance.randrange(8), chance.randrange(len(raw) + 1)
        if act == 0 and raw:
            raw[at % len(raw)] ^= 1 << chance.randrange(8)
        elif act == 1 and raw:
            raw[at % len(raw)] = chance.randrange(256)
        elif act == 2:
            del raw[at : at + chance.randrange(1, 9)]
        elif act == 3:
            raw[at:at] = chance.choice(_WORDS)
        elif act == 4:
            raw[at : at + chance.randrange(9)] = chance.choice(_WORDS)
        elif act == 5:
            other = chance.choice(good)
            raw[at:] = other[chance.randrange(len(other) + 1) :]
        elif act == 6:
            raw[at:at] = raw[at : at + chance.randrange(1, 33)] * chance.randrange(1, 9)
        else:
            raw[at:at] = chance.randbytes(chance.randrange(1, 5))
    return bytes(raw[:20000])


def fuzz(target: Target, inputs: int, seed: int) -> Result:
    """Throw inputs at a target."""
    chance = random.Random(f"{seed} {target.name}")
    result, read, clock = Result(target.name, inputs), target.read, time.thread_time
    known = set(target.good)
    began = clock()
    for number in range(inputs):
        raw = mutated(chance, target.good)
        start = clock()
        try:
            accepted = read(raw)
        except target.declared:
            accepted = False
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            result.faults.append(f"{target.name}, input {number}: {type(error).__name__} for {raw[:200]!r}")
            continue
        took = clock() - start
        if took > result.slowest:
            result.slowest = took
            if took > MOST_SECONDS and _again(target, raw) > MOST_SECONDS:
                result.faults.append(f"{target.name}, input {number}: {took * 1000:.1f} ms for {raw[:200]!r}")
        if accepted:
            result.accepted += 1
            if target.forged and raw not in known:
                result.faults.append(f"{target.name}, input {number}: accepted {raw[:200]!r}")
        else:
            result.refused += 1
    result.seconds = clock() - began
    return result


def _again(target: Target, raw: bytes) -> float:
    """Return the least of three more times: a garbage collection is nobody's input."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        with contextlib.suppress(*target.declared):
            target.read(raw)
        times.append(time.thread_time() - start)
    return min(times)


# -- targets ---------------------------------------------------------------------------------------------------------

TARGETS: tuple[Callable[[], Target], ...] = (
    fuzz_targets.cookies,
    fuzz_targets.opaque,
    fuzz_targets.sealed,
    fuzz_targets.encoded,
    fuzz_targets.csrf_tokens,
    fuzz_targets.requests,
    fuzz_device.proofs_of_devices,
    fuzz_device.device_headers,
)
"""What is fuzzed."""


def targets() -> list[Target]:
    """Return the targets that can be built here."""
    found = [make() for make in TARGETS]
    try:
        found.append(fuzz_targets.notices())
    except ImportError:
        print("joserfc is not installed: logout tokens are left out")
    return found


def run(inputs: int, seed: int, only: str | None = None) -> list[Result]:
    """Share the inputs among the targets; print a line of each."""
    chosen = [target for target in targets() if only in (None, target.name)]
    results = []
    for target in chosen:
        result = fuzz(target, inputs // len(chosen), seed)
        results.append(result)
        print(
            f"{result.name:13} {result.inputs:>9,} inputs {result.seconds:7.1f} s  accepted {result.accepted:>8,}"
            f"  slowest {result.slowest * 1000:6.2f} ms  faults {len(result.faults)}",
            flush=True,
        )
        for fault in result.faults[:10]:
            print("  " + fault)
    return results


def main() -> int:
    """Run, and fail where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    return int(any(result.faults for result in run(chosen.inputs, chosen.seed, chosen.only)))


if __name__ == "__main__":
    sys.exit(main())
