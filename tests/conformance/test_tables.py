"""The tables of the documents say what the check list and the suite say."""

import re

from coatcheck.testing.conformance import CHECKLIST, Verdict, find_row

from .adapters import FURTHER, SELDOM
from .asvs import BEGIN, END, PAGE, REQUIREMENTS, cited, written
from .test_conformance import ABOUT_THE_ADAPTER, LEFT

CONFORMANCE = PAGE.with_name("conformance.md")


def test_the_table_of_asvs_is_the_check_lists() -> None:
    text = PAGE.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text == written(text), "python -m tests.conformance.asvs writes docs/asvs.md anew"


def test_every_requirement_of_v7_has_a_row_and_a_level() -> None:
    found = cited()
    assert found.keys() == set(REQUIREMENTS)
    assert all(level for level, _ in found.values())


def test_a_row_that_a_document_names_is_there() -> None:
    prefixes = "|".join(sorted({row.id.partition("-")[0] for row in CHECKLIST}))
    for page in (PAGE, CONFORMANCE):
        for name in re.findall(rf"\b(?:{prefixes})-\d\d\b", page.read_text("utf-8")):
            find_row(name)


def test_every_verdict_is_explained() -> None:
    text = CONFORMANCE.read_text("utf-8")
    assert [one for one in Verdict if f"| `{one}` |" not in text] == []
    assert f"{len(CHECKLIST)} rows" in text


def test_what_our_own_tests_leave_to_the_command_is_said() -> None:
    text = CONFORMANCE.read_text("utf-8")
    assert [name for name in FURTHER if name.partition(",")[0] not in text] == []
    for name in (*(prefix.rstrip("-") for prefix in ABOUT_THE_ADAPTER), *LEFT):
        assert name in text
    assert "Tornado's handlers that are not awaited and Sanic as an ASGI application" in text
    assert SELDOM == ("Tornado, not awaited", "Sanic over ASGI")
