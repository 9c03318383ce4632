"""Sessions for FastAPI: the ASGI middleware, and dependencies that name what a route needs.

`session: CurrentSession` where anonymous is fine; `Depends(RequireLogin(within=...))` where it is not.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.requests import HTTPConnection

from ..core.errors import Refusal
from ..core.session import Session
from .asgi import SessionMiddleware, exchange_of, session_of

__all__ = ["CurrentSession", "RequireLogin", "SessionMiddleware", "exchange_of", "session_of"]


async def _current(connection: HTTPConnection) -> Session:
    return session_of(connection)


CurrentSession = Annotated[Session, Depends(_current)]
"""The session of this request, whoever is there."""


class RequireLogin:
    """A dependency that answers 401 (or sends a browser to the login page) unless somebody is logged in."""

    def __init__(
        self, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
    ) -> None:
        """Ask for an authentication not older than `within` (seconds), or at least of a `Level`.

        `fresh`: of a session that was read from the store itself for this request, not from a near copy.
        """
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
