"""What is asked of a SQLite connection: load, commit, find, purge, epochs and events, each in one transaction.

Rules
- A commit is `begin immediate` ... `commit` with nothing in between that could wait: no lock, no log, no callback.
- Update and Touch are one conditional statement, and alone they need no more; only a refusal is looked into.
- Cursors are drained before anything returns, so that no reader pins the write-ahead log.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from ...core import ledger
from ...core.model import (
    Change,
    Conflict,
    Epochs,
    Event,
    EventPage,
    EventQuery,
    Handle,
    Instant,
    Query,
    Record,
    RecordPage,
    Touch,
    Update,
)
from ...core.paging import EventsFrom, RecordsFrom, cursor_of, records_from
from .. import sql
from .file import Link
from .schema import PREFIX, SET_META

PURGE_ROWS: Final = 100
PURGE_SECONDS: Final = 0.02
CHANGES_KEPT: Final = 10_000

T = TypeVar("T")
Done: TypeAlias = tuple[T, Sequence[Event]]
"""What something that writes answers, and the events that it wrote."""

_Execute: TypeAlias = Callable[..., sqlite3.Cursor]


def _text(statement: str) -> str:
    return sql.with_prefix(statement, PREFIX)


_GET: Final = _text(sql.GET)
_ADD: Final = _text(sql.ADD)
_PUT: Final = _text(sql.PUT)
_UNENDED: Final = _text(sql.UNENDED)
_DUE: Final = _text(sql.DUE)
_IS_DUE: Final = _text(sql.IS_DUE)
_LOOK_LATER: Final = _text(sql.LOOK_LATER)
_DELETE: Final = _text(sql.DELETE)
_EPOCH: Final = _text(sql.EPOCH)
_SCOPES: Final = _text(sql.SCOPES)
_HAS_OLD_SCOPES: Final = _text(sql.HAS_OLD_SCOPES)
_FORGET_SCOPES: Final = _text(sql.FORGET_SCOPES)
_META: Final = _text(sql.META)
_KEYS: Final = _text(sql.KEYS)
_SET_META: Final = _text(SET_META)
_FORGET_EVENTS: Final = _text(sql.FORGET_EVENTS)

_LAST_CHANGE: Final = _text("select ifnull(max(id), 0) from {p}changes")
_CHANGES: Final = _text("select id, handle from {p}changes where id >= ? order by id")
_MANY_CHANGES: Final = _text("select max(id) - min(id) >= ? from {p}changes")
_FORGET_CHANGES: Final = _text("delete from {p}changes where id <= (select max(id) from {p}changes) - ?")
_IS_WATCHING: Final = _text("select 1 from {p}watchers where name = ?")
_BEGIN_WATCH: Final = _text(
    "insert into {p}watchers (name, until) values (?, ?) on conflict (name) do update set until = excluded.until"
)
_END_WATCH: Final = _text("delete from {p}watchers where name = ?")
_HAS_LAPSED: Final = _text("select 1 from {p}watchers where until < ? limit 1")
_FORGET_WATCHERS: Final = _text("delete from {p}watchers where until < ?")
_BEAT: Final = _text("update {p}meta set value = value + 1 where name = 'beat'")
_SWAP: Final = _text(
    "update {p}sessions set authenticated_at = ?, seen_at = max(seen_at, ?), idle_for = ?, expires_at = ?, "
    "used_at = case when turn_proof is ? and used_at is not null then min(used_at, ifnull(?, used_at)) else ? end, "
    "nonce = case when turn_proof is ? and used_at is not null then null else ? end, "
    "turn_proof = ?, data = ?, version = version + 1, by_commit = ?, details = ? "
    "where handle = ? and version = ? and ended_at is null and realm = ? and subject is ? and due_at <= ? "
    "and by_commit <> ?"
)
_TOUCH: Final = _text("update {p}sessions set seen_at = ? where handle = ? and ended_at is null and seen_at < ?")
_FIRST_SIGHT: Final = _text(
    "update {p}sessions set seen_at = max(seen_at, ?), used_at = ?, nonce = null, version = version + 1 "
    "where handle = ? and ended_at is null and turn_proof = ? and used_at is null"
)
_RAISE_EPOCH: Final = _text(
    "insert into {p}subjects (realm, subject, epoch) values (?, ?, ?) "
    "on conflict (realm, subject) do update set epoch = max(epoch, excluded.epoch)"
)
_RAISE_SCOPE: Final = _text(
    "insert into {p}epochs (scope, epoch) values (?, ?) "
    "on conflict (scope) do update set epoch = max(epoch, excluded.epoch)"
)
_NOTE: Final = _text(
    f"insert or ignore into {{p}}events ({sql.EVENT_COLUMNS}, commit_id, position) "
    "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def load(link: Link, handle: Handle) -> Record | None:
    """Return the stored record, or None if there is none."""
    rows = link.db.execute(_GET, (handle,)).fetchall()
    return sql.record_of(rows[0]) if rows else None


def commit(
    link: Link, commit_id: bytes, changes: Sequence[Change], durable: bool, now: Instant, tombstone: float
) -> Done[Conflict | None]:
    """Apply all changes or none; when `durable`, the disk has them (and all before them) when this returns."""
    db = link.db
    execute = db.execute
    link.sync(full=durable)
    table = _Rows(execute, commit_id, tombstone)
    if not durable and len(changes) == 1 and not changes[0].events and _alone(table, changes[0], commit_id, now):
        return None, ()
    before = db.total_changes
    execute("begin immediate")
    try:
        conflict = ledger.apply(table, commit_id, changes, now)
        if conflict is not None:
            execute("rollback")
            return conflict, ()
        if durable and db.total_changes == before:
            # Applied before, perhaps without reaching the disk: only a transaction that writes waits for it.
            execute(_BEAT)
        execute("commit")
    except BaseException:
        _undo(db)
        raise
    return None, table.written


def _alone(table: _Rows, change: Change, commit_id: bytes, now: Instant) -> bool:
    """Apply a write, or activity, by statements that are each a transaction; tell whether no more is to be done."""
    if isinstance(change, Touch):
        table.touch(change, now)  # it may change nothing
        return True
    return isinstance(change, Update) and table.swap(change, commit_id, now)


def checkpoint(link: Link) -> bool:
    """Move what can be moved of the log into the file, without making anyone wait; tell whether that was all."""
    busy, log, done = link.db.execute("pragma wal_checkpoint(passive)").fetchall()[0]
    return bool(not busy and log == done > 0)


def truncate(link: Link) -> Done[bool]:
    """Move the rest of the log and shrink it to nothing; tell whether no reader was in the way."""
    busy, _, _ = link.db.execute("pragma wal_checkpoint(truncate)").fetchall()[0]
    return not busy, ()


def beat(link: Link) -> Done[None]:
    """Write something small, so that the cost of restarting the log falls on us and not on a commit."""
    link.sync(full=False)
    link.db.execute(_BEAT)
    return None, ()


def find(link: Link, query: Query, now: Instant) -> RecordPage:
    """Return a page of records in the order (created_at, handle)."""
    statement, values = sql.find_statement(query, now)
    found = [sql.record_of(row) for row in link.db.execute(_text(statement), values).fetchall()]
    as_of = now if query.cursor is None else records_from(query.cursor).as_of
    cursor = None
    if len(found) > query.limit:
        last = found[query.limit - 1]
        cursor = cursor_of(RecordsFrom(as_of, last.created_at, last.handle))
    return RecordPage(tuple(found[: query.limit]), cursor, as_of)


def events(link: Link, query: EventQuery) -> EventPage:
    """Return a page of events, newest first."""
    statement, values = sql.events_statement(query)
    rows = link.db.execute(_text(statement), values).fetchall()
    cursor = None
    if len(rows) > query.limit:
        number, at = rows[query.limit - 1][:2]
        cursor = cursor_of(EventsFrom(at, number))
    return EventPage(tuple(sql.event_of(row[1:]) for row in rows[: query.limit]), cursor)


def forget_events(link: Link, before: Instant, limit: int, noise: bool) -> Done[int]:
    """Delete at most `limit` facts (or noise) older than `before`; return how many."""
    link.sync(full=False)
    return link.db.execute(_FORGET_EVENTS, (int(noise), before, limit)).rowcount, ()


def epochs(link: Link, now: Instant) -> Epochs:
    """Return the store's clock, its epochs and its generation."""
    scopes = dict(link.db.execute(_SCOPES).fetchall())
    generation = link.db.execute(_META, ("generation",)).fetchall()
    return Epochs(now, scopes, str(generation[0][0]) if generation else "")


def last_change(link: Link) -> int:
    """Return the number of the newest change."""
    return int(link.db.execute(_LAST_CHANGE).fetchall()[0][0])


def changes_since(link: Link, last: int) -> tuple[int, list[Handle | None]]:
    """Return the number of the newest change and the handles of those after `last`; None among them: some are lost."""
    found = link.db.execute(_CHANGES, (last,)).fetchall()
    if last and (not found or found[0][0] != last):
        return last_change(link), [None]
    handles = dict.fromkeys(handle for number, handle in found if number > last)
    return (found[-1][0] if found else last), list(handles)


def is_watching(link: Link, name: str) -> bool:
    """Tell whether changes are noted for a watcher."""
    return bool(link.db.execute(_IS_WATCHING, (name,)).fetchall())


def begin_watch(link: Link, name: str, until: float) -> Done[None]:
    """Have changes noted for a watcher from now on; it may be forgotten after `until` (seconds since 1970)."""
    link.sync(full=False)
    link.db.execute(_BEGIN_WATCH, (name, until))
    return None, ()


def end_watch(link: Link, name: str) -> Done[None]:
    """Note nothing for a watcher any more."""
    link.sync(full=False)
    link.db.execute(_END_WATCH, (name,))
    return None, ()


def forget_watchers(link: Link, now: float) -> Done[None]:
    """Forget watchers that did not say in time that they are still there: they were killed."""
    link.sync(full=False)
    if link.db.execute(_HAS_LAPSED, (now,)).fetchall():
        link.db.execute(_FORGET_WATCHERS, (now,))
    return None, ()


def forget_changes(link: Link) -> Done[None]:
    """Forget all but the newest changes; the newest one is never forgotten."""
    link.sync(full=False)
    if link.db.execute(_MANY_CHANGES, (2 * CHANGES_KEPT,)).fetchall()[0][0]:
        link.db.execute(_FORGET_CHANGES, (CHANGES_KEPT,))
    return None, ()


def keys(link: Link) -> dict[str, bytes]:
    """Return the wrapped keys, by name."""
    return sql.keys_of(link.db.execute(_KEYS).fetchall())


def put_key(link: Link, name: str, value: bytes, was: bytes | None) -> Done[bool]:
    """Keep a wrapped key if the present one is `was`; the disk has it when this returns."""
    link.sync(full=True)
    statement, values = sql.put_key_statement(name, value, was)
    return link.db.execute(_text(statement), values).rowcount == 1, ()


def renew_generation(link: Link, generation: str) -> Done[str]:
    """Give the file another generation, and return it; the disk has it when this returns."""
    link.sync(full=True)
    link.db.execute(_SET_META, ("generation", generation))
    return generation, ()


def purge(link: Link, limit: int, now: Instant, tombstone: float) -> Done[int]:
    """End overdue records and delete old tombstones in one short transaction; return how many.

    0 means that nothing is due. Epochs that no session can be older than are forgotten.
    """
    done: Done[int] = (0, ())
    link.sync(full=False)
    old = sql.old_scopes(now)
    if link.db.execute(_HAS_OLD_SCOPES, old).fetchall():
        link.db.execute(_FORGET_SCOPES, old)
    while not done[0] and limit > 0 and link.db.execute(_IS_DUE, (now,)).fetchall():
        done = _purge_batch(link.db, min(limit, PURGE_ROWS), now, tombstone)
    return done


def _purge_batch(db: sqlite3.Connection, limit: int, now: Instant, tombstone: float) -> Done[int]:
    done = 0
    db.execute("begin immediate")
    until = time.monotonic() + PURGE_SECONDS
    try:
        table = _Rows(db.execute, b"", tombstone)
        for row in db.execute(_DUE, (now, limit)).fetchall():
            done += _settle(table, sql.record_of(row), now)
            if time.monotonic() > until:
                break
        db.execute("commit")
    except BaseException:
        _undo(db)
        raise
    return done, table.written


def _settle(table: _Rows, record: Record, now: Instant) -> bool:
    """Do what is due with one record; if it was seen in the meantime, only look again later."""
    if record.ended_at is not None:
        table.execute(_DELETE, (record.handle,))
        return True
    over = ledger.expired(record, now)
    if over is None:
        table.execute(_LOOK_LATER, (record.deadline, record.handle))
        return False
    table.put(over[0])
    table.note(over[1], None)
    return True


def _undo(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("rollback")


class _Rows:
    """The connection as the table of one commit."""

    __slots__ = ("_commit_id", "_tombstone", "execute", "written")

    def __init__(self, execute: _Execute, commit_id: bytes, tombstone: float) -> None:
        self.execute, self._commit_id, self._tombstone = execute, commit_id, tombstone
        self.written: list[Event] = []

    def get(self, handle: Handle) -> Record | None:
        rows = self.execute(_GET, (handle,)).fetchall()
        return sql.record_of(rows[0]) if rows else None

    def add(self, record: Record) -> None:
        self.execute(_ADD, sql.row_of(record, self._due_at(record)))

    def put(self, record: Record) -> None:
        self.execute(_PUT, (*sql.row_of(record, self._due_at(record)), record.handle))

    def _due_at(self, record: Record) -> Instant:
        return record.deadline if record.ended_at is None else record.ended_at + self._tombstone

    def swap(self, change: Update, commit_id: bytes, now: Instant) -> bool:
        record = change.record
        seen_at = min(record.seen_at, now + ledger.MAX_SKEW)
        deadline = record.expires_at
        if record.idle_for is not None and seen_at + record.idle_for < deadline:
            deadline = seen_at + record.idle_for
        values = (
            record.authenticated_at,
            seen_at,
            record.idle_for,
            record.expires_at,
            record.turn_proof,
            record.used_at,
            record.used_at,
            record.turn_proof,
            record.nonce,
            record.turn_proof,
            record.data,
            commit_id,
            sql.details_of(record),
            record.handle,
            change.was,
            record.realm,
            record.subject,
            deadline,
            commit_id,
        )
        return self.execute(_SWAP, values).rowcount == 1

    def touch(self, change: Touch, now: Instant) -> bool:
        seen_at = min(change.seen_at, now + ledger.MAX_SKEW)
        if change.turn_proof is not None:
            values = (seen_at, seen_at, change.handle, change.turn_proof)
            if self.execute(_FIRST_SIGHT, values).rowcount == 1:
                return True
        return self.execute(_TOUCH, (seen_at, change.handle, seen_at)).rowcount == 1

    def unended(self, realm: str, subject: str) -> list[Record]:
        return [sql.record_of(row) for row in self.execute(_UNENDED, (realm, subject)).fetchall()]

    def epoch(self, realm: str, subject: str) -> Instant | None:
        rows = self.execute(_EPOCH, (realm, subject)).fetchall()
        return float(rows[0][0]) if rows else None

    def raise_epoch(self, realm: str, subject: str, at: Instant) -> None:
        self.execute(_RAISE_EPOCH, (realm, subject, at))

    def raise_scope(self, scope: str, at: Instant) -> None:
        self.execute(_RAISE_SCOPE, (scope, at))

    def note(self, event: Event, position: int | None) -> None:
        key = (None, None) if position is None else (self._commit_id, position)
        if self.execute(_NOTE, (*sql.event_row(event), *key)).rowcount == 1:
            self.written.append(event)
