"""The probe as a Sanic application: a handler, streams, an event stream and a websocket."""

import asyncio
from itertools import count
from typing import Any

from sanic import HTTPResponse, Request, Sanic, Websocket, text

from coatcheck.adapters.asgi import ENDED_CODE
from coatcheck.adapters.sanic import Coatcheck, exchange_of, session_of
from coatcheck.testing import Probe
from coatcheck.testing.calls import obeyed
from coatcheck.testing.probe import Answer, Call, run_async

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
WATCH = 0.1
_numbers = count()


def named(**how: Any) -> Any:
    """Return an application with a name that no other of this process has."""
    return Sanic(f"probe-{next(_numbers)}", configure_logging=False, **how)


def call_of(request: Request) -> Call:
    """Return a request as a call."""
    return Call(
        request.method,
        request.path,
        {name: values[0] for name, values in request.args.items()},
        {name.lower(): value for name, value in request.headers.items()},
        request.body,
        session_of(request),
        exchange_of(request),
    )


async def respond(request: Request, answer: Answer) -> HTTPResponse | None:
    """Respond with an answer: as a whole, or chunk by chunk."""
    response = HTTPResponse(answer.body, answer.status)
    for name, value in answer.headers:
        response.headers.add(name, value)
    if answer.chunks is None:
        return response
    started = await request.respond(response)
    for chunk in answer.chunks():
        await started.send(chunk)
    return None


def sanic_probe(probe: Probe, **how: Any) -> Any:
    """Return the probe as a Sanic application."""
    app = named()
    Coatcheck(app, watch_every=WATCH, watch_recheck=WATCH, **how)

    @app.on_request
    async def deny(request: Request) -> HTTPResponse | None:
        """Deny a handshake where Sanic can: before it opens the socket."""
        if request.path != "/ws" or not {"deny", "close"} & request.args.keys():
            return None
        _act(request)
        return text("denied", 403)

    @app.route("/health", methods=["GET", "POST"])
    async def health(_request: Request) -> HTTPResponse:
        return text("well")

    @app.get("/sse")
    async def sse(request: Request) -> None:
        response = await request.respond(content_type="text/event-stream")
        await response.send(f"data: {session_of(request).subject}\n\n")
        await asyncio.Event().wait()

    @app.websocket("/ws")
    async def chat(request: Request, websocket: Websocket) -> None:
        await socket(probe, request, websocket)

    async def page(request: Request, rest: str = "") -> HTTPResponse | None:
        assert session_of(request) is request.ctx.session
        return await respond(request, await run_async(probe.answer(call_of(request))))

    app.add_route(page, "/", METHODS, name="home")
    app.add_route(page, "/<rest:path>", METHODS, name="page")
    return app


def _act(request: Request) -> None:
    session = session_of(request)
    if "write" in request.args:
        session["ws"] = request.args["write"][0]
    if "logout" in request.args:
        session.logout()


async def socket(probe: Probe, request: Request, websocket: Websocket) -> None:
    """Do what the raw probe's socket does, in the framework's words."""
    session = session_of(request)
    _act(request)
    try:
        while True:
            said = str(await websocket.recv())
            await websocket.send(await obeyed(said, session, exchange_of(request)))
    except asyncio.CancelledError:  # Sanic tells no code
        probe.late.append(f"ws {ENDED_CODE}")
        raise
