"""Django's session class over ours: what SESSION_ENGINE names, and what hangs on `request.session`.

Rules
- `session_key` is the token, a secret: it is what Django's test client and others put into a cookie. The public name
  is `handle`. `SessionStore(key)` and `exists(key)` take whole tokens only.
- The session of a request is settled when the response starts; one that was made by hand (`SessionStore(key)`) stores
  what it is told at `save`, `create`, `cycle_key`, `delete` and `flush`, as Django's own do. An explicit `save` in a
  request is stored at once, too, and its cookie goes out with the response.
- `_auth_user_id` is Django's login: writing it is `Session.login`, taking it away is `Session.logout`, and it counts
  only beside the subject of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings  # type: ignore[import-untyped]
from django.contrib.auth import SESSION_KEY  # type: ignore[import-untyped]
from django.contrib.sessions.backends.base import SessionBase, UpdateError  # type: ignore[import-untyped]
from django.utils import timezone  # type: ignore[import-untyped]
from django.utils.module_loading import import_string  # type: ignore[import-untyped]

from ...core import tokens
from ...core.errors import ConfigError, StoreError
from ...core.hardening import NAMES
from ...core.model import Headers, Reply, Request
from ...core.session import Session
from ...core.visit import Lasting
from ...flow.sync import Exchange
from .site import site

_EXPIRY: Final = "_session_expiry"
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_NONE: Final = object()
PURGE_ROWS: Final = 1000


class SessionStore(SessionBase):  # type: ignore[misc]
    """A session as Django and its applications expect it; `inner` is the coatcheck Session."""

    _inner: Session | None = None
    _exchange: Exchange | None = None
    _key: str | None = None
    _excluded = ""
    _bound = False
    pending: Headers = ()
    accessed = modified = False

    def __init__(self, session_key: str | None = None) -> None:
        """Open nothing yet."""
        if session_key is not None:
            self._set_token(session_key)

    @classmethod
    def of(cls, exchange: Exchange, session: Session) -> SessionStore:
        """Return the face of a request's session."""
        face = cls()
        face._exchange, face._inner, face._bound = exchange, session, True
        return face

    @classmethod
    def excluded(cls, path: str) -> SessionStore:
        """Return what hangs on a request whose path has no sessions: it says so when it is touched."""
        face = cls()
        face._excluded = path
        return face

    @cached_property
    def serializer(self) -> Any:
        """What `encode` and `decode` of Django's class write: nothing that we store."""
        return import_string(settings.SESSION_SERIALIZER)

    # -- ours --------------------------------------------------------------------------------------------------------

    @property
    def inner(self) -> Session:
        """The coatcheck session; raises ConfigError on an excluded path."""
        inner = self._inner  # an empty one is false
        return self._opened()[1] if inner is None else inner

    @property
    def exchange(self) -> Exchange:
        """The exchange that this session is stored by."""
        exchange = self._exchange
        return self._opened()[0] if exchange is None else exchange

    @property
    def is_open(self) -> bool:
        """Whether anybody looked, or the session is a request's."""
        return self._inner is not None

    @property
    def handle(self) -> str | None:
        """The session's public name, for logs and revocation."""
        return self.inner.handle

    def prepare(self) -> None:
        """Let a new session's cookie outlive the browser, or not, as the settings say."""
        visit = self.inner.visit
        if visit.lasting is None and (visit.record is None or visit.login is not None):
            persistent = site().persistent if self._manages() else None
            if persistent is not None:
                visit.lasting = Lasting(browser_only=not persistent)

    def _manages(self) -> bool:
        return self.exchange is site().exchange

    @property
    def _is_socket(self) -> bool:
        return self.inner.visit.request.kind == "websocket"

    def _opened(self) -> tuple[Exchange, Session]:
        if self._excluded:
            message = f"there is no session on {self._excluded}: COATCHECK['EXCLUDE'] names it"
            raise ConfigError(message)
        if self._exchange is None or self._inner is None:
            self._exchange = site().exchange
            self._inner = _begun(self._exchange, self._key)
            if self._key is not None and self._inner.visit.record is None:
                self._inner = _begun(self._exchange, None)  # nobody's key: a new one comes with the first save
            self._key = None
        return self._exchange, self._inner

    def _store(self) -> None:
        """Commit what was asked for so far and go on; its cookies wait for the response."""
        exchange, session = self._opened()
        visit = session.visit
        known = visit.record is not None and visit.login is None and not visit.logout
        ended = bool(visit.logout)
        if visit.outcome is not None or self._is_socket:
            if visit.record is not None or not ended:
                exchange.save(session)
        else:
            self.prepare()
            answer = exchange.finish(session, 200, ())
            visit.outcome = None
            if isinstance(answer, Reply):
                message = (
                    "the session could not be saved: the store does not answer, or it was renewed or ended meanwhile"
                )
                raise StoreError(message)
            self.pending = [*self.pending, *(header for header in answer if header[0] not in NAMES)]
            visit.bare = visit.bare or ended
            visit.wanted = False
        if known and visit.record is None:
            message = "the session was ended before the request completed, perhaps by a logout in another one"
            raise UpdateError(message)

    # -- keys --------------------------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        visit = self.inner.visit
        visit.consulted = True
        ticket = visit.ticket if visit.record is not None and not visit.logout else None
        if visit.login is not None:
            ticket = visit.login.ticket
        elif visit.renew is not None:
            ticket = visit.renew
        return None if ticket is None else tokens.value_of(ticket).decode("ascii")

    def _set_token(self, value: str | None) -> None:
        self._inner, self._bound = None, False
        self._key = value if value and tokens.parse(value.encode("ascii", "replace")) is not None else None

    @property
    def session_key(self) -> str | None:
        """The token, or None until something is stored or somebody logs in; never log it."""
        return self._token()

    _session_key = property(_token, _set_token)

    # -- the mapping -------------------------------------------------------------------------------------------------

    def _get_session(self, no_load: bool = False) -> Session:
        self.accessed = True
        inner = self._inner
        return self._opened()[1] if inner is None else inner

    async def _aget_session(self, no_load: bool = False) -> Session:
        if self._inner is None:
            await sync_to_async(self._opened)()
        return self._get_session()

    _session = property(_get_session)
    _session_cache = property(_get_session)

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a value, and for Django's login key whether it counts."""
        return self.get(key, _NONE) is not _NONE  # type: ignore[arg-type]

    def __getitem__(self, key: str) -> Any:
        """Return a value, or raise KeyError."""
        value = self._get_session()[key]
        if key == SESSION_KEY and value != self.inner.subject:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def has_key(self, key: str) -> bool:
        """Tell whether there is a value."""
        return key in self

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; Django's login key logs that user in."""
        inner = self._get_session()
        if key == SESSION_KEY:
            inner.login(str(value), methods=())
        elif key == _EXPIRY:
            self._last(value)
        inner[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        """Delete a value, or raise KeyError; without Django's login key nobody is logged in."""
        inner = self._get_session()
        del inner[key]
        self.modified = True
        if key == SESSION_KEY and inner.subject is not None:
            rest = inner.copy()
            inner.logout()
            inner.update(rest)

    def pop(self, key: str, default: Any = _NONE, *args: Any) -> Any:
        """Remove a key and return its value, or the default."""
        if key not in self:
            if default is _NONE:
                raise KeyError(key)
            return default
        value = self[key]
        del self[key]
        return value

    def setdefault(self, key: str, value: Any) -> Any:
        """Return a value, which is put there if there is none."""
        if key not in self:
            self[key] = value
        return self[key]

    def update(self, dict_: Mapping[str, Any]) -> None:
        """Set many values."""
        self.modified = True
        for key, value in dict(dict_).items():
            self[key] = value

    def clear(self) -> None:
        """Forget all data; nobody is logged in after that."""
        inner = self._get_session()
        self.modified = True
        if inner.subject is None:
            inner.replace({})
        else:
            inner.logout()

    def is_empty(self) -> bool:
        """Tell whether there is neither a key nor data."""
        visit = self.inner.visit
        return not visit.data and visit.login is None and (visit.record is None or bool(visit.logout))

    def _last(self, value: Any) -> None:
        """Say Django's wish for an expiry in the core's words; what the policy does not allow, the core cuts."""
        inner, now = self.inner, self.exchange.manager.now()
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            until = (timezone.make_aware(value) if timezone.is_naive(value) else value).timestamp()
            inner.lasting(idle=max(1.0, until - now), until=until, browser_only=False)
        elif value == 0:
            inner.lasting(browser_only=True)
        elif value is not None:
            seconds = float(value)
            longer = seconds < 0 or seconds > self.exchange.manager.clocks.absolute
            inner.lasting(idle=max(1.0, seconds), until=now + seconds if longer else None, browser_only=False)

    # -- what reaches the store --------------------------------------------------------------------------------------

    def exists(self, session_key: str | None) -> bool:
        """Tell whether a whole token opens a live session."""
        return bool(session_key) and type(self)(session_key).session_key is not None

    def create(self) -> None:
        """Begin a new session and store it, even if it is empty."""
        if not self._bound and self.inner.visit.record is not None:
            self._inner = _begun(self.exchange, None)
        self.save(must_create=True)
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Store the session now; raises UpdateError where it ended meanwhile."""
        visit = self.inner.visit
        if visit.login is None and (visit.record is None or visit.logout):
            visit.wanted = True
        self._store()

    def delete(self, session_key: str | None = None) -> None:
        """End this session, or the one that a token opens, now."""
        if session_key is not None and session_key != self.session_key:
            other = type(self)(session_key)
            if other.session_key is not None:
                other.delete()
            return
        self.inner.logout()
        self._store()
        if not self._bound:
            self._inner = _begun(self.exchange, None)

    def load(self) -> dict[str, Any]:
        """Return the data."""
        return self.inner.copy()

    def flush(self) -> None:
        """End this session: a request's with its response, whatever the status; a websocket's now."""
        self.accessed = self.modified = True
        if self._bound and not self._is_socket:
            self.inner.logout()
        else:
            self.delete()

    def cycle_key(self) -> None:
        """Give the session another key: at login and when a password changes, a new one for good.

        On a safe request of somebody who stays logged in (SECRET_KEY was rotated) parallel requests keep their key for
        the grace.
        """
        self.accessed = self.modified = True
        inner = self.inner
        visit = inner.visit
        if self._bound:
            if visit.record is not None and visit.record.subject is not None and visit.request.method in _SAFE:
                visit.due = True
            else:
                inner.renew()
            return
        if visit.record is None:
            visit.wanted = True
        inner.renew()
        self._store()

    @classmethod
    def clear_expired(cls) -> None:
        """End overdue sessions and forget those that ended long ago: `manage.py clearsessions`."""
        store = site().store
        while store.purge(PURGE_ROWS):
            pass

    # -- the same, awaited -------------------------------------------------------------------------------------------

    async def aset(self, key: str, value: Any) -> None:
        """See `__setitem__`."""
        await self._aget_session()
        self[key] = value

    async def aget(self, key: str, default: Any = None) -> Any:
        """See `get`."""
        await self._aget_session()
        return self.get(key, default)

    async def apop(self, key: str, default: Any = _NONE, *args: Any) -> Any:
        """See `pop`."""
        await self._aget_session()
        return self.pop(key, default)

    async def asetdefault(self, key: str, value: Any) -> Any:
        """See `setdefault`."""
        await self._aget_session()
        return self.setdefault(key, value)

    async def aupdate(self, dict_: Mapping[str, Any]) -> None:
        """See `update`."""
        await self._aget_session()
        self.update(dict_)

    async def ahas_key(self, key: str) -> bool:
        """See `has_key`."""
        await self._aget_session()
        return key in self

    async def akeys(self) -> Any:
        """Return the keys."""
        return (await self._aget_session()).keys()

    async def avalues(self) -> Any:
        """Return the values."""
        return (await self._aget_session()).values()

    async def aitems(self) -> Any:
        """Return the items."""
        return (await self._aget_session()).items()

    async def aset_expiry(self, value: Any) -> None:
        """See `set_expiry`."""
        await self._aget_session()
        self.set_expiry(value)

    async def aexists(self, session_key: str | None) -> bool:
        """See `exists`."""
        return await sync_to_async(self.exists)(session_key)

    async def acreate(self) -> None:
        """See `create`."""
        await sync_to_async(self.create)()

    async def asave(self, must_create: bool = False) -> None:
        """See `save`."""
        await sync_to_async(self.save)(must_create)

    async def adelete(self, session_key: str | None = None) -> None:
        """See `delete`."""
        await sync_to_async(self.delete)(session_key)

    async def aload(self) -> dict[str, Any]:
        """See `load`."""
        return (await self._aget_session()).copy()

    async def aflush(self) -> None:
        """See `flush`."""
        await sync_to_async(self.flush)()

    async def acycle_key(self) -> None:
        """See `cycle_key`."""
        await sync_to_async(self.cycle_key)()

    @classmethod
    async def aclear_expired(cls) -> None:
        """See `clear_expired`."""
        await sync_to_async(cls.clear_expired)()


def is_ours(session: object) -> bool:
    """Tell whether this is a session of ours itself, not one in the clothes of Channels' middleware (a LazyObject)."""
    return issubclass(type(session), SessionStore)


def _begun(exchange: Exchange, key: str | None) -> Session:
    """Begin an exchange without a browser: for sessions that are made or opened by hand."""
    manager = exchange.manager
    chosen = manager.settings
    host = "localhost" if chosen.allow_insecure_http else next(iter(chosen.origins), "://localhost").partition("://")[2]
    headers = [(b"host", host.encode())]
    if key is not None:
        headers.append((b"cookie", f"{manager.cookie.name}={key}".encode("ascii")))
    scheme = "http" if chosen.allow_insecure_http else "https"
    session = exchange.begin(Request("GET", scheme, "/", headers))
    if isinstance(session, Reply):
        message = "the session could not be opened: the store does not answer"
        raise StoreError(message)
    return session
