"""Sessions for any WSGI application (PEP 3333): lists, generators, `write()`, late and repeated start_response.

Response start is not the application's call of start_response but the moment before the first byte leaves: the first
non-empty chunk, `write()`, or the return of a whole list. Until then the handler may still change the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Unpack, overload

from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager, manager_of
from ..core.model import Reply, Request
from ..core.session import Session, Typed
from ..core.settings import Keywords
from ..flow.store import Store
from ..flow.sync import Exchange
from ..stores.faces import keys_of, store_of

if TYPE_CHECKING:
    from ..flow.keys import Keys

T = TypeVar("T")

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

KEY = "coatcheck.session"  # a server's or middleware's own variable has a dot in its name (PEP 3333)


class Context:
    """What the middleware left in the environ: the session of this request, and its exchange."""

    __slots__ = ("exchange", "name", "session")

    def __init__(self, exchange: Exchange, session: Session, name: str) -> None:
        """Keep our own references."""
        self.exchange = exchange
        self.session = session
        self.name = name


class SessionMiddleware:
    """Gives every request of a WSGI application its session, by `session_of(environ)`."""

    def __init__(
        self,
        app: App,
        *,
        store: str | Store | None = None,
        manager: SessionManager | None = None,
        keys: Keys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Wrap an application; `store` is a URL ("sqlite:///sessions.db"), a store, or None.

        None is for sealed tokens alone. `settings` are those of `Settings`, or `manager` brings them. `keys`: where
        the sealed tokens' keyring is kept in a store, so that it follows rotations. Raises ConfigError for what is
        unsafe.
        """
        self.app = app
        self.manager = manager_of(manager, settings)
        self.store = store_of(store, self.manager.now)
        self.exchange = Exchange(self.manager, self.store, keys=keys_of(keys))
        self._name = self.manager.cookie.name

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        outer = environ.get(KEY)
        if outer is not None and outer.name == self._name:
            return self.app(environ, start_response)  # the same middleware around us: its exchange is this request's
        request = request_of(environ)
        if self.manager.excludes(request.path):
            reply = self.manager.screen(request)
            return self.app(environ, start_response) if reply is None else _refuse(start_response, reply)
        session = self.exchange.begin(request)
        if isinstance(session, Reply):
            return _refuse(start_response, session)
        environ[KEY] = Context(self.exchange, session, self._name)
        response = Response(self.exchange, session, start_response)
        try:
            return response.of(self.app, environ)
        finally:
            if outer is not None:
                environ[KEY] = outer


class RequireLogin:
    """Guards an application, or a part of one: 401, or the way to the login page, unless somebody is logged in.

    It stands inside of SessionMiddleware, which answers.
    """

    def __init__(
        self, app: App, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
    ) -> None:
        """Ask for an authentication not older than `within` (seconds), or at least of a `Level`.

        `fresh`: of a session that was read from the store itself for this request, not from a near copy.
        """
        self.app = app
        self._within, self._level, self._fresh = within, level, fresh

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        session_of(environ).require_login(within=self._within, level=self._level, fresh=self._fresh)
        return self.app(environ, start_response)


class Response:
    """One response on its way to the server: holds the application's start back until the first byte leaves."""

    __slots__ = ("_exchange", "_replaced", "_server_start", "_server_write", "_session", "_start")

    def __init__(self, exchange: Exchange, session: Session, server_start: StartResponse) -> None:
        """Take the exchange and the server's start_response."""
        self._exchange = exchange
        self._session = session
        self._server_start = server_start
        self._server_write: Callable[[bytes], object] | None = None
        self._start: tuple[str, list[tuple[str, str]], ExcInfo | None] | None = None
        self._replaced: Reply | None = None

    def of(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Return what the server is to send for an application's answer."""
        try:
            iterable = app(environ, self._record)
        except Refusal as refusal:
            return self._refused(refusal)
        except BaseException:
            self.settle_or_abandon()
            raise
        if not is_whole(iterable, environ):
            return Body(self, iterable)
        try:
            reply = self.send_start()
        except BaseException:
            close_body(iterable)
            self.settle_or_abandon()
            raise
        self.settle_or_abandon()
        if reply is None:
            return iterable
        close_body(iterable)
        return [reply.body]

    def _record(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Stand in for the server's start_response."""
        if self._server_write is not None:
            if exc_info is None:
                message = "start_response was called again after the response started"
                raise AssertionError(message)
            raise exc_info[1].with_traceback(exc_info[2])
        if self._start is not None and exc_info is None:
            message = "start_response was called twice without exc_info"
            raise AssertionError(message)
        self._start = (status, headers, exc_info)
        return self._write

    def _write(self, data: bytes) -> None:
        if data:
            self.send_start()
        if data and self._replaced is None and self._server_write is not None:
            self._server_write(data)

    @property
    def started(self) -> bool:
        """Whether the server was told status and headers."""
        return self._server_write is not None

    def send_start(self) -> Reply | None:
        """Settle the exchange and tell the server status and headers, once; return what replaces the response."""
        if self._server_write is not None:
            return self._replaced
        if self._start is None:
            message = "the application answered without calling start_response"
            raise AssertionError(message)
        status, headers, exc_info = self._start
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        answer = self._exchange.finish(self._session, int(status[:3]), raw)
        if isinstance(answer, Reply):
            self._replaced = answer
            self._server_write = self._server_start(*start_of(answer))
            return answer
        dressed = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer]
        self._server_write = (
            self._server_start(status, dressed, exc_info) if exc_info else self._server_start(status, dressed)
        )
        return None

    def refused(self, refusal: Refusal) -> Reply:
        """Answer with a refusal that the application raised before the response started; return what goes out."""
        status, headers = start_of(refusal.reply)
        self._start = (status, headers, None)
        return self.send_start() or refusal.reply

    def _refused(self, refusal: Refusal) -> Iterable[bytes]:
        if self.started:
            self.settle_or_abandon()
            raise refusal
        reply = self.refused(refusal)
        self.settle_or_abandon()
        return [reply.body]

    def settle_or_abandon(self) -> None:
        """See the exchange to its end: what was written late is kept, or what must be is committed."""
        if self._session.visit.outcome is None:
            self._exchange.abandon(self._session)
        else:
            self._exchange.close(self._session)


class Body:
    """An application's generator, on its way to the server."""

    __slots__ = ("_chunks", "_closed", "_iterable", "_response", "_rest")

    def __init__(self, response: Response, iterable: Iterable[bytes]) -> None:
        """Take the application's iterable; nothing of it runs yet."""
        self._response = response
        self._iterable = iterable
        self._chunks: Iterator[bytes] | None = None
        self._rest: list[bytes] | None = None
        self._closed = False

    def __iter__(self) -> Body:
        """Return the iterator, this."""
        return self

    def __next__(self) -> bytes:
        """Return the next chunk; before the first that is not empty, the exchange is settled."""
        if self._rest is not None:
            return self._last()
        if self._chunks is None:
            self._chunks = iter(self._iterable)
        response = self._response
        try:
            chunk = next(self._chunks, None)
            while chunk == b"" and not response.started:
                # nothing may leave before the server knows the status (PEP 3333): an empty chunk waits, too
                chunk = next(self._chunks, None)
        except Refusal as refusal:
            if response.started:
                raise
            self._rest = [response.refused(refusal).body]
            return self._last()
        if response.started:
            if chunk is None:
                raise StopIteration
            return chunk
        reply = response.send_start()
        if reply is not None:
            self._rest = [reply.body]
            return self._last()
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Close the application's iterable, then the exchange; always both."""
        if self._closed:
            return
        self._closed = True
        try:
            close_body(self._iterable)
        finally:
            self._response.settle_or_abandon()

    def _last(self) -> bytes:
        if not self._rest:
            raise StopIteration
        return self._rest.pop()


@overload
def session_of(environ: Environ) -> Session: ...
@overload
def session_of(environ: Environ, kind: type[T]) -> Typed[T]: ...
def session_of(environ: Environ, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request, or its data as one typed value.

    Raises ConfigError where there is none: no SessionMiddleware around the application, or an excluded path.
    """
    session = context_of(environ).session
    return session if kind is None else session.as_type(kind)


def exchange_of(environ: Environ) -> Exchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return context_of(environ).exchange


def context_of(environ: Environ) -> Context:
    """Return what the middleware left in the environ, or raise ConfigError."""
    context = environ.get(KEY)
    if isinstance(context, Context):
        return context
    message = (
        f"there is no session on {environ.get('PATH_INFO', 'this request')}: is SessionMiddleware installed around the "
        "application, and is the path not one of exclude=[...]?"
    )
    raise ConfigError(message)


def request_of(environ: Environ) -> Request:
    """Return an environ as the manager sees a request."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return Request(
        environ["REQUEST_METHOD"],
        environ["wsgi.url_scheme"],
        path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace"),
        EnvironHeaders(environ),
        environ.get("QUERY_STRING", ""),
        environ.get("REMOTE_ADDR") or None,
        kind_of(environ),
        cookie_of(environ),
    )


def kind_of(environ: Environ) -> Literal["http", "websocket"]:
    """Return "websocket" for a handshake: servers that hand those to WSGI applications (gevent) show it as a GET."""
    return "websocket" if environ.get("HTTP_UPGRADE", "").lower() == "websocket" else "http"


_ORDINARY = """
accept accept-encoding accept-language authorization cache-control connection content-disposition cookie dnt expect
forwarded from host if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive origin pragma
priority range referer sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site
sec-fetch-user sec-gpc te trailer transfer-encoding upgrade upgrade-insecure-requests user-agent via x-csrf-token
x-csrftoken x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip x-request-id x-requested-with
"""
_NAMES = {f"HTTP_{name.upper().replace('-', '_')}": name.encode() for name in _ORDINARY.split()}
"""What most requests bring, spelled once; a cache of names would be filled by whoever asks."""


class EnvironHeaders(Sequence[tuple[bytes, bytes]]):
    """The headers of a request, as far as an environ keeps them; read when somebody looks."""

    __slots__ = ("_environ", "_found")

    def __init__(self, environ: Environ) -> None:
        """Read nothing yet."""
        self._environ = environ
        self._found: list[tuple[bytes, bytes]] | None = None

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, bytes] | list[tuple[bytes, bytes]]:
        """Return one, or some."""
        return self._read()[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._read())

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over them."""
        return iter(self._read())

    def _read(self) -> list[tuple[bytes, bytes]]:
        if self._found is None:
            self._found = [
                (_NAMES.get(name) or _spelled(name), value.encode("latin-1", "replace"))
                for name, value in self._environ.items()
                if name.startswith("HTTP_")
            ]
        return self._found


def cookie_of(environ: Environ) -> bytes:
    """Return the Cookie header."""
    found: str = environ.get("HTTP_COOKIE", "")
    return found.encode("latin-1", "replace")


def _spelled(name: str) -> bytes:
    return name[5:].replace("_", "-").lower().encode("ascii", "replace")


def start_of(reply: Reply) -> tuple[str, list[tuple[str, str]]]:
    """Return what start_response is called with for an answer of ours."""
    headers = [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in reply.headers]
    headers.append(("Content-Length", str(len(reply.body))))
    return f"{reply.status} {HTTPStatus(reply.status).phrase}", headers


def _refuse(start_response: StartResponse, reply: Reply) -> Iterable[bytes]:
    """Answer in the application's place."""
    start_response(*start_of(reply))
    return [reply.body]


def is_whole(iterable: Iterable[bytes], environ: Environ) -> bool:
    """Tell whether nothing of the application's runs while this is sent: a list, or a file that the server sends."""
    wrapper = environ.get("wsgi.file_wrapper")  # a function with uWSGI: then its files are sent chunk by chunk
    return isinstance(iterable, list | tuple) or (isinstance(wrapper, type) and isinstance(iterable, wrapper))


def close_body(iterable: Iterable[bytes]) -> None:
    """Close an application's iterable, where it can be."""
    close = getattr(iterable, "close", None)
    if close is not None:
        close()
