"""The opaque token `c1.<handle>.<family>.<turn>`: how it is made, hashed, renewed and judged.

Rules (docs/why/token.md)
- The handle is public. `family` is secret and constant from one login to the next; `turn` is secret and changes at
  each renewal, the next one derived from the one presented. The store keeps hashes only.
- The parts are never decoded: one anchored expression, then their characters are hashed. So each session has exactly
  one spelling of its token.
- Nothing is done to a session for a presenter who does not prove `family`.
"""

from __future__ import annotations

import hmac
import re
from binascii import b2a_base64
from enum import IntEnum
from hashlib import sha256

from .model import Entropy, Instant, Record, Ticket

SKEW = 5.0
"""Seconds by which the clocks of two of our processes may differ before a grace is judged too short."""
STRAGGLER_UNTIL = 300.0
"""Seconds after the first sight of a turn until which its predecessor is late, but no evidence of theft."""

_SHAPE = re.compile(rb"c1\.([A-Za-z0-9_-]{18})\.([A-Za-z0-9_-]{24})\.([A-Za-z0-9_-]{24})").fullmatch
_HANDLE = re.compile(r"[A-Za-z0-9_-]{18}").fullmatch
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_same = hmac.compare_digest


class TokenClass(IntEnum):
    """What a presented token is to the record found under its handle."""

    GARBAGE = 1
    ENDED = 2
    CURRENT = 3
    FORMER_OPEN = 4
    FORMER_GRACE = 5
    STRAGGLER = 6
    LATE = 7
    STALE = 8


CURRENT = TokenClass.CURRENT  # named once: to look a member up in its class takes longer than a comparison


def parse(value: bytes) -> Ticket | None:
    """Return the ticket that a cookie value spells, or None: malformed."""
    match = _SHAPE(value)
    if match is None:
        return None
    handle, family, turn = match.groups()
    return Ticket(handle.decode("ascii"), family, turn)


def is_handle(text: str) -> bool:
    """Tell whether `text` has the shape of a handle."""
    return _HANDLE(text) is not None


def mint(entropy: Entropy) -> Ticket:
    """Return a ticket for a new session: 108 random bits of handle, 144 each of family and turn."""
    raw = b2a_base64(entropy(51), newline=False).translate(_URLSAFE)
    return Ticket(raw[:18].decode("ascii"), raw[18:42], raw[42:66])


def shard_of(salt: bytes, realm: str, subject: str) -> str:
    """Return the two characters with which a subject's handles begin where a store spreads subjects over shards.

    A keyed hash of 12 bits: whoever lacks the store's salt cannot aim at a shard, and learns of two handles only that
    their subjects may be the same (odds 4,096 to 1).
    """
    digest = hmac.digest(salt, b"coatcheck/shard/1\0%b\0%b" % (realm.encode(), subject.encode()), "sha256")
    return b2a_base64(digest[:3], newline=False).translate(_URLSAFE)[:2].decode("ascii")


def sharded(ticket: Ticket, shard: str) -> Ticket:
    """Return a fresh ticket with its handle moved into a shard."""
    return Ticket(shard + ticket.handle[2:], ticket.family, ticket.turn)


def value_of(ticket: Ticket) -> bytes:
    """Return the cookie value that spells the ticket."""
    return b"c1." + ticket.handle.encode("ascii") + b"." + ticket.family + b"." + ticket.turn


def family_proof(realm: bytes, handle: str, family: bytes) -> bytes:
    """Return the hash of the constant secret, bound to realm and handle."""
    return sha256(b"coatcheck/family/1\0%b\0%b\0%b" % (realm, handle.encode("ascii"), family)).digest()


def turn_proof(realm: bytes, handle: str, family: bytes, turn: bytes) -> bytes:
    """Return the hash of the changing secret, bound to realm, handle and family."""
    return sha256(b"coatcheck/turn/1\0%b\0%b\0%b\0%b" % (realm, handle.encode("ascii"), family, turn)).digest()


def next_turn(nonce: bytes, ticket: Ticket) -> bytes:
    """Return the successor of the ticket's turn: the same one each time it is computed from the same nonce."""
    message = b"coatcheck/next/1\0%b\0%b\0%b" % (ticket.handle.encode("ascii"), ticket.family, ticket.turn)
    return b2a_base64(hmac.digest(nonce, message, "sha256")[:18], newline=False).translate(_URLSAFE)


def turned(ticket: Ticket, entropy: Entropy) -> Ticket:
    """Return the ticket with another turn, derived from nothing."""
    return Ticket(ticket.handle, ticket.family, b2a_base64(entropy(18), newline=False).translate(_URLSAFE))


def csrf_key(realm: bytes, family: bytes) -> bytes:
    """Return the session's key for CSRF tokens; it survives renewals and dies at login."""
    return hmac.digest(family, b"coatcheck/csrf/1\0" + realm, "sha256")


def judge(realm: bytes, record: Record, ticket: Ticket, arrived: Instant, grace: float) -> tuple[TokenClass, bytes]:
    """Return the class of a ticket, judged once by its arrival time, and the proof of its turn.

    Every class but GARBAGE means that the presenter proved `family`; a turn's proof covers it, so CURRENT comes first.
    """
    # no secret in a local variable: error trackers send those of every frame
    handle = ticket.handle
    proof = turn_proof(realm, handle, ticket.family, ticket.turn)
    if record.turn_proof is not None and record.ended_at is None and _same(record.turn_proof, proof):
        return CURRENT, proof
    if not _same(record.family_proof, family_proof(realm, handle, ticket.family)):
        return TokenClass.GARBAGE, b""
    if record.ended_at is not None:
        return TokenClass.ENDED, b""
    if record.former_proof is not None and _same(record.former_proof, proof):
        return _former(record, arrived, grace), proof
    return TokenClass.STALE, proof


def _former(record: Record, arrived: Instant, grace: float) -> TokenClass:
    if record.used_at is None:
        return TokenClass.FORMER_OPEN
    since = arrived - record.used_at
    if since < grace + SKEW:
        return TokenClass.FORMER_GRACE
    if since < STRAGGLER_UNTIL:
        return TokenClass.STRAGGLER
    return TokenClass.LATE
