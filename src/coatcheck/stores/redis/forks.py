"""What a forked child must forget of its parent: connections, locks, threads. Nothing is closed: the parent uses it."""

from __future__ import annotations

import os
import weakref
from typing import Any, Final, Protocol


class Forgetful(Protocol):
    """Something that begins anew in a child."""

    def forget(self) -> list[Any]:
        """Begin anew; return what must not be closed, not even by being collected."""
        ...


_all: Final[weakref.WeakSet[Forgetful]] = weakref.WeakSet()
_buried: Final[list[Any]] = []


def remember(one: Forgetful) -> None:
    """Have it forget after a fork, as long as it lives."""
    _all.add(one)


def _after_fork_in_child() -> None:
    for one in list(_all):
        _buried.append(one.forget())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
