"""One session in two stores: where it counts, how it is moved, and how it is ended wherever it lies.

Rules
- The old store counts until its record is marked: ended because "moved". The mark is set under the condition that the
  original is still what was copied, so no write can fall between the two; from then on the copy counts.
- An end counts in either store. It goes to the old one first, then to the new one, where a tombstone keeps a copy out
  that somebody may be about to write.
- A copy is written, then the mark, then the copy is confirmed. Whoever finds a copy whose original lives finishes the
  move, so a mover may die anywhere.
- A copy never goes back: it is read before its original, and written under the condition that it is as it was read.
"""

from __future__ import annotations

import os
from typing import Final, Literal, TypeAlias

from msgspec.structs import replace

from ...core.errors import NotApplied, StoreError
from ...core.model import MOVED, End, Handle, Insert, Record, Touch, Update
from ...core.tokens import shard_of
from .start import State, has_begun, salt_of
from .steps import NEW, OLD, Ask, Script, committed, copy_id, from_old, in_old, is_copy, loaded, part

Moved: TypeAlias = Literal["moved", "ended", "gone", "stays", "waits"]
"""What became of a session that was to be moved: it lies in the new store; it had ended; it is in neither; it cannot
be moved, since the new store wants handles of its own shards; its handle is too fresh (see `_is_fresh`)."""

TRIES: Final = 64
FRESH: Final = 120.0
"""Seconds for which a session under a new handle that nobody has presented yet stays with the one that it replaced: a
second step-up, whose twin's answer was lost, takes over from it."""
_LATER: Final = 10.0


def load(state: State, handle: Handle) -> Script[Record | None]:
    """Return the record that counts."""
    for _ in range(TRIES):
        new = yield from loaded(NEW, handle)
        if new is not None and not is_copy(new):
            return new
        old = yield from loaded(OLD, handle)
        if old is not None and old.ended_because == MOVED:
            return new if new is not None else (yield from loaded(NEW, handle))
        if old is not None and old.ended_at is not None:
            return from_old(old)
        if new is None:
            return None if old is None else from_old(old)
        if new.ended_at is not None:
            return new
        if old is None:
            return None  # a copy without its original: nobody can tell that it was not ended, so it does not count
        yield from move(state, handle)
    raise _restless(handle)


def move(state: State, handle: Handle) -> Script[Moved]:
    """Move a session, or finish what another mover began; any number may do so at once."""
    for _ in range(TRIES):
        new = yield from loaded(NEW, handle)
        old = yield from loaded(OLD, handle)
        half = new is not None and new.ended_at is None and is_copy(new)
        if old is None or old.ended_at is not None:
            return (yield from _settled(new if half else None, old))
        if new is None:
            outcome = yield from _copied(state, old)
            if outcome is not None:
                return outcome
        elif new.ended_at is not None:
            yield from _ended(OLD, handle, new.ended_because or MOVED)
        elif new.family_proof != old.family_proof:
            message = f"session {handle!r} is somebody else's in the new store; give each move a new store of its own"
            raise StoreError(message)
        elif not half:
            yield from _ended(OLD, handle, MOVED)
        elif _is_same(new, old):
            mark = (Update(record=old, was=old.version), End(handle=handle, because=MOVED))
            yield from committed(OLD, os.urandom(16), mark, durable=True)
        else:
            refreshed = Update(record=replace(old, version=new.version), was=new.version)
            yield from committed(NEW, copy_id(), (refreshed,), durable=True)
    raise _restless(handle)


def _settled(half: Record | None, old: Record | None) -> Script[Moved]:
    """Do what is left when the original lives no more: confirm its copy, or end it with it."""
    if old is not None and old.ended_because == MOVED:
        if half is not None:
            confirmed = replace(half, seen_at=max(half.seen_at, old.seen_at))
            yield from committed(NEW, os.urandom(16), (Update(record=confirmed, was=half.version),), durable=False)
        return "moved"
    if half is not None:
        yield from _ended(NEW, half.handle, "epoch" if old is None else old.ended_because or "epoch")
    return "gone" if old is None else "ended"


def _copied(state: State, old: Record) -> Script[Moved | None]:
    """Write the first copy; or say why not."""
    if not fits((yield from salt_of(state)), old):
        return "stays"
    if _is_fresh(old) and (yield Ask(OLD, "epochs")).store_now < old.handed_at + FRESH:
        return "waits"
    conflict = yield from committed(NEW, copy_id(), (Insert(record=old),), durable=True)
    if conflict is None or conflict.why != "epoch":
        return None
    again = yield from loaded(OLD, old.handle)
    if again is None or again.version != old.version:
        return None
    # It lives, although its subject's epoch is later: whoever raised that kept it. The copy gets past the epoch with a
    # later login, which the next round corrects before anything counts on it.
    now = (yield Ask(NEW, "epochs")).store_now
    lifted = replace(old, authenticated_at=now + _LATER)
    conflict = yield from committed(NEW, copy_id(), (Insert(record=lifted),), durable=True)
    return "stays" if conflict is not None and conflict.why == "epoch" else None


def fits(salt: bytes, record: Record) -> bool:
    """Tell whether the new store can hold a record: where it has shards, subjects' handles begin with theirs."""
    if not salt or record.subject is None:
        return True
    return record.handle.startswith(shard_of(salt, record.realm, record.subject))


def _is_fresh(record: Record) -> bool:
    return record.used_at is None and record.former_proof is None and record.version == 1


def _is_same(copy: Record, old: Record) -> bool:
    """Tell whether a copy holds what its original does; when it was last seen is made up for when it is confirmed."""
    neutral = {"version": 0, "by": b"", "seen_at": 0.0}
    if copy.used_at is not None and copy.turn_proof == old.turn_proof:
        neutral |= {"used_at": None, "nonce": None}  # a first sight happens once, in whichever of them
    return replace(copy, **neutral) == replace(old, **neutral)


def _ended(side: str, handle: Handle, because: str) -> Script[None]:
    yield from committed(
        OLD if side == OLD else NEW, os.urandom(16), (End(handle=handle, because=because),), durable=True
    )


def _restless(handle: Handle) -> NotApplied:
    return NotApplied(f"session {handle!r} kept changing while it was moved; try again")


# Ends and activity.


def target(state: State, change: End) -> Script[Record | None]:
    """Return the record that an End is about: of a session that was replaced, its live end, in whichever store."""
    record = yield from load(state, change.handle)
    if change.if_seen_at is not None:
        return record
    met: set[Handle] = set()
    while record is not None and record.ended_because == "replaced" and record.successor and record.handle not in met:
        met.add(record.handle)
        record = yield from load(state, record.successor)
    return record


def end(state: State, commit_id: bytes, change: End, *, durable: bool, rode: bool = False) -> Script[None]:
    """End a session wherever it lies; its events are written where that takes effect.

    `rode`: a commit on the old store had this end in it already.
    """
    for number in range(TRIES):
        record = yield from target(state, change)
        if record is None:
            return
        here = replace(change, handle=record.handle)
        if not in_old(record):
            if record.ended_at is None:
                yield from committed(NEW, part(commit_id, f"new {number}"), (here,), durable=durable)
            return
        if record.ended_at is None and not rode:
            yield from committed(OLD, part(commit_id, f"old {number}"), (here,), durable=durable)
        old = yield from loaded(OLD, record.handle)
        if old is None or old.ended_at is None:
            return  # judged by a clock, and seen since
        if record.ended_at is None and old.ended_because in (MOVED, "replaced"):
            continue  # it went on elsewhere meanwhile
        yield from _bury(state, part(commit_id, "tombstone"), old)
        return
    raise _restless(change.handle)


def _bury(state: State, commit_id: bytes, old: Record) -> Script[None]:
    """Leave a tombstone in the new store, so that no copy can be written any more."""
    because = old.ended_because or ""
    if because == "replaced":
        return  # it has a successor, which only the old store can name
    if not (yield from has_begun(state)):
        return  # who begins to copy from now on finds it ended
    for number in range(TRIES):
        new = yield from loaded(NEW, old.handle)
        if new is not None and new.ended_at is None:
            yield from _ended(NEW, old.handle, because)
        if new is not None:
            return
        if not fits((yield from salt_of(state)), old):
            return
        husk = replace(old, ended_at=None, ended_because=None, successor=None)
        if number:
            husk = replace(husk, authenticated_at=(yield Ask(NEW, "epochs")).store_now + _LATER)
        tombstone = (Insert(record=husk), End(handle=old.handle, because=because))
        yield from committed(NEW, copy_id(part(commit_id, str(number))), tombstone, durable=True)
    raise _restless(old.handle)


def touch(state: State, commit_id: bytes, change: Touch, *, durable: bool) -> Script[None]:
    """Note activity wherever the session lies."""
    new = yield from loaded(NEW, change.handle)
    if new is None or is_copy(new):
        record = yield from load(state, change.handle)
        if record is None or record.ended_at is not None:
            return
        if in_old(record):
            yield from committed(OLD, part(commit_id, "old"), (change,), durable=durable)
            change = replace(change, events=())  # and in case that it was moved meanwhile
    yield from committed(NEW, part(commit_id, "new"), (change,), durable=durable)
