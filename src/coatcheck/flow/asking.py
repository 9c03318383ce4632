"""How the blocking flow asks what only blocks; the awaiting one asks it in a thread (asyncio.to_thread)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def ask(function: Callable[..., T], *arguments: Any) -> T:
    """Return what the function answers."""
    return function(*arguments)
