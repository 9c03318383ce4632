"""Sessions for Litestar: a plugin that stands before its router, a guard, and `session_of(request)`, typed.

Litestar runs an application's middleware only for routes that it found; the plugin wraps `app.asgi_handler` when the
application starts, so that a 404 and a 405 pass through us, too, and stays inside of Litestar's CORS headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack, cast

from litestar import Litestar, Request, Response
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import InitPluginProtocol
from litestar.types import Empty

from ..core import typed
from ..core.errors import DataError, Refusal
from ..core.manager import SessionManager
from ..core.session import Session
from ..core.settings import Keywords
from .asgi import Message, Receive, Scope, Send, SessionMiddleware, exchange_of, session_of

if TYPE_CHECKING:
    from litestar.handlers import BaseRouteHandler

    from ..flow.async_ import AsyncStore
    from ..flow.async_keys import AsyncKeys

__all__ = ["SECURITY", "CoatcheckPlugin", "exchange_of", "refusal_response", "require_login", "session_of"]

SECURITY: dict[str, list[str]] = {"session": []}
"""What a route that needs a login says to OpenAPI: `@get("/me", security=[SECURITY])`."""


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
            **cast("Any", {**({} if manager is not None else more), **settings}),
        )

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Build the middleware, and put in place what an application needs of us."""
        middleware = self._build({} if app_config.csrf_config is None else {"csrf": "report"})

        def start(app: Litestar) -> None:
            _stand_before_router(app, middleware)

        app_config.on_startup.insert(0, start)
        app_config.on_shutdown.append(middleware.shut)
        app_config.exception_handlers.setdefault(Refusal, refusal_response)
        if app_config.openapi_config is not None:
            scheme = SecurityScheme(type="apiKey", name=middleware.name, security_scheme_in="cookie")
            ours = Components(security_schemes={"session": scheme})
            theirs = app_config.openapi_config.components
            components = [*(theirs if isinstance(theirs, list) else [theirs]), ours]
            app_config.openapi_config = replace(app_config.openapi_config, components=components)
        return app_config


def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Any]:
    """Return a guard that answers 401 (or sends a browser to the login page) unless somebody is logged in.

    `within`: an authentication not older than that (seconds); `level`: at least that `Level`; `fresh`: of a session
    that was read from the store itself, not from a near copy.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        session = session_of(connection)
        try:
            if fresh:
                await exchange_of(connection).confirm(session)
            session.require_login(within=within, level=level)
        except Refusal as refusal:
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
    handler: Any = app.asgi_handler
    if app.cors_config is not None and hasattr(handler, "app"):
        middleware.app = _reading_back(handler.app)
        handler.app = cast("Any", middleware)
    else:
        middleware.app = _reading_back(handler)
        app.asgi_handler = cast("Any", middleware)


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
    if found is session:
        return
    scope["session"] = session
    if found is Empty or found is None:
        session.logout()
    else:
        session.replace(found if isinstance(found, Mapping) else typed.from_type(found))


async def _unserved(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand for the application until it starts."""
