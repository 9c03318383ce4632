"""What can be said of a row: passed, partly, not applicable, failed, yours to do, or open; never without a reason."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NoReturn

import msgspec


class Verdict(StrEnum):
    """What was found about a row; see docs/conformance.md for each."""

    PASS = "pass"
    PARTIAL = "partial"
    NOT_APPLICABLE = "not applicable"
    FAIL = "fail"
    YOURS = "yours to do"
    OPEN = "open"


class Finding(msgspec.Struct, frozen=True):
    """The verdict on one row, and why."""

    id: str
    verdict: Verdict
    why: str


class Unfit(Exception):  # noqa: N818 - what it says
    """The row does not apply here; its text says why."""


class Partly(msgspec.Struct, frozen=True):
    """What a test returns when only part of its row was shown."""

    why: str


def expect(what: str, found: Any, wanted: Any) -> None:
    """Fail the row unless what was found is what was wanted; `what` names it."""
    if found != wanted:
        message = f"{what}: found {found!r:.300}, expected {wanted!r:.300}"
        raise AssertionError(message)


def unfit(why: str) -> NoReturn:
    """Say that a row does not apply here, and why."""
    raise Unfit(why)


def partly(why: str) -> Partly:
    """Return what says that only part of a row was shown, and why; the test returns it."""
    return Partly(why)
