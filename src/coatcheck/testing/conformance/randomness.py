"""Whether tokens look random: repeats, fixed places, uneven characters; what is made badly is told, not only refused.

OWASP Session Management ("Session ID Entropy") asks for a random generator and 64 bits, ASVS 7.2.3 for 128.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log2, sqrt

LEAST_BITS = 128
_ONE_IN_A_THOUSAND = 3.0902
"""The standard normal deviate that one value in a thousand exceeds."""


def weaknesses(tokens: Sequence[str]) -> list[str]:
    """Return, a sentence each, what is not random about the secret parts of many tokens of equal length."""
    if len({len(token) for token in tokens}) != 1:
        return ["they are not all of one length"]
    found = [] if len(set(tokens)) == len(tokens) else [f"{len(tokens) - len(set(tokens))} of them are repeated"]
    places = [Counter(place) for place in zip(*tokens, strict=True)]
    fixed = [number for number, seen in enumerate(places) if len(seen) == 1]
    if fixed:
        found.append(f"the characters at {fixed} never change")
    bits = sum(log2(len(seen)) for seen in places)
    if bits < LEAST_BITS:
        found.append(f"they hold {bits:.0f} bits, not {LEAST_BITS}")
    alphabet = set().union(*places)
    uneven = [number for number, seen in enumerate(places) if _is_uneven(seen, len(alphabet), len(tokens))]
    if len(uneven) > _by_chance(len(places)):
        found.append(f"the characters at {uneven} are uneven (chi squared, p < 0.001)")
    return found


def _is_uneven(seen: Counter[str], kinds: int, number: int) -> bool:
    """Tell whether chi squared says so with p < 0.001 (the approximation of Wilson and Hilferty)."""
    expected = number / kinds
    missing = kinds - len(seen)
    statistic = sum((count - expected) ** 2 for count in seen.values()) / expected + missing * expected
    freedom = kinds - 1
    spread = 2 / (9 * freedom)
    return statistic > freedom * (1 - spread + _ONE_IN_A_THOUSAND * sqrt(spread)) ** 3


def _by_chance(places: int) -> int:
    """Return how many of so many places may exceed p = 0.001 by chance, once in a million runs."""
    expected = places / 1000
    allowed, term, rest = 0, 2.718281828459045**-expected, 1.0
    while True:
        rest -= term
        if rest < 1e-6:
            return allowed
        allowed += 1
        term *= expected / allowed
