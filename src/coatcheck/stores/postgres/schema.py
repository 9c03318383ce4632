"""The tables in PostgreSQL: made and migrated by whoever comes first, refused when they are newer than we.

Rules
- `meta` holds the schema's version, the generation (random, written once) and a beat: a number that is raised where a
  transaction must write something.
- A migration is a tuple of statements; version n is reached by the first n of them. Published ones never change.
- Who migrates holds an advisory lock, so that workers that start together do it one after the other.
- `{p}` begins a table's name, with its schema; `{n}` an index's, without one: it lies where its table does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zlib import crc32

from ...core.errors import StoreError
from ..rounds import Ask, Round, Steps
from .words import Names

_FIRST: Final = (
    """create table {p}sessions (
    handle text collate "C" primary key,
    realm text collate "C" not null,
    subject text collate "C",
    created_at double precision not null,
    authenticated_at double precision,
    seen_at double precision not null,
    idle_for double precision,
    expires_at double precision not null,
    used_at double precision,
    turn_proof bytea,
    nonce bytea,
    data bytea not null,
    ended_at double precision,
    ended_because text,
    successor text collate "C",
    version bigint not null,
    by_commit bytea not null,
    details bytea not null,
    due_at double precision not null
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05)""",
    "create index {n}sessions_due on {p}sessions (due_at)",
    "create index {n}sessions_begun on {p}sessions (created_at, handle)",
    "create index {n}sessions_subject on {p}sessions (subject, realm, created_at, handle) where subject is not null",
    """create table {p}subjects (
    realm text collate "C" not null,
    subject text collate "C" not null,
    epoch double precision,
    primary key (realm, subject)
)""",
    'create table {p}epochs (scope text collate "C" primary key, epoch double precision not null)',
    """create table {p}events (
    id bigint generated always as identity primary key,
    at double precision not null,
    name text collate "C" not null,
    realm text collate "C" not null,
    handle text collate "C",
    subject text collate "C",
    noise smallint not null,
    address text,
    agent text,
    detail text not null,
    commit_id bytea,
    position integer
)""",
    "create index {n}events_at on {p}events (at, id)",
    "create index {n}events_noise on {p}events (at) where noise = 1",
    "create index {n}events_handle on {p}events (handle, at, id) where handle is not null",
    "create index {n}events_subject on {p}events (subject, at, id) where subject is not null",
    "create unique index {n}events_once on {p}events (commit_id, position) where position is not null",
)
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST,)

_MAKE_META: Final = 'create table if not exists {p}meta (name text collate "C" primary key, value text not null)'
_SET_VERSION: Final = (
    "insert into {p}meta (name, value) values ('schema', '{version}') "
    "on conflict (name) do update set value = excluded.value"
)
_KEEP_META: Final = (
    "insert into {p}meta (name, value) values "
    "('generation', replace(gen_random_uuid()::text, '-', '')), ('beat', '0') on conflict do nothing"
)
_LOCK: Final = "select pg_advisory_xact_lock({key})"
# Not to_regclass: that looks into a cache, which who waited for the lock has from before.
_HAS_META: Final = (
    "select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace "
    "where n.nspname = %s and c.relname = %s"
)
_VERSION: Final = "select value from {p}meta where name = 'schema'"


def script(where: Names) -> str:
    """Return the SQL that makes the tables, for an administrator to run."""
    begin = ["begin", _filled(_LOCK, where)]
    statements = [*begin, *_filled_all(where, 0), "commit"]
    grant = (
        f"-- then let the application's user work on them:\n"
        f"-- grant select, insert, update, delete on {', '.join(_tables(where))} to ...;\n"
    )
    return ";\n\n".join(statements) + ";\n\n" + grant


def check(where: Names, place: str, *, migrate: bool) -> Steps[bool]:
    """Tell whether the tables are of our version; `place` names the server, for a sentence.

    Raises StoreError if they are newer, and if they are older (or missing) and we may not `migrate`.
    """
    found = yield from _version(where)
    _refuse_newer(found, place)
    if found < len(MIGRATIONS) and not migrate:
        state = f"are of version {found}" if found else "are missing"
        message = (
            f"{place}: the tables of coatcheck {state}, this release needs version {len(MIGRATIONS)}; "
            f"run what `coatcheck schema postgresql --schema {where.schema} --prefix {where.prefix}` prints"
        )
        raise StoreError(message)
    return found == len(MIGRATIONS)


def make(where: Names, place: str) -> Steps[None]:
    """Bring the tables to our version, after whoever is at it."""
    # what the server allows a statement is for commits; a migration may wait for others, and take its time
    settings = ("statement_timeout = 0", "lock_timeout = 0", "synchronous_commit = on")
    ready = [Ask(f"set local {setting}") for setting in settings]
    yield Round([Ask("begin"), *ready, Ask(_filled(_LOCK, where))])
    found = yield from _version(where)
    _refuse_newer(found, place)
    yield Round([*(Ask(one) for one in _filled_all(where, found)), Ask("commit")], decides=True)


def _version(where: Names) -> Steps[int]:
    answers = yield Round([Ask(_HAS_META, (where.schema, f"{where.prefix}meta"))])
    if not answers[0].rows:
        return 0
    answers = yield Round([Ask(_filled(_VERSION, where))])
    rows = answers[0].rows
    return int(rows[0][0]) if rows else 0


def _refuse_newer(found: int, place: str) -> None:
    known = len(MIGRATIONS)
    if found > known:
        message = f"{place} was used by a newer coatcheck (schema {found}, this one knows {known}); upgrade coatcheck"
        raise StoreError(message)


def _filled_all(where: Names, found: int) -> Iterator[str]:
    yield _filled(_MAKE_META, where)
    for migration in MIGRATIONS[found:]:
        yield from (_filled(statement, where) for statement in migration)
    yield _filled(_SET_VERSION, where)
    yield _filled(_KEEP_META, where)


def _filled(statement: str, where: Names) -> str:
    key = crc32(where.tables.encode())
    return statement.format(p=where.tables, n=where.prefix, key=key, version=len(MIGRATIONS))


def _tables(where: Names) -> list[str]:
    return [f"{where.tables}{name}" for name in ("sessions", "subjects", "epochs", "events", "meta")]
