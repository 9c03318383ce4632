"""What a store tells of itself: its clock and epochs, its records in order, its events in order.

Rules
- A subject's sessions are found by its index, in one trip: a script reads both. Everything else looks at every record
  of every primary, keeping only a page of them: fine for thousands, slow for millions, and given up at the deadline
  with a sentence.
- Events lie in one set a shard, by time; a page merges the shards by (at, number), where a number holds its shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest, nsmallest
from typing import Any, Final

import msgspec

from ...core import ledger
from ...core.errors import StoreError
from ...core.model import Epochs, Event, EventPage, EventQuery, Handle, Instant, Query, Record, RecordPage
from ...core.paging import EventsFrom, RecordsFrom, cursor_of, events_from, records_from
from . import format  # noqa: A004 - the record's
from .keys import COMMON, EPOCH, Tag
from .plan import Settings
from .scripts import LIST_SHA
from .steps import Address, Ask, Command, Steps, asked, number

_SCAN: Final = 1000
_CHUNK: Final = 500
_MOST_LOOKED: Final = 50_000
_EPOCH: Final = EPOCH.encode()
_MOST_STEP: Final = 4096
_LONG_AGO: Final = float("-inf")
_SHARD_BITS: Final = 13
_BEGINNING: Final = 1_500_000_000_000_000
_LAST: Final = 2**64 - 1
"""A number has 64 bits: 51 of microseconds since _BEGINNING (July 2017), 13 for 4,096 shards and the common one."""


class Lister:
    """Answers what is not about one handle."""

    def __init__(self, settings: Settings) -> None:
        """Look at one store."""
        self._set, self._keys = settings, settings.keys
        self._places = {tag: place for place, tag in enumerate(self._keys.tags)}
        self._salt = b""

    # Epochs.

    def epochs(self) -> Steps[Epochs]:
        """Return the store's clock, its epochs, its generation and its salt; the last two are made here, once."""
        key = self._keys.store
        ((fields, time),) = yield from asked(Ask(COMMON, [("HGETALL", key), ("TIME",)]))
        stored = _pairs(fields)
        if b"generation" not in stored or b"salt" not in stored:
            once = {"generation": os.urandom(8).hex(), "salt": os.urandom(32), "shards": len(self._keys.tags)}
            made = [("HSETNX", key, name, value) for name, value in once.items()]
            ((*_, fields, time),) = yield from asked(Ask(COMMON, [*made, ("HGETALL", key), ("TIME",)]))
            stored = _pairs(fields)
        if int(stored.get(b"shards", 0)) != len(self._keys.tags):
            message = (
                f"the store under the prefix {self._keys.prefix!r} was begun with another number of shards; give all "
                "workers the same, or begin a new store under another prefix"
            )
            raise StoreError(message)
        scopes = {name[len(_EPOCH) :].decode(): float(at) for name, at in stored.items() if name.startswith(_EPOCH)}
        salt = stored[b"salt"] if self._keys.sharded else b""
        self._salt = salt
        return Epochs(self._set.now(time), scopes, stored[b"generation"].decode(), salt)

    def salt(self) -> Steps[bytes]:
        """Return the salt of the shards, which never changes; without shards there is none."""
        if self._keys.sharded and not self._salt:
            yield from self.epochs()
        return self._salt

    # Records.

    def find(self, query: Query, primaries: Callable[[], Sequence[Address]]) -> Steps[RecordPage]:
        """Return a page of records in the order (created_at, handle)."""
        start = None if query.cursor is None else records_from(query.cursor)
        if query.handle is None and query.realm is not None and query.subject is not None:
            return (yield from self._of_subject(query, query.realm, query.subject, start))
        ((time,),) = yield from asked(Ask(COMMON, [("TIME",)]))
        narrow = _Page(query, start, self._set.now(time))
        if query.handle is not None:
            yield from self._gather([query.handle] if self._keys.sound(query.handle) else [], narrow)
        else:
            for address in primaries():
                yield from self._scan(address, narrow)
        return narrow.page()

    def _of_subject(self, query: Query, realm: str, subject: str, start: RecordsFrom | None) -> Steps[RecordPage]:
        tag = self._keys.tag_of((yield from self.salt()), (realm, subject))
        sets = [self._keys.about(tag, kind, (realm, subject)) for kind in ("l" if query.live else "le")]
        of_record = self._keys.of(tag, "s:")
        (answers,) = yield from asked(Ask(tag, [("EVALSHA", LIST_SHA, 1, key, of_record, _CHUNK) for key in sets]))
        narrow = _Page(query, start, self._set.now(answers[0][0]))
        for _, members, values in answers:
            handles = [member.decode() for member in members]
            read = list(zip(handles, values, strict=False))
            narrow.add(format.unpack(handle, value) for handle, value in read if value is not None)
            # a record that is away may be on its way to another server; those beyond the first are still to be read
            missed = [handle for handle, value in read if value is None]
            yield from self._gather(missed + handles[len(read) :], narrow)
        return narrow.page()

    def _gather(self, handles: Sequence[Handle], page: _Page) -> Steps[None]:
        for first in range(0, len(handles), _CHUNK):
            tags: dict[Tag, list[Handle]] = {}
            for handle in handles[first : first + _CHUNK]:
                tags.setdefault(self._keys.tag(handle), []).append(handle)
            asks = [Ask(tag, [("GET", self._keys.record(one)) for one in mine]) for tag, mine in tags.items()]
            for mine, values in zip(tags.values(), (yield from asked(*asks)), strict=True):
                found = zip(mine, values, strict=True)
                page.add(format.unpack(handle, value) for handle, value in found if value is not None)

    def _scan(self, address: Address, page: _Page) -> Steps[None]:
        cursor: Any = 0
        while True:
            command: Command = ("SCAN", cursor, "MATCH", self._keys.pattern, "COUNT", _SCAN)
            (((cursor, keys),),) = yield from asked(Ask(address, [command]))
            yield from self._gather([key.decode().rpartition(":")[2] for key in keys], page)
            if int(cursor) == 0:
                return

    # Events.

    def events(self, query: EventQuery) -> Steps[EventPage]:
        """Return a page of events, newest first."""
        before = None if query.cursor is None else events_from(query.cursor)
        tags = yield from self._telling(query)
        kinds = "fn" if query.noise is None else "n" if query.noise else "f"
        sources = [_Source(tag, kind, self._places[tag], self._keys.of(tag, kind)) for tag in tags for kind in kinds]
        wanted, found, looked = query.limit + 1, dict[tuple[Instant, int, str], _Entry](), 0
        step = max(4, 2 * wanted // len(sources))
        while looked < _MOST_LOOKED:
            enough = nlargest(wanted, (entry[0] for entry in found.values()))
            floor = enough[-1] if len(enough) == wanted else _LONG_AGO
            behind = [source for source in sources if not source.over and source.reached >= floor]
            if not behind:
                break
            answers = yield from self._read(behind, query, before, step)
            for source, entries in zip(behind, answers, strict=True):
                looked += len(entries)
                source.move(entries, step)
                mine = (entry for entry in entries if _about(entry[2], query) and _older(entry, before))
                # events that are written meanwhile move the others, so that some come twice
                found.update(((*entry[:2], source.kind), entry) for entry in mine)
            step = min(_MOST_STEP, step * 2)
        reached = max((source.reached for source in sources if not source.over), default=None)
        return _event_page(found.values(), query.limit, reached)

    def _telling(self, query: EventQuery) -> Steps[Sequence[Tag]]:
        """Return the shards that can hold such an event."""
        if query.handle is not None:
            return (self._keys.tag(query.handle),) if self._keys.sound(query.handle) else (COMMON,)
        if query.subject is not None and query.realm is not None:
            return (self._keys.tag_of((yield from self.salt()), (query.realm, query.subject)),)
        return self._keys.tags

    def _read(
        self, sources: Sequence[_Source], query: EventQuery, before: EventsFrom | None, step: int
    ) -> Steps[list[list[_Entry]]]:
        oldest = "-inf" if query.since is None else number(query.since)
        asks = []
        for source in sources:
            newest = "+inf" if before is None else number(before.at)
            command = ("ZREVRANGEBYSCORE", source.key, newest, oldest, "LIMIT", source.seen, step)
            asks.append(Ask(source.tag, [command]))
        answers = yield from asked(*asks)
        return [[source.entry(member) for member in answer[0]] for source, answer in zip(sources, answers, strict=True)]


class _Page:
    """The first records of a listing, of all that pass by."""

    def __init__(self, query: Query, start: RecordsFrom | None, now: Instant) -> None:
        self._query, self._start, self._now = query, start, now
        self._found: dict[Handle, Record] = {}

    def add(self, records: Iterable[Record]) -> None:
        self._found.update((record.handle, record) for record in records if self._wanted(record))
        if len(self._found) > 4 * (self._query.limit + _CHUNK):
            self._found = {record.handle: record for record in self._first()}

    def page(self) -> RecordPage:
        found, limit = self._first(), self._query.limit
        as_of = self._now if self._start is None else self._start.as_of
        cursor = None
        if len(found) > limit:
            last = found[limit - 1]
            cursor = cursor_of(RecordsFrom(as_of, last.created_at, last.handle))
        return RecordPage(tuple(found[:limit]), cursor, as_of)

    def _first(self) -> list[Record]:
        return nsmallest(self._query.limit + 1, self._found.values(), key=lambda one: (one.created_at, one.handle))

    def _wanted(self, record: Record) -> bool:
        query, start = self._query, self._start
        return (
            (query.realm is None or record.realm == query.realm)
            and (query.subject is None or record.subject == query.subject)
            and (not query.live or (record.ended_at is None and self._now < record.deadline))
            and (start is None or (record.created_at, record.handle) > (start.created_at, start.handle))
            and (start is None or record.created_at <= start.as_of + ledger.MAX_SKEW)
        )


_Entry = tuple[Instant, int, Event]


class _Source(msgspec.Struct):
    """The events of one kind in one shard, and how far back they were read."""

    tag: Tag
    kind: str
    place: int
    key: str
    seen: int = 0
    reached: Instant = float("inf")
    over: bool = False

    def entry(self, member: bytes) -> _Entry:
        event = format.unpack_event(member[8:], noise=self.kind == "n")
        written = int.from_bytes(member[:8]) - _BEGINNING
        return event.at, written << _SHARD_BITS | self.place, event

    def move(self, entries: Sequence[_Entry], asked_for: int) -> None:
        self.seen += len(entries)
        self.over = len(entries) < asked_for
        if entries:
            self.reached = entries[-1][0]


def _event_page(found: Iterable[_Entry], limit: int, reached: Instant | None) -> EventPage:
    """Return the newest of what was found; if some shards were not read to their end, as far as all of them were."""
    sure = found if reached is None else [entry for entry in found if entry[0] > reached]
    newest = nlargest(limit + 1, sure, key=lambda entry: entry[:2])
    items = tuple(entry[2] for entry in newest[:limit])
    if len(newest) > limit:
        return EventPage(items, cursor_of(EventsFrom(*newest[limit - 1][:2])))
    return EventPage(items, None if reached is None else cursor_of(EventsFrom(reached, _LAST)))


def _older(entry: _Entry, before: EventsFrom | None) -> bool:
    return before is None or entry[:2] < (before.at, before.number)


def _about(event: Event, query: EventQuery) -> bool:
    return (
        (query.realm is None or event.realm == query.realm)
        and (query.handle is None or event.handle == query.handle)
        and (query.subject is None or event.subject == query.subject)
        and (query.name is None or event.name == query.name)
    )


def _pairs(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
