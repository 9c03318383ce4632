"""The five adapters that the conformance suite is run on, each over a memory store."""

from typing import Any

from coatcheck import MemoryStore
from coatcheck.adapters import asgi, wsgi
from coatcheck.testing import Clock, Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.conformance import Adapter
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver
from coatcheck.testing.serving import AsgiProbe, WsgiProbe
from tests.adapters.frameworks import WATCH, fastapi_probe
from tests.adapters.probe_django import asgi_probe as django_probe
from tests.adapters.probe_flask import flask_probe

EVERYTHING = frozenset({"stream", "after", "socket", "events", "split"})


def _store(clock: Clock) -> Any:
    return MemoryStore(clock=clock)


def _asgi(control: Control) -> Driver:
    how = {"watch_every": WATCH, "watch_recheck": WATCH}
    probe = AsgiProbe(control.probe)
    return AsgiDriver(asgi.SessionMiddleware(probe, store=control.store, manager=control.manager, **how))


def _wsgi(control: Control) -> Driver:
    probe = WsgiProbe(control.probe)
    return WsgiDriver(wsgi.SessionMiddleware(probe, store=control.store, manager=control.manager))


def _flask(control: Control) -> Driver:
    return WsgiDriver(flask_probe(control.probe, store=control.store, manager=control.manager))


def _django(control: Control) -> Driver:
    return AsgiDriver(django_probe(control))


def _fastapi(control: Control) -> Driver:
    return AsgiDriver(fastapi_probe(control.probe, store=control.store, manager=control.manager))


ADAPTERS = (
    Adapter("ASGI", _asgi, _store, EVERYTHING),
    Adapter("WSGI", _wsgi, _store, frozenset({"stream", "after"})),
    Adapter("Flask", _flask, _store, frozenset({"stream", "after"})),
    Adapter("Django", _django, _store, frozenset({"stream", "after", "split"})),
    Adapter("FastAPI", _fastapi, _store, EVERYTHING),
)
"""In the order of the issue: ASGI, WSGI, Flask, Django and FastAPI."""
