"""What the sources have in common whose cookie is a key, and whose sessions lie on a shelf."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ..core.legacy import OldCookie, Shown, Source, Subject
from ..core.model import Instant
from .shelves import Shelf, named


class Shelved(Source):
    """The sessions of a library that keeps them on a shelf."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        cookie: str,
        subject: Subject,
        until: datetime,
        attributes: OldCookie,
        lifetime: float | None,
        moved: bool,
    ) -> None:
        """Take the shelf and what every source is told."""
        super().__init__(
            cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=lifetime, moved=moved
        )
        self._shelf = shelf

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the key."""
        key = named(value)
        return None if key is None else self.of_key(key)

    def of_key(self, key: str) -> Shown:
        """Return what a cookie that names this key shows."""
        name = self._shelf.name_of(key)
        shown = super().of_key(key)
        return shown if name == key else Shown(shown.secret, None, key, super().of_key(name).secret)

    def listed(self) -> Iterator[str]:
        """Yield the keys of all that lies on the shelf."""
        return self._shelf.listed()

    def unlisted(self) -> int:
        """Return how many entries the shelf cannot name."""
        return self._shelf.unlisted()

    def forget(self, key: str) -> None:
        """Delete a session."""
        self._shelf.delete(key)
