"""What is Tornado's own: `prepare`, flushes, its guards and XSRF check, unrouted paths, sockets."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, authenticated, stream_request_body
from tornado.websocket import WebSocketHandler

from coatcheck import ConfigError, MemoryStore, SessionManager, near
from coatcheck.adapters.tornado import SessionMixin, exchange_of, require_login, session_of, setup
from coatcheck.testing import Clock
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import until
from coatcheck.testing.flaky import FlakyStore
from coatcheck.testing.probe import Cart

from .loopback import LoopbackDriver, read
from .probe_tornado import Told, TornadoServer

RENEW = 16 * 60.0
HTML = {"accept": "text/html"}


class Login(Told, RequestHandler):
    """Logs alice in."""

    def post(self) -> None:
        """Log in."""
        self.session.login("alice")
        self.redirect("/me", status=303)

    get = post


class Me(Told, RequestHandler):
    """Says who is there."""

    def get(self) -> None:
        """Say it."""
        self.write({"user": self.session.subject, **self.session.copy()})

    post = get


class Home:
    """One application that is served, its store, and browsers."""

    def __init__(self, driver: LoopbackDriver, store: FlakyStore, clock: Clock, sessions: Any) -> None:
        """Hold them together."""
        self.driver, self.trouble, self.clock, self.sessions = driver, store.trouble, clock, sessions
        self.plain = store

    def browser(self, *, logged_in: bool = False) -> Browser:
        """Return a browser."""
        browser = Browser(self.driver)
        if logged_in:
            assert len(browser.post("/login").cookies) == 1
        return browser


@pytest.fixture
def serve() -> Iterator[Callable[..., Home]]:
    """Return a function that serves handlers, beside /login and /me."""
    made: list[LoopbackDriver] = []

    def build(*handlers: Any, options: dict[str, Any] | None = None, **settings: Any) -> Home:
        clock = Clock()
        store = FlakyStore(MemoryStore(clock=clock))
        app = Application([("/login", Login), ("/me", Me), *handlers], **(options or {}))
        # as setup does it without a clock of the tests
        unsafe = app.settings.get("xsrf_cookies") and "csrf" not in settings
        manager = SessionManager(clock=clock, **({"csrf": "report"} if unsafe else {}), **settings)
        sessions = setup(app, store=store, manager=manager, watch_every=0.05, watch_recheck=0.05)
        made.append(LoopbackDriver(TornadoServer(app)))
        return Home(made[-1], store, clock, sessions)

    yield build
    for driver in made:
        driver.close()


# -- prepare, and what follows it --------------------------------------------------------------------------------------


class Guarded(Told, RequestHandler):
    """A handler whose own prepare never calls ours."""

    ran: list[str]

    def initialize(self, ran: list[str]) -> None:
        """Take a list of what ran."""
        self.ran = ran

    def prepare(self) -> None:
        """Send strangers away."""
        if self.session.subject is None:
            self.session["next"] = "/guarded"
            self.redirect("/login", status=303)

    def get(self) -> None:
        """Answer."""
        self.ran.append("get")
        self.write("guarded")


def test_a_redirect_in_prepare_stops_the_handler_and_carries_the_cookie(serve: Callable[..., Home]) -> None:
    ran: list[str] = []
    browser = serve(("/guarded", Guarded, {"ran": ran})).browser()
    answer = browser.get("/guarded")
    assert (answer.status, answer.header("location"), len(answer.cookies), ran) == (303, "/login", 1, [])
    browser.post("/login")
    assert (browser.get("/guarded").text, ran) == ("guarded", ["get"])


def test_what_is_done_right_behind_an_answer_still_counts(serve: Callable[..., Home]) -> None:
    class Behind(Told, RequestHandler):
        """Finishes, then goes on, all in one turn of the loop."""

        def get(self) -> None:
            """Answer, then log in."""
            self.finish("done")
            self.session.login("bob")

        def on_finish(self) -> None:
            """Write."""
            self.session["finished"] = 1

    browser = serve(("/behind", Behind)).browser()
    assert len(browser.get("/behind").cookies) == 1
    assert browser.get("/me").json() == {"user": "bob"}


def test_what_on_finish_writes_is_kept(serve: Callable[..., Home]) -> None:
    class Behind(Told, RequestHandler):
        """Writes when it is finished."""

        def get(self) -> None:
            """Answer."""
            self.write("done")

        def on_finish(self) -> None:
            """Write."""
            self.session["finished"] = 1

    browser = serve(("/behind", Behind)).browser()
    browser.get("/behind")
    assert browser.get("/me").json() == {"user": None, "finished": 1}


def test_an_error_page_may_write(serve: Callable[..., Home]) -> None:
    class Odd(Told, RequestHandler):
        """Raises, and answers that itself."""

        def get(self) -> None:
            """Raise."""
            raise HTTPError(409)

        def write_error(self, status_code: int, **_kwargs: Any) -> None:
            """Answer."""
            self.session["flash"] = status_code
            self.finish("odd")

    browser = serve(("/odd", Odd)).browser()
    assert (browser.get("/odd").status, browser.get("/me").json()["flash"]) == (409, 409)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_unrouted_paths_pass_through_us(serve: Callable[..., Home]) -> None:
    browser = serve().browser(logged_in=True)
    assert browser.get("/nowhere").status == 404
    assert browser.post("/nowhere").status == 404
    assert browser.post("/nowhere", site="cross-site").status == 403


def test_a_handler_of_the_applications_own_for_unrouted_paths_stays(serve: Callable[..., Home]) -> None:
    options = {"default_handler_class": Me}
    assert serve(options=options).browser().get("/nowhere").json() == {"user": None}


def test_refusals_have_the_handlers_default_headers(serve: Callable[..., Home]) -> None:
    class Open(Me):
        """Lets another site's pages read."""

        def set_default_headers(self) -> None:
            """Say so."""
            self.set_header("Access-Control-Allow-Origin", "https://spa.example")

    answer = serve(("/open", Open)).browser().post("/open", site="cross-site")
    assert (answer.status, answer.header("access-control-allow-origin")) == (403, "https://spa.example")


def test_a_refused_upload_is_not_read(serve: Callable[..., Home]) -> None:
    seen: list[bytes] = []

    @stream_request_body
    class Upload(Told, RequestHandler):
        """Reads a body as it comes."""

        def data_received(self, chunk: bytes) -> None:
            """Keep it."""
            seen.append(chunk)

        def post(self) -> None:
            """Answer."""
            self.session["size"] = len(b"".join(seen))
            self.write("read")

    browser = serve(("/upload", Upload)).browser()
    assert browser.post("/upload", {"a": "1"}, site="cross-site").status == 403
    assert browser.post("/upload", {"a": "1"}).text == "read"
    assert browser.get("/me").json()["size"] == 3


class Guards(Told, RequestHandler):
    """Ours."""

    @require_login(within=timedelta(minutes=10))
    def get(self) -> None:
        """Answer."""
        self.write("recent")

    @require_login
    async def post(self) -> None:
        """Answer."""
        self.write("in")

    @require_login(fresh=True)
    async def put(self) -> None:
        """Answer."""
        self.write("fresh")


def test_our_guard_stands_before_methods_that_are_awaited_or_not(
    serve: Callable[..., Home], caplog: pytest.LogCaptureFixture
) -> None:
    home = serve(("/guards", Guards), login_url="/login")
    browser = home.browser()
    assert browser.get("/guards").json() == {"error": "login_required", "max_age": 600.0}
    assert browser.post("/guards").status == 401
    assert browser.get("/guards", headers=HTML).header("location") == "/login?next=/guards"
    assert "Refusal" not in caplog.text
    browser.post("/login")
    assert [browser.request(method, "/guards").text for method in ("GET", "POST", "PUT")] == ["recent", "in", "fresh"]
    home.clock.wind(601)
    assert browser.get("/guards").json()["error"] == "reauth_required"


def test_a_refusal_takes_back_what_the_handler_had_said(serve: Callable[..., Home]) -> None:
    class Hasty(Told, RequestHandler):
        """Speaks before it asks."""

        def get(self) -> None:
            """Speak, then ask."""
            self.set_header("X-Secret", "1")
            self.write("secret")
            self.session.require_login()

    answer = serve(("/hasty", Hasty)).browser().get("/hasty")
    assert (answer.status, answer.json(), answer.header("x-secret")) == (401, {"error": "login_required"}, None)


def test_tornados_own_guard_asks_our_session(serve: Callable[..., Home]) -> None:
    class Own(Told, RequestHandler):
        """Guarded by Tornado."""

        @authenticated
        def get(self) -> None:
            """Answer."""
            self.write(str(self.current_user))

    browser = serve(("/own", Own), options={"login_url": "/login"}).browser()
    assert browser.get("/own").header("location") == "/login?next=%2Fown"
    browser.post("/login")
    assert browser.get("/own").text == "alice"


def test_where_tornado_checks_forms_itself_we_only_report() -> None:
    assert setup(Application(xsrf_cookies=True), store=MemoryStore()).manager.settings.csrf == "report"
    assert setup(Application(cross_origin_protection=True), store=MemoryStore()).manager.settings.csrf == "report"
    assert setup(Application(xsrf_cookies=True), store=MemoryStore(), csrf="refuse").manager.settings.csrf == "refuse"
    assert setup(Application(), store=MemoryStore()).manager.settings.csrf == "refuse"


def test_a_form_of_tornados_own_is_checked_once(serve: Callable[..., Home]) -> None:
    class Form(Me):
        """Shows its token."""

        def get(self) -> None:
            """Show it."""
            self.write(self.xsrf_token)

    browser = serve(("/form", Form), options={"xsrf_cookies": True}).browser()
    token = browser.get("/form").text
    assert browser.post("/form", {"_xsrf": token}, site="cross-site").status == 200
    assert browser.post("/form", {"_xsrf": "bad"}).status == 403
    assert browser.post("/nowhere").status == 404


# -- what cannot be stored ---------------------------------------------------------------------------------------------


def test_a_stream_whose_start_cannot_be_stored_is_told_that_its_client_left(serve: Callable[..., Home]) -> None:
    told: list[str] = []

    class Stream(Told, RequestHandler):
        """Streams without waiting for its first flush."""

        async def get(self) -> None:
            """Write on."""
            self.session["a"] = 1
            self.write("secret")
            self.flush()
            self.write("secret too")
            for turn in ("waiting", "over"):
                try:
                    await self.flush()
                except StreamClosedError:
                    told.append(turn)
                self.write("more")

    home = serve(("/stream", Stream))
    home.trouble.fail("commit")
    answer = home.browser().get("/stream")
    assert (answer.status, answer.cookies, "secret" in answer.text) == (503, [], False)
    assert told == ["waiting", "over"]
    home.trouble.fail(None)
    assert home.browser().get("/stream").text == "secretsecret toomoremore"


def test_a_replaced_stream_leaves_its_connection_clean(serve: Callable[..., Home]) -> None:
    class Stream(Told, RequestHandler):
        """Writes on, whatever it is told."""

        async def get(self) -> None:
            """Write at once, and later."""
            self.session["a"] = 1
            self.write("secret")
            self.flush()
            self.write("secret too")
            self.flush()
            await asyncio.sleep(0.05)
            self.write("and more")

    home = serve(("/stream", Stream))
    home.trouble.fail("commit")
    with socket.create_connection(("127.0.0.1", home.driver.port), 5) as connection:
        stream = connection.makefile("rb")
        for path, status in (("/stream", 503), ("/me", 200)):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: testserver\r\n\r\n".encode())
            answer = read(stream, "GET", lambda _: None, last=False)
            assert (answer.status, "secret" in answer.text) == (status, False)
            time.sleep(0.1)
        stream.close()


def test_a_head_request_gets_no_body_either(serve: Callable[..., Home]) -> None:
    class Write(Told, RequestHandler):
        """Writes."""

        def head(self) -> None:
            """Write."""
            self.session["a"] = 1

    home = serve(("/write", Write))
    home.trouble.fail("commit")
    answer = home.browser().request("HEAD", "/write")
    assert (answer.status, answer.body) == (503, b"")


def test_what_cannot_be_kept_is_told_to_the_handlers_log(serve: Callable[..., Home]) -> None:
    told: list[str] = []

    class Odd(Told, RequestHandler):
        """Keeps what cannot be kept."""

        def get(self) -> None:
            """Keep it."""
            self.session["odd"] = object()
            self.write("secret")

        def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
            """Note it."""
            told.append(str(value))
            super().log_exception(typ, value, tb)

    answer = serve(("/odd", Odd)).browser().get("/odd")
    assert (answer.status, answer.cookies, "secret" in answer.text) == (500, [], False)
    assert len(told) == 1
    assert "odd" in told[0]


def test_a_logout_counts_though_the_handler_takes_the_connection_for_itself(serve: Callable[..., Home]) -> None:
    """Nothing is sent through us: what must hold is committed when the handler is done."""

    class Taken(Told, RequestHandler):
        """Answers by hand."""

        async def get(self) -> None:
            """Log out, and write to the stream."""
            self.session.logout()
            stream = self.detach()
            await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngone")
            stream.close()

    home = serve(("/taken", Taken))
    browser = home.browser(logged_in=True)
    assert browser.get("/taken").text == "gone"
    assert browser.get("/me").json()["user"] is None


def test_where_ours_is_off_tornado_judges_who_opens_a_socket(serve: Callable[..., Home]) -> None:
    class Chat(Told, WebSocketHandler):
        """Says nothing."""

    evil = "https://evil.example"
    for csrf, status in (("off", 403), ("report", 403)):
        browser = serve(("/ws", Chat), csrf=csrf).browser(logged_in=True)
        denial = browser.connect("/ws", origin=evil).denial
        assert denial is not None
        assert (csrf, denial.status) == (csrf, status)
        own = browser.connect("/ws")
        assert own.denial is None
        own.close()


# -- responses ---------------------------------------------------------------------------------------------------------


def test_a_page_that_did_not_change_renews_nothing(serve: Callable[..., Home]) -> None:
    home = serve()
    browser = home.browser(logged_in=True)
    tag = browser.get("/me").header("etag")
    assert tag is not None
    home.clock.wind(RENEW)
    answer = browser.get("/me", headers={"if-none-match": tag})
    assert (answer.status, answer.cookies) == (304, [])
    assert len(browser.get("/me").cookies) == 1


def test_compressed_pages_vary_by_both(serve: Callable[..., Home]) -> None:
    browser = serve(options={"compress_response": True}).browser()
    assert browser.get("/me").header("vary") == "Accept-Encoding, Cookie"


def test_an_event_stream_whose_session_ends_stops_its_handler(
    serve: Callable[..., Home], caplog: pytest.LogCaptureFixture
) -> None:
    stopped: list[str] = []

    class Events(Told, RequestHandler):
        """Waits for ever."""

        async def get(self) -> None:
            """Send one event, and wait."""
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            self.write("data: 1\n\n")
            await self.flush()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append("finally")

    home = serve(("/events", Events))
    browser = home.browser(logged_in=True)
    flight = browser.start("GET", "/events")
    assert flight.pending.chunk() == b"data: 1\n\n"
    home.driver.run(home.sessions.registry.revoke_all("alice"))
    assert flight.pending.chunk() is None
    assert (flight.wait().status, stopped) == (200, ["finally"])
    assert "Cannot send error response" not in caplog.text


# -- sockets -----------------------------------------------------------------------------------------------------------


class Chat(Told, WebSocketHandler):
    """A socket that writes wherever it can."""

    late: list[tuple[int | None, str | None]]

    def initialize(self, late: list[Any]) -> None:
        """Take a list for what comes late."""
        self.late = late

    def prepare(self) -> None:
        """Write, or log out."""
        if self.get_query_argument("logout", ""):
            self.session.logout()
        if self.get_query_argument("prepare", ""):
            self.session["prepare"] = 1

    async def open(self, *_args: str, **_kwargs: str) -> None:
        """Write."""
        self.session["open"] = 1

    def on_message(self, message: str | bytes) -> None:
        """Answer."""
        self.write_message(message)

    def on_close(self) -> None:
        """Write."""
        self.session["close"] = 1
        self.late.append((self.close_code, self.close_reason))


def test_what_a_socket_writes_at_its_ends_is_kept(serve: Callable[..., Home]) -> None:
    browser = serve(("/chat", Chat, {"late": []})).browser(logged_in=True)
    chat = browser.connect("/chat?prepare=1")
    chat.send("hello")
    assert chat.receive() == "hello"
    chat.close()
    assert browser.get("/me").json() == {"user": "alice", "prepare": 1, "open": 1, "close": 1}


def test_a_handshake_that_cannot_be_stored_is_a_503(serve: Callable[..., Home]) -> None:
    home = serve(("/chat", Chat, {"late": []}))
    browser = home.browser(logged_in=True)
    home.trouble.fail("commit")
    chat = browser.connect("/chat?prepare=1")
    assert chat.denial is not None
    assert chat.denial.status == 503


def test_a_socket_is_told_why_it_is_closed(serve: Callable[..., Home]) -> None:
    late: list[Any] = []
    home = serve(("/chat", Chat, {"late": late}))
    chat = home.browser(logged_in=True).connect("/chat")
    home.driver.run(home.sessions.registry.revoke_all("alice"))
    assert chat.receive() == 4401
    until(lambda: late)
    assert late == [(4401, "session ended: operator")]


def test_a_handshake_that_tornado_refuses_is_settled_once(serve: Callable[..., Home]) -> None:
    browser = serve(("/chat", Chat, {"late": []})).browser(logged_in=True)
    chat = browser.connect("/chat?logout=1", headers={"sec-websocket-version": "99"})
    assert chat.denial is not None
    assert chat.denial.status == 426
    assert browser.get("/me").json()["user"] is None


# -- set-up ------------------------------------------------------------------------------------------------------------


def test_a_handler_without_our_class_or_an_application_without_setup_says_so(serve: Callable[..., Home]) -> None:
    class Plain(RequestHandler):
        """Not ours."""

        def get(self) -> None:
            """Ask all the same."""
            with pytest.raises(ConfigError, match=re.escape("no session on /plain: was setup(app, store=...) called")):
                session_of(self)
            self.write("plain")

    assert serve(("/plain", Plain)).browser().get("/plain").text == "plain"


def test_an_application_without_setup_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    driver = LoopbackDriver(TornadoServer(Application([("/me", Me)])))
    assert Browser(driver).get("/me").status == 500
    assert "was setup(app, store=...) called" in caplog.text
    driver.close()


def test_an_excluded_path_has_no_session(serve: Callable[..., Home]) -> None:
    class Well(SessionMixin, RequestHandler):
        """Needs none."""

        def get(self) -> None:
            """Answer."""
            self.write("well")

    home = serve(("/all%20well", Well), exclude=["/all well"])
    browser = home.browser(logged_in=True)
    home.trouble.fail("load")
    assert browser.get("/all%20well").text == "well"


def test_what_contradicts_itself_is_refused() -> None:
    setup(app := Application(), store=MemoryStore())
    with pytest.raises(ConfigError, match="has its sessions already"):
        setup(app, store=MemoryStore())
    with pytest.raises(ConfigError, match="not both"):
        setup(Application(), store=MemoryStore(), manager=SessionManager(), realm="shop")


@pytest.mark.parametrize("ours", [True, False])
async def test_what_was_opened_by_url_is_closed(ours: bool) -> None:
    sessions = setup(Application(), store="memory://" if ours else MemoryStore())
    closed: list[str] = []

    async def close() -> None:
        closed.append("closed")

    sessions.store.close = close
    await sessions.shut()
    assert closed == ["closed"] * ours


def test_the_data_may_be_typed_and_the_exchange_saves_at_once(serve: Callable[..., Home]) -> None:
    class Full(Told, RequestHandler):
        """Saves, then fails."""

        async def get(self) -> None:
            """Save, and fail."""
            session_of(self, Cart).data.items.append(7)
            await exchange_of(self).save(self.session)
            raise HTTPError(500)

    browser = serve(("/full", Full)).browser(logged_in=True)
    assert browser.get("/full").status == 500
    assert browser.get("/me").json()["items"] == [7]


def test_a_near_copy_is_read_anew_where_that_is_asked_for() -> None:
    app = Application([("/login", Login), ("/guards", Guards)])
    setup(app, store=near(MemoryStore().as_async()))
    driver = LoopbackDriver(TornadoServer(app))
    browser = Browser(driver)
    browser.post("/login")
    browser.post("/guards")
    assert browser.request("PUT", "/guards").text == "fresh"
    driver.close()
