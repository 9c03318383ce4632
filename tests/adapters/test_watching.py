"""Open connections over stores that tell what changed: who is woken, by what, how soon, and what that costs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import AsyncRegistry, MemoryStore, SessionManager, timeouts
from coatcheck.adapters import watching
from coatcheck.adapters.asgi import SessionMiddleware
from coatcheck.core.errors import StoreError
from coatcheck.core.model import End, Handle, Touch, Update
from coatcheck.stores.near import near
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import sign_in
from coatcheck.testing.flaky import AsyncFlakyStore

LONG = 30.0
BOUND = 5.0


class Line:
    """The client's end of an open connection."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"})
        self.task = asyncio.create_task(app(scope, self.inbox.get, self.outbox.put))

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.outbox.get(), BOUND)

    async def open(self) -> "Line":
        """Wait until it is accepted, or streams."""
        first = await self.next()
        assert first["type"] == "websocket.accept" or first["status"] == 200
        return self

    async def over(self) -> float:
        """Wait for its end; return the seconds that it took."""
        began = time.monotonic()
        await asyncio.wait_for(self.task, BOUND)
        return time.monotonic() - began

    async def leave(self) -> None:
        await self.inbox.put({"type": "websocket.disconnect" if self.is_socket else "http.disconnect"})
        await asyncio.wait_for(self.task, BOUND)

    is_socket = True


class Site:
    """An application with sockets and streams, on a store with troubles; it polls only where a test says so."""

    def __init__(
        self, store: Any, *, every: float = LONG, recheck: float = LONG, watched: bool = True, **how: Any
    ) -> None:
        self.plain = store
        self.store = AsyncFlakyStore(store.as_async())
        self.trouble = self.store.trouble
        if not watched:
            del self.store.watch
        self.accept = asyncio.Event()
        self.accept.set()
        self.manager = how.get("manager") or SessionManager(origins=["https://app.test"])
        self.app = SessionMiddleware(
            self._serve,
            store=how.get("outer", self.store),
            manager=self.manager,
            watch_every=every,
            watch_recheck=recheck,
        )
        self.registry = AsyncRegistry(store.as_async())
        self.sessions: list[Any] = []

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.sessions.append(scope["session"])
        await self.accept.wait()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        else:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            )
            await receive()
        while not (await receive())["type"].endswith("disconnect"):
            pass

    def line(self, value: str, kind: str = "websocket") -> Line:
        headers = [
            (b"host", b"app.test"),
            (b"origin", b"https://app.test"),
            (b"cookie", b"__Host-coat=" + value.encode()),
        ]
        method = {} if kind == "websocket" else {"method": "GET"}
        scope = {"type": kind, "scheme": "https", "path": "/open", "headers": headers, "query_string": b"", **method}
        line = Line(self.app, scope)
        line.is_socket = kind == "websocket"
        return line

    def login(self, user: str = "alice") -> str:
        return sign_in(self.plain, user, manager=self.manager)[1]

    @property
    def loads(self) -> int:
        return self.trouble.calls.count("load")

    @property
    def lookouts(self) -> int:
        return len(self.app.watching._lookouts)

    async def quiet(self, seconds: float = 0.05) -> int:
        """Wait until nothing more is loaded; return how often anything was."""
        loads = -1
        while loads != self.loads:
            loads = self.loads
            await asyncio.sleep(seconds)
        return loads


def handle_of(value: str) -> Handle:
    return value.split(".")[1]


@pytest.fixture(params=["memory", "sqlite"])
async def plain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "sessions.db")
    yield store
    store.close()


@asynccontextmanager
async def left(*lines: Line) -> AsyncIterator[None]:
    """See to it that connections end."""
    yield
    for line in lines:
        line.task.cancel()
        with suppress(asyncio.CancelledError):
            await line.task


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_connection_ends_as_soon_as_its_session_does(plain: Any, kind: str) -> None:
    site = Site(plain)
    value = site.login()
    line = await site.line(value, kind).open()
    await site.quiet()
    await site.registry.revoke(handle_of(value))
    assert await line.over() < 2.5


@pytest.mark.parametrize("fault", [None, ValueError("of the application's own")])
async def test_a_stream_that_is_sent_from_a_task_group_ends_properly(fault: Exception | None) -> None:
    """sse-starlette and Starlette 0.40 send so: to them our end is a group of OSErrors; what else is in it gets out."""
    site = Site(MemoryStore())
    value = site.login()

    async def ticking(send: Any) -> None:
        while True:
            await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            await asyncio.sleep(0.01)

    async def failing(receive: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:  # when the other one's end has it cancelled
            if fault is not None:
                raise fault

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as group:
            group.create_task(ticking(send))
            outer.create_task(failing(receive))

    site.app.app = streaming
    line = await site.line(value, "http").open()
    assert (await line.next())["body"] == b":\n\n"
    await site.registry.revoke(handle_of(value))
    if fault is None:
        await line.over()
        return
    with pytest.raises(ExceptionGroup) as raised:
        await line.over()
    assert raised.group_contains(ValueError)


STAGES = ["loaded", "accepted", "listening", "looking"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_an_end_at_any_point_of_the_handshake_is_met(plain: Any, stage: str, kind: str) -> None:
    """Contract 20: listen, then look."""
    site = Site(plain)
    value = site.login()
    end = site.registry.revoke(handle_of(value))
    if stage == "loaded":
        site.accept.clear()
        gate = site.trouble.hold("load", "after")
        line = site.line(value, kind)
        await asyncio.to_thread(gate.wait_until_reached)
        await end
        gate.open()
        site.accept.set()
    elif stage == "accepted":
        real = site.store.watch

        async def watch(notice: Any) -> Any:
            await end
            return await real(notice)

        site.store.watch = watch
        line = site.line(value, kind)
    elif stage == "listening":
        real = site.store.watch

        async def watch(notice: Any) -> Any:
            stop = await real(notice)
            await end
            return stop

        site.store.watch = watch
        line = site.line(value, kind)
    else:
        line = await site.line(value, kind).open()
        gate = site.trouble.hold("load", "after")
        await asyncio.to_thread(gate.wait_until_reached)
        await end
        gate.open()
    await line.over()
    assert site.lookouts == 0


async def test_only_whose_record_changed_looks(plain: Any) -> None:
    site = Site(plain)
    values = [site.login(f"user{number}") for number in range(5)]
    lines = [await site.line(value).open() for value in values]
    async with left(*lines):
        before = await site.quiet()
        record = await site.registry._store.load(handle_of(values[0]))
        changes: list[Any] = [Update(record=replace(record, data=b"\x01\x80"), was=record.version)]
        changes.append(Touch(handle=handle_of(values[1]), seen_at=time.time()))
        for number, change in enumerate(changes):
            await plain.as_async().commit(b"%d" % number, [change], durable=False)
        assert await site.quiet(0.3) == before + 1
        await plain.as_async().commit(b"end", [End(handle=handle_of(values[2]), because="operator")], durable=True)
        await lines[2].over()
        assert [line.task.done() for line in lines] == [False, False, True, False, False]


async def test_all_look_when_something_may_have_gone_unheard(plain: Any) -> None:
    site = Site(plain)
    notices: list[Any] = []
    real = site.store.watch

    async def watch(notice: Any) -> Any:
        notices.append(notice)
        return await real(notice)

    site.store.watch = watch
    lines = [await site.line(site.login(f"user{number}")).open() for number in range(40)]
    async with left(*lines):
        before = await site.quiet()
        assert len(notices) == 1, "one watch for all"
        await asyncio.to_thread(notices[0], None)
        assert await site.quiet() == before + 40
        at_once, most = 0, 0
        load = site.store.load

        async def counted(handle: Handle) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            at_once -= 1
            return await load(handle)

        site.store.load = counted
        notices[0](None)
        await site.quiet()
        assert most == watching.AT_ONCE
    notices[0](None)
    notices[0]("nobody")


async def test_the_watch_of_the_store_ends_with_the_last_connection_and_begins_anew(plain: Any) -> None:
    site = Site(plain)
    counted: list[str] = []
    real = site.store.watch

    async def watch(notice: Any) -> Callable[[], None]:
        counted.append("begun")
        stop = await real(notice)

        def stopped() -> None:
            counted.append("ended")
            stop()

        return stopped

    site.store.watch = watch
    for _ in range(2):
        lines = [await site.line(site.login()).open() for _ in range(3)]
        await site.quiet()
        for line in lines[:2]:
            await line.leave()
        assert counted[-1] == "begun"
        await lines[2].leave()
        await asyncio.sleep(0.05)
        assert counted[-1] == "ended"
        assert site.lookouts == 0
    assert counted == ["begun", "ended"] * 2
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()] == []


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_client_that_leaves_while_we_begin_to_listen_leaves_nothing_behind(plain: Any, kind: str) -> None:
    site = Site(plain)
    ended: list[int] = []
    going = asyncio.Event()
    real = site.store.watch

    async def watch(notice: Any) -> Callable[[], None]:
        stop = await real(notice)
        await going.wait()

        def stopped() -> None:
            ended.append(1)
            stop()

        return stopped

    site.store.watch = watch
    line = await site.line(site.login(), kind).open()
    await asyncio.sleep(0.01)
    await line.leave()
    going.set()
    await asyncio.sleep(0.05)
    assert ended == [1]
    assert site.lookouts == 0


async def test_a_connection_that_ends_in_the_moment_it_began_leaves_nothing_behind(plain: Any) -> None:
    site = Site(plain)
    session = await site.app.exchange.begin(_request(site.login()))

    async def at_end(reason: str) -> None:
        raise AssertionError

    watch = site.app.watching.over(session, at_end)  # type: ignore[arg-type]
    await watch.stop()
    await asyncio.sleep(0)
    assert site.lookouts == 0


def _request(value: str) -> Any:
    from coatcheck.core.model import Request

    return Request("GET", "https", "/", [(b"cookie", b"__Host-coat=" + value.encode())])


# Without a word of the store.


async def test_the_session_s_own_end_is_met_in_time(plain: Any) -> None:
    manager = SessionManager(
        origins=["https://app.test"], timeouts=timeouts(idle=0.6, absolute=0.6, remember=None, remember_idle=None)
    )
    site = Site(plain, manager=manager)
    line = await site.line(site.login()).open()
    assert 0.3 < await line.over() < 2.5


async def test_activity_elsewhere_postpones_the_idle_end(plain: Any) -> None:
    manager = SessionManager(
        origins=["https://app.test"], timeouts=timeouts(idle=0.6, absolute=60, remember=None, remember_idle=None)
    )
    site = Site(plain, manager=manager)
    value = site.login()
    began = time.monotonic()
    line = await site.line(value).open()
    await asyncio.sleep(0.4)
    touch = Touch(handle=handle_of(value), seen_at=time.time())
    await plain.as_async().commit(b"touch", [touch], durable=False)
    await line.over()
    assert 0.9 < time.monotonic() - began < 3.5


async def test_in_any_case_a_connection_looks_now_and_then(plain: Any) -> None:
    """The watch is dead and nobody said so."""
    site = Site(plain, recheck=0.2)

    async def watch(notice: Any) -> Callable[[], None]:
        return lambda: None

    site.store.watch = watch
    value = site.login()
    line = await site.line(value).open()
    await site.quiet(0.01)
    await site.registry.revoke(handle_of(value))
    assert await line.over() < 2.5


@pytest.mark.parametrize("how", ["a write that meets the end", "a logout in the socket"])
async def test_a_socket_that_lost_its_session_by_its_own_hand_is_not_left_open(plain: Any, how: str) -> None:
    """What was opened with a session closes without one, whoever noticed first."""
    site = Site(plain, recheck=0.2)

    async def watch(notice: Any) -> Callable[[], None]:
        return lambda: None

    site.store.watch = watch
    value = site.login()
    line = await site.line(value).open()
    await site.quiet(0.01)
    (session,) = site.sessions
    if how.startswith("a write"):
        await site.registry.revoke(handle_of(value))
        session["k"] = 1
    else:
        session.logout()
    await site.app.exchange.save(session)
    told = await line.next()
    assert (told["code"], told["reason"]) == (
        4401,
        f"session ended: {'operator' if how.startswith('a write') else 'logout'}",
    )
    await line.over()


async def test_a_look_takes_no_part_in_what_began_it(plain: Any) -> None:
    """A context may name what is gone when we look again: asgiref's names the thread that waits for the call."""
    site = Site(plain, every=0.05, watched=False)
    named: ContextVar[str | None] = ContextVar("named", default=None)
    load, seen = site.store.load, []

    async def noted(handle: Handle) -> Any:
        seen.append(named.get())
        return await load(handle)

    site.store.load = noted
    named.set("the handler's")
    line = await site.line(site.login()).open()
    async with left(line), asyncio.timeout(BOUND):
        while len(seen) < 2:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.01)
    assert seen[:2] == ["the handler's", None]


async def test_everybody_s_end_is_met_within_a_second(plain: Any) -> None:
    """No record changes by an epoch."""
    site = Site(plain)
    line = await site.line(site.login()).open()
    await asyncio.sleep(0.1)
    await AsyncRegistry(plain.as_async(), realm=None).revoke_before(time.time())
    assert await line.over() < 3.5


async def test_a_store_that_tells_nothing_is_asked(plain: Any) -> None:
    site = Site(plain, every=0.1, watched=False)
    value = site.login()
    line = await site.line(value).open()
    await asyncio.sleep(0.35)
    assert 2 <= site.loads <= 6
    await site.registry.revoke(handle_of(value))
    assert await line.over() < 2.5


@pytest.mark.parametrize("error", [StoreError, ZeroDivisionError])
async def test_a_store_that_cannot_tell_just_now_is_asked_until_it_can(
    plain: Any, error: type[Exception], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RETRY", 0.3)
    site = Site(plain, every=0.1)
    real, tries = site.store.watch, []

    async def watch(notice: Any) -> Any:
        tries.append(time.monotonic())
        if len(tries) == 1:
            message = "no connection for it"
            raise error(message)
        return await real(notice)

    site.store.watch = watch
    value = site.login()
    with caplog.at_level(logging.WARNING, logger="coatcheck"):
        line = await site.line(value).open()
        await asyncio.sleep(0.25)
    assert "open connections look every 0.1 s: no connection for it" in caplog.text
    assert site.loads >= 2
    assert len(tries) == 1
    await asyncio.sleep(0.3)
    assert len(tries) == 2
    loads = await site.quiet(0.25)
    assert loads == site.loads, "now it is told"
    await site.registry.revoke(handle_of(value))
    assert await line.over() < 2.5


async def test_a_store_that_does_not_answer_is_asked_again_soon(plain: Any) -> None:
    site = Site(plain, every=0.1)
    value = site.login()
    line = await site.line(value).open()
    await site.quiet()
    site.trouble.fail("load", times=2)
    await site.registry.revoke(handle_of(value))
    assert 0.1 < await line.over() < 2.5


async def test_a_near_copy_keeps_no_connection_open(plain: Any) -> None:
    """The stream was opened from a copy; what decides is the record."""
    flaky = AsyncFlakyStore(plain.as_async())
    site = Site(plain, outer=near(flaky, 60.0))
    value = site.login()
    handle = handle_of(value)
    await site.app.store.load(handle)
    copy = site.app.store.glance(handle)
    assert copy is not None
    await site.registry.revoke(handle)
    await asyncio.sleep(0.05)
    site.app.store.copies._kept[handle] = (float("inf"), copy)
    line = await site.line(value, "http").open()
    assert await line.over() < 2.5


async def test_two_loops_in_two_threads_hear_each_for_itself(plain: Any) -> None:
    site = Site(plain)
    value, other = site.login(), site.login("bob")

    async def elsewhere() -> float:
        line = await site.line(other).open()
        await asyncio.sleep(0.1)
        await site.registry.revoke(handle_of(other))
        return await line.over()

    line = await site.line(value).open()
    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) < 2.5
    assert not line.task.done()
    await site.registry.revoke(handle_of(value))
    assert await line.over() < 2.5
