"""The Django example as its user meets it: manage.py's commands, Django's own server, and two browsers over HTTP."""

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

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "django" / "app.py"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """Run the example in an empty folder, with one user, and return where it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLE)]
    environment = {**os.environ, "DJANGO_SUPERUSER_PASSWORD": "wonderland"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    user = ["createsuperuser", "--noinput", "--username", "alice", "--email", "a@example.org"]
    for step in (["check"], ["migrate"], user):
        subprocess.run([*command, *step], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    server = subprocess.Popen(
        [*command, "runserver", "--noreload", str(port)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with server:
        try:
            yield _awaited(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def _awaited(base: str) -> str:
    end = time.monotonic() + 60
    with httpx2.Client(verify=False) as client:  # one for all tries: making one takes the server's time away
        while True:
            try:
                client.get(f"{base}/login/")
            except httpx2.TransportError:
                assert time.monotonic() < end, "the example did not start"
                time.sleep(0.05)
            else:
                return base


def browser(base: str) -> httpx2.Client:
    return httpx2.Client(base_url=base, follow_redirects=True)


def posted(client: httpx2.Client, page: str, to: str = "", **fields: str) -> httpx2.Response:
    """Send the form of a page."""
    (token, *_) = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get(page).text)
    return client.post(to or page, data={"csrfmiddlewaretoken": token, **fields})


def test_two_browsers_log_in_and_one_ends_the_other(base: str) -> None:
    with browser(base) as here, browser(base) as there:
        assert "Hello stranger, visit 1" in here.get("/").text
        assert "Hello stranger, visit 2" in here.get("/").text
        anonymous = here.cookies["session-insecure"]
        shown = posted(here, "/login/", username="alice", password="wonderland").text
        assert "Hello alice, visit 3" in shown
        assert here.cookies["session-insecure"] != anonymous
        posted(there, "/login/", username="alice", password="wonderland")
        page = here.get("/sessions/").text
        (revoke,) = re.findall(r'action="(/sessions/[^"]+/revoke/)"', page)
        assert page.count("(this one)") == 1
        assert there.get("/sessions/").url.path == "/sessions/"
        posted(here, "/sessions/", to=revoke)
        assert there.get("/sessions/").url.path == "/login/"
        assert "That session is over." in here.get("/").text
        posted(here, "/", to="/logout/")
        assert here.get("/sessions/").url.path == "/login/"
