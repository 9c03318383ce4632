"""The adapter journey through raw ASGI, Starlette, FastAPI and WSGI, on memory, on SQLite and through near copies."""

from coatcheck import near
from coatcheck.adapters import asgi, wsgi
from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver
from coatcheck.testing.journey import AdapterJourney
from coatcheck.testing.serving import AsgiProbe, WsgiProbe

from .frameworks import WATCH, fastapi_probe, starlette_inside, starlette_outside
from .stores import OnMemory, OnSqlite

EVERYTHING = frozenset({"stream", "after", "socket", "events", "split"})


class Asgi(AdapterJourney):
    """Through raw ASGI."""

    can = EVERYTHING

    def drive(self, control: Control) -> Driver:
        probe = AsgiProbe(control.probe)
        how = {"watch_every": WATCH, "watch_recheck": WATCH}
        return AsgiDriver(asgi.SessionMiddleware(probe, store=control.store, manager=control.manager, **how))


class StarletteInside(Asgi):
    """Through Starlette, our middleware added to the application."""

    def drive(self, control: Control) -> Driver:
        return AsgiDriver(starlette_inside(control.probe, store=control.store, manager=control.manager))


class StarletteOutside(Asgi):
    """Through Starlette in debug mode, our middleware around the application; a server of the newest specification."""

    def drive(self, control: Control) -> Driver:
        app = starlette_outside(control.probe, store=control.store, manager=control.manager)
        return AsgiDriver(app, spec_version="2.5")


class FastApi(Asgi):
    """Through FastAPI."""

    def drive(self, control: Control) -> Driver:
        return AsgiDriver(fastapi_probe(control.probe, store=control.store, manager=control.manager))


class Wsgi(AdapterJourney):
    """Through WSGI, the application answering with lists where it can."""

    can = frozenset({"stream", "after"})

    def drive(self, control: Control) -> Driver:
        probe = WsgiProbe(control.probe)
        return WsgiDriver(wsgi.SessionMiddleware(probe, store=control.store, manager=control.manager))


class WsgiGenerators(Wsgi):
    """Through WSGI, the application always answering with an iterator."""

    def drive(self, control: Control) -> Driver:
        probe = WsgiProbe(control.probe, as_list=False)
        return WsgiDriver(wsgi.SessionMiddleware(probe, store=control.store, manager=control.manager))


class AsgiNear(Asgi):
    """Through raw ASGI, with near copies before the store."""

    def drive(self, control: Control) -> Driver:
        store = near(control.store.as_async())
        how = {"watch_every": WATCH, "watch_recheck": WATCH}
        return AsgiDriver(asgi.SessionMiddleware(AsgiProbe(control.probe), store=store, manager=control.manager, **how))


class WsgiNear(Wsgi):
    """Through WSGI, with near copies before the store."""

    def drive(self, control: Control) -> Driver:
        probe = WsgiProbe(control.probe)
        return WsgiDriver(wsgi.SessionMiddleware(probe, store=near(control.store), manager=control.manager))


class TestAsgiOnMemory(OnMemory, Asgi):
    """Asgi on memory."""


class TestAsgiOnSqlite(OnSqlite, Asgi):
    """Asgi on SQLite."""


class TestStarletteInsideOnMemory(OnMemory, StarletteInside):
    """StarletteInside on memory."""


class TestStarletteInsideOnSqlite(OnSqlite, StarletteInside):
    """StarletteInside on SQLite."""


class TestStarletteOutsideOnMemory(OnMemory, StarletteOutside):
    """StarletteOutside on memory."""


class TestStarletteOutsideOnSqlite(OnSqlite, StarletteOutside):
    """StarletteOutside on SQLite."""


class TestFastApiOnMemory(OnMemory, FastApi):
    """FastApi on memory."""


class TestFastApiOnSqlite(OnSqlite, FastApi):
    """FastApi on SQLite."""


class TestWsgiOnMemory(OnMemory, Wsgi):
    """Wsgi on memory."""


class TestWsgiOnSqlite(OnSqlite, Wsgi):
    """Wsgi on SQLite."""


class TestWsgiGeneratorsOnMemory(OnMemory, WsgiGenerators):
    """WsgiGenerators on memory."""


class TestAsgiNearMemory(OnMemory, AsgiNear):
    """AsgiNear before memory, which tells at once what changed."""


class TestWsgiNearMemory(OnMemory, WsgiNear):
    """WsgiNear before memory."""
