"""A second process on the same SQLite file: `python -m tests.drills.worker <file> <clock> [settings as JSON]`.

It reads one request a line (JSON), answers each with one line, and so is a node of its own: its memory, its clock.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock

from .house import Answer, Ask, House

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """The near end of a worker: a house to ask, with a clock to set."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, ask: Ask, now: float) -> Answer:
        """Send one request at a time of the worker's clock."""
        headers = [[_text(name), _text(value)] for name, value in ask.headers]
        line = {"now": now, "method": ask.method, "target": ask.target, "headers": headers, "body": ask.body.decode()}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in found["headers"])
        return Answer(found["status"], pairs, found["body"].encode())


@contextmanager
def working(file: Path, now: float, **settings: Any) -> Iterator[Worker]:
    """Run a worker."""
    command = [sys.executable, "-m", "tests.drills.worker", str(file), str(now), json.dumps(settings)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _work(file: str, now: str, settings: str) -> None:
    clock = Clock(float(now))
    store = SqliteStore(file, clock=clock)
    house = House("wsgi", store, clock, **json.loads(settings))
    for line in sys.stdin:
        said = json.loads(line)
        clock.now = said["now"]
        headers = tuple((name, value) for name, value in said["headers"])
        answer = house.ask(Ask(said["method"], said["target"], headers, said["body"].encode()))
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
        print(json.dumps({"status": answer.status, "headers": pairs, "body": answer.body.decode()}), flush=True)
    store.close()


if __name__ == "__main__":
    _work(*sys.argv[1:])
