"""The counter: what a presented token is worth, and what an exchange leaves to be committed; it never waits.

Four questions, asked by the flow in this order:
- `identify`: is there a ticket of ours on this request, and may the request be answered at all?
- `open`: given the record that lies under its handle, which session does the handler get?
- `settle`: given what the handler did and the response's start, what is to be committed, and which cookie goes out?
- `after.rebase`: given that the commit met a newer record, what is to be committed instead?
What a token is worth decides core/judge.py, what is committed core/settler.py, what then follows core/aftermath.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from msgspec.structs import replace

from . import csrf, epochs, policies, replies, tokens
from .aftermath import Aftermath
from .clients import Clients, printable
from .cookies import MOST_HEADER, CookieWriter
from .devices import Devices
from .errors import ConfigError, Refusal, StoreError
from .floods import GUESSES, Gate
from .hardening import hardening_of
from .judge import Judge
from .model import (
    MOVED,
    Client,
    Entropy,
    Epochs,
    Handle,
    Headers,
    Instant,
    Outcome,
    Record,
    Reply,
    Request,
    Ticket,
)
from .noise import Noise
from .screen import Screen
from .sealed import Sealer, check_store
from .session import Session
from .settings import Keywords, Settings, is_local, settings_of
from .settler import Settler
from .traces import Traces
from .visit import Carry, Visit, carried

if TYPE_CHECKING:
    from .binder import Binder
    from .converter import Claim, Converter, Made
    from .legacy import Old
    from .secrecy import Secrecy

S = TypeVar("S", bound=Session)
V = TypeVar("V")


class Absent(Enum):
    """Why a request has no ticket: no cookie of ours came, or what came is nobody's."""

    NO_COOKIE = 0
    MALFORMED = 1
    AMBIGUOUS = 2
    PREFLIGHT = 3


_NO_COOKIE = Absent.NO_COOKIE
_SPENT = "spent"
_CURRENT = tokens.CURRENT
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
        self.noise = Noise()
        self.sockets_of: Callable[[Handle], int] | None = None  # who has them says how many a session has open
        self._most_sockets = inf if chosen.floods.sockets is None else chosen.floods.sockets
        self._gate = Gate(chosen.floods, self._heard)
        self._realm = self.realm.encode()
        self._exclude = tuple(chosen.exclude)
        self._fresh = tuple(chosen.fresh)
        self._renew = inf if self.clocks.renew is None else self.clocks.renew
        self._clients = Clients(chosen.trusted_proxies)
        self.traces = Traces(chosen.request_id, chosen.node, self._clients.proxied, entropy)
        self._screen = Screen(chosen, self._heard, self._clients.is_secure)
        self._check = self._screen.check
        self._calm = self._screen.calm  # then an ordinary GET is never refused
        self.hardening = hardening_of(chosen, self._clients.is_secure)
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
        if chosen.floods.anonymous is not None and not self._alone:
            self._settler.admits = self._admits
        secrecy = self._settler.secrecy
        self.judge = Judge(
            chosen,
            self.realm,
            sealer=sealer,
            secrecy=secrecy,
            clients=self._clients,
            heard=self._heard,
            stopped=self._stopped,
        )
        self.after = Aftermath(chosen, self.realm, self._settler, sealer, now=clock, entropy=entropy)
        self._binder = self._settler.binder = self.judge.binder = binder = self._binder_of(chosen)
        self.device_paths: frozenset[str] = frozenset() if binder is None else binder.paths
        self.devices = self._settler.devices = _devices_of(chosen, self.realm, entropy)
        self._converter = _converter_of(chosen, self.realm, secrecy, entropy)

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
        """Return the answer to a request for a page without sessions that is refused: wrong host, or another site's."""
        return self._screen.meant(request)

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
                    if len(header) > MOST_HEADER:  # ten thousand lines are not put together first
                        break
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
            return self._stopped(request) or Absent.MALFORMED
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
            self.judge.judge(visit, ticket, record, floor)
            if visit.answer is not None:
                return visit.answer
        else:
            visit.bare = ticket is _NO_COOKIE
        if self.sockets_of is not None and request.kind == "websocket" and self._is_full(visit):
            return replies.TOO_MANY_SOCKETS
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
        self.judge.judge(visit, ticket, copy, floor)
        if visit.record is not copy or visit.standing is not _CURRENT or visit.step_up or visit.due:
            return None
        if visit.owes:
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
        self.judge.judge(fresh, ticket, record, floor)
        visit.presented, visit.presented_as, visit.standing = fresh.presented, fresh.presented_as, fresh.standing
        visit.step_up, visit.due, visit.level = fresh.step_up, fresh.due, fresh.level
        visit.doubted, visit.signals, visit.moved = fresh.doubted, fresh.signals, fresh.moved
        visit.bound, visit.unbound = fresh.bound, fresh.unbound
        visit.notes, visit.urgent, visit.urgent_required = fresh.notes, fresh.urgent, fresh.urgent_required
        if fresh.record is None:
            visit.ticket = visit.record = visit.renew = visit.lasting = visit.typed = None
            visit.ended_because, visit.end_others = fresh.ended_because, ""
            visit.data, visit.base = {}, b""
        elif not held:
            visit.record, visit.data, visit.base = fresh.record, fresh.data, fresh.base

    def learn(self, scopes: Mapping[str, Instant]) -> Instant:
        """Take in the epochs of a store; return the moment before which nothing of this realm counts."""
        self.judge.learn(epochs.tenants_of(scopes, self.realm))
        return epochs.floor_of(scopes, self.realm)

    def ahead(self, seconds: float) -> None:
        """Take note of how far our clock is ahead of the store's, by which epochs are told (M10)."""
        self._settler.ahead = seconds

    def estranged(self, told: Epochs) -> str | None:
        """Return why this store must not be believed, if so: what it says of a token may not be the truth (H7)."""
        if any(scope.startswith(f"{MOVED}:") for scope in told.scopes):
            return "the sessions of this store are moved to another one; open both by a moving+ URL, or the new one"
        if not told.generation:
            return "the store has lost its generation, and perhaps what was revoked; run `coatcheck restored`"
        pinned = self.settings.generation
        if pinned not in (None, told.generation):
            return (
                f"the store is of generation {told.generation!r}, the settings say {pinned!r}: it was emptied, "
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
                self.judge.judge(visit, ticket, None, floor)
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
        self._heard("csrf_denied", visit.request, reason="no_evidence")
        return replies.cross_origin() if self.settings.csrf == "refuse" else None

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
            once=self.judge.once,
            heard=self._heard,
            stopped=self._stopped,
        )

    def device_named(self, request: Request) -> Handle | Reply | None:
        """Return the handle that a refresh names, None for a registration, or the answer that refuses either."""
        binder = self._binder
        if binder is None:
            raise AssertionError  # there are no device_paths
        refused = self._check(request) or binder.at_once(request)
        if refused is None and len(request.header(b"cookie")) > MOST_HEADER:
            self._heard("session_cookie_oversize", request)
            return replies.UNAVAILABLE  # a browser gives its key up after any other answer
        if refused is not None or binder.registers(request):
            return refused
        name = binder.named(request)
        return binder.unknown(request) if name is None else name[:18]

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
            verdict = self.judge.verdict(record, self.now())
            over = (verdict.because or "policy") if verdict.action is policies.Action.END else None
        return binder.refresh(request, name, record, over)

    # -- settle ------------------------------------------------------------------------------------------------------

    def settle_read(self, session: Session, status: int, headers: Headers) -> Outcome | None:
        """Return what an exchange leaves that only read, or did not look at all; None: `settle` has more to do."""
        return self._settler.settle_read(session.visit, status, headers)

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

    # -- open connections ---------------------------------------------------------------------------------------------

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
        return self.judge.over(record, self.now(), floor)

    def ends_at(self, record: Record | None, opened: Record | None = None) -> Instant:
        """Return the moment at which a record is over by its clocks and policies, untouched; see `over`."""
        if self._alone:
            record = opened
        if record is None:
            return 0.0
        own = (policy.expires_at(record) for policy in self.settings.policies)
        return min([record.deadline, *(end for end in own if end is not None)])

    # -- what a session asks (core/visit.py, Counter) -----------------------------------------------------------------

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
        embedded = csrf.is_embedded(visit.request)
        if self.settings.csrf != "refuse" or (visit.origin_proved and not embedded):
            return
        self._heard("csrf_denied", visit.request, reason="login_embedded" if embedded else "login_no_evidence")
        sentence = (
            "A page of another site asked for this login in a frame, an image or a script; send the user here instead."
            if embedded
            else "A login needs evidence that it came from this site: Sec-Fetch-Site or Origin (browsers send them), "
            "or the session's CSRF token. Test clients: headers={'Sec-Fetch-Site': 'same-origin'}."
        )
        raise Refusal(replies.forbidden("csrf", sentence), "login without same-origin evidence")

    def csrf_refusal(self, visit: Visit) -> Refusal:
        """Return the refusal of a request without this session's token."""
        self._heard("csrf_denied", visit.request, reason="no_token")
        sentence = (
            "This needs the CSRF token of your session, in the header X-CSRF-Token or the form's field csrf_token; "
            "the one that came is missing, or of a session that is over. Load the page again."
        )
        return Refusal(replies.forbidden("csrf", sentence), "no CSRF token of this session")

    def need_store(self, act: str) -> None:
        """Raise ConfigError for what sealed tokens without a store cannot do."""
        if self._alone:
            message = f"{act} cannot be done by sealed tokens alone: name a store, and drop unsafe_irrevocable"
            raise ConfigError(message)

    def carried(self, data: dict[str, Any], carry: Carry | None) -> dict[str, Any]:
        """Return the keys that move into a login."""
        return carried(data, self.settings.carry if carry is None else carry)

    def csrf_token(self, visit: Visit) -> str:
        """Return a fresh, masked spelling of the session's CSRF token, or of the one of a cookie that is spent."""
        spent, ticket = self.spent(visit), visit.ticket_to_be
        if spent:
            key, sid = tokens.csrf_key(self._realm, spent), _SPENT
        elif ticket is not None:
            key, sid = tokens.csrf_key(self._realm, ticket.family), ticket.handle
        else:
            message = "there is no session to make a CSRF token for"
            raise ConfigError(message)
        return csrf.masked(csrf.token(key, sid, self.entropy(32)), self.entropy)

    def check_csrf(self, visit: Visit, token: object) -> bool:
        """Tell whether the token belongs to the session, or the spent cookie, that this request presented."""
        ticket = visit.ticket
        if ticket is not None and visit.record is not None and not visit.logout:
            return csrf.verify(tokens.csrf_key(self._realm, ticket.family), ticket.handle, token)
        spent = self.spent(visit)
        return bool(spent) and csrf.verify(tokens.csrf_key(self._realm, spent), _SPENT, token)

    def spent(self, visit: Visit) -> bytes:
        """Return the cookie of ours that came and opens no session, or b"".

        It stays in its browser until the next login (H3), so no other session can carry that login form's token: it
        is bound to this cookie. The key is not that of the session that the cookie once opened: its tokens are dead.
        """
        if visit.record is not None or visit.login is not None or visit.logout or visit.bare:
            return b""
        value = self.cookie.find(visit.request.cookie or visit.request.header(b"cookie"))
        return value if isinstance(value, bytes) else b""

    def challenge(self, visit: Visit, *, reauthenticate: bool, within: float | None) -> Refusal:
        """Return the refusal that asks for a login."""
        return replies.challenge(
            visit.request,
            self.realm,
            self.settings.login_url,
            reauthenticate=reauthenticate,
            within=within,
            ended=None if reauthenticate else visit.ended_because,
        )

    def _heard(self, kind: str, request: Request, **why: str) -> None:
        """Count noise: what anybody can cause is never written as it comes (H4); the summary tells of the last one."""
        address, now = self._clients.address(request), self.now()
        if kind == "csrf_denied" and (origin := request.header(b"origin")):
            why["origin"] = printable(origin.decode("latin-1"))  # it has no path, in which a secret could be
        trace = self.traces.of(request)
        self.noise.count(
            kind,
            address,
            now,
            method=trace.method or "",
            path=trace.path or "",
            agent=self._clients.agent(request) or "none",
            request_id=trace.request_id or "",
            **why,
        )
        if kind in GUESSES:
            self._gate.guessed(request, address, now)

    def _is_full(self, visit: Visit) -> bool:
        """Tell whether a session may open no further websocket (M8); counted, since its owner alone can cause it."""
        record, number = visit.record, self.sockets_of
        if record is None or number is None or number(record.handle) < self._most_sockets:
            return False
        self._heard("session_sockets_refused", visit.request)
        return True

    def _admits(self, request: Request) -> bool:
        return self._gate.admits(request, self._clients.address(request), self.now())

    def _stopped(self, request: Request) -> Reply | None:
        """Return the answer to a token that opens nothing, where its network sent too many of those.

        A browser that proves its device's key would give up for good after a 429: it is told to come back.
        """
        if not self._gate.refuses:
            return None
        seconds = self._gate.wait(request, self._clients.address(request), self.now())
        if seconds is None:
            return None
        return replies.busy(seconds) if request.path in self.device_paths else replies.too_many(seconds)


def manager_of(manager: SessionManager | None, settings: Keywords) -> SessionManager:
    """Return the manager that an application gave, or one of the settings that it gave; ConfigError for both."""
    if manager is None:
        return SessionManager(**settings)
    if settings:
        message = f"give the manager or settings, not both (found {', '.join(sorted(settings))})"
        raise ConfigError(message)
    return manager


def _devices_of(settings: Settings, realm: str, entropy: Entropy) -> Devices | None:
    return Devices(settings.cookie, realm, entropy) if settings.new_devices == "tell" else None


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
