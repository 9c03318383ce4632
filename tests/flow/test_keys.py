"""Keys in a store, held by processes: begun once, rotated once, revoked everywhere, and never taken backwards.

Everything runs in both colours: `Holder` calls either without await.
"""

import asyncio
import inspect
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from coatcheck.core import rotation
from coatcheck.core.errors import ConfigError, StoreError
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Reply, Request
from coatcheck.core.roots import Roots
from coatcheck.core.rotation import DAY, Schedule
from coatcheck.core.session import Session
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.flow.async_keys import AsyncKeys
from coatcheck.flow.keys import NAME, STALE, Keys
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.flaky import FlakyStore

PURPOSE, CONTEXT = "sealed token", b"realm\0handle"
ROOT, OTHER = os.urandom(32), os.urandom(32)


class Holder:
    """Keys or AsyncKeys, called without await."""

    def __init__(self, colour: str, store, clock, *secrets: bytes, schedule: Schedule | None = None) -> None:
        kind, given = (Keys, store) if colour == "sync" else (AsyncKeys, store.as_async())
        self.keys = kind(given, Roots(secrets or (ROOT,), os.urandom), schedule, clock=clock)
        self.ring = self.keys.ring

    def __getattr__(self, verb: str):
        def called(*arguments):
            result = getattr(self.keys, verb)(*arguments)
            return asyncio.run(awaited(result)) if inspect.isawaitable(result) else result

        return called

    def seal(self) -> bytes:
        return self.ring.seal(PURPOSE, b"text", CONTEXT)

    def opens(self, made: bytes) -> bool:
        return self.ring.open(PURPOSE, made, CONTEXT) == b"text"


async def awaited(result):
    return await result


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request, clock, tmp_path):
    made = MemoryStore(clock=clock) if request.param == "memory" else SqliteStore(tmp_path / "s.db", clock=clock)
    yield made
    made.close()


@pytest.fixture(params=["sync", "async"])
def hold(request, store, clock):
    def hold(*secrets: bytes, **more) -> Holder:
        return Holder(request.param, more.pop("store", store), clock, *secrets, **more)

    return hold


def editions(store) -> int:
    return rotation.unpacked(Roots([ROOT], os.urandom).unwrap(NAME, store.keys()[NAME])).edition


def test_before_the_first_look_nothing_is_sealed_and_nothing_is_stored(hold, store):
    holder = hold()
    with pytest.raises(StoreError, match="not been read"):
        holder.seal()
    assert store.keys() == {}


def test_the_first_process_begins_and_the_others_follow(hold):
    first, second = hold(), hold()
    first.look()
    second.look()
    assert second.opens(first.seal())
    assert first.opens(second.seal())


def test_twenty_processes_that_start_at_once_agree(store, clock):
    holders = [Keys(store, Roots([ROOT], os.urandom), clock=clock) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda one: one.look(), holders))
    assert len({one.ring.newest.kid for one in holders}) == 1
    assert editions(store) == 1


def test_a_due_rotation_is_done_once_by_whoever_comes_first(store, clock):
    holders = [Keys(store, Roots([ROOT], os.urandom), clock=clock) for _ in range(8)]
    for one in holders:
        one.look()
    clock.wind(90 * DAY)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: one.look(), holders))
    kept, _ = holders[0].peek()
    assert (kept.edition, len(kept.keys)) == (2, 2)


def test_a_rotation_logs_nobody_out(hold, clock):
    """Nodes that look at different moments, through the whole of a rotation and the life after it."""
    holders = [hold(), hold(), hold()]
    made, kids = [], set()
    for step in range(400):
        for one in holders:
            one.look()
            made.append(one.seal())
            kids.add(one.ring.newest.kid)
        assert all(one.opens(sealed) for one in holders for sealed in made[-30:])
        clock.wind(DAY if step % 50 else 31.0)
    assert len(kids) >= 4
    assert holders[0].opens(made[-300])


def test_what_is_older_than_the_retention_opens_no_more(hold, clock):
    holder = hold(schedule=Schedule(retention=DAY, life=DAY))
    holder.look()
    old = holder.seal()
    for _ in range(4):
        clock.wind(0.7 * DAY)
        holder.look()
    assert not holder.opens(old)
    kept, _ = holder.peek()
    assert len(kept.keys) <= 4


def test_the_store_is_asked_once_a_minute(hold, store, clock):
    flaky = FlakyStore(store)
    holder = Holder("sync", Counting(flaky), clock)
    holder.look()
    before = holder.keys._store.asked
    for _ in range(59):
        clock.wind(1)
        holder.look()
    assert holder.keys._store.asked == before
    clock.wind(1)
    holder.look()
    assert holder.keys._store.asked == before + 1


class Counting:
    """A store that counts how often its keys are read, and fails on demand."""

    def __init__(self, store) -> None:
        self.store, self.asked, self.fail = getattr(store, "store", store), 0, False
        self.refuse = False

    def keys(self):
        self.asked += 1
        if self.fail:
            message = "away"
            raise StoreError(message)
        return self.store.keys()

    def put_key(self, name, value, was):
        if self.refuse:
            message = "read only"
            raise StoreError(message)
        return self.store.put_key(name, value, was)

    def epochs(self):
        return self.store.epochs()


def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_within_a_minute(hold, clock):
    here, there = hold(), hold()
    here.look()
    there.look()
    made = here.seal()
    assert here.revoke(here.ring.newest.kid) is True
    assert not here.opens(made)
    assert there.opens(made), "it has not looked yet"
    clock.wind(60)
    there.look()
    assert not there.opens(made)
    assert there.opens(here.seal())
    assert here.revoke("nothing") is False


def test_revoking_where_there_are_no_keys_begins_none(hold, store):
    assert hold().revoke("nothing") is False
    assert hold().peek()[0] is None
    assert store.keys() == {}


def test_rotating_by_hand(hold, clock):
    holder, other = hold(), hold()
    holder.look()
    other.look()
    first = holder.ring.newest.kid
    kid = holder.rotate()
    assert kid != first
    assert holder.rotate() is None
    assert holder.ring.newest.kid == first
    clock.wind(600)
    holder.look()
    assert holder.ring.newest.kid == kid
    assert not other.opens(holder.seal()), "it has not looked for ten minutes"
    other.look()
    assert other.opens(holder.seal())
    assert hold(ROOT, store=MemoryStore(clock=clock)).rotate() is not None


def test_an_old_copy_of_the_keys_is_refused(hold, store, clock, caplog):
    """Who can write the table puts back the copy from before the revocation."""
    holder = hold()
    holder.look()
    before, made = store.keys()[NAME], holder.seal()
    holder.revoke(holder.ring.newest.kid)
    assert store.put_key(NAME, before, store.keys()[NAME])
    for _ in range(STALE - 1):
        clock.wind(60)
        with caplog.at_level(logging.WARNING, "coatcheck"):
            holder.look()
        assert not holder.opens(made)
    assert "went back from edition 2 to 1" in caplog.text
    clock.wind(60)
    with pytest.raises(StoreError, match="went back from edition 2 to 1"):
        holder.look()
    with pytest.raises(StoreError, match="not been read"):
        holder.opens(made)


def test_another_edition_of_the_same_number_is_refused(hold, store, clock):
    holder = hold()
    holder.look()
    before = store.keys()[NAME]
    holder.rotate()
    assert store.put_key(NAME, before, store.keys()[NAME])
    hold().rotate()
    assert editions(store) == 2
    clock.wind(60 * STALE)
    with pytest.raises(StoreError, match="went back from edition 2 to 2"):
        holder.look()


def test_keys_that_vanish_are_not_begun_anew(hold, store, clock):
    flaky = Counting(store)
    holder = Holder("sync", flaky, clock)
    holder.look()
    flaky.keys = dict
    clock.wind(60 * STALE)
    with pytest.raises(StoreError, match="gone from the store"):
        holder.look()


def test_a_store_that_is_away_is_forgiven_for_five_minutes(store, clock):
    """A key may have been revoked meanwhile: then it is better to refuse than to believe."""
    flaky = Counting(store)
    holder = Holder("sync", flaky, clock)
    holder.look()
    made = holder.seal()
    flaky.fail = True
    clock.wind(STALE * 60 - 1)
    holder.look()
    assert holder.opens(made)
    clock.wind(61)
    for _ in range(2):
        with pytest.raises(StoreError, match="away"):
            holder.look()
        with pytest.raises(StoreError, match="not been read"):
            holder.opens(made)
    flaky.fail = False
    holder.look()
    assert holder.opens(made)


def test_a_due_rotation_that_cannot_be_written_leaves_the_keys_that_are_there(store, clock):
    flaky = Counting(store)
    holder = Holder("sync", flaky, clock)
    holder.look()
    made = holder.seal()
    flaky.refuse = True
    clock.wind(100 * DAY)
    for _ in range(10):
        holder.look()
        assert holder.opens(made)
        clock.wind(60)


def test_the_first_look_fails_at_once(store, clock):
    flaky = Counting(store)
    flaky.fail = True
    with pytest.raises(StoreError, match="away"):
        Holder("sync", flaky, clock).look()


def test_another_root_refuses_to_start(hold):
    hold(ROOT).look()
    with pytest.raises(ConfigError, match="root secret that was not given"):
        hold(OTHER).look()


def test_a_root_rotates_in_three_steps_and_nobody_notices(hold, store, clock):
    nodes = [(ROOT,), (ROOT, OTHER), (OTHER, ROOT), (OTHER,)]
    first = hold(ROOT)
    first.look()
    made = first.seal()
    wrapped = store.keys()[NAME]
    for behind, ahead in pairwise(nodes):
        one, other = hold(*behind), hold(*ahead)
        for _ in range(3):
            clock.wind(60)
            one.look()
            other.look()
            assert one.opens(made)
            assert other.opens(made)
            assert other.opens(one.seal())
    assert store.keys()[NAME] != wrapped
    with pytest.raises(ConfigError):
        hold(ROOT).look()
    assert Roots([OTHER], os.urandom).unwrap(NAME, store.keys()[NAME])


def test_a_root_that_others_rotated_too_early_refuses_after_five_minutes(hold, clock):
    """As a StoreError: the application answers 503, and goes on when it has the new root."""
    holder = hold(ROOT)
    holder.look()
    hold(OTHER, ROOT).look()
    clock.wind(60)
    holder.look()
    clock.wind(60 * STALE)
    with pytest.raises(StoreError, match="root secret that was not given"):
        holder.look()


def test_a_look_that_dawdled_does_not_take_a_newer_look_back(store, clock):
    """One thread read the keys and slept; meanwhile another revoked one."""

    class Dawdling(Counting):
        meanwhile = staticmethod(lambda: None)

        def keys(self):
            read = super().keys()
            act, self.meanwhile = self.meanwhile, lambda: None
            act()
            return read

    slow = Dawdling(store)
    holder = Holder("sync", slow, clock)
    holder.look()
    made = holder.seal()
    kid = holder.ring.newest.kid
    clock.wind(60)
    slow.meanwhile = lambda: holder.keys.revoke(kid)
    holder.look()
    assert not holder.opens(made)
    clock.wind(60)
    holder.look()
    assert not holder.opens(made)


def test_a_store_without_keys_is_refused_when_things_are_built():
    with pytest.raises(ConfigError, match="keeps no keys"):
        Keys(object(), Roots([ROOT], os.urandom))
    with pytest.raises(ConfigError, match="delay must be"):
        Keys(MemoryStore(), Roots([ROOT], os.urandom), Schedule(delay=1.0))


def test_somebody_who_is_always_faster_is_given_up_on(clock):
    class Stubborn(MemoryStore):
        def put_key(self, name, value, was):
            return False

    with pytest.raises(StoreError, match="others kept changing"):
        Keys(Stubborn(clock=clock), Roots([ROOT], os.urandom), clock=clock).read()


# An exchange has the keys look.

REQUEST = Request("GET", "https", "/", [(b"host", b"localhost")])


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_exchange_looks_after_the_keys_and_refuses_without_them(colour, clock):
    store = MemoryStore(clock=clock)
    holder = Holder(colour, store, clock)
    kind, given = (Exchange, store) if colour == "sync" else (AsyncExchange, store.as_async())
    exchange = kind(SessionManager(clock=clock), given, keys=holder.keys)

    def begin():
        result = exchange.begin(REQUEST)
        return asyncio.run(awaited(result)) if inspect.isawaitable(result) else result

    assert isinstance(begin(), Session)
    made = holder.seal()
    Holder(colour, store, clock).revoke(holder.ring.newest.kid)
    assert holder.opens(made)
    clock.wind(60)
    assert isinstance(begin(), Session)
    assert not holder.opens(made)
    holder.keys._store = Counting(store) if colour == "sync" else AsyncAway()
    holder.keys._store.fail = True
    clock.wind(60 * STALE)
    refused = begin()
    assert isinstance(refused, Reply)
    assert refused.status == 503


class AsyncAway:
    """A store that does not answer."""

    async def keys(self):
        message = "away"
        raise StoreError(message)
