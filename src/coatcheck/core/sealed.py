"""Sealed tokens: the session encrypted into its own cookie, `s1.<kid>.<handle>.<pieces>.<nonce and ciphertext>`.

Rules (docs/why/sealed.md)
- Each session has its own key, derived from the named master key, the realm and the handle. The seal also vouches for
  format, key id, realm, cookie name, origin, handle and number of pieces: anywhere else it is noise.
- One seal over the whole, then it is cut where browsers would cut it; the first piece says into how many. Pieces
  beyond that are ignored, and taken away with the next write.
- What was sealed has one spelling: its length is a multiple of three bytes, so base64 has no spare bits and no padding.
- Nothing is compressed: the length of a compressed text tells what is in it.
- Activity lives in a small cookie of its own, so that a read never overwrites what a parallel request wrote.
"""

from __future__ import annotations

import re
import struct
from binascii import Error as NoBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import astuple, replace

from . import codec
from .cookies import MOST_COOKIE, CookieSpec, CookieWriter
from .errors import ConfigError, DataError
from .model import Held, Instant, Record, Request, Ticket

if TYPE_CHECKING:
    from .keyring import Keyring

MOST_CHUNKS = 3
"""A fourth cookie of 4 KiB would not fit below cookies.MOST_HEADER, beside any other cookie."""

_VERSION = b"s1"
_HANDLE = re.compile(rb"[A-Za-z0-9_-]{18}").fullmatch
_COUNTS = {b"%d" % number: number for number in range(1, MOST_CHUNKS + 1)}
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # one spelling only: what is not ours becomes what is no base64
_OVERHEAD = 12 + 16  # bytes of nonce and tag
_SEEN = "-seen"
_NUMBER = struct.Struct("!d")  # 8 bytes and the overhead are a multiple of three, too

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Held).decode


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The choice of sealed tokens: `SessionMiddleware(app, store=..., sealed=Sealed(keyring=...))`.

    - keyring: seals with its newest active key, opens with any that is not revoked.
    - unsafe_irrevocable: there is no store; so a logout, a login elsewhere or an operator end no copy of a cookie.
    - store_down: while the store is away, safe requests are answered from the cookie alone ("reads"), or none are.
    - monotonic: keys that never go back (a credit, a version of rights): once one of them changed, every older cookie
      is refused.
    - most_chunks: cookies that a session may fill, 4 KiB each. Above 1 the Cookie header no longer fits into the 8 KiB
      that nginx, Apache, gunicorn, aiohttp and Sanic allow; raise their limits first (docs/why/sealed.md).
    """

    keyring: Keyring
    unsafe_irrevocable: bool = False
    store_down: Literal["refuse", "reads"] = "refuse"
    monotonic: Collection[str] = ()
    most_chunks: int = 1

    def problems(self) -> Iterator[str]:
        """Yield what is wrong, a sentence each."""
        if not hasattr(self.keyring, "seal"):
            yield f"sealed tokens need a Keyring (found {type(self.keyring).__name__})"
        if self.store_down not in ("refuse", "reads"):
            yield f"store_down of sealed tokens is 'refuse' or 'reads' (found {self.store_down!r})"
        if isinstance(self.monotonic, str):
            yield f"monotonic is a list, not a text (found {self.monotonic!r}); write [{self.monotonic!r}]"
        if type(self.most_chunks) is not int or not 1 <= self.most_chunks <= MOST_CHUNKS:
            yield f"most_chunks is 1 to {MOST_CHUNKS} (found {self.most_chunks!r}); keep larger data in a store"
        if self.unsafe_irrevocable and self.monotonic:
            yield "monotonic keys need a store that remembers their last change; drop them or name a store"
        if self.unsafe_irrevocable and self.store_down != "refuse":
            yield "store_down is about a store, and unsafe_irrevocable says that there is none; drop one of them"


class Sealer:
    """Opens and writes the sealed cookies of one application."""

    __slots__ = (
        "_activity",
        "_bound",
        "_bound_seen",
        "_keyring",
        "_most",
        "_realm",
        "_room",
        "_writers",
        "alone",
        "monotonic",
    )

    def __init__(self, chosen: Sealed, realm: str, spec: CookieSpec, origin: str, *, comma_joined: bool) -> None:
        """Take the checked choice, and all that a sealed cookie is bound to."""

        def writer(suffix: str) -> CookieWriter:
            return CookieWriter(replace(spec, name=spec.name + suffix), comma_joined=comma_joined)

        self.alone = chosen.unsafe_irrevocable
        self.monotonic = frozenset(chosen.monotonic)
        self._keyring = chosen.keyring
        self._most = chosen.most_chunks
        self._realm = realm + "\0"
        self._writers = (writer(""), *(writer(f"-{number}") for number in range(1, MOST_CHUNKS)))
        self._room = [MOST_COOKIE - len(one.name) for one in self._writers]
        self._activity = writer(_SEEN)
        self._bound, self._bound_seen = (
            f"\0{realm}\0{one.name}\0{origin}\0".encode() for one in (self._writers[0], self._activity)
        )

    def open(self, header: bytes, first: bytes) -> Ticket | None:
        """Return the ticket, and what is held with it, of a first piece and the others in the header; None: not ours.

        Which part was wrong is told nobody; an unknown or revoked key is no different.
        """
        parts = _split(first)
        if parts is None:
            return None
        kid, handle, count, text = parts
        for writer in self._writers[1 : _COUNTS[count]]:
            piece = writer.find(header)
            if not isinstance(piece, bytes):
                return None
            text += piece
        plain = self._opened(kid, handle, count, text, self._bound)
        if plain is None:
            return None
        try:
            held = _decode(plain.lstrip(b"\0"))
        except msgspec.DecodeError:
            return None  # sealed by a later release
        return Ticket(handle.decode("ascii"), held.family, held.turn, held)

    def seen_at(self, ticket: Ticket, header: bytes) -> Instant:
        """Return when the bearer of these cookies was last seen, as far as they say."""
        held = ticket.held
        if held is None:
            raise AssertionError  # a ticket that `open` made
        value = self._activity.find(header)
        parts = _split(value) if isinstance(value, bytes) else None
        if parts is None or parts[1] != ticket.handle.encode("ascii"):
            return held.seen_at
        try:
            (seen_at,) = _NUMBER.unpack(self._opened(*parts, self._bound_seen) or b"")
        except struct.error:
            return held.seen_at
        return max(held.seen_at, float(seen_at))

    def write(self, ticket: Ticket, record: Record, age: float | None, request: Request) -> tuple[bytes, ...]:
        """Return the cookies that hand out a record with its data, and take away pieces that the request had too many.

        Raises DataError where they would not fit.
        """
        plain = _plain(ticket, record, keep_client=self.alone)
        kid = self._keyring.newest.kid
        length = 5 + len(_VERSION) + len(kid) + len(ticket.handle)
        count = self._pieces(length + (len(plain.raw) + _OVERHEAD) // 3 * 4, record.data)
        text = self._sealed(kid, ticket.handle, plain, self._bound, count)
        pieces = (text,) if count == 1 else self._cut(text)
        written = [writer.write(piece.raw, age) for writer, piece in zip(self._writers, pieces, strict=False)]
        return (*written, *self._cleared(self._writers[count:], request))

    def write_seen(self, handle: str, seen_at: Instant, age: float | None) -> bytes:
        """Return the small cookie that notes activity."""
        plain = _Hidden(_NUMBER.pack(seen_at))
        kid = self._keyring.newest.kid
        return self._activity.write(self._sealed(kid, handle, plain, self._bound_seen, 1).raw, age)

    def clear(self, request: Request) -> tuple[bytes, ...]:
        """Return the Set-Cookie lines that take everything away that the request had."""
        first, *others = self._writers
        return (first.clear(), *self._cleared((*others, self._activity), request))

    def _cleared(self, writers: Iterable[CookieWriter], request: Request) -> list[bytes]:
        header = request.header(b"cookie")
        return [one.clear() for one in writers if one.find(header) is not None]

    def _pieces(self, length: int, data: bytes) -> int:
        """Return into how many cookies a text of this length goes; raise DataError where they would be too many."""
        room = 0
        for count, more in enumerate(self._room[: self._most], 1):
            room += more
            if length <= room:
                return count
        values = codec.decode(data)
        largest = max(values, key=lambda key: len(codec.encode({key: values[key]})), default="")
        message = (
            f"the session would have {length} bytes sealed, and its {self._most} cookie(s) hold {room}; "
            f"the largest value is session[{largest!r:.60}]: move it to a database, "
            f"raise most_chunks (at most {MOST_CHUNKS}), or keep the session in a store (without sealed=...)"
        )
        raise DataError(message, key=largest, found="size")

    def _cut(self, text: _Hidden) -> Iterator[_Hidden]:
        at = 0
        for room in self._room:
            if at < len(text.raw):
                yield _Hidden(text.raw[at : at + room])
            at += room

    def _sealed(self, kid: str, handle: str, plain: _Hidden, bound: bytes, count: int) -> _Hidden:
        key, name, pieces = kid.encode("ascii"), handle.encode("ascii"), b"%d" % count
        context = _context(key, bound, name, pieces)
        made, _, body = self._keyring.seal(self._realm + handle, plain.raw, context).partition(b".")
        if made != key:  # a newer key arrived between the two looks
            return self._sealed(made.decode("ascii"), handle, plain, bound, count)
        text = b2a_base64(body, newline=False).translate(_TO_URL)
        return _Hidden(b".".join((_VERSION, key, name, pieces, text)))

    def _opened(self, kid: bytes, handle: bytes, count: bytes, text: bytes, bound: bytes) -> bytes | None:
        try:
            body = a2b_base64(text.translate(_FROM_URL), strict_mode=True)
        except NoBase64:
            return None
        purpose = self._realm + handle.decode("ascii")
        return self._keyring.open(purpose, kid + b"." + body, _context(kid, bound, handle, count))


def canonical(origins: Collection[str]) -> str:
    """Return the one origin that sealed tokens are bound to: the first; "" where none is configured (localhost)."""
    return next(iter(origins), "")


def check_store(chosen: Sealed | None, store: object) -> None:
    """Raise ConfigError where sealed tokens and the store, or its absence, contradict each other."""
    alone = chosen is not None and chosen.unsafe_irrevocable
    if getattr(store, "keeps", True):
        if alone:
            message = "unsafe_irrevocable says that there is no store, but one was given; drop one of them"
            raise ConfigError(message)
    elif chosen is None:
        message = "there is no store: name one (store='sqlite:///sessions.db'), or choose sealed tokens (sealed=...)"
        raise ConfigError(message)
    elif not alone:
        message = (
            "sealed tokens without a store cannot be taken back: a copied cookie works until its absolute timeout, "
            "whatever logout or an operator do; name a store, or say Sealed(..., unsafe_irrevocable=True)"
        )
        raise ConfigError(message)


def _split(value: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Return key id, handle, number of pieces and text, or None: malformed."""
    parts = value.split(b".")
    if len(parts) != 5 or parts[0] != _VERSION or parts[3] not in _COUNTS or not _HANDLE(parts[2]):
        return None
    return parts[1], parts[2], parts[3], parts[4]


def _context(kid: bytes, bound: bytes, handle: bytes, count: bytes) -> bytes:
    """Return what the seal vouches for besides its content; no part of it can hold a zero byte."""
    return b"%b\0%b%b%b\0%b" % (_VERSION, kid, bound, handle, count)


class _Hidden:
    """Bytes that no traceback shows."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __repr__(self) -> str:
        return f"<{len(self.raw)} hidden bytes>"


def _plain(ticket: Ticket, record: Record, *, keep_client: bool) -> _Hidden:
    """Return what is sealed, zeros before it up to a length that leaves base64 no choice."""
    held = Held(
        ticket.family,
        ticket.turn,
        record.data,
        record.seen_at,
        record.created_at,
        record.expires_at,
        record.idle_for,
        record.subject,
        record.authenticated_at,
        record.methods,
        record.level,
        record.persistent,
        record.client if keep_client else None,
        record.tenant,
    )
    # the one that has no tenant is spelled as it was before there were any
    raw = _encode(held if held.tenant is not None else astuple(held)[:-1])
    return _Hidden(bytes(-(len(raw) + _OVERHEAD) % 3) + raw)
