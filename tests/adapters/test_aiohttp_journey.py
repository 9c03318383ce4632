"""The adapter journey through aiohttp's own server, on memory and on SQLite."""

from typing import Any

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.journey import AdapterJourney

from .loopback import LoopbackDriver
from .probe_aiohttp import AiohttpServer, aiohttp_probe, left_to_the_server
from .stores import OnMemory, OnSqlite


class Aiohttp(AdapterJourney):
    """Through handlers that prepare their streams and return everything else."""

    can = frozenset({"stream", "after", "socket", "events", "split"})

    def drive(self, control: Control) -> Driver:
        return LoopbackDriver(AiohttpServer(aiohttp_probe(control.probe, **how(control))))


class AiohttpBodies(Aiohttp):
    """Through handlers that raise what is not 200, with bodies that the server asks for."""

    def drive(self, control: Control) -> Driver:
        app = aiohttp_probe(control.probe, left_to_the_server, **how(control))
        return LoopbackDriver(AiohttpServer(app))


def how(control: Control) -> dict[str, Any]:
    """Return what an application is set up with."""
    return {"store": control.store, "manager": control.manager}


class TestAiohttpOnMemory(OnMemory, Aiohttp):
    """Aiohttp on memory."""


class TestAiohttpOnSqlite(OnSqlite, Aiohttp):
    """Aiohttp on SQLite."""


class TestAiohttpBodiesOnMemory(OnMemory, AiohttpBodies):
    """AiohttpBodies on memory."""
