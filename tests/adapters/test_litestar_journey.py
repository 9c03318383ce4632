"""The adapter journey through Litestar, on memory and on SQLite."""

import asyncio

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import AsgiDriver
from coatcheck.testing.journey import AdapterJourney

from .probe_litestar import litestar_probe
from .stores import OnMemory, OnSqlite


class InLitestar(AdapterJourney):
    """Through Litestar, whose plugin began with the application's lifespan."""

    can = frozenset({"stream", "after", "socket", "events", "split"})

    def drive(self, control: Control) -> Driver:
        app = litestar_probe(control.probe, store=control.store, manager=control.manager)

        async def start() -> None:
            async with app.lifespan():
                pass

        asyncio.run(start())
        return AsgiDriver(app)


class TestLitestarOnMemory(OnMemory, InLitestar):
    """InLitestar on memory."""


class TestLitestarOnSqlite(OnSqlite, InLitestar):
    """InLitestar on SQLite."""
