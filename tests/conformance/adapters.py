"""Every adapter that the conformance suite is run on, each over a memory store, in both colours where it has both.

An adapter is made when it is asked for: nothing of another framework need be installed for that.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from coatcheck import MemoryStore
from coatcheck.testing import Clock, Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.conformance import Adapter
from coatcheck.testing.drivers import AsgiDriver

JOURNEYS = {
    "ASGI": ("test_journey", "Asgi"),
    "WSGI": ("test_journey", "Wsgi"),
    "Flask": ("test_flask_journey", "Flask"),
    "Django": ("test_django_journey", "Asgi"),
    "FastAPI": ("test_journey", "FastApi"),
    "Starlette": ("test_journey", "StarletteInside"),
    "Quart": ("test_quart_journey", "Quart"),
    "Litestar": ("test_litestar_journey", "InLitestar"),
    "aiohttp": ("test_aiohttp_journey", "Aiohttp"),
    "Tornado": ("test_tornado_journey", "Tornado"),
    "Sanic": ("test_sanic_journey", "InSanic"),
    "Pyramid": ("test_pyramid_journey", "Pyramid"),
    "Django, sync": ("test_django_journey", "Wsgi"),
    "Flask, awaited": ("test_flask_journey", "FlaskAwaited"),
    "Tornado, not awaited": ("test_tornado_journey", "TornadoSync"),
    "Sanic over ASGI": ("test_sanic_journey", "InSanicOverAsgi"),
}
"""By name: the journey that serves it, a module of tests/adapters and its class."""

EVERY = tuple(JOURNEYS)
FIVE = EVERY[:5]
"""Those of the issue: ASGI, WSGI, Flask, Django and FastAPI."""
SELDOM = ("Tornado, not awaited", "Sanic over ASGI")
"""Ways to serve two of them that few choose."""
FURTHER = tuple(name for name in EVERY if name not in FIVE + SELDOM)
"""The other frameworks, and the other colour of those that have two ("Django" is async, "Flask" is sync)."""


def framework_of(name: str) -> str:
    """Return the framework that an adapter is for, in lower case."""
    return name.partition(",")[0].partition(" ")[0].lower()


@cache
def adapter(name: str) -> Adapter:
    """Return an adapter by its name."""
    module, kind = JOURNEYS[name]
    journey: Any = getattr(import_module(f"tests.adapters.{module}"), kind)
    drive: Callable[[Control], Driver] = _quart if name == "Quart" else journey().drive
    return Adapter(name, drive, _store, journey.can)


def _store(clock: Clock) -> Any:
    return MemoryStore(clock=clock)


def _quart(control: Control) -> Driver:
    from tests.adapters.probe_quart import quart_probe

    app: Any = quart_probe(control.probe, store=control.store, manager=control.manager)

    async def on_a_wire(scope: Any, receive: Any, send: Any) -> None:
        # Quart's headers raise for a line break, which no server hands on: it ends the line (RFC 9112 section 2.2)
        lines = (line for pair in scope["headers"] for line in (b"%b: %b" % pair).split(b"\r\n"))
        parted = (line.partition(b":") for line in lines)
        scope["headers"] = [(name, value.strip(b" \t")) for name, _, value in parted]
        await app(scope, receive, send)

    return AsgiDriver(on_a_wire)
