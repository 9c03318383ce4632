"""Which browsers a subject has logged in with before: so a login from a new one is noticed, and its owner told.

Rules (ASVS 5.0 6.3.5 and 6.3.7)
- A browser is known by a cookie of its own, random and long-lived, which logs nobody in: it only keeps us quiet. What a
  browser says of itself would not do: a thief can say it, too, and the owner's changes with every update.
- What is kept is one record for a subject, under a hash of its name, in a realm of its own, which no token opens: the
  hashes of at most 30 such cookies, made for this realm and this subject, each with when it was last noted. So two
  accounts in one browser cannot be told to be one. What was not used for a year is forgotten.
- A login costs one load more, and one commit more where its browser is new, or was noted a month ago. A read costs
  nothing. Where the record cannot be read, nothing is told: the login goes on.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from re import compile as pattern
from typing import Final

import msgspec
from msgspec.structs import replace

from . import facts
from .cookies import CookieSpec, CookieWriter
from .model import Entropy, Event, Handle, Insert, Instant, Record, Request, Update

DAY: Final = 86400.0
KNOWN_FOR: Final = 365 * DAY
"""Seconds after its last login in which a browser is known."""
NOTED_EVERY: Final = 30 * DAY
"""Seconds after which the login of a known browser is noted again."""
MOST_DEVICES: Final = 30
"""Browsers of a subject that are remembered: the newest."""

_VALUE = pattern(rb"[A-Za-z0-9_-]{24}").fullmatch
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[bytes, float]).decode


class Sighting(msgspec.Struct, frozen=True):
    """The browser of a login, beside what is remembered of its subject's: its hash, and its cookie's value."""

    subject: str
    device: bytes
    value: bytes
    memory: Record | None
    known: dict[bytes, float]

    @property
    def is_new(self) -> bool:
        """Whether the subject has not logged in with this browser, as far as is remembered."""
        return self.device not in self.known


class Devices:
    """Knows browsers by their cookie."""

    __slots__ = ("_entropy", "_realm", "_where", "cookie")

    def __init__(self, cookie: CookieSpec, realm: str, entropy: Entropy) -> None:
        """Take the session cookie, whose attributes this one shares."""
        self.cookie = CookieWriter(replace(cookie, name=f"{cookie.name}-d"))
        self._realm, self._where, self._entropy = realm.encode(), f"{realm}/devices", entropy

    def handle_of(self, subject: str) -> Handle:
        """Return the handle of what is remembered of a subject's browsers."""
        return urlsafe_b64encode(self._hash(b"coatcheck/devices/1", subject, b"")).decode("ascii")[:18]

    def sighted(self, request: Request, subject: str, memory: Record | None, now: Instant) -> Sighting:
        """Return what a login's browser is, given the record under that handle; one without a cookie gets a value."""
        found = self.cookie.find(request.cookie or request.header(b"cookie"))
        value = found if isinstance(found, bytes) and _VALUE(found) else urlsafe_b64encode(self._entropy(18))
        device = self._hash(b"coatcheck/device/1", subject, value)[:16]
        return Sighting(subject, device, value, memory, _known(memory, now))

    def told(self, sighting: Sighting, record: Record, events: tuple[Event, ...]) -> tuple[tuple[Event, ...], bytes]:
        """Return a login's events, with one more where its browser is new, and the cookie by which it is known.

        `first`: nothing was remembered to compare it with.
        """
        if sighting.is_new:
            first = not sighting.known
            new = facts.about("authn_new_device", record, record.created_at, record.client, first=first)
            events = (*events, new)
        return events, self.cookie.write(sighting.value, KNOWN_FOR)

    def noted(self, sighting: Sighting, now: Instant) -> Insert | Update | None:
        """Return what remembers a login's browser; None: it was noted not long ago."""
        known, memory = sighting.known, sighting.memory
        if now - known.get(sighting.device, -NOTED_EVERY) < NOTED_EVERY:
            return None
        newest = sorted({**known, sighting.device: now}.items(), key=lambda one: one[1])[-MOST_DEVICES:]
        data, until = _encode(dict(newest)), now + KNOWN_FOR
        if memory is None:
            return Insert(record=self._record(self.handle_of(sighting.subject), data, now, until))
        kept = replace(memory, data=data, seen_at=now, expires_at=until, version=memory.version + 1)
        return Update(record=kept, was=memory.version)

    def again(self, sighting: Sighting, memory: Record, now: Instant) -> Sighting:
        """Return a sighting beside what another login has noted meanwhile."""
        return replace(sighting, memory=memory, known=_known(memory, now))

    def _hash(self, purpose: bytes, subject: str, value: bytes) -> bytes:
        """Return what is kept of a cookie: 144 random bits are nobody's guess, so it needs no key."""
        return sha256(b"\0".join((purpose, self._realm, subject.encode(), value))).digest()

    def _record(self, handle: Handle, data: bytes, now: Instant, until: Instant) -> Record:
        return Record(
            realm=self._where,
            handle=handle,
            family_proof=self._entropy(32),  # the hash of nothing that anybody knows: no token opens it
            turn_proof=self._entropy(32),
            used_at=now,
            handed_at=now,
            data=data,
            created_at=now,
            seen_at=now,
            idle_for=None,
            expires_at=until,
        )


def _known(memory: Record | None, now: Instant) -> dict[bytes, float]:
    """Return the browsers that are remembered, each with when it was last noted."""
    if memory is None or memory.ended_at is not None or not memory.data:
        return {}
    return {device: at for device, at in _decode(memory.data).items() if now - at < KNOWN_FOR}
