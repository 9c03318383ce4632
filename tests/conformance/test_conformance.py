"""Every row of the check list on ASGI, WSGI, Flask, Django and FastAPI, named by its id."""

import pytest

from coatcheck.testing.conformance import CHECKLIST, OPEN, Adapter, Verdict, judge_row, registry

from .adapters import ADAPTERS

registry.load()
TESTED = [row.id for row in CHECKLIST if row.id in registry.TESTS]
GOOD = {"full": {Verdict.PASS, Verdict.NOT_APPLICABLE}, "partly": {Verdict.PARTIAL, Verdict.NOT_APPLICABLE}}


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("id", TESTED)
def test_row(id: str, adapter: Adapter) -> None:  # noqa: A002
    finding = judge_row(id, adapter)
    assert finding.verdict is not Verdict.FAIL, finding.why
    fit = next(row.fit for row in CHECKLIST if row.id == id)
    assert finding.verdict in GOOD.get(fit, set(Verdict)), (finding.verdict, finding.why)
    assert finding.why


def test_every_row_has_a_test_or_a_reason_to_have_none() -> None:
    missing = [row.id for row in CHECKLIST if row.fit != "no" and row.id not in registry.TESTS and row.id not in OPEN]
    assert missing == []
    assert all(why.endswith(".") for why in OPEN.values())
