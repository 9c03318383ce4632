"""A few browsers, an operator and bad luck, in any order, against a tiny reference: the ten promises on real stores.

Hypothesis draws the steps: requests that overlap, logins, writes, `take`s and `bump`s, step-ups, revocations, time, and
commits that are lost on the way there or back. COATCHECK_HYPOTHESIS=long draws many more.
"""

import copy
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coatcheck.core import codec
from coatcheck.core.errors import NotApplied, Refusal, StoreError, Unknown
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Change, Conflict, Level, Query, Record, Reply, Request
from coatcheck.core.policies import DAY, HOUR, timeouts
from coatcheck.core.session import Session
from coatcheck.flow import sync
from coatcheck.flow.registry import Registry
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock

LONG = os.environ.get("COATCHECK_HYPOTHESIS") == "long"
TOUCH_EVERY = HOUR / 20
SUBJECTS = ["ann", "bob"]
CLIENTS = range(3)

Act = tuple[str, str, int]
"""What a handler does: the act, a key, a value."""
Ending = tuple[int, str, bool]
"""How a request ends: the status, what happens to its commit, whether the answer arrives.

A commit that crashes never got there; one that is lost was applied, but its answer never came back; "once" means that
a retry gets through.
"""

ACTS = ["write", "delete", "deepen", "bump", "take", "login", "remember", "step up", "logout", "everywhere", "renew"]
FAULTS = ["", "", "", "crash once", "lost once", "crash", "lost"]

clients = st.sampled_from(CLIENTS)
acts = st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from("abc"), st.integers(0, 3)), max_size=3)
endings = st.tuples(
    st.sampled_from([200, 200, 302, 500]), st.sampled_from(FAULTS), st.sampled_from([True, True, False])
)


class Luckless:
    """A store whose next commits may crash or lose their answer, as the test says."""

    def __init__(self, store: Any) -> None:
        self.store, self.listeners = store, store.listeners
        self.fault, self.down = "", False
        self.applied = self.failed = self.unsure = False

    def load(self, handle: str) -> Record | None:
        if self.down:
            message = "away"
            raise StoreError(message)
        return self.store.load(handle)

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        fault = self.fault
        if fault.endswith(" once"):
            self.fault = ""
        self.failed = self.failed or bool(fault)
        if fault.startswith("crash"):
            message = "refused"
            raise NotApplied(message)
        conflict = self.store.commit(commit_id, changes, durable)
        self.applied = self.applied or conflict is None
        if fault.startswith("lost"):
            self.unsure = conflict is not None
            message = "reset"
            raise Unknown(message)
        return conflict

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Kept:
    """What the reference knows of a session: whose it is, what is in it, whether it lives, and since when it rests."""

    def __init__(self, subject: str | None, data: dict[str, Any], now: float, *, remember: bool = False) -> None:
        self.subject, self.data, self.remember = subject, data, remember
        self.because: str | None = None
        self.successor: str | None = None
        self.seen = self.lapsed = False
        self.began = now
        self.surely_seen = self.maybe_seen = now

    @property
    def idle(self) -> float:
        return 14 * DAY if self.remember else HOUR

    @property
    def absolute(self) -> float:
        return self.began + (30 * DAY if self.remember else DAY)

    def may_be_over(self, now: float) -> bool:
        return now >= min(self.absolute, self.surely_seen - TOUCH_EVERY + self.idle)

    def must_be_over(self, now: float) -> bool:
        return now >= min(self.absolute, self.maybe_seen + self.idle)


class Open:
    """A request between begin and finish, with the reference's copy of what its handler sees."""

    def __init__(self, client: int, session: Session, handle: str | None, kept: Kept | None, now: float) -> None:
        self.client, self.session, self.handle, self.kept, self.arrived = client, session, handle, kept, now
        self.bare = handle is None and session.visit.bare
        self.base = {} if kept is None else copy.deepcopy(kept.data)
        self.data = copy.deepcopy(self.base)
        self.act = ""
        self.subject = ""
        self.remember = False


class StoreMachine(RuleBasedStateMachine):
    """The steps and the promises; `make_store` says on which store."""

    make_store: Callable[[Clock, Path], Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.store = Luckless(type(self).make_store(self.clock, self.folder))
        entropy = random.Random(1)
        self.manager = SessionManager(
            clock=self.clock,
            entropy=entropy.randbytes,
            origins=["https://app.example"],
            timeouts=timeouts(idle=HOUR, absolute=DAY),
            breaker=None,  # every failure is met by itself: time hardly passes here, so a pause would never end
        )
        self.exchange = Exchange(self.manager, self.store)
        self.registry = Registry(self.store, clock=self.clock)
        self.kept: dict[str, Kept] = {}
        self.jars: dict[int, bytes] = dict.fromkeys(CLIENTS, b"")
        self.open: list[Open] = []

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    # -- what is drawn -----------------------------------------------------------------------------------------------

    @initialize()
    def everybody_is_logged_in(self) -> None:
        for client, subject in zip(CLIENTS, ("ann", "ann", "bob"), strict=True):
            self.begin(client)
            self.wish(self.open[0], "login", subject)
            self.finish(self.open[0], 200, "")

    @rule(client=clients, acts=acts, ending=endings)
    def visit(self, client: int, acts: list[Act], ending: Ending) -> None:
        """One request from begin to finish."""
        self.finish(self.acted(self.begin(client), acts), *ending)

    @rule(first=st.tuples(clients, acts, endings), second=st.tuples(clients, acts, endings), same=st.booleans())
    def two_at_once(self, first: Any, second: Any, same: bool) -> None:
        """Two requests that load the same, if they are the same browser's, and then commit one after the other."""
        (client, mine, ending), (other, theirs, last) = first, second
        one, two = self.begin(client), self.begin(client if same else other)
        self.acted(one, mine)
        self.acted(two, theirs)
        self.finish(one, *ending)
        self.finish(two, *last)

    @rule(client=clients, acts=acts)
    @precondition(lambda self: len(self.open) < 4)
    def begin_slowly(self, client: int, acts: list[Act]) -> None:
        """Begin a request that stays under way while other things happen."""
        self.acted(self.begin(client), acts)

    @rule(data=st.data(), acts=acts, ending=endings)
    @precondition(lambda self: self.open)
    def finish_at_last(self, data: st.DataObject, acts: list[Act], ending: Ending) -> None:
        """Let a slow request do some more, and finish."""
        self.finish(self.acted(data.draw(st.sampled_from(self.open)), acts), *ending)

    @rule(by=st.sampled_from([1.0, 30.0, 200.0, 400.0, 1000.0, 1000.0, 1000.0, 1000.0, 3700.0, 2 * DAY]))
    def time_passes(self, by: float) -> None:
        self.clock.wind(by)

    @rule(data=st.data(), act=st.sampled_from(["revoke", "revoke_all", "revoke_before", "purge"]))
    def operate(self, data: st.DataObject, act: str) -> None:
        """Do what operators do."""
        self.clock.wind(0.01)
        getattr(self, act)(data)

    @rule(data=st.data(), act=st.sampled_from(["guess", "store_away", "application_raises"]))
    def disturb(self, data: st.DataObject, act: str) -> None:
        """Do what goes wrong."""
        self.clock.wind(0.01)
        getattr(self, act)(data)

    # -- requests ----------------------------------------------------------------------------------------------------

    def acted(self, one: Open, acts: list[Act]) -> Open:
        """Let a handler do what was drawn."""
        for act, key, value in acts:
            if act in ("write", "delete", "deepen", "bump", "take"):
                getattr(self, act)(one, key, value)
            else:
                self.wish(one, act, SUBJECTS[value % 2])
        return one

    def begin(self, client: int) -> Open:
        """Promises 3, 6, 7: a session is opened if it lives, and if not, the browser is told why."""
        self.clock.wind(0.01)
        now, value = self.clock.now, self.jars[client]
        session = self.exchange.begin(self._request(value))
        assert isinstance(session, Session)
        handle = value.split(b".")[1].decode() if value else None
        kept = None if handle is None else self.kept.get(handle)
        if kept is not None and kept.because is None:
            over = session.visit.record is None
            assert over or not kept.must_be_over(now), "a session is open past its clocks"
            assert not over or kept.may_be_over(now), f"refused too early: {session.ended_because}"
            if over:
                assert session.ended_because in ("idle", "absolute")
                kept.because = session.ended_because
        if kept is None or kept.because is not None:
            assert (session.subject, dict(session)) == (None, {}), "a session opens that does not count"
            assert kept is None or self._gone(handle) or session.ended_because == kept.because
            kept = None
        else:
            if session.level == Level.REMEMBERED and not kept.lapsed:
                assert kept.remember, "only who asked for it is remembered"
                kept.data, kept.surely_seen, kept.lapsed = {}, now, True
            assert session.subject == kept.subject
            assert dict(session) == kept.data
            kept.seen, kept.maybe_seen = True, now
        self.open.append(Open(client, session, handle, kept, now))
        return self.open[-1]

    def write(self, one: Open, key: str, value: int) -> None:
        one.session[key] = one.data[key] = value

    def delete(self, one: Open, key: str, _: int) -> None:
        assert one.session.pop(key, None) == one.data.pop(key, None)

    def deepen(self, one: Open, _: str, value: int) -> None:
        """Promise 10: nested changes count."""
        for mapping in (one.session, one.data):
            mapping.setdefault("bag", {}).setdefault("things", []).append(value)

    def bump(self, one: Open, _: str, __: int) -> None:
        """Promise 2: what is counted is counted once, whatever else is under way."""
        if one.act:
            return
        self.clock.wind(0.01)
        self.store.unsure = False
        alive = one.kept is None or one.kept.because is None
        try:
            found = self.exchange.bump(one.session, "count")
        except Refusal:
            assert not alive, "a count is refused although the session lives"
            return
        assert alive, "a count is kept in a session that is over"
        if one.kept is not None:
            self._rebase(one)
            one.kept.data["count"] = one.base["count"] = one.kept.data.get("count", 0) + 1
            assert found == one.kept.data["count"]
        one.data["count"] = one.data.get("count", 0) + 1

    def take(self, one: Open, key: str, _: int) -> None:
        """Promise 2: what may be taken once is taken once."""
        if one.act:
            return
        self.clock.wind(0.01)
        self.store.unsure = False
        found = self.exchange.take(one.session, key)
        if one.kept is None:
            assert found == one.data.pop(key, None)
        elif one.kept.because is None:
            self._taken(one, key, found)

    def _taken(self, one: Open, key: str, found: Any) -> None:
        assert one.kept is not None
        if found is not None:
            self._rebase(one)
            assert found == one.kept.data.pop(key)
            one.base.pop(key, None)
            one.data.pop(key, None)
            return
        # where its own copy held the key, it was too late and knows what is stored now; else it did not even ask
        assert key not in one.kept.data or key not in one.base, "what could be taken was not"
        if key in one.base:
            self._rebase(one)

    def wish(self, one: Open, act: str, subject: str) -> None:
        """Let a handler ask for a login, a logout or a new handle: the first wish counts."""
        if one.act:
            return
        session = one.session
        if act == "step up":
            act, subject = "login", session.subject or subject
        if act in ("login", "remember"):
            one.act, one.subject, one.remember = "login", subject, act == "remember"
            before = session.subject
            session.login(subject, remember=one.remember)
            if before != subject:
                one.data = {}
        elif act == "renew":
            session.renew()
            one.act = "renew" if session.visit.record is not None else ""
        else:
            one.act = act
            session.logout(everywhere=act == "everywhere")
            one.data = {}

    def finish(self, one: Open, status: int, fault: str, arrives: bool = True) -> None:
        """Settle a request; the reference says what must have come of it."""
        self.open.remove(one)
        self.clock.wind(0.01)
        before = set(self._stored())
        store = self.store
        store.fault, store.applied, store.failed, store.unsure = fault, False, False, False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sync, "sleep", lambda _: None)
            if fault in ("crash", "lost"):
                patch.setattr(sync, "COMMIT_DEADLINE", 0.0)
            headers = self.exchange.finish(one.session, status, [(b"content-type", b"text/plain")])
        store.fault = ""
        new = set(self._stored()) - before
        reached = store.applied if fault in ("crash", "lost") else True
        cookies = [] if isinstance(headers, Reply) else [value for name, value in headers if name == b"set-cookie"]
        self._told(one, headers, cookies)
        expected = self._expect(one, status, reached, new)
        if isinstance(headers, Reply):
            assert fault in ("crash", "lost") or not expected, "an answer is replaced although all went well"
            assert not any(name == b"set-cookie" for name, _ in headers.headers), "promise 8: a refusal sets a cookie"
        if arrives and cookies:
            (value,) = (cookie.split(b";")[0].partition(b"=")[2] for cookie in cookies)
            self.jars[one.client] = value

    def _told(self, one: Open, headers: Any, cookies: list[bytes]) -> None:
        """Promises 5 and 10: who has the right sets one cookie, and caches are told."""
        assert len(cookies) <= 1
        if isinstance(headers, Reply):
            return
        values = {name: [value for found, value in headers if found == name] for name, _ in headers}
        assert b"Cookie" in values[b"vary"][0], "the session was looked at"
        assert values.get(b"cache-control", []) == [b"no-store"] * len(cookies)
        dead = one.kept is None or one.kept.because is not None
        if cookies and not one.act and not one.bare:
            assert not dead, "promise 5: an answer that did nothing sets a cookie over a token that does not count"

    def _expect(self, one: Open, status: int, reached: bool, new: set[str]) -> bool:
        """Bring the reference to where the store must be; return whether the request got what it asked for."""
        kept, failed = one.kept, status >= 500
        alive = kept is not None and kept.because is None
        acts = one.act if not failed or one.act in ("logout", "everywhere") else ""
        if acts in ("login", "renew"):
            return self._expect_rotation(one, acts, reached, new)
        assert not acts or acts in ("logout", "everywhere")
        if acts:
            if reached:
                self._log_out(one, acts)
                made = {} if failed else one.data
                if made:
                    (handle,) = new
                    self.kept[handle] = Kept(None, made, self.clock.now)
            return True
        if failed or not reached:
            assert not new
            return True
        if alive and kept is not None:
            self._rebase(one)
            kept.data = one.data
            kept.maybe_seen = self.clock.now
            if self.store.applied or not self.store.failed:  # activity alone is best effort
                kept.surely_seen = max(kept.surely_seen, one.arrived)
        elif one.bare and one.data:
            (handle,) = new
            self.kept[handle] = Kept(None, one.data, self.clock.now)
            return True
        assert not new, "promise 3: a record appears that nobody asked for"
        return True

    def _log_out(self, one: Open, acts: str) -> None:
        subject = None if one.kept is None else one.kept.subject
        if one.handle is not None and one.kept is not None:
            self._end(one.handle, "logout")
        if acts == "everywhere" and subject is not None:
            self._end_all(subject, "logout", lambda _: True)

    def _expect_rotation(self, one: Open, act: str, reached: bool, new: set[str]) -> bool:
        """Promises 1 and 4: a login gives a new handle and ends the old session; nothing gets past a revocation."""
        kept, now = one.kept, self.clock.now
        subject = one.subject if act == "login" else None if kept is None else kept.subject
        rotated = kept is not None and kept.subject == subject
        if rotated and kept is not None:
            heir = None if kept.successor is None else self.kept[kept.successor]
            lost = kept.because == "replaced" and heir is not None and heir.because is None and not heir.seen
            if kept.because is not None and not lost:
                assert not new, "promise 1: a step-up got past the end of its session"
                return False
            if not reached:
                assert not new
                return False
            if kept.because is None:
                self._rebase(one)
            (handle,) = new
            self._succeed(kept, handle)
            if lost and heir is not None:
                self._succeed(heir, handle)
        else:
            if subject is not None and self.revoked.get(subject, 0.0) > one.arrived:
                assert not new, "promise 1: a login from before a revocation got in"
                return False
            if not reached:
                assert not new
                return False
            (handle,) = new
            if one.handle in self.kept:
                self._end(one.handle, "superseded")
        made = Kept(subject, one.data, now, remember=one.remember)
        if act == "renew" and kept is not None:
            made.remember, made.began, made.lapsed = kept.remember, kept.began, kept.lapsed
        elif act == "login":
            made.began = now
        made.seen = not rotated
        self.kept[handle] = made
        return True

    @property
    def revoked(self) -> dict[str, float]:
        return self.__dict__.setdefault("_revoked", {})

    def _succeed(self, kept: Kept, handle: str) -> None:
        kept.because, kept.successor, kept.data = "replaced", handle, {}

    # -- from outside ------------------------------------------------------------------------------------------------

    def revoke(self, data: st.DataObject) -> None:
        """Promise 1: a revocation finds the session under any handle it ever had."""
        handle = data.draw(st.sampled_from(sorted(self.kept)))
        live = self._live_end(handle)
        assert self.registry.revoke(handle) == (live is not None)
        if live is not None:
            self._end(live, "operator")

    def revoke_all(self, data: st.DataObject) -> None:
        subject = data.draw(st.sampled_from(SUBJECTS))
        mine = sorted(handle for handle, kept in self.kept.items() if kept.subject == subject)
        keep = data.draw(st.sampled_from([None, *mine]))
        self.registry.revoke_all(subject, keep=keep)
        self._end_all(subject, "operator", lambda handle: handle != keep)

    def revoke_before(self, data: st.DataObject) -> None:
        subject = data.draw(st.sampled_from(SUBJECTS))
        moment = self.clock.now - data.draw(st.sampled_from([0.0, 60.0, 3000.0]))
        self.registry.revoke_before(moment, subject=subject)
        stored = self._stored()
        early = {handle for handle, record in stored.items() if (record.authenticated_at or 0.0) < moment}
        self._end_all(subject, "operator", lambda handle: handle in early, moment)

    def guess(self, data: st.DataObject) -> None:
        """Promises 3 and 4: what we did not issue is never adopted, and does nothing to anybody."""
        value = data.draw(st.sampled_from(["unknown", "wrong family", "malformed"]))
        handles = sorted(self.kept) or ["A" * 18]
        handle = data.draw(st.sampled_from(handles)) if value == "wrong family" else "B" * 18
        cookie = b"nonsense" if value == "malformed" else b"c1.%b.%b.%b" % (handle.encode(), b"F" * 24, b"T" * 24)
        before = self._stored()
        session = self.exchange.begin(self._request(cookie))
        assert isinstance(session, Session)
        assert (session.subject, session.ended_because) == (None, None)
        session["a"] = 1
        headers = self.exchange.finish(session, 200, [])
        assert not isinstance(headers, Reply)
        assert not [name for name, _ in headers if name == b"set-cookie"]
        assert self._stored() == before

    def store_away(self, data: st.DataObject) -> None:
        """Promise 8: then a session is refused, and its cookie left alone."""
        client = data.draw(clients)
        if not self.jars[client]:
            return
        self.store.down = True
        reply = self.exchange.begin(self._request(self.jars[client]))
        self.store.down = False
        assert isinstance(reply, Reply)
        assert reply.status == 503
        assert b"set-cookie" not in dict(reply.headers)

    def application_raises(self, data: st.DataObject) -> None:
        """Promise 9: a logout counts even then, a write does not."""
        one = self.begin(data.draw(clients))
        self.open.remove(one)
        one.session["a"] = 7
        one.session.logout()
        self.exchange.abandon(one.session)
        if one.kept is not None:
            self._end(one.handle or "", "logout")

    def purge(self, _: st.DataObject) -> None:
        """Promise 6 and 7: what is over by its clocks ends, with a reason, and nothing else."""
        self.registry.purge()
        stored = self._stored()
        for handle, kept in list(self.kept.items()):
            record = stored.get(handle)
            if record is None:
                assert kept.because is not None or kept.may_be_over(self.clock.now)
                kept.because = kept.because or "idle"
            elif kept.because is None and record.ended_at is not None:
                assert record.ended_because in ("idle", "absolute")
                assert kept.may_be_over(self.clock.now)
                kept.because, kept.data = record.ended_because, {}
            else:
                assert kept.because is not None or not kept.must_be_over(self.clock.now)

    # -- what must hold after every step -----------------------------------------------------------------------------

    @invariant()
    def the_store_holds_what_the_reference_says(self) -> None:
        stored = self._stored()
        assert stored.keys() <= self.kept.keys(), "a record exists that nobody asked for"
        for handle, record in stored.items():
            kept = self.kept[handle]
            assert (record.subject, record.ended_because) == (kept.subject, kept.because)
            if kept.because is None:
                assert codec.decode(record.data) == kept.data, "promise 2: an update was lost, or a wrong one kept"
                assert record.expires_at <= kept.absolute + 1.0, "promise 6: a session got longer"
                assert kept.surely_seen - TOUCH_EVERY <= record.seen_at <= kept.maybe_seen + 1.0
            else:
                assert (record.data, record.turn_proof, record.nonce) == (b"", None, None)

    # -- the reference's own steps -----------------------------------------------------------------------------------

    def _rebase(self, one: Open) -> None:
        """Lay what a request changed on what is stored by now: key by key, the later one wins.

        Who could not know whether he had been the earlier one counts as the earlier one (contract 1.2, rule 0).
        """
        assert one.kept is not None
        fresh = copy.deepcopy(one.kept.data)
        for key in one.base.keys() | one.data.keys():
            mine, was, theirs = one.data.get(key), one.base.get(key), fresh.get(key)
            yields = self.store.unsure and theirs not in (was, mine)
            if was != mine and not yields:
                if key in one.data:
                    fresh[key] = one.data[key]
                else:
                    fresh.pop(key, None)
        one.data, one.base = fresh, copy.deepcopy(one.kept.data)

    def _live_end(self, handle: str) -> str | None:
        while self.kept[handle].because == "replaced" and self.kept[handle].successor is not None:
            handle = self.kept[handle].successor or ""
            if self._gone(handle):
                return None
        return handle if self.kept[handle].because is None and not self._gone(handle) else None

    def _gone(self, handle: str | None) -> bool:
        return handle is not None and self.store.store.load(handle) is None

    def _end(self, handle: str, because: str) -> None:
        live = self._live_end(handle) if not self._gone(handle) else None
        if live is not None:
            self.kept[live].because, self.kept[live].data = because, {}

    def _end_all(self, subject: str, because: str, chosen: Callable[[str], bool], moment: float | None = None) -> None:
        at = self.clock.now if moment is None else moment
        self.revoked[subject] = max(at, self.revoked.get(subject, 0.0))
        for handle, kept in self.kept.items():
            if kept.subject == subject and kept.because is None and chosen(handle):
                kept.because, kept.data = because, {}

    def _stored(self) -> dict[str, Record]:
        page = self.store.find(Query(live=False, limit=10_000))
        return {record.handle: record for record in page.items}

    def _request(self, value: bytes) -> Request:
        cookie = ((b"cookie", b"__Host-coat=" + value),) if value else ()
        return Request("GET", "https", "/", ((b"host", b"app.example"), *cookie))


class OnMemory(StoreMachine):
    """The machine on the memory store."""

    @staticmethod
    def make_store(clock: Clock, _: Path) -> Any:
        return MemoryStore(clock=clock)


class OnSqlite(StoreMachine):
    """The machine on a SQLite file."""

    @staticmethod
    def make_store(clock: Clock, folder: Path) -> Any:
        return SqliteStore(folder / "sessions.db", clock=clock)


def run(machine: type[StoreMachine], examples: int) -> None:
    """Run a machine: the same examples every time, or with COATCHECK_HYPOTHESIS=long others, and more of them."""
    budget = settings(
        max_examples=examples,
        stateful_step_count=60 if LONG else 40,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=budget)


@pytest.mark.timeout(7200 if LONG else 120)
@pytest.mark.parametrize("machine", [OnMemory, OnSqlite], ids=["memory", "sqlite"])
def test_in_any_order_of_steps_the_promises_hold(machine: type[StoreMachine]) -> None:
    examples = (20_000 if machine is OnMemory else 3_000) if LONG else (400 if machine is OnMemory else 120)
    run(machine, examples)
