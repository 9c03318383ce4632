"""What becomes of a session of another library: one of ours, once, with its data and no more trust than is due.

Rules (D44; docs/coming-from.md)
- The old token is made the forebear of the new one: handle, family and first turn are derived from it, and what is
  handed out is that turn's successor. So everything that holds for a former token (core/tokens.py) holds for the old
  one: it opens the same session until the new token is first seen, a grace longer, and never again.
- A mark, found by a hash of the old token, names the session and stays to the cut-off: it outlives the tombstone.
  It is written first. So a token that has a mark, but no session, was interrupted: for a while that is made good.
- The session counts from when the old library issued it (epochs, absolute end). Its idle time begins when its browser
  comes.
- What is taken over in bulk waits for its browser: nobody was handed its next turn, and its idle time has not begun.
  Its secrets hang on the old token and on a salt in the mark, since some old stores show a hash of the token to all who
  may list their files. The mark says that it is begun until the session is there: a run that was killed is made good.
- Who is in it is `remembered`, not proved: what needs more asks for a login.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec.structs import replace

from . import codec, facts, realms, records, tokens, typed
from .errors import DataError
from .handing import may_hand_out
from .legacy import Old, Shown, Source
from .model import Client, Event, Handle, Insert, Instant, Level, Limit, Record, Request, Ticket, Update
from .secrecy import Secrecy
from .settings import Settings

if TYPE_CHECKING:
    from .model import Entropy

T = TypeVar("T")

NEVER: Final = 0.0
"""When a session was handed out that waits for its browser."""
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


class Found(msgspec.Struct, frozen=True):
    """What the store has for a claim: the claim as the mark has it, the session if there is one, what to hand out."""

    claim: Claim
    record: Record | None = None
    following: Ticket | None = None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Found({self.claim!r}, {self.record!r})"

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
        mark = _part(sha256(b"\0".join((*words, shown.name or shown.secret))).digest(), 0)[:18].decode("ascii")
        return Claim(source, shown, mark, _ticket(sha256(b"\0".join((*words, shown.secret))).digest()))

    def salted(self, claim: Claim, salt: bytes) -> Claim:
        """Return a claim whose secrets hang on a salt, too, and on no more of the old token than its store shows."""
        words = (b"coatcheck/legacy/2", self._realm_bytes, claim.source.library.encode())
        known = claim.shown.name or claim.shown.secret
        return replace(claim, forebear=_ticket(hmac.digest(salt, b"\0".join((*words, known)), "sha256")))

    def marked(self, claim: Claim, mark: Record | None) -> Claim:
        """Return a claim as its mark has it: with its salt, if the session was taken over in bulk."""
        salt = None if mark is None else _said(mark, "salt", bytes)
        return claim if salt is None else self.salted(claim, salt)

    def may_convert(self, request: Request, mark: Record | None, now: Instant) -> bool:
        """Tell whether a request may turn an old session into one of ours: its answer must be able to carry a cookie.

        Nor does another site get to do it (H3): it may have been sent the old cookie, but not ours.
        """
        return is_open(mark, now) and self._may_answer(request)

    def _may_answer(self, request: Request) -> bool:
        if request.kind != "http" or request.method in ("HEAD", "OPTIONS"):
            return False
        return may_hand_out(request, self._settings.same_site)

    def made(
        self, claim: Claim, old: Old, now: Instant, *, salt: bytes, client: Client | None, floor: Instant = 0.0
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
            idle_for=self._idle,
            expires_at=expires_at,
            subject=subject,
            authenticated_at=None if subject is None else issued_at,
            level=int(Level.ANONYMOUS if subject is None else Level.REMEMBERED),
            persistent=old.persistent,
        )
        record, following = records.renewed(self._realm_bytes, begun, ticket, self._entropy(32), now)
        return Made(Insert(record=record, limit=self._limit, events=_events(claim, record, now)), following)

    def waiting(self, claim: Claim, old: Old, now: Instant, *, salt: bytes, floor: Instant = 0.0) -> Insert | None:
        """Return what creates the session that an old one becomes before its browser comes; see `made`."""
        made = self.made(claim, old, now, salt=salt, client=None, floor=floor)
        if made is None:
            return None
        record = made.insert.record
        record = replace(record, handed_at=NEVER, seen_at=record.created_at, idle_for=None)
        return replace(made.insert, record=record)

    def collected(
        self, request: Request, claim: Claim, record: Record, client: Client, now: Instant
    ) -> tuple[Update, Ticket] | None:
        """Return how a session becomes its browser's that has waited for it, and what to hand out; None: it has not.

        Whether the session still counts is judged afterwards, by what is not changed here.
        """
        if record.handed_at != NEVER or record.ended_at is not None or record.nonce is None:
            return None
        if not self._may_answer(request):
            return None
        ticket = replace(claim.forebear, handle=record.handle)
        following = replace(ticket, turn=tokens.next_turn(record.nonce, ticket))
        changed = replace(record, handed_at=now, seen_at=now, idle_for=self._idle, client=client)
        return Update(record=changed, was=record.version), following

    @property
    def _idle(self) -> float | None:
        return self._clocks.idle if self._clocks.remember is None else self._clocks.remember_idle

    def mark_of(self, claim: Claim, handle: Handle, now: Instant, salt: bytes = b"") -> Record:
        """Return the mark that an old token leaves; each is one's own, so that of all who write it one has written it.

        Nothing opens it: it has no turn. With a salt, it is begun.
        """
        more = {"salt": salt, "begun": True} if salt else {}
        return Record(
            realm=self._realm + realms.CONVERTED,
            handle=claim.mark,
            family_proof=self._entropy(32),
            turn_proof=None,
            used_at=now,
            handed_at=now,
            data=codec.encode({"handle": handle, **more}),
            created_at=now,
            seen_at=now,
            idle_for=None,
            expires_at=claim.source.until,
        )


def session_of(mark: Record) -> Handle | None:
    """Return the handle of the session that a mark names; None: the mark was ended, and says nothing any more."""
    return _said(mark, "handle", str)


def is_begun(mark: Record) -> bool:
    """Tell whether the session that a mark names may not be there yet."""
    return _said(mark, "begun", bool) is True


def is_open(mark: Record | None, now: Instant) -> bool:
    """Tell whether a session that is not there may still be made: nobody began, or whoever did was interrupted."""
    return mark is None or (mark.ended_at is None and (is_begun(mark) or now < mark.created_at + INTERRUPTED))


def finished(mark: Record) -> Update:
    """Return what says of a mark that its session is there."""
    said = codec.decode(mark.data)
    said.pop("begun", None)
    return Update(record=replace(mark, data=codec.encode(said)), was=mark.version)


def refusal(claim: Claim, error: DataError) -> str:
    """Return the sentence that a log gets of a session that cannot be kept."""
    return f"a session of {claim.source.library} was not taken over: {error}"


def _events(claim: Claim, record: Record, now: Instant) -> tuple[Event, ...]:
    source, client = claim.source.library, record.client
    return (
        facts.about("session_created", record, now, client, persistent=record.persistent),
        facts.about("session_converted", record, now, client, source=source, issued_at=record.created_at),
    )


def _said(mark: Record, word: str, kind: type[T]) -> T | None:
    said = codec.decode(mark.data).get(word) if mark.data else None
    return said if isinstance(said, kind) else None


def _ticket(key: bytes) -> Ticket:
    return Ticket(_part(key, 1)[:18].decode("ascii"), _part(key, 2), _part(key, 3))


def _part(key: bytes, number: int) -> bytes:
    """Return one of the parts derived from a token: 24 characters."""
    return b2a_base64(hmac.digest(key, b"%d" % number, "sha256")[:18], newline=False).translate(_URLSAFE)
