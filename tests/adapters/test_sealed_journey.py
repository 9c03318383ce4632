"""x."""
import os
from collections.abc import Callable, Iterator
from typing import Any
import pytest
from coatcheck import Key, Keyring, Sealed, SessionManager
from coatcheck.testing import Control
from coatcheck.testing.journey import AdapterJourney, House
from .stores import OnMemory
from .test_journey import Asgi as _Asgi, Wsgi as _Wsgi

KEYS = Keyring([Key("k1", os.urandom(32))], os.urandom)

class SealedServe:
    @pytest.fixture
    def serve(self, store: Any, clock: Any) -> Iterator[Callable[..., House]]:
        made = []
        def build(**settings: Any) -> House:
            control = Control(store, clock, SessionManager(clock=clock, sealed=Sealed(keyring=KEYS), **settings))
            driver = self.drive(control)
            made.append(driver)
            return House(control, driver)
        yield build
        for driver in made:
            driver.close()
        store.close()

class TestSealedAsgi(SealedServe, OnMemory, _Asgi):
    pass
class TestSealedWsgi(SealedServe, OnMemory, _Wsgi):
    pass
