"""A guarded store, blocking: one that failed is asked with care, and not at all while its circuit is open.

It stands before a store only from a failure on until the next good answer, so a healthy one costs nothing (a limit on
slow answers keeps it there). Its twin differs in the words async and await, as the flow's do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..core.model import Change, Conflict, Epochs, Handle, Record

if TYPE_CHECKING:
    from .store import Store
    from .troubles import Asking


class GuardedStore:
    """The verbs of a store that a request needs, each asked within `asking`, which may refuse and learns from it."""

    def __init__(self, store: Store, asking: Callable[..., Asking]) -> None:
        """Stand before a store."""
        self._store = store
        self._asking = asking

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, as `Store.load` does."""
        with self._asking():
            return self._store.load(handle)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none, as `Store.commit` does."""
        with self._asking():
            return self._store.commit(commit_id, changes, durable)

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        with self._asking(proves=False):  # it may answer, and the sessions' table not
            return self._store.epochs()
