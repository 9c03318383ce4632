"""What the commands print: tables for people, JSON for programs. No proof and no value of a session is ever among it.

What came from outside (subjects, user agents, addresses) is plain text here: control and bidirectional characters are
replaced, and no markup is read, so that a visitor cannot act on an operator's terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core import codec, facts
from ..core.model import Client, Event, Level, Record
from .when import spelled

_LEVELS = {level.value: level.name.lower() for level in Level}


def clean(value: object) -> str:
    """Return a value as text that only shows: control, format and bidirectional characters are replaced."""
    return "".join(
        "\ufffd" if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one for one in str(value)
    )


def record_row(record: Record) -> dict[str, Any]:
    """Return what may be shown of a record."""
    client = record.client or Client()
    return {
        "handle": record.handle,
        "subject": record.subject,
        "realm": record.realm,
        "state": "live" if record.ended_at is None else f"ended: {record.ended_because}",
        "level": _LEVELS.get(record.level, str(record.level)),
        "methods": list(record.methods),
        "created_at": spelled(record.created_at),
        "seen_at": spelled(record.seen_at),
        "ends_at": spelled(record.deadline if record.ended_at is None else record.ended_at),
        "remembered": record.persistent,
        "address": client.address,
        "agent": client.agent,
    }


def record_details(record: Record) -> dict[str, Any]:
    """Return all that may be shown of one record; of its data, the names only."""
    try:
        keys = sorted(codec.decode(record.data))
    except codec.UnknownVersion:
        keys = ["(written by another version)"]
    return record_row(record) | {
        "authenticated_at": spelled(record.authenticated_at),
        "idle_seconds": record.idle_for,
        "absolute_end": spelled(record.expires_at),
        "successor": record.successor,
        "keys": keys,
        "bytes": len(record.data),
        "version": record.version,
    }


def event_row(event: Event) -> dict[str, Any]:
    """Return an event, flat."""
    client = event.client or Client()
    return {
        "at": spelled(event.at),
        "event": event.name,
        "severity": facts.severity(event),
        "realm": event.realm,
        "handle": event.handle,
        "subject": event.subject,
        "address": client.address,
        "agent": client.agent,
        "detail": event.detail,
        "noise": event.noise,
    }


def as_json(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, default=str) + "\n")


def console() -> Console:
    """Return the terminal, or a plain wide page when the output is piped."""
    return Console(soft_wrap=False) if sys.stdout.isatty() else Console(width=200, color_system=None)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print rows as a table of the named columns; handles are never cut."""
    terminal = console()
    style = box.SIMPLE_HEAD if terminal.is_terminal else box.ASCII2
    shown = Table(box=style, pad_edge=False, header_style="bold")
    for key, title in columns.items():
        whole = key in ("handle", "at", "created_at", "seen_at")
        shown.add_column(title, no_wrap=whole, overflow="fold", min_width=18 if key == "handle" else None)
    for row in rows:
        shown.add_row(*(Text(_cell(row[key]), style=_style(key, row)) for key in columns))
    terminal.print(shown)


def pairs(row: Mapping[str, Any]) -> None:
    """Print one thing, a line for each of its properties."""
    terminal = console()
    width = max(map(len, row))
    for key, value in row.items():
        terminal.print(Text(f"{key.replace('_', ' '):{width}}  {_cell(value)}"), soft_wrap=True)


def lines(found: Iterable[Event]) -> None:
    """Print events as lines, newest last."""
    terminal = console()
    for event in found:
        row = event_row(event)
        text = Text(f"{row['at']}  ", style="dim")
        text.append(clean(facts.line(event)), style=_style("severity", row))
        terminal.print(text, soft_wrap=True)


def say(sentence: str) -> None:
    """Print a sentence for people."""
    console().print(Text(clean(sentence)), soft_wrap=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return clean(", ".join(map(str, value))) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(value)


def _style(key: str, row: Mapping[str, Any]) -> str:
    if key == "severity":
        return {"critical": "bold red", "warning": "yellow"}.get(row["severity"], "")
    if key == "state":
        return "green" if row["state"] == "live" else "dim"
    return ""
