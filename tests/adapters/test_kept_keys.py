"""Sealed tokens whose keys are kept in the store: a rotation logs nobody out, a revoked one ends what it made (D53)."""

import os
from typing import Any

import pytest

from coatcheck import ConfigError, MemoryStore, Sealed, SessionManager
from coatcheck.adapters import asgi, wsgi
from coatcheck.keys import AsyncKeys, Keys, Roots
from coatcheck.testing import Clock, Probe
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver
from coatcheck.testing.serving import AsgiProbe, WsgiProbe

DAY = 86400.0
ROOTS = Roots([os.urandom(32)], os.urandom)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(params=["asgi", "wsgi"])
def house(request: pytest.FixtureRequest, store: MemoryStore, clock: Clock) -> Any:
    """Return a browser, and a blocking holder of the same keys, as an operator's."""
    awaited = store.as_async()
    keys: Any = AsyncKeys(awaited, ROOTS, clock=clock) if request.param == "asgi" else Keys(store, ROOTS, clock=clock)
    manager = SessionManager(clock=clock, sealed=Sealed(keyring=keys.ring), timeouts="nist-aal1")
    if request.param == "asgi":
        app: Any = asgi.SessionMiddleware(AsgiProbe(Probe()), store=awaited, manager=manager, keys=keys)
        driver: Any = AsgiDriver(app)
    else:
        app = wsgi.SessionMiddleware(WsgiProbe(Probe()), store=store, manager=manager, keys=keys)
        driver = WsgiDriver(app)
    yield Browser(driver), Keys(store, ROOTS, clock=clock)
    driver.close()


def user(browser: Browser) -> Any:
    answer = browser.get("/me")
    return answer.json()["user"] if answer.status == 200 else None


def kid(browser: Browser) -> str:
    return (browser.token or "").split(".")[1]


def test_a_rotation_logs_nobody_out(house: Any, clock: Clock) -> None:
    browser, operator = house
    browser.login("ann")
    first = kid(browser)
    assert operator.rotate() is not None
    for _ in range(5):  # pending, then active; the first one expired
        clock.wind(5 * 60)
        assert user(browser) == "ann"
    browser.get("/data?write=k&value=1")
    assert kid(browser) != first
    assert user(browser) == "ann"


def test_a_key_that_is_revoked_ends_what_it_sealed_within_a_minute(house: Any, clock: Clock) -> None:
    browser, operator = house
    browser.login("ann")
    assert operator.rotate() is not None
    clock.wind(11 * 60)
    assert user(browser) == "ann"
    assert operator.revoke(kid(browser))
    clock.wind(61)
    assert user(browser) is None


def test_keys_of_the_other_colour_are_refused_when_the_application_is_built(store: MemoryStore) -> None:
    blocking, awaited = Keys(store, ROOTS), AsyncKeys(store.as_async(), ROOTS)
    with pytest.raises(ConfigError, match="here use AsyncKeys"):
        asgi.SessionMiddleware(AsgiProbe(Probe()), store=store, keys=blocking, sealed=Sealed(keyring=blocking.ring))
    with pytest.raises(ConfigError, match="here use Keys"):
        wsgi.SessionMiddleware(WsgiProbe(Probe()), store=store, keys=awaited, sealed=Sealed(keyring=awaited.ring))
