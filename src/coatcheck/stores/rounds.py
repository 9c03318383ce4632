"""What is asked of a SQL server over a network, once for every database and both colours.

`Rounds` says each verb of the store contract as a generator: it yields a `Round` (statements to be sent together), gets
back one `Answer` for each, and returns what the verb returns. `drive` runs it on a blocking connection, `adrive` on an
awaited one. A driver lends `send`, and a `Dialect` for the words that differ.

What `send` promises
- It sends the statements of a round in their order, in one trip if the driver can, each with its values bound; the
  connection is in autocommit mode, so `begin` and `commit` are statements like any other.
- The first statement that fails is raised as an error of the contract, and none after it takes effect.
- If the connection breaks, or an answer is overdue: `Unknown` for a round that `decides`, else `NotApplied`.
- When anything at all is raised (by `send`, or by the generator: a row may not decode), the transaction is rolled back
  or the connection closed, before somebody else gets it.

Rules
- A commit takes two rounds: lock and read, then write and commit. An Update or a Touch alone is one statement; only if
  an Update was refused do the two rounds find out why.
- Locks are taken in one order: rows of `subjects`, then sessions by handle. Whoever creates a session of a subject
  holds the row of that subject.
- The server's clock decides; a test hands in its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from ..core import ledger
from ..core.model import (
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
from ..core.paging import EventsFrom, RecordsFrom, cursor_of, records_from
from . import sql
from .draft import Draft, Found, Need, Subject, Wanted, wanted

T = TypeVar("T")

PURGE_ROWS: Final = 100
PURGE_AT_ONCE: Final = 25
PURGE_SECONDS: Final = 0.05

_NEVER_IDLE: Final = 1e15


class Ask(NamedTuple):
    """One statement, in the driver's own placeholders, and its values."""

    text: str
    values: Sequence[object] = ()


class Answer(NamedTuple):
    """What one statement brought: its rows (if it has any), and how many it touched."""

    rows: Sequence[sql.Row]
    touched: int


class Round(NamedTuple):
    """Statements to be sent together; `decides` if a part of them may last though no answer came."""

    asks: Sequence[Ask]
    decides: bool = False


class Done(msgspec.Struct, Generic[T], frozen=True):
    """What a verb that writes returns, the events that it wrote, and the records that it changed (for watchers)."""

    result: T
    events: Sequence[Event] = ()
    changed: Sequence[Handle] = ()


Steps: TypeAlias = Generator[Round, Sequence[Answer], T]


def drive(steps: Steps[T], send: Callable[[Round], Sequence[Answer]]) -> T:
    """Run to the end, blocking."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(send(asked))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def adrive(steps: Steps[T], send: Callable[[Round], Awaitable[Sequence[Answer]]]) -> T:
    """Run to the end, awaited."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(await send(asked))
    except StopIteration as stop:
        result: T = stop.value
        return result


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """The words that differ from database to database; statements are written as in sql.py, with {p} and ?."""

    placeholder: str
    """What stands for a value: %s."""
    now: str
    """An expression: the server's clock in seconds since 1970, the same throughout one statement."""
    clock: str
    """A statement: the server's clock at this moment, though a transaction began earlier."""
    same: str
    """The operator "equal, or both null"."""
    begin: tuple[str, ...]
    """Begin a transaction in READ COMMITTED."""
    durable: tuple[str, ...]
    """Inside a transaction: let its commit wait for the disk; empty if every commit does."""
    lock_subject: tuple[str, ...]
    """Create a row of `subjects` without an epoch if there is none, and lock it; each takes (realm, subject), and the
    last one returns the epoch."""
    lock_records: Callable[[int, int], str]
    """Return RECORD_COLUMNS, locked in the order of handles: how many handles, and how many (realm, subject) whose
    unended records are meant. Its values are `among(handles)`, then realm and subject of each."""
    due: str
    """RECORD_COLUMNS of rows that are due at {now}, the longest due first, locked, without those that somebody else
    has locked; takes (limit)."""
    note: str
    """Insert an event (EVENT_COLUMNS, commit_id, position) if commit_id and position are new; count tells."""
    raise_scope: str
    """Raise the epoch of a scope, never lower it; takes (scope, epoch)."""
    forget_events: str
    """Delete the oldest; takes (noise, before, limit)."""
    beat: str
    """Write something small, so that a commit has something to wait for."""
    among: Callable[[int], str]
    """Return the condition "is one of these", to follow a column, for so many values."""
    spread: Callable[[Sequence[object]], Sequence[object]]
    """Return the values that belong to `among`."""


# In an order that also suits MySQL, which reads the columns to the left as already changed. `else nonce` is never
# reached: it tells PostgreSQL the type of a value that may be null.
_SWAP: Final = (
    "update {p}sessions set authenticated_at = ?, seen_at = greatest(seen_at, least(?, {now} + ?)), idle_for = ?, "
    "expires_at = ?, "
    "nonce = case when turn_proof {same} ? and used_at is not null then null when true then ? else nonce end, "
    "used_at = case when turn_proof {same} ? and used_at is not null then least(used_at, coalesce(?, used_at)) "
    "else ? end, turn_proof = ?, data = ?, version = version + 1, by_commit = ?, details = ? "
    "where handle = ? and version = ? and ended_at is null and realm = ? and subject {same} ? and due_at <= ? "
    "and due_at <= least(?, {now} + ?) + ? and by_commit <> ?"
)
_TOUCH: Final = (
    "update {p}sessions set seen_at = least(?, {now} + ?) "
    "where handle = ? and ended_at is null and seen_at < least(?, {now} + ?)"
)
_FIRST_SIGHT: Final = (
    "update {p}sessions set "
    "version = version + case when turn_proof = ? and used_at is null then 1 else 0 end, "
    "nonce = case when turn_proof = ? and used_at is null then null else nonce end, "
    "used_at = case when turn_proof = ? and used_at is null then least(?, {now} + ?) else used_at end, "
    "seen_at = greatest(seen_at, least(?, {now} + ?)) "
    "where handle = ? and ended_at is null "
    "and (seen_at < least(?, {now} + ?) or (turn_proof = ? and used_at is null))"
)
_RAISE_EPOCH: Final = "update {p}subjects set epoch = greatest(coalesce(epoch, ?), ?) where realm = ? and subject = ?"
# The earliest first: asked for any row that is due, a planner that expects many reads the whole table for none.
_IS_DUE: Final = (
    "select 1 from (select due_at from {p}sessions order by due_at limit 1) as earliest where due_at <= {now}"
)


class Rounds:
    """The verbs of one store, as generators. It keeps no connection and no state: any thread may use it."""

    def __init__(self, dialect: Dialect, tables: str, clock: Callable[[], Instant] | None, tombstone: float) -> None:
        """Write every statement once. `tables` is what their names begin with, checked and quoted by the caller."""
        self._dialect, self._tables, self._wound, self._tombstone = dialect, tables, clock, tombstone
        self._now = dialect.now if clock is None else "?"
        text = self.text
        self._begin = tuple(Ask(text(one)) for one in dialect.begin)
        self._durable = tuple(Ask(text(one)) for one in dialect.durable)
        self._commit, self._rollback = Ask("commit"), Ask("rollback")
        self._lock_subject = tuple(text(one) for one in dialect.lock_subject)
        self._clock, self._beat = Ask(text(dialect.clock)), Ask(text(dialect.beat))
        self._get, self._add, self._put = text(sql.GET), text(sql.ADD), text(sql.PUT)
        self._swap, self._touch, self._first_sight = text(_SWAP), text(_TOUCH), text(_FIRST_SIGHT)
        self._raise_epoch, self._raise_scope = text(_RAISE_EPOCH), text(dialect.raise_scope)
        self._note, self._forget = text(dialect.note), text(dialect.forget_events)
        self._is_due, self._due, self._look_later = text(_IS_DUE), text(dialect.due), text(sql.LOOK_LATER)
        self._drop_generation = Ask(text("delete from {p}meta where name = 'generation'"))
        self._add_meta = text("insert into {p}meta (name, value) values (?, ?)")
        self._set_meta = text("update {p}meta set value = ? where name = ?")
        self._scopes, self._meta = Ask(text(sql.SCOPES)), text(sql.META)
        self._has_old_scopes, self._forget_scopes = text(sql.HAS_OLD_SCOPES), text(sql.FORGET_SCOPES)
        self._keys, self._lock_key = Ask(text(sql.KEYS)), text(f"{sql.META} for update")

    def text(self, statement: str) -> str:
        """Return a statement as the driver takes it."""
        filled = statement.format(p=self._tables, now=self._now, same=self._dialect.same)
        return filled.replace("?", self._dialect.placeholder)

    # Reading.

    def load(self, handle: Handle) -> Steps[Record | None]:
        """Return the stored record, or None if there is none."""
        answers = yield Round([Ask(self._get, (handle,))])
        rows = answers[0].rows
        return sql.record_of(rows[0]) if rows else None

    def load_all(self, handles: Sequence[Handle]) -> Steps[Sequence[sql.Row]]:
        """Return the rows of those handles that there are, not yet decoded: one that cannot be must not hurt others."""
        answers = yield Round([self.batch(handles)])
        return answers[0].rows

    def batch(self, handles: Sequence[Handle]) -> Ask:
        """Return what asks for the rows of many handles at once."""
        if len(handles) == 1:
            return Ask(self._get, handles)
        among = self._dialect.among(len(handles))
        text = self.text(f"select {sql.RECORD_COLUMNS} from {{p}}sessions where handle {among}")
        return Ask(text, self._dialect.spread(handles))

    def find(self, query: Query) -> Steps[RecordPage]:
        """Return a page of records in the order (created_at, handle)."""
        statement, values = sql.find_statement(query, self._at())
        answers = yield Round([*self._clocked(), Ask(self.text(statement), values)])
        now, found = self._told(answers[0]), [sql.record_of(row) for row in answers[-1].rows]
        as_of = now if query.cursor is None else records_from(query.cursor).as_of
        cursor = None
        if len(found) > query.limit:
            last = found[query.limit - 1]
            cursor = cursor_of(RecordsFrom(as_of, last.created_at, last.handle))
        return RecordPage(tuple(found[: query.limit]), cursor, as_of)

    def epochs(self) -> Steps[Epochs]:
        """Return the server's clock, its epochs and its generation."""
        answers = yield Round([*self._clocked(), self._scopes, Ask(self._meta, ("generation",))])
        scopes = {str(scope): float(epoch) for scope, epoch in answers[-2].rows}
        generation = answers[-1].rows
        return Epochs(self._told(answers[0]), scopes, str(generation[0][0]) if generation else "")

    def events(self, query: EventQuery) -> Steps[EventPage]:
        """Return a page of events, newest first."""
        statement, values = sql.events_statement(query)
        answers = yield Round([Ask(self.text(statement), values)])
        rows, cursor = answers[0].rows, None
        if len(rows) > query.limit:
            number, at = rows[query.limit - 1][:2]
            cursor = cursor_of(EventsFrom(at, number))
        return EventPage(tuple(sql.event_of(row[1:]) for row in rows[: query.limit]), cursor)

    # Writing.

    def forget_events(self, before: Instant, limit: int, noise: bool) -> Steps[int]:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        answers = yield Round([Ask(self._forget, (int(noise), before, limit))], decides=True)
        return answers[0].touched

    def renew_generation(self, generation: str) -> Steps[str]:
        """Begin another generation, after a restore; return its name."""
        asks = [self._drop_generation, Ask(self._add_meta, ("generation", generation)), self._commit]
        yield Round([*self._begin, *self._durable, *asks], decides=True)
        return generation

    def keys(self) -> Steps[dict[str, bytes]]:
        """Return the wrapped keys, by name."""
        answers = yield Round([self._keys])
        return sql.keys_of(answers[0].rows)

    def put_key(self, name: str, value: bytes, was: bytes | None) -> Steps[bool]:
        """Keep a wrapped key if the present one is `was` (None: there is none), durably; tell whether it was."""
        place, text = sql.key_row(name, value)
        # A row that is not there yet cannot be locked; the beat always is, so putters come one after the other.
        locks = [Ask(self._lock_key, ("beat",)), Ask(self._lock_key, (place,))]
        answers = yield Round([*self._begin, *self._durable, *locks])
        rows = answers[-1].rows
        if (rows[0][0] if rows else None) != (None if was is None else sql.key_row(name, was)[1]):
            yield Round([self._rollback])
            return False
        ask = Ask(self._set_meta, (text, place)) if rows else Ask(self._add_meta, (place, text))
        yield Round([ask, self._commit], decides=True)
        return True

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Steps[Done[Conflict | None]]:
        """Apply all changes or none."""
        if len(changes) == 1:
            (change,) = changes
            if isinstance(change, Touch) and not change.events:
                yield from self._alone(self._touching(change), durable)
                return Done(None)
            if isinstance(change, Update) and not change.events:
                touched = yield from self._alone(self._swapping(change, commit_id), durable)
                if touched == 1:
                    return Done(None, (), (change.record.handle,))
        else:
            ledger.check(changes)
        return (yield from self._decided(commit_id, changes, durable))

    def _alone(self, ask: Ask, durable: bool) -> Steps[int]:
        """Send one statement that is a commit by itself; return how many rows it touched."""
        if not (durable and self._durable):
            answers = yield Round([ask], decides=True)
            return answers[0].touched
        answers = yield Round([*self._begin, *self._durable, ask, self._commit], decides=True)
        return answers[-2].touched

    def _decided(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Steps[Done[Conflict | None]]:
        """Lock and read what the changes look at, decide in memory, and write."""
        found, now = yield from self._read(wanted(changes))
        draft, outcome = _drafted(found, commit_id, changes, now)
        while isinstance(outcome, Need):
            answers = yield Round([self._locking([outcome.handle], [])])
            found.records[outcome.handle] = sql.record_of(answers[0].rows[0]) if answers[0].rows else None
            draft, outcome = _drafted(found, commit_id, changes, now)
        if outcome is not None or (draft.empty and not durable):
            yield Round([self._rollback])
            return Done(outcome)
        events = yield from self._write(draft, commit_id, durable)
        return Done(None, events, [one.handle for one in draft.changed.values() if _moved(one, found)])

    def _read(self, want: Wanted) -> Steps[tuple[Found, Instant]]:
        """Begin, lock the subjects and the records in their order, and read the clock once all locks are held."""
        asks, places = list(self._begin), dict[Subject, int]()
        for subject in want.subjects:
            asks += [Ask(text, subject) for text in self._lock_subject]
            places[subject] = len(asks) - 1
        first = len(asks)
        if want.handles or want.members:
            asks.append(self._locking(want.handles, sorted(want.members)))
        answers = yield Round([*asks, *self._clocked()])
        records: dict[Handle, Record | None] = dict.fromkeys(want.handles)
        members: dict[Subject, list[Handle]] = {subject: [] for subject in want.members}
        for row in answers[first].rows if len(asks) > first else ():
            record = sql.record_of(row)
            records[record.handle] = record
            if record.subject is not None and record.ended_at is None and (record.realm, record.subject) in members:
                members[record.realm, record.subject].append(record.handle)
        epochs = {subject: _epoch(answers[place].rows) for subject, place in places.items()}
        found = Found(records, epochs, {subject: tuple(handles) for subject, handles in members.items()})
        return found, self._told(answers[-1])

    def _write(self, draft: Draft, commit_id: bytes, durable: bool) -> Steps[Sequence[Event]]:
        """Write what the draft holds and commit; return the events that were new."""
        asks = list(self._durable) if durable else []
        asks += [Ask(self._add, sql.row_of(one, self._due_at(one))) for one in draft.added.values()]
        asks += [self._putting(one) for one in draft.changed.values()]
        asks += [Ask(self._raise_epoch, (at, at, *subject)) for subject, at in sorted(draft.epochs.items())]
        asks += [Ask(self._raise_scope, (scope, at)) for scope, at in sorted(draft.scopes.items())]
        if draft.empty:
            # Applied before, perhaps without reaching the disk: only a transaction that writes waits for it.
            asks.append(self._beat)
        first = len(asks)
        asks += [self._noting(event, position, commit_id) for event, position in draft.events]
        answers = yield Round([*asks, self._commit], decides=True)
        return [event for (event, _), answer in zip(draft.events, answers[first:], strict=False) if answer.touched == 1]

    # Tidying.

    def purge(self, limit: int) -> Steps[Done[int]]:
        """End overdue records and delete old tombstones in one short transaction; 0 means that nothing is due.

        Epochs that no session can be older than are forgotten.
        """
        done: Done[int] | None = Done(0)
        old = sql.old_scopes(*self._given())
        while done is not None and not done.result and limit > 0:
            answers = yield Round([Ask(self._is_due, self._given()), Ask(self._has_old_scopes, old)])
            if answers[1].rows:
                yield Round([Ask(self._forget_scopes, old)], decides=True)
            if not answers[0].rows:
                break
            done = yield from self._purge_batch(min(limit, PURGE_ROWS))
        return done or Done(0)

    def _purge_batch(self, limit: int) -> Steps[Done[int] | None]:
        """Settle some rows; None if others hold all that are due."""
        values = (*self._given(), limit)
        answers = yield Round([*self._begin, Ask(self._due, values), *self._clocked()])
        rows, until = answers[len(self._begin)].rows, time.monotonic() + PURGE_SECONDS
        if not rows:
            yield Round([self._rollback])
            return None
        now, done, events = self._told(answers[-1]), 0, list[Event]()
        for start in range(0, len(rows), PURGE_AT_ONCE):
            records = [sql.record_of(row) for row in rows[start : start + PURGE_AT_ONCE]]
            told = [over[1] for record in records if (over := ledger.expired(record, now)) is not None]
            yield Round([*self._settling(records, now), *(self._noting(event, None, b"") for event in told)])
            done += len(told) + sum(record.ended_at is not None for record in records)
            events += told
            if time.monotonic() > until:
                break
        yield Round([self._commit], decides=True)
        return Done(done, events, [event.handle for event in events if event.handle is not None])

    def _settling(self, records: Sequence[Record], now: Instant) -> list[Ask]:
        """Return what is due with some records; at those that were seen in the meantime, look again later."""
        asks: list[Ask] = []
        gone = [record.handle for record in records if record.ended_at is not None]
        if gone:
            text = f"delete from {{p}}sessions where handle {self._dialect.among(len(gone))}"
            asks.append(Ask(self.text(text), self._dialect.spread(gone)))
        for record in records:
            over = ledger.expired(record, now)
            if over is not None:
                asks.append(self._putting(over[0]))
            elif record.ended_at is None:
                asks.append(Ask(self._look_later, (record.deadline, record.handle)))
        return asks

    # Statements and their values.

    def _swapping(self, change: Update, commit_id: bytes) -> Ask:
        record, now = change.record, self._given()
        values = (
            record.authenticated_at,
            record.seen_at,
            *now,
            ledger.MAX_SKEW,
            record.idle_for,
            record.expires_at,
            record.turn_proof,
            record.nonce,
            record.turn_proof,
            record.used_at,
            record.used_at,
            record.turn_proof,
            record.data,
            commit_id,
            sql.details_of(record),
            record.handle,
            change.was,
            record.realm,
            record.subject,
            record.expires_at,
            record.seen_at,
            *now,
            ledger.MAX_SKEW,
            _NEVER_IDLE if record.idle_for is None else record.idle_for,
            commit_id,
        )
        return Ask(self._swap, values)

    def _touching(self, change: Touch) -> Ask:
        sight = (change.seen_at, *self._given(), ledger.MAX_SKEW)
        proof = change.turn_proof
        if proof is None:
            return Ask(self._touch, (*sight, change.handle, *sight))
        return Ask(self._first_sight, (proof, proof, proof, *sight, *sight, change.handle, *sight, proof))

    def _putting(self, record: Record) -> Ask:
        return Ask(self._put, (*sql.row_of(record, self._due_at(record)), record.handle))

    def _locking(self, handles: Sequence[Handle], members: Sequence[Subject]) -> Ask:
        text = self.text(self._dialect.lock_records(len(handles), len(members)))
        among = self._dialect.spread(handles) if handles else ()
        return Ask(text, (*among, *(part for subject in members for part in subject)))

    def _noting(self, event: Event, position: int | None, commit_id: bytes) -> Ask:
        key = (None, None) if position is None else (commit_id, position)
        return Ask(self._note, (*sql.event_row(event), *key))

    def _due_at(self, record: Record) -> Instant:
        return record.deadline if record.ended_at is None else record.ended_at + self._tombstone

    # The clock: the server's, or the one that a test winds.

    def _at(self) -> Instant | None:
        return None if self._wound is None else self._wound()

    def _given(self) -> tuple[Instant, ...]:
        """Return the value that stands for {now}, if it is one."""
        return () if self._wound is None else (self._wound(),)

    def _clocked(self) -> tuple[Ask, ...]:
        return (self._clock,) if self._wound is None else ()

    def _told(self, answer: Answer) -> Instant:
        """Return the clock; `answer` is the one to `_clocked`, if that asked."""
        return float(answer.rows[0][0]) if self._wound is None else self._wound()


def _drafted(
    found: Found, commit_id: bytes, changes: Sequence[Change], now: Instant
) -> tuple[Draft, Conflict | Need | None]:
    draft = Draft(found, commit_id)
    try:
        return draft, draft.apply(changes, now)
    except Need as need:
        return draft, need


def _epoch(rows: Sequence[sql.Row]) -> Instant | None:
    return None if not rows or rows[0][0] is None else float(rows[0][0])


def _moved(record: Record, found: Found) -> bool:
    """Tell whether more than the activity of a record changed."""
    before = found.records.get(record.handle)
    return before is None or before.version != record.version
