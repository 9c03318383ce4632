"""The tables of the "django" store, as its migration makes them: ours of the same database, with SQLite's said here."""

from __future__ import annotations

import secrets
from typing import Any, Final

from ...stores import sql
from .words import PREFIX

_SQLITE: Final = (
    """create table {p}sessions (
        handle text not null primary key,
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
    )""",
    "create index {p}sessions_due on {p}sessions (due_at)",
    "create index {p}sessions_begun on {p}sessions (created_at, handle)",
    "create index {p}sessions_subject on {p}sessions (subject, realm, created_at, handle) where subject is not null",
    "create table {p}subjects (realm text not null, subject text not null, epoch real, primary key (realm, subject))",
    "create table {p}epochs (scope text not null primary key, epoch real not null)",
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
    )""",
    "create index {p}events_at on {p}events (at)",
    "create index {p}events_noise on {p}events (at) where noise = 1",
    "create index {p}events_handle on {p}events (handle, at) where handle is not null",
    "create index {p}events_subject on {p}events (subject, at) where subject is not null",
    "create unique index {p}events_once on {p}events (commit_id, position) where position is not null",
    "create table {p}meta (name text not null primary key, value not null)",
)


def make(connection: Any) -> None:
    """Make the tables; where our own store of the same database made them before, they are used as they are."""
    names = set(connection.introspection.table_names())
    if f"{PREFIX}sessions" in names:
        return
    statements, version = statements_of(connection.vendor)
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        kept = (("schema", str(version)), ("generation", secrets.token_hex(16)), ("beat", "0"))
        for pair in kept:
            cursor.execute(f"insert into {PREFIX}meta (name, value) values (%s, %s)", pair)  # noqa: S608


def drop(connection: Any) -> None:
    """Drop the tables."""
    with connection.cursor() as cursor:
        for name in ("sessions", "subjects", "epochs", "events", "meta"):
            cursor.execute(f"drop table if exists {PREFIX}{name}")


def statements_of(vendor: str) -> tuple[list[str], int]:
    """Return the statements that make the tables, and the version of the schema that they are."""
    if vendor == "postgresql":
        from ...stores.postgres.schema import MIGRATIONS as POSTGRES

        made = [one.format(p=PREFIX, n=PREFIX) for migration in POSTGRES for one in migration]
        meta = f'create table {PREFIX}meta (name text collate "C" primary key, value text not null)'
        return [*made, meta], len(POSTGRES)
    if vendor == "mysql":
        from ...stores.mysql import MIGRATIONS as MYSQL

        return [sql.with_prefix(one, PREFIX) for migration in MYSQL for one in migration], len(MYSQL)
    return [sql.with_prefix(one, PREFIX) for one in _SQLITE], 1
