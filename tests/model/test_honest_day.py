"""A day of honest browsers on bad networks, and one with a thief: seeded, through Exchange and MemoryStore.

The numbers that it prints are those that docs/why/token.md speaks of: nobody is hurt while requests arrive within the
grace and answers within a renewal; a copied jar is noticed while both its holders are active.
"""

import random
from heapq import heappop, heappush
from itertools import count
from statistics import median
from typing import Any, NamedTuple

import pytest

from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Reply, Request
from coatcheck.core.policies import timeouts
from coatcheck.core.session import Session
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

DAY, HOUR, MINUTE = 86400.0, 3600.0, 60.0
SLOWEST_REQUEST, SLOWEST_ANSWER = 55.0, 800.0


class Habits(NamedTuple):
    """How a browser is used, and its network: mean pauses (s), share of lost answers, worst delays (s)."""

    think: float = 20.0
    rest: float = 40 * MINUTE
    loss: float = 0.0
    request_delay: float = SLOWEST_REQUEST
    answer_delay: float = SLOWEST_ANSWER


class Jar:
    """One cookie jar and its user."""

    def __init__(self, habits: Habits, value: bytes = b"") -> None:
        self.habits = habits
        self.value = value
        self.refused = 0
        self.asked = 0


class Day:
    """Everything that happens to one session: a clock, a heap of things to come, one store."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.start = self.clock.now
        self.store = MemoryStore(clock=self.clock)
        manager = SessionManager(
            clock=self.clock,
            entropy=self.random.randbytes,
            origins=["https://app.example"],
            timeouts=timeouts(idle=None, absolute=10 * DAY, remember=None),
        )
        self.exchange = Exchange(manager, self.store)
        self._number = count()
        self._coming: list[tuple[float, int, Any, tuple[Any, ...]]] = []

    def login(self, habits: Habits) -> Jar:
        """Return the jar of a browser that has just logged in."""
        jar = Jar(habits)
        session = self.begin(jar.value)
        session.login("ann")
        self.finish(session, jar, arrives=True)
        return jar

    def at(self, after: float, act: Any, *arguments: Any) -> None:
        """Let something happen later."""
        heappush(self._coming, (self.clock.now + after, next(self._number), act, arguments))

    def run(self, until: float) -> None:
        """Let the day pass, up to so many seconds after its start."""
        while self._coming and self._coming[0][0] < self.start + until:
            self.clock.now, _, act, arguments = heappop(self._coming)
            act(*arguments)

    # -- the user, the request, the answer ---------------------------------------------------------------------------

    def use(self, jar: Jar, stop: float) -> None:
        """Click, which sends one to three requests at once; then think, or rest."""
        draw, habits = self.random, jar.habits
        for _ in range(draw.choice((1, 1, 2, 3))):
            self.at(self._delay(habits.request_delay), self.arrive, jar, jar.value)
        pause = draw.expovariate(1 / habits.think) if draw.random() < 0.97 else draw.expovariate(1 / habits.rest)
        if self.clock.now + pause < self.start + stop:
            self.at(pause, self.use, jar, stop)

    def arrive(self, jar: Jar, value: bytes) -> None:
        """Open the session of a request; its handler takes a moment."""
        session = self.begin(value)
        jar.asked += 1
        if session.subject is None:
            jar.refused += 1
        self.at(self.random.expovariate(4.0), self.finish, session, jar, self.random.random() >= jar.habits.loss)

    def begin(self, value: bytes) -> Session:
        """Begin an exchange with a cookie, or none."""
        cookie = ((b"cookie", b"__Host-coat=" + value),) if value else ()
        session = self.exchange.begin(Request("GET", "https", "/", ((b"host", b"app.example"), *cookie)))
        assert not isinstance(session, Reply)
        return session

    def finish(self, session: Session, jar: Jar, arrives: bool) -> None:
        """Settle; if the answer arrives, the jar keeps its cookie, some time later."""
        headers = self.exchange.finish(session, 200, ())
        assert not isinstance(headers, Reply)
        for name, value in headers:
            if name == b"set-cookie" and arrives:
                late = 0.0 if not jar.value else self._delay(jar.habits.answer_delay)
                self.at(late, self.keep, jar, value.split(b";")[0].partition(b"=")[2])

    def keep(self, jar: Jar, value: bytes) -> None:
        """Put a cookie into the jar."""
        jar.value = value

    def _delay(self, most: float) -> float:
        """Return a delay: mostly short, one in ten anything up to the worst."""
        return self.random.uniform(0.0, most) if self.random.random() < 0.1 else self.random.uniform(0.0, 0.5)

    @property
    def ended(self) -> str | None:
        """Why the session ended, if it did."""
        (record,) = self.store._shelf.records.values()
        return record.ended_because


def honest_day(seed: int, habits: Habits) -> Jar:
    """Return the jar of one honest browser after 24 hours."""
    day = Day(seed)
    jar = day.login(habits)
    day.run(1.0)
    day.use(jar, DAY)
    day.run(DAY)
    return jar


@pytest.mark.parametrize("loss", [0.0, 0.3, 0.6])
def test_within_the_assumption_no_honest_browser_is_hurt_in_a_day(
    loss: float, capsys: pytest.CaptureFixture[str]
) -> None:
    jars = [honest_day(seed, Habits(loss=loss)) for seed in range(80)]
    asked, hurt = sum(jar.asked for jar in jars), sum(jar.refused > 0 for jar in jars)
    with capsys.disabled():
        print(f"\nhonest day: {loss:.0%} of answers lost: {hurt} of {len(jars)} jars hurt in {asked:,} requests")
    assert asked > 50_000
    assert hurt == 0


@pytest.mark.parametrize(
    ("habits", "least"),
    [(Habits(request_delay=600.0), 15), (Habits(answer_delay=4000.0), 5)],
    ids=["requests", "answers"],
)
def test_beyond_the_assumption_it_breaks_as_the_docs_say(
    habits: Habits, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    jars = [honest_day(seed, habits) for seed in range(30)]
    hurt = sum(jar.refused > 0 for jar in jars)
    with capsys.disabled():
        print(f"\nhonest day: requests up to {habits.request_delay:g} s, answers up to {habits.answer_delay:g} s late:")
        print(f"  {hurt} of {len(jars)} jars hurt")
    assert hurt >= least


@pytest.mark.parametrize(
    ("name", "think", "rest", "loss"),
    [
        ("polls every 30 s", 30.0, 30.0, 0.0),
        ("lives like the owner", 20.0, 40 * MINUTE, 0.0),
        ("lives like the owner, half the answers lost", 20.0, 40 * MINUTE, 0.5),
    ],
)
def test_a_copied_jar_is_noticed_within_the_day(
    name: str, think: float, rest: float, loss: float, capsys: pytest.CaptureFixture[str]
) -> None:
    after: list[float] = []
    for seed in range(20):
        day = Day(seed)
        owner = day.login(Habits(loss=loss))
        day.run(1.0)
        day.use(owner, DAY)
        day.run(day.random.uniform(0.5, 3.0) * HOUR)
        thief = Jar(Habits(think=think, rest=rest, loss=loss), owner.value)
        stolen = until = day.clock.now - day.start
        day.use(thief, DAY)
        while day.ended is None and until < DAY:
            until += MINUTE
            day.run(until)
        assert day.ended == "theft", f"seed {seed}: {day.ended}"
        after.append(until - stolen)
    with capsys.disabled():
        print(f"\nthief's day: {name}: noticed in {len(after)} of 20, median {median(after) / 60:.0f} min, ", end="")
        print(f"at most {max(after) / 60:.0f} min")
