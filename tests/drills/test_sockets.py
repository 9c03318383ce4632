"""Websockets and event streams: who may open one, and when it is closed (D63; M8, CSR-11, TRM-10)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from coatcheck import Floods
from coatcheck.core.model import Record
from coatcheck.core.policies import Policy
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, HOST, ORIGIN, OURS, Ask, House

BOUND = 2.0
EVERY = 0.05


@pytest.fixture(params=["asgi"])
def build(request: pytest.FixtureRequest, store: Any, clock: Clock) -> Iterator[Build]:
    """Return a maker of ASGI houses: WSGI knows no sockets, except as below."""
    houses: list[House] = []

    def made(**settings: Any) -> House:
        houses.append(House(settings.pop("kind", "asgi"), store, clock, **settings))
        return houses[-1]

    yield made
    for house in houses:
        house.close()


class Socket:
    """The client's end of one connection of an ASGI application."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.ensure_future(app(scope, self.inbox.get, self.outbox.put))

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.outbox.get(), BOUND)

    async def say(self, text: str) -> str:
        await self.inbox.put({"type": "websocket.receive", "text": text})
        return (await self.next())["text"]

    async def leave(self) -> None:
        await self.inbox.put({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(self.task, BOUND)


def handshake(
    token: str | None, *headers: tuple[str, str], query: str = "", extensions: bool = False
) -> dict[str, Any]:
    cookie = () if token is None else (("cookie", f"{COOKIE}={token}"),)
    lines = [(name.encode(), value.encode("latin-1")) for name, value in (("host", HOST), *cookie, *headers)]
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "scheme": "wss",
        "path": "/ws",
        "raw_path": b"/ws",
        "root_path": "",
        "query_string": query.encode(),
        "headers": lines,
        "client": ("192.0.2.7", 50000),
        "server": (HOST, 443),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if extensions else {},
    }


def on(house: House, scope: dict[str, Any], act: Callable[[Socket], Awaitable[Any]]) -> Any:
    """Open a connection and do something with it."""

    async def done() -> Any:
        house.served.app.watching.every = house.served.app.watching.recheck = EVERY
        socket = Socket(house.served.app, scope)
        await socket.inbox.put({"type": "websocket.connect"})
        return await act(socket)

    assert house._runner is not None
    return house._runner.run(done())


async def first_message(socket: Socket) -> dict[str, Any]:
    message = await socket.next()
    if message["type"] == "websocket.accept":
        await socket.leave()
    else:
        await asyncio.wait_for(socket.task, BOUND)
    return message


OPENERS = [
    ("our page", (("origin", ORIGIN),), True),
    ("evil page", (("origin", "https://evil.test"),), False),
    ("evil page, it says same-origin", (("origin", "https://evil.test"), ("sec-fetch-site", "same-origin")), False),
    ("sibling", (("origin", "https://blog.app.test"),), False),
    ("plain http twin", (("origin", "http://app.test"),), False),
    ("another port", (("origin", "https://app.test:8443"),), False),
    ("sandbox", (("origin", "null"),), False),
    ("two origins", (("origin", ORIGIN), ("origin", "https://evil.test")), False),
    ("no origin, with a cookie", (), False),
    ("empty origin, with a cookie", (("origin", ""),), False),
    ("no origin, but same-origin", (("sec-fetch-site", "same-origin"),), False),
]


@pytest.mark.parametrize(("what", "headers", "accepted"), OPENERS, ids=[row[0] for row in OPENERS])
@pytest.mark.parametrize("extensions", [False, True])
def test_a_socket_is_opened_for_our_own_pages_only(
    build: Build, what: str, headers: tuple[tuple[str, str], ...], accepted: bool, extensions: bool
) -> None:
    """D63 (CSR-11)."""
    house = build()
    token = house.visitor().login()
    message = on(house, handshake(token, *headers, extensions=extensions), first_message)
    if accepted:
        assert message["type"] == "websocket.accept"
    elif extensions:
        assert (message["type"], message["status"]) == ("websocket.http.response.start", 403)
        assert b"set-cookie" not in dict(message["headers"])
    else:
        assert message == {"type": "websocket.close", "code": 1008}, "servers turn it into a 403"
    assert not any("ws" in line for line in house.control.probe.late) or accepted


def test_who_is_no_browser_and_has_no_cookie_may_open_one(build: Build) -> None:
    """M8: nobody's cookie is ridden."""
    assert on(build(), handshake(None), first_message)["type"] == "websocket.accept"


@pytest.mark.parametrize(("csrf", "accepted"), [("off", True), ("report", False)])
def test_only_off_leaves_handshakes_unjudged(build: Build, csrf: str, accepted: bool) -> None:
    """CSR-11: "report" trusts a framework's own check, and none of those looks at a handshake."""
    house = build(csrf=csrf)
    asked = handshake(house.visitor().login(), ("origin", "https://evil.test"))
    assert (on(house, asked, first_message)["type"] == "websocket.accept") is accepted
    assert house.control.manager.noise.totals == ({} if accepted else {"csrf_denied": 1})


async def _revoked(house: House, clock: Clock, handle: str) -> str:
    await asyncio.to_thread(house.control.registry.revoke, handle)
    return "operator"


async def _logged_out(house: House, clock: Clock, handle: str) -> str:
    await asyncio.to_thread(house.control.registry.revoke_all, "alice", because="owner")
    return "owner"


async def _absolute(house: House, clock: Clock, handle: str) -> str:
    clock.wind(86_401)
    return "idle"


async def _idle(house: House, clock: Clock, handle: str) -> str:
    clock.wind(3601)
    return "idle"


async def _everyone(house: House, clock: Clock, handle: str) -> str:
    clock.wind(2)
    await asyncio.to_thread(house.control.registry.revoke_before, clock.now)
    clock.wind(1.5)
    return "epoch"


@pytest.mark.parametrize("end", [_revoked, _logged_out, _absolute, _idle, _everyone])
def test_an_open_socket_is_closed_soon_after_its_session_ended(build: Build, clock: Clock, end: Any) -> None:
    """D63 (TRM-10): revoked, logged out elsewhere, past its absolute or idle end; frames are no activity."""
    house = build()
    visitor = house.visitor()
    visitor.login()

    async def scenario(socket: Socket) -> None:
        assert (await socket.next())["type"] == "websocket.accept"
        assert await socket.say("hello") == "alice: hello"
        why = await end(house, clock, (visitor.token or "").split(".")[1])
        message = await socket.next()
        assert (message["type"], message["code"]) == ("websocket.close", 4401)
        assert why in message["reason"]
        await asyncio.wait_for(socket.task, BOUND)

    on(house, handshake(visitor.token, ("origin", ORIGIN)), scenario)
    assert house.control.probe.late == ["ws 4401"]


def test_the_absolute_end_closes_a_socket_that_is_never_idle(build: Build, clock: Clock) -> None:
    """D63 (TMO-02)."""
    house = build(timeouts="nist-aal1")
    visitor = house.visitor()
    visitor.login()

    async def scenario(socket: Socket) -> None:
        await socket.next()
        clock.wind(30 * 86_400 + 1)
        assert "absolute" in (await socket.next())["reason"]
        await asyncio.wait_for(socket.task, BOUND)

    on(house, handshake(visitor.token, ("origin", ORIGIN)), scenario)


class Failing(Policy):
    """A rule of the application's that breaks when its day has come."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.begun = clock, clock.now

    def expires_at(self, record: Record) -> float | None:
        if self.clock.now > self.begun:
            raise ZeroDivisionError
        return None


def test_a_socket_that_can_no_longer_be_judged_is_closed(
    build: Build, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond D63: a policy that raises would end the look at the session, and leave the socket open for ever."""
    house = build(policies=[Failing(clock)])
    visitor = house.visitor()
    visitor.login()

    async def scenario(socket: Socket) -> None:
        await socket.next()
        clock.wind(1)
        assert (await socket.next())["code"] == 4401
        await asyncio.wait_for(socket.task, BOUND)

    on(house, handshake(visitor.token, ("origin", ORIGIN)), scenario)
    assert "could not be judged" in caplog.text


def test_a_login_inside_a_socket_raises(build: Build) -> None:
    """D63: it could hand out no cookie."""
    house = build()
    token = house.visitor().login()

    async def scenario(socket: Socket) -> None:
        await socket.next()
        assert await socket.say("login") == "alice: SettledError"
        await socket.leave()

    on(house, handshake(token, ("origin", ORIGIN)), scenario)
    assert [record.subject for record in house.control.records(live=True)] == ["alice"]


def test_a_handshake_renews_nothing_and_hands_out_nothing(build: Build, clock: Clock) -> None:
    """M8: `may_set_cookie` is false for sockets, whatever the page wrote."""
    house = build()
    visitor = house.visitor()
    visitor.login()
    clock.wind(901)
    version = house.record(visitor.token or "").turn_proof
    for token, query in ((visitor.token, "write=x"), (None, "write=x"), (visitor.token, "logout=1")):
        message = on(house, handshake(token, ("origin", ORIGIN), query=query), first_message)
        assert b"set-cookie" not in dict(message.get("headers", ()))
        if query != "logout=1":
            assert house.record(visitor.token or "").turn_proof == version
    assert visitor.user is None


def test_a_token_that_is_over_opens_a_socket_of_nobody(build: Build, clock: Clock) -> None:
    """D63: after a revocation the handshake itself finds nobody."""
    house = build()
    visitor = house.visitor()
    visitor.login()
    visitor.keep(house.ask(visitor.prepare("POST", "/logout")))
    token = house.visitor().login()
    house.control.registry.revoke(token.split(".")[1])

    async def scenario(socket: Socket) -> None:
        assert (await socket.next())["type"] == "websocket.accept"
        assert await socket.say("who?") == "None: who?"
        await socket.leave()

    on(house, handshake(token, ("origin", ORIGIN)), scenario)


def test_an_event_stream_ends_with_its_session(build: Build, clock: Clock) -> None:
    """TRM-10: Server-Sent Events likewise."""
    house = build()
    visitor = house.visitor()
    token = visitor.login()
    scope = {**handshake(token), "type": "http", "method": "GET", "path": "/sse", "scheme": "https"}

    async def scenario(socket: Socket) -> None:
        assert (await socket.next())["status"] == 200
        assert (await socket.next())["body"] == b"data: alice\n\n"
        await asyncio.to_thread(house.control.registry.revoke, token.split(".")[1])
        await asyncio.wait_for(socket.task, BOUND)

    on(house, scope, scenario)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((("origin", ORIGIN),), 200),
        ((("origin", "https://evil.test"),), 403),
        ((("origin", "null"),), 403),
        ((), 403),
    ],
)
@pytest.mark.parametrize("word", ["websocket", "WebSocket"])
def test_a_handshake_that_a_wsgi_server_shows_as_a_plain_get_is_judged_as_one(
    build: Build, headers: tuple[tuple[str, str], ...], status: int, word: str
) -> None:
    """Beyond D63: Flask-Sock and gevent hand sockets to WSGI applications; a GET would be safe, a handshake is not."""
    house = build(kind="wsgi")
    token = house.visitor().login()
    upgrade = (("connection", "Upgrade"), ("upgrade", word), ("cookie", f"{COOKIE}={token}"))
    answer = house.ask(Ask("GET", "/me", (*upgrade, *headers)))
    assert (answer.status, answer.token) == (status, None)
    assert house.ask(Ask("GET", "/me", (("cookie", f"{COOKIE}={token}"), *OURS))).status == 200


def test_a_session_has_so_many_sockets_and_no_more(build: Build) -> None:
    """D63 (M8): a further handshake is refused until one of them is closed; another session's is not."""
    house = build(floods=Floods(sockets=2))
    token, other = house.visitor().login(), house.visitor().login("bob")
    scope = handshake(token, ("origin", ORIGIN), extensions=True)

    async def opened(scope: dict[str, Any]) -> tuple[Socket, dict[str, Any]]:
        socket = Socket(house.served.app, scope)
        await socket.inbox.put({"type": "websocket.connect"})
        return socket, await socket.next()

    async def scenario(first: Socket) -> None:
        assert (await first.next())["type"] == "websocket.accept"
        second, message = await opened(dict(scope))
        assert message["type"] == "websocket.accept"
        _, message = await opened(dict(scope))
        assert (message["type"], message["status"]) == ("websocket.http.response.start", 429)
        stranger, message = await opened(handshake(other, ("origin", ORIGIN)))
        assert message["type"] == "websocket.accept"
        assert (await opened(handshake(None)))[1]["type"] == "websocket.accept", "who has no session has no limit here"
        await second.leave()
        third, message = await opened(dict(scope))
        assert message["type"] == "websocket.accept"
        for socket in (first, third, stranger):
            await socket.leave()

    on(house, dict(scope), scenario)
    house.flush()
    (event,) = house.events("session_sockets_refused")
    assert (event.noise, event.detail["count"]) == (True, 1)


def test_event_streams_are_no_sockets(build: Build) -> None:
    """They are responses to requests; a browser has at most six of them."""
    house = build(floods=Floods(sockets=1))
    token = house.visitor().login()
    stream = {**handshake(token), "type": "http", "method": "GET", "path": "/sse", "scheme": "https"}

    async def scenario(socket: Socket) -> None:
        assert (await socket.next())["status"] == 200
        assert house.served.app.watching.number(token.split(".")[1]) == 0
        await asyncio.to_thread(house.control.registry.revoke, token.split(".")[1])
        await asyncio.wait_for(socket.task, BOUND)

    on(house, stream, scenario)
