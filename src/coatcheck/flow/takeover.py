"""Sessions of another library, taken over in bulk: each becomes one of ours before its browser comes.

Rules (core/converter.py)
- The mark is written first, as begun; then the session; then the mark says that it is there; then the old store's copy
  goes. Killed between any two of these and run again, it goes on there, and never makes a second session.
- A session that was made and is no longer there was ended: its copy in the old store opens nothing.
- What cannot be kept stays where it is, and is told with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ..core import converter, realms
from ..core.errors import DataError, StoreError
from ..core.legacy import Old, Source
from ..core.manager import SessionManager
from ..core.model import Insert, Query, Record
from .legacy import Conversions
from .sync import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.converter import Claim
    from .store import Store

PAGE = 1000
TRIES = 8
SALT = 32


class Fate(NamedTuple):
    """What became of an old session, and why."""

    name: Literal["taken", "over", "refused"]
    why: str = ""


class Proof(NamedTuple):
    """What is there of a session that was taken over: `waits` for its browser, `live`, ended for a reason, or not."""

    name: Literal["waits", "live", "ended", "forgotten", "missing"]
    why: str = ""


OVER = Fate("over")
TAKEN = Fate("taken")


class Takeover(Conversions):
    """Takes the sessions of one application's old stores over."""

    def __init__(self, manager: SessionManager, store: Store) -> None:
        """Join a manager whose settings name old sessions, and the store that they go to; ask that for its epochs."""
        super().__init__(manager, store)
        self._converter = manager.converting
        self._exchange = Exchange(manager, store)
        self._exchange.floor()

    def look(self, source: Source, key: str) -> Fate:
        """Return what would become of a session; write nothing."""
        claim = self._converter.claim_of(source, source.of_key(key))
        mark = self._store.load(claim.mark)
        if mark is not None and not converter.is_open(mark, self._manager.now()):
            return OVER
        try:
            return OVER if self._waiting(claim, key) is None else TAKEN
        except DataError as error:
            return Fate("refused", str(error))

    def take(self, source: Source, key: str) -> Fate:
        """Make an old session one of ours, if it is not, and delete it where it lay. Raises StoreError."""
        for _ in range(TRIES):
            claim = self._converter.claim_of(source, source.of_key(key))
            mark = self._store.load(claim.mark)
            fate = self._taken(claim, key, mark)
            if fate is not None:
                if fate.name != "refused" and (mark is not None or fate is TAKEN):
                    source.forget(key)
                return fate
        message = "a session was changed by somebody else again and again; run it again"
        raise StoreError(message)

    def _taken(self, claim: Claim, key: str, mark: Record | None) -> Fate | None:
        """Do what is left to do for a session; None: somebody wrote the mark meanwhile, so look again."""
        if mark is not None and self._is_there(mark):
            return self._finish(mark)
        if not converter.is_open(mark, self._manager.now()):
            return OVER
        salt = b"" if mark is not None else self._manager.entropy(SALT)
        claim = self._converter.salted(claim, salt) if salt else self._converter.marked(claim, mark)
        try:
            insert = self._waiting(claim, key)
        except DataError as error:
            return Fate("refused", str(error))
        if insert is None:
            return OVER
        if mark is None:
            mark = self._converter.mark_of(claim, insert.record.handle, self._manager.now(), salt)
            if self._commit(Insert(record=mark)) is not None:
                return None
        elif converter.session_of(mark) != insert.record.handle:
            return Fate("refused", "it was begun with another subject, or by its browser, and is not there")
        conflict = self._commit(insert)
        if conflict is not None and conflict.current is None:
            return (
                OVER if conflict.why == "epoch" else Fate("refused", "its subject has as many sessions as it may have")
            )
        return self._finish(mark)

    def _finish(self, mark: Record) -> Fate:
        if converter.is_begun(mark):
            self._commit(converter.finished(mark))
        return TAKEN

    def _is_there(self, mark: Record) -> bool:
        handle = converter.session_of(mark)
        return handle is not None and self._store.load(handle) is not None

    def _waiting(self, claim: Claim, key: str) -> Insert | None:
        now = self._manager.now()
        old: Old | None = claim.source.fetch(key, now)
        if old is None:
            return None
        floor = self._exchange.floor()
        return self._converter.waiting(claim, old, now, salt=self._manager.salt, floor=floor)

    # -- what is there -----------------------------------------------------------------------------------------------

    def proofs(self) -> Iterator[Proof]:
        """Look up every session that was ever taken over."""
        realm, cursor = self._manager.realm + realms.CONVERTED, None
        while True:
            page = self._store.find(Query(realm=realm, limit=PAGE, cursor=cursor))
            for mark in page.items:
                yield self._proof(mark)
            cursor = page.cursor
            if cursor is None:
                return

    def _proof(self, mark: Record) -> Proof:
        handle = converter.session_of(mark)
        record = None if handle is None else self._store.load(handle)
        if record is None:
            return Proof("missing" if converter.is_begun(mark) else "forgotten")
        if record.ended_at is not None:
            return Proof("ended", record.ended_because or "unknown")
        if self._manager.now() >= record.deadline:
            return Proof("ended", "absolute" if self._manager.now() >= record.expires_at else "idle")
        return Proof("waits" if record.handed_at == converter.NEVER else "live")
