"""The store, awaiting: what one must offer to a request, to the registry, and to whoever watches.

`coatcheck.testing.StoreContract` says what each verb promises. Its twin differs in the words async and await.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

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
)


class AsyncStore(Protocol):
    """Where records lie. The whole contract stands in docs/stores.md and is tested by `testing.contract`.

    `listeners` are called with the events that a commit wrote, once each, after it.
    """

    listeners: list[Callable[[Sequence[Event]], None]]

    async def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none.

        Raises StoreError for every failure; None never means "could not tell".
        """
        ...

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; at most one is primary, and only that one can conflict.

        A commit that was applied already (same `commit_id`) answers None and applies nothing more.
        A caller that is cancelled leaves it applied or not, never half. Raises NotApplied, Unknown or Unconfirmed.
        """
        ...

    async def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        ...

    async def purge(self, limit: int) -> int:
        """End at most `limit` overdue records, delete records past their tombstone; return how many."""
        ...

    async def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        ...

    async def close(self) -> None:
        """Let go of everything that was opened."""
        ...


@runtime_checkable
class AsyncAuditedStore(Protocol):
    """A store that also keeps the events of its commits."""

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        ...

    async def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        ...


@runtime_checkable
class AsyncWatchedStore(Protocol):
    """A store that tells when a record was changed or ended, by whatever process."""

    async def watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Listen: from the return on, call `notice` with the handle of each record that changes but for its activity.

        None instead of a handle: something may have gone unheard, look at everything. `notice` is quick and never
        raises; it may be called from any thread. Returns what ends the listening.
        """
        ...
