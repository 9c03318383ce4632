"""What is aiohttp's own: middlewares and signals, mounted applications, files, streams, guards, its test client."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse, CookieJar, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from yarl import URL

from coatcheck import ConfigError, MemoryStore, SessionManager, near
from coatcheck.adapters.aiohttp import SESSIONS, exchange_of, require_login, session_of, setup
from coatcheck.core import codec
from coatcheck.core.errors import NotApplied
from coatcheck.core.model import Query
from coatcheck.testing import Clock, async_sign_in
from coatcheck.testing.flaky import FlakyStore
from coatcheck.testing.probe import Cart

OURS = {"Sec-Fetch-Site": "same-origin"}
EVIL = {"Sec-Fetch-Site": "cross-site"}


async def login(request: web.Request) -> web.StreamResponse:
    """Log alice in."""
    session_of(request).login("alice")
    raise web.HTTPSeeOther("/me")


@require_login
async def me(request: web.Request) -> web.StreamResponse:
    """Say who is there."""
    return web.Response(text=str(session_of(request).subject))


async def visits(request: web.Request) -> web.StreamResponse:
    """Count."""
    session = session_of(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response(session["visits"])


def pages() -> web.Application:
    """Return an application with pages, without our sessions."""
    app = web.Application()
    app.router.add_post("/login", login)
    app.router.add_get("/me", me)
    app.router.add_get("/visits", visits)
    return app


@contextlib.asynccontextmanager
async def served(app: web.Application, **how: Any) -> AsyncIterator["TestClient[Any, Any]"]:
    """Serve an application, and give a client that treats its address as a secure one."""
    server = TestServer(app)
    await server.start_server()
    how.setdefault("cookie_jar", CookieJar(unsafe=True, treat_as_secure_origin=server.make_url("/").origin()))
    async with TestClient(server, **how) as client:
        yield client


async def status(app: web.Application, path: str, **how: Any) -> tuple[int, str]:
    """Return how an application answers one request of somebody who logged in."""
    async with served(app) as client:
        await client.post("/login", headers=OURS)
        answer = await client.get(path, **how)
        return answer.status, await answer.text()


def cookies(answer: ClientResponse) -> list[str]:
    return answer.headers.getall("Set-Cookie", [])


async def test_a_raised_response_carries_the_cookie_of_a_login() -> None:
    setup(app := pages(), store=MemoryStore())
    async with served(app) as client:
        answer = await client.post("/login", headers=OURS, allow_redirects=False)
        assert (answer.status, answer.headers["Location"], len(cookies(answer))) == (303, "/me", 1)
        assert answer.headers["Cache-Control"] == "no-store"
        assert await (await client.get("/me")).text() == "alice"


async def test_the_client_of_the_tests_loses_the_cookie_without_being_told_and_we_say_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup(app := pages(), store=MemoryStore())
    async with served(app, cookie_jar=CookieJar(unsafe=True)) as client:
        for _ in range(2):
            answer = await client.get("/visits")
            assert await answer.json() == 1
    assert caplog.text.count("set a Secure cookie over http") == 1


async def test_a_session_made_for_a_test_is_a_cookie_of_the_client() -> None:
    store = MemoryStore()
    setup(app := pages(), store=store)
    name, value = await async_sign_in(store.as_async(), "bob")
    async with served(app, cookies={name: value}, cookie_jar=None) as client:
        assert await (await client.get("/me")).text() == "bob"


async def test_a_refusal_runs_no_middleware_but_the_signals_that_add_headers() -> None:
    seen: list[str] = []

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        seen.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    async def allow(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Access-Control-Allow-Origin"] = "https://spa.example"

    app = pages()
    app.middlewares.append(note)
    app.on_response_prepare.append(allow)
    setup(app, store=MemoryStore())
    async with served(app) as client:
        for path in ("/login", "/nowhere"):
            answer = await client.post(path, headers=EVIL)
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (403, "https://spa.example")
        assert seen == []
        assert (await client.get("/nowhere")).status == 404
        assert seen == ["/nowhere"]


async def test_whoever_changes_headers_after_us_does_not_make_a_login_cacheable() -> None:
    async def public(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Cache-Control"] = "public, max-age=60"

    app = pages()
    app.on_response_prepare.append(public)
    setup(app, store=MemoryStore())
    async with served(app) as client:
        answer = await client.post("/login", headers=OURS, allow_redirects=False)
        assert answer.headers.getall("Cache-Control") == ["no-store"]
        assert len(cookies(answer)) == 1
        assert (await client.get("/me")).headers["Cache-Control"] == "public, max-age=60"


async def test_a_cookie_of_our_name_gives_way_and_others_stay() -> None:
    async def clash(request: web.Request) -> web.StreamResponse:
        session_of(request)["a"] = 1
        response = web.Response()
        response.set_cookie("__Host-coat", "mine")
        response.set_cookie("theme", "dark")
        return response

    app = pages()
    app.router.add_get("/clash", clash)
    setup(app, store=MemoryStore())
    async with served(app) as client:
        lines = cookies(await client.get("/clash"))
        assert sorted(line.partition("=")[0] for line in lines) == ["__Host-coat", "theme"]
        assert "__Host-coat=mine" not in "".join(lines)


# -- mounted applications ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twice", [False, True])
async def test_a_mounted_application_shares_the_session_of_the_one_around_it(twice: bool) -> None:
    store = MemoryStore()
    app, admin = pages(), pages()

    @web.middleware
    async def around(request: web.Request, handler: Any) -> web.StreamResponse:
        session_of(request)["seen"] = 1
        response: web.StreamResponse = await handler(request)
        return response

    app.middlewares.append(around)
    setup(app, store=store)
    if twice:
        setup(admin, store=store)
    app.add_subapp("/admin/", admin)
    async with served(app) as client:
        assert len(cookies(await client.get("/admin/visits"))) == 1
        assert len(store.find(Query()).items) == 1
        answers = [await (await client.get(path)).json() for path in ("/admin/visits", "/visits", "/admin/visits")]
        assert answers == [2, 3, 4]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_mounted_application_with_a_cookie_of_its_own_has_sessions_of_its_own(streams: bool) -> None:
    app, admin = pages(), pages()

    async def stream(request: web.Request) -> web.StreamResponse:
        session = session_of(request)
        session["visits"] = session.get("visits", 0) + 1
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(str(session["visits"]).encode())
        return response

    @web.middleware
    async def around(request: web.Request, handler: Any) -> web.StreamResponse:
        session_of(request)["seen"] = session_of(request).get("seen", 0) + 1
        response: web.StreamResponse = await handler(request)
        assert "seen" in session_of(request)
        return response

    admin.router.add_get("/stream", stream)
    app.middlewares.append(around)
    setup(app, store=MemoryStore())
    setup(admin, store=MemoryStore(), name="__Host-admin")
    app.add_subapp("/admin/", admin)
    async with served(app) as client:
        path = "/admin/stream" if streams else "/admin/visits"
        answer = await client.get(path)
        assert sorted(line.partition("=")[0] for line in cookies(answer)) == ["__Host-admin", "__Host-coat"]
        assert answer.headers.getall("Cache-Control") == ["no-store"]
        assert [await (await client.get(one)).text() for one in (path, "/visits")] == ["2", "1"]


async def test_outside_of_a_mounted_application_that_alone_has_sessions_there_are_none() -> None:
    app, admin = pages(), pages()
    setup(admin, store=MemoryStore())
    app.add_subapp("/admin/", admin)
    async with served(app) as client:
        assert (await client.get("/visits")).status == 500
        assert await (await client.get("/admin/visits")).json() == 1


# -- what a handler prepares itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_stream_whose_start_cannot_be_stored_is_a_whole_503(swallows: bool, compressed: bool) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session_of(request)["a"] = 1
        response = web.StreamResponse()
        if compressed:
            response.enable_compression(web.ContentCoding.gzip)
        with contextlib.suppress(ConnectionResetError if swallows else ZeroDivisionError):
            await response.prepare(request)
            await response.write(b"secret")
        return response

    app = pages()
    app.router.add_get("/stream", stream)
    store = FlakyStore(MemoryStore())
    setup(app, store=store)
    store.trouble.fail("commit")
    async with served(app) as client:
        answer = await client.get("/stream")
        assert (answer.status, cookies(answer)) == (503, [])
        assert "try again" in await answer.text()
        store.trouble.fail(None)
        assert (await client.get("/stream")).status == 200


async def test_a_handshake_that_cannot_be_stored_is_a_503() -> None:
    async def socket(request: web.Request) -> web.StreamResponse:
        session_of(request)["a"] = 1
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        return websocket

    app = pages()
    app.router.add_get("/ws", socket)
    store = FlakyStore(MemoryStore())
    setup(app, store=store)
    async with served(app) as client:
        await client.post("/login", headers=OURS)
        store.trouble.fail("commit")
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect("/ws", headers={"Origin": str(client.make_url("/").origin())})
        assert caught.value.status == 503


async def test_what_cannot_be_kept_in_a_stream_is_a_500() -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session_of(request)["a"] = object()
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    app = pages()
    app.router.add_get("/stream", stream)
    setup(app, store=(store := MemoryStore()))
    assert (await status(app, "/stream"))[0] == 500
    assert store.find(Query()).items[0].data == b""


async def test_a_handler_that_answers_nothing_is_aiohttps_500() -> None:
    async def nothing(request: web.Request) -> None:
        session_of(request)["a"] = 1

    app = pages()
    app.router.add_get("/nothing", nothing)  # type: ignore[arg-type]
    setup(app, store=(store := MemoryStore()))
    with contextlib.suppress(ClientError):  # what aiohttp 3.10 makes of it
        assert (await status(app, "/nothing"))[0] == 500
    assert store.find(Query()).items[0].data == b""


async def test_files_carry_a_login_but_no_renewal_when_they_did_not_change(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("page")

    async def page(request: web.Request) -> web.StreamResponse:
        if "login" in request.query:
            session_of(request).login("alice")
        return web.FileResponse(tmp_path / "page.txt")

    clock = Clock()
    app = pages()
    app.router.add_get("/page", page)
    store = FlakyStore(MemoryStore(clock=clock))
    setup(app, store=store, manager=SessionManager(clock=clock))
    async with served(app) as client:
        answer = await client.get("/page?login=1", headers=OURS)
        assert (await answer.text(), len(cookies(answer))) == ("page", 1)
        clock.wind(16 * 60)
        again = await client.get("/page", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, cookies(again)) == (304, [])
        part = await client.get("/page", headers={"Range": "bytes=0-1"})
        assert (part.status, await part.text(), cookies(part)) == (206, "pa", [])
        assert len(cookies(await client.get("/page"))) == 1
        store.trouble.fail("commit")
        failed = await client.get("/page?login=1", headers=OURS)
        assert (failed.status, cookies(failed)) == (503, [])
        assert "try again" in await failed.text()


async def test_a_stream_whose_session_ends_stops_its_handler_and_cleans_up() -> None:
    stopped: list[str] = []

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("finally")
        return response

    app = pages()
    app.router.add_get("/events", events)
    sessions = setup(app, store=MemoryStore(), watch_every=0.05)
    async with served(app) as client:
        await client.post("/login", headers=OURS)
        answer = await client.get("/events")
        assert await answer.content.readany() == b"data: 1\n\n"
        await sessions.registry.revoke_all("alice")
        assert await asyncio.wait_for(answer.content.read(), 2) == b""
        assert stopped == ["finally"]
        assert (await client.get("/me")).status == 401


@require_login
async def echo(request: web.Request) -> web.StreamResponse:
    """Echo, over a socket."""
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        await websocket.send_str(message.data)
    return websocket


async def test_a_guard_denies_a_handshake() -> None:
    app = pages()
    app.router.add_get("/ws", echo)
    setup(app, store=MemoryStore())
    async with served(app) as client:
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect("/ws", headers={"Origin": str(client.make_url("/").origin())})
        assert caught.value.status == 401


async def test_a_socket_is_told_why_it_is_closed() -> None:
    app = pages()
    app.router.add_get("/ws", echo)
    sessions = setup(app, store=MemoryStore(), watch_every=0.05)
    async with served(app) as client:
        await client.post("/login", headers=OURS)
        async with client.ws_connect("/ws", headers={"Origin": str(client.make_url("/").origin())}) as websocket:
            await websocket.send_str("hello")
            assert await websocket.receive_str() == "hello"
            await sessions.registry.revoke_all("alice")
            told = await websocket.receive(2)
            assert (told.data, told.extra) == (4401, "session ended: operator")


# -- guards ------------------------------------------------------------------------------------------------------------


class Account(web.View):
    """A page as a class."""

    @require_login
    async def get(self) -> web.StreamResponse:
        """Show the account."""
        return web.Response(text="account")


class Desk:
    """Handlers as methods."""

    @require_login(within=timedelta(minutes=10))
    async def recent(self, request: web.Request) -> web.StreamResponse:
        """Say who was here lately."""
        return await me(request)


async def test_guards_stand_before_functions_methods_and_views() -> None:
    clock = Clock()
    app = pages()
    app.router.add_view("/account", Account)
    app.router.add_get("/recent", Desk().recent)
    seen: list[int] = []

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException as raised:
            seen.append(raised.status)
            raise
        return response

    app.middlewares.append(note)
    setup(app, store=MemoryStore(clock=clock), manager=SessionManager(clock=clock, login_url="/login"))
    async with served(app) as client:
        for path in ("/account", "/recent", "/me"):
            told = await client.get(path)
            assert (told.status, await told.json()) in [
                (401, {"error": "login_required"}),
                (401, {"error": "login_required", "max_age": 600.0}),
            ]
            assert told.headers["WWW-Authenticate"].startswith("Session realm=")
            sent = await client.get(path, headers={"Accept": "text/html"}, allow_redirects=False)
            assert (sent.status, sent.headers["Location"]) == (303, f"/login?next={path}")
        assert seen == [401, 303] * 3
        await client.post("/login", headers=OURS)
        assert await (await client.get("/account")).text() == "account"
        assert (await client.get("/recent")).status == 200
        clock.wind(601)
        assert (await client.get("/recent")).status == 401


async def test_a_guard_reads_the_session_itself_where_a_copy_is_not_good_enough() -> None:
    @require_login(fresh=True)
    async def fresh(request: web.Request) -> web.StreamResponse:
        return web.Response(text="fresh")

    store = MemoryStore()
    app = pages()
    app.router.add_get("/fresh", fresh)
    setup(app, store=near(store.as_async()))
    async with served(app) as client:
        await client.post("/login", headers=OURS)
        await client.get("/me")
        assert (await client.get("/fresh")).status == 200


async def test_a_guard_around_something_else_says_so() -> None:
    @require_login
    async def strange(_other: int) -> web.StreamResponse:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"a handler that takes the request, or a method of a web\.View"):
        await strange(1)


# -- set-up --------------------------------------------------------------------------


async def test_the_cleanup_closes_a_store_that_was_given_as_a_url(tmp_path: Path) -> None:
    app = pages()
    sessions = setup(app, store=f"sqlite:///{tmp_path}/sessions.db")
    assert app[SESSIONS] is sessions
    assert not (tmp_path / "sessions.db").exists()
    async with served(app) as client:
        assert await (await client.get("/visits")).json() == 1
    closed = closing(sessions.store)
    await sessions.shut(app)
    assert closed == ["closed"]
    closed = closing((given := setup(pages(), store=MemoryStore())).store)
    await given.shut(app)
    assert closed == []


async def test_the_cleanup_is_called() -> None:
    sessions = setup(app := pages(), store="memory://")
    closed = closing(sessions.store)
    async with served(app) as client:
        await client.get("/visits")
        assert closed == []
    assert closed == ["closed"]


def closing(store: Any) -> list[str]:
    """Return a list that notes when a store is closed."""
    closed: list[str] = []
    before = store.close

    async def close() -> None:
        closed.append("closed")
        await before()

    store.close = close
    return closed


def test_what_contradicts_itself_is_refused() -> None:
    setup(app := pages(), store=MemoryStore())
    with pytest.raises(ConfigError, match="has its sessions already"):
        setup(app, store=MemoryStore())
    with pytest.raises(ConfigError, match="not both"):
        setup(pages(), store=MemoryStore(), manager=SessionManager(), realm="shop")


async def test_a_request_without_a_session_says_what_is_missing() -> None:
    async def well(request: web.Request) -> web.StreamResponse:
        with pytest.raises(ConfigError, match=re.escape("no session on /well: was setup(app, store=...) called")):
            session_of(request)
        return web.Response(text="well")

    app = pages()
    app.router.add_get("/well", well)
    setup(app, store=MemoryStore(), exclude=["/well"])
    assert await status(app, "/well") == (200, "well")


async def test_the_data_may_be_typed_and_the_exchange_saves_at_once() -> None:
    async def cart(request: web.Request) -> web.StreamResponse:
        session_of(request, Cart).data.items.append(7)
        await exchange_of(request).save(session_of(request))
        raise web.HTTPInternalServerError

    app = pages()
    app.router.add_get("/cart", cart)
    setup(app, store=(store := MemoryStore()))
    assert (await status(app, "/cart"))[0] == 500
    assert b"items" in store.find(Query()).items[0].data


async def test_a_login_that_cannot_be_stored_is_not_answered_by_what_was_raised() -> None:
    store = FlakyStore(MemoryStore())
    setup(app := pages(), store=store)
    store.trouble.fail("commit", NotApplied)
    async with served(app) as client:
        answer = await client.post("/login", headers=OURS, allow_redirects=False)
        assert (answer.status, cookies(answer), "Location" in answer.headers) == (503, [], False)


async def test_a_peer_and_a_scheme_are_aiohttps() -> None:
    setup(app := pages(), store=(store := MemoryStore()))
    async with served(app) as client:
        await client.post("/login", headers={**OURS, "Cookie": "a=1"})
        assert URL(str(client.make_url("/"))).host == "127.0.0.1"
    client_of_record = store.find(Query()).items[0].client
    assert client_of_record is not None
    assert client_of_record.address == "127.0.0.1"


async def test_a_server_that_cancels_handlers_when_their_clients_leave_loses_no_write_of_a_socket() -> None:
    left = asyncio.Event()

    async def socket(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        session_of(request)["k"] = await websocket.receive_str()
        await websocket.send_str("noted")
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return websocket

    async def page(request: web.Request) -> web.StreamResponse:
        return web.json_response(session_of(request).copy())

    app = pages()
    app.router.add_get("/ws", socket)
    app.router.add_get("/data", page)
    setup(app, store=FlakyStore(MemoryStore()))
    server = TestServer(app)
    await server.start_server()  # it cancels handlers whose clients leave
    jar = CookieJar(unsafe=True, treat_as_secure_origin=server.make_url("/").origin())
    async with TestClient(server, cookie_jar=jar) as client:
        await client.post("/login", headers=OURS)
        websocket = await client.ws_connect("/ws", headers={"Origin": str(client.make_url("/").origin())})
        await websocket.send_str("v")
        assert await websocket.receive_str() == "noted"
        assert websocket._response.connection is not None
        assert websocket._response.connection.transport is not None
        websocket._response.connection.transport.abort()
        await asyncio.wait_for(left.wait(), 2)
        assert await (await client.get("/data")).json() == {"k": "v"}


async def test_a_stream_that_ended_with_its_session_leaves_its_task_uncancelled() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def events(request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if "twice" in request.query:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            task.cancel()
        await asyncio.Event().wait()
        return response

    app = pages()
    app.router.add_get("/events", events)
    sessions = setup(app, store=MemoryStore(), watch_every=0.05)
    async with served(app) as client:
        for path in ("/events", "/events?twice=1"):
            await client.post("/login", headers=OURS)
            answer = await client.get(path)
            await sessions.registry.revoke_all("alice")
            with contextlib.suppress(ClientError):
                await answer.read()
            await asyncio.wait(tasks, timeout=2)
        assert [(task.cancelled(), task.cancelling()) for task in tasks] == [(False, 0), (True, 1)]


@pytest.mark.parametrize("turns", range(5))
async def test_what_a_stream_wrote_is_kept_however_often_its_task_is_cancelled(turns: int) -> None:
    """A client leaves, and the server stops while we are at it: the second cancellation finds us between two steps."""
    store, begun = MemoryStore(), asyncio.Event()
    name, value = await async_sign_in(store.as_async(), "bob")
    sessions = setup(app := web.Application(), store=store, origins=["https://testserver"])
    app.freeze()
    headers = {"Host": "testserver", "Cookie": f"{name}={value}", **OURS}
    request = make_mocked_request("GET", "/", headers=headers, app=app)

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        session_of(request)["k"] = "written"
        begun.set()
        await asyncio.Event().wait()
        return response

    task = asyncio.ensure_future(sessions.serve(request, events))
    await asyncio.wait_for(begun.wait(), 5)
    for _ in range(2):
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
    await asyncio.wait([task])
    await asyncio.wait_for(sessions.exchange.flush(), 5)
    (record,) = store.find(Query()).items
    assert codec.decode(record.data) == {"k": "written"}
