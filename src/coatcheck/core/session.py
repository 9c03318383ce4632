"""The handler's side of a session: a mapping that waits for nothing, and the acts that change who is logged in.

A handler reads and writes; what it asked for is kept in the session's `Visit`. Nothing is stored before the response
starts, when the manager settles the visit (core/manager.py). So `login` is the same plain call in every framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, Generic, NoReturn, TypeVar

from . import epochs, markup, replies, stepup, typed
from .codec import SCALARS
from .errors import ConfigError, DataError, Refusal, SettledError
from .model import (
    Because,
    Handle,
    Instant,
    Level,
    Signal,
)
from .visit import MOST_SUBJECT, Carry, Lasting, Login, Visit

T = TypeVar("T")


class Session(MutableMapping[str, Any]):
    """What a server remembers of one browser between requests, as the handler sees it.

    A mapping of str keys to values that the codec keeps; nested changes count. It is not for concurrent use within
    one request. `login`, `logout`, `renew` and `require_login` decide who is there; data never does.
    """

    __slots__ = ("visit",)

    def __init__(self, visit: Visit) -> None:
        """Show the data of a visit; applications get their session from `session_of(request)`."""
        self.visit = visit

    # -- who is there ------------------------------------------------------------------------------------------------

    @property
    def subject(self) -> str | None:
        """Who is logged in, or None."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.subject
        return None if visit.logout or visit.record is None else visit.record.subject

    @property
    def handle(self) -> Handle | None:
        """The session's public name, for logs and revocation; None until something is stored or somebody logs in."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.ticket.handle
        if visit.renew is not None:
            return visit.renew.handle
        return None if visit.logout or visit.record is None else visit.record.handle

    @property
    def level(self) -> int:
        """How surely we know who is there: a `Level`."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.level
        return Level.ANONYMOUS if visit.logout else visit.level

    @property
    def methods(self) -> tuple[str, ...]:
        """How the subject authenticated (RFC 8176 names such as "pwd", "otp", "hwk")."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.methods
        return () if visit.logout or visit.record is None else visit.record.methods

    @property
    def authenticated_at(self) -> Instant | None:
        """When the subject last authenticated (seconds since 1970, UTC), or None."""
        visit = self._looked()
        if visit.login is not None:
            return visit.arrived
        return None if visit.logout or visit.record is None else visit.record.authenticated_at

    @property
    def tenant(self) -> str | None:
        """Of which tenant the subject is, as `login` was told; None: of none."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.tenant
        return None if visit.logout or visit.record is None else visit.record.tenant

    @property
    def suspected_at(self) -> Instant | None:
        """When an old token of this session was presented (`on_theft="note"`); a login answers the question."""
        visit = self._looked()
        return None if visit.logout or visit.login is not None or visit.record is None else visit.record.suspected_at

    @property
    def idle_ends_at(self) -> Instant | None:
        """When the session ends if nobody comes, as stored when this request came; None: never, or no session."""
        record = self._looked().record
        if record is None or record.idle_for is None:
            return None
        return record.seen_at + record.idle_for

    @property
    def ends_at(self) -> Instant | None:
        """When the session ends whatever happens; None: no session."""
        record = self._looked().record
        return None if record is None else record.expires_at

    @property
    def is_new(self) -> bool:
        """Whether this request came without a session that still counts."""
        return self._looked().record is None

    @property
    def ended_because(self) -> str | None:
        """Why the session that this browser presented is over ("idle", "logout", "theft" ...), or None."""
        return self._looked().ended_because

    @property
    def is_bound(self) -> bool:
        """Whether this request showed that it comes from the device that logged in (docs/dbsc.md)."""
        visit = self._looked()
        return visit.bound and visit.login is None and not visit.logout

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What differs between this request and the session's login, as the detectors saw it."""
        return self._looked().signals

    @property
    def consulted(self) -> bool:
        """Whether the handler looked at all: then the response varies by cookie."""
        return self.visit.consulted

    @property
    def settled(self) -> bool:
        """Whether the response has started: what needs a cookie comes too late now."""
        return self.visit.outcome is not None

    # -- acts --------------------------------------------------------------------------------------------------------

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

    def resume(self, wanted: str | None = None, default: str = "/") -> stepup.Resume:
        """Return what comes after a login: `GoTo` a page of this site, or `AskAgain` for what the login interrupted.

        `wanted` is the `next` that the login page was called with; where it names another site's page, or none, the
        session tells what was interrupted; without that it is `default`.
        """
        visit = self._looked()
        target = stepup.own_target(wanted)
        if target is not None:
            return stepup.GoTo(target)
        found = stepup.resumed(visit.data.get(stepup.KEY), self.subject, visit.counter.now())
        return stepup.GoTo(default) if found is None else found

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

    def require_login(
        self,
        *,
        within: timedelta | float | None = None,
        level: int | None = None,
        fresh: bool = False,
        shown: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the subject, or raise Refusal: nobody, not surely enough, or not recently enough (seconds).

        `fresh`: a near copy of the session is not good enough; it is read from the store itself. A handler on an event
        loop awaits `exchange.confirm(session)` before; raises ConfigError where it did not.
        `shown`: what `resume()` can show again after the login, where this request is one that must be confirmed.
        """
        visit = self._looked()
        if fresh and visit.copied:
            _confirmed(self)
        subject = self.subject
        seconds = within.total_seconds() if isinstance(within, timedelta) else within
        if subject is None:
            raise visit.counter.challenge(visit, reauthenticate=False, within=seconds)
        if visit.doubted and visit.login is None:
            raise visit.counter.challenge(visit, reauthenticate=True, within=seconds)
        if within is None and level is None:
            return subject
        self._bound(visit)
        if not self._fresh(visit, seconds, level):
            refusal = visit.counter.challenge(visit, reauthenticate=True, within=seconds)
            if refusal.reply.status == 303 and visit.request.method not in stepup.SAFE:
                self._note(visit, shown or {}, grants=False)
            raise refusal
        if stepup.KEY in visit.data and stepup.is_done(visit.data[stepup.KEY], visit.request):
            del self[stepup.KEY]
        return subject

    def may_once(self, of: stepup.Of, level: int | None = None) -> Callable[[dict[str, Any]], bool]:
        """Return what takes the permission for this very request out of the session's data, and tells if it was there.

        For `exchange.require_step_up`, which has it committed at once. Raises Refusal where nobody is logged in.
        """
        visit = self._looked()
        if self.subject is None:
            raise visit.counter.challenge(visit, reauthenticate=False, within=None)
        self._bound(visit)

        def take(data: dict[str, Any]) -> bool:
            record, now = visit.record, visit.counter.now()
            if record is None or visit.login is not None or not self._fresh(visit, stepup.FOR, level):
                return False
            good = stepup.permits(data.get(stepup.KEY), record, visit.request, of, now)
            if good:
                del data[stepup.KEY]
            return good

        return take

    def interrupted(self, of: stepup.Of) -> Refusal:
        """Return the refusal that asks for a proof for this very request, and note the request in the session."""
        visit = self._looked()
        self._note(visit, of, grants=True)
        return visit.counter.challenge(visit, reauthenticate=True, within=0.0)

    def _note(self, visit: Visit, of: stepup.Of, *, grants: bool) -> None:
        record = visit.record
        if record is None or visit.login is not None or visit.logout or visit.request.kind == "websocket":
            return
        note = stepup.noted(record, visit.request, of, visit.counter.now(), grants=grants)
        if note is not None:
            self[stepup.KEY] = note

    def _bound(self, visit: Visit) -> None:
        """Raise Refusal where the session must be bound to its device, and is not: nothing delicate is done by it."""
        if visit.unbound and visit.login is None:
            sentence = "This needs a session that is bound to its device; your browser has not done that (yet)."
            raise Refusal(replies.forbidden("binding_required", sentence), "binding_required")

    def _fresh(self, visit: Visit, within: float | None, level: int | None) -> bool:
        if self.level <= Level.REMEMBERED or (visit.step_up and visit.login is None):
            return False
        if level is not None and self.level < level:
            return False
        since = self.authenticated_at
        return within is None or (since is not None and visit.counter.now() - since <= within)

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

    def keep(self) -> None:
        """Keep this request's writes even if the response is a 5xx."""
        self.visit.kept = True

    def replace(self, mapping: Mapping[str, Any]) -> None:
        """Put other data in place of all that is there."""
        visit = self._looked()
        visit.wrote = visit.lent = True
        visit.typed = None
        visit.data = dict(mapping)

    def as_type(self, kind: type[T]) -> Typed[T]:
        """Return the data as one value of `kind` (a msgspec Struct, dataclass or TypedDict), validated.

        Raises DataError where the data does not fit; with `data=kind` in the settings that is "no session" instead.
        """
        visit = self._looked()
        if visit.typed is None or not visit.typed.is_of(kind):
            visit.asked = True
            visit.typed = Typed(self, kind, typed.to_type(visit.data, kind))
        return visit.typed

    def _before_start(self, act: str) -> Visit:
        visit = self._looked()
        if visit.outcome is not None:
            message = f"session.{act}() after the response started: its cookie can no longer be sent; call it earlier"
            if visit.request.kind == "websocket":
                message = f"a websocket cannot call {act}(): it cannot hand out a cookie; do it by a request"
            raise SettledError(message)
        return visit

    def _looked(self) -> Visit:
        visit = self.visit
        visit.consulted = True
        return visit

    # -- the mapping -------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """Return a value, or raise KeyError."""
        visit = self.visit
        visit.consulted = True
        value = visit.data[key]
        if type(value) not in SCALARS:
            visit.lent = True
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; its type is checked when the response starts."""
        visit = self.visit
        visit.consulted = visit.wrote = True
        if type(value) not in SCALARS or type(key) is not str:
            visit.lent = True
        visit.data[key] = value

    def __delitem__(self, key: str) -> None:
        """Delete a value, or raise KeyError."""
        visit = self.visit
        visit.consulted = visit.wrote = True
        del visit.data[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._looked().data)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._looked().data)

    def __contains__(self, key: object) -> bool:
        """Tell whether a key is there."""
        return key in self._looked().data

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        visit = self.visit
        visit.consulted = True
        value = visit.data.get(key, default)
        if type(value) not in SCALARS:
            visit.lent = True
        return value

    def copy(self) -> dict[str, Any]:
        """Return the data as a plain dict (shallow)."""
        visit = self._looked()
        visit.lent = True
        return dict(visit.data)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plain dict of the data, overlaid with another mapping."""
        return {**self.copy(), **other}

    def __ior__(self, other: Mapping[str, Any]) -> Session:  # noqa: PYI034 - a MutableMapping, as users see it
        """Lay another mapping over the data."""
        self.update(other)
        return self

    def __repr__(self) -> str:
        """Show what a log may show: no value, no secret."""
        visit = self.visit
        record = visit.record
        name = visit.login.ticket.handle if visit.login else record.handle if record else "unsaved"
        return f"<Session {name}, {len(visit.data)} keys>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a session holds its secret."""
        message = "a Session is for one request and holds its secret; copy the data with session.copy()"
        raise TypeError(message)

    __hash__ = None  # type: ignore[assignment]


def _confirmed(session: Session) -> None:
    """Read the record of a copied session, where that can be done without being awaited."""
    confirm = session.visit.confirm
    waiting = None if confirm is None else confirm(session)
    if waiting is not None:
        waiting.close()
        message = (
            "require_login(fresh=True) cannot read the session from inside an event loop; before it, "
            "`await exchange_of(request).confirm(session)`, or name the path in the setting fresh=[...]"
        )
        raise ConfigError(message)


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
