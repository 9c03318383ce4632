"""What every drill may ask for: a clock, a store of each kind, and houses behind each door."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.testing.clock import Clock

from .house import House, opened

Build = Callable[..., House]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Any]:
    with opened(request.param, tmp_path, clock) as store:
        yield store


@pytest.fixture(params=["asgi", "wsgi"])
def build(request: pytest.FixtureRequest, store: Any, clock: Clock) -> Iterator[Build]:
    """Return a maker of houses on this test's store: `build(renew=...)`; each is closed afterwards."""
    houses: list[House] = []

    def made(**settings: Any) -> House:
        settings = dict(settings)
        kind = settings.pop("kind", request.param)
        house = House(kind, settings.pop("store", store), settings.pop("clock", clock), **settings)
        houses.append(house)
        return house

    yield made
    for house in houses:
        house.close()


@pytest.fixture
def house(build: Build) -> House:
    """Return a house with the default settings."""
    return build()
