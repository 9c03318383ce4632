"""Sessions for Flask: `Coatcheck(app, store=...)`, and `flask.session` is our Session.

Response start is `save_session`, after the last `after_request`: what a generator writes while its body is sent comes
late. A refused request is answered by the first `before_request`, so that `after_request` (CORS headers) still sees it.
Flask-Login's login, logout and remember-me are translated into ours; what of Flask's settings is honoured stands below.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack, cast, overload

import click
import flask
from blinker import Namespace
from flask.cli import AppGroup
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin

from ..core.cookies import added
from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager, manager_of
from ..core.model import Level, Record, Reply
from ..core.policies import timeouts
from ..core.presets import DAY
from ..core.session import Session, Typed
from ..core.settings import Keywords, carrying
from ..flow.registry import Registry
from ..flow.sync import Exchange, Store
from ..stores.faces import keys_of, store_of
from .wsgi import KEY, Context, request_of
from .wsgi import exchange_of as exchange_of_environ
from .wsgi import session_of as session_of_environ

if TYPE_CHECKING:
    from ..flow.keys import Keys

T = TypeVar("T")
View = TypeVar("View", bound=Callable[..., Any])

coatcheck_ended = Namespace().signal("coatcheck-ended")
"""Sent when a browser presents a session that is over, and when a request logs out; the sender is the application.

Receivers get `reason` ("logout", "idle", "theft" ...), `handle` and `subject`.
"""

_REPLY = "coatcheck.reply"
_LOGIN_KEYS = ("_user_id", "_fresh", "_id")
OWN_KEYS = frozenset({"_flashes", "csrf_token", "_user_id", "_id"})
"""Keys of Flask, Flask-WTF and Flask-Login that move into a login, whatever `carry` says."""


class FlaskSession(Session, SessionMixin):
    """A Session with what Flask and its extensions expect of `flask.session`."""

    __slots__ = ()

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser; setting it lengthens the session to what the timeouts allow."""
        visit = self._looked()
        if visit.lasting is not None and visit.lasting.browser_only is not None:
            return not visit.lasting.browser_only
        if visit.login is not None:
            return visit.login.remember
        return not visit.logout and visit.record is not None and visit.record.persistent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if value and not self.permanent:
            self.lasting(idle=inf, until=inf, browser_only=False)
        elif not value and self.permanent:
            self.lasting(browser_only=True)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether this request came without a session that still counts."""
        return self.is_new

    @property
    def modified(self) -> bool:
        """Whether a key was set or deleted; nested changes are found without being told."""
        return self.visit.wrote

    @modified.setter
    def modified(self, value: bool) -> None:
        visit = self._looked()
        visit.wrote = visit.wrote or value

    @property
    def accessed(self) -> bool:
        """Whether the handler looked; Flask sets it whenever it passes the session along, which is no look."""
        return self.visit.consulted

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Take no note."""


class NoSession(SessionMixin, MutableMapping[str, Any]):
    """What stands in `flask.session` on an excluded path: whoever touches it is told."""

    def __init__(self, path: str = "") -> None:
        """Take the path to name."""
        self._path = path

    def _told(self, *_: Any) -> NoReturn:
        message = (
            f"there is no session on {self._path or 'this request'}: is Coatcheck(app) installed, and is the path not "
            "one of exclude=[...]?"
        )
        raise ConfigError(message)

    __getitem__ = __setitem__ = __delitem__ = __iter__ = __len__ = __contains__ = __bool__ = _told
    get = copy = clear = _told

    def __getattr__(self, name: str) -> Any:
        """Tell whoever wants to act."""
        if hasattr(Session, name):
            self._told()
        raise AttributeError(name)


session: FlaskSession = cast("FlaskSession", flask.session)
"""The session of this request: the same object as `flask.session`, typed."""


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
            return _response_of(reply)
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
                _follow_login(session)
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


class Coatcheck:
    """The extension: `Coatcheck(app, store=...)`, or `init_app(app)` in a factory, for any number of applications."""

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        store: str | Store | None = None,
        manager: SessionManager | None = None,
        keys: Keys | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        """Keep what every application gets; `COATCHECK_STORE` and `COATCHECK_<SETTING>` in its config come before it.

        `store` is a URL ("sqlite:///sessions.db") or a store; `settings` are those of `Settings`, or `manager` brings
        them. `keys`: where the sealed tokens' keyring is kept in a store, so that it follows rotations.
        """
        self._store = store
        self._manager = manager
        self._keys = keys_of(keys)
        self._settings = settings
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Give an application its sessions. Raises ConfigError for what is unsafe or cannot be honoured."""
        if "coatcheck" in app.extensions:
            message = f"{app.name!r} has its sessions already; call init_app once for each application"
            raise ConfigError(message)
        if type(app.session_interface) is not SecureCookieSessionInterface:
            found = type(app.session_interface).__qualname__
            message = f"{app.name!r} has sessions of its own already (found {found}); keep one of the two"
            raise ConfigError(message)
        store, settings = configured(app.config, app.default_config, self._settings)
        manager = managed(self._manager, settings)
        opened = store_of(self._store if store is None else store, manager.now)
        sessions = Sessions(manager, opened, self._keys)
        app.session_interface = sessions
        app.extensions["coatcheck"] = sessions
        app.wsgi_app = sessions.around(app, app.wsgi_app)  # type: ignore[method-assign]
        app.before_request_funcs.setdefault(None, []).insert(0, sessions.answer)
        app.error_handler_spec[None][None].setdefault(Refusal, refusal_response)
        app.cli.add_command(commands)
        _follow_flask_login(app)

    @property
    def registry(self) -> Registry:
        """The sessions of the current application, to list and to revoke."""
        return _installed().registry


def _installed() -> Sessions:
    found: Sessions | None = flask.current_app.extensions.get("coatcheck")
    if found is None:
        message = f"{flask.current_app.name!r} has no sessions of ours; call Coatcheck(app) or init_app(app)"
        raise ConfigError(message)
    return found


@overload
def session_of(request: flask.Request) -> Session: ...
@overload
def session_of(request: flask.Request, kind: type[T]) -> Typed[T]: ...
def session_of(request: flask.Request, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request, or its data as one typed value.

    Raises ConfigError where there is none: no Coatcheck in this application, or an excluded path.
    """
    found = session_of_environ(request.environ)
    return found if kind is None else found.as_type(kind)


def exchange_of(request: flask.Request) -> Exchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return exchange_of_environ(request.environ)


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
    """Guard a view, as `@require_login` or `@require_login(within=...)`: 401, or the way to the login page."""

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            session.require_login(within=within, level=level, fresh=fresh)
            return flask.current_app.ensure_sync(view)(*args, **kwargs)

        return guarded

    return guard if view is None else guard(view)


def refusal_response(refusal: Refusal) -> flask.Response:
    """Answer a Refusal; registered for every application that has no error handler of its own for it."""
    return _response_of(refusal.reply)


# -- what of Flask's settings is honoured ------------------------------------------------------------------------------

_HONOURED = {
    "SESSION_COOKIE_NAME": "name",
    "SESSION_COOKIE_DOMAIN": "domain",
    "SESSION_COOKIE_PATH": "path",
    "SESSION_COOKIE_SAMESITE": "same_site",
    "SESSION_COOKIE_PARTITIONED": "partitioned",
    "PERMANENT_SESSION_LIFETIME": "timeouts",
}
_REFUSED = {
    "SESSION_COOKIE_HTTPONLY": (False, "a session readable by scripts is stolen by the first injected one; drop it"),
    "SESSION_REFRESH_EACH_REQUEST": (
        False,
        "idle time is counted in the store, and the cookie is never sent again for it; drop it and choose timeouts",
    ),
}


def configured(
    config: Mapping[str, Any], defaults: Mapping[str, Any], keywords: Keywords
) -> tuple[Any, dict[str, Any]]:
    """Return the store and the settings that a configuration names, laid over the extension's keywords.

    Raises ConfigError, naming the key, for what cannot be honoured or says two things.
    """
    settings: dict[str, Any] = dict(keywords)
    own = {key.removeprefix("COATCHECK_").lower(): value for key, value in config.items() if key[:10] == "COATCHECK_"}
    store = own.pop("store", None)
    settings.update(own)
    for key, (unsafe, why) in _REFUSED.items():
        if config.get(key, True) is unsafe:
            message = f"{key}={unsafe}: {why}"
            raise ConfigError(message)
    if config.get("SESSION_COOKIE_SECURE") and settings.get("allow_insecure_http"):
        message = "SESSION_COOKIE_SECURE=True and allow_insecure_http=True contradict each other; drop one of them"
        raise ConfigError(message)
    for key, name in _HONOURED.items():
        value = config.get(key)
        if value is None or value == defaults.get(key, False):
            continue
        chosen = _translated(key, value)
        if settings.get(name, chosen) != chosen:
            message = f"{key} and {name} (COATCHECK_{name.upper()}) say two things; drop one of them"
            raise ConfigError(message)
        settings[name] = chosen
    return store, settings


def _translated(key: str, value: Any) -> Any:
    if key == "SESSION_COOKIE_SAMESITE":
        return str(value).title()
    if key != "PERMANENT_SESSION_LIFETIME":
        return value
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    try:
        # Flask counts it from the last request: up to a day it is an idle timeout, above it the remembered one
        return timeouts(idle=seconds) if seconds <= DAY else timeouts(remember=seconds, remember_idle=seconds)
    except ConfigError as error:
        message = f"PERMANENT_SESSION_LIFETIME={value!r}: {error}"
        raise ConfigError(message) from error


def managed(manager: SessionManager | None, settings: dict[str, Any]) -> SessionManager:
    """Return the manager that is meant; one of our making carries Flask's own keys into a login, too."""
    chosen = settings if manager is not None else carrying(settings, OWN_KEYS)
    return manager_of(manager, cast("Keywords", chosen))


# -- responses ---------------------------------------------------------------------------------------------------------


def _response_of(reply: Reply) -> flask.Response:
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


# -- Flask-Login -------------------------------------------------------------------------------------------------------


def _follow_flask_login(app: flask.Flask) -> None:
    """Translate Flask-Login's acts, where it is installed, by the signals that it sends after them."""
    try:
        import flask_login  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return
    flask_login.user_logged_in.connect(_logged_in, app)
    flask_login.user_login_confirmed.connect(_logged_in, app)
    flask_login.user_loaded_from_cookie.connect(_loaded_from_cookie, app)
    flask_login.user_logged_out.connect(_logged_out, app)
    flask_login.session_protected.connect(_protected, app)


def _logged_in(_app: flask.Flask, **_: Any) -> None:
    if "_user_id" in session:
        _follow_login(session)


def _follow_login(session: FlaskSession, *, remember: bool | None = None) -> None:
    """Log in whom the data names; "remember me" becomes our own, which a revocation ends, and not a cookie beside it.

    Until our login counts, the data names nobody: a refusal must not leave it behind.
    """
    named = {key: session.pop(key) for key in _LOGIN_KEYS if key in session}
    subject = str(named["_user_id"])
    if session.pop("_remember", None) == "set":
        remember = True
    seconds = session.pop("_remember_seconds", None)
    fresh = bool(named.get("_fresh"))
    if session.visit.login is None or session.subject != subject:
        known = session.subject == subject and session.visit.record is not None
        if not known or fresh:
            level = max(Level.AAL1, session.level if known else 0) if fresh else Level.REMEMBERED
            session.login(subject, methods=(), level=level, remember=remember)
    if remember and seconds is not None:
        session.lasting(until=session.visit.arrived + seconds)
    session.update(named)


def _loaded_from_cookie(_app: flask.Flask, **_: Any) -> None:
    """Take a remember cookie of Flask-Login's for a remembered session of ours, once, and take the cookie away."""
    if session.settled:
        for key in _LOGIN_KEYS:
            session.pop(key, None)
        return
    _follow_login(session, remember=True)
    session["_remember"] = "clear"


def _logged_out(_app: flask.Flask, **_: Any) -> None:
    if session.subject is None:
        return
    clear = session.get("_remember")
    session.logout()
    if clear is not None:
        session["_remember"] = clear


def _protected(app: flask.Flask, **_: Any) -> None:
    """End the session that Flask-Login's "strong" protection took the user from."""
    if "_user_id" not in session:
        _logged_out(app)


# -- flask coatcheck ---------------------------------------------------------------------------------------------------

commands = AppGroup("coatcheck", help="List and end sessions.")


@commands.command("list")
@click.argument("subject")
def _list(subject: str) -> None:
    """List the live sessions of SUBJECT."""
    for record in _each(subject):
        client = record.client
        agent = "" if client is None else ascii(client.agent or "")
        address = "-" if client is None else client.address or "-"
        seen = datetime.fromtimestamp(record.seen_at, UTC).isoformat(timespec="seconds")
        click.echo(f"{record.handle}  {seen}  {address}  {agent}")


@commands.command("revoke")
@click.argument("handles", nargs=-1)
@click.option("--subject", help="End every session of this subject.")
@click.option("--keep", help="With --subject: all but this one.")
def _revoke(handles: tuple[str, ...], subject: str | None, keep: str | None) -> None:
    """End sessions by their HANDLES, or all of a subject."""
    registry = _installed().registry
    if bool(handles) == (subject is not None) or (keep is not None and subject is None):
        message = "say once whose sessions end: HANDLES, or --subject (with --keep, all but one)"
        raise click.UsageError(message)
    if subject is not None:
        ended = sum(record.handle != keep for record in _each(subject))
        registry.revoke_all(subject, keep=keep)
        click.echo(f"ended {ended}")
        return
    missing = [handle for handle in handles if not registry.revoke(handle)]
    click.echo(f"ended {len(handles) - len(missing)}")
    if missing:
        message = f"no live session {', '.join(map(ascii, missing))}"
        raise click.ClickException(message)


def _each(subject: str) -> Iterator[Record]:
    registry, cursor = _installed().registry, None
    while True:
        page = registry.find(subject, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
