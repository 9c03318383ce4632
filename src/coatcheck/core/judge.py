"""Which session a presented token opens: its class, its clocks and policies, and what follows from each.

The classes and the answers to them stand in docs/why/token.md; the order of tests here is theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec.structs import replace

from . import codec, facts, policies, records, tokens, typed
from .clients import Clients
from .detectors import Sight, inspected
from .errors import DataError, StoreError
from .model import MOVED, End, Event, Held, Instant, Level, Record, Reply, Request, Signal, Ticket, Touch, Update
from .sealed import Sealer
from .secrecy import Secrecy
from .settings import Settings
from .tokens import TokenClass
from .visit import Visit, carried

if TYPE_CHECKING:
    from .binder import Binder

_MOST_NOTED = 4096
_ANSWERS = {
    policies.Action.KEEP: "note",
    policies.Action.RENEW: "renew",
    policies.Action.STEP_UP: "step_up",
    policies.Action.END: "end",
}

_GARBAGE, _ENDED, _CURRENT = TokenClass.GARBAGE, TokenClass.ENDED, tokens.CURRENT
_STRAGGLER, _STALE = TokenClass.STRAGGLER, TokenClass.STALE


class Judge:
    """The rules for what is presented; what they decide is left in the visit."""

    def __init__(
        self,
        settings: Settings,
        realm: str,
        *,
        sealer: Sealer | None,
        secrecy: Secrecy,
        clients: Clients,
        heard: Callable[[str, Request], None],
        stopped: Callable[[Request], Reply | None],
    ) -> None:
        """Take the settings, what opens sealed and secret data, and where noise is counted."""
        self.binder: Binder | None = None
        self.noted: OrderedDict[bytes, None] = OrderedDict()
        self._settings, self._clocks = settings, settings.clocks
        self._realm, self._realm_bytes = realm, realm.encode()
        self._sealer, self._secrecy = sealer, secrecy
        self._alone = sealer is not None and sealer.alone
        self._clients, self._heard, self._stopped = clients, heard, stopped
        self._grace = self._clocks.grace
        self._passive = frozenset(settings.passive)
        self._quiet = self._clocks.touch_every * 0.75
        self._plain = settings.data is None and not settings.policies and not settings.detectors
        self._detectors = tuple(settings.detectors)
        self._tenants: Mapping[str, Instant] = {}

    def learn(self, tenants: Mapping[str, Instant]) -> None:
        """Take note of the moments before which nothing of a tenant counts; they never go back.

        Nor do they go where the store has one no more: it forgot it after its time, or lost it in a failover.
        """
        known = self._tenants
        if not tenants.items() <= known.items():
            self._tenants = {**known, **{name: max(at, known.get(name, at)) for name, at in tenants.items()}}

    def judge(self, visit: Visit, ticket: Ticket, record: Record | None, floor: Instant) -> None:
        """Leave in the visit what a ticket is worth, given the record under its handle; see `SessionManager.open`."""
        if record is None:
            return self._by_its_seal(visit, ticket, floor)
        if record.handle != ticket.handle:
            message = f"the store answered {ticket.handle!r} with another record"
            raise StoreError(message)
        now = visit.arrived
        standing, proof = tokens.judge(self._realm_bytes, record, ticket, now, self._grace)
        if standing is _GARBAGE:
            return None if visit.copied else self._guessed(visit, "session_garbage_token")
        visit.presented, visit.presented_as = record, standing
        if record.handed_at > now + tokens.SKEW:  # a clock went back: refuse, but end nothing by it (TMO-13)
            return self.once(visit, facts.about("session_from_the_future", record, now, None), 3600.0)
        if standing is _ENDED:
            return self._ended(visit, record)
        idle = record.idle_for
        in_time = now < record.expires_at and (idle is None or now < record.seen_at + idle)
        if record.tenant is not None and self._tenants:
            floor = max(floor, self._tenants.get(record.tenant, 0.0))
        counts = not floor or (record.authenticated_at or record.created_at) >= floor
        if not (in_time and counts and self._plain) and standing is not _STALE:
            why = self.over(record, now, floor)
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
        if self.binder is not None and record.subject is not None and not self._admitted(visit, record, self.binder):
            return None
        return self._believe(visit, ticket, record, standing, proof)

    def _guessed(self, visit: Visit, kind: str) -> None:
        """Count a token that opens nothing; in a flood of them it is answered in the handler's place."""
        self._heard(kind, visit.request)
        visit.answer = self._stopped(visit.request)

    def _by_its_seal(self, visit: Visit, ticket: Ticket, floor: Instant) -> None:
        """Judge a ticket without a record: it counts only where its seal alone may vouch for it."""
        held = ticket.held
        if held is None or not (self._alone or visit.reads_only):
            return self._guessed(visit, "session_unknown_token")
        now = visit.arrived
        visit.presented = record = records.held(self._realm, ticket, held, self._seen_at(visit, ticket, held))
        visit.presented_as = _CURRENT
        if record.handed_at > now + tokens.SKEW:
            return self.once(visit, facts.about("session_from_the_future", record, now, None), 3600.0)
        why = self.over(record, now, floor)
        if why is not None:
            return self._end(visit, record, why)
        return self._believe(visit, ticket, record, _CURRENT, b"")

    def _seen_at(self, visit: Visit, ticket: Ticket, held: Held) -> Instant:
        """Return when the bearer was last seen; the small cookie is looked at only where it could matter."""
        if self._sealer is None or visit.arrived - held.seen_at < self._quiet:
            return held.seen_at
        return self._sealer.seen_at(ticket, visit.request.header(b"cookie"))

    def over(self, record: Record, now: Instant, floor: Instant) -> str | None:
        """Return why a record is over at a moment, by its clocks, its policies or an epoch; None: it lives."""
        why = policies.over(record, self._settings.policies, now)
        if record.tenant is not None and self._tenants:
            floor = max(floor, self._tenants.get(record.tenant, 0.0))
        if why is None and (record.authenticated_at or record.created_at) < floor:
            return "epoch"
        return why

    def _believe(self, visit: Visit, ticket: Ticket, record: Record, standing: TokenClass, proof: bytes) -> None:
        now, held = visit.arrived, ticket.held
        try:
            base = self._secrecy.read(ticket, record.data) if held is None else held.data
            data = codec.decode(base)
            if not self._plain and self._settings.data is not None:
                typed.to_type(data, self._settings.data)
        except (codec.UnknownVersion, DataError) as error:
            return self.once(visit, facts.about("session_unreadable", record, now, None, why=str(error)), 3600.0)
        if not self._plain and (self._settings.policies or self._detectors):
            verdict = self._weighed(visit, record)
            if verdict.action is policies.Action.END:
                return self._end(visit, record, verdict.because or "policy")
        if record.suspected_at is not None:  # an old token of it was presented: who is this?
            visit.step_up = True
        visit.ticket, visit.standing = ticket, standing
        visit.base, visit.data = base, data
        if record.persistent and records.lapsed(record, self._clocks, now):
            record = self._remembered(visit, ticket, record)
        elif held is not None and record.level < held.level:
            self._cut(visit)  # it was lowered before, but the answer that said so brought no cookie
        if record.used_at is None and standing is _CURRENT:
            record = self._first_seen(visit, record, proof)
        if visit.confirmed is not None and not visit.urgent:  # if something else must be stored first: the next time
            record = replace(record, binding=visit.confirmed)
            visit.urgent = (Update(record=record, was=record.version),)
            record = replace(record, version=record.version + 1)
        visit.record = record
        visit.level = record.level
        return None

    def _first_seen(self, visit: Visit, record: Record, proof: bytes) -> Record:
        """Have the first sight of a turn stored: activity as well, but not where a path is passive (TMO-12)."""
        now, stored = visit.arrived, visit.presented or record
        seen_at = record.seen_at if visit.request.path in self._passive else now
        if seen_at == now:
            visit.urgent = (Touch(handle=record.handle, seen_at=now, turn_proof=proof),)
        else:
            visit.urgent = (Update(record=replace(stored, used_at=now, nonce=None), was=stored.version),)
        return replace(record, used_at=now, nonce=None, seen_at=seen_at, version=record.version + 1)

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
        seen_at = record.seen_at if visit.request.path in self._passive else visit.arrived
        lower = replace(record, level=int(Level.REMEMBERED), data=data, seen_at=seen_at)
        if visit.standing == TokenClass.CURRENT and record.used_at is None:
            lower = replace(lower, used_at=visit.arrived, nonce=None)
        visit.urgent = (Update(record=lower, was=record.version),)
        visit.urgent_required = True
        return replace(lower, version=record.version + 1)

    def _cut(self, visit: Visit) -> None:
        """Cut the data to what may move on, as in a login; a sealed cookie must be told."""
        visit.data = carried(visit.data, self._settings.carry)
        visit.base = codec.encode(visit.data)
        if self._sealer is not None:
            visit.asked = visit.reseal = True

    def _kept(self, ticket: Ticket, data: bytes) -> bytes:
        """Return what of the data the store keeps."""
        return self._secrecy.kept(ticket, data) if self._sealer is None else b""

    def verdict(self, record: Record, now: Instant, signals: tuple[Signal, ...] = ()) -> policies.Verdict:
        """Return the strictest word of the application's policies."""
        verdicts = (policy.judge(record, signals, now) for policy in self._settings.policies)
        return max(verdicts, key=lambda verdict: (verdict.action, verdict.everything), default=policies.KEEP)

    def _weighed(self, visit: Visit, record: Record) -> policies.Verdict:
        """Ask the detectors what is strange about a request, and the policies what follows; leave it in the visit."""
        now, request = visit.arrived, visit.request
        client = None
        if self._detectors and record.subject is not None:
            client = self._clients.of(request)
            registers = self.binder is not None and self.binder.registers(request)
            visit.signals = inspected(self._detectors, record, Sight(request, client, registers), now)
        verdict = self.verdict(record, now, visit.signals)
        visit.step_up = verdict.action is policies.Action.STEP_UP
        visit.doubted = visit.step_up and verdict.everything
        visit.due = verdict.action is policies.Action.RENEW
        if client is None or not visit.signals:
            return verdict
        if visit.due:  # an answer that is later than a whole renewal must not find two of them (docs/why/token.md)
            visit.due = record.used_at is not None and now >= record.used_at + 4 * self._grace
            visit.moved = client
        answer = _ANSWERS[verdict.action]
        self.once(visit, facts.context_changed(record, now, client, visit.signals, answer), 3600.0)
        return verdict

    def _end(self, visit: Visit, record: Record, why: str) -> None:
        visit.ended_because = why
        by_clock = visit.arrived >= record.deadline
        event = facts.about("session_expired", record, visit.arrived, self._clients.of(visit.request), reason=why)
        ending = End(
            handle=record.handle, because=why, if_seen_at=record.seen_at if by_clock else None, events=(event,)
        )
        visit.urgent, visit.urgent_required = (ending,), True

    def _ended(self, visit: Visit, record: Record) -> None:
        if record.ended_because == MOVED:  # it lives on there; only a worker that was forgotten comes here
            message = f"session {record.handle!r} was moved to another store; open that one, or both by a moving+ URL"
            raise StoreError(message)
        visit.ended_because = record.ended_because
        event = facts.used_after_end(record, visit.arrived, self._clients.of(visit.request))
        self.once(visit, event, 3600.0)

    def _slept(self, visit: Visit, record: Record) -> None:
        """Refuse a copy of a sealed cookie that lay unused for the idle timeout, though its session lives (D52)."""
        visit.ended_because = "idle"
        client = self._clients.of(visit.request)
        event = facts.about("session_use_after_expire", record, visit.arrived, client, because="idle", kind="copy")
        self.once(visit, event, 3600.0)

    def _replayed(self, visit: Visit, record: Record, standing: TokenClass) -> None:
        kind = standing.name.lower() if self._sealer is None else "older"
        event = facts.reuse(record, visit.arrived, self._clients.of(visit.request), kind)
        # an older sealed token is what a browser holds whose answers came in another order: no evidence of theft
        if standing is TokenClass.STRAGGLER or self._sealer is not None:
            return self.once(visit, event, 60.0)
        if self._settings.on_theft == "note":  # refuse who presents it, keep the holder, and ask the holder again
            if record.suspected_at is None:
                asked = replace(record, suspected_at=visit.arrived)
                visit.urgent = (Update(record=asked, was=record.version),)
            return self.once(visit, event, 60.0)
        visit.ended_because = "theft"
        event = replace(event, detail={**event.detail, "ended": True})
        visit.urgent = (End(handle=record.handle, because="theft", events=(event,)),)
        visit.urgent_required = True
        return None

    def once(self, visit: Visit, event: Event, period: float) -> None:
        """Note a fact once per session, kind and period: the commit id is the same for all who see it."""
        window = int(event.at // period)
        kind = event.detail.get("kind", "")
        commit_id = sha256(f"{event.name}\0{event.handle}\0{kind}\0{window}".encode()).digest()[:16]
        if commit_id in self.noted:
            return
        if visit.copied:
            visit.owes = True
            return
        if len(self.noted) >= _MOST_NOTED:
            self.noted.popitem(last=False)  # one step: threads share this
        self.noted[commit_id] = None
        visit.notes = (*visit.notes, (commit_id, event))
