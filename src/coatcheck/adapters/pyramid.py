"""Sessions for Pyramid: `config.include("coatcheck.adapters.pyramid")`, with `coatcheck.store = ...` in the settings.

A tween over the exception views begins and finishes; `request.session` is Pyramid's ISession and our Session in one.
Response start is the tween's return: what response callbacks and a streamed body write later is kept if no cookie is
needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from pyramid.authorization import ACLHelper, Authenticated, Everyone  # type: ignore[import-untyped]
from pyramid.interfaces import (  # type: ignore[import-untyped]
    PHASE2_CONFIG,
    ICSRFStoragePolicy,
    IDefaultCSRFOptions,
    ISecurityPolicy,
    ISession,
)
from pyramid.path import DottedNameResolver  # type: ignore[import-untyped]
from pyramid.response import Response  # type: ignore[import-untyped]
from pyramid.settings import aslist, falsey, truthy  # type: ignore[import-untyped]
from pyramid.tweens import EXCVIEW  # type: ignore[import-untyped]
from pyramid.viewderivers import INGRESS  # type: ignore[import-untyped]
from zope.interface import implementer  # type: ignore[import-untyped]

from ..core.errors import ConfigError, Refusal
from ..core.manager import SessionManager
from ..core.model import Reply
from ..core.session import Session, Typed
from ..core.settings import Settings
from ..flow.sync import Exchange
from ..stores.faces import keys_of, store_of
from .wsgi import KEY, Context, close_body, context_of, is_whole, request_of, start_of

__all__ = ["CsrfStoragePolicy", "PyramidSession", "SecurityPolicy", "exchange_of", "includeme", "session_of"]

T = TypeVar("T")

PREFIX = "coatcheck."
FLASH = "_f_"
"""How the keys of flash messages begin, as in Pyramid's own sessions."""

_OURS = frozenset({"store", "manager", "keys"})
_OBJECTS = frozenset({"data", "keys", "limit", "manager", "sealed", "timeouts"})
_DEFAULTS = Settings()


def includeme(config: Any) -> None:
    """Give an application its sessions; what it configures itself goes before ours."""
    config.add_tween(f"{__name__}.Tween", over=EXCVIEW)
    config.set_session_factory(_face_of)
    config.set_csrf_storage_policy(CsrfStoragePolicy())
    config.add_exception_view(refusal_view, context=Refusal)
    config.add_view_deriver(login_deriver, "require_login", under=INGRESS, over="secured_view")
    # after the application's own policy, of whatever kind: ours is for one that has none
    config.action((PREFIX, ISecurityPolicy), lambda: _secure(config.registry), order=PHASE2_CONFIG + 1)


@implementer(ISession)
class PyramidSession(Session):
    """The Session as Pyramid knows sessions (pyramid.interfaces.ISession)."""

    __slots__ = ()

    @property
    def created(self) -> int:
        """When the session began (seconds since 1970, UTC)."""
        visit = self._looked()
        record = visit.record
        return int(visit.arrived if record is None or self.new else record.created_at)

    @property
    def new(self) -> bool:
        """Whether the session began with this request."""
        visit = self._looked()
        return visit.record is None or visit.logout != "" or visit.login is not None

    def login(self, subject: str, **how: Any) -> None:
        """Log a subject in; an anonymous visitor's flash messages stay, they are the framework's own."""
        flashed = {key: self[key] for key in self if key.startswith(FLASH)} if self.subject is None else {}
        super().login(subject, **how)
        if flashed:
            self.update(flashed)

    def invalidate(self) -> None:
        """End this session: what is written afterwards begins another."""
        self.logout()

    def changed(self) -> None:
        """Do nothing: a change inside of a value counts without being told."""

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Put a message at the end of a queue."""
        messages = self.setdefault(FLASH + queue, [])
        if allow_duplicate or msg not in messages:
            messages.append(msg)

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue, and remove them."""
        messages: list[Any] = self.pop(FLASH + queue, [])
        return messages

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue."""
        messages: list[Any] = self.get(FLASH + queue, [])
        return messages

    def get_csrf_token(self) -> str:
        """Return the session's token; each call spells it anew, so it is checked by `check_csrf`, never compared."""
        return self.csrf_token()

    def new_csrf_token(self) -> str:
        """Return the session's token, in a new spelling: the token itself changes with each login."""
        return self.csrf_token()


@implementer(ISecurityPolicy)
class SecurityPolicy:
    """Who is logged in, by the session; permissions by the ACLs of the context. Subclass it for your own."""

    def identity(self, request: Any) -> Any:
        """Return who is there; a subclass returns the user's object."""
        return self.authenticated_userid(request)

    def authenticated_userid(self, request: Any) -> str | None:
        """Return the subject of the session."""
        return session_of(request).subject

    def permits(self, request: Any, context: Any, permission: str) -> Any:
        """Return what the context's ACL says (pyramid.authorization.ACLHelper)."""
        return ACLHelper().permits(context, self.principals(request), permission)

    def principals(self, request: Any) -> list[str]:
        """Return the names by which ACLs know who is there; a subclass adds groups."""
        userid = self.authenticated_userid(request)
        return [Everyone] if userid is None else [Everyone, Authenticated, userid]

    def remember(self, request: Any, userid: str, **how: Any) -> list[tuple[str, str]]:
        """Log in; the tween sends the cookie, so there are no headers to set. `how`: keywords of `Session.login`."""
        session_of(request).login(userid, **how)
        return []

    def forget(self, request: Any, **how: Any) -> list[tuple[str, str]]:
        """Log out. `how`: keywords of `Session.logout`."""
        session_of(request).logout(**how)
        return []


@implementer(ICSRFStoragePolicy)
class CsrfStoragePolicy:
    """The token of Pyramid's own CSRF check is the session's."""

    def new_csrf_token(self, request: Any) -> str:
        """Return a token."""
        return session_of(request).csrf_token()

    def get_csrf_token(self, request: Any) -> str:
        """Return a token."""
        return session_of(request).csrf_token()

    def check_csrf_token(self, request: Any, supplied_token: str) -> bool:
        """Tell whether a token is the session's."""
        return session_of(request).check_csrf(supplied_token)


class Tween:
    """Begins before the application's own tweens and views, finishes after its exception views."""

    def __init__(self, handler: Callable[[Any], Any], registry: Any) -> None:
        """Stand around a handler; raise ConfigError for settings that are unsafe or unknown."""
        given = _settings_of(registry.settings)
        ours = {name: given.pop(name, None) for name in _OURS}
        if ours["manager"] is not None and given:
            message = f"give {PREFIX}manager or settings, not both (found {', '.join(sorted(given))})"
            raise ConfigError(message)
        csrf = registry.queryUtility(IDefaultCSRFOptions)
        if csrf is not None and csrf.require_csrf:
            given.setdefault("csrf", "report")  # Pyramid refuses, and knows which views are exempt
        self._handler = handler
        self.manager = manager = ours["manager"] or SessionManager(**given)
        self._exchange = Exchange(
            manager, store_of(ours["store"], manager.now), PyramidSession, keys=keys_of(ours["keys"])
        )
        self._name = manager.cookie.name

    def __call__(self, request: Any) -> Any:
        """Serve one request."""
        environ = request.environ
        outer = environ.get(KEY)
        joined = outer is not None and outer.name == self._name
        if outer is not None and joined and not outer.session.settled:
            return self._handler(request)  # a subrequest, or the same sessions around us: its exchange is this one's
        asked = request_of(environ)
        if self.manager.excludes(asked.path):
            reply = self.manager.screen(asked)
            return self._handler(request) if reply is None else _response_of(reply)
        session = self._exchange.begin(asked)
        if isinstance(session, Reply):
            return _response_of(session)
        environ[KEY] = context = Context(self._exchange, session, self._name)
        _share(request, context)
        try:
            return self._finished(request, session, self._answered(request))
        except BaseException:
            self._settle_or_abandon(session)
            raise
        finally:
            if outer is not None and not joined:
                environ[KEY] = outer

    def _answered(self, request: Any) -> Any:
        try:
            return self._handler(request)
        except Refusal as refusal:  # of a tween between us and the exception views
            return _response_of(refusal.reply)

    def _finished(self, request: Any, session: Session, response: Any) -> Any:
        """Settle the session and return the response in its new dress, or what replaces it."""
        body = response.app_iter
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headerlist]
        try:
            answer = self._exchange.finish(session, _status_of(request, response), headers)
        except BaseException:
            close_body(body)
            raise
        if isinstance(answer, Reply):
            close_body(body)
            response, body = _response_of(answer), ()
        else:
            dressed = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer]
            if not is_whole(body, request.environ):
                response.app_iter = Body(body, lambda: self._settle_or_abandon(session))
            response.headerlist = dressed
        # callbacks run in their order: after those that the application added until now
        request.add_finished_callback(lambda _: self._settle_or_abandon(session))
        return response

    def _settle_or_abandon(self, session: Session) -> None:
        """See the exchange to its end: what was written late is kept, or what must be is committed."""
        if session.visit.outcome is None:
            self._exchange.abandon(session)
        else:
            self._exchange.close(session)


class Body:
    """A streamed body; what was written while it was made is kept when the server closes it."""

    __slots__ = ("_at_end", "_chunks", "_iterable")

    def __init__(self, iterable: Iterable[bytes], at_end: Callable[[], None]) -> None:
        """Take the application's iterable; nothing of it runs yet."""
        self._iterable = iterable
        self._at_end = at_end
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Body:
        """Return the iterator, this."""
        return self

    def __next__(self) -> bytes:
        """Return the next chunk."""
        if self._chunks is None:
            self._chunks = iter(self._iterable)
        return next(self._chunks)

    def close(self) -> None:
        """Close the application's iterable, then the exchange; always both."""
        try:
            close_body(self._iterable)
        finally:
            self._at_end()


@overload
def session_of(request: Any) -> Session: ...
@overload
def session_of(request: Any, kind: type[T]) -> Typed[T]: ...
def session_of(request: Any, kind: type[T] | None = None) -> Session | Typed[T]:
    """Return the session of a request, or its data as one typed value.

    Raises ConfigError where there is none: the adapter is not included, or an excluded path.
    """
    session = context_of(request.environ).session
    return session if kind is None else session.as_type(kind)


def exchange_of(request: Any) -> Exchange:
    """Return the exchange of a request: for `save`, `take` and `bump`, which commit at once."""
    return context_of(request.environ).exchange


def login_deriver(view: Callable[..., Any], info: Any) -> Callable[..., Any]:
    """Guard a view: `@view_config(..., require_login=True)`, or `require_login={"within": 600, "level": Level.AAL2}`.

    Nobody, or nobody surely enough: 401, or the login page, before any permission is asked for.
    """
    asked = info.options.get("require_login", False)
    if asked is False:
        return view
    how = {} if asked is True else asked
    if not isinstance(how, Mapping) or not how.keys() <= {"within", "level", "fresh"}:
        message = f"require_login of a view is True, or a dict of within, level and fresh (found {asked!r:.60})"
        raise ConfigError(message)

    def guarded(context: Any, request: Any) -> Any:
        session_of(request).require_login(**how)
        return view(context, request)

    return guarded


login_deriver.options = ("require_login",)  # type: ignore[attr-defined]


def refusal_view(refusal: Refusal, _request: Any) -> Any:
    """Answer a Refusal; the application's own exception view for Refusal goes before this one."""
    return _response_of(refusal.reply)


def _face_of(request: Any) -> PyramidSession:
    """Return what `request.session` is."""
    session = session_of(request)
    return session if isinstance(session, PyramidSession) else PyramidSession(session.visit)


def _share(request: Any, context: Context) -> None:
    """Let the request's subrequests have its session, even those whose environ is not a copy of its own."""
    invoke = request.invoke_subrequest

    def invoke_subrequest(request: Any, use_tweens: bool = False) -> Any:
        request.environ.setdefault(KEY, context)
        return invoke(request, use_tweens)

    request.invoke_subrequest = invoke_subrequest


def _secure(registry: Any) -> None:
    if registry.queryUtility(ISecurityPolicy) is None:
        registry.registerUtility(SecurityPolicy(), ISecurityPolicy)


def _status_of(request: Any, response: Any) -> int:
    """Return the status as far as it is known: a conditional response may still turn into a 304 or 206."""
    status: int = response.status_int
    if status == 200 and response.conditional_response and request.method in ("GET", "HEAD"):
        asked = request.environ
        if "HTTP_IF_NONE_MATCH" in asked or "HTTP_IF_MODIFIED_SINCE" in asked or "HTTP_RANGE" in asked:
            return 304
    return status


def _response_of(reply: Reply) -> Any:
    status, headers = start_of(reply)
    response = Response(reply.body, status)
    response.headerlist = headers
    return response


def _settings_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return our settings out of an application's, texts of an ini file as what they mean."""
    return {
        name.removeprefix(PREFIX): _value_of(name, value) if isinstance(value, str) else value
        for name, value in settings.items()
        if name.startswith(PREFIX)
    }


def _value_of(name: str, text: str) -> Any:
    setting = name.removeprefix(PREFIX)
    default = getattr(_DEFAULTS, setting, None)
    if isinstance(default, bool):
        if text.strip().lower() not in truthy | falsey:
            message = f"{name} is true or false (found {text!r:.40})"
            raise ConfigError(message)
        return text.strip().lower() in truthy
    if setting == "policies":
        return [_named(name, one) for one in aslist(text)]
    if isinstance(default, tuple):
        return aslist(text)
    if setting == "limit" and text.strip().isdecimal():
        return int(text)
    dotted = "." in text or ":" in text
    return _named(name, text) if setting in _OBJECTS and (dotted or setting != "timeouts") else text.strip()


def _named(name: str, dotted: str) -> Any:
    """Return the object that a dotted name of the settings means."""
    try:
        return DottedNameResolver(None).resolve(dotted.strip())
    except (ImportError, ValueError) as error:
        message = f"{name} names an object as in my_shop.sessions.cart (found {dotted!r:.80}: {error})"
        raise ConfigError(message) from error
