"""Every example as its user meets it: the framework's own server in a process of its own, and browsers over HTTP."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.servers.base import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALICE = {"user": "alice", "password": "wonderland"}
UVICORN = ["-m", "uvicorn", "--app-dir", "{folder}", "app:app", "--port", "{port}"]
SANIC = "import sys; sys.path[0] = '{folder}'; from app import app; app.run('127.0.0.1', {port}, single_process=True)"

COMMANDS = {
    "fastapi": UVICORN,
    "flask": ["-m", "flask", "--app", "{folder}/app.py", "run", "--port", "{port}"],
    "quart": ["-m", "quart", "--app", "{folder}/app.py", "run", "--port", "{port}"],
    "sanic": ["-c", SANIC],
    "starlette": UVICORN,
}
"""How each is started, after `python`."""


@pytest.fixture(params=COMMANDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Run an example in an empty folder, and return where it listens."""
    port, folder = free_port(), EXAMPLES / request.param
    command = [sys.executable, *(part.format(folder=folder, port=port) for part in COMMANDS[request.param])]
    with (
        (tmp_path / "log.txt").open("wb") as log,
        subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT) as server,
    ):
        try:
            yield _awaited(server, f"http://127.0.0.1:{port}", tmp_path / "log.txt")
        finally:
            server.terminate()


def _awaited(server: subprocess.Popen[bytes], base: str, log: Path) -> str:
    end = time.monotonic() + 30
    while True:
        try:
            httpx2.get(f"{base}/login")
        except httpx2.TransportError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, f"the example did not start: {log.read_text()}"
            time.sleep(0.05)
        else:
            return base


def browser(base: str) -> httpx2.Client:
    """Return a browser that says on a form what browsers say."""
    return httpx2.Client(base_url=base, follow_redirects=True, headers={"Sec-Fetch-Site": "same-origin"})


def test_every_example_is_run() -> None:
    assert {folder.name for folder in EXAMPLES.iterdir() if any(folder.glob("*.py"))} == COMMANDS.keys()


def test_two_browsers_log_in_and_one_ends_the_other(base: str) -> None:
    with browser(base) as here, browser(base) as there:
        assert "Hello stranger, visit 1" in here.get("/").text
        assert "Hello stranger, visit 2" in here.get("/").text
        assert "That is not the password." in here.post("/login", data={**ALICE, "password": "x"}).text
        shown = here.post("/login", data=ALICE).text
        assert "Welcome back." in shown
        assert "Hello alice, visit 1" in shown
        there.post("/login", data=ALICE)
        page = here.get("/sessions").text
        (revoke,) = re.findall(r'action="(/sessions/[^"]+/revoke)"', page)
        assert page.count("this one") == 1
        assert there.get("/sessions").url.path == "/sessions"
        here.post(revoke)
        assert there.get("/sessions", headers={"Accept": "text/html"}).url.path == "/login"
        assert "Good bye." in here.post("/logout").text
        assert here.get("/sessions").status_code == 401
        assert here.post("/login", data=ALICE, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_remembered_login_keeps_its_cookie(base: str) -> None:
    with browser(base) as here:
        answer = here.post("/login", data={**ALICE, "remember": "on"}, follow_redirects=False)
        assert "Max-Age=" in answer.headers["set-cookie"]
