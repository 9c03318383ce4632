"""The crowd notices a store that lies, and finds nothing to say of one that does not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied, Unknown
from coatcheck.core.model import Change, Conflict, End, EndOthers, Handle, Insert, Record, Update
from coatcheck.stores.memory import MemoryStore
from tests.support.crowd import Crowd


class Lying(MemoryStore):
    """Says that it did what it did not."""

    def __init__(self, lie: str) -> None:
        super().__init__()
        self._lie, self._number = lie, 0

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        self._number += 1
        (change,) = changes
        if self._lie == "forgets ends" and isinstance(change, (End, EndOthers)):
            return None
        if self._lie == "forgets logins" and isinstance(change, Insert) and self._number % 5 == 0:
            return None
        if self._lie == "forgets durable" and isinstance(change, Update) and durable:
            return None
        if self._lie == "forgets plain" and isinstance(change, Update) and not durable:
            return None
        conflict = super().commit(commit_id, changes, durable)
        if self._lie == "loses answers" and self._number % 3 == 0:
            raise Unknown
        return conflict

    def load(self, handle: Handle) -> Record | None:
        record = super().load(handle)
        if self._lie == "ends" and record is not None and not record.ended_at and self._number % 7 == 0:
            return replace(record, ended_at=1.0)
        if self._lie == "mixes up" and record is not None and self._number % 7 == 0:
            return replace(record, handle="another")
        if self._lie == "is away" and self._number % 3 == 0:
            self._number += 1
            raise NotApplied
        return record


LIES = {
    "forgets ends": ("revived",),
    "forgets logins": ("lost_durable",),
    "forgets durable": ("lost_durable",),
    "forgets plain": ("lost_plain",),
    "ends": ("wrong",),
    "mixes up": ("wrong",),
    "loses answers": (),
    "is away": (),
    "never": (),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_book_says_what_was_broken_and_nothing_else(lie: str) -> None:
    store: Any = Lying(lie)
    crowd = Crowd(b"", pace=0.001)
    with crowd.walking(store, 2), crowd.walking(store, 2):
        time.sleep(0.4)
    store._lie = "never"
    crowd.check(store)
    book = crowd.book
    found = {name for name in ("revived", "lost_durable", "lost_plain", "wrong") if getattr(book, name)}
    assert found == set(LIES[lie])
    assert bool(book.broken()) == (bool(LIES[lie]) and lie != "forgets plain")
    assert book.calls["commit"] > 20
    assert book.calls["load"] > 20
    assert bool(book.failures) == (lie in ("loses answers", "is away"))


def test_recovery_is_counted_from_the_trouble_to_the_last_failure() -> None:
    store: Any = Lying("is away")
    crowd = Crowd(b"", pace=0.001)
    began = time.monotonic()
    with crowd.walking(store, 1):
        time.sleep(0.2)
    last = crowd.book.failures[-1].at
    assert crowd.book.recovered(began, last + 1) == pytest.approx(last - began)
    assert crowd.book.recovered(last, last + 1) == 0
