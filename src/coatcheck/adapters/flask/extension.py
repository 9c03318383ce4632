"""The extension: what an application calls to have sessions, and how a view gets at the one of its request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import flask
from flask.sessions import SecureCookieSessionInterface

from ...core.errors import ConfigError, Refusal
from ...core.manager import SessionManager
from ...core.session import Session, Typed
from ...core.settings import Keywords
from ...flow.registry import Registry
from ...flow.store import Store
from ...flow.sync import Exchange
from ...stores.faces import keys_of, store_of
from ..wsgi import exchange_of as exchange_of_environ
from ..wsgi import session_of as session_of_environ
from .commands import commands
from .interface import Sessions, installed, response_of
from .login import follow_flask_login
from .mapping import session
from .settings import configured, managed

if TYPE_CHECKING:
    from ...flow.keys import Keys

T = TypeVar("T")
View = TypeVar("View", bound=Callable[..., Any])


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
        follow_flask_login(app)

    @property
    def registry(self) -> Registry:
        """The sessions of the current application, to list and to revoke."""
        return installed().registry


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
    return response_of(refusal.reply)
