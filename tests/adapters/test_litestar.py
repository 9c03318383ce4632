"""What is Litestar's own: its guard, its session acts, its CORS and CSRF, its OpenAPI document, its test client."""

from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar, Request, get, post
from litestar.config.cors import CORSConfig
from litestar.config.csrf import CSRFConfig
from litestar.testing import TestClient

from coatcheck import MemoryStore, Registry
from coatcheck.adapters.litestar import SECURITY, CoatcheckPlugin, require_login, session_of
from coatcheck.testing import sign_in

HTTPS = "https://testserver"
OURS = {"Sec-Fetch-Site": "same-origin"}
AnyRequest = Request[Any, Any, Any]


@get("/me", guards=[require_login(within=timedelta(minutes=10))], security=[SECURITY])
async def me(request: AnyRequest) -> str:
    return str(session_of(request).subject)


@get("/sure", guards=[require_login(level=20)])
async def sure() -> str:
    return "sure"


@get("/data", sync_to_thread=True)
def data(request: AnyRequest) -> dict[str, Any]:
    assert session_of(request) is request.session
    return session_of(request).copy()


@post("/login", status_code=200)
async def login(request: AnyRequest) -> str:
    session_of(request).login("alice")
    return "in"


@post("/set", status_code=200)
async def put(request: AnyRequest) -> None:
    request.set_session({"other": 2})


@post("/clear", status_code=200)
async def clear(request: AnyRequest) -> None:
    request.clear_session()


@get("/refused")
async def refused(request: AnyRequest) -> str:
    return session_of(request).require_login()


def client_of(store: Any, how: dict[str, Any] | None = None, **more: Any) -> TestClient[Litestar]:
    pages = [me, sure, data, login, put, clear, refused]
    app = Litestar(pages, plugins=[CoatcheckPlugin(store=store, **(how or {}))], **more)
    return TestClient(app, base_url=HTTPS)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_a_guard_answers_litestars_own_401(store: MemoryStore) -> None:
    with client_of(store) as client:
        answer = client.get("/me")
        assert (answer.status_code, answer.json()["detail"]) == (401, "login_required")
        assert answer.headers["www-authenticate"].startswith("Session ")
        assert client.get("/refused").status_code == 401
        client.post("/login", headers=OURS)
        assert client.get("/me").text == "alice"
        assert client.get("/sure").json()["detail"] == "reauth_required"


def test_a_browser_is_sent_to_the_login_page(store: MemoryStore) -> None:
    with client_of(store, {"login_url": "/login"}) as client:
        answer = client.get("/me", headers={"accept": "text/html"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/me")


def test_litestars_own_acts_reach_the_session(store: MemoryStore) -> None:
    with client_of(store) as client:
        client.cookies.set(*sign_in(store, "alice", data={"k": 1}))
        assert client.get("/data").json() == {"k": 1}
        client.post("/set", headers=OURS)
        assert client.get("/data").json() == {"other": 2}
        assert client.get("/me").text == "alice"
        client.post("/clear", headers=OURS)
        assert Registry(store).find("alice").items == ()
        assert client.get("/me").status_code == 401


@pytest.mark.parametrize("path", ["/login", "/nowhere", "/me"])
def test_a_cross_site_post_is_refused_with_cors_headers_wherever_it_goes(store: MemoryStore, path: str) -> None:
    cors = CORSConfig(allow_origins=["https://spa.example"], allow_credentials=True)
    with client_of(store, cors_config=cors) as client:
        answer = client.post(path, headers={"Origin": "https://spa.example", "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403
        assert answer.headers["access-control-allow-origin"] == "https://spa.example"


def test_litestars_own_csrf_decides_where_it_is_on(store: MemoryStore) -> None:
    csrf = CSRFConfig(secret="s" * 32, exclude=["/clear"])
    cross = {"Origin": "https://spa.example", "Sec-Fetch-Site": "cross-site"}
    with client_of(store, csrf_config=csrf) as client:
        assert client.post("/clear", headers=cross).status_code == 200
        assert client.post("/login", headers=cross).status_code == 403
    with client_of(store, {"csrf": "refuse"}, csrf_config=csrf) as client:
        assert client.post("/clear", headers=cross).status_code == 403


def test_the_openapi_document_has_the_live_name(store: MemoryStore) -> None:
    for how, name in (({}, "__Host-coat"), ({"allow_insecure_http": True}, "coat-insecure")):
        document = client_of(store, how).app.openapi_schema.to_schema()
        assert document["components"]["securitySchemes"]["session"]["name"] == name
        assert document["paths"]["/me"]["get"]["security"] == [{"session": []}]


def test_an_application_may_start_more_than_once() -> None:
    client = client_of("memory://")
    for _ in range(2):
        with client:
            assert client.post("/login", headers=OURS).status_code == 200
            assert client.get("/me").text == "alice"
