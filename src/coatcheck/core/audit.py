"""The audit trail under seal: what was told can be neither changed, nor taken out, nor added to without being seen.

Rules (OWASP ASVS 16.4.2; NIST SP 800-92 section 4.2 asks for the same by digests kept apart)
- A seal covers the facts of a stretch of time. It is a MAC by a key that is derived from the root secret, which no
  store holds: who can write there cannot make one, and one does not tell what it covers (M17: no bare hash of an
  address).
- Each seal names the one before it and begins where that ended, so none can be taken out of the middle.
- The first seal covers nothing: what was told before it may be forgotten by age any day.
- A stretch ends MARGIN before its seal: what was under way then, in whatever process, has been written.
- The end can be cut off unseen, unless somebody remembers a seal elsewhere: that is why it can be printed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from msgspec.structs import replace

from .model import Event, Instant
from .roots import Roots

SEALED: Final = "audit_sealed"
MARGIN: Final = 600.0


class Seal(msgspec.Struct, frozen=True, gc=False):
    """A seal: its number, its stretch (since < at <= until), number and MAC of its facts, the seal before, its MAC."""

    number: int
    since: Instant
    until: Instant
    count: int
    facts: str
    before: str
    mac: str = ""

    @property
    def name(self) -> str:
        """What to remember of it elsewhere: number and MAC."""
        return f"{self.number}:{self.mac}"


class Fault(msgspec.Struct, frozen=True, gc=False):
    """What does not fit: the number of the seal, and a sentence."""

    number: int
    sentence: str


def first(now: Instant, roots: Roots) -> Seal:
    """Return the seal with which a trail begins; it covers nothing."""
    return _sealed(1, now - MARGIN, now - MARGIN, (), "", roots)


def following(last: Seal, facts: Iterable[Event], now: Instant, roots: Roots) -> Seal | None:
    """Return the next seal, over those of the facts that are in its stretch; None: there is none yet."""
    until = now - MARGIN
    if until <= last.until:
        return None
    covered = [one for one in facts if last.until < one.at <= until and not one.noise]
    return _sealed(last.number + 1, last.until, until, covered, last.mac, roots)


def event_of(seal: Seal, now: Instant) -> Event:
    """Return a seal as the fact that keeps it."""
    return Event(name=SEALED, at=now, detail=msgspec.to_builtins(seal))


def seal_of(event: Event) -> Seal | None:
    """Return the seal that a fact keeps, or None: somebody changed it."""
    try:
        return msgspec.convert(event.detail, Seal)
    except msgspec.ValidationError:
        return None


def genuine(events: Iterable[Event], roots: Roots) -> list[Seal]:
    """Return the seals that these facts keep and the root secret made, in their order: another's count for nothing."""
    seals = [seal for seal in map(seal_of, events) if seal is not None and roots.signed(_message(seal), seal.mac)]
    return sorted(seals, key=_number)


def faults(events: Sequence[Event], facts: Sequence[Event], roots: Roots, remembered: str = "") -> list[Fault]:
    """Return what does not fit, given the facts that keep seals and all facts; `remembered` is a seal's name.

    The oldest seals may outlive what they cover, since facts are forgotten by age: where the first one is gone, a
    stretch that begins before the oldest one was made is not held against anything.
    """
    found, seals = [], []
    ordered = sorted((one for one in facts if not one.noise), key=_moment)
    for event in events:
        seal = seal_of(event)
        if seal is None or not roots.signed(_message(seal), seal.mac):
            found.append(
                Fault(
                    0 if seal is None else seal.number,
                    "this seal was not made with the root secret that was given, nor the former one",
                )
            )
        else:
            seals.append((seal, event.at))
    seals.sort(key=lambda one: one[0].number)
    before: Seal | None = None
    kept_since = seals[0][1] if seals and seals[0][0].number > 1 else float("-inf")
    for seal, _ in seals:
        if before is not None and (seal.number, seal.before, seal.since) != (
            before.number + 1,
            before.mac,
            before.until,
        ):
            found.append(Fault(seal.number, f"seals are missing, or doubled, between {before.number} and this one"))
        begin, end = (bisect_right(ordered, at, key=_moment) for at in (seal.since, seal.until))
        covered = ordered[begin:end]
        if seal.since >= kept_since and not roots.signed(digest(covered), seal.facts):
            sentence = f"what it covers was altered: it had {seal.count} facts, and {len(covered)} are there now"
            found.append(Fault(seal.number, sentence))
        before = seal
    if remembered and remembered not in {seal.name for seal, _ in seals}:
        found.append(
            Fault(0, f"the seal that you remember, {remembered:.80}, is not there: the trail was cut or replaced")
        )
    return found


def _sealed(number: int, since: Instant, until: Instant, facts: Sequence[Event], before: str, roots: Roots) -> Seal:
    seal = Seal(number, since, until, len(facts), roots.sign(digest(facts)), before)
    return replace(seal, mac=roots.sign(_message(seal)))


def _message(seal: Seal) -> bytes:
    return b"seal" + msgspec.json.encode(replace(seal, mac=""))


def digest(facts: Iterable[Event]) -> bytes:
    """Return the digest of facts, in whatever order a store lists them."""
    leaves = sorted(sha256(_encoded(one)).digest() for one in facts)
    return b"facts" + sha256(b"".join(leaves)).digest()


def _number(seal: Seal) -> int:
    return seal.number


def _moment(event: Event) -> Instant:
    return event.at


def _encoded(event: Event) -> bytes:
    # what a later release adds to events must not alter what is said of today's: it goes to the end, if it is there
    values = [event.at, event.name, event.realm, event.handle, event.subject, event.client, event.detail, event.trace]
    return msgspec.json.encode(values, enc_hook=repr, order="sorted")
