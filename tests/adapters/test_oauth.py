"""Row 51 (F43): a login by OAuth, with authlib's own clients: the state lies in our session while the user is away.

The provider answers on a loopback port; the user comes back from it as browsers do: by a link, or by its form.
"""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from coatcheck import MemoryStore
from coatcheck.core.visit import ALL
from coatcheck.testing.browser import Browser, Driver, Received
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver

CALLBACK = "https://testserver/callback"
PROVIDER = "https://op.example"


class Provider(BaseHTTPRequestHandler):
    """The token endpoint: whoever brings a code gets a token that says it again."""

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        body = json.dumps({"access_token": form["code"][0], "token_type": "Bearer", "expires_in": 60}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def tokens() -> Iterator[str]:
    """Return the address of the provider's token endpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/token"
    server.shutdown()
    server.server_close()
    thread.join()


def registered(oauth: Any, tokens: str) -> Any:
    """Register the provider as its documentation says: code, PKCE, state in the session."""
    return oauth.register(
        name="op",
        client_id="shop",
        client_secret="of the shop",
        authorize_url=f"{PROVIDER}/authorize",
        access_token_url=tokens,
        client_kwargs={"code_challenge_method": "S256", "token_endpoint_auth_method": "client_secret_post"},
    )


def in_starlette(store: Any, tokens: str, **settings: Any) -> Driver:
    """Serve the login with authlib's client for Starlette."""
    from authlib.integrations.starlette_client import OAuth, OAuthError
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, RedirectResponse
    from starlette.routing import Route

    from coatcheck.adapters.starlette import SessionMiddleware, session_of

    client = registered(OAuth(), tokens)

    async def login(request: Any) -> Any:
        return await client.authorize_redirect(request, CALLBACK)

    async def callback(request: Any) -> Any:
        try:
            token = await client.authorize_access_token(request)
        except OAuthError as error:
            return JSONResponse({"error": error.error}, 400)
        session_of(request).login(token["access_token"])
        return RedirectResponse("/me", 303)

    async def passed_on(request: Any) -> Any:
        return RedirectResponse(f"/callback?{(await request.body()).decode()}", 303)

    async def me(request: Any) -> Any:
        session = session_of(request)
        return JSONResponse({"user": session.subject, "keys": sorted(session)})

    async def put(request: Any) -> Any:
        session_of(request)["cart"] = [7]
        return JSONResponse({})

    routes = [
        Route("/login", login),
        Route("/callback", callback, methods=["GET", "POST"]),
        Route("/from-provider", passed_on, methods=["POST"]),
        Route("/me", me),
        Route("/put", put),
    ]
    return AsgiDriver(Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, store=store, **settings)]))


def in_flask(store: Any, tokens: str, **settings: Any) -> Driver:
    """Serve the login with authlib's client for Flask."""
    import flask
    from authlib.integrations.flask_client import OAuth, OAuthError

    from coatcheck.adapters.flask import Coatcheck, session

    app = flask.Flask(__name__)
    Coatcheck(app, store=store, **settings)
    client = registered(OAuth(app), tokens)

    @app.get("/login")
    def login() -> Any:
        return client.authorize_redirect(CALLBACK)

    @app.route("/callback", methods=["GET", "POST"])
    def callback() -> Any:
        try:
            token = client.authorize_access_token()
        except OAuthError as error:
            return {"error": error.error}, 400
        session.login(token["access_token"])
        return flask.redirect("/me", 303)

    @app.post("/from-provider")
    def passed_on() -> Any:
        return flask.redirect(f"/callback?{flask.request.get_data(as_text=True)}", 303)

    @app.get("/me")
    def me() -> Any:
        return {"user": session.subject, "keys": sorted(session)}

    @app.get("/put")
    def put() -> Any:
        session["cart"] = [7]
        return {}

    return WsgiDriver(app)


SITES: dict[str, Callable[..., Driver]] = {"flask": in_flask, "starlette": in_starlette}
Build = Callable[..., Browser]


@pytest.fixture(params=SITES)
def build(request: pytest.FixtureRequest, tokens: str) -> Iterator[Build]:
    """Return a function that serves the application and returns a browser at it."""
    made: list[Driver] = []

    def serve(**settings: Any) -> Browser:
        made.append(SITES[request.param](MemoryStore(), tokens, **settings))
        return Browser(made[-1])

    yield serve
    for driver in made:
        driver.close()


def leaves(browser: Browser) -> str:
    """Go to the provider; return the state that it was given."""
    answer = browser.get("/login")
    address = answer.header("location") or ""
    assert (answer.status, address.partition("?")[0]) == (302, f"{PROVIDER}/authorize")
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    return asked["state"][0]


def comes_back(browser: Browser, state: str, code: str = "alice") -> Received:
    """Follow the provider's redirect: a navigation that another site began."""
    return browser.get(f"/callback?code={code}&state={state}", site="cross-site")


def test_a_user_comes_back_from_the_provider_and_is_logged_in(build: Build) -> None:
    browser = build()
    assert browser.get("/put").status == 200
    state = leaves(browser)
    assert comes_back(browser, state).status == 303
    assert browser.get("/me").json() == {"user": "alice", "keys": []}


def test_a_state_counts_once_and_in_its_own_browser(build: Build) -> None:
    one = build()
    two = one.twin()
    mine, theirs = leaves(one), leaves(two)
    assert comes_back(one, theirs).json() == {"error": "mismatching_state"}
    assert comes_back(one, mine).status == 303
    assert comes_back(one, mine).json() == {"error": "mismatching_state"}
    assert one.get("/me").json()["user"] == "alice"


def test_a_login_that_is_begun_again_in_another_tab_still_ends_well(build: Build) -> None:
    browser = build()
    first, second = leaves(browser), leaves(browser)
    assert first != second
    assert comes_back(browser, second).status == 303
    assert browser.get("/me").json()["user"] == "alice"


def test_a_planted_state_is_no_use_after_the_victims_login(build: Build) -> None:
    """Whoever plants an anonymous session began a login in it: its answer must not be taken by the victim's session."""
    attacker = build(carry=ALL)
    planted = leaves(attacker)
    victim = attacker.twin()
    assert comes_back(victim, leaves(victim), "victim").status == 303
    shown = victim.get("/me").json()
    assert shown == {"user": "victim", "keys": []}
    assert comes_back(victim, planted, "attacker").json() == {"error": "mismatching_state"}
    assert victim.get("/me").json()["user"] == "victim"


def by_form(browser: Browser, state: str, *, with_cookie: bool) -> Received:
    """Post the provider's form: browsers send no SameSite=Lax cookie with it."""
    more = {} if with_cookie else {"cookies": ""}
    fields = {"code": "alice", "state": state}
    return browser.post("/callback", fields, site="cross-site", origin=PROVIDER, **more)


def test_a_form_post_is_refused_and_ends_nothing(build: Build) -> None:
    """The documented refusal (docs/csrf.md): a form of another site, with our cookie or without."""
    browser = build()
    state = leaves(browser)
    for with_cookie in (False, True):
        answer = by_form(browser, state, with_cookie=with_cookie)
        assert (answer.status, answer.cookies) == (403, [])
    assert comes_back(browser, state).status == 303


def test_a_form_post_that_is_let_in_finds_no_state_but_loses_none(build: Build) -> None:
    """Exempt, it comes without the cookie: authlib says so, nobody is logged in, and the way by GET still works."""
    browser = build(csrf_exempt=["/callback"])
    state = leaves(browser)
    token = browser.token
    answer = by_form(browser, state, with_cookie=False)
    assert (answer.status, answer.json(), answer.cookies) == (400, {"error": "mismatching_state"}, [])
    assert browser.token == token
    assert comes_back(browser, state).status == 303


def test_a_form_that_is_passed_on_by_a_redirect_logs_in(build: Build) -> None:
    """What docs/csrf.md says to do where a provider knows forms only: browsers send our cookie with the GET."""
    browser = build(csrf_exempt=["/from-provider"])
    state = leaves(browser)
    token = browser.token
    fields = {"code": "alice", "state": state}
    answer = browser.post("/from-provider", fields, site="cross-site", origin=PROVIDER, cookies="")
    assert (answer.status, answer.cookies) == (303, [])
    assert browser.token == token
    assert browser.get(answer.header("location") or "", site="cross-site").status == 303
    assert browser.get("/me").json() == {"user": "alice", "keys": []}
