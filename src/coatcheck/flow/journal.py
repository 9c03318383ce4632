"""Events to the `coatcheck` logger: one line each, as loud as the event is, without a secret."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from socket import gethostname

from ..core import facts
from ..core.model import Event

logger = logging.getLogger("coatcheck")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


@cache
def here() -> str:
    """Return this machine's name, as events say where they happened."""
    return gethostname()[:100]


def log_events(events: Sequence[Event]) -> None:
    """Log events; each record carries the whole event as `record.event` for structured handlers."""
    for event in events:
        level = _LEVELS[facts.severity(event)]
        if logger.isEnabledFor(level):
            logger.log(level, "%s", facts.line(event), extra={"event": event})
