"""Walks through the probe, for rows that ask what never appears anywhere: every page and act, every answer kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..browser import Received
from .site import Site

PAGES = (
    *("/", "/me", "/data", "/data?write=k&value=v", "/form", "/private", "/session/status", "/account/sessions"),
    *("/nowhere", "/me?status=500", "/stream", "/typed"),
)


@dataclass
class Walk:
    """What a whole visit left: the answers, and every token that was in the jar."""

    answers: list[Received] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


def walk(site: Site, user: str = "alice") -> Walk:
    """Visit everything, before a login, in a session, and after it: with a renewal, a step-up and refusals."""
    browser, seen = site.browser(), Walk()

    def took(answer: Received) -> None:
        seen.answers.append(answer)
        if browser.token is not None and browser.token not in seen.tokens:
            seen.tokens.append(browser.token)

    for page in PAGES:
        took(browser.get(page))
    took(browser.login(user, cart=[7]))
    for page in PAGES:
        took(browser.get(page))
    site.clock.wind(16 * 60)
    took(browser.get("/me"))
    took(browser.post("/reauth"))
    took(browser.post("/account/email", form={"email": "a@example.com"}))
    took(browser.post("/pay"))
    took(browser.post("/echo", form={"a": "b"}, site="cross-site"))
    took(browser.get("/private?within=0"))
    took(browser.post("/logout"))
    took(browser.get("/me"))
    return seen


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """Collect every log record of the process, whichever logger it comes from, at every level."""
    kept: list[logging.LogRecord] = []

    class Spy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    spy, root, ours = Spy(logging.DEBUG), logging.getLogger(), logging.getLogger("coatcheck")
    before = root.level, ours.level
    root.addHandler(spy)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    try:
        yield kept
    finally:
        root.removeHandler(spy)
        root.setLevel(before[0])
        ours.setLevel(before[1])
