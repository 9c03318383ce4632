"""The recipes of docs/csrf.md in a real Chromium: the page's form, its `fetch`, and htmx; and another site's page.

The script is the one that the page of the documentation shows, and htmx the two versions that django-htmx brings.
"""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import django_htmx
import jinja2
import pytest
import uvicorn
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from coatcheck import MemoryStore
from coatcheck.adapters.starlette import SessionMiddleware, session_of

DOCS = Path(__file__).parents[2] / "docs" / "csrf.md"
HTMX = Path(django_htmx.__file__).parent / "static" / "django_htmx"
VERSIONS = ("htmx-2.min.js", "htmx-4.min.js")
PATIENCE = 15_000

PAGE = """<!doctype html><head>{{ request.session.csrf_meta() }}<script>{{ script }}</script>
<script src="/htmx/{{ request.query_params.get('htmx', 'htmx-2.min.js') }}"></script></head>
<body {{ request.session.csrf_htmx() }}>
<form method="post" action="/save">{{ request.session.csrf_field() }}<input name="note" value="by form">
<button>Save</button></form>
<div><button id="hx" hx-post="/save" hx-vals='{"note": "by htmx"}' hx-target="#out">Send</button></div>
<p id="out">nothing yet</p>"""
ELSEWHERE = """<!doctype html><form method="post" action="TARGET"><input name="note" value="by another site">
<button>Win a coat</button></form>"""


class Shop:
    """A running application whose every change asks for the token, and what reached its handler."""

    def __init__(self) -> None:
        self.saved: list[str] = []
        (script,) = re.findall(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
        self._pages = jinja2.Environment(loader=jinja2.DictLoader({"page.html": PAGE}), autoescape=True)
        self._pages.globals["script"] = jinja2.filters.do_mark_safe(script)
        self._templates = Jinja2Templates(env=self._pages)
        app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/elsewhere", self.elsewhere),
                Route("/save", self.save, methods=["POST"]),
                Route("/login", self.login, methods=["POST"]),
                Mount("/htmx", StaticFiles(directory=HTMX)),
            ],
            middleware=[Middleware(SessionMiddleware, store=MemoryStore(), allow_insecure_http=True)],
        )
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def url(self, path: str, host: str = "localhost") -> str:
        return f"http://{host}:{self.port}{path}"

    async def page(self, request: Request) -> Response:
        return self._templates.TemplateResponse(request, "page.html")

    async def elsewhere(self, _request: Request) -> Response:
        return HTMLResponse(ELSEWHERE.replace("TARGET", self.url("/save")))

    async def save(self, request: Request) -> Response:
        fields = {} if request.headers["content-type"].startswith("application/json") else await request.form()
        session_of(request).require_csrf(fields.get("csrf_token"))
        self.saved.append(str(fields.get("note") or (await request.json())["note"]))
        return PlainTextResponse(f"saved {self.saved[-1]}")

    async def login(self, request: Request) -> Response:
        session = session_of(request)
        session.require_csrf()
        session.login("alice")
        return PlainTextResponse("welcome")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.stop()


SEND = "([url, note]) => send(url, {note}).then(async answer => [answer.status, await answer.text()])"
BARE = """() => fetch("/save", {
    method: "POST", headers: {"Content-Type": "application/json"}, body: '{"note": "bare"}'
}).then(answer => answer.status)"""


def test_the_script_and_the_form_carry_the_token_and_no_other_site_does(page: Page, shop: Shop) -> None:
    """CSR-01, CSR-06, D64: the cookie alone is not enough here; after a login the page's token is dead."""
    page.set_default_timeout(PATIENCE)
    page.goto(shop.url("/"))
    assert page.evaluate(SEND, ["/save", "by fetch"]) == [200, "saved by fetch"]
    assert page.evaluate(BARE) == 403
    page.get_by_role("button", name="Save").click()
    expect(page.locator("body")).to_have_text("saved by form", timeout=PATIENCE)
    assert shop.saved == ["by fetch", "by form"]

    page.goto(shop.url("/"))
    assert page.evaluate(SEND, ["/login", ""]) == [200, "welcome"]
    assert page.evaluate(SEND, ["/save", "by an old page"])[0] == 403
    page.goto(shop.url("/"))
    assert page.evaluate(SEND, ["/save", "by a new page"]) == [200, "saved by a new page"]

    # 127.0.0.1 is another site than localhost
    page.goto(shop.url("/elsewhere", "127.0.0.1"))
    with page.expect_response(lambda answer: answer.url == shop.url("/save")) as refused:
        page.get_by_role("button", name="Win a coat").click()
    assert refused.value.status == 403
    assert refused.value.request.header_value("sec-fetch-site") == "cross-site"
    assert refused.value.header_value("set-cookie") is None
    assert shop.saved[2:] == ["by a new page"]


@pytest.mark.parametrize("version", VERSIONS)
def test_htmx_sends_the_header_that_the_body_hands_down(page: Page, shop: Shop, version: str) -> None:
    """CSR-06: htmx 4 hands down only what is marked as such; after a login the page has to come anew."""
    page.set_default_timeout(PATIENCE)
    page.goto(shop.url(f"/?htmx={version}"))
    page.click("#hx")
    expect(page.locator("#out")).to_have_text("saved by htmx", timeout=PATIENCE)
    assert page.evaluate(SEND, ["/login", ""]) == [200, "welcome"]
    with page.expect_response(lambda answer: answer.url == shop.url("/save")) as refused:
        page.click("#hx")
    assert refused.value.status == 403
    page.reload()
    page.click("#hx")
    expect(page.locator("#out")).to_have_text("saved by htmx", timeout=PATIENCE)
    assert shop.saved == ["by htmx", "by htmx"]
