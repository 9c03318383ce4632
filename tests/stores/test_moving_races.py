"""What falls between the steps of a move: every act at every step, movers that die anywhere, and everything at random.

A mover and an act are scripts (stores/moving/steps.py): here they take turns, one step at a time, in any order that is
asked for. An act is what the flow would do: it loads, commits, and tries again where others were faster.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core.model import Conflict, End, EndOthers, EventQuery, Insert, Limit, Query, Record, Touch, Update
from coatcheck.core.model import Replace as Replacing
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.moving import many, one, start, steps
from coatcheck.stores.moving.start import State
from coatcheck.stores.moving.steps import NEW, OLD, Run, Script
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import event, make

WEEK = 7 * 86400.0


class World:
    """Two stores, a session "h" of ann's in the old one, and the scripts that work on it."""

    def __init__(self, prepare: str = "plain") -> None:
        self.clock = Clock()
        self.stores = {side: MemoryStore(clock=self.clock) for side in (NEW, OLD)}
        self.state = State()
        self.ids = itertools.count(1)
        self.put(make("h", self.clock, data=b"0", idle_for=60 * 86400.0, expires_at=self.clock.now + 90 * 86400))
        self.clock.wind(1)
        getattr(self, f"prepared_{prepare}")()
        self.run(start.begin(self.state))

    # How "h" may lie there when the races begin.

    def prepared_plain(self) -> None:
        """Nothing happened."""

    def prepared_kept(self) -> None:
        """Its subject's other sessions were ended, in both stores, and it was kept."""
        for side in (OLD, NEW):
            others = EndOthers(realm="", subject="ann", keep=("h",), because="owner")
            self.stores[side].commit(self.id(), [others], durable=True)

    def prepared_half(self) -> None:
        """A mover died after it had written a copy, and the session was written to since."""
        self.run(start.begin(self.state))
        mover = Run(one.move(self.state, "h"), None)
        while self.stores[NEW].load("h") is None:
            self.step(mover)
        record = self.stores[OLD].load("h")
        self.stores[OLD].commit(self.id(), [Update(record=replace(record, data=b"0"), was=1)], durable=False)

    # Steps.

    def id(self) -> bytes:
        return b"commit %8d" % next(self.ids)

    def put(self, record: Record) -> None:
        assert self.stores[OLD].commit(self.id(), [Insert(record=record)], durable=True) is None

    def run(self, script: Script[Any]) -> Any:
        return steps.drive(script, self.stores)

    def step(self, run: Run[Any]) -> bool:
        """Take a step; tell whether there is another."""
        ask = run.ask
        if ask is not None:
            run.answered(getattr(self.stores[ask.side], ask.verb)(*ask.arguments, **ask.named))
        return run.ask is not None

    def finish(self, run: Run[Any]) -> None:
        while self.step(run):
            pass

    # What holds afterwards, whoever did what.

    def load(self, handle: str = "h") -> Record | None:
        return self.run(one.load(self.state, handle))

    def settled(self) -> None:
        """Let a mover do what is left; then no session lives twice, and no copy is left that says nothing."""
        before = self.load()
        for record in self.stores[OLD].find(Query(live=False)).items:
            self.run(one.move(self.state, record.handle))
        after = self.load()
        assert before is not None
        assert after is not None
        assert (before.ended_because, before.data) == (after.ended_because, after.data)
        live = [record.handle for store in self.stores.values() for record in store.find(Query()).items]
        assert len(live) == len(set(live))
        assert not [one for one in self.stores[NEW].find(Query()).items if steps.is_copy(one)]

    def live(self) -> set[str]:
        return {record.handle for record in self.run(many.find(Query(subject="ann"))).items}

    def told(self, name: str) -> int:
        return sum(len(store.events(EventQuery(name=name)).items) for store in self.stores.values())


Act = Callable[[World], Script[Any]]
Check = Callable[[World], None]


def commit(world: World, *changes: Any) -> Script[Conflict | None]:
    return many.commit(world.state, world.id(), changes, durable=True)


# The acts, and what each must have done.


def write(world: World) -> Script[None]:
    """Write a letter, as the flow does: on what is stored, as often as it takes."""
    record = yield from one.load(world.state, "h")
    while record is not None and record.ended_at is None:
        update = Update(record=replace(record, data=record.data + b"w"), was=record.version)
        conflict = yield from commit(world, update)
        if conflict is None:
            return
        record = conflict.current


def written(world: World) -> None:
    record = world.load()
    assert record is not None
    assert record.data == b"0w", "an update was lost, or applied twice"


def leave(world: World) -> Script[None]:
    yield from commit(world, End(handle="h", because="logout", events=(event("session_logout", world.clock),)))


def left(world: World) -> None:
    record = world.load()
    assert record is not None
    assert (record.ended_because, record.data, record.turn_proof) == ("logout", b"", None)
    assert world.told("session_logout") == 1
    assert world.live() == set()


def leave_everywhere(world: World) -> Script[None]:
    others = EndOthers(realm="", subject="ann", because="operator", events=(event("sessions_revoked", world.clock),))
    yield from commit(world, others)


def left_everywhere(world: World) -> None:
    assert world.live() == set()
    assert world.told("sessions_revoked") == 1
    assert world.told("session_revoked") in (1, 2)  # a copy that is just being written is ended beside its original
    slow = make("slow", world.clock, authenticated_at=world.clock.now - 1)
    assert world.run(commit(world, Insert(record=slow))) == Conflict(None, "epoch")


def step_up(world: World) -> Script[None]:
    """Replace the session, as the flow does."""
    record = yield from one.load(world.state, "h")
    while record is not None and record.ended_at is None:
        after = replace(record, handle="up", family_proof=b"up", used_at=None, data=record.data + b"s")
        rotation = Replacing(record=after, old="h", was=record.version)
        conflict = yield from commit(world, rotation)
        if conflict is None:
            return
        record = conflict.current


def stepped_up(world: World) -> None:
    assert world.live() == {"up"}
    old, new = world.load(), world.load("up")
    assert old is not None
    assert new is not None
    assert (old.ended_because, old.successor, new.data) == ("replaced", "up", b"0s")
    world.run(commit(world, End(handle="h", because="operator")))
    assert world.live() == set(), "a revocation does not find the session under its former name"


def see(world: World) -> Script[None]:
    yield from commit(world, Touch(handle="h", seen_at=world.clock.now + 1))


def seen(world: World) -> None:
    record = world.load()
    assert record is not None
    assert record.seen_at == world.clock.now + 1


def log_in(world: World) -> Script[None]:
    """Log in where one session is the most."""
    fresh = make("in", world.clock, authenticated_at=world.clock.now)
    yield from commit(world, Insert(record=fresh, limit=Limit(1)))


def logged_in(world: World) -> None:
    assert world.live() == {"in"}
    record = world.load()
    assert record is not None
    assert record.ended_because == "limit"
    assert world.told("excess_sessions_exceeded") == 1


def log_in_beside(world: World) -> Script[None]:
    """Log in where two sessions are the most."""
    fresh = make("in", world.clock, authenticated_at=world.clock.now)
    yield from commit(world, Insert(record=fresh, limit=Limit(2)))


def logged_in_beside(world: World) -> None:
    assert world.live() == {"in", "h"}, "a session that was just moved was counted twice"


def log_in_and_end_others(world: World) -> Script[None]:
    fresh = make("in", world.clock, authenticated_at=world.clock.now)
    others = EndOthers(realm="", subject="ann", keep=("in",), because="owner")
    yield from commit(world, Insert(record=fresh), others, End(handle="h", because="superseded"))


def others_ended(world: World) -> None:
    assert world.live() == {"in"}
    record = world.load()
    assert record is not None
    assert record.ended_because in ("owner", "superseded")


def look(world: World) -> Script[None]:
    record = yield from one.load(world.state, "h")
    assert record is not None
    assert record.ended_at is None


def looked(world: World) -> None:
    assert world.live() == {"h"}
    assert world.told("session_revoked") == 0


def move(world: World) -> Script[None]:
    yield from one.move(world.state, "h")


ACTS: dict[str, tuple[Act, Check]] = {
    "write": (write, written),
    "end": (leave, left),
    "end others": (leave_everywhere, left_everywhere),
    "replace": (step_up, stepped_up),
    "touch": (see, seen),
    "limit": (log_in, logged_in),
    "limit of two": (log_in_beside, logged_in_beside),
    "login, end others": (log_in_and_end_others, others_ended),
    "load": (look, looked),
    "move": (move, looked),
}


def length(prepare: str, act: Act) -> int:
    world = World(prepare)
    run, count = Run(act(world), None), 0
    while world.step(run):
        count += 1
    return count + 1


def schedules(prepare: str, act: Act) -> Iterator[tuple[int, int, int]]:
    """Yield how far the mover goes, how far the act then does, and how far the mover again, before the act ends."""
    acting, moving = length(prepare, act) + 6, length(prepare, move) + 6
    for first in range(moving):
        for some in range(acting):
            for second in range(moving - first):
                yield first, some, second


@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("prepare", ["plain", "kept", "half"])
def test_whatever_happens_at_whatever_step_of_a_move_is_kept(prepare: str, name: str, dies: bool) -> None:
    act, check = ACTS[name]
    for first, some, second in schedules(prepare, act):
        world = World(prepare)
        mover, acting = Run(move(world), None), Run(act(world), None)
        for run, count in ((mover, first), (acting, some), (mover, second)):
            for _ in range(count):
                world.step(run)
        world.finish(acting)
        if not dies:
            world.finish(mover)
        verify(world, check, (first, some, second))


def verify(world: World, check: Check, schedule: Any) -> None:
    try:
        if world.load() is not None and any(record.handle == "h" for record in everything(world)):
            world.settled()
        check(world)
    except AssertionError as error:
        error.add_note(f"schedule {schedule}")
        raise


def everything(world: World) -> list[Record]:
    return [record for store in world.stores.values() for record in store.find(Query(live=False)).items]


@pytest.mark.parametrize("name", ACTS)
def test_two_movers_and_an_act_in_any_order(name: str) -> None:
    act, check = ACTS[name]
    for seed in range(500):
        chance = random.Random(seed)
        world = World(chance.choice(["plain", "kept", "half"]))
        runs = [Run(script, None) for script in (move(world), act(world), move(world))]
        mortal = [run for run in (runs[0], runs[2]) if chance.random() < 0.3]
        going = list(runs)
        while going:
            run = chance.choice(going)
            if not world.step(run) or (run in mortal and chance.random() < 0.2):
                going.remove(run)
        verify(world, check, f"seed {seed}")
