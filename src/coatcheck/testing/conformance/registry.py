"""Which function tests which row, and the one way to run it: a row without a test is never told as passed."""

from __future__ import annotations

import pkgutil
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeAlias

from .checklist import CHECKLIST, Row, find_row
from .report import Report
from .site import Adapter, Site
from .verdicts import Finding, Partly, Unfit, Verdict

Test: TypeAlias = Callable[[Site], Partly | None]
"""Asserts one row on a site; returns None where all of it was shown, or `partly(...)`."""

_TESTS: dict[str, Test] = {}
_OPEN: dict[str, str] = {}

TESTS: Mapping[str, Test] = MappingProxyType(_TESTS)
"""The tests by the id of their row (see `load`)."""

OPEN: Mapping[str, str] = MappingProxyType(_OPEN)
"""Rows that nothing tests yet, each with its reason (see `load`)."""


def row(id: str) -> Callable[[Test], Test]:  # noqa: A002 - what it is called everywhere
    """Register a function as the test of a row; the first line of its docstring says what it shows."""

    def register(test: Test) -> Test:
        _once(id)
        if not test.__doc__:
            message = f"the test of {id} has no docstring; its first line is what the report shows"
            raise ValueError(message)
        _TESTS[id] = test
        return test

    return register


def open_row(id: str, why: str) -> None:  # noqa: A002 - what it is called everywhere
    """Say that a row has no test yet, and why."""
    _once(id)
    _OPEN[id] = why


def _once(id: str) -> None:  # noqa: A002 - what it is called everywhere
    find_row(id)
    if id in _TESTS or id in _OPEN:
        message = f"{id} was registered twice; a row has one test, or one reason to be open"
        raise ValueError(message)


def load() -> None:
    """Import every file of rows, so that the tables above are whole."""
    package = import_module(__name__.rpartition(".")[0])
    for found in pkgutil.iter_modules(package.__path__):
        if found.name.startswith("rows_"):
            import_module(f"{package.__name__}.{found.name}")


def judge_row(id: str, adapter: Adapter) -> Finding:  # noqa: A002 - what it is called everywhere
    """Judge one row on a fresh site of an adapter."""
    load()
    wanted = find_row(id)
    test = _TESTS.get(id)
    if test is None:
        return untested(wanted)
    try:
        with Site.opened(adapter) as site:
            answer = test(site)
    except Exception as error:  # noqa: BLE001 - whatever a row meets is a finding
        return failed(wanted, error)
    return shown(wanted, answer, test.__doc__)


def judge(adapter: Adapter, ids: Iterable[str] = ()) -> Report:
    """Judge rows (all, if none is named) on an adapter, in the order of the check list."""
    chosen = set(ids) or {one.id for one in CHECKLIST}
    for id in chosen:  # noqa: A001 - what it is called everywhere
        find_row(id)
    return Report(adapter.name, tuple(judge_row(one.id, adapter) for one in CHECKLIST if one.id in chosen))


def untested(wanted: Row) -> Finding:
    """Return what is said of a row without a test."""
    if wanted.fit == "no":
        return Finding(wanted.id, Verdict.YOURS, wanted.yours)
    return Finding(wanted.id, Verdict.OPEN, _OPEN.get(wanted.id, "Nothing tests this row."))


def shown(wanted: Row, answer: Any, doc: str | None) -> Finding:
    """Return what is said of a row whose test found nothing wrong."""
    said = (doc or "").partition("\n")[0].strip()
    if isinstance(answer, Partly):
        return Finding(wanted.id, Verdict.PARTIAL, answer.why)
    if wanted.fit == "full":
        return Finding(wanted.id, Verdict.PASS, said)
    return Finding(wanted.id, Verdict.PARTIAL, f"{said} Yours: {wanted.yours}")


def failed(wanted: Row, error: Exception) -> Finding:
    """Return what is said of a row whose test came to an end by an exception."""
    if isinstance(error, Unfit):
        return Finding(wanted.id, Verdict.NOT_APPLICABLE, str(error))
    if isinstance(error, AssertionError):
        at = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(wanted.id, Verdict.FAIL, str(error) or f"line {at.lineno} of its test does not hold: {at.line}")
    return Finding(wanted.id, Verdict.FAIL, f"its test met {type(error).__name__}: {error}")
