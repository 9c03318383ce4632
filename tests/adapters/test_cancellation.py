"""Cancellation at many points of a request: the store is before it or after it, never half; nothing is left over."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from coatcheck import MemoryStore, SessionManager
from coatcheck.adapters.asgi import SessionMiddleware, session_of
from coatcheck.core import codec
from coatcheck.core.model import Change, Conflict, Query, Record
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import sign_in
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import AsgiConnection, AsgiDriver

POINTS = 40


class Dawdling:
    """An async store that gives way to others before and after everything that it does."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.listeners = store.listeners

    async def load(self, handle: str) -> Record | None:
        await _yield()
        record: Record | None = await self.store.load(handle)
        await _yield()
        return record

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        await _yield()
        conflict: Conflict | None = await self.store.commit(commit_id, changes, durable)
        await _yield()
        return conflict

    async def epochs(self) -> Any:
        await _yield()
        return await self.store.epochs()


async def _yield() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def app_of(act: str, called: list[str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = session_of(scope)
        if act == "login":
            session.login("alice")
        elif act == "logout":
            session.logout()
        elif act == "step-up":
            session.login(session.subject or "", level=20)
        else:
            session["k"] = 2
        called.append(act)
        await _yield()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        await _yield()
        session["late"] = 1

    return app


async def cancelled_after(steps: int | None, app: Any, cookie: tuple[str, str]) -> list[dict[str, Any]]:
    """Serve one request, cancel it after some turns of the loop (None: never); return what it complained of."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    driver = AsgiDriver(app)
    browser = Browser(driver)
    browser.jar.update([cookie])
    task = asyncio.ensure_future(AsgiConnection(driver, browser.sent("POST", "/"), "http").serve())
    if steps is not None:
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), 5)
    return complaints


def outcome(records: list[Record], act: str) -> str:
    """Return "before" or "after", and fail for anything between the two."""
    live = [one for one in records if one.ended_at is None]
    if act == "logout":
        return "before" if live else "after"
    assert len(live) == 1, [(one.subject, one.ended_because) for one in records]
    if act == "login":
        return "before" if live[0].subject is None else "after"
    if act == "step-up":
        return "before" if live[0].level == 10 else "after"
    return "before" if codec.decode(live[0].data)["k"] == 1 else "after"


def begun(store: Any, act: str) -> tuple[str, str]:
    """Return the cookie of a session that is there before the request: anonymous for a login, alice's otherwise."""
    if act != "login":
        return sign_in(store, "alice", data={"k": 1})
    from coatcheck.core.manager import Absent
    from coatcheck.core.model import Reply, Request

    manager = SessionManager()
    session = manager.open(Request("GET", "https", "/", ()), Absent.NO_COOKIE, None)
    assert not isinstance(session, Reply)
    session["cart"] = [7]
    made = manager.settle(session, 200, ())
    store.commit(b"0" * 16, made.changes, durable=False)
    name, _, value = made.cookies[0].partition(b";")[0].partition(b"=")
    return name.decode(), value.decode()


@pytest.mark.parametrize("act", ["login", "step-up", "logout", "write"])
def test_a_cancelled_request_is_before_or_after_on_memory(act: str) -> None:
    seen = set()
    for steps in range(POINTS):
        store = MemoryStore()
        cookie, called = begun(store, act), []
        app = SessionMiddleware(app_of(act, called), store=Dawdling(store.as_async()))
        assert asyncio.run(cancelled_after(steps, app, cookie)) == []
        found = outcome(list(store.find(Query(live=False)).items), act)
        if act == "logout":
            # an end is an end: from the moment in which the handler asked for it
            assert (found == "after") == bool(called)
        seen.add(found)
    assert seen == {"before", "after"}


@pytest.mark.parametrize("act", ["login", "logout"])
def test_a_cancelled_request_is_before_or_after_on_sqlite(act: str, tmp_path: Path) -> None:
    seen = set()
    # turns of the loop say little of a writer's thread: a fast machine may cancel every one of them "before"
    for number, steps in enumerate((0, 2, 4, 6, 8, 9, 10, 11, 12, 14, 17, 20, 30, 60, 120, 400, None)):
        store = SqliteStore(tmp_path / f"{number}.db")
        cookie, called = begun(store, act), []
        app = SessionMiddleware(app_of(act, called), store=store)
        assert asyncio.run(cancelled_after(steps, app, cookie)) == []
        found = outcome(list(store.find(Query(live=False)).items), act)
        if act == "logout":
            assert (found == "after") == bool(called)
        seen.add(found)
        store.close()
    assert seen == {"before", "after"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_timeout_around_a_login_that_waits_for_the_store_leaves_all_or_nothing(when: str) -> None:
    from coatcheck.testing import AsyncFlakyStore

    async def attempt() -> list[Record]:
        plain = MemoryStore()
        store = AsyncFlakyStore(plain.as_async())
        cookie = begun(plain, "login")
        gate = store.trouble.hold("commit", when)  # type: ignore[arg-type]
        app = SessionMiddleware(app_of("login", []), store=store)

        async def hasty(scope: Any, receive: Any, send: Any) -> None:
            async with asyncio.timeout(0.05):
                await app(scope, receive, send)

        driver = AsgiDriver(hasty)
        browser = Browser(driver)
        browser.jar.update([cookie])
        connection = AsgiConnection(driver, browser.sent("POST", "/"), "http")
        await connection.serve()
        gate.open()
        assert type(connection.result().error) is TimeoutError
        return list(plain.find(Query(live=False)).items)

    assert outcome(asyncio.run(attempt()), "login") == when
