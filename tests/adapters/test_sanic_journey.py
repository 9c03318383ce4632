"""The adapter journey through Sanic and its own server, on memory and on SQLite."""

from typing import Any

from sanic import Sanic

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import AsgiDriver
from coatcheck.testing.journey import AdapterJourney

from .probe_sanic import sanic_probe
from .sanic_server import SanicServer
from .stores import OnMemory


class InSanic(AdapterJourney):
    """Through Sanic, which opens a websocket before its handler runs; its background tasks are no part of a request."""

    can = frozenset({"stream", "socket", "events", "split"})

    def drive(self, control: Control) -> Driver:
        return SanicServer(sanic_probe(control.probe, store=control.store, manager=control.manager))


class InSanicOverAsgi(AdapterJourney):
    """Through Sanic as an ASGI application, where it can neither refuse nor close a websocket."""

    can = frozenset({"stream", "split"})

    def drive(self, control: Control) -> Driver:
        app = sanic_probe(control.probe, store=control.store, manager=control.manager)
        app.asgi = Sanic.test_mode = True

        async def listed(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:  # Sanic's headers can be read once only
                await send({**message, "headers": list(message["headers"])} if "headers" in message else message)

            scope["query_string"] = scope["query_string"].replace(b" ", b"%20")  # Sanic reads it strictly
            await app(scope, receive, sending)

        driver = AsgiDriver(listed)

        async def start() -> None:
            await app._startup()
            await app._server_event("init", "before")

        driver.run(start())
        return driver


class TestSanicOnMemory(OnMemory, InSanic):
    """Sanic on memory."""


class TestSanicOverAsgiOnMemory(OnMemory, InSanicOverAsgi):
    """Sanic over ASGI on memory."""
