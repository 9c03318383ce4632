"""What a move promises beyond the contract: its beginning, shards, limits over both stores, listings, faults."""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied, StoreError, Unknown
from coatcheck.core.model import (
    Change,
    Conflict,
    End,
    EndOthers,
    Epochs,
    EventQuery,
    Insert,
    Limit,
    Note,
    Query,
    RaiseEpoch,
    Record,
    Touch,
    Update,
)
from coatcheck.core.model import Replace as Replacing
from coatcheck.core.tokens import shard_of
from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.moving import FRESH, AsyncDualStore, DualStore, is_copy, many, one
from coatcheck.stores.moving.steps import FAR, Run
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import TOMBSTONE, Face, event, full, make
from coatcheck.testing.flaky import AsyncFlakyStore, FlakyStore

from .moves import KINDS, made, pair, single_redis


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def dual(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Any:
    made = pair(request.param, tmp_path, clock)
    yield made
    made.close()


def put(store: Any, *records: Record) -> None:
    for record in records:
        assert store.commit(os.urandom(16), [Insert(record=record)], durable=False) is None


def commit(store: Any, *changes: Change, durable: bool = True) -> Conflict | None:
    conflict: Conflict | None = store.commit(os.urandom(16), changes, durable)
    return conflict


def half_moved(dual: DualStore, handle: str) -> None:
    """Let a mover die after it has written its copy."""
    mover = Run(one.move(dual._state, handle), None)
    while dual.new.load(handle) is None:
        assert mover.ask is not None
        store = dual._stores[mover.ask.side]
        mover.answered(getattr(store, mover.ask.verb)(*mover.ask.arguments))


# The beginning.


def test_sessions_are_created_in_the_old_store_until_the_move_begins(dual: DualStore, clock: Clock) -> None:
    put(dual, make("before", clock))
    dual.begin()
    put(dual, make("after", clock))
    assert [record.handle for record in dual.old.find(Query()).items] == ["before"]
    assert [record.handle for record in dual.new.find(Query()).items] == ["after"]


def test_every_worker_hears_that_the_move_has_begun(dual: DualStore, clock: Clock) -> None:
    other = DualStore(dual.new, dual.old)
    put(other, make("before", clock))
    dual.begin()
    put(other, make("after", clock))
    assert dual.new.load("after") is not None


def test_the_epochs_of_both_count_and_the_old_ones_are_copied(dual: DualStore, clock: Clock) -> None:
    commit(dual.old, RaiseEpoch(scope="*", before=5.0), RaiseEpoch(scope="realm:a", before=7.0))
    commit(dual.new, RaiseEpoch(scope="*", before=6.0), RaiseEpoch(scope="realm:b", before=8.0))
    assert dual.epochs().scopes == {"*": 6.0, "realm:a": 7.0, "realm:b": 8.0}
    dual.begin()
    assert dual.epochs().scopes == {"*": 6.0, "realm:a": 7.0, "realm:b": 8.0}
    copied = {scope: at for scope, at in dual.new.epochs().scopes.items() if ":" not in scope or scope[:5] == "realm"}
    assert copied == {"*": 6.0, "realm:a": 7.0, "realm:b": 8.0}
    dual.begin()


def test_the_generation_is_that_of_both(dual: DualStore) -> None:
    assert dual.epochs().generation == f"{dual.new.epochs().generation}/{dual.old.epochs().generation}"


def test_a_store_is_not_moved_into_itself(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    for act in (DualStore(store, store).epochs, DualStore(store, store).begin):
        with pytest.raises(StoreError, match="one and the same"):
            act()


def test_a_store_that_was_left_is_not_moved_into(dual: DualStore) -> None:
    dual.begin()
    with pytest.raises(StoreError, match="move to an empty one"):
        DualStore(dual.old, dual.new).begin()


def test_a_store_is_moved_to_one_other_only(dual: DualStore, clock: Clock) -> None:
    dual.begin()
    dual.begin()
    with pytest.raises(StoreError, match="finish that move first"):
        DualStore(MemoryStore(clock=clock), dual.old).begin()


def test_clocks_that_differ_are_said(clock: Clock) -> None:
    with pytest.raises(StoreError, match="differ by 40 s"):
        DualStore(MemoryStore(clock=clock), MemoryStore(clock=Clock(clock.now + 40))).epochs()


# What is moved comes whole, and stays moved.


def test_a_moved_session_is_the_same_but_for_its_version(dual: DualStore, clock: Clock) -> None:
    whole = make("h", clock, former_proof=b"former", methods=("pwd", "otp"), level=20, persistent=True, binding=b"key")
    unseen = make("unseen", clock, used_at=None, nonce=b"nonce", former_proof=b"former", subject=None)
    put(dual, whole, unseen)
    dual.begin()
    for record in (whole, unseen):
        assert dual.move(record.handle) == "moved"
        assert replace(dual.load(record.handle), version=1, by=b"") == replace(record, version=1)
        assert dual.old.load(record.handle).ended_because == "moved"
        assert dual.move(record.handle) == "moved"


def test_what_ended_or_never_was_is_not_moved(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    dual.begin()
    commit(dual, End(handle="h", because="logout"))
    assert (dual.move("h"), dual.move("nobody")) == ("ended", "gone")


@pytest.mark.parametrize("purge_old", [True, False])
@pytest.mark.parametrize("purge_new", [True, False])
def test_what_ended_in_the_new_store_is_never_found_in_the_old_one(
    dual: DualStore, clock: Clock, purge_old: bool, purge_new: bool
) -> None:
    """D43, at the level of stores."""
    put(dual, make("h", clock, idle_for=None))
    dual.begin()
    dual.move("h")
    commit(dual, End(handle="h", because="logout"))
    assert dual.load("h").ended_because == "logout"
    clock.wind(TOMBSTONE + 1)
    for wanted, store in ((purge_old, dual.old), (purge_new, dual.new)):
        if wanted:
            assert store.purge(9) == 1
    record = dual.load("h")
    assert record is None or record.ended_because == "logout"
    assert dual.find(Query()).items == ()


@pytest.mark.parametrize("because", ["logout", "owner"])
def test_a_copy_whose_mover_died_does_not_outlive_its_original(dual: DualStore, clock: Clock, because: str) -> None:
    put(dual, make("h", clock, idle_for=None))
    dual.begin()
    half_moved(dual, "h")
    # an end that itself dies half way: only the old store has heard of it
    commit(dual.old, End(handle="h", because=because))
    assert dual.load("h").ended_because == because
    clock.wind(TOMBSTONE + 1)
    assert dual.old.purge(9) == 1
    assert dual.old.load("h") is None
    assert dual.load("h") is None
    assert dual.move("h") == "gone"
    assert dual.new.load("h").ended_at is not None


def test_an_end_leaves_a_tombstone_where_a_copy_could_be_written(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock), make("kept", clock))
    dual.begin()
    slow = Run(one.move(dual._state, "h"), None)
    while slow.ask is not None and slow.ask.verb != "commit":  # it has seen "h" alive, and is about to copy it
        slow.answered(getattr(dual._stores[slow.ask.side], slow.ask.verb)(*slow.ask.arguments))
    commit(dual, End(handle="h", because="logout", events=(event("session_logout", clock),)))
    assert dual.new.load("h").ended_because == "logout"
    while slow.ask is not None:
        slow.answered(getattr(dual._stores[slow.ask.side], slow.ask.verb)(*slow.ask.arguments))
    assert dual.new.load("h").ended_because == "logout"
    assert len(dual.events(EventQuery(name="session_logout")).items) == 1


def test_a_copy_gets_past_an_epoch_only_if_its_original_still_lives(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    dual.begin()
    clock.wind(1)
    slow = Run(one.move(dual._state, "h"), None)
    while slow.ask is not None and slow.ask.verb != "commit":
        slow.answered(getattr(dual._stores[slow.ask.side], slow.ask.verb)(*slow.ask.arguments))
    commit(dual, EndOthers(realm="", subject="ann", because="operator"))
    while slow.ask is not None:
        slow.answered(getattr(dual._stores[slow.ask.side], slow.ask.verb)(*slow.ask.arguments))
    assert slow.result == "ended"
    assert dual.new.load("h") is None


def test_a_tombstone_gets_past_the_epoch_of_its_subject(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    dual.begin()
    clock.wind(1)
    commit(dual, EndOthers(realm="", subject="ann", keep=("h",), because="owner"))
    commit(dual, End(handle="h", because="logout"))
    assert (dual.new.load("h").ended_because, dual.new.load("h").subject) == ("logout", "ann")


def test_an_end_by_a_clock_leaves_no_tombstone_of_who_was_seen_since(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    dual.begin()
    judged = dual.load("h")
    commit(dual, Touch(handle="h", seen_at=clock.wind(1700)))
    clock.wind(200)
    commit(dual, End(handle="h", because="idle", if_seen_at=judged.seen_at))
    assert dual.load("h").ended_at is None
    assert dual.new.load("h") is None
    clock.wind(1800)
    commit(dual, End(handle="h", because="idle", if_seen_at=dual.load("h").seen_at))
    assert dual.load("h").ended_because == "idle"


def test_a_session_that_was_kept_is_moved_with_its_own_login_time(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    login = clock.now
    clock.wind(60)
    commit(dual, EndOthers(realm="", subject="ann", keep=("h",), because="owner"))
    dual.begin()
    assert dual.move("h") == "moved"
    assert dual.new.load("h").authenticated_at == login


def test_a_login_from_before_a_revocation_is_refused_in_the_new_store_too(dual: DualStore, clock: Clock) -> None:
    slow = make("slow", clock)
    clock.wind(1)
    commit(dual, EndOthers(realm="", subject="ann", because="operator"))
    dual.begin()
    assert commit(dual, Insert(record=slow)) == Conflict(None, "epoch")


def test_an_insert_never_goes_over_what_lies_in_the_old_store(dual: DualStore, clock: Clock) -> None:
    put(dual, make("live", clock), make("over", clock))
    commit(dual, End(handle="over", because="logout"))
    dual.begin()
    assert commit(dual, Insert(record=make("live", clock))) is None
    assert dual.new.load("live") is None
    assert commit(dual, Insert(record=make("live", clock, family_proof=b"another"))).why == "exists"
    assert commit(dual, Insert(record=make("over", clock))).why == "ended"


def test_a_write_that_is_based_on_nothing_is_told_what_there_is(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock), make("over", clock))
    commit(dual, End(handle="over", because="logout"))
    dual.begin()
    for changed in ({"h": "version"}, {"over": "ended"}):
        ((handle, why),) = changed.items()
        conflict = commit(dual, Update(record=make(handle, clock, data=b"x"), was=0))
        assert conflict == Conflict(dual.load(handle), why)
    assert commit(dual, Update(record=make("nobody", clock), was=0)) == Conflict(None, "gone")
    assert dual.load("h").data == make("h", clock).data


def test_a_version_of_the_old_store_is_never_taken_for_one_of_the_new(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    commit(dual, Update(record=dual.load("h"), was=dual.load("h").version))
    slow = dual.load("h")
    dual.begin()
    dual.move("h")
    while dual.load("h").version < slow.version - FAR:
        commit(dual, Update(record=replace(dual.load("h"), data=b"acknowledged"), was=dual.load("h").version))
    assert dual.load("h").version == slow.version - FAR
    assert commit(dual, Update(record=replace(slow, data=b"stale"), was=slow.version)).why == "version"


# Steps-up whose answer was lost.


def test_a_successor_that_nobody_saw_stays_with_its_predecessor_for_a_while(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h0", clock))
    first = dual.load("h0")
    dual.begin()
    dual.old.commit(b"r1", [Replacing(record=make("lost", clock, used_at=None), old="h0", was=1)], durable=True)
    assert dual.move("lost") == "waits"
    assert commit(dual, Replacing(record=make("h2", clock, used_at=None), old="h0", was=first.version)) is None
    assert (dual.load("lost").ended_because, dual.load("lost").successor) == ("replaced", "h2")
    assert dual.move("h2") == "waits"
    clock.wind(FRESH)
    assert dual.move("h2") == "moved"
    commit(dual, End(handle="h0", because="operator"))
    assert dual.load("h2").ended_because == "operator"


def test_a_second_step_up_takes_over_in_the_new_store(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h0", clock))
    both = dual.load("h0")
    dual.begin()
    conflict = commit(dual, Replacing(record=make("lost", clock, used_at=None), old="h0", was=both.version))
    assert conflict == Conflict(dual.load("h0"), "version")
    again = Replacing(record=make("lost", clock, used_at=None), old="h0", was=conflict.current.version)
    assert commit(dual, again) is None
    assert commit(dual, Replacing(record=make("h2", clock), old="h0", was=both.version)) is None
    assert [record.handle for record in dual.find(Query()).items] == ["h2"]


# Shards: a new store that wants handles of its own.


class Sharded(MemoryStore):
    """A memory store with the one rule that a Cluster adds."""

    sharded = True
    salt = b"salt of the store"

    def epochs(self) -> Epochs:
        return replace(super().epochs(), salt=self.salt)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        for change in changes:
            if isinstance(change, (Insert, Replacing)) and change.record.subject is not None:
                record = change.record
                if not record.handle.startswith(shard_of(self.salt, record.realm, record.subject)):
                    message = "outside its shard"
                    raise StoreError(message)
        return super().commit(commit_id, changes, durable)


@pytest.fixture(params=["memory", "redis"])
def sharding(request: pytest.FixtureRequest, clock: Clock) -> Iterator[DualStore]:
    """Return a move into a store with shards."""
    if request.param == "memory":
        new: Any = Sharded(clock=clock)
    else:
        new = RedisStore(single_redis().url, prefix=f"shards-{os.urandom(4).hex()}", shards=4096, clock=clock)
    dual = DualStore(new, MemoryStore(clock=clock))
    yield dual
    dual.close()


@pytest.fixture
def at(sharding: DualStore) -> Callable[[object], str]:
    """Return what gives ann's sessions handles in her shard."""
    shard = shard_of(sharding.epochs().salt, "", "ann")
    return lambda name: f"{shard}{name}"


def test_a_session_outside_its_shard_stays_and_lives_on(
    sharding: DualStore, clock: Clock, at: Callable[[object], str]
) -> None:
    put(sharding, make("h", clock), make("anonymous", clock, subject=None), make(at("fits"), clock))
    sharding.begin()
    outcomes = [sharding.move(handle) for handle in ("h", "anonymous", at("fits"))]
    assert outcomes == ["stays", "moved", "moved"]
    record = sharding.load("h")
    assert [sharding.fits(one) for one in (record, sharding.load("anonymous"))] == [False, True]
    assert commit(sharding, Update(record=replace(record, data=b"written"), was=record.version)) is None
    commit(sharding, Touch(handle="h", seen_at=clock.now + 1))
    record = sharding.load("h")
    assert (record.data, record.seen_at) == (b"written", clock.now + 1)
    after = make(at("next"), clock, used_at=None)
    assert commit(sharding, Replacing(record=after, old="h", was=record.version)) is None
    clock.wind(FRESH)
    assert sharding.move(at("next")) == "moved"
    commit(sharding, End(handle="h", because="operator"))
    assert sharding.load(at("next")).ended_because == "operator"


def test_a_session_outside_its_shard_can_be_ended(sharding: DualStore, clock: Clock) -> None:
    put(sharding, make("h", clock))
    sharding.begin()
    commit(sharding, End(handle="h", because="logout"))
    assert sharding.load("h").ended_because == "logout"
    assert sharding.new.load("h") is None


def test_new_handles_lie_in_the_shards_of_the_store_that_has_them(clock: Clock) -> None:
    sharded, plain = Sharded(clock=clock), MemoryStore(clock=clock)
    assert DualStore(sharded, plain).epochs().salt == DualStore(plain, sharded).epochs().salt == Sharded.salt
    assert DualStore(sharded, plain).sharded
    assert DualStore(plain, sharded).sharded
    assert not DualStore(plain, MemoryStore(clock=clock)).sharded


def test_shards_of_two_keys_do_not_meet(clock: Clock) -> None:
    other = Sharded(clock=clock)
    other.salt = b"another"
    with pytest.raises(StoreError, match="not of one key"):
        DualStore(Sharded(clock=clock), other).epochs()
    assert DualStore(Sharded(clock=clock), Sharded(clock=clock)).epochs().salt == Sharded.salt


# Limits over both stores.


def test_a_limit_counts_and_ends_the_longest_authenticated_of_both(
    sharding: DualStore, clock: Clock, at: Callable[[object], str]
) -> None:
    for handle in ("a", "b"):
        put(sharding, make(handle, clock))
        clock.wind(1)
    sharding.begin()
    for number, gone in enumerate(("a", "b", at("0"))):
        login = make(at(number), clock)
        assert commit(sharding, Insert(record=login, limit=Limit(2))) is None
        clock.wind(1)
        assert sharding.load(gone).ended_because == "limit"
        assert len(sharding.find(Query(subject="ann")).items) == 2
    told = sharding.events(EventQuery(name="excess_sessions_exceeded")).items
    assert [one.handle for one in told] == [at("0"), "b", "a"]
    known = {"known_address": None, "known_agent": None}
    assert told[-1].detail == {"because": "limit", "most": 2, "by": at("0"), **known}


def test_a_limit_that_refuses_counts_both(sharding: DualStore, clock: Clock, at: Callable[[object], str]) -> None:
    put(sharding, make("a", clock))
    sharding.begin()
    limit = Limit(2, refuse=True)
    assert commit(sharding, Insert(record=make(at("0"), clock), limit=limit)) is None
    assert commit(sharding, Insert(record=make(at("1"), clock), limit=limit)) == Conflict(None, "limit")
    commit(sharding, End(handle=at("0"), because="logout"))
    assert commit(sharding, Insert(record=make(at("1"), clock), limit=Limit(1, refuse=True))).why == "limit"
    assert commit(sharding, Insert(record=make(at("1"), clock), limit=limit)) is None


def test_a_replace_counts_both_but_not_the_session_that_leaves(
    sharding: DualStore, clock: Clock, at: Callable[[object], str]
) -> None:
    put(sharding, make("a", clock))
    record = sharding.load("a")
    sharding.begin()
    put(sharding, make(at("0"), clock))
    change = Replacing(record=make(at("1"), clock), old="a", was=record.version, limit=Limit(1, refuse=True))
    assert commit(sharding, change).why == "limit"
    assert commit(sharding, replace(change, limit=Limit(2, refuse=True))) is None
    assert len(sharding.find(Query(subject="ann")).items) == 2


@pytest.mark.parametrize("begun", [False, True])
def test_parallel_logins_never_exceed_the_limit_while_sessions_move(dual: DualStore, clock: Clock, begun: bool) -> None:
    for number in range(3):
        put(dual, make(f"old{number}", clock))
    clock.wind(1)
    if begun:
        dual.begin()
    face = Face(dual)
    logins = [Insert(record=make(f"{number:02}", clock), limit=Limit(3)) for number in range(20)]
    assert face.together(*logins) == [None] * 20
    assert len(dual.find(Query(subject="ann")).items) == 3


# Commits of several changes.


def test_a_login_over_a_session_of_the_old_store_ends_it(dual: DualStore, clock: Clock) -> None:
    put(dual, make("anonymous", clock, subject=None), make("bobs", clock, subject="bob"))
    dual.begin()
    for handle, old in (("one", "anonymous"), ("two", "bobs")):
        said = event("session_expired", clock, handle=old)
        ending = End(handle=old, because="superseded", events=(said,))
        assert commit(dual, Insert(record=make(handle, clock)), ending) is None
        assert dual.load(old).ended_because == "superseded"
        assert dual.new.load(old).ended_because == "superseded"
    assert len(dual.events(EventQuery(name="session_expired")).items) == 2


def test_a_login_that_is_refused_ends_an_authenticated_session_but_no_anonymous_one(
    dual: DualStore, clock: Clock
) -> None:
    put(dual, make("anonymous", clock, subject=None), make("bobs", clock, subject="bob"))
    late = make("late", clock)
    clock.wind(1)
    dual.begin()
    commit(dual, EndOthers(realm="", subject="ann", because="operator"))
    ends = [End(handle=handle, because="superseded") for handle in ("anonymous", "bobs")]
    assert commit(dual, Insert(record=late), *ends) == Conflict(None, "epoch")
    assert [dual.load(handle).ended_because for handle in ("anonymous", "bobs")] == [None, "superseded"]


def test_a_login_in_the_new_store_ends_others_in_the_old_one(dual: DualStore, clock: Clock) -> None:
    put(dual, make("other", clock), make("bobs", clock, subject="bob"))
    dual.begin()
    put(dual, make("fresh", clock))
    clock.wind(1)
    others = EndOthers(realm="", subject="ann", keep=("in",), because="owner", events=(event("revoked", clock),))
    assert commit(dual, Insert(record=make("in", clock)), others) is None
    assert [one.handle for one in dual.find(Query()).items] == ["bobs", "in"]
    assert len(dual.events(EventQuery(name="revoked")).items) == 1
    slow = make("slow", clock, authenticated_at=clock.now - 1)
    assert commit(dual, Insert(record=slow)) == Conflict(None, "epoch")


def test_a_write_of_an_old_session_ends_others_in_both(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock), make("other", clock))
    dual.begin()
    put(dual, make("fresh", clock))
    clock.wind(1)
    record = dual.load("h")
    others = EndOthers(realm="", subject="ann", keep=("h",), because="owner", events=(event("revoked", clock),))
    assert commit(dual, Update(record=replace(record, data=b"x"), was=record.version), others) is None
    assert [one.handle for one in dual.find(Query()).items] == ["h"]
    assert len(dual.events(EventQuery(name="revoked")).items) == 1


def test_a_refused_write_ends_no_others_in_either(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock), make("other", clock))
    dual.begin()
    put(dual, make("fresh", clock))
    others = EndOthers(realm="", subject="ann", keep=("h",), because="owner")
    for was in (FAR + 7, 7):
        assert commit(dual, Update(record=make("h", clock), was=was), others).why == "version"
    assert len(dual.find(Query()).items) == 3


def test_epochs_are_raised_in_both(dual: DualStore, clock: Clock) -> None:
    for begun in (False, True):
        if begun:
            dual.begin()
        change = RaiseEpoch(scope="*", before=clock.wind(1), events=(event("raised", clock),))
        commit(dual, change)
        assert dual.new.epochs().scopes["*"] == dual.old.epochs().scopes["*"] == clock.now
    assert len(dual.events(EventQuery(name="raised")).items) == 2


def test_a_touch_writes_its_event_once(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    dual.begin()
    for moved in (False, True):
        if moved:
            dual.move("h")
        commit(dual, Touch(handle="h", seen_at=clock.wind(60), events=(event("touched", clock),)))
    assert len(dual.events(EventQuery(name="touched")).items) == 2
    commit(dual, Touch(handle="nobody", seen_at=clock.now, events=(event("touched", clock),)))
    assert len(dual.events(EventQuery(name="touched")).items) == 2


# Listings.


def test_a_listing_shows_each_session_once_and_in_order(dual: DualStore, clock: Clock) -> None:
    for number in range(30):
        put(dual, make(f"{number:02}", clock, created_at=clock.now - 60 + number // 4))
    dual.begin()
    for number in range(0, 30, 3):
        dual.move(f"{number:02}")
    half_moved(dual, "01")
    for query in ({}, {"subject": "ann"}, {"live": False}):
        found, cursor, moving = [], None, iter(range(1, 30, 3))
        while True:
            page = dual.find(Query(limit=4, cursor=cursor, **query))
            found += [record.handle for record in page.items]
            cursor = page.cursor
            if cursor is None:
                break
            dual.move(f"{next(moving):02}")
        assert found == [f"{number:02}" for number in range(30)]


def test_a_listing_shows_what_counts(dual: DualStore, clock: Clock) -> None:
    put(dual, make("half", clock, data=b"1"), make("moved", clock), make("over", clock))
    dual.begin()
    dual.move("moved")
    half_moved(dual, "half")
    dual.old.commit(b"u", [Update(record=make("half", clock, data=b"2"), was=1)], durable=False)
    commit(dual, End(handle="over", because="logout"))
    found = {record.handle: record for record in dual.find(Query(live=False)).items}
    assert sorted(found) == ["half", "moved", "over"]
    assert found == {handle: dual.load(handle) for handle in ("half", "moved", "over")} | {"half": found["half"]}
    assert found["half"].data == b"2"


def test_events_of_both_come_in_pages(dual: DualStore, clock: Clock) -> None:
    for number in range(5):
        commit(dual, Note(events=(event(str(number), clock, at=clock.now + number),)))
    dual.begin()
    for number in range(5, 11):
        commit(dual, Note(events=(event(str(number), clock, at=clock.now + number),)))
    for limit in (1, 2, 3, 4, 6, 50):
        names, cursor = [], None
        while True:
            page = dual.events(EventQuery(limit=limit, cursor=cursor))
            names += [one.name for one in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert names == [str(number) for number in range(10, -1, -1)]


def test_purges_and_forgets_reach_both(dual: DualStore, clock: Clock) -> None:
    put(dual, make("a", clock))
    commit(dual, Note(events=(event("old", clock),)))
    dual.begin()
    put(dual, make("b", clock))
    commit(dual, Note(events=(event("new", clock),)))
    clock.wind(1800)
    assert [dual.purge(1), dual.purge(9), dual.purge(9)] == [1, 1, 0]
    assert [dual.forget_events(clock.now - 1, limit) for limit in (1, 9, 9)] == [1, 1, 0]
    assert {record.ended_because for record in dual.find(Query(live=False)).items} == {"idle"}


def test_listeners_of_either_face_hear_both_stores_once(clock: Clock) -> None:
    dual = DualStore(MemoryStore(clock=clock), MemoryStore(clock=clock))
    face, heard = dual.as_async(), []
    face.listeners.append(lambda events: heard.extend(one.name for one in events))
    for begun in (False, True):
        if begun:
            dual.begin()
        commit(dual, Note(events=(event("blocking", clock),)))
        asyncio.run(face.commit(os.urandom(16), [Note(events=(event("awaited", clock),))], durable=False))
    assert heard == ["blocking", "awaited"] * 2


class Watched(MemoryStore):
    """A store that can be watched."""

    def watch(self, notice: Callable[[str | None], None]) -> Callable[[], None]:
        self.notice = notice
        return lambda: self.__dict__.pop("notice")


def test_two_stores_are_watched_if_both_can_be(clock: Clock) -> None:
    unwatched = SimpleNamespace(listeners=[])
    assert not hasattr(DualStore(Watched(), unwatched), "watch")
    assert not hasattr(DualStore(unwatched, Watched()), "watch")
    new, old, heard = Watched(), Watched(), []
    end = DualStore(new, old).watch(heard.append)
    new.notice("n")
    old.notice("o")
    assert heard == ["n", "o"]
    end()
    assert not hasattr(new, "notice")
    assert not hasattr(old, "notice")


# Faults.


def test_a_commit_of_which_a_part_was_written_is_in_doubt(clock: Clock) -> None:
    old, new = MemoryStore(clock=clock), FlakyStore(MemoryStore(clock=clock))
    dual = DualStore(new, old)
    put(dual, make("h", clock))
    dual.begin()
    new.trouble.fail("commit", NotApplied)
    with pytest.raises(Unknown, match="a part of a commit"):
        commit(dual, End(handle="h", because="logout"))
    assert dual.load("h").ended_because == "logout"
    with pytest.raises(NotApplied):
        commit(dual, Note(events=(event("a", clock),)))
    new.trouble.fail(None)
    commit(dual, End(handle="h", because="logout"))
    assert new.load("h").ended_because == "logout"


def test_a_store_that_is_away_is_never_an_absent_session(clock: Clock) -> None:
    stores = [FlakyStore(MemoryStore(clock=clock)) for _ in range(2)]
    dual = DualStore(*stores)
    put(dual, make("h", clock))
    dual.begin()
    for store in stores:
        store.trouble.fail("load")
        with pytest.raises(StoreError):
            dual.load("h")
        store.trouble.fail(None)


def test_an_answer_that_was_lost_at_any_part_is_made_good_by_trying_again(clock: Clock) -> None:
    for part in range(12):
        stores = [FlakyStore(MemoryStore(clock=clock)) for _ in range(2)]
        dual = DualStore(*stores)
        put(dual, make("h", clock), make("other", clock), make("anonymous", clock, subject=None))
        dual.begin()
        login = make("in", clock, authenticated_at=clock.now + 1)
        changes = (
            Insert(record=login, limit=Limit(5), events=(event("created", clock),)),
            EndOthers(realm="", subject="ann", keep=("in",), because="owner", events=(event("revoked", clock),)),
            End(handle="anonymous", because="superseded", events=(event("expired", clock),)),
        )
        _lose_one_answer(stores, part)
        for _ in range(2):
            try:
                assert dual.commit(b"login".ljust(16), changes, durable=True) is None
                break
            except Unknown:
                continue
        assert [record.handle for record in dual.find(Query()).items] == ["in"]
        told = {name: len(dual.events(EventQuery(name=name)).items) for name in ("created", "revoked", "expired")}
        assert told == {"created": 1, "revoked": 1, "expired": 1}, part


def _lose_one_answer(stores: Sequence[FlakyStore], part: int) -> None:
    """Lose the answer to one commit of all those that two stores get."""
    numbers = itertools.count()

    def commits(store: FlakyStore, commit: Any, *given: Any) -> Any:
        if next(numbers) == part:
            store.trouble.lose_answers()
        return commit(*given)

    for store in stores:
        store.commit = partial(commits, store, store.commit)


def test_a_commit_that_takes_too_long_begins_no_further_part(clock: Clock) -> None:
    old, new = FlakyStore(MemoryStore(clock=clock)), MemoryStore(clock=clock)
    dual = DualStore(new, old, commit_deadline=0.05)
    put(dual, make("h", clock))
    dual.begin()
    old.trouble.delay = 0.06
    with pytest.raises((NotApplied, Unknown)):
        commit(dual, EndOthers(realm="", subject="ann", because="owner"))


def test_a_cancelled_commit_is_done_to_its_end(clock: Clock) -> None:
    async def cancelled_at(verb: Any, times: int) -> None:
        flaky = AsyncFlakyStore(AsyncMemoryStore(clock=clock))
        new = AsyncMemoryStore(clock=clock)
        dual = AsyncDualStore(new, flaky)
        await dual.commit(b"h", [Insert(record=make("h", clock))], durable=False)
        await dual.begin()
        gate = flaky.trouble.hold(verb)
        task = asyncio.create_task(dual.commit(b"e", [End(handle="h", because="logout")], durable=True))
        await asyncio.to_thread(gate.wait_until_reached)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.005)
        assert not task.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        for store in (new, flaky):
            record = await store.load("h")
            assert record is not None
            assert record.ended_because == "logout"

    for verb in ("load", "commit"):
        for times in (1, 3):
            asyncio.run(cancelled_at(verb, times))


def test_two_loops_in_two_threads_share_two_stores(clock: Clock) -> None:
    dual = DualStore(MemoryStore(clock=clock), MemoryStore(clock=clock))
    for number in range(40):
        put(dual, make(f"{number:02}", clock))
    dual.begin()
    faces = [dual.as_async() for _ in range(2)]
    outcomes: list[Any] = []

    async def move_all(face: AsyncDualStore) -> None:
        outcomes.extend(await asyncio.gather(*(face.move(f"{number:02}") for number in range(40))))

    threads = [threading.Thread(target=lambda face=face: asyncio.run(move_all(face))) for face in faces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["moved"] * 80
    assert len(dual.new.find(Query()).items) == 40
    assert not [record for record in dual.new.find(Query()).items if is_copy(record)]


# From any kind to any other, with real threads.


WAYS = [("sqlite", "postgresql"), ("postgresql", "redis"), ("redis", "mysql"), ("mysql", "sqlite")]


@pytest.mark.parametrize("way", WAYS, ids=" to ".join)
def test_sessions_move_whole_from_any_kind_to_any_other(way: tuple[str, str], tmp_path: Path, clock: Clock) -> None:
    old, new = (made(kind, tmp_path, clock) for kind in way)
    records = [replace(full(clock), handle=f"full{number}", by=b"") for number in range(3)]
    records += [make("plain", clock), make("anonymous", clock, subject=None, client=None, idle_for=None, data=b"")]
    records += [make("renewed", clock, used_at=None, nonce=bytes(32), former_proof=bytes(32), data=os.urandom(4000))]
    put(old, *records)
    dual = DualStore(new, old)
    dual.begin()
    assert [dual.move(record.handle) for record in records] == ["moved"] * len(records)
    for record in records:
        assert replace(new.load(record.handle), version=1, by=b"") == replace(record, version=1)
    assert old.find(Query()).items == ()
    dual.close()


def test_writers_lose_nothing_while_sessions_move_under_them(dual: DualStore, clock: Clock) -> None:
    handles = [f"h{number}" for number in range(6)]
    put(dual, *(make(handle, clock, data=b"") for handle in handles))
    dual.begin()
    written: list[tuple[str, bytes]] = []

    def write(mark: int) -> None:
        for round_ in range(8):
            handle = handles[(mark + round_) % len(handles)]
            letter = bytes([mark * 8 + round_])
            record = dual.load(handle)
            while True:
                assert record is not None
                update = Update(record=replace(record, data=record.data + letter), was=record.version)
                conflict = commit(dual, update, durable=False)
                if conflict is None:
                    break
                record = conflict.current
            written.append((handle, letter))

    def move() -> None:
        for handle in handles:
            assert dual.move(handle) == "moved"

    with ThreadPoolExecutor(6) as threads:
        for doing in [threads.submit(write, mark) for mark in range(4)] + [threads.submit(move) for _ in range(2)]:
            doing.result(60)
    for handle in handles:
        assert sorted(dual.load(handle).data) == sorted(b"".join(one for name, one in written if name == handle))
        assert dual.old.load(handle).ended_because == "moved"
        assert not is_copy(dual.new.load(handle))


# Listings and retries that meet a move.


def test_a_session_that_is_moved_while_it_is_listed_is_listed(dual: DualStore, clock: Clock) -> None:
    put(dual, make("h", clock))
    dual.begin()
    listing = Run(many.find(Query()), None)
    while listing.ask is not None:
        listing.answered(dual._stores[listing.ask.side].find(*listing.ask.arguments))
        dual.move("h")
    assert [record.handle for record in listing.result.items] == ["h"]


def test_marks_are_never_listed_and_no_page_goes_beyond_them(dual: DualStore, clock: Clock) -> None:
    for handle in "abcd":
        put(dual, make(handle, clock))
    dual.begin()
    for handle in "abcd":
        dual.move(handle)
        commit(dual, End(handle=handle, because="logout"))
    clock.wind(TOMBSTONE + 1)
    assert dual.new.purge(9) == 4
    put(dual, make("z", clock))
    found, cursor = [], None
    while True:
        page = dual.find(Query(live=False, limit=2, cursor=cursor))
        found += [record.handle for record in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == ["z"]


def test_an_end_that_failed_is_made_good_though_its_session_moved_meanwhile(clock: Clock) -> None:
    old, new = FlakyStore(MemoryStore(clock=clock)), MemoryStore(clock=clock)
    dual = DualStore(new, old)
    put(dual, make("anonymous", clock, subject=None))
    dual.begin()
    changes = (Insert(record=make("in", clock)), End(handle="anonymous", because="superseded"))
    old.trouble.fail("commit", NotApplied, times=1)
    with pytest.raises(Unknown):
        dual.commit(b"login", changes, durable=True)
    assert dual.move("anonymous") == "moved"
    assert dual.commit(b"login", changes, durable=True) is None
    assert dual.load("anonymous").ended_because == "superseded"


def test_a_sqlite_file_begins_another_generation_in_either_face(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "g.db")
    names = [store.epochs().generation, store.renew_generation(), asyncio.run(store.as_async().renew_generation())]
    assert len(set(names)) == 3
    assert store.epochs().generation == names[-1]
    store.close()
