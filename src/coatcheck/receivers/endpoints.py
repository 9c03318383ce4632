"""A receiver as an application of its own, to be mounted where the provider was told: ASGI and WSGI.

Both read at most MOST_BODY bytes; a longer body is refused before it is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, TypeAlias

from ..core.model import Reply, Request
from ..core.notices import MOST_BODY, TOO_LARGE

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
WsgiApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def asgi_endpoint(receive_one: Callable[[Request, bytes], Awaitable[Reply]]) -> AsgiApp:
    """Return an ASGI application around `receiver.logout` or `receiver.event` of an AsyncReceiver."""

    async def application(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        client = scope.get("client")
        request = Request(
            scope["method"],
            scope.get("scheme", "http"),
            scope["path"],
            [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]],
            peer=client[0] if client else None,
        )
        body, more = b"", not _too_long(request.header(b"content-length"))
        reply = None if more else TOO_LARGE
        while more and len(body) <= MOST_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        reply = reply or await receive_one(request, body)
        headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": False})

    return application


def wsgi_endpoint(receive_one: Callable[[Request, bytes], Reply]) -> WsgiApp:
    """Return a WSGI application around `receiver.logout` or `receiver.event` of a Receiver."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = [
            (name[5:].replace("_", "-").lower().encode("ascii", "replace"), str(value).encode("latin-1", "replace"))
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        headers.append((b"content-type", environ.get("CONTENT_TYPE", "").encode("latin-1", "replace")))
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        scheme, peer = environ["wsgi.url_scheme"], environ.get("REMOTE_ADDR")
        request = Request(environ["REQUEST_METHOD"], scheme, path, headers, peer=peer)
        length = environ.get("CONTENT_LENGTH") or "0"
        if _too_long(length.encode("latin-1", "replace")):
            reply = TOO_LARGE
        else:
            reply = receive_one(request, environ["wsgi.input"].read(int(length)))
        shown = [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in reply.headers]
        shown.append(("Content-Length", str(len(reply.body))))
        start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", shown)
        return [reply.body]

    return application


def _too_long(length: bytes) -> bool:
    """Tell whether a Content-Length is more than is read, or no length at all."""
    return bool(length) and (not length.isdigit() or len(length) > 9 or int(length) > MOST_BODY)
