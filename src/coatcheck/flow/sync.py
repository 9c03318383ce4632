"""The flow, blocking: what a store must offer, one request's exchange with it, and the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..core.model import (
    Change,
    Conflict,
    Epochs,
    EventPage,
    EventQuery,
    Handle,
    Query,
    Record,
    RecordPage,
)


class Store(Protocol):
    """Where records lie. The whole contract stands in docs/stores.md and is tested by `testing.contract`."""

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none.

        Raises StoreError for every failure; None never means "could not tell".
        """
        ...

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none; at most one is primary, and only that one can conflict.

        A commit that was applied already (same `commit_id`) answers None and applies nothing more.
        Raises NotApplied, Unknown or Unconfirmed.
        """
        ...

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        ...

    def purge(self, limit: int) -> int:
        """End at most `limit` overdue records, delete records past their tombstone; return how many."""
        ...

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        ...


@runtime_checkable
class AuditedStore(Protocol):
    """A store that also keeps the events of its commits."""

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        ...
