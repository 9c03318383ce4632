"""The probe as a Quart application: views, an event stream and a websocket."""

import asyncio
from typing import Any

import quart

from coatcheck.adapters.asgi import ENDED_CODE
from coatcheck.adapters.quart import Coatcheck, exchange_of, session, session_of
from coatcheck.testing import Probe
from coatcheck.testing.calls import obeyed
from coatcheck.testing.probe import Answer, Call, run_async

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
WATCH = 0.1


async def call_of(request: quart.Request) -> Call:
    """Return a request as a call."""
    return Call(
        request.method,
        request.path,
        request.args.to_dict(),
        {name.lower(): value for name, value in request.headers},
        await request.get_data(),
        session_of(request),
        exchange_of(request),
    )


def response_of(answer: Answer) -> quart.Response:
    """Return an answer as a response."""

    async def chunks() -> Any:
        for chunk in answer.chunks() if answer.chunks is not None else ():
            yield chunk

    response = quart.Response(answer.body if answer.chunks is None else chunks(), answer.status)
    for name in ("content-type", "content-length"):
        response.headers.pop(name, None)
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response


def quart_probe(probe: Probe, *, propagate: bool = False, **how: Any) -> quart.Quart:
    """Return the probe as a Quart application; `propagate`: its errors go past its own error page."""
    app = quart.Quart(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    Coatcheck(app, watch_every=WATCH, watch_recheck=WATCH, **how)

    @app.route("/health", methods=["GET", "POST"])
    async def health() -> str:
        return "well"

    @app.get("/sse")
    async def sse() -> quart.Response:
        async def events() -> Any:
            yield f"data: {subject}\n\n"
            await asyncio.Event().wait()

        subject = session.subject
        response = quart.Response(events(), content_type="text/event-stream")
        response.timeout = None
        return response

    @app.websocket("/ws")
    async def chat() -> Any:
        return await socket(probe)

    async def page(rest: str) -> quart.Response:
        assert session_of(quart.request).visit is session.visit
        return response_of(await run_async(probe.answer(await call_of(quart.request))))

    for rule, endpoint, defaults in (("/", "home", {"rest": ""}), ("/<path:rest>", "page", None)):
        app.add_url_rule(rule, endpoint, page, defaults=defaults, methods=METHODS, provide_automatic_options=False)
    return app


async def socket(probe: Probe) -> Any:
    """Do what the raw probe's socket does, in the framework's words."""
    query = quart.websocket.args
    if "write" in query:
        session["ws"] = query["write"]
    if "logout" in query:
        session.logout()
    if "deny" in query:
        return "denied", 403
    if "close" in query:
        return await quart.websocket.close(1000)
    await quart.websocket.accept()
    try:
        while True:
            text = await quart.websocket.receive()
            await quart.websocket.send(await obeyed(text, session, exchange_of(quart.websocket)))
    except asyncio.CancelledError:  # Quart tells no code
        probe.late.append(f"ws {ENDED_CODE}")
        raise
