"""The Cloakroom in a real browser, on a real server: two browsers, one person, and a clock to wind.

Each test leaves screenshots in its own temporary folder; nothing of the pages' security policy may be violated in any.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect

from coatcheck.demo.accounts import Accounts
from coatcheck.demo.app import FAST_CLOCKS, FAST_RECENT, make_app
from coatcheck.demo.serving import listen
from coatcheck.stores.sqlite import AsyncSqliteStore
from tests.demo.visiting import CHEAP, PASSWORD

# what a browser logs as an error although it is our answer
EXPECTED = ("status of 404 (", "status of 422 (")  # the words behind the number differ between Pythons
# milliseconds: the page's script asks every five seconds
PATIENCE = 15_000


class Running:
    """A running Cloakroom and the time that it believes."""

    def __init__(self, folder: Path) -> None:
        self.wound = 0.0
        self.listening = listen("127.0.0.1", 0)
        port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        app = make_app(
            AsyncSqliteStore(folder / "sessions.db", clock=self.now),
            accounts=Accounts(folder / "sessions.db", CHEAP),
            hosts=[f"127.0.0.1:{port}"],
            recent=FAST_RECENT,
            clock=self.now,
            timeouts=FAST_CLOCKS,
            allow_insecure_http=True,
        )
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", proxy_headers=False))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True)
        self.thread.start()

    def now(self) -> float:
        return time.time() + self.wound

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listening.close()


class Screen:
    """One browser window on the Cloakroom; takes pictures and collects complaints."""

    def __init__(self, context: BrowserContext, url: str, pictures: Path) -> None:
        self.page: Page = context.new_page()
        self.context = context
        self.complaints: list[str] = []
        self._url, self._pictures = url, pictures
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))

    def see(self, path: str) -> None:
        self.page.goto(self._url + path)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    def sign(self, path: str, name: str, *, remember: bool = False) -> None:
        self.see(path)
        self.page.get_by_label("Name", exact=True).fill(name)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        if remember:
            self.page.get_by_label("Remember me").check()
        self.page.locator("main form button").click()

    def picture(self, name: str) -> None:
        self.page.screenshot(path=self._pictures / f"{name}.png", full_page=True)

    def says(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)


@pytest.fixture
def cloakroom(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def opened(browser: Browser, cloakroom: Running, tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def open_one(width: int = 1280, **more: object) -> Screen:
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        screens.append(Screen(context, cloakroom.url, tmp_path))
        return screens[-1]

    yield open_one
    for screen in screens:
        screen.context.close()
        assert [text for text in screen.complaints if EXPECTED[0] not in text and EXPECTED[1] not in text] == []


def test_a_cart_two_devices_and_the_end_of_one(opened: Callable[..., Screen]) -> None:
    laptop, phone = opened(), opened(390)
    laptop.see("/")
    laptop.press("Put The Turncoat into the cart")
    laptop.says("The Turncoat is in your cart.")
    laptop.sign("/signup?next=/cart", "alice")
    laptop.says("Welcome, alice!")
    laptop.says("€ 249.00 each")
    laptop.picture("cart")
    assert laptop.page.evaluate("document.cookie") == ""

    phone.sign("/login", "alice", remember=True)
    phone.see("/sessions")
    expect(phone.page.locator("main .ticket")).to_have_count(2)
    expect(phone.page.locator("main .ticket", has_text="this one")).to_have_count(1)
    phone.picture("sessions")
    phone.press("End it")
    phone.says("That session is ended.")
    expect(phone.page.locator("main .ticket")).to_have_count(1)

    laptop.page.get_by_role("link", name="The rail").click()
    laptop.says("Ended from another device")
    laptop.picture("over")
    laptop.press("Start afresh")
    laptop.says("A fresh start")


def test_an_order_can_be_paid_once(opened: Callable[..., Screen]) -> None:
    screen = opened()
    screen.sign("/signup", "alice")
    screen.press("Put The Same Origin into the cart")
    screen.page.get_by_role("link", name="Cart (1)").click()
    screen.page.get_by_role("button", name="One more").click()
    expect(screen.page.locator(".total b")).to_have_text("€ 178.00")
    screen.page.get_by_role("link", name="To the checkout").click()
    screen.press("Place the order")
    screen.says("€ 160.20")
    screen.picture("receipt")


def test_a_remembered_browser_may_close_and_another_may_not(
    opened: Callable[..., Screen], browser: Browser, cloakroom: Running
) -> None:
    lasting, passing = opened(), opened()
    lasting.sign("/signup", "alice", remember=True)
    passing.sign("/login", "alice")
    kept, lost = (screen.context.cookies()[0] for screen in (lasting, passing))
    assert kept["expires"] > cloakroom.now() + 3000
    assert lost["expires"] == -1
    assert kept["httpOnly"]
    assert kept["sameSite"] == "Lax"
    cloakroom.wound += 120
    lasting.see("/")
    lasting.says("remembered")
    lasting.see("/password")
    lasting.says("Is it still you, alice?")
    lasting.page.get_by_label("Password", exact=True).fill(PASSWORD)
    lasting.press("Yes, it is")
    expect(lasting.page.get_by_role("heading", name="Change the password")).to_be_visible()
    passing.see("/")
    passing.says("You were away")


def test_the_clock_warns_and_then_says_that_it_is_over(opened: Callable[..., Screen], cloakroom: Running) -> None:
    screen = opened()
    screen.sign("/signup", "alice")
    strip, idle = screen.page.locator(".strip"), screen.page.locator('[data-part="idle"]')
    expect(idle).to_have_text("00:59")
    cloakroom.wound += 41
    screen.says("Still there? This ticket is about to lapse.")
    expect(strip).to_have_attribute("data-state", "soon", timeout=PATIENCE)
    screen.picture("warning")
    screen.press("I’m still here")
    expect(strip).to_have_attribute("data-state", "live", timeout=PATIENCE)
    cloakroom.wound += 61
    screen.says("You were away. Nothing was heard from this browser for 1 minute")
    expect(strip).to_have_attribute("data-state", "over", timeout=PATIENCE)
    screen.picture("lapsed")
    screen.page.get_by_role("link", name="Go on").click()
    screen.says("You were away")
    expect(screen.page.get_by_role("link", name="Sign in again")).to_be_visible()


def test_a_copied_ticket_is_found_out(opened: Callable[..., Screen], cloakroom: Running) -> None:
    owner, thief = opened(), opened(user_agent="curl/8.5.0")
    owner.sign("/signup", "alice")
    thief.context.add_cookies(owner.context.cookies())
    for _ in range(3):
        cloakroom.wound += 31
        owner.see("/trail")
        owner.see("/trail")
    thief.see("/trail")
    thief.says("Somebody else had a copy of this ticket")
    owner.see("/trail")
    owner.says("Somebody else had a copy of this ticket")
    owner.sign("/login", "alice")
    owner.see("/trail")
    owner.says("An old secret was replayed")
    owner.picture("trail")


def test_it_works_without_scripts(opened: Callable[..., Screen]) -> None:
    screen = opened(java_script_enabled=False)
    screen.sign("/signup", "alice")
    screen.says("10 minutes")
    screen.press("I’m still here")
    screen.press("Put The Warm Cache into the cart")
    screen.says("The Warm Cache is in your cart.")
    screen.press("Sign out")
    screen.says("You are signed out.")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_page_is_wider_than_its_screen(opened: Callable[..., Screen], width: int) -> None:
    screen = opened(width)
    screen.sign("/signup", "a-name-of-thirty-two-characters-x")
    screen.says("A name is 1 to 32")
    screen.sign("/signup", "a-name-of-thirty-two-characters")
    screen.press("Put The Turncoat into the cart")
    for path in ("/", "/cart", "/checkout", "/sessions", "/trail", "/password", "/nothing"):
        screen.see(path)
        assert screen.page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_keyboard_alone_is_enough(opened: Callable[..., Screen]) -> None:
    screen = opened()
    screen.see("/login")
    screen.page.keyboard.press("Tab")
    expect(screen.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    outline = screen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for field in screen.page.locator("main input:not([type=hidden])").all():
        assert field.evaluate("field => field.labels.length") == 1
