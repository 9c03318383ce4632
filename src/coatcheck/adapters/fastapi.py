"""Sessions for FastAPI: the ASGI middleware, and dependencies that name what a route needs.

`session: CurrentSession` where anonymous is fine; `Depends(RequireLogin(within=...))` where it is not.
"""

# no `from __future__ import annotations`: FastAPI 0.115 cannot resolve those of a callable object
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from ..core.errors import Refusal
from ..core.session import Session
from . import asgi
from .asgi import Receive, Scope, Send, exchange_of, session_of

__all__ = ["CurrentSession", "RequireLogin", "SessionMiddleware", "exchange_of", "session_of"]


_SCHEME = "session"


class SessionMiddleware(asgi.SessionMiddleware):
    """The ASGI middleware, which also tells the application's OpenAPI document what our cookie is called."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        app = scope.get("app")
        if isinstance(app, FastAPI) and "openapi" not in vars(app):
            _name_cookie(app, self.name)
        await super().__call__(scope, receive, send)


def _name_cookie(app: FastAPI, name: str) -> None:
    """Have the OpenAPI document say the cookie's name; it is built when somebody asks, and then kept by FastAPI."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        scheme = document.get("components", {}).get("securitySchemes", {}).get(_SCHEME)
        if scheme is not None:
            scheme["name"] = name
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _current(connection: HTTPConnection) -> Session:
    return session_of(connection)


CurrentSession = Annotated[Session, Depends(_current)]
"""The session of this request, whoever is there."""


class RequireLogin(SecurityBase):
    """A dependency that answers 401 (or sends a browser to the login page) unless somebody is logged in.

    In the OpenAPI document the route is secured by our cookie.
    """

    def __init__(
        self, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
    ) -> None:
        """Ask for an authentication not older than `within` (seconds), or at least of a `Level`.

        `fresh`: of a session that was read from the store itself for this request, not from a near copy.
        """
        self.model = APIKey.model_validate({"in": APIKeyIn.cookie, "name": "__Host-coat"})
        self.scheme_name = _SCHEME
        self._within = within
        self._level = level
        self._fresh = fresh

    async def __call__(self, connection: HTTPConnection) -> Session:
        """Return the session, or raise FastAPI's own HTTPException."""
        session = session_of(connection)
        try:
            if self._fresh:
                await exchange_of(connection).confirm(session)
            session.require_login(within=self._within, level=self._level)
        except Refusal as refusal:
            reply = refusal.reply
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
            raise HTTPException(reply.status, refusal.reason, headers) from refusal
        return session
