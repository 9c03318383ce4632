"""The probe as an application of Starlette and of FastAPI: each route makes a Call and turns the Answer back."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi import Request as FastApiRequest
from fastapi import WebSocket as FastApiWebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck import Refusal
from coatcheck.adapters import fastapi as ours_for_fastapi
from coatcheck.adapters.starlette import SessionMiddleware, exchange_of, refusal_response, session_of
from coatcheck.testing import Probe
from coatcheck.testing.calls import obeyed
from coatcheck.testing.probe import Answer, Call, run_async

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
WATCH = 0.1


async def call_of(request: Request) -> Call:
    """Return a request of either framework as a call."""
    return Call(
        request.method,
        request.url.path,
        dict(request.query_params),
        dict(request.headers),
        await request.body(),
        session_of(request),
        exchange_of(request),
    )


def response_of(answer: Answer) -> Response:
    """Return an answer as a response; work behind it is a BackgroundTask."""
    after = None if answer.after is None else BackgroundTask(answer.after)
    if answer.chunks is not None:
        response: Response = StreamingResponse(answer.chunks(), answer.status, background=after)
    else:
        response = Response(answer.body, answer.status, background=after)
    for name, value in answer.headers:
        response.headers.append(name, value)
    return response


async def event_stream(request: Request) -> Response:
    """Send one event, then nothing until somebody cancels.

    Under a server of the newest specification Starlette asks for no disconnect: it learns it from what it sends.
    """
    session = session_of(request)
    must_send = request.scope["asgi"]["spec_version"] >= "2.4"

    async def events() -> Any:
        yield f"data: {session.subject}\n\n"
        while must_send:
            yield ""
            await asyncio.sleep(0.02)
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def socket(probe: Probe, websocket: WebSocket) -> None:
    """Do what the raw probe's socket does, in the framework's words."""
    session, exchange, query = session_of(websocket), exchange_of(websocket), websocket.query_params
    if "write" in query:
        session["ws"] = query["write"]
    if "logout" in query:
        session.logout()
    if "deny" in query:
        await websocket.send_denial_response(Response("denied", 403))
        return
    if "close" in query:
        await websocket.close()
        return
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            await websocket.send_text(await obeyed(text, session, exchange))
    except WebSocketDisconnect as gone:
        probe.late.append(f"ws {gone.code}")


def starlette_probe(probe: Probe) -> Starlette:
    """Return the probe as a Starlette application, without our middleware."""

    async def page(request: Request) -> Response:
        return response_of(await run_async(probe.answer(await call_of(request))))

    async def well(request: Request) -> Response:
        return Response("well")

    async def chat(websocket: WebSocket) -> None:
        await socket(probe, websocket)

    routes = [
        Route("/health", well, methods=["GET", "POST"]),
        Route("/sse", event_stream),
        WebSocketRoute("/ws", chat),
        Route("/{rest:path}", page, methods=METHODS),
    ]
    return Starlette(routes=routes)


def starlette_inside(probe: Probe, **how: Any) -> Any:
    """Return the Starlette probe with our middleware added to it: errors go past it."""
    app = starlette_probe(probe)
    app.add_middleware(SessionMiddleware, watch_every=WATCH, watch_recheck=WATCH, **how)
    return app


def starlette_outside(probe: Probe, **how: Any) -> Any:
    """Return the Starlette probe inside our middleware, in debug mode: errors are pages of its own."""
    app = starlette_probe(probe)
    app.debug = True
    app.add_exception_handler(Refusal, refusal_response)
    return SessionMiddleware(app, watch_every=WATCH, watch_recheck=WATCH, **how)


def fastapi_probe(probe: Probe, **how: Any) -> Any:
    """Return the probe as a FastAPI application that gets its session by injection."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(ours_for_fastapi.SessionMiddleware, watch_every=WATCH, watch_recheck=WATCH, **how)

    @app.api_route("/health", methods=["GET", "POST"])
    def well() -> Response:
        return Response("well")

    @app.get("/sse")
    async def sse(request: FastApiRequest) -> Response:
        return await event_stream(request)

    @app.websocket("/ws")
    async def chat(websocket: FastApiWebSocket) -> None:
        await socket(probe, websocket)

    @app.api_route("/{rest:path}", methods=METHODS)
    async def page(request: FastApiRequest, session: ours_for_fastapi.CurrentSession) -> Response:
        call = await call_of(request)
        assert call.session is session
        return response_of(await run_async(probe.answer(call)))

    return app
