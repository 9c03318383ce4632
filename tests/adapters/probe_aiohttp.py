"""The probe as an aiohttp application, and aiohttp's own server for it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from coatcheck.adapters.aiohttp import ENDED_CODE, exchange_of, session_of, setup
from coatcheck.testing import Probe
from coatcheck.testing.browser import Sent
from coatcheck.testing.calls import obeyed
from coatcheck.testing.probe import Answer, Call, run_async

from .loopback import TICKET

WATCH = 0.1


async def call_of(request: web.Request) -> Call:
    """Return a request as a call."""
    return Call(
        request.method,
        request.path,
        dict(request.query),
        {name.lower(): value for name, value in request.headers.items()},
        await request.read(),
        session_of(request),
        exchange_of(request),
    )


async def prepared_by_hand(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Return an answer; what is streamed, or has work behind it, is prepared and written here."""
    if answer.chunks is None:
        response: web.StreamResponse = web.Response(status=answer.status, body=answer.body)
        add(response, answer)
    else:
        response = web.StreamResponse(status=answer.status)
        add(response, answer)
        await response.prepare(request)
        for chunk in answer.chunks():
            await response.write(chunk)
    if answer.after is not None:
        await response.prepare(request)
        await response.write_eof()
        answer.after()
    return response


async def left_to_the_server(_request: web.Request, answer: Answer) -> web.StreamResponse:
    """Return an answer; a stream is the body's own generator, and no status but 200 is returned: it is raised."""
    if answer.chunks is not None or answer.after is not None:
        response = web.Response(status=answer.status, body=_generated(answer))
        add(response, answer)
        return response
    if answer.status == 200:
        response = web.Response(body=answer.body)
        add(response, answer)
        return response
    raised = _raised(answer.status)
    raised.headers.pop("Content-Type", None)
    if answer.body:
        raised.body = answer.body
    add(raised, answer)
    raise raised


async def _generated(answer: Answer) -> AsyncIterator[bytes]:
    for chunk in answer.chunks() if answer.chunks is not None else [answer.body]:
        yield chunk
    if answer.after is not None:
        answer.after()


def _raised(status: int) -> web.HTTPException:
    class Raised(web.HTTPException):
        status_code = status
        empty_body = True

    return Raised()


def add(response: web.StreamResponse, answer: Answer) -> None:
    """Give a response the headers of an answer."""
    for name in {name for name, _ in answer.headers}:
        response.headers.popall(name, None)
    for name, value in answer.headers:
        response.headers.add(name, value)


async def event_stream(request: web.Request) -> web.StreamResponse:
    """Send one event, then nothing until the client leaves or somebody cancels."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(f"data: {session_of(request).subject}\n\n".encode())
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.02)
    return response


async def socket(probe: Probe, request: web.Request) -> web.StreamResponse:
    """Do what the raw probe's socket does, in the framework's words."""
    session, exchange, query = session_of(request), exchange_of(request), request.query
    if "write" in query:
        session["ws"] = query["write"]
    if "logout" in query:
        session.logout()
    if "deny" in query:
        return web.Response(status=403, text="denied")
    if "close" in query:
        raise web.HTTPForbidden
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    while (message := await websocket.receive()).type is WSMsgType.TEXT:
        text = message.data
        await websocket.send_str(await obeyed(text, session, exchange))
    # what another task closes while a handler reads is CLOSING to the handler, with no code of its own
    code = ENDED_CODE if message.type is WSMsgType.CLOSING else websocket.close_code
    probe.late.append(f"ws {code}")
    return websocket


def aiohttp_probe(
    probe: Probe, answer: Callable[[web.Request, Answer], Awaitable[web.StreamResponse]] = prepared_by_hand, **how: Any
) -> web.Application:
    """Return the probe as an aiohttp application."""

    async def well(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="well")

    async def page(request: web.Request) -> web.StreamResponse:
        return await answer(request, await run_async(probe.answer(await call_of(request))))

    app = web.Application(client_max_size=4 * 1024**2)
    app.router.add_route("*", "/health", well)
    app.router.add_get("/sse", event_stream)
    app.router.add_get("/ws", functools.partial(socket, probe))
    app.router.add_route("*", "/{rest:.*}", page)
    setup(app, watch_every=WATCH, watch_recheck=WATCH, **how)
    return app


class AiohttpServer:
    """aiohttp's own server, on sockets whose first line says which scheme and peer they stand for."""

    def __init__(self, app: web.Application, **how: Any) -> None:
        """Take the application to serve."""
        how = {"max_field_size": 65536, "max_line_size": 65536, **how}  # the longest Cookie header is ours to refuse
        self._runner = web.AppRunner(app, access_log=None, **how)
        self._app = app
        self._listening: asyncio.Server | None = None

    def head(self, sent: Sent) -> tuple[bytes, list[tuple[str, str]]]:
        """Say scheme and peer in a first line."""
        return f"{sent.scheme} {sent.peer}\n".encode(), []

    async def start(self, done: Callable[[str], None]) -> int:
        """Listen on a free port."""

        @web.middleware
        async def tell(request: web.Request, handler: Any) -> web.StreamResponse:
            try:
                response: web.StreamResponse = await handler(request)
            finally:
                task = asyncio.current_task()
                assert task is not None
                ticket = request.headers.get(TICKET, "")
                task.add_done_callback(lambda _: tell_behind(functools.partial(done, ticket)))
            return response

        self._app.middlewares.insert(0, tell)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: Front(self._protocol()), "127.0.0.1", 0)
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening, and clean the application up."""
        assert self._listening is not None
        self._listening.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        return self._runner.server()


def tell_behind(done: Callable[[], None]) -> None:
    """Tell that a request is done when we have done what we do behind a response, which begins when its task ends."""
    leaving = [task for task in asyncio.all_tasks() if "Connection.leave" in repr(task.get_coro())]
    asyncio.gather(*leaving, return_exceptions=True).add_done_callback(lambda _: done()) if leaving else done()


class Front(asyncio.Protocol):
    """Stands before aiohttp's protocol until the first line has come."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        """Take aiohttp's protocol."""
        self._inner = inner
        self._held = b""
        self._transport: Any = None
        self._begun = False

    def connection_made(self, transport: Any) -> None:
        """Wait for the first line."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass everything on that comes behind the first line."""
        if self._begun:
            self._inner.data_received(data)
            return
        self._held += data
        line, found, rest = self._held.partition(b"\n")
        if found:
            scheme, peer = line.decode().split()
            self._begun = True
            self._inner.connection_made(Disguised(self._transport, scheme, peer))  # type: ignore[arg-type]
            self._inner.data_received(rest)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received() if self._begun else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        if self._begun:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()


class Disguised:
    """A transport that says of itself what the first line said."""

    def __init__(self, transport: Any, scheme: str, peer: str) -> None:
        """Take the real one."""
        self._transport = transport
        self._said = {"sslcontext": scheme in ("https", "wss") or None, "peername": (peer, 50_000)}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say what was said, or the truth."""
        return self._said.get(name, default) if name in self._said else self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
