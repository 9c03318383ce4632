"""Sessions of another library, blocking: an old token is looked up, converted once, and forgotten where it lay.

The order is that of its safety: the mark first, then the session, then the old store's copy goes. Who finds a mark
without a session does what was left undone. The twin differs in the words async and await.
"""

from __future__ import annotations

import os
import random
from time import monotonic, sleep
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..core import converter
from ..core.converter import Claim, Found, Made
from ..core.errors import DataError, StoreError
from ..core.legacy import Old
from ..core.manager import SessionManager
from ..core.model import Conflict, Insert, Instant, Record, Request, Update
from .asking import ask
from .journal import logger

if TYPE_CHECKING:
    from .store import Store

DEADLINE = 2.0
"""Seconds that one commit may take, with everything that it meets."""
MOST_TOLD = 64


class Conversions:
    """The conversions of one application's old sessions."""

    def __init__(self, manager: SessionManager, store: Store) -> None:
        """Join a manager whose settings name old sessions, and a store. Opens nothing."""
        self._manager = manager
        self._store = store
        self._told: set[str] = set()

    def found(self, request: Request, claim: Claim, floor: Instant) -> Found:
        """Return the session that an old token became, now or before, and the ticket to hand out if it was now."""
        mark = self._store.load(claim.mark)
        claim = self._manager.converting.marked(claim, mark)
        handle = None if mark is None else converter.session_of(mark)
        record = None if handle is None else self._store.load(handle)
        if record is not None:
            return self._collected(request, claim, record)
        if not self._manager.may_convert(request, mark):
            return Found(claim)
        try:
            old = self._read(claim)
            if old is None:  # perhaps somebody else was faster, and it is gone from the old store
                return self._of_mark(claim)
            made = self._manager.made(claim, old, self._manager.client(request), floor)
        except DataError as error:
            self._tell(claim, error)
            return Found(claim)
        return Found(claim) if made is None else self._convert(request, claim, made, mark)

    def _of_mark(self, claim: Claim) -> Found:
        mark = self._store.load(claim.mark)
        handle = None if mark is None else converter.session_of(mark)
        record = None if handle is None else self._store.load(handle)
        return Found(self._manager.converting.marked(claim, mark), record)

    def _collected(self, request: Request, claim: Claim, record: Record) -> Found:
        """Hand a session out that was taken over before its browser came; to one request, if many come at once."""
        manager = self._manager
        collected = manager.converting.collected(request, claim, record, manager.client(request), manager.now())
        if collected is None:
            return Found(claim, record)
        update, following = collected
        if self._commit(update, request) is not None:
            return Found(claim, self._store.load(record.handle))
        return Found(claim, replace(update.record, version=record.version + 1), following)

    def _read(self, claim: Claim) -> Old | None:
        if claim.shown.old is not None:
            return claim.shown.old
        if claim.source.moved:
            return None
        return ask(claim.source.fetch, claim.shown.key, self._manager.now())

    def _convert(self, request: Request, claim: Claim, made: Made, mark: Record | None) -> Found:
        """Write the mark and the session, each only if it is not there; whoever wrote the session may hand it out."""
        handle = made.insert.record.handle
        if mark is None:
            conflict = self._commit(Insert(record=self._manager.mark_of(claim, handle)), request)
            mark = None if conflict is None else conflict.current
        if mark is not None:
            if converter.session_of(mark) != handle:  # ended, or its subject is another's now, or taken over in bulk
                return self._of_mark(claim)
            record = self._store.load(handle)
            if record is not None:
                return Found(claim, record)
        conflict = self._commit(made.insert, request)
        if conflict is not None and conflict.current is None:  # refused: before the subject's epoch, or one too many
            return Found(claim)
        record = self._store.load(handle)
        if record is None or record.turn_proof != made.insert.record.turn_proof:
            return Found(claim, record)
        self._forget(claim)
        return Found(claim, record, made.following)

    def _forget(self, claim: Claim) -> None:
        """Delete the old store's copy; the mark stands, so one that stays behind opens nothing here."""
        if not claim.shown.key:
            return
        try:
            ask(claim.source.forget, claim.shown.key)
        except StoreError as error:
            logger.warning("a session that was taken over stays in the old store: %s", error)

    def _commit(self, change: Insert | Update, request: Request | None = None) -> Conflict | None:
        deadline = monotonic() + DEADLINE
        commit_id = os.urandom(16)
        changes = self._manager.traces.on(request, (change,))
        while True:
            try:
                return self._store.commit(commit_id, changes, durable=True)
            except StoreError as error:
                if not error.retry or monotonic() >= deadline:
                    raise
            sleep(random.uniform(0.0, 0.02))  # noqa: S311 - jitter, no secret

    def _tell(self, claim: Claim, error: DataError) -> None:
        """Say once why sessions of a kind cannot be kept."""
        sentence = converter.refusal(claim, error)
        if sentence not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(sentence)
            logger.warning("%s", sentence)
