"""The Pyramid example, run as a program and visited over HTTP."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import coatcheck

APP = Path(__file__).resolve().parents[2] / "examples" / "pyramid" / "app.py"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = subprocess.Popen(
        [sys.executable, str(APP), str(port)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(coatcheck.__file__).parents[1])},
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert program.poll() is None, "the example ended"
            assert time.monotonic() < end, "the example does not listen"
            time.sleep(0.05)
    yield f"http://localhost:{port}"
    program.terminate()
    program.wait(10)


def post(client: httpx2.Client, path: str, **fields: str) -> httpx2.Response:
    page = client.get("/").text
    token = re.search('name=csrf_token value="([^"]+)"', page)
    assert token is not None
    return client.post(path, data={"csrf_token": token[1], **fields})


def test_somebody_logs_in_counts_and_ends_another_session(base: str) -> None:
    headers = {"Sec-Fetch-Site": "same-origin"}
    laptop = httpx2.Client(base_url=base, headers=headers, follow_redirects=True)
    phone = httpx2.Client(base_url=base, headers=headers, follow_redirects=True)
    assert "nobody, visit 1" in laptop.get("/").text
    assert "That is not right." in post(laptop, "/login", user="alice", password="wrong").text
    for client in (laptop, phone):
        welcomed = post(client, "/login", user="alice", password="wonderland").text
        assert "alice, visit 1" in welcomed
        assert "Welcome, alice." in welcomed
    assert "alice, visit 2" in laptop.get("/").text
    assert laptop.post("/logout").status_code == 400
    handles = re.findall(r'action="/sessions/([^"]+)".*?>([^<>]+)<button>End', laptop.get("/sessions").text)
    other = next(handle for handle, shown in handles if "this one" not in shown)
    post(laptop, f"/sessions/{other}")
    assert "nobody" in phone.get("/").text
    assert "nobody" in post(laptop, "/logout").text
