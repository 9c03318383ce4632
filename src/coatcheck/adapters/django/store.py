"""Sessions in Django's own database connection: tests, routers and transactions behave as Django's users expect.

Rules
- Reads and writes go to the database that the routers give for writing: a replica that lags would let revoked sessions
  live.
- A commit is one `atomic` block, inside an outer one a savepoint: a conflict never poisons the outer transaction. What
  is rolled back outside is rolled back here, too: a revocation inside a view under ATOMIC_REQUESTS that raises is
  undone, what the middleware commits is not (it stands outside the view's transaction).
- The statements are those of our other SQL stores (stores/rounds.py); only the words of SQLite are said here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import uuid4

from django.db import DEFAULT_DB_ALIAS, connections, router, transaction  # type: ignore[import-untyped]
from django.db.utils import DatabaseError, IntegrityError, InterfaceError, OperationalError  # type: ignore[import-untyped]

from ...core.errors import NotApplied, StoreError, Unknown
from ...core.model import (
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
from ...stores.rounds import Answer, Round, Rounds, Steps, drive
from . import words

T = TypeVar("T")

WEEK: Final = 7 * 86400.0
_atomic: Any = transaction.atomic
_BRACKETS: Final = ("commit", "rollback")


class DjangoStore:
    """Keeps sessions through `connections[alias]`; without an alias, where the routers write the sessions."""

    def __init__(
        self, alias: str | None = None, *, clock: Callable[[], Instant] | None = None, tombstone: float = WEEK
    ) -> None:
        """Open nothing yet. `clock` is for tests."""
        self._alias, self._clock, self._tombstone = alias, clock, tombstone
        self._rounds: dict[str, Rounds] = {}
        self.listeners: list[Callable[[Sequence[Event]], None]] = []

    @property
    def alias(self) -> str:
        """The name of the database."""
        if self._alias is not None:
            return self._alias
        from .models import StoredSession

        return str(router.db_for_write(StoredSession) or DEFAULT_DB_ALIAS)

    def load(self, handle: Handle) -> Record | None:
        """Return the stored record, ended and expired ones too, or None if there is none."""
        return self._read(lambda rounds: rounds.load(handle))

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        """Apply all changes or none."""
        done = self._write(lambda rounds: rounds.commit(commit_id, changes, durable))
        self._tell(done.events)
        return done.result

    def find(self, query: Query) -> RecordPage:
        """Return a page of records in the order (created_at, handle)."""
        return self._read(lambda rounds: rounds.find(query))

    def purge(self, limit: int) -> int:
        """End overdue records and delete old tombstones: one batch, at most `limit`; return how many."""
        done = self._write(lambda rounds: rounds.purge(limit))
        self._tell(done.events)
        return done.result

    def epochs(self) -> Epochs:
        """Return the store's clock and its epochs."""
        return self._read(lambda rounds: rounds.epochs())

    def events(self, query: EventQuery) -> EventPage:
        """Return a page of events, newest first."""
        return self._read(lambda rounds: rounds.events(query))

    def forget_events(self, before: Instant, limit: int, *, noise: bool = False) -> int:
        """Delete at most `limit` facts (or noise) older than `before`; return how many."""
        return self._write(lambda rounds: rounds.forget_events(before, limit, noise))

    def renew_generation(self) -> str:
        """Begin another generation, after a restore; return its name."""
        return self._write(lambda rounds: rounds.renew_generation(uuid4().hex))

    def close(self) -> None:
        """Do nothing: the connections are Django's."""

    def _tell(self, events: Sequence[Event]) -> None:
        for listener in self.listeners if events else ():
            listener(events)

    def _read(self, verb: Callable[[Rounds], Steps[T]]) -> T:
        alias = self.alias
        with _named(deciding=False):
            return self._driven(alias, verb)

    def _write(self, verb: Callable[[Rounds], Steps[T]]) -> T:
        alias = self.alias
        with _named(deciding=not connections[alias].in_atomic_block), _atomic(using=alias):
            return self._driven(alias, verb)

    def _driven(self, alias: str, verb: Callable[[Rounds], Steps[T]]) -> T:
        connection = connections[alias]
        rounds = self._rounds.get(alias)
        if rounds is None:
            made, tables = words.rounds_of(connection.vendor)
            clock = time.time if self._clock is None and connection.vendor == "sqlite" else self._clock
            self._rounds[alias] = rounds = made(tables, clock, self._tombstone)
        inward, outward = words.translators(connection.vendor)

        def send(asked: Round) -> Sequence[Answer]:
            answers = []
            with connection.cursor() as cursor:
                for ask in asked.asks:
                    if ask.text in _BRACKETS:  # the atomic block is our bracket; a conflict has written nothing
                        answers.append(Answer((), 0))
                        continue
                    cursor.execute(ask.text, inward(ask.values))
                    rows = [outward(row) for row in cursor.fetchall()] if cursor.description else []
                    answers.append(Answer(rows, cursor.rowcount))
            return answers or [Answer((), 0)]  # without a `begin` a round may be empty

        return drive(verb(rounds), send)


@contextmanager
def _named(*, deciding: bool) -> Iterator[None]:
    """Raise the database's errors as those of the contract."""
    try:
        yield
    except IntegrityError as error:
        message = f"the database refused a commit that others were faster with ({error}); nothing was written"
        raise NotApplied(message) from error
    except (OperationalError, InterfaceError) as error:
        kind = Unknown if deciding and not words.is_contended(error) else NotApplied
        message = f"the database did not answer ({error}); if a table is missing, run `manage.py migrate coatcheck`"
        raise kind(message) from error
    except DatabaseError as error:
        message = f"the database refused ({error}); if a table is missing, run `manage.py migrate coatcheck`"
        raise StoreError(message) from error
