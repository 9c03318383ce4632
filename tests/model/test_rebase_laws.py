"""Laws of merging: parallel writers lose nothing to each other, and the same key has a serial order.

COATCHECK_HYPOTHESIS=long draws more.
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import codec, records
from coatcheck.core.errors import NotApplied, Unknown
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Change, Conflict, Query, Record, Reply, Request
from coatcheck.core.policies import timeouts
from coatcheck.core.session import Session
from coatcheck.flow import sync
from coatcheck.flow.registry import Registry
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock

Data = dict[str, Any]

LONG = os.environ.get("COATCHECK_HYPOTHESIS") == "long"
budget = settings(max_examples=20_000 if LONG else 200, derandomize=not LONG, deadline=None, database=None)

values = st.none() | st.booleans() | st.integers(-2, 2) | st.lists(st.integers(0, 1), max_size=2)
data = st.dictionaries(st.sampled_from("abcdef"), values, max_size=6)
GONE = "gone"
edits = st.dictionaries(st.sampled_from("abcdef"), values | st.just(GONE), max_size=4)


def edited(before: Data, edit: Data) -> Data:
    """Return data as a handler leaves it that sets, or deletes, some keys."""
    kept = {key: value for key, value in before.items() if edit.get(key, "") is not GONE}
    return kept | {key: value for key, value in edit.items() if value is not GONE}


def touched(before: Data, after: Data) -> set[str]:
    """Return the keys that an edit really changed, as the codec sees it: True is not 1."""
    return {key for key in before.keys() | after.keys() if not same(before, after, key)}


def same(one: Data, other: Data, key: str) -> bool:
    return exact({key: one[key]} if key in one else {}) == exact({key: other[key]} if key in other else {})


def exact(found: Data) -> dict[str, bytes]:
    return {key: codec.encode({key: value}) for key, value in found.items()}


def laid(base: Data, mine: Data, theirs: Data, *, unsure: bool = False) -> Data:
    return records.merged(codec.encode(base), mine, codec.encode(theirs), unsure=unsure)


@budget
@given(base=data, one=edits, other=edits)
def test_disjoint_changes_commute(base: Data, one: Data, other: Data) -> None:
    apart = {key: value for key, value in other.items() if key not in one}
    first, second = edited(base, one), edited(base, apart)
    both = laid(base, second, first)
    assert exact(both) == exact(laid(base, first, second))
    assert exact(both) == exact(edited(edited(base, one), apart))


@budget
@given(base=data, one=edits, other=edits)
def test_overlapping_changes_equal_the_order_of_their_commits(base: Data, one: Data, other: Data) -> None:
    first, second = edited(base, one), edited(base, other)
    merged = laid(base, second, first)
    really = {key: other[key] for key in touched(base, second) if key in other}
    assert exact(merged) == exact(edited(first, really))


@budget
@given(base=data, all_edits=st.lists(edits, min_size=2, max_size=4))
def test_many_writers_equal_some_serial_order(base: Data, all_edits: list[Data]) -> None:
    stored = base
    for edit in all_edits:
        stored = laid(base, edited(base, edit), stored)
    effective = [{key: edit[key] for key in touched(base, edited(base, edit)) if key in edit} for edit in all_edits]
    orders = []
    for order in itertools.permutations(effective):
        found = base
        for edit in order:
            found = edited(found, edit)
        orders.append(exact(found))
    assert exact(stored) in orders


@budget
@given(base=data, edit=edits)
def test_a_deletion_meets_a_write_and_the_later_one_wins(base: Data, edit: Data) -> None:
    before = base | {"k": 1}
    deleted, written = (
        edited(before, {"k": GONE}),
        edited(before, {"k": 2} | {k: v for k, v in edit.items() if k != "k"}),
    )
    assert "k" not in laid(before, deleted, written)
    assert laid(before, written, deleted)["k"] == 2


@budget
@given(base=data, mine=edits, theirs=edits)
def test_an_unsure_writer_never_takes_back_a_later_write(base: Data, mine: Data, theirs: Data) -> None:
    """His first try may have been applied: then whoever changed the key after him was the later one."""
    first = edited(base, mine)
    stored = edited(first, theirs)
    untouched = {key: first.get(key, GONE) for key in touched(base, first) if same(base, stored, key)}
    assert exact(laid(base, first, stored, unsure=True)) == exact(edited(stored, untouched))


# Through Exchange: an outcome that is not known (contract, finding 8).


class Scheduled:
    """A store that does with each commit what a schedule says, and lets others act before a retry."""

    def __init__(self, store: Any, fates: Sequence[str], between: Sequence[Callable[[], None]]) -> None:
        self.store, self.listeners = store, store.listeners
        self.fates, self.between = list(fates), list(between)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        fate = self.fates.pop(0) if self.fates else "done"
        result = None if fate == "crash" else self.store.commit(commit_id, changes, durable)
        if fate == "done":
            return result
        act = self.between.pop(0) if self.between else None
        if act is not None:
            act()
        message = fate
        raise NotApplied(message) if fate == "crash" else Unknown(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Browser:
    """One jar on a store."""

    def __init__(self, store: Any, clock: Clock) -> None:
        self.manager = SessionManager(clock=clock, origins=["https://app.example"], timeouts=timeouts())
        self.exchange = Exchange(self.manager, store)
        self.value = b""

    def begin(self) -> Session:
        cookie = ((b"cookie", b"__Host-coat=" + self.value),) if self.value else ()
        session = self.exchange.begin(Request("GET", "https", "/", ((b"host", b"app.example"), *cookie)))
        assert isinstance(session, Session)
        return session

    def finish(self, session: Session) -> bool:
        """Finish and tell whether the request was answered, not refused."""
        headers = self.exchange.finish(session, 200, ())
        if isinstance(headers, Reply):
            return False
        for name, value in headers:
            if name == b"set-cookie":
                self.value = value.split(b";")[0].partition(b"=")[2]
        return True

    def login(self, **given: Any) -> None:
        session = self.begin()
        session.login("ann")
        session.update(given)
        assert self.finish(session)


def only(store: Any) -> Record:
    (record,) = store.find(Query()).items
    return record


FATES = ("done", "lost", "crash")
KEYS = ("x", "y")
SCHEDULES = [
    (fates, writes, key)
    for fates in itertools.product(FATES, repeat=3)
    for writes in ((), ("x",), ("y",), ("x", "y"), ("x", "x"), ("delete",))
    for key in KEYS
    if set(fates) != {"done"}
]


def test_there_are_enough_schedules() -> None:
    assert len(SCHEDULES) >= 120


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_after_an_unknown_outcome_no_acknowledged_write_is_lost(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writes, its answer is lost, B's write is acknowledged, A tries again: what B wrote stays, and A's other key."""
    monkeypatch.setattr(sync, "sleep", lambda _: None)
    chosen = SCHEDULES if kind == "memory" else SCHEDULES[::5]
    for number, (fates, writes, key) in enumerate(chosen):
        clock = Clock()
        store: Any = MemoryStore(clock=clock)
        if kind == "sqlite":
            store = SqliteStore(tmp_path / f"{number}.db", clock=clock)
        after = _scheduled(store, clock, fates, writes, key)
        store.close()
        assert after, f"{fates} {writes} {key}"


def _scheduled(store: Any, clock: Clock, fates: Sequence[str], writes: Sequence[str], key: str) -> bool:
    honest = Browser(store, clock)
    honest.login(x=0, y=0)
    acknowledged: Data = {}

    def write(what: str) -> Callable[[], None]:
        def act() -> None:
            session = honest.begin()
            if what == "delete":
                del session["x"]
                acknowledged["x"] = None
            else:
                acknowledged[what] = session[what] = len(acknowledged) + 10
            assert honest.finish(session)

        return act

    unlucky = Browser(Scheduled(store, fates, [write(what) for what in writes]), clock)
    unlucky.value = honest.value
    session = unlucky.begin()
    session[key] = 1
    answered = unlucky.finish(session)
    stored = codec.decode(only(store).data)
    applied_first = fates[0] == "lost"
    for name, value in acknowledged.items():
        came_after_mine = name == key and applied_first
        if (name != key or came_after_mine) and stored.get(name) != value:
            return False
    return answered and (key in acknowledged or stored[key] == 1)


def test_a_first_sight_that_could_not_be_stored_loses_nobodys_write() -> None:
    """The touch before the handler is best effort; a request must not build on it as if it were stored."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    browser = Browser(store, clock)
    browser.login(x=0)
    old = browser.value
    clock.wind(1000)
    assert browser.finish(browser.begin())
    assert browser.value != old, "renewed"
    unlucky = Browser(Scheduled(store, ["crash"], []), clock)
    unlucky.value = browser.value
    slow = unlucky.begin()
    browser.value = old
    other = browser.begin()
    other["x"] = 1
    assert browser.finish(other)
    slow["y"] = 2
    assert unlucky.finish(slow)
    assert codec.decode(only(store).data) == {"x": 1, "y": 2}


def test_a_lost_successor_is_not_handed_out_after_a_logout() -> None:
    """What the model found: an answer without a commit would have set the cookie of a session that is over."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    browser = Browser(store, clock)
    browser.login()
    clock.wind(1000)
    browser.exchange.finish(browser.begin(), 200, ())  # renewed, and the answer is lost
    clock.wind(1000)
    slow, leaving = browser.begin(), browser.begin()
    leaving.logout()
    assert browser.finish(leaving)
    browser.value = b"as deleted"
    assert browser.finish(slow)
    assert browser.value == b"as deleted", "an answer set the cookie of a session that is over"


def test_a_step_up_in_the_grace_does_not_get_past_a_revocation() -> None:
    """What the model found: within the grace, a login was no step-up, and took a revoked session's data along."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    browser = Browser(store, clock)
    browser.login()
    old = browser.value
    clock.wind(1000)
    assert browser.finish(browser.begin())
    assert browser.begin().subject == "ann", "the successor is seen"
    browser.value = old
    slow = browser.begin()
    slow.login("ann", methods=("pwd", "otp"))
    assert Registry(store, clock=clock).revoke(only(store).handle)
    assert not browser.finish(slow)
    assert not store.find(Query()).items


# Fifty writers at once.


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_fifty_parallel_writers_of_fifty_keys_keep_all_fifty(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "COMMIT_DEADLINE", 30.0)  # the law is about losing, not about a slow machine
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "sessions.db")
    manager = SessionManager(origins=["https://app.example"])
    exchange, browser = Exchange(manager, store), Browser(store, Clock())
    browser.manager, browser.exchange = manager, exchange
    browser.login()
    ready, answered = threading.Barrier(50), []

    def write(number: int) -> None:
        session = browser.begin()
        ready.wait()
        session[f"key{number}"] = number
        answered.append(browser.finish(session))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = codec.decode(only(store).data)
    store.close()
    assert answered == [True] * 50
    assert stored == {f"key{number}": number for number in range(50)}
