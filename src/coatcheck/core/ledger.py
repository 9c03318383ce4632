"""The store contract as decisions on records: what a commit changes, what it refuses, and which events it earns.

Rules
- A store lends a `Table`: its rows, inside one transaction (or one lock). `apply` decides, the table only keeps.
- The primary change is decided before anything is written; after that nothing can be refused. So a table that
  cannot roll back (memory) is all or nothing too.
- `now` is the store's clock, never the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from msgspec.structs import replace

from .model import (
    Change,
    Client,
    Conflict,
    End,
    EndOthers,
    Event,
    Handle,
    Insert,
    Instant,
    Note,
    RaiseEpoch,
    Record,
    Replace,
    Touch,
    Update,
)

MAX_SKEW: Final = 2.0
"""How far ahead of the store's clock an activity may claim to be, in seconds."""

_Verdict: TypeAlias = Conflict | Literal["applied before"] | None

_ORDER: Final[dict[type, int]] = {
    Insert: 0,
    Update: 0,
    Replace: 0,
    End: 1,
    EndOthers: 2,
    RaiseEpoch: 2,
    Touch: 3,
    Note: 4,
}


class Table(Protocol):
    """The rows of a store, lent for one commit."""

    def get(self, handle: Handle) -> Record | None:
        """Return the stored record."""
        ...

    def add(self, record: Record) -> None:
        """Keep a record whose handle is not there yet."""
        ...

    def put(self, record: Record) -> None:
        """Keep a record in place of the one with its handle."""
        ...

    def swap(self, change: Update, commit_id: bytes, now: Instant) -> bool:
        """Apply an Update in one step if the table can; False means "not applied, look why"."""
        ...

    def touch(self, change: Touch, now: Instant) -> bool:
        """Apply a Touch and tell whether it changed the record."""
        ...

    def unended(self, realm: str, subject: str) -> Sequence[Record]:
        """Return the records of a subject that have not ended."""
        ...

    def epoch(self, realm: str, subject: str) -> Instant | None:
        """Return the instant before which logins of a subject no longer count."""
        ...

    def raise_epoch(self, realm: str, subject: str, at: Instant) -> None:
        """Move a subject's epoch forward, never back."""
        ...

    def raise_scope(self, scope: str, at: Instant) -> None:
        """Move the epoch of a realm or of everyone forward, never back."""
        ...

    def note(self, event: Event, position: int | None) -> None:
        """Write an event; one with a position at most once per commit id."""
        ...


def apply(table: Table, commit_id: bytes, changes: Sequence[Change], now: Instant) -> Conflict | None:
    """Apply the changes to the table, or return the conflict of the primary one and apply nothing."""
    if len(changes) == 1:
        return _first(_one(table, commit_id, changes[0], 0, now))
    for change, position in _ordered(changes):
        verdict = _one(table, commit_id, change, position, now)
        if verdict is not None:
            return _first(verdict)
    return None


def check(changes: Iterable[Change]) -> None:
    """Refuse a commit with two primary changes: no store could say which of them conflicted."""
    primaries = sum(_ORDER[type(change)] == 0 for change in changes)
    if primaries > 1:
        message = f"a commit holds {primaries} primary changes (Insert, Update, Replace); commit them one by one"
        raise ValueError(message)


def is_primary(change: Change) -> bool:
    """Tell whether a change is one that can conflict."""
    return _ORDER[type(change)] == 0


def _ordered(changes: Sequence[Change]) -> list[tuple[Change, int]]:
    """Return the changes in the order of the contract, each with the position of its first event."""
    check(changes)
    found: list[tuple[Change, int]] = []
    position = 0
    for change in changes:
        found.append((change, position))
        position += len(change.events)
    return sorted(found, key=lambda pair: _ORDER[type(pair[0])])


def _first(verdict: _Verdict) -> Conflict | None:
    return verdict if isinstance(verdict, Conflict) else None


def _one(table: Table, commit_id: bytes, change: Change, position: int, now: Instant) -> _Verdict:
    """Apply one change and, if it took effect, write its events."""
    verdict: _Verdict = None
    took = True
    if isinstance(change, Update):
        verdict = _update(table, change, commit_id, now)
    elif isinstance(change, Touch):
        took = table.touch(change, now)
    elif isinstance(change, Insert):
        verdict = _insert(table, change, commit_id, now)
    elif isinstance(change, Replace):
        verdict = _replace(table, change, commit_id, now)
    elif isinstance(change, End):
        took = _end(table, change, now)
    elif isinstance(change, EndOthers):
        _end_others(table, change, now)
    elif isinstance(change, RaiseEpoch):
        table.raise_scope(change.scope, now if change.before is None else change.before)
    if change.events and took and verdict is None:
        for number, event in enumerate(change.events, position):
            table.note(event, number)
    return verdict


# The primary changes.


def _insert(table: Table, change: Insert, commit_id: bytes, now: Instant) -> _Verdict:
    record = change.record
    present = table.get(record.handle)
    if present is not None:
        if present.ended_at is not None:
            return Conflict(present, "ended")
        return "applied before" if present.family_proof == record.family_proof else Conflict(present, "exists")
    epoch = None if record.subject is None else table.epoch(record.realm, record.subject)
    if epoch is not None and epoch > authenticated(record):
        return Conflict(None, "epoch")
    return _admit(table, change, (), None, commit_id, now)


def _update(table: Table, change: Update, commit_id: bytes, now: Instant) -> _Verdict:
    if table.swap(change, commit_id, now):
        return None
    stored = table.get(change.record.handle)
    if stored is None:
        return Conflict(None, "gone")
    if stored.by == commit_id:
        return "applied before"
    if stored.ended_at is not None:
        return Conflict(stored, "ended")
    if not _same_owner(stored, change.record):
        return Conflict(stored, "subject")
    if stored.version != change.was:
        return Conflict(stored, "version")
    table.put(updated(stored, change.record, commit_id, now))
    return None


def _replace(table: Table, change: Replace, commit_id: bytes, now: Instant) -> _Verdict:
    record, old = change.record, table.get(change.old)
    if old is None:
        return Conflict(None, "gone")
    if old.successor == record.handle:
        return "applied before"
    if not _same_owner(old, record):
        return Conflict(old, "subject")
    lost = _unseen_successor(table, old)
    if old.ended_at is not None and lost is None:
        return Conflict(old, "ended")
    if old.ended_at is None and old.version != change.was:
        return Conflict(old, "version")
    if table.get(record.handle) is not None:
        return Conflict(old, "exists")
    if _too_old(table, record, lost or old):
        return Conflict(old, "epoch")
    leaving = [old] if lost is None else [old, lost]
    return _admit(table, change, leaving, old, commit_id, now)


def _admit(
    table: Table,
    change: Insert | Replace,
    leaving: Sequence[Record],
    conflicting: Record | None,
    commit_id: bytes,
    now: Instant,
) -> _Verdict:
    """Keep a new record, end those that leave for it and those that are one too many."""
    record, limit = change.record, change.limit
    excess: Sequence[Record] = ()
    if limit is not None and record.subject is not None:
        others = _others(table, record.realm, record.subject, leaving, now)
        if limit.refuse and len(others) >= limit.most:
            return Conflict(conflicting, "limit")
        excess = others[: max(0, len(others) + 1 - limit.most)]
    for gone in leaving:
        table.put(_succeeded(gone, record.handle, now))
    for one in excess:
        table.put(ended(one, "limit", now))
        table.note(evicted(one, limit.most if limit is not None else 0, change, now), None)
    table.add(replace(record, version=1, by=commit_id))
    return None


def _others(table: Table, realm: str, subject: str, leaving: Sequence[Record], now: Instant) -> list[Record]:
    """Return the subject's other live records, the longest authenticated first."""
    left = {one.handle for one in leaving}
    others = [one for one in table.unended(realm, subject) if one.handle not in left and now < one.deadline]
    return sorted(others, key=lambda one: (authenticated(one), one.handle))


def evicted(record: Record, most: int, change: Insert | Replace, now: Instant) -> Event:
    """Return the fact that a session ended for one too many, and from where that came: it may be a phisher's (L5)."""
    newcomer = change.record
    known = record.seen_from or record.client or Client()
    where = {"known_address": known.address, "known_agent": known.agent}
    detail: dict[str, object] = {"because": "limit", "most": most, "by": newcomer.handle, **where}
    trace = change.events[0].trace if change.events else None
    return replace(_event("excess_sessions_exceeded", record, now, detail), client=newcomer.client, trace=trace)


def _unseen_successor(table: Table, old: Record) -> Record | None:
    """Return the live successor of a replaced record, if nobody ever presented it: its answer was lost."""
    if old.ended_because != "replaced" or old.successor is None:
        return None
    successor = table.get(old.successor)
    if successor is None or successor.ended_at is not None:
        return None
    unseen = successor.used_at is None and successor.former_proof is None and successor.version == 1
    return successor if unseen else None


def _too_old(table: Table, record: Record, old: Record) -> bool:
    """Tell whether the subject's epoch forbids a successor.

    A record that is still live was spared by every epoch so far (kept on purpose, or authenticated later); a successor
    that claims no earlier authentication stands on it.
    """
    if record.subject is None or authenticated(record) >= authenticated(old):
        return False
    epoch = table.epoch(record.realm, record.subject)
    return epoch is not None and epoch > authenticated(record)


def _same_owner(one: Record, other: Record) -> bool:
    return one.subject == other.subject and one.realm == other.realm


# The other changes.


def _end(table: Table, change: End, now: Instant) -> bool:
    record = table.get(change.handle)
    if change.if_seen_at is None:
        record = _live_end(table, record)
    if record is None or record.ended_at is not None:
        return False
    if change.if_seen_at is not None and not (record.seen_at == change.if_seen_at and now >= record.deadline):
        return False
    table.put(ended(record, change.because, now))
    return True


def _live_end(table: Table, record: Record | None) -> Record | None:
    """Follow the successors of a replaced record to the one that lives on."""
    met: set[Handle] = set()
    while record is not None and record.ended_because == "replaced" and record.successor and record.handle not in met:
        met.add(record.handle)
        record = table.get(record.successor)
    return record


def _end_others(table: Table, change: EndOthers, now: Instant) -> None:
    table.raise_epoch(change.realm, change.subject, now if change.before is None else change.before)
    for record in _condemned(table.unended(change.realm, change.subject), change.keep, change.before):
        table.put(ended(record, change.because, now))
        event = _event("session_revoked", record, now, {"because": change.because})
        table.note(replace(event, trace=change.trace), None)


def _condemned(records: Iterable[Record], keep: Collection[Handle], before: Instant | None) -> list[Record]:
    return [one for one in records if one.handle not in keep and (before is None or authenticated(one) < before)]


# What becomes of a record.


def authenticated(record: Record) -> Instant:
    """Return when its subject authenticated; a record that does not say counts from its beginning."""
    return record.created_at if record.authenticated_at is None else record.authenticated_at


def updated(stored: Record, record: Record, commit_id: bytes, now: Instant) -> Record:
    """Return the record after an Update: all is replaced but what only grows, and what tells who it is."""
    used_at, nonce = record.used_at, record.nonce
    if stored.used_at is not None and stored.turn_proof == record.turn_proof:
        used_at, nonce = min(stored.used_at, stored.used_at if used_at is None else used_at), None
    return replace(
        record,
        created_at=stored.created_at,
        seen_at=max(stored.seen_at, min(record.seen_at, now + MAX_SKEW)),
        used_at=used_at,
        nonce=nonce,
        ended_at=None,
        ended_because=None,
        successor=None,
        version=stored.version + 1,
        by=commit_id,
    )


def touched(stored: Record, change: Touch, now: Instant) -> Record:
    """Return the record after a Touch; the same object if it changes nothing."""
    seen = min(change.seen_at, now + MAX_SKEW)
    if stored.ended_at is not None:
        return stored
    if change.turn_proof is not None and change.turn_proof == stored.turn_proof and stored.used_at is None:
        return replace(stored, seen_at=max(stored.seen_at, seen), used_at=seen, nonce=None, version=stored.version + 1)
    return replace(stored, seen_at=seen) if seen > stored.seen_at else stored


def ended(record: Record, because: str, now: Instant) -> Record:
    """Return the tombstone of a record: who it was and why it ended, but no secret that opens, and no data."""
    return replace(
        record,
        turn_proof=None,
        former_proof=None,
        nonce=None,
        data=b"",
        ended_at=now,
        ended_because=because,
        version=record.version + 1,
    )


def expired(record: Record, now: Instant) -> tuple[Record, Event] | None:
    """Return the tombstone of a record past its deadline, and the event that says so; None if it is not past it."""
    if record.ended_at is not None or now < record.deadline:
        return None
    reason = "absolute" if record.deadline == record.expires_at else "idle"
    return ended(record, reason, now), _event("session_expired", record, now, {"reason": reason})


def _succeeded(record: Record, successor: Handle, now: Instant) -> Record:
    if record.ended_at is not None:
        return replace(record, successor=successor, version=record.version + 1)
    return replace(ended(record, "replaced", now), successor=successor)


def _event(name: str, record: Record, now: Instant, detail: dict[str, object]) -> Event:
    return Event(name=name, at=now, realm=record.realm, handle=record.handle, subject=record.subject, detail=detail)
