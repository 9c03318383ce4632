"""A writer that is killed at any moment loses no acknowledged session and leaves a readable file.

COATCHECK_KILLS=200 pytest tests/stores/test_sqlite_kill.py runs the long form.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from coatcheck.stores.sqlite import SqliteStore

KILLS = int(os.environ.get("COATCHECK_KILLS", "15"))

WRITER = """
import os, sys, time
from coatcheck.core.model import End, Insert
from coatcheck.stores.sqlite import SqliteStore, threads
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import make

threads.TICK = 0.01
store, name, number = SqliteStore(sys.argv[1]), sys.argv[2], 0
while True:
    clock = Clock(time.time())
    for kind in ("live", "ended"):
        handle = f"{name}-{number}-{kind}"
        store.commit(os.urandom(16), [Insert(record=make(handle, clock, data=os.urandom(900)))], number % 5 == 0)
        if kind == "ended":
            store.commit(os.urandom(16), [End(handle=handle, because="logout")], True)
        os.write(1, f"{handle}\\n".encode())
    number += 1
"""


def test_a_killed_writer_loses_nothing_that_it_had_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    chance = random.Random(KILLS)
    confirmed: list[str] = []
    for kill in range(KILLS):
        confirmed += lines_until_killed(path, f"k{kill}", chance.uniform(0.002, 0.08))
        with closing(SqliteStore(path)) as store:
            for handle in confirmed[-50:]:
                check(store, handle)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
    with closing(SqliteStore(path)) as store:
        for handle in confirmed:
            check(store, handle)
    assert len(confirmed) > KILLS


def lines_until_killed(path: Path, name: str, after: float) -> list[str]:
    """Start a writer, kill it some time after its first line, and return the whole lines that it wrote."""
    command = [sys.executable, "-c", WRITER, str(path), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    return [line.decode() for line in (first + rest).split(b"\n")[:-1]]


def check(store: SqliteStore, handle: str) -> None:
    record = store.load(handle)
    assert record is not None, handle
    assert (record.ended_because == "logout") is handle.endswith("ended"), handle
