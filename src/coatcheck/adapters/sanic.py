"""Sessions for Sanic: `Coatcheck(app, store=...)`, `request.ctx.session`, and `session_of(request)`, typed.

A session begins in the first request middleware. It is settled in `request.respond`, which every response passes, be it
returned, streamed or an error page, when all response middleware has run: one that raises, or that returns a response,
would skip ours. What is written after that is committed when the handler is done (by Sanic's signals), or, where the
client left, when its task is.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from urllib.parse import unquote

from sanic import Request, Sanic
from sanic.compat import Header
from sanic.exceptions import ServerError
from sanic.http import Stage
from sanic.response import BaseHTTPResponse, HTTPResponse

from ..core import model
from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager
from ..core.model import Reply
from ..core.session import Session, Typed
from ..core.settings import Keywords
from ..flow.async_ import AsyncExchange
from ..flow.async_store import AsyncStore
from .awaited import ENDED_CODE, Awaited
from .watching import Watch

if TYPE_CHECKING:
    from ..flow.async_keys import AsyncKeys

T = TypeVar("T")
View = TypeVar("View", bound=Callable[..., Any])

__all__ = ["Coatcheck", "exchange_of", "refusal_response", "require_login", "session_of"]

_REFUSED, _AWAY = 1008, 1013
"""Close codes of a websocket: nobody is logged in; the store did not take what the handshake left."""


class Coatcheck(Awaited):
    """The extension: `Coatcheck(app, store=...)`, or `init_app(app)` in a factory, for any number of applications."""

    def __init__(
        self,
        app: Sanic[Any, Any] | None = None,
        *,
        store: str | AsyncStore | Any | None = None,
        manager: SessionManager | None = None,
        watch_every: float = 0.5,
        watch_recheck: float = 30.0,
        keys: AsyncKeys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Take what `asgi.SessionMiddleware` takes. Raises ConfigError for what is unsafe; opens nothing."""
        super().__init__(
            store=store, manager=manager, watch_every=watch_every, watch_recheck=watch_recheck, keys=keys, **settings
        )
        self.ending: set[asyncio.Task[None]] = set()
        self._cookie = f"{self.name}="
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Sanic[Any, Any]) -> None:
        """Give an application its sessions, before it starts. Raises ConfigError where it has some already."""
        if hasattr(app.ctx, "coatcheck"):
            message = f"{app.name!r} has its sessions already; call init_app once for each application"
            raise ConfigError(message)
        app.ctx.coatcheck = self
        served = app.request_class or Request
        app.request_class = type(served.__name__, (SettlingRequest, served), {"__slots__": ()})
        app.register_middleware(self._begin, "request", priority=sys.maxsize)
        app.add_signal(_handled, "http.lifecycle.response")
        app.add_signal(_failed, "http.lifecycle.exception")
        app.add_signal(_left, "http.handler.after")
        app.add_signal(_connected, "websocket.handler.before")
        app.register_listener(_answer_refusals, "before_server_start")
        app.register_listener(self.shut, "after_server_stop")

    async def _begin(self, request: Request[Any, Any]) -> HTTPResponse | None:
        if not isinstance(request, SettlingRequest):
            message = f"request_class was changed to {type(request).__qualname__} after Coatcheck; set it before"
            raise ConfigError(message)
        if request.visitor is not None:  # Sanic runs its middleware again for some errors
            return None
        asked = request_of(request)
        if self._excludes is not None and self._excludes(asked.path):
            refused = self.manager.screen(asked)
            return None if refused is None else Answer(refused)
        session = await self.exchange.begin(asked)
        if isinstance(session, Reply):
            return Answer(session)
        request.ctx.session = session
        request.visitor = Visitor(self, session)
        return None

    def without_ours(self, response: BaseHTTPResponse) -> None:
        """Take our cookie off a response object that was sent before, to somebody else maybe."""
        cookies = response.headers.getall("set-cookie", ())
        if any(str(one).startswith(self._cookie) for one in cookies) and not isinstance(response, Answer):
            del response.headers["set-cookie"]
            for one in cookies:
                if not str(one).startswith(self._cookie):
                    response.headers.add("set-cookie", one)

    async def shut(self, _app: object = None) -> None:
        """Wait for those who left, too."""
        await asyncio.gather(*self.ending, return_exceptions=True)
        await super().shut()


class Visitor:
    """The session of one request or websocket on its way through Sanic."""

    __slots__ = ("_over", "_task", "coatcheck", "is_socket", "session", "watch")

    def __init__(self, coatcheck: Coatcheck, session: Session) -> None:
        """Begin in the task that serves the request; where that ends early, the session does, too."""
        self.coatcheck = coatcheck
        self.session = session
        self.watch: Watch | None = None
        self.is_socket = self._over = False
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        if self._task is not None:
            self._task.add_done_callback(self._left)

    async def settle(self, request: Request[Any, Any], response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Commit, and return the response with its headers, or what replaces it."""
        exchange, session = self.coatcheck.exchange, self.session
        if request.conn_info is not None and request.conn_info.lost:
            await exchange.abandon(session)
            return response
        self.coatcheck.without_ours(response)
        kept = {_raw(name, value): value for name, value in response.headers.items()}
        headers = list(kept) if len(kept) == len(response.headers) else _pairs(response.headers)
        try:
            answer = await exchange.finish(session, response.status, headers)
        except Exception:
            await exchange.abandon(session)
            raise
        if isinstance(answer, Reply):
            refused = Answer(answer)
            if request.stream is not None:
                request.stream.respond(refused)
            return refused
        if answer != headers:
            response.headers.clear()
            for name, value in answer:
                response.headers.add(name.decode("ascii"), kept.get((name, value)) or _text(value))
        if session.visit.record is not None and _is_event_stream(response):
            self.over(response)
        return response

    def over(self, response: BaseHTTPResponse) -> None:
        """Watch over an event stream; it ends with its session."""

        async def end(_reason: str) -> None:
            try:
                await response.send(end_stream=True)
            finally:
                self._cancel()

        if self.watch is None:
            self.watch = self.coatcheck.watching.over(self.session, end)

    async def connected(self, websocket: Any) -> None:
        """Settle when a websocket is open already, so without a cookie; then watch over it."""
        exchange, visit = self.coatcheck.exchange, self.session.visit
        self.is_socket = True
        if visit.record is None or visit.login is not None or visit.renew is not None:
            await exchange.abandon(self.session)
            return
        answer = await exchange.finish(self.session, 101, [])

        async def end(reason: str) -> None:
            try:
                await websocket.close(ENDED_CODE, f"session ended: {reason}")
            finally:
                self._cancel()

        if isinstance(answer, Reply):
            await websocket.close(_AWAY, "the session could not be stored")
            self._cancel()
        else:
            self.watch = self.coatcheck.watching.over(self.session, end)

    async def end(self) -> None:
        """Commit what was written since, or what an error left."""
        self._over = True
        if self._task is not None:
            self._task.remove_done_callback(self._left)
        if self.watch is not None:
            await self.watch.stop()
        exchange, session = self.coatcheck.exchange, self.session
        await (exchange.abandon(session) if session.visit.outcome is None else exchange.close(session))

    def _cancel(self) -> None:
        if self._task is not None and not self._over:
            self._task.cancel()

    def _left(self, task: asyncio.Task[Any]) -> None:
        if not task.get_loop().is_closed():
            ending = task.get_loop().create_task(self.end())
            self.coatcheck.ending.add(ending)
            ending.add_done_callback(self.coatcheck.ending.discard)


class SettlingRequest(Request[Any, Any]):
    """Sanic's request, or the application's own kind of it, whose responses settle its session."""

    __slots__ = ("visitor",)

    visitor: Visitor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin without a session."""
        super().__init__(*args, **kwargs)
        self.visitor = None

    async def respond(self, response: BaseHTTPResponse | None = None, **how: Any) -> Any:
        """Respond, when all response middleware has run and the session is settled."""
        answer = await super().respond(response, **how)
        if not isinstance(answer, BaseHTTPResponse):  # it responds again when it begins to stream
            return answer
        if self.visitor is None:
            self.app.ctx.coatcheck.without_ours(answer)
            return answer
        return await self.visitor.settle(self, answer)


class Answer(HTTPResponse):
    """A reply of ours; where a handler streams into it, that is left out."""

    __slots__ = ("_sent",)

    def __init__(self, reply: Reply) -> None:
        """Take a reply."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers]
        super().__init__(reply.body, reply.status, Header(headers), "text/plain; charset=utf-8")
        self._sent = False

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Send the reply, once."""
        if not self._sent:
            self._sent = True
            await super().send(end_stream=True)


@overload
def session_of(request: Any) -> Session: ...
@overload
def session_of(request: Any, kind: type[T]) -> Typed[T]: ...
def session_of(request: Any, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request, or its data as one typed value.

    Raises ConfigError where there is none: an application without Coatcheck, or an excluded path.
    """
    session = _visitor_of(request).session
    return session if kind is None else session.as_type(kind)


def exchange_of(request: Any) -> AsyncExchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return _visitor_of(request).coatcheck.exchange


@overload
def require_login(view: View) -> View: ...
@overload
def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[View], View]: ...
def require_login(
    view: Callable[..., Any] | None = None,
    *,
    within: timedelta | float | None = None,
    level: int | None = None,
    fresh: bool = False,
) -> Any:
    """Guard a handler, as `@require_login` or `@require_login(within=...)`: 401, or the login page.

    Sanic opens a websocket before its handler runs: there it is closed, with code 1008.
    """

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            at = next(place for place, one in enumerate(args) if isinstance(one, Request))  # after a method's self
            visitor = _visitor_of(args[at])
            try:
                if fresh:
                    await visitor.coatcheck.exchange.confirm(visitor.session)
                visitor.session.require_login(within=within, level=level, fresh=fresh)
            except Refusal as refusal:
                if not visitor.is_socket:
                    raise
                await args[at + 1].close(_REFUSED, refusal.reason)
                return None
            answer = view(*args, **kwargs)
            return await answer if isawaitable(answer) else answer

        return guarded

    return guard if view is None else guard(view)


def refusal_response(_request: Request[Any, Any], refusal: Refusal) -> HTTPResponse:
    """Answer a Refusal; registered for every application that has no exception handler of its own for it."""
    return Answer(refusal.reply)


def request_of(request: Request[Any, Any]) -> model.Request:
    """Return a request as the manager sees it: its scheme and its client are what Sanic's own proxy settings say."""
    scheme = request.scheme
    if request.app.asgi and scheme in ("http", "ws"):  # Sanic knows of TLS only where it serves itself
        scheme = request.scope.get("scheme", scheme)
    return model.Request(
        request.method,
        scheme,
        unquote(request.path),
        _pairs(request.headers),
        request.query_string,
        request.client_ip.strip("[]") or None,
        "websocket" if scheme in ("ws", "wss") else "http",
        _cookie_of(request),
    )


def _cookie_of(request: Request[Any, Any]) -> bytes | None:
    """Return the Cookie header as it came, where Sanic read it itself.

    It strips header values as text, of any white space that Unicode knows: `U+2000 __Host-coat=...`, which a sibling
    host can write, would become a cookie of our name (H11).
    """
    if not request.head:  # over ASGI and HTTP/3 nothing is stripped
        return None
    lines = (line.partition(b":") for line in request.head.split(b"\r\n"))
    return b"; ".join(value for name, _, value in lines if name.lower() == b"cookie")


def _visitor_of(request: Any) -> Visitor:
    visitor = getattr(request, "visitor", None)
    if isinstance(visitor, Visitor):
        return visitor
    message = (
        f"there is no session on {getattr(request, 'path', 'this request')}: has the application its "
        "Coatcheck(app, store=...), and is the path not one of exclude=[...]?"
    )
    raise ConfigError(message)


async def _handled(request: Any, **_: Any) -> None:
    visitor = getattr(request, "visitor", None)
    if visitor is not None:
        await visitor.end()


async def _failed(request: Any, **_: Any) -> None:
    """End what failed in the middle of its response; before it, an error page follows."""
    if request.stream is not None and request.stream.stage is not Stage.HANDLER:
        await _handled(request)


async def _left(request: Any) -> None:
    """End a websocket, whose handler is done: Sanic tells nothing else of it."""
    visitor = getattr(request, "visitor", None)
    if visitor is not None and visitor.is_socket:
        await visitor.end()


async def _connected(request: Any, websocket: Any) -> None:
    if request.visitor is not None:
        await request.visitor.connected(websocket)


async def _answer_refusals(app: Sanic[Any, Any]) -> None:
    with suppress(ServerError):  # it has a handler for them already
        app.error_handler.add(Refusal, refusal_response)


def _raw(name: str, value: Any) -> tuple[bytes, bytes]:
    return name.lower().encode("ascii"), str(value).encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _pairs(headers: Any) -> list[tuple[bytes, bytes]]:
    return [_raw(name, value) for name, value in headers.items()]


def _is_event_stream(response: BaseHTTPResponse) -> bool:
    kind = response.headers.get("content-type") or response.content_type or ""
    return str(kind).lower().startswith("text/event-stream")
