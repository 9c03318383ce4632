"""Sessions for Starlette: `request.session` is the Session, `session_of(request)` is the same one, typed.

Starlette stands on the ASGI middleware; this file only speaks its types. With its AuthenticationMiddleware and our
SessionBackend `request.user`, `request.auth` and `@requires("authenticated")` ask the session, when they are asked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import Any, TypeVar, overload

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from ..core.errors import ConfigError, Refusal
from ..core.session import Session
from .asgi import RequireLogin, SessionMiddleware, exchange_of, logged_in, session_of

__all__ = [
    "RequireLogin",
    "SessionBackend",
    "SessionMiddleware",
    "SessionUser",
    "exchange_of",
    "refusal_response",
    "require_login",
    "session_of",
]

View = TypeVar("View", bound=Callable[..., Any])


class SessionUser(BaseUser):
    """Who is logged in, as Starlette's `request.user`; looks at the session when it is asked, not before."""

    def __init__(self, session: Session) -> None:
        """Speak for a session."""
        self.session = session

    @property
    def is_authenticated(self) -> bool:
        """Tell whether somebody is logged in."""
        return self.session.subject is not None

    @property
    def identity(self) -> str:
        """The subject, or "" if nobody is logged in."""
        return self.session.subject or ""

    @property
    def display_name(self) -> str:
        """The subject again: a session knows no other name."""
        return self.identity


class SessionCredentials(AuthCredentials):
    """What whoever is logged in may do, as Starlette's `request.auth`; looks at the session when it is asked."""

    def __init__(self, session: Session, scopes: Callable[[Session], Iterable[str]] | None) -> None:
        """Speak for a session."""
        self._session, self._more = session, scopes

    @property
    def scopes(self) -> list[str]:  # type: ignore[override]
        """What the application grants, and "authenticated"; nothing if nobody is logged in."""
        if self._session.subject is None:
            return []
        return ["authenticated", *(() if self._more is None else self._more(self._session))]


class SessionBackend(AuthenticationBackend):
    """For `Middleware(AuthenticationMiddleware, backend=SessionBackend())`, inside of SessionMiddleware.

    A page that asks neither `request.user` nor `request.auth` does not vary by the cookie.
    """

    def __init__(self, scopes: Callable[[Session], Iterable[str]] | None = None) -> None:
        """`scopes`: what a logged-in session may do besides being "authenticated", for `@requires("admin")`."""
        self._scopes = scopes

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        """Return who speaks for the session of a connection."""
        session = session_of(conn)
        return SessionCredentials(session, self._scopes), SessionUser(session)


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
    """Guard an endpoint, a method of one, or a websocket's, as `@require_login` or `@require_login(within=...)`.

    Nobody, or nobody surely enough: 401, or the login page. For a whole mount there is
    `Middleware(RequireLogin, within=...)`.
    """

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            await logged_in(_connection_among(args, kwargs), within=within, level=level, fresh=fresh)
            if iscoroutinefunction(view):
                return await view(*args, **kwargs)
            return await run_in_threadpool(view, *args, **kwargs)

        return guarded

    return guard if view is None else guard(view)


def _connection_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> HTTPConnection:
    for one in (*args, *kwargs.values()):
        if isinstance(one, HTTPConnection):
            return one
    message = "@require_login guards an endpoint that takes the request or the websocket (found neither)"
    raise ConfigError(message)


async def refusal_response(_request: Request | HTTPConnection, refusal: Exception) -> Response:
    """Answer a Refusal: register it with `app.add_exception_handler(Refusal, refusal_response)`.

    Without it the middleware answers, too, but outside of your other middleware (CORS headers, for one).
    """
    if not isinstance(refusal, Refusal):
        raise refusal
    reply = refusal.reply
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, reply.status, headers)
