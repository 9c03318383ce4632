"""What the promises of a store are spoken with: a face that is called without await, and what it commits."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import Any

from ..core.model import (
    Change,
    Client,
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
)
from .clock import Clock

TOMBSTONE = 7 * 86400.0
"""How long the store under test must keep an ended record, in seconds."""

TURN = b"turn" * 8
"""The turn proof of every record that `make` makes."""


class Face:
    """A store of either colour, called without await: an async one runs on an event loop of its own."""

    def __init__(self, store: Any) -> None:
        """Wrap a store."""
        self.store = store
        self._runner = asyncio.Runner() if inspect.iscoroutinefunction(store.load) else None
        self._ids = count(1)

    def load(self, handle: Handle) -> Record | None:
        """Load a record."""
        found: Record | None = self._done(self.store.load(handle))
        return found

    def have(self, handle: Handle) -> Record:
        """Load a record that must be there."""
        found = self.load(handle)
        assert found is not None, f"{handle} is gone"
        return found

    def commit(self, *changes: Change, commit_id: bytes = b"", durable: bool = False) -> Conflict | None:
        """Commit, under a fresh id unless one is given."""
        fresh = commit_id or b"commit-%d" % next(self._ids)
        conflict: Conflict | None = self._done(self.store.commit(fresh, changes, durable))
        return conflict

    def done(self, *changes: Change, commit_id: bytes = b"", durable: bool = False) -> None:
        """Commit, without a conflict."""
        assert self.commit(*changes, commit_id=commit_id, durable=durable) is None

    def together(self, *changes: Change) -> list[Conflict | None]:
        """Commit each change by itself, all at once: in threads, or as tasks of the loop."""
        commits = [(b"together-%d" % number, [change], False) for number, change in enumerate(changes)]
        if self._runner is None:
            with ThreadPoolExecutor(max_workers=8) as pool:
                return list(pool.map(lambda given: self.store.commit(*given), commits))
        results: list[Conflict | None] = self._runner.run(_gathered([self.store.commit(*given) for given in commits]))
        return results

    def find(self, **query: Any) -> RecordPage:
        """Find records."""
        page: RecordPage = self._done(self.store.find(Query(**query)))
        return page

    def purge(self, limit: int = 100) -> int:
        """Purge once."""
        number: int = self._done(self.store.purge(limit))
        return number

    def epochs(self) -> Epochs:
        """Ask for the epochs."""
        epochs: Epochs = self._done(self.store.epochs())
        return epochs

    def events(self, **query: Any) -> EventPage:
        """Ask for events."""
        page: EventPage = self._done(self.store.events(EventQuery(**query)))
        return page

    def named(self, name: str) -> list[Event]:
        """Return the events of a name, newest first."""
        return list(self.events(name=name).items)

    def forget_events(self, before: Instant, limit: int = 100, *, noise: bool = False) -> int:
        """Forget events."""
        number: int = self._done(self.store.forget_events(before, limit, noise=noise))
        return number

    def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Listen for changes; return what ends that."""
        stop: Callable[[], None] = self._done(self.store.watch(notice))
        return stop

    def until(self, true: Callable[[], object], seconds: float = 5.0) -> bool:
        """Wait until something is true, at most so long, while the store's event loop runs; tell whether it became so.

        For what a store tells by itself, in its own time.
        """
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            if self._runner is None:
                time.sleep(0.002)
            else:
                self._done(asyncio.sleep(0.002))
        return bool(true())

    def close(self) -> None:
        """Close the store and the loop."""
        self._done(self.store.close())
        if self._runner is not None:
            self._runner.close()

    def _done(self, result: Any) -> Any:
        return result if self._runner is None else self._runner.run(_awaited(result))


async def _awaited(result: Any) -> Any:
    return await result


async def _gathered(results: Sequence[Any]) -> Any:
    return await asyncio.gather(*results)


def make(handle: Handle, clock: Clock, **changed: Any) -> Record:
    """Return a plain record of ann, as of now."""
    fields: dict[str, Any] = {
        "realm": "",
        "handle": handle,
        "family_proof": b"family:" + handle.encode(),
        "turn_proof": TURN,
        "used_at": clock.now,
        "handed_at": clock.now,
        "data": b"\x01data",
        "created_at": clock.now,
        "seen_at": clock.now,
        "idle_for": 1800.0,
        "expires_at": clock.now + 30 * 86400,
        "subject": "ann",
    }
    if changed.get("subject", "ann") is not None:
        fields["authenticated_at"] = clock.now
    return Record(**{**fields, **changed})


def full(clock: Clock) -> Record:
    """Return a record "h" whose every field says something."""
    return make(
        "h",
        clock,
        realm="admin",
        used_at=clock.now - 2.5,
        former_proof=b"former",
        nonce=None,
        handed_at=clock.now - 3,
        methods=("pwd", "otp"),
        level=20,
        persistent=True,
        client=Client("192.0.2.1", "Mozilla/5.0"),
        binding=b"\x00key",
        by=b"mine",
        tenant="Acme & Söhne",
        seen_from=Client("2001:db8::7", None),
        suspected_at=clock.now - 0.5,
    )


def event(name: str, clock: Clock, **changed: Any) -> Event:
    """Return an event, as of now."""
    return Event(**{"name": name, "at": clock.now, **changed})


def chain(face: Face, clock: Clock, *handles: Handle) -> None:
    """Insert the first and replace each by the next."""
    face.done(Insert(record=make(handles[0], clock)))
    for old, new in pairwise(handles):
        face.done(Replace(record=make(new, clock), old=old, was=face.have(old).version))
