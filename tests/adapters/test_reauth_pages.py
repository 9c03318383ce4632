"""The page that asks for a proof while a session is in doubt: it reads `session.subject`, and requires no login.

A session is in doubt where a policy wants whoever presents it to authenticate again (docs/step-up.md). Then everything
that asks for a login leads to the login page; a login page that asks for one would lead to itself.
"""

from collections.abc import Callable
from typing import Annotated, Any

import flask
import pytest
from fastapi import Depends, FastAPI, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse

from coatcheck import GoTo, MemoryStore, Session
from coatcheck.adapters.asgi import SessionMiddleware
from coatcheck.adapters.fastapi import CurrentSession, RequireLogin
from coatcheck.adapters.flask import Coatcheck
from coatcheck.adapters.flask import session as flask_session
from coatcheck.detection import NetworkChanged, OnSignals
from coatcheck.testing.browser import Browser, Received
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver

HOME, ELSEWHERE = "192.0.2.7", "198.51.100.66"
SETTINGS: dict[str, Any] = {
    "origins": ["https://testserver"],
    "login_url": "/prove",
    "proof_pages": ["/prove"],
    "detectors": [NetworkChanged(60)],
    "policies": [OnSignals(step_up=50)],
}


def proved(session: Session, user: str, password: str, wanted: str | None) -> str | None:
    """Take a proof; return where it leads, or None: it is none, or somebody else's."""
    if password != "good" or session.subject not in (None, user):
        return None
    session.login(user)
    found = session.resume(wanted)
    assert isinstance(found, GoTo)
    return found.target


def flask_site() -> Browser:
    app = flask.Flask(__name__)
    Coatcheck(app, store=MemoryStore(), **SETTINGS)

    @app.get("/prove")
    def prove() -> str:
        return f"Is it you, {flask_session.subject}?" if flask_session.subject else "Who are you?"

    @app.post("/prove")
    def check() -> Any:
        form = flask.request.form
        onward = proved(flask_session, form["user"], form["password"], flask.request.args.get("next"))
        return flask.redirect(onward, 303) if onward else ("no", 403)

    @app.get("/loops")
    def loops() -> str:
        return flask_session.require_login()

    @app.get("/account")
    def account() -> str:
        return flask_session.require_login()

    return Browser(WsgiDriver(app))


def fastapi_site() -> Browser:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, store=MemoryStore(), **SETTINGS)
    logged_in = Annotated[Session, Depends(RequireLogin())]

    @app.get("/prove", response_class=HTMLResponse)
    async def prove(session: CurrentSession) -> str:
        return f"Is it you, {session.subject}?" if session.subject else "Who are you?"

    @app.post("/prove")
    async def check(
        session: CurrentSession,
        user: Annotated[str, Form()],
        password: Annotated[str, Form()],
        onward: Annotated[str | None, Query(alias="next")] = None,
    ) -> Any:
        found = proved(session, user, password, onward)
        return RedirectResponse(found, 303) if found else HTMLResponse("no", 403)

    @app.get("/loops")
    async def loops(session: logged_in) -> str | None:
        return session.subject

    @app.get("/account", response_class=HTMLResponse)
    async def account(session: logged_in) -> str | None:
        return session.subject

    return Browser(AsgiDriver(app))


def seen(browser: Browser, target: str, peer: str) -> Received:
    return browser.get(target, peer=peer, headers={"accept": "text/html"})


def handed(browser: Browser, target: str, user: str, password: str, peer: str) -> Received:
    return browser.post(target, {"user": user, "password": password}, peer=peer)


@pytest.mark.parametrize("site", [flask_site, fastapi_site])
def test_a_session_in_doubt_is_asked_on_a_page_that_reads_the_subject(site: Callable[[], Browser]) -> None:
    browser = site()
    first = seen(browser, "/account", HOME)
    assert (first.status, first.header("location")) == (303, "/prove?next=/account")
    assert seen(browser, "/prove", HOME).text == "Who are you?"
    assert handed(browser, "/prove?next=/account", "alice", "good", HOME).header("location") == "/account"
    assert seen(browser, "/account", HOME).text == "alice"
    before = browser.token

    doubted = seen(browser, "/account", ELSEWHERE)  # the owner travels, or somebody has the cookie: nobody knows
    onward = doubted.header("location") or ""
    assert (doubted.status, onward) == (303, "/prove?next=/account")
    looped = seen(browser, "/loops", ELSEWHERE)  # what a page that asks for a login would do
    assert (looped.status, looped.header("location")) == (303, "/prove?next=/loops")
    page = seen(browser, onward, ELSEWHERE)
    assert (page.status, page.text) == (200, "Is it you, alice?")
    assert page.header("content-security-policy") == "frame-ancestors 'none'"  # nobody frames that question

    assert handed(browser, onward, "alice", "bad", ELSEWHERE).status == 403
    assert handed(browser, onward, "mallory", "good", ELSEWHERE).status == 403  # another's proof answers nothing
    assert seen(browser, "/account", ELSEWHERE).status == 303
    assert browser.token == before

    assert handed(browser, onward, "alice", "good", ELSEWHERE).header("location") == "/account"
    assert seen(browser, "/account", ELSEWHERE).text == "alice"
    assert browser.token != before
