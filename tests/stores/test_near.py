"""The near cache: what is kept, for how long, and what drops it; in both faces, over any store."""

import asyncio
import inspect
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.errors import ConfigError, StoreError, Unknown
from coatcheck.core.model import (
    Change,
    End,
    EndOthers,
    EventQuery,
    Handle,
    Insert,
    Limit,
    Note,
    Query,
    RaiseEpoch,
    Record,
    Replace,
    Touch,
    Update,
)
from coatcheck.flow.async_store import AsyncAuditedStore, AsyncWatchedStore
from coatcheck.flow.store import AuditedStore, WatchedStore
from coatcheck.stores import near as near_file
from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.near import AsyncNearStore, Copies, NearStore, near
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.face import Face, event, make

FORK = multiprocessing.get_context("fork")
STALE = 5.0


class TestNearStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock) -> NearStore:
        return near(MemoryStore(clock=clock))


class TestAsyncNearStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock, tmp_path: Path) -> AsyncNearStore:
        return near(AsyncSqliteStore(tmp_path / "sessions.db", clock=clock))


# A far store, in which things happen while a call is under way.


class Far:
    """A memory store somewhere else; `meanwhile[verb]` happens once its answer is made and before it arrives."""

    def __init__(self, clock: Clock, *, watched: bool) -> None:
        self.real = MemoryStore(clock=clock)
        self.listeners = self.real.listeners
        self.meanwhile: dict[str, Callable[[], object]] = {}
        self.calls: list[str] = []
        self.notices: list[Callable[[Handle | None], None]] = []
        if watched:
            self.watch = self._watch

    def answer(self, verb: str, result: Any) -> Any:
        self.calls.append(verb)
        happens = self.meanwhile.pop(verb, None)
        if happens is not None:
            happens()
        return result

    def load(self, handle: Handle) -> Record | None:
        return self.answer("load", self.real.load(handle))

    def commit(self, commit_id: bytes, changes: Any, durable: bool) -> Any:
        return self.answer("commit", self.real.commit(commit_id, changes, durable))

    def _watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        self.answer("watch", None)
        self.notices.append(notice)
        stop = self.real.watch(notice)

        def stopped() -> None:
            self.notices.remove(notice)
            stop()

        return stopped

    def close(self) -> None:
        self.calls.append("close")


class AsyncFar(Far):
    async def load(self, handle: Handle) -> Record | None:  # type: ignore[override]
        return super().load(handle)

    async def commit(self, commit_id: bytes, changes: Any, durable: bool) -> Any:  # type: ignore[override]
        return super().commit(commit_id, changes, durable)

    async def _watch(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:  # type: ignore[override]
        return super()._watch(notice)

    async def close(self) -> None:  # type: ignore[override]
        super().close()


class Near:
    """A near store of either face over a far one, and the hands of another process on what is far."""

    def __init__(self, far: Far, clock: Clock, most: int = 100) -> None:
        self.far, self.clock = far, clock
        self.age = Clock(1000.0)
        self.copies = Copies(STALE, most, watched=hasattr(far, "watch"), clock=self.age)
        face = AsyncNearStore if inspect.iscoroutinefunction(far.commit) else NearStore
        self.store = face(far, self.copies)
        self.face = Face(self.store)
        self.glance = self.store.glance
        self.load = self.face.load

    def have(self, *handles: Handle) -> None:
        """Store records and keep a copy of each."""
        for handle in handles:
            self.elsewhere(Insert(record=make(handle, self.clock)))
        for handle in handles:
            assert self.load(handle) is not None

    def elsewhere(self, *changes: Change) -> None:
        """Commit as another process would."""
        assert self.far.real.commit(os.urandom(8), changes, durable=False) is None

    def kept(self, handles: str) -> str:
        """Return those of these handles that have a copy."""
        return "".join(handle for handle in handles if self.glance(handle) is not None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[Far, AsyncFar], ids=["blocking", "awaited"])
def kind(request: pytest.FixtureRequest) -> type[Far]:
    return request.param


@pytest.fixture
def here(kind: type[Far], clock: Clock) -> Iterator[Near]:
    """Return a near store over one that can be watched."""
    here = Near(kind(clock, watched=True), clock)
    yield here
    here.face.close()


@pytest.fixture
def untold(kind: type[Far], clock: Clock) -> Iterator[Near]:
    """Return a near store over one that tells nothing."""
    here = Near(kind(clock, watched=False), clock)
    yield here
    here.face.close()


def data(number: int) -> bytes:
    return b"\x01%d" % number


# What is kept, and for how long.


def test_a_load_leaves_a_copy_and_never_takes_one(untold: Near) -> None:
    assert untold.glance("a") is None
    untold.have("a")
    assert untold.glance("a") == untold.far.real.load("a")
    untold.elsewhere(Update(record=make("a", untold.clock, data=data(1)), was=1))
    assert untold.load("a") == untold.far.real.load("a")
    assert untold.glance("a") == untold.far.real.load("a")


def test_a_copy_ages_from_the_sending_of_its_load(untold: Near) -> None:
    untold.elsewhere(Insert(record=make("a", untold.clock)))
    untold.far.meanwhile["load"] = lambda: untold.age.wind(3)
    untold.load("a")
    untold.age.wind(STALE - 3.001)
    assert untold.kept("a") == "a"
    untold.age.wind(0.001)
    assert untold.kept("a") == ""


def test_a_load_that_took_too_long_leaves_nothing_to_use(untold: Near) -> None:
    untold.elsewhere(Insert(record=make("a", untold.clock)))
    untold.far.meanwhile["load"] = lambda: untold.age.wind(STALE)
    assert untold.load("a") is not None
    assert untold.kept("a") == ""


def test_the_number_of_copies_is_bounded_and_the_longest_kept_goes_first(kind: type[Far], clock: Clock) -> None:
    here = Near(kind(clock, watched=True), clock, most=3)
    here.have(*"abc")
    here.load("a")
    here.have(*"de")
    assert here.kept("abcde") == "ade"
    here.face.close()


def test_what_could_never_say_yes_is_not_kept(here: Near) -> None:
    assert here.load("nobody") is None
    here.have("a")
    here.elsewhere(End(handle="a", because="operator"))
    ended = here.load("a")
    assert ended is not None
    assert ended.ended_because == "operator"
    assert here.kept("a") == ""


def test_a_record_under_a_wrong_name_is_not_kept(here: Near, monkeypatch: pytest.MonkeyPatch) -> None:
    here.have("a", "b")
    here.elsewhere(Touch(handle="b", seen_at=here.clock.now))
    monkeypatch.setattr(here.far.real, "load", lambda handle, real=here.far.real.load: real("a"))
    here.copies.notice(None)
    here.load("b")
    assert here.kept("ab") == ""


def test_a_load_that_fails_leaves_things_as_they_were(here: Near) -> None:
    here.have("a")
    copy = here.glance("a")

    def fail() -> None:
        message = "away"
        raise StoreError(message)

    here.far.meanwhile["load"] = fail
    with pytest.raises(StoreError, match="away"):
        here.load("a")
    assert here.glance("a") is copy
    assert here.copies._under_way == {}
    here.copies.notice("a")
    here.far.meanwhile["load"] = fail
    with pytest.raises(StoreError, match="away"):
        here.load("a")
    assert here.kept("a") == ""
    assert here.copies._under_way == {}
    here.load("a")
    assert here.kept("a") == "a"


# What drops a copy.


def test_a_change_elsewhere_drops_its_copy_and_no_other(here: Near) -> None:
    here.have(*"ab")
    here.elsewhere(Update(record=make("a", here.clock, data=data(1)), was=1))
    assert here.kept("ab") == "b"
    here.elsewhere(Touch(handle="b", seen_at=here.clock.now + 1))
    assert here.kept("ab") == "b"


def test_when_something_went_unheard_every_copy_goes(here: Near) -> None:
    here.have(*"ab")
    here.far.notices[0](None)
    assert here.kept("ab") == ""


@pytest.mark.parametrize(("named", "kept"), [("a", ""), (None, ""), ("b", "a")])
def test_a_load_that_its_invalidation_overtook_is_used_but_not_kept(
    here: Near, named: Handle | None, kept: str
) -> None:
    here.have("a")

    def overtake() -> None:
        here.far.real._shelf.watchers = ()  # of the change itself nothing is told, only of what is named
        here.elsewhere(Update(record=make("a", here.clock, data=data(1)), was=1))
        here.far.notices[0](named)

    here.copies.notice("a")
    here.far.meanwhile["load"] = overtake
    old = here.load("a")
    assert old is not None
    assert old.version == 1
    assert here.kept("a") == kept


def test_of_two_loads_at_once_a_notice_between_spoils_the_older_only(here: Near) -> None:
    here.have("a")
    sent = here.copies.sent("a")
    here.elsewhere(Update(record=make("a", here.clock, data=data(1)), was=1))
    new = here.load("a")
    here.copies.came("a", sent, make("a", here.clock))
    assert here.glance("a") is new
    first, second = here.copies.sent("a"), here.copies.sent("a")
    here.copies.came("a", second, new)
    here.copies.came("a", first, make("a", here.clock))
    assert here.glance("a") is new


OWN: list[tuple[str, Callable[[Clock], Change], str]] = [
    ("a write", lambda clock: Update(record=make("a", clock, data=data(1)), was=1), "bx"),
    ("activity", lambda clock: Touch(handle="a", seen_at=clock.now + 1), "bx"),
    ("an end", lambda clock: End(handle="a", because="logout"), "bx"),
    ("an end that came to nothing", lambda clock: End(handle="q", because="logout"), "abx"),
    ("a successor", lambda clock: Replace(record=make("d", clock), old="a", was=1), "bx"),
    ("a login", lambda clock: Insert(record=make("d", clock)), "abx"),
    ("a login over a limit", lambda clock: Insert(record=make("d", clock), limit=Limit(1)), "x"),
    ("the end of the others", lambda clock: EndOthers(realm="", subject="ann", keep=("a",), because="owner"), "x"),
    ("the end of nobody's", lambda clock: EndOthers(realm="r", subject="ann", because="owner"), "abx"),
    ("everybody's", lambda clock: RaiseEpoch(scope="*"), ""),
    ("a note", lambda clock: Note(events=(event("said", clock),)), "abx"),
]


@pytest.mark.parametrize(("what", "change", "kept"), OWN, ids=[row[0] for row in OWN])
@pytest.mark.parametrize("when", ["before", "after"])
def test_our_own_commits_drop_what_they_concern_before_and_after(
    here: Near, what: str, change: Callable[[Clock], Change], kept: str, when: str
) -> None:
    """Not by being told: the far store's notices are held back here."""
    for handle, subject in (("a", "ann"), ("b", "ann"), ("x", "xavier")):
        here.elsewhere(Insert(record=make(handle, here.clock, subject=subject)))
        here.load(handle)
    here.far.real._shelf.watchers = ()
    found = []
    meanwhile = here.far.meanwhile
    if when == "before":
        meanwhile["commit"] = lambda: found.append(here.kept("abx"))
    else:
        # a load that was sent before the commit was applied, and kept while it was under way
        olds = {handle: here.far.real.load(handle) for handle in "abx"}

        def reload() -> None:
            for handle, old in olds.items():
                here.copies.came(handle, here.copies.sent(handle), old)
            assert here.kept("abx") == "abx"

        meanwhile["commit"] = reload
    here.face.done(change(here.clock))
    assert [*found, here.kept("abx")] == [kept] * (1 + len(found))


def test_a_load_under_way_over_our_own_commit_is_not_kept(here: Near) -> None:
    here.have("a")
    here.far.real._shelf.watchers = ()
    sent, old = here.copies.sent("a"), here.far.real.load("a")
    here.face.done(EndOthers(realm="", subject="ann", because="owner"))
    here.copies.came("a", sent, old)
    assert here.kept("a") == ""


def test_a_commit_of_which_nobody_knows_what_became_drops_its_copies(here: Near) -> None:
    here.have("a")
    here.far.real._shelf.watchers = ()

    def lose() -> None:
        here.copies.came("a", here.copies.sent("a"), make("a", here.clock))
        message = "the answer was lost"
        raise Unknown(message)

    here.far.meanwhile["commit"] = lose
    with pytest.raises(Unknown):
        here.face.commit(End(handle="a", because="logout"))
    assert here.kept("a") == ""


def test_where_nothing_is_told_an_end_of_ours_drops_everything(untold: Near) -> None:
    """It may have followed a replaced session to its successor, which it does not name."""
    untold.have(*"ab")
    untold.elsewhere(Replace(record=make("c", untold.clock), old="a", was=1))
    untold.load("c")
    assert untold.kept("c") == "c"
    untold.face.done(End(handle="a", because="operator"))
    assert untold.far.real.load("c").ended_because == "operator"  # type: ignore[union-attr]
    assert untold.kept("bc") == ""


def test_an_own_write_is_read_at_once(untold: Near) -> None:
    untold.have("a")
    for number in range(1, 4):
        untold.face.done(Update(record=make("a", untold.clock, data=data(number)), was=number))
        assert untold.kept("a") == ""
        assert untold.face.have("a").data == data(number)
        assert untold.glance("a") == untold.far.real.load("a")


# Listening.


def test_the_first_load_begins_to_listen_before_it_is_sent_and_no_other_does(here: Near) -> None:
    assert here.far.calls == []
    here.have(*"ab")
    assert here.far.calls == ["watch", "load", "load"]


def test_nothing_is_kept_before_we_listen(here: Near) -> None:
    here.elsewhere(Insert(record=make("a", here.clock)))
    record = here.far.real.load("a")

    def meanwhile() -> None:
        here.copies.came("a", here.copies.sent("a"), record)
        assert here.kept("a") == ""
        assert not here.copies.deaf(), "another load tries not at the same time"

    here.far.meanwhile["watch"] = meanwhile
    here.load("a")
    assert here.kept("a") == "a"


def test_a_store_that_cannot_be_watched_just_now_goes_by_age_and_is_tried_again(
    here: Near, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_file, "RETRY", 1.0)

    def fail() -> None:
        message = "no connection for it"
        raise StoreError(message)

    here.far.meanwhile["watch"] = fail
    with caplog.at_level(logging.WARNING, logger="coatcheck"):
        here.have("a", "b")
    assert "go by their age alone: no connection for it" in caplog.text
    assert here.far.calls == ["watch", "load", "load"]
    assert here.kept("ab") == "ab"
    here.age.wind(1)
    here.load("a")
    assert here.far.calls[-2:] == ["watch", "load"]
    assert here.kept("ab") == "a", "what changed before was not heard"


def test_closing_forgets_the_copies_and_stops_listening_and_a_later_load_begins_anew(here: Near) -> None:
    here.have("a")
    here.face._done(here.store.close())
    assert here.kept("a") == ""
    assert here.far.notices == []
    assert here.far.calls[-1] == "close"
    here.load("a")
    assert here.far.calls[-2:] == ["watch", "load"]
    assert here.kept("a") == "a"


def test_both_faces_share_their_copies(clock: Clock) -> None:
    store = near(MemoryStore(clock=clock))
    other = store.as_async()
    store.commit(b"a", [Insert(record=make("a", clock))], durable=False)
    record = store.load("a")
    assert other.glance("a") is record
    asyncio.run(other.commit(b"b", [Touch(handle="a", seen_at=clock.now + 1)], durable=False))
    assert store.glance("a") is None


def test_each_event_loop_listens_for_itself(clock: Clock) -> None:
    """What a loop hears ends with the loop."""
    far = AsyncFar(clock, watched=True)
    store = near(far)
    far.real.commit(b"a", [Insert(record=make("a", clock))], durable=False)
    threads = [threading.Thread(target=lambda: asyncio.run(store.load("a"))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    asyncio.run(store.load("a"))
    assert far.calls == ["watch", "load"] * 3
    assert store.glance("a") is not None


def _in_a_child(store: NearStore, told: Any) -> None:
    told.put(store.glance("a") is None)
    store.load("a")
    told.put(store.glance("a") is not None)
    store.store.commit(b"past the copies", [End(handle="a", because="operator")], durable=False)
    told.put(Face(store).until(lambda: store.glance("a") is None))
    store.close()


def test_a_forked_child_starts_empty_and_hears_for_itself(tmp_path: Path, clock: Clock) -> None:
    store = near(SqliteStore(tmp_path / "sessions.db", clock=clock))
    store.commit(b"a", [Insert(record=make("a", clock))], durable=False)
    store.load("a")
    assert store.glance("a") is not None
    told = FORK.Queue()
    child = FORK.Process(target=_in_a_child, args=(store, told))
    with store.copies._lock:  # a thread may hold it at that moment
        child.start()
    assert [told.get(timeout=10) for _ in range(3)] == [True, True, True]
    child.join(10)
    assert child.exitcode == 0
    assert Face(store).until(lambda: store.glance("a") is None), "and so does the parent"
    store.close()


def test_no_thread_reads_a_copy_older_than_what_it_has_written(clock: Clock) -> None:
    """Eight threads write one session each and read all eight; a copy is never behind an acknowledged write."""
    store = near(MemoryStore(clock=clock))
    written = dict.fromkeys("abcdefgh", 1)
    for handle in written:
        store.commit(handle.encode(), [Insert(record=make(handle, clock))], durable=False)
    faults: list[tuple[Handle, int, int]] = []

    def work(mine: Handle) -> None:
        for _ in range(400):
            for handle in written:
                known = written[handle]
                found = store.glance(handle) or store.load(handle)
                assert found is not None
                if found.version < known:
                    faults.append((handle, found.version, known))
            was = written[mine]
            store.commit(os.urandom(8), [Update(record=make(mine, clock), was=was)], durable=False)
            written[mine] = was + 1

    threads = [threading.Thread(target=work, args=(handle,)) for handle in written]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert set(written.values()) == {401}


# What passes through.


def test_what_the_store_can_passes_through_and_nothing_else(clock: Clock) -> None:
    near_, far = near(MemoryStore(clock=clock)), near(Far(clock, watched=False))
    assert isinstance(near_, AuditedStore)
    assert isinstance(near_, WatchedStore)
    assert not isinstance(far, (AuditedStore, WatchedStore))
    assert not hasattr(far, "as_async")
    other = near(AsyncMemoryStore(clock=clock))
    assert isinstance(other, AsyncAuditedStore)
    assert isinstance(other, AsyncWatchedStore)
    near_.commit(b"a", [Insert(record=make("a", clock), events=(event("made", clock),))], durable=False)
    assert [one.name for one in near_.events(EventQuery()).items] == ["made"]
    assert [one.handle for one in near_.find(Query()).items] == ["a"]
    heard: list[Handle | None] = []
    stop = near_.watch(heard.append)
    near_.commit(b"b", [End(handle="a", because="operator")], durable=False)
    stop()
    assert heard == ["a"]


def test_a_store_with_shards_stays_one(clock: Clock) -> None:
    far = Far(clock, watched=False)
    assert near(far).sharded is False
    far.sharded = True  # type: ignore[attr-defined]
    assert near(far).sharded is True


def test_near_takes_a_store_and_sane_bounds(clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"near\(open_store\(url\)\)"):
        near("memory:")  # type: ignore[call-overload]
    for bounds in ({"max_stale": 0}, {"max_stale": -1}, {"most": 0}):
        with pytest.raises(ConfigError, match="at least one copy"):
            near(MemoryStore(clock=clock), **bounds)
