"""What PostgreSQL's SQL says differently, its names, and its text, which cannot hold every character.

Rules
- A schema and a prefix are checked once, and the schema is quoted: it may be a reserved word.
- Text cannot hold U+0000. It is written as U+0001 b, and U+0001 itself as U+0001 a; everything else as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, LiteralString

import msgspec

from ...core.errors import ConfigError
from .. import sql
from ..rounds import Dialect

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Names(msgspec.Struct, frozen=True):
    """Where the tables lie."""

    schema: str
    prefix: str

    @property
    def tables(self) -> str:
        """Return what the name of a table begins with."""
        return f'"{self.schema}".{self.prefix}'

    @property
    def channel(self) -> str:
        """Return the channel on which changes are told."""
        return f"{self.schema}.{self.prefix}"[:63]


def names(schema: str, prefix: str) -> Names:
    """Return the names, checked; raises ConfigError."""
    sql.check_prefix(prefix)
    if not _SCHEMA.fullmatch(schema):
        message = f"{schema!r} cannot name a schema; use lower case letters, digits and _, such as 'public'"
        raise ConfigError(message)
    return Names(schema, prefix)


def _lock_records(handles: int, members: int) -> str:
    which = ["handle = any(?)"] if handles else []
    which += ["(realm = ? and subject = ? and ended_at is null)"] * members
    return f"select {sql.RECORD_COLUMNS} from {{p}}sessions where {' or '.join(which)} order by handle for update"


_DURABLE: Final = (
    "select set_config('synchronous_commit', 'on', true) "
    "where current_setting('synchronous_commit') in ('off', 'local')"
)
DIALECT: Final = Dialect(
    placeholder="%s",
    now="extract(epoch from statement_timestamp())::double precision",
    clock="select extract(epoch from clock_timestamp())::double precision",
    same="is not distinct from",
    begin=("begin isolation level read committed",),
    # whoever set it higher than "on" for his role keeps that
    durable=(_DURABLE,),
    lock_subject=(
        "insert into {p}subjects (realm, subject) values (?, ?) on conflict do nothing",
        "select epoch from {p}subjects where realm = ? and subject = ? for update",
    ),
    lock_records=_lock_records,
    due=(
        f"select {sql.RECORD_COLUMNS} from {{p}}sessions where due_at <= {{now}} "
        "order by due_at limit ? for update skip locked"
    ),
    note=(
        f"insert into {{p}}events ({sql.EVENT_COLUMNS}, commit_id, position) "
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing"
    ),
    raise_scope=(
        "insert into {p}epochs as kept (scope, epoch) values (?, ?) "
        "on conflict (scope) do update set epoch = greatest(kept.epoch, excluded.epoch)"
    ),
    forget_events=sql.FORGET_EVENTS,
    beat="update {p}meta set value = (value::bigint + 1)::text where name = 'beat'",
    among=lambda _: "= any(?)",
    spread=lambda values: (list(values),),
)


def literal(text: str) -> LiteralString:
    """Return a statement that we wrote ourselves, as psycopg's types want it named."""
    return text  # pyright: ignore[reportReturnType]


def inward(values: Sequence[object]) -> Sequence[object]:
    """Return the values of a statement as PostgreSQL can hold them."""
    for value in values:
        if isinstance(value, str) and ("\0" in value or "\1" in value):
            return [escaped(one) if isinstance(one, str) else one for one in values]
    return values


def outward(row: sql.Row) -> sql.Row:
    """Return a row as it was before `inward`."""
    for value in row:
        if isinstance(value, str) and "\1" in value:
            return tuple(unescaped(one) if isinstance(one, str) else one for one in row)
    return row


def escaped(text: str) -> str:
    """Return a text without U+0000."""
    return text.replace("\1", "\1a").replace("\0", "\1b")


def unescaped(text: str) -> str:
    """Return the text that was escaped."""
    return text.replace("\1b", "\0").replace("\1a", "\1")
