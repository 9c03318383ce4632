"""Row 8 for Starlette: its own AuthenticationMiddleware learns from the session who is there."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from coatcheck import MemoryStore, Registry
from coatcheck.adapters.starlette import SessionBackend, SessionMiddleware, session_of
from coatcheck.testing import sign_in

HTTPS = "https://testserver"


@requires("authenticated")
async def me(request: Request) -> Response:
    return PlainTextResponse(f"{request.user.display_name} {' '.join(request.auth.scopes)}")


@requires("admin", status_code=404)
async def admin(request: Request) -> Response:
    return PlainTextResponse("admin")


async def login(request: Request) -> Response:
    session_of(request).login("alice")
    return PlainTextResponse("in")


def client_of(store: Any, backend: SessionBackend) -> TestClient:
    app = Starlette(
        routes=[Route("/me", me), Route("/admin", admin), Route("/login", login, methods=["POST"])],
        middleware=[
            Middleware(SessionMiddleware, store=store),
            Middleware(AuthenticationMiddleware, backend=backend),
        ],
    )
    return TestClient(app, base_url=HTTPS, headers={"Sec-Fetch-Site": "same-origin"})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_requires_lets_in_who_is_logged_in(store: MemoryStore) -> None:
    client = client_of(store, SessionBackend())
    assert client.get("/me").status_code == 403
    client.post("/login")
    assert client.get("/me").text == "alice authenticated"
    assert client.get("/admin").status_code == 404
    (record,) = Registry(store).find("alice").items
    Registry(store).revoke(record.handle)
    assert client.get("/me").status_code == 403


def test_scopes_and_user_come_from_the_session(store: MemoryStore) -> None:
    backend = SessionBackend(scopes=lambda session: session["roles"], user=lambda session: SimpleUser("A. Smith"))
    client = client_of(store, backend)
    client.cookies.set(*sign_in(store, "alice", data={"roles": ["admin"]}))
    assert client.get("/me").text == "A. Smith authenticated admin"
    assert client.get("/admin").text == "admin"


def test_a_page_that_asks_who_is_there_varies_by_cookie(store: MemoryStore) -> None:
    assert "Cookie" in client_of(store, SessionBackend()).get("/me").headers["vary"]
