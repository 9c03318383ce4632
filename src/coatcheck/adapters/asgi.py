"""Sessions for any ASGI application: pure ASGI, so streaming, background tasks and websockets stay what they are.

Response start is the first `http.response.start`, `websocket.accept` or denial that the application sends; what the
middleware does around it stands in docs/adapters.md. It decides nothing about sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias, TypeVar, Unpack, overload

from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager
from ..core.model import Headers, Reply, Request
from ..core.session import Session, Typed
from ..core.settings import Keywords
from ..flow.async_ import AsyncExchange, AsyncStore
from ..stores.faces import async_store_of

T = TypeVar("T")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

ENDED_CODE = 4401
"""The close code of a websocket whose session ended."""

_KEY = "coatcheck"


class Context:
    """What the middleware left in the scope: the session of this request, and its exchange."""

    __slots__ = ("exchange", "name", "session")

    def __init__(self, exchange: AsyncExchange, session: Session, name: str) -> None:
        """Keep our own references: an application may put another mapping into scope["session"]."""
        self.exchange = exchange
        self.session = session
        self.name = name


class SessionMiddleware:
    """Gives every request of an ASGI application its session, as `scope["session"]` and by `session_of`."""

    def __init__(
        self,
        app: App,
        *,
        store: str | AsyncStore | Any,
        manager: SessionManager | None = None,
        watch_every: float = 0.5,
        **settings: Unpack[Keywords],
    ) -> None:
        """Wrap an application; `store` is a URL ("sqlite:///sessions.db") or an async store.

        `settings` are those of `Settings`, or `manager` brings them. `watch_every`: seconds between two looks at the
        session of an open websocket or event stream. Raises ConfigError for what is unsafe; opens nothing.
        """
        if manager is not None and settings:
            message = f"give the manager or settings, not both (found {', '.join(sorted(settings))})"
            raise ConfigError(message)
        self.app = app
        self.manager = manager or SessionManager(**settings)
        self.store = async_store_of(store)
        self.exchange = AsyncExchange(self.manager, self.store)
        self._owns = isinstance(store, str)
        self._watch_every = watch_every
        self._name = self.manager.cookie.name
        self._excludes = self.manager.excludes if self.manager.settings.exclude else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "http":
            await self._serve(scope, receive, send, self._http)
        elif kind == "websocket":
            await self._serve(scope, receive, send, self._websocket)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, serve: Callable[..., Awaitable[None]]) -> None:
        outer = scope.get(_KEY)
        if outer is not None and outer.name == self._name:
            await self.app(scope, receive, send)  # the same middleware around us: its exchange is this request's
            return
        request = _request(scope)
        if self._excludes is not None and self._excludes(request.path):
            reply = self.manager.screen(request)
            if reply is None:
                await self.app(scope, receive, send)
            else:
                await _refuse(scope, send, reply)
            return
        session = await self.exchange.begin(request)
        if isinstance(session, Reply):
            await _refuse(scope, send, session)
            return
        before = scope.get("session")
        scope["session"] = session
        scope[_KEY] = Context(self.exchange, session, self._name)
        try:
            await serve(scope, receive, send, session)
        finally:
            if outer is not None:
                scope["session"], scope[_KEY] = before, outer

    async def _http(self, scope: Scope, receive: Receive, send: Send, session: Session) -> None:
        exchange = self.exchange
        replaced = False
        watch: Watch | None = None

        async def settled_send(message: Message) -> None:
            nonlocal replaced, watch
            if message["type"] == "http.response.start":
                answer = await exchange.finish(session, message["status"], message.get("headers", ()))
                if isinstance(answer, Reply):
                    replaced = True
                    await _send_reply(send, answer, "http.response")
                    return
                message["headers"] = answer
                if session.visit.record is not None and _is_event_stream(answer):
                    watch = Watch(self, session)
            elif replaced:
                return
            elif watch is not None and watch.reason is not None:
                error = f"the session of this stream ended: {watch.reason}"
                raise OSError(error)
            await send(message)

        async def watched_receive() -> Message:
            if watch is None:
                return await receive()
            return await watch.receive(receive, {"type": "http.disconnect"})

        async def end_stream() -> None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await self._run(scope, watched_receive, settled_send, session, "http.response")
        except OSError:
            if watch is None or watch.reason is None:
                raise
            await end_stream()
        finally:
            if watch is not None:
                watch.stop()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, session: Session) -> None:
        exchange = self.exchange
        watch: Watch | None = None
        replaced = False

        async def close_ended(reason: str) -> None:
            await send({"type": "websocket.close", "code": ENDED_CODE, "reason": f"session ended: {reason}"})

        async def settled_send(message: Message) -> None:
            nonlocal watch, replaced
            kind = message["type"]
            if kind in ("websocket.accept", "websocket.http.response.start"):
                status = 101 if kind == "websocket.accept" else message["status"]
                answer = await exchange.finish(session, status, message.get("headers", ()))
                if isinstance(answer, Reply):
                    replaced = True
                    await _refuse(scope, send, answer)
                    return
                message["headers"] = answer
                await send(message)
                if kind == "websocket.accept" and session.visit.record is not None:
                    watch = Watch(self, session, close_ended)
                return
            if kind == "websocket.close" and session.visit.outcome is None:
                await exchange.finish(session, 403, ())
            if not replaced and (watch is None or watch.reason is None):
                await send(message)

        async def watched_receive() -> Message:
            if watch is None:
                return await receive()
            return await watch.receive(receive, {"type": "websocket.disconnect", "code": ENDED_CODE})

        try:
            await self._run(scope, watched_receive, settled_send, session, "websocket.http.response")
        finally:
            if watch is not None:
                watch.stop()

    async def _run(self, scope: Scope, receive: Receive, send: Send, session: Session, prefix: str) -> None:
        """Run the application and see its exchange to an end, whatever becomes of it."""
        try:
            await self.app(scope, receive, send)
        except Refusal as refusal:
            if session.visit.outcome is not None:
                raise
            if prefix == "websocket.http.response" and not _can_deny(scope):
                await send({"type": "websocket.close", "code": 1008})
            else:
                await _send_reply(send, refusal.reply, prefix)
        except BaseException:
            if session.visit.outcome is None:
                await self.exchange.abandon(session)
            else:
                await self.exchange.close(session)
            raise
        if session.visit.outcome is None:
            await self.exchange.abandon(session)
        else:
            await self.exchange.close(session)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing_send(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await self.exchange.flush()
                if self._owns:
                    await self.store.close()
            await send(message)

        await self.app(scope, receive, closing_send)


class Watch:
    """Looks at the session of an open connection until it is over; then the connection is, too."""

    def __init__(
        self,
        middleware: SessionMiddleware,
        session: Session,
        at_end: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Start looking."""
        self.reason: str | None = None
        self._exchange = middleware.exchange
        self._session = session
        self._every = middleware._watch_every  # noqa: SLF001 - the same room
        self._at_end = at_end
        self._ended = asyncio.Event()
        self._pending: asyncio.Future[Message] | None = None
        self._task = asyncio.create_task(self._look())

    async def receive(self, receive: Receive, ending: Message) -> Message:
        """Return the next message, or `ending` once the session is over."""
        if self.reason is not None:
            return ending
        if self._pending is None:
            self._pending = asyncio.ensure_future(receive())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((self._pending, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not self._pending.done():
            return ending
        message, self._pending = self._pending.result(), None
        return message

    def stop(self) -> None:
        """Stop looking."""
        self._task.cancel()
        if self._pending is not None:
            self._pending.cancel()

    async def _look(self) -> None:
        while self.reason is None:
            await asyncio.sleep(self._every)
            self.reason = await self._exchange.reason_over(self._session)
        if self._at_end is not None:
            await self._at_end(self.reason)
        self._ended.set()


@overload
def session_of(request: Any) -> Session: ...
@overload
def session_of(request: Any, kind: type[T]) -> Typed[T]: ...
def session_of(request: Any, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request (an ASGI scope, or anything with a `scope`), or its data as one typed value.

    Raises ConfigError where there is none: no SessionMiddleware around the application, or an excluded path.
    """
    session = context_of(request).session
    return session if kind is None else session.as_type(kind)


def exchange_of(request: Any) -> AsyncExchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return context_of(request).exchange


def context_of(request: Any) -> Context:
    """Return what the middleware left in the scope, or raise ConfigError."""
    scope = getattr(request, "scope", request)
    context = scope.get(_KEY)
    if isinstance(context, Context):
        return context
    message = (
        f"there is no session on {scope.get('path', 'this connection')}: is SessionMiddleware installed around the "
        "application, and is the path not one of exclude=[...]?"
    )
    raise ConfigError(message)


def _request(scope: Scope) -> Request:
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
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers
    )


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
    await send({"type": f"{prefix}.body", "body": reply.body})
