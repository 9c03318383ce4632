"""Moments as people write them, and as they read them.

Written: 2026-11-24T18:00:00Z, 2026-11-24T18:00+01:00, or 30m, 2h, 7d for so long ago. Read: ISO 8601 in UTC, with Z.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import typer

from ..core.model import Instant

_AGO: Final = re.compile(r"(\d{1,6})\s*([smhdw])(?:\s+ago)?").fullmatch
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_STEPS: Final = ((60, 1, "s"), (3600, 60, "min"), (2 * 86400, 3600, "h"), (float("inf"), 86400, "d"))


@dataclass(frozen=True, slots=True)
class When:
    """A moment: fixed, or so many seconds before whatever the store calls now."""

    at: Instant = 0.0
    ago: float | None = None

    def __call__(self, now: Instant) -> Instant:
        """Return it as seconds since 1970, UTC."""
        return self.at if self.ago is None else now - self.ago


def when(text: str) -> When:
    """Return the moment that a text names; raise BadParameter for one that names none."""
    ago = _AGO(text.strip())
    if ago is not None:
        return When(ago=float(ago[1]) * _SECONDS[ago[2]])
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None:
        message = f"{text!r} is no moment; write 2026-11-24T18:00:00Z, or 30m, 2h, 7d for so long ago"
        raise typer.BadParameter(message)
    if found.tzinfo is None:
        message = f"{text!r} does not say its offset from UTC; add Z, or an offset such as +01:00"
        raise typer.BadParameter(message)
    return When(found.timestamp())


def iso(at: Instant | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, to the second."""
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "9999-12-31T23:59:59Z" if at > 0 else "0001-01-01T00:00:00Z"


def span(seconds: float) -> str:
    """Return a duration in one unit: 45 s, 3 min, 2 h, 5 d."""
    unit, name = next((unit, name) for below, unit, name in _STEPS if seconds < below)
    return f"{int(seconds // unit)} {name}"


def relative(at: Instant, now: Instant) -> str:
    """Return a moment as it is from now: 3 min ago, in 2 h."""
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
