"""Rows 1.E: how sessions end, and that they stay ended. None is judged yet; each says why."""

from __future__ import annotations

from .registry import open_row

open_row(
    "TRM-01",
    "No test yet; a logout in several processes is judged by the adapter journey and the drills.",
)
open_row(
    "TRM-02",
    "No test yet; the journey judges the cookie that takes the session's away.",
)
open_row(
    "TRM-03",
    "No test yet for `revoke_all(because='account_disabled')`; hooks at a change of roles are being built.",
)
open_row(
    "TRM-04",
    "No test yet; the journey judges `end_others` at a password change, and hooks for it are being built.",
)
open_row(
    "TRM-05",
    "No test yet: nothing looks through an application's pages for a logout form.",
)
open_row(
    "TRM-06",
    "No test yet; the command line ends one session, a subject's, old ones and all, not yet by device or network.",
)
open_row(
    "TRM-07",
    "No test yet; a logout that another site asks for is judged by the drills (D59).",
)
open_row(
    "TRM-08",
    "Clear-Site-Data at the logout is being built.",
)
open_row(
    "TRM-09",
    "No test yet: coatcheck says no-store with its cookies, not on every private page.",
)
open_row(
    "TRM-10",
    "No test yet; sockets and event streams that end with their session are judged by the journey and the drill D63.",
)
open_row(
    "TRM-11",
    "No test yet; that a slow request revives nothing is promise 1, which the journey and the store contract judge.",
)
open_row(
    "TRM-12",
    "No test yet; TMO-16 judges a device's proof after the end, and the drill D64 the CSRF token.",
)
open_row(
    "TRM-13",
    "No test yet; the journey judges the event that a token leaves after its session's end.",
)
open_row(
    "TRM-14",
    "No test yet; no act of coatcheck's own gives the reason key_rotation.",
)
