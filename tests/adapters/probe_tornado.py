"""The probe as a Tornado application, and Tornado's own server for it."""

import asyncio
from collections.abc import Callable
from typing import Any

from tornado import netutil
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from coatcheck.adapters.tornado import SessionMixin, exchange_of, setup
from coatcheck.testing import Probe
from coatcheck.testing.browser import Sent
from coatcheck.testing.calls import obeyed
from coatcheck.testing.probe import Answer, Call, run, run_async

from .loopback import TICKET

WATCH = 0.1
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


class Told(SessionMixin):
    """Tells the driver when a request is over, with what we do behind it."""

    request: Any
    application: Any
    done: Callable[[str], None] = staticmethod(lambda _: None)

    async def _execute(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super()._execute(*args, **kwargs)
        finally:
            self.application.settings["done"](self.request.headers.get(TICKET, ""))


class Page(Told, RequestHandler):
    """Every page of the probe, its streams by `flush`."""

    SUPPORTED_METHODS = METHODS
    probe: Probe

    def initialize(self, probe: Probe) -> None:
        """Take the probe to serve."""
        self.probe = probe

    def compute_etag(self) -> str | None:
        """Leave it: the probe says which status it wants."""
        return None

    async def serve(self) -> None:
        """Answer."""
        await self.send(await run_async(self.probe.answer(self.call())))

    get = head = post = put = patch = delete = options = trace = serve

    def call(self) -> Call:
        """Return the request as a call."""
        request = self.request
        return Call(
            request.method,
            request.path,
            {name: values[-1].decode() for name, values in request.query_arguments.items()},
            {name.lower(): value for name, value in request.headers.get_all()},
            request.body,
            self.session,
            exchange_of(self),
        )

    def head_of(self, answer: Answer) -> None:
        """Set status and headers."""
        self.set_status(answer.status)
        self.clear_header("Content-Type")
        for name, value in answer.headers:
            self.add_header(name, value)

    async def send(self, answer: Answer) -> None:
        """Send an answer, and do what comes behind it."""
        self.head_of(answer)
        if answer.chunks is None:
            if answer.body:
                self.write(answer.body)
        else:
            for chunk in answer.chunks():
                self.write(chunk)
                await self.flush()
        if answer.after is not None:
            await self.finish()
            answer.after()


class SyncPage(Page):
    """Every page by a method that is not awaited; what needs to wait is served by the other."""

    def serve(self) -> Any:
        """Answer."""
        call = self.call()
        if "hold" in call.query or call.path in WAITING or call.method == "DELETE" or "confirm" in call.query:
            return super().serve()
        answer = run(self.probe.answer(call))
        if answer.after is not None:
            return self.send(answer)
        self.head_of(answer)
        if answer.chunks is None:
            self.finish(answer.body or None)
            return None
        return self.send(answer)

    get = head = post = put = patch = delete = options = trace = serve


WAITING = ("/account/sessions", "/account/sessions/revoke-others", "/callback", "/save", "/take", "/bump", "/transfer")


class Health(Told, RequestHandler):
    """A page that never asks for its session."""

    def get(self) -> None:
        """Answer."""
        self.write("well")

    post = get


class Events(Told, RequestHandler):
    """Server-sent events."""

    async def get(self) -> None:
        """Send one event, then nothing until the client leaves or somebody cancels."""
        self.left = asyncio.Event()
        self.set_header("Content-Type", "text/event-stream")
        self.write(f"data: {self.session.subject}\n\n")
        await self.flush()
        await self.left.wait()

    def on_connection_close(self) -> None:
        """Note that the client left."""
        self.left.set()


class Chat(Told, WebSocketHandler):
    """The websocket."""

    def initialize(self, probe: Probe) -> None:
        """Take the probe to serve."""
        self.probe = probe

    async def prepare(self) -> None:
        """Do what the query asks for before the handshake."""
        if self.get_query_argument("write", ""):
            self.session["ws"] = self.get_query_argument("write")
        if self.get_query_argument("logout", ""):
            self.session.logout()
        if self.get_query_argument("deny", ""):
            self.set_status(403)
            await self.finish("denied")
        if self.get_query_argument("close", ""):
            self.send_error(403)

    async def on_message(self, message: str | bytes) -> None:
        """Obey."""
        text = str(message)
        try:
            await self.write_message(await obeyed(text, self.session, exchange_of(self)))
        except StreamClosedError:
            return

    def on_close(self) -> None:
        """Note the end."""
        self.probe.late.append(f"ws {self.close_code}")


def tornado_probe(probe: Probe, page: type[Page] = Page, *, options: dict[str, Any] | None = None, **how: Any) -> Any:
    """Return the probe as a Tornado application."""
    app = Application(
        [
            ("/health", Health),
            ("/sse", Events),
            ("/ws", Chat, {"probe": probe}),
            ("/.*", page, {"probe": probe}),
        ],
        **(options or {}),
    )
    setup(app, watch_every=WATCH, watch_recheck=WATCH, **how)
    return app


class TornadoServer:
    """Tornado's own server, told of scheme and peer as by a proxy that it trusts."""

    def __init__(self, app: Application) -> None:
        """Take the application to serve."""
        self._app = app
        self._server: HTTPServer | None = None

    def head(self, sent: Sent) -> tuple[bytes, list[tuple[str, str]]]:
        """Say scheme and peer in the headers that Tornado reads."""
        scheme = {"wss": "https", "ws": "http"}.get(sent.scheme, sent.scheme)
        return b"", [("x-real-ip", sent.peer), ("x-scheme", scheme)]

    async def start(self, done: Callable[[str], None]) -> int:
        """Listen on a free port."""
        self._app.settings["done"] = done
        self._app.settings["log_function"] = self._tell
        (listening,) = netutil.bind_sockets(0, "127.0.0.1")
        self._server = server = HTTPServer(self._app, xheaders=True)
        server.add_sockets([listening])
        port: int = listening.getsockname()[1]
        return port

    def _tell(self, handler: RequestHandler) -> None:
        if not isinstance(handler, Told):
            ticket = handler.request.headers.get(TICKET, "")
            asyncio.get_running_loop().call_later(0.05, self._app.settings["done"], ticket)

    async def stop(self) -> None:
        """Stop listening."""
        assert self._server is not None
        self._server.stop()
        await self._server.close_all_connections()
