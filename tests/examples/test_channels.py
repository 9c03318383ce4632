"""The example for Channels as its users meet it: under daphne and under uvicorn, two browsers, and their sockets."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from .test_django import browser, posted
from .test_examples import served

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "channels"
COOKIE = "session-insecure"
DAPHNE = "import sys; from daphne.cli import CommandLineInterface; sys.path.insert(0, '{folder}'); "
SERVERS = {
    "daphne": ["-c", DAPHNE + "CommandLineInterface().run(['-p', '{port}', 'app:application'])"],
    "uvicorn": ["-m", "uvicorn", "--app-dir", "{folder}", "app:application", "--port", "{port}"],
}
MADE = """
import app
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
User.objects.create_user("alice", password="wonderland")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the database, with one user, and return where it lies."""
    place = tmp_path_factory.mktemp("chat")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-c", MADE]
    subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True, timeout=60)
    return place


@pytest.fixture(params=SERVERS)
def base(request: pytest.FixtureRequest, place: Path) -> Iterator[str]:
    with served(SERVERS[request.param], FOLDER, place) as base:
        yield base


def line(base: str, token: str | None, origin: str | None = None) -> Any:
    """Open the chat as a page of an origin does, of our own if none is named."""
    headers = {} if token is None else {"Cookie": f"{COOKIE}={token}"}
    address = base.replace("http", "ws") + "/chat"
    return connect(address, additional_headers=headers, origin=origin or base, open_timeout=20)  # type: ignore[arg-type]


def test_two_browsers_chat_until_one_logs_out(base: str) -> None:
    with browser(base) as here, browser(base) as there:
        for one in (here, there):
            posted(one, "/login/", username="alice", password="wonderland")
        with pytest.raises(InvalidStatus):
            line(base, None)
        with pytest.raises(InvalidStatus):
            line(base, here.cookies[COOKIE], "https://evil.example")
        with line(base, here.cookies[COOKIE]) as mine, line(base, there.cookies[COOKIE]) as theirs:
            for number in (1, 2):
                mine.send(json.dumps({"text": "hello"}))
                for end in (mine, theirs):
                    assert json.loads(end.recv(20)) == {"text": f"alice ({number}): hello"}
            posted(here, "/", to="/logout/")
            with pytest.raises(ConnectionClosed) as over:
                mine.recv(20)
            assert over.value.rcvd is not None
            assert over.value.rcvd.code == 4401
            theirs.send(json.dumps({"text": "still here"}))
            assert json.loads(theirs.recv(20))["text"] == "alice (1): still here"
        with pytest.raises(InvalidStatus):
            line(base, here.cookies.get(COOKIE, "none"))
