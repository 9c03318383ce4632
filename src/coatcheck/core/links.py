"""From an identity provider's names to our sessions, kept as records in the terms of the store contract.

A session's own record cannot be found by a provider's `sid` or `sub`. So a login through a provider leaves links:
records of a realm of their own that no token opens, whose subject is a hash of (issuer, sid) or (issuer, sub), and
whose data says which session. `find` by subject finds them in every store, exactly and in one trip.

A gate is a record of the same kind that ends as it begins. Whoever logs out raises the gate's epoch first and reads
the links then; whoever logs in writes the links first and passes the gates then: so no order lets a login through
that the logout did not see (the logout that overtakes the login's callback).
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256

import msgspec

from . import realms, tokens
from .model import End, Entropy, Handle, Insert, Instant, Record

GATED = 600.0
"""Seconds for which a provider's ended session opens no new one of ours: longer than a login's callback can take."""
YOUNG = 600.0
"""Seconds after which a session that was announced by a link, and never came, comes no more."""


class Link(msgspec.Struct, frozen=True, array_like=True):
    """Which session a provider's names stand for."""

    handle: Handle
    subject: str
    issuer: str
    sub: str
    sid: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Link).decode


def realm_of(realm: str) -> str:
    """Return the realm in which the links of a realm lie."""
    return realm + realms.LINKS


def key_of(kind: str, issuer: str, name: str) -> str:
    """Return the subject under which links (kind "sid" or "sub") and their gates ("sid!", "sub!") lie."""
    digest = sha256(b"coatcheck/link/1\0%b\0%b\0%b" % (kind.encode(), issuer.encode(), name.encode())).digest()
    return f"{kind}:{urlsafe_b64encode(digest).decode().rstrip('=')}"


def link(realm: str, salt: bytes, key: str, to: Link, now: Instant, until: Instant, entropy: Entropy) -> Insert:
    """Return the insertion of a link under a key."""
    where = realm_of(realm)
    return Insert(record=_record(where, _handle(where, salt, key, entropy), key, now, now, until, _encode(to), entropy))


def passage(
    realm: str, salt: bytes, key: str, issued_at: Instant, now: Instant, entropy: Entropy
) -> tuple[Insert, End]:
    """Return the passing of a gate: refused where its epoch is later than `issued_at`; leaves a tombstone."""
    where = realm_of(realm)
    handle = _handle(where, salt, key, entropy)
    return _at_once(_record(where, handle, key, now, issued_at, now + GATED, b"", entropy))


def remembered(realm: str, issuer: str, jti: str, now: Instant, entropy: Entropy) -> tuple[Insert, End]:
    """Return what remembers a token: a tombstone under a handle that is a hash of its jti."""
    record = _record(realm_of(realm), jti_handle(realm, issuer, jti), None, now, None, now + GATED, b"", entropy)
    return _at_once(record)


def planted(realm: str, handle: Handle, now: Instant, entropy: Entropy, because: str) -> tuple[Insert, End]:
    """Return the tombstone of a session that has not come yet: its own insertion meets it and is refused."""
    record = _record(realm, handle, None, now, None, now + GATED, b"", entropy)
    insert, _ = _at_once(record)
    return insert, End(handle=handle, because=because)


def jti_handle(realm: str, issuer: str, jti: str) -> Handle:
    """Return the handle under which a token is remembered."""
    digest = sha256(b"coatcheck/jti/1\0%b\0%b\0%b" % (realm.encode(), issuer.encode(), jti.encode())).digest()
    return urlsafe_b64encode(digest).decode()[:18]


def opened(record: Record) -> Link:
    """Return what a link says."""
    return _decode(record.data)


def _at_once(record: Record) -> tuple[Insert, End]:
    return Insert(record=record), End(handle=record.handle, because="superseded")


def _handle(realm: str, salt: bytes, key: str, entropy: Entropy) -> Handle:
    ticket = tokens.mint(entropy)
    return (tokens.sharded(ticket, tokens.shard_of(salt, realm, key)) if salt else ticket).handle


def _record(
    realm: str,
    handle: Handle,
    subject: str | None,
    now: Instant,
    authenticated_at: Instant | None,
    until: Instant,
    data: bytes,
    entropy: Entropy,
) -> Record:
    return Record(
        realm=realm,
        handle=handle,
        family_proof=entropy(32),  # the hash of nothing that anybody knows: no token opens it
        turn_proof=entropy(32),
        used_at=now,
        handed_at=now,
        data=data,
        created_at=now,
        seen_at=now,
        idle_for=None,
        expires_at=until,
        subject=subject,
        authenticated_at=authenticated_at,
    )
