"""What is Quart's own: its face, settings, guards, sockets, streams, test client, and what it refuses."""

import contextlib
import inspect
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import quart
from flask.sessions import SessionMixin

from coatcheck import AsyncRegistry, ConfigError, MemoryStore, Refusal, SessionManager, near
from coatcheck.adapters.quart import Coatcheck, exchange_of, require_login, session, session_of
from coatcheck.testing import Clock, async_sign_in
from coatcheck.testing.probe import Cart

OURS = {"Sec-Fetch-Site": "same-origin"}
EVIL = {"Sec-Fetch-Site": "cross-site"}


def application(store: Any, config: dict[str, Any] | None = None, **how: Any) -> quart.Quart:
    """Return an application with a page of each kind."""
    app = quart.Quart(__name__)
    app.config.update(**(config or {}))
    Coatcheck(app, store=store, **how)

    @app.post("/login")
    async def login() -> str:
        await quart.flash("welcome", "good")
        session.login("alice")
        return "in"

    @app.post("/logout")
    def logout() -> str:
        session.logout()
        return "out"

    @app.get("/me")
    @require_login
    def me() -> str:
        assert isinstance(quart.session._get_current_object(), SessionMixin)
        return str(session.subject)

    @app.get("/recent")
    @require_login(within=timedelta(minutes=10))
    async def recent() -> str:
        return str(session.subject)

    @app.get("/fresh")
    @require_login(fresh=True)
    async def fresh() -> str:
        return str(session.subject)

    @app.get("/put")
    async def put() -> str:
        quart.session.update(
            {name: int(value) if value.isdigit() else value for name, value in quart.request.args.items()}
        )
        return "put"

    @app.get("/data")
    async def data() -> dict[str, Any]:
        return session.copy()

    @app.get("/cart")
    async def cart() -> list[int]:
        typed = session_of(quart.request, Cart)
        typed.data.items.append(7)
        return typed.data.items

    @app.get("/count")
    async def count() -> str:
        return str(await exchange_of(quart.request).bump(session, "n"))

    @app.get("/messages")
    async def messages() -> quart.Response:
        return quart.jsonify(quart.get_flashed_messages(with_categories=True))

    @app.get("/permanent")
    async def permanent() -> str:
        session.permanent = True
        session["k"] = "v"
        return "kept"

    @app.get("/gone")
    async def gone() -> str:
        session.logout()
        raise RuntimeError

    @app.websocket("/ws")
    @require_login
    async def chat() -> None:
        await quart.websocket.send(f"{session.subject} {await quart.websocket.receive()}")

    return app


def client_of(app: quart.Quart) -> Any:
    return app.test_client()


async def login(client: Any) -> Any:
    return await client.post("/login", headers=OURS, scheme="https")


async def text(client: Any, path: str, **how: Any) -> str:
    return await (await client.get(path, scheme="https", **how)).get_data(as_text=True)


async def status(client: Any, path: str, **how: Any) -> int:
    return (await client.get(path, scheme="https", **how)).status_code


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_login_messages_and_logout() -> None:
    client = client_of(application(MemoryStore()))
    refused = await client.get("/me", scheme="https")
    assert (refused.status_code, refused.headers.getlist("Content-Type")) == (401, ["application/json"])
    await login(client)
    assert await text(client, "/me") == "alice"
    assert (await (await client.get("/messages", scheme="https")).get_json()) == [["good", "welcome"]]
    await client.post("/logout", headers=OURS, scheme="https")
    assert await status(client, "/me") == 401


async def test_a_login_can_be_required_recent_and_fresh(clock: Clock) -> None:
    store = near(MemoryStore(clock=clock).as_async())
    client = client_of(application(store, manager=SessionManager(clock=clock, login_url="/login")))
    sent = await client.get("/me", headers={"Accept": "text/html"}, scheme="https")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/login?next=/me")
    await login(client)
    for path in ("/recent", "/fresh", "/fresh"):
        assert await text(client, path) == "alice"
    clock.wind(601)
    assert await status(client, "/recent") == 401


async def test_typed_data_and_what_commits_at_once() -> None:
    client = client_of(application(MemoryStore()))
    await text(client, "/cart")
    assert await text(client, "/cart") == "[7,7]\n"
    await text(client, "/count")
    assert await text(client, "/count") == "2"


async def test_a_session_transaction_makes_and_changes_a_session() -> None:
    client = client_of(application(MemoryStore()))
    async with client.session_transaction(scheme="https") as opened:
        opened["a"] = 1
    async with client.session_transaction(scheme="https") as opened:
        opened["a"] += 1
    assert await text(client, "/data") == '{"a":2}\n'


async def test_what_nothing_serves_has_one_session_however_often_it_is_opened() -> None:
    app = application(MemoryStore())
    async with app.test_request_context("/") as context:
        assert await app.session_interface.open_session(app, context.request) is context.session
    async with app.test_request_context("/put?a=1", scheme="https") as context:
        takes = inspect.signature(app.full_dispatch_request).parameters  # its context, from Quart 0.23 on
        response = await app.full_dispatch_request(*([context] if "ctx" in takes else []))
    assert sorted(name.lower() for name, _ in response.headers) == [
        *("cache-control", "content-length", "content-type", "set-cookie", "vary"),
    ]


async def test_sign_in_needs_no_form() -> None:
    store = MemoryStore()
    client = client_of(application(store))
    name, value = await async_sign_in(store.as_async(), "alice")
    assert await text(client, "/me", headers={"Cookie": f"{name}={value}"}) == "alice"


@pytest.mark.parametrize("propagate", [False, True])
async def test_a_logout_is_kept_when_the_view_then_raises(propagate: bool) -> None:
    store = MemoryStore()
    app = application(store)
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    client = client_of(app)
    await login(client)
    with contextlib.suppress(RuntimeError):
        assert await status(client, "/gone") == 500
    (record,) = (await AsyncRegistry(store.as_async()).find("alice", live=False)).items
    assert record.ended_because == "logout"


async def test_other_sites_are_refused_before_anything_runs() -> None:
    app = application(MemoryStore())
    seen: list[str] = []
    app.before_request(lambda: seen.append("before"))
    for path in ("/login", "/nowhere"):
        assert (await client_of(app).post(path, headers=EVIL, scheme="https")).status_code == 403
    assert seen == []


async def test_an_error_handler_of_the_application_sees_refusals() -> None:
    app = application(MemoryStore())
    app.register_error_handler(Refusal, lambda refusal: (f"please: {refusal.reason}", 401))
    assert await text(client_of(app), "/me") == "please: login_required"


async def test_an_excluded_path_has_no_session_and_says_so() -> None:
    app = application(MemoryStore(), {"PROPAGATE_EXCEPTIONS": True}, exclude=["/plain", "/data"])
    app.add_url_rule("/plain", "plain", lambda: "well")
    assert await text(client_of(app), "/plain") == "well"
    raised: list[Exception] = []
    quart.got_request_exception.connect(lambda _, exception: raised.append(exception), app, weak=False)
    with contextlib.suppress(ConfigError):
        await status(client_of(app), "/data")
    assert "no session on /data" in str(raised[0])


async def test_a_socket_needs_its_login() -> None:
    client = client_of(application(MemoryStore()))
    with pytest.raises(Exception, match="401"):
        async with client.websocket("/ws", scheme="wss") as socket:
            await socket.receive()
    await login(client)
    cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookie_jar)
    headers = {"Origin": "https://localhost", "Cookie": cookie}
    async with client.websocket("/ws", scheme="wss", headers=headers) as socket:
        await socket.send("hello")
        assert await socket.receive() == "alice hello"


async def test_a_stream_reads_and_writes() -> None:
    app = application(MemoryStore())

    @app.get("/stream")
    async def stream() -> quart.Response:
        @quart.stream_with_context
        async def chunks() -> AsyncIterator[str]:
            yield "one "
            yield str(quart.session.pop("note"))
            quart.session["late"] = "kept"

        return quart.Response(chunks())

    client = client_of(app)
    await text(client, "/put?note=two")
    assert await text(client, "/stream") == "one two"
    assert await text(client, "/data") == '{"late":"kept"}\n'


async def test_settings_are_flasks_and_ours() -> None:
    app = application(MemoryStore(), {"SESSION_COOKIE_NAME": "__Host-shop", "COATCHECK_SAME_SITE": "Strict"})
    answer = await client_of(app).get("/permanent", scheme="https")
    cookie = answer.headers["Set-Cookie"]
    assert (cookie[:12], "SameSite=Strict" in cookie, "Max-Age=" in cookie) == ("__Host-shop=", True, True)
    with pytest.raises(ConfigError, match="SESSION_COOKIE_HTTPONLY"):
        application(MemoryStore(), {"SESSION_COOKIE_HTTPONLY": False})


async def test_an_application_has_one_kind_of_session() -> None:
    app = application(MemoryStore())
    with pytest.raises(ConfigError, match="once for each"):
        Coatcheck(app, store=MemoryStore())
    other = quart.Quart(__name__)
    other.session_interface = type("Own", (quart.sessions.SessionInterface,), {})()
    with pytest.raises(ConfigError, match="found Own"):
        Coatcheck(other, store=MemoryStore())
    async with other.app_context():
        with pytest.raises(ConfigError, match="no sessions of ours"):
            _ = Coatcheck().registry


async def test_one_extension_serves_two_applications() -> None:
    extension, apps = Coatcheck(), []
    for _ in range(2):
        app = quart.Quart(__name__)
        app.config["COATCHECK_STORE"] = MemoryStore()
        extension.init_app(app)
        app.add_url_rule("/login", "in", lambda: session.login("alice") or "in", methods=["POST"])
        apps.append(app)
    await login(client_of(apps[0]))
    found = []
    for app in apps:
        async with app.app_context():
            found.append(len((await extension.registry.find("alice")).items))
    assert found == [1, 0]
