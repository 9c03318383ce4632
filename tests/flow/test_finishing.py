"""The short end of an exchange: what was only read waits for nothing, and goes out as `finish` would send it."""

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from coatcheck.core import tokens
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Reply, Request, Ticket
from coatcheck.core.session import Session
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

READS: dict[str, Callable[[Session], Any]] = {
    "nothing": lambda session: None,
    "a value": lambda session: session.get("name"),
    "a nested value": lambda session: session["cart"][0] if "cart" in session else None,
    "who is there": lambda session: session.subject,
    "keep": lambda session: session.keep(),
}
ACTS: dict[str, Callable[[Session], Any]] = {
    "set": lambda session: session.update(name="Bea"),
    "set as it was": lambda session: session.update(name="Ann"),
    "nested": lambda session: session["cart"].append(3) if "cart" in session else session.update(a=1),
    "replaced": lambda session: session.replace({"b": 1}),
    "login": lambda session: session.login("bea"),
    "logout": lambda session: session.logout(),
    "renew": lambda session: session.renew(),
    "others end": lambda session: session.end_others(),
    "shorter": lambda session: session.lasting(idle=60),
    "csrf": lambda session: session.csrf_token(),
    "typed": lambda session: session.as_type(dict),
}
AGES = {
    "fresh": (1.0,),
    "activity is due": (400.0,),
    "renewal is due": (890.0, 50.0),  # with a request between, so no activity is
    "over": (4000.0,),
}
HEADERS = ((b"content-type", b"text/plain"), (b"vary", b"Accept"))


class Desk:
    """A store with one session, and an exchange."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        numbers = iter(range(1, 256))
        self.manager = SessionManager(
            clock=self.clock,
            entropy=lambda length: bytes([next(numbers)]) * length,
            origins=["https://app.test"],
        )
        self.exchange = Exchange(self.manager, self.store)
        self.commits: list[Any] = []
        commit = self.store.commit
        self.store.commit = lambda *given, **named: (self.commits.append(given), commit(*given, **named))[1]

    def request(self, ticket: Ticket | None) -> Request:
        cookie = () if ticket is None else ((b"cookie", b"__Host-coat=" + tokens.value_of(ticket)),)
        return Request("POST", "https", "/", ((b"sec-fetch-site", b"same-origin"), *cookie))

    def logged_in(self) -> Ticket:
        session = self.exchange.begin(self.request(None))
        assert isinstance(session, Session)
        session.login("ann")
        session.update(name="Ann", cart=[1, 2])
        self.exchange.finish(session, 200, ())
        assert session.visit.ticket is not None
        return session.visit.ticket

    def handled(self, act: Callable[[Session], Any], age: str, *, known: bool) -> Session:
        ticket = self.logged_in()
        for seconds in AGES[age]:
            self.clock.wind(seconds)
            session = self.exchange.begin(self.request(ticket if known else None))
            assert isinstance(session, Session)
            if seconds != AGES[age][-1]:
                self.exchange.finish(session, 200, ())
        act(session)
        self.commits.clear()
        return session


def only_read(name: str, known: bool, age: str) -> bool:
    """Tell whether nothing is left to be done."""
    live = known and age != "over"
    if name == "renew":
        return not live  # there is nothing to renew
    if name == "csrf":  # a token needs a session to be made for, or a spent cookie
        return known and age in ("fresh", "over")
    return name in READS and (not live or age == "fresh")


@pytest.mark.parametrize("name", [*READS, *ACTS])
def test_the_short_end_says_what_the_long_one_does(name: str) -> None:
    act = {**READS, **ACTS}[name]
    for age, known, status in product(AGES, (True, False), (200, 500)):
        one, other = Desk(), Desk()
        short, long = (desk.handled(act, age, known=known) for desk in (one, other))
        headers = one.exchange.finish_read(short, status, HEADERS)
        answer = other.exchange.finish(long, status, HEADERS)
        assert (headers is not None) == only_read(name, known, age), (age, known, status)
        if headers is None:
            assert not short.settled
            continue
        assert (headers, one.commits, other.commits) == (answer, [], []), (age, known, status)
        assert (short.visit.outcome, short.visit.status) == (long.visit.outcome, status)
        assert one.exchange.finish_read(short, status, HEADERS) is None, "once"
        assert one.exchange.finish(short, status, HEADERS) == headers


@pytest.mark.parametrize("name", ["set", "nested", "logout"])
def test_what_is_written_after_the_short_end_is_not_lost(name: str) -> None:
    desk = Desk()
    session = desk.handled(lambda session: session.get("cart"), "fresh", known=True)
    assert desk.exchange.finish_read(session, 200, HEADERS) is not None
    ACTS[name](session)
    assert not desk.exchange.is_closed(session)
    desk.exchange.close(session)
    assert len(desk.commits) == 1


@pytest.mark.parametrize("act", ["nothing", "a value"])
def test_an_exchange_that_only_read_has_nothing_to_close(act: str) -> None:
    desk = Desk()
    session = desk.handled(READS[act], "fresh", known=True)
    desk.exchange.finish_read(session, 200, HEADERS)
    assert desk.exchange.is_closed(session)
    desk.manager.noise.count("session_unknown_token", "192.0.2.7", desk.clock.now)
    assert not desk.exchange.is_closed(session), "a summary may be due"


def test_both_colours_end_alike() -> None:
    desk = Desk()
    ticket, awaited = desk.logged_in(), AsyncExchange(desk.manager, desk.store.as_async())
    desk.clock.wind(1)
    session = asyncio.run(awaited.begin(desk.request(ticket)))
    assert isinstance(session, Session)
    session.get("name")
    assert awaited.finish_read(session, 200, ()) == [(b"vary", b"Cookie")]
    assert awaited.is_closed(session)


def test_what_breaks_in_the_short_end_is_told_by_the_long_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bool:
        message = "broken on purpose"
        raise LookupError(message)

    desk = Desk()
    session = desk.handled(READS["a nested value"], "fresh", known=True)
    session.visit.lent = True
    monkeypatch.setattr("coatcheck.core.codec.is_unchanged", broken)
    assert desk.exchange.finish_read(session, 200, HEADERS) is None
    assert session.visit.outcome is None
    answer = desk.exchange.finish(session, 200, HEADERS)
    assert isinstance(answer, Reply)
    assert answer.status == 500
    assert "session_internal_error" in caplog.text
