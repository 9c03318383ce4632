"""Session data <-> bytes: typed, versioned, comparable, and never pickle.

Rules
- The first byte is the version: plain msgpack, or msgpack with types of ours. One that we do not know, or that
  has to be unsealed first (core/secrecy.py), is `UnknownVersion`: to the caller "no session".
- Kept as they are: None, bool, int, float, str, bytes, datetime, date, UUID, Decimal, list, tuple, set, and dict with
  str or int keys. Everything else is refused by name: a value that came back as another type would be a silent lie.
  An aware datetime keeps its instant and its offset from UTC; the rules of its time zone are not data.
- The same data has the same bytes (sets are sorted), so "did it change?" is one comparison, nested changes included.
  The order of a dict is part of the data, as it is when one iterates: reordering is a change, one write too many at
  worst. So are 1, 1.0 and True three different values, though Python calls them equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from .errors import CoatcheckError, DataError

PLAIN = b"\x01"
EXTENDED = b"\x02"
SEALED = b"\x03"
"""What core/secrecy.py made of one of the others; it cannot be decoded without the session's cookie."""
_PLAIN, _EXTENDED = PLAIN[0], EXTENDED[0]

SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None), bytes})
"""What msgpack takes as it is, and what nobody can change from outside."""
_NO_INTS: frozenset[type] = SCALARS - {int}
_MOST_DEPTH = 64

_DATETIME, _DATE, _UUID, _DECIMAL, _TUPLE, _SET, _INT = range(1, 8)

_encode = msgspec.msgpack.Encoder().encode


class UnknownVersion(CoatcheckError):  # noqa: N818 - names what was met, not a fault of ours
    """The bytes were written by a later (or unknown) version of this codec, or are damaged."""


def encode(data: dict[str, Any], *, known_plain: bool = False) -> bytes:
    """Return the bytes of a session's data; `known_plain`: somebody has looked at every value already.

    Raises DataError, naming the key and the type, for a value that cannot be kept.
    """
    if type(data) is not dict:
        raise _refused(data, ())
    if not data:
        return b""
    try:
        try:
            if known_plain or _is_plain(data):
                return PLAIN + _encode(data)
            return EXTENDED + _encode(_packed_dict(data, (), 0, SCALARS))
        except OverflowError:  # an int beyond 64 bits: rare, so only then is each one looked at
            return EXTENDED + _encode(_packed_dict(data, (), 0, _NO_INTS))
    except UnicodeEncodeError as error:
        key = _named(_undecodable(data))
        message = f"session[{key}] holds text that is not valid Unicode ({error.reason}); keep bytes instead"
        raise DataError(message, key=key, found="str") from error


def is_unchanged(raw: bytes, data: dict[str, Any]) -> bool:
    """Tell, fast, that nested values are still what `raw` holds; False only means that `encode` must tell.

    One change it cannot see: a nested list replaced, in place, by a tuple or set of the same items (or a text by a
    UUID, Decimal or datetime that spells the same). Where a key was set, `encode` is asked, which sees that too.
    """
    if not raw:
        return not data
    try:
        return _encode(data) == raw[1:]
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def decode(raw: bytes) -> dict[str, Any]:
    """Return a session's data, or raise UnknownVersion and nothing else."""
    if not raw:
        return {}
    version = raw[0]
    if version not in (_PLAIN, _EXTENDED):
        raise UnknownVersion(bytes(raw[:1]).hex())
    try:
        return _decode_plain(raw[1:]) if version == _PLAIN else _decode(raw[1:])
    except (msgspec.DecodeError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        message = "damaged"
        raise UnknownVersion(message) from error


def _is_plain(data: dict[str, Any]) -> bool:
    """Tell, fast, that msgpack can take the data as it is; False only means that each value is looked at.

    At most _MOST_DEPTH containers are looked into, so that depth and cycles are left to those who can name the key.
    """
    waiting: list[Any] = [data]
    for _ in range(_MOST_DEPTH):
        values = waiting.pop()
        if type(values) is dict:
            for key in values:
                if type(key) is not str:
                    return False
            values = values.values()
        for value in values:
            kind = type(value)
            if kind is str or kind is int:
                continue
            if kind is dict or kind is list:
                waiting.append(value)
            elif kind not in SCALARS:
                return False
        if not waiting:
            return True
    return False


# -- packing: msgpack keeps the plain types, ours travel as its extensions ---------------------------------------------
# `plain` are the types that need no look: all scalars at first, all but int once an int overflowed.


def _packed(value: Any, path: tuple[Any, ...], depth: int, plain: frozenset[type]) -> Any:
    """Return `value` with the types that msgpack lacks as extensions; the same object if it has none."""
    kind = type(value)
    if kind in plain:
        return value
    if kind is dict:
        return _packed_dict(value, path, depth, plain)
    if kind is list:
        return _packed_list(value, path, depth, plain)
    extend = _EXTEND.get(kind)
    if extend is None:
        raise _refused(value, path)
    return extend(value, path, depth, plain)


def _packed_dict(value: dict[Any, Any], path: tuple[Any, ...], depth: int, plain: frozenset[type]) -> dict[Any, Any]:
    _check_depth(depth, path)
    changed: dict[Any, Any] | None = None
    for key, item in value.items():
        if type(key) is not str:
            _check_key(key, path)
        if type(item) in plain:
            continue
        packed = _packed(item, (*path, key), depth + 1, plain)
        if packed is not item:
            if changed is None:
                changed = dict(value)
            changed[key] = packed
    return value if changed is None else changed


def _packed_list(value: list[Any], path: tuple[Any, ...], depth: int, plain: frozenset[type]) -> list[Any]:
    _check_depth(depth, path)
    if plain.issuperset(map(type, value)):
        return value
    return [
        item if type(item) in plain else _packed(item, (*path, number), depth + 1, plain)
        for number, item in enumerate(value)
    ]


def _packed_set(value: set[Any], path: tuple[Any, ...], depth: int, plain: frozenset[type]) -> list[msgspec.Raw]:
    _check_depth(depth, path)
    return [msgspec.Raw(raw) for raw in sorted(_encode(_packed(item, path, depth + 1, plain)) for item in value)]


def _packed_int(value: int, *_: Any) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return _ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _packed_datetime(value: datetime, *_: Any) -> msgspec.msgpack.Ext:
    return _ext(_DATETIME, value.isoformat().encode() + (b";1" if value.fold else b""))


def _check_depth(depth: int, path: tuple[Any, ...]) -> None:
    if depth > _MOST_DEPTH:
        message = f"session[{_named(path[:3])}] is nested deeper than {_MOST_DEPTH} levels"
        raise DataError(message, key=_named(path[:1]), found="nesting")


def _check_key(key: Any, path: tuple[Any, ...]) -> None:
    if not path or type(key) is not int or not -(2**63) <= key < 2**64:
        raise _refused_key(key, path)


_ext = msgspec.msgpack.Ext

_EXTEND: dict[type, Callable[[Any, tuple[Any, ...], int, frozenset[type]], Any]] = {
    int: _packed_int,
    datetime: _packed_datetime,
    date: lambda value, *_: _ext(_DATE, value.isoformat().encode()),
    UUID: lambda value, *_: _ext(_UUID, value.bytes),
    Decimal: lambda value, *_: _ext(_DECIMAL, str(value).encode()),
    tuple: lambda value, *where: _ext(_TUPLE, _encode(_packed_list(list(value), *where))),
    set: lambda value, *where: _ext(_SET, _encode(_packed_set(value, *where))),
}


# -- unpacking ---------------------------------------------------------------------------------------------------------


def _unpacked(code: int, raw: memoryview) -> Any:
    restore = _RESTORE.get(code)
    if restore is None:
        message = f"extension {code}"
        raise UnknownVersion(message)
    return restore(bytes(raw))


def _unexpected(code: int, _raw: memoryview) -> Any:
    message = f"extension {code} in plain data"
    raise UnknownVersion(message)


_decode = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_unpacked).decode
_decode_plain = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_unexpected).decode
_decode_list = msgspec.msgpack.Decoder(list, ext_hook=_unpacked).decode


def _restored_datetime(raw: bytes) -> datetime:
    text, _, fold = raw.decode("ascii").partition(";")
    value = datetime.fromisoformat(text)
    return value.replace(fold=1) if fold else value


_RESTORE: dict[int, Callable[[bytes], Any]] = {
    _DATETIME: _restored_datetime,
    _DATE: lambda raw: date.fromisoformat(raw.decode("ascii")),
    _UUID: lambda raw: UUID(bytes=raw),
    _DECIMAL: lambda raw: Decimal(raw.decode("ascii")),
    _TUPLE: lambda raw: tuple(_decode_list(raw)),
    _SET: lambda raw: set(_decode_list(raw)),
    _INT: lambda raw: int.from_bytes(raw, "big", signed=True),
}


# -- refusals ----------------------------------------------------------------------------------------------------------


def _refused(value: Any, path: tuple[Any, ...]) -> DataError:
    name = _type_name(value)
    where = f"session[{_named(path)}]" if path else "the session's data"
    message = (
        f"{where} is of type {name}, which a session cannot keep; keep exactly "
        "str, int, float, bool, None, bytes, datetime, date, UUID, Decimal, list, tuple, set or dict"
    )
    return DataError(message, key=_named(path), found=name)


def _refused_key(key: Any, path: tuple[Any, ...]) -> DataError:
    name = _type_name(key)
    where = f"session[{_named(path)}]" if path else "the session"
    message = f"{where} has a key of type {name} ({_shown(key)}); keys are str (or 64-bit int below the first level)"
    return DataError(message, key=_named((*path, key)), found=name)


def _type_name(value: Any) -> str:
    """Return a type's name, with its module where it is not Python's own: a subclass may bear the same name."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _undecodable(data: dict[Any, Any]) -> tuple[Any, ...]:
    """Return the first-level key whose key or value holds a lone surrogate."""
    for key, item in data.items():
        try:
            _encode(_packed_dict({key: item}, (), 0, _NO_INTS))
        except UnicodeEncodeError:
            return (key,)
    return ()


def _named(path: Iterable[Any]) -> str:
    return "][".join(_shown(part) for part in path)


def _shown(part: Any) -> str:
    """Return a key as a message may show it: short, and printable whatever it is."""
    if isinstance(part, int) and part.bit_length() > 64:  # Python refuses to print ints of 4,300 digits
        return "a huge int"
    return ascii(part)[:40]
