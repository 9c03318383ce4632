"""Row 39 (F23): gunicorn loads the application, forks two workers, and serves in threads or in greenlets.

A real gunicorn over loopback. The application was used before the fork, so a connection of the parent's was open.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from coatcheck.core.model import Query
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.drivers import until

from .forked import COOKIE

ROOT = Path(__file__).resolve().parents[2]
OURS = {"sec-fetch-site": "same-origin"}
WORKERS: dict[str, list[str]] = {
    "processes": ["-k", "sync"],
    "threads": ["-k", "gthread", "--threads", "4"],
    "greenlets": ["-k", "gevent", "--worker-connections", "32"],
}
SERVED = [("flask", "threads"), ("flask", "greenlets"), ("pyramid", "greenlets"), ("wsgi", "processes")]


class Gunicorn:
    """One gunicorn with two workers."""

    def __init__(self, framework: str, workers: str, place: Path) -> None:
        self.file, self._log = place / "sessions.db", place / "log"
        self._bound = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._bound.set_inheritable(True)
        self.address = f"http://localhost:{self._bound.getsockname()[1]}"
        command = ["-m", "gunicorn", "--preload", "--workers", "2", *WORKERS[workers], "--graceful-timeout", "5"]
        command += ["--bind", f"fd://{self._bound.fileno()}", f"tests.adapters.forked:application('{framework}')"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, "PROBE_FILE": str(self.file)},
                pass_fds=[self._bound.fileno()],
                stdout=log,
                stderr=log,
            )
        until(self._answers, 30)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return httpx2.get(f"{self.address}/process", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def ask(self, method: str, target: str, token: str = "", **how: Any) -> httpx2.Response:
        """Ask on a connection of its own, so that either worker may take it."""
        headers = OURS | ({"cookie": f"{COOKIE}={token}"} if token else {})
        return httpx2.request(method, self.address + target, headers=headers, timeout=20, **how)

    def login(self, user: str) -> str:
        """Log in; return the token."""
        return str(self.ask("POST", "/login", json={"user": user}).cookies[COOKIE])

    def everywhere(self, ask: Callable[[], httpx2.Response]) -> list[httpx2.Response]:
        """Ask until both workers have answered."""
        seen: dict[str, httpx2.Response] = {}
        with ThreadPoolExecutor(8) as pool:
            for _ in range(40):
                seen |= {answer.headers["x-process"]: answer for answer in pool.map(lambda _: ask(), range(8))}
                if len(seen) == 2:
                    return list(seen.values())
        raise AssertionError(seen)

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
    assert gunicorn.ask("POST", "/logout", token).status_code == 303
    answers = gunicorn.everywhere(lambda: gunicorn.ask("GET", "/me", token))
    assert [answer.json()["why"] for answer in answers] == ["logout", "logout"]


def test_parallel_requests_lose_nothing(gunicorn: Gunicorn) -> None:
    token = gunicorn.login("bob")

    def act(number: int) -> int:
        if number % 3 == 0:
            return len(gunicorn.login(f"user-{number}"))
        if number % 3 == 1:
            return gunicorn.ask("POST", f"/data?write=k{number}", token).status_code
        return int(gunicorn.ask("POST", "/bump?key=n", token).json()["count"])

    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(act, range(36)))
    assert len(set(done[0::3])) == 1
    assert set(done[1::3]) == {200}
    assert sorted(done[2::3]) == list(range(1, 13))
    kept = gunicorn.ask("GET", "/data", token).json()
    assert kept == {"n": 12, **{f"k{number}": "1" for number in range(1, 36, 3)}}


def test_each_worker_tidies_by_itself(gunicorn: Gunicorn) -> None:
    """The thread that purged before the fork is not in the children; whoever commits there begins one of its own."""
    token = gunicorn.login("carol")
    gunicorn.everywhere(lambda: gunicorn.ask("POST", "/bump?key=n", token))
    seen: dict[int, list[str]] = {}

    def told() -> bool:
        shown = gunicorn.ask("GET", "/process").json()
        seen[shown["process"]] = shown["threads"]
        return len(seen) == 2

    until(told)
    assert all("coatcheck-keeper" in threads for threads in seen.values()), seen


def test_a_worker_that_is_killed_takes_no_session_with_it(gunicorn: Gunicorn) -> None:
    token = gunicorn.login("dave")
    assert gunicorn.ask("POST", "/data?write=k", token).status_code == 200
    victim = int(gunicorn.ask("GET", "/me", token).headers["x-process"])
    os.kill(victim, signal.SIGKILL)

    def again() -> set[str]:
        try:
            answers = gunicorn.everywhere(lambda: gunicorn.ask("GET", "/data", token))
        except httpx2.HTTPError:  # what the killed one had accepted
            return set()
        return {answer.headers["x-process"] for answer in answers if answer.json() == {"k": "1"}}

    until(lambda: len(again() - {str(victim)}) == 2, 30)
    store = SqliteStore(gunicorn.file)
    stored = store.find(Query(live=False, limit=1000)).items
    store.close()
    assert {"preloaded", "dave"} <= {record.subject for record in stored}
