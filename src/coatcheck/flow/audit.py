"""The trail of a store, sealed and looked through: for a timer, and for an auditor."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from ..core import audit
from ..core.audit import SEALED, Fault, Seal
from ..core.errors import StoreError
from ..core.model import Event, EventQuery, Instant, Note
from ..core.roots import Roots
from ..core.traces import placed
from .journal import here
from .store import AuditedStore

if TYPE_CHECKING:
    from .store import Store

PAGE = 500


class Report(msgspec.Struct, frozen=True, gc=False):
    """What a look through a trail found: its seals, oldest first, what does not fit, and how many facts come after."""

    seals: tuple[Seal, ...]
    faults: tuple[Fault, ...]
    unsealed: int


class Audit:
    """The trail of a store, under the seal of a root secret."""

    def __init__(self, store: Store, roots: Roots) -> None:
        """Join a store that keeps events and the secret; asks nothing. Raises StoreError where none are kept."""
        if not isinstance(store, AuditedStore):
            message = f"{type(store).__name__} keeps no events; every store of coatcheck's own does"
            raise StoreError(message)
        self._store, self._events, self._roots = store, store, roots

    def seal(self) -> Seal | None:
        """Seal what was told since the last time, and return the seal; None: there is nothing yet that could be.

        Whoever comes second finds it done: of two at a time one seal is kept.
        """
        now = self._store.epochs().store_now
        seals = audit.genuine(self._facts(name=SEALED), self._roots)
        if seals:
            made = audit.following(seals[-1], self._facts(since=seals[-1].until), now, self._roots)
        else:
            made = audit.first(now, self._roots)
        if made is not None:
            commit_id = sha256(f"{SEALED}\0{made.number}\0{made.before}".encode()).digest()[:16]
            note = Note(events=(placed(audit.event_of(made, now), here()),))
            self._store.commit(commit_id, (note,), durable=True)
        return made

    def verify(self, remembered: str = "") -> Report:
        """Look through the whole trail; `remembered` is the name of a seal that was written down elsewhere."""
        facts = list(self._facts())
        kept = [one for one in facts if one.name == SEALED]
        seals = audit.genuine(kept, self._roots)
        until = seals[-1].until if seals else float("-inf")
        return Report(
            tuple(seals),
            tuple(audit.faults(kept, facts, self._roots, remembered)),
            sum(one.at > until for one in facts),
        )

    def _facts(self, name: str | None = None, since: Instant | None = None) -> Iterator[Event]:
        cursor = None
        while True:
            query = EventQuery(name=name, since=since, noise=False, limit=PAGE, cursor=cursor)
            page = self._events.events(query)
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return
