"""Let honest browsers live through a day on bad networks, and thieves beside them: `python -m bench.honest [--days N]`.

Seeded, on a clock of its own, through the real Exchange and a memory store. Each row is N days of 24 hours, each of one
session: a browser that clicks, thinks and rests, a network that loses answers and delivers requests and answers late.
Nobody honest is hurt while requests arrive within the grace (here up to 55 s late) and answers within a renewal (up to
800 s late), whatever share of the answers is lost. A copied jar is noticed on every day on which both its holders are
active. The exit code is 1 if a row says otherwise. tests/model/test_honest_day.py runs a short form.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from statistics import median
from typing import Any, Literal, NamedTuple

from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Event, Record, Reply, Request
from coatcheck.core.policies import timeouts
from coatcheck.core.session import Session
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

DAY, HOUR, MINUTE = 86400.0, 3600.0, 60.0
SLOWEST_REQUEST, SLOWEST_ANSWER = 55.0, 800.0
OWNERS, THIEFS = "192.0.2.7", "203.0.113.66"
LOSSES = (0.0, 0.3, 0.6)


class Habits(NamedTuple):
    """How a browser is used, and its network: mean pauses (s), share of lost answers, worst delays (s)."""

    think: float = 20.0
    rest: float = 40 * MINUTE
    loss: float = 0.0
    request_delay: float = SLOWEST_REQUEST
    answer_delay: float = SLOWEST_ANSWER


THIEVES = {
    "polls every 30 s": Habits(think=30.0, rest=30.0),
    "lives like the owner": Habits(),
    "lives like the owner, half the answers lost": Habits(loss=0.5),
}
"""Thieves who are noticed; the owner's network loses as much as theirs."""


@dataclass
class Jar:
    """One cookie jar and its user."""

    habits: Habits
    value: bytes = b""
    peer: str = OWNERS
    asked: int = 0
    refused: int = 0


@dataclass
class Theft:
    """A day with a thief: when the jar was copied, and what was known of it in the end."""

    after: float
    ended: str | None
    noticed: list[Event] = field(default_factory=list)
    asked_again: bool = False

    @property
    def found(self) -> bool:
        """Whether the copy was noticed."""
        return any(event.detail["kind"] in ("late", "stale") for event in self.noticed)


class Day:
    """Everything that happens to one session: a clock, a heap of things to come, one store."""

    def __init__(self, seed: int, on_theft: Literal["end", "note"] = "end") -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.start = self.clock.now
        self.store = MemoryStore(clock=self.clock)
        self.told: list[Event] = []
        self.store.listeners.append(self.told.extend)
        manager = SessionManager(
            clock=self.clock,
            entropy=self.random.randbytes,
            origins=["https://app.example"],
            timeouts=timeouts(idle=None, absolute=10 * DAY, remember=None),
            on_theft=on_theft,
        )
        self.exchange = Exchange(manager, self.store)
        self._number = count()
        self._coming: list[tuple[float, int, Any, tuple[Any, ...]]] = []

    def login(self, habits: Habits) -> Jar:
        """Return the jar of a browser that has just logged in."""
        jar = Jar(habits)
        session = self.begin(jar, jar.value)
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
        session = self.begin(jar, value)
        jar.asked += 1
        if session.subject is None:
            jar.refused += 1
        self.at(self.random.expovariate(4.0), self.finish, session, jar, self.random.random() >= jar.habits.loss)

    def begin(self, jar: Jar, value: bytes) -> Session:
        """Begin an exchange with a cookie, or none."""
        cookie = ((b"cookie", b"__Host-coat=" + value),) if value else ()
        headers = ((b"host", b"app.example"), *cookie)
        session = self.exchange.begin(Request("GET", "https", "/", headers, peer=jar.peer))
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
    def record(self) -> Record:
        """The one session, as it is stored."""
        (record,) = self.store._shelf.records.values()  # noqa: SLF001 - what no request may see
        return record

    @property
    def reuse(self) -> list[Event]:
        """What was told of old tokens."""
        return [event for event in self.told if event.name == "session_token_reuse"]


def honest_day(seed: int, habits: Habits, on_theft: Literal["end", "note"] = "end") -> tuple[Jar, Day]:
    """Return the jar of one honest browser after 24 hours, and its day."""
    day = Day(seed, on_theft)
    jar = day.login(habits)
    day.run(1.0)
    day.use(jar, DAY)
    day.run(DAY)
    return jar, day


def thiefs_day(seed: int, habits: Habits, on_theft: Literal["end", "note"] = "end") -> Theft:
    """Return how long a jar that was copied in the morning worked before it was noticed."""
    day = Day(seed, on_theft)
    owner = day.login(Habits(loss=habits.loss))
    day.run(1.0)
    day.use(owner, DAY)
    day.run(day.random.uniform(0.5, 3.0) * HOUR)
    thief = Jar(habits, owner.value, THIEFS)
    stolen = until = day.clock.now - day.start
    day.use(thief, DAY)
    found = Theft(0.0, None)
    while not found.found and until < DAY:
        until += MINUTE
        day.run(until)
        found = Theft(until - stolen, day.record.ended_because, day.reuse, day.record.suspected_at is not None)
    return found


def main() -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.honest", description="Honest days, and thieves beside them.")
    parser.add_argument("--days", type=int, default=100, metavar="N", help="days a row (default 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first day's seed (default 0)")
    parser.add_argument("--on-theft", choices=["end", "note"], default="end", help="what a replayed token does")
    chosen = parser.parse_args()
    logging.getLogger("coatcheck").setLevel(logging.CRITICAL + 1)  # every theft is said, and there are many
    seeds = range(chosen.seed, chosen.seed + chosen.days)
    wrong = 0
    for loss in LOSSES:
        jars = [honest_day(seed, Habits(loss=loss), chosen.on_theft)[0] for seed in seeds]
        hurt = sum(jar.refused > 0 for jar in jars)
        wrong += hurt
        asked = sum(jar.asked for jar in jars)
        print(f"{loss:.0%} of answers lost: {hurt} of {len(jars)} hurt in {asked:,} requests", flush=True)
    for name, habits in THIEVES.items():
        thefts = [thiefs_day(seed, habits, chosen.on_theft) for seed in seeds]
        missed = sum(not theft.found for theft in thefts)
        wrong += missed
        after = sorted(theft.after / MINUTE for theft in thefts)
        times = f"median {median(after):.0f} min, at most {after[-1]:.0f} min"
        print(f"thief {name}: noticed in {len(thefts) - missed} of {len(thefts)}, {times}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
