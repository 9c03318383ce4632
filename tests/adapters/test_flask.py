"""What is Flask's own: its settings, flash, hooks, blueprints, streams, test client, commands, and Flask-Login."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import flask
import flask_login
import pytest
from flask.sessions import SessionMixin
from flask_wtf import CSRFProtect
from flask_wtf.csrf import generate_csrf

from coatcheck import ALL, ConfigError, MemoryStore, Refusal, Registry, Sealed, SessionManager, Timeouts
from coatcheck.adapters import wsgi
from coatcheck.adapters.flask import (
    Coatcheck,
    FlaskSession,
    coatcheck_ended,
    exchange_of,
    require_login,
    session,
    session_of,
)
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock, FlakyStore, sign_in
from coatcheck.testing.probe import Cart

EVIL = {"Sec-Fetch-Site": "cross-site"}
NAMED = {"SESSION_COOKIE_NAME": "__Secure-a", "COATCHECK_COOKIE_REASON": "a test"}


class User(flask_login.UserMixin):
    """Anybody; its id is its name."""

    def __init__(self, name: str) -> None:
        self.id = name


def application(store: Any, config: dict[str, Any] | None = None, **how: Any) -> flask.Flask:
    """Return an application with a page of each kind."""
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="only for Flask-Login", **(config or {}))
    Coatcheck(app, store=store, **how)

    @app.post("/login")
    def login() -> str:
        flask.flash("welcome", "good")
        session.login("alice")
        return "in"

    @app.post("/logout")
    def logout() -> str:
        session.logout()
        return "out"

    @app.get("/me")
    @require_login
    def me() -> str:
        return str(flask.session.get("who", session.subject))

    @app.get("/recent")
    @require_login(within=timedelta(minutes=10))
    async def recent() -> str:
        return str(session.subject)

    @app.get("/put")
    def put() -> str:
        flask.session.update(flask.request.args)
        return "put"

    @app.get("/data")
    def data() -> dict[str, Any]:
        return session.copy()

    @app.get("/messages")
    def messages() -> flask.Response:
        return flask.jsonify(flask.get_flashed_messages(with_categories=True))

    @app.get("/permanent")
    def permanent() -> list[bool]:
        before = session.permanent
        session.permanent = "off" not in flask.request.args
        session["k"] = "v"
        return [before, session.permanent]

    @app.get("/gone")
    def gone() -> str:
        session.logout()
        raise RuntimeError

    return app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def make(store: Any, clock: Clock) -> Callable[..., flask.Flask]:
    """Return a function that builds the application with a manager of the test's clock."""

    def build(**settings: Any) -> flask.Flask:
        return application(store, manager=SessionManager(clock=clock, **settings))

    return build


def client_of(app: flask.Flask) -> Any:
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    return client


def cookies(answer: Any) -> list[str]:
    return answer.headers.getlist("Set-Cookie")


# -- the face ----------------------------------------------------------------------------------------------------------


def test_the_session_is_what_flask_expects(make: Any) -> None:
    with make().test_request_context("/"):
        here = flask.session._get_current_object()
        assert isinstance(here, SessionMixin)
        assert isinstance(here, FlaskSession)
        assert (here.accessed, here.modified, here.new) == (False, False, True)
        flask.session["k"] = [1]
        assert (here.modified, here.accessed) == (True, True)
        assert session.get("k") == [1]
        assert session_of(flask.request) is here


def test_passing_the_session_along_is_no_look(make: Any) -> None:
    app = make()

    @app.get("/passes")
    def passes() -> str:
        return flask.render_template_string("{{ request.path }}")

    assert "Vary" not in client_of(app).get("/passes").headers


def test_modified_can_be_said_and_costs_nothing_where_nothing_changed(make: Any, store: Any) -> None:
    app = make()

    @app.get("/says")
    def says() -> str:
        session.modified = True
        session.modified = False
        return str(session.modified)

    client = client_of(app)
    client.get("/put?a=1")
    (before,) = Registry(store).find().items
    assert client.get("/says").text == "True"
    assert Registry(store).find().items == (before,)


def test_typed_data(make: Any) -> None:
    app = make()

    @app.get("/cart")
    def cart() -> list[int]:
        typed = session_of(flask.request, Cart)
        typed.data.items.append(7)
        return typed.data.items

    client = client_of(app)
    client.get("/cart")
    assert client.get("/cart").json == [7, 7]


def test_the_exchange_counts_at_once(make: Any) -> None:
    app = make()

    @app.get("/count")
    def count() -> str:
        return str(exchange_of(flask.request).bump(session, "n"))

    client = client_of(app)
    client.get("/count")
    client.get("/count")
    assert client.get("/count").text == "3"


# -- permanent, and Flask's settings -----------------------------------------------------------------------------------


def test_a_permanent_session_outlives_the_browser_as_long_as_the_policy_allows(make: Any, store: Any) -> None:
    client = client_of(make(timeouts=Timeouts(remember=40 * 86400.0)))
    answer = client.get("/permanent")
    assert answer.json == [False, True]
    assert f"Max-Age={40 * 86400}" in cookies(answer)[0]
    (record,) = Registry(store).find().items
    assert (record.persistent, record.idle_for) == (True, 14 * 86400.0)
    again = client.get("/permanent")
    assert (again.json, cookies(again)) == ([True, True], [])
    assert client.get("/permanent?off=1").json == [True, False]
    assert not Registry(store).find().items[0].persistent
    assert Registry(store).find().items[0].version == 2  # saying it twice is no second write


def test_permanent_after_a_login_and_after_a_logout(make: Any) -> None:
    with make().test_request_context("/"):
        session.login("alice", remember=True)
        assert session.permanent
        session.logout()
        assert not session.permanent


@pytest.mark.parametrize(
    ("config", "attribute"),
    [
        ({"SESSION_COOKIE_NAME": "__Host-shop"}, "__Host-shop="),
        ({"SESSION_COOKIE_SAMESITE": "strict"}, "SameSite=Strict"),
        ({"SESSION_COOKIE_PARTITIONED": True}, "Partitioned"),
        ({**NAMED, "SESSION_COOKIE_PATH": "/shop"}, "Path=/shop"),
        ({**NAMED, "SESSION_COOKIE_DOMAIN": "localhost.test"}, "Domain=localhost.test"),
        ({"SESSION_COOKIE_SECURE": True}, "Secure"),
        ({"COATCHECK_NAME": "__Host-own"}, "__Host-own="),
        ({"COATCHECK_ALLOW_INSECURE_HTTP": True}, "coat-insecure="),
    ],
)
def test_a_setting_of_flasks_or_of_ours_is_honoured(store: Any, config: dict[str, Any], attribute: str) -> None:
    assert attribute in cookies(client_of(application(store, config)).get("/put?a=1"))[0]


@pytest.mark.parametrize(
    ("config", "how", "named"),
    [
        ({"SESSION_COOKIE_HTTPONLY": False}, {}, "SESSION_COOKIE_HTTPONLY"),
        ({"SESSION_REFRESH_EACH_REQUEST": False}, {}, "SESSION_REFRESH_EACH_REQUEST"),
        ({"SESSION_COOKIE_SECURE": True, "COATCHECK_ALLOW_INSECURE_HTTP": True}, {}, "SESSION_COOKIE_SECURE"),
        ({"SESSION_COOKIE_NAME": "mine"}, {}, "'mine'"),
        ({"SESSION_COOKIE_NAME": "__Host-a"}, {"name": "__Host-b"}, "SESSION_COOKIE_NAME"),
        ({"SESSION_COOKIE_DOMAIN": "shop.example"}, {}, "Domain"),
        ({"PERMANENT_SESSION_LIFETIME": timedelta(days=500)}, {}, "PERMANENT_SESSION_LIFETIME"),
        ({"PERMANENT_SESSION_LIFETIME": timedelta(days=7)}, {"timeouts": "pci"}, "PERMANENT_SESSION_LIFETIME"),
        ({"COATCHECK_NAEM": "x"}, {}, "'naem'; did you mean 'name'"),
        ({"COATCHECK_NAME": "__Host-a"}, {"manager": SessionManager()}, "not both"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(config: dict[str, Any], how: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        application(MemoryStore(), config, **how)


@pytest.mark.parametrize(
    ("lifetime", "clocks"),
    [
        (timedelta(days=31), Timeouts()),  # Flask's default says nothing
        (1800, Timeouts(idle=1800.0)),
        (timedelta(days=60), Timeouts(remember=60 * 86400.0, remember_idle=60 * 86400.0)),
    ],
)
def test_the_permanent_lifetime_becomes_a_clock(lifetime: Any, clocks: Timeouts) -> None:
    app = application(MemoryStore(), {"PERMANENT_SESSION_LIFETIME": lifetime})
    assert app.extensions["coatcheck"].manager.clocks == clocks


def test_the_configuration_names_the_store(tmp_path: Any) -> None:
    app = application(MemoryStore(), {"COATCHECK_STORE": f"sqlite:///{tmp_path}/sessions.db"})
    assert isinstance(app.extensions["coatcheck"].store, SqliteStore)


def test_a_store_is_needed() -> None:
    with pytest.raises(ConfigError, match="store"):
        Coatcheck(flask.Flask(__name__))


def test_an_application_has_one_kind_of_session() -> None:
    app = application(MemoryStore())
    with pytest.raises(ConfigError, match="once for each"):
        Coatcheck(app, store=MemoryStore())
    other = flask.Flask(__name__)
    other.session_interface = type("Own", (flask.sessions.SessionInterface,), {})()
    with pytest.raises(ConfigError, match="found Own"):
        Coatcheck(other, store=MemoryStore())
    with other.app_context(), pytest.raises(ConfigError, match="no sessions of ours"):
        _ = Coatcheck().registry


def test_one_extension_serves_two_applications() -> None:
    stores = [MemoryStore(), MemoryStore()]
    extension = Coatcheck()
    apps = []
    for store in stores:
        app = flask.Flask(__name__)
        app.config["COATCHECK_STORE"] = store
        extension.init_app(app)
        app.add_url_rule("/in", "in", lambda: session.login("alice") or "in", methods=["POST"])
        apps.append(app)
    client_of(apps[0]).post("/in")
    with apps[0].app_context():
        assert len(extension.registry.find("alice").items) == 1
    with apps[1].app_context():
        assert len(extension.registry.find("alice").items) == 0


# -- hooks, errors, refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/nowhere"])
def test_a_refusal_passes_the_hooks_after_and_nothing_before(make: Any, path: str) -> None:
    app = make()
    seen: list[str] = []
    app.before_request(lambda: seen.append("before"))

    @app.after_request
    def cors(response: flask.Response) -> flask.Response:
        response.headers["Access-Control-Allow-Origin"] = "https://spa.example"
        return response

    answer = app.test_client().post(path, headers=EVIL)
    assert (answer.status_code, seen) == (403, [])
    assert answer.headers["Access-Control-Allow-Origin"] == "https://spa.example"


def test_a_refusal_comes_before_hooks_that_were_there_before_us() -> None:
    app = flask.Flask(__name__)
    seen: list[str] = []
    app.before_request(lambda: seen.append("before"))
    Coatcheck(app, store=MemoryStore())
    assert app.test_client().post("/", headers=EVIL).status_code == 403
    assert seen == []


def test_a_refusal_holds_whoever_came_before_us(make: Any) -> None:
    app = make()
    app.before_request_funcs[None].insert(0, lambda: "early")
    answer = app.test_client().post("/login", headers=EVIL)
    assert (answer.status_code, "another site" in answer.text) == (403, True)


def test_an_error_handler_of_the_application_sees_refusals(make: Any) -> None:
    app = make()
    app.register_error_handler(Refusal, lambda refusal: (f"please: {refusal.reason}", 401))
    assert client_of(app).get("/me").text == "please: login_required"


def test_a_handler_that_was_there_first_stays() -> None:
    app = flask.Flask(__name__)
    app.register_error_handler(Refusal, lambda _: ("mine", 418))
    Coatcheck(app, store=MemoryStore())
    app.add_url_rule("/", "home", require_login(lambda: "in"))
    assert app.test_client().get("/").text == "mine"


def test_a_login_can_be_required_and_recent(make: Any, clock: Clock) -> None:
    client = client_of(make(login_url="/login"))
    assert client.get("/me").status_code == 401
    sent = client.get("/me", headers={"Accept": "text/html"})
    assert (sent.status_code, sent.location) == (303, "/login?next=/me")
    client.post("/login")
    assert (client.get("/me").text, client.get("/recent").text) == ("alice", "alice")
    clock.wind(601)
    assert (client.get("/me").text, client.get("/recent").status_code) == ("alice", 401)


@pytest.mark.parametrize("hook", ["after", "teardown", "view", "exit"])
@pytest.mark.parametrize("propagate", [False, True])
def test_a_logout_is_kept_whatever_breaks_after_it(make: Any, store: Any, hook: str, propagate: bool) -> None:
    app = make()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    client = client_of(app)

    def broken(*_: Any) -> Any:
        raise SystemExit if hook == "exit" else RuntimeError

    client.post("/login")
    if hook == "after":
        app.after_request_funcs.setdefault(None, []).append(broken)
    elif hook == "teardown":
        app.teardown_request_funcs.setdefault(None, []).append(broken)
    elif hook == "exit":
        app.before_request_funcs[None].append(lambda: session.logout() or broken())
    with contextlib.suppress(RuntimeError, SystemExit):
        client.get("/gone")
    (record,) = Registry(store).find("alice", live=False).items
    assert record.ended_because == "logout"


def test_an_error_after_the_session_was_saved_gets_the_same_cookie(make: Any, store: Any) -> None:
    app = make()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    broken: list[Any] = [1]

    def once(*_: Any, **__: Any) -> None:
        if broken:
            broken.pop()
            raise RuntimeError

    flask.request_finished.connect(once, app)
    client = client_of(app)
    answer = client.post("/login")
    assert (answer.status_code, len(cookies(answer))) == (500, 1)
    assert client.get("/me").text == "alice"
    assert len(Registry(store).find("alice").items) == 1


def test_a_failed_commit_replaces_a_file_and_a_stream(clock: Clock) -> None:
    store = FlakyStore(MemoryStore(clock=clock))
    app = application(store, manager=SessionManager(clock=clock))
    closed: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[str]:
            return iter(["one", "secret"])

        def close(self) -> None:
            closed.append("body")

    @app.get("/stream")
    def stream() -> flask.Response:
        session["k"] = "v"
        return flask.Response(Body(), headers={"X-Own": "1"})

    @app.get("/file")
    def file() -> flask.Response:
        session["k"] = "v"
        return flask.send_file(__file__)

    store.trouble.fail("commit")
    for path in ("/stream", "/file"):
        answer = client_of(app).get(path)
        assert (answer.status_code, cookies(answer)) == (503, [])
        assert answer.headers["Retry-After"]
        assert "X-Own" not in answer.headers
        assert "does not answer" in answer.text
    assert closed == ["body"]


# -- what Flask people do ----------------------------------------------------------------------------------------------


def test_messages_survive_the_login_and_are_shown_once() -> None:
    client = client_of(application(MemoryStore()))
    client.post("/login")
    assert client.get("/messages").json == [["good", "welcome"]]
    assert client.get("/messages").json == []


@pytest.mark.parametrize(
    ("carry", "moved"),
    [(set(), False), ({"cart"}, True), ({"cart": lambda value: value == "7"}, True), (ALL, True)],
)
def test_flasks_own_keys_move_beside_those_that_are_named(carry: Any, moved: bool) -> None:
    app = application(MemoryStore(), carry=carry)
    app.add_url_rule("/flash", "flash", lambda: flask.flash("kept") or "")
    client = client_of(app)
    client.get("/put?cart=7")
    client.get("/flash")
    client.post("/login")
    assert ("cart" in client.get("/data").json) is moved
    assert ["message", "kept"] in client.get("/messages").json


def test_a_stream_reads_and_writes(make: Any) -> None:
    app = make()

    @app.get("/stream")
    def stream() -> flask.Response:
        @flask.stream_with_context
        def chunks() -> Iterator[str]:
            yield "one "
            yield str(flask.session.pop("note"))
            flask.session["late"] = "kept"

        return flask.Response(chunks())

    client = client_of(app)
    client.get("/put?note=two")
    assert client.get("/stream", buffered=True).text == "one two"  # a client that closes what it read, as servers do
    assert client.get("/data").json == {"late": "kept"}


def test_teardown_may_still_write(make: Any) -> None:
    app = make()
    client = client_of(app)
    client.get("/put?a=1")
    app.teardown_request_funcs[None] = [lambda _: session.update(torn="down")]
    client.get("/messages", buffered=True)
    app.teardown_request_funcs.clear()
    assert client.get("/data").json == {"a": "1", "torn": "down"}


def test_a_blueprint_has_the_same_session(make: Any) -> None:
    app = make()
    blueprint = flask.Blueprint("shop", __name__, url_prefix="/shop")
    blueprint.add_url_rule("/cart", "cart", lambda: str(session["a"]))
    app.register_blueprint(blueprint)
    client = client_of(app)
    client.get("/put?a=1")
    assert client.get("/shop/cart").text == "1"


def test_an_excluded_path_has_no_session_and_says_so(make: Any) -> None:
    app = make(exclude=["/plain"])
    app.config["PROPAGATE_EXCEPTIONS"] = True
    touches: dict[str, Callable[[], Any]] = {
        "get": lambda: flask.session.get("k"),
        "in": lambda: "k" in flask.session,
        "set": lambda: flask.session.update(k=1),
        "bool": lambda: str(bool(flask.session)),
        "login": lambda: session.login("alice"),
        "of": lambda: session_of(flask.request),
        "permanent": lambda: session.permanent,
    }
    app.add_url_rule("/plain/<how>", "plain", lambda how: touches[how]() if how in touches else "well")
    app.add_url_rule("/plain/post", "post", lambda: "well", methods=["POST"])
    client = client_of(app)
    assert client.get("/plain/none").text == "well"
    assert client.post("/plain/post", headers=EVIL).status_code == 403
    for how in touches:
        with pytest.raises(ConfigError, match=f"no session on /plain/{how}"):
            client.get(f"/plain/{how}")
    with app.test_request_context("/plain/x"):
        assert not hasattr(flask.session, "cart")


def test_a_signal_tells_of_every_end(make: Any, store: Any, clock: Clock) -> None:
    app = make()
    heard: list[tuple[Any, ...]] = []

    def hear(sender: Any, **what: Any) -> None:
        heard.append((sender, what["reason"], what["subject"], what["handle"]))

    client = client_of(app)
    with coatcheck_ended.connected_to(hear, sender=app):
        client.post("/login")
        (first,) = Registry(store).find("alice").items
        clock.wind(3601)
        client.get("/data")
        client.post("/login")
        (second,) = Registry(store).find("alice").items
        client.post("/logout")
        client.post("/login")
        (third,) = Registry(store).find("alice").items
        client.get("/gone")
    assert heard == [
        (app, "idle", "alice", first.handle),
        (app, "idle", "alice", first.handle),  # the browser presents it until somebody logs in
        (app, "logout", "alice", second.handle),
        (app, "logout", "alice", third.handle),
    ]


def test_a_logout_that_raises_past_flask_is_told_too(make: Any) -> None:
    app = make()
    app.config["PROPAGATE_EXCEPTIONS"] = True
    heard: list[str] = []
    client = client_of(app)
    client.post("/login")
    hearing = coatcheck_ended.connected_to(lambda _, reason, **__: heard.append(reason), sender=app)
    with hearing, pytest.raises(RuntimeError):
        client.get("/gone")
    assert heard == ["logout"]


def test_an_application_that_was_used_can_fork(tmp_path: Any) -> None:
    """F23: a server that loads the application first and forks then (gunicorn --preload)."""
    with closing(SqliteStore(tmp_path / "sessions.db")) as store:
        client = client_of(application(store))
        client.post("/login")
        child = os.fork()
        if child == 0:
            os._exit(0 if client.get("/me").text == "alice" and client.get("/put?child=1").text == "put" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.get("/data").json["child"] == "1"


# -- testing -----------------------------------------------------------------------------------------------------------


def test_a_session_transaction_makes_and_changes_a_session() -> None:
    client = client_of(application(MemoryStore()))
    with client.session_transaction() as opened:
        opened["a"] = 1
    assert client.get("/data").json == {"a": 1}
    with client.session_transaction() as opened:
        opened["a"] += 1
        opened.login("alice", carry=ALL)
    assert client.get("/data").json == {"a": 2}
    assert client.get("/me").text == "alice"
    with client.session_transaction() as opened:
        assert opened.subject == "alice"
        opened.logout()
    assert client.get("/me").status_code == 401


def test_sign_in_needs_no_form() -> None:
    store = MemoryStore()
    client = client_of(application(store))
    client.set_cookie(*sign_in(store, "alice", data={"who": "me"}))
    assert client.get("/me").text == "me"


def test_a_client_that_keeps_its_context_can_look_at_the_session(make: Any) -> None:
    with client_of(make()) as client:
        client.get("/put?a=1")
        assert flask.session["a"] == "1"


# -- commands ----------------------------------------------------------------------------------------------------------


def test_an_operator_lists_and_ends_sessions() -> None:
    store = MemoryStore()
    app = application(store)
    run = app.test_cli_runner().invoke
    for agent in ("one", "two\u202e"):
        client_of(app).post("/login", headers={"User-Agent": agent})
    shown = run(args=["coatcheck", "list", "alice"]).output.splitlines()
    assert len(shown) == 2
    assert r"'two" in shown[1]
    handles = [line.split()[0] for line in shown]
    assert run(args=["coatcheck", "revoke", handles[0]]).output == "ended 1\n"
    again = run(args=["coatcheck", "revoke", handles[0]])
    assert (again.exit_code, f"no live session '{handles[0]}'" in again.output) == (1, True)
    client_of(app).post("/login")
    kept = run(args=["coatcheck", "revoke", "--subject", "alice", "--keep", handles[1]])
    assert kept.output == "ended 1\n"
    assert [one.handle for one in Registry(store).find("alice").items] == [handles[1]]
    for bad in ([], [handles[0], "--subject", "alice"], [handles[0], "--keep", handles[1]]):
        assert run(args=["coatcheck", "revoke", *bad]).exit_code == 2


# -- beside our WSGI middleware ----------------------------------------------------------------------------------------


def test_our_wsgi_middleware_around_is_the_same_session(clock: Clock) -> None:
    outer, inner = MemoryStore(clock=clock), MemoryStore(clock=clock)
    manager = SessionManager(clock=clock)
    app = application(inner, manager=manager)
    app.wsgi_app = wsgi.SessionMiddleware(app.wsgi_app, store=outer, manager=manager)  # type: ignore[method-assign]
    client = client_of(app)
    answer = client.post("/login")
    assert len(cookies(answer)) == 1
    assert client.get("/me").text == "alice"
    assert (len(Registry(outer).find("alice").items), len(Registry(inner).find("alice").items)) == (1, 0)


def test_under_another_name_it_has_its_own(clock: Clock) -> None:
    outer, inner = MemoryStore(clock=clock), MemoryStore(clock=clock)
    app = application(inner, manager=SessionManager(clock=clock))
    ours = app.wsgi_app

    def both(environ: Any, start: Any) -> Any:
        session = wsgi.session_of(environ)
        body = ours(environ, start)
        assert wsgi.session_of(environ) is session
        session["outer"] = 1
        return body

    manager = SessionManager(clock=clock, name="__Host-outer")
    app.wsgi_app = wsgi.SessionMiddleware(both, store=outer, manager=manager)  # type: ignore[method-assign]
    answer = client_of(app).post("/login")
    assert [line.partition("=")[0] for line in cookies(answer)] == ["__Host-coat", "__Host-outer"]


def test_sealed_sessions_travel_in_the_cookie() -> None:
    from coatcheck import Key, Keyring

    sealed = Sealed(keyring=Keyring([Key("k", os.urandom(32))], os.urandom))
    client = client_of(application(MemoryStore(), sealed=sealed))
    client.post("/login")
    client.get("/put?a=1")
    assert client.get("/data").json["a"] == "1"


# -- Flask-Login, Flask-WTF --------------------------------------------------------------------------------------------


def login_app(store: Any, config: dict[str, Any] | None = None, **how: Any) -> flask.Flask:
    """Return the application with Flask-Login's pages besides."""
    app = application(store, config, **how)
    logins = flask_login.LoginManager(app)
    logins.user_loader(User)

    @app.post("/fl/login")
    def fl_login() -> str:
        duration = timedelta(days=3) if "short" in flask.request.args else None
        remember = bool(flask.request.args.get("remember"))
        flask_login.login_user(User("alice"), remember=remember, duration=duration)
        return "in"

    @app.post("/fl/logout")
    def fl_logout() -> str:
        flask_login.logout_user()
        flask.flash("bye")
        return "out"

    @app.post("/fl/confirm")
    def fl_confirm() -> str:
        flask_login.confirm_login()
        return "sure"

    @app.get("/fl/me")
    @flask_login.login_required
    def fl_me() -> list[Any]:
        return [flask_login.current_user.get_id(), session.subject, flask_login.login_fresh(), session.level]

    return app


@pytest.fixture
def fl(store: Any, clock: Clock) -> flask.Flask:
    own = {"_flashes", "_user_id", "_id"}
    return login_app(store, manager=SessionManager(clock=clock, carry=own))


def test_flask_logins_login_is_ours(fl: flask.Flask, store: Any) -> None:
    client, thief = client_of(fl), client_of(fl)
    client.get("/put?a=1")
    thief.set_cookie("__Host-coat", client.get_cookie("__Host-coat").value)
    answer = client.post("/fl/login")
    assert len(cookies(answer)) == 1
    assert client.get("/fl/me").json == ["alice", "alice", True, 10]
    assert thief.get("/fl/me").status_code == 401
    assert len(Registry(store).find("alice").items) == 1
    Registry(store).revoke_all("alice")
    assert client.get("/fl/me").status_code == 401


def test_flask_logins_logout_is_ours(fl: flask.Flask, store: Any) -> None:
    client, thief = client_of(fl), client_of(fl)
    client.post("/fl/login")
    thief.set_cookie("__Host-coat", client.get_cookie("__Host-coat").value)
    client.post("/fl/logout")
    assert (client.get("/fl/me").status_code, thief.get("/fl/me").status_code) == (401, 401)
    assert client.get("/messages").json == [["message", "bye"]]
    client.get("/put?a=1")
    client.post("/fl/logout")
    assert client.get("/data").json["a"] == "1"  # nobody was logged in: nothing ends


def test_a_logout_takes_an_old_remember_cookie_away(fl: flask.Flask) -> None:
    client = client_of(fl)
    client.post("/fl/login")
    with fl.test_request_context():
        client.set_cookie("remember_token", flask_login.encode_cookie("alice"))
    client.post("/fl/logout")
    assert client.get_cookie("remember_token") is None
    assert client.get("/fl/me").status_code == 401
    assert not {"_remember", "_user_id"} & set(client.get("/data").json)


def test_remember_me_is_a_session_that_can_be_revoked(fl: flask.Flask, store: Any, clock: Clock) -> None:
    client = client_of(fl)
    answer = client.post("/fl/login?remember=1")
    assert [line.partition("=")[0] for line in cookies(answer)] == ["__Host-coat"]
    assert f"Max-Age={30 * 86400}" in cookies(answer)[0]
    clock.wind(2 * 86400)
    assert client.get("/fl/me").json == ["alice", "alice", False, 5]
    client.post("/fl/confirm")
    assert client.get("/fl/me").json == ["alice", "alice", True, 10]
    Registry(store).revoke_all("alice")
    assert client.get("/fl/me").status_code == 401
    short = cookies(client.post("/fl/login?remember=1&short=1"))
    assert f"Max-Age={3 * 86400}" in short[0].split("; ")
    again = cookies(client.post("/fl/login?remember=1"))
    assert [line.partition("=")[0] for line in again] == ["__Host-coat"]


def test_an_old_remember_cookie_becomes_a_remembered_session_once(fl: flask.Flask, store: Any) -> None:
    client = client_of(fl)
    with fl.test_request_context():
        client.set_cookie("remember_token", flask_login.encode_cookie("alice"))
    answer = client.get("/fl/me")
    assert answer.json == ["alice", "alice", False, 5]
    assert sorted(line.partition("=")[0] for line in cookies(answer)) == ["__Host-coat", "remember_token"]
    assert client.get_cookie("remember_token") is None
    assert client.get("/fl/me").json == ["alice", "alice", False, 5]
    assert client.get("/recent").status_code == 401
    assert Registry(store).find("alice").items[0].persistent


def test_an_old_remember_cookie_that_a_stream_meets_comes_too_late(fl: flask.Flask, store: Any) -> None:
    @fl.get("/stream")
    def stream() -> flask.Response:
        @flask.stream_with_context
        def chunks() -> Iterator[str]:
            yield "hello "
            yield flask_login.current_user.get_id()

        return flask.Response(chunks())

    client = client_of(fl)
    with fl.test_request_context():
        client.set_cookie("remember_token", flask_login.encode_cookie("alice"))
    assert client.get("/stream", buffered=True).text == "hello alice"
    assert Registry(store).find().items == ()


def test_a_remembered_login_is_not_recent_in_its_own_request_either(fl: flask.Flask) -> None:
    fl.add_url_rule("/both", "both", flask_login.login_required(require_login(within=600)(lambda: "in")))
    client = client_of(fl)
    with fl.test_request_context():
        client.set_cookie("remember_token", flask_login.encode_cookie("alice"))
    assert client.get("/both").status_code == 401


def test_flask_logins_test_client_works(fl: flask.Flask, store: Any) -> None:
    fl.test_client_class = flask_login.FlaskLoginClient
    client = fl.test_client(user=User("alice"))
    assert client.get("/fl/me").json == ["alice", "alice", False, 10]  # its client leaves out what protects freshness
    assert len(Registry(store).find("alice").items) == 1


def test_a_refused_login_leaves_nothing_behind(fl: flask.Flask) -> None:
    fl.add_url_rule("/by-hand", "hand", lambda: session.update(_user_id="alice") or "in", methods=["POST"])
    client = fl.test_client()  # no browser: nothing shows that the form was ours
    assert client.post("/fl/login").status_code == 403
    assert client.get("/fl/me").status_code == 401
    assert client.post("/by-hand").status_code == 403
    assert client.get("/fl/me").status_code == 401


def test_strong_protection_ends_the_session(store: Any, clock: Clock) -> None:
    manager = SessionManager(clock=clock, carry={"_user_id", "_id"})
    app = login_app(store, {"SESSION_PROTECTION": "strong"}, manager=manager)
    client = client_of(app)
    client.post("/fl/login", headers={"User-Agent": "one"})
    assert client.get("/fl/me", headers={"User-Agent": "two"}).status_code == 401
    assert Registry(store).find("alice").items == ()


def test_a_step_up_of_ours_beside_flask_login_stays_ours(fl: flask.Flask) -> None:
    def both() -> str:
        session.login("alice", methods=("pwd", "otp"), level=20)
        flask_login.login_user(User("alice"))
        return str(session.level)

    fl.add_url_rule("/both", "both", both, methods=["POST"])
    client = client_of(fl)
    assert client.post("/both").text == "20"
    assert client.get("/fl/me").json == ["alice", "alice", True, 20]
    client.post("/fl/confirm")
    assert client.get("/fl/me").json == ["alice", "alice", True, 20]


def test_another_user_gets_nothing_of_the_last(fl: flask.Flask) -> None:
    fl.add_url_rule("/bob", "bob", lambda: str(flask_login.login_user(User("bob"))), methods=["POST"])
    client = client_of(fl)
    client.post("/fl/login")
    client.get("/put?secret=1")
    client.post("/bob")
    assert client.get("/fl/me").json[:2] == ["bob", "bob"]
    assert "secret" not in client.get("/data").json


def test_a_form_token_of_flask_wtf_is_good_across_the_login() -> None:
    app = application(MemoryStore())
    CSRFProtect(app)
    app.add_url_rule("/form", "form", generate_csrf)
    client = client_of(app)
    token = client.get("/form").text
    assert client.post("/login").status_code == 400
    assert client.post("/login", data={"csrf_token": token}).status_code == 200
    assert client.post("/logout", data={"csrf_token": token}).status_code == 200
