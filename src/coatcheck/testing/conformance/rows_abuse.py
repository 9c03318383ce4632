"""Rows 1.F: abuse, step-up and what users see. None is judged yet; each says why."""

from __future__ import annotations

from .registry import open_row

open_row(
    "ABU-01",
    "No test yet; TMO-15 judges delicate pages for a remembered login, and FED-01 the age of a login.",
)
open_row(
    "ABU-02",
    "No test yet; the probe lists handles only, so what a page may show of a session is not judged.",
)
open_row(
    "ABU-03",
    "Grants for one operation are being built with the step-up; `exchange.take` makes one count once.",
)
open_row(
    "ABU-04",
    "Signals with points and reasons are being built.",
)
open_row(
    "ABU-05",
    "Being told of a new device is being built with the signals.",
)
open_row(
    "ABU-06",
    "No test yet; the store contract judges that a limit holds for logins at the same moment.",
)
open_row(
    "ABU-07",
    "No test yet for a policy that answers STEP_UP; `require_reauth` is being built.",
)
open_row(
    "ABU-08",
    "Hooks at a change of roles are being built.",
)
open_row(
    "ABU-09",
    "There is no console and no acting as somebody else yet.",
)
