"""The tables of a SQLite file: created and migrated by whoever opens it first, refused when they are newer than we.

Rules
- `meta` holds the schema's version, the generation (random, written once) and a beat: a number that is raised where a
  transaction must write something.
- A migration is a tuple of statements; version n is reached by the first n of them. Published ones never change.
- STRICT tables: a value of the wrong type is refused when it is written, not met when it is read.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import time
from typing import Final

from ...core.errors import StoreError
from .. import sql

PREFIX: Final = "coatcheck_"
OLDEST_SQLITE: Final = (3, 37, 0)

_FIRST: Final = (
    """create table {p}sessions (
        id integer primary key,
        handle text not null unique,
        realm text not null,
        subject text,
        created_at real not null,
        authenticated_at real,
        seen_at real not null,
        idle_for real,
        expires_at real not null,
        used_at real,
        turn_proof blob,
        nonce blob,
        data blob not null,
        ended_at real,
        ended_because text,
        successor text,
        version integer not null,
        by_commit blob not null,
        details blob not null,
        due_at real not null
    ) strict""",
    "create index {p}sessions_due on {p}sessions (due_at)",
    "create index {p}sessions_begun on {p}sessions (created_at, handle)",
    "create index {p}sessions_subject on {p}sessions (subject, realm, created_at, handle) where subject is not null",
    """create table {p}subjects (
        realm text not null, subject text not null, epoch real not null, primary key (realm, subject)
    ) strict, without rowid""",
    "create table {p}epochs (scope text primary key, epoch real not null) strict, without rowid",
    """create table {p}events (
        id integer primary key autoincrement,
        at real not null,
        name text not null,
        realm text not null,
        handle text,
        subject text,
        noise integer not null,
        address text,
        agent text,
        detail text not null,
        commit_id blob,
        position integer
    ) strict""",
    "create index {p}events_at on {p}events (at)",
    "create index {p}events_noise on {p}events (at) where noise = 1",
    "create index {p}events_handle on {p}events (handle, at) where handle is not null",
    "create index {p}events_subject on {p}events (subject, at) where subject is not null",
    "create unique index {p}events_once on {p}events (commit_id, position) where position is not null",
)
_CHANGES: Final = (
    # every write but mere activity raises `version`
    "create table {p}changes (id integer primary key, handle text not null) strict",
    """create trigger {p}changed after update of version on {p}sessions
        begin insert into {p}changes (handle) values (new.handle); end""",
    """create trigger {p}deleted after delete on {p}sessions
        begin insert into {p}changes (handle) values (old.handle); end""",
)
_WATCHERS: Final = (
    # a change is one page more to write, so it is noted only while somebody listens: who does stands here, until when
    "create table {p}watchers (name text primary key, until real not null) strict, without rowid",
    "drop trigger {p}changed",
    """create trigger {p}changed after update of version on {p}sessions when exists (select 1 from {p}watchers)
        begin insert into {p}changes (handle) values (new.handle); end""",
    "drop trigger {p}deleted",
    """create trigger {p}deleted after delete on {p}sessions when exists (select 1 from {p}watchers)
        begin insert into {p}changes (handle) values (old.handle); end""",
)
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST, _CHANGES, _WATCHERS)

_HAS_META: Final = "select 1 from sqlite_schema where type = 'table' and name = '{p}meta'"
_MAKE_META: Final = (
    "create table if not exists {p}meta (name text primary key, value any not null) strict, without rowid"
)
SET_META: Final = (
    "insert into {p}meta (name, value) values (?, ?) on conflict (name) do update set value = excluded.value"
)
_KEEP_META: Final = "insert or ignore into {p}meta (name, value) values (?, ?)"


def script() -> str:
    """Return the statements that make the tables, for those who want to read them: a file gets them by itself."""
    made = [_MAKE_META, *(statement for migration in MIGRATIONS for statement in migration)]
    kept = [("schema", f"{len(MIGRATIONS)}"), ("generation", "lower(hex(randomblob(8)))"), ("beat", "0")]
    made += [_KEEP_META.replace("?, ?", f"'{name}', {value}") for name, value in kept]
    return "".join(f"{sql.with_prefix(statement, PREFIX)};\n" for statement in made)


def ensure(db: sqlite3.Connection, path: str, patience: float) -> None:
    """Make sure that the file is in WAL mode and that its tables are of our version."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if _version(db) == len(MIGRATIONS):
                return
            db.execute("pragma journal_mode = wal").fetchall()
            _migrate(db, path)
        except sqlite3.OperationalError as error:
            # Two processes that turn WAL on at once are told BUSY without the wait they asked for.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - spreads openers, hides nothing
        else:
            return


def _version(db: sqlite3.Connection) -> int:
    if not db.execute(sql.with_prefix(_HAS_META, PREFIX)).fetchall():
        return 0
    rows = db.execute(sql.with_prefix(sql.META, PREFIX), ("schema",)).fetchall()
    return int(rows[0][0]) if rows else 0


def _refuse_newer(found: int, path: str) -> None:
    known = len(MIGRATIONS)
    if found > known:
        message = f"{path} was written by a newer coatcheck (schema {found}, this one knows {known}); upgrade coatcheck"
        raise StoreError(message)


def _migrate(db: sqlite3.Connection, path: str) -> None:
    db.execute("begin immediate")
    try:
        found = _version(db)
        _refuse_newer(found, path)
        db.execute(sql.with_prefix(_MAKE_META, PREFIX))
        for migration in MIGRATIONS[found:]:
            for statement in migration:
                db.execute(sql.with_prefix(statement, PREFIX))
        db.execute(sql.with_prefix(SET_META, PREFIX), ("schema", len(MIGRATIONS)))
        db.execute(sql.with_prefix(_KEEP_META, PREFIX), ("generation", secrets.token_hex(8)))
        db.execute(sql.with_prefix(_KEEP_META, PREFIX), ("beat", 0))
    except BaseException:
        db.execute("rollback")
        raise
    db.execute("commit")
