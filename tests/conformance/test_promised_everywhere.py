"""Four promises that end in a framework's own response, kept by each adapter: goodbye, sockets, why, and the way back.

What of them the core decides is tested in tests/drills (test_theft.py, test_sockets.py, test_step_up.py). Here it goes
through each framework's server or handler: headers that it merges, redirects that it writes, handshakes that it
answers.
"""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from coatcheck import Floods
from coatcheck.testing.browser import Browser
from coatcheck.testing.conformance import Site
from coatcheck.testing.drivers import until

from .adapters import EVERY, adapter, framework_of

HTML = {"accept": "text/html,*/*;q=0.8"}
MONEY = {"to": "bob", "amount": "10"}
SETTINGS: dict[str, Any] = {
    "clear_site_data": ["cache", "cookies", "storage"],
    "floods": Floods(sockets=2),
    "login_url": "/login?plain=1",
}
SOCKETS = tuple(name for name in EVERY if "socket" in adapter(name).can)


@pytest.fixture(scope="module", params=EVERY)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Return the site of this adapter: one for all tests, which come with users of their own."""
    with Site.opened(adapter(request.param), **SETTINGS) as site:
        yield site


@pytest.fixture(params=EVERY)
def adapter_site(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """Return a maker of sites of this adapter, with settings of the test's own."""
    with Site.opened(adapter(request.param)) as parent:
        yield parent.with_settings


def test_every_framework_is_here() -> None:
    assert len({framework_of(name) for name in EVERY}) == 12
    assert set(EVERY) - set(SOCKETS) == {
        *("WSGI", "Flask", "Flask, awaited", "Pyramid", "Django", "Django, sync", "Sanic over ASGI"),
    }


# -- Clear-Site-Data (TRM-08, L4) --------------------------------------------------------------------------------------


def test_a_logout_has_the_browser_forget_what_was_chosen(site: Site) -> None:
    """And only a logout; where a session begins with it, its cookie stays; a handler has its own way, once."""
    browser = site.logged_in()
    for page in ("/me", "/data?write=k", "/login?do=logout", "/private"):
        answer = browser.post(page, {"user": "alice"})
        assert (page, answer.all("clear-site-data")) == (page, [])
    goodbye = browser.post("/data?do=logout-flash")
    assert goodbye.all("clear-site-data") == ['"cache", "storage"']
    assert browser.get("/data").json() == {"flashes": ["saved"]}
    browser.login()
    answer = browser.post("/logout")
    assert (answer.status, answer.all("clear-site-data")) == (303, ['"cache", "cookies", "storage"'])
    assert browser.jar == {}
    own = site.logged_in().post("/logout?header=Clear-Site-Data:%22storage%22")
    assert own.all("clear-site-data") == ['"storage"']
    assert site.logged_in().post("/logout?status=500").all("clear-site-data") == ['"cache", "cookies", "storage"']
    assert site.browser().post("/logout").all("clear-site-data") == [], "nobody left"


def test_what_a_login_tells_a_browsers_device_is_told_once(adapter_site: Callable[..., Site]) -> None:
    """Two offers of device binding would be two registrations (DBSC section 8.4); and so for each header of ours."""
    site = adapter_site(binding="opportunistic")
    browser = site.browser()
    answer = browser.login()
    names = [name.lower() for name, _ in answer.headers]
    ours = ("secure-session-registration", "set-cookie", "cache-control")
    assert {name: names.count(name) for name in ours} == dict.fromkeys(ours, 1)


# -- why it ended (CCH-04) ---------------------------------------------------------------------------------------------

ENDS: dict[str, Callable[[Site, Browser], Any]] = {
    "idle": lambda site, browser: site.clock.wind(3601),
    "role_change": lambda site, browser: site.control.registry.revoke_all("walter", because="role_change"),
    "theft": lambda site, browser: site.control.registry.revoke((browser.token or "").split(".")[1], "theft"),
}


@pytest.mark.parametrize("why", ENDS)
def test_the_login_page_hears_why_the_session_ended(site: Site, why: str) -> None:
    """By the redirect and by the answer to a program, without any cookie; who logs in again is told nothing more."""
    browser = site.logged_in("walter")
    ENDS[why](site, browser)
    answer = browser.get("/private?a=1&b=2", headers=HTML)
    assert (answer.status, answer.cookies) == (303, [])
    assert answer.header("location") == f"/login?plain=1&next={quote('/private?a=1&b=2', safe='/')}&why={why}"
    posted = browser.post("/private", headers=HTML)
    assert posted.header("location") == f"/login?plain=1&why={why}"
    told = browser.get("/private")
    assert (told.status, told.json()) == (401, {"error": "login_required", "why": why})
    assert browser.get("/me").json()["why"] == why
    browser.login("walter")
    assert browser.get("/me").json()["user"] == "walter"
    browser.post("/logout")
    assert browser.get("/private", headers=HTML).header("location") == "/login?plain=1&next=/private"


# -- what was interrupted (M5, D60) ------------------------------------------------------------------------------------


def test_what_only_looks_goes_on_by_itself_after_the_proof(site: Site) -> None:
    """Once, and only to a path of this site."""
    browser = site.logged_in("gwen")
    target = "/transfer?to=bob&amount=10"
    asked = browser.get(target, headers=HTML)
    assert (asked.status, asked.header("location")) == (303, f"/login?plain=1&next={quote(target, safe='/')}")
    site.clock.wind(1)
    browser.login("gwen")
    assert browser.get(f"/resume?next={quote(target, safe='')}").json() == {"go": target}
    answer = browser.get(target)
    assert answer.status == 200
    for wanted in (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
    ):
        assert browser.get(f"/resume?next={quote(wanted, safe='')}").json() == {"go": "/home"}
    assert browser.get(f"/resume?next={quote('/orders?page=2', safe='')}").json() == {"go": "/orders?page=2"}
    assert browser.get(target).status == 401, "a proof counts once"


def test_what_acts_is_shown_again_and_done_once(site: Site) -> None:
    """For its own subject, its own fields, or its own body; and it is the login that it moves through."""
    browser, done = site.logged_in("petra"), site.control.probe.done
    before = len(done)
    sent = browser.post("/transfer", MONEY, headers=HTML)
    assert (sent.status, sent.header("location"), len(done)) == (303, "/login?plain=1", before)
    assert browser.post("/transfer", MONEY).json()["error"] == "reauth_required"
    site.clock.wind(1)
    browser.login("petra")
    again = browser.get("/resume").json()["again"]
    assert again == {"method": "POST", "target": "/transfer", "shown": MONEY}
    assert browser.post("/transfer", {**MONEY, "to": "mallory"}).status == 401
    site.clock.wind(1)
    browser.post("/reauth")
    assert browser.post("/transfer", MONEY).status == 401, "the last that was asked for counts"
    site.clock.wind(1)
    browser.post("/reauth")
    assert browser.post("/transfer", MONEY, site="cross-site").status == 403
    assert browser.post("/transfer", MONEY).json() == {"moved": "10"}
    assert browser.get("/resume").json() == {"go": "/home"}
    assert browser.post("/transfer", MONEY).status == 401
    assert done[before:] == ["petra: 10 to bob"]
    whole = "/transfer?whole=1"
    assert browser.post(whole, json=MONEY).status == 401
    site.clock.wind(1)
    browser.post("/reauth")
    assert browser.post(whole, json={"amount": "10", "to": "bob"}).status == 401, "the same in another order"
    site.clock.wind(1)
    browser.post("/reauth")
    assert browser.post(whole, json={"amount": "10", "to": "bob"}).status == 200


# -- sockets of a session (D63, M8) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOCKETS)
def test_a_session_has_so_many_sockets_and_no_more(name: str) -> None:
    """A further handshake is refused before its handler runs, until one of them is closed; nobody else's is."""
    with Site.opened(adapter(name), **SETTINGS) as site:
        browser, other = site.logged_in("sue"), site.logged_in("bob")
        handle = (browser.token or "").split(".")[1]
        number = site.control.manager.sockets_of
        assert number is not None

        def connected(who: Browser) -> Any:
            socket = who.connect("/ws")
            assert socket.denial is None, socket.denial.text
            socket.send("hello")
            socket.receive()
            return socket

        first, second = connected(browser), connected(browser)
        until(lambda: number(handle) == 2)
        late = len(site.control.probe.late)
        denial = browser.connect("/ws").denial
        assert denial is not None
        assert (denial.status, denial.cookies, denial.header("retry-after")) == (429, [], "5")
        assert len(site.control.probe.late) == late
        stranger = connected(other)
        second.close()
        until(lambda: number(handle) == 1)
        third = connected(browser)
        site.control.registry.revoke_all("sue")
        assert [first.receive(), third.receive()] == [4401, 4401]
        until(lambda: number(handle) == 0)
        stranger.send("still")
        assert stranger.receive() == "bob: still"
        stranger.close()
        assert site.noise("session_sockets_refused") == 1


@pytest.mark.parametrize("name", [name for name in SOCKETS if name != "Sanic"])
def test_a_socket_whose_handshake_cannot_be_stored_is_not_opened(name: str) -> None:
    """Sanic opens a socket before its handler runs: there it is closed at once (tests/adapters/test_sanic.py)."""
    with Site.opened(adapter(name)) as site:
        browser = site.logged_in()
        site.trouble.fail("commit")
        denial = browser.connect("/ws?write=v").denial
        assert denial is not None
        assert (denial.status, denial.cookies) == (503, [])
        site.trouble.fail(None)
        assert browser.get("/data").json() == {}
