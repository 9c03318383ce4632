"""Sessions for Quart: `Coatcheck(app, store=...)`, and `quart.session` is our Session, in requests and in websockets.

Quart stands on the ASGI middleware, which begins, settles and watches; the session interface only hands its session on.
It has an exchange of its own where there is no server: in a test client's `session_transaction`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

import quart
from quart.sessions import SecureCookieSessionInterface, SessionInterface

from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager
from ..core.model import Reply
from ..core.settings import Keywords
from ..flow.async_ import AsyncExchange
from ..flow.async_registry import AsyncRegistry
from ..flow.async_store import AsyncStore
from .asgi import SessionMiddleware, exchange_of, request_of, session_of
from .flask.mapping import FlaskSession, NoSession
from .flask.settings import configured, managed

if TYPE_CHECKING:
    from ..flow.async_keys import AsyncKeys

View = TypeVar("View", bound=Callable[..., Any])

__all__ = ["Coatcheck", "exchange_of", "refusal_response", "require_login", "session", "session_of"]

_SERVED, _UNSERVED = "coatcheck", "coatcheck.unserved"

session: FlaskSession = cast("FlaskSession", quart.session)
"""The session of this request or websocket: the same object as `quart.session`, typed."""


class Sessions(SessionInterface):
    """The session interface of one application, and what it stands on; `app.extensions["coatcheck"]`."""

    null_session_class = NoSession  # type: ignore[assignment]

    def __init__(self, middleware: SessionMiddleware) -> None:
        """Take what stands around the application."""
        self.manager = middleware.manager
        self.store = middleware.store
        self.exchange: AsyncExchange = middleware.exchange
        self.registry: AsyncRegistry = middleware.registry

    async def open_session(self, app: quart.Quart, request: Any) -> Any:
        """Return the session that the middleware opened; where nothing serves the request, open one."""
        scope = request.scope
        if self.manager.excludes(scope["path"]):
            return NoSession(scope["path"])
        if _SERVED in scope:
            return FlaskSession(session_of(scope).visit)
        if _UNSERVED not in scope:
            incoming = request_of(scope)
            begun = await self.exchange.begin(incoming)
            if isinstance(begun, Reply):
                begun = self.manager.blank(incoming)
            scope[_UNSERVED] = FlaskSession(begun.visit)
        return scope[_UNSERVED]

    async def save_session(self, app: quart.Quart, session: Any, response: Any) -> None:
        """Leave it to the middleware; what nothing serves is settled here."""
        if response is None or not quart.has_request_context():
            return
        unserved = quart.request.scope.get(_UNSERVED)
        if not isinstance(unserved, FlaskSession):
            return
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        answer = await self.exchange.finish(unserved, response.status_code, headers)
        response.headers.clear()
        for name, value in answer.headers if isinstance(answer, Reply) else answer:
            response.headers.add(name.decode("latin-1"), value.decode("latin-1"))


class Coatcheck:
    """The extension: `Coatcheck(app, store=...)`, or `init_app(app)` in a factory, for any number of applications."""

    def __init__(
        self,
        app: quart.Quart | None = None,
        *,
        store: str | AsyncStore | Any | None = None,
        manager: SessionManager | None = None,
        watch_every: float = 0.5,
        watch_recheck: float = 30.0,
        keys: AsyncKeys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Keep what every application gets; `COATCHECK_STORE` and `COATCHECK_<SETTING>` in its config come before it.

        The rest is as in `asgi.SessionMiddleware`.
        """
        self._store = store
        self._manager = manager
        self._how: dict[str, Any] = {"watch_every": watch_every, "watch_recheck": watch_recheck, "keys": keys}
        self._settings = settings
        if app is not None:
            self.init_app(app)

    def init_app(self, app: quart.Quart) -> None:
        """Give an application its sessions. Raises ConfigError for what is unsafe or cannot be honoured."""
        if "coatcheck" in app.extensions:
            message = f"{app.name!r} has its sessions already; call init_app once for each application"
            raise ConfigError(message)
        if type(app.session_interface) is not SecureCookieSessionInterface:
            found = type(app.session_interface).__qualname__
            message = f"{app.name!r} has sessions of its own already (found {found}); keep one of the two"
            raise ConfigError(message)
        store, settings = configured(app.config, app.default_config, self._settings)
        manager = managed(self._manager, settings)
        chosen = self._store if store is None else store
        middleware = SessionMiddleware(cast("Any", app.asgi_app), store=chosen, manager=manager, **self._how)
        app.asgi_app = middleware  # type: ignore[assignment,method-assign]
        app.extensions["coatcheck"] = sessions = Sessions(middleware)
        app.session_interface = sessions  # type: ignore[assignment]
        app.error_handler_spec[None][None].setdefault(Refusal, refusal_response)

    @property
    def registry(self) -> AsyncRegistry:
        """The sessions of the current application, to list and to revoke."""
        found: Sessions | None = quart.current_app.extensions.get("coatcheck")
        if found is None:
            message = f"{quart.current_app.name!r} has no sessions of ours; call Coatcheck(app) or init_app(app)"
            raise ConfigError(message)
        return found.registry


@overload
def require_login(view: View) -> View: ...
@overload
def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[View], View]: ...
def require_login(
    view: Callable[..., Any] | None = None,
    *,
    within: timedelta | float | None = None,
    level: int | None = None,
    fresh: bool = False,
) -> Any:
    """Guard a view or a websocket, as `@require_login` or `@require_login(within=...)`: 401, or the login page."""

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if fresh:
                here = quart.request if quart.has_request_context() else quart.websocket
                await exchange_of(here).confirm(session)
            session.require_login(within=within, level=level, fresh=fresh)
            return await quart.current_app.ensure_async(view)(*args, **kwargs)

        return guarded

    return guard if view is None else guard(view)


async def refusal_response(refusal: Refusal) -> quart.Response:
    """Answer a Refusal; registered for every application that has no error handler of its own for it."""
    reply = refusal.reply
    response = quart.Response(reply.body, reply.status)
    del response.headers["content-type"]
    for name, value in reply.headers:
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return response
