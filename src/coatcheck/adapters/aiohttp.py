"""Sessions for aiohttp's server: `setup(app, store=...)`, and `session_of(request)` in handlers, sockets and streams.

Response start is when the handler has answered, or, for what it prepares itself (a socket, a stream), `prepare`: there
aiohttp's signal lets the headers be changed. What cannot be stored is answered with our 503 on either way.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from aiohttp import web

from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager
from ..core.model import Headers, Reply, Request
from ..core.session import Session, Typed
from ..core.settings import Keywords
from ..flow.async_ import AsyncExchange
from ..flow.async_store import AsyncStore
from .awaited import ENDED_CODE, Awaited
from .watching import Watch

if TYPE_CHECKING:
    from ..flow.async_keys import AsyncKeys

T = TypeVar("T")
Handler = Callable[..., Awaitable[web.StreamResponse]]
View = TypeVar("View", bound=Handler)

__all__ = ["ENDED_CODE", "SESSIONS", "Sessions", "exchange_of", "require_login", "session_of", "setup"]

_KEY: Any = web.RequestKey("coatcheck", object) if hasattr(web, "RequestKey") else "coatcheck"  # 3.14 has them


class Sessions(Awaited):
    """The sessions of one application: what `setup` put into it; `app[SESSIONS]`."""

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve one request: the application's first middleware."""
        outer: Connection | None = request.get(_KEY)
        if outer is not None and outer.sessions.name == self.name:
            return await handler(request)  # the application around us has them: its exchange is this request's
        incoming = _request_of(request)
        if self._excludes is not None and self._excludes(incoming.path):
            reply = self.manager.screen(incoming)
            return await handler(request) if reply is None else _response_of(reply)
        session = await self.exchange.begin(incoming)
        if isinstance(session, Reply):
            return _response_of(session)
        request[_KEY] = connection = Connection(self, session, request, outer)
        try:
            response = await connection.answer(handler)
        except BaseException:
            await _whole(connection.leave())
            raise
        if _is_made_later(response):
            _when_done(connection.leave)
        else:
            await (_whole(connection.leave()) if getattr(response, "prepared", False) else connection.leave())
        if (raised := connection.raised) is not None and raised is response:
            raise raised
        return response

    async def prepare(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Settle what a handler prepares itself, or renew our headers where others changed them since."""
        connection: Connection | None = request.get(_KEY)
        while connection is not None and connection.sessions is not self:
            connection = connection.outer
        if connection is not None:
            await connection.start(response)


SESSIONS = web.AppKey("coatcheck", Sessions)


def setup(
    app: web.Application,
    *,
    store: str | AsyncStore | Any | None = None,
    manager: SessionManager | None = None,
    watch_every: float = 0.5,
    watch_recheck: float = 30.0,
    keys: AsyncKeys | None = None,
    **settings: Unpack[Keywords],
) -> Sessions:
    """Give an application, and what is mounted in it, sessions; call it after other signals, as ours should be last.

    `store` is a URL ("sqlite:///sessions.db"), an async store, or None, which is for sealed tokens alone. The rest is
    as in `asgi.SessionMiddleware`. Raises ConfigError for what is unsafe; opens nothing. The cleanup of the application
    closes what was opened.
    """
    if SESSIONS in app:
        message = "this application has its sessions already; call setup once for each application"
        raise ConfigError(message)
    sessions = Sessions(
        store=store, manager=manager, watch_every=watch_every, watch_recheck=watch_recheck, keys=keys, **settings
    )
    app[SESSIONS] = sessions
    app.middlewares.insert(0, sessions.serve)
    app.on_response_prepare.append(sessions.prepare)
    app.on_cleanup.append(sessions.shut)
    return sessions


class Connection:
    """One request on its way, left in it with its session: settles at the response's start, ends with its session."""

    __slots__ = ("_request", "_response", "_serving", "_stopped", "_task", "outer", "raised", "replaced", "session",
                 "sessions", "watch")  # fmt: skip

    def __init__(self, sessions: Sessions, session: Session, request: web.Request, outer: Connection | None) -> None:
        """Stand between a handler and its server."""
        self.sessions = sessions
        self.session = session
        self.outer = outer
        self.raised: web.HTTPException | None = None
        self.replaced: Reply | None = None
        self.watch: Watch | None = None
        self._request = request
        self._response: web.StreamResponse | None = None
        self._task: asyncio.Task[Any] | None = None
        self._serving = self._stopped = False

    async def answer(self, handler: Handler) -> web.StreamResponse:
        """Return the handler's response, settled, or what replaces it."""
        response: Any
        try:
            response = await self._handled(handler)
        except Refusal as refusal:
            if self.session.settled:
                raise
            response = _response_of(refusal.reply)
        except web.HTTPException as raised:
            self.raised = response = raised
        except Exception as error:
            if self.replaced is None and (self.watch is None or not self.watch.caused(error)):
                raise
            response = self._response
        if self.replaced is None and isinstance(response, web.StreamResponse):
            if isinstance(response, web.FileResponse) and not response.prepared:
                # only then does it know whether it is a 200, 206 or 304; it raises where it cannot be stored
                with suppress(Replaced):
                    await response.prepare(self._request)
                response = Sent(response)
            elif not response.prepared:
                self.replaced = await self._settle(response)
        return response if self.replaced is None else _response_of(self.replaced)

    async def start(self, response: web.StreamResponse) -> None:
        """Settle a response that is being prepared; raises Replaced where it must not go out."""
        if self.replaced is not None:
            return
        outcome = self.session.visit.outcome
        if outcome is not None:
            if outcome.cookies:  # settled after the handler: what was put into headers since may not overrule ours
                await self._settle(response)
            return
        self._response = response
        try:
            self.replaced = await self._settle(response)
        except BaseException:
            _begin_again(self._request)
            raise
        if self.replaced is not None:
            _begin_again(self._request)
            raise Replaced(self.replaced.status)
        if self.session.visit.record is None:
            return
        if isinstance(response, web.WebSocketResponse):
            self.watch = self.sessions.watching.over(self.session, functools.partial(self._close, response))
        elif response.headers.get("Content-Type", "").lower().startswith("text/event-stream"):
            self.watch = self.sessions.watching.over(self.session, functools.partial(self._end, response))

    async def leave(self) -> None:
        """See the exchange to its end: what was written late is kept, or what must be is committed."""
        if self.watch is not None:
            await self.watch.stop()
        if self.outer is not None:
            self._request[_KEY] = self.outer
        exchange, session = self.sessions.exchange, self.session
        await (exchange.abandon(session) if session.visit.outcome is None else exchange.close(session))

    async def _handled(self, handler: Handler) -> Any:
        """Run the handler; where we stopped it, since its session is over, its response is what it had begun."""
        self._task = asyncio.current_task()
        self._serving = True
        try:
            return await handler(self._request)
        except asyncio.CancelledError:
            if not self._stopped or self._task is None or self._task.cancelling() > 1:
                raise  # somebody else wants an end, too
            return self._response
        finally:
            self._serving = False
            if self._stopped and self._task is not None:
                self._task.uncancel()

    async def _settle(self, response: web.StreamResponse) -> Reply | None:
        headers: Headers = [(_bytes(name), _bytes(value)) for name, value in response.headers.items()]
        answer = await self.sessions.exchange.finish(self.session, response.status, headers)
        if isinstance(answer, Reply):
            return answer
        if answer is not headers:
            response.headers.clear()
            for name, value in answer:
                response.headers.add(_text(name), _text(value))
        return None

    async def _close(self, socket: web.WebSocketResponse, reason: str) -> None:
        while True:
            try:
                await socket.close(code=ENDED_CODE, message=f"session ended: {reason}".encode())
            except RuntimeError:  # its handshake is not quite finished
                await asyncio.sleep(0.01)
            else:
                return

    async def _end(self, response: web.StreamResponse, _reason: str) -> None:
        if self._serving and self._task is not None:
            self._stopped = True
            self._task.cancel()
        try:
            await response.write_eof()
        except BaseException:  # a client that does not read any more
            if self._request.transport is not None:
                self._request.transport.abort()
            raise


class Sent(web.StreamResponse):
    """A file that was sent already, to hand on: aiohttp would prepare it again, and a FileResponse cannot be."""

    def __init__(self, file: web.FileResponse) -> None:
        """Look like it."""
        super().__init__(status=file.status, reason=file.reason, headers=file.headers)
        self._file = file

    @property
    def prepared(self) -> bool:
        """Whether it began; while it is being made, aiohttp wants it not to have."""
        return hasattr(self, "_file")

    @property
    def keep_alive(self) -> bool | None:
        """Whether another request may follow on its connection."""
        return self._file.keep_alive

    @property
    def body_length(self) -> int:
        """The bytes that were sent, for the access log."""
        return self._file.body_length

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing: it was."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Finish it, if it is not yet."""
        await self._file.write_eof(data)


class Replaced(ConnectionResetError):  # noqa: N818 - to a handler it is its client's leaving
    """What this handler prepared cannot go out, since the session could not be stored: another answer will."""


@overload
def session_of(request: web.Request) -> Session: ...
@overload
def session_of(request: web.Request, kind: type[T]) -> Typed[T]: ...
def session_of(request: web.Request, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request, or its data as one typed value.

    Raises ConfigError where there is none: no `setup` of the application, or an excluded path.
    """
    session = _connection_of(request).session
    return session if kind is None else session.as_type(kind)


def exchange_of(request: web.Request) -> AsyncExchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return _connection_of(request).sessions.exchange


@overload
def require_login(view: View) -> View: ...
@overload
def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[View], View]: ...
def require_login(
    view: Handler | None = None,
    *,
    within: timedelta | float | None = None,
    level: int | None = None,
    fresh: bool = False,
) -> Any:
    """Guard a handler, also a method of a `web.View`, as `@require_login` or `@require_login(within=...)`.

    Nobody, or nobody surely enough: 401, or the login page, as an aiohttp `HTTPException` that middlewares may see.
    """

    def guard(view: Handler) -> Handler:
        @functools.wraps(view)
        async def guarded(*args: Any) -> Any:
            request = _request_among(args)
            session = session_of(request)
            try:
                if fresh:
                    await exchange_of(request).confirm(session)
                session.require_login(within=within, level=level)
            except Refusal as refusal:
                raise Refused(refusal) from refusal
            return await view(*args)

        return guarded

    return guard if view is None else guard(view)


class Refused(web.HTTPException):
    """A refusal in aiohttp's own words."""

    def __init__(self, refusal: Refusal) -> None:
        """Take what is to be answered."""
        self.status_code = refusal.reply.status
        super().__init__(headers=_headers_of(refusal.reply), text=refusal.reply.body.decode())


def _request_among(args: tuple[Any, ...]) -> web.Request:
    for one in args:
        if isinstance(one, web.Request):
            return one
    if args and isinstance(args[0], web.View):
        return args[0].request
    message = "@require_login guards a handler that takes the request, or a method of a web.View (found neither)"
    raise ConfigError(message)


def _connection_of(request: web.Request) -> Connection:
    connection = request.get(_KEY)
    if isinstance(connection, Connection):
        return connection
    message = (
        f"there is no session on {request.path}: was setup(app, store=...) called for the application, and is the "
        "path not one of exclude=[...]?"
    )
    raise ConfigError(message)


def _request_of(request: web.Request) -> Request:
    url = request.rel_url
    return Request(
        request.method,
        request.scheme,
        url.path,
        [(name.lower(), value) for name, value in request.raw_headers],
        url.raw_query_string,
        request.remote or None,
        "websocket" if request.headers.get("Upgrade", "").strip().lower() == "websocket" else "http",
    )


def _response_of(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, headers=_headers_of(reply), body=reply.body)


def _headers_of(reply: Reply) -> dict[str, str]:
    return {name.decode("latin-1").title(): value.decode("latin-1") for name, value in reply.headers}


def _is_made_later(response: web.StreamResponse) -> bool:
    """Tell whether a body is still to be made, by a generator of the handler's, when the server sends it."""
    body = getattr(response, "body", None)
    return body is not None and not isinstance(body, bytes | bytearray)


def _when_done(leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Leave when the request's task is done, which has then sent the whole response."""
    leaving: set[asyncio.Task[None]] = set()

    def begin(_done: asyncio.Task[Any]) -> None:
        begun = asyncio.ensure_future(leave())
        leaving.add(begun)  # the loop itself keeps tasks by weak references only
        begun.add_done_callback(leaving.discard)

    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(begin)


async def _whole(leaving: Coroutine[Any, Any, None]) -> None:
    """Wait for the end of it, although the server cancels us since its client left."""
    task = asyncio.ensure_future(leaving)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _begin_again(request: web.Request) -> None:
    """Undo what preparing one response did to the connection's writer, so that it can carry another."""
    writer: Any = request.writer
    writer.chunked = False
    writer.length = None
    writer._compress = None  # noqa: SLF001 - nothing public takes a compression back


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
