"""Rows 1.E: how sessions end, that they stay ended, and that nothing of them is worth anything afterwards.

What ends together with a session (forms, grants, sockets) stands in rows_aftermath.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core import facts
from ...core.model import Event
from ...core.policies import Action, Policy, Verdict
from ..browser import Browser
from .devices import Device
from .provider import LOGOUT, Outlet, event_token, logout_token
from .registry import row
from .rows_timeouts import ABSOLUTE, DAY, IDLE
from .rows_tokens import LATE, NOBODY, RENEW, token_of
from .site import ELSEWHERE, ORIGIN, Site, refused
from .verdicts import expect

OPERATOR = "operator:olga"
TOMBSTONE = 7 * DAY


def _why(browser: Browser) -> str | None:
    """Return why nobody is there; fail if somebody is."""
    answer = browser.get("/me")
    expect("who is there", answer.status, NOBODY)
    why: str | None = answer.json()["why"]
    return why


@row("TRM-01")
def a_logout_is_one_in_every_process(site: Site) -> None:
    """A saved token opens nothing at the next request in any of three processes, whichever of them the logout met."""
    processes = (site, site.beside(), site.beside())
    for place in range(3):
        browser = site.logged_in()
        token = token_of(browser)
        for process in processes:
            expect("who it is everywhere before the logout", process.user_of(token), "alice")
        leaving = processes[place].browser()
        leaving.jar = dict(browser.jar)
        expect("the logout", leaving.post("/logout").status, 303)
        for process in processes:
            expect("who the saved token is afterwards", process.user_of(token), None)
        expect("the sessions that live", site.records(), [])
        expect("why it is over, in the store", site.records(live=False)[-1].ended_because, "logout")
    here, there = site.logged_in(), site.logged_in()
    expect("a logout everywhere", here.post("/logout?everywhere=1").status, 303)
    for process in processes:
        expect("who the other device is then", process.user_of(there.token), None)


@row("TRM-02")
def a_logout_takes_every_cookie_away(site: Site) -> None:
    """With name, path, domain and flags they were set with and Max-Age=0: a real jar is empty afterwards."""
    wide = {"name": "__Secure-shop", "domain": "shop.example", "cookie_reason": "two hosts"}
    kinds: tuple[dict[str, Any], ...] = ({}, {"same_site": "Strict"}, {"partitioned": True}, wide)
    for settings in kinds:
        shop = site.with_settings(**settings)
        browser = shop.browser()
        (given,) = browser.login(remember=True).cookies
        (taken,) = browser.post("/logout").cookies
        expect("the value that is left", taken.partition(";")[0].rstrip('"'), f"{shop.cookie}=")
        expect("the attributes, but for the age", _attributes(taken), _attributes(given))
        expect("the age", "Max-Age=0" in taken.split("; "), wanted=True)
        expect("what is left in the jar", browser.jar, {})
    device = Device(site.with_settings(binding="opportunistic")).bind()
    expect("how many cookies a bound session has", len(device.browser.jar), 2)
    device.browser.post("/logout")
    expect("what is left of them", device.browser.jar, {})


def _attributes(line: str) -> set[str]:
    """Return what must be the same for a browser to take it as the same cookie, in lower case."""
    parts = {part.strip().lower() for part in line.split(";")[1:]}
    return {part for part in parts if not part.startswith(("max-age=", "expires="))}


@row("TRM-03")
def the_end_of_an_account_ends_its_sessions(site: Site) -> None:
    """`revoke_all` ends all of an account's, remembered ones too, in every process, and nobody else's."""
    other = site.beside()
    one, two, bob = site.logged_in(), site.logged_in(remember=True), site.logged_in("bob")
    expect("who it is in another process", other.user_of(two.token), "alice")
    site.control.registry.revoke_all("alice", because="account_disabled", actor=OPERATOR)
    for browser in (one, two):
        expect("who one of its tokens is elsewhere", other.user_of(browser.token), None)
        expect("why it is over", _why(browser), "account_disabled")
    expect("who somebody else is", bob.get("/me").json()["user"], "bob")
    (event,) = site.events("sessions_revoked")
    told = (event.subject, event.detail["reason"], event.detail["actor"])
    expect("what was told", told, ("alice", "account_disabled", OPERATOR))


@row("TRM-04")
def a_changed_password_can_end_the_others(site: Site) -> None:
    """The other devices are logged out at once, because of it; this one goes on with another token."""
    here, there, bob = site.logged_in(), site.logged_in(remember=True), site.logged_in("bob")
    before = token_of(here)
    expect("the change", here.post("/account/password").status, 200)
    expect("why the other device is logged out", _why(there), "factor_change")
    assert token_of(here) != before, "the token is the same as before the change"
    expect("who the token from before is", site.user_of(before), None)
    expect("who is here", here.get("/me").json()["user"], "alice")
    expect("who somebody else is", bob.get("/me").json()["user"], "bob")


@row("TRM-06")
def an_operator_ends_one_all_of_one_or_everybodys(site: Site) -> None:
    """By the registry, which the command line uses: at the next request it is over, and the event names who did it."""
    registry, other = site.control.registry, site.beside()
    one, same, bob, carol = (site.logged_in(user) for user in ("alice", "alice", "bob", "carol"))
    everybody = [one, same, bob, carol]

    def lives() -> list[bool]:
        found = [process.user_of(browser.token) is not None for process in (site, other) for browser in everybody]
        expect("what another process says", found[4:], found[:4])
        return found[:4]

    expect("who is there at first", lives(), [True] * 4)
    handle = token_of(one).split(".")[1]
    expect("one that is somebody else's", registry.revoke(handle, subject="bob", actor=OPERATOR), wanted=False)
    expect("one session", registry.revoke(handle, actor=OPERATOR), wanted=True)
    expect("who is there then", lives(), [False, True, True, True])
    expect("why", _why(one), "operator")
    expect("the same one again", registry.revoke(handle, actor=OPERATOR), wanted=False)
    registry.revoke_all("alice", keep=token_of(same).split(".")[1], actor=OPERATOR)
    expect("who is there when one was kept", lives(), [False, True, True, True])
    registry.revoke_all("alice", actor=OPERATOR)
    expect("who is there when all of one's were ended", lives(), [False, False, True, True])
    site.clock.wind(2)
    registry.revoke_before(site.clock(), actor=OPERATOR)
    site.clock.wind(2)
    expect("who is there when everybody's were ended", lives(), [False] * 4)
    expect("who logs in later", site.logged_in("carol").get("/me").status, 200)
    acts = [one for one in site.events() if one.name == "sessions_revoked" or "actor" in one.detail]
    told = [(one.name, one.detail["actor"]) for one in acts]
    expect("who is named in the events", told, [("session_revoked", OPERATOR), *[("sessions_revoked", OPERATOR)] * 3])


@row("TRM-07")
def a_logout_is_nothing_another_site_can_cause(site: Site) -> None:
    """No safe method logs out, and no form of another site, whatever kind of browser brings it."""
    browser = site.logged_in()
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = browser.request(method, "/logout")
        assert answer.status in (404, 405), f"{method} /logout was answered with {answer.status}"
    foreign: tuple[dict[str, Any], ...] = (
        {"site": "cross-site"},
        {"site": "same-site"},
        {"site": "cross-site", "origin": ELSEWHERE},
        {"site": None, "origin": ELSEWHERE},
        {"site": None, "origin": "null"},
        {"site": None, "origin": f"{ORIGIN}.evil.example"},
    )
    for how in foreign:
        for target in ("/logout", "/logout?everywhere=1"):
            answer = browser.post(target, **how)
            expect(f"{target} from {how}", (answer.status, answer.cookies), (403, []))
    expect("who is still there", browser.get("/me").json()["user"], "alice")
    expect("a logout of our own", browser.post("/logout").status, 303)
    expect("who is there then", browser.get("/me").status, NOBODY)


@row("TRM-08")
def a_logout_can_have_the_browser_forget(site: Site) -> None:
    """Where it is set, a logout and nothing else says Clear-Site-Data, in quoted words that the standard knows."""
    shop = site.with_settings(clear_site_data=["cache", "storage"])
    browser = shop.browser()
    answers = {"a login": browser.login(), "a page": browser.get("/me"), "a proof": browser.post("/reauth")}
    for what, answer in answers.items():
        expect(f"what {what} has the browser clear", answer.all("clear-site-data"), [])
    answer = browser.post("/logout")
    expect("what the logout has the browser clear", answer.header("clear-site-data"), '"cache", "storage"')
    expect("what is left in the jar", browser.jar, {})
    foreign = shop.logged_in().post("/logout", site="cross-site")
    expect("what another site's logout clears", (foreign.status, foreign.all("clear-site-data")), (403, []))
    whole = site.with_settings(clear_site_data=["cookies"]).logged_in().post("/logout")
    expect("cookies, where they are named", whole.header("clear-site-data"), '"cookies"')
    for wrong in ("*", "everything"):
        assert "clear_site_data" in refused(clear_site_data=[wrong]), f"{wrong!r} is refused without saying where"


@row("TRM-11")
def nothing_under_way_revives_a_session(site: Site) -> None:
    """Requests that loaded it before its end and write, save, renew or prove after it: no record, no token, nothing."""
    ways = ("GET /data?write=k", "POST /save", "POST /data?do=renew", "POST /reauth", "GET /data?do=login")
    for number, way in enumerate(ways):
        for end in ("logout", "operator"):
            browser = site.logged_in()
            saved, slow = token_of(browser), f"{number} {end}"
            method, target = way.split()
            gate = site.control.gate(slow)
            flight = browser.start(method, f"{target}{'&' if '?' in target else '?'}hold={slow}")
            gate.wait_until_reached(1)
            if end == "logout":
                browser.twin().post("/logout")
            else:
                site.control.registry.revoke_all("alice")
            gate.open()
            flight.land()
            what = f"{way} that ends after the {end}"
            expect(f"the sessions that live after {what}", site.records(), [])
            expect(f"who the saved token is after {what}", site.user_of(saved), None)
            expect(f"who is in the browser after {what}", browser.get("/me").status, NOBODY)
            expect(f"what is stored by {what}", {one.data for one in site.records(live=False)}, {b""})


@row("TRM-13")
def an_ended_sessions_token_is_recognised(site: Site) -> None:
    """It is told as critical, with the session it was and why that ended; when the tombstone is gone, as unknown."""
    browser = site.logged_in()
    token = token_of(browser)
    browser.post("/logout")
    site.clock.wind(61)
    expect("who the token is", site.user_of(token, peer="198.51.100.66"), None)
    (event,) = site.events("session_use_after_expire")
    expect("whose it says it was", (event.handle, event.subject), (token.split(".")[1], "alice"))
    expect("how loudly it is told", facts.severity(event), "critical")
    expect("why it had ended", event.detail["because"], "logout")
    assert event.client is not None, "the event does not say who showed it"
    expect("who showed it", event.client.address, "198.51.100.66")
    expect("how often it was unknown", site.noise("session_unknown_token"), 0)
    site.clock.wind(TOMBSTONE + DAY)
    site.control.registry.purge()
    expect("what is left of it in the store", site.records(live=False), [])
    expect("who the token is then", site.user_of(token), None)
    expect("how often it was unknown then", site.noise("session_unknown_token"), 1)
    expect("how often it was told", len(site.events("session_use_after_expire")), 1)


class _Ends(Policy):
    """Ends what the application says, for a reason of its own."""

    def judge(self, record: Any, signals: Any, now: float) -> Verdict:
        """End whoever is called eve."""
        return Verdict(Action.END, "policy" if record.subject == "eve" else "context") if record.level else Verdict()


@row("TRM-14")
def every_end_has_its_reason(site: Site) -> None:
    """Each way to end a session leaves its own reason with the session, and an event with the same one."""
    for because, end in _ENDS.items():
        shop = site.with_settings(**_SETTINGS.get(because, {}))
        browser = shop.browser()
        browser.login("eve" if because == "policy" else "alice")
        handle = shop.records()[-1].handle
        end(shop, browser)
        found = [one.ended_because for one in shop.records(live=False) if one.handle == handle]
        expect("why a session is over", found, [because])
        told = [_said(event) for event in shop.events()]
        assert because in told, f"no event says {because!r}: {told}"
    for because, path in (("sso_logout", LOGOUT), ("caep", None)):
        with Outlet(site) as outlet:
            browser = outlet.logged_in("ann", because)
            site.clock.wind(5)
            subject = {"format": "iss_sub", "iss": "https://op.example", "sub": because}
            if path:
                outlet.logout(logout_token(site.clock(), sub=because))
            else:
                outlet.event(event_token(site.clock(), subject))
            expect("why a session is over", _why(browser), because)


def _said(event: Event) -> object:
    """Return the reason that an event of an end gives, in its name or as a detail."""
    by_name = {"session_logout": "logout", "session_token_reuse": "theft"}
    return by_name.get(event.name) or event.detail.get("reason") or event.detail.get("because")


def _wound(by: float) -> Callable[[Site, Browser], Any]:
    def wait(site: Site, browser: Browser) -> None:
        site.clock.wind(by)
        browser.get("/me")

    return wait


def _to_the_end(site: Site, browser: Browser) -> None:
    end = site.clock() + ABSOLUTE
    while site.clock() < end:
        site.clock.wind(IDLE / 2)
        browser.get("/me")


def _stolen(site: Site, browser: Browser) -> None:
    thief = browser.twin()
    site.clock.wind(RENEW + 1)
    browser.get("/me")
    browser.get("/me")
    site.clock.wind(LATE + 1)
    thief.get("/me")


def _everybodys(site: Site, browser: Browser) -> None:
    site.clock.wind(2)
    site.control.registry.revoke_before(site.clock())
    site.clock.wind(2)
    browser.get("/me")


_SETTINGS: dict[str, dict[str, Any]] = {
    "limit": {"limit": 1},
    "policy": {"policies": [_Ends()]},
    "unbound": {"binding": "required"},
}
_SETTINGS["context"] = _SETTINGS["policy"]

_ENDS: dict[str, Callable[[Site, Browser], Any]] = {
    "logout": lambda _, browser: browser.post("/logout"),
    "idle": _wound(IDLE + 1),
    "absolute": _to_the_end,
    "operator": lambda site, _: site.control.registry.revoke_all("alice"),
    "owner": lambda site, _: site.logged_in().post("/account/sessions/revoke-others"),
    "factor_change": lambda site, _: site.logged_in().post("/account/password"),
    "account_disabled": lambda site, _: site.control.registry.revoke_all("alice", because="account_disabled"),
    "theft": _stolen,
    "limit": lambda site, _: site.logged_in(),
    "superseded": lambda _, browser: browser.login("bob"),
    "policy": _wound(0),
    "context": _wound(0),
    "unbound": _wound(301),
    "epoch": _everybodys,
    "key_rotation": lambda site, _: site.control.registry.revoke_sealed(site.clock() - 60),
}
"""The ways to end a session, by the reason that each must leave."""
