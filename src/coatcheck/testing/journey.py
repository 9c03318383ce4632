"""The adapter journey as tests: subclass `AdapterJourney`, serve the probe through your adapter, and pytest walks it.

The rows are those of docs/adapters.md; the number stands in each test's docstring. Left out here, since they need one
framework, or more than one loop or process: 8, 12, 13, 17, 27, 28, 35 to 39, 51 and 55 to 59 (tests/adapters has them).
Row 54, the order of messages, is watched by the drivers in every test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

ROWS = ("answers", "data", "login", "open", "previous", "site", "troubles")
# before they are imported: then a failing row shows what it compared
pytest.register_assert_rewrite(*(f"coatcheck.testing.journey_{rows}" for rows in ROWS))

from ..core.manager import SessionManager  # noqa: E402
from .browser import Browser, Driver  # noqa: E402
from .clock import Clock  # noqa: E402
from .journey_answers import AnswerRows  # noqa: E402
from .journey_data import DataRows  # noqa: E402
from .journey_login import LoginRows  # noqa: E402
from .journey_open import OpenRows  # noqa: E402
from .journey_previous import PreviousRows  # noqa: E402
from .journey_site import SiteRows  # noqa: E402
from .journey_troubles import TroubleRows  # noqa: E402
from .serving import Control  # noqa: E402


class House:
    """One application under test: its controls, and browsers that visit it."""

    def __init__(self, control: Control, driver: Driver) -> None:
        """Open the doors."""
        self.control = control
        self.driver = driver
        self.clock = control.clock
        self.trouble = control.trouble

    def browser(self, base: str = "https://testserver") -> Browser:
        """Return a browser with an empty jar."""
        return Browser(self.driver, base, cookie=self.control.cookie)


class AdapterJourney(DataRows, LoginRows, AnswerRows, SiteRows, TroubleRows, OpenRows, PreviousRows):
    """What every adapter promises; subclass it, provide `store` and `drive`, and say what your adapter `can`.

        class TestMyAdapter(AdapterJourney):
            can = frozenset({"stream", "after"})

            @pytest.fixture
            def store(self, clock):
                return MemoryStore(clock=clock)        # a store with both faces, empty

            def drive(self, control):
                app = my_app(control.probe, SessionMiddleware, store=control.store, manager=control.manager)
                return WsgiDriver(app)

    `can`: "stream" (a body is sent as it is made), "after" (work behind the response), "socket", "events" (server-sent
    events), "split" (repeated Cookie headers). Tests that need more than the adapter can are not collected.
    """

    can: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **more: Any) -> None:
        """Take away the tests that need what the adapter cannot."""
        super().__init_subclass__(**more)
        for name in dir(cls):
            if not getattr(getattr(cls, name), "needed", frozenset()) <= cls.can:
                setattr(cls, name, None)

    def drive(self, control: Control) -> Driver:
        """Serve `control.probe` through the adapter with `control.store` and `control.manager`; return a driver."""
        raise NotImplementedError(AdapterJourney.__doc__)

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock that manager and store read."""
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Any:
        """Return the store to use: blocking, with an async face (`as_async`), empty."""
        raise NotImplementedError(AdapterJourney.__doc__)

    @pytest.fixture
    def serve(self, store: Any, clock: Clock) -> Iterator[Callable[..., House]]:
        """Return a function that builds the application with settings; what it built is closed after the test."""
        made: list[Driver] = []

        def build(**settings: Any) -> House:
            control = Control(store, clock, SessionManager(clock=clock, **settings))
            driver = self.drive(control)
            made.append(driver)
            return House(control, driver)

        yield build
        for driver in made:
            driver.close()
        store.close()

    @pytest.fixture
    def house(self, serve: Callable[..., House]) -> House:
        """Return the application with its default settings."""
        return serve()
