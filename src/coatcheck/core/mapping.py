"""The session as a mapping: reads and writes wait for nothing, and say to the visit that there was one.

What a handler only read costs no comparison at the end; what it was lent, it may have changed without us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NoReturn, Self

from .codec import SCALARS
from .errors import SettledError
from .visit import Visit


class Data(MutableMapping[str, Any]):
    """The data of a visit: a mapping of str keys to values that the codec keeps; nested changes count."""

    __slots__ = ("visit",)

    def __init__(self, visit: Visit) -> None:
        """Show the data of a visit; applications get their session from `session_of(request)`."""
        self.visit = visit

    def __getitem__(self, key: str) -> Any:
        """Return a value, or raise KeyError."""
        visit = self.visit
        visit.consulted = True
        value = visit.data[key]
        if type(value) not in SCALARS:
            visit.lent = True
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; its type is checked when the response starts."""
        visit = self.visit
        visit.consulted = visit.wrote = True
        if type(value) not in SCALARS or type(key) is not str:
            visit.lent = True
        visit.data[key] = value

    def __delitem__(self, key: str) -> None:
        """Delete a value, or raise KeyError."""
        visit = self.visit
        visit.consulted = visit.wrote = True
        del visit.data[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._looked().data)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._looked().data)

    def __contains__(self, key: object) -> bool:
        """Tell whether a key is there."""
        return key in self._looked().data

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        visit = self.visit
        visit.consulted = True
        value = visit.data.get(key, default)
        if type(value) not in SCALARS:
            visit.lent = True
        return value

    def copy(self) -> dict[str, Any]:
        """Return the data as a plain dict (shallow)."""
        visit = self._looked()
        visit.lent = True
        return dict(visit.data)

    def replace(self, mapping: Mapping[str, Any]) -> None:
        """Put other data in place of all that is there."""
        visit = self._looked()
        visit.wrote = visit.lent = True
        visit.typed = None
        visit.data = dict(mapping)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plain dict of the data, overlaid with another mapping."""
        return {**self.copy(), **other}

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        """Lay another mapping over the data."""
        self.update(other)
        return self

    def __repr__(self) -> str:
        """Show what a log may show: no value, no secret."""
        visit = self.visit
        record = visit.record
        name = visit.login.ticket.handle if visit.login else record.handle if record else "unsaved"
        return f"<Session {name}, {len(visit.data)} keys>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a session holds its secret."""
        message = "a Session is for one request and holds its secret; copy the data with session.copy()"
        raise TypeError(message)

    __hash__ = None  # type: ignore[assignment]

    # -- the visit behind it -------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Keep this request's writes even if the response is a 5xx."""
        self.visit.kept = True

    @property
    def consulted(self) -> bool:
        """Whether the handler looked at all: then the response varies by cookie."""
        return self.visit.consulted

    @property
    def settled(self) -> bool:
        """Whether the response has started: what needs a cookie comes too late now."""
        return self.visit.outcome is not None

    def _before_start(self, act: str) -> Visit:
        visit = self._looked()
        if visit.outcome is not None:
            message = f"session.{act}() after the response started: its cookie can no longer be sent; call it earlier"
            if visit.request.kind == "websocket":
                message = f"a websocket cannot call {act}(): it cannot hand out a cookie; do it by a request"
            raise SettledError(message)
        return visit

    def _looked(self) -> Visit:
        visit = self.visit
        visit.consulted = True
        return visit
