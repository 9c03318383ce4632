"""What one network may do in a while: counted in bounded memory, told, and refused only where that was chosen.

Drills: D32, D33; security.md H4.
"""

import sys

import pytest

from coatcheck import ConfigError, Floods, SessionManager
from coatcheck.core.floods import Crowd, Gate
from coatcheck.core.model import Reply, Request
from coatcheck.core.noise import MOST_NETWORKS
from coatcheck.testing.clock import Clock

ORIGIN = "https://app.test"
HERE, THERE = "192.0.2.7", "198.51.100.7"


def asked(cookie=None, peer=HERE, path="/", headers=()):
    cookies = () if cookie is None else ((b"cookie", b"__Host-coat=" + cookie),)
    return Request("GET", "https", path, ((b"host", b"app.test"), *cookies, *headers), peer=peer)


def manager(clock, **floods):
    return SessionManager(clock=clock, origins=[ORIGIN], floods=Floods(**floods))


def begun(counter, request):
    """Do what the flow does with a store that is empty."""
    ticket = counter.identify(request)
    return ticket if isinstance(ticket, Reply) else counter.open(request, ticket, None)


UNKNOWN_TOKEN = b"c1." + b"A" * 18 + b"." + b"A" * 24 + b"." + b"A" * 24


def test_a_crowd_counts_a_network_until_its_period_is_over():
    crowd = Crowd(60.0)
    assert [crowd.count("a", 100.0), crowd.count("a", 159.9), crowd.count("b", 159.9)] == [1, 2, 1]
    assert (crowd.number("a", 159.9), crowd.number("c", 159.9), crowd.number("a", 160.0)) == (2, 0, 0)
    assert crowd.left(159.5) == 1
    assert crowd.left(100.0) == 60
    assert crowd.left(100.1) == 60
    assert crowd.count("a", 160.0) == 1


def test_a_clock_that_went_back_begins_a_new_period():
    crowd = Crowd(60.0)
    crowd.count("a", 1000.0)
    assert crowd.number("a", 999.0) == 0
    assert crowd.count("a", 999.0) == 1


def test_a_crowd_from_everywhere_stays_in_its_table():
    crowd = Crowd(60.0)
    for number in range(20_000):
        crowd.count(f"network {number}", 0.0)
        crowd.count("loud", 0.0)
    assert len(crowd._counts) <= MOST_NETWORKS
    assert sys.getsizeof(crowd._counts) < 400_000
    assert 20_000 - 40_000 / 2048 <= crowd.number("loud", 0.0) <= 20_000


def test_a_network_that_guesses_much_is_told_once_a_minute():
    clock = Clock()
    counter = manager(clock, suspect=10)
    for _ in range(12):
        begun(counter, asked(UNKNOWN_TOKEN))
    for number in range(9):
        begun(counter, asked(b"rubbish", peer=THERE))
        begun(counter, asked(UNKNOWN_TOKEN, peer=f"203.0.{number}.1"))
    clock.wind(60)
    told = {event.name: event for event in counter.noise.summaries("", clock.now)}
    event = told["session_bruteforce_suspected"]
    assert event.noise
    assert event.detail["networks"] == {"192.0.2.0/24": 3}
    last = event.detail["last"]
    assert len(last.pop("request_id")) == 16
    assert last == {"method": "GET", "path": "/", "agent": "none", "network": "192.0.2.0/24", "guesses": "12"}
    assert told["session_unknown_token"].detail["count"] == 21


def test_malformed_and_unknown_ones_count_together():
    counter = manager(Clock(), suspect=2)
    begun(counter, asked(b"rubbish"))
    assert "session_bruteforce_suspected" not in counter.noise.totals
    begun(counter, asked(UNKNOWN_TOKEN))
    assert counter.noise.totals["session_bruteforce_suspected"] == 1


def test_a_minute_of_few_guesses_is_no_suspicion():
    clock = Clock()
    counter = manager(clock, suspect=2)
    for _ in range(10):
        begun(counter, asked(UNKNOWN_TOKEN))
        clock.wind(60)
    assert "session_bruteforce_suspected" not in counter.noise.totals


def test_nothing_is_suspected_or_refused_where_that_is_switched_off():
    counter = manager(Clock(), suspect=None)
    assert not any(isinstance(begun(counter, asked(UNKNOWN_TOKEN)), Reply) for _ in range(1000))
    assert counter.noise.totals == {"session_unknown_token": 1000}


def test_what_is_no_guess_is_not_counted():
    """No cookie, someone else's, or two of ours (a sibling host may have planted one)."""
    counter = manager(Clock(), suspect=1, refuse=1)
    for request in (asked(), asked(headers=((b"cookie", b"theme=dark"),)), asked(b"a; __Host-coat=b")):
        for _ in range(3):
            assert not isinstance(begun(counter, request), Reply)
    assert counter.noise.totals == {"session_cookie_ambiguous": 3}


@pytest.mark.parametrize("cookie", [UNKNOWN_TOKEN, b"rubbish"])
def test_beyond_the_limit_a_guess_is_answered_with_429(cookie):
    clock = Clock()
    counter = manager(clock, refuse=3)
    answers = [begun(counter, asked(cookie)) for _ in range(5)]
    assert [isinstance(answer, Reply) for answer in answers] == [False, False, False, True, True]
    assert answers[-1].status == 429
    assert dict(answers[-1].headers)[b"retry-after"] == b"60"
    assert dict(answers[-1].headers)[b"cache-control"] == b"no-store"
    assert not isinstance(begun(counter, asked(cookie, peer=THERE)), Reply)
    assert not isinstance(begun(counter, asked()), Reply)
    assert counter.noise.totals["session_guess_refused"] == 2
    clock.wind(60)
    assert not isinstance(begun(counter, asked(cookie)), Reply)


def test_where_nobody_can_say_who_it_is_nobody_is_refused():
    """A unix socket whose proxy is not trusted: all visitors would share one limit."""
    clock = Clock()
    counter = manager(clock, refuse=1, anonymous=1)
    assert not any(isinstance(begun(counter, asked(b"rubbish", peer=None)), Reply) for _ in range(5))
    gate = Gate(Floods(anonymous=1), lambda *_, **__: None)
    assert all(gate.admits(asked(), None, clock.now) for _ in range(5))


def test_a_browser_that_brings_its_devices_key_is_told_to_come_back():
    counter = SessionManager(clock=Clock(), origins=[ORIGIN], binding="opportunistic", floods=Floods(refuse=1))
    (path,) = {path for path in counter.device_paths if "regist" in path}
    answers = [begun(counter, asked(b"rubbish", path=path)) for _ in range(3)]
    assert [answer.status for answer in answers if isinstance(answer, Reply)] == [503, 503]


def test_a_network_begins_so_many_anonymous_sessions_and_no_more():
    clock = Clock()
    counter = manager(clock, anonymous=2, period=100.0)

    def write(peer):
        session = begun(counter, asked(peer=peer))
        session["seen"] = 1
        outcome = counter.settle(session, 200, ())
        assert len(outcome.changes) == len(outcome.cookies)
        return len(outcome.changes), bool(session.visit.dropped)

    assert [write(HERE), write(HERE), write(HERE), write(THERE)] == [(1, False), (1, False), (0, True), (1, False)]
    assert counter.noise.totals == {"session_anonymous_refused": 1}
    clock.wind(100)
    assert write(HERE) == (1, False)


def test_the_farewell_of_a_logout_counts_too():
    """Who is nobody may call a logout as often as he likes."""
    counter = manager(Clock(), anonymous=1)
    stored = []
    for _ in range(3):
        session = begun(counter, asked())
        session.logout()
        session["bye"] = 1
        stored.append(len(counter.settle(session, 200, ()).changes))
    assert stored == [1, 0, 0]


def test_pages_that_write_nothing_use_nothing_up():
    counter = manager(Clock(), anonymous=1)
    for _ in range(3):
        counter.settle(begun(counter, asked()), 200, ())
    session = begun(counter, asked())
    session["seen"] = 1
    assert len(counter.settle(session, 200, ()).changes) == 1


@pytest.mark.parametrize(
    ("floods", "word"),
    [
        ({"suspect": 0}, "suspect"),
        ({"refuse": -1}, "refuse"),
        ({"anonymous": "many"}, "anonymous"),
        ({"period": 0}, "period"),
        ({"period": 1e9}, "period"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(floods, word):
    with pytest.raises(ConfigError, match=rf"floods: {word} is .* \(found"):
        manager(Clock(), **floods)
