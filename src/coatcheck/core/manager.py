"""The counter: what a presented token is worth, and what an exchange leaves to be committed; it never waits.

Four questions, asked by the flow in this order:
- `identify`: is there a ticket of ours on this request, and may the request be answered at all?
- `open`: given the record that lies under its handle, which session does the handler get?
- `settle`: given what the handler did and the response's start, what is to be committed, and which cookie goes out?
- `rebase`: given that the commit met a newer record, what is to be committed instead?
The classes of a token and the answers to them stand in docs/why/token.md; the order of tests here is theirs.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import Any, TypeVar, Unpack

from msgspec.structs import replace

from . import codec, csrf, facts, policies, records, replies, tokens, typed
from .clients import Clients
from .cookies import MOST_HEADER, CookieWriter
from .errors import ConfigError, DataError, Refusal, StoreError
from .model import (
    MOVED,
    Change,
    Client,
    Conflict,
    End,
    Epochs,
    Event,
    Headers,
    Insert,
    Instant,
    Level,
    Note,
    Outcome,
    Record,
    Replace,
    Reply,
    Request,
    Ticket,
    Touch,
    Update,
)
from .noise import Noise
from .screen import Screen
from .session import RESERVED, All, Carry, Session, Visit
from .settings import Keywords, is_local, settings_of
from .settler import Settler
from .tokens import TokenClass

S = TypeVar("S", bound=Session)
V = TypeVar("V")

_MOST_NOTED = 4096


class Absent(Enum):
    """Why a request has no ticket: no cookie of ours came, or what came is nobody's."""

    NO_COOKIE = 0
    MALFORMED = 1
    AMBIGUOUS = 2
    PREFLIGHT = 3


_NO_COOKIE = Absent.NO_COOKIE
_SAFE = csrf.SAFE_METHODS


class SessionManager:
    """The rules of one application: settings, clock and randomness. Shared by all requests; keeps no session."""

    def __init__(
        self,
        *,
        clock: Callable[[], Instant] = time.time,
        entropy: Callable[[int], bytes] = os.urandom,
        **settings: Unpack[Keywords],
    ) -> None:
        """Check the settings (see `Settings`) and raise ConfigError, naming what is wrong."""
        self.settings = chosen = settings_of(settings)
        self.now = clock
        self.entropy = entropy
        self.realm = chosen.realm or chosen.name
        self.salt = b""  # of a store with shards; the flow learns it from the store
        self.clocks = chosen.clocks
        self.cookie = CookieWriter(chosen.cookie, comma_joined=chosen.comma_joined)
        self.noise = Noise()
        self._realm = self.realm.encode()
        self._exclude = tuple(chosen.exclude)
        self._clients = Clients(chosen.trusted_proxies)
        self._screen = Screen(chosen, self._heard)
        self._check = self._screen.check
        self._calm = self._screen.any_host  # then an ordinary GET is never refused
        self._plain = chosen.data is None and not chosen.policies
        self._settler = Settler(
            chosen,
            self.clocks,
            chosen.most,
            self.cookie,
            realm=self.realm,
            now=clock,
            entropy=entropy,
            client=self.client,
        )
        self._noted: OrderedDict[bytes, None] = OrderedDict()

    # -- identify ----------------------------------------------------------------------------------------------------

    def excludes(self, path: str) -> bool:
        """Tell whether a path has no sessions."""
        return bool(self._exclude) and path.startswith(self._exclude)

    def loses_cookie(self, request: Request) -> bool:
        """Tell whether a client is likely to drop our cookie: plain http without a proxy, as test clients speak it."""
        plain = request.scheme == "http" and not self.settings.allow_insecure_http
        return plain and is_local(request.header(b"host").decode("latin-1"))

    def screen(self, request: Request) -> Reply | None:
        """Return the answer to a request that is refused whoever sends it: wrong host, or caused by another site."""
        return self._screen.check(request)

    def identify(self, request: Request) -> Ticket | Absent | Reply:
        """Return the ticket that a request presents, why there is none, or the answer that refuses it."""
        if not self._calm or request.method != "GET" or request.kind != "http":
            reply = self._check(request)
            if reply is not None:
                return reply
        if request.method == "OPTIONS" and request.header(b"access-control-request-method"):
            return Absent.PREFLIGHT  # browsers send it without cookies (Fetch section 4.8): it is about nobody
        found = [value for name, value in request.headers if name == b"cookie"]
        if not found:
            return _NO_COOKIE
        header = found[0] if len(found) == 1 else b"; ".join(found)
        if len(header) > MOST_HEADER:
            self._heard("session_cookie_oversize", request)
            return replies.TOO_LARGE
        value = self.cookie.find(header)
        if value is None:
            return _NO_COOKIE
        if not isinstance(value, bytes):
            self._heard("session_cookie_ambiguous", request)
            return Absent.AMBIGUOUS
        ticket = tokens.parse(value)
        if ticket is None:
            self._heard("session_malformed_token", request)
            return Absent.MALFORMED
        return ticket

    # -- open --------------------------------------------------------------------------------------------------------

    def open(
        self,
        request: Request,
        ticket: Ticket | Absent,
        record: Record | None,
        make: Callable[[Visit], S] = Session,  # type: ignore[assignment]
        floor: Instant = 0.0,
    ) -> S | Reply:
        """Return the session for a ticket and the record under its handle, or the answer that replaces the handler's.

        `floor`: everything authenticated (or, if anonymous, created) before this moment no longer counts.
        """
        visit = Visit(self, request, self.now())
        if isinstance(ticket, Ticket):
            self._judge(visit, ticket, record, floor)
        else:
            visit.bare = ticket is _NO_COOKIE
        if request.method in _SAFE or self.settings.csrf == "off":
            return make(visit)
        return self._missing(visit) or make(visit)

    def estranged(self, epochs: Epochs) -> str | None:
        """Return why this store must not be believed, if so: what it says of a token may not be the truth (H7)."""
        if any(scope.startswith(f"{MOVED}:") for scope in epochs.scopes):
            return "the sessions of this store are moved to another one; open both by a moving+ URL, or the new one"
        if not epochs.generation:
            return "the store has lost its generation, and perhaps what was revoked; run `coatcheck restored`"
        pinned = self.settings.generation
        if pinned not in (None, epochs.generation):
            return (
                f"the store is of generation {epochs.generation!r}, the settings say {pinned!r}: it was emptied, "
                "restored, or is another one; run `coatcheck restored`, then set generation to what that prints"
            )
        return None

    def blank(self, request: Request, make: Callable[[Visit], S] = Session) -> S:  # type: ignore[assignment]
        """Return an anonymous session that is never stored: the store is away and the application wants to go on."""
        visit = Visit(self, request, self.now())
        return make(visit)

    def _missing(self, visit: Visit) -> Reply | None:
        """Weigh an unsafe request without Sec-Fetch-Site and Origin: it needs a token to log in, or at all."""
        if self._screen.evidence(visit.request) is not csrf.Evidence.MISSING:
            return None
        token = visit.request.header(b"x-csrf-token").decode("latin-1")
        visit.origin_proved = bool(token) and self.check_csrf(visit, token)
        if visit.origin_proved or self.settings.missing_headers == "allow":
            return None
        self._heard("csrf_denied", visit.request)
        return replies.cross_origin() if self.settings.csrf == "refuse" else None

    def _judge(self, visit: Visit, ticket: Ticket, record: Record | None, floor: Instant) -> None:
        if record is None:
            return self._heard("session_unknown_token", visit.request)
        if record.handle != ticket.handle:
            message = f"the store answered {ticket.handle!r} with another record"
            raise StoreError(message)
        now = visit.arrived
        standing, proof = tokens.judge(self._realm, record, ticket, now, self.clocks.grace)
        if standing is TokenClass.GARBAGE:
            return self._heard("session_garbage_token", visit.request)
        visit.presented, visit.presented_as = record, standing
        if record.handed_at > now + tokens.SKEW:  # a clock went back: refuse, but end nothing by it (TMO-13)
            return self._once(visit, facts.about("session_from_the_future", record, now, None), 3600.0)
        if standing is TokenClass.ENDED:
            return self._ended(visit, record)
        idle = record.idle_for
        in_time = now < record.expires_at and (idle is None or now < record.seen_at + idle)
        if standing is not TokenClass.STALE and not (in_time and self._plain and not floor):
            why = self._over(record, now, floor)
            if why is not None:
                return self._end(visit, record, why)
        if standing >= TokenClass.STRAGGLER:
            return self._replayed(visit, record, standing)
        return self._believe(visit, ticket, record, standing, proof)

    def _over(self, record: Record, now: Instant, floor: Instant) -> str | None:
        why = policies.over(record, self.settings.policies, now)
        if why is None and (record.authenticated_at or record.created_at) < floor:
            return "epoch"
        return why

    def _believe(self, visit: Visit, ticket: Ticket, record: Record, standing: TokenClass, proof: bytes) -> None:
        now = visit.arrived
        try:
            data = codec.decode(record.data)
            if not self._plain and self.settings.data is not None:
                typed.to_type(data, self.settings.data)
        except (codec.UnknownVersion, DataError) as error:
            return self._once(visit, facts.about("session_unreadable", record, now, None, why=str(error)), 3600.0)
        if not self._plain and self.settings.policies:
            verdict = self._verdict(record, now)
            if verdict.action is policies.Action.END:
                return self._end(visit, record, verdict.because or "policy")
            visit.step_up = verdict.action is policies.Action.STEP_UP
            visit.due = verdict.action is policies.Action.RENEW
        visit.ticket, visit.standing = ticket, standing
        visit.base, visit.data = record.data, data
        if record.persistent and records.lapsed(record, self.clocks, now):
            record = self._remembered(visit, record)
        elif standing is TokenClass.CURRENT and record.used_at is None:
            visit.urgent = (Touch(handle=record.handle, seen_at=now, turn_proof=proof),)
            record = replace(record, used_at=now, nonce=None, seen_at=now, version=record.version + 1)
        visit.record = record
        visit.level = record.level
        return None

    def _remembered(self, visit: Visit, record: Record) -> Record:
        """Drop a remembered login whose plain clocks ran out: who it is stays known, what it may do does not."""
        visit.data = self.carried(visit.data, None)
        lower = replace(record, level=int(Level.REMEMBERED), data=codec.encode(visit.data), seen_at=visit.arrived)
        if visit.standing == TokenClass.CURRENT and record.used_at is None:
            lower = replace(lower, used_at=visit.arrived, nonce=None)
        visit.base = lower.data
        visit.urgent = (Update(record=lower, was=record.version),)
        visit.urgent_required = True
        return replace(lower, version=record.version + 1)

    def _verdict(self, record: Record, now: Instant) -> policies.Verdict:
        return max((policy.judge(record, (), now) for policy in self.settings.policies), key=lambda v: v.action)

    def _end(self, visit: Visit, record: Record, why: str) -> None:
        visit.ended_because = why
        by_clock = visit.arrived >= record.deadline
        event = facts.about("session_expired", record, visit.arrived, self.client(visit.request), reason=why)
        ending = End(
            handle=record.handle, because=why, if_seen_at=record.seen_at if by_clock else None, events=(event,)
        )
        visit.urgent, visit.urgent_required = (ending,), True

    def _ended(self, visit: Visit, record: Record) -> None:
        if record.ended_because == MOVED:  # it lives on there; only a worker that was forgotten comes here
            message = f"session {record.handle!r} was moved to another store; open that one, or both by a moving+ URL"
            raise StoreError(message)
        visit.ended_because = record.ended_because
        event = facts.used_after_end(record, visit.arrived, self.client(visit.request))
        self._once(visit, event, 3600.0)

    def _replayed(self, visit: Visit, record: Record, standing: TokenClass) -> None:
        event = facts.reuse(record, visit.arrived, self.client(visit.request), standing.name.lower())
        if standing is TokenClass.STRAGGLER or self.settings.on_theft == "note":
            return self._once(visit, event, 60.0)
        visit.ended_because = "theft"
        visit.urgent = (End(handle=record.handle, because="theft", events=(event,)),)
        visit.urgent_required = True
        return None

    def _once(self, visit: Visit, event: Event, period: float) -> None:
        """Note a fact once per session, kind and period: the commit id is the same for all who see it."""
        window = int(event.at // period)
        kind = event.detail.get("kind", "")
        commit_id = sha256(f"{event.name}\0{event.handle}\0{kind}\0{window}".encode()).digest()[:16]
        if commit_id in self._noted:
            return
        if len(self._noted) >= _MOST_NOTED:
            self._noted.popitem(last=False)  # one step: threads share this
        self._noted[commit_id] = None
        visit.notes = (*visit.notes, (commit_id, event))

    # -- settle ------------------------------------------------------------------------------------------------------

    def settle(self, session: Session, status: int, headers: Headers) -> Outcome:
        """Return what this exchange leaves to be committed, and the cookies that may go out once it is.

        Raises DataError, naming key and type, for a value that a session cannot keep.
        """
        return self._settler.settle(session.visit, status, headers)

    def abandon(self, session: Session) -> Outcome:
        """Return what is committed although no response of the handler's goes out: ends and activity."""
        session.visit.kept = False
        return self._settler.settle(session.visit, 500, ())

    def late(self, session: Session) -> Outcome:
        """Return what was written after the response started, as far as it needs no cookie."""
        return self._settler.late(session.visit)

    # -- after the commit --------------------------------------------------------------------------------------------

    def rebase(self, session: Session, conflict: Conflict, *, unsure: bool = False) -> Outcome:
        """Return what to commit instead, given what the store holds now; nothing, where the session is over."""
        visit = session.visit
        current = conflict.current
        if conflict.why in ("limit", "epoch") and visit.login is not None:
            return self._login_refused(visit, conflict.why)
        if conflict.why == "exists":  # another session has this handle: once in 2^54 or so
            visit.planned = None
            subject = None if visit.record is None else visit.record.subject
            visit.renew = None if visit.renew is None else self.mint(subject)
            login = visit.login
            visit.login = None if login is None else replace(login, ticket=self.mint(login.subject))
            return self.settle(session, visit.status, visit.headers)
        if current is None or current.ended_at is not None or visit.record is None:
            return self._dropped(visit, current)
        if current.turn_proof != visit.record.turn_proof or current.used_at != visit.record.used_at:
            visit.standing = TokenClass.FORMER_GRACE if visit.login is None and visit.renew is None else visit.standing
        if visit.typed is not None:
            visit.data = typed.from_type(visit.typed.data)
            visit.typed = None
        visit.data, visit.wrote = records.merged(visit.base, visit.data, current.data, unsure=unsure), True
        visit.record, visit.base = current, current.data
        if self.settings.data is not None:
            try:
                typed.to_type(visit.data, self.settings.data)
            except DataError as error:
                visit.data = codec.decode(current.data)
                return Outcome(reply=replies.conflict("conflict", f"a parallel request changed the session: {error}"))
        return self.settle(session, visit.status, visit.headers)

    def _login_refused(self, visit: Visit, why: str) -> Outcome:
        visit.login = None
        if why == "limit":
            sentence = "There are too many sessions of this account; end one and log in again."
            return Outcome(reply=replies.forbidden("session_limit", sentence))
        return Outcome(reply=replies.forbidden("login_required", "The account's sessions were ended; log in again."))

    def _dropped(self, visit: Visit, current: Record | None) -> Outcome:
        """Drop what a request wrote to a session that ended meanwhile: nothing is revived, no cookie is touched."""
        was = visit.record
        acted = visit.login is not None or visit.renew is not None or bool(visit.end_others)
        visit.login = visit.renew = None
        visit.end_others = ""
        visit.record, visit.ended_because = None, None if current is None else current.ended_because
        visit.data, visit.base, visit.typed = {}, b"", None
        changes: tuple[Change, ...] = ()
        if was is not None:
            event = facts.about(
                "session_write_dropped", was, self.now(), self.client(visit.request), because=visit.ended_because
            )
            changes = (Note(events=(event,)),)
        if not acted:
            return Outcome(changes=changes, vary=("Cookie",))
        refusal = self.challenge(visit, reauthenticate=False, within=None)
        return Outcome(changes=changes, reply=refusal.reply)

    def unsighted(self, session: Session) -> None:
        """Take note that a first sight may not be stored: what this exchange writes is laid on what is stored then."""
        visit = session.visit
        if visit.record is not None:
            visit.record = replace(visit.record, version=0)  # no stored record has it

    def committed(self, session: Session, outcome: Outcome) -> None:
        """Take note that an outcome is stored: what the handler asked for is done, later writes build on it."""
        visit = session.visit
        for change in outcome.changes:
            if isinstance(change, Update):
                visit.record, visit.base = change.record, change.record.data
            elif isinstance(change, Insert | Replace):
                visit.ticket, visit.standing = self._csrf_ticket(visit), TokenClass.CURRENT
                visit.record, visit.base = change.record, change.record.data
                visit.level = change.record.level
            elif isinstance(change, End) and visit.logout and visit.login is None:
                visit.record = visit.presented = visit.ticket = None
                visit.base, visit.level = b"", int(Level.ANONYMOUS)
        visit.login = visit.renew = None
        visit.logout = visit.end_others = ""
        visit.wrote = False

    def edit(self, session: Session, change: Callable[[dict[str, Any]], V]) -> tuple[V, Update | None]:
        """Apply a change to the *stored* data, for one conditional commit of its own: for what must happen once."""
        visit = session.visit
        record = visit.record
        if record is None:
            visit.wrote = True
            return change(visit.data), None
        stored = codec.decode(record.data)
        value = change(stored)
        data = codec.encode(stored)
        if data == record.data:
            return value, None
        return value, Update(record=replace(record, data=data, version=record.version + 1), was=record.version)

    def edited(self, session: Session, change: Callable[[dict[str, Any]], Any], update: Update) -> None:
        """Take note that an edit is stored: the handler's own data follows, its other changes stay unsaved."""
        visit = session.visit
        change(visit.data)
        visit.lent = True
        visit.record, visit.base = update.record, update.record.data

    def overtaken(self, session: Session, conflict: Conflict) -> bool:
        """Take in what is stored now; return whether the session still lives."""
        visit = session.visit
        current = conflict.current
        if current is None or current.ended_at is not None:
            return False
        visit.data, visit.wrote = records.merged(visit.base, visit.data, current.data, unsure=False), True
        visit.record, visit.base = current, current.data
        return True

    def over(self, record: Record | None, floor: Instant = 0.0) -> str | None:
        """Return why an open connection's session is over, given its record as it is stored now; None: it lives."""
        if record is None:
            return "unknown"
        if record.ended_at is not None:
            return record.ended_because
        return self._over(record, self.now(), floor)

    # -- what a session asks (core/session.py, Counter) ---------------------------------------------------------------

    def mint(self, subject: str | None = None) -> Ticket:
        """Return a ticket for a new session; a subject's lies in its shard, where the store has shards."""
        ticket = tokens.mint(self.entropy)
        if subject is None or not self.salt:
            return ticket
        return tokens.sharded(ticket, tokens.shard_of(self.salt, self.realm, subject))

    def client(self, request: Request) -> Client:
        """Return who is at the other end."""
        return self._clients.of(request)

    def allow_login(self, visit: Visit) -> None:
        """Raise Refusal where this request may not log anybody in: login CSRF plants the attacker's account (M4)."""
        if visit.origin_proved or self.settings.csrf != "refuse":
            return
        self._heard("csrf_denied", visit.request)
        sentence = (
            "A login needs evidence that it came from this site: Sec-Fetch-Site or Origin (browsers send them), "
            "or the session's CSRF token. Test clients: headers={'Sec-Fetch-Site': 'same-origin'}."
        )
        raise Refusal(replies.forbidden("csrf", sentence), "login without same-origin evidence")

    def carried(self, data: dict[str, Any], carry: Carry | None) -> dict[str, Any]:
        """Return the named keys; a validator may refuse a value, reserved keys never move."""
        chosen = self.settings.carry if carry is None else carry
        if isinstance(chosen, All):
            return {key: value for key, value in data.items() if key not in RESERVED}
        kept = {key: data[key] for key in chosen if key in data and key not in RESERVED}
        if isinstance(chosen, dict):
            return {key: value for key, value in kept.items() if chosen[key](value)}
        return kept

    def csrf_token(self, visit: Visit) -> str:
        """Return a fresh, masked spelling of the session's CSRF token."""
        ticket = self._csrf_ticket(visit)
        if ticket is None:
            message = "there is no session to make a CSRF token for"
            raise ConfigError(message)
        key = tokens.csrf_key(self._realm, ticket.family)
        return csrf.masked(csrf.token(key, ticket.handle, self.entropy(32)), self.entropy)

    def check_csrf(self, visit: Visit, token: str) -> bool:
        """Tell whether the token belongs to the session that this request presented."""
        ticket = visit.ticket
        if ticket is None or visit.record is None or visit.logout:
            return False
        return csrf.verify(tokens.csrf_key(self._realm, ticket.family), ticket.handle, token)

    def _csrf_ticket(self, visit: Visit) -> Ticket | None:
        if visit.login is not None:
            return visit.login.ticket
        return visit.renew or (visit.planned if visit.record is None or visit.logout else visit.ticket)

    def challenge(self, visit: Visit, *, reauthenticate: bool, within: float | None) -> Refusal:
        """Return the refusal that asks for a login."""
        return replies.challenge(
            visit.request, self.realm, self.settings.login_url, reauthenticate=reauthenticate, within=within
        )

    def _heard(self, kind: str, request: Request) -> None:
        """Count noise: what anybody can cause is never written as it comes (H4)."""
        address = self._clients.address(request)
        self.noise.count(kind, address, self.now(), method=request.method, path=request.path)
