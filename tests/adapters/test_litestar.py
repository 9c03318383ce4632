"""What is Litestar's own: its guards, injection, session acts, mounts, flashes, events, sockets, hooks and handlers."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar import Controller, Litestar, Request, Response, Router, WebSocket, asgi, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.config.cors import CORSConfig
from litestar.config.csrf import CSRFConfig
from litestar.connection import ASGIConnection
from litestar.contrib.jinja import JinjaTemplateEngine
from litestar.exceptions import ClientException, NotAuthorizedException, WebSocketDisconnect
from litestar.handlers import websocket_listener
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult, DefineMiddleware
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins.flash import FlashConfig, FlashPlugin, flash
from litestar.response import Redirect, ServerSentEvent, Stream, Template
from litestar.security.session_auth import SessionAuth
from litestar.template.config import TemplateConfig
from litestar.testing import AsyncTestClient, TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from coatcheck import MemoryStore, Refusal, Registry, Session, SessionManager, near
from coatcheck.adapters.litestar import (
    SECURITY,
    CoatcheckPlugin,
    exchange_of,
    provide_session,
    require_login,
    session_of,
)
from coatcheck.adapters.starlette import SessionMiddleware
from coatcheck.testing import Clock, FlakyStore, sign_in
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import AsgiDriver, until

HTTPS = "https://testserver.local"
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


OPENAPI = OpenAPIConfig(title="shop", version="1", components=[Components(security_schemes={})])
PAGES = (me, sure, data, login, put, clear, refused)


def app_of(*pages: Any, store: Any, how: dict[str, Any] | None = None, plugins: Any = (), **more: Any) -> Litestar:
    """Return an application with our plugin, which `how` is for."""
    more.setdefault("openapi_config", None)
    plugin = CoatcheckPlugin(store=store, **(how or {}))
    return Litestar([*PAGES, *pages], plugins=[plugin, *plugins], logging_config=None, **more)


def client_of(store: Any, how: dict[str, Any] | None = None, *pages: Any, **more: Any) -> TestClient[Litestar]:
    return TestClient(app_of(*pages, store=store, how=how, **more), base_url=HTTPS)


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
        document = client_of(store, how, openapi_config=OPENAPI).app.openapi_schema.to_schema()
        assert document["components"]["securitySchemes"]["session"]["name"] == name
        assert document["paths"]["/me"]["get"]["security"] == [{"session": []}]


@pytest.mark.parametrize("listed", [False, True])
def test_the_openapi_document_keeps_what_an_application_says_itself(store: MemoryStore, listed: bool) -> None:
    key = Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")})
    config = OpenAPIConfig(title="shop", version="1", components=[key] if listed else key)
    document = client_of(store, openapi_config=config).app.openapi_schema.to_schema()
    assert set(document["components"]["securitySchemes"]) == {"key", "session"}
    assert config.components == ([key] if listed else key), "one configuration may serve two applications"


def test_an_application_may_start_more_than_once() -> None:
    client = client_of("memory://")
    for _ in range(2):
        with client:
            assert client.post("/login", headers=OURS).status_code == 200
            assert client.get("/me").text == "alice"


# -- guards ------------------------------------------------------------------------------------------------------------


def test_a_login_can_be_too_old() -> None:
    clock = Clock()
    manager = SessionManager(clock=clock)
    with client_of(MemoryStore(clock=clock), {"manager": manager}) as client:
        client.post("/login", headers=OURS)
        clock.wind(601)
        assert client.get("/me").json()["detail"] == "reauth_required"


def test_a_guard_reads_what_a_copy_is_not_good_enough_for(store: MemoryStore) -> None:
    @get("/fresh", guards=[require_login(fresh=True)])
    async def fresh() -> str:
        return "fresh"

    copies = near(store, max_stale=60.0)
    with client_of(copies, None, fresh) as client:
        client.post("/login", headers=OURS)
        for _ in range(2):
            assert (client.get("/fresh").text, client.get("/me").text) == ("fresh", "alice")
        (record,) = Registry(store).find("alice").items
        copy = copies.glance(record.handle)
        assert copy is not None
        Registry(store).revoke(record.handle)
        copies.copies.came(record.handle, copies.copies.sent(record.handle), copy)  # as if nobody had told us
        assert client.get("/me").status_code == 200
        assert client.get("/fresh").status_code == 401
        assert client.get("/me").status_code == 401


def test_a_guard_of_a_router_and_of_a_controller_guards_what_is_below(store: MemoryStore) -> None:
    @get("/page")
    async def page(request: AnyRequest) -> str:
        session_of(request)["seen"] = request.url.path
        return str(request.session.get("seen"))

    class Account(Controller):
        path = "/account"
        guards = [require_login()]  # noqa: RUF012 - Litestar's way

        @get()
        async def show(self, request: AnyRequest) -> str:
            return str(session_of(request).subject)

    staff = Router("/staff", route_handlers=[page], guards=[require_login()])
    with client_of(store, None, staff, Account) as client:
        assert [client.get(path).status_code for path in ("/staff/page", "/account")] == [401, 401]
        client.cookies.set(*sign_in(store, "alice"))
        assert (client.get("/staff/page").text, client.get("/account").text) == ("/staff/page", "alice")
        assert client.get("/data").json() == {"seen": "/staff/page"}


def test_an_application_handles_litestars_own_exception_and_a_refusal(store: MemoryStore) -> None:
    def own(_request: AnyRequest, error: Exception) -> Response[str]:
        return Response(type(error).__name__, status_code=418)

    handlers: Any = {NotAuthorizedException: own, Refusal: own}
    with client_of(store, exception_handlers=handlers) as client:
        assert (client.get("/me").text, client.get("/refused").text) == ("NotAuthorizedException", "Refusal")


def test_a_refusal_of_a_handler_sends_a_browser_to_the_login_page(store: MemoryStore) -> None:
    with client_of(store, {"login_url": "/login"}) as client:
        answer = client.get("/refused", headers={"accept": "text/html"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/refused")
        answer = client.get("/refused")
        assert answer.headers.get_list("content-type") == ["application/json"]
        assert answer.headers["cache-control"] == "no-store"


def test_an_authentication_middleware_of_the_application_asks_the_session(store: MemoryStore) -> None:
    class Users(AbstractAuthenticationMiddleware):
        async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
            return AuthenticationResult(user=session_of(connection).subject, auth=None)

    @get("/user")
    async def user(request: AnyRequest) -> str:
        return f"user {request.user}"

    with client_of(store, None, user, middleware=[DefineMiddleware(Users)]) as client:
        assert client.get("/user").text == "user None"
        client.cookies.set(*sign_in(store, "alice"))
        assert client.get("/user").text == "user alice"


# -- injection ---------------------------------------------------------------------------------------------------------


def test_the_session_is_injected_into_every_kind_of_handler(store: MemoryStore) -> None:
    threads: list[bool] = []

    @get("/async")
    async def asynchronous(session: Session, request: AnyRequest) -> str:
        assert session is session_of(request)
        session["async"] = 1
        return str(session.subject)

    @get("/sync", sync_to_thread=True)
    def synchronous(session: Session, request: AnyRequest) -> str:
        threads.append(threading.current_thread() is threading.main_thread())
        assert session is session_of(request)
        session["sync"] = 1
        return str(session.subject)

    @websocket("/ws")
    async def socket(socket: WebSocket[Any, Any, Any], session: Session) -> None:
        assert session is session_of(socket)
        await socket.accept()
        await socket.send_text(str(session.subject))
        await socket.close()

    pages = (asynchronous, synchronous, socket)
    with client_of(store, None, *pages, dependencies={"session": provide_session}) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert (client.get("/async").text, client.get("/sync").text) == ("alice", "alice")
        assert threads == [False]
        assert client.get("/data").json() == {"async": 1, "sync": 1}
        with client.websocket_connect("/ws", headers={"origin": HTTPS}) as open_socket:
            assert open_socket.receive_text() == "alice"


# -- other data in place of ours ---------------------------------------------------------------------------------------


@dataclass
class Cart:
    """Data of the application's own."""

    items: list[str]


def test_set_session_takes_a_value_of_the_applications_own(store: MemoryStore) -> None:
    @post("/cart")
    async def cart(request: AnyRequest) -> None:
        request.set_session(Cart(["hat"]))

    with client_of(store, None, cart) as client:
        client.post("/cart", headers=OURS)
        assert client.get("/data").json() == {"items": ["hat"]}


def test_what_is_written_after_set_session_was_settled_is_kept_beside_it(store: MemoryStore) -> None:
    @post("/both")
    async def both(request: AnyRequest) -> Response[None]:
        request.set_session({"other": 2})
        return Response(None, background=BackgroundTask(session_of(request).update, late=1))

    with client_of(store, None, both) as client:
        client.cookies.set(*sign_in(store, "alice", data={"k": 1}))
        client.post("/both", headers=OURS)
        assert client.get("/data").json() == {"other": 2, "late": 1}


def test_a_session_set_to_nothing_is_ended(store: MemoryStore) -> None:
    @post("/nothing")
    async def nothing(request: AnyRequest) -> None:
        request.scope["session"] = None

    with client_of(store, None, nothing) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert client.post("/nothing", headers=OURS).status_code == 201
        assert Registry(store).find("alice").items == ()


def test_a_session_cleared_behind_the_response_is_ended_all_the_same(store: MemoryStore) -> None:
    @post("/later")
    async def later(request: AnyRequest) -> Response[None]:
        return Response(None, background=BackgroundTask(request.clear_session))

    with client_of(store, None, later) as client:
        client.cookies.set(*sign_in(store, "alice"))
        client.post("/later", headers=OURS)
        assert client.get("/me").status_code == 401


def theirs_of(kind: str) -> Any:
    if kind == "server":
        return ServerSideSessionConfig().middleware
    if kind == "cookie":
        return CookieBackendConfig(secret=b"x" * 32).middleware

    async def user(data: dict[str, Any], _connection: Any) -> Any:
        return data.get("theirs", "nobody")

    auth: SessionAuth[Any, Any] = SessionAuth(
        retrieve_user_handler=user, session_backend_config=ServerSideSessionConfig(), exclude=["/below/count"]
    )
    return auth.middleware


@pytest.mark.parametrize("kind", ["server", "cookie", "auth"])
def test_litestars_own_sessions_below_ours_leave_ours_alone(store: MemoryStore, kind: str) -> None:
    @get("/count")
    async def count(request: AnyRequest) -> int:
        assert session_of(request) is not request.session
        request.session["theirs"] = request.session.get("theirs", 0) + 1
        session_of(request)["ours"] = 1
        return int(request.session["theirs"])

    @post("/forget", status_code=200)
    async def forget(request: AnyRequest) -> None:
        request.clear_session()

    @get("/ours")
    async def ours(request: AnyRequest) -> dict[str, Any]:
        return {"subject": session_of(request).subject, **session_of(request)}

    pages = [Router("/below", route_handlers=[count, forget]), ours]
    with client_of(store, None, *pages, middleware=[theirs_of(kind)]) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert [client.get("/below/count").json() for _ in range(2)] == [1, 2]
        client.post("/below/forget", headers=OURS)
        assert client.get("/below/count").json() == 1
        assert client.get("/ours").json() == {"subject": "alice", "ours": 1}


def test_another_middleware_on_a_route_hides_no_act_of_litestars(store: MemoryStore) -> None:
    class Passing:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    def function(app: Any) -> Any:
        return app

    others = [Passing, DefineMiddleware(Passing), function]
    with client_of(store, middleware=others) as client:
        client.cookies.set(*sign_in(store, "alice", data={"k": 1}))
        client.post("/set", headers=OURS)
        assert client.get("/data").json() == {"other": 2}


# -- mounts ------------------------------------------------------------------------------------------------------------


def mount_of(app: Any, path: str = "/inner", *, copied: bool = True) -> Any:
    @asgi(path, is_mount=True, copy_scope=copied)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return mounted


async def inner_login(request: Any) -> PlainTextResponse:
    session_of(request).login("bob")
    return PlainTextResponse("in")


async def inner_me(request: Any) -> PlainTextResponse:
    return PlainTextResponse(str(session_of(request).subject))


INNER = [Route("/login/", inner_login, methods=["POST"]), Route("/me/", inner_me)]


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("ours", [False, True], ids=["plain", "with our middleware"])
def test_a_mounted_application_shares_the_session(store: MemoryStore, copied: bool, ours: bool) -> None:
    own = [Middleware(SessionMiddleware, store=MemoryStore())] if ours else []
    mount = mount_of(Starlette(routes=INNER, middleware=own), copied=copied)
    with client_of(store, None, mount) as client:
        answer = client.post("/inner/login", headers=OURS)
        assert len(answer.headers.get_list("set-cookie")) == 1
        assert (client.get("/inner/me").text, client.get("/me").text) == ("bob", "bob")


@pytest.mark.parametrize("copied", [False, True])
def test_starlettes_own_sessions_mounted_below_leave_ours_alone(store: MemoryStore, copied: bool) -> None:
    async def theirs(request: Any) -> PlainTextResponse:
        request.session["theirs"] = 1
        session_of(request)["ours"] = 1
        return PlainTextResponse("")

    inner = Starlette(routes=[Route("/", theirs)], middleware=[Middleware(StarlettesMiddleware, secret_key="x" * 32)])
    with client_of(store, None, mount_of(inner, copied=copied)) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert client.get("/inner/").status_code == 200
        assert client.get("/data").json() == {"ours": 1}
        assert client.get("/me").text == "alice"


# -- streams, sockets, and what runs behind a response -----------------------------------------------------------------


def test_server_sent_events_end_with_their_session(store: MemoryStore) -> None:
    @get("/sse")
    async def sse(request: AnyRequest) -> ServerSentEvent:
        session = session_of(request)

        async def events() -> AsyncIterator[str]:
            yield str(session.subject)
            await asyncio.Event().wait()

        return ServerSentEvent(events())

    app = app_of(sse, store=store, how={"watch_every": 0.05, "watch_recheck": 0.05})

    async def start() -> None:
        async with app.lifespan():
            pass

    asyncio.run(start())
    driver = AsgiDriver(app)
    browser = Browser(driver)
    browser.jar.update([sign_in(store, "alice")])
    flight = browser.start("GET", "/sse")
    assert b"data: alice" in (flight.pending.chunk() or b"")
    Registry(store).revoke_all("alice")
    assert flight.pending.chunk(timeout=1.0) is None
    driver.close()


@websocket("/chat")
async def chat(socket: WebSocket[Any, Any, Any]) -> None:
    session = session_of(socket)
    await socket.accept()
    try:
        while True:
            session["said"] = await socket.receive_text()
            await exchange_of(socket).save(session)
            await socket.send_text(str(session.subject))
    except WebSocketDisconnect:
        pass


def test_a_socket_saves_and_closes_on_revocation(store: MemoryStore) -> None:
    with client_of(store, {"watch_every": 0.05, "watch_recheck": 0.05}, chat) as client:
        client.cookies.set(*sign_in(store, "alice"))
        with client.websocket_connect("/chat", headers={"origin": HTTPS}) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "alice"
            assert client.get("/data").json() == {"said": "hello"}
            Registry(store).revoke_all("alice")
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text(timeout=2)
            assert closed.value.code == 4401


def test_a_listener_has_its_session_injected_and_writes_when_it_leaves(store: MemoryStore) -> None:
    @websocket_listener("/listen")
    async def listen(data: str, session: Session) -> str:
        session["said"] = data
        return f"{session.subject}: {data}"

    with client_of(store, None, listen, dependencies={"session": provide_session}) as client:
        client.cookies.set(*sign_in(store, "alice"))
        with client.websocket_connect("/listen", headers={"origin": HTTPS}) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "alice: hello"
        until(lambda: client.get("/data").json() == {"said": "hello"})


def test_a_guarded_socket_is_closed_before_it_is_accepted(store: MemoryStore) -> None:
    @websocket("/strict", guards=[require_login()])
    async def strict(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text("in")
        await socket.close()

    with client_of(store, {"login_url": "/login"}, strict) as client:
        with pytest.raises(WebSocketDisconnect) as nobody:
            client.websocket_connect("/strict", headers={"origin": HTTPS}).__enter__()
        assert (nobody.value.code, nobody.value.detail) == (4401, "login_required")
        client.cookies.set(*sign_in(store, "alice"))
        with client.websocket_connect("/strict", headers={"origin": HTTPS}) as socket:
            assert socket.receive_text() == "in"
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/strict", headers={"origin": "https://evil.example"}).__enter__()


def test_what_runs_behind_the_response_writes_but_does_not_log_in(store: MemoryStore) -> None:
    late: list[str] = []

    def work(session: Session) -> None:
        session["task"] = "kept"
        try:
            session.login("mallory")
        except Exception as error:  # noqa: BLE001 - its name is what the test looks at
            late.append(type(error).__name__)

    @get("/task")
    async def task(request: AnyRequest) -> Response[str]:
        return Response("soon", background=BackgroundTask(work, session_of(request)))

    @get("/stream")
    async def stream(request: AnyRequest) -> Stream:
        session = session_of(request)

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            session["streamed"] = "kept"
            yield "b"

        return Stream(chunks())

    async def after(request: AnyRequest) -> None:
        session_of(request)["hook"] = "kept"

    @get("/hooked", after_response=after)
    async def hooked() -> str:
        return "hooked"

    with client_of(store, None, task, stream, hooked) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert [client.get(path).text for path in ("/task", "/stream", "/hooked")] == ["soon", "ab", "hooked"]
        assert late == ["SettledError"]
        assert client.get("/data").json() == {"task": "kept", "streamed": "kept", "hook": "kept"}
        assert client.get("/me").text == "alice"


def test_hooks_around_a_handler_share_its_session(store: MemoryStore) -> None:
    async def before(request: AnyRequest) -> None:
        session_of(request)["before"] = 1

    async def sending(message: Any, scope: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(any(name == b"set-cookie" for name, _ in message["headers"]))

    sent: list[bool] = []
    with client_of(store, before_request=before, before_send=[sending]) as client:
        assert client.get("/data").json() == {"before": 1}
        assert sent[0], "a hook that looks at what is sent sees the cookie"


def test_a_cached_page_keeps_no_cookie(store: MemoryStore) -> None:
    @get("/cached", cache=60)
    async def cached(request: AnyRequest) -> str:
        session_of(request)["k"] = 1
        return "cached"

    with client_of(store, None, cached) as client:
        assert "set-cookie" in client.get("/cached").headers
        client.cookies.clear()
        again = client.get("/cached")
        assert (again.text, "set-cookie" in again.headers) == ("cached", False)


# -- errors ------------------------------------------------------------------------------------------------------------


class WrongError(Exception):
    """Something of the application's own."""


def test_an_error_that_a_handler_turns_into_a_page_keeps_what_the_page_writes(store: MemoryStore) -> None:
    def page(request: AnyRequest, _error: WrongError) -> Response[str]:
        session_of(request)["flash"] = "wrong"
        return Response("wrong", status_code=422)

    @get("/wrong")
    async def wrong(request: AnyRequest) -> None:
        session_of(request)["before"] = 1
        raise WrongError

    handlers: Any = {WrongError: page}
    with client_of(store, None, wrong, exception_handlers=handlers) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert client.get("/wrong").status_code == 422
        assert client.get("/data").json() == {"before": 1, "flash": "wrong"}


def test_an_exception_after_a_login_carries_the_cookie_and_a_logout_counts(store: MemoryStore) -> None:
    @post("/teapot")
    async def teapot(request: AnyRequest) -> None:
        session_of(request).login("alice")
        raise ClientException(status_code=418)

    @post("/broken")
    async def broken(request: AnyRequest) -> None:
        session_of(request).logout()
        raise WrongError

    with client_of(store, None, teapot, broken) as client:
        assert client.post("/teapot", headers=OURS).status_code == 418
        assert client.get("/me").text == "alice"
        assert client.post("/broken", headers=OURS).status_code == 500
        assert Registry(store).find("alice").items == ()


def test_what_cannot_be_stored_is_told_by_its_own_name(store: MemoryStore) -> None:
    @get("/odd")
    async def odd(request: AnyRequest) -> str:
        session_of(request)["odd"] = object()
        return "odd"

    from coatcheck import DataError

    with client_of(store, None, odd) as client, pytest.raises(DataError, match="'odd'"):
        client.get("/odd")


@pytest.mark.parametrize("debug", [False, True])
def test_the_debug_page_shows_no_token(store: MemoryStore, debug: bool) -> None:
    @get("/wrong")
    async def wrong(request: AnyRequest) -> None:
        session = session_of(request)
        session.renew()
        raise ZeroDivisionError(session, exchange_of(request), session.visit)

    with client_of(store, None, wrong, debug=debug) as client:
        name, value = sign_in(store, "alice")
        client.cookies.set(name, value)
        answer = client.get("/wrong", headers={"accept": "text/html"})
        assert answer.status_code == 500
        assert [part for part in value.split(".")[2:] if part in answer.text] == []


def test_a_store_that_fails_is_a_503_with_cors_headers() -> None:
    store = FlakyStore(MemoryStore())
    cors = CORSConfig(allow_origins=["https://spa.example"])
    with client_of(store, cors_config=cors) as client:
        client.cookies.set(*sign_in(store, "alice"))
        store.trouble.fail("load")
        answer = client.get("/data", headers={"Origin": "https://spa.example", "Sec-Fetch-Site": "same-site"})
        assert answer.status_code == 503
        assert answer.headers["access-control-allow-origin"] == "https://spa.example"


def test_telemetry_around_cors_changes_nothing(store: MemoryStore) -> None:
    class Telemetry:
        """Stands as Litestar's OpenTelemetry does: it has an `app`, and serves another."""

        def __init__(self, app: Any) -> None:
            self.app = self.real = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.real(scope, receive, send)

    for cors in (CORSConfig(allow_origins=["https://spa.example"]), None):
        app = app_of(store=store, cors_config=cors)
        app.asgi_handler = Telemetry(app.asgi_handler)
        with TestClient(app, base_url=HTTPS) as client:
            assert client.get("/data").json() == {}
            answer = client.post("/login", headers={"Origin": "https://spa.example", "Sec-Fetch-Site": "cross-site"})
            assert answer.status_code == 403
            assert ("access-control-allow-origin" in answer.headers) == (cors is not None)


# -- paths without a session, and clients ------------------------------------------------------------------------------


def test_an_excluded_path_needs_no_store_and_has_no_session() -> None:
    @get("/health")
    async def health(request: AnyRequest) -> str:
        return str("session" in request.scope)

    @get("/health/session")
    async def asks(request: AnyRequest) -> str:
        return str(session_of(request).subject)

    store = FlakyStore(MemoryStore())
    with client_of(store, {"exclude": ["/health"]}, health, asks, debug=True) as client:
        client.cookies.set(*sign_in(store, "alice"))
        store.trouble.fail("load")
        assert client.get("/health").text == "False"
        answer = client.get("/health/session")
        assert (answer.status_code, "one of exclude=" in answer.text) == (500, True)


def test_a_client_that_starts_no_lifespan_is_told_so(store: MemoryStore) -> None:
    client = client_of(store, debug=True)
    answer = client.get("/data")
    assert (answer.status_code, "use a test client in a `with` block" in answer.text) == (500, True)


async def test_the_asynchronous_client_works_too(store: MemoryStore) -> None:
    async with AsyncTestClient(app_of(store=store), base_url=HTTPS) as client:
        client.cookies.set(*sign_in(store, "alice"))
        assert (await client.get("/me")).text == "alice"


def test_two_applications_with_two_stores_know_nothing_of_each_other() -> None:
    one, two = MemoryStore(), MemoryStore()
    with client_of(one) as first, client_of(two) as second:
        cookie = sign_in(one, "alice")
        first.cookies.set(*cookie)
        second.cookies.set(*cookie)
        assert (first.get("/me").status_code, second.get("/me").status_code) == (200, 401)


# -- flashes -----------------------------------------------------------------------------------------------------------


@get("/shown")
async def shown() -> Template:
    return Template(template_str="{% for one in get_flashes() %}{{ one.category }}: {{ one.message }};{% endfor %}")


@post("/saved")
async def saved(request: AnyRequest) -> Redirect:
    flash(request, "saved", "info")
    return Redirect("/shown", status_code=303)


@post("/in")
async def welcomed(request: AnyRequest) -> Redirect:
    session = session_of(request)
    session["forgotten"] = 1
    flash(request, "welcome", "info")
    session.login("alice")
    return Redirect("/shown", status_code=303)


@pytest.mark.parametrize("how", [{}, {"carry": ["cart"]}, {"carry": {"cart": bool}}], ids=["nothing", "list", "dict"])
def test_litestars_flashes_are_shown_once_over_a_redirect_and_a_login(store: MemoryStore, how: dict[str, Any]) -> None:
    templates = TemplateConfig(directory=".", engine=JinjaTemplateEngine)
    flashes = FlashPlugin(FlashConfig(templates))
    with client_of(store, how, shown, saved, welcomed, plugins=[flashes], template_config=templates) as client:
        assert client.post("/saved", headers=OURS).text == "info: saved;"
        assert client.get("/shown").text == ""
        client.post("/saved", headers=OURS, follow_redirects=False)
        assert client.post("/in", headers=OURS).text == "info: saved;info: welcome;"
        assert client.get("/me").text == "alice"
        assert client.get("/data").json() == {}


def test_the_store_that_a_url_opened_is_closed_with_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut, count = SessionMiddleware.shut, []

    async def counted(middleware: SessionMiddleware) -> None:
        count.append(1)
        await shut(middleware)

    monkeypatch.setattr(SessionMiddleware, "shut", counted)
    client = client_of(f"sqlite:///{tmp_path / 'sessions.db'}")
    for times in (1, 2):
        with client:
            assert client.post("/login", headers=OURS).status_code == 200
            assert client.get("/me").text == "alice"
        assert len(count) == times
