"""The machine of test_store_machine on two stores, while sessions move from one to the other.

Beside what it does anyway, it lets the move begin at some time, moves sessions in between, and lets movers die after
any number of steps. The reference knows nothing of all that: nobody must notice.
"""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from coatcheck.core.model import Query
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.moving import DualStore, is_copy, one
from coatcheck.stores.moving.steps import Run
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock

from .test_store_machine import LONG, StoreMachine, run


class MovingMachine(StoreMachine):
    """The steps of a move among those of the machine."""

    @property
    def dual(self) -> DualStore:
        return self.store.store

    @rule()
    def the_move_begins(self) -> None:
        self.dual.begin()

    @rule(data=st.data())
    @precondition(lambda self: self.dual._state.began)
    def a_session_is_moved(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(self.kept)))
        self.dual.move(handle)

    @rule(data=st.data(), steps=st.integers(1, 9))
    @precondition(lambda self: self.dual._state.began)
    def a_mover_dies(self, data: st.DataObject, steps: int) -> None:
        handle = data.draw(st.sampled_from(sorted(self.kept)))
        mover = Run(one.move(self.dual._state, handle), None)
        for _ in range(steps):
            if mover.ask is not None:
                store = self.dual.new if mover.ask.side == "new" else self.dual.old
                mover.answered(getattr(store, mover.ask.verb)(*mover.ask.arguments))

    @rule()
    @precondition(lambda self: self.dual._state.began)
    def everything_is_moved(self) -> None:
        """Afterwards the new store alone answers for all that lives, but for what is too fresh."""
        moved = {handle: self.dual.move(handle) for handle in sorted(self.kept)}
        left = {record.handle for record in self.dual.old.find(Query()).items}
        assert left == {handle for handle, outcome in moved.items() if outcome == "waits"}
        assert not [record for record in self.dual.new.find(Query()).items if is_copy(record)]


class OnMemory(MovingMachine):
    """From memory to memory."""

    @staticmethod
    def make_store(clock: Clock, _: Path) -> Any:
        return DualStore(MemoryStore(clock=clock), MemoryStore(clock=clock))


class OnSqlite(MovingMachine):
    """From one SQLite file to another."""

    @staticmethod
    def make_store(clock: Clock, folder: Path) -> Any:
        return DualStore(*(SqliteStore(folder / f"{name}.db", clock=clock) for name in ("new", "old")))


@pytest.mark.timeout(7200 if LONG else 240)
@pytest.mark.parametrize("machine", [OnMemory, OnSqlite], ids=["memory", "sqlite"])
def test_in_any_order_of_steps_nobody_notices_a_move(machine: type[StoreMachine]) -> None:
    examples = (20_000 if machine is OnMemory else 2_000) if LONG else (300 if machine is OnMemory else 40)
    run(machine, examples)
