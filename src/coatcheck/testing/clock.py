"""A clock to wind: time in tests is a value, never a wait."""

from __future__ import annotations

from datetime import timedelta


class Clock:
    """A clock that stands still until it is wound; call it to read it (seconds since 1970, UTC)."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        """Start at `now`."""
        self.now = now

    def __call__(self) -> float:
        """Return the time it shows."""
        return self.now

    def wind(self, by: float | timedelta) -> float:
        """Move forward (or back) by seconds or a timedelta; return the new time."""
        self.now += by.total_seconds() if isinstance(by, timedelta) else by
        return self.now
