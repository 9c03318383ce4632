"""Rows 1.F: how many sessions there may be, what users see of them, when they must prove again, what looks strange."""

from __future__ import annotations

import json
from typing import Any

from ...core.detectors import AgentChanged, NetworkChanged
from ...core.errors import ConfigError
from ...core.model import Event, Level, Record
from ...core.policies import Action, OnSignals, Policy, SessionLimit, Verdict
from ...flow.telling import Telling
from ..browser import Browser, Received
from .registry import open_row, row
from .rows_timeouts import DAY
from .rows_tokens import NOBODY, token_of
from .site import Site
from .verdicts import expect, unfit

ELSEWHERE, HOME = "198.51.100.66", "192.0.2.7"
NEW = "authn_new_device"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
MONEY = {"to": "bob", "amount": "10"}
GRANTED = 300.0
"""Seconds that a grant counts, and that what asked for it is kept (docs/step-up.md)."""

SHOWN = {"handle", "current", "created_at", "seen_at", "methods", "level", "address", "agent"}

open_row(
    "ABU-09",
    "There is no console and no acting as somebody else yet.",
)


def _asks(answer: Received) -> tuple[int, str | None]:
    """Return the status of an answer and the error it names."""
    return answer.status, answer.json().get("error")


REAUTH = (NOBODY, "reauth_required")


@row("ABU-01")
def delicate_changes_ask_for_a_proof(site: Site) -> None:
    """An older login is refused, with how old it may be; a proof lets this session in, no other, and not for long."""
    browser, other = site.logged_in(), site.logged_in()
    site.clock.wind(601)
    for each in (browser, other):
        answer = each.post("/account/email", {"email": "a@example.com"})
        expect("a change by an older login", _asks(answer), REAUTH)
        expect("how old a login may be", answer.json()["max_age"], 600)
    expect("what was changed", browser.get("/data").json(), {})
    browser.post("/reauth")
    expect("the change after a proof", browser.post("/account/email", {"email": "b"}).status, 200)
    expect("the same in another session", _asks(other.post("/account/email", {"email": "c"})), REAUTH)
    site.clock.wind(601)
    expect("the change when the proof is old", _asks(browser.post("/account/email", {"email": "d"})), REAUTH)
    expect("what it is in the end", browser.get("/data").json(), {"email": "b"})


@row("ABU-02")
def users_see_and_end_their_own_sessions(site: Site) -> None:
    """Device, times, address and proof of each, never a secret; an end wants a fresh proof; others' are not found."""
    here, bob = site.logged_in(), site.logged_in("bob")
    there = site.browser()
    there.agent = FIREFOX
    there.post("/login", json={"user": "alice"}, peer=ELSEWHERE)
    answer = here.get("/account/sessions")
    shown = answer.json()["sessions"]
    expect("how many are shown", len(shown), 2)
    expect("what is shown of each", {name for one in shown for name in one}, SHOWN)
    (own,) = (one for one in shown if one["current"])
    (other,) = (one for one in shown if not one["current"])
    expect("which one is this", own["handle"], token_of(here).split(".")[1])
    expect("where the other is", (other["address"], other["agent"]), (ELSEWHERE, FIREFOX))
    for browser in (here, there):
        for secret in token_of(browser).split(".")[2:]:
            assert secret not in answer.text, "the list shows what opens a session"
            assert secret not in json.dumps(answer.headers), "a header of the list shows what opens a session"
    target = f"/account/sessions/{other['handle']}"
    expect("somebody else's, to end", bob.request("DELETE", target).status, 404)
    expect("somebody else's, to see", len(bob.get("/account/sessions").json()["sessions"]), 1)
    expect("a stranger's try", site.ask("DELETE", target).status, NOBODY)
    expect("who is there after all that", there.get("/me").json()["user"], "alice")
    site.clock.wind(601)
    expect("an end without a proof", _asks(here.request("DELETE", f"{target}?within=600")), REAUTH)
    expect("who is there after that", there.get("/me").json()["user"], "alice")
    here.post("/reauth")
    expect("an end with a proof", here.request("DELETE", f"{target}?within=600").status, 200)
    expect("why the other is over", _why(there), "owner")
    expect("who is here", here.get("/me").json()["user"], "alice")
    third = site.logged_in()
    expect("the end of all others", here.post("/account/sessions/revoke-others").status, 200)
    expect("why the third is over", _why(third), "owner")
    expect("who somebody else is", bob.get("/me").json()["user"], "bob")


def _why(browser: Browser) -> str | None:
    answer = browser.get("/me")
    expect("who is there", answer.status, NOBODY)
    why: str | None = answer.json()["why"]
    return why


@row("ABU-03")
def a_grant_is_for_one_operation_once(site: Site) -> None:
    """A proof for one transfer does not serve another's fields, another session, a second time, or for long."""
    browser, other = site.logged_in(), site.logged_in()
    site.clock.wind(1)
    _granted(site, browser)
    for what, fields in (("another amount", {**MONEY, "amount": "99"}), ("another receiver", {**MONEY, "to": "eve"})):
        expect(f"a transfer with {what}", browser.post("/transfer", fields).status, NOBODY)
    _granted(site, browser)
    expect("the same in another session", other.post("/transfer", MONEY).status, NOBODY)
    expect("the transfer that was granted", browser.post("/transfer", MONEY).status, 200)
    expect("the same again", browser.post("/transfer", MONEY).status, NOBODY)
    _granted(site, browser)
    site.clock.wind(GRANTED + 1)
    expect("a grant that is old", browser.post("/transfer", MONEY).status, NOBODY)
    site.clock.wind(GRANTED + 1)
    expect("the proof", browser.post("/reauth").status, 200)
    expect("a proof for what was asked long before", browser.post("/transfer", MONEY).status, NOBODY)
    expect("what was moved", site.control.probe.done, ["alice: 10 to bob"])


def _granted(site: Site, browser: Browser) -> None:
    expect("a transfer without a proof", browser.post("/transfer", MONEY).status, NOBODY)
    site.clock.wind(1)
    expect("the proof", browser.post("/reauth").status, 200)


@row("ABU-04")
def use_from_elsewhere_is_told_with_points(site: Site) -> None:
    """Another browser and network are told with score, reasons and what was done; a newer version is nothing."""
    for answer, action, follows in (
        (OnSignals(step_up=None), "note", 200),
        (OnSignals(step_up=50), "step_up", NOBODY),
        (OnSignals(step_up=None, end=50), "end", NOBODY),
    ):
        shop = site.with_settings(detectors=_detectors(), policies=[answer])
        owner = shop.browser()
        owner.agent = CHROME.format(140)
        owner.login()
        owner.agent = CHROME.format(141)
        expect("a newer version of the browser", owner.get("/private", peer="192.0.2.99").status, 200)
        expect("what was told of it", shop.events("session_context_changed"), [])
        thief = owner.twin()
        thief.agent = FIREFOX
        expect(f"a page from elsewhere, answered by {action!r}", thief.get("/private", peer=ELSEWHERE).status, follows)
        (event,) = shop.events("session_context_changed")
        told = (event.subject, event.detail["score"], event.detail["action"], len(event.detail["reasons"]))
        expect("what was told", told, ("alice", 60, action, 2))
        assert event.client is not None, "the event does not say who came"
        both = (event.client.address, event.detail["known_address"], event.client.agent)
        expect("both sides", both, (ELSEWHERE, "192.0.2.7", FIREFOX))
        alive = owner.get("/private").status
        expect("what is left to the owner", alive, NOBODY if action == "end" else 200)


def _detectors() -> list[Any]:
    try:
        return [AgentChanged(), NetworkChanged()]
    except ConfigError as missing:
        unfit(f"{str(missing)[:1].upper()}{str(missing)[1:]}.")


@row("ABU-05")
def a_browser_that_is_new_to_its_user_is_told(site: Site) -> None:
    """Each browser that is new to a user is told once, with where it was; a known one is not, in any process."""
    heard: list[Event] = []
    shop = site.with_settings(new_devices="tell", on_event=[heard.append])
    owner, thief, bob = shop.browser(), shop.browser(), shop.browser()
    owner.login()
    thief.agent = FIREFOX
    for _ in range(3):
        expect("the login of a thief", thief.post("/login", json={"user": "alice"}, peer=ELSEWHERE).status, 200)
        expect("the owner's next login", owner.login().status, 200)
    expect("the step-up of the owner", owner.post("/reauth").status, 200)
    owner.post("/logout")
    expect("the owner's login after a logout", owner.login().status, 200)
    bob.login("bob")
    expect("another user in the owner's browser", owner.login("bob").status, 200)
    told = [(one.subject, one.client and one.client.address, one.detail["first"]) for one in shop.events(NEW)]
    wanted = [("alice", HOME, True), ("alice", ELSEWHERE, False), ("bob", HOME, True), ("bob", HOME, False)]
    expect("what was told: whom it is about, where from, whether it was the first", told, wanted)
    expect("with what agent the thief came", [one.client and one.client.agent for one in shop.events(NEW)][1], FIREFOX)
    for telling in shop.control.plain.listeners:
        if isinstance(telling, Telling):
            expect("whether the listeners have heard", telling.drained(30), wanted=True)
    expect("what the listener heard", [one for one in heard if one.name == NEW], shop.events(NEW))
    there = shop.beside().browser()
    there.jar = dict(owner.jar)
    expect("the owner's login at another process", there.login("bob").status, 200)
    expect("what was told of it", len(shop.events(NEW)), len(wanted))
    shop.clock.wind(366 * DAY)
    owner.jar.pop(shop.cookie, None)
    expect("the owner's login a year later", owner.login().status, 200)
    expect("how many were told then", len(shop.events(NEW)), len(wanted) + 1)
    expect("what is told where nobody asked for it", (site.logged_in().login().status, site.events(NEW)), (200, []))


@row("ABU-06")
def a_limit_of_sessions_holds(site: Site) -> None:
    """One login too many ends the oldest, or is refused; of twenty at the same moment no more live than may."""
    shop = site.with_settings(limit=3)
    browsers = []
    for _ in range(4):
        browsers.append(shop.logged_in())
        shop.clock.wind(1)
    expect("who is there", [browser.get("/me").status for browser in browsers], [NOBODY, 200, 200, 200])
    expect("why the oldest is over", _why(browsers[0]), "limit")
    (event,) = shop.events("excess_sessions_exceeded")
    expect("whose it says it was", (event.subject, event.handle), ("alice", token_of(browsers[0]).split(".")[1]))
    expect("how many somebody else has", shop.logged_in("bob").get("/me").status, 200)
    _at_once(shop)
    shop = site.with_settings(limit=SessionLimit(3, "refuse"))
    browsers = [shop.logged_in() for _ in range(3)]
    answer = shop.browser().login()
    expect("a fourth login, where that is refused", (*_asks(answer), answer.cookies), (403, "session_limit", []))
    expect("who is there", {browser.get("/me").status for browser in browsers}, {200})
    browsers[0].post("/logout")
    expect("a login when one has left", shop.browser().login().status, 200)
    _at_once(shop)


def _at_once(shop: Site) -> None:
    """Let twenty log in at the same moment, and count who is in."""
    browsers = [shop.browser() for _ in range(20)]
    gate = shop.control.gate("crowd")
    flights = [one.start("POST", "/login?hold=crowd", json={"user": "carol"}) for one in browsers]
    gate.wait_until_reached(20)
    gate.open()
    for flight in flights:
        flight.land()
    alive = [browser for browser in browsers if browser.token and browser.get("/me").status == 200]
    expect("how many of twenty are in", len(alive), 3)
    expect("how many live in the store", len([one for one in shop.records() if one.subject == "carol"]), 3)


class _Risk(Policy):
    """Knows since when somebody is at risk, and what follows for older logins."""

    def __init__(self, action: Action, because: str = "policy") -> None:
        self.action, self.because = action, because
        self.since: dict[str, float] = {}

    def judge(self, record: Record, signals: Any, now: float) -> Verdict:
        """Answer for logins from before the moment."""
        since = self.since.get(record.subject or "", 0.0)
        proved = record.authenticated_at or 0.0
        return Verdict(self.action, self.because, everything=True) if proved < since else Verdict()


@row("ABU-07")
def a_risk_has_a_session_ask_again(site: Site) -> None:
    """From the next request on, all that needs a login is refused until there is a proof; nobody else notices."""
    risk = _Risk(Action.STEP_UP)
    shop = site.with_settings(policies=[risk])
    alice, phone, bob = shop.logged_in(), shop.logged_in(), shop.logged_in("bob")
    shop.clock.wind(60)
    expect("a page before the risk", alice.get("/private").status, 200)
    risk.since["alice"] = shop.clock()
    shop.clock.wind(1)
    for browser in (alice, phone):
        expect("a page after it", _asks(browser.get("/private")), REAUTH)
        expect("the same again", _asks(browser.get("/private")), REAUTH)
    expect("somebody else's", bob.get("/private").status, 200)
    expect("a proof", alice.login().status, 200)
    expect("the page after the proof", alice.get("/private").status, 200)
    expect("the page in the other session", _asks(phone.get("/private")), REAUTH)


@row("ABU-08")
def a_change_of_rights_counts_at_once(site: Site) -> None:
    """A policy that knows of it ends or doubts the older sessions at their next request; `renew` changes the token."""
    for action, follows in ((Action.END, "login_required"), (Action.STEP_UP, "reauth_required")):
        changed = _Risk(action)
        shop = site.with_settings(policies=[changed])
        admin, bob = shop.logged_in(level=int(Level.AAL2), remember=True), shop.logged_in("bob")
        expect("what the role allows", admin.post("/pay").status, 200)
        shop.clock.wind(1)
        changed.since["alice"] = shop.clock()
        expect("the next request", _asks(admin.post("/pay")), (NOBODY, follows))
        expect("the same again", admin.post("/pay").status, NOBODY)
        expect("who somebody else is", bob.get("/me").json()["user"], "bob")
    browser = site.logged_in()
    before = token_of(browser)
    browser.post("/data?do=renew")
    assert token_of(browser) != before, "the token is the same as before the change"
    expect("who the token from before is", site.user_of(before), None)
