"""What differs between a request and the login whose session it presents: signals, each with a score and its reason.

Rules
- A detector looks and says; what follows from it is policy (`OnSignals`, or one of the application's own).
- It is asked of live, logged-in sessions only, whose secret was presented: never of what anybody can send.
- What a client says of itself is no proof. A thief who knows all of it looks like the owner; so signals come on top of
  rotation, theft evidence and device binding, and replace none of them (OWASP Session Management, "Binding the Session
  ID to Other User Properties"; ASVS 8.2.4).
- Scores are points of 100, and add up: 20 is what happens to honest people every day, 60 what hardly ever does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from . import agents
from .errors import ConfigError
from .model import Client, Instant, Record, Request, Signal
from .noise import network_of

_NOBODY = Client()


class Sight(msgspec.Struct, frozen=True, gc=False):
    """What a request shows of who sent it.

    `client` is behind the trusted proxies; `registers`: it brings the key of a device.
    """

    request: Request
    client: Client
    registers: bool = False


class Detector(Protocol):
    """A watcher: pure, quick, and asked at every request of a logged-in session.

    What it raises makes the request fail before its handler runs, as with a policy: nobody passes unseen.
    """

    def inspect(self, record: Record, sight: Sight, now: Instant) -> Signal | None:
        """Return what is strange about a request for this session, or None."""
        ...


class AgentChanged:
    """Says when another browser presents the session, or an older one: a browser's version only goes up."""

    def __init__(self, score: int = 40, older: int = 25) -> None:
        """Take the points for another browser, and for an older one; needs ua-parser."""
        agents.check_parser()
        self._score, self._older = _points(score), _points(older)

    def inspect(self, record: Record, sight: Sight, now: Instant) -> Signal | None:
        """Compare the families of browsers; a new version of the same one is no signal."""
        known, shown = (record.client or _NOBODY).agent, sight.client.agent
        if known == shown:
            return None
        before, after = agents.parsed(known), agents.parsed(shown)
        if not before.family:
            return None
        if before.family != after.family:
            now_is = after.family or "one that does not say what it is"
            return Signal("agent", self._score, f"the login was with {before.family}, this request is with {now_is}")
        if before.major is not None and after.major is not None and after.major < before.major:
            what = f"{before.family} went back from version {before.major} to {after.major}"
            return Signal("agent_older", self._older, f"{what}: browsers do not do that by themselves")
        return None


class PlatformChanged:
    """Says when the session is presented from another operating system: cookies do not move there by themselves."""

    def __init__(self, score: int = 40) -> None:
        """Take the points; needs ua-parser."""
        agents.check_parser()
        self._score = _points(score)

    def inspect(self, record: Record, sight: Sight, now: Instant) -> Signal | None:
        """Compare the operating systems, as far as both are told."""
        known, shown = (record.client or _NOBODY).agent, sight.client.agent
        if known == shown:
            return None
        before, after = agents.parsed(known).platform, agents.parsed(shown).platform
        if not before or not after or before == after:
            return None
        return Signal("platform", self._score, f"the login was on {before}, this request is from {after}")


class HintsContradict:
    """Says when a browser's client hints name another platform than its user agent: one of the two was copied."""

    def __init__(self, score: int = 30) -> None:
        """Take the points; needs ua-parser."""
        agents.check_parser()
        self._score = _points(score)

    def inspect(self, record: Record, sight: Sight, now: Instant) -> Signal | None:
        """Compare Sec-CH-UA-Platform (Chromium sends it over TLS) with the user agent of the same request."""
        hint = agents.hinted(sight.request)
        said = agents.parsed(sight.client.agent).platform if hint else ""
        if not said or said == hint:
            return None
        return Signal("hints", self._score, f"the user agent says {said}, the browser's own hint says {hint}")


class NetworkChanged:
    """Says when the session is presented from another network: /24 of IPv4, /48 of IPv6. It happens to all who move."""

    def __init__(self, score: int = 20, other_version: int = 10) -> None:
        """Take the points for another network, and for another version of IP, which many lines have both of."""
        self._score, self._other = _points(score), _points(other_version)

    def inspect(self, record: Record, sight: Sight, now: Instant) -> Signal | None:
        """Compare the networks of the login and the request; another address in the same network is no signal."""
        known, shown = (record.client or _NOBODY).address, sight.client.address
        if known == shown:
            return None
        before, after = network_of(known), network_of(shown)
        if before == after or "unknown" in (before, after):
            return None
        score = self._score if (":" in before) == (":" in after) else self._other
        return Signal("network", score, f"the login was from {before}, this request is from {after}")


class RegisteredElsewhere:
    """Says when a device is to be bound from another network or with another agent than the login's (H6)."""

    def __init__(self, score: int = 60) -> None:
        """Take the points."""
        self._score = _points(score)

    def inspect(self, record: Record, sight: Sight, now: Instant) -> Signal | None:
        """Compare, for the one request that brings a key: honest browsers send it right after the login."""
        known = record.client or _NOBODY
        if not sight.registers or known == sight.client:
            return None
        differs = [
            *(["browser"] if known.agent != sight.client.agent else []),
            *(["network"] if network_of(known.address) != network_of(sight.client.address) else []),
        ]
        if not differs:
            return None
        return Signal("registration", self._score, f"a device is to be bound from another {' and '.join(differs)}")


def standard() -> list[Detector]:
    """Return all detectors of this file with their usual points; needs ua-parser."""
    return [AgentChanged(), PlatformChanged(), HintsContradict(), NetworkChanged(), RegisteredElsewhere()]


def inspected(detectors: Iterable[Detector], record: Record, sight: Sight, now: Instant) -> tuple[Signal, ...]:
    """Return what the detectors see, in their order."""
    found = (detector.inspect(record, sight, now) for detector in detectors)
    return tuple(signal for signal in found if signal is not None)


def problems(detectors: Sequence[Detector]) -> Iterable[str]:
    """Yield what is wrong with a list of detectors."""
    for detector in detectors:
        if isinstance(detector, type) or not callable(getattr(detector, "inspect", None)):
            yield f"detectors are objects with inspect(record, sight, now) (found {detector!r:.80})"


def _points(score: int) -> int:
    if type(score) is not int or not 0 < score <= 100:
        message = f"a score is 1 to 100 points (found {score!r:.40})"
        raise ConfigError(message)
    return score
