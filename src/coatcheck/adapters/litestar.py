"""Sessions for Litestar: a plugin that stands before its router, a guard, and `session_of(request)`, typed.

Litestar runs an application's middleware only for routes that it found; the plugin wraps `app.asgi_handler` when the
application starts, so that a 404 and a 405 pass through us, too, and stays inside of Litestar's CORS headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack, cast

from litestar import Litestar, Request, Response, WebSocket
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, WebSocketException
from litestar.handlers import ASGIRouteHandler, BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.middleware.session import SessionMiddleware as LitestarsMiddleware
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import InitPluginProtocol
from litestar.security.session_auth.middleware import MiddlewareWrapper
from litestar.types import ASGIApp, Empty
from litestar.types import Scope as LitestarsScope

from ..core import typed
from ..core.errors import DataError, Refusal
from ..core.manager import SessionManager
from ..core.session import Session
from ..core.settings import Keywords, carrying
from .asgi import ENDED_CODE, Message, Receive, Scope, Send, SessionMiddleware, exchange_of, logged_in, session_of

if TYPE_CHECKING:
    from ..flow.async_keys import AsyncKeys
    from ..flow.async_store import AsyncStore

__all__ = [
    "SECURITY",
    "CoatcheckPlugin",
    "exchange_of",
    "provide_session",
    "refusal_response",
    "require_login",
    "session_of",
]

SECURITY: dict[str, list[str]] = {"session": []}
"""What a route that needs a login says to OpenAPI: `@get("/me", security=[SECURITY])`."""
OWN_KEYS = frozenset({"_messages"})
"""The key of Litestar's flash messages, which moves into a login, whatever `carry` says."""


class CoatcheckPlugin(InitPluginProtocol):
    """Gives every request of a Litestar application its session: `Litestar(..., plugins=[CoatcheckPlugin(...)])`.

    It begins with the application's lifespan, so a test client is used in a `with` block.
    """

    def __init__(
        self,
        *,
        store: str | AsyncStore | Any | None = None,
        manager: SessionManager | None = None,
        watch_every: float = 0.5,
        watch_recheck: float = 30.0,
        keys: AsyncKeys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Take what `SessionMiddleware` takes.

        Where the application has Litestar's own `csrf_config`, ours only reports unless `csrf` says otherwise.
        """
        self._build: Callable[[dict[str, Any]], SessionMiddleware] = lambda more: SessionMiddleware(
            _unserved,
            store=store,
            manager=manager,
            watch_every=watch_every,
            watch_recheck=watch_recheck,
            keys=keys,
            **cast("Any", settings if manager is not None else carrying({**more, **settings}, OWN_KEYS)),
        )

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Build the middleware, and put in place what an application needs of us."""
        middleware = self._build({} if app_config.csrf_config is None else {"csrf": "report"})

        def start(app: Litestar) -> None:
            _stand_before_router(app, middleware)

        app_config.middleware.append(DefineMiddleware(_SessionsAreHere))
        app_config.on_startup.append(start)
        app_config.on_shutdown.append(middleware.shut)
        app_config.exception_handlers.setdefault(Refusal, refusal_response)
        if app_config.openapi_config is not None:
            scheme = SecurityScheme(type="apiKey", name=middleware.name, security_scheme_in="cookie")
            ours = Components(security_schemes={"session": scheme})
            theirs = app_config.openapi_config.components
            components = [*(theirs if isinstance(theirs, list) else [theirs]), ours]
            app_config.openapi_config = copy(app_config.openapi_config)
            app_config.openapi_config.components = components
        return app_config


async def provide_session(scope: LitestarsScope) -> Session:
    """Inject the session, into sockets, too: `Litestar(..., dependencies={"session": provide_session})`."""
    return session_of(scope)


def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Any]:
    """Return a guard that answers 401 (or sends a browser to the login page) unless somebody is logged in.

    A websocket is closed with 4401 before it is accepted; its client sees 403.
    `within`: an authentication not older than that (seconds); `level`: at least that `Level`; `fresh`: of a session
    that was read from the store itself, not from a near copy.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        try:
            await logged_in(connection, within=within, level=level, fresh=fresh)
        except Refusal as refusal:
            if isinstance(connection, WebSocket):
                raise WebSocketException(detail=refusal.reason, code=ENDED_CODE) from refusal
            if refusal.reply.status != 401:
                raise
            raise NotAuthorizedException(detail=refusal.reason, headers=_headers(refusal)) from refusal

    return guard


def refusal_response(_request: Request[Any, Any, Any], refusal: Refusal) -> Response[bytes]:
    """Answer a Refusal; the plugin registers it, unless the application has a handler of its own for it."""
    headers = _headers(refusal)
    kind = headers.pop("content-type", "text/plain; charset=utf-8")
    return Response(refusal.reply.body, status_code=refusal.reply.status, headers=headers, media_type=kind)


def _headers(refusal: Refusal) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in refusal.reply.headers}


def _stand_before_router(app: Litestar, middleware: SessionMiddleware) -> None:
    """Put the middleware around what answers; a lifespan may begin more than once."""
    if middleware.app is not _unserved:
        return
    layer: Any = app.asgi_handler
    while layer is not None and getattr(layer, "config", None) is not app.cors_config:
        layer = getattr(layer, "app", None)  # telemetry stands around CORS
    if app.cors_config is None or layer is None:
        middleware.app = _reading_back(app.asgi_handler)
        app.asgi_handler = cast("Any", middleware)
    else:
        middleware.app = _reading_back(layer.app)
        layer.app = cast("Any", middleware)


class _SessionsAreHere(LitestarsMiddleware):  # type: ignore[type-arg]
    """Says to plugins that look for Litestar's own middleware (FlashPlugin) that there are sessions; adds nothing."""

    def __new__(cls, app: ASGIApp) -> ASGIApp:  # type: ignore[misc]
        """Return the application itself: ours stands before the router."""
        return app


def _reading_back(app: Any) -> Any:
    """Wrap an application so that `request.set_session` and `clear_session` reach the session before it is settled."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        session = session_of(scope)
        faults: list[DataError] = []

        async def reading_send(message: Message) -> None:
            if not session.settled:
                _read_back(scope, session)
            try:
                await send(message)
            except DataError as error:
                faults.append(error)
                raise

        try:
            await app(scope, receive, reading_send)
        except Exception as error:
            if faults:  # Litestar hides what went wrong at the start of a response
                raise faults[0] from error
            raise
        finally:
            _read_back(scope, session)

    async def unless_excluded(scope: Scope, receive: Receive, send: Send) -> None:
        await (serve if "coatcheck" in scope else app)(scope, receive, send)

    return unless_excluded


def _read_back(scope: Scope, session: Session) -> None:
    found = scope.get("session")
    if found is session or _is_of_another(scope.get("route_handler")):
        return
    scope["session"] = session
    if found is Empty or found is None:
        session.logout()
    else:
        session.replace(found if isinstance(found, Mapping) else typed.from_type(found))


def _is_of_another(handler: BaseRouteHandler | None) -> bool:
    """Tell whether other session middleware stands before a handler: what it leaves in the scope is its own."""
    if handler is None or isinstance(handler, ASGIRouteHandler):
        return handler is not None
    middlewares = (one.middleware if isinstance(one, DefineMiddleware) else one for one in handler.resolve_middleware())
    return any(
        isinstance(one, type) and issubclass(one, LitestarsMiddleware | MiddlewareWrapper)
        for one in middlewares
        if one is not _SessionsAreHere
    )


async def _unserved(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand for the application until it starts."""
