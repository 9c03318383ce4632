"""A site: the probe application served through one adapter, with browsers to visit it and the strings that move it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ...core.errors import ConfigError
from ...core.manager import SessionManager
from ...core.model import Event, Record
from ..browser import Browser, Driver, Received
from ..clock import Clock
from ..flaky import Trouble
from ..serving import Control
from .verdicts import unfit

ORIGIN = "https://testserver"
"""What the application is called from outside."""

ELSEWHERE = "https://evil.example"
"""Another site."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A way to serve the probe: its name, how it is driven, an empty store for it, and what it `can`.

    - drive: serves `control.probe` with `control.store` and `control.manager`, and returns a driver.
    - store: returns an empty blocking store with an async face, on the clock that is given.
    - can: as in AdapterJourney: "stream", "after", "socket", "events", "split".
    """

    name: str
    drive: Callable[[Control], Driver]
    store: Callable[[Clock], Any]
    can: frozenset[str] = frozenset()


class Site:
    """One application under judgement. `origins` is set, as in production; everything else is as the settings say."""

    def __init__(self, adapter: Adapter, store: Any, clock: Clock, settings: dict[str, Any]) -> None:
        """Serve the probe; `opened` does it with an empty store."""
        self.adapter = adapter
        self.settings = {"origins": [ORIGIN], **settings}
        self.control = Control(store, clock, SessionManager(clock=clock, **self.settings))
        self._driver: Driver | None = None
        self._children: list[Site] = []
        self._owns_store = False

    @classmethod
    def opened(cls, adapter: Adapter, **settings: Any) -> Site:
        """Return a site with an empty store."""
        clock = Clock()
        site = cls(adapter, adapter.store(clock), clock, settings)
        site._owns_store = True
        return site

    # -- its strings -------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The clock of manager and store."""
        return self.control.clock

    @property
    def trouble(self) -> Trouble:
        """What ails the store."""
        return self.control.trouble

    @property
    def cookie(self) -> str:
        """The name of the session cookie."""
        return self.control.cookie

    @property
    def driver(self) -> Driver:
        """The driver, started when it is first needed."""
        if self._driver is None:
            self._driver = self.adapter.drive(self.control)
        return self._driver

    def events(self, name: str | None = None) -> list[Event]:
        """Return what happened, oldest first."""
        return self.control.events(name)

    def noise(self, kind: str) -> int:
        """Return how often something of that kind was counted (unknown tokens and the like are no facts)."""
        return self.control.manager.noise.totals.get(kind, 0)

    def records(self, *, live: bool = True) -> list[Record]:
        """Return the stored records, oldest first."""
        return self.control.records(live=live)

    # -- visiting it -------------------------------------------------------------------------------------------------

    def browser(self, base: str = ORIGIN) -> Browser:
        """Return a browser with an empty jar."""
        return Browser(self.driver, base, cookie=self.cookie)

    def logged_in(self, user: str = "alice", **fields: Any) -> Browser:
        """Return a browser in which somebody has logged in."""
        browser = self.browser()
        answer = browser.login(user, **fields)
        if answer.status >= 300:
            message = f"the login was answered with {answer.status}: {answer.text:.200}"
            raise AssertionError(message)
        return browser

    def ask(self, method: str, target: str, **how: Any) -> Received:
        """Send one request from an empty browser; see `Browser.sent`."""
        return self.browser().request(method, target, **how)

    def user_of(self, token: str | None, **how: Any) -> str | None:
        """Return who a token logs in at /me, or None."""
        answer = self.ask("GET", "/me", cookies=f"{self.cookie}={token}", **how)
        return answer.json()["user"] if answer.status == 200 else None

    def told(self, kind: str) -> list[Event]:
        """Return the summaries of what was counted under that kind, after a minute, when they are written."""
        self.clock.wind(61)
        self.ask("GET", "/me")
        return self.events(kind)

    # -- others beside it --------------------------------------------------------------------------------------------

    def with_settings(self, **settings: Any) -> Site:
        """Return another site with other settings, on an empty store and a clock of its own."""
        child = Site.opened(self.adapter, **settings)
        self._children.append(child)
        return child

    def beside(self, **settings: Any) -> Site:
        """Return another process of this application: the same store and clock, nothing else in common."""
        child = Site(self.adapter, self.control.plain, self.clock, {**self.settings, **settings})
        self._children.append(child)
        return child

    def needs(self, what: str) -> None:
        """Say that the row does not apply where the adapter cannot do that."""
        if what not in self.adapter.can:
            unfit(f"{self.adapter.name} has no {_NAMED.get(what, what)}.")

    def __enter__(self) -> Self:
        """Return the site."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the driver and the store; a broken protocol fails the row."""
        for child in self._children:
            child.__exit__(kind, error, at)
        if self._driver is not None:
            self._driver.close()
        if self._owns_store:
            self.control.plain.close()


def refused(**settings: Any) -> str:
    """Return why these settings are refused; fail where they are taken."""
    try:
        SessionManager(**settings)
    except ConfigError as error:
        return str(error)
    message = f"these settings are taken: {settings}"
    raise AssertionError(message)


_NAMED = {"socket": "websockets", "events": "server-sent events", "split": "repeated Cookie headers"}
