"""The Quart example as its user meets it: Quart's own server in a process of its own, and two browsers over HTTP."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quart" / "app.py"
ALICE = {"user": "alice", "password": "wonderland"}


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """Run the example in an empty folder, and return where it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "quart", "--app", str(EXAMPLE), "run", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield _awaited(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def _awaited(base: str) -> str:
    end = time.monotonic() + 30
    while True:
        try:
            httpx2.get(f"{base}/login")
        except httpx2.TransportError:
            assert time.monotonic() < end, "the example did not start"
            time.sleep(0.05)
        else:
            return base


def browser(base: str) -> httpx2.Client:
    return httpx2.Client(base_url=base, follow_redirects=True, headers={"Sec-Fetch-Site": "same-origin"})


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
