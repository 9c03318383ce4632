"""A driver that speaks HTTP/1.1 to Sanic's own server, over sockets of this machine."""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from queue import Queue
from typing import Any

import h11
from sanic import Sanic
from sanic.application.constants import ServerStage
from sanic.application.state import ApplicationServerInfo
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from coatcheck.testing.browser import PATIENCE, Received, Sent
from coatcheck.testing.drivers import until

SECRET = "of-the-proxy"
"""By Sanic's FORWARDED_SECRET the driver, as a proxy, says who the client is and that it came by https."""


class SanicServer:
    """Sanic's server for one application, on an event loop in a thread of its own."""

    def __init__(self, app: Sanic[Any, Any]) -> None:
        """Start to serve."""
        self.app = app
        Sanic.test_mode = True  # or its second application of a process does not start
        app.config.FORWARDED_SECRET = SECRET
        app.config.ACCESS_LOG = False
        app.config.REQUEST_MAX_HEADER_SIZE = 65536  # the longest Cookie header is ours to refuse
        self.loop_errors: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(repr(context)))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._bound = socket.create_server(("127.0.0.1", 0))
        self.address = self._bound.getsockname()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._server = self.run(self._begin())

    def run(self, coroutine: Any) -> Any:
        """Run something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def start(self, sent: Sent) -> "Exchange":
        """Begin a request."""
        return Exchange(self, sent)

    def connect(self, sent: Sent) -> "Socket":
        """Open a websocket; return when it is accepted or denied."""
        return Socket(self, sent)

    def close(self) -> None:
        """Stop; fail for what was left behind."""
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._bound.close()
        Sanic.unregister_app(self.app)
        assert self.loop_errors == []

    @property
    def busy(self) -> bool:
        """Whether a connection is open."""
        return bool(self._connections())

    def serves(self, port: int) -> bool:
        """Tell whether the connection from a port of this machine is open."""
        infos = (frame.f_locals["self"].conn_info for frame in self._connections())
        return any(info is not None and info.client_port == port for info in infos)

    def _connections(self) -> list[Any]:
        coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks(self._loop)]
        return [one.cr_frame for one in coroutines if "connection_task" in repr(one) and one.cr_frame is not None]

    async def _begin(self) -> Any:
        server = await self.app.create_server(sock=self._bound, return_asyncio_server=True)
        assert server is not None
        self.app.state.server_info.append(ApplicationServerInfo({"version": 1}, ServerStage.SERVING))  # as run() does
        await server.startup()
        await server.before_start()
        await server.after_start()
        return server

    async def _end(self) -> None:
        await self._server.before_stop()
        self._server.close()
        for connection in list(self._server.connections):
            connection.abort() if hasattr(connection, "abort") else connection.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._server.after_stop()


def headers_of(sent: Sent) -> list[tuple[str, str]]:
    """Return the headers of a request as a proxy passes them on; plain http comes without one, unless one is named."""
    if sent.scheme in ("http", "ws") and sent.peer == Sent.peer:
        return sent.headers
    proto = sent.scheme.replace("ws", "http")
    peer = f'"[{sent.peer}]"' if ":" in sent.peer else sent.peer
    return [*sent.headers, ("Forwarded", f"for={peer};proto={proto};secret={SECRET}")]


class Exchange:
    """One request on a connection of its own: the client's side of it."""

    def __init__(self, server: SanicServer, sent: Sent) -> None:
        self._server = server
        self._sent = sent
        self._done: Future[Received] = Future()
        self._outgoing: Queue[bytes | None] = Queue()
        self._socket = socket.create_connection(server.address)
        self._gone = False
        self._begun = threading.Event()
        threading.Thread(target=self._talk, daemon=True).start()

    def result(self, timeout: float = PATIENCE) -> Received:
        """Wait for the end of the response."""
        received = self._done.result(timeout)
        if self._gone:
            until(lambda: not self._server.busy)
        return received

    def chunk(self, timeout: float = PATIENCE) -> bytes | None:
        """Wait for the next part of the body; None is its end."""
        return self._outgoing.get(timeout=timeout)

    def disconnect(self) -> None:
        """Go away; in the body, where the response has begun by now."""
        self._begun.wait(0.3)
        self._gone = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        """Go away: Sanic cancels."""
        self.disconnect()

    def _talk(self) -> None:
        received = Received(500)
        chunks = []
        try:
            for event in self._events():
                self._begun.set()
                if isinstance(event, h11.Response):
                    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
                    received = Received(event.status_code, pairs)
                elif isinstance(event, h11.Data):
                    chunks.append(bytes(event.data))
                    self._outgoing.put(chunks[-1])
        except (OSError, h11.RemoteProtocolError) as error:
            received.error = None if self._gone else error
        received.body = b"".join(chunks)
        self._socket.close()
        self._outgoing.put(None)
        self._done.set_result(received)

    def _events(self) -> Any:
        talk = h11.Connection(h11.CLIENT)
        headers = [*headers_of(self._sent), ("Connection", "close")]
        if self._sent.body and not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(self._sent.body))))
        target = self._sent.target.replace(" ", "%20")
        talk.send(h11.Request(method=self._sent.method, target="/", headers=[("Host", "h11")]))
        lines = [f"{self._sent.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        # by hand: h11 writes no header that an attacker might
        self._socket.sendall("\r\n".join(lines).encode("latin-1") + self._sent.body)
        talk.send(h11.EndOfMessage())
        while True:
            event = talk.next_event()
            if event is h11.NEED_DATA:
                talk.receive_data(self._socket.recv(65536))
                continue
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return
            yield event


class Socket:
    """One websocket: the client's side of it."""

    def __init__(self, server: SanicServer, sent: Sent) -> None:
        self.denial: Received | None = None
        self._server = server
        self._open = contextlib.ExitStack()
        wire = socket.create_connection(server.address)
        self._port = wire.getsockname()[1]
        own = ("host", "upgrade", "connection")
        headers = [(name, value) for name, value in headers_of(sent) if not name.lower().startswith((*own, "sec-web"))]
        try:
            connecting = connect(
                f"ws://{dict(sent.headers).get('Host', 'testserver')}{sent.target}",
                sock=wire,
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
            )
            self._socket = self._open.enter_context(connecting)
        except InvalidStatus as refused:
            response = refused.response
            self.denial = Received(response.status_code, list(response.headers.raw_items()), response.body or b"")

    def send(self, text: str) -> None:
        """Send a text."""
        self._socket.send(text)

    def receive(self, timeout: float = PATIENCE) -> str | int:
        """Wait for a text, or for the code of the close."""
        assert self.denial is None, self.denial.text
        try:
            return str(self._socket.recv(timeout))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    def close(self, timeout: float = PATIENCE) -> None:
        """Go away, and wait until the application has noticed."""
        self._open.close()
        until(lambda: not self._server.serves(self._port), timeout)
