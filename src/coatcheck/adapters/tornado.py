"""Sessions for Tornado: `setup(app, store=...)`, and `SessionMixin` in handlers, whose `self.session` is the Session.

Tornado writes headers in the middle of synchronous calls (`finish`, `redirect`, `flush`), where nothing can be awaited.
So a stand-in takes the place of the request's HTTPConnection: it commits, then writes; what follows queues behind it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload
from urllib.parse import unquote

from tornado import httputil, iostream, web

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
Method = TypeVar("Method", bound=Callable[..., Any])

__all__ = ["ENDED_CODE", "NotFound", "SessionMixin", "Sessions", "exchange_of", "require_login", "session_of", "setup"]

_KEY = "coatcheck"
_FAILED = Reply(
    500,
    ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")),
    b"500: Internal Server Error\n",
)


class Sessions(Awaited):
    """The sessions of one application: what `setup` put into it; `application.settings["coatcheck"]`.

    Tornado does not tell when it stops: await `shut()` then.
    """


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
    """Give an application's handlers with `SessionMixin` sessions, and its unrouted paths, too.

    `store` is a URL ("sqlite:///sessions.db"), an async store, or None, which is for sealed tokens alone. The rest is
    as in `asgi.SessionMiddleware`. Where Tornado itself refuses other sites (`xsrf_cookies`, `cross_origin_protection`)
    we only report them, unless `csrf` says otherwise. Raises ConfigError for what is unsafe; opens nothing.
    """
    if _KEY in app.settings:
        message = "this application has its sessions already; call setup once for each application"
        raise ConfigError(message)
    if manager is None and (app.settings.get("xsrf_cookies") or app.settings.get("cross_origin_protection")):
        settings.setdefault("csrf", "report")
    app.settings[_KEY] = sessions = Sessions(
        store=store, manager=manager, watch_every=watch_every, watch_recheck=watch_recheck, keys=keys, **settings
    )
    if not app.settings.get("default_handler_class"):
        app.settings["default_handler_class"] = NotFound
    return sessions


class SessionMixin:
    """What a handler inherits before Tornado's class: `class Home(SessionMixin, RequestHandler)`; sockets likewise."""

    application: web.Application
    request: httputil.HTTPServerRequest

    @property
    def session(self) -> Session:
        """The session of this request."""
        return session_of(self)

    def get_current_user(self) -> Any:
        """Return the subject, for `current_user` and Tornado's own `authenticated`."""
        return self.session.subject

    async def _execute(self, transforms: list[Any], *args: bytes, **kwargs: bytes) -> None:
        """Serve one request: the whole of it, whatever `prepare` of the application does."""
        handler, execute = cast("Any", self), cast("Any", super())._execute  # noqa: SLF001 - `prepare` is overridden
        try:
            outgoing = await self._begun()
        except Exception as error:  # noqa: BLE001 - nothing around us answers what we raise
            _make_ready(handler, transforms)
            handler.log_exception(type(error), error, error.__traceback__)
            handler.send_error(500, exc_info=(type(error), error, error.__traceback__))
            return
        if isinstance(outgoing, Reply):
            _make_ready(handler, transforms)
            _answer(handler, outgoing)
        elif outgoing is None:
            await execute(transforms, *args, **kwargs)
        else:
            setattr(self, _KEY, outgoing)
            self.request.connection = outgoing
            try:
                await outgoing.run(execute(transforms, *args, **kwargs))
            finally:
                await outgoing.leave()

    async def _begun(self) -> Outgoing | Reply | None:
        sessions = self.application.settings.get(_KEY)
        if not isinstance(sessions, Sessions):
            raise ConfigError(_missing(self.request.path))
        incoming = _request_of(self.request)
        if sessions.manager.excludes(incoming.path):
            return sessions.manager.screen(incoming)
        session = await sessions.exchange.begin(incoming)
        return session if isinstance(session, Reply) else Outgoing(sessions, session, self)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what a handler raised; a refusal is no error."""
        if not isinstance(value, Refusal):
            cast("Any", super()).log_exception(typ, value, tb)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer an error; a refusal with what it says."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, Refusal) and not session_of(self).settled:
            _answer(cast("Any", self), error.reply)
        else:
            cast("Any", super()).send_error(status_code, **kwargs)

    def check_origin(self, origin: str) -> bool:
        """Tell Tornado that a socket may be opened: its Origin was judged before the session began."""
        outgoing = getattr(self, _KEY, None)
        if isinstance(outgoing, Outgoing) and outgoing.sessions.manager.settings.csrf != "off":
            return True
        return bool(cast("Any", super()).check_origin(origin))

    def get_websocket_protocol(self) -> Any:
        """Return Tornado's protocol, which says 101 as soon as the session is settled."""
        protocol = cast("Any", super()).get_websocket_protocol()
        if protocol is not None and isinstance(outgoing := getattr(self, _KEY, None), Outgoing):
            protocol.accept_connection = functools.partial(outgoing.accept, protocol.accept_connection)
        return protocol


class NotFound(SessionMixin, web.RequestHandler):
    """Answers paths that no handler has: the 404 passes through us, too."""

    def prepare(self) -> None:
        """Answer."""
        raise web.HTTPError(404)

    def check_xsrf_cookie(self) -> None:
        """Check nothing: nothing is here."""


class Outgoing(httputil.HTTPConnection):
    """The response of one request on its way: settles the session, then writes; ends with its session."""

    def __init__(self, sessions: Sessions, session: Session, handler: Any) -> None:
        """Stand between a handler and its connection."""
        self.sessions = sessions
        self.session = session
        self._handler = handler
        self._inner: Any = handler.request.connection
        self._starting: asyncio.Task[None] | None = None
        self._waiting: list[Callable[[], None]] = []
        self._replaced = self._serving = self._stopped = False
        self._watch: Watch | None = None
        self._task: asyncio.Task[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        """Be the connection in everything else."""
        return getattr(self._inner, name)

    # -- what a handler calls ----------------------------------------------------------------------------------------

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Settle the session and write; the future is done when that is written."""
        if self.session.visit.outcome is not None:  # a websocket's: nothing is to be waited for any more
            answer = _at_once(self._settled(start_line, headers))
            return cast("asyncio.Future[None]", self._begin(answer, start_line, chunk))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starting = asyncio.ensure_future(self._start(start_line, headers, chunk, written))
        return written

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Write, when the headers are written."""
        return self._after_start(lambda: self._inner.write(chunk))

    def finish(self) -> None:
        """Finish, when everything is written."""
        self._after_start(self._inner.finish)

    # -- what becomes of it ------------------------------------------------------------------------------------------

    async def run(self, execution: Coroutine[Any, Any, None]) -> None:
        """Run the handler to its end, or to its session's, if it streams events; then wait for the response."""
        self._task = asyncio.current_task()
        self._serving = True
        try:
            await execution
        except asyncio.CancelledError:
            if not self._stopped or self._task is None or self._task.cancelling() > 1:
                raise  # somebody else wants an end, too
        finally:
            self._serving = False
            if self._stopped and self._task is not None:
                self._task.uncancel()
            if self._starting is not None:
                await asyncio.wait([self._starting])

    async def accept(self, accept: Callable[[Any], Awaitable[None]], handler: Any) -> None:
        """Settle the session of a handshake, then serve the socket until it closes."""
        answer = await self.sessions.exchange.finish(self.session, 101, ())
        if isinstance(answer, Reply):
            _answer(handler, answer)
            return
        if self.session.visit.record is not None:
            self._watch = self.sessions.watching.over(self.session, self._close)
        await accept(handler)

    async def leave(self) -> None:
        """See the exchange to its end: what was written late is kept, or what must be is committed."""
        if self._watch is not None:
            await self._watch.stop()
        exchange, session = self.sessions.exchange, self.session
        await (exchange.abandon(session) if session.visit.outcome is None else exchange.close(session))

    async def _start(
        self, start_line: Any, headers: httputil.HTTPHeaders, chunk: bytes | None, written: asyncio.Future[None]
    ) -> None:
        try:
            answer = await self._settled(start_line, headers)
        except Exception as error:  # noqa: BLE001 - data that cannot be kept: the handler's fault, an error page's job
            self._handler.log_exception(type(error), error, error.__traceback__)
            answer = _FAILED
        _follow(self._begin(answer, start_line, chunk), written)
        waiting, self._waiting = self._waiting, []
        self._starting = None
        for act in waiting:
            act()
        if not self._replaced and self.session.visit.record is not None and _is_event_stream(answer):
            self._watch = self.sessions.watching.over(self.session, self._end)

    async def _settled(self, start_line: Any, headers: httputil.HTTPHeaders) -> Reply | Headers:
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.get_all()]
        return await self.sessions.exchange.finish(self.session, start_line.code, pairs)

    def _begin(self, answer: Reply | Headers, start_line: Any, chunk: bytes | None) -> Any:
        if not isinstance(answer, Reply):
            return self._inner.write_headers(start_line, _headers_of(answer), chunk)
        self._replaced = True
        headers = _headers_of([*answer.headers, (b"content-length", str(len(answer.body)).encode())])
        replaced = httputil.ResponseStartLine("", answer.status, HTTPStatus(answer.status).phrase)
        body = None if self._handler.request.method == "HEAD" else answer.body
        written = self._inner.write_headers(replaced, headers, body)
        self._inner.finish()
        return written

    def _after_start(self, act: Callable[[], Any]) -> asyncio.Future[None]:
        if self._replaced:
            return _gone()
        if self._starting is None:
            return cast("asyncio.Future[None]", act())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(lambda: _follow(_gone() if self._replaced else act(), done))
        return done

    async def _close(self, reason: str) -> None:
        self._handler.close(ENDED_CODE, f"session ended: {reason}")

    async def _end(self, _reason: str) -> None:
        if self._serving and self._task is not None:
            self._stopped = True
            self._task.cancel()
        if not self._handler._finished:  # noqa: SLF001 - nothing public tells
            self._handler.finish()


@overload
def session_of(handler: Any) -> Session: ...
@overload
def session_of(handler: Any, kind: type[T]) -> Typed[T]: ...
def session_of(handler: Any, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a handler's request, or its data as one typed value.

    Raises ConfigError where there is none: no SessionMixin in the handler's class, or an excluded path.
    """
    session = _outgoing_of(handler).session
    return session if kind is None else session.as_type(kind)


def exchange_of(handler: Any) -> AsyncExchange:
    """Return the exchange of a handler's request: for `save`, `take` and `bump`, which commit at once."""
    return _outgoing_of(handler).sessions.exchange


@overload
def require_login(method: Method) -> Method: ...
@overload
def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[Method], Method]: ...
def require_login(
    method: Callable[..., Any] | None = None,
    *,
    within: timedelta | float | None = None,
    level: int | None = None,
    fresh: bool = False,
) -> Any:
    """Guard a handler's method, `prepare` too, as `@require_login` or `@require_login(within=...)`.

    Nobody, or nobody surely enough: 401, or the login page. The method becomes one that is awaited.
    """

    def guard(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def guarded(handler: Any, *args: Any, **kwargs: Any) -> Any:
            session = session_of(handler)
            if fresh:
                await exchange_of(handler).confirm(session)
            session.require_login(within=within, level=level)
            answer = method(handler, *args, **kwargs)
            return await answer if answer is not None else None

        return guarded

    return guard if method is None else guard(method)


def _outgoing_of(handler: Any) -> Outgoing:
    outgoing = getattr(handler, _KEY, None)
    if isinstance(outgoing, Outgoing):
        return outgoing
    raise ConfigError(_missing(handler.request.path))


def _missing(path: str) -> str:
    return (
        f"there is no session on {path}: was setup(app, store=...) called, does the handler inherit SessionMixin "
        "before Tornado's class, and is the path not one of exclude=[...]?"
    )


def _request_of(request: httputil.HTTPServerRequest) -> Request:
    return Request(
        request.method or "GET",
        request.protocol,
        unquote(request.path),
        [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.get_all()],
        request.query,
        request.remote_ip or None,
        "websocket" if request.headers.get("Upgrade", "").strip().lower() == "websocket" else "http",
    )


def _make_ready(handler: Any, transforms: list[Any]) -> None:
    """Do what Tornado's own `_execute` does first, where it is not called: a handler that answers needs it."""
    handler._transforms = transforms  # noqa: SLF001
    prepared = handler._prepared_future  # noqa: SLF001
    if prepared is not None and not prepared.done():
        prepared.set_result(None)  # a streamed body may come; nobody reads it


def _answer(handler: Any, reply: Reply) -> None:
    """Answer in Tornado's own way, so that `set_default_headers` (for CORS) counts."""
    handler.clear()
    handler.set_status(reply.status)
    for name, value in reply.headers:
        handler.set_header(name.decode("latin-1").title(), value.decode("latin-1"))
    handler.finish(reply.body)


def _headers_of(pairs: Headers) -> httputil.HTTPHeaders:
    headers = httputil.HTTPHeaders()
    for name, value in pairs:
        headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return headers


def _is_event_stream(answer: Reply | Headers) -> bool:
    headers = () if isinstance(answer, Reply) else answer
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers
    )


def _at_once(answer: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that has nothing to wait for."""
    try:
        answer.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    answer.close()
    message = "a settled session waited for something"
    raise RuntimeError(message)


def _follow(first: Any, then: asyncio.Future[None]) -> None:
    """Let a future become what another one becomes."""

    def done(first: asyncio.Future[None]) -> None:
        if then.done():
            return
        error = None if first.cancelled() else first.exception()
        if error is None:
            then.set_result(None)
        else:
            then.set_exception(error)
            then.exception()  # nobody need ask for it

    if first is None:
        then.set_result(None)
    else:
        first.add_done_callback(done)


def _gone() -> asyncio.Future[None]:
    """Return what a write becomes whose client is gone, as a handler is told whose response was replaced."""
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone.set_exception(iostream.StreamClosedError())
    gone.exception()
    return gone
