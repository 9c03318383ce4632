"""Row 39 (F23): gunicorn loads the application, forks two workers, and serves in threads or in greenlets.

A real gunicorn over loopback. The application was used before the fork, so a connection of the parent's was open.
"""

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.model import Query
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.browser import Received
from coatcheck.testing.drivers import until

from .forked import COOKIE

ROOT = Path(__file__).resolve().parents[2]
WORKERS: dict[str, list[str]] = {
    "threads": ["-k", "gthread", "--threads", "4"],
    "greenlets": ["-k", "gevent", "--worker-connections", "32"],
}
SERVED = [("pyramid", "threads"), ("flask", "greenlets")]


class Gunicorn:
    """One gunicorn with two workers."""

    def __init__(self, framework: str, workers: str, place: Path) -> None:
        self.file, self._log = place / "sessions.db", place / "log"
        self.greenlets = workers == "greenlets"
        self._bound = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._bound.set_inheritable(True)
        command = ["-m", "gunicorn", "--preload", "--workers", "2", *WORKERS[workers], "--graceful-timeout", "5"]
        command += ["--no-control-socket"]
        command += ["--bind", f"fd://{self._bound.fileno()}", f"tests.adapters.forked:application('{framework}')"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, "PROBE_STORE": f"sqlite:///{self.file}"},
                pass_fds=[self._bound.fileno()],
                stdout=log,
                stderr=log,
            )
        until(self._answers, 30)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self.ask("GET", "/process").status == 200
        except OSError:
            return False

    def ask(self, method: str, target: str, token: str = "", body: Any = None) -> Received:
        """Ask on a connection of its own, so that either worker may take it."""
        headers = {"sec-fetch-site": "same-origin", "content-type": "application/json"}
        if token:
            headers["cookie"] = f"{COOKIE}={token}"
        connection = http.client.HTTPConnection("localhost", self._bound.getsockname()[1], timeout=20)
        with closing(connection):
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return Received(answer.status, answer.getheaders(), answer.read())

    def login(self, user: str) -> str:
        """Log in; return the token."""
        (cookie,) = self.ask("POST", "/login", body={"user": user}).cookies
        return cookie.partition("=")[2].partition(";")[0]

    def everywhere(self, ask: Callable[[], Received], *, but: str = "") -> list[Received]:
        """Ask until two workers have answered, and none of them is the one that was killed; return their answers."""
        seen: dict[str, Received] = {}

        def both() -> bool:
            try:
                answers = list(pool.map(lambda _: ask(), range(6)))
            except (OSError, http.client.HTTPException):
                if not but:
                    raise
                return False  # it had accepted one of them
            seen.update({answer.header("x-process") or "": answer for answer in answers})
            seen.pop(but, None)
            if len(seen) < 2:
                time.sleep(0.05)
            return len(seen) == 2

        with ThreadPoolExecutor(6) as pool:
            until(both, 60)
        return list(seen.values())

    def stop(self) -> str:
        """Stop it as an operator does; return what it had to say."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(15)
        self._bound.close()
        return self._log.read_text()


@pytest.fixture(scope="module", params=SERVED, ids=[f"{framework} in {workers}" for framework, workers in SERVED])
def gunicorn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    framework, workers = request.param
    served = Gunicorn(framework, workers, tmp_path_factory.mktemp("gunicorn"))
    yield served
    said = served.stop()
    assert "Traceback" not in said, said
    assert "Unhandled" not in said, said


def test_what_one_worker_does_the_other_knows(gunicorn: Gunicorn) -> None:
    token = gunicorn.login("alice")
    answers = gunicorn.everywhere(lambda: gunicorn.ask("GET", "/me", token))
    assert [answer.json()["user"] for answer in answers] == ["alice", "alice"]
    assert gunicorn.ask("POST", "/logout", token).status == 303
    answers = gunicorn.everywhere(lambda: gunicorn.ask("GET", "/me", token))
    assert [answer.json()["why"] for answer in answers] == ["logout", "logout"]


def test_parallel_requests_lose_nothing_though_somebody_else_writes(gunicorn: Gunicorn) -> None:
    """No greenlet may wait for another one within a transaction: its hub would wait for the file, and both for ever."""
    token = gunicorn.login("bob")

    def act(number: int) -> int:
        if number % 3 == 0:
            return len(gunicorn.login(f"user-{number}"))
        if number % 3 == 1:
            return gunicorn.ask("POST", f"/data?write=k{number}", token).status
        return int(gunicorn.ask("POST", "/bump?key=n", token).json()["count"])

    with closing(sqlite3.connect(gunicorn.file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("begin immediate")
        release = threading.Timer(0.2, other.execute, ["rollback"])
        release.start()
        with ThreadPoolExecutor(12) as pool:
            done = list(pool.map(act, range(24)))
        release.join()
    assert len(set(done[0::3])) == 1
    assert set(done[1::3]) == {200}
    assert sorted(done[2::3]) == list(range(1, 9))
    kept = gunicorn.ask("GET", "/data", token).json()
    assert kept == {"n": 8, **{f"k{number}": "1" for number in range(1, 24, 3)}}


def test_each_worker_tidies_by_itself(gunicorn: Gunicorn) -> None:
    """The thread that purged before the fork is not in the children; whoever commits there begins one of its own."""
    token = gunicorn.login("carol")
    gunicorn.everywhere(lambda: gunicorn.ask("POST", "/bump?key=n", token))
    seen: dict[int, dict[str, Any]] = {}

    def told() -> bool:
        shown = gunicorn.ask("GET", "/process").json()
        seen[shown["process"]] = shown
        return len(seen) == 2

    until(told)
    assert all("coatcheck-keeper" in one["threads"] for one in seen.values()), seen
    assert {one["lock"] for one in seen.values()} == {"gevent.thread" if gunicorn.greenlets else "_thread"}


def test_a_worker_that_is_killed_takes_no_session_with_it(gunicorn: Gunicorn) -> None:
    token = gunicorn.login("dave")
    assert gunicorn.ask("POST", "/data?write=k", token).status == 200
    victim = gunicorn.ask("GET", "/me", token).header("x-process") or ""
    os.kill(int(victim), signal.SIGKILL)

    answers = gunicorn.everywhere(lambda: gunicorn.ask("GET", "/data", token), but=victim)
    assert [answer.json() for answer in answers] == [{"k": "1"}, {"k": "1"}]
    store = SqliteStore(gunicorn.file)
    stored = store.find(Query(live=False, limit=1000)).items
    store.close()
    assert {"preloaded", "dave"} <= {record.subject for record in stored}


@pytest.mark.parametrize("more", [(), ("watch",)])
def test_greenlets_that_come_all_at_once_wait_for_no_lock_of_before(tmp_path: Path, more: tuple[str, ...]) -> None:
    """gunicorn --preload makes the store, and its locks, before gevent takes the place of threads in its workers."""
    ask = [sys.executable, "-m", "tests.support.greenlets", f"sqlite:///{tmp_path}/sessions.db", *more]
    done = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "8 16\n"), done.stderr
