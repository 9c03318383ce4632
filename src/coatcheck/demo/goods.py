"""What hangs on the rail, and the arithmetic of a cart. Prices are whole cents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MOST_OF_ONE: Final = 9


@dataclass(frozen=True, slots=True)
class Good:
    """One thing to buy; its drawing stands under its key in templates/drawings.html."""

    key: str
    name: str
    words: str
    cents: int


GOODS: Final = {
    good.key: good
    for good in (
        Good("trench", "The Turncoat", "Camel trench, belted. It keeps no secrets in its pockets.", 24900),
        Good("duffle", "The Long Session", "Navy duffle with four toggles. Outlasts any absolute timeout.", 21900),
        Good("raincoat", "The Idle Shower", "Yellow oilskin for a quarter of an hour of bad weather.", 12900),
        Good("bowler", "The Same Origin", "A bowler, always from the same hatter.", 8900),
        Good("beanie", "The Warm Cache", "Hand-knitted, with a bobble. Never stale.", 3900),
        Good("umbrella", "The Strict Mode", "Opens for its owner only.", 5900),
    )
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a cart."""

    good: Good
    count: int

    @property
    def cents(self) -> int:
        """What the line costs."""
        return self.good.cents * self.count


def is_cart(value: Any) -> bool:
    """Tell whether a value is a cart: what moves from an anonymous session into a login came from anybody."""
    return (
        isinstance(value, dict)
        and value.keys() <= GOODS.keys()
        and all(type(count) is int and 0 < count <= MOST_OF_ONE for count in value.values())
    )


def with_count(cart: Mapping[str, int], key: str, count: int) -> dict[str, int]:
    """Return the cart with another count of one good; none takes the line away."""
    changed = {**cart, key: max(0, min(count, MOST_OF_ONE))}
    return {key: number for key, number in changed.items() if number}


def lines_of(cart: Mapping[str, int]) -> list[Line]:
    """Return the lines of a cart, in the order of the rail."""
    return [Line(good, cart[key]) for key, good in GOODS.items() if key in cart]


def total_of(lines: list[Line], percent_off: int = 0) -> int:
    """Return what the lines cost, less a discount, in whole cents."""
    full = sum(line.cents for line in lines)
    return full - full * percent_off // 100


def price(cents: int) -> str:
    """Return a price as it is written."""
    return f"€ {cents // 100}.{cents % 100:02}"
