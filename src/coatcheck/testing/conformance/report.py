"""All findings together: what became of each row, how many of each verdict, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .checklist import find_row
from .verdicts import Finding, Verdict


class Report(msgspec.Struct, frozen=True):
    """The findings on one application (`about`), in the order of the check list."""

    about: str
    findings: tuple[Finding, ...]

    @property
    def sums(self) -> dict[Verdict, int]:
        """How many rows have which verdict."""
        return {verdict: sum(one.verdict is verdict for one in self.findings) for verdict in Verdict}

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that something is wrong."""
        return tuple(one for one in self.findings if one.verdict is Verdict.FAIL)

    def of(self, verdicts: Iterable[Verdict]) -> tuple[Finding, ...]:
        """Return the findings with one of these verdicts."""
        wanted = set(verdicts)
        return tuple(one for one in self.findings if one.verdict in wanted)

    def rows(self) -> list[dict[str, Any]]:
        """Return every finding with its row, as plain values."""
        told = []
        for one in self.findings:
            found = find_row(one.id)
            plain: dict[str, Any] = msgspec.to_builtins(found)
            told.append({**plain, "verdict": str(one.verdict), "why": one.why})
        return told

    def as_json(self) -> str:
        """Return the report as JSON."""
        told = {"about": self.about, "sums": {str(name): n for name, n in self.sums.items()}, "rows": self.rows()}
        return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()

    def as_html(self) -> str:
        """Return the report as one HTML page that loads nothing (needs Jinja)."""
        from .shown import as_html

        return as_html(self)

    def show(self) -> None:
        """Print the report as a table (needs Rich)."""
        from rich.console import Console

        from .shown import as_table

        Console(highlight=False, markup=False, emoji=False).print(as_table(self))
