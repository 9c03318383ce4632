"""Keys kept in a store, as one process holds them: read once a minute, rotated when that is due by whoever comes first.

Rules (docs/why/keys.md)
- The ring is one object for the life of the process; its keys are replaced.
- What is in the store only goes forward: an older edition than one that was seen, another of the same number, or none
  any more, is somebody's doing, and is refused.
- Without a good look for STALE times `every`, the ring forgets its keys: one of them may have been revoked meanwhile.
- Moments are by the store's clock, so processes need not agree about the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import time
from typing import Protocol, runtime_checkable

from ..core import rotation
from ..core.errors import CoatcheckError, ConfigError, StoreError
from ..core.keyring import Keyring
from ..core.model import Entropy, Epochs, Instant
from ..core.roots import Roots
from ..core.rotation import Kept, Schedule
from .journal import logger

NAME = "ring"
"""The name under which the keys lie."""
STALE = 5
TRIES = 8


@runtime_checkable
class KeptKeys(Protocol):
    """A store that keeps keys, each value under a name; wrapped ones, it cannot read them."""

    def keys(self) -> dict[str, bytes]:
        """Return all that is kept."""
        ...

    def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
        """Keep a value if the present one is `was` (None: there is none), durably; tell whether it was."""
        ...

    def epochs(self) -> Epochs:
        """Return the store's clock."""
        ...


class Keys:
    """The keys of a store. `ring` seals and opens with them, once `look` was called; call it before each use."""

    def __init__(
        self,
        store: KeptKeys,
        roots: Roots,
        schedule: Schedule | None = None,
        *,
        clock: Callable[[], Instant] = time,
        entropy: Entropy = os.urandom,
    ) -> None:
        """Join a store and the root secrets that wrap its keys; opens nothing. Raises ConfigError."""
        if not isinstance(store, KeptKeys):
            message = f"{type(store).__name__} keeps no keys; use a store that does, or keys from the environment"
            raise ConfigError(message)
        self.schedule = Schedule() if schedule is None else schedule
        self.schedule.check()
        self.ring = Keyring.unread(entropy)
        self._store, self._roots = store, roots
        self._clock, self._entropy = clock, entropy
        self._known: tuple[Kept, bytes] | None = None
        self._looked_at = self._good_at = float("-inf")

    def look(self) -> None:
        """Read the keys if it is time to, and do what is due; raise StoreError if that has failed for too long."""
        now = self._clock()
        if abs(now - self._looked_at) < self.schedule.every:
            return
        self._looked_at = now
        try:
            self.read()
        except CoatcheckError as error:
            if abs(now - self._good_at) < STALE * self.schedule.every:
                logger.warning("keys: %s", error)
                return
            self._looked_at = float("-inf")
            self.ring.forget()
            if self._known is None or isinstance(error, StoreError):
                raise
            raise StoreError(str(error)) from error

    def read(self) -> None:
        """Read the keys now, and do what is due; begin with a first one where there are none."""
        self._change(self._due)

    def peek(self) -> tuple[Kept | None, Instant]:
        """Return the keys as they are, and the store's time; change nothing."""
        raw = self._store.keys().get(NAME)
        now = self._store.epochs().store_now
        return None if raw is None else self._opened(raw), now

    def rotate(self) -> str | None:
        """Make a new key, which works after the delay; return its id, or None: one is pending already."""
        kept = self._change(self._rotated)
        return None if kept is None else kept.keys[-1].kid

    def revoke(self, kid: str) -> bool:
        """Refuse all that a key made: here at once, elsewhere at the next look; tell whether there was such a key."""

        def revoked(kept: Kept | None, now: Instant) -> Kept | None:
            return None if kept is None else rotation.revoked(kept, kid, now, self._entropy)

        return self._change(revoked) is not None

    def _change(self, wanted: Callable[[Kept | None, Instant], Kept | None]) -> Kept | None:
        """Read the keys and put others in their place, if any are wanted; return them, once they are stored."""
        for _ in range(TRIES):
            known = self._known
            raw = self._store.keys().get(NAME)
            now = self._store.epochs().store_now
            kept = self._followed(known, raw)
            if kept is not None and raw is not None:
                self._take(kept, raw, now)
            changed = put = wanted(kept, now)
            if put is None:
                if kept is None or raw is None or not self._roots.is_former(raw):
                    return None
                put = rotation.rewrapped(kept)
            wrapped = self._roots.wrap(NAME, rotation.packed(put))
            if self._store.put_key(NAME, wrapped, raw):
                logger.info("keys: the store has edition %d", put.edition)
                self._take(put, wrapped, now)
                return changed
        message = "others kept changing the keys in the store; try again"
        raise StoreError(message)

    def _due(self, kept: Kept | None, now: Instant) -> Kept | None:
        if kept is None:
            return rotation.begun(now, self._entropy)
        return rotation.due(kept, self.schedule, now, self._entropy)

    def _rotated(self, kept: Kept | None, now: Instant) -> Kept | None:
        if kept is None:
            return rotation.begun(now, self._entropy)
        return rotation.rotated(kept, self.schedule, now, self._entropy)

    def _followed(self, known: tuple[Kept, bytes] | None, raw: bytes | None) -> Kept | None:
        """Return the stored keys, if they are no older than those that were known before they were read."""
        if raw is None:
            if known is None:
                return None
            message = "the keys are gone from the store; if that was meant, restart every process"
            raise StoreError(message)
        if known is not None and raw == known[1]:
            return known[0]
        kept = self._opened(raw)
        if known is not None and kept.edition <= known[0].edition:
            message = (
                f"the keys in the store went back from edition {known[0].edition} to {kept.edition}: somebody put old "
                "ones there, perhaps with one that was revoked; if that was meant, restart every process"
            )
            raise StoreError(message)
        return kept

    def _opened(self, raw: bytes) -> Kept:
        return rotation.unpacked(self._roots.unwrap(NAME, raw))

    def _take(self, kept: Kept, raw: bytes, now: Instant) -> None:
        """Put the keys on the ring, unless newer ones came meanwhile."""
        if self._known is not None and kept.edition < self._known[0].edition:
            return
        self.ring.replace(rotation.keys_of(kept, now))
        self._known = kept, raw
        self._looked_at = self._good_at = self._clock()
