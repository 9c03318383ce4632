"""What a command asks before it ends or moves sessions: a person at the terminal, or `--yes` said so before."""

from __future__ import annotations

import sys

import typer

from ..core.errors import ConfigError
from . import terminal


def need_somebody(what: str, *, look: bool = False) -> None:
    """Raise ConfigError where nobody is there to ask; `look`: the command has `--dry-run`, too."""
    if not sys.stdin.isatty():
        more = " (or look first: --dry-run)" if look else ""
        message = f"this {what}, and nobody is there to ask; add --yes{more}"
        raise ConfigError(message)


def agreed(question: str, otherwise: str) -> None:
    """Ask; unless it is a yes, say what did not happen and leave with 1."""
    if not typer.confirm(question, err=True):
        terminal.complain(otherwise)
        raise typer.Exit(1)
