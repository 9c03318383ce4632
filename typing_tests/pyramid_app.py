"""Pyramid: the session in its two typed forms, and a policy of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coatcheck.adapters.pyramid import PyramidSession, SecurityPolicy, exchange_of, session_of


@dataclass
class Cart:
    """What a visitor wants."""

    items: list[int] = field(default_factory=list)


def buy(request: Any) -> str | None:
    """Put something into the cart."""
    session_of(request, Cart).data.items.append(7)
    exchange_of(request).save(session_of(request))
    return session_of(request).subject


def flash(session: PyramidSession) -> list[Any]:
    """Say something once."""
    session.login("alice", remember=True)
    session.flash("saved", "info")
    return session.pop_flash("info")


class Groups(SecurityPolicy):
    """A policy with groups."""

    def principals(self, request: Any) -> list[str]:
        """Add a group."""
        return [*super().principals(request), "group:staff"]
