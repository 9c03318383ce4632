"""The browser that the test command finds does load, run and draw."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, expect

PAGE = b"""<!doctype html><title>counter</title><h1>A coat</h1><p id=at>none</p>
<script>document.querySelector("#at").textContent = document.cookie || "no cookie";</script>"""


class Counter(BaseHTTPRequestHandler):
    """Serves one page and one cookie that scripts can read."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Set-Cookie", "hook=7; SameSite=Lax")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_page_loads_runs_its_script_and_keeps_a_cookie(page: Page, address: str) -> None:
    page.goto(address)
    expect(page).to_have_title("counter")
    expect(page.locator("#at")).to_have_text("hook=7")


def test_a_page_starts_without_the_cookies_of_another_test(page: Page) -> None:
    assert page.context.cookies() == []


def test_text_is_drawn_with_a_font(page: Page) -> None:
    page.set_content("<span id=w style='font: 20px sans-serif'>wwwwwwww</span><span id=i>iiiiiiii</span>")
    width = page.locator("#w").bounding_box()
    assert width is not None
    assert width["width"] > 40
