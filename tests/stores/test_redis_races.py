"""What happens between the two trips of a commit: each test holds one just before it writes, and does another."""

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied
from coatcheck.core.model import (
    Change,
    Conflict,
    End,
    EndOthers,
    Insert,
    Limit,
    Query,
    Replace,
    Touch,
    Update,
)
from coatcheck.stores.redis import RedisStore, committing
from coatcheck.stores.redis.steps import Again, Steps
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import TURN, event, make
from tests.conftest import server_or_skip
from tests.support.servers import redis as servers

NAMES = (f"race-{number}" for number in count(1))


@pytest.fixture(scope="module")
def single() -> Iterator[servers.Single]:
    server = server_or_skip(servers.single)
    yield server
    server.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(single: servers.Single, clock: Clock) -> Iterator[RedisStore]:
    store = RedisStore(single.url, prefix=next(NAMES), clock=clock)
    yield store
    store.close()


def held(store: RedisStore, steps: Steps[Any]) -> Callable[[], Any]:
    """Run steps up to the first script that writes; return what runs the rest."""
    wire, until = store._wire, time.monotonic() + 10
    wire.run(store._desk.epochs, 1)
    asks = next(steps)
    while not asks[0].decides:
        asks = steps.send(wire._ask(asks, until))

    def rest() -> Any:
        following = asks
        try:
            while True:
                following = steps.send(wire._ask(following, until))
        except StopIteration as stop:
            return stop.value

    return rest


def commit_held(store: RedisStore, *changes: Change) -> Callable[[], Any]:
    commit = store._wire.run(lambda: store._desk.committing(b"held", changes, durable=False), 1)
    return held(store, commit.steps())


def done(store: RedisStore, *changes: Change) -> None:
    assert store.commit(repr(changes).encode()[:40], changes, durable=False) is None


def told(clock: Clock) -> Any:
    return (event("told", clock),)


@pytest.mark.parametrize("first", [Limit(1, refuse=True), Limit(1), Limit(3, refuse=True)])
def test_of_two_logins_at_once_the_second_counts_the_first(store: RedisStore, clock: Clock, first: Limit) -> None:
    rest = commit_held(store, Insert(record=make("slow", clock), limit=first))
    done(store, Insert(record=make("quick", clock)))
    with pytest.raises(Again):
        rest()
    assert store.load("slow") is None


def test_a_login_does_not_slip_past_the_revocation_of_its_subject(store: RedisStore, clock: Clock) -> None:
    login = Insert(record=make("slow", clock))
    rest = commit_held(store, login)
    clock.wind(1)
    done(store, EndOthers(realm="", subject="ann", because="operator"))
    with pytest.raises(Again):
        rest()
    assert store.commit(b"again", [login], durable=False) == Conflict(None, "epoch")


def test_a_revocation_sees_a_login_that_came_before_it(store: RedisStore, clock: Clock) -> None:
    rest = commit_held(store, EndOthers(realm="", subject="ann", because="operator"))
    done(store, Insert(record=make("quick", clock)))
    with pytest.raises(Again):
        rest()


def test_a_step_up_does_not_slip_past_the_end_of_its_session(store: RedisStore, clock: Clock) -> None:
    done(store, Insert(record=make("h0", clock)))
    rest = commit_held(store, Replace(record=make("h1", clock), old="h0", was=1))
    done(store, End(handle="h0", because="operator"))
    with pytest.raises(Again):
        rest()
    assert store.load("h1") is None


@pytest.mark.parametrize(
    "other",
    [
        End(handle="h", because="operator"),
        Touch(handle="h", seen_at=1_800_000_001.0),
        Touch(handle="h", seen_at=1_800_000_000.0, turn_proof=TURN),
    ],
)
def test_a_long_update_writes_over_nothing_that_it_did_not_read(store: RedisStore, other: Change) -> None:
    clock = Clock(1_800_000_000.0)
    store._desk.settings = replace(store._desk.settings, clock=clock)
    done(store, Insert(record=make("h", clock, used_at=None)))
    record = store.load("h")
    assert record is not None
    rest = commit_held(store, Update(record=replace(record, data=b"x"), was=1, events=told(clock)))
    done(store, other)
    before = store.load("h")
    with pytest.raises(Again):
        rest()
    assert store.load("h") == before


def test_an_end_follows_a_step_up_that_came_in_between(store: RedisStore, clock: Clock) -> None:
    done(store, Insert(record=make("h0", clock)))
    ending = End(handle="h0", because="operator")
    rest = commit_held(store, ending)
    done(store, Replace(record=make("h1", clock), old="h0", was=1))
    with pytest.raises(Again):
        rest()
    done(store, ending)
    found = store.load("h1")
    assert found is not None
    assert found.ended_because == "operator"


def test_an_end_that_follows_a_step_up_sees_the_next_one(store: RedisStore, clock: Clock) -> None:
    done(store, Insert(record=make("h0", clock)))
    done(store, Replace(record=make("h1", clock), old="h0", was=1))
    rest = commit_held(store, End(handle="h0", because="operator"))
    done(store, Replace(record=make("h2", clock), old="h1", was=1))
    with pytest.raises(Again):
        rest()


def test_purge_spares_what_was_seen_after_it_looked(store: RedisStore, clock: Clock) -> None:
    for name in ("a", "b", "c"):
        done(store, Insert(record=make(name, clock)))
    clock.wind(1800)
    written: list[Any] = []
    rest = held(store, store._desk.tidier.purge(100, written))
    done(store, Touch(handle="b", seen_at=clock.now))
    assert rest() == 2
    assert [one.handle for one in store.find(Query()).items] == ["b"]
    assert sorted(one.handle for one in written) == ["a", "c"]


def test_purge_does_not_delete_twice_nor_end_twice(store: RedisStore, clock: Clock) -> None:
    done(store, Insert(record=make("a", clock)))
    clock.wind(1800)
    rest = held(store, store._desk.tidier.purge(100, []))
    assert store.purge(100) == 1
    assert rest() == 0
    found = store.load("a")
    assert found is not None
    assert found.version == 2


def test_a_commit_tries_again_by_itself(
    store: RedisStore, single: servers.Single, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(store, Insert(record=make("h", clock)))
    other = RedisStore(single.url, prefix=store._desk.keys.prefix, clock=clock)
    real, times = store._wire._ask, count()

    def meddling(asks: Any, until: float) -> Any:
        if asks[0].decides and (number := next(times)) < 3:
            done(other, Insert(record=make(f"m{number}", clock)))
        return real(asks, until)

    monkeypatch.setattr(store._wire, "_ask", meddling)
    assert store.commit(b"last", [Insert(record=make("new", clock), limit=Limit(3))], durable=False) is None
    assert next(times) == 4
    assert len(store.find(Query(realm="", subject="ann")).items) == 3
    other.close()


def test_what_others_keep_changing_is_given_up_with_a_word(
    store: RedisStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_commit_within", 0.2)
    monkeypatch.setattr(committing.Commit, "_sent", lambda *_: _answered([0]))
    start = time.monotonic()
    with pytest.raises(NotApplied, match="others kept changing"):
        store.commit(b"c", [Insert(record=make("h", clock))], durable=False)
    assert time.monotonic() - start < 0.4


def _answered(answer: Any) -> Iterator[Any]:
    return answer
    yield


def test_an_id_that_a_record_bears_already_is_not_applied_again(store: RedisStore, clock: Clock) -> None:
    store.commit(b"same", [Insert(record=make("h", clock))], durable=False)
    update = Update(record=make("h", clock, data=b"x"), was=1)
    assert store.commit(b"same", [update], durable=False) is None
    found = store.load("h")
    assert found is not None
    assert (found.version, found.data) == (1, b"\x01data")
