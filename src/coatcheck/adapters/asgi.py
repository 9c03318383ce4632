"""Sessions for any ASGI application: pure ASGI, so streaming, background tasks and websockets stay what they are.

Response start is the first `http.response.start`, `websocket.accept` or denial that the application sends; what the
middleware does around it stands in docs/adapters.md. It decides nothing about sessions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack, overload

from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager
from ..core.model import Headers, Reply, Request
from ..core.session import Session, Typed
from ..core.settings import Keywords
from ..flow.async_ import AsyncExchange
from ..flow.async_store import AsyncStore
from .awaited import ENDED_CODE as ENDED_CODE  # noqa: PLC0414 - a name of ours, too
from .awaited import Awaited
from .watching import Watch

if TYPE_CHECKING:
    from ..flow.async_keys import AsyncKeys

T = TypeVar("T")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_KEY = "coatcheck"


class SessionMiddleware(Awaited):
    """Gives every request of an ASGI application its session, as `scope["session"]` and by `session_of`."""

    def __init__(
        self,
        app: App,
        *,
        store: str | AsyncStore | Any | None = None,
        manager: SessionManager | None = None,
        watch_every: float = 0.5,
        watch_recheck: float = 30.0,
        keys: AsyncKeys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Wrap an application; `store` is a URL ("sqlite:///sessions.db"), an async store, or None.

        None is for sealed tokens alone. `settings` are those of `Settings`, or `manager` brings them. `keys`: where the
        sealed tokens' keyring is kept in a store, so that it follows rotations. An open websocket
        or event stream looks at its session when the store tells of a change, and every `watch_recheck` seconds; where
        the store cannot tell, every `watch_every` seconds. Raises ConfigError for what is unsafe; opens nothing.
        """
        super().__init__(
            store=store, manager=manager, watch_every=watch_every, watch_recheck=watch_recheck, keys=keys, **settings
        )
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        serve = _SERVERS.get(scope["type"])
        if serve is None:
            await (self._lifespan if scope["type"] == "lifespan" else self.app)(scope, receive, send)
            return
        outer = scope.get(_KEY)
        if outer is not None and outer.middleware.name == self.name:
            await self.app(scope, receive, send)  # the same middleware around us: its exchange is this request's
            return
        request = request_of(scope)
        if self._excludes is not None and self._excludes(request.path):
            reply = self.manager.screen(request)
            await (self.app(scope, receive, send) if reply is None else _refuse(scope, send, reply))
            return
        exchange = self.exchange
        session = await exchange.begin(request)
        if isinstance(session, Reply):
            await _refuse(scope, send, session)
            return
        before = None if outer is None else scope["session"]
        scope["session"] = session
        scope[_KEY] = connection = serve(self, session, scope, receive, send)
        try:
            await self.app(scope, connection.receive, connection.send)
        except Refusal as refusal:
            if session.settled:
                raise
            await connection.refuse(refusal.reply)
        except Exception as error:
            if connection.watch is None or not connection.watch.caused(error):
                raise
        finally:
            if outer is not None:
                scope["session"], scope[_KEY] = before, outer
            if connection.watch is not None:
                await connection.watch.stop()
            if session.visit.outcome is None:
                await exchange.abandon(session)
            elif not exchange.is_closed(session):
                await exchange.close(session)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing_send(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await self.shut()
            await send(message)

        await self.app(scope, receive, closing_send)


class RequireLogin:
    """Guards an application, or a part of one: 401, or the way to the login page, unless somebody is logged in.

    It stands inside of SessionMiddleware, which answers; a websocket is denied before it is accepted.
    """

    def __init__(
        self, app: App, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
    ) -> None:
        """Ask for an authentication not older than `within` (seconds), or at least of a `Level`.

        `fresh`: of a session that was read from the store itself for this request, not from a near copy.
        """
        self.app = app
        self._within, self._level, self._fresh = within, level, fresh

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in _SERVERS:
            await logged_in(scope, within=self._within, level=self._level, fresh=self._fresh)
        await self.app(scope, receive, send)


async def logged_in(
    request: Any, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Session:
    """Return the session of a request as `Session.require_login` wants it, or raise Refusal; every guard asks here."""
    session = session_of(request)
    if fresh:
        await exchange_of(request).confirm(session)
    session.require_login(within=within, level=level)
    return session


class Http:
    """One HTTP exchange, left in the scope with its session: settles at its start, ends with its session."""

    __slots__ = ("_complete", "_receive", "_replaced", "_send", "middleware", "session", "watch")

    def __init__(
        self, middleware: SessionMiddleware, session: Session, _scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Stand between an application and its server."""
        self.middleware = middleware
        self.session = session
        self._receive = receive
        self._send = send
        self._replaced = self._complete = False
        self.watch: Watch | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; the start of the response waits for the commit."""
        if message["type"] == "http.response.start":
            headers = self.middleware.exchange.finish_read(self.session, message["status"], message.get("headers", ()))
            return self._finish(message) if headers is None else self._started(message, headers)
        if self._replaced:
            return _nothing()
        if self.watch is not None:
            if self.watch.reason is not None:
                raise StreamEnded(self.watch.reason)
            self._complete = not message.get("more_body", False)
        return self._send(message)

    async def _finish(self, message: Message) -> None:
        answer = await self.middleware.exchange.finish(self.session, message["status"], message.get("headers", ()))
        if isinstance(answer, Reply):
            self._replaced = True
            await _send_reply(self._send, answer, "http.response")
            return
        await self._started(message, answer)

    def _started(self, message: Message, headers: Headers) -> Awaitable[None]:
        if self.session.visit.record is not None and _is_event_stream(headers):
            self.watch = self.middleware.watching.over(self.session, self._end)
        return self._send({**message, "headers": headers})  # a copy: a cache inside of us may keep what it sent

    async def receive(self) -> Message:
        """Return the next message of the client; a stream whose session ended looks disconnected."""
        if self.watch is None:
            return await self._receive()
        return await self.watch.receive(self._receive, {"type": "http.disconnect"})

    async def refuse(self, reply: Reply) -> None:
        """Answer with a refusal that the application raised."""
        await _send_reply(self.send, reply, "http.response")

    async def _end(self, _reason: str) -> None:
        if not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class WebSocket:
    """One websocket, left in the scope with its session: settles at the handshake's answer, closes with its session."""

    __slots__ = ("_receive", "_replaced", "_scope", "_send", "middleware", "session", "watch")

    def __init__(
        self, middleware: SessionMiddleware, session: Session, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Stand between an application and its server."""
        self.middleware = middleware
        self.session = session
        self._scope = scope
        self._receive = receive
        self._send = send
        self._replaced = False
        self.watch: Watch | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on; acceptance and denial wait for the commit."""
        kind, session = message["type"], self.session
        if kind in _HANDSHAKE_ANSWERS and not session.settled:
            status = {"websocket.accept": 101, "websocket.close": 403}.get(kind) or message["status"]
            answer = await self.middleware.exchange.finish(session, status, message.get("headers", ()))
            if isinstance(answer, Reply):
                self._replaced = True
                await _refuse(self._scope, self._send, answer)
                return
            await self._send(message if kind == "websocket.close" else {**message, "headers": answer})
            if kind == "websocket.accept" and session.visit.record is not None:
                self.watch = self.middleware.watching.over(session, self._close)
            return
        if not self._replaced and (self.watch is None or self.watch.reason is None):
            await self._send(message)

    async def receive(self) -> Message:
        """Return the next message of the client; a socket whose session ended looks disconnected."""
        if self.watch is None:
            return await self._receive()
        return await self.watch.receive(self._receive, {"type": "websocket.disconnect", "code": ENDED_CODE})

    async def refuse(self, reply: Reply) -> None:
        """Deny the handshake with a refusal that the application raised."""
        if _can_deny(self._scope):
            await _send_reply(self.send, reply, "websocket.http.response")
        else:
            await self.send({"type": "websocket.close", "code": 1008})

    async def _close(self, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": ENDED_CODE, "reason": f"session ended: {reason}"})


_SERVERS: dict[str, type[Http | WebSocket]] = {"http": Http, "websocket": WebSocket}
_HANDSHAKE_ANSWERS = ("websocket.accept", "websocket.close", "websocket.http.response.start")


class StreamEnded(OSError):  # noqa: N818 - to an application it is its client's leaving
    """The session of this stream ended, and the stream with it: nothing more can be sent."""


@overload
def session_of(request: Any) -> Session: ...
@overload
def session_of(request: Any, kind: type[T]) -> Typed[T]: ...
def session_of(request: Any, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request (an ASGI scope, or anything with a `scope`), or its data as one typed value.

    Raises ConfigError where there is none: no SessionMiddleware around the application, or an excluded path.
    """
    session = _connection_of(request).session
    return session if kind is None else session.as_type(kind)


def exchange_of(request: Any) -> AsyncExchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return _connection_of(request).middleware.exchange


def _connection_of(request: Any) -> Http | WebSocket:
    scope = getattr(request, "scope", request)
    connection = scope.get(_KEY)
    if isinstance(connection, Http | WebSocket):
        return connection
    message = (
        f"there is no session on {scope.get('path', 'this connection')}: is SessionMiddleware installed around the "
        "application (a plugin begins with the lifespan: use a test client in a `with` block), and is the path not one "
        "of exclude=[...]?"
    )
    raise ConfigError(message)


def request_of(scope: Scope) -> Request:
    """Return a scope as the manager sees a request."""
    client = scope.get("client")
    return Request(
        scope.get("method", "GET"),
        scope.get("scheme", "http"),
        scope["path"],
        scope["headers"],
        scope["query_string"].decode("latin-1") if scope.get("query_string") else "",
        client[0] if client else None,
        scope["type"],
    )


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-type":  # names are lower case in ASGI
            return value.lower().startswith(b"text/event-stream")
    return False


async def _nothing() -> None:
    """Send nothing."""


def _can_deny(scope: Scope) -> bool:
    return "websocket.http.response" in scope.get("extensions", {})


async def _refuse(scope: Scope, send: Send, reply: Reply) -> None:
    """Answer in the application's place."""
    if scope["type"] == "http":
        await _send_reply(send, reply, "http.response")
    elif _can_deny(scope):
        await _send_reply(send, reply, "websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": 1008})


async def _send_reply(send: Send, reply: Reply, prefix: str) -> None:
    headers: Headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
    await send({"type": f"{prefix}.start", "status": reply.status, "headers": headers})
    # Quart's test client, from 0.23 on, asks for what is the default
    await send({"type": f"{prefix}.body", "body": reply.body, "more_body": False})
