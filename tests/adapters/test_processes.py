"""Real servers of two processes over one SQLite file: what one does, the other knows at once (rows 29, 39 and 43)."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.drivers import until

ROOT = Path(__file__).resolve().parents[2]
OURS = {"sec-fetch-site": "same-origin"}
COOKIE = "coat-insecure"


def listening() -> socket.socket:
    """Return a socket that listens on a free port of this machine."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen(64)
    found.set_inheritable(True)
    return found


def started(command: list[str], bound: socket.socket, **environment: str) -> subprocess.Popen[bytes]:
    """Start a server on a listening socket; return when it answers."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        pass_fds=[bound.fileno()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://localhost:{bound.getsockname()[1]}/"

    def answers() -> bool:
        assert process.poll() is None, f"the server stopped with {process.returncode}"
        try:
            return httpx2.get(address, timeout=1).status_code == 200
        except httpx2.HTTPError:
            return False

    until(answers, 30)
    return process


def stopped(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes") / "sessions.db"


@pytest.fixture(scope="module", params=["uvicorn and uvicorn", "uvicorn of two workers", "uvicorn and forked WSGI"])
def ports(request: pytest.FixtureRequest, file: Path) -> Iterator[tuple[int, int]]:
    """Return two ports; behind each are other processes, or behind both the same two."""
    file = file.with_name(f"{request.param}.db")
    one, two = listening(), listening()
    uvicorn = ["-m", "uvicorn", "--factory", "tests.adapters.served:app", "--log-level", "error"]
    processes = [started([*uvicorn, "--fd", str(one.fileno())], one, PROBE_FILE=str(file))]
    if request.param == "uvicorn and uvicorn":
        processes.append(started([*uvicorn, "--fd", str(two.fileno())], two, PROBE_FILE=str(file)))
    elif request.param == "uvicorn of two workers":
        command = [*uvicorn, "--fd", str(two.fileno()), "--workers", "2"]
        processes.append(started(command, two, PROBE_FILE=str(file)))
    else:
        processes.append(started(["-m", "tests.adapters.served", str(file), str(two.fileno())], two))
    yield one.getsockname()[1], two.getsockname()[1]
    for process in processes:
        stopped(process)
    one.close()
    two.close()


class Visitor:
    """One browser that may turn to either port."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self.client = httpx2.Client(headers=OURS, timeout=20)
        self.here, self.there = (f"http://localhost:{port}" for port in ports)

    def login(self, at: str) -> None:
        assert self.client.post(f"{at}/login", json={"user": "alice"}).json()["user"] == "alice"


@pytest.fixture
def visitor(ports: tuple[int, int]) -> Iterator[Visitor]:
    made = Visitor(ports)
    yield made
    made.client.close()


def test_a_login_here_is_known_there_and_a_logout_there_counts_here(visitor: Visitor) -> None:
    client = visitor.client
    visitor.login(visitor.here)
    stolen = client.cookies[COOKIE]
    assert client.get(f"{visitor.there}/me").json()["user"] == "alice"
    client.post(f"{visitor.there}/logout")
    client.cookies.clear()
    client.cookies.set(COOKIE, stolen, domain="localhost.local")
    assert client.get(f"{visitor.here}/me", headers={"cookie": f"{COOKIE}={stolen}"}).status_code == 401


def test_a_form_of_one_process_is_good_in_the_other(visitor: Visitor) -> None:
    """F38: no key of the process's own is in it."""
    for _ in range(4):
        token = visitor.client.get(f"{visitor.here}/form").text
        answer = visitor.client.post(f"{visitor.there}/echo?token=required", data={"csrf_token": token})
        assert answer.json()["csrf"] is True


def test_parallel_writes_through_all_processes_are_all_kept(visitor: Visitor) -> None:
    visitor.login(visitor.here)
    cookie = {"cookie": f"{COOKIE}={visitor.client.cookies[COOKIE]}", **OURS}

    def write(number: int) -> int:
        at = visitor.there if number % 2 else visitor.here
        return httpx2.get(f"{at}/data?write=k{number}&value={number}", headers=cookie, timeout=20).status_code

    def count(number: int) -> int:
        at = visitor.there if number % 2 else visitor.here
        found: int = httpx2.post(f"{at}/bump?key=n", headers=cookie, timeout=20).json()["count"]
        return found

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(24))) == {200}
        assert sorted(pool.map(count, range(24))) == list(range(1, 25))
    kept = visitor.client.get(f"{visitor.there}/data").json()
    assert kept == {**{f"k{number}": str(number) for number in range(24)}, "n": 24}


def test_a_socket_here_closes_when_its_session_is_ended_there(visitor: Visitor) -> None:
    visitor.login(visitor.here)
    token = visitor.client.cookies[COOKIE]
    headers: Any = {"cookie": f"{COOKIE}={token}"}
    address = visitor.here.replace("http", "ws")
    with connect(f"{address}/ws", origin=visitor.here, additional_headers=headers) as socket:  # type: ignore[arg-type]
        socket.send("hello")
        assert socket.recv(5) == "alice: hello"
        since = time.monotonic()
        visitor.client.post(f"{visitor.there}/logout")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(5)
        assert time.monotonic() - since < 1
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


def test_an_event_stream_here_ends_properly_when_its_session_is_ended_there(visitor: Visitor) -> None:
    visitor.login(visitor.here)
    with visitor.client.stream("GET", f"{visitor.here}/sse") as stream:
        chunks = stream.iter_text()
        assert next(chunks) == "data: alice\n\n"
        since = time.monotonic()
        with httpx2.Client(headers=OURS, cookies=visitor.client.cookies) as other:
            other.post(f"{visitor.there}/logout")
        assert list(chunks) == []
        assert time.monotonic() - since < 1


def test_a_strangers_socket_is_refused_with_403(visitor: Visitor) -> None:
    from websockets.exceptions import InvalidStatus

    address = visitor.here.replace("http", "ws")
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"{address}/ws", origin="https://evil.example"),  # type: ignore[arg-type]
    ):
        pass
    assert refused.value.response.status_code == 403


def test_forked_children_serve_what_their_parent_preloaded(tmp_path: Path) -> None:
    """F23: a connection that was open before the fork is used by neither child."""
    file, bound = tmp_path / "sessions.db", listening()
    process = started(["-m", "tests.adapters.served", str(file), str(bound.fileno())], bound)
    address = f"http://localhost:{bound.getsockname()[1]}"
    seen: set[str] = set()
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(6):
                answers = list(pool.map(lambda _: httpx2.get(f"{address}/data?write=k", timeout=20), range(16)))
                assert {one.status_code for one in answers} == {200}
                seen |= {re.sub(r"\D", "", one.headers["server"]) for one in answers}
                if len(seen) == 2:
                    break
    finally:
        stopped(process)
        bound.close()
    assert len(seen) == 2
    store = SqliteStore(file)
    from coatcheck.core.model import Query

    stored = store.find(Query(live=False, limit=1000)).items
    assert {one.subject for one in stored} == {"preloaded", None}
    assert len(stored) >= 17
    store.close()
