"""A visitor of the Cloakroom without a browser: keeps cookies, reads forms, presses their buttons."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from httpx2 import Response
from starlette.applications import Starlette
from starlette.testclient import TestClient

from coatcheck import MemoryStore
from coatcheck.demo.accounts import Accounts
from coatcheck.demo.app import make_app

PASSWORD = "three blue coats"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def cloakroom(folder: Path, clock: Callable[[], float], **settings: Any) -> Starlette:
    store = MemoryStore(clock=clock).as_async()
    accounts = Accounts(folder / "accounts.db", CHEAP, clock)
    return make_app(store, accounts=accounts, hosts=["testserver"], clock=clock, **settings)


class Visitor:
    """One browser's worth of cookies. `see` loads a page, `send` posts the form that the last page held."""

    def __init__(self, app: Starlette, agent: str = FIREFOX) -> None:
        headers = {"accept": "text/html", "sec-fetch-site": "same-origin", "user-agent": agent}
        self.client = TestClient(app, base_url="https://testserver", headers=headers)
        self.page = ""

    def see(self, path: str, **more: Any) -> Response:
        return self._read(self.client.get(path, **more))

    def send(self, path: str, csrf: str | None = None, **fields: str) -> Response:
        token = self.csrf if csrf is None else csrf
        return self._read(self.client.post(path, data={"csrf": token, **fields}))

    def sign_up(self, name: str, password: str = PASSWORD, **more: str) -> Response:
        self.see("/signup")
        return self.send("/signup", name=name, password=password, **more)

    def sign_in(self, name: str, password: str = PASSWORD, **more: str) -> Response:
        self.see("/login")
        return self.send("/login", name=name, password=password, **more)

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.page)
        return found[1] if found else ""

    @property
    def ticket(self) -> str:
        return next(iter(self.client.cookies.values()), "")

    @property
    def handle(self) -> str:
        return self.ticket.split(".")[1] if self.ticket else ""

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", self.page)))

    def _read(self, response: Response) -> Response:
        self.page = response.text
        return response
