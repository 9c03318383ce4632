"""The table of OWASP ASVS 5.0, chapter V7, as docs/asvs.md shows it: made from the check list.

`python -m tests.conformance.asvs` writes it anew.
"""

import re
from pathlib import Path

from coatcheck.testing.conformance import CHECKLIST, OPEN, Row, registry

from .test_conformance import OTHERWISE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "asvs.md"
BEGIN, END = "<!-- made by tests/conformance/asvs.py: begin -->\n", "<!-- end -->\n"
SOURCE = re.compile(r"ASVS (7\.\d+\.\d+)(?: L([123]))?")

REQUIREMENTS = (
    *("7.1.1", "7.1.2", "7.1.3", "7.2.1", "7.2.2", "7.2.3", "7.2.4", "7.3.1", "7.3.2", "7.4.1"),
    *("7.4.2", "7.4.3", "7.4.4", "7.4.5", "7.5.1", "7.5.2", "7.5.3", "7.6.1", "7.6.2"),
)
"""All requirements of V7, in its order."""


def cited() -> dict[str, tuple[str, list[Row]]]:
    """Return the level and the rows of each requirement that the check list names."""
    found: dict[str, tuple[str, list[Row]]] = {}
    for row in CHECKLIST:
        for source in row.sources:
            match = SOURCE.match(source)
            if match:
                level, rows = found.get(match[1], ("", []))
                found[match[1]] = (level or match[2] or "", [*rows, row])
    return found


def verdict(row: Row) -> str:
    """Return what the suite says of a row on our own adapters, and why not more."""
    if row.id in OPEN:
        return f"open: {_inner(OPEN[row.id])}"
    if row.fit == "no":
        return f"yours to do: {_inner(row.yours)}"
    if row.id in OTHERWISE:
        return f"partial: {OTHERWISE[row.id]}"
    return "pass" if row.fit == "full" else f"partial; yours: {_inner(row.yours)}"


def _inner(sentence: str) -> str:
    begun = sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]
    return begun.rstrip(".").replace("|", "\\|")


def table() -> str:
    """Return the table."""
    registry.load()
    lines = ["| ASVS | level | row | what is asked | verdict |", "|---|---|---|---|---|"]
    found = cited()
    for number in REQUIREMENTS:
        level, rows = found[number]
        lines += [f"| {number} | L{level} | {row.id} | {row.says} | {verdict(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return the page with the table of today in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
