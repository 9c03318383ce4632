"""`require_login` in the words of each framework that had no guard: the core decides, and each says the same.

ABU-01, CCH-04; row 31 of docs/adapters.md. The guards of the other frameworks stand in their own tests.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coatcheck import ConfigError, Level, MemoryStore, Registry, SessionManager, near
from coatcheck.adapters import asgi, wsgi
from coatcheck.adapters import starlette as ours
from coatcheck.testing import Clock
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver

from .django_site import ready

ready()

from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils.decorators import method_decorator  # noqa: E402
from django.views import View  # noqa: E402
from pyramid.config import Configurator  # noqa: E402
from pyramid.exceptions import ConfigurationError  # noqa: E402
from pyramid.response import Response as PyramidResponse  # noqa: E402
from pyramid.security import NO_PERMISSION_REQUIRED  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.endpoints import HTTPEndpoint  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.routing import Mount, Route, WebSocketRoute  # noqa: E402
from starlette.websockets import WebSocket  # noqa: E402

from coatcheck.adapters import django as ours_for_django  # noqa: E402
from coatcheck.adapters import pyramid as ours_for_pyramid  # noqa: E402

HTML = {"accept": "text/html"}
HOW: dict[str, dict[str, Any]] = {
    "/any": {},
    "/within": {"within": 600},
    "/level": {"level": Level.AAL2},
    "/fresh": {"fresh": True},
}
"""The guarded pages of each application, and what they ask for."""

Build = Callable[[Any, SessionManager], Any]


# -- the applications --------------------------------------------------------------------------------------------------


def through_asgi(store: Any, manager: SessionManager) -> Any:
    """Guard raw ASGI applications."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        session = asgi.session_of(scope)
        if scope["path"] == "/login":
            session.login("alice")
        elif scope["path"] == "/otp":
            session.stepped_up("otp")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": (session.subject or "").encode()})

    pages = {where: asgi.RequireLogin(served, **how) for where, how in HOW.items()}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await pages.get(scope["path"], served)(scope, receive, send)

    return AsgiDriver(asgi.SessionMiddleware(app, store=store.as_async(), manager=manager))


def through_starlette(store: Any, manager: SessionManager) -> Any:
    """Guard an async and a sync endpoint, a method of a class, a mount, and a websocket."""

    async def login(request: Request) -> PlainTextResponse:
        ours.session_of(request).login("alice")
        return PlainTextResponse("in")

    async def otp(request: Request) -> PlainTextResponse:
        ours.session_of(request).stepped_up("otp")
        return PlainTextResponse("up")

    @ours.require_login
    def any_login(request: Request) -> PlainTextResponse:
        return PlainTextResponse(ours.session_of(request).subject or "")

    @ours.require_login(within=600)
    async def within(request: Request) -> PlainTextResponse:
        return PlainTextResponse(ours.session_of(request).subject or "")

    class Sure(HTTPEndpoint):
        @ours.require_login(level=Level.AAL2)
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse(ours.session_of(request).subject or "")

    @ours.require_login(fresh=True)
    def fresh(request: Request) -> PlainTextResponse:
        return PlainTextResponse(ours.session_of(request).subject or "")

    @ours.require_login(level=Level.AAL2)
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    mounted = Mount("/mounted", routes=[Route("/", any_login)], middleware=[Middleware(ours.RequireLogin, within=600)])
    routes = [
        Route("/login", login, methods=["POST"]),
        Route("/otp", otp, methods=["POST"]),
        *(Route(where, page) for where, page in zip(HOW, (any_login, within, Sure, fresh), strict=True)),
        WebSocketRoute("/chat", chat),
        mounted,
    ]
    middleware = Middleware(ours.SessionMiddleware, store=store.as_async(), manager=manager)
    return AsgiDriver(Starlette(routes=routes, middleware=[middleware]))


def through_wsgi(store: Any, manager: SessionManager) -> Any:
    """Guard raw WSGI applications."""

    def served(environ: Any, start_response: Any) -> list[bytes]:
        session = wsgi.session_of(environ)
        if environ["PATH_INFO"] == "/login":
            session.login("alice")
        elif environ["PATH_INFO"] == "/otp":
            session.stepped_up("otp")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [(session.subject or "").encode()]

    pages = {where: wsgi.RequireLogin(served, **how) for where, how in HOW.items()}

    def app(environ: Any, start_response: Any) -> Any:
        return pages.get(environ["PATH_INFO"], served)(environ, start_response)

    return WsgiDriver(wsgi.SessionMiddleware(app, store=store, manager=manager))


def through_pyramid(store: Any, manager: SessionManager) -> Any:
    """Guard views by their option, before the permission that nobody has."""

    def login(request: Any) -> PyramidResponse:
        ours_for_pyramid.session_of(request).login("alice")
        return PyramidResponse("in")

    def otp(request: Any) -> PyramidResponse:
        ours_for_pyramid.session_of(request).stepped_up("otp")
        return PyramidResponse("up")

    def page(request: Any) -> PyramidResponse:
        return PyramidResponse(ours_for_pyramid.session_of(request).subject)

    with Configurator(settings={"coatcheck.store": store, "coatcheck.manager": manager}) as config:
        config.include("coatcheck.adapters.pyramid")
        for where, view, how in [("/login", login, False), ("/otp", otp, False)] + [
            (where, page, how or True) for where, how in HOW.items()
        ]:
            config.add_route(where, where)
            config.add_view(view, route_name=where, require_login=how, permission=NO_PERMISSION_REQUIRED)
        config.add_route("/secret", "/secret")
        config.add_view(page, route_name="/secret", require_login={"within": 600}, permission="nobody has it")
        return WsgiDriver(config.make_wsgi_app())


def _said(request: HttpRequest) -> HttpResponse:
    return HttpResponse(ours_for_django.session_of(request).subject)


def _log_in(request: HttpRequest) -> HttpResponse:
    ours_for_django.session_of(request).login("alice")
    return HttpResponse("in")


def _prove(request: HttpRequest) -> HttpResponse:
    ours_for_django.session_of(request).stepped_up("otp")
    return HttpResponse("up")


class _Sure(ours_for_django.RequireLoginMixin, View):
    login_level = Level.AAL2

    def get(self, request: HttpRequest) -> HttpResponse:
        return _said(request)


@method_decorator(ours_for_django.require_login(within=600), name="dispatch")
class _Within(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return _said(request)


async def _asaid(request: HttpRequest) -> HttpResponse:
    return _said(request)


class SyncPages:
    """A urlconf of functions and classes."""

    urlpatterns = (
        path("login", _log_in),
        path("otp", _prove),
        path("any", ours_for_django.require_login(_said)),
        path("within", _Within.as_view()),
        path("level", _Sure.as_view()),
        path("fresh", ours_for_django.require_login(fresh=True)(_said)),
    )


class AsyncPages:
    """A urlconf of coroutine functions."""

    urlpatterns = (
        path("login", _log_in),
        path("otp", _prove),
        *(path(where[1:], ours_for_django.require_login(**how)(_asaid)) for where, how in HOW.items()),
    )


def _django(store: Any, manager: SessionManager, pages: Any, handler: Any) -> Any:
    ours_alone = ["coatcheck.adapters.django.SessionMiddleware"]
    with override_settings(COATCHECK={"STORE": store, "MANAGER": manager}, MIDDLEWARE=ours_alone, ROOT_URLCONF=pages):
        made = handler()

    def settled(*given: Any) -> Any:
        return made(*given)

    return settled


def through_django(store: Any, manager: SessionManager) -> Any:
    """Guard sync views: a function, a decorated class, a class with the mixin."""
    handler = _django(store, manager, SyncPages, WSGIHandler)

    def app(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [(name, value.strip()) for name, value in headers], *more)

        with override_settings(ROOT_URLCONF=SyncPages):
            return handler(environ, start)

    return WsgiDriver(app, validate=False)


def through_async_django(store: Any, manager: SessionManager) -> Any:
    """Guard async views."""
    handler = _django(store, manager, AsyncPages, ASGIHandler)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def lower(message: Any) -> None:
            if "headers" in message:
                message["headers"] = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            await send(message)

        with override_settings(ROOT_URLCONF=AsyncPages):
            await handler(scope, receive, lower)

    return AsgiDriver(app)


DOORS = [
    through_asgi,
    through_starlette,
    through_wsgi,
    through_pyramid,
    through_django,
    through_async_django,
]


# -- what each of them says --------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__.removeprefix("through_"))
def enter(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Callable[[Any], Browser]]:
    """Return a function that opens a browser on an application over a store."""
    opened: list[Any] = []

    def enter(store: Any) -> Browser:
        opened.append(request.param(store, SessionManager(clock=clock, login_url="/login")))
        return Browser(opened[-1])

    yield enter
    for driver in opened:
        driver.close()


def test_a_guard_says_what_the_core_decided(enter: Callable[[Any], Browser], store: MemoryStore, clock: Clock) -> None:
    browser = enter(store)
    for where in HOW:
        told = browser.get(where)
        assert (told.status, told.json()) == (401, {"error": "login_required", **_limit(where)})
        assert told.header("www-authenticate") == 'Session realm="__Host-coat", error="login_required"'
        sent = browser.get(where + "?a=1", headers=HTML)
        location = (sent.header("location") or "").removeprefix("https://testserver")
        assert (sent.status, location) == (303, f"/login?next={where}%3Fa%3D1")
    assert browser.post("/login").status == 200
    assert browser.get("/any").text == browser.get("/within").text == browser.get("/fresh").text == "alice"
    assert browser.get("/level").json() == {"error": "reauth_required"}
    clock.wind(601)
    assert browser.get("/within").json() == {"error": "reauth_required", "max_age": 600.0}
    assert browser.get("/any").text == "alice"
    browser.post("/otp")
    assert [browser.get(where).text for where in HOW] == ["alice"] * 4


def test_a_guard_may_want_more_than_a_copy(enter: Callable[[Any], Browser], store: MemoryStore) -> None:
    """The store itself is asked, also where the handler runs on an event loop."""
    copies = near(store, max_stale=60.0)
    browser = enter(copies)
    browser.post("/login")
    assert browser.get("/any").text == browser.get("/fresh").text == "alice"
    (record,) = Registry(store).find("alice").items
    copy = copies.glance(record.handle)
    assert copy is not None
    Registry(store).revoke(record.handle)
    copies.copies.came(record.handle, copies.copies.sent(record.handle), copy)  # as if nobody had told us
    assert browser.get("/any").status == 200
    assert browser.get("/fresh").status == 401


def test_a_mount_and_a_websocket_of_starlette_are_guarded(store: MemoryStore, clock: Clock) -> None:
    driver = through_starlette(store, SessionManager(clock=clock))
    browser = Browser(driver)
    assert browser.get("/mounted/").status == 401
    browser.post("/login")
    assert browser.get("/mounted/").text == "alice"
    denial = browser.connect("/chat").denial
    assert denial is not None
    assert denial.status in (401, 403)
    clock.wind(601)
    assert browser.get("/mounted/").status == 401
    browser.post("/otp")
    socket = browser.connect("/chat")
    assert socket.denial is None
    socket.close()
    driver.close()


def test_a_guard_of_starlette_without_a_request_says_so() -> None:
    async def page() -> None: ...

    with pytest.raises(ConfigError, match="takes the request or the websocket"):
        asyncio.run(ours.require_login(page)())


def test_a_login_goes_before_a_permission_of_pyramid(store: MemoryStore, clock: Clock) -> None:
    """Who is not there is asked to log in; who is there is told that it is forbidden."""
    browser = Browser(through_pyramid(store, SessionManager(clock=clock)))
    assert browser.get("/secret").status == 401
    browser.post("/login")
    assert browser.get("/secret").status == 403
    clock.wind(601)
    assert browser.get("/secret").status == 401


@pytest.mark.parametrize("wrong", [{"witihn": 600}, 600, "yes", None])
def test_an_option_of_pyramid_that_says_nothing_is_refused(store: MemoryStore, wrong: Any) -> None:
    config = Configurator(settings={"coatcheck.store": store})
    config.include("coatcheck.adapters.pyramid")
    config.add_route("x", "/x")
    config.add_view(lambda request: None, route_name="x", require_login=wrong)
    with pytest.raises(ConfigurationError, match="True, or a dict of within, level and fresh"):
        config.commit()


def _limit(where: str) -> dict[str, float]:
    return {"max_age": 600.0} if where == "/within" else {}
