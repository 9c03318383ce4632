"""The adapter journey through Quart: with error pages of its own and without, on memory and on SQLite."""

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import AsgiDriver
from coatcheck.testing.journey import AdapterJourney

from .probe_quart import quart_probe
from .stores import OnMemory, OnSqlite


class Quart(AdapterJourney):
    """Through Quart, which makes a page of its own of an error; its background tasks are no part of a request."""

    can = frozenset({"stream", "socket", "events"})

    def drive(self, control: Control) -> Driver:
        return AsgiDriver(quart_probe(control.probe, store=control.store, manager=control.manager))


class QuartPropagating(Quart):
    """Through Quart, whose errors go past its own page."""

    def drive(self, control: Control) -> Driver:
        app = quart_probe(control.probe, propagate=True, store=control.store, manager=control.manager)
        return AsgiDriver(app)


class TestQuartOnMemory(OnMemory, Quart):
    """Quart on memory."""


class TestQuartOnSqlite(OnSqlite, Quart):
    """Quart on SQLite."""


class TestQuartPropagatingOnMemory(OnMemory, QuartPropagating):
    """QuartPropagating on memory."""
