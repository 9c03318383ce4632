"""The rows of the check list, named by their ids: all on five adapters, those about the adapter on all of them.

`python -m tests.conformance.everywhere` judges every row on every adapter.
"""

import pytest

from coatcheck.testing.conformance import CHECKLIST, OPEN, Finding, Verdict, judge_row, registry

from .adapters import FIVE, FURTHER, adapter

registry.load()
TESTED = [row.id for row in CHECKLIST if row.id in registry.TESTS]
FIT = {row.id: row.fit for row in CHECKLIST}

ABOUT_THE_ADAPTER = ("CKE-", "CSR-", "CCH-", "TRM-")
"""Rows on cookies, on requests of other sites, on caches, and on ends (sockets and streams among them)."""
LEFT = ("CKE-14", "TRM-14")
"""Of them, what takes as long as all the others together: hundreds of requests for one sentence."""

OTHERWISE: dict[str, str] = {}
"""Rows that a library can fulfil wholly and that we fulfil in part, knowingly; the finding says what is shown."""


def unlike(finding: Finding) -> str | None:
    """Return what a finding says that is not what we say of ourselves, or None."""
    if finding.id not in registry.TESTS:
        return None
    whole = FIT[finding.id] == "full" and finding.id not in OTHERWISE
    wanted = (Verdict.PASS if whole else Verdict.PARTIAL, Verdict.NOT_APPLICABLE)
    if finding.verdict in wanted and finding.why.endswith("."):
        return None
    return f"{finding.id} is {finding.verdict}, and not {' or '.join(wanted)}: {finding.why}"


ROWS = [
    *((name, row) for name in FIVE for row in TESTED),
    *((name, row) for name in FURTHER for row in TESTED if row.startswith(ABOUT_THE_ADAPTER) and row not in LEFT),
]


@pytest.mark.parametrize(("name", "id"), ROWS)
def test_row(name: str, id: str) -> None:  # noqa: A002
    assert unlike(judge_row(id, adapter(name))) is None


def test_every_row_has_a_test_or_a_reason_to_have_none() -> None:
    missing = [row.id for row in CHECKLIST if row.fit != "no" and row.id not in registry.TESTS and row.id not in OPEN]
    assert missing == []
    assert all(why.endswith(".") for why in OPEN.values())
