"""What a commit writes in one shard: the plan that the script WRITE checks and carries out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ...core.model import Change, Event, Handle, Instant, Record
from ..draft import Draft, Found, Subject
from ..keeping import FACTS_KEPT, NOISE_KEPT
from . import format, scripts  # noqa: A004 - the record's
from .keys import EPOCH, Keys, Tag
from .steps import Command, number

MOST_SESSIONS: Final = 1000
"""How many live sessions a subject may have, whatever the limit says; the longest authenticated are ended for more."""

EPOCH_KEPT: Final = 400 * 86400.0
"""Seconds. No cookie lives longer than 400 days, so no session does that a subject's epoch could have to refuse."""

_LONGEST: Final = 1e14


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the verbs of one store need to know."""

    keys: Keys
    clock: Any = None
    tombstone: float
    replicas: int = 0
    patience: float = 0.5
    """Seconds that replicas get to confirm a durable commit."""
    epoch_kept: float = EPOCH_KEPT

    @property
    def wound(self) -> str:
        """The time as scripts are told it: empty, they look at the server's clock."""
        return "" if self.clock is None else number(self.clock())

    def now(self, answer: Sequence[bytes]) -> Instant:
        """Return the time of the server's answer to TIME, or of the clock in its place."""
        return float(self.clock()) if self.clock is not None else int(answer[0]) + int(answer[1]) / 1e6

    def due_at(self, record: Record) -> Instant:
        """Return when a purge has to look at a record."""
        return record.deadline if record.ended_at is None else record.ended_at + self.tombstone


class Seen(msgspec.Struct):
    """What was read for the changes of one shard."""

    now: Instant
    found: Found
    stamps: dict[Subject, bytes] = {}
    indexed: dict[Subject, tuple[Handle, ...]] = {}
    stale: dict[Subject, list[Handle]] = {}
    changes: Sequence[Change] = ()


class Plan:
    """What WRITE is to check and to write; keys are numbered as it must be told them."""

    def __init__(self, settings: Settings, tag: Tag, seen: Seen | None = None, draft: Draft | None = None) -> None:
        """Begin with nothing, or with everything that a draft holds."""
        self._set, self._tag, self._keys = settings, tag, settings.keys
        self._numbers: dict[str, int] = {}
        self._records: list[tuple[int, bytes]] = []
        self._stamps: list[tuple[int, bytes]] = []
        self._marks: list[tuple[int, str]] = []
        self._acts: list[tuple[Any, ...]] = []
        self._extend: dict[int, float] = {}
        self._raise: list[tuple[int, str, str]] = []
        self._events: list[tuple[int, str, bytes, int]] = []
        self._changed: list[Handle] = []
        if seen is not None and draft is not None:
            self._draft(seen, draft)

    def command(self) -> Command:
        """Return the plan as a command."""
        given: list[Any] = []
        acts = [(len(act), *act) for act in self._acts]
        extend = [(key, _milliseconds(seconds)) for key, seconds in self._extend.items()]
        changed = [(handle,) for handle in self._changed]
        for rows in (self._records, self._stamps, self._marks, acts, self._raise, self._events, extend, changed):
            given.append(len(rows))
            for row in rows:
                given += row
        return ("EVALSHA", scripts.WRITE_SHA, len(self._numbers), *self._numbers, *given, self._keys.channel)

    def act(self, name: str, key: str, *arguments: Any) -> None:
        """Carry out a command on a key."""
        self._acts.append((name, self._number(key), *arguments))

    def mark(self, key: str, seconds: float) -> None:
        """Leave a mark; where it is already, numbered events are not written again."""
        self._marks.append((self._number(key), _milliseconds(seconds)))

    def expect(self, handle: Handle, record: Record | None) -> None:
        """Write only if a record is still what was read."""
        header = b"" if record is None else format.pack(record)[: format.HEADER]
        self._records.append((self._number(self._keys.record(handle)), header))

    def keep(self, record: Record, now: Instant, *, new: bool = False) -> None:
        """Keep a record, and the sets that lead to it."""
        keys, due = self._keys, number(self._set.due_at(record))
        lasts = (record.deadline if record.ended_at is None else record.ended_at) + self._set.tombstone - now
        self.act("SET", keys.record(record.handle), format.pack(record), "PX", _milliseconds(max(1.0, lasts)))
        # A sight of the session moves its own end only; the sets last as long as it can at all.
        longest = max(record.expires_at, record.ended_at or 0.0) + self._set.tombstone - now
        self._member(keys.of(self._tag, "d"), due, record.handle, longest)
        if record.subject is not None:
            self._index(record, due, longest, now)
        if not new:
            self._changed.append(record.handle)

    def note(self, event: Event, *, numbered: bool) -> None:
        """Write an event."""
        key = self._number(self._keys.of(self._tag, "n" if event.noise else "f"))
        self._events.append((key, number(event.at), format.pack_event(event), int(numbered)))
        self._last(key, NOISE_KEPT if event.noise else FACTS_KEPT)

    def stamp(self, subject: Subject, seconds: float) -> None:
        """Tell whoever read the sessions of a subject that they are others now."""
        key = self._keys.about(self._tag, "m", subject)
        self.act("HSET", key, "s", os.urandom(8))
        self._last(self._number(key), seconds)

    def _draft(self, seen: Seen, draft: Draft) -> None:
        records = seen.found.records
        for handle in {*draft.changed, *(records.keys() - _listed(seen))}:
            if self._keys.sound(handle):
                self.expect(handle, records[handle])
        for subject, stamp in seen.stamps.items():
            self._stamps.append((self._number(self._keys.about(self._tag, "m", subject)), stamp))
        for record in draft.added.values():
            self.keep(record, seen.now, new=True)
        for record in draft.changed.values():
            self.keep(record, seen.now)
        for subject, handles in seen.stale.items():
            self.act("ZREM", self._keys.about(self._tag, "l", subject), *handles)
        for subject, at in draft.epochs.items():
            self._raise.append((self._number(self._keys.about(self._tag, "m", subject)), "e", number(at)))
            self.stamp(subject, self._set.epoch_kept)
        for scope, at in draft.scopes.items():
            self._raise.append((self._number(self._keys.store), EPOCH + scope, number(at)))
        for event, position in draft.events:
            self.note(event, numbered=position is not None)

    def _index(self, record: Record, due: str, longest: float, now: Instant) -> None:
        subject = (record.realm, record.subject or "")
        live, over = (self._keys.about(self._tag, kind, subject) for kind in "le")
        if record.ended_at is None:
            self._member(live, due, record.handle, longest)
        else:
            self.act("ZREM", live, record.handle)
            self._member(over, due, record.handle, longest)
            self.act("ZREMRANGEBYSCORE", over, "-inf", f"({number(now)}")
            self.act("ZREMRANGEBYRANK", over, 0, -1 - MOST_SESSIONS)
        self.stamp(subject, longest)

    def _member(self, key: str, score: str, member: Handle, seconds: float) -> None:
        self.act("ZADD", key, score, member)
        self._last(self._number(key), seconds)

    def _last(self, key: int, seconds: float) -> None:
        self._extend[key] = max(seconds, self._extend.get(key, 1.0))

    def _number(self, key: str) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)


def _listed(seen: Seen) -> set[Handle]:
    """Return the records that were read as a subject's sessions: its stamp vouches for them."""
    return {handle for handles in seen.indexed.values() for handle in handles}


def _milliseconds(seconds: float) -> str:
    return str(int(min(_LONGEST, max(1.0, seconds * 1000))))
