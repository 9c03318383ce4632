"""Every store over a network keeps its promises when that network loses, holds back, tears or refuses.

The network is a proxy of the tests' own (tests/support/proxy.py) between the store and a real server. What a store did
is judged over a second, direct connection, against a memory store that was told the same.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import inspect
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from msgspec.structs import replace

from coatcheck.core.errors import NotApplied, StoreError, Unconfirmed, Unknown
from coatcheck.core.model import (
    Change,
    End,
    EndOthers,
    Event,
    EventQuery,
    Handle,
    Insert,
    Limit,
    Note,
    Query,
    Replace,
    Touch,
    Update,
)
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import TURN, event, make
from tests.conftest import server_or_skip
from tests.support.callers import Caller
from tests.support.proxy import Proxy

LOAD, COMMIT = 0.4, 0.6
"""The deadlines of the stores here, in seconds."""

GRACE = 1.0
"""What a call may take beyond its deadline."""

BUSY = 3.0
"""... while threads of ours keep the machine busy."""


LISTENING = 2
"""Connections that a store may have beside its pool: to be told of changes, and to keep house."""


# Which stores, and where.


class Site:
    """A kind of server: the package of its store, how to start it, an empty place in it, and who is connected."""

    unbounded: tuple[str, ...] = ()
    """Verbs that may take longer than a commit."""

    def __init__(self, package: str) -> None:
        self.package, self.module = f"coatcheck.stores.{package}", f"tests.support.servers.{package}"

    @property
    def there(self) -> bool:
        """Whether the store and its server have been written."""
        try:
            return all(importlib.util.find_spec(name) is not None for name in (self.package, self.module))
        except ModuleNotFoundError:
            return False

    def store(self, *, awaited: bool) -> Any:
        """Return the class of a face."""
        module = importlib.import_module(self.package)
        names = [name for name in module.__all__ if name.endswith("Store")]
        return getattr(module, next(name for name in names if name.startswith("Async") is awaited))

    def start(self) -> Any:
        raise NotImplementedError

    def stop(self, server: Any) -> None:
        server.stop()

    def empty(self, server: Any) -> str:
        """Return the URL of an empty database."""
        raise NotImplementedError

    def connections(self, server: Any, url: str) -> int:
        """Return how many are connected to that database."""
        raise NotImplementedError


class PostgreSql(Site):
    def start(self) -> Any:
        return importlib.import_module(self.module).Postgres()

    def stop(self, server: Any) -> None:
        if server.server is not None:
            server.kill()

    def empty(self, server: Any) -> str:
        name = f"network_{os.getpid()}_{next(_numbers)}"
        self._ask(server, f"create database {name}")
        return urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))

    def connections(self, server: Any, url: str) -> int:
        asked = "select count(*) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"
        return int(self._ask(server, asked, urlsplit(url).path[1:])[0][0])

    def _ask(self, server: Any, statement: str, *values: str) -> Any:
        import psycopg

        with psycopg.connect(server.url, autocommit=True) as link:
            cursor = link.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


class MySql(Site):
    def start(self) -> Any:
        return importlib.import_module(self.module).start()

    def empty(self, server: Any) -> str:
        return str(server.url(server.database()))

    def connections(self, server: Any, url: str) -> int:
        asked = "select count(*) from information_schema.processlist where db = %s"
        return int(server.ask(asked, urlsplit(url).path[1:])[0][0])


class Redis(Site):
    unbounded = ("find", "events")

    def start(self) -> Any:
        return importlib.import_module(self.module).single()

    def empty(self, server: Any) -> str:
        server.client.flushdb()
        return str(server.url)

    def connections(self, server: Any, url: str) -> int:
        return len(server.client.client_list()) - 1


_numbers = itertools.count(1)

SITES: dict[str, Site] = {
    "postgresql": PostgreSql("postgres"),
    "mysql": MySql("mysql"),
    "redis": Redis("redis"),
}
FACES = ("blocking", "awaited")
CASES = [(name, face) for name, site in SITES.items() if site.there for face in FACES]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Return the servers started so far; they end with the module."""
    started: dict[str, Any] = {}
    yield started
    for name, server in started.items():
        SITES[name].stop(server)


@dataclass
class Place:
    """A store behind a troublesome network, and a plain one beside it that tells what is stored."""

    site: Site
    server: Any
    url: str
    network: Proxy
    clock: Clock
    store: Caller
    observer: Any
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def fresh(self) -> bytes:
        """Return a commit id."""
        return b"%016d" % next(self.ids)

    def setup(self, *changes: Change) -> None:
        """Commit over the direct connection."""
        for change in changes:
            assert self.observer.commit(self.fresh(), [change], durable=False) is None

    def connections(self) -> int:
        """Return how many are connected to the server, beside the observer."""
        self.observer.close()
        return self.site.connections(self.server, self.url)

    def again(self, **settings: Any) -> Caller:
        """Return another store of the same kind behind the same network."""
        made = {"clock": self.clock, "load_deadline": LOAD, "commit_deadline": COMMIT, **settings}
        return Caller(self.site.store(awaited=self.store.awaited)(self.network.url(self.url), **made))


@pytest.fixture(params=CASES, ids="-".join)
def place(request: pytest.FixtureRequest, servers: dict[str, Any]) -> Iterator[Place]:
    """Return a place with a store that was used once, so that its tables are there."""
    name, face = request.param
    site = SITES[name]
    if name not in servers:
        servers[name] = server_or_skip(site.start)
    server, clock = servers[name], Clock()
    url = site.empty(server)
    where = urlsplit(url)
    with Proxy(where.hostname or "127.0.0.1", where.port or 0) as network:
        observer = site.store(awaited=False)(url, clock=clock, load_deadline=20, commit_deadline=20)
        observer.load("nobody")
        store = Caller(
            site.store(awaited=face == "awaited")(
                network.url(url), clock=clock, load_deadline=LOAD, commit_deadline=COMMIT
            )
        )
        connect(store)
        yield Place(site, server, url, network, clock, store, observer)
        network.heal()
        store.close()
        observer.close()


def connect(store: Caller) -> None:
    """Use a store until it is connected: on a busy machine that may take longer than a load has."""
    for _ in range(20):
        with suppress(StoreError):
            store.load("nobody")
            return


# What was stored, against what should be.


class Model:
    """What a store should hold: a memory store that is told the same, and can be told a thing "perhaps"."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: list[tuple[bytes, Sequence[Change]]] = []

    def tell(self, commit_id: bytes, changes: Sequence[Change]) -> None:
        self.told.append((commit_id, changes))

    def after(self, *more: tuple[bytes, Sequence[Change]], handles: Sequence[Handle]) -> tuple[Any, ...]:
        """Return what is to be seen after what was told, and more."""
        store = MemoryStore(clock=self.clock)
        for commit_id, changes in [*self.told, *more]:
            store.commit(commit_id, changes, durable=False)
        return seen(store, handles)


def seen(store: Any, handles: Sequence[Handle]) -> tuple[Any, ...]:
    """Return the records of these handles, and the events about them in no order (each as often as it is there)."""
    records = tuple(store.load(handle) for handle in handles)
    events = [one for handle in handles for one in pages(store, handle)]
    return records, sorted((one.name, one.handle, one.subject, str(one.detail)) for one in events)


def seen_at_rest(store: Any, handles: Sequence[Handle]) -> tuple[Any, ...]:
    """Return what is seen twice in a row: a commit whose caller gave up may still be going on between two loads."""
    last = None
    while True:
        found = seen(store, handles)
        if found == last:
            return found
        last = found
        time.sleep(0.01)


def pages(store: Any, handle: Handle) -> Iterator[Event]:
    cursor = None
    while True:
        page = store.events(EventQuery(handle=handle, cursor=cursor))
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def attempt(place: Place, commit_id: bytes, changes: Sequence[Change], durable: bool = False) -> StoreError | None:
    """Commit; return the error that says what is known of it. It must be one of the contract, and in time."""
    began = time.monotonic()
    try:
        assert place.store.commit(commit_id, changes, durable) is None
    except (NotApplied, Unknown, Unconfirmed) as error:
        return error
    finally:
        assert time.monotonic() - began < COMMIT + BUSY
    return None


def until_done(place: Place, commit_id: bytes, changes: Sequence[Change], seconds: float = 5.0) -> None:
    """Commit with the same id until that is acknowledged."""
    until = time.monotonic() + seconds
    while (error := attempt(place, commit_id, changes)) is not None:
        assert time.monotonic() < until, f"no commit succeeds on a healthy network ({error!r})"


@dataclass
class Act:
    """A commit to be brought into trouble: what must be there before, and what it changes."""

    before: Sequence[Change]
    changes: Sequence[Change]
    handles: Sequence[Handle]


def login(clock: Clock, n: int) -> Act:
    old, new = (make(f"{n}{x}", clock, subject=f"s{n}", authenticated_at=clock.now + i) for i, x in enumerate("ab"))
    one = event("login", clock, handle=new.handle, subject=new.subject)
    two = event("hello", clock, handle=new.handle, subject=new.subject)
    insert = Insert(record=new, limit=Limit(1), events=(one, two))
    return Act([Insert(record=old)], [insert], (old.handle, new.handle))


def data(clock: Clock, n: int) -> Act:
    record = make(f"{n}a", clock, subject=f"s{n}")
    return Act([Insert(record=record)], [Update(record=replace(record, data=b"\x01new"), was=1)], (record.handle,))


def noted_data(clock: Clock, n: int) -> Act:
    act = data(clock, n)
    (update,) = act.changes
    assert isinstance(update, Update)
    noted = replace(update, events=(event("changed", clock, handle=act.handles[0]),))
    return Act(act.before, [noted, Note(events=(event("aside", clock, handle=act.handles[0]),))], act.handles)


def step_up(clock: Clock, n: int) -> Act:
    old, new = (make(f"{n}{x}", clock, subject=f"s{n}") for x in "ab")
    swap = Replace(record=new, old=old.handle, was=1, events=(event("step_up", clock, handle=new.handle),))
    return Act([Insert(record=old)], [swap], (old.handle, new.handle))


def logout(clock: Clock, n: int) -> Act:
    record = make(f"{n}a", clock, subject=f"s{n}")
    end = End(handle=record.handle, because="logout", events=(event("logout", clock, handle=record.handle),))
    return Act([Insert(record=record)], [end], (record.handle,))


def others(clock: Clock, n: int) -> Act:
    records = [make(f"{n}{x}", clock, subject=f"s{n}") for x in "abc"]
    say = event("others_left", clock, handle=records[0].handle)
    end = EndOthers(realm="", subject=f"s{n}", keep=(records[0].handle,), because="owner", events=(say,))
    return Act([Insert(record=record) for record in records], [end], [record.handle for record in records])


def note(clock: Clock, n: int) -> Act:
    record = make(f"{n}a", clock, subject=f"s{n}")
    events = tuple(event(name, clock, handle=record.handle, subject=record.subject) for name in ("one", "two"))
    return Act([Insert(record=record)], [Note(events=events)], (record.handle,))


def touch(clock: Clock, n: int) -> Act:
    record = make(f"{n}a", clock, subject=f"s{n}", used_at=None, nonce=b"nonce")
    sight = Touch(handle=record.handle, seen_at=clock.now + 1, turn_proof=TURN)
    return Act([Insert(record=record)], [sight], (record.handle,))


TROUBLES = ("lose_answer", "tear_request", "tear_answer")
ACTS = (login, data, noted_data, step_up, logout, others, note, touch)
HUSHED = (login, data, step_up)  # each costs a deadline
COMMITS = [(trouble, act, durable) for trouble in TROUBLES for act in ACTS for durable in (False, True)]
COMMITS += [("hush_answer", act, False) for act in HUSHED]


@pytest.mark.parametrize(
    ("trouble", "act", "durable"),
    COMMITS,
    ids=[f"{trouble}-{act.__name__}-{'durable' if durable else 'plain'}" for trouble, act, durable in COMMITS],
)
def test_a_commit_in_trouble_is_applied_whole_or_not_at_all_and_once(
    place: Place, trouble: str, act: Callable[[Clock, int], Act], durable: bool
) -> None:
    network = place.network
    for after in range(20):
        doing = act(place.clock, after)
        place.setup(*doing.before)
        model = Model(place.clock)
        for change in doing.before:
            model.tell(place.fresh(), [change])
        mine = (place.fresh(), doing.changes)
        before, done = model.after(handles=doing.handles), model.after(mine, handles=doing.handles)
        before, done = unsigned(before), unsigned(done)
        assert before != done

        fired = network.fired
        getattr(network, trouble)(after)
        error = attempt(place, *mine, durable)
        network.disarm()
        network.heal()
        now = unsigned(seen_at_rest(place.observer, doing.handles))
        if error is None:
            assert now == done, "acknowledged, but not applied"
        elif isinstance(error, NotApplied):
            assert now == before, f"applied, though {error!r}"
        else:
            assert now in (before, done), "applied in part"

        until_done(place, *mine)
        assert unsigned(seen(place.observer, doing.handles)) == done, "applied twice, or in part"
        if network.fired == fired:
            assert after, "no trouble happened"
            return
    pytest.fail("a commit took more than twenty requests")


def unsigned(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return it without the ids of the commits that prepared it: those differ from the model's."""
    records, events = found
    return tuple(None if one is None else replace(one, by=b"") for one in records), events


@pytest.mark.parametrize("trouble", [*TROUBLES, "hush_answer"])
def test_a_load_in_trouble_answers_truly_or_fails_and_never_says_that_nothing_is_there(
    place: Place, trouble: str
) -> None:
    records = {f"h{n}": make(f"h{n}", place.clock, data=b"\x01%d" % n) for n in range(12)}
    place.setup(*(Insert(record=record) for record in records.values()))
    network = place.network
    failed = 0
    for after in (0, 0, 1, 0, 2, 3):
        getattr(network, trouble)(after)
        loads = {handle: place.store.start("load", handle) for handle in records}
        nothing = place.store.start("load", "nobody")
        for handle, load in loads.items():
            try:
                found = load.result(10)
            except StoreError:
                failed += 1
            else:
                assert found is not None, "a record that is there was said to be gone"
                assert (found.handle, found.data) == (handle, records[handle].data)
        wait_for([nothing], 10)
        network.disarm()
        network.heal()
    assert network.fired
    if trouble == "hush_answer":
        assert failed, "an answer that never came cannot have been told"
    assert settled(place.store, "h1"), "the same store does not work again"


def settled(store: Caller, handle: Handle, seconds: float = 5.0) -> bool:
    """Tell whether ten loads in a row succeed before the time is over."""
    until, row = time.monotonic() + seconds, 0
    while row < 10:
        try:
            assert store.load(handle) is not None
        except StoreError:
            row = 0
            if time.monotonic() > until:
                return False
        else:
            row += 1
    return True


VERBS: dict[str, tuple[float, tuple[Any, ...]]] = {
    "load": (LOAD, ("h",)),
    "commit": (COMMIT, (b"black hole 12345", [End(handle="h", because="logout")], False)),
    "find": (COMMIT, (Query(subject="ann"),)),
    "events": (COMMIT, (EventQuery(),)),
    "epochs": (COMMIT, ()),
    "purge": (COMMIT, (10,)),
    "forget_events": (COMMIT, (0.0, 10)),
}


BOUNDED = [(case, verb) for case in CASES for verb in VERBS if verb not in SITES[case[0]].unbounded]


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "new"])
@pytest.mark.parametrize(
    ("place", "verb"), BOUNDED, ids=["-".join([*case, verb]) for case, verb in BOUNDED], indirect=["place"]
)
def test_a_black_hole_costs_an_error_in_time(place: Place, verb: str, connected: bool) -> None:
    place.setup(Insert(record=make("h", place.clock)))
    store = place.store if connected else place.again()
    place.network.swallow()
    deadline, given = VERBS[verb]
    began = time.monotonic()
    with pytest.raises(StoreError):
        store.start(verb, *given).result(30)
    assert time.monotonic() - began < deadline + GRACE
    if store is not place.store:
        store.close()


def test_many_callers_in_a_black_hole_wait_side_by_side(place: Place) -> None:
    place.setup(Insert(record=make("h", place.clock)))
    assert place.store.load("h") is not None
    place.network.swallow()
    began = time.monotonic()
    calls = [place.store.start("load", "h") for _ in range(24)]
    calls += [
        place.store.start("commit", place.fresh(), [Touch(handle="h", seen_at=1.0)], durable=False) for _ in range(4)
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call.result(30)
    assert time.monotonic() - began < COMMIT + GRACE


def test_a_delay_within_the_deadline_is_only_a_delay(place: Place) -> None:
    place.setup(Insert(record=make("h", place.clock)))
    assert place.store.load("h") is not None
    assert place.store.commit(place.fresh(), [Touch(handle="h", seen_at=place.clock.now)]) is None
    place.network.delay(0.03)
    assert place.store.load("h") is not None
    assert place.store.commit(place.fresh(), [End(handle="h", because="logout")]) is None
    assert place.observer.load("h").ended_because == "logout"


def test_a_delay_beyond_the_deadline_is_an_error_and_what_arrives_late_is_applied_once(place: Place) -> None:
    record = make("h", place.clock)
    place.setup(Insert(record=record))
    assert place.store.load("h") is not None
    commit_id = place.fresh()
    update = Update(record=replace(record, data=b"\x01late"), was=1, events=(event("late", place.clock, handle="h"),))
    place.network.delay(COMMIT + 0.2)
    with pytest.raises(StoreError):
        place.store.load("h")
    assert attempt(place, commit_id, [update]) is not None
    place.network.heal(dark_too=False)
    until_done(place, commit_id, [update])
    time.sleep(COMMIT + 0.3)  # until the late ones have come
    stored = place.observer.load("h")
    assert (stored.data, stored.version) == (b"\x01late", 2)
    assert [one.name for one in pages(place.observer, "h")] == ["late"]


def test_an_answer_that_came_too_late_is_given_to_nobody_else(place: Place) -> None:
    records = {f"h{n}": make(f"h{n}", place.clock, data=b"\x01%d" % n) for n in range(8)}
    place.setup(*(Insert(record=record) for record in records.values()))
    wait_for([place.store.start("load", handle) for handle in records], 10)
    for _ in range(3):
        place.network.delay(0, LOAD + 0.05)
        late = [place.store.start("load", handle) for handle in list(records)[:4]]
        for load in late:
            with pytest.raises(StoreError):
                load.result(10)
        place.network.heal()
        for _ in range(3):
            for handle, load in {handle: place.store.start("load", handle) for handle in reversed(records)}.items():
                try:
                    found = load.result(10)
                except StoreError:
                    continue
                assert found is not None
                assert (found.handle, found.data) == (handle, records[handle].data), "another user's record"
    assert settled(place.store, "h1")


@pytest.mark.parametrize("trouble", ["cut", "refuse", "swallow", "swallow and forget"])
def test_the_same_store_works_again_when_the_network_does(place: Place, trouble: str) -> None:
    place.setup(Insert(record=make("h", place.clock)))
    wait_for([place.store.start("load", "h") for _ in range(8)], 10)
    {"cut": place.network.cut, "refuse": place.network.refuse}.get(trouble, place.network.swallow)()
    if trouble != "cut":
        calls = [place.store.start("load", "h") for _ in range(8)]
        for call in calls:
            with pytest.raises(StoreError):
                call.result(10)
        assert attempt(place, place.fresh(), [Touch(handle="h", seen_at=1.0)]) is not None
    place.network.heal(dark_too=trouble != "swallow and forget")
    assert settled(place.store, "h")
    until_done(place, place.fresh(), [End(handle="h", because="logout")])
    assert place.observer.load("h").ended_because == "logout"


def test_refused_connections_say_that_nothing_was_applied(place: Place) -> None:
    place.setup(Insert(record=make("h", place.clock)))
    place.network.refuse()
    new = place.again()
    try:
        with pytest.raises(NotApplied):
            new.commit(place.fresh(), [End(handle="h", because="logout")])
    finally:
        place.network.heal()
        new.close()


def test_no_trouble_leaves_connections_behind(place: Place) -> None:
    place.setup(Insert(record=make("h", place.clock)))
    store, most = place.again(pool_size=6), 6 + LISTENING
    try:
        assert settled(store, "h")
        busy(place, store, 12)
        assert place.network.connections, "the store is not connected"
        for trouble in ("cut", "lose_answer", "tear_answer", "tear_request", "hush_answer") * 2:
            getattr(place.network, trouble)()
            busy(place, store, 12)
            place.network.disarm()
        place.network.swallow()
        busy(place, store, 12)
        place.network.heal(dark_too=False)
        assert settled(store, "h")
        busy(place, store, 12)
        place.store.start("close").result(10)
        assert eventually(lambda: place.network.connections <= most), f"{place.network.connections} sockets"
        assert eventually(lambda: place.connections() <= most), f"{place.connections()} connections"
    finally:
        store.close()
    assert eventually(lambda: place.network.connections == 0), f"close left {place.network.connections} sockets"
    assert eventually(lambda: place.connections() == 0), f"close left {place.connections()} connections"


def busy(place: Place, store: Caller, callers: int) -> None:
    """Load and commit side by side, whatever comes of it."""
    calls = [store.start("load", "h") for _ in range(callers)]
    touch = [Touch(handle="h", seen_at=place.clock.now)]
    calls += [store.start("commit", place.fresh(), touch, durable=False) for _ in range(callers // 2)]
    wait_for(calls, 20)
    for call in calls:
        assert isinstance(call.exception(), StoreError | None)


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
        gc.collect()  # a driver's error may hold its connection in a circle
    return True


# Cancellations: only a task can be cancelled.

AWAITED = [case for case in CASES if case[1] == "awaited"]


@pytest.mark.parametrize("place", AWAITED, ids="-".join, indirect=True)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_cancelled_callers_never_leave_their_answer_to_others(place: Place, k: int) -> None:
    records = {f"h{n}": make(f"h{n}", place.clock, data=b"\x01%d" % n) for n in range(30)}
    place.setup(*(Insert(record=record) for record in records.values()))
    place.network.delay(0.002)
    chance = random.Random(k)
    cancelled = 0
    for _ in range(12):
        loads = {handle: place.store.start("load", handle) for handle in chance.sample(sorted(records), 20)}
        for number, load in enumerate(loads.values()):
            if number % k == 0:
                time.sleep(chance.random() * 0.002)
                cancelled += load.cancel()
        for handle, load in loads.items():
            if load.cancelled():
                continue
            found = load.result(10)
            assert found is not None
            assert (found.handle, found.data) == (handle, records[handle].data), "another user's record"
    assert cancelled > 10
    place.network.heal()
    for handle in records:
        assert place.store.load(handle).handle == handle  # type: ignore[union-attr]


@pytest.mark.parametrize("place", AWAITED, ids="-".join, indirect=True)
def test_a_cancelled_commit_is_decided_when_its_caller_hears_of_it(place: Place) -> None:
    place.store.load("nobody")
    place.network.delay(0.01)
    outcomes = set()
    for number in range(12):
        doing = step_up(place.clock, number)
        place.setup(*doing.before)
        model = Model(place.clock)
        model.tell(b"", doing.before)
        mine = (place.fresh(), doing.changes)
        possible = [unsigned(model.after(handles=doing.handles)), unsigned(model.after(mine, handles=doing.handles))]
        heard = asyncio.run_coroutine_threadsafe(
            cancelling(place.store.store, mine, 0.006 * number), place.store.loop
        ).result(10)
        now = unsigned(seen(place.observer, doing.handles))
        outcomes.add((heard, possible.index(now)))  # in part: ValueError
        time.sleep(0.05)
        assert unsigned(seen(place.observer, doing.handles)) == now, "it went on after its caller was told"
    assert any(heard == "cancelled" for heard, _ in outcomes)


async def cancelling(store: Any, mine: tuple[bytes, Sequence[Change]], after: float) -> str:
    task = asyncio.ensure_future(store.commit(*mine, durable=False))
    await asyncio.sleep(after)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    return "done"


# Watching.


WATCHED = [case for case in CASES if hasattr(SITES[case[0]].store(awaited=case[1] == "awaited"), "watch")]


@pytest.mark.parametrize("place", WATCHED, ids="-".join, indirect=True)
def test_a_watcher_that_was_cut_off_says_so_and_goes_on(place: Place) -> None:
    place.setup(Insert(record=make("before", place.clock)), Insert(record=make("h", place.clock)))
    heard: list[Handle | None] = []
    stop = place.store.store.watch(heard.append)
    if inspect.isawaitable(stop):
        stop = asyncio.run_coroutine_threadsafe(stop, place.store.loop).result(10)
    try:
        place.setup(End(handle="before", because="logout"))
        assert eventually(lambda: "before" in heard or None in heard, 15)
        heard.clear()
        place.network.refuse()
        place.setup(End(handle="h", because="logout"))
        time.sleep(0.1)
        place.network.heal()
        assert eventually(lambda: "h" in heard or None in heard, 15), "a change while it was cut off went unheard"
        heard.clear()
        place.setup(Insert(record=make("after", place.clock)))
        place.setup(End(handle="after", because="logout"))
        assert eventually(lambda: "after" in heard or None in heard, 15), "it does not go on"
    finally:
        stop()


# A day of all of it.

DAY = 1.5


class Worker:
    """One who lives the lives of its own subjects over a bad network, and keeps book of what must be there."""

    def __init__(self, place: Place, number: int, seed: int) -> None:
        self.place, self.number, self.chance = place, number, random.Random(f"{seed}/{number}")
        self.lives: list[tuple[Model, list[Handle]]] = []

    def run(self) -> None:
        until = time.monotonic() + DAY
        while time.monotonic() < until:
            model, handles = Model(self.place.clock), list[Handle]()
            self.lives.append((model, handles))
            self._live(f"w{self.number}-{len(self.lives)}", model, handles)

    def _live(self, subject: str, model: Model, handles: list[Handle]) -> None:
        """Log in, do this and that, and end; each commit until it is decided."""
        for number in range(self.chance.randint(3, 7)):
            changes = self._next(subject, model, handles, number)
            self._commit(model, changes)
            if isinstance(changes[0], EndOthers):
                return
            if self.chance.random() < 0.5:
                self._look(model, handles)

    def _next(self, subject: str, model: Model, handles: list[Handle], number: int) -> list[Change]:
        clock, chance = self.place.clock, self.chance
        records = [one for one in model.after(handles=handles)[0] if one is not None and one.ended_at is None]
        kind = chance.choice(["insert", "update", "replace", "touch", "end", "others"]) if records else "insert"
        if kind == "others" and number < 2:
            kind = "update"
        handle = f"{subject}_{number}"
        say = event(kind, clock, handle=handle, subject=subject)
        if kind in ("insert", "replace"):
            handles.append(handle)
            record = make(handle, clock, subject=subject, data=chance.randbytes(chance.choice([3, 30, 3000])))
            limit = chance.choice([None, Limit(1), Limit(2)])
            if kind == "insert":
                return [Insert(record=record, limit=limit, events=(say,))]
            old = chance.choice(records)
            return [Replace(record=record, old=old.handle, was=old.version, limit=limit, events=(say,))]
        one = chance.choice(records)
        say = replace(say, handle=one.handle)
        if kind == "update":
            changed = replace(one, data=chance.randbytes(5))
            return [Update(record=changed, was=one.version, events=(say,) * chance.randint(0, 2))]
        if kind == "touch":
            return [Touch(handle=one.handle, seen_at=clock.now + chance.random(), turn_proof=TURN)]
        if kind == "end":
            return [End(handle=one.handle, because="logout", events=(say,)), Note(events=(say,))]
        return [EndOthers(realm="", subject=subject, keep=(one.handle,), because="owner", events=(say,))]

    def _commit(self, model: Model, changes: list[Change]) -> None:
        """Commit under one id until it is acknowledged; from then on it must be there."""
        commit_id = self.place.fresh()
        until = time.monotonic() + 20
        while True:
            error = attempt(self.place, commit_id, changes, self.chance.random() < 0.5)
            if error is None:
                model.tell(commit_id, changes)
                return
            assert time.monotonic() < until, f"no commit succeeds ({error!r})"

    def _look(self, model: Model, handles: list[Handle]) -> None:
        handle = self.chance.choice(handles)
        try:
            found = self.place.store.load(handle)
        except StoreError:
            return
        assert (found,) == model.after(handles=[handle])[0], "a load that succeeded told something else"


def trouble_maker(network: Proxy, seed: int, over: threading.Event) -> None:
    chance = random.Random(seed)
    while not over.wait(chance.uniform(0.002, 0.03)):
        trouble = chance.choice([*TROUBLES, *TROUBLES, "hush_answer", "cut", "delay", "refuse", "swallow"])
        if trouble == "delay":
            network.delay(chance.random() * 0.02)
        elif trouble in ("refuse", "swallow", "cut"):
            getattr(network, trouble)()
        else:
            getattr(network, trouble)(chance.randint(0, 6))
        if trouble in ("delay", "refuse", "swallow"):
            over.wait(chance.uniform(0.02, 0.15))
            network.heal(dark_too=chance.random() < 0.5)
    network.heal()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_day_of_random_trouble_leaves_what_was_acknowledged_and_nothing_else(place: Place, seed: int) -> None:
    workers = [Worker(place, number, seed) for number in range(4)]
    over = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        trouble = pool.submit(trouble_maker, place.network, seed, over)
        running = [pool.submit(worker.run) for worker in workers]
        wait_for(running, 90)
        over.set()
        trouble.result(10)
        for done in running:
            done.result(0)
    assert place.network.fired >= 5, "the network was too good"
    time.sleep(0.2)  # what was on its way has come
    for worker in workers:
        assert worker.lives
        for model, handles in worker.lives:
            assert seen(place.observer, handles) == model.after(handles=handles)
