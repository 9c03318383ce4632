"""Session data <-> bytes: typed, versioned, comparable, and never pickle.

Rules
- The first byte is the version. A version that we do not know is `UnknownVersion`: the caller treats it as "no session".
- Kept as they are: None, bool, int, float, str, bytes, datetime, date, UUID, Decimal, list, tuple, set, and dict with
  str or int keys. Everything else is refused by name: a value that came back as another type would be a silent lie.
- Equal data has equal bytes (sets are sorted), so "did it change?" is one comparison, nested changes included.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from .errors import DataError

VERSION = b"\x01"

_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_MOST_DEPTH = 64
_INT64 = range(-(2**63), 2**64)

_DATETIME, _DATE, _UUID, _DECIMAL, _TUPLE, _SET, _INT = range(1, 8)

_encode = msgspec.msgpack.Encoder().encode


class UnknownVersion(Exception):  # noqa: N818 - names what was met, not a fault of ours
    """The bytes were written by a later (or unknown) version of this codec, or are damaged."""


def encode(data: dict[str, Any]) -> bytes:
    """Return the bytes of a session's data.

    Raises DataError, naming the key and the type, for a value that cannot be kept.
    """
    if not data:
        return b""
    try:
        return VERSION + _encode(_packed(data, (), 0))
    except UnicodeEncodeError as error:
        message = f"a session holds text that is not valid Unicode: {error.reason}; keep bytes instead"
        raise DataError(message, found="str") from error


def decode(raw: bytes) -> dict[str, Any]:
    """Return a session's data, or raise UnknownVersion."""
    if not raw:
        return {}
    if raw[:1] != VERSION:
        raise UnknownVersion(raw[:1].hex())
    try:
        data = _decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
        raise UnknownVersion("damaged") from error
    return data


def _packed(value: Any, path: tuple[Any, ...], depth: int) -> Any:
    """Return `value` with the types that msgpack lacks as extensions; the same object if it has none."""
    kind = type(value)
    if kind is dict:
        return _packed_dict(value, path, depth)
    if kind is list:
        return _packed_items(value, path, depth)
    if kind is int:
        return value if value in _INT64 else _ext(_INT, str(value).encode())
    if kind in _PLAIN:
        return value
    extend = _EXTEND.get(kind)
    if extend is None:
        raise _refused(value, path)
    return extend(value, path, depth)


def _packed_dict(value: dict[Any, Any], path: tuple[Any, ...], depth: int) -> dict[Any, Any]:
    changed: dict[Any, Any] | None = None
    for key, item in value.items():
        kind = type(key)
        if kind is not str and not (depth and kind is int and key in _INT64):
            raise _refused_key(key, path)
        kind = type(item)
        if kind in _PLAIN and kind is not int:
            continue
        packed = _packed(item, (*path, key), _deeper(depth, path))
        if packed is not item:
            if changed is None:
                changed = dict(value)
            changed[key] = packed
    return value if changed is None else changed


def _packed_items(value: list[Any], path: tuple[Any, ...], depth: int) -> list[Any]:
    below = _deeper(depth, path)
    packed = [_packed(item, (*path, number), below) for number, item in enumerate(value)]
    return value if all(map(_same, packed, value)) else packed


def _same(one: Any, other: Any) -> bool:
    return one is other


def _deeper(depth: int, path: tuple[Any, ...]) -> int:
    if depth >= _MOST_DEPTH:
        message = f"session data is nested deeper than {_MOST_DEPTH} levels below {_named(path[:3])}"
        raise DataError(message, key=_named(path[:1]), found="nesting")
    return depth + 1


def _ext(code: int, raw: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, raw)


_EXTEND: dict[type, Callable[[Any, tuple[Any, ...], int], msgspec.msgpack.Ext]] = {
    datetime: lambda value, _path, _depth: _ext(_DATETIME, value.isoformat().encode()),
    date: lambda value, _path, _depth: _ext(_DATE, value.isoformat().encode()),
    UUID: lambda value, _path, _depth: _ext(_UUID, value.bytes),
    Decimal: lambda value, _path, _depth: _ext(_DECIMAL, str(value).encode()),
    tuple: lambda value, path, depth: _ext(_TUPLE, _encode(_packed_items(list(value), path, depth))),
    set: lambda value, path, depth: _ext(_SET, _encode(_sorted_items(value, path, depth))),
}


def _sorted_items(value: set[Any], path: tuple[Any, ...], depth: int) -> list[msgspec.Raw]:
    below = _deeper(depth, path)
    return [msgspec.Raw(raw) for raw in sorted(_encode(_packed(item, path, below)) for item in value)]


def _unpacked(code: int, raw: memoryview) -> Any:
    restore = _RESTORE.get(code)
    if restore is None:
        message = f"extension {code}"
        raise UnknownVersion(message)
    return restore(bytes(raw))


_decode = msgspec.msgpack.Decoder(dict, ext_hook=_unpacked).decode
_decode_list = msgspec.msgpack.Decoder(list, ext_hook=_unpacked).decode

_RESTORE: dict[int, Callable[[bytes], Any]] = {
    _DATETIME: lambda raw: datetime.fromisoformat(raw.decode()),
    _DATE: lambda raw: date.fromisoformat(raw.decode()),
    _UUID: lambda raw: UUID(bytes=raw),
    _DECIMAL: lambda raw: Decimal(raw.decode()),
    _TUPLE: lambda raw: tuple(_decode_list(raw)),
    _SET: lambda raw: set(_decode_list(raw)),
    _INT: lambda raw: int(raw),
}


def _refused(value: Any, path: tuple[Any, ...]) -> DataError:
    name = type(value).__qualname__
    message = (
        f"session[{_named(path)}] is of type {name}, which a session cannot keep; "
        "keep str, int, float, bool, None, bytes, datetime, date, UUID, Decimal, list, tuple, set or dict"
    )
    return DataError(message, key=_named(path), found=name)


def _refused_key(key: Any, path: tuple[Any, ...]) -> DataError:
    name = type(key).__qualname__
    where = f"session[{_named(path)}]" if path else "the session"
    message = f"{where} has a key of type {name} ({key!r:.40}); keys are str (or int below the first level)"
    return DataError(message, key=_named((*path, key)), found=name)


def _named(path: tuple[Any, ...]) -> str:
    return "][".join(repr(part) for part in path)
