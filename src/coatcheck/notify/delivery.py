"""How a message is delivered: tried again with growing pauses, then given up; and which events are worth one."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection

from ..core import facts
from ..core.errors import ConfigError
from ..core.model import Event

logger = logging.getLogger("coatcheck")

_ORDER = ("info", "warning", "critical")


class TryAgain(Exception):  # noqa: N818 - it is no error yet
    """This attempt failed; a later one may not. `after`: the seconds that the other side asked for."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        """Say why."""
        super().__init__(why)
        self.after = after


class Delivery:
    """Tries an act until it works, a few times; while the other side is away, once a message.

    The pauses are 1, 4, 16 ... seconds, at most `longest`, each up to a half longer or shorter: what many processes
    have to say at the same time does not come at the same time again (jitter).
    """

    def __init__(
        self,
        tries: int = 5,
        longest: float = 60.0,
        *,
        pause: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Take how often to try, and the longest pause in seconds; raise ConfigError for fewer tries than one."""
        if type(tries) is not int or tries < 1:
            message = f"tries is a whole number above 0 (found {tries!r:.40})"
            raise ConfigError(message)
        self._tries, self._longest = tries, longest
        self._pause, self._jitter = pause, jitter
        self._away = False

    def deliver(self, act: Callable[[], None], what: str) -> bool:
        """Try an act that raises TryAgain where it failed; return whether it worked."""
        tries = 1 if self._away else self._tries
        for number in range(tries):
            try:
                act()
            except TryAgain as failed:
                if number + 1 == tries:
                    self._away = True
                    logger.error("%s was given up after %d tries: %s", what, tries, failed)  # noqa: TRY400 - no trace
                    return False
                pause = min(max(4.0**number, failed.after), self._longest)
                self._pause(pause * self._jitter(0.5, 1.5))
            else:
                self._away = False
                return True
        raise AssertionError  # the last try returns


class Choice:
    """Which events are worth a message: by name, or from how loud on."""

    def __init__(self, names: Collection[str] | None, at_least: str) -> None:
        """Take names, or None: every event that is at least so severe; raise ConfigError for a list that is a text."""
        if isinstance(names, str):
            message = f"names is a list of events, not a text (found {names!r}); write [{names!r}]"
            raise ConfigError(message)
        if at_least not in _ORDER:
            message = f"at_least is {', '.join(_ORDER)} (found {at_least!r:.40})"
            raise ConfigError(message)
        self._names = None if names is None else frozenset(names)
        self._least = _ORDER.index(at_least)

    def takes(self, event: Event) -> bool:
        """Tell whether an event is worth a message."""
        if self._names is not None:
            return event.name in self._names
        return _ORDER.index(facts.severity(event)) >= self._least
