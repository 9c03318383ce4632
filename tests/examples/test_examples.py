"""Every example as its user meets it: the framework's own server in a process of its own, and browsers over HTTP."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.servers.base import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALICE = {"user": "alice", "password": "wonderland"}
UVICORN = ["-m", "uvicorn", "--app-dir", "{folder}", "app:app", "--port", "{port}"]
SANIC = "import sys; sys.path[0] = '{folder}'; from app import app; app.run('127.0.0.1', {port}, single_process=True)"

COMMANDS = {
    "aiohttp": ["{folder}/app.py", "{port}"],
    "fastapi": UVICORN,
    "flask": ["-m", "flask", "--app", "{folder}/app.py", "run", "--port", "{port}"],
    "litestar": UVICORN,
    "quart": ["-m", "quart", "--app", "{folder}/app.py", "run", "--port", "{port}"],
    "sanic": ["-c", SANIC],
    "starlette": UVICORN,
    "tornado": ["{folder}/app.py", "{port}"],
}
"""How each is started, after `python`."""
WITH_FORMS_OF_THEIR_OWN = {"channels", "django", "pyramid"}
"""They ask for their framework's own CSRF token; test_channels.py and the like fill their forms."""


@pytest.fixture(params=COMMANDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Run an example in an empty folder, and return where it listens."""
    with served(COMMANDS[request.param], EXAMPLES / request.param, tmp_path) as base:
        yield base


@contextmanager
def served(command: list[str], folder: Path, place: Path) -> Iterator[str]:
    """Run a server with a working folder, and return where it listens."""
    port = free_port()
    program = [sys.executable, *(part.format(folder=folder, port=port) for part in command)]
    log = place / f"{port}.log"
    with (
        log.open("wb") as told,
        subprocess.Popen(program, cwd=place, stdout=told, stderr=subprocess.STDOUT) as server,
    ):
        try:
            yield _awaited(server, f"http://localhost:{port}", log)
        finally:
            server.terminate()


def _awaited(server: subprocess.Popen[bytes], base: str, log: Path) -> str:
    end = time.monotonic() + 60
    with httpx2.Client(verify=False) as client:  # one for all tries: making one takes a server's time away
        while True:
            try:
                client.get(base)
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
    found = {folder.name for folder in EXAMPLES.iterdir() if any(folder.glob("*.py"))}
    assert found == COMMANDS.keys() | WITH_FORMS_OF_THEIR_OWN | {"sharing"}


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


def test_a_login_in_one_framework_counts_in_another(tmp_path: Path) -> None:
    """Row 59: three applications, one host and one store: Flask logs in, FastAPI reads and writes, Django logs out."""
    folder = EXAMPLES / "sharing"
    flask = ["-m", "flask", "--app", "{folder}/shop.py", "run", "--port", "{port}"]
    django = ["{folder}/account.py", "runserver", "--noreload", "{port}"]
    with (
        served(flask, folder, tmp_path) as shop,
        served([*UVICORN[:-3], "api:app", *UVICORN[-2:]], folder, tmp_path) as api,
        served(django, folder, tmp_path) as account,
        browser(shop) as one,
    ):
        item = f"{api}/items/hat"
        assert one.post(item).status_code == 401
        assert one.post("/login").text == "alice has []"
        token = one.cookies["coat-insecure"]
        assert one.post(item).json() == ["hat"]
        assert one.get("/").text == one.get(account).text == "alice has ['hat']"
        assert one.post(f"{account}/logout", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert one.cookies["coat-insecure"] == token, "who reads and writes elsewhere keeps the cookie"
        assert one.post(f"{account}/logout").text == "nobody has []"
        one.cookies.set("coat-insecure", token, domain="localhost.local")
        assert one.get("/").text == one.get(account).text == "nobody has []"
        assert one.post(item).status_code == 401
        assert one.post("/login").text == "alice has []"
        assert one.post("/logout").text == one.get(account).text == "nobody has []"
