"""What can go wrong, as types: one root, and a child for each caller who can act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Reply


class CoatcheckError(Exception):
    """The root of every error that coatcheck raises on purpose."""


class ConfigError(CoatcheckError):
    """Settings that are unsafe or contradict each other; raised when the application is built."""


class DataError(CoatcheckError):
    """A session value that cannot be kept; `key` names the place, `found` the type's name."""

    def __init__(self, message: str, *, key: str = "", found: str = "") -> None:
        """Keep the evidence beside the message."""
        super().__init__(message)
        self.key = key
        self.found = found


class SettledError(CoatcheckError):
    """An act that needs a cookie, tried when the response can no longer carry one."""


class Refusal(CoatcheckError):  # noqa: N818 - an answer, not a fault
    """The request is answered by `reply` instead of the handler's response."""

    def __init__(self, reply: Reply, reason: str) -> None:
        """Keep the reply that an adapter sends and the reason that a log shows."""
        super().__init__(reply, reason)
        self.reply = reply
        self.reason = reason

    def __str__(self) -> str:
        """Show the reason only: the reply is for the client."""
        return self.reason


class StoreError(CoatcheckError):
    """The store could not answer. Its children say what is known about a commit that failed.

    `retry`: the same commit may be tried again. `unsure`: it may have been applied already.
    """

    retry = False
    unsure = False


class NotAsked(StoreError):  # noqa: N818 - what happened
    """The store failed too often just now, and was not asked (core/breaker.py)."""


class Unreadable(StoreError):  # noqa: N818 - what it is
    """The store answered, with something that does not decode: it is that row that ails, not the store."""


class NotApplied(StoreError):  # noqa: N818 - the contract's own word
    """Nothing of the commit was applied; it may be tried again freely."""

    retry = True


class Unknown(StoreError):  # noqa: N818 - the contract's own word
    """The commit may or may not have been applied; try again only with the same commit id."""

    retry = True
    unsure = True


class Unconfirmed(StoreError):  # noqa: N818 - the contract's own word
    """The commit was applied, but its durability was not confirmed in time."""

    retry = True
    unsure = True
