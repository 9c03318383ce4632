"""The session interface of one application: begins an exchange, settles it in `save_session`, tells who left.

Response start is `save_session`, after the last `after_request`: what a generator writes while its body is sent comes
late. A refused request is answered by the first `before_request`, so that `after_request` (CORS headers) still sees it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import flask
from blinker import Namespace
from flask.sessions import SessionInterface

from ...core.cookies import added
from ...core.errors import ConfigError, Refusal
from ...core.manager import SessionManager
from ...core.model import Record, Reply
from ...core.session import Session
from ...flow.registry import Registry
from ...flow.store import Store
from ...flow.sync import Exchange
from ..wsgi import KEY, Context, request_of
from .login import follow_login
from .mapping import FlaskSession, NoSession

if TYPE_CHECKING:
    from ...flow.keys import Keys

coatcheck_ended = Namespace().signal("coatcheck-ended")
"""Sent when a browser presents a session that is over, and when a request logs out; the sender is the application.

Receivers get `reason` ("logout", "idle", "theft" ...), `handle` and `subject`.
"""

_REPLY = "coatcheck.reply"


class Sessions(SessionInterface):
    """The session interface of one application, and what it stands on; `app.extensions["coatcheck"]`."""

    null_session_class = NoSession  # type: ignore[assignment]

    def __init__(self, manager: SessionManager, store: Store, keys: Keys | None) -> None:
        """Join a manager and a store; opens nothing."""
        self.manager = manager
        self.store = store
        self.exchange = Exchange(manager, store, FlaskSession, keys=keys)
        self.registry = Registry(store, manager.realm, manager.now)
        self._name = manager.cookie.name

    def open_session(self, app: flask.Flask, request: flask.Request) -> Any:
        """Return the session of a request; a refusal waits in the environ for `answer`."""
        environ = request.environ
        outer = environ.get(KEY)
        if outer is not None and outer.name == self._name:  # our WSGI middleware, or a test client that opens twice
            return outer.session if isinstance(outer.session, FlaskSession) else FlaskSession(outer.session.visit)
        incoming = request_of(environ)
        if self.manager.excludes(incoming.path):
            reply = self.manager.screen(incoming)
            if reply is not None:
                environ[_REPLY] = reply
            return NoSession(incoming.path)
        begun = self.exchange.begin(incoming)
        if isinstance(begun, Reply):
            environ[_REPLY] = begun
            begun = self.manager.blank(incoming, FlaskSession)
        environ[KEY] = Context(self.exchange, begun, self._name)
        return begun

    def answer(self) -> flask.Response | None:
        """Answer in the view's place where the request was refused; the first `before_request`."""
        environ = flask.request.environ
        reply = environ.pop(_REPLY, None)
        if reply is not None:
            return response_of(reply)
        context = self._own(environ)
        visit = None if context is None else context.session.visit
        if visit is not None and visit.ended_because is not None and visit.presented is not None:
            app: flask.Flask = flask.current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
            _tell_ended(app, visit.presented, visit.ended_because)
        return None

    def save_session(self, app: flask.Flask, session: Any, response: flask.Response) -> None:
        """Settle the exchange, and dress the response or put our 503 in its place."""
        environ = flask.request.environ
        if _REPLY in environ:  # somebody's before_request came before ours
            return _replace(response, environ.pop(_REPLY))
        if self._own(environ) is None:
            return None  # the middleware around us settles
        if "_user_id" in session.visit.data and session.visit.wrote:
            try:
                follow_login(session)
            except Refusal as refusal:
                _replace(response, refusal.reply)
        leaving = _leaving(session)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        answer = self.exchange.finish(session, response.status_code, headers)
        if isinstance(answer, Reply):
            _replace(response, answer)
        else:
            more = added(answer, headers)
            if more is None:
                response.headers.clear()
            _add_headers(response, answer if more is None else more)
            if leaving is not None:
                _tell_ended(app, leaving, "logout")
        response.call_on_close(functools.partial(self.exchange.close, session))
        return None

    def around(self, app: flask.Flask, inner: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return what goes around `app.wsgi_app`: it abandons an exchange whose response never came."""

        def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            outer = environ.get(KEY)
            try:
                return inner(environ, start_response)
            finally:
                context = self._own(environ)
                if context is not None and context is not outer and context.session.visit.outcome is None:
                    leaving = _leaving(context.session)
                    self.exchange.abandon(context.session)
                    if leaving is not None:
                        _tell_ended(app, leaving, "logout")
                if outer is not None:
                    environ[KEY] = outer

        return wsgi_app

    def _own(self, environ: Mapping[str, Any]) -> Context | None:
        context: Context | None = environ.get(KEY)
        return context if context is not None and context.exchange is self.exchange else None


def installed() -> Sessions:
    """Return the sessions of the current application, or raise ConfigError."""
    found: Sessions | None = flask.current_app.extensions.get("coatcheck")
    if found is None:
        message = f"{flask.current_app.name!r} has no sessions of ours; call Coatcheck(app) or init_app(app)"
        raise ConfigError(message)
    return found


def response_of(reply: Reply) -> flask.Response:
    """Return a reply as a response of the current application."""
    response = flask.current_app.response_class()
    _replace(response, reply)
    return response


def _replace(response: flask.Response, reply: Reply) -> None:
    """Put a reply in a response's place, whose body is never asked for."""
    close = getattr(response.response, "close", None)
    if close is not None:
        close()
    response.status_code = reply.status
    response.headers.clear()
    _add_headers(response, reply.headers)
    response.set_data(reply.body)


def _add_headers(response: flask.Response, headers: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))


def _leaving(session: Session) -> Record | None:
    return session.visit.record if session.visit.logout else None


def _tell_ended(app: flask.Flask, record: Record, reason: str) -> None:
    if coatcheck_ended.receivers:
        coatcheck_ended.send(
            app, _async_wrapper=app.ensure_sync, reason=reason, handle=record.handle, subject=record.subject
        )
