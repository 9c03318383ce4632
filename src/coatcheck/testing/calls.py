"""What the probe is asked and what it answers, in no protocol's words; and what drives it, by threads or on loops.

An answer is made by a generator that yields what must be waited for: a gate, or what an exchange or a registry returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from ..core.session import Session
from ..flow.async_ import AsyncExchange
from ..flow.async_registry import AsyncRegistry
from ..flow.registry import Registry
from ..flow.sync import Exchange
from .flaky import Gate

JSON = "application/json"
TEXT = ("content-type", "text/plain; charset=utf-8")


@dataclass(slots=True)
class Call:
    """One request, as the probe sees it; header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    session: Session
    exchange: Exchange | AsyncExchange

    @property
    def form(self) -> dict[str, Any]:
        """The fields of a form or of a JSON object in the body, whichever it is."""
        if self.headers.get("content-type", "").startswith(JSON):
            fields: dict[str, Any] = json.loads(self.body or b"{}")
            return fields
        return dict(parse_qsl(self.body.decode("utf-8", "replace")))

    @property
    def registry(self) -> Registry | AsyncRegistry:
        """The registry over this exchange's store."""
        exchange = self.exchange
        if isinstance(exchange, AsyncExchange):
            return AsyncRegistry(exchange.store, exchange.manager.realm, exchange.manager.now)
        return Registry(exchange.store, exchange.manager.realm, exchange.manager.now)


@dataclass(slots=True)
class Answer:
    """One response: a whole `body`, or `chunks` that are made while it is sent; `after` runs when it was."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: Callable[[], Iterator[bytes]] | None = None
    after: Callable[[], None] | None = None


Steps: TypeAlias = Generator[Any, Any, Answer]


def run(steps: Steps) -> Answer:
    """Drive an answer where waiting blocks."""
    value: Any = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        if isinstance(value, Gate):
            value.wait()


async def run_async(steps: Steps) -> Answer:
    """Drive an answer on an event loop."""
    value: Any = None
    error: Exception | None = None
    while True:
        try:
            value = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        error = None
        try:
            value = await (value.wait_async() if isinstance(value, Gate) else value)
        except Exception as problem:  # noqa: BLE001 - it is the handler's, who must see it where it waited
            error = problem


async def obeyed(said: str, session: Session, exchange: AsyncExchange) -> str:
    """Do what a text over the probe's socket says (`write ...`, `save ...`, `login`), and return the answer to send."""
    if said.startswith("write "):
        session["ws"] = said.removeprefix("write ")
    elif said.startswith("save "):
        session["ws"] = said.removeprefix("save ")
        await exchange.save(session)
    elif said == "login":
        try:
            session.login("mallory")
        except Exception as error:  # noqa: BLE001 - its name is the answer
            said = type(error).__name__
    return f"{session.subject}: {said}"


def text(body: str) -> Answer:
    """Answer with plain text."""
    return Answer(200, [TEXT], body.encode())


def as_json(value: Any, status: int = 200) -> Answer:
    """Answer with JSON."""
    return Answer(status, [("content-type", JSON)], json.dumps(value).encode())
