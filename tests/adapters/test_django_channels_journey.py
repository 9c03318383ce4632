"""What of the adapter journey is about sockets and event streams, through Channels' consumers: awaited, in threads."""

from collections.abc import Iterator
from typing import Any

import pytest

from coatcheck.testing import Control
from coatcheck.testing.browser import Driver
from coatcheck.testing.drivers import AsgiDriver
from coatcheck.testing.journey import AdapterJourney

from .probe_django import settings_of
from .probe_django_channels import Awaited, InThreads, channels_probe
from .stores import OnMemory, OnSqlite

OPEN = frozenset({"socket", "events"})


class Channels(AdapterJourney):
    """Through Channels; its pages are Django's, which walk the rest of the journey elsewhere."""

    can = OPEN
    consumer: Any = Awaited

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name in dir(cls):
            if name.startswith("test_") and not getattr(getattr(cls, name), "needed", frozenset()) & OPEN:
                setattr(cls, name, None)

    @pytest.fixture(autouse=True)
    def _restored(self) -> Iterator[None]:
        self.chosen: list[Any] = []
        yield
        for one in self.chosen:
            one.disable()

    def drive(self, control: Control) -> Driver:
        chosen = settings_of(control, WATCH_EVERY=0.1, WATCH_RECHECK=0.1)
        self.chosen.append(chosen)
        chosen.enable()
        return AsgiDriver(channels_probe(control, self.consumer))


class TestAwaitedConsumersOnMemory(OnMemory, Channels):
    """Consumers on the event loop."""


class TestConsumersInThreadsOnSqlite(OnSqlite, Channels):
    """Consumers in Django's thread."""

    consumer = InThreads
