"""Rows 1.A: what an application decides about its sessions: that it is said, what it means, and that it is so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from msgspec.structs import replace

from ...core import facts
from ...core.errors import ConfigError
from ...core.lint import Finding, findings
from ...core.manager import SessionManager
from ...core.model import Event
from ...core.policies import SessionLimit, Timeouts, timeouts
from ...core.providers import Provider
from ...core.providers import said as said_of
from ...core.vocabulary import FACTS, LOGGER, NOISE, sinks
from ...flow.telling import Telling
from .devices import Device
from .registry import row
from .rows_logging import whole_day
from .rows_timeouts import DAY
from .rows_tokens import NOBODY
from .site import ELSEWHERE, ORIGIN, Site, refused
from .verdicts import expect


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


@row("DOC-03")
def providers_are_listed_with_their_logouts(site: Site) -> None:
    """A provider is listed with lifetimes and channels; one without a channel or a why is an error of the lint."""
    whole = Provider(issuer=OP, lifetime=8 * 3600.0, max_age=3600.0, logouts=["back-channel", "caep"])
    for words in (OP, "28800 s", "3600 s", "back-channel, caep"):
        expect(f"whether the list says {words}", words in said_of(whole), wanted=True)
    deaf = Provider(issuer=OP, lifetime=DAY)
    why = replace(deaf, why="a kiosk, logged out each evening")
    for one, severities in (
        (whole, ["note"]),  # ours outlast theirs, and are ended by the channel only
        (replace(whole, lifetime=DAY), []),
        (replace(whole, lifetime=None), ["warning"]),
        (deaf, ["error"]),
        (why, ["note"]),
    ):
        expect(f"what is said of {one}", _said("DOC-03", providers=[one]), severities)
    for wrong in ({"logouts": ["pigeon"]}, {"logouts": "caep"}, {"lifetime": 0.0}, {"issuer": ""}):
        expect(f"whether {wrong} is refused", "provider" in refused(providers=[replace(whole, **wrong)]), wanted=True)
    expect("whether one may come twice", "twice" in refused(providers=[whole, why]), wanted=True)
    _listed_is_believed(site, whole)


def _listed_is_believed(site: Site, listed: Provider) -> None:
    """Build receivers: whose logouts are believed stands in the list, with that channel, once there is one."""
    try:
        from ...receivers import Issuer, Receiver, Stream
    except ModuleNotFoundError:
        return  # then nobody's logouts are believed
    keys: dict[str, list[object]] = {"keys": []}
    elsewhere = replace(listed, logouts=["front-channel"])
    for providers, issuer, taken in (
        ([], OP, True),
        ([listed], OP, True),
        ([listed], "https://other.example", False),
        ([elsewhere], OP, False),
    ):
        manager = SessionManager(origins=[ORIGIN], clock=site.clock, providers=providers)
        store = site.control.plain
        believed = [Issuer(issuer=issuer, audience="shop", keys=keys)]
        heard = [Stream(issuer=issuer, audience="shop", keys=keys)]
        for build in (
            partial(Receiver, manager, store, issuers=believed),
            partial(Receiver, manager, store, streams=heard),
        ):
            try:
                build()
            except ConfigError as error:
                expect(f"whether {error} names it", issuer in str(error), wanted=True)
                expect("what becomes of a receiver that is listed", "refused", "refused" if not taken else "taken")
            else:
                expect(f"what becomes of {issuer}, which is not listed", "taken", "taken" if taken else "refused")


OP = "https://op.example"


@row("DOC-05")
def events_are_what_is_listed_and_go_where_it_says(site: Site) -> None:
    """Each event of a day is listed, with its level and fields; it goes to the store, one logger, the listeners."""
    heard: list[Event] = []
    shop = site.with_settings(on_event=[heard.append], new_devices="tell")
    with recorded() as records:
        told = whole_day(shop)
    kinds = {**FACTS, **NOISE}
    expect("kinds of events", len({event.name for event in told}) >= 10, wanted=True)
    for event in told:
        kind = kinds.get(event.name)
        expect(f"whether {event.name} is listed", kind is not None, wanted=True)
        if kind is not None:
            expect(f"what {event.name} holds besides", event.detail.keys() - set(kind.fields), set())
            expect(f"whether {event.name} may be so loud", facts.severity(event) in kind.levels, wanted=True)
            expect(f"whether {event.name} is noise", event.noise, kind.noise)
    names = {one.name for one in sinks(shop.control.manager.settings.on_event) if one.kind == LOGGER}
    expect("the loggers that events go to", {one.name for one in records if hasattr(one, "event")}, names)
    handles = {event.handle for event in told if event.handle}
    elsewhere = [one.getMessage() for one in records if one.name not in names]
    expect("lines of other loggers that name a session", [x for x in elsewhere if any(h in x for h in handles)], [])
    for telling in shop.control.plain.listeners:
        if isinstance(telling, Telling):
            expect("whether the listeners have heard", telling.drained(30), wanted=True)
    expect("what the listener heard", sorted(map(facts.line, heard)), sorted(map(facts.line, told)))


@contextmanager
def recorded() -> Iterator[list[logging.LogRecord]]:
    """Collect every record that is logged meanwhile, by whatever logger."""
    records: list[logging.LogRecord] = []
    spy = logging.Handler(logging.DEBUG)
    spy.emit = lambda record: records.append(record)  # type: ignore[method-assign]  # noqa: PLW0108 - its own name
    root, ours = logging.getLogger(), logging.getLogger("coatcheck")
    levels = root.level, ours.level
    root.addHandler(spy)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.removeHandler(spy)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
