"""Attacks by web pages, in a real Chromium: two sites and a sibling host, over TLS (D14, D15, D18, D59).

The names end in `.test` and resolve to 127.0.0.1; the certificate is made for one run, Chromium is told its key.
A server of each kind (uvicorn, wsgiref) tells the hosts apart, so that "another site" is what it is on the web.
"""

import base64
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.serving import Served, asgi_probe, wsgi_probe
from tests.support.certificates import self_signed
from tests.support.chromium import ARGUMENTS

from .house import COOKIE

VICTIM, SIBLING, REPORTING, STRICT, EVIL = "victim.test", "blog.victim.test", "report.test", "strict.test", "evil.test"
SETTINGS: dict[str, dict[str, Any]] = {
    VICTIM: {},
    REPORTING: {"csrf": "report"},
    STRICT: {"same_site": "Strict"},
}


@dataclass
class Certificate:
    """A certificate for every host here, and the hash of its key that Chromium is told."""

    cert: Path
    key: Path
    pin: str


@dataclass
class Town:
    """The hosts behind one server, and everything that was said to and by them."""

    kind: str
    port: int
    houses: dict[str, Served] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    cookies: list[tuple[str, str]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def url(self, host: str, path: str = "/") -> str:
        return f"https://{host}:{self.port}{path}"

    def note(self, host: str, target: str, cookie: str, headers: list[tuple[str, str]]) -> None:
        self.heard.append(cookie)
        self.asked.append(f"{host}{target}")
        self.cookies += [(f"{host}{target}", value) for name, value in headers if name.lower() == "set-cookie"]

    # as an ASGI application

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers[b"host"].partition(":")[0]

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                pairs = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
                self.note(host, f"{scope['path']}?{scope['query_string'].decode()}", headers.get(b"cookie", ""), pairs)
            await send(message)

        if host in self.houses:
            await self.houses[host].app(scope, receive, noted)
            return
        html = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
        await noted({"type": "http.response.start", "status": 200, "headers": html})
        await send({"type": "http.response.body", "body": self.pages.get(scope["path"], "").encode()})

    # and as a WSGI application

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        host = environ["HTTP_HOST"].partition(":")[0]

        def noted(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            self.note(
                host, f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}", environ.get("HTTP_COOKIE", ""), headers
            )
            return start_response(status, headers)

        if host in self.houses:
            return self.houses[host].app(environ, noted)
        noted("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])
        return [self.pages.get(environ["PATH_INFO"], "").encode()]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "c.pem", folder / "k.pem"
    public = self_signed(cert, key, VICTIM, SIBLING, REPORTING, STRICT, EVIL)
    return Certificate(cert, key, base64.b64encode(hashlib.sha256(public).digest()).decode())


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def town(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[Town]:
    with standing(request.param, certificate, SETTINGS, Clock(time.time())) as town:
        yield town


@contextmanager
def standing(kind: str, certificate: Certificate, houses: dict[str, dict[str, Any]], clock: Clock) -> Iterator[Town]:
    """Serve hosts, each with its settings, over TLS."""
    listener = socket.create_server(("127.0.0.1", 0))
    town = Town(kind, listener.getsockname()[1])
    serve = asgi_probe if town.kind == "asgi" else wsgi_probe
    for host, settings in houses.items():
        store = MemoryStore(clock=clock)
        town.houses[host] = serve(store, clock, origins=[town.url(host, "")], **settings)
    if town.kind == "asgi":
        config = uvicorn.Config(
            town.asgi,
            ssl_certfile=certificate.cert,
            ssl_keyfile=certificate.key,
            log_level="critical",
            lifespan="off",
            interface="asgi3",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield town
        server.should_exit = True
    else:
        listener.close()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        wsgi = make_server("127.0.0.1", town.port, town.wsgi, _Threads, _Quiet)
        wsgi.socket = context.wrap_socket(wsgi.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=wsgi.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield town
        wsgi.shutdown()
        wsgi.server_close()
    thread.join(5)


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: browsers open connections that they do not use."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser(chromium: str, certificate: Certificate) -> Iterator[Browser]:
    """Return a Chromium that knows our hosts and trusts our certificate."""
    ours = ("--host-resolver-rules=MAP *.test 127.0.0.1", f"--ignore-certificate-errors-spki-list={certificate.pin}")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, *ours])
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser, town: Town) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(10_000)
    town.cookies.clear()
    town.heard.clear()
    yield context
    context.close()


LOGIN = "user => fetch('/login', {method: 'POST', body: new URLSearchParams({user})}).then(answer => answer.url)"


def logged_in(context: BrowserContext, town: Town, host: str, user: str = "alice") -> Page:
    """Log in at a host; return a page of it."""
    page = context.new_page()
    page.goto(town.url(host))
    page.evaluate(LOGIN, user)
    assert who(page, town, host) == user
    town.cookies.clear()
    return page


def who(page: Page, town: Town, host: str) -> str | None:
    """Return who a same-origin click finds logged in."""
    if not page.url.startswith(town.url(host)):
        page.goto(town.url(host))
    return page.evaluate("fetch('/me').then(answer => answer.json()).then(found => found.user ?? null)")


ATTACKS = {
    # what a page of another site does to TARGET
    "form": "<form method=post action='TARGET' target=frame><input name=user value=mallory></form>"
    "<iframe name=frame></iframe><script>document.forms[0].submit()</script>",
    "form-referrer-off": "<meta name=referrer content=no-referrer><form method=post action='TARGET' target=frame>"
    "<input name=user value=mallory></form><iframe name=frame></iframe><script>document.forms[0].submit()</script>",
    "form-text-plain": "<form method=post action='TARGET' target=frame enctype=text/plain>"
    "<input name=user value=mallory></form><iframe name=frame></iframe><script>document.forms[0].submit()</script>",
    "form-sandboxed": "<iframe sandbox='allow-forms allow-scripts' srcdoc=\"<form method=post action='TARGET'>"
    '<input name=user value=mallory></form><script>document.forms[0].submit()</script>"></iframe>',
    "fetch": "<script>fetch('TARGET', {method: 'POST', mode: 'no-cors', credentials: 'include',"
    " body: new URLSearchParams({user: 'mallory'})})</script>",
    "beacon": "<script>navigator.sendBeacon('TARGET', new URLSearchParams({user: 'mallory'}))</script>",
    "image": "<img src='TARGET'>",
    "frame": "<iframe src='TARGET'></iframe>",
    "fetch-of-a-page": "<script>fetch('TARGET', {mode: 'no-cors', credentials: 'include'})</script>",
    "script": "<script src='TARGET'></script>",
    "style": "<link rel=stylesheet href='TARGET'>",
}
TARGETS = ("/login?", "/data?do=write", "/nothing?do=write", "/form?")


@pytest.mark.parametrize("host", [VICTIM, REPORTING])
def test_no_page_of_another_site_wipes_or_replaces_a_login(context: BrowserContext, town: Town, host: str) -> None:
    """D14, D59 (H3): afterwards /me is still logged in, and no answer had a session cookie; with `csrf="report"`, too.

    A login that another site posts is let in there, though: that is what "report" means, and why it is not the default.
    """
    page = logged_in(context, town, host)
    targets = TARGETS if host == VICTIM else TARGETS[1:]
    for attack, html in ATTACKS.items():
        aimed = [html.replace("TARGET", town.url(host, f"{target}&by={attack}")) for target in targets]
        for number, each in enumerate(aimed):
            town.pages[f"/{attack}-{number}"] = each
    frames = [f"<iframe src='/{attack}-{number}'></iframe>" for attack in ATTACKS for number in range(len(targets))]
    town.pages["/all"] = "".join(frames)
    town.asked.clear()
    page.goto(town.url(EVIL, "/all"))

    def arrived() -> dict[str, int]:
        by = [target.rpartition("&by=")[2] for target in town.asked if target.startswith(host) and "&by=" in target]
        return {attack: by.count(attack) for attack in ATTACKS}

    _until(page, lambda: min(arrived().values()) >= len(targets))
    assert set(arrived().values()) == {len(targets)}, "every attack reached us"
    assert [line for line in town.cookies if COOKIE in line[1]] == []
    assert who(page, town, host) == "alice"


def _until(page: Page, done: Any) -> None:
    """Let the browser run until something has happened."""
    for _ in range(300):
        if done():
            return
        page.wait_for_timeout(20)


def test_a_form_of_another_site_in_a_window_of_its_own_logs_nobody_in(context: BrowserContext, town: Town) -> None:
    """D14, D59: as a top-level navigation; the login of the victim stays."""
    page = logged_in(context, town, VICTIM)
    town.pages["/top"] = ATTACKS["form"].replace("TARGET", town.url(VICTIM, "/login")).replace("target=frame", "")
    with page.expect_response(lambda answer: answer.url.endswith("/login")) as refused:
        page.goto(town.url(EVIL, "/top"))
    assert refused.value.status == 403
    assert town.cookies == []
    assert who(page, town, VICTIM) == "alice"


def test_a_link_from_another_site_to_a_strict_cookie_wipes_nothing(context: BrowserContext, town: Town) -> None:
    """D15: the browser withholds the cookie, the page would begin a session: it gets none."""
    page = logged_in(context, town, STRICT)
    town.pages["/link"] = f"<a href='{town.url(STRICT, '/data?do=write')}'>win a coat</a>"
    page.goto(town.url(EVIL, "/link"))
    page.click("a")
    page.wait_for_url(town.url(STRICT, "/data?do=write"))
    assert COOKIE not in town.heard[-1], "the browser withheld it"
    assert town.cookies == []
    page.evaluate("location.href = '/me'")
    page.wait_for_url(town.url(STRICT, "/me"))
    assert json.loads(page.inner_text("body"))["user"] == "alice"


def test_a_link_from_another_site_may_begin_an_anonymous_session(context: BrowserContext, town: Town) -> None:
    """H3: with Lax, a top-level GET without our cookie is somebody without a session; shops live on such links."""
    page = context.new_page()
    town.pages["/lax"] = f"<a href='{town.url(VICTIM, '/data?do=write')}'>a coat</a>"
    page.goto(town.url(EVIL, "/lax"))
    page.click("a")
    page.wait_for_url(town.url(VICTIM, "/data?do=write"))
    assert len(town.cookies) == 1
    page.evaluate("location.href = '/data'")
    page.wait_for_url(town.url(VICTIM, "/data"))
    assert json.loads(page.inner_text("body")) == {"k": "written"}


TOSSED = [
    # what a sibling host writes, and whether this Chromium sends it on to the victim
    ("\u2000" + COOKIE + "={token}; domain=victim.test; path=/; secure", True),
    ("\u00a0" + COOKIE + "={token}; domain=victim.test; path=/; secure", True),
    ("\u3000" + COOKIE + "={token}; domain=victim.test; path=/; secure", True),
    ("theme=x,{name}={token}; domain=victim.test; path=/; secure", True),
    ("coat-insecure={token}; domain=victim.test; path=/; secure", True),
    ("colour={name}={token}; domain=victim.test; path=/; secure", True),
    ("{name}={token}; domain=victim.test; path=/; secure", False),
    ("__HOST-coat={token}; domain=victim.test; path=/; secure", False),
    ("={name}={token}; domain=victim.test; path=/; secure", False),
]


@pytest.mark.parametrize("has_session", [True, False])
def test_a_cookie_tossed_by_a_sibling_host_is_ignored(
    browser: Browser, context: BrowserContext, town: Town, has_session: bool
) -> None:
    """D18 (H11): the owner's session works, and who has none is not logged into the attacker's; they pile up."""
    attacker = browser.new_context()
    logged_in(attacker, town, VICTIM, "mallory")
    (stolen,) = (cookie["value"] for cookie in attacker.cookies() if cookie["name"] == COOKIE)
    attacker.close()
    page = logged_in(context, town, VICTIM) if has_session else context.new_page()
    before = 0
    for tossed, arrives in TOSSED:
        page.goto(town.url(SIBLING))
        page.evaluate("line => { document.cookie = line }", tossed.format(token=stolen, name=COOKIE))
        assert (tossed, who(page, town, VICTIM)) == (tossed, "alice" if has_session else None)
        now = town.heard[-1].count(stolen)
        assert (tossed, now > before) == (tossed, arrives), "what this Chromium does with it"
        before = now
    assert [line for line in town.cookies if COOKIE in line[1]] == []


def test_the_cookie_is_what_it_says_and_no_script_reads_it(context: BrowserContext, town: Town) -> None:
    """CKE-01 to CKE-04, CKE-17, TRM-02."""
    page = logged_in(context, town, VICTIM)
    (cookie,) = context.cookies()
    kept = {key: cookie.get(key) for key in ("name", "domain", "path", "expires", "httpOnly", "secure", "sameSite")}
    assert kept == {
        "name": COOKIE,
        "domain": VICTIM,
        "path": "/",
        "expires": -1,
        "httpOnly": True,
        "secure": True,
        "sameSite": "Lax",
    }
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    page.goto(town.url(SIBLING))
    assert COOKIE not in town.heard[-1]
    page.goto(town.url(VICTIM))
    page.evaluate("fetch('/logout', {method: 'POST'})")
    _until(page, lambda: context.cookies() == [])
    assert context.cookies() == []


SOCKET = """url => new Promise(done => {
    const socket = new WebSocket(url)
    socket.onopen = () => done('open')
    socket.onerror = () => done('refused')
})"""


# over WSGI the handshake is drilled in test_sockets: wsgiref serves no sockets
@pytest.mark.parametrize("town", ["asgi"], indirect=True)
def test_a_socket_opens_for_our_own_page_and_for_no_other(context: BrowserContext, town: Town) -> None:
    """D63 in a browser (CSR-11): the victim's cookie rides on the handshake, the Origin tells."""
    page = logged_in(context, town, VICTIM)
    url = town.url(VICTIM, "/ws").replace("https:", "wss:")
    assert page.evaluate(SOCKET, url) == "open"
    for host in (EVIL, SIBLING):
        page.goto(town.url(host))
        assert page.evaluate(SOCKET, url) == "refused"
    assert who(page, town, VICTIM) == "alice"
