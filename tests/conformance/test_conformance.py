"""Every row of the check list on ASGI, WSGI, Flask, Django and FastAPI, named by its id."""

import pytest

from coatcheck.testing.conformance import CHECKLIST, OPEN, Adapter, Verdict, judge_row, registry

from .adapters import ADAPTERS

registry.load()
TESTED = [row.id for row in CHECKLIST if row.id in registry.TESTS]
FIT = {row.id: row.fit for row in CHECKLIST}

OTHERWISE = {}
"""Rows that a library can fulfil wholly and that we fulfil in part, knowingly; the finding says what is shown."""


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("id", TESTED)
def test_row(id: str, adapter: Adapter) -> None:  # noqa: A002
    finding = judge_row(id, adapter)
    assert finding.verdict is not Verdict.FAIL, finding.why
    assert finding.why.endswith(".")
    whole = FIT[id] == "full" and id not in OTHERWISE
    assert finding.verdict in {Verdict.PASS if whole else Verdict.PARTIAL, Verdict.NOT_APPLICABLE}, finding.why


def test_every_row_has_a_test_or_a_reason_to_have_none() -> None:
    missing = [row.id for row in CHECKLIST if row.fit != "no" and row.id not in registry.TESTS and row.id not in OPEN]
    assert missing == []
    assert all(why.endswith(".") for why in OPEN.values())
