"""What is FastAPI's own: injection, dependencies that require a login or clean up, routers, background tasks."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from coatcheck import MemoryStore, Registry, Session, SessionManager, near
from coatcheck.adapters.fastapi import CurrentSession, RequireLogin, SessionMiddleware, exchange_of, session_of
from coatcheck.testing import Clock, sign_in

HTTPS = "https://testserver"
OURS = {"Sec-Fetch-Site": "same-origin"}
late: list[str] = []
BEHIND = tuple(int(part) for part in fastapi.__version__.split(".")[:2]) >= (0, 118)
"""Whether a dependency cleans up behind the response; FastAPI up to 0.117 had it done before."""


def cleaned_up(session: CurrentSession) -> Iterator[Session]:
    """Give the session, and write when the response is on its way (F6)."""
    yield session
    session["cleanup"] = "kept"
    if not session.settled:
        return
    try:
        session.login("mallory")
    except Exception as error:  # noqa: BLE001 - its name is what the test looks at
        late.append(type(error).__name__)


def exchange_of_request(request: Request) -> Any:
    """Stand for a dependency of an application's own."""
    return exchange_of(request)


def application(store: Any, **how: Any) -> FastAPI:
    """Return an application that uses everything of the adapter."""
    app = FastAPI()
    app.add_middleware(SessionMiddleware, store=store, **how)
    router = APIRouter(prefix="/r")

    @app.post("/login")
    def login(session: CurrentSession, user: str = "alice") -> str:
        session.login(user)
        return "in"

    @app.get("/me")
    async def me(session: Annotated[Session, Depends(RequireLogin(within=timedelta(minutes=10)))]) -> str | None:
        return session.subject

    @app.get("/sure")
    async def sure(session: Annotated[Session, Depends(RequireLogin(level=20))]) -> str | None:
        return session.subject

    @app.get("/fresh")
    async def fresh(session: Annotated[Session, Depends(RequireLogin(fresh=True))]) -> str | None:
        return session.subject

    @router.get("/data")
    def data(session: CurrentSession) -> dict[str, Any]:
        return session.copy()

    @app.get("/cleanup")
    def cleanup(session: Annotated[Session, Depends(cleaned_up)]) -> str:
        return str(session.subject)

    @app.get("/teapot")
    def teapot(session: CurrentSession) -> None:
        session.login("alice")
        raise HTTPException(418)

    @app.get("/wrong")
    def wrong(session: CurrentSession) -> None:
        session.logout()
        raise ZeroDivisionError

    @app.get("/tasks")
    def tasks(session: CurrentSession, background: BackgroundTasks) -> str:
        background.add_task(session.update, task="kept")
        return "soon"

    @app.get("/stream")
    def stream(session: CurrentSession) -> StreamingResponse:
        def chunks() -> Iterator[str]:
            yield "a"
            session["streamed"] = "kept"
            yield "b"

        return StreamingResponse(chunks())

    @app.get("/count")
    async def count(session: CurrentSession, exchange: Annotated[Any, Depends(exchange_of_request)]) -> int:
        number: int = await exchange.bump(session, "n")
        return number

    @app.websocket("/ws")
    async def chat(websocket: WebSocket, session: CurrentSession) -> None:
        assert session is session_of(websocket)
        await websocket.accept()
        await websocket.send_text(str(session.subject))
        await websocket.close()

    @app.websocket("/strict")
    async def strict(websocket: WebSocket, session: Annotated[Session, Depends(RequireLogin())]) -> None:
        await websocket.accept()
        await websocket.send_text(str(session.subject))
        await websocket.close()

    app.include_router(router)
    return app


@pytest.fixture
def store() -> MemoryStore:
    late.clear()
    return MemoryStore()


@pytest.fixture
def client(store: MemoryStore) -> TestClient:
    return TestClient(application(store), base_url=HTTPS, headers=OURS, raise_server_exceptions=False)


def test_a_dependency_reads_what_a_copy_is_not_good_enough_for(store: MemoryStore) -> None:
    copies = near(store, max_stale=60.0)
    client = TestClient(application(copies), base_url=HTTPS, headers=OURS)
    client.post("/login")
    for _ in range(2):
        assert client.get("/fresh").json() == client.get("/me").json() == "alice"
    (record,) = Registry(store).find("alice").items
    copy = copies.glance(record.handle)
    assert copy is not None
    Registry(store).revoke(record.handle)
    copies.copies.came(record.handle, copies.copies.sent(record.handle), copy)  # as if nobody had told us
    assert client.get("/me").status_code == 200
    assert client.get("/fresh").status_code == 401
    assert client.get("/me").status_code == 401


def test_login_and_the_next_page(client: TestClient) -> None:
    assert client.get("/me").status_code == 401
    assert client.post("/login").json() == "in"
    assert client.get("/me").json() == "alice"
    assert client.get("/r/data").json() == {}


def test_who_is_not_logged_in_gets_fastapis_own_401(client: TestClient) -> None:
    answer = client.get("/me")
    assert answer.json() == {"detail": "login_required"}
    assert answer.headers["www-authenticate"].startswith("Session ")
    assert answer.headers["cache-control"] == "no-store"
    assert "Cookie" in answer.headers["vary"]


def test_an_application_can_handle_the_refusal_as_any_http_exception(store: MemoryStore) -> None:
    app = application(store)

    @app.exception_handler(HTTPException)
    async def page(request: Any, error: HTTPException) -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse(f"custom {error.status_code}", error.status_code)

    assert TestClient(app, base_url=HTTPS).get("/me").text == "custom 401"


def test_a_browser_is_sent_to_the_login_page(store: MemoryStore) -> None:
    client = TestClient(application(store, login_url="/login"), base_url=HTTPS, follow_redirects=False)
    answer = client.get("/me", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/me")


def test_a_login_can_be_too_old_or_too_weak() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    manager = SessionManager(clock=clock)
    client = TestClient(application(store, manager=manager), base_url=HTTPS, headers=OURS)
    client.post("/login")
    assert client.get("/sure").json() == {"detail": "reauth_required"}
    clock.wind(601)
    assert client.get("/me").json() == {"detail": "reauth_required"}


def test_a_dependency_that_cleans_up_may_write_but_not_log_in(client: TestClient, store: MemoryStore) -> None:
    client.cookies.set(*sign_in(store, "alice"))
    assert client.get("/cleanup").json() == "alice"
    assert client.get("/r/data").json() == {"cleanup": "kept"}
    assert late == (["SettledError"] if BEHIND else [])
    assert client.get("/me").json() == "alice"


def test_an_http_exception_after_a_login_carries_the_cookie(client: TestClient) -> None:
    assert client.get("/teapot").status_code == 418
    assert client.get("/me").json() == "alice"


def test_a_logout_counts_although_the_handler_raises(client: TestClient, store: MemoryStore) -> None:
    client.cookies.set(*sign_in(store, "alice"))
    assert client.get("/wrong").status_code == 500
    assert client.get("/me").status_code == 401


@pytest.mark.parametrize(("page", "key"), [("/tasks", "task"), ("/stream", "streamed")])
def test_what_runs_behind_the_response_is_kept(client: TestClient, store: MemoryStore, page: str, key: str) -> None:
    client.cookies.set(*sign_in(store, "alice"))
    client.get(page)
    assert client.get("/r/data").json() == {key: "kept"}


def test_the_exchange_commits_at_once(client: TestClient, store: MemoryStore) -> None:
    client.cookies.set(*sign_in(store, "alice"))
    assert [client.get("/count").json() for _ in range(3)] == [1, 2, 3]


def test_a_socket_gets_its_session_by_injection(client: TestClient, store: MemoryStore) -> None:
    client.cookies.set(*sign_in(store, "alice"))
    for path in ("/ws", "/strict"):
        with client.websocket_connect(path, headers={"origin": HTTPS}) as socket:
            assert socket.receive_text() == "alice"


def test_a_socket_that_requires_a_login_is_denied(client: TestClient) -> None:
    from starlette.testclient import WebSocketDenialResponse

    with pytest.raises(WebSocketDenialResponse) as denied:
        client.websocket_connect("/strict", headers={"origin": HTTPS}).__enter__()
    assert denied.value.status_code == 401


def test_a_session_without_the_middleware_says_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/")
    def page(session: CurrentSession) -> str:
        return str(session.subject)

    from coatcheck import ConfigError

    with pytest.raises(ConfigError, match="is SessionMiddleware installed"):
        TestClient(app, base_url=HTTPS).get("/")


def schemes(app: FastAPI) -> Any:
    return app.openapi()["components"]["securitySchemes"]


def test_the_openapi_document_names_the_cookie(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-coat",
            "description": "A session, begun by a login.",
        }
    }
    assert document["paths"]["/me"]["get"]["security"] == [{"session": []}]
    assert "security" not in document["paths"]["/r/data"]["get"], "anonymous is fine there"


def test_the_openapi_document_names_the_cookie_of_this_application() -> None:
    first = application(MemoryStore(), name="__Host-shop")
    second = application(MemoryStore(), allow_insecure_http=True)
    for app, base in ((first, HTTPS), (second, "http://localhost")):
        TestClient(app, base_url=base).get("/r/data")
    for _ in range(2):
        assert schemes(first)["session"]["name"] == "__Host-shop"
        assert schemes(second)["session"]["name"] == "coat-insecure"
    assert schemes(application(MemoryStore()))["session"]["name"] == "__Host-coat", "also before the first request"


def test_an_application_without_such_routes_has_no_scheme() -> None:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, store=MemoryStore())
    assert "components" not in TestClient(app, base_url=HTTPS).get("/openapi.json").json()


def test_a_revoked_session_is_out_at_the_next_request(client: TestClient, store: MemoryStore) -> None:
    client.cookies.set(*sign_in(store, "alice"))
    assert client.get("/me").status_code == 200
    Registry(store).revoke_all("alice")
    assert client.get("/me").status_code == 401
