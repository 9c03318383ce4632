"""What Django's databases say differently: SQLite's words for the statements of stores/rounds.py, and values.

PostgreSQL's and MySQL's words are those of our own stores, without the beginning of a transaction: `atomic` begins it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from ...core.errors import ConfigError
from ...core.model import Instant
from ...stores import sql
from ...stores.rounds import Dialect, Rounds

PREFIX: Final = "coatcheck_"

Make: TypeAlias = Callable[[str, Callable[[], Instant] | None, float], Rounds]
Values: TypeAlias = Sequence[object]

_CONTENDED: Final = re.compile(r"locked|deadlock|lock wait timeout|could not serialize", re.IGNORECASE)


def _lock_records(handles: int, members: int) -> str:
    which = [f"handle {_among(handles)}"] if handles else []
    which += ["(realm = ? and subject = ? and ended_at is null)"] * members
    return f"select {sql.RECORD_COLUMNS} from {{p}}sessions where {' or '.join(which)} order by handle"  # noqa: S608


def _among(many: int) -> str:
    return f"in ({', '.join('?' * many)})"


_BEAT: Final = "update {p}meta set value = value + 1 where name = 'beat'"
SQLITE: Final = Dialect(
    placeholder="%s",
    now="?",
    clock="select 0",  # the clock is always ours: the file lies on this machine
    same="is",
    # The first statement writes: a transaction that begins by reading cannot wait for another writer.
    begin=(_BEAT,),
    durable=(),
    lock_subject=(
        "insert into {p}subjects (realm, subject) values (?, ?) on conflict do nothing",
        "select epoch from {p}subjects where realm = ? and subject = ?",
    ),
    lock_records=_lock_records,
    due=f"select {sql.RECORD_COLUMNS} from {{p}}sessions where due_at <= {{now}} order by due_at limit ?",  # noqa: S608
    note=(
        f"insert or ignore into {{p}}events ({sql.EVENT_COLUMNS}, commit_id, position) "  # noqa: S608
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ),
    raise_scope=(
        "insert into {p}epochs (scope, epoch) values (?, ?) "
        "on conflict (scope) do update set epoch = max(epoch, excluded.epoch)"
    ),
    forget_events=sql.FORGET_EVENTS,
    beat=_BEAT,
    among=_among,
    spread=lambda values: values,
)


class SqliteRounds(Rounds):
    """The verbs in the words of SQLite: other names for greatest and least, and the file itself is the lock."""

    def text(self, statement: str) -> str:
        """Return a statement as SQLite takes it."""
        said = statement.replace("greatest(", "max(").replace("least(", "min(").replace(" for update", "")
        return super().text(said)


def rounds_of(vendor: str) -> tuple[Make, str]:
    """Return what makes the verbs for a database, and what its tables' names begin with; raises ConfigError."""
    if vendor == "sqlite":
        return lambda tables, clock, tombstone: SqliteRounds(SQLITE, tables, clock, tombstone), PREFIX
    if vendor == "postgresql":
        from ...stores.postgres.words import DIALECT as POSTGRES

        unbegun = replace(POSTGRES, begin=())
        return lambda tables, clock, tombstone: Rounds(unbegun, tables, clock, tombstone), PREFIX
    if vendor == "mysql":
        from ...stores.mysql.words import DIALECT as MYSQL

        unbegun = replace(MYSQL, begin=())
        return lambda tables, clock, tombstone: Rounds(unbegun, tables, clock, tombstone), PREFIX
    message = f"COATCHECK['STORE'] = 'django' works on SQLite, PostgreSQL and MySQL (found {vendor!r}); name a URL"
    raise ConfigError(message)


def translators(vendor: str) -> tuple[Callable[[Values], Any], Callable[[sql.Row], sql.Row]]:
    """Return what values and rows pass through."""
    if vendor == "postgresql":
        from ...stores.postgres.words import inward, outward

        return inward, lambda row: outward(_plain(row))
    return list, _plain


def is_contended(error: Exception) -> bool:
    """Tell whether others were in the way: then nothing was written."""
    return bool(_CONTENDED.search(str(error)))


def _plain(row: sql.Row) -> sql.Row:
    """Return a row with bytes where a driver gives views."""
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
