"""Keys in a store, as they rotate by themselves: which state each has by now, and what is due.

Rules (docs/why/keys.md)
- All keys are one value, the `Kept`: it is wrapped, replaced and counted (`edition`) as a whole. So nobody can put an
  old state of one key beside the others.
- A key's state follows from its dates and from its neighbours': pending until `active_at`, active until the next one
  is, expired until nothing that it sealed can be alive. Only `revoked` is a mark; it stays, and takes the secret away.
- There is always an active key: if none has begun yet (the clock is behind), or those that had were revoked, then the
  next one by age works.

Nodes may disagree about the time, by up to a minute: a key is kept for `delay` before it is active, and each process
looks `every` so often, so all of them have it by then; and a pending key opens. A process that is ahead is understood.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Final

import msgspec
from msgspec.structs import replace

from .errors import ConfigError, StoreError
from .keyring import Key, State
from .model import Entropy, Instant, Record

DAY: Final = 86400.0
HOUR: Final = 3600.0
SKEW: Final = 60.0
"""Seconds by which the clocks of two processes may differ: each is refused beyond half of it from the store's."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When keys rotate, in seconds.

    delay: how long a new key is known to all before it works. life: how long it works. retention: how long it opens
    after that; longer than any session lives (browsers cut cookies at 400 days). every: how often a process looks.
    """

    delay: float = 600.0
    life: float = 90 * DAY
    retention: float = 400 * DAY
    every: float = 60.0

    def check(self) -> None:
        """Raise ConfigError for a schedule that would log people out."""
        for problem in self._problems():
            message = f"keys: {problem}"
            raise ConfigError(message)

    def _problems(self) -> Iterable[str]:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) not in (int, float) or not isfinite(value) or value <= 0:
                yield f"{name} is a number of seconds above 0 (found {value!r:.40})"
                return
        if self.delay < self.every + SKEW:
            yield (
                f"delay must be at least {self.every + SKEW:g} s, one look (every) and a minute between clocks: "
                f"else a key works before all processes know it (found {self.delay:g} s)"
            )
        if self.life < self.delay:
            yield f"life must not be under delay ({self.delay:g} s; found {self.life:g} s)"
        if self.retention < DAY:
            yield f"retention must be longer than any session lives, a day at least (found {self.retention:g} s)"


class KeptKey(msgspec.Struct, frozen=True, array_like=True):
    """A key as it is kept; once revoked, without its secret."""

    kid: str
    secret: bytes
    made_at: Instant
    active_at: Instant
    revoked_at: Instant | None = None

    def __repr__(self) -> str:
        """Show the id only."""
        return f"KeptKey({self.kid!r})"

    __str__ = __repr__


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """All keys of a store, by the moment at which each begins to work; `edition` grows with every change."""

    edition: int
    keys: tuple[KeptKey, ...]

    def of(self, kid: str) -> KeptKey | None:
        """Return a key by its id."""
        return next((key for key in self.keys if key.kid == kid), None)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Kept).decode


def packed(kept: Kept) -> bytes:
    """Return the keys as bytes, to be wrapped."""
    return _encode(kept)


def unpacked(raw: bytes) -> Kept:
    """Return the keys of what was unwrapped."""
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        message = "the keys in the store were written by a newer coatcheck; upgrade this one"
        raise StoreError(message) from error


def state_of(kept: Kept, key: KeptKey, now: Instant) -> State:
    """Return what a key is at a moment."""
    if key.revoked_at is not None:
        return "revoked"
    active = _active(kept, now)
    if key == active:
        return "active"
    return "pending" if key.active_at > active.active_at else "expired"


def ends_at(kept: Kept, key: KeptKey, schedule: Schedule) -> Instant | None:
    """Return when a key will be removed, or None: it is not yet known, since no other follows it."""
    if key.revoked_at is not None:
        return key.revoked_at + schedule.retention
    later = [other for other in _good(kept) if other.active_at > key.active_at]
    return later[0].active_at + schedule.retention if later else None


def keys_of(kept: Kept, now: Instant) -> tuple[Key, ...]:
    """Return the keys of a ring, oldest first; one that was revoked is not among them, so nothing of it opens."""
    return tuple(Key(key.kid, key.secret, state_of(kept, key, now)) for key in _good(kept))


def begun(now: Instant, entropy: Entropy) -> Kept:
    """Return the first keys of a store: one, which works at once, since nobody can have missed it."""
    return Kept(1, (_made(now, now, entropy),))


def due(kept: Kept, schedule: Schedule, now: Instant, entropy: Entropy) -> Kept | None:
    """Return what becomes of the keys by now, or None: nothing is due."""
    keys = tuple(key for key in kept.keys if not _is_over(kept, key, schedule, now))
    if now >= _good(kept)[-1].active_at + schedule.life - schedule.delay:
        keys += (_made(now, now + schedule.delay, entropy),)
    return None if keys == kept.keys else Kept(kept.edition + 1, keys)


def rotated(kept: Kept, schedule: Schedule, now: Instant, entropy: Entropy) -> Kept | None:
    """Return the keys with a new one, which works after the delay; None: there is a pending one already."""
    if _good(kept)[-1].active_at > now:
        return None
    return Kept(kept.edition + 1, (*kept.keys, _made(now, now + schedule.delay, entropy)))


def revoked(kept: Kept, kid: str, now: Instant, entropy: Entropy) -> Kept | None:
    """Return the keys without the trust in one; None: there is none of that name, or it was revoked before.

    If it worked, the one before it works again until the next (all processes have it); failing that, a new one at once.
    """
    if all(key.kid != kid or key.revoked_at is not None for key in kept.keys):
        return None
    keys = tuple(replace(key, secret=b"", revoked_at=now) if key.kid == kid else key for key in kept.keys)
    if all(key.revoked_at is not None for key in keys):
        keys += (_made(now, now, entropy),)
    return Kept(kept.edition + 1, keys)


def works_until(kept: Kept, key: KeptKey) -> Instant | None:
    """Return when the next key took over from one, or None: none has, as far as is known."""
    later = [other.active_at for other in kept.keys if other.active_at > key.active_at]
    return min(later, default=None)


def may_have_sealed(record: Record, since: Instant, until: Instant | None = None) -> bool:
    """Tell whether a sealed session's cookie may be of a key that worked from `since` on, until another one did.

    A cookie is sealed anew whenever its session changes, at the latest when its secret is renewed: so one that was
    handed out later is another key's, and one that was not used since is, too (activity is noted with some delay).
    """
    return record.seen_at >= since - HOUR and (until is None or record.handed_at <= until + SKEW)


def rewrapped(kept: Kept) -> Kept:
    """Return the same keys as another edition."""
    return replace(kept, edition=kept.edition + 1)


def _active(kept: Kept, now: Instant) -> KeptKey:
    good = _good(kept)
    begun = [key for key in good if key.active_at <= now]
    return begun[-1] if begun else good[0]


def _good(kept: Kept) -> list[KeptKey]:
    """Return the keys that were not revoked, by the moment at which they begin to work; there is always one."""
    return sorted((key for key in kept.keys if key.revoked_at is None), key=lambda key: key.active_at)


def _is_over(kept: Kept, key: KeptKey, schedule: Schedule, now: Instant) -> bool:
    ends = ends_at(kept, key, schedule)
    return ends is not None and now >= ends


def _made(now: Instant, active_at: Instant, entropy: Entropy) -> KeptKey:
    return KeptKey(entropy(4).hex(), entropy(32), now, active_at)
