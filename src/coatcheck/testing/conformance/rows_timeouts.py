"""Rows 1.D: how long a session lasts, what moves its end and what never does, and when somebody must prove again."""

from __future__ import annotations

from msgspec.structs import replace

from ...core.errors import ConfigError
from ...core.model import Level, Update
from ...core.policies import PRESETS, beyond, timeouts
from ..browser import Browser, Received
from .devices import Device
from .registry import row
from .rows_tokens import NOBODY, token_of
from .site import Site
from .verdicts import expect

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
IDLE, ABSOLUTE = HOUR, DAY
REMEMBERED = 30 * DAY
MOST_AGE = 34_560_000


def _why(browser: Browser) -> str | None:
    """Return why nobody is there; fail if somebody is."""
    answer = browser.get("/me")
    expect("who is there", answer.status, NOBODY)
    why: str | None = answer.json()["why"]
    return why


def _attributes(line: str) -> dict[str, str]:
    parts = (part.strip().partition("=") for part in line.split(";")[1:])
    return {name.lower(): value for name, _, value in parts}


def _ends_when_idle(site: Site, idle: float) -> None:
    browser = site.logged_in()
    site.clock.wind(idle - 1)
    expect("a request a second before the idle timeout", browser.get("/me").status, 200)
    site.clock.wind(idle + 1)
    before = browser.twin()
    expect("why it is over a second after it", _why(browser), "idle")
    (record,) = site.records(live=False)
    expect("what the store says of it", record.ended_because, "idle")
    told = [event.detail["reason"] for event in site.events("session_expired")]
    expect("the reasons that were told", told, ["idle"])
    expect("what the token does afterwards", before.get("/me").status, NOBODY)


@row("TMO-01")
def silence_ends_a_session(site: Site) -> None:
    """A second before the idle timeout it counts, a second after it is over: in the store, with its reason."""
    _ends_when_idle(site, IDLE)


@row("TMO-02")
def nothing_outlasts_the_absolute_timeout(site: Site) -> None:
    """Neither constant use nor renewals of the token move it: then the session is over, because of it."""
    browser = site.logged_in()
    began = site.clock()
    while site.clock() + IDLE / 2 < began + ABSOLUTE:
        site.clock.wind(IDLE / 2)
        expect("a request within the day", browser.get("/me").status, 200)
    browser.post("/data?do=renew")
    expect("who it is after a change of its handle", browser.get("/me").status, 200)
    assert len(site.events("session_renewed")) > 20, "the token was not renewed meanwhile"
    site.clock.wind(began + ABSOLUTE + 1 - site.clock())
    expect("why it is over after the day", _why(browser), "absolute")
    (last,) = site.events("session_expired")
    expect("what was told", last.detail["reason"], "absolute")


@row("TMO-03")
def a_client_cannot_prolong_a_session(site: Site) -> None:
    """Cookies that were kept, restored or given another Max-Age open nothing once the server's clocks have run out."""
    for remember in (False, True):
        browser = site.logged_in(remember=remember)
        kept = [token_of(browser)]
        for _ in range(4):
            site.clock.wind(16 * MINUTE)
            browser.get("/me")
            kept.append(token_of(browser))
        assert len(set(kept)) > 1, "the token was not renewed meanwhile"
        site.clock.wind(REMEMBERED if remember else IDLE + 1)
        for token in kept:
            for cookie in (token, f"{token}; Max-Age=34560000; Expires=Fri, 31 Dec 2199 23:59:59 GMT"):
                answer = site.ask("GET", "/me", cookies=f"{site.cookie}={cookie}")
                expect("what a kept cookie opens", (answer.status, answer.cookies), (NOBODY, []))


@row("TMO-04")
def activity_moves_one_end_and_a_proof_both(site: Site) -> None:
    """Requests leave the absolute end where it is; a re-authentication moves both, a refused one neither."""
    browser = site.logged_in()

    def ends() -> tuple[float, float]:
        shown = browser.get("/session/status").json()
        return shown["ends_at"], shown["idle_ends_at"]

    began = ends()
    site.clock.wind(30 * MINUTE)
    browser.get("/me")
    active = ends()
    expect("how far a request moved the ends", (active[0] - began[0], active[1] - began[1]), (0.0, 30 * MINUTE))
    site.clock.wind(10 * MINUTE)
    expect("a request that asks for a fresh proof", browser.get("/private?within=60").status, NOBODY)
    refused = ends()
    expect("how far a refused one moved the absolute end", refused[0] - began[0], 0.0)
    browser.post("/reauth")
    proved = ends()
    moved = (proved[0] - began[0], proved[1] - began[1])
    expect("how far a re-authentication moved the ends", moved, (40 * MINUTE, 40 * MINUTE))


@row("TMO-05")
def presets_hold_what_nist_says(_site: Site) -> None:
    """AAL1 30 days; AAL2 a day and an hour; AAL3 12 hours, which nobody may exceed, and 15 minutes."""
    figures = {name: (PRESETS[name].absolute, PRESETS[name].idle) for name in ("nist-aal1", "nist-aal2", "nist-aal3")}
    wanted = {
        "nist-aal1": (30 * DAY, None),
        "nist-aal2": (DAY, HOUR),
        "nist-aal3": (12 * HOUR, 15 * MINUTE),
    }
    expect("the presets", figures, wanted)
    try:
        timeouts("nist-aal3", absolute=12 * HOUR + 1)
    except ConfigError:
        pass
    else:
        message = "an overall timeout above AAL3's was taken, which NIST demands"
        raise AssertionError(message)
    for name, change in (("nist-aal2", {"idle": 2 * HOUR}), ("nist-aal2", {"absolute": 2 * DAY})):
        found = beyond(timeouts(name, **{**change, "remember": 30 * DAY}), name)
        expect(f"what is told of {name} with {change}", len(found), 1)
    expect("what is told of a preset as it is", beyond(timeouts("nist-aal2"), "nist-aal2"), [])


@row("TMO-06")
def an_idle_login_is_resumed_by_one_factor(site: Site) -> None:
    """Past the idle timeout the cookie and a password give a new token; past the absolute one, only a login does."""
    # a remembered login whose long limit is the absolute one: what is left of it after the idle timeout can prove again
    shop = site.with_settings(timeouts=timeouts("nist-aal2", remember=DAY, remember_idle=DAY))
    browser = shop.logged_in(remember=True, level=int(Level.AAL2))
    expect("what asks for two factors, at first", browser.post("/pay").status, 200)
    shop.clock.wind(HOUR + 1)
    answer = browser.get("/private?within=86400")
    expect("a page after the idle timeout", (answer.status, answer.json()["error"]), (NOBODY, "reauth_required"))
    before = token_of(browser)
    expect("a password with the cookie", browser.post("/reauth").status, 200)
    assert token_of(browser) != before, "the token is the same as before"
    expect("the page then", browser.get("/private?within=86400").status, 200)
    expect("who the former token is", shop.user_of(before), None)
    other = shop.logged_in(remember=True)
    shop.clock.wind(DAY + 1)
    answer = other.post("/reauth")
    expect("the same after the absolute timeout", (answer.status, answer.json()["error"]), (NOBODY, "login_required"))


@row("TMO-07")
def no_session_is_surer_than_its_login(site: Site) -> None:
    """The level is the one of the login that it stands on, in record and event alike; only another login changes it."""
    for level in (Level.AAL1, Level.AAL2, Level.AAL3):
        shop = site.with_settings()
        browser = shop.logged_in(level=int(level))
        for _ in range(3):
            shop.clock.wind(16 * MINUTE)
            browser.get("/data?write=level&value=30")
            browser.post("/data?do=renew")
        expect("the level after renewals", browser.get("/me").json()["level"], level)
        (event,) = shop.events("authn_login_success")
        expect("the level that was told of its login", event.detail["level"], level)
        (record,) = shop.records()
        expect("the level that is stored", record.level, level)
        for higher in range(int(level) + 1, 41, 5):
            expect(f"what asks for {higher}", browser.get(f"/private?level={higher}").status, NOBODY)
    browser = site.logged_in(level=int(Level.AAL3))
    browser.post("/reauth")
    expect("the level after a login of a lower one", browser.get("/me").json()["level"], Level.AAL2)


@row("TMO-08")
def a_cookie_dies_with_its_browser(site: Site) -> None:
    """Neither Max-Age nor Expires, at login, renewal and step-up, unless the user asked to be remembered."""
    browser = site.logged_in()
    anonymous = site.browser()
    lines = [*browser.post("/reauth").cookies, *anonymous.get("/data?write=k").cookies]
    browser.get("/me")
    site.clock.wind(16 * MINUTE)
    lines += [*browser.get("/me").cookies, *anonymous.login().cookies]
    expect("how many cookies there were", len(lines), 4)
    for line in lines:
        lasting = {"max-age", "expires"} & _attributes(line).keys()
        expect("what would have the cookie outlive the browser", lasting, set())
    (line,) = anonymous.login(remember=True).cookies
    assert "max-age" in _attributes(line), "a remembered login dies with its browser"


@row("TMO-09")
def a_cookie_that_stays_says_how_long(site: Site) -> None:
    """Max-Age is what is left of the session, at every emission, and never above 400 days."""
    browser = site.browser()
    began = site.clock()
    for days in (0, 1, 6, 10, 10):
        (line,) = (_renewed(site, browser, days) if days else browser.login(remember=True)).cookies
        age, left = int(_attributes(line)["max-age"]), began + REMEMBERED - site.clock()
        assert abs(age - left) <= 1, f"Max-Age is {age}, and {left:g} seconds are left"
    longest = site.with_settings(timeouts=timeouts(absolute=30 * DAY, remember=MOST_AGE))
    (line,) = longest.browser().login(remember=True).cookies
    expect("the longest Max-Age", int(_attributes(line)["max-age"]), MOST_AGE)
    for absolute, remember in ((DAY, MOST_AGE + 1), (MOST_AGE + 1, None)):
        try:
            timeouts(absolute=absolute, remember=remember)
        except ConfigError:
            continue
        message = f"{absolute:g} and {remember} seconds were taken, which browsers would cut"
        raise AssertionError(message)


def _renewed(site: Site, browser: Browser, days: float) -> Received:
    """Return the answer that brings the next token: the one in the jar must have been seen before."""
    browser.get("/me")
    site.clock.wind(days * DAY)
    return browser.get("/me")


@row("TMO-10")
def asking_for_the_time_left_is_no_activity(site: Site) -> None:
    """A page can show both ends and when to prove again; whoever only asks that is logged out all the same."""
    shop = site.with_settings(passive=["/session/status"])
    browser = shop.logged_in()
    shown = browser.get("/session/status").json()
    left = (shown["ends_at"] - shop.clock(), shown["idle_ends_at"] - shop.clock())
    expect("what is left", left, (ABSOLUTE, IDLE))
    for _ in range(24):
        shop.clock.wind(IDLE / 12)
        browser.get("/session/status")
    expect("why it is over", _why(browser), "idle")
    (event,) = shop.events("session_expired")
    assert event.at <= shop.clock() - IDLE + IDLE / 12 + 1, "the questions prolonged the session"


@row("TMO-11")
def card_payments_ask_after_fifteen_minutes(site: Site) -> None:
    """The preset "pci" ends a session after 15 idle minutes, and takes nothing longer."""
    idle = PRESETS["pci"].idle
    assert idle is not None, "the preset has no idle timeout"
    assert idle <= 15 * MINUTE, f"the preset allows {idle:g} idle seconds"
    _ends_when_idle(site.with_settings(timeouts="pci"), idle)
    try:
        timeouts("pci", idle=idle + 1)
    except ConfigError:
        return
    message = "an idle timeout above the 15 minutes of PCI DSS 8.2.8 was taken"
    raise AssertionError(message)


@row("TMO-12")
def what_no_person_does_is_no_activity(site: Site) -> None:
    """Paths that are named as passive and refreshes of a device move nothing."""
    shop = site.with_settings(passive=["/data"], binding="opportunistic")
    device = Device(shop).bind()
    (record,) = shop.records()
    for _ in range(11):
        shop.clock.wind(5 * MINUTE)
        expect("a refresh", device.refresh().status, 200)
        expect("a passive page", device.browser.get("/data").status, 200)
    (later,) = shop.records()
    expect("when it was last seen", later.seen_at, record.seen_at)
    shop.clock.wind(5 * MINUTE + 1)
    expect("why it is over", _why(device.browser), "idle")


@row("TMO-13")
def a_clock_that_goes_wrong_prolongs_nothing(site: Site) -> None:
    """Set back an hour, it lets nobody in and moves no end; a record from the future is refused, and told."""
    browser = site.logged_in()
    (before,) = site.records()
    site.clock.wind(-HOUR)
    expect("who it is when the clock went back", browser.get("/me").status, NOBODY)
    told = site.events("session_from_the_future")
    expect("whose record is from the future", [event.subject for event in told], ["alice"])
    site.clock.wind(HOUR)
    expect("who it is when the clock is right again", browser.get("/me").json()["user"], "alice")
    (after,) = site.records()
    ends = [(record.expires_at, record.idle_for) for record in (before, after)]
    expect("its ends", ends[1], ends[0])
    (record,) = site.records()
    future = replace(record, handed_at=site.clock() + HOUR, created_at=site.clock() + HOUR, version=record.version + 1)
    site.control.plain.commit(b"from the future!", (Update(record=future, was=record.version),), durable=True)
    expect("who a record from the future is", browser.get("/me").status, NOBODY)


@row("TMO-14")
def being_remembered_ends(site: Site) -> None:
    """With a visit and a new token every week, a remembered session is over after its 30 days."""
    browser = site.logged_in(remember=True)
    tokens = {token_of(browser)}
    for _ in range(4):
        expect("a weekly visit", _renewed(site, browser, 7).status, 200)
        tokens.add(token_of(browser))
    assert len(tokens) > 3, "the token was not renewed every week"
    site.clock.wind(2 * DAY + 1)
    expect("why it is over", _why(browser), "absolute")
    for token in tokens:
        expect("who one of its tokens is", site.user_of(token), None)


@row("TMO-15")
def being_remembered_is_less_than_a_login(site: Site) -> None:
    """Past the clocks of the login it is known who it is, and delicate pages ask for a proof."""
    browser = site.logged_in(remember=True)
    expect("a delicate change just after the login", browser.post("/account/email", form={"email": "a"}).status, 200)
    site.clock.wind(IDLE + 1)
    answer = browser.get("/me")
    expect("who it is later", (answer.json()["user"], answer.json()["level"]), ("alice", Level.REMEMBERED))
    for target in ("/account/email", "/account/password", "/pay"):
        answer = browser.post(target, form={"email": "b"})
        expect(f"{target} then", (answer.status, answer.json()["error"]), (NOBODY, "reauth_required"))
    expect("what is kept of the login's data", browser.get("/data").json(), {})
    browser.post("/reauth")
    expect("the change after a proof", browser.post("/account/email", form={"email": "c"}).status, 200)


@row("TMO-16")
def a_device_does_not_outlast_its_session(site: Site) -> None:
    """A good proof after the idle or the absolute end renews nothing: the binding is over, and no cookie comes."""
    for wind, active in ((IDLE + 1, False), (ABSOLUTE + 1, True)):
        shop = site.with_settings(binding="opportunistic")
        device = Device(shop).bind()
        expect("a refresh in time", device.refresh().status, 200)
        end = shop.clock() + wind
        while active and shop.clock() + IDLE / 2 < end:
            shop.clock.wind(IDLE / 2)
            device.refresh()
            device.browser.get("/me")
        shop.clock.wind(end - shop.clock())
        answer = device.refresh()
        over = answer.status == 200 and answer.json().get("continue") is False
        assert over or 400 <= answer.status < 500, f"a proof after the end was answered with {answer.status}"
        expect("the cookies that came", answer.cookies, [])
        expect("who it is", device.browser.get("/me").status, NOBODY)
