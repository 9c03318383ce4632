"""How records change: made, renewed, shortened, dropped to "remembered", merged. Values in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from . import codec, tokens
from .model import Client, Held, Instant, Level, Record, Ticket
from .policies import Timeouts
from .visit import Lasting, Login


def made(
    realm: str, ticket: Ticket, login: Login | None, clocks: Timeouts, now: Instant, client: Client | None, data: bytes
) -> Record:
    """Return a new record: anonymous, or of a login, on the short clocks or the remembered ones."""
    realm_bytes = realm.encode()
    remember = login is not None and login.remember and clocks.remember is not None
    lifetime = clocks.remember if remember and clocks.remember is not None else clocks.absolute
    return Record(
        realm=realm,
        handle=ticket.handle,
        family_proof=tokens.family_proof(realm_bytes, ticket.handle, ticket.family),
        turn_proof=tokens.turn_proof(realm_bytes, ticket.handle, ticket.family, ticket.turn),
        used_at=now,
        handed_at=now,
        data=data,
        created_at=now,
        seen_at=now,
        idle_for=clocks.remember_idle if remember else clocks.idle,
        expires_at=now + lifetime,
        subject=None if login is None else login.subject,
        authenticated_at=None if login is None else now,
        methods=() if login is None else login.methods,
        level=int(Level.ANONYMOUS) if login is None else login.level,
        persistent=remember,
        client=client,
        tenant=None if login is None else login.tenant,
    )


def succeeded(realm: str, record: Record, ticket: Ticket, now: Instant) -> Record:
    """Return the successor of a record under a new handle: same subject, same proof of identity, same deadlines.

    `used_at` is None until the new token is seen: so a second, parallel rotation knows that its answer was lost.
    """
    realm_bytes = realm.encode()
    return replace(
        record,
        handle=ticket.handle,
        family_proof=tokens.family_proof(realm_bytes, ticket.handle, ticket.family),
        turn_proof=tokens.turn_proof(realm_bytes, ticket.handle, ticket.family, ticket.turn),
        used_at=None,
        former_proof=None,
        nonce=None,
        handed_at=now,
        seen_at=now,
        version=1,
        by=b"",
    )


def renewed(realm: bytes, record: Record, ticket: Ticket, nonce: bytes, now: Instant) -> tuple[Record, Ticket]:
    """Return the record with the next turn as its current one, and the ticket to hand out for it."""
    following = Ticket(ticket.handle, ticket.family, tokens.next_turn(nonce, ticket))
    changed = replace(
        record,
        turn_proof=tokens.turn_proof(realm, following.handle, following.family, following.turn),
        used_at=None,
        former_proof=record.turn_proof,
        nonce=nonce,
        handed_at=now,
    )
    return changed, following


def turned(realm: bytes, record: Record, ticket: Ticket, now: Instant) -> Record:
    """Return the record with the ticket's turn as the only one that opens it: every older token is stale at once."""
    return replace(
        record,
        turn_proof=tokens.turn_proof(realm, ticket.handle, ticket.family, ticket.turn),
        used_at=now,
        former_proof=None,
        nonce=None,
        handed_at=now,
    )


def held(realm: str, ticket: Ticket, brought: Held, seen_at: Instant) -> Record:
    """Return the record that a sealed ticket brought itself, without its data."""
    return Record(
        realm=realm,
        handle=ticket.handle,
        family_proof=tokens.family_proof(realm.encode(), ticket.handle, ticket.family),
        turn_proof=None,
        used_at=brought.created_at,
        handed_at=brought.seen_at,
        created_at=brought.created_at,
        seen_at=seen_at,
        idle_for=brought.idle_for,
        expires_at=brought.expires_at,
        subject=brought.subject,
        authenticated_at=brought.authenticated_at,
        methods=brought.methods,
        level=brought.level,
        persistent=brought.persistent,
        client=brought.client,
        tenant=brought.tenant,
    )


def lasting(record: Record, wish: Lasting, clocks: Timeouts) -> Record:
    """Return the record with the handler's wish: anyone may shorten, only policy lengthens (its longest clocks)."""
    start = record.authenticated_at or record.created_at
    most = start + max(clocks.absolute, clocks.remember or 0.0)
    idle = record.idle_for if wish.idle is None else wish.idle
    longest_idle = max(clocks.idle or most, clocks.remember_idle or 0.0)
    return replace(
        record,
        idle_for=None if idle is None else min(idle, longest_idle),
        expires_at=record.expires_at if wish.until is None else min(wish.until, most),
        persistent=record.persistent if wish.browser_only is None else not wish.browser_only,
    )


def lapsed(record: Record, clocks: Timeouts, now: Instant) -> bool:
    """Tell whether a remembered login is past the clocks of a plain one: from then on it is only "remembered"."""
    if not record.persistent or record.level <= Level.REMEMBERED or record.authenticated_at is None:
        return False
    idle_over = clocks.idle is not None and now >= record.seen_at + clocks.idle
    return idle_over or now >= record.authenticated_at + clocks.absolute


def differ(base: bytes, data: dict[str, Any], keys: Iterable[str]) -> bool:
    """Tell whether one of the keys has another value than in `base`, or is there or gone."""
    before = codec.decode(base)
    return any(not _same(before, data, key) for key in keys)


def merged(base: bytes, mine: dict[str, Any], theirs: bytes, *, unsure: bool) -> dict[str, Any]:
    """Return `theirs` with the keys laid on it that I changed since `base`; values are never merged themselves.

    `unsure`: an earlier attempt of mine may have been applied, so a key that somebody changed after me stays theirs.
    """
    before, result = codec.decode(base), codec.decode(theirs)
    for key in before.keys() | mine.keys():
        if _same(before, mine, key):
            continue
        if unsure and not _same(before, result, key) and not _same(mine, result, key):
            continue
        if key in mine:
            result[key] = mine[key]
        else:
            result.pop(key, None)
    return result


def _same(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    if key not in one or key not in other:
        return key not in one and key not in other
    return codec.encode({key: one[key]}) == codec.encode({key: other[key]})
