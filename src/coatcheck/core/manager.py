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
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from msgspec.structs import replace

from . import codec, csrf, facts, policies, records, replies, tokens, typed
from .clients import Clients
from .cookies import MOST_HEADER, CookieWriter
from .errors import ConfigError, DataError, Refusal, SettledError, StoreError
from .model import (
    MOVED,
    Change,
    Client,
    Conflict,
    End,
    Entropy,
    Epochs,
    Event,
    Handle,
    Headers,
    Held,
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
from .sealed import Sealer, check_store
from .session import RESERVED, All, Carry, Session, Visit
from .settings import Keywords, Settings, is_local, settings_of
from .settler import Settler
from .tokens import TokenClass

if TYPE_CHECKING:
    from .binder import Binder
    from .converter import Claim, Converter, Made
    from .legacy import Old
    from .secrecy import Secrecy

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
_GARBAGE, _ENDED, _CURRENT = TokenClass.GARBAGE, TokenClass.ENDED, tokens.CURRENT
_STRAGGLER, _STALE = TokenClass.STRAGGLER, TokenClass.STALE
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
        self._sealer = sealer = _sealer_of(chosen, self.realm)
        self._alone = sealer is not None and sealer.alone
        self._quiet = self.clocks.touch_every * 0.75
        self.noise = Noise()
        self._realm = self.realm.encode()
        self._exclude = tuple(chosen.exclude)
        self._fresh = tuple(chosen.fresh)
        self._grace = self.clocks.grace
        self._renew = inf if self.clocks.renew is None else self.clocks.renew
        self._clients = Clients(chosen.trusted_proxies)
        self._screen = Screen(chosen, self._heard)
        self._check = self._screen.check
        self._calm = self._screen.any_host  # then an ordinary GET is never refused
        self._plain = chosen.data is None and not chosen.policies
        self._binder = binder = self._binder_of(chosen)
        self.device_paths: frozenset[str] = frozenset() if binder is None else binder.paths
        self._settler = Settler(
            chosen,
            self.clocks,
            self.cookie,
            sealer,
            realm=self.realm,
            now=clock,
            entropy=entropy,
            client=self.client,
        )
        self._settler.binder = binder
        self._secrecy = self._settler.secrecy
        self._converter = _converter_of(chosen, self.realm, self._secrecy, entropy)
        self._noted: OrderedDict[bytes, None] = OrderedDict()

    def check_store(self, store: object) -> None:
        """Raise ConfigError for a store, or none, that these settings cannot do with."""
        check_store(self.settings.sealed, store)

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
        header = request.cookie
        if header is None:
            header = b""
            for name, line in request.headers:
                if name == b"cookie":
                    header = header + b"; " + line if header else line
        if not header:
            return _NO_COOKIE
        if len(header) > MOST_HEADER:
            self._heard("session_cookie_oversize", request)
            return replies.TOO_LARGE
        value = self.cookie.find(header)
        if value is None:
            return _NO_COOKIE
        if not isinstance(value, bytes):
            self._heard("session_cookie_ambiguous", request)
            return Absent.AMBIGUOUS
        ticket = tokens.parse(value) if self._sealer is None else self._sealer.open(header, value)
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
        if visit.answer is not None:
            return visit.answer
        if request.method in _SAFE or self.settings.csrf == "off":
            return make(visit)
        return self._missing(visit) or make(visit)

    def open_copy(
        self,
        request: Request,
        ticket: Ticket,
        copy: Record,
        make: Callable[[Visit], S] = Session,  # type: ignore[assignment]
        floor: Instant = 0.0,
    ) -> S | None:
        """Return the session if a copy of its record, perhaps a little old, can vouch for it; None: read the record.

        A copy may only say yes, and only to a current turn that was seen and is neither over nor due for renewal, on a
        plain safe request (H8). So nothing is ended, renewed, noted or refused by what it says.
        """
        if request.method not in _SAFE or request.kind != "http" or request.path.startswith(self._fresh):
            return None
        visit = Visit(self, request, self.now(), copied=True)
        self._judge(visit, ticket, copy, floor)
        if visit.record is not copy or visit.standing is not _CURRENT or visit.step_up or visit.due:
            return None
        if copy.used_at is None or visit.arrived >= copy.used_at + self._renew:
            return None
        return make(visit)

    def confirm(self, session: Session, record: Record | None, floor: Instant = 0.0) -> None:
        """Judge a session that a copy vouched for by its record; data that the handler holds stays as it is."""
        visit = session.visit
        ticket, known = visit.ticket, visit.record
        visit.copied = False
        if ticket is None or known is None or visit.login is not None or visit.logout:
            return
        held = visit.wrote or visit.lent or visit.typed is not None  # then a commit lays it on what is stored
        fresh = Visit(self, visit.request, visit.arrived)
        self._judge(fresh, ticket, record, floor)
        visit.presented, visit.presented_as, visit.standing = fresh.presented, fresh.presented_as, fresh.standing
        visit.step_up, visit.due, visit.level = fresh.step_up, fresh.due, fresh.level
        visit.bound, visit.unbound = fresh.bound, fresh.unbound
        visit.notes, visit.urgent, visit.urgent_required = fresh.notes, fresh.urgent, fresh.urgent_required
        if fresh.record is None:
            visit.ticket = visit.record = visit.renew = visit.lasting = visit.typed = None
            visit.ended_because, visit.end_others = fresh.ended_because, ""
            visit.data, visit.base = {}, b""
        elif not held:
            visit.record, visit.data, visit.base = fresh.record, fresh.data, fresh.base

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

    def away(
        self,
        request: Request,
        make: Callable[[Visit], S] = Session,  # type: ignore[assignment]
        floor: Instant = 0.0,
    ) -> S | Reply:
        """Return what a request gets while the store is away: 503, a blank session, or what its sealed cookie says."""
        sealed = self.settings.sealed
        if sealed is not None and sealed.store_down == "reads" and request.kind == "http" and request.method in _SAFE:
            try:
                ticket = self.identify(request)
            except StoreError:  # the keys are out of reach, too
                return replies.UNAVAILABLE
            if isinstance(ticket, Ticket):
                visit = Visit(self, request, self.now(), reads_only=True)
                self._judge(visit, ticket, None, floor)
                return make(visit)
        return replies.UNAVAILABLE if self.settings.store_down == "refuse" else self.blank(request, make)

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
            return self._judge_alone(visit, ticket, floor)
        if record.handle != ticket.handle:
            message = f"the store answered {ticket.handle!r} with another record"
            raise StoreError(message)
        now = visit.arrived
        standing, proof = tokens.judge(self._realm, record, ticket, now, self._grace)
        if standing is _GARBAGE:
            return None if visit.copied else self._heard("session_garbage_token", visit.request)
        visit.presented, visit.presented_as = record, standing
        if record.handed_at > now + tokens.SKEW:  # a clock went back: refuse, but end nothing by it (TMO-13)
            return self._once(visit, facts.about("session_from_the_future", record, now, None), 3600.0)
        if standing is _ENDED:
            return self._ended(visit, record)
        idle = record.idle_for
        in_time = now < record.expires_at and (idle is None or now < record.seen_at + idle)
        if not (in_time and self._plain and not floor) and standing is not _STALE:
            why = self._over(record, now, floor)
            if why is not None:
                return self._end(visit, record, why)
        if standing >= _STRAGGLER:
            return self._replayed(visit, record, standing)
        if ticket.held is not None:
            seen_at = self._seen_at(visit, ticket, ticket.held)
            if seen_at < record.seen_at:  # others with this token were seen later than these cookies
                if idle is not None and now >= seen_at + idle:
                    return self._slept(visit, record)
                record = replace(record, seen_at=seen_at)
        if self._binder is not None and record.subject is not None and not self._admitted(visit, record, self._binder):
            return None
        return self._believe(visit, ticket, record, standing, proof)

    def _judge_alone(self, visit: Visit, ticket: Ticket, floor: Instant) -> None:
        """Judge a ticket without a record: it counts only where its seal alone may vouch for it."""
        held = ticket.held
        if held is None or not (self._alone or visit.reads_only):
            return self._heard("session_unknown_token", visit.request)
        now = visit.arrived
        visit.presented = record = records.held(self.realm, ticket, held, self._seen_at(visit, ticket, held))
        visit.presented_as = _CURRENT
        if record.handed_at > now + tokens.SKEW:
            return self._once(visit, facts.about("session_from_the_future", record, now, None), 3600.0)
        why = self._over(record, now, floor)
        if why is not None:
            return self._end(visit, record, why)
        return self._believe(visit, ticket, record, _CURRENT, b"")

    def _seen_at(self, visit: Visit, ticket: Ticket, held: Held) -> Instant:
        """Return when the bearer was last seen; the small cookie is looked at only where it could matter."""
        if self._sealer is None or visit.arrived - held.seen_at < self._quiet:
            return held.seen_at
        return self._sealer.seen_at(ticket, visit.request.header(b"cookie"))

    def _over(self, record: Record, now: Instant, floor: Instant) -> str | None:
        why = policies.over(record, self.settings.policies, now)
        if why is None and (record.authenticated_at or record.created_at) < floor:
            return "epoch"
        return why

    def _believe(self, visit: Visit, ticket: Ticket, record: Record, standing: TokenClass, proof: bytes) -> None:
        now, held = visit.arrived, ticket.held
        try:
            base = self._secrecy.read(ticket, record.data) if held is None else held.data
            data = codec.decode(base)
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
        visit.base, visit.data = base, data
        if record.persistent and records.lapsed(record, self.clocks, now):
            record = self._remembered(visit, ticket, record)
        elif held is not None and record.level < held.level:
            self._cut(visit)  # it was lowered before, but the answer that said so brought no cookie
        if record.used_at is None and standing is _CURRENT:
            visit.urgent = (Touch(handle=record.handle, seen_at=now, turn_proof=proof),)
            record = replace(record, used_at=now, nonce=None, seen_at=now, version=record.version + 1)
        if visit.confirmed is not None and not visit.urgent:  # if something else must be stored first: the next time
            record = replace(record, binding=visit.confirmed)
            visit.urgent = (Update(record=record, was=record.version),)
            record = replace(record, version=record.version + 1)
        visit.record = record
        visit.level = record.level
        return None

    def _admitted(self, visit: Visit, record: Record, binder: Binder) -> bool:
        """Tell whether a session's binding to its device lets this request have it."""
        judgement = binder.judge(visit, record)
        if judgement.name == "OVER":
            self._end(visit, record, "unbound")
        return judgement.name == "ADMITTED"

    def _remembered(self, visit: Visit, ticket: Ticket, record: Record) -> Record:
        """Drop a remembered login whose plain clocks ran out: who it is stays known, what it may do does not."""
        self._cut(visit)
        data = self._kept(ticket, visit.base)
        lower = replace(record, level=int(Level.REMEMBERED), data=data, seen_at=visit.arrived)
        if visit.standing == TokenClass.CURRENT and record.used_at is None:
            lower = replace(lower, used_at=visit.arrived, nonce=None)
        visit.urgent = (Update(record=lower, was=record.version),)
        visit.urgent_required = True
        return replace(lower, version=record.version + 1)

    def _cut(self, visit: Visit) -> None:
        """Cut the data to what may move on, as in a login; a sealed cookie must be told."""
        visit.data = self.carried(visit.data, None)
        visit.base = codec.encode(visit.data)
        if self._sealer is not None:
            visit.asked = visit.reseal = True

    def _kept(self, ticket: Ticket, data: bytes) -> bytes:
        """Return what of the data the store keeps."""
        return self._secrecy.kept(ticket, data) if self._sealer is None else b""

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

    def _slept(self, visit: Visit, record: Record) -> None:
        """Refuse a copy of a sealed cookie that lay unused for the idle timeout, though its session lives (D52)."""
        visit.ended_because = "idle"
        client = self.client(visit.request)
        event = facts.about("session_use_after_expire", record, visit.arrived, client, because="idle", kind="copy")
        self._once(visit, event, 3600.0)

    def _replayed(self, visit: Visit, record: Record, standing: TokenClass) -> None:
        kind = standing.name.lower() if self._sealer is None else "older"
        event = facts.reuse(record, visit.arrived, self.client(visit.request), kind)
        # an older sealed token is what a browser holds whose answers came in another order: no evidence of theft
        if standing is TokenClass.STRAGGLER or self.settings.on_theft == "note" or self._sealer is not None:
            return self._once(visit, event, 60.0)
        visit.ended_because = "theft"
        visit.urgent = (End(handle=record.handle, because="theft", events=(event,)),)
        visit.urgent_required = True
        return None

    def _once(self, visit: Visit, event: Event, period: float) -> None:
        """Note a fact once per session, kind and period: the commit id is the same for all who see it."""
        if visit.copied:
            return
        window = int(event.at // period)
        kind = event.detail.get("kind", "")
        commit_id = sha256(f"{event.name}\0{event.handle}\0{kind}\0{window}".encode()).digest()[:16]
        if commit_id in self._noted:
            return
        if len(self._noted) >= _MOST_NOTED:
            self._noted.popitem(last=False)  # one step: threads share this
        self._noted[commit_id] = None
        visit.notes = (*visit.notes, (commit_id, event))

    # -- sessions of another library ---------------------------------------------------------------------------------

    @property
    def converts(self) -> bool:
        """Whether sessions of another library become ours."""
        return self._converter is not None

    def claim(self, request: Request, ticket: Absent) -> Claim | None:
        """Return the token of another library that a request presents, if no cookie of ours came with it."""
        converter = self._converter
        if ticket is not _NO_COOKIE or converter is None:
            return None
        header = request.header(b"cookie")
        claim = converter.claim(header, self.now()) if header else None
        if claim is None and header and any(source.is_there(header) for source in converter.sources):
            self._heard("session_legacy_refused", request)
        return claim

    def may_convert(self, request: Request, mark: Record | None) -> bool:
        """Tell whether a request may turn an old session into one of ours; `mark` is what the store holds of it."""
        return self.converting.may_convert(request, mark, self.now())

    def made(self, claim: Claim, old: Old, client: Client, floor: Instant) -> Made | None:
        """Return the session that an old one becomes, or None: it no longer counts. Raises DataError."""
        return self.converting.made(claim, old, self.now(), salt=self.salt, client=client, floor=floor)

    def mark_of(self, claim: Claim, handle: Handle) -> Record:
        """Return what tells from now on which session an old token became."""
        return self.converting.mark_of(claim, handle, self.now())

    def open_converted(
        self,
        request: Request,
        claim: Claim,
        record: Record,
        following: Ticket | None,
        make: Callable[[Visit], S] = Session,  # type: ignore[assignment]
        floor: Instant = 0.0,
    ) -> S | Reply:
        """Return the session for an old token and the record that it became; `following` is handed out, if it is new.

        The old token is judged as a former one of that session: it is not good for long.
        """
        ticket = replace(claim.forebear, handle=record.handle)
        session = self.open(request, ticket, record, make, floor)
        if not isinstance(session, Reply):
            visit = session.visit
            visit.bare = True  # no cookie of ours came
            visit.following = None if visit.record is None else following
        return session

    @property
    def converting(self) -> Converter:
        """What turns sessions of another library into ours; raises ConfigError if the settings name none."""
        if self._converter is None:
            message = "the settings name no sessions of another library (legacy=[...])"
            raise ConfigError(message)
        return self._converter

    # -- the endpoints of device binding ------------------------------------------------------------------------------

    def _binder_of(self, settings: Settings) -> Binder | None:
        chosen = settings.device_binding
        if chosen is None:
            return None
        from .binder import Binder  # it stands on public-key cryptography, which few need

        return Binder(
            chosen,
            settings.cookie,
            comma_joined=settings.comma_joined,
            realm=self.realm,
            origins=self._screen.origins,
            now=self.now,
            entropy=self.entropy,
            client=self.client,
            once=self._once,
            heard=self._heard,
        )

    def device_named(self, request: Request) -> Handle | Reply | None:
        """Return the handle that a refresh names, None for a registration, or the answer that refuses either."""
        binder = self._binder
        if binder is None:
            raise AssertionError  # there are no device_paths
        refused = self.screen(request) or binder.misused(request)
        if refused is not None or binder.registers(request):
            return refused
        name = binder.named(request)
        return binder.unknown() if name is None else name[:18]

    def register(self, session: Session) -> Outcome:
        """Return what a browser's key does to the session that it was brought for."""
        if self._binder is None:
            raise AssertionError  # there are no device_paths
        return self._binder.register(session.visit)

    def refresh(self, request: Request, record: Record | None, floor: Instant = 0.0) -> Outcome:
        """Return what a browser's proof does to a bound session, given its record or the one that took its place."""
        binder = self._binder
        name = None if binder is None else binder.named(request)
        if binder is None or name is None:
            raise AssertionError  # `device_named` asked
        over = None if record is None else self.over(record, floor)
        if record is not None and over is None and self.settings.policies:
            verdict = self._verdict(record, self.now())
            over = (verdict.because or "policy") if verdict.action is policies.Action.END else None
        return binder.refresh(request, name, record, over)

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
            if visit.renew is not None and visit.record is not None:
                visit.renew = self.mint(visit.record.subject, visit.record.handle)
            login = visit.login
            visit.login = None if login is None else replace(login, ticket=self.mint(login.subject))
            return self.settle(session, visit.status, visit.headers)
        if current is None or current.ended_at is not None or visit.record is None:
            return self._dropped(visit, current)
        if self._sealer is not None:
            return self._settled_again(session, visit.record, current)
        if current.turn_proof != visit.record.turn_proof or current.used_at != visit.record.used_at:
            visit.standing = TokenClass.FORMER_GRACE if visit.login is None and visit.renew is None else visit.standing
        if visit.typed is not None:
            visit.data = typed.from_type(visit.typed.data)
            visit.typed = None
        theirs = self._opened(visit, current)
        visit.data, visit.wrote = records.merged(visit.base, visit.data, theirs, unsure=unsure), True
        visit.record, visit.base = current, theirs
        if self.settings.data is not None:
            try:
                typed.to_type(visit.data, self.settings.data)
            except DataError as error:
                visit.data = codec.decode(theirs)
                return Outcome(reply=replies.conflict("conflict", f"a parallel request changed the session: {error}"))
        return self.settle(session, visit.status, visit.headers)

    def seen_again(self, session: Session, outcome: Outcome, stored: Record | None) -> Outcome:
        """Return what becomes of a sealed write, given the stub as it is now: nothing, where it came too late."""
        visit = session.visit
        visit.unguarded = False
        live = stored is not None and stored.ended_at is None
        if live and visit.record is not None and stored is not None and stored.turn_proof == visit.record.turn_proof:
            return outcome
        return self.rebase(session, Conflict(stored, "version" if live else "gone"))

    def _settled_again(self, session: Session, was: Record, current: Record) -> Outcome:
        """Settle on the stub as it is now; where a monotonic key changed meanwhile, what was written is too old."""
        visit = session.visit
        if current.turn_proof != was.turn_proof:
            visit.login = visit.renew = None
            visit.data, visit.typed, visit.wrote, visit.reseal = codec.decode(visit.base), None, False, False
            return Outcome(reply=replies.conflict("conflict", "A parallel request changed the session; try again."))
        visit.record = replace(current, seen_at=min(current.seen_at, was.seen_at))
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
                visit.record, visit.base = change.record, self._base_of(visit)
            elif isinstance(change, Insert | Replace):
                visit.ticket, visit.standing = self._csrf_ticket(visit), TokenClass.CURRENT
                visit.record, visit.base = change.record, self._base_of(visit)
                visit.level = change.record.level
            elif isinstance(change, End) and visit.logout and visit.login is None:
                visit.record = visit.presented = visit.ticket = None
                visit.base, visit.level = b"", int(Level.ANONYMOUS)
        visit.login = visit.renew = None
        visit.logout = visit.end_others = ""
        visit.wrote = False

    def _base_of(self, visit: Visit) -> bytes:
        """Return the data that later writes build on."""
        if self._sealer is None:
            return visit.offered
        return visit.base if visit.sent is None else visit.sent

    def edit(self, session: Session, change: Callable[[dict[str, Any]], V]) -> tuple[V, Update | None]:
        """Apply a change to the *stored* data, for one conditional commit of its own: for what must happen once."""
        visit = session.visit
        record = visit.record
        if record is None:
            visit.wrote = True
            return change(visit.data), None
        if self._sealer is not None:
            return self._edit_sealed(visit, record, change)
        base = self._opened(visit, record)
        stored = codec.decode(base)
        value = change(stored)
        data = codec.encode(stored)
        if data == base:
            return value, None
        kept = self._settler.kept(visit, visit.ticket, data)
        return value, Update(record=replace(record, data=kept, version=record.version + 1), was=record.version)

    def _edit_sealed(
        self, visit: Visit, record: Record, change: Callable[[dict[str, Any]], V]
    ) -> tuple[V, Update | None]:
        """Change what the cookie brought, and have every older cookie refused: so of all that present it, one wins."""
        self.need_store("take and bump")
        if visit.reads_only:
            message = "the store does not answer: until it does, this session can only be read"
            raise StoreError(message)
        if visit.outcome is not None or visit.request.kind == "websocket" or visit.ticket is None:
            message = "a sealed session is changed by a cookie, which only the start of a response can carry"
            raise SettledError(message)
        brought = codec.decode(visit.base)
        value = change(brought)
        if codec.encode(brought) == visit.base:
            return value, None
        visit.turned = tokens.turned(visit.ticket, self.entropy)
        changed = records.turned(self._realm, record, visit.turned, self.now())
        return value, Update(record=replace(changed, version=record.version + 1), was=record.version)

    def edited(self, session: Session, change: Callable[[dict[str, Any]], Any], update: Update) -> None:
        """Take note that an edit is stored: the handler's own data follows, its other changes stay unsaved."""
        visit = session.visit
        change(visit.data)
        visit.lent = True
        if self._sealer is None:
            visit.record, visit.base = update.record, visit.offered
            return
        brought = codec.decode(visit.base)
        change(brought)
        visit.record, visit.base = update.record, codec.encode(brought)
        visit.ticket, visit.turned = visit.turned, None
        visit.asked = visit.reseal = True

    def overtaken(self, session: Session, conflict: Conflict) -> bool:
        """Take in what is stored now; return whether the session still lives."""
        visit = session.visit
        current = conflict.current
        if current is None or current.ended_at is not None:
            return False
        if self._sealer is not None:
            same = visit.record is not None and visit.record.turn_proof == current.turn_proof
            visit.record = current
            return same
        theirs = self._opened(visit, current)
        visit.data, visit.wrote = records.merged(visit.base, visit.data, theirs, unsure=False), True
        visit.record, visit.base = current, theirs
        return True

    def _opened(self, visit: Visit, record: Record) -> bytes:
        """Return the encoded data of this visit's record, as it is stored now."""
        if visit.ticket is None:
            raise AssertionError  # a believed record has its ticket
        return self._secrecy.read(visit.ticket, record.data)

    def over(self, record: Record | None, floor: Instant = 0.0, opened: Record | None = None) -> str | None:
        """Return why an open connection's session is over, given its record as it is stored now; None: it lives.

        `opened` is the record that it was opened with: all there is, where sealed tokens have no store.
        """
        if self._alone:
            record = opened
        if record is None:
            return "unknown"
        if record.ended_at is not None:
            return record.ended_because
        return self._over(record, self.now(), floor)

    def ends_at(self, record: Record | None, opened: Record | None = None) -> Instant:
        """Return the moment at which a record is over by its clocks and policies, untouched; see `over`."""
        if self._alone:
            record = opened
        if record is None:
            return 0.0
        own = (policy.expires_at(record) for policy in self.settings.policies)
        return min([record.deadline, *(end for end in own if end is not None)])

    # -- what a session asks (core/session.py, Counter) ---------------------------------------------------------------

    def mint(self, subject: str | None = None, instead_of: Handle | None = None) -> Ticket:
        """Return a ticket for a new session; of shards, it lies in its subject's or its forebear's."""
        ticket = tokens.mint(self.entropy)
        if not self.salt:
            return ticket
        if subject is not None:
            return tokens.sharded(ticket, tokens.shard_of(self.salt, self.realm, subject))
        return ticket if instead_of is None else tokens.sharded(ticket, instead_of[:2])

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

    def need_store(self, act: str) -> None:
        """Raise ConfigError for what sealed tokens without a store cannot do."""
        if self._alone:
            message = f"{act} cannot be done by sealed tokens alone: name a store, and drop unsafe_irrevocable"
            raise ConfigError(message)

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


def _converter_of(settings: Settings, realm: str, secrecy: Secrecy, entropy: Entropy) -> Converter | None:
    if not settings.legacy:
        return None
    from .converter import Converter  # few need it

    return Converter(settings, realm, secrecy, entropy)


def _sealer_of(settings: Settings, realm: str) -> Sealer | None:
    if settings.sealed is None:
        return None
    joined = settings.comma_joined
    return Sealer(settings.sealed, realm, settings.cookie, settings.canonical_origin, comma_joined=joined)
