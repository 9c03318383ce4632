"""Rows 1.E, the other half: what ends together with a session: its forms, grants, devices, sockets and pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..browser import Browser
from .devices import Device
from .registry import row
from .rows_timeouts import IDLE
from .rows_tokens import NOBODY, RENEW, token_of
from .site import Site
from .verdicts import Partly, expect, partly

ENDED = 4401
"""The code of a websocket's close that means: the session is over."""

MONEY = {"to": "bob", "amount": "10"}


def _logged_out(_: Site, browser: Browser) -> None:
    browser.twin().post("/logout")


def _revoked(site: Site, browser: Browser) -> None:
    site.control.registry.revoke(token_of(browser).split(".")[1])


def _idle(site: Site, _: Browser) -> None:
    site.clock.wind(IDLE + 1)


ENDS: dict[str, Callable[[Site, Browser], Any]] = {"a logout": _logged_out, "an operator": _revoked}


@row("TRM-09")
def going_back_shows_nothing_where_pages_say_no_store(site: Site) -> Partly:
    """A page's own no-store stays as it is, the answers of login, logout and refusals have it, and nothing answers."""
    browser = site.browser()
    for what, answer in (
        ("a login", browser.login()),
        ("a page that says no-store", browser.get("/private?cache=no-store")),
        ("the logout", browser.post("/logout")),
        ("the same page afterwards", browser.get("/private?cache=no-store")),
    ):
        assert "no-store" in (answer.header("cache-control") or ""), f"{what} may be kept by a browser's cache"
    for page in ("/private", "/private?cache=private,max-age=60", "/account/sessions"):
        answer = browser.get(page)
        expect(f"{page} after the logout", answer.status, NOBODY)
        assert "no-store" in (answer.header("cache-control") or ""), f"the refusal of {page} may be kept"
        assert "alice" not in answer.text, f"the refusal of {page} tells who was there"
    return partly(
        "A private page's no-store is passed on, login, logout and every refusal say it themselves, and a page asked "
        "again is refused. Yours: have your private pages answer with no-store; no browser was sent back here."
    )


@row("TRM-10")
def what_is_open_ends_with_its_session(site: Site) -> None:
    """A socket is closed with 4401 and an event stream ends: at a logout elsewhere, an operator's act, and in time."""
    site.needs("socket")
    site.needs("events")
    for what, end in {**ENDS, "the idle timeout": _idle}.items():
        browser, stranger = site.logged_in(), site.logged_in("bob")
        socket, stream = browser.connect("/ws"), browser.start("GET", "/sse")
        other = stranger.connect("/ws")
        expect("the first event", stream.pending.chunk(), b"data: alice\n\n")
        socket.send("hello")
        expect("the socket's answer", socket.receive(), "alice: hello")
        end(site, browser)
        expect(f"how {what} closes the socket", socket.receive(), ENDED)
        expect(f"what {what} leaves of the stream", stream.pending.chunk(), None)
        if what in ENDS:
            other.send("hello")
            expect("somebody else's socket", other.receive(), "bob: hello")
            other.close()
        else:
            expect("how the timeout closes everybody's", other.receive(), ENDED)


@row("TRM-12")
def nothing_derived_outlives_its_session(site: Site) -> None:
    """Form tokens, grants, the way back after a login, renewed and remembered tokens, a device's binding: all void."""
    for what, end in ENDS.items():
        _forms(site, what, end)
        _grants(site, what, end)
        _tokens(site, what, end)
        shop = site.with_settings(binding="opportunistic")
        device = Device(shop).bind()
        expect("a refresh before the end", device.refresh().status, 200)
        end(shop, device.browser)
        answer = device.refresh()
        over = answer.status == 200 and answer.json().get("continue") is False
        assert over or 400 <= answer.status < 500, f"a proof after {what} was answered with {answer.status}"
        expect(f"the cookies that a proof brings after {what}", answer.cookies, [])
        expect(f"who it is after {what} and a proof", device.browser.get("/me").status, NOBODY)


def _forms(site: Site, what: str, end: Callable[[Site, Browser], Any]) -> None:
    browser = site.logged_in()
    token = browser.get("/form").text
    expect("a form before the end", browser.post("/echo?token=required", {"csrf_token": token}).status, 200)
    end(site, browser)
    old = browser.twin()
    browser.login()
    for where, jar in (("its own cookie", old), ("the next login", browser), ("another's", site.logged_in("bob"))):
        answer = jar.post("/echo?token=required", {"csrf_token": token})
        expect(f"a form from before {what} with {where}", answer.status, 403)


def _grants(site: Site, what: str, end: Callable[[Site, Browser], Any]) -> None:
    browser = site.logged_in()
    site.clock.wind(1)
    expect("a transfer without a proof", browser.post("/transfer", MONEY).status, NOBODY)
    site.clock.wind(1)
    browser.post("/reauth")
    expect("the transfer with a proof", browser.post("/transfer", MONEY).status, 200)
    expect("the next one", browser.post("/transfer", MONEY).status, NOBODY)
    site.clock.wind(1)
    browser.post("/reauth")
    end(site, browser)
    done = len(site.control.probe.done)
    expect(f"a granted transfer after {what}", browser.post("/transfer", MONEY).status, NOBODY)
    site.clock.wind(1)
    browser.login()
    site.clock.wind(1)
    expect(f"what comes after the login that follows {what}", browser.get("/resume").json(), {"go": "/home"})
    expect(f"a granted transfer in the login after {what}", browser.post("/transfer", MONEY).status, NOBODY)
    expect("what was moved", len(site.control.probe.done), done)


def _tokens(site: Site, what: str, end: Callable[[Site, Browser], Any]) -> None:
    browser = site.logged_in(remember=True)
    kept = [token_of(browser)]
    site.clock.wind(RENEW + 1)
    browser.get("/me")
    kept.append(token_of(browser))
    assert kept[0] != kept[1], "the token was not renewed"
    end(site, browser)
    for token in kept:
        expect(f"who one of its tokens is after {what}", site.user_of(token), None)
    site.clock.wind(IDLE + 1)  # where a remembered login would go on
    for token in kept:
        expect(f"who it is later, after {what}", site.user_of(token), None)
