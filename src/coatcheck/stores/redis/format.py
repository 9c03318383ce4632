"""Records and events as bytes: a record begins with a header that scripts can read and patch, the rest is msgpack.

The header (big-endian; offsets from 0)
     0  format, always 1
     1  flags: 1 ended, 2 used_at, 4 turn_proof, 8 nonce, 16 idle_for (set: the field is not None)
     2  version, 4 bytes
     6  seen_at, used_at, idle_for, expires_at, created_at: 8-byte floats
    46  owner, 8 bytes: a hash of realm and subject
    54  the lengths of by, turn_proof and nonce, a byte each
    57  by, turn_proof and nonce, then the rest
The first 57 bytes tell two states of one record apart: every change moves the version or seen_at.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct as Layout
from struct import error as LayoutError  # noqa: N812 - that is what it is
from typing import Any, Final

import msgspec

from ...core.errors import StoreError, Unreadable
from ...core.model import Client, Event, Handle, Instant, Record, Trace

HEADER: Final = 57
"""Bytes that tell whether a record is still what was read."""

_LAYOUT: Final = Layout(">BBIddddd8sBBB")
_ENDED, _USED, _TURN, _NONCE, _IDLE = 1, 2, 4, 8, 16
_LONGEST: Final = 255


class _Rest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What no script looks at."""

    realm: str
    handle: Handle
    subject: str | None
    family_proof: bytes
    former_proof: bytes | None
    handed_at: Instant
    data: bytes
    authenticated_at: Instant | None
    methods: tuple[str, ...]
    level: int
    persistent: bool
    client: tuple[str | None, str | None] | None
    binding: bytes | None
    ended_at: Instant | None
    ended_because: str | None
    successor: Handle | None
    tenant: str | None = None
    seen_from: tuple[str | None, str | None] | None = None
    suspected_at: Instant | None = None


class _Kept(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event at rest; whether it is noise, its key tells."""

    name: str
    at: Instant
    realm: str
    handle: Handle | None
    subject: str | None
    client: tuple[str | None, str | None] | None
    detail: dict[str, Any]
    trace: Trace | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_rest: Final = msgspec.msgpack.Decoder(_Rest).decode
_kept: Final = msgspec.msgpack.Decoder(_Kept).decode


def owner_of(realm: str, subject: str | None) -> bytes:
    """Return the hash that a header holds of whose record it is."""
    return blake2b(_encode((realm, subject)), digest_size=8).digest()


def pack(record: Record) -> bytes:
    """Return a record as bytes."""
    by, turn, nonce = record.by, record.turn_proof or b"", record.nonce or b""
    if max(len(by), len(turn), len(nonce)) > _LONGEST or not 0 <= record.version < 2**32:
        message = f"a commit id, a proof or a nonce of {record.handle!r} is longer than {_LONGEST} bytes; shorten it"
        raise StoreError(message)
    flags = (
        (record.ended_at is not None) * _ENDED
        | (record.used_at is not None) * _USED
        | (record.turn_proof is not None) * _TURN
        | (record.nonce is not None) * _NONCE
        | (record.idle_for is not None) * _IDLE
    )
    header = _LAYOUT.pack(
        1,
        flags,
        record.version,
        record.seen_at,
        record.used_at or 0.0,
        record.idle_for or 0.0,
        record.expires_at,
        record.created_at,
        owner_of(record.realm, record.subject),
        len(by),
        len(turn),
        len(nonce),
    )
    client, seen_from = record.client, record.seen_from
    rest = _Rest(
        record.realm,
        record.handle,
        record.subject,
        record.family_proof,
        record.former_proof,
        record.handed_at,
        record.data,
        record.authenticated_at,
        record.methods,
        record.level,
        record.persistent,
        None if client is None else (client.address, client.agent),
        record.binding,
        record.ended_at,
        record.ended_because,
        record.successor,
        record.tenant,
        None if seen_from is None else (seen_from.address, seen_from.agent),
        record.suspected_at,
    )
    return b"".join((header, by, turn, nonce, _encode(rest)))


def unpack(handle: Handle, value: bytes) -> Record:
    """Return the record that bytes hold; raise StoreError if they hold none, or another one's."""
    try:
        one, flags, version, seen, used, idle, expires, created, _, by, turn, nonce = _LAYOUT.unpack_from(value)
        if one != 1:
            message = f"the record of {handle!r} has format {one}, which this release does not know; upgrade it"
            raise Unreadable(message)
        turn_at, nonce_at = HEADER + by, HEADER + by + turn
        rest = _rest(memoryview(value)[nonce_at + nonce :])
    except (LayoutError, msgspec.DecodeError) as error:
        message = f"the record of {handle!r} is damaged ({error}); end that session"
        raise Unreadable(message) from error
    if rest.handle != handle:
        message = f"the store answered {handle!r} with the record of {rest.handle!r}; check what else writes to it"
        raise Unreadable(message)
    return Record(
        realm=rest.realm,
        handle=handle,
        family_proof=rest.family_proof,
        turn_proof=value[turn_at:nonce_at] if flags & _TURN else None,
        used_at=used if flags & _USED else None,
        former_proof=rest.former_proof,
        nonce=value[nonce_at : nonce_at + nonce] if flags & _NONCE else None,
        handed_at=rest.handed_at,
        data=rest.data,
        created_at=created,
        seen_at=seen,
        idle_for=idle if flags & _IDLE else None,
        expires_at=expires,
        subject=rest.subject,
        authenticated_at=rest.authenticated_at,
        methods=rest.methods,
        level=rest.level,
        persistent=rest.persistent,
        client=None if rest.client is None else Client(*rest.client),
        binding=rest.binding,
        ended_at=rest.ended_at,
        ended_because=rest.ended_because,
        successor=rest.successor,
        version=version,
        by=value[HEADER:turn_at],
        tenant=rest.tenant,
        seen_from=None if rest.seen_from is None else Client(*rest.seen_from),
        suspected_at=rest.suspected_at,
    )


def pack_event(event: Event) -> bytes:
    """Return an event as bytes."""
    client = event.client
    return _encode(
        _Kept(
            event.name,
            event.at,
            event.realm,
            event.handle,
            event.subject,
            None if client is None else (client.address, client.agent),
            event.detail,
            event.trace,
        )
    )


def unpack_event(value: bytes, *, noise: bool) -> Event:
    """Return the event that bytes hold."""
    try:
        kept = _kept(value)
    except msgspec.DecodeError as error:
        message = f"an event in the store is damaged ({error}); forget the events of that time"
        raise StoreError(message) from error
    return Event(
        name=kept.name,
        at=kept.at,
        realm=kept.realm,
        handle=kept.handle,
        subject=kept.subject,
        client=None if kept.client is None else Client(*kept.client),
        detail=kept.detail,
        noise=noise,
        trace=kept.trace,
    )
