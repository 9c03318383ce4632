"""The adapter journey through Tornado's own server, on memory and on SQLite."""

from typing import ClassVar

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.journey import AdapterJourney

from .loopback import LoopbackDriver
from .probe_tornado import Page, SyncPage, TornadoServer, tornado_probe
from .stores import OnMemory, OnSqlite


class Tornado(AdapterJourney):
    """Through handlers that are awaited."""

    can = frozenset({"stream", "after", "socket", "events", "split"})
    page: ClassVar[type[Page]] = Page

    def drive(self, control: Control) -> Driver:
        app = tornado_probe(control.probe, self.page, store=control.store, manager=control.manager)
        return LoopbackDriver(TornadoServer(app))


class TornadoSync(Tornado):
    """Through handlers that are not awaited."""

    page = SyncPage


class TestTornadoOnMemory(OnMemory, Tornado):
    """Tornado on memory."""


class TestTornadoOnSqlite(OnSqlite, Tornado):
    """Tornado on SQLite."""


class TestTornadoSyncOnMemory(OnMemory, TornadoSync):
    """TornadoSync on memory."""
