"""Floods: how much one network may do in a while, counted in bounded memory; what is beyond is told, or refused.

Rules
- A network is a /24 or a /48, as in the summaries. It is known only as far as `trusted_proxies` is right; where nobody
  can say who is at the other end, nothing is refused.
- A guess is a cookie of ours that opens nothing: malformed, unknown, or with a wrong secret; or a refresh of a device's
  binding that names no session, or is signed by another key. A token or a proof that is good is never counted and never
  refused, whoever else is in its network (NIST SP 800-63B-4 section 3.2.2 limits guesses, not people).
- One table of at most `MOST_NETWORKS` rows for each question, thinned as those of noise: figures are "at least".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

import msgspec

from .model import Instant, Request
from .noise import MOST_NETWORKS, UNKNOWN, network_of, thinned

GUESSES = frozenset(
    {
        *("session_malformed_token", "session_unknown_token", "session_garbage_token"),
        *("dbsc_unknown_session", "dbsc_signature_invalid"),
    }
)
MINUTE = 60.0


class Floods(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a flood is let through; all but `suspect` is off until you know your visitors and your proxies.

    - suspect: guesses of one network in a minute from which on they are told, as `session_bruteforce_suspected`.
    - refuse: guesses of one network in a minute from which on the next ones of that minute are answered with 429; with
      503 at the endpoints of device binding.
    - anonymous: anonymous sessions that one network may begin in a `period` (seconds); further ones are not stored.
    - sockets: websockets that one session may have open in this process; a further handshake is refused with 429.
    """

    suspect: int | None = 300
    refuse: int | None = None
    anonymous: int | None = None
    period: float = 3600.0
    sockets: int | None = None

    def problems(self) -> Iterable[str]:
        """Yield what is wrong, a sentence each."""
        for field in ("suspect", "refuse", "anonymous", "sockets"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, int) or value < 1):
                yield f"floods: {field} is a number of at least 1, or None for no limit (found {value!r:.40})"
        if not isinstance(self.period, int | float) or not 1 <= self.period <= 86_400:
            yield f"floods: period is 1 to 86400 seconds (found {self.period!r:.40})"


class Crowd:
    """How often each network came since a period began; the table is empty again with the next one.

    Threads may share one without a lock: at worst a count is lost.
    """

    __slots__ = ("_counts", "_period", "_since")

    def __init__(self, period: float) -> None:
        """Take the period in seconds; it begins with the first one counted."""
        self._period = period
        self._since: Instant = 0.0
        self._counts: dict[str, int] = {}

    def count(self, network: str, now: Instant) -> int:
        """Count one, and return how many came from its network in this period."""
        if not 0.0 <= now - self._since < self._period:  # a clock that went back begins a new one, too
            self._since, self._counts = now, {}
        counts = self._counts
        if network not in counts and len(counts) >= MOST_NETWORKS:
            counts = self._counts = thinned(counts)
        counts[network] = number = counts.get(network, 0) + 1
        return number

    def number(self, network: str, now: Instant) -> int:
        """Return how many came from a network in this period."""
        return self._counts.get(network, 0) if 0.0 <= now - self._since < self._period else 0

    def left(self, now: Instant) -> int:
        """Return the seconds until the period is over, as Retry-After spells them: whole, and at least one."""
        return max(1, ceil(self._since + self._period - now))


class Gate:
    """What the limits say of a network; what is beyond is counted as noise."""

    __slots__ = ("_begun", "_guesses", "_heard", "_limits", "refuses")

    def __init__(self, limits: Floods, heard: Callable[..., None]) -> None:
        """Take the limits, and who counts what is beyond."""
        self._limits, self._heard = limits, heard
        self._guesses, self._begun = Crowd(MINUTE), Crowd(limits.period)
        self.refuses = limits.refuse is not None

    def guessed(self, request: Request, address: str | None, now: Instant) -> None:
        """Count a guess; a network that guesses much is suspected."""
        network, limits = network_of(address), self._limits
        number = self._guesses.count(network, now)
        if limits.suspect is not None and number >= limits.suspect:
            self._heard("session_bruteforce_suspected", request, network=network, guesses=str(number))

    def wait(self, request: Request, address: str | None, now: Instant) -> int | None:
        """Return the seconds that the sender of a guess has to wait, or None: it may go on."""
        network, most = network_of(address), self._limits.refuse
        if most is None or network == UNKNOWN or self._guesses.number(network, now) <= most:
            return None
        self._heard("session_guess_refused", request)
        return self._guesses.left(now)

    def admits(self, request: Request, address: str | None, now: Instant) -> bool:
        """Tell whether one more anonymous session may begin, and count it."""
        network, most = network_of(address), self._limits.anonymous
        if most is None or network == UNKNOWN:
            return True
        if self._begun.number(network, now) < most:
            self._begun.count(network, now)
            return True
        self._heard("session_anonymous_refused", request)
        return False
