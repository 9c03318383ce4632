"""What is asked of the two stores of a move, step by step, once for both colours.

A script is a generator: it yields an `Ask` (a verb of one of the two stores), is sent the answer or thrown the error,
and returns what the whole means. `drive` runs it on blocking stores, `adrive` on awaited ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from msgspec.structs import replace

from ...core.errors import NotApplied, StoreError, Unknown
from ...core.model import Change, Conflict, Handle, Record

T = TypeVar("T")

Side: TypeAlias = Literal["new", "old"]
NEW: Final[Side] = "new"
OLD: Final[Side] = "old"

FAR: Final = 1 << 40
"""What the version of a record is raised by that was read from the old store: so that a write which is based on it
can never be taken for one that is based on the record's copy, whose versions are counted anew."""

_COPY: Final = b"coatcopy"
"""How the id of a commit begins that copies a session; see `is_copy`."""


class Ask(NamedTuple):
    """A verb of one of the stores, and its arguments."""

    side: Side
    verb: str
    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = {}


Script: TypeAlias = Generator[Ask, Any, T]


def loaded(side: Side, handle: Handle) -> Script[Record | None]:
    """Ask for a record, as it lies there."""
    record: Record | None = yield Ask(side, "load", (handle,))
    return record


def committed(side: Side, commit_id: bytes, changes: Sequence[Change], *, durable: bool) -> Script[Conflict | None]:
    """Ask for a commit."""
    conflict: Conflict | None = yield Ask(side, "commit", (commit_id, changes, durable))
    return conflict


def copy_id(name: bytes = b"") -> bytes:
    """Return the id of a commit that writes a copy, or a tombstone instead of one."""
    return _COPY + (name or os.urandom(8))[:8]


def is_copy(record: Record) -> bool:
    """Tell whether a record of the new store is a copy that nobody has written to since, nor confirmed.

    While it lives, the old store says whether it counts: only if the original is marked as moved. Where the original
    ended by itself, that says more than the tombstone of its copy.
    """
    return record.by.startswith(_COPY)


def part(commit_id: bytes, name: str) -> bytes:
    """Return the id of a part of a commit: the same one each time the commit is tried."""
    return sha256(commit_id + b"\0" + name.encode()).digest()[:16]


def from_old(record: Record) -> Record:
    """Return a record of the old store as callers see it."""
    return replace(record, version=record.version + FAR)


def in_old(record: Record) -> bool:
    """Tell whether a record that callers see lies in the old store."""
    return record.version >= FAR


class Run(Generic[T]):
    """A script on its way: what it asks next, and in the end its result."""

    def __init__(self, script: Script[T], seconds: float | None) -> None:
        """Begin; a script that is not done in time gets no more answers."""
        self._script = script
        self._until = None if seconds is None else time.monotonic() + seconds
        self._wrote = False
        self.ask: Ask | None = None
        self._advance(lambda: next(script))

    def answered(self, answer: Any) -> None:
        """Go on with an answer."""
        if self.ask is not None and self.ask.verb == "commit" and answer is None:
            self._wrote = True
        if self._until is not None and time.monotonic() > self._until:
            self.failed(NotApplied("the two stores of a move did not answer in time; nothing was written; try again"))
        else:
            self._advance(lambda: self._script.send(answer))

    def failed(self, error: StoreError) -> None:
        """Go on with an error; where a part was written already, nobody may think that nothing was."""
        if self._wrote and isinstance(error, NotApplied):
            error = Unknown(f"a part of a commit on the two stores of a move was written, the rest was not: {error}")
        self._advance(lambda: self._script.throw(error))

    @property
    def result(self) -> T:
        """What the script returned."""
        returned: T = self._returned
        return returned

    def _advance(self, step: Any) -> None:
        try:
            self.ask = step()
        except StopIteration as done:
            self.ask, self._returned = None, done.value


def drive(script: Script[T], stores: dict[Side, Any], seconds: float | None = None) -> T:
    """Run a script on blocking stores."""
    run = Run(script, seconds)
    while (ask := run.ask) is not None:
        try:
            answer = getattr(stores[ask.side], ask.verb)(*ask.arguments, **ask.named)
        except StoreError as error:
            run.failed(error)
        else:
            run.answered(answer)
    return run.result


async def adrive(script: Script[T], stores: dict[Side, Any], seconds: float | None = None) -> T:
    """Run a script on awaited stores."""
    run = Run(script, seconds)
    while (ask := run.ask) is not None:
        try:
            answer = await getattr(stores[ask.side], ask.verb)(*ask.arguments, **ask.named)
        except StoreError as error:
            run.failed(error)
        else:
            run.answered(answer)
    return run.result
