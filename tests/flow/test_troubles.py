"""What fails is told and counted; a store that fails is left alone; a fault of anybody's lets nobody in.

Rows: CCH-05, CCH-06, CCH-07, LOG-08 (the five frameworks: tests/conformance).
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from coatcheck import Breaker, DataError, Event, MemoryStore, Policy, SessionManager
from coatcheck.core.errors import Unreadable
from coatcheck.core.facts import severity
from coatcheck.core.model import Reply, Request
from coatcheck.core.session import Session
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.flow.sync import Exchange
from coatcheck.testing.clock import Clock
from coatcheck.testing.flaky import FlakyStore

HOST = (b"host", b"app.test")
LOGIN = Request("POST", "https", "/login", (HOST, (b"sec-fetch-site", b"same-origin")))


class Shop:
    """One application with one store that fails when it is told to."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.manager = SessionManager(clock=self.clock, origins=["https://app.test"], **settings)
        self.store = FlakyStore(MemoryStore(clock=self.clock))
        self.trouble = self.store.trouble
        self.exchange = Exchange(self.manager, self.store)
        self.told: list[Event] = []
        self.exchange.troubles._telling = self.told.extend  # type: ignore[assignment]
        self.cookie = b""
        if not settings.get("policies"):
            self.login()
            assert self.who() == "alice"

    def login(self) -> Session:
        session = self.exchange.begin(LOGIN)
        assert isinstance(session, Session)
        session.login("alice")
        headers = self.exchange.finish(session, 200, ())
        assert not isinstance(headers, Reply)
        self.cookie = next(value for name, value in headers if name == b"set-cookie").partition(b";")[0]
        return session

    def get(self) -> Session | Reply:
        return self.exchange.begin(Request("GET", "https", "/me", (HOST, (b"cookie", self.cookie))))

    def who(self) -> str | int | None:
        found = self.get()
        return found.status if isinstance(found, Reply) else found.subject

    def asked(self, times: int = 1) -> int:
        before = len(self.trouble.calls)
        for _ in range(times):
            assert self.who() == 503
        return len(self.trouble.calls) - before

    def names(self) -> list[str]:
        return [event.name for event in self.told]


def test_a_healthy_store_has_no_guard_before_it_and_gets_one_for_a_failure_only() -> None:
    shop = Shop()
    assert shop.exchange._at is shop.store
    shop.trouble.fail("load", times=1)
    assert shop.who() == 503
    assert shop.exchange._at is not shop.store
    assert shop.who() == "alice"
    assert shop.exchange._at is shop.store


def test_without_a_breaker_it_is_asked_every_time() -> None:
    shop = Shop(breaker=None)
    shop.trouble.fail("load")
    assert shop.asked(30) == 30
    assert shop.exchange._at is shop.store
    shop.trouble.fail(None)
    assert shop.who() == "alice"


def test_failures_with_a_good_answer_between_them_never_open_it() -> None:
    shop = Shop()
    for _ in range(20):
        shop.trouble.fail("load", times=4)
        assert shop.asked(4) == 4
        assert shop.who() == "alice"


def test_one_failure_is_enough_where_that_is_chosen_and_another_kind_of_error_counts_as_well() -> None:
    shop = Shop(breaker=Breaker(failures=1))
    shop.store.store.load = _raises(OSError("no such thing as a StoreError"))
    assert shop.who() == 500
    assert shop.asked(3) == 0


@pytest.mark.parametrize("new_devices", ["ignore", "tell"])
def test_an_open_circuit_refuses_a_login_at_once(new_devices: str) -> None:
    shop = Shop(new_devices=new_devices)
    shop.trouble.fail("commit")
    shop.trouble.fail("load")
    shop.asked(5)
    before = len(shop.trouble.calls)
    session = shop.exchange.begin(LOGIN)
    assert isinstance(session, Session)
    session.login("bob")
    answer = shop.exchange.finish(session, 200, ())
    assert isinstance(answer, Reply)
    assert answer.status == 503
    assert len(shop.trouble.calls) == before


def test_each_application_learns_for_itself() -> None:
    shop = Shop()
    other = Exchange(SessionManager(clock=shop.clock, origins=["https://app.test"]), MemoryStore(clock=shop.clock))
    shop.trouble.fail("load")
    assert shop.asked(6) == 5
    assert not isinstance(other.begin(LOGIN), Reply)


def test_who_wants_to_go_on_without_a_store_does_so_with_an_open_circuit_too() -> None:
    shop = Shop(store_down="anonymous")
    shop.trouble.fail("load")
    for _ in range(10):
        assert shop.who() is None
    assert len(shop.trouble.calls) < 10


def test_a_row_that_does_not_decode_opens_nothing() -> None:
    shop = Shop(breaker=Breaker(failures=2))
    shop.trouble.fail("load", Unreadable)
    assert shop.asked(20) == 20
    shop.trouble.fail(None)
    assert shop.who() == "alice"


def test_a_store_whose_clock_answers_and_whose_sessions_do_not_stays_away() -> None:
    shop = Shop()
    shop.trouble.fail("load")
    shop.asked(5)
    for pause in (1, 2, 4, 8):
        shop.clock.wind(pause)
        assert shop.asked(5) == 2  # the epochs, and one load
    assert shop.names().count("session_backend_recovered") == 0


def test_slow_answers_open_it_where_that_is_chosen_and_are_used_all_the_same() -> None:
    shop = Shop(breaker=Breaker(failures=4, slow=1.0))
    assert shop.exchange._at is not shop.store
    shop.trouble.meanwhile = lambda: shop.clock.wind(0.9)
    assert [shop.who() for _ in range(5)] == ["alice"] * 5
    shop.trouble.meanwhile = lambda: shop.clock.wind(1.1)
    assert [shop.who(), shop.who()] == ["alice", "alice"]  # its clock was slow, and the session, twice
    assert shop.asked(3) == 0
    shop.trouble.meanwhile = None
    shop.clock.wind(1.0)
    assert shop.who() == "alice"


def test_one_shard_that_is_away_does_not_close_the_others() -> None:
    shop = Shop()
    shop.store.sharded = True
    exchange = Exchange(shop.manager, shop.store)
    assert exchange.troubles.circuit is None


def test_listeners_hear_at_once_then_once_a_minute_and_of_the_end() -> None:
    shop = Shop()
    shop.trouble.fail("load")
    shop.asked(3)
    assert shop.names() == ["session_backend_error"]
    shop.asked(2)
    assert shop.told[-1].detail["circuit"] == "open"
    assert severity(shop.told[-1]) == "critical"
    assert severity(shop.told[0]) == "warning"
    for _ in range(75):
        shop.clock.wind(1.0)
        shop.asked(3)
    assert shop.names().count("session_backend_error") == 3
    shop.trouble.fail(None)
    shop.clock.wind(31)
    assert shop.who() == "alice"
    assert shop.names()[-1] == "session_backend_recovered"
    assert shop.told[-1].detail["down_for"] == pytest.approx(106.0)
    assert shop.clock() - shop.told[2].at < 60
    shop.trouble.fail("load", times=1)
    shop.asked(1)
    assert shop.names()[-1] == "session_backend_error"  # the next outage is told at once again


def test_while_it_is_open_the_log_does_not_grow_with_the_requests(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    shop.trouble.fail("load")
    shop.asked(5)
    caplog.clear()
    shop.asked(100)
    assert caplog.records == []
    shop.trouble.fail(None)
    shop.clock.wind(61)
    session = shop.get()
    assert isinstance(session, Session)
    shop.exchange.close(session)
    (told,) = [event for event in shop.store.events(_all()).items if event.noise]
    assert (told.name, told.detail["count"]) == ("session_backend_error", 105)


def test_what_was_counted_is_not_lost_while_the_store_is_away() -> None:
    shop = Shop()
    shop.exchange.begin(Request("POST", "https", "/x", (HOST, (b"sec-fetch-site", b"cross-site"))))
    shop.trouble.fail("commit")
    shop.clock.wind(61)
    for _ in range(3):
        shop.exchange.begin(Request("POST", "https", "/y", (HOST, (b"sec-fetch-site", b"cross-site"))))
    assert len([one for one in shop.trouble.calls if one == "commit"]) == 2  # the login, and one try
    shop.trouble.fail(None)
    shop.clock.wind(61)
    shop.exchange.flush()
    told = {event.name: event.detail for event in shop.store.events(_all()).items if event.noise}
    assert told["csrf_denied"]["count"] == 4
    assert told["csrf_denied"]["networks"] == {"unknown": 4}
    assert told["csrf_denied"]["last"]["path"] == "/y"


def test_a_caller_that_is_cancelled_says_nothing_of_the_store() -> None:
    shop = Shop(breaker=Breaker(failures=1))

    async def cancelled() -> None:
        exchange = AsyncExchange(shop.manager, shop.store.as_async())
        gate = shop.trouble.hold("load")
        asking = asyncio.create_task(exchange.begin(Request("GET", "https", "/me", (HOST, (b"cookie", shop.cookie)))))
        while not asking.done():
            await asyncio.sleep(0)
            if gate._reached.acquire(blocking=False):
                asking.cancel()
                break
        with pytest.raises(asyncio.CancelledError):
            await asking
        circuit = exchange.troubles.circuit
        assert circuit is not None
        assert not circuit.is_open

    asyncio.run(cancelled())


class Broken(Policy):
    """A rule that breaks when it is told to."""

    judging = True

    def judge(self, record: Any, signals: Sequence[Any], now: float) -> Any:
        if self.judging:
            raise KeyError("alice's secret")  # noqa: TRY003 - what must not be shown
        return super().judge(record, signals, now)

    def on_login(self, record: Any) -> Any:
        if not self.judging:
            raise ZeroDivisionError
        return ()


def test_a_rule_that_breaks_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(policies=[Broken()])
    shop.login()
    answer = shop.get()
    assert isinstance(answer, Reply)
    named = dict(answer.headers)[b"x-request-id"]
    assert (answer.status, b"secret" in answer.body, b"KeyError" in answer.body) == (500, False, False)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.exc_info is not None
    event: Event = record.event  # type: ignore[attr-defined]
    assert event.trace is not None
    assert event.trace.request_id == named.decode()
    assert "secret" not in repr(event)
    assert shop.told == [event]


def test_a_rule_that_breaks_at_the_end_has_nothing_committed() -> None:
    rule = Broken()
    rule.judging = False
    shop = Shop(policies=[rule])
    session = shop.exchange.begin(LOGIN)
    assert isinstance(session, Session)
    session.login("alice")
    answer = shop.exchange.finish(session, 200, ())
    assert isinstance(answer, Reply)
    assert answer.status == 500
    assert shop.exchange.finish(session, 500, ()) == answer  # an error page gets the same
    assert shop.trouble.commits == []
    assert shop.names() == ["session_internal_error"]


def test_a_value_that_cannot_be_kept_is_told_and_stays_the_applications_error() -> None:
    shop = Shop()
    session = shop.get()
    assert isinstance(session, Session)
    session["key"] = object()
    with pytest.raises(DataError):
        shop.exchange.finish(session, 200, ())
    assert shop.told[-1].detail == {"kind": "DataError"}


def test_a_fault_while_an_exchange_is_given_up_hides_nothing() -> None:
    shop = Shop()
    session = shop.get()
    assert isinstance(session, Session)
    shop.manager.abandon = _raises(ZeroDivisionError())  # type: ignore[method-assign]
    shop.exchange.abandon(session)
    assert shop.names() == ["session_internal_error"]


def test_a_fault_after_the_answer_is_told() -> None:
    shop = Shop()
    session = shop.get()
    assert isinstance(session, Session)
    shop.exchange.finish(session, 200, ())
    session["late"] = 1
    shop.manager.late = _raises(ZeroDivisionError())  # type: ignore[method-assign]
    shop.exchange.close(session)
    assert shop.names() == ["session_internal_error"]


def test_a_session_that_cannot_be_confirmed_names_its_request() -> None:
    shop = Shop()
    session = shop.get()
    assert isinstance(session, Session)
    session.visit.copied = True
    shop.trouble.fail("load")
    with pytest.raises(Exception, match="could not be confirmed") as caught:
        shop.exchange.confirm(session)
    assert b"x-request-id" in dict(caught.value.reply.headers)  # type: ignore[attr-defined]


def test_the_events_of_a_request_share_its_id_and_retries_keep_it() -> None:
    shop = Shop()
    shop.trouble.lose_answers(1)
    shop.login()
    made, proved = list(reversed(shop.store.events(_all()).items))[-2:]
    assert made.trace == proved.trace
    assert made.trace is not None
    assert made.trace.request_id


def _all() -> Any:
    from coatcheck.core.model import EventQuery

    return EventQuery(limit=1000)


def _raises(error: Exception) -> Any:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    return broken
