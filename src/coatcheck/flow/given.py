"""A store as it was given: itself, or the one that a URL names.

The flow knows no store. The package's own __init__, which runs before anything else of it, says who opens them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_openers: dict[str, Callable[[str], Any]] = {}


def learn(blocking: Callable[[str], Any], awaited: Callable[[str], Any]) -> None:
    """Take who opens stores by their URLs, with either face."""
    _openers.update(blocking=blocking, awaited=awaited)


def blocking(store: Any) -> Any:
    """Return a blocking store."""
    return _openers["blocking"](store) if isinstance(store, str) else store


def awaited(store: Any) -> Any:
    """Return an awaited store."""
    return _openers["awaited"](store) if isinstance(store, str) else store
