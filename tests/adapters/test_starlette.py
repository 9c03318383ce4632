"""What is Starlette's own: other middleware around and inside, mounts, files, error handlers, its test client."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware as TheirSessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck import MemoryStore, Refusal, Registry, SessionManager
from coatcheck.adapters.starlette import SessionBackend, SessionMiddleware, exchange_of, refusal_response, session_of
from coatcheck.core.model import Query, Record
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock, sign_in
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import AsgiDriver

HTTPS = "https://testserver"
OURS = {"Sec-Fetch-Site": "same-origin"}


async def login(request: Request) -> Response:
    session_of(request).login("alice")
    return RedirectResponse("/me", 303)


async def me(request: Request) -> Response:
    return PlainTextResponse(str(session_of(request).subject))


async def private(request: Request) -> Response:
    return PlainTextResponse(session_of(request).require_login())


async def write(request: Request) -> Response:
    session_of(request)["k"] = "v"
    return PlainTextResponse("written")


async def data(request: Request) -> Response:
    return PlainTextResponse(repr(session_of(request).copy()))


PAGES = [
    Route("/login", login, methods=["POST"]),
    Route("/me", me),
    Route("/private", private),
    Route("/write", write, methods=["GET", "POST"]),
    Route("/data", data),
]


def app_of(
    *routes: Any, store: Any, outside: tuple[Any, ...] = (), inside: tuple[Any, ...] = (), **more: Any
) -> Starlette:
    """Return an application with our middleware between what stands outside and inside of it."""
    ours = Middleware(SessionMiddleware, store=store, **more)
    return Starlette(routes=[*PAGES, *routes], middleware=[*outside, ours, *inside])


def records(store: Any) -> list[Record]:
    return list(store.find(Query(live=False)).items)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Inner(BaseHTTPMiddleware):
    """A middleware of the application's own, in Starlette's simple style."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        session_of(request)["seen by"] = "middleware"
        response: Response = await call_next(request)
        response.headers["x-subject"] = str(session_of(request).subject)
        return response


CORS = Middleware(CORSMiddleware, allow_origins=["https://spa.example"], allow_credentials=True, allow_methods=["*"])
SPA = {"Origin": "https://spa.example", "Sec-Fetch-Site": "cross-site"}


# -- the test client ---------------------------------------------------------------------------------------------------


def test_the_documented_test_client_works(store: MemoryStore) -> None:
    client = TestClient(app_of(store=store), base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice", data={"cart": [7]}))
    assert client.get("/me").text == "alice"
    assert client.get("/data").text == "{'cart': [7]}"


def test_the_test_client_logs_in_by_a_form(store: MemoryStore) -> None:
    client = TestClient(app_of(store=store), base_url=HTTPS, headers=OURS)
    assert client.post("/login").text == "alice"


def test_a_test_client_on_plain_http_is_told_once_why_it_has_no_session(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(app_of(store=store))
    for _ in range(3):
        client.get("/write")
    assert client.get("/data").text == "{}"
    told = [record for record in caplog.records if "Secure cookie over http" in record.getMessage()]
    assert len(told) == 1
    assert "base_url='https://testserver'" in told[0].getMessage()


def test_nobody_is_warned_behind_a_proxy_that_ends_tls(caplog: pytest.LogCaptureFixture, store: MemoryStore) -> None:
    app = app_of(store=store, origins=["https://shop.example"])
    TestClient(app, base_url="http://shop.example").get("/write")
    assert "Secure cookie over http" not in caplog.text


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_test_client_without_with_has_a_new_loop_for_every_request(kind: str, tmp_path: Path) -> None:
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "sessions.db")
    client = TestClient(app_of(store=store), base_url=HTTPS, headers=OURS)
    assert [client.get(page).status_code for page in ("/write", "/data", "/write", "/data")] == [200] * 4
    assert client.post("/login").status_code == 200
    assert client.get("/me").text == "alice"
    store.close()


# the same application in three tests, each with a loop of its own (pytest-asyncio makes one for each)
MODULE_APP = app_of(store="memory://")


@pytest.mark.parametrize("number", range(3))
async def test_a_module_level_application_serves_many_loops(number: int) -> None:
    import httpx2

    transport = httpx2.ASGITransport(MODULE_APP)
    async with httpx2.AsyncClient(transport=transport, base_url=HTTPS, headers=OURS) as client:
        assert (await client.post("/login")).status_code == 303
        assert (await client.get("/me")).text == "alice"


def test_fresh_loops_and_threads_agree_on_sqlite(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.db")
    driver = AsgiDriver(app_of(store=store), fresh_loops=True)
    browser = Browser(driver)
    browser.get("/write")
    flights = [browser.start("GET", "/write") for _ in range(12)]
    assert {one.wait().status for one in flights} == {200}
    driver.close()
    store.close()


# -- other middleware --------------------------------------------------------------------------------------------------


def test_a_refusal_carries_cors_headers_when_cors_stands_outside(store: MemoryStore) -> None:
    client = TestClient(app_of(store=store, outside=(CORS,)), base_url=HTTPS)
    answer = client.post("/login", headers=SPA)
    assert answer.status_code == 403
    assert answer.headers["access-control-allow-origin"] == "https://spa.example"
    assert "Origin" in answer.headers["vary"]


def test_a_503_carries_cors_headers_when_cors_stands_outside() -> None:
    from coatcheck.testing import FlakyStore

    store = FlakyStore(MemoryStore())
    client = TestClient(app_of(store=store, outside=(CORS,)), base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice"))
    store.trouble.fail("load")
    answer = client.get("/me", headers={**SPA, "Sec-Fetch-Site": "same-site"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, "https://spa.example")


def test_a_trusted_site_logs_in_over_cors(store: MemoryStore) -> None:
    app = app_of(store=store, outside=(CORS,), trusted_origins=["https://spa.example"])
    client = TestClient(app, base_url=HTTPS)
    answer = client.post("/login", headers=SPA, follow_redirects=False)
    assert (answer.status_code, "set-cookie" in answer.headers) == (303, True)
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("outside", Middleware(GZipMiddleware, minimum_size=1)),
        ("inside", Middleware(GZipMiddleware, minimum_size=1)),
        ("inside", Middleware(Inner)),
    ],
    ids=["GZip outside", "GZip inside", "BaseHTTPMiddleware inside"],
)
def test_the_order_of_middleware_changes_nothing(store: MemoryStore, place: str, other: Middleware) -> None:
    app = app_of(store=store, **{place: (other,)})
    client = TestClient(app, base_url=HTTPS, headers=OURS)
    answer = client.post("/login", follow_redirects=False)
    assert len(answer.headers.get_list("set-cookie")) == 1
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/me").text == "alice"
    client.get("/write")
    assert "'k': 'v'" in client.get("/data").text


def test_a_middleware_inside_shares_the_session(store: MemoryStore) -> None:
    client = TestClient(app_of(store=store, inside=(Middleware(Inner),)), base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice"))
    answer = client.get("/data")
    assert answer.headers["x-subject"] == "alice"
    assert answer.text == "{'seen by': 'middleware'}"


def test_a_login_that_an_inner_middleware_cuts_short_still_logs_in(store: MemoryStore) -> None:
    class Cut(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            session_of(request).login("alice")
            return PlainTextResponse("cut", 202)

    client = TestClient(app_of(store=store, inside=(Middleware(Cut),)), base_url=HTTPS)
    assert client.post("/nowhere", headers=OURS).status_code == 202
    assert records(store)[0].subject == "alice"


# -- mounts, and other sessions (F14) ----------------------------------------------------------------------------------


def test_a_mounted_application_with_the_same_middleware_joins_the_session(store: MemoryStore) -> None:
    inner = app_of(store=MemoryStore())
    client = TestClient(app_of(Mount("/inner", inner), store=store), base_url=HTTPS, headers=OURS)
    answer = client.post("/inner/login", follow_redirects=False)
    assert len(answer.headers.get_list("set-cookie")) == 1
    assert client.get("/me").text == "alice"
    assert client.get("/inner/me").text == "alice"


def test_a_mounted_application_with_another_cookie_has_its_own_session(store: MemoryStore) -> None:
    staff = MemoryStore()

    async def both(request: Request) -> Response:
        session_of(request)["outer"] = 1
        return PlainTextResponse("")

    inner = app_of(store=staff, name="__Host-staff")
    client = TestClient(app_of(Mount("/staff", inner), Route("/both", both), store=store), base_url=HTTPS, headers=OURS)
    client.post("/staff/login", follow_redirects=False)
    assert client.get("/staff/me").text == "alice"
    assert client.get("/me").text == "None"
    client.get("/both")
    assert client.get("/data").text == "{'outer': 1}"
    assert client.get("/staff/data").text == "{}"
    assert set(client.cookies) == {"__Host-staff", "__Host-coat"}


def test_both_sessions_of_a_request_are_settled_and_the_outer_one_comes_back(store: MemoryStore) -> None:
    class Outer:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            session = session_of(scope)
            session["before"] = 1
            await self.app(scope, receive, send)
            assert session_of(scope) is session
            assert scope["session"] is session

    staff = MemoryStore()
    inner = app_of(store=staff, name="__Host-staff")
    app = app_of(Mount("/staff", inner), store=store, inside=(Middleware(Outer),))
    client = TestClient(app, base_url=HTTPS, headers=OURS)
    answer = client.post("/staff/login", follow_redirects=False)
    assert len(answer.headers.get_list("set-cookie")) == 2
    assert [one.subject for one in records(staff)] == ["alice"]
    assert [one.subject for one in records(store)] == [None]


def test_starlettes_own_sessions_mounted_inside_leave_ours_alone(store: MemoryStore) -> None:
    async def theirs(request: Request) -> Response:
        request.session["theirs"] = 1
        assert session_of(request) is not request.session
        session_of(request)["ours"] = 1
        return PlainTextResponse("")

    admin = Starlette(routes=[Route("/", theirs)], middleware=[Middleware(TheirSessionMiddleware, secret_key="x" * 32)])
    client = TestClient(app_of(Mount("/admin", admin), store=store), base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice"))
    assert client.get("/admin/").status_code == 200
    assert client.get("/data").text == "{'ours': 1}"
    assert client.get("/me").text == "alice"


# -- responses ---------------------------------------------------------------------------------------------------------


def test_files_ranges_and_etags_pass_and_a_renewal_waits(store: MemoryStore, tmp_path: Path) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    (tmp_path / "file.txt").write_text("0123456789")

    async def file(request: Request) -> Response:
        return FileResponse(tmp_path / "file.txt")

    manager = SessionManager(clock=clock)
    app = Starlette(
        routes=[*PAGES, Route("/file", file)],
        middleware=[Middleware(SessionMiddleware, store=store, manager=manager)],
    )
    client = TestClient(app, base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice", manager=manager))
    whole = client.get("/file")
    assert (whole.text, "vary" in whole.headers, "set-cookie" in whole.headers) == ("0123456789", False, False)
    clock.wind(16 * 60)
    part = client.get("/file", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.text, "set-cookie" in part.headers) == (206, "234", False)
    assert "set-cookie" in client.get("/me").headers


def test_a_cache_inside_that_keeps_what_it_sent_keeps_no_cookie(store: MemoryStore) -> None:
    kept: list[Any] = []

    class Cache:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def keeping(message: Any) -> None:
                kept.append(message)
                await send(message)

            await self.app(scope, receive, keeping)

    client = TestClient(app_of(store=store, inside=(Middleware(Cache),)), base_url=HTTPS, headers=OURS)
    assert "set-cookie" in client.post("/login", follow_redirects=False).headers
    assert "__Host-coat" not in repr(kept)


def test_a_background_task_writes_and_a_late_login_raises(store: MemoryStore) -> None:
    def work(request: Request) -> None:
        session_of(request)["late"] = "kept"

    def too_late(request: Request) -> None:
        session_of(request).login("mallory")

    async def soon(request: Request) -> Response:
        task = BackgroundTask(too_late if "login" in request.query_params else work, request)
        return PlainTextResponse("soon", background=task)

    client = TestClient(app_of(Route("/soon", soon), store=store), base_url=HTTPS, raise_server_exceptions=False)
    client.cookies.set(*sign_in(store, "alice"))
    client.get("/soon")
    client.get("/soon?login=1")
    assert client.get("/data").text == "{'late': 'kept'}"
    assert client.get("/me").text == "alice"


def test_an_http_exception_after_a_login_carries_the_cookie(store: MemoryStore) -> None:
    async def teapot(request: Request) -> Response:
        session_of(request).login("alice")
        raise HTTPException(418)

    client = TestClient(app_of(Route("/teapot", teapot), store=store), base_url=HTTPS)
    assert client.get("/teapot").status_code == 418
    assert client.get("/me").text == "alice"


def test_an_error_that_a_handler_turns_into_a_page_keeps_what_the_page_writes(store: MemoryStore) -> None:
    class WrongError(Exception):
        pass

    async def wrong(request: Request) -> Response:
        session_of(request)["before"] = 1
        raise WrongError

    async def page(request: Request, error: Exception) -> Response:
        session_of(request)["flash"] = "wrong"
        return PlainTextResponse("wrong", 422)

    app = app_of(Route("/wrong", wrong), store=store)
    app.add_exception_handler(WrongError, page)
    client = TestClient(app, base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice"))
    assert client.get("/wrong").status_code == 422
    assert client.get("/data").text == "{'before': 1, 'flash': 'wrong'}"


@pytest.mark.parametrize("debug", [False, True])
def test_the_debug_page_shows_no_token(store: MemoryStore, debug: bool) -> None:
    async def wrong(request: Request) -> Response:
        session = session_of(request)
        exchange = exchange_of(request)
        session.renew()
        raise ZeroDivisionError(session, exchange, session.visit)

    app = app_of(Route("/wrong", wrong), store=store)
    app.debug = debug
    client = TestClient(app, base_url=HTTPS, raise_server_exceptions=False)
    name, value = sign_in(store, "alice")
    client.cookies.set(name, value)
    answer = client.get("/wrong", headers={"accept": "text/html"})
    assert answer.status_code == 500
    assert [part for part in value.split(".")[2:] if part in answer.text] == []


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("inside", [(), (Middleware(Inner),)], ids=["bare", "below a BaseHTTPMiddleware"])
def test_a_refusal_is_answered_with_and_without_a_handler(store: MemoryStore, registered: bool, inside: Any) -> None:
    app = app_of(store=store, inside=inside, outside=(CORS,), login_url="/login")
    if registered:
        app.add_exception_handler(Refusal, refusal_response)
    client = TestClient(app, base_url=HTTPS, follow_redirects=False)
    answer = client.get("/private", headers={**SPA, "accept": "application/json"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Session ")
    assert answer.headers["access-control-allow-origin"] == "https://spa.example"
    page = client.get("/private", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/private")


def test_a_synchronous_handler_has_the_same_session(store: MemoryStore) -> None:
    threads: list[bool] = []

    def plain(request: Request) -> Response:
        threads.append(threading.current_thread() is threading.main_thread())
        session_of(request).login("alice")
        session_of(request)["sync"] = 1
        return PlainTextResponse("")

    client = TestClient(app_of(Route("/plain", plain, methods=["POST"]), store=store), base_url=HTTPS, headers=OURS)
    client.post("/plain")
    assert threads == [False]
    assert client.get("/data").text == "{'sync': 1}"
    assert client.get("/me").text == "alice"


def test_request_session_is_the_session(store: MemoryStore) -> None:
    async def same(request: Request) -> Response:
        assert request.session is session_of(request)
        request.session["k"] = 1
        return PlainTextResponse("")

    client = TestClient(app_of(Route("/same", same), store=store), base_url=HTTPS)
    client.get("/same")
    assert client.get("/data").text == "{'k': 1}"


# -- sockets and streams -----------------------------------------------------------------------------------------------


async def chat(websocket: WebSocket) -> None:
    session = session_of(websocket)
    if session.subject is None:
        await websocket.send_denial_response(PlainTextResponse("who?", 401))
        return
    await websocket.accept()
    try:
        while True:
            session["said"] = await websocket.receive_text()
            await exchange_of(websocket).save(session)
            await websocket.send_text(str(session.subject))
    except WebSocketDisconnect:
        pass


def test_a_socket_of_the_test_client_is_accepted_saves_and_closes_on_revocation(store: MemoryStore) -> None:
    app = app_of(WebSocketRoute("/ws", chat), store=store, watch_every=0.05)
    client = TestClient(app, base_url=HTTPS)
    client.cookies.set(*sign_in(store, "alice"))
    with client.websocket_connect("/ws", headers={"origin": HTTPS}) as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "alice"
        assert client.get("/data").text == "{'said': 'hello'}"
        Registry(store).revoke_all("alice")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 4401


def test_what_an_application_accepts_a_socket_with_stays_as_it_was(store: MemoryStore) -> None:
    accepting = {"type": "websocket.accept", "headers": []}

    async def first(websocket: WebSocket) -> None:
        assert session_of(websocket).subject is None
        await websocket.send(accepting)
        await websocket.close()

    client = TestClient(app_of(WebSocketRoute("/ws", first), store=store), base_url=HTTPS)
    with client.websocket_connect("/ws", headers={"origin": HTTPS}) as socket:
        assert socket.extra_headers == [(b"vary", b"Cookie")]
    assert accepting == {"type": "websocket.accept", "headers": []}


def test_a_socket_of_nobody_is_denied_by_the_application_and_of_a_stranger_by_us(store: MemoryStore) -> None:
    client = TestClient(app_of(WebSocketRoute("/ws", chat), store=store), base_url=HTTPS)
    with pytest.raises(WebSocketDisconnect) as nobody, client.websocket_connect("/ws", headers={"origin": HTTPS}):
        pass
    assert nobody.value.status_code == 401  # type: ignore[attr-defined]
    client.cookies.set(*sign_in(store, "alice"))
    with pytest.raises(WebSocketDisconnect) as foreign:
        client.websocket_connect("/ws", headers={"origin": "https://evil.example"}).__enter__()
    assert foreign.value.status_code == 403  # type: ignore[attr-defined]


def test_a_socket_that_requires_a_login_is_refused_before_it_is_accepted(store: MemoryStore) -> None:
    async def strict(websocket: WebSocket) -> None:
        session_of(websocket).require_login()
        await websocket.accept()

    client = TestClient(app_of(WebSocketRoute("/ws", strict), store=store), base_url=HTTPS)
    with pytest.raises(WebSocketDisconnect) as refused:
        client.websocket_connect("/ws", headers={"origin": HTTPS}).__enter__()
    assert refused.value.status_code == 401  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec_version", ["2.3", "2.5"])
def test_a_stream_that_never_speaks_again_ends_for_the_client_all_the_same(
    store: MemoryStore, spec_version: str
) -> None:
    stuck = asyncio.Event

    async def events(request: Request) -> Response:
        async def chunks() -> Any:
            yield "data: 1\n\n"
            await stuck().wait()

        return StreamingResponse(chunks(), media_type="text/event-stream")

    driver = AsgiDriver(app_of(Route("/sse", events), store=store, watch_every=0.05), spec_version=spec_version)
    browser = Browser(driver)
    browser.jar.update([sign_in(store, "alice")])
    flight = browser.start("GET", "/sse")
    assert flight.pending.chunk() == b"data: 1\n\n"
    Registry(store).revoke_all("alice")
    assert flight.pending.chunk(timeout=1.0) is None
    driver.close()


def test_two_applications_with_two_stores_know_nothing_of_each_other() -> None:
    one, two = MemoryStore(), MemoryStore()
    first = TestClient(app_of(store=one), base_url=HTTPS)
    second = TestClient(app_of(store=two), base_url=HTTPS)
    cookie = sign_in(one, "alice")
    first.cookies.set(*cookie)
    second.cookies.set(*cookie)
    assert (first.get("/me").text, second.get("/me").text) == ("alice", "None")


def test_the_store_that_a_url_opened_is_closed_with_the_application(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    app = app_of(store=f"sqlite:///{tmp_path / 'sessions.db'}")
    for _ in range(2):
        with TestClient(app, base_url=HTTPS, headers=OURS) as client:
            client.post("/login")
            assert client.get("/me").text == "alice"
    assert caplog.records == []


# Starlette's own authentication.


@requires("authenticated")
async def for_anybody(request: Request) -> Response:
    return PlainTextResponse(f"{request.user.display_name} {request.user.is_authenticated}")


@requires(["authenticated", "admin"], status_code=404)
async def for_admins(request: Request) -> Response:
    return PlainTextResponse(request.user.identity)


async def for_all(request: Request) -> Response:
    return PlainTextResponse("anybody")


async def asks(request: Request) -> Response:
    return PlainTextResponse(f"{request.user.is_authenticated} {request.user.identity!r} {request.auth.scopes}")


def authenticating(store: MemoryStore) -> TestClient:
    backend = SessionBackend(scopes=lambda session: ["admin"] if session.subject == "root" else [])
    app = Starlette(
        routes=[
            Route("/login", login, methods=["POST"]),
            *(Route(f"/{page.__name__}", page) for page in (for_anybody, for_admins, for_all, asks)),
        ],
        middleware=[
            Middleware(SessionMiddleware, store=store),
            Middleware(AuthenticationMiddleware, backend=backend),
        ],
    )
    return TestClient(app, base_url=HTTPS, headers=OURS)


def test_starlettes_own_authentication_asks_the_session() -> None:
    client = authenticating(store := MemoryStore())
    assert client.get("/for_anybody").status_code == 403
    assert client.get("/asks").text == "False '' []"
    assert client.post("/login", follow_redirects=False).status_code == 303
    assert client.get("/for_anybody").text == "alice True"
    assert client.get("/for_admins").status_code == 404
    client.cookies.clear()
    client.cookies.set(*sign_in(store, "root"))
    assert client.get("/for_admins").text == "root"
    Registry(store).revoke_all("root")
    assert client.get("/for_anybody").status_code == 403


def test_a_page_that_asks_for_nobody_does_not_vary() -> None:
    client = authenticating(store := MemoryStore())
    client.cookies.set(*sign_in(store, "alice"))
    assert "vary" not in client.get("/for_all").headers
    assert client.get("/asks").headers["vary"] == "Cookie"
