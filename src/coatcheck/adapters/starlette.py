"""Sessions for Starlette: `request.session` is the Session, `session_of(request)` is the same one, typed.

Starlette stands on the ASGI middleware; this file only speaks its types.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from ..core.errors import Refusal
from .asgi import SessionMiddleware, exchange_of, session_of

__all__ = ["SessionMiddleware", "exchange_of", "refusal_response", "session_of"]


async def refusal_response(_request: Request | HTTPConnection, refusal: Exception) -> Response:
    """Answer a Refusal: register it with `app.add_exception_handler(Refusal, refusal_response)`.

    Without it the middleware answers, too, but outside of your other middleware (CORS headers, for one).
    """
    if not isinstance(refusal, Refusal):
        raise refusal
    reply = refusal.reply
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, reply.status, headers)
