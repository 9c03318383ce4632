"""The conformance suite: every row of the check list of standards, judged on an application and told with its reason.

    checklist   the rows: id, sources, one sentence, how it is shown, what is left to you
    verdicts    what can be said of a row: a finding and its reasons
    site        an adapter's probe application, with the strings that move it
    registry    which function tests which row, and the one way to run it
    rows_*      those functions, one file for a part of the check list
    stranger    an application of which only the address is known; outside_* test it
    report      all findings together: sums and JSON
    shown       a report for people: an HTML page, a table

Your own adapter is judged by `judge(Adapter("mine", drive, ...))`; docs/conformance.md says how.
"""

from .checklist import CHECKLIST, Row, find_row
from .registry import OPEN, judge, judge_row, row
from .report import Report
from .site import Adapter, Site
from .verdicts import Finding, Unfit, Verdict, expect, partly, unfit

__all__ = [
    "CHECKLIST",
    "OPEN",
    "Adapter",
    "Finding",
    "Report",
    "Row",
    "Site",
    "Unfit",
    "Verdict",
    "expect",
    "find_row",
    "judge",
    "judge_row",
    "partly",
    "row",
    "unfit",
]
