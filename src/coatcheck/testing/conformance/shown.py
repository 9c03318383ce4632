"""A report for people: one HTML page that loads nothing, or a table on a terminal.

Rules
- What an application answered stands in its findings, and the application may be hostile: the page escapes all of it,
  runs no script and loads nothing; on a terminal, and on the page, what does not print is replaced.
- Jinja and Rich are imported when something is shown: a test suite that only asserts needs neither.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from ...core.errors import ConfigError
from .report import Report

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.table import Table

NEEDED: Final = "pip install 'coatcheck[conform]'"
_STYLES: Final = {"pass": "green", "fail": "bold red", "partial": "yellow"}


def as_html(report: Report) -> str:
    """Return the report as one page, whole in itself."""
    made = environment()
    page = (files(__name__.rpartition(".")[0]) / "report.html").read_text("utf-8")
    sums = [(str(verdict), number) for verdict, number in report.sums.items() if number]
    rows = [_cleaned(row) for row in report.rows()]
    return made.from_string(page).render(about=clean(report.about), sums=sums, rows=rows)


def environment() -> Environment:
    """Return what makes pages; raise ConfigError where Jinja is not installed, before anything is judged."""
    try:
        import jinja2
    except ModuleNotFoundError as missing:
        message = f"an HTML report needs {missing.name}; {NEEDED}"
        raise ConfigError(message) from missing
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def as_table(report: Report) -> Table:
    """Return the report as a table, which Rich prints as wide as a terminal is."""
    try:
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError as missing:
        message = f"a table needs {missing.name}; {NEEDED}"
        raise ConfigError(message) from missing
    table = Table(title=Text(clean(report.about)), caption=Text(in_short(report)), show_lines=False)
    for title in ("Row", "Verdict", "Why"):
        table.add_column(title, no_wrap=title != "Why", overflow="fold")
    for one in report.findings:
        verdict = str(one.verdict)
        table.add_row(Text(one.id), Text(verdict, style=_STYLES.get(verdict, "dim")), Text(clean(one.why)))
    return table


def in_short(report: Report) -> str:
    """Return how many rows have which verdict, in one sentence."""
    said = ", ".join(f"{number} {verdict}" for verdict, number in report.sums.items() if number)
    return f"{clean(report.about)}: {said or 'no row was judged'}."


def clean(text: str) -> str:
    """Return a text that only shows: control, format and bidirectional characters are replaced."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


def _cleaned(row: dict[str, Any]) -> dict[str, Any]:
    return {name: clean(value) if isinstance(value, str) else value for name, value in row.items()}
