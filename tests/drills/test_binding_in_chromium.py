"""A real Chromium binds its session to its device: registers, refreshes, is held and released (DBSC; issue's row 2).

Software keys stand in for a TPM (flags: standards, section 4). The bound cookie lives 10 seconds here, not 600, and the
clock is the world's: what ages, ages in the browser too.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from coatcheck import DeviceBinding
from coatcheck.core.dbsc import is_bound
from coatcheck.testing.clock import Clock
from tests.support.chromium import ARGUMENTS

from .house import COOKIE, Ask
from .house import _asgi_all as asgi_all
from .test_chromium import EVIL, LOGIN, VICTIM, Certificate, Town, certificate, standing

__all__ = ["certificate"]

LIFETIME = 10.0
SHORT = DeviceBinding(lifetime=LIFETIME, why="a test that does not wait ten minutes")
FEATURES = "DeviceBoundSessions:RefreshQuota/false,EnableBoundSessionCredentialsSoftwareKeysForManualTesting"
REGISTER, REFRESH = "/coatcheck/device/register?", "/coatcheck/device/refresh?"


class WorldClock(Clock):
    """The time outside."""

    def __call__(self) -> float:
        return time.time()


@pytest.fixture
def town(certificate: Certificate) -> Iterator[Town]:
    """An ASGI application: what the browser sees is decided below the adapters (test_device_binding asks both)."""
    with standing("asgi", certificate, {VICTIM: {"binding": SHORT}}, WorldClock()) as town:
        yield town


@pytest.fixture
def context(chromium: str, certificate: Certificate, town: Town, tmp_path: Path) -> Iterator[BrowserContext]:
    ours = (
        "--host-resolver-rules=MAP *.test 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={certificate.pin}",
        f"--enable-features={FEATURES}",
    )
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path), executable_path=chromium, args=[*ARGUMENTS, *ours]
        )
        context.set_default_timeout(15_000)
        yield context
        context.close()


def until(true: Callable[[], Any], page: Page, seconds: float = 15.0) -> None:
    """Wait until something is true, the browser going on meanwhile."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        page.wait_for_timeout(50)


def asked(town: Town, target: str) -> int:
    return town.asked.count(VICTIM + target)


def bound_page(context: BrowserContext, town: Town) -> Page:
    page = context.new_page()
    page.goto(town.url(VICTIM))
    page.evaluate(LOGIN, "alice")
    until(lambda: asked(town, REGISTER), page)
    until(lambda: f"{COOKIE}-b" in jar(context, town), page)
    assert who(page) == "alice"
    (record,) = town.houses[VICTIM].control.records(live=True)
    assert is_bound(record.binding)
    return page


def who(page: Page) -> str | None:
    found: str | None = page.evaluate("fetch('/me').then(answer => answer.json()).then(found => found.user ?? null)")
    return found


def jar(context: BrowserContext, town: Town) -> dict[str, str]:
    return {one.get("name", ""): one.get("value", "") for one in context.cookies(town.url(VICTIM))}


def test_a_real_browser_is_bound_and_a_copy_of_its_jar_dies(context: BrowserContext, town: Town) -> None:
    """Registers after a redirected fetch() login; held and released; a copied jar ends with its bound cookie."""
    page = bound_page(context, town)
    copied = jar(context, town)
    assert by_copy(town, copied) == "alice", "a copy is good for as long as the bound cookie"
    page.wait_for_timeout(LIFETIME * 1000 + 500)
    assert f"{COOKIE}-b" not in jar(context, town), "the browser let go of it"
    before = asked(town, REFRESH)
    # ten requests at once are held, and released when one refresh has brought the cookie
    found = page.evaluate("Promise.all([...Array(10)].map(() => fetch('/me').then(a => a.json()).then(f => f.user)))")
    assert found == ["alice"] * 10
    assert 1 <= asked(town, REFRESH) - before <= 4
    assert by_copy(town, copied) is None
    assert by_copy(town, {COOKIE: copied[COOKIE]}) is None
    assert who(page) == "alice", "the theft costs the owner nothing"
    kinds = {event.detail["kind"] for event in town.houses[VICTIM].control.events("dbsc_binding_missing")}
    assert {"missing"} < kinds <= {"aged", "foreign", "missing"}, "foreign: two refreshes later it is forgotten"
    page.evaluate("fetch('/logout', {method: 'POST'})")
    page.wait_for_timeout(LIFETIME * 1000)
    assert who(page) is None
    assert not jar(context, town), "no refresh brought a cookie back after the logout"


def test_a_link_from_another_site_finds_the_visitor_logged_in(context: BrowserContext, town: Town) -> None:
    """DBS-10, E5, F1: browsers do not refresh for another site's link; a page of ours bounces, once."""
    page = bound_page(context, town)
    town.pages["/link"] = f"<a href='{town.url(VICTIM, '/me?from=afar')}'>come in</a>"
    page.goto(town.url(EVIL, "/link"))
    page.wait_for_timeout(LIFETIME * 1000)
    page.click("a")
    # there, to the bounce page, by it to the same page, and there again without the mark
    until(lambda: asked(town, "/me?from=afar") == 2, page)
    page.get_by_text("alice").wait_for()
    assert page.url == town.url(VICTIM, "/me?from=afar")
    assert asked(town, "/me?from=afar&coat-bounced=1") == 1


def test_a_second_login_binds_anew(context: BrowserContext, town: Town) -> None:
    """F6, DBS-11: the old session's refresh sets no cookie over the new one's."""
    page = bound_page(context, town)
    registered = asked(town, REGISTER)
    page.evaluate(LOGIN, "bob")
    until(lambda: asked(town, REGISTER) > registered, page)
    for _ in range(3):
        page.wait_for_timeout(LIFETIME * 400)
        assert who(page) == "bob"


def by_copy(town: Town, cookies: dict[str, str]) -> str | None:
    """Return who the server says it is, to a client without the key."""
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    ask = Ask("GET", "/me", (("cookie", header),), host=f"{VICTIM}:{town.port}")
    app = town.houses[VICTIM].app
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.extend(asyncio.run(asgi_all(app, [ask], parallel=False))))
    thread.start()
    thread.join(20)
    answer = answers[0]
    return answer.json["user"] if answer.status == 200 else None
