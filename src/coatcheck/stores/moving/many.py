"""Commits on two stores, listings of both, and what is known of both at once.

Rules
- A commit goes to the store in which its primary change belongs, in one piece; what else it asks of the other store
  comes before (the end of somebody's session: better logged out than in twice) or after. Each part may be repeated.
- Until the move has begun, sessions are created in the old store, where workers look that do not know the new one;
  from then on in the new. A session is written where it lies, and moved before it is replaced.
- The ends of a subject's sessions, and epochs, go to both: last to the new store, where a session may have moved.
- Limits count both: a subject's sessions are moved before a new one is counted, those that cannot be are counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from ...core import ledger
from ...core.errors import NotApplied
from ...core.model import (
    MOVED,
    Change,
    Conflict,
    End,
    EndOthers,
    Event,
    EventPage,
    EventQuery,
    Handle,
    Insert,
    Instant,
    Limit,
    Note,
    Primary,
    Query,
    RaiseEpoch,
    Record,
    RecordPage,
    Replace,
    Touch,
    Update,
)
from ...core.paging import RecordsFrom, cursor_of, records_from
from . import one
from .one import TRIES
from .start import State, has_begun
from .steps import FAR, NEW, OLD, Ask, Script, Side, committed, from_old, in_old, is_copy, loaded, part

_MOST: Final = 1000
_OLDER: Final = "~"
"""How the cursor of a listing of events begins that has come to the old store."""
_ORDER: Final = (End, EndOthers, RaiseEpoch, Touch, Note)


# Commits.


def commit(state: State, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Script[Conflict | None]:
    """Apply the changes, each where it belongs."""
    ledger.check(changes)
    begun = yield from has_begun(state)
    primary = next((change for change in changes if ledger.is_primary(change)), None)
    rest = [change for change in changes if change is not primary]
    named = [(part(commit_id, str(number)), change) for number, change in enumerate(rest)]
    if isinstance(primary, (Insert, Update, Replace)):
        return (yield from _with_primary(state, commit_id, primary, named, durable=durable))
    for name, change in sorted(named, key=lambda pair: _ORDER.index(type(pair[1]))):
        yield from _without_primary(state, name, change, NEW if begun else OLD, durable=durable)
    return None


def _without_primary(state: State, commit_id: bytes, change: Change, voice: Side, *, durable: bool) -> Script[None]:
    """Apply a change that cannot conflict; `voice` is the store that tells what is not about one session."""
    if isinstance(change, End):
        yield from one.end(state, commit_id, change, durable=durable)
    elif isinstance(change, Touch):
        yield from one.touch(state, commit_id, change, durable=durable)
    elif isinstance(change, (EndOthers, RaiseEpoch)):
        for side in (OLD, NEW):
            told = change if side == voice else replace(change, events=())
            yield from committed(side, commit_id, (told,), durable=durable)
    else:
        yield from committed(voice, commit_id, (change,), durable=durable)


def _with_primary(
    state: State, commit_id: bytes, primary: Primary, rest: Sequence[tuple[bytes, Change]], *, durable: bool
) -> Script[Conflict | None]:
    for _ in range(TRIES):
        aim = yield from _aim(state, primary)
        if aim.verdict is not None:
            return aim.verdict
        main: list[Change] = [aim.change]
        after: list[tuple[bytes, Change, bool]] = []
        for name, change in rest:
            if isinstance(change, End):
                riding = yield from _riding(state, change, aim.side)
                if riding is None and (yield from _is_somebodys(state, change)):
                    yield from one.end(state, name, change, durable=durable)
                elif riding is None or aim.side == OLD:
                    after.append((name, change, riding is not None))
                main += [] if riding is None else [riding]
            else:
                main += [] if isinstance(change, Touch) else [change]
                after.append((name, change, False))
        conflict = None if aim.applied else (yield from committed(aim.side, commit_id, main, durable=durable))
        if conflict is not None and aim.side == OLD and _is_moved(conflict.current):
            primary = aim.primary_in_new
            continue
        if conflict is not None:
            return (yield from _explained(state, aim, conflict))
        for eviction in aim.evictions:
            yield from one.end(state, part(commit_id, f"evict {eviction.handle}"), eviction, durable=durable)
        for name, change, rode in after:
            if isinstance(change, End):
                yield from one.end(state, name, change, durable=durable, rode=rode)
            else:
                yield from _afterwards(state, name, change, aim.side, durable=durable)
        return None
    message = "the session kept being moved; nothing was written; try again"
    raise NotApplied(message)


def _afterwards(state: State, commit_id: bytes, change: Change, side: Side, *, durable: bool) -> Script[None]:
    """Apply to the other store what the primary change's own store has by now."""
    if isinstance(change, Touch):
        yield from one.touch(state, commit_id, change, durable=durable)
    elif isinstance(change, (EndOthers, RaiseEpoch)):
        silent = replace(change, events=())
        if side == NEW:
            yield from committed(OLD, commit_id, (silent,), durable=durable)
            # What was moved between the two is in the new store now; who logged in meanwhile is spared.
            before = (yield Ask(NEW, "epochs")).store_now if silent.before is None else silent.before
            silent = replace(silent, before=before)
        yield from committed(NEW, part(commit_id, "again"), (silent,), durable=durable)


def _riding(state: State, change: End, side: Side) -> Script[End | None]:
    """Return the end as it can be a part of the primary change's commit; None: it needs steps of its own.

    In the new store, only where the old one never had the session: so a commit that is tried again has the same parts.
    """
    record = yield from one.target(state, change)
    if record is None or in_old(record) != (side == OLD):
        return None
    if side == NEW and (yield from loaded(OLD, record.handle)) is not None:
        return None
    return replace(change, handle=record.handle)


def _is_somebodys(state: State, change: End) -> Script[bool]:
    record = yield from one.target(state, change)
    return record is not None and record.subject is not None


class Aim(NamedTuple):
    """Where a primary change goes, and as what; or that it is decided already."""

    side: Side
    change: Primary
    evictions: tuple[End, ...] = ()
    applied: bool = False
    verdict: Conflict | None = None

    @property
    def primary_in_new(self) -> Primary:
        """The change for the new store, if what it is based on was moved: no record there is at version 0."""
        return replace(self.change, was=0) if isinstance(self.change, (Update, Replace)) else self.change


def _aim(state: State, change: Primary) -> Script[Aim]:
    if isinstance(change, Insert):
        return (yield from _aim_insert(state, change))
    based_on_old = change.was >= FAR
    if isinstance(change, Update):
        return Aim(OLD, replace(change, was=change.was - FAR)) if based_on_old else Aim(NEW, change)
    side: Side = NEW
    if based_on_old:
        old = yield from loaded(OLD, change.old)
        if old is not None and old.ended_because != MOVED:
            side = OLD
            if old.ended_at is None and state.began:
                moved = yield from one.move(state, change.old)
                side = OLD if moved in ("stays", "waits") else NEW
        change = replace(change, was=change.was - FAR if side == OLD else 0)
    return (yield from _limited(state, side, change, change.old))


def _aim_insert(state: State, change: Insert) -> Script[Aim]:
    if not state.began:
        return (yield from _limited(state, OLD, change, None))
    old = yield from loaded(OLD, change.record.handle)
    if old is not None and old.ended_because != MOVED:
        if old.ended_at is not None:
            return Aim(NEW, change, verdict=Conflict(from_old(old), "ended"))
        if old.family_proof == change.record.family_proof:
            return Aim(NEW, change, applied=True)
        return Aim(NEW, change, verdict=Conflict(from_old(old), "exists"))
    return (yield from _limited(state, NEW, change, None))


def _explained(state: State, aim: Aim, conflict: Conflict) -> Script[Conflict]:
    """Return a conflict as callers see it: what the new store has never seen may lie in the old one."""
    current = conflict.current
    if aim.side == OLD:
        return conflict if current is None else Conflict(from_old(current), conflict.why)
    if conflict.why != "gone":
        return conflict
    handle = aim.change.old if isinstance(aim.change, Replace) else aim.change.record.handle
    current = yield from one.load(state, handle)
    if current is None:
        return conflict
    return Conflict(current, "version" if current.ended_at is None else "ended")


def _is_moved(record: Record | None) -> bool:
    return record is not None and record.ended_because == MOVED


# Limits.


def _limited(state: State, side: Side, change: Insert | Replace, leaving: Handle | None) -> Script[Aim]:
    """Adapt a limit to the sessions that a subject has in the other store."""
    limit, subject = change.limit, change.record.subject
    if limit is None or subject is None:
        return Aim(side, change)
    realm = change.record.realm
    if side == NEW:
        for record in (yield from _live(OLD, realm, subject)):
            yield from one.move(state, record.handle)
    here = {record.handle: record for record in (yield from _live(side, realm, subject))}
    away = [
        record
        for record in (yield from _live(OLD if side == NEW else NEW, realm, subject))
        if record.handle not in here
    ]
    away = [record for record in away if record.handle != leaving]
    if not away:
        return Aim(side, change)
    if limit.refuse:
        if len(away) >= limit.most:
            current = None if leaving is None else (yield from one.load(state, leaving))
            return Aim(side, change, verdict=Conflict(current, "limit"))
        return Aim(side, replace(change, limit=Limit(limit.most - len(away), refuse=True)))
    others = sorted([*(record for record in here.values() if record.handle != leaving), *away], key=_age)
    excess = [record for record in others[: max(0, len(others) + 1 - limit.most)] if record.handle not in here]
    room = Limit(max(1, limit.most - (len(away) - len(excess))))
    now = (yield Ask(side, "epochs")).store_now if excess else 0.0
    evictions = tuple(_eviction(gone, limit.most, change, now) for gone in excess)
    return Aim(side, replace(change, limit=room), evictions)


def _live(side: Side, realm: str, subject: str) -> Script[Sequence[Record]]:
    page: RecordPage = yield Ask(side, "find", (Query(realm=realm, subject=subject, limit=_MOST),))
    return page.items


def _age(record: Record) -> tuple[Instant, Handle]:
    return ledger.authenticated(record), record.handle


def _eviction(record: Record, most: int, change: Insert | Replace, now: Instant) -> End:
    return End(handle=record.handle, because="limit", events=(ledger.evicted(record, most, change, now),))


# Listings.


def find(query: Query) -> Script[RecordPage]:
    """Return a page of both stores' records, each session once; it may be shorter than asked for and not the last."""
    pages: dict[Side, RecordPage] = {}
    for side in (OLD, NEW):  # in this order: what is moved between the two is seen in the second
        pages[side] = yield Ask(side, "find", (query,))
    as_of = pages[NEW].as_of if query.cursor is None else records_from(query.cursor).as_of
    found: dict[Handle, Record] = {}
    for record in pages[OLD].items:
        if record.ended_because != MOVED:
            found[record.handle] = from_old(record)
    for record in pages[NEW].items:
        original = found.get(record.handle)
        if original is None or not is_copy(record):
            found[record.handle] = record
    ends = [_place(page.items[-1]) for page in pages.values() if page.cursor is not None]
    records = sorted(found.values(), key=_place)
    within = [record for record in records if not ends or _place(record) <= min(ends)]
    if len(within) > query.limit:
        within = within[: query.limit]
        ends = [_place(within[-1])]
    cursor = cursor_of(RecordsFrom(as_of, *min(ends))) if ends else None
    return RecordPage(tuple(within), cursor, as_of)


def _place(record: Record) -> tuple[Instant, Handle]:
    return record.created_at, record.handle


def events(query: EventQuery) -> Script[EventPage]:
    """Return a page of events: first the new store's, newest first, then the old one's, from before."""
    found: list[Event] = []
    cursor = query.cursor
    if cursor is None or not cursor.startswith(_OLDER):
        page: EventPage = yield Ask(NEW, "events", (query,))
        if page.cursor is not None:
            return page
        found += page.items
        cursor = _OLDER
    if len(found) == query.limit:
        return EventPage(tuple(found), cursor)
    rest = replace(query, cursor=cursor.removeprefix(_OLDER) or None, limit=query.limit - len(found))
    page = yield Ask(OLD, "events", (rest,))
    return EventPage((*found, *page.items), None if page.cursor is None else _OLDER + page.cursor)


def purge(limit: int) -> Script[int]:
    """Purge at most `limit` rows: of the new store, then of the old."""
    done: int = yield Ask(NEW, "purge", (limit,))
    if done < limit:
        done += yield Ask(OLD, "purge", (limit - done,))
    return done


def forget_events(before: Instant, limit: int, *, noise: bool) -> Script[int]:
    """Forget at most `limit` events: of the new store, then of the old."""
    done: int = yield Ask(NEW, "forget_events", (before, limit), {"noise": noise})
    if done < limit:
        done += yield Ask(OLD, "forget_events", (before, limit - done), {"noise": noise})
    return done
