"""What other sites and siblings can do, on every adapter: forms, scripts, cookies, sockets (D14 to D20, D59, D63, D64).

Each adapter serves the probe through its framework's own server or handler, once for this file. What the adapter
journey walks on every adapter already is not walked again; its rows (src/coatcheck/testing/journey_*.py):

| drill | row | what is left for here |
|---|---|---|
| D12 | 7: the planted token is dead, only named keys move, `next` never | |
| D14 | 30: a refused POST with the victim's cookie | without it (Lax), and requests that are safe |
| D15 | | a Strict cookie that was withheld |
| D16, D17 | 24, 25: late and slow answers have no cookie | |
| D18, D19 | 6: among other names | names in bytes that lenient parsers strip |
| D20 | 6: two values, two headers | |
| D59 | 29: no headers, and the token instead | every shape of another site |
| D63 | 41 to 43: evil or no Origin, login inside, revoked, over | siblings, twins, two Origins; csrf="report" |
| D64 | 29: another session's, before the login, after a renewal | in the query, in a cookie, in both headers |
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coatcheck import MemoryStore, SessionManager
from coatcheck.adapters import asgi, wsgi
from coatcheck.testing import Clock, Control
from coatcheck.testing.browser import Browser, Driver
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver
from coatcheck.testing.journey import House
from coatcheck.testing.serving import AsgiProbe, WsgiProbe
from tests.adapters import frameworks, probe_django
from tests.adapters.loopback import LoopbackDriver
from tests.adapters.probe_aiohttp import AiohttpServer, aiohttp_probe
from tests.adapters.probe_flask import flask_probe
from tests.adapters.probe_litestar import litestar_probe
from tests.adapters.probe_pyramid import pyramid_probe
from tests.adapters.probe_quart import quart_probe
from tests.adapters.probe_sanic import sanic_probe
from tests.adapters.probe_tornado import TornadoServer, tornado_probe
from tests.adapters.sanic_server import SanicServer

Headers = list[tuple[str, str]]
Build = Callable[..., House]

OURS, EVIL, SIBLING = "https://testserver", "https://evil.test", "https://blog.testserver"
LOGIN = {"user": "mallory"}


def _litestar(control: Control) -> Driver:
    app = litestar_probe(control.probe, **_on(control))

    async def start() -> None:
        async with app.lifespan():
            pass

    asyncio.run(start())
    return AsgiDriver(app)


def _on(control: Control) -> dict[str, Any]:
    return {"store": control.store, "manager": control.manager}


DOORS: dict[str, Callable[[Control], Driver]] = {
    "asgi": lambda control: AsgiDriver(asgi.SessionMiddleware(AsgiProbe(control.probe), **_on(control))),
    "starlette": lambda control: AsgiDriver(frameworks.starlette_inside(control.probe, **_on(control))),
    "fastapi": lambda control: AsgiDriver(frameworks.fastapi_probe(control.probe, **_on(control))),
    "quart": lambda control: AsgiDriver(quart_probe(control.probe, **_on(control))),
    "litestar": _litestar,
    "aiohttp": lambda control: LoopbackDriver(AiohttpServer(aiohttp_probe(control.probe, **_on(control)))),
    "tornado": lambda control: LoopbackDriver(TornadoServer(tornado_probe(control.probe, **_on(control)))),
    "sanic": lambda control: SanicServer(sanic_probe(control.probe, **_on(control))),
    "django-asgi": lambda control: AsgiDriver(probe_django.asgi_probe(control)),
    "django-wsgi": lambda control: WsgiDriver(probe_django.wsgi_probe(control)),
    "wsgi": lambda control: WsgiDriver(wsgi.SessionMiddleware(WsgiProbe(control.probe), **_on(control))),
    "flask": lambda control: WsgiDriver(flask_probe(control.probe, **_on(control))),
    "pyramid": lambda control: WsgiDriver(pyramid_probe(control.probe, **_on(control))),
}
SOCKETS = ("asgi", "starlette", "fastapi", "quart", "litestar", "aiohttp", "tornado", "sanic")
BLOCKING = ("django-wsgi", "wsgi", "flask", "pyramid")


def opened(kind: str, **settings: Any) -> House:
    """Serve the probe through an adapter, on a memory store of its own."""
    clock = Clock()
    control = Control(MemoryStore(clock=clock), clock, SessionManager(clock=clock, **settings))
    return House(control, DOORS[kind](control))


@pytest.fixture(scope="module", params=DOORS)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Return the house of this adapter: one for all tests, which come with browsers of their own."""
    house = opened(request.param)
    yield house
    house.driver.close()


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    """Return a maker of houses: `build("flask", same_site="Strict")`."""
    houses: list[House] = []

    def made(kind: str, **settings: Any) -> House:
        houses.append(opened(kind, **settings))
        return houses[-1]

    yield made
    for house in houses:
        house.driver.close()


def test_the_adapters_are_all_here() -> None:
    """The twelve of edge.md, Django through both its handlers."""
    assert len({kind.partition("-")[0] for kind in DOORS}) == 12


# -- forms and scripts of other sites ----------------------------------------------------------------------------------

ATTACKS: dict[str, Headers] = {
    "form": [("sec-fetch-site", "cross-site"), ("origin", EVIL), ("sec-fetch-mode", "navigate")],
    "form of an old browser": [("origin", EVIL)],
    "form, referrer off": [("sec-fetch-site", "cross-site"), ("origin", "null")],
    "fetch": [("sec-fetch-site", "cross-site"), ("origin", EVIL), ("sec-fetch-mode", "cors")],
    "fetch, no-cors": [("sec-fetch-site", "cross-site"), ("origin", EVIL), ("sec-fetch-mode", "no-cors")],
    "sandboxed frame": [("sec-fetch-site", "cross-site"), ("origin", "null"), ("sec-fetch-dest", "iframe")],
    "sibling": [("sec-fetch-site", "same-site"), ("origin", SIBLING)],
    "sibling of an old browser": [("origin", SIBLING)],
    "http twin": [("origin", "http://testserver")],
    "our name inside another": [("origin", f"{OURS}.evil.test")],
    "an unknown word": [("sec-fetch-site", "future-value"), ("origin", OURS)],
    "two words": [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"), ("origin", OURS)],
    "the same word twice": [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
    "two origins": [("origin", OURS), ("origin", EVIL)],
    "mis-cased word": [("sec-fetch-site", "Same-Origin"), ("origin", EVIL)],
    "no header, but a referer": [("referer", f"{OURS}/login")],
    "no header at all": [],
}


@pytest.mark.parametrize("body", [{"form": LOGIN}, {"json": LOGIN}], ids=["form", "json"])
def test_nobody_is_logged_in_by_another_site(house: House, body: dict[str, Any]) -> None:
    """D14, D59 (CSR-02, CSR-08, H3): with the attacker's valid credentials; the refusal has no cookie."""
    seen, records = len(house.control.probe.seen), len(house.control.records())
    got = {}
    for attack, headers in ATTACKS.items():
        answer = house.browser().post("/login", site=None, headers=headers, **body)
        got[attack] = (answer.status, answer.cookies)
    assert got == dict.fromkeys(ATTACKS, (403, []))
    assert len(house.control.records()) == records
    # what says nothing at all reaches the handler, where it is the login that is refused
    assert house.control.probe.seen[seen:] == ["POST /login"] * 2


def test_what_a_victim_does_is_done_by_the_victims_own_pages(house: House) -> None:
    """D14 (CSR-01): the cookie rides on a sibling's form, and on any in a Lax cookie's first two minutes."""
    victim = house.browser()
    victim.login()
    for attack, headers in ATTACKS.items():
        if "no header" not in attack:
            for method, target in (("POST", "/logout"), ("PUT", "/data?write=k"), ("DELETE", "/data?do=logout")):
                answer = victim.request(method, target, site=None, headers=headers)
                assert (attack, method, answer.status, answer.cookies) == (attack, method, 403, [])
    assert victim.get("/data").json() == {}
    assert victim.get("/me").json()["user"] == "alice"


SAFE: dict[str, Headers] = {
    "image": [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
    "frame": [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
    "fetch": [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
}
LINK = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]


def test_a_request_of_another_site_begins_no_session_over_the_victims(house: House) -> None:
    """D14 (H3): the browser withheld the cookie; a new one would take its place, and the login be gone."""
    for attack, headers in SAFE.items():
        for target in ("/data?write=k", "/form", "/nothing?do=write"):
            answer = house.browser().get(target, site=None, headers=headers)
            assert (attack, target, answer.cookies) == (attack, target, [])
    assert len(house.browser().get("/data?write=k", site=None, headers=LINK).cookies) == 1, "shops live on links"


@pytest.mark.parametrize("kind", DOORS)
def test_a_link_to_a_strict_cookie_wipes_nothing(build: Build, kind: str) -> None:
    """D15 (H3)."""
    stranger = build(kind, same_site="Strict").browser()
    assert stranger.get("/data?write=k", site=None, headers=LINK).cookies == []
    assert len(stranger.get("/data?write=k").cookies) == 1


# -- cookies of a sibling ----------------------------------------------------------------------------------------------

TOSSED = [
    # the Cookie header, `{ours}` is name and token of a session; whether it counts
    ("{ours}", True),
    ("theme=dark; {ours}", True),
    ("theme=dark;{ours}", True),
    ("\xa0{ours}", False),
    ("\x85{ours}", False),
    ("\xe2\x80\x80{ours}", False),  # U+2000, U+3000 and U+00A0, as UTF-8
    ("\xe3\x80\x80{ours}", False),
    ("\xc2\xa0{ours}", False),
    ("a=1;\xa0{ours}", False),
    ("a={ours}", False),
    ("x{ours}", False),
    ("a=1,{ours}", False),
    ("$Version=1,{ours}", False),
]


def test_only_the_exact_name_counts(house: House) -> None:
    """D18, D19 (H11): frameworks' own cookie parsers strip and unquote; what the adapters hand on are the bytes."""
    owner = house.browser()
    owner.login()
    ours, name = f"{owner.cookie}={owner.token}", owner.cookie
    headers = {**dict(TOSSED), f'{name}="{owner.token}"': False}
    headers |= {f"{other}={owner.token}": False for other in ("__HOST-coat", "__host-coat", "coat", "coat-insecure")}
    got = {}
    for line in headers:
        answer = house.browser().get("/me", cookies=line.replace("{ours}", ours))
        got[line] = answer.status == 200
        assert answer.cookies == []
    assert got == headers
    assert owner.get("/me").status == 200


def test_a_name_that_only_looks_like_ours_locks_nobody_out(house: House) -> None:
    """D18 (H11): beside the owner's cookie it is no second value."""
    owner, mallory = house.browser(), house.browser()
    owner.login()
    mallory.login("mallory")
    for name in (f"\xa0{owner.cookie}", f"\xe2\x80\x80{owner.cookie}", "__HOST-coat"):
        for line in (
            f"{name}={mallory.token}; {owner.cookie}={owner.token}",
            f"{owner.cookie}={owner.token}; {name}={mallory.token}",
        ):
            assert owner.get("/me", cookies=line).json()["user"] == "alice"


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_token_counts_in_header_and_form_only(house: House) -> None:
    """D64 (CSR-06, CSR-07): in the query, in a cookie or under another name it is nothing."""
    browser = house.browser()
    browser.login()
    token = browser.get("/form").text
    page = "/echo?token=required"
    assert browser.post(f"{page}&csrf_token={token}", {"a": "1"}).status == 403
    cookies = f"{browser.cookie}={browser.token}; csrf_token={token}; X-CSRF-Token={token}"
    assert browser.post(page, {"a": "1"}, cookies=cookies).status == 403
    assert browser.post(page, {"a": "1"}, headers={"x-csrftoken": token, "x-xsrf-token": token}).status == 403
    refused = browser.post(page, {"csrf_token": token[:-1] + ("A" if token[-1] != "A" else "B")})
    assert (refused.status, refused.json()["error"], refused.cookies) == (403, "csrf", [])
    assert browser.post(page, {"a": "1", "csrf_token": token}).json()["form"]["a"] == "1"
    assert browser.post(page, {"csrf_token": token}, headers={"x-csrf-token": "bad"}).status == 200
    assert browser.post(page, {"csrf_token": "bad"}, headers={"x-csrf-token": token}).status == 200


def test_a_client_without_browser_headers_logs_in_by_the_token_in_a_header(house: House) -> None:
    """D59 (M4): of its own pre-session, which dies with the login, and the token with it."""
    browser = house.browser()
    token = browser.get("/form").text
    assert house.browser().post("/login", LOGIN, site=None, headers={"x-csrf-token": token}).status == 403
    assert browser.post("/login", {"user": "alice"}, site=None, headers={"x-csrf-token": token}).status == 303
    assert browser.post("/login", LOGIN, site=None, headers={"x-csrf-token": token}).status == 403
    assert browser.get("/me").json()["user"] == "alice"


def test_a_login_form_works_in_a_browser_whose_session_is_over(house: House) -> None:
    """M4, H3: no new session is laid over its cookie, so the token belongs to the cookie as it came."""
    browser = house.browser()
    browser.login()
    house.clock.wind(3601)
    page = browser.get("/form")
    assert page.cookies == []
    assert browser.post("/echo?token=required", {"csrf_token": page.text}).status == 200
    assert browser.post("/login", {"user": "alice", "csrf_token": page.text}, site=None).status == 303
    assert browser.post("/echo?token=required", {"csrf_token": page.text}).status == 403


# -- sockets -----------------------------------------------------------------------------------------------------------

OPENERS: dict[str, Headers] = {
    "evil": [("origin", EVIL)],
    "evil that says same-origin": [("origin", EVIL), ("sec-fetch-site", "same-origin")],
    "sibling": [("origin", SIBLING)],
    "http twin": [("origin", "http://testserver")],
    "another port": [("origin", f"{OURS}:8443")],
    "sandbox": [("origin", "null")],
    "two origins": [("origin", OURS), ("origin", EVIL)],
    "none": [],
    "none that says same-origin": [("sec-fetch-site", "same-origin")],
}


def denials(browser: Browser) -> dict[str, int | None]:
    """Return how each of the openers was denied; None: it was let in."""
    found: dict[str, int | None] = {}
    for opener, headers in OPENERS.items():
        socket = browser.connect("/ws", origin=None, headers=headers)
        found[opener] = None if socket.denial is None else socket.denial.status
        if socket.denial is None:
            socket.close()
        else:
            assert socket.denial.cookies == []
    return found


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_socket_is_opened_for_our_own_pages_only(build: Build, kind: str) -> None:
    """D63 (CSR-11, M8): also where a framework's own check is at work: none of them looks at a handshake."""
    house = build(kind, csrf="report")
    browser = house.browser()
    browser.login()
    house.trouble.calls.clear()
    assert denials(browser) == dict.fromkeys(OPENERS, 403)
    assert house.trouble.calls == []
    assert house.control.probe.late == []
    socket = browser.connect("/ws")
    assert socket.denial is None
    socket.send("hello")
    assert socket.receive() == "alice: hello"
    socket.close()


@pytest.mark.parametrize("csrf", ["refuse", "report"])
@pytest.mark.parametrize("kind", BLOCKING)
def test_a_handshake_that_a_server_shows_as_a_plain_get_is_judged_as_one(build: Build, kind: str, csrf: str) -> None:
    """D63 (CSR-11): gevent and Flask-Sock hand sockets to WSGI applications."""
    browser = build(kind, csrf=csrf).browser()
    browser.login()
    upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")]
    for opener, headers in OPENERS.items():
        answer = browser.get("/me", site=None, headers=[*upgrade, *headers])
        assert (opener, answer.status, answer.cookies) == (opener, 403, [])
    own = browser.get("/me", site=None, origin=OURS, headers=upgrade)
    assert own.status == (400 if kind == "flask" else 200), "Flask routes sockets to none of the probe's views"


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_trusted_site_may_open_a_socket(build: Build, kind: str) -> None:
    """CSR-11: and no other; here with csrf="refuse"."""
    browser = build(kind, trusted_origins=[SIBLING]).browser()
    browser.login()
    assert denials(browser) == {opener: None if opener == "sibling" else 403 for opener in OPENERS}
