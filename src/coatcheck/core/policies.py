"""When a session is over, when it is renewed, and how many there may be: rules that return verdicts.

A policy is asked; it never acts. Its defaults mean "no opinion", the severest verdict wins, the earliest end counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Any, Literal, TypeAlias

import msgspec

from .errors import ConfigError
from .model import Change, Instant, Record

Seconds: TypeAlias = float | timedelta

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Action(IntEnum):
    """What a verdict asks for; the severest wins."""

    KEEP = 0
    RENEW = 1
    STEP_UP = 2
    END = 3


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What a policy decides about a session, and why."""

    action: Action = Action.KEEP
    because: str = ""


KEEP = Verdict()


class Policy:
    """A rule of the application's own; override what you need."""

    def expires_at(self, record: Record) -> Instant | None:
        """Return the moment at which this session ends at the latest, or None: no opinion."""
        return None

    def judge(self, record: Record, signals: Sequence[Any], now: Instant) -> Verdict:
        """Return a verdict on a live session that was just presented."""
        return KEEP

    def on_login(self, record: Record) -> Sequence[Change]:
        """Return changes to commit together with the login that made `record`."""
        return ()


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The clocks of a session, in seconds (or timedeltas, through `timeouts`).

    idle: it ends after this long without a request; None: never idle (NIST AAL1 allows it).
    absolute: it ends this long after login, whatever happens.
    remember, remember_idle: the same two for a login with remember=True; None: remembering is refused.
    renew: its secret is replaced this often; None: never by time. grace: the former secret's, from first sight.
    """

    idle: float | None = HOUR
    absolute: float = DAY
    remember: float | None = 30 * DAY
    remember_idle: float | None = 14 * DAY
    renew: float | None = 15 * MINUTE
    grace: float = MINUTE
    why: str = ""

    @property
    def touch_every(self) -> float:
        """Seconds between two writes of activity: a 20th of the idle timeout, at most 5 minutes."""
        return min(300.0, (self.idle or DAY) / 20)

    def check(self) -> None:
        """Raise ConfigError for clocks that contradict each other."""
        for problem in self._problems():
            message = f"timeouts: {problem}"
            raise ConfigError(message)

    def _problems(self) -> Sequence[str]:
        found = []
        if not 0 < self.absolute < float("inf"):
            found.append(f"absolute must be a number of seconds above 0 (found {self.absolute})")
        if self.idle is not None and not 0 < self.idle <= self.absolute:
            found.append(f"idle must lie between 0 and absolute ({self.absolute:g} s; found {self.idle:g} s)")
        if self.remember is not None and not self.absolute <= self.remember <= 400 * DAY:
            found.append("remember must lie between absolute and 400 days (browsers keep no cookie longer)")
        if self.grace < MINUTE and self.renew is not None and not self.why:
            found.append(
                f"a grace under 60 s logs out honest users on slow networks (found {self.grace:g} s); "
                "where that is wanted, say why='...'"
            )
        if self.renew is not None and self.renew < 4 * self.grace:
            found.append(f"renew must be at least 4 times grace ({4 * self.grace:g} s; found {self.renew:g} s)")
        return found


PRESETS: dict[str, Timeouts] = {
    "nist-aal1": Timeouts(idle=None, absolute=30 * DAY),
    "nist-aal2": Timeouts(idle=HOUR, absolute=DAY),
    "nist-aal3": Timeouts(idle=15 * MINUTE, absolute=12 * HOUR, remember=None, remember_idle=None),
    "nist-63b-3-aal2": Timeouts(idle=30 * MINUTE, absolute=12 * HOUR),
    "pci": Timeouts(idle=15 * MINUTE, absolute=12 * HOUR, remember=None, remember_idle=None),
    "owasp-low-risk": Timeouts(idle=30 * MINUTE, absolute=8 * HOUR),
    "owasp-high-value": Timeouts(
        idle=5 * MINUTE, absolute=4 * HOUR, remember=None, remember_idle=None
    ),
}
"""NIST SP 800-63B-4 sections 2.1.3, 2.2.3, 2.3.3 (2025-07) and its revision 3; PCI DSS v4 8.2.8; OWASP cheat sheet."""


def timeouts(preset: str | None = None, **changes: Seconds | str | None) -> Timeouts:
    """Return a preset's clocks with changes, each in seconds or as a timedelta; raise ConfigError if they cannot be.

    An absolute timeout below the preset's idle timeout takes the idle timeout down with it.
    """
    base = Timeouts()
    if preset is not None:
        if preset not in PRESETS:
            message = f"unknown preset {preset!r}; there are {', '.join(PRESETS)}"
            raise ConfigError(message)
        base = PRESETS[preset]
    plain = {key: _seconds(value) for key, value in changes.items()}
    unknown = plain.keys() - set(Timeouts.__struct_fields__)
    if unknown:
        message = f"unknown timeout {sorted(unknown)[0]!r}; there are {', '.join(Timeouts.__struct_fields__)}"
        raise ConfigError(message)
    made: Timeouts = msgspec.structs.replace(base, **plain)
    made.check()
    return made


def _seconds(value: Seconds | str | None) -> float | str | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


class SessionLimit(msgspec.Struct, frozen=True):
    """How many live sessions a subject may have; one more evicts the oldest, or is refused."""

    most: int
    on_limit: Literal["evict_oldest", "refuse"] = "evict_oldest"

    def check(self) -> None:
        """Raise ConfigError for a limit that means nothing."""
        if self.most < 1 or self.on_limit not in ("evict_oldest", "refuse"):
            message = f"a session limit is at least 1 and 'evict_oldest' or 'refuse' (found {self})"
            raise ConfigError(message)


def over(record: Record, policies: Sequence[Policy], now: Instant) -> str | None:
    """Return why a record is over by its clocks ("idle" or "absolute"), or None: judged on read, first come first."""
    end = record.expires_at
    for policy in policies:
        own = policy.expires_at(record)
        if own is not None and own < end:
            end = own
    if record.idle_for is not None and now >= record.seen_at + record.idle_for:
        return "idle" if record.seen_at + record.idle_for < end else "absolute"
    return "absolute" if now >= end else None
