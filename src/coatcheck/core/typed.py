"""Session data as one value of a type that the application named: a msgspec Struct, a dataclass or a TypedDict."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from .errors import DataError

T = TypeVar("T")


def to_type(data: dict[str, Any], kind: type[T]) -> T:
    """Return session data as one validated value of `kind`; raise DataError, naming the place, if it is none."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message = f"the session's data is no {kind.__qualname__}: {error}"
        raise DataError(message, found=kind.__qualname__) from error


def from_type(value: Any) -> dict[str, Any]:
    """Return a typed value as the plain session data that `to_type` reads back."""
    plain = msgspec.to_builtins(value, builtin_types=(bytes, datetime, date, UUID, Decimal))
    if type(plain) is not dict:
        message = f"a session's data is a mapping of names; {type(value).__qualname__} is none"
        raise DataError(message, found=type(value).__qualname__)
    return plain
