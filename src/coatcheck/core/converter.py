"""What becomes of a session of another library: one of ours, once, with its data and no more trust than is due.

Rules (D44; docs/coming-from.md)
- The old token is made the forebear of the new one: handle, family and first turn are derived from it, and what is
  handed out is that turn's successor. So everything that holds for a former token (core/tokens.py) holds for the old
  one: it opens the same session until the new token is first seen, a grace longer, and never again.
- A mark, found by a hash of the old token, names the session and stays to the cut-off: it outlives the tombstone.
  It is written first. So a token that has a mark, but no session, was interrupted: for a while that is made good.
- The session counts from when the old library issued it (epochs, absolute end). Its idle time begins now.
- Who is in it is `remembered`, not proved: what needs more asks for a login.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from . import codec, facts, records, tokens, typed
from .errors import DataError
from .legacy import Old, Shown, Source
from .model import Client, Event, Handle, Insert, Instant, Level, Limit, Record, Request, Ticket
from .secrecy import Secrecy
from .settings import Settings
from .settler import may_hand_out

if TYPE_CHECKING:
    from .model import Entropy

MARKS: Final = "/converted"
"""What follows the realm in that of its marks: they are no sessions, and are listed apart."""
INTERRUPTED: Final = 300.0
"""Seconds after a mark for which a session that is not there was never written; its tombstone would stay for days."""

_URLSAFE = bytes.maketrans(b"+/", b"-_")


class Claim(msgspec.Struct, frozen=True):
    """An old token that a request presents: its source, what it shows, and what is derived from it."""

    source: Source
    shown: Shown
    mark: Handle
    forebear: Ticket

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Claim({self.source.library}, {self.mark!r})"

    __str__ = __repr__


class Made(msgspec.Struct, frozen=True):
    """A session of ours, made of an old one: what creates it, and the ticket that opens it."""

    insert: Insert
    following: Ticket

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Made({self.insert.record!r})"

    __str__ = __repr__


class Converter:
    """Converts the old sessions of one application."""

    __slots__ = ("_clocks", "_entropy", "_limit", "_realm", "_realm_bytes", "_secrecy", "_settings", "sources")

    def __init__(self, settings: Settings, realm: str, secrecy: Secrecy, entropy: Entropy) -> None:
        """Take what the manager checked."""
        self.sources = tuple(settings.legacy)
        self._settings = settings
        self._clocks = settings.clocks
        self._limit: Limit | None = settings.most
        self._realm = realm
        self._realm_bytes = realm.encode()
        self._secrecy = secrecy
        self._entropy = entropy

    def claim(self, header: bytes, now: Instant) -> Claim | None:
        """Return the first old token in a Cookie header that is good, as far as arithmetic can tell."""
        for source in self.sources:
            if now >= source.until:
                continue
            shown = source.shown(header, now)
            if shown is not None:
                return self.claim_of(source, shown)
        return None

    def claim_of(self, source: Source, shown: Shown) -> Claim:
        """Return the claim of what a source's cookie shows."""
        words = (b"coatcheck/legacy/1", self._realm_bytes, source.library.encode())
        # no secret in a local variable: error trackers send those of every frame
        mark, handle, family, turn = (_part(sha256(b"\0".join((*words, shown.secret))).digest(), n) for n in range(4))
        return Claim(source, shown, mark[:18].decode("ascii"), Ticket(handle[:18].decode("ascii"), family, turn))

    def may_convert(self, request: Request, mark: Record | None, now: Instant) -> bool:
        """Tell whether a request may turn an old session into one of ours: its answer must be able to carry a cookie.

        Nor does another site get to do it (H3): it may have been sent the old cookie, but not ours.
        """
        if request.kind != "http" or request.method in ("HEAD", "OPTIONS"):
            return False
        fresh = mark is None or (mark.ended_at is None and now < mark.created_at + INTERRUPTED)
        return fresh and may_hand_out(request, self._settings.same_site)

    def made(
        self, claim: Claim, old: Old, now: Instant, *, salt: bytes, client: Client, floor: Instant = 0.0
    ) -> Made | None:
        """Return the session that an old one becomes; None: it is over, empty, or older than what counts.

        Raises DataError for data or a subject that a session cannot keep.
        """
        if old.issued_at > now + tokens.SKEW or not old.data:
            return None
        issued_at = min(old.issued_at, now)
        clocks = self._clocks
        lifetime = clocks.absolute if clocks.remember is None else clocks.remember
        expires_at = min(old.ends_at, issued_at + lifetime)
        if now >= expires_at or issued_at < floor:
            return None
        subject = claim.source.subject_of(old.data)
        data = codec.encode(old.data)
        if self._settings.data is not None:
            typed.to_type(old.data, self._settings.data)
        ticket = claim.forebear
        if salt and subject is not None:
            ticket = tokens.sharded(ticket, tokens.shard_of(salt, self._realm, subject))
        begun = records.made(self._realm, ticket, None, clocks, now, client, b"")
        begun = replace(
            begun,
            data=self._secrecy.kept(ticket, data),
            created_at=issued_at,
            idle_for=clocks.idle if clocks.remember is None else clocks.remember_idle,
            expires_at=expires_at,
            subject=subject,
            authenticated_at=None if subject is None else issued_at,
            level=int(Level.ANONYMOUS if subject is None else Level.REMEMBERED),
            persistent=old.persistent,
        )
        record, following = records.renewed(self._realm_bytes, begun, ticket, self._entropy(32), now)
        return Made(Insert(record=record, limit=self._limit, events=_events(claim, record, now)), following)

    def mark_of(self, claim: Claim, handle: Handle, now: Instant) -> Record:
        """Return the mark that an old token leaves; each is one's own, so that of all who write it one has written it.

        Nothing opens it: it has no turn.
        """
        return Record(
            realm=self._realm + MARKS,
            handle=claim.mark,
            family_proof=self._entropy(32),
            turn_proof=None,
            used_at=now,
            handed_at=now,
            data=codec.encode({"handle": handle}),
            created_at=now,
            seen_at=now,
            idle_for=None,
            expires_at=claim.source.until,
        )


def session_of(mark: Record) -> Handle | None:
    """Return the handle of the session that a mark names; None: the mark was ended, and says nothing any more."""
    if not mark.data:
        return None
    handle = codec.decode(mark.data).get("handle")
    return handle if isinstance(handle, str) else None


def refusal(claim: Claim, error: DataError) -> str:
    """Return the sentence that a log gets of a session that cannot be kept."""
    return f"a session of {claim.source.library} was not taken over: {error}"


def _events(claim: Claim, record: Record, now: Instant) -> tuple[Event, ...]:
    source, client = claim.source.library, record.client
    return (
        facts.about("session_created", record, now, client, persistent=record.persistent),
        facts.about("session_converted", record, now, client, source=source, issued_at=record.created_at),
    )


def _part(key: bytes, number: int) -> bytes:
    """Return one of the parts derived from a token: 24 characters."""
    return b2a_base64(hmac.digest(key, b"%d" % number, "sha256")[:18], newline=False).translate(_URLSAFE)
