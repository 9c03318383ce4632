"""What stands in `flask.session`: our Session, with what Flask and its extensions expect of theirs; or nothing."""

from __future__ import annotations

from collections.abc import MutableMapping
from math import inf
from typing import Any, NoReturn, cast

import flask
from flask.sessions import SessionMixin

from ...core.errors import ConfigError
from ...core.session import Session


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
