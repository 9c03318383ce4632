"""What an exchange leaves: given what the handler did and how the response starts, which changes, with which cookie.

The order in `settle` is the order of weight: a logout is kept whatever the status; on a 5xx everything else falls, and
what a login caused falls as one; then login, renewal of the handle, a new session, and last the ordinary read or write.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from msgspec.structs import replace

from . import codec, facts, records, replies, tokens, typed
from .cookies import CookieWriter
from .handing import Handing, is_private
from .model import (
    Change,
    Client,
    End,
    EndOthers,
    Entropy,
    Headers,
    Insert,
    Instant,
    Outcome,
    Record,
    Replace,
    Request,
    Ticket,
    Touch,
    Update,
)
from .policies import Timeouts
from .sealed import Sealer
from .secrecy import Secrecy
from .settings import Settings
from .tokens import TokenClass
from .visit import Visit

if TYPE_CHECKING:
    from .binder import Binder
    from .devices import Devices

_THEFT = (TokenClass.STRAGGLER, TokenClass.LATE, TokenClass.STALE)
_CURRENT = TokenClass.CURRENT
_CHANGED = ("factor_change", "role_change")
_NOTHING = Outcome()
_COOKIE = ("Cookie",)
_TOO_LATE = "written after the response started, when no cookie could be sent any more"
_LOOKED = Outcome(vary=_COOKIE)


class Settler:
    """Settles the visits of one application."""

    __slots__ = (
        "_client",
        "_clocks",
        "_entropy",
        "_handing",
        "_legacy",
        "_limit",
        "_now",
        "_passive",
        "_quiet",
        "_realm",
        "_realm_bytes",
        "_renew",
        "_sealer",
        "_settings",
        "_touch_every",
        "_untouched",
        "admits",
        "ahead",
        "binder",
        "devices",
        "secrecy",
    )

    def __init__(
        self,
        settings: Settings,
        clocks: Timeouts,
        cookie: CookieWriter,
        sealer: Sealer | None,
        *,
        realm: str,
        now: Callable[[], Instant],
        entropy: Entropy,
        client: Callable[[Request], Client],
    ) -> None:
        """Take what the manager checked."""
        self._settings = settings
        self._clocks = clocks
        self._legacy = tuple(settings.legacy)
        self._limit = settings.most
        self._sealer = sealer
        self._handing = Handing(settings, clocks, cookie, sealer, now=now)
        self._realm = realm
        self._realm_bytes = realm.encode()
        self._now = now
        self._entropy = entropy
        self.secrecy = Secrecy(self._realm_bytes, entropy, on=settings.secrecy)
        self._client = client
        self.binder: Binder | None = None  # the manager has it, if sessions are bound to devices
        self.devices: Devices | None = None  # the manager has it, if new devices are told
        self.ahead = 0.0  # seconds that our clock is before the store's, by which epochs are told
        self.admits: Callable[[Request], bool] | None = None  # who asks, where anonymous sessions have a limit
        self._passive = frozenset(settings.passive)
        self._touch_every = clocks.touch_every
        self._quiet = self._touch_every * 0.75  # no session's share of the jitter is larger (see `_settle_read`)
        self._renew = inf if clocks.renew is None else clocks.renew
        kind = settings.data
        self._untouched = b"" if kind is None else codec.encode(typed.from_type(typed.to_type({}, kind)))

    def settle_read(self, visit: Visit, status: int, headers: Headers) -> Outcome | None:
        """Return what an exchange leaves that only read, or did not look at all; None: see `settle`.

        In one look, since most are like that: nothing was asked for, nothing changed, nothing is due.
        """
        if visit.asked or visit.wrote or visit.due:
            return None
        record = visit.record
        if record is None:
            if visit.wanted or visit.data:
                return None
        elif (
            visit.standing != _CURRENT
            or record.used_at is None
            or visit.arrived >= record.used_at + self._renew
            or visit.arrived >= record.seen_at + self._quiet
            or (visit.lent and not codec.is_unchanged(visit.base, visit.data))
        ):
            return None
        visit.status, visit.headers = status, headers
        return _LOOKED if visit.consulted else _NOTHING

    def settle(self, visit: Visit, status: int, headers: Headers) -> Outcome:
        """Return what this exchange leaves to be committed, and the headers that may go out once it is.

        Raises DataError, naming key and type, for a value that a session cannot keep.
        """
        read = self.settle_read(visit, status, headers)
        if read is not None:
            return read
        visit.status, visit.headers = status, headers
        record = visit.record
        failed = status >= 500 and not visit.kept
        if visit.reads_only:
            outcome = self._settle_reads_only(visit)
        elif visit.logout:
            outcome = self._settle_logout(visit, failed)
        elif failed:
            outcome = self._settle_failed(visit, record)
        elif visit.login is not None:
            outcome = self._settle_login(visit, ())
        elif visit.renew is not None:
            outcome = self._settle_renew(visit)
        elif record is None:
            outcome = self._settle_new(visit)
        else:
            outcome = self._settle_known(visit, record)
        if self._legacy and outcome.reply is None and visit.request.kind == "http":
            outcome = self._handing.without_old(visit, outcome)
        if not visit.consulted or outcome.vary:
            return outcome
        return _LOOKED if outcome is _NOTHING else replace(outcome, vary=_COOKIE)

    def late(self, visit: Visit) -> Outcome:
        """Return what was written after the response started, as far as it needs no cookie.

        What a 5xx dropped stays dropped, and so does all that was refused: the answer said so.
        """
        if visit.outcome is not None and visit.outcome.reply is not None:
            return _NOTHING
        if visit.status >= 500 and not visit.kept and not visit.logout:
            return _NOTHING
        visit.status, visit.headers = 0, ()
        if visit.logout and visit.record is not None:
            return replace(self._settle_logout(visit, failed=True), cookies=())
        if not visit.consulted or visit.logout:
            return _NOTHING
        data = self._encoded(visit)
        if data is visit.base or data == (visit.base if visit.sent is None else visit.sent):
            return _NOTHING
        if visit.record is None or self._sealer is not None:
            visit.dropped = visit.dropped or _TOO_LATE
            return _NOTHING
        return self._updated(visit, visit.record, data)

    def _settle_logout(self, visit: Visit, failed: bool) -> Outcome:
        now = self._now()
        changes: list[Change] = []
        record = visit.record or visit.presented
        if record is not None and record.ended_at is None:
            event = facts.about("session_logout", record, now, self._client(visit.request))
            changes.append(End(handle=record.handle, because="logout", events=(event,)))
            # a token that is refused may end its own session, but speaks for its subject no more
            if visit.logout == "everywhere" and visit.record is not None and record.subject is not None:
                changes.append(EndOthers(realm=self._realm, subject=record.subject, because="logout"))
        if not failed and visit.login is not None:
            return self._settle_login(visit, changes)
        if visit.request.kind == "websocket":
            cookies: tuple[bytes, ...] = ()
        elif not failed and (visit.data or visit.wanted) and self._admitted(visit):
            made, cookies = self._anonymous(visit, now)
            changes.append(made)
        else:
            cookies = () if visit.bare else self._cleared(visit)
        headers = self._handing.site_data(visit) if cookies else ()
        return Outcome(changes=tuple(changes), durable=True, required=True, cookies=cookies, headers=headers)

    def _settle_login(self, visit: Visit, before: list[Change] | tuple[()]) -> Outcome:
        login = visit.login
        if login is None:
            raise AssertionError  # settle asked
        now, client = self._now(), self._client(visit.request)
        data = self.kept(visit, login.ticket, self._encoded(visit))
        record = records.made(self._realm, login.ticket, login, self._clocks, now, client, data)
        # in the store's time, or a login that was under way at a revocation would outlive it (M10)
        record = replace(record, authenticated_at=visit.arrived - self.ahead)
        if visit.lasting is not None:
            record = records.lasting(record, visit.lasting, self._clocks)
        cookies = self._handing.write(visit, record, login.ticket, now)
        record = self._kept(record)
        headers: Headers = ()
        if self.binder is not None:
            record, headers = self.binder.offered(record, visit.request)
        old = visit.record or visit.presented
        events = facts.created(record, now, old)
        if self.devices is not None and visit.sighting is not None:
            events, known_by = self.devices.told(visit.sighting, record, events)
            cookies = (*cookies, known_by)
        changes: list[Change] = list(before)
        if old is not None and self._is_step_up(visit, old, login.subject) and not before:
            fresh = replace(record, used_at=None)
            changes.append(Replace(record=fresh, old=old.handle, was=old.version, limit=self._limit, events=events))
        else:
            insert = Insert(record=record, limit=self._limit, events=events)
            changes.extend(self._insert_and_end(visit, insert, old if not before else None, now))
        if visit.end_others:
            changes.append(self._others(record, visit.end_others))
        for policy in self._settings.policies:
            changes.extend(policy.on_login(record))
        return Outcome(changes=tuple(changes), durable=True, required=True, cookies=cookies, headers=tuple(headers))

    def _is_step_up(self, visit: Visit, old: Record, subject: str) -> bool:
        """Tell whether a login is the same subject's, in a session that it was let into: then a revocation beats it.

        That holds within the grace too: what the former token alone may not do, fresh proof may.
        """
        return visit.record is not None and old.subject == subject

    def _insert_and_end(self, visit: Visit, insert: Insert, old: Record | None, now: Instant) -> list[Change]:
        """Order the two halves of a login: an authenticated old session ends first, an anonymous one last."""
        if old is None or (old.ended_at is not None and old.ended_because != "replaced"):
            return [insert]
        why = "theft" if visit.presented_as in _THEFT and self._sealer is None else "superseded"
        event = facts.about("session_expired", old, now, self._client(visit.request), reason=why)
        ending = End(handle=old.handle, because=why, events=(event,))
        return [insert, ending] if old.subject is None else [ending, insert]

    def _settle_renew(self, visit: Visit) -> Outcome:
        old, ticket = visit.record, visit.renew
        if old is None or ticket is None:
            return self._settle_new(visit)
        now = self._now()
        if visit.standing == TokenClass.FORMER_GRACE:
            again = replace(replies.UNAVAILABLE, body=b"Your session was just renewed; please try again.\n")
            return replace(self._settle_failed(visit, old), reply=again)  # who is to be ended, ends now
        data = self.kept(visit, ticket, self._encoded(visit))
        client = self._client(visit.request)
        record = replace(records.succeeded(self._realm, old, ticket, now), data=data, seen_from=client)
        if visit.lasting is not None:
            record = records.lasting(record, visit.lasting, self._clocks)
        cookies = self._handing.write(visit, record, ticket, now)
        record = self._kept(record)
        event = facts.about("session_renewed", record, now, client, instead_of=old.handle)
        changes: list[Change] = [Replace(record=record, old=old.handle, was=old.version, events=(event,))]
        if visit.end_others and record.subject is not None:
            changes.append(self._others(record, visit.end_others))
        return Outcome(changes=tuple(changes), durable=True, required=True, cookies=cookies)

    def _settle_new(self, visit: Visit) -> Outcome:
        if not visit.data and not visit.wanted and visit.typed is None:
            return _NOTHING
        if visit.typed is not None and not visit.wanted and self._encoded(visit) == visit.base:
            return _NOTHING
        if not self._handing.may_begin(visit):
            if visit.data:
                visit.dropped = (
                    "written to a session that this browser cannot be given: it presented a token that no longer "
                    "counts (log in, or call logout() to take it away), or another site caused the request"
                )
            return _NOTHING
        if not self._admitted(visit):
            return _NOTHING
        made, cookies = self._anonymous(visit, self._now())
        return Outcome(changes=(made,), required=True, cookies=cookies)

    def _admitted(self, visit: Visit) -> bool:
        """Tell whether one more anonymous session may be stored: one network alone must not fill the store (D33)."""
        if self.admits is None or self.admits(visit.request):
            return True
        if visit.data:
            visit.dropped = "written to a new session, of which this visitor's network began too many (floods)"
        return False

    def _anonymous(self, visit: Visit, now: Instant) -> tuple[Insert, tuple[bytes, ...]]:
        ticket = visit.planned = visit.planned or tokens.mint(self._entropy)
        data, client = self.kept(visit, ticket, self._encoded(visit)), self._client(visit.request)
        record = records.made(self._realm, ticket, None, self._clocks, now, client, data)
        if self.ahead:
            record = replace(record, created_at=min(now, visit.arrived) - self.ahead)
        if visit.lasting is not None:
            record = records.lasting(record, visit.lasting, self._clocks)
        cookies = self._handing.write(visit, record, ticket, now)
        return Insert(record=self._kept(record), events=facts.created(record, now, None)), cookies

    def _settle_known(self, visit: Visit, record: Record) -> Outcome:
        if self._sealer is not None:
            return self._settle_sealed(visit, record, self._sealer)
        data = self._encoded(visit) if visit.consulted else visit.base
        changed = record if visit.lasting is None else records.lasting(record, visit.lasting, self._clocks)
        if self._renewal_due(visit, record):
            return self._settle_renewal(visit, changed, data, self._now())
        cookies = self._handing.again(visit, record) if visit.standing == TokenClass.FORMER_OPEN else ()
        wrote = (data is not visit.base and data != visit.base) or changed is not record
        # two things ride on a primary change, even where nothing was written: a session that ended meanwhile ends
        # nobody, and a successor that was seen meanwhile, or whose session ended, is not handed out again
        if wrote or visit.end_others or cookies:
            outcome = self._updated(visit, changed, data, required=wrote)
        else:
            return self._settle_read(visit)
        if visit.end_others and record.subject is not None:
            others = self._others(record, visit.end_others)
            outcome = replace(outcome, changes=(*outcome.changes, others), durable=True, required=True)
        return replace(outcome, cookies=cookies) if cookies else outcome

    def _updated(self, visit: Visit, record: Record, data: bytes, *, required: bool = True) -> Outcome:
        was = record.version
        seen_at = record.seen_at if visit.request.path in self._passive else max(record.seen_at, self._now())
        kept = self.kept(visit, visit.ticket, data)
        written = replace(record, data=kept, seen_at=seen_at, version=was + 1)
        vary = _COOKIE if visit.consulted else ()
        return Outcome(changes=(Update(record=written, was=was),), required=required, vary=vary)

    def _settle_sealed(self, visit: Visit, record: Record, sealer: Sealer) -> Outcome:
        """Settle what travels in the cookie: a write goes there alone, unless it must refuse every older cookie."""
        data = self._encoded(visit) if visit.consulted else visit.base
        wrote = data is not visit.base and data != visit.base
        changed, ticket = record, visit.ticket
        if ticket is None:
            raise AssertionError  # a believed record has its ticket
        if visit.lasting is not None:
            changed = records.lasting(changed, visit.lasting, self._clocks)
        socket = visit.request.kind == "websocket"
        if wrote and not socket and sealer.monotonic and records.differ(visit.base, visit.data, sealer.monotonic):
            ticket = tokens.turned(ticket, self._entropy)
            changed = records.turned(self._realm_bytes, changed, ticket, self._now())
        if changed is record and not visit.end_others and not wrote and not visit.reseal:
            return self._settle_read(visit)
        if wrote and socket:
            visit.dropped = "written by a websocket, which cannot be given the cookie that would hold it"
        primary = changed is not record or bool(visit.end_others)
        changes = self._updated(visit, changed, b"").changes if primary else self._touches(visit)
        if visit.end_others and record.subject is not None:
            changes = (*changes, self._others(record, visit.end_others))
        cookies = () if socket else self._handing.resealed(visit, changed, ticket, data)
        if not (socket or primary):  # nothing can overtake it that would have it settled again
            visit.base, visit.wrote, visit.unguarded = data, False, not sealer.alone
        return Outcome(
            changes=changes,
            durable=primary,
            required=primary or (wrote and not socket),
            cookies=cookies,
            vary=_COOKIE if visit.consulted else (),
        )

    def _settle_failed(self, visit: Visit, record: Record | None) -> Outcome:
        """Settle a 5xx: activity and ends count, and a sealed cookie that is refused from now on must be replaced."""
        outcome = self._settle_ends(visit, record) if visit.end_others else self._settle_read(visit)
        if record is None:
            return outcome
        ticket = visit.ticket
        if self._sealer is None or not visit.reseal or ticket is None:
            return outcome
        return replace(outcome, cookies=self._handing.resealed(visit, record, ticket, visit.base))

    def _settle_ends(self, visit: Visit, record: Record | None) -> Outcome:
        """End a subject's other sessions whatever the status; what a login asked for falls with it.

        But a factor or a role that was changed is changed, although the page that should have said so failed.
        """
        login, because = visit.login, visit.end_others
        if login is not None and because not in _CHANGED:
            return self._settle_read(visit)
        subject = login.subject if login is not None else None if record is None else record.subject
        if subject is None:
            return self._settle_read(visit)
        if record is None or record.subject != subject:
            others = EndOthers(realm=self._realm, subject=subject, because=because)
            return Outcome(changes=(others,), durable=True, required=True)
        outcome = self._updated(visit, record, visit.base if self._sealer is None else b"")
        return replace(outcome, changes=(*outcome.changes, self._others(record, because)), durable=True)

    def _settle_reads_only(self, visit: Visit) -> Outcome:
        """Settle while the store is away: what was only read goes out, everything else must wait."""
        acted = visit.logout or visit.login or visit.renew or visit.end_others or visit.lasting or visit.wanted
        if acted or self._encoded(visit) != visit.base:
            return Outcome(reply=replies.UNAVAILABLE)
        return _NOTHING

    def _settle_read(self, visit: Visit) -> Outcome:
        """Note activity; for a sealed token also in its small cookie."""
        touches, record = self._touches(visit), visit.record
        if not touches:
            return _NOTHING
        if self._sealer is None or record is None or visit.request.kind != "http" or not is_private(visit.headers):
            return Outcome(changes=touches)
        age = record.expires_at - visit.arrived if record.persistent else None
        return Outcome(changes=touches, cookies=(self._sealer.write_seen(record.handle, visit.arrived, age),))

    def _touches(self, visit: Visit) -> tuple[Change, ...]:
        """Return the activity to note, at most once per `touch_every`, less a part that is the session's own.

        That part keeps sessions that began together from being touched together (no stampedes).
        """
        record = visit.record
        if record is None or visit.request.path in self._passive:
            return ()
        now = visit.arrived
        if now - record.seen_at < self._touch_every * (1.0 - record.family_proof[0] / 1024.0):
            return ()
        return (Touch(handle=record.handle, seen_at=now),)

    def _renewal_due(self, visit: Visit, record: Record) -> bool:
        if record.used_at is None or visit.standing != TokenClass.CURRENT:
            return False
        return (visit.due or visit.arrived >= record.used_at + self._renew) and self._handing.may_renew(visit)

    def _settle_renewal(self, visit: Visit, record: Record, data: bytes, now: Instant) -> Outcome:
        ticket = visit.ticket
        if ticket is None:
            raise AssertionError  # a believed record has its ticket
        changed = replace(record, data=self.kept(visit, ticket, data))
        client = self._client(visit.request)
        renewed, following = records.renewed(self._realm_bytes, changed, ticket, self._entropy(32), now)
        seen_at = record.seen_at if visit.request.path in self._passive else max(record.seen_at, now)
        renewed = replace(renewed, seen_at=seen_at, seen_from=client, version=record.version + 1)
        if visit.due and visit.moved is not None:
            renewed = replace(renewed, client=visit.moved)
        event = facts.about("session_renewed", record, now, client)
        changes: list[Change] = [Update(record=renewed, was=record.version, events=(event,))]
        if visit.end_others and record.subject is not None:
            changes.append(self._others(record, visit.end_others))
        return Outcome(
            changes=tuple(changes),
            durable=True,
            required=data != visit.base or len(changes) > 1 or visit.lasting is not None,
            cookies=self._handing.write(visit, renewed, following, now),
        )

    def _cleared(self, visit: Visit) -> tuple[bytes, ...]:
        more = () if self.binder is None or self._sealer is not None else self.binder.cleared(visit.request)
        return (*self._handing.clear(visit), *more)

    def _kept(self, record: Record) -> Record:
        """Return what of a record the store keeps: without its data, where that travels in the cookie."""
        return record if self._sealer is None else replace(record, data=b"")

    def _others(self, record: Record, because: str) -> EndOthers:
        return EndOthers(realm=self._realm, subject=record.subject or "", keep=(record.handle,), because=because)

    def kept(self, visit: Visit, ticket: Ticket | None, data: bytes) -> bytes:
        """Return the encoded data as a store may have it: every change that holds data gets it from here."""
        if ticket is None:
            raise AssertionError  # a believed record has its ticket
        visit.offered = data
        return self.secrecy.kept(ticket, data)

    def _encoded(self, visit: Visit) -> bytes:
        if visit.typed is None:
            if not visit.wrote and (not visit.lent or codec.is_unchanged(visit.base, visit.data)):
                return visit.base
            # what was loaded is plain, and nothing but plain values was put beside it
            return codec.encode(visit.data, known_plain=not visit.lent and visit.base[:1] != codec.EXTENDED)
        visit.data = visit.typed.plain()
        raw = codec.encode(visit.data)
        # an untouched default is no write: compare like with like
        return visit.base if raw == self._untouched and not visit.base else raw
