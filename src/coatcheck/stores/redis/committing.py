"""A commit: read what it looks at, decide it by the ledger, and write all of it in one script, or read again.

Rules
- One Update or Touch alone is a script on one key. Where that does not apply, the long way finds out why.
- A commit that touches two shards is all or nothing in each: the end of somebody's session first (better logged out
  than in twice), then the primary change, then the rest, such as the end of the anonymous session that logged in.
- Each part may be repeated: the ledger knows what was applied; events of changes that it cannot know are held apart by
  a mark that carries the commit's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from ...core import ledger
from ...core.errors import StoreError, Unconfirmed
from ...core.model import (
    Change,
    Conflict,
    End,
    EndOthers,
    Event,
    Handle,
    Insert,
    Limit,
    Note,
    RaiseEpoch,
    Record,
    Replace,
    Touch,
    Update,
)
from ..draft import Draft, Found, Need, Subject, wanted
from . import format, scripts  # noqa: A004 - the record's
from .keys import COMMON, Tag
from .plan import MOST_SESSIONS, Plan, Seen, Settings
from .steps import Again, Ask, Command, Steps, asked, number

MARK_KEPT: Final = 60.0
NOTE_KEPT: Final = 2 * 3600.0
"""Seconds. A commit is tried again for a few; but a note that several processes write under one id (core/judge.py,
`once`) for an hour."""

_CHUNK: Final = 500


class Commit:
    """One commit, as often as it has to be tried; it knows what an attempt of unknown outcome may have written."""

    def __init__(
        self, settings: Settings, salt: bytes, commit_id: bytes, changes: Sequence[Change], durable: bool
    ) -> None:
        """Check the changes."""
        ledger.check(changes)
        self._set, self._salt, self._id, self._durable = settings, salt, commit_id, durable
        self._keys = settings.keys
        self._parts = self._split(changes)
        self._doubtful: dict[Tag, Sequence[Event]] = {}
        self.written: list[Event] = []
        """The events that were written so far, for the listeners; whatever becomes of the rest."""
        self.queue: Subject | None = next(iter(wanted(changes).subjects), None)
        """Commits about one subject queue behind each other: they would only make each other read again."""

    def steps(self) -> Steps[Conflict | None]:
        """Try once."""
        if len(self._parts) == 1:
            ((tag, changes),) = self._parts.items()
            quick = self._quick(changes[0]) if len(changes) == 1 else None
            if quick is not None:
                answers = yield from self._sent(tag, quick)
                if answers[0]:
                    self._confirm(answers)
                if answers[0] or isinstance(changes[0], Touch):
                    return None
            return (yield from self._whole(tag, changes))
        return (yield from self._apart())

    # The short ways.

    def _quick(self, change: Change) -> Command | None:
        """Return the script that applies a change alone, if there is one."""
        if change.events:
            return None
        if isinstance(change, Touch):
            return None if self._durable else self._touch(change)
        return self._update(change) if isinstance(change, Update) else None

    def _touch(self, change: Touch) -> Command | None:
        if not self._keys.sound(change.handle):
            return None
        turn = (b"0", b"") if change.turn_proof is None else (b"1", change.turn_proof)
        key, tombstone = self._keys.record(change.handle), number(self._set.tombstone)
        return ("EVALSHA", scripts.TOUCH_SHA, 1, key, self._set.wound, tombstone, number(change.seen_at), *turn)

    def _update(self, change: Update) -> Command | None:
        record = change.record
        odd = record.ended_at is not None or record.ended_because is not None or record.successor is not None
        if odd or not self._keys.sound(record.handle):
            return None
        value = format.pack(replace(record, by=self._id, version=0))
        settings, keys = self._set, self._keys
        given = (settings.wound, number(settings.tombstone), value, change.was, keys.channel, record.handle)
        return ("EVALSHA", scripts.UPDATE_SHA, 1, keys.record(record.handle), *given)

    # The long way.

    def _split(self, changes: Sequence[Change]) -> dict[Tag, list[Change]]:
        if not self._keys.sharded:
            return {COMMON: list(changes)}
        parts: dict[Tag, list[Change]] = {}
        for change in changes:
            for tag, part in self._placed(change):
                parts.setdefault(tag, []).append(part)
        return parts

    def _placed(self, change: Change) -> Iterable[tuple[Tag, Change]]:
        """Yield the change with the shard that it belongs to; notes go to those whom they are about."""
        keys = self._keys
        if isinstance(change, Note):
            for event in change.events:
                if event.handle is not None and keys.sound(event.handle):
                    yield keys.tag(event.handle), Note(events=(event,))
                elif event.subject is not None:
                    yield keys.tag_of(self._salt, (event.realm, event.subject)), Note(events=(event,))
                else:
                    yield COMMON, Note(events=(event,))
        elif isinstance(change, RaiseEpoch):
            yield COMMON, change
        elif isinstance(change, EndOthers):
            yield keys.tag_of(self._salt, (change.realm, change.subject)), change
        else:
            handle = change.handle if isinstance(change, (Touch, End)) else change.record.handle
            if isinstance(change, Replace) and keys.tag(change.old) != keys.tag(handle):
                message = (
                    f"session {handle!r} lies in another shard than {change.old!r}, which it replaces; mint it there"
                )
                raise StoreError(message)
            yield keys.tag(handle), change

    def _apart(self) -> Steps[Conflict | None]:
        """Apply the parts of a commit that touches several shards, each by itself."""
        ends = [change.handle for part in self._parts.values() for change in part if isinstance(change, End)]
        found = yield from self._records(handle for handle in ends if self._keys.sound(handle))
        owned = {handle for handle, record in found.items() if record is not None and record.subject is not None}
        for tag, changes in sorted(self._parts.items(), key=lambda part: _rank(part[1], owned)):
            conflict = yield from self._whole(tag, changes)
            if conflict is not None:
                return conflict
        return None

    def _whole(self, tag: Tag, changes: Sequence[Change]) -> Steps[Conflict | None]:
        """Apply the changes of one shard."""
        for change in changes:
            if isinstance(change, (Insert, Replace)):
                self._fit(change.record)
        seen = yield from self._read(tag, changes)
        draft, conflict = yield from self._decide(seen)
        if conflict is not None:
            return conflict
        if draft.empty:
            yield from self._again(tag)
            return None
        plan = Plan(self._set, tag, seen, draft)
        if any(isinstance(change, (EndOthers, RaiseEpoch, Note)) and change.events for change in changes):
            only_notes = all(isinstance(change, Note) for change in changes)
            plan.mark(self._keys.commit(tag, self._id), NOTE_KEPT if only_notes else MARK_KEPT)
        yield from self._write(tag, plan, draft.events)
        return None

    def _write(self, tag: Tag, plan: Plan, events: Sequence[tuple[Event, int | None]]) -> Steps[None]:
        """Carry out a plan, and book what it wrote; raise Again if something changed since it was made."""
        earlier, self._doubtful[tag] = self._doubtful.get(tag, ()), [event for event, _ in events]
        try:
            answers = yield from self._sent(tag, plan.command())
        except StoreError as error:
            if not error.unsure:
                self._doubtful[tag] = earlier
            raise
        self._doubtful[tag] = earlier
        if answers[0] == 0:
            message = "others kept changing what the commit is about; nothing was written; try again"
            raise Again(message)
        repeated = answers[0] == 2
        self.written += (event for event, position in events if position is None or not repeated)
        if repeated:
            self.written += self._doubtful.pop(tag)
        self._confirm(answers)

    def _decide(self, seen: Seen) -> Steps[tuple[Draft, Conflict | None]]:
        """Decide by the ledger; read what it asks for."""
        while True:
            draft = Draft(seen.found, self._id)
            try:
                return draft, draft.apply(seen.changes, seen.now)
            except Need as need:
                seen.found.records.update((yield from self._records([need.handle])))

    def _again(self, tag: Tag) -> Steps[None]:
        """There is nothing (left) to write: book what an answer that was lost would have told, and confirm it."""
        self.written += self._doubtful.pop(tag, ())
        if self._durable and self._set.replicas:
            # WAIT speaks of what its own connection wrote last, and that must come after what is to be confirmed.
            plan = Plan(self._set, tag)
            plan.act("SET", self._keys.of(tag, "w"), "1", "PX", "60000")
            self._confirm((yield from self._sent(tag, plan.command())))

    def _sent(self, tag: Tag, command: Command) -> Steps[list[Any]]:
        """Send a script, and the question whether replicas have what it wrote."""
        commands = [command]
        if self._durable and self._set.replicas:
            commands.append(("WAIT", self._set.replicas, int(self._set.patience * 1000)))
        (answers,) = yield from asked(Ask(tag, commands, decides=True))
        return answers

    def _confirm(self, answers: Sequence[Any]) -> None:
        """Raise Unconfirmed if the replicas were asked and too few have it."""
        if answers[1:] and answers[1] < self._set.replicas:
            message = (
                f"the commit is stored, but {answers[1]} of {self._set.replicas} replicas confirmed it within "
                f"{self._set.patience:g} s; look after the replicas, then try again"
            )
            raise Unconfirmed(message)

    def _fit(self, record: Record) -> None:
        if not self._keys.sound(record.handle):
            message = f"a handle is letters, digits, - and _ (found {record.handle!r}); mint another"
            raise StoreError(message)
        self._keys.check(self._salt, record)

    # Reading.

    def _read(self, tag: Tag, changes: Sequence[Change]) -> Steps[Seen]:
        keys, want = self._keys, wanted(changes)
        handles = [handle for handle in want.handles if keys.sound(handle)]
        commands: list[Command] = [("TIME",)]
        for subject in want.subjects:
            # the stamp first: whatever is read after it is at least as new
            commands.append(("HMGET", keys.about(tag, "m", subject), "s", "e"))
            commands.append(("ZRANGE", keys.about(tag, "l", subject), 0, -1))
        commands += [("GET", keys.record(handle)) for handle in handles]
        (answers,) = yield from asked(Ask(tag, commands))
        seen = Seen(now=self._set.now(answers[0]), found=Found({}, {}, {}))
        crowded: set[Subject] = set()
        for place, subject in enumerate(want.subjects):
            (stamp, epoch), members = answers[1 + 2 * place], answers[2 + 2 * place]
            seen.stamps[subject] = stamp or b""
            seen.found.epochs[subject] = None if epoch is None else float(epoch)
            seen.indexed[subject] = tuple(member.decode() for member in members)
            if len(members) >= MOST_SESSIONS:
                crowded.add(subject)
        at = 1 + 2 * len(want.subjects)
        seen.found.records = dict.fromkeys(want.handles)
        seen.found.records |= {
            handle: _unpacked(handle, value) for handle, value in zip(handles, answers[at:], strict=True)
        }
        seen.changes = [_capped(change, crowded) for change in changes]
        yield from self._members(seen, want.members | crowded)
        return seen

    def _members(self, seen: Seen, subjects: Iterable[Subject]) -> Steps[None]:
        """Read the sessions of subjects; those that are no more are left out, and removed by the commit."""
        records = seen.found.records
        missing = [one for subject in subjects for one in seen.indexed[subject] if one not in records]
        records.update((yield from self._records(missing)))
        for subject in subjects:
            live = []
            for handle in seen.indexed[subject]:
                record = records[handle]
                if record is None or record.ended_at is not None:
                    seen.stale.setdefault(subject, []).append(handle)
                else:
                    live.append(handle)
            seen.found.members[subject] = tuple(live)

    def _records(self, handles: Iterable[Handle]) -> Steps[dict[Handle, Record | None]]:
        """Read records, many in one trip; each by a command of its own, which a moving slot does not disturb."""
        waiting, records = list(handles), dict[Handle, Record | None]()
        while waiting:
            batch, waiting = waiting[:_CHUNK], waiting[_CHUNK:]
            by_tag: dict[Tag, list[Handle]] = {}
            for handle in batch:
                by_tag.setdefault(self._keys.tag(handle), []).append(handle)
            asks = [Ask(tag, [("GET", self._keys.record(one)) for one in mine]) for tag, mine in by_tag.items()]
            answers = yield from asked(*asks)
            for mine, values in zip(by_tag.values(), answers, strict=True):
                records.update({handle: _unpacked(handle, value) for handle, value in zip(mine, values, strict=True)})
        return records


def _rank(changes: Sequence[Change], owned: set[Handle]) -> int:
    """Return when the changes of a shard have their turn, if there are several shards."""
    if any(ledger.is_primary(change) for change in changes):
        return 1
    ends = any(
        isinstance(change, EndOthers) or (isinstance(change, End) and change.handle in owned) for change in changes
    )
    return 0 if ends else 2


def _capped(change: Change, crowded: set[Subject]) -> Change:
    """Return the change with the limit that holds for everybody, where somebody reached it."""
    if not isinstance(change, (Insert, Replace)) or (change.record.realm, change.record.subject) not in crowded:
        return change
    if change.limit is not None and change.limit.most <= MOST_SESSIONS:
        return change
    return replace(change, limit=Limit(MOST_SESSIONS, refuse=change.limit is not None and change.limit.refuse))


def _unpacked(handle: Handle, value: bytes | None) -> Record | None:
    return None if value is None else format.unpack(handle, value)
