"""What a report looks like to people, also where the application that was judged is hostile."""

import re

import pytest
from rich.console import Console

from coatcheck.testing.conformance import CHECKLIST, Finding, Report, Verdict
from coatcheck.testing.conformance.shown import as_table

HOSTILE = "<script>alert(1)</script>' onload=x \"> {{ 7*7 }} \x1b[31m \u202etxt\u0007"


def hostile() -> Report:
    verdicts = list(Verdict)
    rows = enumerate(CHECKLIST)
    return Report(HOSTILE, tuple(Finding(row.id, verdicts[n % len(verdicts)], HOSTILE) for n, row in rows))


def test_the_page_shows_every_row_and_loads_nothing() -> None:
    page = hostile().as_html()
    for row in CHECKLIST:
        assert f'<tr id="{row.id}">' in page
    assert not re.search(r"(?i)\b(?:src|href|action)\s*=|@import|url\(", page)
    assert "default-src 'none'" in page
    assert all(f"{number} {verdict}</li>" in page for verdict, number in hostile().sums.items())


def test_the_page_escapes_what_an_application_said() -> None:
    page = hostile().as_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page, "a template in an answer is text"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)


def test_the_table_only_shows() -> None:
    console = Console(record=True, width=140, force_terminal=True)
    with console.capture() as captured:
        console.print(as_table(hostile()))
    shown = captured.get()
    assert "\x1b[31m " not in shown.replace("\x1b[1;31m", "")
    assert "\u202e" not in shown
    assert "\u0007" not in shown
    assert all(row.id in shown for row in CHECKLIST)


def test_a_report_prints_itself(capsys: pytest.CaptureFixture[str]) -> None:
    Report("mine", (Finding("CKE-01", Verdict.PASS, "Every cookie is Secure."),)).show()
    out = capsys.readouterr().out
    assert "CKE-01" in out
    assert "1 pass" in out
