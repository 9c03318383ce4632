"""A driver over real sockets: a framework's own server on a loopback port, and a strict client of HTTP and websockets.

The server runs on an event loop in a thread of its own. A request carries a ticket in a header; the served application
tells `done` when it has finished with it, so that a test can wait for what happens behind a response. Tests visit
https://testserver from 192.0.2.7: how a server learns of scheme and peer without TLS is for each `Server` to say.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol

from coatcheck.testing.browser import PATIENCE, Received, Sent

TICKET = "x-probe-ticket"


class Server(Protocol):
    """A framework's own server."""

    def head(self, sent: Sent) -> tuple[bytes, list[tuple[str, str]]]:
        """Return what tells the server of scheme and peer: bytes before the request, and headers in it."""
        ...

    async def start(self, done: Callable[[str], None]) -> int:
        """Listen on a free port and return it; call `done` with a request's ticket when it is over."""
        ...

    async def stop(self) -> None:
        """Stop."""
        ...


class LoopbackDriver:
    """Sends each request over a new connection to a framework's own server."""

    def __init__(self, server: Server) -> None:
        """Start the server."""
        self.server = server
        self.faults: list[str] = []
        self.loop_errors: list[str] = []
        self._tickets = itertools.count()
        self._done: dict[str, threading.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(repr(context)))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = self.run(server.start(self._finished))

    def start(self, sent: Sent) -> "Exchange":
        """Begin a request."""
        exchange = Exchange(self, sent, self.ticket())
        threading.Thread(target=exchange.serve, daemon=True).start()
        return exchange

    def connect(self, sent: Sent) -> "Socket":
        """Open a websocket; return when it is accepted or denied."""
        return Socket(self, sent, self.ticket())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def close(self) -> None:
        """Stop the server; fail for what broke the protocol or was left behind on its loop."""
        self.run(self.server.stop())
        self.run(_cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        assert self.faults == [], "the HTTP protocol was broken"
        assert self.loop_errors == [], f"the event loop was told of errors that nobody took: {self.loop_errors}"

    def ticket(self) -> str:
        """Return a new ticket; its event is there before the server can hear of it."""
        ticket = str(next(self._tickets))
        self._done[ticket] = threading.Event()
        return ticket

    def _finished(self, ticket: str) -> None:
        if ticket in self._done:  # a request by hand has none
            self._done[ticket].set()

    def wait(self, ticket: str, timeout: float) -> None:
        """Wait until the application has finished with a request."""
        if not self._done[ticket].wait(timeout):
            message = "the application did not finish in time"
            raise TimeoutError(message)

    def dial(self, sent: Sent, ticket: str, extra: list[tuple[str, str]]) -> socket.socket:
        """Connect and send a request."""
        preface, told = self.server.head(sent)
        lines = [f"{sent.method} {sent.target.replace(' ', '%20')} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in [*sent.headers, *told, (TICKET, ticket), *extra]]
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection.sendall(preface + "\r\n".join([*lines, "", ""]).encode("latin-1") + sent.body)
        return connection


def is_malformed(sent: Sent) -> bool:
    """Tell whether a server may refuse a request before any application hears of it: NUL is no text (RFC 9110 5.5)."""
    return any("\0" in value for _, value in sent.headers)


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


class Exchange:
    """One request over a connection of its own: the client's side of it."""

    def __init__(self, driver: LoopbackDriver, sent: Sent, ticket: str) -> None:
        """Take the request; nothing is sent yet."""
        self._driver, self._sent, self._ticket = driver, sent, ticket
        self._refused = False
        self._done: Future[Received] = Future()
        self._chunks: queue.Queue[bytes | None] = queue.Queue()
        self._connected = threading.Event()
        self._connection: socket.socket | None = None
        self._left = False

    def result(self, timeout: float = PATIENCE) -> Received:
        """Wait for the end of the response, and of what the application does behind it."""
        answer = self._done.result(timeout)
        if not self._refused:
            self._driver.wait(self._ticket, timeout)
        return answer

    def chunk(self, timeout: float = PATIENCE) -> bytes | None:
        """Wait for the next part of the body; None is its end."""
        return self._chunks.get(timeout=timeout)

    def disconnect(self) -> None:
        """Go away."""
        self._left = True
        assert self._connected.wait(PATIENCE)
        assert self._connection is not None
        with contextlib.suppress(OSError):  # the response may have ended a moment ago
            self._connection.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        """Refuse: what a server cancels is its own affair."""
        message = "a client cannot cancel"
        raise NotImplementedError(message)

    def serve(self) -> None:
        """Send the request and read the response."""
        answer = Received(500)
        try:
            with self._driver.dial(self._sent, self._ticket, [("connection", "close")]) as connection:
                self._connection = connection
                self._connected.set()
                with connection.makefile("rb") as stream:
                    answer = read(stream, self._sent.method, self._chunks.put)
            self._refused = answer.status == 400 and is_malformed(self._sent)
        except (OSError, ValueError) as problem:
            if is_malformed(self._sent):
                answer, self._refused = Received(400), True
            elif not self._left:
                answer.error = problem
                self._driver.faults.append(f"{self._sent.method} {self._sent.target}: {problem!r}")
        self._chunks.put(None)
        self._done.set_result(answer)


def read(stream: Any, method: str, chunk: Callable[[bytes], None], *, last: bool = True) -> Received:
    """Read one response, strictly; behind the `last` one nothing may come."""
    line = stream.readline()
    if not line.startswith(b"HTTP/1.1 "):
        message = f"no response came (found {line!r})"
        raise ValueError(message)
    headers: list[tuple[str, str]] = []
    while (header := stream.readline()) not in (b"\r\n", b""):
        name, _, value = header.decode("latin-1").rstrip("\r\n").partition(":")
        headers.append((name, value.strip()))
    answer = Received(int(line.split()[1]), headers)
    if answer.status == 101 or answer.status in (204, 304) or method == "HEAD":
        return answer
    parts: list[bytes] = []
    if answer.header("transfer-encoding") == "chunked":
        assert answer.header("content-length") is None, "a length, and chunks"
        while size := int(stream.readline(), 16):
            parts.append(_exactly(stream, size))
            chunk(parts[-1])
            stream.readline()
        stream.readline()
    elif (length := answer.header("content-length")) is not None:
        parts.append(_exactly(stream, int(length)))
        if last and stream.read(1):
            message = "more came than the response said"
            raise ValueError(message)
    else:
        parts.append(stream.read())
    answer.body = b"".join(parts)
    return answer


def _exactly(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) != size:
        message = f"the response broke off ({len(data)} of {size} bytes)"
        raise ValueError(message)
    return data


class Socket:
    """One websocket (RFC 6455): the client's side of it."""

    def __init__(self, driver: LoopbackDriver, sent: Sent, ticket: str) -> None:
        """Shake hands."""
        self.denial: Received | None = None
        self._driver, self._ticket = driver, ticket
        key = base64.b64encode(os.urandom(16)).decode()
        asking = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
        self._connection = driver.dial(sent, ticket, [*asking, ("sec-websocket-key", key)])
        self._stream = self._connection.makefile("rb")
        answer = read(self._stream, sent.method, lambda _: None, last=False)
        if answer.status != 101:
            self.denial = answer
            self._shut()

    def send(self, text: str) -> None:
        """Send a text."""
        self._frame(1, text.encode())

    def receive(self, timeout: float = PATIENCE) -> str | int:
        """Wait for a text, or for the code of the close."""
        self._connection.settimeout(timeout)
        while True:
            head = self._stream.read(2)
            if len(head) < 2:
                return 1006
            size = head[1] & 127
            if size == 126:
                (size,) = struct.unpack("!H", self._stream.read(2))
            data = self._stream.read(size)
            kind = head[0] & 15
            if kind == 8:
                self._frame(8, data)
                self._shut()
                return int.from_bytes(data[:2], "big") if data else 1005
            if kind == 1:
                return str(data, "utf-8")

    def close(self, timeout: float = PATIENCE) -> None:
        """Go away, and wait until the application has noticed."""
        if self._connection.fileno() >= 0:
            self._frame(8, struct.pack("!H", 1001))
            self._shut()
        self._driver.wait(self._ticket, timeout)

    def _frame(self, kind: int, data: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        self._connection.sendall(bytes((128 | kind, 128 | len(data))) + mask + masked)

    def _shut(self) -> None:
        self._stream.close()
        self._connection.close()
