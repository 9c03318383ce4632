"""How the commands print: tables and lines for people, JSON for programs.

Rules
- What came from outside (subjects, user agents, addresses) only shows: characters that do not print (control, format,
  bidirectional, separators) are replaced, and no markup is read. So no visitor acts on an operator's terminal.
- A terminal gets colours and a table as wide as it is; handles and subjects are never cut. A pipe gets plain text, one
  line a row.
- JSON is ASCII: what does not print is escaped, and so keeps its value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_REPLACEMENT: Final = "\ufffd"
_LEAST: Final = 24
"""The width under which a column that may be cut is not worth showing."""


class Column(NamedTuple):
    """A column: its title; what stands before its value where there is no room for a table; and whether it may be cut.

    The last column only may be cut; where there is no room for it, it is left out.
    """

    title: str
    label: str = ""
    cut: bool = False


def clean(value: object) -> str:
    """Return a value as text that only shows."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _REPLACEMENT for one in text)


def cell(value: object, style: str = "") -> Text:
    """Return a value as a cell; a dash stands for none."""
    return Text("-", style="dim") if value is None or value == "" else Text(clean(value), style=style)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], *, aside: bool = False) -> None:
    """Print rows under titles; `aside` prints to stderr."""
    console = _console(aside=aside)
    if not console.is_terminal:
        _plain(console, [[Text(column.title) for column in columns], *rows])
        return
    widths = [
        max(len(column.title), *(cell_len(row[number].plain) for row in rows)) for number, column in enumerate(columns)
    ]
    left = console.width - sum(width + 2 for width, column in zip(widths, columns, strict=True) if not column.cut)
    if left < -2:
        _stacked(console, columns, rows)
        return
    shown = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        border_style="dim",
    )
    kept = [column for column in columns if not column.cut or left >= _LEAST]
    for column in kept:
        shown.add_column(column.title, no_wrap=True, overflow="ellipsis", max_width=left if column.cut else None)
    for row in rows:
        shown.add_row(*row[: len(kept)])
    console.print(shown)


def pairs(rows: Iterable[tuple[str, Text]]) -> None:
    """Print one thing: a line for each of its properties."""
    console = _console()
    found = [(Text(label, style="dim"), value) for label, value in rows]
    if console.is_terminal:
        _grid(console, found)
    else:
        _plain(console, found)


def entries(rows: Iterable[tuple[Text, Text]]) -> None:
    """Print log entries: what stands first keeps its column, the rest wraps beside it."""
    console = _console()
    if console.is_terminal:
        _grid(console, rows)
    else:
        _plain(console, list(rows))


def document(value: object) -> None:
    """Print one JSON document, on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, default=str) + "\n")
    sys.stdout.flush()


def say(sentence: str, *, aside: bool = False) -> None:
    """Print a sentence for people; `aside` prints to stderr."""
    console = _console(aside=aside)
    console.print(Text(clean(sentence)), soft_wrap=not console.is_terminal)


def complain(sentence: str) -> None:
    """Print what went wrong, as one line."""
    sys.stderr.write(f"coatcheck: {clean(sentence)}\n")


def plural(number: int, noun: str) -> str:
    """Return a number and its noun: 1 session, 2 sessions."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _stacked(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
    """Print rows on a narrow terminal: what stands first keeps its column, the rest wraps beside it."""
    found = []
    for first, second, *others in rows:
        told = second.copy()
        for column, value in zip(columns[2:], others, strict=True):
            if not column.cut and value.plain != "-":
                told.append("\n" if told.plain == second.plain else ", ", style="dim")
                told.append(f"{column.label} " if column.label else "", style="dim")
                told.append_text(value)
        found.append((first, told))
    _grid(console, found)


def _grid(console: Console, rows: Iterable[tuple[Text, Text]]) -> None:
    shown = Table.grid(padding=(0, 2, 0, 0))
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for first, rest in rows:
        shown.add_row(first, rest)
    if shown.row_count:
        console.print(shown)


def _plain(console: Console, rows: Sequence[Sequence[Text]]) -> None:
    """Print rows in columns of plain text, as wide as they need to be."""
    widths = [max(cell_len(value.plain) for value in column) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (value.plain + " " * (width - cell_len(value.plain)) for value, width in zip(row, widths, strict=True))
        console.file.write("  ".join(padded).rstrip() + "\n")
    console.file.flush()


def _console(*, aside: bool = False) -> Console:
    return Console(stderr=aside, highlight=False, markup=False, emoji=False)
