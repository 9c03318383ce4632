"""Rows 1.A: what an application decides about its sessions: that it is said, what it means, and that it is so."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ...core.errors import ConfigError
from ...core.lint import Finding, findings
from ...core.manager import SessionManager
from ...core.policies import SessionLimit, Timeouts, timeouts
from .devices import Device
from .registry import open_row, row
from .rows_timeouts import DAY
from .rows_tokens import NOBODY
from .site import ELSEWHERE, ORIGIN, Site, refused
from .verdicts import expect

open_row(
    "DOC-03",
    "The providers are the issuers and streams that the receivers are built with; nothing lists their lifetimes yet.",
)
open_row(
    "DOC-05",
    "Nothing lists the events with their levels and fields yet; they go to the store, to the logger `coatcheck` and to "
    "the listeners that are set.",
)


def _said(rule: str, standard: str | None = None, **settings: Any) -> list[str]:
    """Return how severely the lint speaks of a row."""
    made = SessionManager(origins=[ORIGIN], **settings).settings
    found: list[Finding] = findings(made, standard)
    return [one.severity for one in found if one.rule == rule]


@row("DOC-01")
def timeouts_are_said_and_deviations_explained(_site: Site) -> None:
    """Every application has both; missing ones are refused or an error of the lint, as are long ones without a why."""
    expect("what is said of the defaults", _said("DOC-01"), [])
    for value in (0, -1, float("inf"), float("nan")):
        _refused(absolute=value)
        _refused(idle=value)
    expect("what is said where nobody is ever idle", _said("DOC-01", timeouts=timeouts(idle=None)), ["error"])
    why = timeouts(idle=None, why="a kiosk without a user")
    expect("the same with a reason", _said("DOC-01", timeouts=why), [])
    long = timeouts(absolute=60 * DAY, remember=60 * DAY)
    expect("what is said of 60 days", _said("DOC-01", timeouts=long), ["error"])
    expect("the same with a reason", _said("DOC-01", timeouts=replace(long, why="read only")), ["note"])
    chosen = timeouts("nist-aal2", idle=2 * 3600)
    expect("two hours where NIST says one", _said("TMO-05", "nist-aal2", timeouts=chosen), ["warning"])
    expect("what NIST demands", _said("TMO-05", "nist-aal3", timeouts=timeouts(absolute=DAY))[:1], ["error"])


def _refused(**clocks: Any) -> None:
    try:
        Timeouts(**clocks).check()
    except ConfigError:
        return
    message = f"{clocks} were taken for timeouts"
    raise AssertionError(message)


@row("DOC-02")
def the_number_of_sessions_is_said(_site: Site) -> None:
    """No decision is told by the lint, one silences it, and what happens to one more is one of two words."""
    expect("what is said where nothing was decided", _said("DOC-02"), ["warning"])
    for limit in (5, SessionLimit(5), SessionLimit(1, "refuse")):
        expect(f"what is said of {limit}", _said("DOC-02", limit=limit), [])
    for wrong in (0, -1, SessionLimit(3, "ask")):  # type: ignore[arg-type]
        assert "limit" in refused(limit=wrong), f"{wrong} is refused without saying what"


@row("DOC-04")
def what_happens_without_a_feature_is_what_is_said(site: Site) -> None:
    """Each mode of `missing_headers` and `binding` does what its name says, and the lint tells of the weaker ones."""
    for mode, status in (("allow", 200), ("deny", 403)):
        shop = site.with_settings(missing_headers=mode)
        browser = shop.logged_in()
        expect(f"a form without any evidence, {mode!r}", browser.post("/echo", site=None).status, status)
        expect(f"a page without any evidence, {mode!r}", browser.get("/me", site=None).status, 200)
        expect(f"a form with Origin only, {mode!r}", browser.post("/echo", site=None, origin=ORIGIN).status, 200)
        expect(f"another's Origin, {mode!r}", browser.post("/echo", site=None, origin=ELSEWHERE).status, 403)
    for mode, offers, later in (("off", False, 200), ("opportunistic", True, 200), ("required", True, NOBODY)):
        shop = site.with_settings(binding=mode)
        browser = shop.browser()
        offer = browser.login().header("secure-session-registration")
        expect(f"whether a binding is offered, {mode!r}", offer is not None, offers)
        expect(f"who it is at first, {mode!r}", browser.get("/me").status, 200)
        shop.clock.wind(301)
        expect(f"who it is later in a browser that cannot bind, {mode!r}", browser.get("/me").status, later)
        if offers:
            bound = Device(shop).bind()
            shop.clock.wind(301)
            expect(f"who it is later in one that can, {mode!r}", bound.browser.get("/me").status, 200)
    expect("what is said of no binding", _said("DOC-04"), ["note"])
    expect("what is said of a required one", _said("DOC-04", binding="required"), ["note"])
    expect("what is said of one where it can", _said("DOC-04", binding="opportunistic"), [])
