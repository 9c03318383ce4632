"""The adapter journey through Flask: views that block and views that are awaited, on memory and on SQLite."""

from importlib.metadata import version

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import WsgiDriver
from coatcheck.testing.journey import AdapterJourney

from .probe_flask import flask_probe
from .stores import OnMemory, OnSqlite


def _release(package: str) -> tuple[int, ...]:
    return tuple(map(int, version(package).split(".")))


class Flask(AdapterJourney):
    """Through Flask, which makes a page of its own of an error."""

    can = frozenset({"stream", "after"})

    def drive(self, control: Control) -> Driver:
        return WsgiDriver(flask_probe(control.probe, store=control.store, manager=control.manager))


class FlaskAwaited(Flask):
    """Through views that are awaited, in an application that lets its errors escape."""

    # before 3.1.2 Flask lost the context of a stream that an awaited view returned
    can = frozenset({"stream", "after"} if _release("flask") >= (3, 1, 2) else {"after"})

    def drive(self, control: Control) -> Driver:
        return WsgiDriver(flask_probe(control.probe, awaited=True, store=control.store, manager=control.manager))


class TestFlaskOnMemory(OnMemory, Flask):
    """Flask on memory."""


class TestFlaskOnSqlite(OnSqlite, Flask):
    """Flask on SQLite."""


class TestFlaskAwaitedOnMemory(OnMemory, FlaskAwaited):
    """FlaskAwaited on memory."""
