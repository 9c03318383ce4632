"""Rows 1.A: what an application writes down about its sessions. None is judged yet; each says why."""

from __future__ import annotations

from .registry import open_row

open_row(
    "DOC-01",
    "TMO-05 judges the presets; `coatcheck policy show|lint`, which this row asks, is being built.",
)
open_row(
    "DOC-02",
    "That a limit is written down is shown by `coatcheck policy show|lint`, which is being built.",
)
open_row(
    "DOC-03",
    "The list of identity providers belongs to `coatcheck policy show`, which is being built.",
)
open_row(
    "DOC-04",
    "No test yet: `missing_headers` and `binding` are settings whose modes the drills D25 and D59 judge.",
)
open_row(
    "DOC-05",
    "Nothing lists the events with their levels and fields yet; they go to the store and to the logger `coatcheck`.",
)
