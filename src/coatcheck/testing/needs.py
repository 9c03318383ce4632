"""Says of a test what an adapter must be able to do for it to make sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def needs(*what: str) -> Callable[[F], F]:
    """Mark a test of the journey: it is collected only where the adapter `can` all of these."""

    def mark(test: F) -> F:
        test.needed = frozenset(what)  # type: ignore[attr-defined]
        return test

    return mark
