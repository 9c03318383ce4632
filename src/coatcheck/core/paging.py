"""Where a listing stopped: the cursors of `find` and `events`, opaque to everyone else."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, TypeVar

import msgspec

from .errors import StoreError
from .model import Handle, Instant


class RecordsFrom(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The next page of `find`: after this place in (created_at, handle), as of the first page."""

    as_of: Instant
    created_at: Instant
    handle: Handle


class EventsFrom(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The next page of `events`: before this place in (at, number)."""

    at: Instant
    number: int


_Place = TypeVar("_Place", RecordsFrom, EventsFrom)

_encode: Final = msgspec.msgpack.Encoder().encode
_records: Final = msgspec.msgpack.Decoder(RecordsFrom)
_events: Final = msgspec.msgpack.Decoder(EventsFrom)


def cursor_of(place: RecordsFrom | EventsFrom) -> str:
    """Return a place as an opaque string."""
    return urlsafe_b64encode(_encode(place)).rstrip(b"=").decode()


def records_from(cursor: str) -> RecordsFrom:
    """Return the place that a cursor of `find` names."""
    return _read(_records, cursor)


def events_from(cursor: str) -> EventsFrom:
    """Return the place that a cursor of `events` names."""
    return _read(_events, cursor)


def _read(decoder: msgspec.msgpack.Decoder[_Place], cursor: str) -> _Place:
    try:
        return decoder.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        message = f"{cursor!r:.60} is not a cursor of this listing; start again from its first page"
        raise StoreError(message) from error
