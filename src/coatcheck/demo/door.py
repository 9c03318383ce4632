"""Who is answered at all, and what every response wears. Pure ASGI, around everything else.

A page that a visitor has open elsewhere can point its own name at 127.0.0.1 (DNS rebinding) and would then be "the same
origin" as this application; so a Host that is not ours gets 421 before anything is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC: Final = "/static/"

_WORN: Final = {
    # no inline script, style or event handler anywhere; nothing from elsewhere; nobody may frame us
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Door:
    """Answers 421 to foreign hosts and puts the security headers on."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """Take the hosts that we are: with a port ("localhost:8000"), or without one for any port."""
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "").lower()
        if host not in self._hosts and re.sub(r":\d+$", "", host) not in self._hosts:
            refusal = PlainTextResponse("This is not the host that you are looking for.\n", 421)
            await refusal(scope, receive, send)
            return
        # every page shows a session, so none is kept by any cache; the files of the design may be, if asked about
        caching = "no-cache" if scope["path"].startswith(STATIC) else "no-store"

        async def dressed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("cache-control", caching)
                for name, value in _WORN.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, dressed_send)
