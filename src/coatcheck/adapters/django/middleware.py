"""The middleware that takes the place of Django's own: it begins the exchange, settles it, and closes it.

Response start is where `process_response` stands in Django: when the response comes back from the view, before a
streamed body is made. What a stream writes is kept when the response is closed. It decides nothing about sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings  # type: ignore[import-untyped]
from django.contrib.sessions.middleware import SessionMiddleware as DjangoMiddleware  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.http.response import HttpResponseBase  # type: ignore[import-untyped]

from ...core.cookies import added
from ...core.errors import ConfigError, Refusal
from ...core.hardening import UNFRAMED
from ...core.model import Headers, Reply, Request
from ...core.session import Session, Typed
from ...flow.sync import Exchange
from ..wsgi import EnvironHeaders, cookie_of, kind_of
from .engine import SessionStore, is_ours
from .site import site

T = TypeVar("T")


class SessionMiddleware(DjangoMiddleware):  # type: ignore[misc]
    """Gives every request its session; name it in MIDDLEWARE in the place of Django's."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Take the project's settings; raises ConfigError for what is unsafe."""
        super().__init__(get_response)
        self.exchange = site().exchange
        self.manager = self.exchange.manager
        self._awaited = iscoroutinefunction(get_response)
        engine = import_module(settings.SESSION_ENGINE)
        self._face: type[SessionStore] = getattr(engine, "SessionStore", SessionStore)
        if not issubclass(self._face, SessionStore):
            message = f"SESSION_ENGINE is 'coatcheck.adapters.django' (found {settings.SESSION_ENGINE!r})"
            raise ConfigError(message)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        if self._awaited:
            return self.__acall__(request)
        refused = self.begin(request)
        if refused is not None:
            return refused
        try:
            response = self.get_response(request)
        except BaseException:
            self.leave(request)
            raise
        return self.settle(request, response)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request on an event loop; what reaches the store runs in Django's thread for such things."""
        refused = await sync_to_async(self.begin)(request)
        if refused is not None:
            return refused
        try:
            response = await self.get_response(request)
        except BaseException:
            await asyncio.shield(sync_to_async(self.leave)(request))
            raise
        return await asyncio.shield(sync_to_async(self.settle)(request, response))

    def begin(self, request: Any) -> HttpResponse | None:
        """Put the session on the request; return the answer to one that is refused."""
        scope = getattr(request, "scope", None)
        if scope and is_ours(scope.get("session")):
            request.session = scope["session"]  # ours for Channels is around us: its exchange is this request's
            return None
        asked = _request(request, scope)
        if self.manager.excludes(asked.path):
            reply = self.manager.screen(asked)
            request.session = self._face.excluded(asked.path)
            return None if reply is None else _response(reply)
        session = self.exchange.begin(asked)
        if isinstance(session, Reply):
            return _response(session)
        request.session = face = self._face.of(self.exchange, session)
        request.coatcheck = face
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer with a refusal that the view raised."""
        return refusal_response(exception) if isinstance(exception, Refusal) else None

    def settle(self, request: Any, response: HttpResponseBase) -> HttpResponseBase:
        """Commit what the exchange leaves, and return the response that goes out."""
        ours: SessionStore | None = getattr(request, "coatcheck", None)
        if ours is None:
            return response
        face = self._last(request, ours)
        exchange, session = face.exchange, face.inner
        given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
        try:
            face.prepare()
            answer: Reply | Headers | None = exchange.finish_read(session, response.status_code, given)
            if answer is None:
                answer = exchange.finish(session, response.status_code, given)
        except BaseException:
            exchange.abandon(session)
            raise
        sent = response
        if isinstance(answer, Reply):
            sent = _response(answer)
            sent._resource_closers += response._resource_closers  # noqa: SLF001
            answer = given = []
        _dress(sent, [*face.pending, *answer] if face.pending else answer, given)
        sent._resource_closers.append(partial(exchange.close, session))  # noqa: SLF001
        return sent

    def _last(self, request: Any, ours: SessionStore) -> SessionStore:
        """Return the session that the request ended with: some applications put another one there."""
        face = request.session
        if face is ours or not isinstance(face, SessionStore) or not face.is_open:
            return ours
        ours.exchange.abandon(ours.inner)
        return face

    def leave(self, request: Any) -> None:
        """Give up a response that does not pass through us."""
        face: SessionStore | None = getattr(request, "coatcheck", None)
        if face is not None:
            face.exchange.abandon(face.inner)


@overload
def session_of(request: HttpRequest) -> Session: ...
@overload
def session_of(request: HttpRequest, kind: type[T]) -> Typed[T]: ...
def session_of(request: HttpRequest, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request, or its data as one typed value.

    Raises ConfigError where there is none: no SessionMiddleware, or an excluded path.
    """
    session = _face_of(request).inner
    return session if kind is None else session.as_type(kind)


def exchange_of(request: HttpRequest) -> Exchange:
    """Return the exchange of a request: for `take` and `bump`, which commit at once."""
    return _face_of(request).exchange


def _face_of(request: HttpRequest) -> SessionStore:
    face = getattr(request, "session", None)
    if isinstance(face, SessionStore):
        return face
    ours = "coatcheck.adapters.django.SessionMiddleware"
    message = f"there is no session of ours on {request.path}: put {ours} into MIDDLEWARE"
    raise ConfigError(message)


def refusal_response(refusal: Refusal) -> HttpResponse:
    """Return the answer that a refusal stands for; a view may just raise it, a middleware catches it and returns this.

    Django asks nobody what to make of an exception that a middleware raises.
    """
    return _response(refusal.reply)


def _request(request: HttpRequest, scope: Any) -> Request:
    meta = request.META
    # Django joins repeated Cookie headers by commas
    headers: Headers = scope["headers"] if scope else EnvironHeaders(meta)
    if "HTTP_HOST" not in meta:  # Django's test client
        headers = [*headers, (b"host", str(meta.get("SERVER_NAME", "")).encode("latin-1", "replace"))]
    return Request(
        request.method or "GET",
        request.scheme or "http",
        request.path,
        headers,
        meta.get("QUERY_STRING", ""),
        meta.get("REMOTE_ADDR") or None,
        "http" if scope else kind_of(meta),
        cookie=None if scope else cookie_of(meta),
    )


def _response(reply: Reply) -> HttpResponse:
    headers = {name.decode("latin-1").title(): value.decode("latin-1") for name, value in reply.headers}
    return HttpResponse(reply.body, status=reply.status, headers=headers)


def _dress(response: HttpResponseBase, dressed: Headers, before: Headers) -> None:
    """Give a response the headers that were settled."""
    more = added(dressed, before)
    if more is None:
        for raw, _ in before:
            del response.headers[raw.decode("latin-1")]
    for raw, content in dressed if more is None else more:
        name, value = raw.decode("latin-1"), content.decode("latin-1")
        if name == "set-cookie":
            _set_cookie(response, value)
        elif (raw, content) == UNFRAMED and name in response.headers:
            response.headers[name] += f", {value}"  # one line for both: each of them applies (CSP section 3.1)
        elif (raw, content) == UNFRAMED and getattr(settings, "SECURE_CSP", None):
            response.headers["X-Frame-Options"] = "DENY"  # Django's middleware sets none where there is one already
        elif name != "x-frame-options" or not getattr(response, "xframe_options_exempt", False):
            response.headers[name] = value


def _set_cookie(response: HttpResponseBase, line: str) -> None:
    pair, *rest = line.split("; ")
    name, _, value = pair.partition("=")
    given: dict[str, str] = {}
    for one in rest:
        attribute, _, content = one.partition("=")
        given[attribute.lower()] = content
    response.set_cookie(
        name,
        value,
        max_age=int(given["max-age"]) if "max-age" in given else None,
        path=given.get("path", "/"),
        domain=given.get("domain"),
        secure="secure" in given,
        httponly="httponly" in given,
        samesite=given.get("samesite"),
    )
    written = response.cookies[name]
    written["expires"] = given.get("expires", "")
    if "partitioned" in given:  # Python's cookies know no such attribute before 3.14, and Django's none at all
        written["samesite"] += "; Partitioned"
