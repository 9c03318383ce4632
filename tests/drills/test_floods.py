"""What anybody can send in any number costs counters, never writes (D32, D33, D34; H4, TOK-21)."""

import gc
import os
import secrets
import time
import tracemalloc

import pytest

from coatcheck import Floods
from coatcheck.core.cookies import MOST_HEADER
from coatcheck.core.manager import Absent, SessionManager
from coatcheck.core.model import Reply, Request
from coatcheck.core.noise import MOST_NETWORKS, Noise
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, ORIGIN, OURS, Ask, House

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


def test_who_guesses_is_named_once_a_minute_and_may_go_on_guessing(build: Build, clock: Clock) -> None:
    """D32: brute force is noticed per network; nobody is refused unless that was chosen."""
    house = build(floods=Floods(suspect=20))
    answers = house.ask_all(guesses(50, "203.0.113.9") + guesses(5, "198.51.100.9"))
    assert {answer.status for answer in answers} == {401}
    clock.wind(61)
    house.visitor().get("/me")
    (event,) = house.events("session_bruteforce_suspected")
    assert event.noise
    assert event.detail["networks"] == {"203.0.113.0/24": 31}


def test_a_flood_of_guesses_is_refused_and_its_honest_neighbours_are_not(build: Build, clock: Clock) -> None:
    """The option: 429 for cookies that open nothing, out of a network that sent too many of those."""
    house = build(floods=Floods(refuse=20))
    neighbour = house.visitor(peer="203.0.113.77")
    neighbour.login("alice")
    answers = house.ask_all(guesses(30, "203.0.113.9"))
    assert [answer.status for answer in answers] == [401] * 20 + [429] * 10
    assert answers[-1].header("retry-after") == "60"
    assert answers[-1].token is None
    assert house.ask_all(guesses(1, "198.51.100.9"))[0].status == 401, "another network"
    assert neighbour.user == "alice"
    newcomer = house.visitor(peer="203.0.113.78")
    assert newcomer.login("bob"), "who brings no cookie of ours is not asked to wait"
    clock.wind(60)
    assert house.ask_all(guesses(1, "203.0.113.9"))[0].status == 401


def test_a_secret_that_is_wrong_is_a_guess_and_an_ended_session_is_none(build: Build) -> None:
    """GARBAGE for a handle that exists counts; a logged-out browser's old cookie is known, and told apart."""
    house = build(floods=Floods(refuse=2, suspect=1))
    visitor = house.visitor()
    token = visitor.login()
    wrong = ".".join([*token.split(".")[:2], secrets.token_urlsafe(18), secrets.token_urlsafe(18)])
    asks = [Ask("GET", "/me", (("cookie", f"{COOKIE}={wrong}"), *OURS))] * 4
    assert [answer.status for answer in house.ask_all(asks)] == [401, 401, 429, 429]
    assert visitor.user == "alice"
    visitor.post("/logout")
    left = Ask("GET", "/me", (("cookie", f"{COOKIE}={token}"), *OURS))
    assert house.ask(left).status == 401


def test_nothing_that_is_refused_waits_for_a_good_request_to_be_told(build: Build, clock: Clock) -> None:
    """Though no session is opened any more, the minute's summary is written."""
    house = build(floods=Floods(refuse=1))
    house.ask_all(guesses(2, "203.0.113.9"))
    clock.wind(59)
    house.ask_all(guesses(1, "203.0.113.9"))
    assert house.events("session_guess_refused") == []
    oversize = Ask("GET", "/me", (("cookie", "x=" + "A" * 20_000), *OURS))
    clock.wind(2)
    assert house.ask(oversize).status == 431
    (event,) = house.events("session_guess_refused")
    assert event.detail["count"] == 2


def test_a_network_cannot_fill_the_store_with_anonymous_sessions(build: Build, clock: Clock) -> None:
    """D33: beyond the limit nothing is stored, nothing handed out, and the page is served all the same."""
    house = build(floods=Floods(anonymous=10, period=3600))
    asks = [Ask("GET", "/data?write=k", OURS, peer="203.0.113.9")] * 30
    answers = house.ask_all(asks)
    assert {answer.status for answer in answers} == {200}
    assert [answer.token is not None for answer in answers] == [True] * 10 + [False] * 20
    assert len(house.control.records()) == 10
    kept = Ask("GET", "/data?write=k", (("cookie", f"{COOKIE}={answers[0].token}"), *OURS), peer="203.0.113.9")
    assert house.ask(kept).status == 200
    assert house.visitor(peer="203.0.113.9").login("alice"), "logins are counted elsewhere"
    house.flush()
    (event,) = house.events("session_anonymous_refused")
    assert (event.noise, event.detail["count"], event.detail["networks"]) == (True, 20, {"203.0.113.0/24": 20})
    clock.wind(3600)
    assert house.ask(asks[0]).token


def guesses(number: int, peer: str) -> list[Ask]:
    return [Ask("GET", "/me", (("cookie", f"{COOKIE}={guess()}"), *OURS), peer=peer) for _ in range(number)]


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


MIB = b"A" * 1_048_576
FOREIGN = [
    ("10,000 cookie lines", [(b"cookie", b"a=" + b"b" * 98)] * 10_000),
    ("X-CSRF-Token", [(b"x-csrf-token", MIB)]),
    ("a masked X-CSRF-Token", [(b"x-csrf-token", b"m." + MIB)]),
    ("X-Forwarded-For, one hop", [(b"x-forwarded-for", MIB)]),
    ("X-Forwarded-For, hop by hop", [(b"x-forwarded-for", b"192.0.2.9," * 100_000)]),
    ("X-Forwarded-For, line by line", [(b"x-forwarded-for", b"192.0.2.9")] * 10_000),
    ("commas", [(b"x-forwarded-for", b"," * 1_048_576)]),
    ("User-Agent", [(b"user-agent", MIB)]),
    ("Origin", [(b"origin", b"https://" + MIB)]),
    ("Sec-Secure-Session-Id", [(b"sec-secure-session-id", MIB)]),
    ("Secure-Session-Response", [(b"secure-session-response", MIB + b"." + MIB + b"." + MIB)]),
    ("Secure-Session-Skipped", [(b"secure-session-skipped", b"a," * 500_000)]),
]


@pytest.mark.parametrize(("what", "headers"), FOREIGN, ids=[row[0] for row in FOREIGN])
@pytest.mark.parametrize("door", ["page", "refresh"])
def test_no_header_costs_by_its_size(clock: Clock, what: str, headers: list[tuple[bytes, bytes]], door: str) -> None:
    """D34: a mebibyte that a lenient server lets in is at most looked through once; in CPU time, whoever else runs."""
    manager = SessionManager(
        clock=clock, origins=[ORIGIN], trusted_proxies=["192.0.2.0/24"], binding="opportunistic", missing_headers="deny"
    )
    path = "/me" if door == "page" else next(one for one in sorted(manager.device_paths) if "refresh" in one)
    lines = ((b"host", b"app.test"), *headers)
    request = Request("POST", "https", path, lines, peer="192.0.2.1")
    spent = []
    for _ in range(3):
        began = time.process_time()
        if door == "page":
            ticket = manager.identify(request)
            if isinstance(ticket, Absent):
                manager.open(request, ticket, None)
            manager.client(request)
        else:
            named = manager.device_named(request)
            if isinstance(named, str):
                manager.refresh(request, None)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.02, f"{min(spent) * 1000:.2f} ms"


def test_a_device_endpoint_refuses_a_cookie_header_that_is_too_large(clock: Clock) -> None:
    """D34: by a 503; after another refusal a browser would end the session that the attacker's cookies lie beside."""
    manager = SessionManager(clock=clock, origins=[ORIGIN], binding="opportunistic")
    path = next(one for one in sorted(manager.device_paths) if "refresh" in one)
    name = (b"sec-secure-session-id", b"A" * 61)
    for size, refused in ((MOST_HEADER, False), (MOST_HEADER + 1, True)):
        lines = ((b"host", b"app.test"), (b"origin", ORIGIN.encode()), name, (b"cookie", b"c" * size))
        answer = manager.device_named(Request("POST", "https", path, lines))
        assert (isinstance(answer, Reply) and answer.status == 503) is refused
    assert manager.noise.totals["session_cookie_oversize"] == 1
