"""When to stop asking a store that fails: the circuit breaker (M. Nygard, Release It!), as a decision on a clock.

Rules
- Closed: every call goes through. So many failures in a row, without one good answer between them, open it.
- Open: nothing is asked, until the pause is over. A request is answered at once as while the store is away.
- Half open: one call at a time may try. A good answer closes the circuit, a failure opens it for twice as long.
- A probe that never comes back (cancelled, killed) keeps nobody waiting: the next pause lets another one try.
Its state is four numbers for each store and process. Threads share it without a lock: at worst two of them probe.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

import msgspec

from .model import Instant


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """When a store that fails is no longer asked, and for how long (seconds).

    - failures: in a row, without a good answer between them, until it is left alone.
    - pause: how long, at first; each failed try doubles it, up to `longest`.
    - slow: an answer that took longer counts as a failure, too (it is used all the same); None: however long it took.
    """

    failures: int = 5
    pause: float = 1.0
    longest: float = 5.0
    slow: float | None = None

    def problems(self) -> Iterable[str]:
        """Yield what is wrong, a sentence each."""
        if not isinstance(self.failures, int) or self.failures < 1:
            yield f"breaker: failures is a number of at least 1, and breaker=None is none (found {self.failures!r:.40})"
        for field in ("pause", "longest", "slow"):
            value = getattr(self, field)
            wanted = isinstance(value, int | float) and isfinite(value) and value > 0
            if not wanted and not (field == "slow" and value is None):
                yield f"breaker: {field} is a number of seconds above 0 (found {value!r:.40})"
                return
        if self.longest < self.pause:
            yield f"breaker: longest must not be under pause ({self.pause:g} s; found {self.longest:g} s)"


class Circuit:
    """What is known of one store's failures."""

    __slots__ = ("_failed", "_limits", "_pause", "_probing", "_since", "_until")

    def __init__(self, limits: Breaker) -> None:
        """Start closed."""
        self._limits = limits
        self._failed = 0
        self._pause = 0.0  # 0: closed
        self._since: Instant = 0.0
        self._until: Instant = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the store is left alone, but for a probe now and then."""
        return self._pause > 0.0

    def wait(self, now: Instant) -> float:
        """Return the seconds for which the store is not asked, or 0.0: go on, and in an open circuit be its probe."""
        if self._pause == 0.0:
            return 0.0
        if self._until - self._pause <= now < self._until:  # a clock that went back ends the pause
            return self._until - now
        self._until, self._probing = now + self._pause, True
        return 0.0

    def failed(self, now: Instant) -> bool:
        """Take note of a failure; tell whether it opened the circuit."""
        if self._pause == 0.0:
            self._failed += 1
            if self._failed < self._limits.failures:
                return False
            self._since, self._pause = now, self._limits.pause
            self._until, self._probing = now + self._pause, False
            return True
        if self._probing:  # what was under way when it opened does not count again
            self._pause = min(self._pause * 2, self._limits.longest)
            self._until, self._probing = now + self._pause, False
        return False

    def returned(self, now: Instant) -> None:
        """Take a probe back that proved nothing: the next call may try."""
        if self._pause > 0.0:
            self._until, self._probing = now, False

    def worked(self, now: Instant) -> float | None:
        """Take note of a good answer; return for how long the circuit was open, or None: it was not."""
        down = now - self._since if self._pause > 0.0 else None
        self._failed, self._pause, self._probing = 0, 0.0, False
        return down

    def is_slow(self, seconds: float) -> bool:
        """Tell whether an answer took too long."""
        return self._limits.slow is not None and seconds > self._limits.slow
