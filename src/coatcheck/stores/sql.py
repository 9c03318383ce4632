"""What SQL stores share: rows <-> values, the table prefix, and the statements that every dialect understands.

Rules
- Statements are lower case, one a constant; `{p}` is the table prefix, checked once, and every value is bound.
- `{now}` is the clock: a value like any other here, the server's own where there is one (see rounds.py).
- Columns that are searched, compared or changed in place are columns; the rest of a record is one `details` blob.
- `due_at` is when purge next has to look at a row: never later than its deadline or its tombstone's end.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from ..core.epochs import KEPT, TENANT
from ..core.errors import ConfigError, StoreError, Unreadable
from ..core.ledger import MAX_SKEW
from ..core.model import Client, Event, EventQuery, Instant, Query, Record, Trace
from ..core.paging import events_from, records_from

Row: TypeAlias = tuple[Any, ...]

RECORD_COLUMNS: Final = (
    "handle, realm, subject, created_at, authenticated_at, seen_at, idle_for, expires_at, used_at, turn_proof, nonce, "
    "data, ended_at, ended_because, successor, version, by_commit, details"
)
EVENT_COLUMNS: Final = "at, name, realm, handle, subject, noise, address, agent, detail"

_TRACE: Final = "@trace"
"""The name in an event's detail under which its trace lies: no statement looks at it, so it has no column."""

LIVE: Final = "ended_at is null and expires_at > {now} and (idle_for is null or seen_at + idle_for > {now})"

GET: Final = f"select {RECORD_COLUMNS} from {{p}}sessions where handle = ?"
ADD: Final = f"insert into {{p}}sessions ({RECORD_COLUMNS}, due_at) values ({', '.join('?' * 19)})"
PUT: Final = (
    "update {p}sessions set handle = ?, realm = ?, subject = ?, created_at = ?, authenticated_at = ?, seen_at = ?, "
    "idle_for = ?, expires_at = ?, used_at = ?, turn_proof = ?, nonce = ?, data = ?, ended_at = ?, ended_because = ?, "
    "successor = ?, version = ?, by_commit = ?, details = ?, due_at = ? where handle = ?"
)
UNENDED: Final = (
    f"select {RECORD_COLUMNS} from {{p}}sessions where realm = ? and subject = ? and ended_at is null order by handle"
)
DUE: Final = f"select {RECORD_COLUMNS} from {{p}}sessions where due_at <= ? order by due_at limit ?"
IS_DUE: Final = "select 1 from {p}sessions where due_at <= ? limit 1"
LOOK_LATER: Final = "update {p}sessions set due_at = ? where handle = ?"
DELETE: Final = "delete from {p}sessions where handle = ?"
EPOCH: Final = "select epoch from {p}subjects where realm = ? and subject = ?"
SCOPES: Final = "select scope, epoch from {p}epochs"
_OLD_SCOPES: Final = "from {p}epochs where scope like ? and epoch < {now} - ?"
HAS_OLD_SCOPES: Final = f"select 1 {_OLD_SCOPES} limit 1"
FORGET_SCOPES: Final = f"delete {_OLD_SCOPES}"
META: Final = "select value from {p}meta where name = ?"
KEYS: Final = "select name, value from {p}meta where name >= 'keys:' and name < 'keys;'"
ADD_KEY: Final = "insert into {p}meta (name, value) values (?, ?) on conflict (name) do nothing"
SWAP_KEY: Final = "update {p}meta set value = ? where name = ? and value = ?"
FORGET_EVENTS: Final = (
    "delete from {p}events where id in (select id from {p}events where noise = ? and at < ? order by at limit ?)"
)

_PREFIX: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


def with_prefix(statement: str, prefix: str) -> str:
    """Return a statement about the tables whose names begin with `prefix`."""
    check_prefix(prefix)
    return statement.format(p=prefix, now="?")


def check_prefix(prefix: str) -> None:
    """Refuse what cannot begin a table name."""
    if not _PREFIX.fullmatch(prefix):
        message = f"{prefix!r} cannot begin a table name; use lower case letters, digits and _, such as 'coatcheck_'"
        raise ConfigError(message)


class _Details(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The fields of a record that no statement looks at."""

    family_proof: bytes
    former_proof: bytes | None
    handed_at: Instant
    methods: tuple[str, ...]
    level: int
    persistent: bool
    client: Client | None
    binding: bytes | None
    tenant: str | None = None
    seen_from: Client | None = None
    suspected_at: Instant | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Details).decode
_encode_detail: Final = msgspec.json.Encoder(enc_hook=repr).encode
_decode_detail: Final = msgspec.json.Decoder(dict[str, Any]).decode


def details_of(record: Record) -> bytes:
    """Return the blob of the fields that have no column."""
    return _encode(
        _Details(
            record.family_proof,
            record.former_proof,
            record.handed_at,
            record.methods,
            record.level,
            record.persistent,
            record.client,
            record.binding,
            record.tenant,
            record.seen_from,
            record.suspected_at,
        )
    )


def row_of(record: Record, due_at: Instant) -> Row:
    """Return a record as the values of RECORD_COLUMNS and due_at."""
    return (
        record.handle,
        record.realm,
        record.subject,
        record.created_at,
        record.authenticated_at,
        record.seen_at,
        record.idle_for,
        record.expires_at,
        record.used_at,
        record.turn_proof,
        record.nonce,
        record.data,
        record.ended_at,
        record.ended_because,
        record.successor,
        record.version,
        record.by,
        details_of(record),
        due_at,
    )


def record_of(row: Row) -> Record:
    """Return the record of a row; one that does not decode is a StoreError, never "no record"."""
    try:
        (
            handle,
            realm,
            subject,
            created_at,
            authenticated_at,
            seen_at,
            idle_for,
            expires_at,
            used_at,
            turn_proof,
            nonce,
            data,
            ended_at,
            ended_because,
            successor,
            version,
            by,
            details,
        ) = row
        rest = _decode(details)
    except (ValueError, TypeError) as error:
        message = f"the row of session {row[0]!r:.80} does not decode ({error}); restore it from a backup or delete it"
        raise Unreadable(message) from error
    return Record(
        realm=realm,
        handle=handle,
        family_proof=rest.family_proof,
        turn_proof=turn_proof,
        used_at=used_at,
        former_proof=rest.former_proof,
        nonce=nonce,
        handed_at=rest.handed_at,
        data=data,
        created_at=created_at,
        seen_at=seen_at,
        idle_for=idle_for,
        expires_at=expires_at,
        subject=subject,
        authenticated_at=authenticated_at,
        methods=rest.methods,
        level=rest.level,
        persistent=rest.persistent,
        client=rest.client,
        binding=rest.binding,
        ended_at=ended_at,
        ended_because=ended_because,
        successor=successor,
        version=version,
        by=by,
        tenant=rest.tenant,
        seen_from=rest.seen_from,
        suspected_at=rest.suspected_at,
    )


def event_row(event: Event) -> Row:
    """Return an event as the values of EVENT_COLUMNS."""
    client = event.client or Client()
    detail = event.detail if event.trace is None else {**event.detail, _TRACE: event.trace}
    return (
        event.at,
        event.name,
        event.realm,
        event.handle,
        event.subject,
        int(event.noise),
        client.address,
        client.agent,
        _encode_detail(detail).decode() if detail else "{}",
    )


def event_of(row: Row) -> Event:
    """Return the event of a row; one that does not decode is a StoreError."""
    at, name, realm, handle, subject, noise, address, agent, detail = row
    try:
        known = _decode_detail(detail)
        found = known.pop(_TRACE, None)
        trace = None if found is None else msgspec.convert(found, Trace)
    except msgspec.MsgspecError as error:
        message = f"an event {name!r:.80} of {at} does not decode ({error}); restore it from a backup or delete it"
        raise StoreError(message) from error
    client = None if address is None and agent is None else Client(address, agent)
    return Event(
        name=name,
        at=at,
        realm=realm,
        handle=handle,
        subject=subject,
        client=client,
        detail=known,
        noise=bool(noise),
        trace=trace,
    )


def old_scopes(*now: Instant) -> tuple[object, ...]:
    """Return the values of HAS_OLD_SCOPES and FORGET_SCOPES; no `now`: {now} is no value."""
    return (f"{TENANT}%", *now, KEPT)


def find_statement(query: Query, now: Instant | None) -> tuple[str, list[object]]:
    """Return the statement and the values that find one record more than a page; no `now`: {now} is no value."""
    where, values = _equal(("realm", query.realm), ("subject", query.subject), ("handle", query.handle))
    if query.live:
        where.append(LIVE)
        values += [] if now is None else [now, now]
    if query.cursor is not None:
        start = records_from(query.cursor)
        # the first condition follows from the second, but MySQL finds its place in an index by the first alone
        where += ["created_at >= ?", "(created_at, handle) > (?, ?)", "created_at <= ?"]
        values += [start.created_at, start.created_at, start.handle, start.as_of + MAX_SKEW]
    values.append(query.limit + 1)
    statement = f"select {RECORD_COLUMNS} from {{p}}sessions{_joined(where)} order by created_at, handle limit ?"
    return statement, values


def events_statement(query: EventQuery) -> tuple[str, list[object]]:
    """Return the statement and the values that find one event more than a page, each with its id in front."""
    where, values = _equal(
        ("realm", query.realm), ("handle", query.handle), ("subject", query.subject), ("name", query.name)
    )
    if query.noise is not None:
        where.append("noise = ?")
        values.append(int(query.noise))
    if query.since is not None:
        where.append("at >= ?")
        values.append(query.since)
    if query.cursor is not None:
        before = events_from(query.cursor)
        where += ["at <= ?", "(at, id) < (?, ?)"]
        values += [before.at, before.at, before.number]
    values.append(query.limit + 1)
    return f"select id, {EVENT_COLUMNS} from {{p}}events{_joined(where)} order by at desc, id desc limit ?", values


def _equal(*pairs: tuple[str, object | None]) -> tuple[list[str], list[object]]:
    given = [(column, value) for column, value in pairs if value is not None]
    return [f"{column} = ?" for column, _ in given], [value for _, value in given]


def _joined(where: Sequence[str]) -> str:
    return f" where {' and '.join(where)}" if where else ""


# Wrapped keys lie beside the generation: rows of `meta` whose names begin with "keys:", their values in base64.


def keys_of(rows: Iterable[Row]) -> dict[str, bytes]:
    """Return what KEYS found."""
    return {str(name).removeprefix("keys:"): b64decode(value) for name, value in rows}


def put_key_statement(name: str, value: bytes, was: bytes | None) -> tuple[str, list[object]]:
    """Return the statement and the values that keep a key if the present one is `was`: one row changes, or none."""
    place, text = key_row(name, value)
    if was is None:
        return ADD_KEY, [place, text]
    return SWAP_KEY, [text, place, key_row(name, was)[1]]


def key_row(name: str, value: bytes) -> tuple[str, str]:
    """Return a key as a row of `meta`."""
    return f"keys:{name}", b64encode(value).decode("ascii")
