"""Drivers in this process: one speaks raw ASGI and one raw WSGI, as strictly as the strictest server.

The ASGI driver checks every message that leaves the application against the specification's order; the WSGI driver
stands behind wsgiref.validate. Both can go away in the middle; a fault of protocol fails the test.
"""

from __future__ import annotations

import asyncio
import io
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from concurrent.futures import Future
from typing import Any, ClassVar
from urllib.parse import unquote
from wsgiref.validate import validator

from .browser import PATIENCE, Received, Sent

Message = MutableMapping[str, Any]


class ProtocolFault(AssertionError):  # noqa: N818 - what it is
    """An application broke the rules of ASGI."""


class Order:
    """The order of ASGI messages: what may leave an application next (ASGI specification, HTTP and WebSocket 2.5)."""

    _NEXT: ClassVar[dict[str, dict[str, str]]] = {
        "http:new": {"http.response.start": "http:started"},
        "http:started": {"http.response.body": "http:started"},
        "http:done": {},
        "websocket:new": {
            "websocket.accept": "websocket:open",
            "websocket.close": "websocket:done",
            "websocket.http.response.start": "websocket:denied",
        },
        "websocket:denied": {"websocket.http.response.body": "websocket:denied"},
        "websocket:open": {"websocket.send": "websocket:open", "websocket.close": "websocket:done"},
        "websocket:done": {},
        "lifespan:new": {
            "lifespan.startup.complete": "lifespan:new",
            "lifespan.shutdown.complete": "lifespan:new",
        },
    }

    def __init__(self, kind: str) -> None:
        """Start before the first message of a connection."""
        self.state = f"{kind}:new"
        self.faults: list[str] = []

    def check(self, message: Message) -> None:
        """Raise ProtocolFault for a message that may not come now, or is not well formed."""
        kind = message["type"]
        following = self._NEXT[self.state].get(kind)
        if following is None:
            self._fault(f"{kind} in state {self.state}")
        if kind.endswith(("response.start", "accept")):
            self._check_head(message)
        if kind.endswith("response.body") and not message.get("more_body", False):
            following = following and following.partition(":")[0] + ":done"
        self.state = following or self.state

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""
        return self.state.endswith(":done")

    def _check_head(self, message: Message) -> None:
        if message["type"].endswith("start") and type(message["status"]) is not int:
            self._fault(f"status {message['status']!r}")
        for name, value in message.get("headers", ()):
            if type(name) is not bytes or type(value) is not bytes or name != name.lower() or b"\n" in value:
                self._fault(f"header {name!r}: {value!r}")

    def _fault(self, what: str) -> None:
        self.faults.append(what)
        raise ProtocolFault(what)


class AsgiDriver:
    """Sends requests to an ASGI application on an event loop of its own, in a thread of its own.

    `fresh_loops`: every request gets a new loop, as test clients do. `spec_version` 2.4 and later: sending after the
    client went away raises OSError, earlier it does nothing.
    """

    def __init__(self, app: Any, *, fresh_loops: bool = False, spec_version: str = "2.3") -> None:
        """Take the application; the loop starts with the first request."""
        self.app = app
        self.spec_version = spec_version
        self.order_faults: list[str] = []
        self.loop_errors: list[str] = []
        self._fresh = fresh_loops
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, sent: Sent) -> AsgiConnection:
        """Begin a request."""
        return self._begin(AsgiConnection(self, sent, "http"))

    def connect(self, sent: Sent) -> AsgiConnection:
        """Open a websocket; return when it is accepted or denied."""
        connection = self._begin(AsgiConnection(self, sent, "websocket"))
        connection.wait_for_handshake()
        return connection

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the driver's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result(PATIENCE)

    def close(self) -> None:
        """Stop the loop; fail for what broke the protocol or was left behind on it."""
        if self._loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_cancel_rest(), self._loop).result(PATIENCE)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()
        assert self.order_faults == [], f"the ASGI protocol was broken: {self.order_faults}"
        assert self.loop_errors == [], f"the event loop was told of errors that nobody took: {self.loop_errors}"

    def _begin(self, connection: AsgiConnection) -> AsgiConnection:
        if self._fresh:
            threading.Thread(target=lambda: asyncio.run(connection.serve()), daemon=True).start()
        else:
            asyncio.run_coroutine_threadsafe(connection.serve(), self._running())
        return connection

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(repr(context)))
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        return self._loop


async def _cancel_rest() -> None:
    """End what is still running, as `asyncio.run` does: the tasks, then the generators that they left behind."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    # a generator that was just let go of is closed by a task of its own, which the loop begins in its next turn
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*left, return_exceptions=True)


class AsgiConnection:
    """One connection to an ASGI application: the server's side of it."""

    def __init__(self, driver: AsgiDriver, sent: Sent, kind: str) -> None:
        """Take the request; nothing runs yet."""
        self.denial: Received | None = None
        self.messages: list[Message] = []
        self._driver = driver
        self._sent = sent
        self._kind = kind
        self._order = Order(kind)
        self._done: Future[Received] = Future()
        self._outgoing: queue.Queue[Message | None] = queue.Queue()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incoming: asyncio.Queue[Message] | None = None
        self._gone: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._disconnected = False

    # -- the test's side ---------------------------------------------------------------------------------------------

    def result(self, timeout: float = PATIENCE) -> Received:
        """Wait for the end of the response."""
        return self._done.result(timeout)

    def chunk(self, timeout: float = PATIENCE) -> bytes | None:
        """Wait for the next part of the body; None is its end."""
        while True:
            message = self._outgoing.get(timeout=timeout)
            if message is None:
                return None
            if message["type"] == "http.response.body":
                if message.get("body"):
                    return bytes(message["body"])
                if not message.get("more_body", False):
                    return None

    def disconnect(self) -> None:
        """Go away."""
        self._in_loop(self._go_away)

    def cancel(self) -> None:
        """Cancel the application's task."""
        self._in_loop(lambda: self._task and self._task.cancel())

    def send(self, text: str) -> None:
        """Send a text over the websocket."""
        self._in_loop(lambda: self._put({"type": "websocket.receive", "text": text}))

    def receive(self, timeout: float = PATIENCE) -> str | int:
        """Wait for a text, or for the code of the close."""
        message = self._outgoing.get(timeout=timeout)
        if message is None:
            return 1006
        if message["type"] == "websocket.close":
            return int(message.get("code", 1000))
        return str(message["text"])

    def close(self, timeout: float = PATIENCE) -> None:
        """Go away, and wait until the application has noticed."""
        self.disconnect()
        self._done.result(timeout)

    def wait_for_handshake(self) -> None:
        """Wait until the websocket is accepted or denied."""
        message = self._outgoing.get(timeout=PATIENCE)
        if message is None or message["type"] == "websocket.close":
            self.denial = Received(403) if message else self.result()
        elif message["type"] == "websocket.http.response.start":
            self.denial = self.result()

    # -- the server's side -------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run the application on this connection."""
        self._loop = asyncio.get_running_loop()
        self._incoming, self._gone = asyncio.Queue(), asyncio.Event()
        if self._kind == "websocket":
            self._incoming.put_nowait({"type": "websocket.connect"})
        else:
            self._incoming.put_nowait({"type": "http.request", "body": self._sent.body})
        task = self._task = asyncio.ensure_future(self._driver.app(self._scope(), self._receive, self._send))
        self._ready.set()
        error: BaseException | None = None
        try:
            await task
        except BaseException as problem:  # noqa: BLE001 - a server survives its applications
            error = problem
        self._driver.order_faults.extend(self._order.faults)
        self._done.set_result(self._received(error))
        self._outgoing.put(None)

    async def _receive(self) -> Message:
        assert self._incoming is not None
        assert self._gone is not None
        if not self._incoming.empty():
            return self._incoming.get_nowait()
        waiting = asyncio.ensure_future(self._incoming.get())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (waiting, gone):
                if not one.done():
                    one.cancel()
        if waiting.done() and not waiting.cancelled():
            return waiting.result()
        return {"type": f"{self._kind}.disconnect", "code": 1001}

    async def _send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if self._disconnected:
            if self._driver.spec_version >= "2.4":
                problem = "the client is gone"
                raise OSError(problem)
            return
        self._order.check(message)
        copied = dict(message)
        self.messages.append(copied)
        self._outgoing.put(copied)
        if self._order.finished and self._gone is not None:
            self._gone.set()

    def _in_loop(self, do: Callable[[], Any]) -> None:
        assert self._ready.wait(PATIENCE), "the application never began"
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(do)

    def _put(self, message: Message) -> None:
        if self._incoming is not None:
            self._incoming.put_nowait(message)

    def _go_away(self) -> None:
        self._disconnected = True
        if self._gone is not None:
            self._gone.set()

    def _received(self, error: BaseException | None) -> Received:
        start = next((one for one in self.messages if one["type"].endswith("response.start")), None)
        if start is None:
            return Received(500, error=error)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        bodies = [one.get("body", b"") for one in self.messages if one["type"].endswith("response.body")]
        if error is None and not self._order.finished and not self._disconnected:
            self._driver.order_faults.append("the application returned before its response was complete")
        return Received(start["status"], headers, b"".join(bodies), error)

    def _scope(self) -> Message:
        sent = self._sent
        scope: Message = {
            "type": self._kind,
            "asgi": {"version": "3.0", "spec_version": self._driver.spec_version},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": sent.scheme,
            "path": unquote(sent.path),
            "raw_path": sent.path.encode("ascii"),
            "query_string": sent.query.encode("ascii"),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent.headers],
            "client": (sent.peer, 50_000),
            "server": ("testserver", 443),
            "state": {},
        }
        if self._kind == "websocket":
            del scope["method"]
            scope["subprotocols"] = []
            scope["extensions"] = {"websocket.http.response": {}}
        return scope


class WsgiDriver:
    """Sends requests to a WSGI application, each in a thread of its own, through wsgiref.validate."""

    def __init__(self, app: Any, *, validate: bool = True, extra: MutableMapping[str, Any] | None = None) -> None:
        """Take the application, and what else the environ holds."""
        self.app = validator(app) if validate else app
        self.extra = dict(extra or {})
        self.faults: list[BaseException] = []

    def start(self, sent: Sent) -> WsgiRequest:
        """Begin a request."""
        request = WsgiRequest(self, sent)
        threading.Thread(target=request.serve, daemon=True).start()
        return request

    def connect(self, sent: Sent) -> Any:
        """Refuse: WSGI has no websockets."""
        message = "WSGI has no websockets"
        raise NotImplementedError(message)

    def close(self) -> None:
        """Fail for what broke the protocol."""
        assert self.faults == [], f"the WSGI protocol was broken: {self.faults}"


class WsgiRequest:
    """One request to a WSGI application: the server's side of it."""

    def __init__(self, driver: WsgiDriver, sent: Sent) -> None:
        """Take the request; nothing runs yet."""
        self.starts: list[tuple[str, list[tuple[str, str]]]] = []
        self.chunks: list[bytes] = []
        self._driver = driver
        self._sent = sent
        self._done: Future[Received] = Future()
        self._outgoing: queue.Queue[bytes | None] = queue.Queue()
        self._disconnected = False

    def result(self, timeout: float = PATIENCE) -> Received:
        """Wait for the end of the response."""
        return self._done.result(timeout)

    def chunk(self, timeout: float = PATIENCE) -> bytes | None:
        """Wait for the next part of the body; None is its end."""
        return self._outgoing.get(timeout=timeout)

    def disconnect(self) -> None:
        """Go away: a server notices when it writes the next chunk."""
        self._disconnected = True

    def cancel(self) -> None:
        """Refuse: threads are not cancelled."""
        message = "WSGI has no cancellation"
        raise NotImplementedError(message)

    def serve(self) -> None:
        """Run the application on this request."""
        error: BaseException | None = None
        iterable: Iterable[bytes] = ()
        try:
            iterable = self._driver.app(self._environ(), self._start_response)
            for chunk in iterable:
                assert self.starts, "a chunk came before start_response"
                if self._disconnected:
                    break
                self._write(chunk)
        except BaseException as problem:  # noqa: BLE001 - a server survives its applications
            error = problem
            if isinstance(problem, AssertionError):
                self._driver.faults.append(problem)
        try:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()
        except BaseException as problem:  # noqa: BLE001 - a server survives its applications
            error = error or problem
        status, headers = self.starts[-1] if self.starts else ("500 Internal Server Error", [])
        if error is not None and not self.chunks:
            status, headers = "500 Internal Server Error", []
        self._outgoing.put(None)
        self._done.set_result(Received(int(status[:3]), headers, b"".join(self.chunks), error))

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        if exc_info and self.chunks:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or not self.starts, "the server's start_response was called twice"
        self.starts.append((status, list(headers)))
        return self._write

    def _write(self, chunk: bytes) -> None:
        if chunk:
            self.chunks.append(chunk)
            self._outgoing.put(chunk)

    def _environ(self) -> dict[str, Any]:
        sent = self._sent
        environ: dict[str, Any] = {
            "REQUEST_METHOD": sent.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(sent.path, "latin-1"),
            "QUERY_STRING": sent.query,
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": sent.peer,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": sent.scheme,
            "wsgi.input": io.BytesIO(sent.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **self._driver.extra,
        }
        for name, value in sent.headers:
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            joint = "; " if key == "HTTP_COOKIE" else ","
            environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
        return environ


def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> None:
    """Wait until something is true that another thread makes true."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            message = "it did not become true in time"
            raise TimeoutError(message)
        time.sleep(0.002)
