"""The probe as an application of Litestar: each route makes a Call and turns the Answer back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import HttpMethod, Litestar, Request, Response, WebSocket, get, route, websocket
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import WebSocketDisconnect
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import ASGIApp

from coatcheck.adapters.litestar import CoatcheckPlugin, exchange_of, session_of
from coatcheck.testing import Probe
from coatcheck.testing.calls import obeyed
from coatcheck.testing.probe import Answer, Call, run_async

WATCH = 0.1
METHODS = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE]
OTHERS = [HttpMethod.HEAD, HttpMethod.OPTIONS]


async def call_of(request: Request[Any, Any, Any]) -> Call:
    """Return a request as a call."""
    return Call(
        request.method,
        request.url.path,
        dict(request.query_params),
        dict(request.headers),
        await request.body(),
        session_of(request),
        exchange_of(request),
    )


def response_of(answer: Answer) -> Any:
    """Return an answer as a response with any headers, repeated ones too."""
    after = None if answer.after is None else BackgroundTask(answer.after)
    if answer.chunks is not None:
        return ASGIStreamingResponse(
            iterator=answer.chunks(), status_code=answer.status, headers=answer.headers, background=after
        )
    return ASGIResponse(body=answer.body, status_code=answer.status, headers=answer.headers, background=after)


async def socket_of(probe: Probe, socket: WebSocket[Any, Any, Any]) -> None:
    """Do what the raw probe's socket does, in the framework's words."""
    session, exchange, query = session_of(socket), exchange_of(socket), socket.query_params
    if "write" in query:
        session["ws"] = query["write"]
    if "logout" in query:
        session.logout()
    if "deny" in query:
        await socket.send({"type": "websocket.http.response.start", "status": 403, "headers": []})  # type: ignore[typeddict-item]
        await socket.send({"type": "websocket.http.response.body", "body": b"denied"})  # type: ignore[typeddict-item,typeddict-unknown-key]
        return
    if "close" in query:
        await socket.close()
        return
    await socket.accept()
    try:
        while True:
            text = await socket.receive_text()
            await socket.send_text(await obeyed(text, session, exchange))
    except WebSocketDisconnect as gone:
        probe.late.append(f"ws {gone.code}")


def litestar_probe(probe: Probe, **how: Any) -> Litestar:
    """Return the probe as a Litestar application with our plugin."""

    @route("/health", http_method=[HttpMethod.GET, HttpMethod.POST], sync_to_thread=False)
    def well() -> Response[str]:
        return Response("well", status_code=200, media_type="text/plain")

    @get("/sse")
    async def sse(request: Request[Any, Any, Any]) -> Stream:
        session = session_of(request)

        async def events() -> AsyncIterator[str]:
            yield f"data: {session.subject}\n\n"
            await asyncio.Event().wait()

        return Stream(events(), media_type="text/event-stream")

    @websocket("/ws")
    async def chat(socket: WebSocket[Any, Any, Any]) -> None:
        await socket_of(probe, socket)

    @route(["/", "/{rest:path}"], http_method=[*METHODS, *OTHERS], status_code=200)
    async def page(request: Request[Any, Any, Any]) -> ASGIApp:
        return response_of(await run_async(probe.answer(await call_of(request))))

    plugin = CoatcheckPlugin(watch_every=WATCH, watch_recheck=WATCH, **how)
    return Litestar([well, sse, chat, page], plugins=[plugin], openapi_config=None, logging_config=None)
