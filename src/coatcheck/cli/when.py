"""Moments as people write them: `2026-11-24T18:00:00Z`, `2026-11-24T18:00+01:00`, or `2h` for two hours ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ..core.errors import ConfigError
from ..core.model import Instant

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])").fullmatch
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def moment(text: str, now: Instant) -> Instant:
    """Return a moment in seconds since 1970 (UTC); raise ConfigError for a text that is none."""
    ago = _AGO(text.strip())
    if ago is not None:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        message = f"{text!r} is no moment; write 2026-11-24T18:00:00Z (with Z or an offset), or 30m, 2h, 7d for ago"
        raise ConfigError(message)
    return found.timestamp()


def spelled(at: Instant | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, to the second."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
