"""Sessions of another library, as far as the core knows them: where their cookie is, what it shows, when that ends.

Rules (docs/coming-from.md)
- A source (legacy/, one file a library) reads one old cookie. What is all in the cookie is read by arithmetic; what
  lies in an old store is named by a key, and the flow fetches it.
- `secret` is what the old token is known by, and it has one spelling: signatures are compared decoded, since lenient
  decoders let a thief write one token in several ways, and each would count once.
- Nobody is believed for longer than before: a session counts from when the old library issued it.
- A pickled session is refused by a sentence, and never unpickled.
- What lies in an old store can be listed by its keys, and so be taken over before its browser comes; what lies in a
  cookie cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from .cookies import CookieSpec, CookieWriter, SameSite
from .errors import ConfigError, DataError
from .model import Instant
from .visit import MOST_SUBJECT

Subject: TypeAlias = str | Callable[[dict[str, Any]], str | int | None] | None
"""Whose an old session is: the key of its data that says so, or a function of the data; None: nobody's."""


class Old(msgspec.Struct, frozen=True):
    """A session of another library: its data, when it was issued, when it ends by that library's own rules."""

    data: dict[str, Any]
    issued_at: Instant
    ends_at: Instant
    persistent: bool = False

    def __repr__(self) -> str:
        """Show what a log may show: no value."""
        return f"Old({len(self.data)} keys)"

    __str__ = __repr__


class Shown(msgspec.Struct, frozen=True):
    """What an old cookie shows: the secret that it is known by, and the session, or the key under which that lies.

    `name`: what the session is known by to whoever sees the old store only, where that is not the key.
    """

    secret: bytes
    old: Old | None = None
    key: str = ""
    name: bytes = b""

    def __repr__(self) -> str:
        """Show nothing: a key opens the old session."""
        return "Shown()"

    __str__ = __repr__


class OldCookie(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes that the old cookie was set with: browsers take away only what they find under the same ones."""

    path: str = "/"
    domain: str | None = None
    secure: bool = False
    same_site: SameSite = "Lax"
    partitioned: bool = False


AS_SET: Final = OldCookie()
"""The attributes that the libraries give their cookies if nobody says otherwise."""


class Source:
    """The sessions of one application of another library; each library has its own, in the room `legacy`."""

    library: ClassVar[str] = ""

    def __init__(
        self,
        *,
        cookie: str,
        subject: Subject,
        until: datetime,
        attributes: OldCookie,
        lifetime: float | None,
        moved: bool = False,
    ) -> None:
        """Name the cookie, whose a session is, and the cut-off (aware) after which nothing of it counts.

        `moved`: all was taken over in bulk, and the old store may be switched off: it is asked no more.
        """
        if until.tzinfo is None:
            message = f"{type(self).__name__}: until needs a time zone (found {until.isoformat()}); add tzinfo=UTC"
            raise ConfigError(message)
        if lifetime is not None and not lifetime > 0:
            message = f"{type(self).__name__}: a lifetime is above 0 seconds (found {lifetime!r})"
            raise ConfigError(message)
        self.cookie = cookie
        self.until: Instant = until.timestamp()
        self.attributes = attributes
        self.moved = moved
        self._lifetime = lifetime
        self._subject = subject
        self._writer = self._writer_of(cookie)

    # -- what a request shows ----------------------------------------------------------------------------------------

    def shown(self, header: bytes, now: Instant) -> Shown | None:
        """Return what the old cookie in a Cookie header shows; None: it is not there, or nothing good."""
        value = self._writer.find(header)
        if not isinstance(value, bytes):
            return None  # none, or two different ones: nobody's
        value = unquoted(value)
        return self.read(value, now) if value else None

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return what a value of the old cookie shows; None: forged, damaged, or over."""
        raise NotImplementedError

    def is_there(self, header: bytes) -> bool:
        """Tell whether the old cookie came, whatever it is worth."""
        return bool(self.clears(header))

    def clears(self, header: bytes) -> tuple[bytes, ...]:
        """Return what takes the old cookie away, with the attributes that it was set with; nothing if none came."""
        return () if self._writer.find(header) is None else (self._writer.clear(),)

    def _writer_of(self, name: str) -> CookieWriter:
        given = msgspec.structs.asdict(self.attributes)
        return CookieWriter(CookieSpec(name=name, **given))

    # -- what lies in an old store: those that ask it wait ------------------------------------------------------------

    def fetch(self, key: str, now: Instant) -> Old | None:
        """Return the session under a key of the old store, or None.

        Raises DataError for one that cannot be read (pickled), StoreError if the old store does not answer.
        """
        raise NotImplementedError

    def forget(self, key: str) -> None:
        """Delete a session from the old store; raises StoreError if that does not answer."""
        raise NotImplementedError

    def listed(self) -> Iterator[str]:
        """Yield the keys of all that lies in the old store, as `fetch` takes them.

        Raises ConfigError where nobody can list them, StoreError if the old store does not answer.
        """
        message = (
            f"the sessions of {self.library} lie in cookies, which nobody can list; leave the source in `legacy`, and "
            f"each is taken over when its browser comes, until {datetime.fromtimestamp(self.until, UTC):%Y-%m-%d}"
        )
        raise ConfigError(message)

    def unlisted(self) -> int:
        """Return how many sessions in the old store cannot be found by their keys."""
        return 0

    def of_key(self, key: str) -> Shown:
        """Return what a cookie that names this key shows."""
        return Shown(b"key\0" + key.encode(), None, key)

    # -- whose it is -------------------------------------------------------------------------------------------------

    def subject_of(self, data: dict[str, Any]) -> str | None:
        """Return whose a session with this data is; None: nobody's. Raises DataError for what is no subject."""
        chosen = self._subject
        found: Any = None if chosen is None else data.get(chosen) if isinstance(chosen, str) else chosen(data)
        if found is None:
            return None
        subject = str(found) if type(found) is int else found
        if type(subject) is not str or not 0 < len(subject) <= MOST_SUBJECT or not subject.isprintable():
            message = (
                f"the subject of an old session is a text of 1 to {MOST_SUBJECT} printable characters, or a number"
            )
            raise DataError(message, key="subject", found=type(found).__qualname__)
        return subject


def unquoted(value: bytes) -> bytes:
    """Return a cookie's value without the quotation marks that some libraries put around it."""
    return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
