"""The adapter journey through Django: WSGIHandler and ASGIHandler, sync and async views, on memory and SQLite."""

from typing import Any

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver
from coatcheck.testing.journey import AdapterJourney, House

from .probe_django import Async, Sync, asgi_probe, wsgi_probe
from .stores import OnMemory, OnSqlite


class Wsgi(AdapterJourney):
    """Through WSGIHandler."""

    can = frozenset({"stream", "after"})
    urls: Any = Sync

    def drive(self, control: Control) -> Driver:
        return WsgiDriver(wsgi_probe(control, self.urls))


class Asgi(AdapterJourney):
    """Through ASGIHandler."""

    can = frozenset({"stream", "after", "split"})
    urls: Any = Async

    def drive(self, control: Control) -> Driver:
        return AsgiDriver(asgi_probe(control, self.urls))

    def test_a_client_that_leaves_in_the_body_stops_nothing_that_was_stored(self, house: House) -> None:
        """Row 22: Django cancels a view whose client has left, perhaps before it began; so it is all or nothing."""
        browser = house.browser()
        browser.login()
        flight = browser.start("GET", "/stream?body=write&do=write")
        flight.pending.disconnect()
        flight.wait()
        assert browser.get("/data").json() in ({}, {"k": "written"})


class TestSyncViewsUnderWsgiOnMemory(OnMemory, Wsgi):
    """Sync views, where they are at home."""


class TestSyncViewsUnderWsgiOnSqlite(OnSqlite, Wsgi):
    """Sync views, where they are at home."""


class TestAsyncViewsUnderWsgiOnMemory(OnMemory, Wsgi):
    """Async views, each on a loop of its own."""

    urls = Async


class TestAsyncViewsUnderAsgiOnMemory(OnMemory, Asgi):
    """Async views, where they are at home."""


class TestSyncViewsUnderAsgiOnMemory(OnMemory, Asgi):
    """Sync views, each in a thread."""

    urls = Sync
