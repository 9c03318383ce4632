"""When a session is over, when it is renewed, and how many there may be: rules that return verdicts.

A policy is asked; it never acts. Its defaults mean "no opinion", the severest verdict wins, the earliest end counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from enum import IntEnum
from math import isfinite
from typing import Literal, TypeAlias

import msgspec

from .errors import ConfigError
from .model import Change, Instant, Record, Signal
from .presets import DAY, HOUR, MINUTE, MOST_LASTING, STANDARDS, Figure
from .presets import preset as standard_of

Seconds: TypeAlias = float | timedelta


class Action(IntEnum):
    """What a verdict asks for; the severest wins."""

    KEEP = 0
    RENEW = 1
    STEP_UP = 2
    END = 3


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What a policy decides about a session, and why.

    `everything`: a step-up stands before all that asks for a login, not only before what asks for a fresh one.
    """

    action: Action = Action.KEEP
    because: str = ""
    everything: bool = False


KEEP = Verdict()

Answer: TypeAlias = Literal["note", "renew", "step_up", "end"]
_ANSWERS = {"note": Action.KEEP, "renew": Action.RENEW, "step_up": Action.STEP_UP, "end": Action.END}


class Policy:
    """A rule of the application's own; override what you need."""

    def expires_at(self, record: Record) -> Instant | None:
        """Return the moment at which this session ends at the latest, or None: no opinion."""
        return None

    def judge(self, record: Record, signals: Sequence[Signal], now: Instant) -> Verdict:
        """Return a verdict on a live session that was just presented; `signals` is what the detectors saw."""
        return KEEP

    def on_login(self, record: Record) -> Sequence[Change]:
        """Return changes to commit together with the login that made `record`."""
        return ()


class OnSignals(Policy):
    """What follows from signals: by their points together, or by the detector that saw them.

    Answers, from the mildest: "note" (an event, no more), "renew" (a new secret; so two holders of the session are told
    apart soon), "step_up" (whoever presents it authenticates again, in a session that the others do not have), "end".
    """

    def __init__(
        self,
        *,
        renew: int | None = None,
        step_up: int | None = 50,
        end: int | None = None,
        reads: Literal["refuse", "allow"] = "refuse",
        by_name: Mapping[str, Answer] | None = None,
    ) -> None:
        """Take from how many points on what is done (None: never), and what a detector's signal alone does.

        A signal with an answer by its name does not count among the points. `reads`: whether whoever is to authenticate
        again may meanwhile have what asks for a login only ("allow"), or nothing that asks for one (H5).
        """
        steps = [(Action.RENEW, renew), (Action.STEP_UP, step_up), (Action.END, end)]
        self._steps = [(action, points) for action, points in steps if points is not None]
        self._by_name = {name: _answer(answer) for name, answer in (by_name or {}).items()}
        self._everything = reads == "refuse"
        points = [points for _, points in self._steps]
        if any(type(found) is not int or not 0 < found <= 100 for found in points):
            message = f"renew, step_up and end are 1 to 100 points, or None (found {points})"
            raise ConfigError(message)
        if reads not in ("refuse", "allow"):
            message = f"reads is 'refuse' or 'allow' (found {reads!r:.40})"
            raise ConfigError(message)

    def judge(self, record: Record, signals: Sequence[Signal], now: Instant) -> Verdict:
        """Return the severest answer that the signals earn."""
        if not signals:
            return KEEP
        points = sum(signal.score for signal in signals if signal.name not in self._by_name)
        earned = [self._by_name[signal.name] for signal in signals if signal.name in self._by_name]
        earned += [action for action, least in self._steps if points >= least]
        return Verdict(max(earned, default=Action.KEEP), "context", everything=self._everything)


def _answer(answer: str) -> Action:
    if answer not in _ANSWERS:
        message = f"an answer to a signal is {', '.join(map(repr, _ANSWERS))} (found {answer!r:.40})"
        raise ConfigError(message)
    return _ANSWERS[answer]


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

    def _problems(self) -> Iterable[str]:
        yield from self._not_numbers() or self._contradictions()

    def _not_numbers(self) -> list[str]:
        """Return what is no duration at all; comparing it would say nothing."""
        found = []
        for name in _CLOCKS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1.0
            if not isfinite(number) or number < 0 or (number == 0 and name != "grace"):
                also = ", or None" if name in _OPTIONAL else ""
                found.append(f"{name} must be a number of seconds above 0 or a timedelta{also} (found {value!r:.40})")
        why: object = self.why
        if not isinstance(why, str):
            found.append(f"why must be text (found {why!r:.40})")
        return found

    def _contradictions(self) -> Iterable[str]:
        if self.idle is not None and self.idle > self.absolute:
            yield f"idle must not exceed absolute ({self.absolute:g} s; found {self.idle:g} s)"
        if self.absolute > MOST_LASTING:
            yield f"absolute must not exceed 400 days: browsers cut cookies there (found {self.absolute:g} s)"
        if self.remember is not None and not self.absolute <= self.remember <= MOST_LASTING:
            yield (
                f"remember must lie between absolute ({self.absolute:g} s) and 400 days, where browsers cut cookies "
                f"(found {self.remember:g} s); remember=None remembers nobody"
            )
        if self.remember is not None and self.remember_idle is not None and self.remember_idle > self.remember:
            yield f"remember_idle must not exceed remember ({self.remember:g} s; found {self.remember_idle:g} s)"
        if self.renew is None:
            return
        if self.grace < MINUTE and not self.why:
            yield (
                f"a grace under 60 s logs out honest users on slow networks (found {self.grace:g} s); "
                "where that is wanted, say why='...'"
            )
        if self.renew < 4 * self.grace:
            yield f"renew must be at least 4 times grace ({4 * self.grace:g} s; found {self.renew:g} s)"


_CLOCKS = ("idle", "absolute", "remember", "remember_idle", "renew", "grace")
_OPTIONAL = frozenset({"idle", "remember", "remember_idle", "renew"})


PRESETS: dict[str, Timeouts] = {
    name: Timeouts(
        idle=standard.most("idle"),
        absolute=standard.most("absolute") or DAY,
        remember=30 * DAY if standard.remembers else None,
        remember_idle=14 * DAY if standard.remembers else None,
    )
    for name, standard in STANDARDS.items()
}
"""The clocks of each preset; where its numbers come from stands in core/presets.py."""


def timeouts(preset: str | None = None, **changes: Seconds | str | None) -> Timeouts:
    """Return a preset's clocks with changes, each in seconds or as a timedelta; raise ConfigError if they cannot be.

    An absolute timeout below the preset's idle timeout takes the idle timeout down with it. A preset whose source
    demands a figure does not exceed it; what exceeds a recommendation is told by `beyond`.
    """
    base = Timeouts() if preset is None else PRESETS[standard_of(preset).name]
    plain = {key: _seconds(value) for key, value in changes.items()}
    unknown = plain.keys() - set(Timeouts.__struct_fields__)
    if unknown:
        message = f"unknown timeout {min(unknown)!r}; there are {', '.join(Timeouts.__struct_fields__)}"
        raise ConfigError(message)
    absolute = plain.get("absolute")
    if isinstance(absolute, (int, float)) and base.idle is not None and 0 < absolute < base.idle:
        plain.setdefault("idle", absolute)
    made: Timeouts = msgspec.structs.replace(base, **plain)
    made.check()
    for figure, found in () if preset is None else exceeded(made, preset):
        if figure.word == "SHALL":
            message = f"timeouts: {found}, and {figure.source} demands it; without the preset you may"
            raise ConfigError(message)
    return made


def exceeded(clocks: Timeouts, preset: str) -> list[tuple[Figure, str]]:
    """Return the figures of a preset than which clocks are laxer, each with a sentence."""
    found = []
    for figure in standard_of(preset).figures:
        value = getattr(clocks, figure.clock)
        if value is None or value > figure.most:
            has = "off" if value is None else f"{value:g} s"
            found.append((figure, f"{figure.clock} is {has}, {preset} has {figure.most:g} s at most"))
    return found


def beyond(clocks: Timeouts, preset: str) -> list[str]:
    """Return, a sentence each, where clocks are laxer than a preset: for a lint, nothing is refused."""
    return [sentence for _, sentence in exceeded(clocks, preset)]


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
        if type(self.most) is not int or self.most < 1 or self.on_limit not in ("evict_oldest", "refuse"):
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
