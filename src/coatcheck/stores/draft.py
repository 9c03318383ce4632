"""A commit as a draft: what a store must read first, and what it has to write afterwards.

For stores that are asked over a network. `wanted` names the rows; the store reads (and locks, or later compares) them;
`Draft.apply` decides with the ledger, in memory; the store writes what the draft then holds, all of it or nothing.
If the decision leads to a row that nobody read (the successor of a replaced session), `Need` names it: the store reads
it too and drafts anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from ..core import ledger
from ..core.model import (
    Change,
    Conflict,
    End,
    EndOthers,
    Event,
    Handle,
    Insert,
    Instant,
    Record,
    Replace,
    Touch,
    Update,
)

Subject: TypeAlias = tuple[str, str]
"""Realm and subject: subjects of different realms are different people."""


class Wanted(msgspec.Struct, frozen=True):
    """What a commit looks at: records, subjects whose row must be locked, and subjects with all they have."""

    handles: tuple[Handle, ...]
    subjects: tuple[Subject, ...]
    members: frozenset[Subject]


class Found(msgspec.Struct):
    """What the store read: records (None: there is none), epochs, and the handles that have not ended of a subject.

    Every handle in `members` is a key of `records`.
    """

    records: dict[Handle, Record | None]
    epochs: dict[Subject, Instant | None]
    members: dict[Subject, tuple[Handle, ...]]


class Need(Exception):  # noqa: N818 - a question, not a fault
    """The decision depends on a record that was not read."""

    def __init__(self, handle: Handle) -> None:
        """Name it."""
        super().__init__(handle)
        self.handle: Final = handle


def wanted(changes: Iterable[Change]) -> Wanted:
    """Return what has to be read before a commit of these changes can be decided; handles and subjects in order."""
    handles: set[Handle] = set()
    subjects: set[Subject] = set()
    members: set[Subject] = set()
    for change in changes:
        if isinstance(change, (Insert, Replace)):
            record = change.record
            handles.add(record.handle)
            if isinstance(change, Replace):
                handles.add(change.old)
            if record.subject is not None:
                subjects.add((record.realm, record.subject))
                if change.limit is not None:
                    members.add((record.realm, record.subject))
        elif isinstance(change, Update):
            handles.add(change.record.handle)
        elif isinstance(change, (Touch, End)):
            handles.add(change.handle)
        elif isinstance(change, EndOthers):
            subjects.add((change.realm, change.subject))
            members.add((change.realm, change.subject))
    return Wanted(tuple(sorted(handles)), tuple(sorted(subjects)), frozenset(members))


class Draft:
    """The table of one commit, in memory; afterwards it holds what is to be written."""

    def __init__(self, found: Found, commit_id: bytes) -> None:
        """Begin with what is stored."""
        self._found, self._commit_id = found, commit_id
        self.added: dict[Handle, Record] = {}
        self.changed: dict[Handle, Record] = {}
        self.epochs: dict[Subject, Instant] = {}
        self.scopes: dict[str, Instant] = {}
        self.events: list[tuple[Event, int | None]] = []

    def apply(self, changes: Sequence[Change], now: Instant) -> Conflict | None:
        """Decide by the ledger; return the conflict of the primary change (then nothing is to be written).

        Raises Need for a record that was not read.
        """
        return ledger.apply(self, self._commit_id, changes, now)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.added or self.changed or self.epochs or self.scopes or self.events)

    # The table (see ledger.Table).

    def get(self, handle: Handle) -> Record | None:
        """Return a record as it is now in the draft."""
        record = self.changed.get(handle) or self.added.get(handle)
        if record is not None:
            return record
        try:
            return self._found.records[handle]
        except KeyError:
            raise Need(handle) from None

    def add(self, record: Record) -> None:
        """Keep a new record."""
        self.added[record.handle] = record

    def put(self, record: Record) -> None:
        """Keep a record in place of the one with its handle."""
        place = self.added if record.handle in self.added else self.changed
        place[record.handle] = record

    def swap(self, change: Update, commit_id: bytes, now: Instant) -> bool:
        """Leave the decision to the ledger: there is no shorter way in a draft."""
        return False

    def touch(self, change: Touch, now: Instant) -> bool:
        """Note activity; tell whether that changed the record."""
        stored = self.get(change.handle)
        if stored is None:
            return False
        record = ledger.touched(stored, change, now)
        if record is stored:
            return False
        self.put(record)
        return True

    def unended(self, realm: str, subject: str) -> list[Record]:
        """Return the records of a subject that have not ended, in the order of their handles."""
        stored = (self.get(handle) for handle in self._found.members[realm, subject] if handle not in self.added)
        mine = [record for record in stored if record is not None]
        mine += (record for record in self.added.values() if (record.realm, record.subject) == (realm, subject))
        return sorted((record for record in mine if record.ended_at is None), key=lambda record: record.handle)

    def epoch(self, realm: str, subject: str) -> Instant | None:
        """Return a subject's epoch."""
        stored, raised = self._found.epochs[realm, subject], self.epochs.get((realm, subject))
        return stored if raised is None else raised if stored is None else max(stored, raised)

    def raise_epoch(self, realm: str, subject: str, at: Instant) -> None:
        """Raise a subject's epoch; the write must keep the greater one."""
        self.epochs[realm, subject] = max(at, self.epochs.get((realm, subject), at))

    def raise_scope(self, scope: str, at: Instant) -> None:
        """Raise the epoch of a scope; the write must keep the greater one."""
        self.scopes[scope] = max(at, self.scopes.get(scope, at))

    def note(self, event: Event, position: int | None) -> None:
        """Keep an event; one with a position is to be written at most once per commit id."""
        self.events.append((event, position))
