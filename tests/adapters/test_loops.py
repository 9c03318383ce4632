"""Row 37 (F12): one application on event loops that come and go, as test clients and pytest-asyncio make them."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sanic import Sanic

from coatcheck import MemoryStore, near
from coatcheck.adapters import asgi
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Probe
from coatcheck.testing.browser import Browser, Driver
from coatcheck.testing.drivers import AsgiDriver
from coatcheck.testing.serving import AsgiProbe

from .frameworks import fastapi_probe, starlette_inside
from .loopback import LoopbackDriver
from .probe_aiohttp import AiohttpServer, aiohttp_probe
from .probe_litestar import litestar_probe
from .probe_quart import quart_probe
from .probe_sanic import sanic_probe
from .probe_tornado import TornadoServer, tornado_probe
from .sanic_server import SanicServer

HTTPS = "https://testserver"
OURS = {"sec-fetch-site": "same-origin"}
COOKIE = "__Host-coat"


def raw(probe: Probe, **how: Any) -> Any:
    """Return the probe as a plain ASGI application."""
    return asgi.SessionMiddleware(AsgiProbe(probe), watch_every=0.1, watch_recheck=0.1, **how)


def litestar(probe: Probe, **how: Any) -> Any:
    """Return the probe as a Litestar application whose lifespan began, and ended, on a loop that is gone."""
    app = litestar_probe(probe, **how)

    async def start() -> None:
        async with app.lifespan():
            pass

    # in a thread: a module is imported wherever pytest likes
    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    thread.join()
    return app


def sanic(probe: Probe, **how: Any) -> Any:
    """Return the probe as a Sanic application for an ASGI server; it begins on whatever loop it is asked on first."""
    app = sanic_probe(probe, **how)
    app.asgi = Sanic.test_mode = True
    begun = []

    async def served(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:  # Sanic's headers can be read once only
            await send({**message, "headers": list(message["headers"])} if "headers" in message else message)

        if not begun:
            begun.append(True)
            await app._startup()
            await app._server_event("init", "before")
        await app(scope, receive, sending)

    return served


FRAMEWORKS: dict[str, Callable[..., Any]] = {
    "asgi": raw,
    "fastapi": fastapi_probe,
    "litestar": litestar,
    "quart": quart_probe,
    "sanic": sanic,
    "starlette": starlette_inside,
}
STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda place: MemoryStore(),
    "sqlite": lambda place: SqliteStore(place / "sessions.db"),
    "near": lambda place: near(MemoryStore().as_async()),
    "url": lambda place: f"sqlite:///{place}/sessions.db",
}


def walk(browser: Browser) -> None:
    """Visit as a test does."""
    assert browser.get("/data?write=cart&value=tea").status == 200
    assert browser.post("/login", {"user": "alice"}).status == 303
    assert browser.get("/me").json()["user"] == "alice"
    assert browser.post("/bump?key=n").json() == {"count": 1}
    assert browser.get("/account/sessions").json()["sessions"][0]["current"]
    assert browser.post("/logout").status == 303
    assert browser.get("/me").status == 401


@pytest.mark.parametrize(
    ("framework", "store"),
    [*((framework, "sqlite") for framework in FRAMEWORKS), *(("asgi", store) for store in ("memory", "near", "url"))],
)
def test_each_request_may_have_a_loop_of_its_own(framework: str, store: str, tmp_path: Path) -> None:
    """Test clients without a `with` block: the loop of the request before is closed."""
    kept = STORES[store](tmp_path)
    driver = AsgiDriver(FRAMEWORKS[framework](Probe(), store=kept), fresh_loops=True)
    walk(Browser(driver))
    driver.close()


# the same applications in three tests, each with a loop of its own (pytest-asyncio makes one for each)
MODULE_APPS = {name: make(Probe(), store="memory://") for name, make in FRAMEWORKS.items()}


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_an_application_of_the_module_serves_three_tests(framework: str, number: int) -> None:
    transport = httpx2.ASGITransport(MODULE_APPS[framework])
    async with httpx2.AsyncClient(transport=transport, base_url=HTTPS, headers=OURS) as client:
        assert (await client.post("/login", data={"user": f"user-{number}"})).status_code == 303
        asked = [client.get("/me") for _ in range(8)]
        assert {answer.json()["user"] for answer in await asyncio.gather(*asked)} == {f"user-{number}"}


SERVERS: dict[str, Callable[[Any], Driver]] = {
    "aiohttp": lambda store: LoopbackDriver(AiohttpServer(aiohttp_probe(Probe(), store=store))),
    "sanic": lambda store: SanicServer(sanic_probe(Probe(), store=store)),
    "tornado": lambda store: LoopbackDriver(TornadoServer(tornado_probe(Probe(), store=store))),
}


@pytest.mark.parametrize("kept", [MemoryStore, lambda: near(MemoryStore().as_async())])
@pytest.mark.parametrize("server", SERVERS)
def test_a_store_of_the_module_serves_a_server_of_each_loop(server: str, kept: Callable[[], Any]) -> None:
    """Their applications belong to a loop by design; the store that they share does not."""
    store = kept()
    browser = None
    for _ in range(3):
        driver = SERVERS[server](store)
        before, browser = browser, Browser(driver)
        if before is None:
            browser.login()
        else:
            browser.jar = before.jar
        assert browser.get("/me").json()["user"] == "alice"
        driver.close()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_sockets_on_three_loops_end_with_their_session(store: str, tmp_path: Path) -> None:
    """Row 43, where each connection has its own loop: one application watches on all of them."""
    driver = AsgiDriver(raw(Probe(), store=STORES[store](tmp_path)), fresh_loops=True)
    browser = Browser(driver)
    browser.login()
    sockets = [browser.connect("/ws") for _ in range(3)]
    for number, socket in enumerate(sockets):
        socket.send(f"save {number}")
        assert socket.receive() == f"alice: save {number}"
    browser.post("/logout")
    assert [socket.receive() for socket in sockets] == [4401] * 3
    driver.close()
