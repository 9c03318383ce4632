"""The tables in a MySQL or MariaDB database: created and migrated under a lock, refused when they are newer than we.

Rules
- A migration is a tuple of statements; version n is reached by the first n of them. Published ones never change.
- Neither server can roll a table back: a migration that was cut off halfway is begun again, so each of its statements
  must bear to be done twice.
- Text is compared byte by byte, its trailing spaces too. The collation that does so has two names, and a comment that
  only one of the two servers reads: /*!80017 MySQL */, /*M!100202 MariaDB */.
- Every table is InnoDB, whatever the server's default: nothing else keeps the promises.
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from ...core.errors import NotApplied, StoreError
from .. import sql
from ..rounds import Ask, Round, Steps
from . import words

_TEXT: Final = "character set utf8mb4 /*!80017 collate utf8mb4_0900_bin */ /*M!100202 collate utf8mb4_nopad_bin */"
_TABLE: Final = "engine = innodb row_format = dynamic"

_FIRST: Final = (
    f"""create table if not exists {{p}}meta (
        name varchar(64) {_TEXT} not null primary key,
        value mediumtext {_TEXT} not null
    ) {_TABLE}""",
    f"""create table if not exists {{p}}sessions (
        handle varchar(64) {_TEXT} not null primary key,
        realm varchar(255) {_TEXT} not null,
        subject varchar(255) {_TEXT},
        created_at double not null,
        authenticated_at double,
        seen_at double not null,
        idle_for double,
        expires_at double not null,
        used_at double,
        turn_proof varbinary(255),
        nonce varbinary(255),
        data longblob not null,
        ended_at double,
        ended_because varchar(64) {_TEXT},
        successor varchar(64) {_TEXT},
        version bigint not null,
        by_commit varbinary(255) not null,
        details blob not null,
        due_at double not null,
        index {{p}}sessions_due (due_at),
        index {{p}}sessions_begun (created_at, handle),
        index {{p}}sessions_subject (subject, realm, ended_at, created_at, handle)
    ) {_TABLE}""",
    f"""create table if not exists {{p}}subjects (
        realm varchar(255) {_TEXT} not null,
        subject varchar(255) {_TEXT} not null,
        epoch double,
        primary key (subject, realm)
    ) {_TABLE}""",
    f"""create table if not exists {{p}}epochs (
        scope varchar(512) {_TEXT} not null primary key,
        epoch double not null
    ) {_TABLE}""",
    f"""create table if not exists {{p}}events (
        id bigint not null auto_increment primary key,
        at double not null,
        name varchar(255) {_TEXT} not null,
        realm varchar(255) {_TEXT} not null,
        handle varchar(64) {_TEXT},
        subject varchar(255) {_TEXT},
        noise tinyint not null,
        address text {_TEXT},
        agent text {_TEXT},
        detail longtext {_TEXT} not null,
        commit_id varbinary(255),
        position int,
        index {{p}}events_at (at),
        index {{p}}events_noise (noise, at),
        index {{p}}events_handle (handle, at),
        index {{p}}events_subject (subject, at),
        unique index {{p}}events_once (commit_id, position)
    ) {_TABLE}""",
)
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST,)

LOCK_SECONDS: Final = 10
_LOCK: Final = "concat('coatcheck ', left(sha2(concat(database(), '/', ?), 256), 40))"
_GET_LOCK: Final = f"select get_lock({_LOCK}, ?)"
_RELEASE_LOCK: Final = f"select release_lock({_LOCK})"
_HAS_META: Final = (
    "select count(*) from information_schema.tables where table_schema = database() and table_name = '{p}meta'"
)
_SET_META: Final = "insert into {p}meta (name, value) values ('schema', ?) on duplicate key update value = ?"
_KEEP_META: Final = "insert into {p}meta (name, value) values (?, ?) on duplicate key update name = name"


def script(prefix: str) -> str:
    """Return the statements that make the tables, for those who run them themselves."""
    statements = [sql.with_prefix(statement, prefix) for migration in MIGRATIONS for statement in migration]
    keep = sql.with_prefix(_KEEP_META, prefix)
    statements += [keep.replace("?, ?", f"'{name}', '{value}'") for name, value in _kept()]
    statements.append(sql.with_prefix(_SET_META, prefix).replace("?", f"'{len(MIGRATIONS)}'"))
    return ";\n".join(statements) + ";\n"


class Look(NamedTuple):
    """What was found: the version of the tables (0: there are none), and what the server says of itself."""

    version: int
    server: sql.Row


def looked(prefix: str) -> Steps[Look]:
    """Look at the server and at the tables; raise StoreError for those of a newer coatcheck."""
    answers = yield Round([Ask(words.FACTS), _ask(_HAS_META, prefix)])
    server = answers[0].rows[0]
    version = (yield from _version(prefix)) if answers[1].rows[0][0] else 0
    _refuse_newer(version)
    return Look(version, server)


def behind(found: int, prefix: str) -> StoreError:
    """Return the error for tables that are missing or old and must not be changed by us."""
    return StoreError(
        f"the tables {prefix}* are of schema {found}, this coatcheck needs {len(MIGRATIONS)}; run what "
        "`coatcheck schema mysql` prints, or use migrate=True"
    )


def migrated(prefix: str) -> Steps[None]:
    """Create or migrate the tables, one process after the other."""
    answers = yield Round([_ask(_GET_LOCK, prefix, prefix, LOCK_SECONDS)])
    if answers[0].rows[0][0] != 1:
        message = f"another process has been changing the tables {prefix}* for {LOCK_SECONDS} s; try again"
        raise NotApplied(message)
    found = (yield from looked(prefix)).version
    for version, migration in enumerate(MIGRATIONS[found:], found + 1):
        for statement in migration:
            yield Round([_ask(statement, prefix)])
        keep = [_ask(_KEEP_META, prefix, *pair) for pair in _kept()]
        yield Round([*keep, _ask(_SET_META, prefix, str(version), str(version))])
    yield Round([_ask(_RELEASE_LOCK, prefix, prefix)])


def _kept() -> tuple[tuple[str, str], ...]:
    """Return what is written once and stays: which life of this store it is, and a number to raise."""
    return ("generation", secrets.token_hex(8)), ("beat", "0")


def _version(prefix: str) -> Steps[int]:
    answers = yield Round([_ask(sql.META, prefix, "schema")])
    return int(answers[0].rows[0][0]) if answers[0].rows else 0


def _refuse_newer(found: int) -> None:
    known = len(MIGRATIONS)
    if found > known:
        message = (
            f"the database was written by a newer coatcheck (schema {found}, this one knows {known}); upgrade coatcheck"
        )
        raise StoreError(message)


def _ask(statement: str, prefix: str, *values: object) -> Ask:
    return Ask(sql.with_prefix(statement, prefix).replace("?", "%s"), values)
