"""Sessions for FastAPI: the ASGI middleware, and dependencies that name what a route needs.

`session: CurrentSession` where anonymous is fine; `Depends(RequireLogin(within=...))` where it is not. Routes that
require a login say so in the OpenAPI document, with the cookie's name as it is in this application.
"""

# no `from __future__ import annotations`: FastAPI 0.115 cannot resolve those of an object that is called
from collections.abc import Awaitable
from datetime import timedelta
from functools import wraps
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyCookie
from fastapi.security.base import SecurityBase

from ..core.errors import Refusal
from ..core.session import Session
from ..core.settings import Settings
from . import asgi
from .asgi import Receive, Scope, Send, exchange_of, logged_in, session_of

__all__ = ["CurrentSession", "RequireLogin", "SessionMiddleware", "exchange_of", "session_of"]


SCHEME: Final = "session"
"""The name of the security scheme in the OpenAPI document."""


class SessionMiddleware(asgi.SessionMiddleware):
    """The ASGI middleware; its application's OpenAPI document names the cookie as it is set here."""

    _described = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Serve one connection."""
        if not self._described:
            self._described = True
            app = scope.get("app")
            if isinstance(app, FastAPI):
                _describe(app, self.name)
        return super().__call__(scope, receive, send)


def _describe(app: FastAPI, name: str) -> None:
    """Let an application's OpenAPI document name its cookie: routes were written before that was known."""
    openapi = app.openapi

    @wraps(openapi)
    def with_its_cookie() -> dict[str, Any]:
        document = openapi()
        scheme = document.get("components", {}).get("securitySchemes", {}).get(SCHEME)
        if scheme is not None:
            scheme["name"] = name
        return document

    app.openapi = with_its_cookie  # type: ignore[method-assign]


async def _current(connection: HTTPConnection) -> Session:
    return session_of(connection)


CurrentSession = Annotated[Session, Depends(_current)]
"""The session of this request, whoever is there."""


_STANDARD_NAME: Final = Settings().name


class RequireLogin(SecurityBase):
    """A dependency that answers 401 (or sends a browser to the login page) unless somebody is logged in."""

    def __init__(
        self, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
    ) -> None:
        """Ask for an authentication not older than `within` (seconds), or at least of a `Level`.

        `fresh`: of a session that was read from the store itself for this request, not from a near copy.
        """
        self.scheme_name = SCHEME
        self.model = APIKeyCookie(name=_STANDARD_NAME, description="A session, begun by a login.").model
        self._within = within
        self._level = level
        self._fresh = fresh

    async def __call__(self, connection: HTTPConnection) -> Session:
        """Return the session, or raise FastAPI's own HTTPException."""
        try:
            return await logged_in(connection, within=self._within, level=self._level, fresh=self._fresh)
        except Refusal as refusal:
            reply = refusal.reply
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
            raise HTTPException(reply.status, refusal.reason, headers) from refusal
