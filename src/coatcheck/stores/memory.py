"""The memory store: sessions in one process, for tests, demos and single workers; a restart forgets them.

Rules
- One lock around every commit; a load is one dict look-up and takes none, since records are frozen.
- Bounded: when `most` records are kept, those that are over go first, then the anonymous least recently seen.
- Who watches is told by the thread that commits, before its commit returns.
- Each process has its own; two workers that must agree need another store.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush, merge, nsmallest
from itertools import islice
from typing import Final

from ..core import epochs, ledger
from ..core.errors import NotApplied
from ..core.model import (
    Change,
    Conflict,
    Epochs,
    Event,
    EventPage,
    EventQuery,
    Handle,
    Insert,
    Instant,
    Query,
    Record,
    RecordPage,
    Replace,
    Touch,
    Update,
)
from ..core.paging import EventsFrom, RecordsFrom, cursor_of, events_from, records_from

WEEK: Final = 7 * 86400.0

_PURGE_EVERY: Final = 256
_PURGE_BATCH: Final = 64
_MOST_EVENTS: Final = 20_000


class MemoryStore:
    """Keeps at most `most` records in memory; safe in threads, gone with the process."""

    def __init__(self, most: int = 100_000, clock: Callable[[], Instant] = time.time, tombstone: float = WEEK) -> None:
        """Start empty. `tombstone` is how long an ended record can still say why it ended, in seconds."""
        self._shelf = _Shelf(most, clock, tombstone)
        self.listeners = self._shelf.listeners

    def as_async(self) -> AsyncMemoryStore:
        """Return the async face of the same records."""
        face = AsyncMemoryStore.__new__(AsyncMemoryStore)
        face._hold(self._shelf)  # noqa: SLF001 - the two faces are one store
        return face

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return self._shelf.records.get(handle)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none. `durable` means nothing here: memory keeps nothing through a crash."""
        return self._shelf.commit(commit_id, changes)

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._shelf.find(query)

    def purge(self, limit: int) -> int:
        """End at most `limit` overdue records, delete records past their tombstone; return how many."""
        return self._shelf.purged(limit)

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return self._shelf.epochs()

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._shelf.events(query)

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        return self._shelf.forget_events(before, limit, noise)

    def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice` with the handle of each record that changes but for its activity; return what ends that."""
        return self._shelf.watch(notice)

    def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return dict(self._shelf.keys)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return self._shelf.put_key(name, value, was)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class AsyncMemoryStore:
    """Keeps at most `most` records in memory; nothing here ever waits, so it suits every event loop."""

    def __init__(self, most: int = 100_000, clock: Callable[[], Instant] = time.time, tombstone: float = WEEK) -> None:
        """Start empty. `tombstone` is how long an ended record can still say why it ended, in seconds."""
        self._hold(_Shelf(most, clock, tombstone))

    def _hold(self, shelf: _Shelf) -> None:
        self._shelf, self.listeners = shelf, shelf.listeners

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return self._shelf.records.get(handle)

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none. `durable` means nothing here: memory keeps nothing through a crash."""
        return self._shelf.commit(commit_id, changes)

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._shelf.find(query)

    async def purge(self, limit: int) -> int:
        """End at most `limit` overdue records, delete records past their tombstone; return how many."""
        return self._shelf.purged(limit)

    async def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return self._shelf.epochs()

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._shelf.events(query)

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        return self._shelf.forget_events(before, limit, noise)

    async def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Call `notice` with the handle of each record that changes but for its activity; return what ends that."""
        return self._shelf.watch(notice)

    async def keys(self) -> dict[str, bytes]:
        """Return the wrapped keys, by name."""
        return dict(self._shelf.keys)

    async def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        return self._shelf.put_key(name, value, was)

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class _Shelf:
    """What both faces share: the records, their indexes, the events, and one lock."""

    def __init__(self, most: int, clock: Callable[[], Instant], tombstone: float) -> None:
        self.most, self.clock, self.tombstone = most, clock, tombstone
        self.lock = threading.Lock()
        self.records: dict[Handle, Record] = {}
        self.of_subject: dict[tuple[str, str], set[Handle]] = {}
        self.subjects: dict[tuple[str, str], Instant] = {}
        self.scopes: dict[str, Instant] = {}
        self.generation = secrets.token_hex(8)
        self.keys: dict[str, bytes] = {}
        self.due: list[tuple[Instant, Handle]] = []
        self.log = _Log()
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        self.watchers: tuple[Callable[[Handle | None], None], ...] = ()
        self.changed: list[Handle] = []
        self._commits = 0

    def commit(self, commit_id: bytes, changes: Sequence[Change]) -> Conflict | None:
        now = self.clock()
        with self.lock:
            self._commits += 1
            if self._commits % _PURGE_EVERY == 0:
                self.purge(_PURGE_BATCH)
            if len(self.records) >= self.most:
                self._make_room(changes)
            conflict = ledger.apply(_Rows(self, commit_id), commit_id, changes, now)
            written, changed = self.log.written(), self._changed()
        if written or changed:
            self._tell(written, changed)
        return conflict

    def purged(self, limit: int) -> int:
        with self.lock:
            done = self.purge(limit)
            written, changed = self.log.written(), self._changed()
        self._tell(written, changed)
        return done

    def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        with self.lock:
            self.watchers = (*self.watchers, notice)

        def stop() -> None:
            with self.lock:
                self.watchers = tuple(one for one in self.watchers if one is not notice)

        return stop

    def _changed(self) -> Sequence[Handle]:
        """Return the handles of the records that changed since the last call."""
        if not self.changed:
            return ()
        changed, self.changed = self.changed, []
        return changed

    def _tell(self, events: Sequence[Event], changed: Sequence[Handle]) -> None:
        for handle in changed:
            for notice in self.watchers:
                notice(handle)
        if events:
            for listener in self.listeners:
                listener(events)

    def find(self, query: Query) -> RecordPage:
        now = self.clock()
        start = None if query.cursor is None else records_from(query.cursor)
        with self.lock:
            found = [record for record in self._candidates(query) if _wanted(record, query, start, now)]
        page = nsmallest(query.limit + 1, found, key=lambda record: (record.created_at, record.handle))
        as_of = now if start is None else start.as_of
        cursor = None
        if len(page) > query.limit:
            last = page[query.limit - 1]
            cursor = cursor_of(RecordsFrom(as_of, last.created_at, last.handle))
        return RecordPage(tuple(page[: query.limit]), cursor, as_of)

    def _candidates(self, query: Query) -> Iterator[Record]:
        if query.handle is not None:
            handles = iter([query.handle])
        elif query.realm is not None and query.subject is not None:
            handles = iter(self.of_subject.get((query.realm, query.subject), ()))
        else:
            return iter(self.records.values())
        return (self.records[handle] for handle in handles if handle in self.records)

    def epochs(self) -> Epochs:
        with self.lock:
            return Epochs(self.clock(), dict(self.scopes), self.generation)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        with self.lock:
            if self.keys.get(name) != was:
                return False
            self.keys = {**self.keys, name: value}
            return True

    def events(self, query: EventQuery) -> EventPage:
        with self.lock:
            return self.log.page(query)

    def forget_events(self, before: Instant, limit: int, noise: bool) -> int:
        with self.lock:
            return self.log.forget(before, limit, noise)

    def purge(self, limit: int) -> int:
        """End what is overdue and delete what is past its tombstone; the caller holds the lock."""
        now, done = self.clock(), 0
        for scope in [scope for scope, at in self.scopes.items() if epochs.is_over(scope, at, now)]:
            del self.scopes[scope]
        while self.due and self.due[0][0] <= now and done < limit:
            _, handle = heappop(self.due)
            record = self.records.get(handle)
            if record is not None:
                done += self._settle(record, now)
        return done

    def _settle(self, record: Record, now: Instant) -> bool:
        """Do what is due with one record; if it was seen in the meantime, only look again later."""
        over = ledger.expired(record, now)
        if over is not None:
            self.keep(over[0])
            self.log.add(over[1], None)
            return True
        if record.ended_at is not None and record.ended_at + self.tombstone <= now:
            self.drop(record)
            return True
        heappush(self.due, (self.due_at(record), record.handle))
        return False

    def due_at(self, record: Record) -> Instant:
        return record.deadline if record.ended_at is None else record.ended_at + self.tombstone

    def keep(self, record: Record) -> None:
        """Put a record on the shelf and into the indexes."""
        before = self.records.get(record.handle)
        self.records[record.handle] = record
        if self.watchers:
            self.changed.append(record.handle)
        if before is None and record.subject is not None:
            self.of_subject.setdefault((record.realm, record.subject), set()).add(record.handle)
        due = self.due_at(record)
        if before is None or due < self.due_at(before) or record.ended_at != before.ended_at:
            heappush(self.due, (due, record.handle))
            if len(self.due) > 2 * len(self.records) + 1024:
                self.due = [(self.due_at(one), one.handle) for one in self.records.values()]
                heapify(self.due)

    def drop(self, record: Record) -> None:
        """Forget a record altogether."""
        del self.records[record.handle]
        if self.watchers:
            self.changed.append(record.handle)
        if record.subject is not None:
            key = (record.realm, record.subject)
            self.of_subject[key].discard(record.handle)
            if not self.of_subject[key]:
                del self.of_subject[key]

    def _make_room(self, changes: Sequence[Change]) -> None:
        """Free some places if the changes create a record, or refuse them."""
        new = sum(isinstance(change, (Insert, Replace)) for change in changes)
        if not new:
            return
        now, batch = self.clock(), max(new, self.most // 100)
        over = [one for one in self.records.values() if one.ended_at is not None or now >= one.deadline]
        for record in nsmallest(batch, over, key=lambda one: one.deadline if one.ended_at is None else one.ended_at):
            expired = ledger.expired(record, now)
            if expired is not None:
                self.log.add(expired[1], None)
            self.drop(record)
        if len(self.records) + new <= self.most:
            return
        anonymous = [one for one in self.records.values() if one.subject is None]
        for record in nsmallest(batch, anonymous, key=lambda one: one.seen_at):
            self.drop(record)
        if len(self.records) + new > self.most:
            message = f"the memory store is full: {self.most} logged-in sessions; raise `most` or use another store"
            raise NotApplied(message)


class _Rows:
    """The shelf as the table of one commit."""

    def __init__(self, shelf: _Shelf, commit_id: bytes) -> None:
        self._shelf, self._commit_id = shelf, commit_id
        self.put = self.add = shelf.keep

    def get(self, handle: Handle) -> Record | None:
        return self._shelf.records.get(handle)

    def swap(self, change: Update, commit_id: bytes, now: Instant) -> bool:
        """Apply an ordinary write, whose end does not come sooner: no index has to follow."""
        record, stored = change.record, self.get(change.record.handle)
        if stored is None or stored.version != change.was or stored.ended_at is not None or stored.by == commit_id:
            return False
        if stored.subject != record.subject or stored.realm != record.realm or record.deadline < stored.deadline:
            return False
        shelf = self._shelf
        shelf.records[record.handle] = ledger.updated(stored, record, commit_id, now)
        if shelf.watchers:
            shelf.changed.append(record.handle)
        return True

    def touch(self, change: Touch, now: Instant) -> bool:
        stored = self.get(change.handle)
        if stored is None:
            return False
        record = ledger.touched(stored, change, now)
        if record is stored:
            return False
        self._shelf.records[record.handle] = record  # activity, of which nobody is told
        return True

    def unended(self, realm: str, subject: str) -> list[Record]:
        records = self._shelf.records
        mine = [records[handle] for handle in self._shelf.of_subject.get((realm, subject), ())]
        return sorted((one for one in mine if one.ended_at is None), key=lambda one: one.handle)

    def epoch(self, realm: str, subject: str) -> Instant | None:
        return self._shelf.subjects.get((realm, subject))

    def raise_epoch(self, realm: str, subject: str, at: Instant) -> None:
        subjects, key = self._shelf.subjects, (realm, subject)
        subjects[key] = max(at, subjects.pop(key, at))
        if len(subjects) > self._shelf.most:
            del subjects[next(iter(subjects))]

    def raise_scope(self, scope: str, at: Instant) -> None:
        scopes = self._shelf.scopes
        scopes[scope] = max(at, scopes.get(scope, at))

    def note(self, event: Event, position: int | None) -> None:
        self._shelf.log.add(event, None if position is None else (self._commit_id, position))


class _Log:
    """Facts and noise, each in a queue of its own that drops its oldest; so noise never pushes out a fact."""

    def __init__(self) -> None:
        self._facts: deque[_Entry] = deque()
        self._noise: deque[_Entry] = deque()
        self._known: set[tuple[bytes, int]] = set()
        self._number = 0
        self._new: list[Event] = []

    def written(self) -> Sequence[Event]:
        """Return the events since the last call."""
        if not self._new:
            return ()
        new, self._new = self._new, []
        return new

    def add(self, event: Event, key: tuple[bytes, int] | None) -> None:
        if key is not None:
            if key in self._known:
                return
            self._known.add(key)
        self._number += 1
        self._new.append(event)
        entries = self._noise if event.noise else self._facts
        entries.append((event.at, self._number, event, key))
        if len(entries) > _MOST_EVENTS:
            self._discard(entries.popleft())

    def page(self, query: EventQuery) -> EventPage:
        before = None if query.cursor is None else events_from(query.cursor)
        queues = (sorted(queue, key=_place, reverse=True) for queue in (self._facts, self._noise))
        entries = merge(*queues, key=_place, reverse=True)
        matching = (
            entry
            for entry in entries
            if _matches(entry[2], query) and (before is None or entry[:2] < (before.at, before.number))
        )
        found = list(islice(matching, query.limit + 1))
        cursor = None
        if len(found) > query.limit:
            cursor = cursor_of(EventsFrom(*_place(found[query.limit - 1])))
        return EventPage(tuple(entry[2] for entry in found[: query.limit]), cursor)

    def forget(self, before: Instant, limit: int, noise: bool) -> int:
        entries = self._noise if noise else self._facts
        old = nsmallest(limit, (entry for entry in entries if entry[0] < before), key=_place)
        gone = {entry[1] for entry in old}
        kept = deque(entry for entry in entries if entry[1] not in gone)
        if noise:
            self._noise = kept
        else:
            self._facts = kept
        for entry in old:
            self._discard(entry)
        return len(old)

    def _discard(self, entry: _Entry) -> None:
        if entry[3] is not None:
            self._known.discard(entry[3])


_Entry = tuple[Instant, int, Event, tuple[bytes, int] | None]


def _place(entry: _Entry) -> tuple[Instant, int]:
    return entry[:2]


def _wanted(record: Record, query: Query, start: RecordsFrom | None, now: Instant) -> bool:
    return (
        (query.realm is None or record.realm == query.realm)
        and (query.subject is None or record.subject == query.subject)
        and (not query.live or (record.ended_at is None and now < record.deadline))
        and (start is None or (record.created_at, record.handle) > (start.created_at, start.handle))
        and (start is None or record.created_at <= start.as_of + ledger.MAX_SKEW)
    )


def _matches(event: Event, query: EventQuery) -> bool:
    return (
        (query.realm is None or event.realm == query.realm)
        and (query.handle is None or event.handle == query.handle)
        and (query.subject is None or event.subject == query.subject)
        and (query.name is None or event.name == query.name)
        and (query.since is None or event.at >= query.since)
        and (query.noise is None or event.noise == query.noise)
    )
