"""What keeps a store small: ends of what is overdue, deletions of old tombstones and of old events.

Rules
- Any number of workers may do it at once: each write checks that its record is still what was read.
- A batch is bounded, and so is the time of a call: what is left waits for the next one.
- Every key has an end of its own, so nothing here is needed for safety; it writes down who expired, and tidies sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from ...core import ledger
from ...core.epochs import KEPT, TENANT
from ...core.model import Event, Handle, Instant, Record
from . import format  # noqa: A004 - the record's
from .keys import COMMON, EPOCH, Tag
from .plan import Plan, Settings
from .scripts import FORGET_EPOCHS_SHA
from .steps import Ask, Steps, asked, number

PURGE_ROWS: Final = 100
PURGE_SECONDS: Final = 0.05
PURGE_PATIENCE: Final = 1.0
"""Seconds more for a call that so far met only records that are not over yet."""
EPOCHS_EVERY: Final = 3600.0
_WINDOW: Final = 512


class Tidier:
    """Purges one store, beginning where the last purge of this process stopped."""

    def __init__(self, settings: Settings, start: Callable[[int], int]) -> None:
        """Begin at a shard of its own: `start` names one of so many."""
        self._set, self._keys = settings, settings.keys
        self._at = start(len(self._keys.tags))
        self._epochs_at = float("-inf")

    def purge(self, limit: int, written: list[Event]) -> Steps[int]:
        """End overdue records and delete old tombstones, at most `limit`; 0 means that nothing was due.

        The events that it writes are added to `written`. Epochs that no session can be older than are forgotten.
        """
        done, looked, until = 0, 0, monotonic() + PURGE_SECONDS
        tags = self._keys.tags
        while looked < len(tags) and done < limit:
            window = [tags[(self._at + step) % len(tags)] for step in range(min(_WINDOW, len(tags) - looked))]
            now, due = yield from self._due(window, min(PURGE_ROWS, limit - done))
            if abs(now - self._epochs_at) >= EPOCHS_EVERY:
                yield from self._forget_epochs(now)
            for tag, handles in due.items():
                if done < limit:
                    done += yield from self._settle(tag, handles[: limit - done], now, written)
            if monotonic() > until + (not done) * PURGE_PATIENCE:
                break
            if not due:
                self._at = (self._at + len(window)) % len(tags)
                looked += len(window)
        return done

    def _forget_epochs(self, now: Instant) -> Steps[None]:
        """Forget, now and then, what was raised for tenants so long ago that no session is older."""
        command = ("EVALSHA", FORGET_EPOCHS_SHA, 1, self._keys.store, EPOCH + TENANT, number(now - KEPT))
        yield from asked(Ask(COMMON, [command], decides=True))
        self._epochs_at = now

    def _due(self, tags: Sequence[Tag], most: int) -> Steps[tuple[Instant, dict[Tag, list[Handle]]]]:
        now = yield from self.now()
        command = ("-inf", number(now), "LIMIT", 0, most)
        answers = yield from asked(*(Ask(tag, [("ZRANGEBYSCORE", self._keys.of(tag, "d"), *command)]) for tag in tags))
        due = {tag: [one.decode() for one in found] for tag, (found,) in zip(tags, answers, strict=True) if found}
        return now, due

    def turn(self, seconds: float) -> Steps[bool]:
        """Tell whether it is this process's turn to tidy; of all of them, one has it each `seconds`."""
        lasts = str(int(seconds * 1000))
        ((taken,),) = yield from asked(Ask(COMMON, [("SET", self._keys.keeper, "1", "NX", "PX", lasts)]))
        return taken is not None

    def now(self) -> Steps[Instant]:
        """Return the store's clock."""
        ((time,),) = yield from asked(Ask(COMMON, [("TIME",)]))
        return self._set.now(time)

    def _settle(self, tag: Tag, handles: list[Handle], now: Instant, written: list[Event]) -> Steps[int]:
        """Do what is due with the records of a shard; what changes meanwhile is looked at next time."""
        (values,) = yield from asked(Ask(tag, [("GET", self._keys.record(handle)) for handle in handles]))
        done, events, plan = 0, list[Event](), Plan(self._set, tag)
        for handle, value in zip(handles, values, strict=True):
            record = None if value is None else format.unpack(handle, value)
            plan.expect(handle, record)
            over = None if record is None else ledger.expired(record, now)
            if over is not None:
                plan.keep(over[0], now)
                plan.note(over[1], numbered=False)
                events.append(over[1])
            done += over is not None or self._forget(plan, tag, handle, record, now)
        (answers,) = yield from asked(Ask(tag, [plan.command()], decides=True))
        if answers[0]:
            written += events
            return done
        if len(handles) == 1:
            return 0
        half = len(handles) // 2
        first = yield from self._settle(tag, handles[:half], now, written)
        return first + (yield from self._settle(tag, handles[half:], now, written))

    def _forget(self, plan: Plan, tag: Tag, handle: Handle, record: Record | None, now: Instant) -> bool:
        """Delete a tombstone, or what led to a record that is gone; look again later at a record that is not over."""
        due = self._keys.of(tag, "d")
        if record is None:
            plan.act("ZREM", due, handle)
            return True
        at = self._set.due_at(record)
        if record.ended_at is None or now < at:
            plan.act("ZADD", due, number(at), handle)
            return False
        plan.act("DEL", self._keys.record(handle))
        plan.act("ZREM", due, handle)
        if record.subject is not None:
            plan.act("ZREM", self._keys.about(tag, "e", (record.realm, record.subject)), handle)
        return True

    def forget_events(self, before: Instant, limit: int, *, noise: bool) -> Steps[int]:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        kind, done, tags = "n" if noise else "f", 0, self._keys.tags
        for first in range(0, len(tags), _WINDOW):
            window = tags[first : first + _WINDOW]
            if done < limit:
                done += yield from self._forget_window(window, kind, before, limit - done)
        return done

    def _forget_window(self, tags: Sequence[Tag], kind: str, before: Instant, limit: int) -> Steps[int]:
        command = ("-inf", f"({number(before)}", "LIMIT", 0, limit)
        answers = yield from asked(*(Ask(tag, [("ZRANGEBYSCORE", self._keys.of(tag, kind), *command)]) for tag in tags))
        asks, left = [], limit
        for tag, (members,) in zip(tags, answers, strict=True):
            if members and left > 0:
                asks.append(Ask(tag, [("ZREM", self._keys.of(tag, kind), *members[:left])]))
                left -= len(members)
        if not asks:
            return 0
        return sum(answer[0] for answer in (yield from asked(*asks)))
