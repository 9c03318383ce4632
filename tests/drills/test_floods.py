"""What anybody can send in any number costs counters, never writes (D32, D33, D34; H4, TOK-21)."""

import gc
import os
import secrets
import time
import tracemalloc

import pytest

from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Request
from coatcheck.core.noise import MOST_NETWORKS, Noise
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, OURS, Ask, House

FULL = os.environ.get("COATCHECK_DRILLS") == "full"
FLOOD = 1_000_000 if FULL else 12_000
THROUGH_THE_DOOR = 20_000 if FULL else 1_500
MOST_KIB = 1024


def address(number: int) -> str:
    return f"{1 + (number >> 16) % 223}.{number >> 8 & 255}.{number & 255}.9"


@pytest.mark.timeout(900)
def test_a_million_networks_fit_into_a_bounded_table() -> None:
    """D32: 10^6 addresses of 10^6 networks; the figure stands in the assertion."""
    clock, noise = Clock(), Noise()
    gc.collect()
    tracemalloc.start()
    for number in range(FLOOD):
        noise.count("session_unknown_token", address(number), clock.now, method="GET", path=f"/{number}")
    used = tracemalloc.get_traced_memory()[0] / 1024
    most = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    assert used < MOST_KIB, f"{used:.0f} KiB"
    assert most < 2 * MOST_KIB, f"{most:.0f} KiB at the worst moment"
    assert len(noise._counts) <= MOST_NETWORKS
    (event,) = noise.summaries("", clock.now)
    assert event.detail["count"] == FLOOD


@pytest.mark.timeout(900)
def test_a_flood_of_unknown_tokens_leaves_one_line_a_minute_and_every_fact(build: Build, clock: Clock) -> None:
    """D32: lifecycle events from before, during and after it are all still readable."""
    house = build()
    visitor = house.visitor()
    visitor.login("before")
    started = clock.now
    minutes = 5
    for minute in range(minutes):
        for batch in range(10):
            house.ask_all(
                Ask("GET", "/me", (("cookie", f"{COOKIE}={guess()}"), *OURS), peer=address(batch * 1000 + number))
                for number in range(THROUGH_THE_DOOR // 10 // minutes)
            )
            clock.wind(6)
        if minute == 2:
            house.visitor().login("during")
    house.visitor().login("after")
    clock.wind(61)
    assert visitor.user == "before"
    summaries = [event for event in house.events() if event.noise]
    assert {event.name for event in summaries} == {"session_unknown_token"}
    assert len(summaries) <= (clock.now - started) / 60 + 1
    total = sum(event.detail["count"] for event in summaries)
    assert total == THROUGH_THE_DOOR // 10 // minutes * 10 * minutes
    assert [event.subject for event in house.events("authn_login_success")] == ["before", "during", "after"]
    assert house.commits <= 3 + len(summaries) + 2, "logins, summaries, touches; nothing else"


def guess() -> str:
    return f"c1.{secrets.token_urlsafe(24)[:18]}.{secrets.token_urlsafe(18)}.{secrets.token_urlsafe(18)}"


@pytest.mark.parametrize("target", ["/", "/me", "/look?how=get", "/data", "/nothing", "/change?how=clear"])
def test_page_loads_without_a_cookie_store_nothing(house: House, target: str) -> None:
    """D33: no record before something is written."""
    method = "POST" if target.startswith("/change") else "GET"
    answers = house.ask_all(Ask(method, target, OURS, peer=address(number)) for number in range(200))
    assert {answer.token for answer in answers} == {None}
    assert house.commits == 0
    assert house.control.trouble.calls == []


def test_anonymous_sessions_are_bounded_by_policy(build: Build, store: object, clock: Clock) -> None:
    """D33: who writes gets a record; it is gone an idle timeout later, and the table with it."""
    house = build(timeouts="owasp-high-value")
    answers = house.ask_all(Ask("GET", "/data?write=k", OURS, peer=address(number)) for number in range(300))
    assert len({answer.token for answer in answers}) == 300
    clock.wind(301)
    house.control.registry.purge()
    assert house.control.records(live=True) == []
    clock.wind(8 * 86400)
    house.control.registry.purge()
    assert house.control.records() == []


OVERSIZE = [
    ("8 KiB of ours", f"{COOKIE}={'A' * 8192}", 401),
    ("16 KiB of ours", f"{COOKIE}={'A' * 16384}", 431),
    ("100 cookies", "; ".join(f"c{number}=v" for number in range(100)) + "; ", 200),
    ("1 MiB", "x=" + "A" * 1_048_576, 431),
    ("1 MiB of ours", f"{COOKIE}=A; " * 80_000, 431),
    ("the name, over and over", f"{COOKIE}={COOKIE}" * 700, 401),
    ("spaces", (" " * 70 + f"{COOKIE}=A") * 190, 401),
    ("semicolons", ";" * 16_000, 401),
    ("commas", f"{COOKIE}=A," * 1100, 401),
]


@pytest.mark.parametrize(("what", "header", "status"), OVERSIZE, ids=[row[0] for row in OVERSIZE])
def test_an_oversize_header_is_refused_before_it_is_parsed(
    house: House, clock: Clock, what: str, header: str, status: int
) -> None:
    """D34: answered without a cookie; and identifying takes a millisecond or two, which a slow machine may double."""
    token = house.visitor().login()
    if status == 200:
        header += f"{COOKIE}={token}"
    answer = house.ask(Ask("GET", "/me", (("cookie", header), *OURS)))
    assert (answer.status, answer.token) == (status, None)
    assert house.commits == 1
    assert header[:64].encode() not in answer.body
    manager = SessionManager(clock=clock, origins=["https://app.test"])
    request = Request("GET", "https", "/me", ((b"cookie", header.encode()),))
    spent = []
    for _ in range(20):
        began = time.process_time()
        manager.identify(request)
        spent.append(time.process_time() - began)
    assert min(spent) < (0.001 if status == 431 else 0.005), f"{min(spent) * 1000:.2f} ms"
