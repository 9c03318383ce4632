"""The words in which MySQL and MariaDB differ from other databases (see rounds.Dialect), and what a session is set to.

Rules
- Every statement is understood by MariaDB 10.6 and by MySQL 8.0.17, so: no `returning`, no row alias in an upsert, and
  `values(column)` (deprecated in one of them) nowhere that is asked often.
- The members of a subject are read without locks from an index that holds all that is asked, and then locked by primary
  key, like everything else: no two commits take an entry of an index and a row in opposite orders. The index is forced:
  in a small table the server would rather read every row, and wait for those that others have locked.
- What a round does never depends on whether "affected rows" counts rows that stayed as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import sql
from ..rounds import Dialect

# STRICT_ALL_TABLES: what does not fit is an error, not cut off. Without NO_BACKSLASH_ESCAPES, whatever the server's
# default: it changes how a value has to be quoted. A wait for a lock ends while somebody still waits for us; a second
# is the shortest that both servers know.
_VARIABLES: Final = (
    "set names utf8mb4, autocommit = 1, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    "innodb_lock_wait_timeout = 1"
)
# The variable behind this one has two names.
_ISOLATION: Final = "set session transaction isolation level read committed"
SESSION: Final = (_VARIABLES, _ISOLATION)

FACTS: Final = "select version(), @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog"

_NOW: Final = "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6"


def _among(many: int) -> str:
    return f"in ({', '.join('?' * many)})"


def _spread(values: Sequence[object]) -> Sequence[object]:
    return values


def _lock_records(handles: int, members: int) -> str:
    if not members:
        return (
            f"select {sql.RECORD_COLUMNS} from {{p}}sessions force index (primary) where handle {_among(handles)} "
            "order by handle for update"
        )
    parts = ["select handle from {p}sessions where realm = ? and subject = ? and ended_at is null"] * members
    if handles:
        parts.insert(0, f"select handle from {{p}}sessions where handle {_among(handles)}")
    if len(parts) == 1:
        parts.append("select null from dual where 1 = 0")  # a union is not merged into the statement around it
    return (
        f"select {sql.RECORD_COLUMNS} from ({' union '.join(parts)}) as wanted "
        "straight_join {p}sessions force index (primary) using (handle) order by handle for update"
    )


DIALECT: Final = Dialect(
    placeholder="%s",
    now=_NOW,
    clock=f"select {_NOW}",
    same="<=>",
    begin=("start transaction",),
    # How far a commit gets is the server's to say (innodb_flush_log_at_trx_commit): no session can ask for more.
    durable=(),
    lock_subject=(
        "insert into {p}subjects (realm, subject) values (?, ?) on duplicate key update epoch = epoch",
        "select epoch from {p}subjects where realm = ? and subject = ? for update",
    ),
    lock_records=_lock_records,
    due=(
        f"select {sql.RECORD_COLUMNS} from {{p}}sessions where due_at <= {{now}} order by due_at limit ? "
        "for update skip locked"
    ),
    # Not `insert ignore`: that would also cut off what is too long, and say nothing.
    note=(
        f"insert into {{p}}events ({sql.EVENT_COLUMNS}, commit_id, position) select * from (select ? as at, ? as name, "
        "? as realm, ? as handle, ? as subject, ? as noise, ? as address, ? as agent, ? as detail, ? as commit_id, "
        "? as position) as given where not exists (select 1 from {p}events as noted "
        "where noted.commit_id = given.commit_id and noted.position = given.position)"
    ),
    raise_scope=(
        "insert into {p}epochs (scope, epoch) select * from (select ? as scope, ? as epoch) as given "
        "on duplicate key update epoch = greatest({p}epochs.epoch, given.epoch)"
    ),
    forget_events="delete from {p}events where noise = ? and at < ? order by at limit ?",
    beat="update {p}meta set value = value + 1 where name = 'beat'",
    among=_among,
    spread=_spread,
)


def storable(values: Sequence[object]) -> Sequence[object] | None:
    """Return the values of a statement, or None if it has none; raises ValueError for text that is not Unicode."""
    for value in values:
        if type(value) is str:
            value.encode()  # the drivers would let lone surrogates pass, as the bytes that they stand for
    return values or None
