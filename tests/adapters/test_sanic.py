"""What is Sanic's own: respond and its middleware, error pages, guards, sockets, blueprints, tasks, its test client."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sanic import Blueprint, HTTPResponse, Request, Sanic, Websocket, empty, json, text
from sanic.exceptions import SanicException
from sanic.response import file_stream
from sanic.views import HTTPMethodView
from sanic_testing.testing import SanicASGITestClient

from coatcheck import AsyncRegistry, ConfigError, DataError, MemoryStore, Refusal, SessionManager, near
from coatcheck.adapters.sanic import Coatcheck, exchange_of, require_login, session_of
from coatcheck.testing import Clock, FlakyStore, sign_in
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import until
from coatcheck.testing.probe import Cart

from .probe_sanic import named
from .sanic_server import SanicServer

COOKIE = "__Host-coat"


def application(store: Any, app: Any = None, **how: Any) -> Any:
    """Return an application with a page of each kind."""
    app = app or named()
    Coatcheck(app, store=store, watch_every=0.05, watch_recheck=0.05, **how)

    @app.post("/login")
    async def login(request: Request) -> HTTPResponse:
        session_of(request).login("alice")
        return text("in")

    @app.post("/logout")
    def logout(request: Request) -> HTTPResponse:
        request.ctx.session.logout()
        return text("out")

    @app.get("/me")
    @require_login
    def me(request: Request) -> HTTPResponse:
        return text(str(session_of(request).subject))

    @app.get("/put")
    async def put(request: Request) -> HTTPResponse:
        session_of(request).update({name: values[0] for name, values in request.args.items()})
        return text("put")

    @app.get("/data")
    async def data(request: Request) -> HTTPResponse:
        return json(session_of(request).copy())

    return app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def served() -> Iterator[Callable[..., Browser]]:
    """Return a function that serves an application with Sanic's own server and returns a browser."""
    servers: list[SanicServer] = []

    def serve(app: Any, base: str = "https://testserver", cookie: str = COOKIE) -> Browser:
        servers.append(SanicServer(app))
        return Browser(servers[-1], base, cookie=cookie)

    yield serve
    for server in servers:
        server.close()


def login(browser: Browser) -> None:
    assert browser.post("/login").status == 200


def ended(store: MemoryStore) -> list[str | None]:
    async def found() -> list[str | None]:
        page = await AsyncRegistry(store.as_async()).find("alice", live=False)
        return [one.ended_because for one in page.items]

    return asyncio.run(found())


def test_login_and_logout(store: MemoryStore, served: Any) -> None:
    browser = served(application(store))
    refused = browser.get("/me")
    assert (refused.status, refused.all("content-type")) == (401, ["application/json"])
    login(browser)
    assert browser.get("/me").text == "alice"
    browser.post("/logout")
    assert browser.get("/me").status == 401
    assert ended(store) == ["logout"]


def test_a_login_can_be_required_recent_and_fresh(clock: Clock, served: Any) -> None:
    store = near(MemoryStore(clock=clock).as_async())
    app = application(store, manager=SessionManager(clock=clock, login_url="/login"))

    class Recent(HTTPMethodView):
        @require_login(within=timedelta(minutes=10))
        async def get(self, request: Request) -> HTTPResponse:
            return text(str(session_of(request).subject))

    app.add_route(Recent.as_view(), "/recent")

    @app.get("/fresh")
    @require_login(fresh=True)
    async def fresh(request: Request) -> HTTPResponse:
        return text(str(session_of(request).subject))

    browser = served(app)
    sent = browser.get("/me", headers={"Accept": "text/html"})
    assert (sent.status, sent.header("location")) == (303, "/login?next=/me")
    login(browser)
    for path in ("/recent", "/fresh", "/fresh"):
        assert browser.get(path).text == "alice"
    clock.wind(601)
    assert browser.get("/recent").status == 401


def test_typed_data_and_what_commits_at_once(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.get("/cart")
    async def cart(request: Request) -> HTTPResponse:
        typed = session_of(request, Cart)
        typed.data.items.append(7)
        return json(typed.data.items)

    @app.get("/count")
    async def counted(request: Request) -> HTTPResponse:
        return json(await exchange_of(request).bump(session_of(request), "n"))

    browser = served(app)
    assert [browser.get("/cart").json() for _ in range(2)] == [[7], [7, 7]]
    assert [browser.get("/count").json() for _ in range(2)] == [1, 2]


def test_response_middleware_that_answers_or_raises_takes_nothing_away(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.on_response(priority=5)
    def meddle(request: Request, response: HTTPResponse) -> HTTPResponse | None:
        if "swap" in request.args:
            return text("swapped", headers={"X-Swapped": "yes"})
        if "break" in request.args:
            raise ValueError
        return None

    browser = served(app)
    answer = browser.get("/put?swap=1")
    assert (answer.text, answer.header("x-swapped"), len(answer.cookies)) == ("swapped", "yes", 1)
    browser.get("/put?break=1")
    assert browser.get("/data").json() == {"swap": "1", "break": "1"}


@pytest.mark.parametrize("query", ["", "?swap=1"])
def test_a_commit_that_fails_replaces_what_was_streamed(store: MemoryStore, served: Any, query: str) -> None:
    flaky = FlakyStore(store)
    app = application(flaky)

    @app.on_response
    def swap(request: Request, _response: HTTPResponse) -> HTTPResponse | None:
        return HTTPResponse(content_type="text/plain") if "swap" in request.args else None

    @app.get("/stream")
    async def stream(request: Request) -> None:
        session_of(request).login("alice")
        response = await request.respond(content_type="text/plain")
        await response.send("secret")
        await response.eof()

    browser = served(app)
    flaky.trouble.fail("commit")
    answer = browser.get(f"/stream{query}")
    assert (answer.status, answer.cookies, "secret" in answer.text) == (503, [], False)


def test_a_logout_is_kept_when_the_handler_then_raises(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.get("/gone")
    async def gone(request: Request) -> None:
        session_of(request).logout()
        raise RuntimeError

    browser = served(app)
    login(browser)
    assert browser.get("/gone").status == 500
    assert ended(store) == ["logout"]


def test_an_error_page_after_respond_brings_the_cookie_still(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.get("/late")
    async def late(request: Request) -> None:
        session_of(request).login("alice")
        await request.respond(text("never sent"))
        message = "changed my mind"
        raise SanicException(message, status_code=409)

    browser = served(app)
    answer = browser.get("/late")
    assert (answer.status, len(answer.cookies)) == (409, 1)
    assert browser.get("/me").text == "alice"


def test_what_fails_in_the_middle_of_a_stream_keeps_what_was_written(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.get("/half")
    async def half(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send("half")
        session_of(request)["late"] = "kept"
        raise RuntimeError

    browser = served(app)
    browser.get("/put?k=v")
    browser.get("/half")
    assert browser.get("/data").json() == {"k": "v", "late": "kept"}


def test_what_a_client_left_is_ended_with_its_task(store: MemoryStore, served: Any) -> None:
    app = application(store)
    waiting = []

    @app.get("/slow")
    async def slow(request: Request) -> None:
        session_of(request).logout()
        session_of(request)["k"] = "dropped"
        waiting.append(request)
        await asyncio.Event().wait()

    browser = served(app)
    login(browser)
    flight = browser.start("GET", "/slow")
    until(lambda: waiting)
    flight.pending.disconnect()
    flight.wait()
    until(lambda: ended(store) == ["logout"])


def test_a_file_is_streamed_with_one_cookie(store: MemoryStore, served: Any, tmp_path: Path) -> None:
    app = application(store)
    (tmp_path / "page.txt").write_text("the page")

    @app.get("/file")
    async def page(request: Request) -> Any:
        session_of(request).login("alice")
        return await file_stream(tmp_path / "page.txt", headers={"X-Own": "yes"})

    browser = served(app)
    answer = browser.get("/file")
    assert (answer.text, len(answer.cookies), answer.header("x-own")) == ("the page", 1, "yes")
    assert browser.get("/me").text == "alice"


def test_a_response_object_that_is_sent_twice_brings_nobody_the_cookie_of_another(
    store: MemoryStore, served: Any
) -> None:
    app = application(store, exclude=["/plain"])
    shared = text("shared")
    shared.add_cookie("theme", "dark")

    @app.get("/shared")
    async def page(request: Request) -> HTTPResponse:
        if "in" in request.args:
            session_of(request).login("alice")
        return shared

    app.add_route(lambda _request: shared, "/plain")
    browser = served(app)
    names = [
        [cookie.partition("=")[0] for cookie in browser.get(target).cookies]
        for target in ("/shared?in=1", "/shared", "/shared?in=1", "/plain")
    ]
    assert names == [["theme", COOKIE], ["theme"], ["theme", COOKIE], ["theme"]]


def test_other_sites_are_refused_before_anything_runs_and_with_the_headers_of_response_middleware(
    store: MemoryStore, served: Any
) -> None:
    app = application(store, exclude=["/plain"])
    seen: list[str] = []
    app.register_middleware(lambda request: seen.append(request.path), "request", priority=99)
    app.register_middleware(
        lambda _, response: response.headers.update({"access-control-allow-origin": "*"}), "response"
    )
    browser = served(app)
    for path in ("/login", "/nowhere", "/plain"):
        answer = browser.post(path, site="cross-site", origin="https://evil.example")
        assert (answer.status, answer.header("access-control-allow-origin")) == (403, "*")
    assert seen == []
    assert browser.get("/nowhere").status == 404


def test_an_exception_handler_of_the_application_sees_refusals(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.exception(Refusal)
    async def please(_request: Request, refusal: Refusal) -> HTTPResponse:
        return text(f"please: {refusal.reason}", 401)

    assert served(app).get("/me").text == "please: login_required"


def test_an_excluded_path_has_no_session_and_says_so(store: MemoryStore, served: Any) -> None:
    app = application(store, exclude=["/data"])
    said: list[str] = []

    @app.exception(ConfigError)
    async def show(_request: Request, error: ConfigError) -> HTTPResponse:
        said.append(str(error))
        return empty()

    served(app).get("/data")
    assert "no session on /data" in said[0]


def test_an_applications_own_kind_of_request_keeps_its_ways(store: MemoryStore, served: Any) -> None:
    class Own(Request):
        @property
        def shout(self) -> str:
            return self.path.upper()

    app = application(store, named(request_class=Own))
    app.add_route(lambda request: text(request.shout + str(session_of(request).subject)), "/own")
    assert served(app).get("/own").text == "/OWNNone"


def test_a_kind_of_request_that_comes_later_is_refused(store: MemoryStore, served: Any) -> None:
    app = application(store)
    app.request_class = type("Later", (Request,), {})
    assert served(app).get("/data").status == 500


def test_blueprints_have_the_session_in_their_middleware(store: MemoryStore, served: Any) -> None:
    app = application(store)
    blue = Blueprint("blue", url_prefix="/blue")
    blue.on_request(lambda request: request.ctx.session.update(count=request.ctx.session.get("count", 0) + 1))
    blue.add_route(lambda request: json(session_of(request).copy()), "/count")
    app.blueprint(blue)
    browser = served(app)
    browser.get("/blue/count")
    assert browser.get("/blue/count").json() == {"count": 2}


def test_a_background_task_saves_for_itself(store: MemoryStore, served: Any) -> None:
    app = application(store)

    async def work(request: Request, exchange: Any) -> None:
        session_of(request)["work"] = "done"
        await exchange.save(session_of(request))

    @app.get("/work")
    async def begin(request: Request) -> HTTPResponse:
        request.app.add_task(work(request, exchange_of(request)))
        return text("soon")

    browser = served(app)
    browser.get("/put?k=v")
    browser.get("/work")
    until(lambda: browser.get("/data").json() == {"k": "v", "work": "done"})


def socketed(store: Any) -> Any:
    app = application(store)

    @app.on_request
    async def before(request: Request) -> None:
        session = session_of(request)
        if "write" in request.args:
            session["early"] = "written"
        if "login" in request.args:
            session.login("bob")

    @app.websocket("/ws")
    @require_login
    async def chat(request: Request, websocket: Websocket) -> None:
        said = await websocket.recv()
        session_of(request)["said"] = said
        if said == "break":
            raise ValueError
        await websocket.send(f"{session_of(request).subject} {said}")

    return app


def test_a_socket_needs_its_login(store: MemoryStore, served: Any) -> None:
    browser = served(socketed(store))
    assert browser.connect("/ws").receive() == 1008
    login(browser)
    socket = browser.connect("/ws")
    socket.send("hello")
    assert socket.receive() == "alice hello"
    assert socket.receive() == 1000


def test_what_a_socket_wrote_is_kept_when_its_handler_raises(store: MemoryStore, served: Any) -> None:
    browser = served(socketed(store))
    login(browser)
    socket = browser.connect("/ws")
    socket.send("break")
    assert socket.receive() == 1000
    socket.close()
    assert browser.get("/data").json() == {"said": "break"}


def test_a_handshake_keeps_what_needs_no_cookie_and_drops_the_rest(store: MemoryStore, served: Any) -> None:
    browser = served(socketed(store))
    assert browser.connect("/ws?write=1").receive() == 1008
    login(browser)
    assert browser.get("/data").json() == {}
    browser.connect("/ws?write=1").close()
    assert browser.get("/data").json() == {"early": "written"}
    browser.connect("/ws?login=1").close()
    assert browser.get("/me").text == "alice"


def test_a_socket_that_only_sends_is_stopped_with_its_session(store: MemoryStore, served: Any) -> None:
    """It asks for no message, so nothing else would tell it."""
    app = application(store)
    left: list[str] = []

    @app.websocket("/news")
    async def news(request: Request, websocket: Websocket) -> None:
        await websocket.send(str(session_of(request).subject))
        try:
            await asyncio.Event().wait()
        finally:
            left.append("stopped")

    browser = served(app)
    login(browser)
    socket = browser.connect("/news")
    assert socket.receive() == "alice"
    browser.post("/logout")
    assert socket.receive() == 4401
    until(lambda: left == ["stopped"])


def test_a_handshake_that_cannot_be_stored_is_closed(store: MemoryStore, served: Any) -> None:
    flaky = FlakyStore(store)
    browser = served(socketed(flaky))
    login(browser)
    flaky.trouble.fail("commit")
    assert browser.connect("/ws?write=1").receive() == 1013


def test_a_stream_ends_with_its_session_though_its_client_reads_on(store: MemoryStore, served: Any) -> None:
    app = application(store)
    left = []

    @app.get("/events")
    @require_login
    async def events(request: Request) -> None:
        response = await request.respond(content_type="text/event-stream")
        await response.send("data: one\n\n")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.append("cancelled")
            raise

    browser = served(app)
    login(browser)
    flight = browser.start("GET", "/events")
    assert flight.pending.chunk() == b"data: one\n\n"
    browser.post("/logout")
    assert flight.pending.chunk() is None
    until(lambda: left == ["cancelled"])


def test_an_application_has_its_sessions_once(store: MemoryStore) -> None:
    app = application(store)
    with pytest.raises(ConfigError, match="once for each"):
        Coatcheck(app, store=store)
    with pytest.raises(ConfigError, match="not both"):
        Coatcheck(store=store, manager=SessionManager(), csrf="off")


def sign_alice_in(request: Request) -> HTTPResponse:
    session_of(request).login("alice")
    return text("in")


def who(request: Request) -> HTTPResponse:
    return text(str(session_of(request).subject))


def test_applications_of_one_process_share_a_store_or_do_not(served: Any) -> None:
    shared = Coatcheck(store=MemoryStore())
    apps = []
    for _ in range(2):
        app = named()
        shared.init_app(app)
        app.add_route(sign_alice_in, "/login", methods=["POST"])
        app.add_route(who, "/me")
        apps.append(app)
    one, other = (served(app) for app in apps)
    alone = served(application(MemoryStore()))
    login(one)
    other.jar = alone.jar = one.jar
    assert (other.get("/me").text, alone.get("/me").status) == ("alice", 401)


def test_a_store_given_as_a_url_is_closed_when_the_server_stops(tmp_path: Path) -> None:
    app = application(f"sqlite:///{tmp_path}/sessions.db")
    closed: list[str] = []
    close = app.ctx.coatcheck.store.close

    async def closing() -> None:
        closed.append("closed")
        await close()

    app.ctx.coatcheck.store.close = closing
    server = SanicServer(app)
    login(Browser(server, "https://testserver", cookie=COOKIE))
    server.close()
    assert closed == ["closed"]


async def test_its_test_client_over_asgi(store: MemoryStore) -> None:
    app = application(store)
    async with SanicASGITestClient(app) as client:
        await client.post("https://testserver/login", headers={"Sec-Fetch-Site": "same-origin"})
        _, answer = await client.get("https://testserver/me")
        assert answer.text == "alice"
    Sanic.unregister_app(app)


def test_its_test_client_with_a_server_of_its_own(store: MemoryStore) -> None:
    app = application(store, allow_insecure_http=True)
    name, value = sign_in(store, "alice", manager=SessionManager(allow_insecure_http=True))
    _, answer = app.test_client.get("/me", headers={"Cookie": f"{name}={value}"})
    assert answer.text == "alice"
    with contextlib.suppress(Exception):
        Sanic.unregister_app(app)


def test_a_login_whose_client_left_is_none_and_a_late_write_of_a_stream_that_it_left_is_kept(
    store: MemoryStore, served: Any
) -> None:
    app = application(store)
    waiting: list[Request] = []

    @app.get("/login-slowly")
    async def login_slowly(request: Request) -> None:
        session_of(request).login("alice")
        waiting.append(request)
        await asyncio.Event().wait()

    @app.get("/stream")
    async def stream(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send("one")
        session_of(request)["late"] = "kept"
        await asyncio.Event().wait()

    browser = served(app)
    flight = browser.start("GET", "/login-slowly")
    until(lambda: waiting)
    flight.pending.disconnect()
    flight.pending.result()
    assert ended(store) == []
    browser.get("/put?k=v")
    flight = browser.start("GET", "/stream")
    assert flight.pending.chunk() == b"one"
    flight.pending.disconnect()
    flight.pending.result()
    until(lambda: browser.get("/data").json() == {"k": "v", "late": "kept"})


def test_a_handler_that_will_not_be_cancelled_logs_nobody_in_whose_client_left(store: MemoryStore, served: Any) -> None:
    """The cookie would reach nobody, and the login would end the session that its browser still has."""
    app = application(store)
    done: list[Request] = []

    @app.post("/login-stubbornly")
    async def login_stubbornly(request: Request) -> HTTPResponse:
        session_of(request).login("alice", level=20)
        with contextlib.suppress(asyncio.CancelledError):
            done.append(request)
            await asyncio.Event().wait()
        done.append(request)
        return text("in")

    browser = served(app)
    login(browser)
    flight = browser.start("POST", "/login-stubbornly")
    until(lambda: done)
    flight.pending.disconnect()
    flight.wait()
    until(lambda: len(done) == 2)
    assert browser.get("/me").text == "alice"
    assert ended(store) == [None]


def test_an_error_page_for_what_cannot_be_kept_is_sent_and_the_logout_counts(store: MemoryStore, served: Any) -> None:
    app = application(store)

    @app.get("/odd")
    async def odd(request: Request) -> HTTPResponse:
        session_of(request).logout()
        session_of(request)["odd"] = object()
        return text("secret")

    @app.exception(DataError)
    async def sorry(_request: Request, _error: DataError) -> HTTPResponse:
        return text("sorry", 500)

    browser = served(app)
    login(browser)
    answer = browser.get("/odd")
    assert (answer.status, answer.text) == (500, "sorry")
    assert ended(store) == ["logout"]
