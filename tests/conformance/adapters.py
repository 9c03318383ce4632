"""Every adapter that the conformance suite is run on, each over a memory store, in both colours where it has both."""

import importlib
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
from tests.adapters.probe_quart import quart_probe

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


def _quart(control: Control) -> Driver:
    app: Any = quart_probe(control.probe, store=control.store, manager=control.manager)

    async def on_a_wire(scope: Any, receive: Any, send: Any) -> None:
        # Quart's headers raise for a line break, which no server hands on: it ends the line (RFC 9112 section 2.2)
        lines = (
            (name, line) for name, value in scope["headers"] for line in b"%b: %b".__mod__((name, value)).split(b"\r\n")
        )
        scope["headers"] = [
            (name, value.strip(b" \t")) for _, line in lines for name, _, value in [line.partition(b":")]
        ]
        await app(scope, receive, send)

    return AsgiDriver(on_a_wire)


ADAPTERS = (
    Adapter("ASGI", _asgi, _store, EVERYTHING),
    Adapter("WSGI", _wsgi, _store, frozenset({"stream", "after"})),
    Adapter("Flask", _flask, _store, frozenset({"stream", "after"})),
    Adapter("Django", _django, _store, frozenset({"stream", "after", "split"})),
    Adapter("FastAPI", _fastapi, _store, EVERYTHING),
)
"""In the order of the issue: ASGI, WSGI, Flask, Django and FastAPI."""


def _walked(name: str, module: str, journey: str, drive: Any = None) -> Adapter:
    """Return what a journey of tests/adapters drives; imported here, its tests are not collected again."""
    found = getattr(importlib.import_module(f"tests.adapters.{module}"), journey)
    return Adapter(name, drive or found().drive, _store, found.can)


FURTHER = (
    _walked("Starlette", "test_journey", "StarletteInside"),
    _walked("Quart", "test_quart_journey", "Quart", _quart),
    _walked("Litestar", "test_litestar_journey", "InLitestar"),
    _walked("aiohttp", "test_aiohttp_journey", "Aiohttp"),
    _walked("Tornado", "test_tornado_journey", "Tornado"),
    _walked("Sanic", "test_sanic_journey", "InSanic"),
    _walked("Pyramid", "test_pyramid_journey", "Pyramid"),
    _walked("Django, sync", "test_django_journey", "Wsgi"),
    _walked("Flask, awaited", "test_flask_journey", "FlaskAwaited"),
)
"""The other frameworks, and the other colour of those that have two ("Django" above is async, "Flask" sync)."""

SELDOM = (
    _walked("Tornado, not awaited", "test_tornado_journey", "TornadoSync"),
    _walked("Sanic over ASGI", "test_sanic_journey", "InSanicOverAsgi"),
)
"""Ways to serve two of them that few choose."""

EVERY = (*ADAPTERS, *FURTHER, *SELDOM)
