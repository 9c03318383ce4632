"""The adapter journey through Pyramid, on memory and on SQLite, with and without an exception view of its own."""

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import WsgiDriver
from coatcheck.testing.journey import AdapterJourney

from .probe_pyramid import pyramid_probe
from .stores import OnMemory, OnSqlite


class Pyramid(AdapterJourney):
    """Through Pyramid's router; errors go past us to the server."""

    can = frozenset({"stream", "after"})

    def drive(self, control: Control) -> Driver:
        return WsgiDriver(pyramid_probe(control.probe, store=control.store, manager=control.manager))


class PyramidPages(Pyramid):
    """Through Pyramid with an exception view that makes pages of all errors."""

    def drive(self, control: Control) -> Driver:
        return WsgiDriver(pyramid_probe(control.probe, debug=True, store=control.store, manager=control.manager))


class TestPyramidOnMemory(OnMemory, Pyramid):
    """Pyramid on memory."""


class TestPyramidOnSqlite(OnSqlite, Pyramid):
    """Pyramid on SQLite."""


class TestPyramidPagesOnMemory(OnMemory, PyramidPages):
    """PyramidPages on memory."""
