"""Listeners hear of what was committed, once, in order; whatever they do, no request and no other listener waits."""

import asyncio
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from coatcheck import ConfigError, Event, MemoryStore, SessionManager
from coatcheck.core.model import Request
from coatcheck.flow import telling
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.flow.sync import Exchange
from coatcheck.flow.telling import Post, Telling
from coatcheck.testing.clock import Clock

PATIENCE = 20.0
LOGIN = Request("POST", "https", "/login", ((b"host", b"app.test"), (b"sec-fetch-site", b"same-origin")))


def login(exchange: Exchange, subject: str = "alice") -> None:
    session = exchange.begin(LOGIN)
    session.login(subject)  # type: ignore[union-attr]
    exchange.finish(session, 200, ())  # type: ignore[arg-type]


def manager_of(*listeners: Callable[[Event], Any], **settings: Any) -> SessionManager:
    return SessionManager(clock=Clock(), origins=["https://app.test"], on_event=list(listeners), **settings)


def exchange_of(*listeners: Callable[[Event], Any], **settings: Any) -> Exchange:
    manager = manager_of(*listeners, **settings)
    return Exchange(manager, MemoryStore(clock=manager.now))


def telling_in(exchange: Any) -> Telling:
    (found,) = [listener for listener in exchange.store.listeners if isinstance(listener, Telling)]
    return found


def event(name: str = "session_created", realm: str = "__Host-coat") -> Event:
    return Event(name=name, at=1.0, realm=realm)


def test_a_listener_hears_of_a_login_after_it_was_committed() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    heard: list[tuple[str, str | None, bool]] = []

    def listener(event: Event) -> None:
        heard.append((event.name, event.subject, store.load(event.handle or "") is not None))

    exchange = Exchange(manager_of(listener), store)
    clock.now = exchange.manager.now()
    login(exchange)
    assert telling_in(exchange).drained(PATIENCE)
    assert heard == [("session_created", "alice", True), ("authn_login_success", "alice", True)]


def test_a_request_does_not_wait_for_a_listener() -> None:
    release, entered = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        entered.set()
        assert release.wait(PATIENCE)

    exchange = exchange_of(slow)
    login(exchange)
    assert entered.wait(PATIENCE)
    login(exchange, "bob")  # while it is still at the first event
    assert not telling_in(exchange).drained(0.01)
    release.set()
    assert telling_in(exchange).drained(PATIENCE)


def test_a_listener_that_fails_or_hangs_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    release, heard = threading.Event(), []

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    exchange = exchange_of(broken, lambda _: release.wait(PATIENCE), lambda event: heard.append(event.name))
    login(exchange)
    failed, _, good = telling_in(exchange).posts
    until = time.monotonic() + PATIENCE
    assert failed.drained(until)
    assert good.drained(until)
    release.set()
    assert heard == ["session_created", "authn_login_success"]
    assert caplog.text.count("on_event: ") == 2
    assert "failed at authn_login_success" in caplog.text


def test_what_waits_is_bounded_and_what_is_lost_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 3)
    release, heard, entered = threading.Event(), [], threading.Event()

    def listener(event: Event) -> None:
        entered.set()
        assert release.wait(PATIENCE)
        heard.append(event.name)

    post = Post(listener)
    post.put(event("first"))
    assert entered.wait(PATIENCE)
    for number in range(10):
        post.put(event(f"{number}"))
    assert post.lost == 7
    release.set()
    assert post.drained(time.monotonic() + PATIENCE)
    assert heard == ["first", "0", "1", "2"], "in their order"
    assert caplog.text.count("more are lost") == 1
    assert "they are all in the store" in caplog.text


def test_another_realm_on_the_same_store_is_none_of_our_business() -> None:
    heard: list[Event] = []
    ours = exchange_of(heard.append)
    login(Exchange(manager_of(realm="other"), ours.store))
    login(ours, "bob")
    assert telling_in(ours).drained(PATIENCE)
    assert {event.realm for event in heard} == {"__Host-coat"}
    telling_in(ours)([event(realm=""), event(realm="other")])  # of the store itself; of others
    assert telling_in(ours).drained(PATIENCE)
    assert [event.realm for event in heard[2:]] == [""]


def test_two_exchanges_of_one_application_tell_once() -> None:
    heard: list[Event] = []
    manager = manager_of(heard.append)
    store = MemoryStore(clock=manager.now)
    first, second = Exchange(manager, store), Exchange(manager, store)
    login(first)
    login(second)
    assert telling_in(first).drained(PATIENCE)
    assert len(heard) == 4


def test_a_thread_ends_when_nothing_comes_and_another_begins_with_the_next_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "IDLE", 0.01)
    heard: list[Event] = []
    post = Post(heard.append)
    for count in (1, 2):
        post.put(event())
        assert post.drained(time.monotonic() + PATIENCE)
        assert len(heard) == count
        thread = post._thread
        if thread is not None:
            thread.join(PATIENCE)
        assert post._thread is None


def test_an_event_that_comes_while_the_thread_is_about_to_end_is_told() -> None:
    """Between its last look and its end: the one who puts sees a thread that is alive, and starts no other."""
    heard: list[Event] = []
    post = Post(heard.append)
    get, misses = post._queue.get, [queue.Empty]

    def late(*, timeout: float) -> Event:
        if misses:
            raise misses.pop()
        return get(timeout=timeout)

    post._queue.get = late  # type: ignore[method-assign,assignment]
    post.put(event())
    assert post.drained(time.monotonic() + PATIENCE)
    assert len(heard) == 1


def test_what_waits_when_the_process_ends_is_told() -> None:
    program = """
import time
from coatcheck import Event
from coatcheck.flow import telling

telling.FAREWELL = 60.0  # this machine may be busy

def slow(event):
    time.sleep(0.05)
    print(event.name, flush=True)

post = telling.Post(slow)
for name in ("one", "two", "three"):
    post.put(Event(name=name, at=1.0, realm=""))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["one", "two", "three"]


def test_a_thread_that_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    heard: list[str] = []

    def listener(event: Event) -> None:
        if event.name == "fatal":
            raise SystemExit
        heard.append(event.name)

    post = Post(listener)
    post.put(event("fatal"))
    assert post.drained(time.monotonic() + PATIENCE)
    post.put(event("next"))
    assert post.drained(time.monotonic() + PATIENCE)
    assert heard == ["next"]


def test_what_waits_at_a_fork_is_told_by_the_parent_alone() -> None:
    """And a child begins a thread, and a lock, of its own: its parent's may have been in use."""
    told, go = os.pipe(), threading.Event()

    def listener(event: Event) -> None:
        go.wait(PATIENCE)
        os.write(told[1], f"{os.getpid()} {event.name}\n".encode())

    post = Post(listener)
    for name in ("one", "two"):
        post.put(event(name))
    post._lock.acquire()
    child = os.fork()
    if child == 0:
        go.set()
        post.put(event("three"))
        os._exit(0 if post.drained(time.monotonic() + PATIENCE) else 1)
    post._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert post.drained(time.monotonic() + PATIENCE)
    heard = os.read(told[0], 1000).decode().splitlines()
    assert sorted(heard) == sorted([f"{child} three", f"{os.getpid()} one", f"{os.getpid()} two"])
    for end in told:
        os.close(end)


def test_a_coroutine_runs_on_the_loop_of_the_application() -> None:
    loops: list[tuple[str, Any]] = []

    async def listener(event: Event) -> None:
        await asyncio.sleep(0)
        loops.append((event.name, asyncio.get_running_loop()))

    async def scenario() -> Any:
        manager = manager_of(listener)
        exchange = AsyncExchange(manager, MemoryStore(clock=manager.now).as_async())
        session = await exchange.begin(LOGIN)
        session.login("alice")  # type: ignore[union-attr]
        await exchange.finish(session, 200, ())  # type: ignore[arg-type]
        assert await asyncio.to_thread(telling_in(exchange).drained, PATIENCE)
        return asyncio.get_running_loop()

    loop = asyncio.run(scenario())
    assert loops == [("session_created", loop), ("authn_login_success", loop)]


def test_a_coroutine_of_a_blocking_application_runs_on_a_loop_of_its_own() -> None:
    heard: Future[str] = Future()

    async def listener(event: Event) -> None:
        await asyncio.sleep(0)
        if not heard.done():
            heard.set_result(event.name)

    login(exchange_of(listener))
    assert heard.result(PATIENCE) == "session_created"


def test_a_coroutine_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(telling, "MOST_SECONDS", 0.01)

    async def listener(event: Event) -> None:
        await asyncio.Event().wait()

    exchange = exchange_of(listener)
    login(exchange)
    assert telling_in(exchange).drained(PATIENCE)
    assert caplog.text.count("TimeoutError") >= 2


@pytest.fixture(autouse=True)
def _nobody_listens_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "IDLE", 0.5)


@pytest.mark.parametrize("given", ["print", [None], print])
def test_what_is_no_list_of_functions_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="on_event is a list of functions"):
        SessionManager(origins=["https://app.test"], on_event=given)
