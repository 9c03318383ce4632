"""The check list as typed data: what standards ask of sessions, a row each (checklist.toml), in our own sentences."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Literal, TypeAlias

import msgspec

Fit: TypeAlias = Literal["full", "partly", "no"]
Shown: TypeAlias = Literal["http", "api", "cli", "browser", "log", "lint"]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row.

    - fit: whether a library can fulfil it: by itself, partly, or not at all.
    - shown: how it is shown to hold.
    - says: the requirement, in one sentence of ours. yours: what is left to people, unless the fit is full.
    - sources: the standards and their sections.
    - group: the letter and title of its part of the check list.
    """

    id: str
    fit: Fit
    shown: Shown
    says: str
    sources: tuple[str, ...]
    yours: str = ""
    group: str = ""


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    letter: str
    title: str
    row: list[Row]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    group: list[_Group]


def read(text: str) -> tuple[Row, ...]:
    """Return the rows of a check list, in its order; raise for one that is not well formed."""
    groups = msgspec.convert(tomllib.loads(text), _File).group
    return tuple(
        msgspec.structs.replace(one, group=f"{group.letter}. {group.title}") for group in groups for one in group.row
    )


CHECKLIST: tuple[Row, ...] = read((files(__name__.rpartition(".")[0]) / "checklist.toml").read_text("utf-8"))
"""All rows."""

_BY_ID = {one.id: one for one in CHECKLIST}


def find_row(id: str) -> Row:  # noqa: A002 - what it is called everywhere
    """Return the row of that id; raise KeyError for one that is not in the check list."""
    try:
        return _BY_ID[id]
    except KeyError:
        message = f"there is no row {id!r} in the check list; ids are written as in 'CKE-01'"
        raise KeyError(message) from None
