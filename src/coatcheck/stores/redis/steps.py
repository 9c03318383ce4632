"""How a verb is said without waiting: a generator yields what it asks of which shard, and is sent the answers.

Written once for both colours; `wire` and `wire_async` carry the questions.

Rules
- Everything asked in one round travels at once. Nothing in a round may depend on another answer of that round.
- Whatever is asked can be asked again: reading changes nothing, and a script that writes checks what it builds on.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ...core.errors import NotApplied, StoreError
from .keys import Tag

T = TypeVar("T")

Command: TypeAlias = tuple[Any, ...]
Address: TypeAlias = tuple[str, int]
"""Host and port of a server; of a socket in the file system its path, and 0."""


class Ask(NamedTuple):
    """Commands for the primary of one shard (or for one server), in their order.

    `decides`: the first one is a script that writes. All of them then stay together on one connection.
    """

    where: Tag | Address
    commands: Sequence[Command]
    decides: bool = False


Answers: TypeAlias = "list[Any] | StoreError"
"""One answer for each command (a ResponseError where the server refused it), or why none came."""
Steps: TypeAlias = Generator[Sequence[Ask], Sequence[Answers], T]


class Again(NotApplied):
    """Somebody else changed what the commit was decided on; nothing was written."""


def asked(*asks: Ask) -> Steps[list[list[Any]]]:
    """Ask, and return the answers; raise what any of them failed with."""
    answers = yield asks
    return [_good(answer) for answer in answers]


def _good(answers: Answers) -> list[Any]:
    if isinstance(answers, StoreError):
        raise answers
    for answer in answers:
        if isinstance(answer, Exception):
            message = f"the store refused a command ({answer}); check what else writes to its keys"
            raise StoreError(message) from answer
    return answers


def number(value: float) -> str:
    """Return a number as a server reads it back exactly."""
    return repr(float(value))
