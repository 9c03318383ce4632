"""The handler's side of a session: the acts that change who is logged in, over a mapping that waits for nothing.

A handler reads and writes; what it asked for is kept in the session's `Visit`. Nothing is stored before the response
starts, when the manager settles the visit (core/manager.py). So `login` is the same plain call in every framework.
A session is built up floor by floor: mapping.py, the data; presence.py, who is there; guard.py, is that enough; the
acts are here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, TypeVar

from . import epochs, markup, stepup, typed
from .errors import ConfigError, DataError, SettledError
from .guard import Guard
from .model import Because, Instant, Level
from .visit import MOST_SUBJECT, Carry, Lasting, Login

T = TypeVar("T")


class Session(Guard):
    """What a server remembers of one browser between requests, as the handler sees it.

    A mapping of str keys to values that the codec keeps; nested changes count. It is not for concurrent use within
    one request. `login`, `logout`, `renew` and `require_login` decide who is there; data never does.
    """

    __slots__ = ()

    # -- who is logged in ----------------------------------------------------------------------------------------------

    def login(
        self,
        subject: str,
        *,
        methods: tuple[str, ...] = ("pwd",),
        level: int = Level.AAL1,
        remember: bool | None = None,
        carry: Carry | None = None,
        tenant: str | None = None,
    ) -> None:
        """Log a subject in whose proof you have just checked: a new handle and secret, and the old session ends.

        The same subject again is a re-authentication or step-up (data stays); another one starts empty; out of an
        anonymous session only the keys that `carry` (or the manager's `carry`) names move.
        `remember`: the longer clocks, and a cookie that outlives the browser; None: as it was, for the same subject.
        `tenant`: whose sessions `Registry.revoke_tenant` ends; None: as it was, too. With another one, data goes.
        Raises SettledError when the response has started, Refusal when the request cannot show that it came from us.
        """
        visit = self._before_start("login")
        if type(subject) is not str or not 0 < len(subject) <= MOST_SUBJECT or not subject.isprintable():
            message = f"a subject is 1 to {MOST_SUBJECT} printable characters (found {subject!r:.60})"
            raise DataError(message, key="subject", found=type(subject).__qualname__)
        if visit.request.kind == "websocket":
            message = "a websocket cannot log anybody in: it cannot hand out a cookie; log in by a request"
            raise SettledError(message)
        visit.counter.allow_login(visit)
        before, where = self.subject, self.tenant
        if tenant is None:
            tenant = where if before == subject else None
        elif not epochs.is_tenant(tenant):
            message = f"a tenant is 1 to {epochs.MOST_TENANT} printable characters (found {tenant!r:.60})"
            raise DataError(message, key="tenant", found=type(tenant).__qualname__)
        if before is None:
            visit.data = visit.counter.carried(visit.data, carry)
        elif before != subject or tenant != where:
            visit.data = {}
        if remember is None:
            remember = before == subject and visit.record is not None and visit.record.persistent
        visit.asked = visit.wrote = True
        visit.typed = None
        visit.renew = None
        visit.login = Login(subject, tuple(methods), int(level), remember, visit.counter.mint(subject), tenant)

    def stepped_up(self, *methods: str, level: int | None = None) -> None:
        """Raise this session by a further factor whose proof you have just checked: `stepped_up("otp")`.

        A login of the same subject: new handle and secret, data stays, and so does the overall end, which one factor
        does not move (NIST SP 800-63B-4 section 2.2.3). `level`: what all its methods make together, by their names
        (RFC 8176); AAL3 must be said. A remembered session counts for nothing here.
        Raises Refusal where nobody is logged in, DataError for what no such methods make.
        """
        visit = self._before_start("stepped_up")
        subject = self.subject
        if subject is None:
            raise visit.counter.challenge(visit, reauthenticate=False, within=None)
        plain = self.level > Level.REMEMBERED
        together = tuple(dict.fromkeys((*self.methods, *methods) if plain else methods))
        stepup.check_methods(methods, level, together)
        reached = stepup.level_of(together) if level is None else level
        first = visit.login is None
        self.login(subject, methods=together, level=max(reached, self.level))
        if first and plain and visit.record is not None and visit.lasting is None:
            visit.lasting = Lasting(until=visit.record.expires_at)

    def logout(self, *, everywhere: bool = False) -> None:
        """End this session, or with `everywhere` all of the subject's; committed whatever becomes of the response."""
        visit = self._looked()
        if everywhere:
            visit.counter.need_store("logout(everywhere=True)")
        visit.asked = visit.wrote = True
        visit.logout = "everywhere" if everywhere or visit.logout == "everywhere" else "here"
        visit.login = visit.renew = visit.planned = visit.typed = visit.lasting = None
        visit.wanted = False
        visit.end_others = ""
        visit.data = {}

    def renew(self) -> None:
        """Hand out a new handle and secret for the same session: call it when privileges change.

        Raises SettledError when the response has started.
        """
        visit = self._before_start("renew")
        if visit.request.kind == "websocket":
            message = "a websocket cannot renew a session: it cannot hand out a cookie"
            raise SettledError(message)
        if visit.login is None and visit.record is not None and not visit.logout:
            visit.asked = True
            visit.renew = visit.counter.mint(visit.record.subject, visit.record.handle)

    # -- what changed in the world -------------------------------------------------------------------------------------

    def end_others(self, because: Because = "owner") -> None:
        """End the subject's other sessions, in the same commit as whatever else this request does."""
        visit = self._before_start("end_others")
        visit.counter.need_store("end_others()")
        visit.asked = True
        visit.end_others = because

    def password_changed(self) -> None:
        """Say that the subject's password, or another factor, was changed by whoever is here, who proved the old one.

        One commit gives this browser a new handle and secret, with no grace for those of before, and ends the subject's
        other sessions, also a login with the old password that is under way. Where somebody else changed it:
        `Registry.revoke_all(subject, because="factor_change")`.
        """
        subject, visit = self._whose("password_changed"), self.visit
        self.end_others("factor_change")
        if visit.login is None and visit.record is not None:
            old = visit.record
            visit.wrote, visit.renew = True, None
            visit.login = Login(
                subject, old.methods, self.level, old.persistent, visit.counter.mint(subject), tenant=old.tenant
            )

    def roles_changed(self) -> None:
        """Say that the subject may do other things from now on: in one commit, `renew` here, and the others end.

        So nothing that was copied or cached under the old roles works under the new ones. Where somebody else changed
        them: `Registry.revoke_all(subject, because="role_change")`.
        """
        self._whose("roles_changed")
        self.renew()
        self.end_others("role_change")

    def _whose(self, act: str) -> str:
        visit, subject = self._before_start(act), self.subject
        if subject is None:
            message = (
                f"session.{act}() is about who is logged in, and nobody is; call session.login() before it, "
                "or end the sessions of a subject by Registry.revoke_all()"
            )
            raise ConfigError(message)
        if visit.request.kind == "websocket":
            message = f"a websocket cannot call {act}(): it cannot hand out a cookie; do it by a request"
            raise SettledError(message)
        return subject

    # -- forms ---------------------------------------------------------------------------------------------------------

    def csrf_token(self) -> str:
        """Return a token for a form or a header of this session; each call spells it anew (BREACH).

        It begins a session where there is none: then it raises SettledError once the response has started.
        """
        visit = self._looked()
        if visit.login is None and (visit.record is None or visit.logout) and not visit.counter.spent(visit):
            self._before_start("csrf_token")
            visit.wanted = True
            if visit.planned is None:
                visit.planned = visit.counter.mint()
        return visit.counter.csrf_token(visit)

    def csrf_field(self) -> markup.Markup:
        """Return a form's hidden field with the token; templates take it as it is."""
        return markup.field(self.csrf_token())

    def csrf_meta(self) -> markup.Markup:
        """Return a meta tag with the token, for scripts."""
        return markup.meta(self.csrf_token())

    def csrf_htmx(self) -> markup.Markup:
        """Return the attribute by which htmx sends the token, for the body's tag."""
        return markup.htmx(self.csrf_token())

    def check_csrf(self, token: object) -> bool:
        """Tell whether a form's token is this session's; a good one lets a request without Origin log in."""
        visit = self._looked()
        good = visit.counter.check_csrf(visit, token)
        visit.origin_proved = visit.origin_proved or good
        return good

    def require_csrf(self, token: object = None) -> None:
        """Raise a Refusal (403) unless X-CSRF-Token, or else `token` from a form's field, is this session's token.

        It asks whatever the method and whatever the browser's headers said: a second layer, where a route wants one.
        """
        visit = self._looked()
        sent = visit.request.header(markup.HEADER.lower().encode()).decode("latin-1")
        if not self.check_csrf(sent) and not self.check_csrf(token):
            raise visit.counter.csrf_refusal(visit)

    # -- how long, and as which type -----------------------------------------------------------------------------------

    def lasting(
        self, *, idle: timedelta | float | None = None, until: Instant | None = None, browser_only: bool | None = None
    ) -> None:
        """Shorten this session (seconds, or a moment), or lengthen it up to what the policy allows.

        `browser_only` chooses whether its cookie dies with the browser.
        """
        self._before_start("lasting")
        seconds = idle.total_seconds() if isinstance(idle, timedelta) else idle
        if seconds is not None and seconds <= 0:
            message = f"an idle timeout is above 0 seconds (found {seconds:g}); to end a session call logout()"
            raise DataError(message, key="idle", found="number")
        self.visit.asked = True
        self.visit.lasting = Lasting(seconds, until, browser_only)

    def as_type(self, kind: type[T]) -> Typed[T]:
        """Return the data as one value of `kind` (a msgspec Struct, dataclass or TypedDict), validated.

        Raises DataError where the data does not fit; with `data=kind` in the settings that is "no session" instead.
        """
        visit = self._looked()
        if visit.typed is None or not visit.typed.is_of(kind):
            visit.asked = True
            visit.typed = Typed(self, kind, typed.to_type(visit.data, kind))
        return visit.typed


class Typed(Generic[T]):
    """A session whose data is one value of a type that the application named; change `data` or put another there."""

    def __init__(self, session: Session, kind: type[T], data: T) -> None:
        """Show the session's data as `data`; applications get it from `session_of(request, Cart)`."""
        self.session = session
        self.data = data
        self._kind = kind

    def plain(self) -> dict[str, Any]:
        """Return the data as the session keeps it; the note of a step-up is ours, and in no application's type."""
        data, note = typed.from_type(self.data), self.session.visit.data.get(stepup.KEY)
        return data if note is None else {**data, stepup.KEY: note}

    def is_of(self, kind: type[Any]) -> bool:
        """Tell whether this is a view of that type."""
        return self._kind is kind

    def __repr__(self) -> str:
        """Show the session, not the data."""
        return f"<Typed {self.session!r}>"
