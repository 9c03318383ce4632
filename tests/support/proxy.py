"""A troublesome network for the tests: a TCP proxy between a client and a server; its troubles are switched on and off.

    with Proxy("127.0.0.1", server.port) as network:
        store = RedisStore(network.url(server.url))
        network.lose_answer()                # the next request arrives, its answer does not
        ...
        network.heal()

Lasting    delay, swallow (a black hole), refuse; heal ends them
At once    cut
Armed      lose_answer, hush_answer, tear_request, tear_answer: each for one request, the next or one after it

Rules
- It understands no protocol: a request is what the client sends in one go, an answer what comes back after it.
- It never lets later bytes pass where earlier ones were swallowed: a connection that lost some is dark from then on.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

Armed: TypeAlias = Literal["lose answer", "hush answer", "tear request", "tear answer"]

PORTS = range(10000, 11000)
"""Below the ports that systems hand to clients: after `refuse` nobody else has ours."""

_CHUNK = 1 << 18
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a port of the loopback and passes everything on to one server, as well as it is told to."""

    def __init__(self, host: str, port: int) -> None:
        """Start listening."""
        self._target = (host, port)
        self._delays = (0.0, 0.0)
        self._dark = False
        self._armed: tuple[Armed, int] | None = None
        self._pairs: set[_Pair] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self.fired = 0
        """How many armed troubles happened."""
        self.requests = 0
        """How many requests came in."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = self._do(self._first_port())

    def url(self, url: str) -> str:
        """Return a server's URL with the proxy's address in place of the server's own."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._pairs)

    # Lasting troubles.

    def delay(self, up: float, down: float | None = None) -> None:
        """Hold back what goes up to the server and what comes down from it, in seconds."""
        self._delays = (up, up if down is None else down)

    def swallow(self) -> None:
        """Be a black hole: accept connections and bytes, and pass nothing on."""
        self._dark = True

    def refuse(self) -> None:
        """Reset what is connected and refuse to be connected to."""
        self._do(self._refuse())

    def heal(self, *, dark_too: bool = True) -> None:
        """End all troubles. Connections that lost bytes are reset; else they stay dark, as behind a bad router."""
        self._delays, self._dark, self._armed = (0.0, 0.0), False, None
        self._do(self._heal(dark_too=dark_too))

    # Troubles of a moment.

    def cut(self) -> None:
        """Reset every connection."""
        self._do(self._cut())

    def lose_answer(self, after: int = 0) -> None:
        """Let the next request (or one `after` more) reach the server, and reset when its answer comes."""
        self._armed = ("lose answer", after)

    def hush_answer(self, after: int = 0) -> None:
        """Let a request reach the server, and never say anything on its connection again."""
        self._armed = ("hush answer", after)

    def tear_request(self, after: int = 0) -> None:
        """Let half of a request reach the server, and reset."""
        self._armed = ("tear request", after)

    def tear_answer(self, after: int = 0) -> None:
        """Let half of a request's answer come back, and reset."""
        self._armed = ("tear answer", after)

    def disarm(self) -> bool:
        """Take back what is armed; return whether it had not happened."""
        armed, self._armed = self._armed, None
        return armed is not None

    # Life.

    def close(self) -> None:
        """Reset what is connected, and end."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.close()

    def _do(self, act: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(act, self._loop).result(5)

    async def _first_port(self) -> int:
        for port in random.sample(PORTS, 100):
            with suppress(OSError):
                await self._listen(port)
                return port
        message = f"no free port found between {PORTS.start} and {PORTS.stop}; expected some hundred"
        raise OSError(message)

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_CHUNK, backlog=512)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _end(self) -> None:
        await self._refuse()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _heal(self, *, dark_too: bool) -> None:
        if dark_too:
            await self._cut(lambda pair: pair.dark)
        if self._server is None:
            await self._listen(self.port)

    async def _cut(self, which: Callable[[_Pair], bool] = lambda _: True) -> None:
        for pair in [pair for pair in self._pairs if which(pair)]:
            pair.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(reader, writer)
        self._pairs.add(pair)
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        try:
            if self._dark:
                pair.dark = True
                await pair.swallow()
                return
            await pair.connect(*self._target)
            await pair.both(self._up(pair), self._down(pair))
        except OSError:
            pair.reset()
        finally:
            self._pairs.discard(pair)
            self._serving.discard(serving)
            pair.close()

    async def _up(self, pair: _Pair) -> None:
        """Pass requests on."""
        while chunk := await pair.client[0].read(_CHUNK):
            if await self._held(pair, self._delays[0]):
                continue
            self.requests += 1
            pair.trouble = self._trouble() or pair.trouble
            if pair.trouble == "tear request":
                await _send(pair.server[1], chunk[: len(chunk) // 2])
                pair.reset()
                return
            await _send(pair.server[1], chunk)

    async def _down(self, pair: _Pair) -> None:
        """Pass answers on."""
        while chunk := await pair.server[0].read(_CHUNK):
            if await self._held(pair, self._delays[1]):
                continue
            if pair.trouble == "hush answer":
                pair.dark = True
            elif pair.trouble == "lose answer":
                pair.reset()
                return
            elif pair.trouble == "tear answer":
                await _send(pair.client[1], chunk[: len(chunk) // 2])
                # a reset would overtake, and erase, what the client has not read yet
                await asyncio.sleep(0.005)
                pair.reset()
                return
            else:
                await _send(pair.client[1], chunk)

    async def _held(self, pair: _Pair, delay: float) -> bool:
        """Wait as long as told; return whether the bytes are swallowed."""
        if delay:
            await asyncio.sleep(delay)
        pair.dark = pair.dark or self._dark
        return pair.dark

    def _trouble(self) -> Armed | None:
        """Return the trouble of the request that has just come."""
        if self._armed is None:
            return None
        kind, after = self._armed
        if after:
            self._armed = (kind, after - 1)
            return None
        self._armed = None
        self.fired += 1
        return kind


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = (reader, writer)
        self.server = (reader, writer)
        self.dark = False
        self.trouble: Armed | None = None
        self._ends = {writer}

    async def connect(self, host: str, port: int) -> None:
        self.server = await asyncio.open_connection(host, port, limit=_CHUNK)
        self._ends.add(self.server[1])

    async def swallow(self) -> None:
        while await self.client[0].read(_CHUNK):
            pass

    async def both(self, *pumps: Coroutine[Any, Any, None]) -> None:
        """Pump in both directions until one side is done."""
        running = [asyncio.ensure_future(pump) for pump in pumps]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def reset(self) -> None:
        """End both connections the hard way: who reads or writes next gets "connection reset"."""
        for writer in self._ends:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def close(self) -> None:
        for writer in self._ends:
            writer.close()


async def _send(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    writer.write(chunk)
    await writer.drain()
