"""Sessions for Starlette: `request.session` is the Session, `session_of(request)` is the same one, typed.

Starlette stands on the ASGI middleware; this file only speaks its types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from ..core.errors import Refusal
from ..core.session import Session
from .asgi import SessionMiddleware, exchange_of, session_of

__all__ = ["SessionBackend", "SessionMiddleware", "exchange_of", "refusal_response", "session_of"]


class SessionBackend(AuthenticationBackend):
    """Tells Starlette's AuthenticationMiddleware who is there: `request.user`, `request.auth`, `@requires`.

    It stands inside of the SessionMiddleware. A handler's login shows in `request.user` from the next request on.
    """

    def __init__(
        self,
        *,
        scopes: Callable[[Session], Iterable[str]] | None = None,
        user: Callable[[Session], BaseUser] | None = None,
    ) -> None:
        """Take what a logged-in session may do besides "authenticated" (none), and its user (one with its name)."""
        self._scopes = scopes
        self._user = user

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return scopes and user of a session that somebody is logged in to, or None."""
        session = session_of(conn)
        subject = session.subject
        if subject is None:
            return None
        scopes = () if self._scopes is None else self._scopes(session)
        user = SimpleUser(subject) if self._user is None else self._user(session)
        return AuthCredentials(["authenticated", *scopes]), user


async def refusal_response(_request: Request | HTTPConnection, refusal: Exception) -> Response:
    """Answer a Refusal: register it with `app.add_exception_handler(Refusal, refusal_response)`.

    Without it the middleware answers, too, but outside of your other middleware (CORS headers, for one).
    """
    if not isinstance(refusal, Refusal):
        raise refusal
    reply = refusal.reply
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, reply.status, headers)
