"""Houses behind every framework: the same probe and the same byte-for-byte visitors, through each adapter's own server.

What drives a framework is what its journey drives (tests/adapters); in process where it can be, else on the loopback.
"""

import importlib
from collections.abc import Iterable
from typing import Any

from coatcheck import SessionManager
from coatcheck.flow.sync import Exchange
from coatcheck.testing import Control
from coatcheck.testing.browser import Driver, Received, Sent
from coatcheck.testing.clock import Clock

from .house import ORIGIN, Answer, Ask, House, Pending

FRAMEWORKS = {
    "flask": ("test_flask_journey", "Flask"),
    "flask-awaited": ("test_flask_journey", "FlaskAwaited"),
    "django": ("test_django_journey", "Wsgi"),
    "django-asgi": ("test_django_journey", "Asgi"),
    "fastapi": ("test_journey", "FastApi"),
    "starlette": ("test_journey", "StarletteInside"),
    "quart": ("test_quart_journey", "Quart"),
    "litestar": ("test_litestar_journey", "InLitestar"),
    "aiohttp": ("test_aiohttp_journey", "Aiohttp"),
    "tornado": ("test_tornado_journey", "Tornado"),
    "sanic": ("test_sanic_journey", "InSanic"),
    "pyramid": ("test_pyramid_journey", "Pyramid"),
}
"""By name: the journey that serves it, a module of tests/adapters and its class."""

OF_THE_SERVER = (b"date", b"server", b"connection", b"keep-alive")
"""Headers that a framework's own server writes: they differ from answer to answer, and say nothing of a session."""


class FrameworkHouse(House):
    """A served probe behind a framework; what a drill asks of a `House`, it has."""

    def __init__(self, kind: str, store: Any, clock: Clock, **settings: Any) -> None:
        """Serve the probe with a framework, on a blocking store that has both faces."""
        self.kind, self.clock, self.settings = kind, clock, {"origins": [ORIGIN], **settings}
        self.control = Control(store, clock, SessionManager(clock=clock, **self.settings))
        module, name = FRAMEWORKS[kind]
        journey = getattr(importlib.import_module(f"tests.adapters.{module}"), name)
        self._driver: Driver = journey().drive(self.control)

    def ask_all(self, asks: Iterable[Ask], *, parallel: bool = False) -> list[Answer]:
        """Send many, one after the other or all at once; the answers come in their order."""
        if parallel:
            return [answered(each.result()) for each in [self._driver.start(sent(ask)) for ask in asks]]
        return [answered(self._driver.start(sent(ask)).result()) for ask in asks]

    def start(self, *asks: Ask) -> Pending:
        """Send requests in the background."""
        return _Flying([self._driver.start(sent(ask)) for ask in asks])

    def exchange(self, verb: str, *arguments: Any) -> Any:
        """Call a verb of an exchange with the same counter and the same store."""
        return getattr(Exchange(self.control.manager, self.control.plain), verb)(*arguments)

    def flush(self) -> None:
        """Write the noise counted so far."""
        self.exchange("flush")

    def close(self) -> None:
        """Stop the server; fail for what broke the protocol."""
        self._driver.close()


class _Flying(Pending):
    def __init__(self, requests: list[Any]) -> None:
        self._requests = requests

    def answers(self) -> list[Answer]:
        """Wait for the answers."""
        return [answered(request.result()) for request in self._requests]


def sent(ask: Ask) -> Sent:
    """Return a request as drivers take it."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in ask.lines]
    return Sent(ask.method, ask.target, ask.scheme, pairs, ask.body, ask.peer)


def answered(received: Received) -> Answer:
    """Return a response as drills take it."""
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in received.headers]
    kept = (
        # WebOb puts the host before every path
        (name, value.removeprefix(ORIGIN.encode()) if name == b"location" else value)
        for name, value in pairs
        if name not in OF_THE_SERVER
    )
    return Answer(received.status, tuple(kept), received.body)
