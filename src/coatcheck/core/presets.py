"""Named timeouts and required levels, each number with the sentence of the standard that it comes from.

    NIST SP 800-63B-4 (2025-07)   overall            inactivity         to go on
    AAL1, section 2.1.3           SHOULD <= 30 days  MAY be none        one factor
    AAL2, section 2.2.3           SHOULD <= 24 h     SHOULD <= 1 h      after inactivity one factor, else both
    AAL3, section 2.3.3           SHALL <= 12 h      SHOULD <= 15 min   as at first

An overall timeout SHALL be set and documented at every level (section 5.2). A remembered browser SHALL NOT stand for an
authentication (section 5.1): it drops to the level `remembered`, or is refused.

What no standard says is our reading: the absolute ends of `pci` and `owasp-high-value`, that `owasp-low-risk` has an
office day's, the levels of `owasp-high-value` and `pci`, the five minutes, and where logins are not remembered.
docs/step-up.md lists what is whose.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from .errors import ConfigError
from .model import Level

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
MOST_LASTING: Final = 400 * DAY
"""Seconds beyond which no clock may be set: browsers cut Max-Age there (RFC 6265bis section 5.5)."""

Clock: TypeAlias = Literal["idle", "absolute"]


class Figure(msgspec.Struct, frozen=True):
    """One clock of a standard: at most so many seconds, as its source demands (SHALL) or recommends (SHOULD)."""

    clock: Clock
    most: float
    word: Literal["SHALL", "SHOULD"]
    source: str


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """What a standard says of sessions of one kind.

    level: the least `Level` of who may do what such sessions are for; ask for it by `require_login(level=...)`.
    within: seconds after which a proof is asked for again before something delicate; None: it says nothing of that.
    remembers: whether a login may be remembered, at the level `remembered`.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    level: Level = Level.AAL1
    within: float | None = None
    remembers: bool = True

    def most(self, clock: Clock) -> float | None:
        """Return the seconds of a clock, or None: the standard has none."""
        return next((figure.most for figure in self.figures if figure.clock == clock), None)


_AAL1, _AAL2, _AAL3 = (f"NIST SP 800-63B-4 section 2.{number}.3" for number in (1, 2, 3))
_CHEAT: Final = "OWASP Session Management cheat sheet, session expiration"

STANDARDS: Final = {
    preset.name: preset
    for preset in (
        Preset(
            name="nist-aal1",
            title="some assurance: one factor",
            figures=(Figure("absolute", 30 * DAY, "SHOULD", _AAL1),),
        ),
        Preset(
            name="nist-aal2",
            title="high confidence: two factors",
            figures=(Figure("idle", HOUR, "SHOULD", _AAL2), Figure("absolute", DAY, "SHOULD", _AAL2)),
            level=Level.AAL2,
        ),
        Preset(
            name="nist-aal3",
            title="very high confidence: two factors, one a key in hardware that phishing does not reach",
            figures=(Figure("idle", 15 * MINUTE, "SHOULD", _AAL3), Figure("absolute", 12 * HOUR, "SHALL", _AAL3)),
            level=Level.AAL3,
            remembers=False,
        ),
        Preset(
            name="nist-63b-3-aal2",
            title="two factors by the revision before, which audits still quote",
            figures=(
                Figure("idle", 30 * MINUTE, "SHALL", "NIST SP 800-63B revision 3 section 4.2.3"),
                Figure("absolute", 12 * HOUR, "SHALL", "NIST SP 800-63B revision 3 section 4.2.3"),
            ),
            level=Level.AAL2,
        ),
        Preset(
            name="pci",
            title="access to card data",
            figures=(
                Figure("idle", 15 * MINUTE, "SHALL", "PCI DSS v4.0.1 requirement 8.2.8"),
                Figure("absolute", 12 * HOUR, "SHOULD", "PCI DSS names none; this is the one of NIST's AAL3"),
            ),
            # PCI DSS v4.0.1 requirement 8.4.2: several factors for all non-console access into the environment of card
            # data; they may be asked for by its network instead, and then AAL1 is enough here
            level=Level.AAL2,
            remembers=False,
        ),
        Preset(
            name="owasp-low-risk",
            title="little to lose",
            figures=(
                Figure("idle", 30 * MINUTE, "SHOULD", f"{_CHEAT}: 15 to 30 minutes for low-risk applications"),
                Figure("absolute", 8 * HOUR, "SHOULD", f"{_CHEAT}: 4 to 8 hours for an office day"),
            ),
        ),
        Preset(
            name="owasp-high-value",
            title="much to lose",
            figures=(
                Figure("idle", 5 * MINUTE, "SHOULD", f"{_CHEAT}: 2 to 5 minutes for high-value applications"),
                Figure("absolute", 4 * HOUR, "SHOULD", f"{_CHEAT}: 4 to 8 hours, the lower end"),
            ),
            level=Level.AAL2,
            # ASVS 5.0 7.5.3: further authentication with at least one factor, or a second verification, before highly
            # sensitive operations; that it counts for five minutes is ours
            within=5 * MINUTE,
            remembers=False,
        ),
    )
}
"""The presets by their names."""


def preset(name: str) -> Preset:
    """Return what a standard says of sessions: `require_login(level=preset("nist-aal2").level)`; raise ConfigError."""
    if name not in STANDARDS:
        message = f"unknown preset {name!r}; there are {', '.join(STANDARDS)}"
        raise ConfigError(message)
    return STANDARDS[name]
