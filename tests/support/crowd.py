"""A crowd of visitors who log in, read, write and log out while servers fail, and keep book of what they were promised.

    crowd = Crowd(salt)
    with crowd.walking(store, 4), crowd.walking(async_store, 8):      # four threads, eight tasks
        ...                                                           # kill something
    crowd.check(store)
    crowd.book                                                        # calls, errors, and every broken promise

Rules
- A session's data is a number that its visitor counts up, so one look tells which writes it has.
- Only what was acknowledged counts. A commit without an answer is sent again with its id until it has one.
- The pace is bounded: a visitor pauses after each call. This tests failures, not speed.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec.structs import replace

from coatcheck.core import tokens
from coatcheck.core.errors import NotApplied, StoreError, Unconfirmed, Unknown
from coatcheck.core.model import Change, Conflict, End, EndOthers, Handle, Insert, Record, Replace, Touch, Update

LIFE = 3600.0


@dataclass(eq=False)
class Kept:
    """One session as its visitor knows it: how far its data was counted, and what of that was acknowledged."""

    handle: Handle
    subject: str
    tried: int = 0
    plain: int = 0
    durable: int = 0
    entered: bool = False
    leaving: bool = False
    """Somebody asked for its end; it may have happened."""
    left: bool = False
    """Its end was acknowledged."""


@dataclass
class Failure:
    """A call that raised: when it was over, how long it had taken, what it was and of which session."""

    at: float
    took: float
    verb: str
    kind: str
    handle: Handle
    words: str


@dataclass
class Book:
    """What happened to everybody."""

    calls: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    slow: list[Failure] = field(default_factory=list)
    """Calls that succeeded after more than half a second."""
    slowest: Counter[str] = field(default_factory=Counter)
    lost_durable: set[str] = field(default_factory=set)
    lost_plain: set[str] = field(default_factory=set)
    revived: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    """Answers that no failure explains: another's record, a session ended that nobody ended."""

    def broken(self) -> list[str]:
        """Return the promises that were broken, in words."""
        found = (("lost, though durable", self.lost_durable), ("revived", self.revived), ("wrong", self.wrong))
        return [f"{what}: {one}" for what, all_of_them in found for one in sorted(all_of_them)]

    def errors(self) -> Counter[tuple[str, str]]:
        """Return how often each verb failed in each way."""
        return Counter((one.verb, one.kind) for one in self.failures)

    def recovered(self, since: float, until: float, *, confirmed: bool = False) -> float:
        """Return how long after `since` the last call failed or was slow (`confirmed`: for want of replicas too)."""
        troubles = [one for one in (*self.failures, *self.slow) if confirmed or one.kind != "Unconfirmed"]
        return max((one.at - since for one in troubles if since < one.at < until), default=0.0)


Call: TypeAlias = tuple[str, Handle, tuple[Any, ...]]
Walk: TypeAlias = Generator[Call, Any, None]


class Crowd:
    """Visitors, and the book that they keep together."""

    def __init__(self, salt: bytes, *, pace: float = 0.02, seed: int = 1) -> None:
        """Nobody is there yet. `salt` is the store's (Epochs.salt), `pace` the pause after each call in seconds."""
        self.book = Book()
        self.sessions: list[Kept] = []
        self._salt, self._pace, self._seed = salt, pace, seed
        self._numbers = itertools.count(1)
        self.over = threading.Event()

    @contextmanager
    def walking(self, store: Any, visitors: int) -> Iterator[None]:
        """Let visitors walk as long as the block lasts: threads, or tasks of one event loop, as the store is."""
        over = threading.Event()
        walks = [_Visitor(self, next(self._numbers), over) for _ in range(visitors)]
        if inspect.iscoroutinefunction(store.load):
            threads = [threading.Thread(target=lambda: asyncio.run(self._all(store, walks)), name="crowd")]
        else:
            threads = [threading.Thread(target=self._walk, args=(store, one), name="visitor") for one in walks]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def mint(self, subject: str) -> Handle:
        """Return a handle in the subject's shard."""
        handle = tokens.mint(os.urandom).handle
        return tokens.shard_of(self._salt, "", subject) + handle[2:] if self._salt else handle

    def keep(self, subject: str) -> Kept:
        """Open a page for a new session."""
        kept = Kept(self.mint(subject), subject)
        self.sessions.append(kept)
        return kept

    def judge(self, kept: Kept, record: Record | None) -> None:
        """Compare what a store answered with what was promised."""
        book, name = self.book, f"{kept.handle} of {kept.subject}"
        if record is None:
            if kept.entered:
                book.lost_durable.add(f"login {name}")
            return
        if record.handle != kept.handle or record.subject != kept.subject:
            book.wrong.add(f"{name} was answered with {record!r}")
            return
        if record.ended_at is not None:
            if not kept.leaving:
                book.wrong.add(f"{name} ended: {record.ended_because}")
            return
        if kept.left:
            book.revived.add(name)
            return
        count = int(record.data)
        if count > kept.tried:
            book.wrong.add(f"{name} counts {count}, {kept.tried} was the most ever written")
        if count < kept.durable:
            book.lost_durable.add(f"{name} counts {count}, {kept.durable} was acknowledged")
        elif count < kept.plain:
            book.lost_plain.add(f"{name} counts {count}, {kept.plain} was acknowledged")

    def check(self, store: Any) -> None:
        """Look at every session once more; the store must be healthy and blocking."""
        for kept in self.sessions:
            self.judge(kept, store.load(kept.handle))

    # One call, in either colour.

    def _walk(self, store: Any, visitor: _Visitor) -> None:
        walk = visitor.walk()
        call = next(walk, None)
        while call is not None:
            verb, handle, given = call
            began = time.monotonic()
            try:
                answer = getattr(store, verb)(*given)
            except StoreError as error:
                answer = error
            self._note(verb, handle, answer, began)
            time.sleep(visitor.pause(self._pace))
            call = _after(walk, answer)

    async def _awalk(self, store: Any, visitor: _Visitor) -> None:
        walk = visitor.walk()
        call = next(walk, None)
        while call is not None:
            verb, handle, given = call
            began = time.monotonic()
            try:
                answer = await getattr(store, verb)(*given)
            except StoreError as error:
                answer = error
            self._note(verb, handle, answer, began)
            await asyncio.sleep(visitor.pause(self._pace))
            call = _after(walk, answer)

    async def _all(self, store: Any, visitors: Sequence[_Visitor]) -> None:
        await asyncio.gather(*(self._awalk(store, one) for one in visitors))
        await store.close()

    def _note(self, verb: str, handle: Handle, answer: Any, began: float) -> None:
        now = time.monotonic()
        took = now - began
        self.book.calls[verb] += 1
        self.book.slowest[verb] = max(self.book.slowest[verb], took)  # type: ignore[assignment]
        if isinstance(answer, StoreError):
            self.book.failures.append(Failure(now, took, verb, _kind(answer), handle, str(answer)))
        elif took > 0.5:
            self.book.slow.append(Failure(now, took, verb, "slow", handle, ""))


def _kind(error: StoreError) -> str:
    """Return which of the contract's kinds an error is."""
    kinds = (NotApplied, Unknown, Unconfirmed)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)


def _after(walk: Walk, answer: Any) -> Call | None:
    try:
        return walk.send(answer)
    except StopIteration:
        return None


class _Visitor:
    """One who walks: logs in, does this and that, and logs out, over and over."""

    def __init__(self, crowd: Crowd, number: int, over: threading.Event) -> None:
        self._crowd, self._number, self._over = crowd, number, over
        self._chance = random.Random(f"{crowd._seed}/{number}")
        self._lives = itertools.count(1)
        self._former: list[Kept] = []

    def pause(self, pace: float) -> float:
        return pace * self._chance.uniform(0.5, 1.5)

    def walk(self) -> Walk:
        while not self._over.is_set():
            yield from self._life()

    def _life(self) -> Walk:
        crowd, chance = self._crowd, self._chance
        kept = crowd.keep(f"visitor-{self._number}-{next(self._lives)}")
        if not (yield from self._acknowledged(kept, [Insert(record=_record(kept))], durable=True)):
            return
        kept.entered = True
        for _ in range(chance.randint(2, 10)):
            if self._over.is_set():
                return
            act = chance.choice([self._look, self._look, self._look_back, self._write, self._write, self._show])
            yield from act(kept)
            if chance.random() < 0.1:
                following = yield from self._step_up(kept)
                if following is None:
                    return
                kept = following
        if chance.random() < 0.7:
            yield from self._leave(kept)

    def _look(self, kept: Kept) -> Generator[Call, Any, Record | None]:
        """Load the session; None if that failed."""
        answer = yield "load", kept.handle, (kept.handle,)
        if isinstance(answer, StoreError):
            return None
        self._crowd.judge(kept, answer)
        found: Record | None = answer
        return found

    def _look_back(self, _kept: Kept) -> Walk:
        """Load a session that was left: it must never open again."""
        if self._former:
            yield from self._look(self._chance.choice(self._former))

    def _write(self, kept: Kept) -> Walk:
        """Count up, plainly or durably."""
        record = yield from self._look(kept)
        if record is None or record.ended_at is not None:
            return
        durable = self._chance.random() < 0.4
        kept.tried = count = max(kept.tried, int(record.data)) + 1
        update = Update(record=replace(record, data=b"%d" % count), was=record.version)
        if (yield from self._acknowledged(kept, [update], durable=durable)):
            kept.plain = count
            kept.durable = count if durable else kept.durable

    def _show(self, kept: Kept) -> Walk:
        touch = Touch(handle=kept.handle, seen_at=time.time())
        yield "commit", kept.handle, (os.urandom(16), [touch], False)

    def _step_up(self, kept: Kept) -> Generator[Call, Any, Kept | None]:
        record = yield from self._look(kept)
        if record is None or record.ended_at is not None:
            return kept
        following = self._crowd.keep(kept.subject)
        following.tried = int(record.data)
        successor = replace(_record(following), data=record.data, authenticated_at=record.authenticated_at)
        kept.leaving = True
        swap = Replace(record=successor, old=kept.handle, was=record.version)
        if not (yield from self._acknowledged(following, [swap], durable=True)):
            return None
        kept.left = following.entered = True
        self._former.append(kept)
        following.plain = following.durable = int(record.data)
        return following

    def _leave(self, kept: Kept) -> Walk:
        kept.leaving = True
        end: Change = End(handle=kept.handle, because="logout")
        if self._chance.random() < 0.3:
            end = EndOthers(realm="", subject=kept.subject, because="owner")
        if (yield from self._acknowledged(kept, [end], durable=True)):
            kept.left = True
            self._former.append(kept)

    def _acknowledged(self, kept: Kept, changes: list[Change], *, durable: bool) -> Generator[Call, Any, bool]:
        """Commit under one id until it is acknowledged (True), refused by a conflict, or all is over."""
        commit_id = os.urandom(16)
        while True:
            answer = yield "commit", kept.handle, (commit_id, changes, durable)
            if answer is None:
                return True
            if isinstance(answer, Conflict):
                if answer.current is not None and answer.current.handle == kept.handle:
                    self._crowd.judge(kept, answer.current)
                return False
            if self._over.is_set():
                return False


def _record(kept: Kept) -> Record:
    now = time.time()
    return Record(
        realm="",
        handle=kept.handle,
        family_proof=b"family:" + kept.handle.encode(),
        turn_proof=b"turn" * 8,
        used_at=now,
        handed_at=now,
        data=b"0",
        created_at=now,
        seen_at=now,
        idle_for=LIFE,
        expires_at=now + LIFE,
        subject=kept.subject,
        authenticated_at=now,
    )
