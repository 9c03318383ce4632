"""The connections of the blocking store: a bounded pool for each server, one deadline over everything.

Rules
- A connection goes back to its pool only when every answer was read; whatever else happens, it is closed.
- The client library retries nothing. We do, until the deadline, with jitter: everything asked here may be asked again.
- A forked child forgets its parent's connections without closing them.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...core.errors import NotApplied, StoreError, Unconfirmed, Unknown
from . import faults
from .forks import remember
from .keys import Tag
from .places import Places
from .steps import Address, Answers, Ask, Command, Steps
from .trips import GREETING, HOPS, Piece, Trip, commands_of, greet, has_refusal, packed_of

T = TypeVar("T")

LOOK_EVERY: Final = 0.05
SHORT: Final = 0.98
"""A wait may be so much shorter than it might be: to set it each time would be a system call for each."""
PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 6
"""A pause before the n-th try is at most 2**n ms, and never more than 2**6."""
ENOUGH: Final = 0.05
"""Seconds. A try with less time than this, or than half as much again as the last one took, would more likely turn a
clear refusal into an unknown outcome than succeed; so it is not begun."""


class Wire:
    """Carries what steps ask, for any number of threads."""

    def __init__(self, places: Places, size: int) -> None:
        """Open nothing yet; `size` is how many connections a server gets from us at most."""
        self.places, self._size = places, size
        self._looked_at = 0.0
        self._pools: dict[Address, _Pool] = {}
        self.forget()
        remember(self)

    def forget(self) -> list[Any]:
        """Begin anew, in a forked child."""
        pools, self._pools = self._pools, {}
        self._gate = threading.Lock()
        self._queues: dict[object, _Queue] = {}
        return [pools]

    def run(self, steps_of: Callable[[], Steps[T]], seconds: float, *, again: bool = True) -> T:
        """Do what steps say, again and again until it succeeds, makes no sense, or time is over."""
        told: StoreError | None = None
        until, tries, unsure = time.monotonic() + seconds, 0, False
        while True:
            began = time.monotonic()
            try:
                self._look(until)
                return self._drive(steps_of(), until)
            except StoreError as error:
                unsure = unsure or error.unsure
                if not (error.retry and again) or isinstance(error, Unconfirmed):
                    raise
                told = told if told is not None and isinstance(error, faults.Late) else error
                pause = random.uniform(0, PAUSE * 2 ** min(tries, LONGEST_PAUSE))  # noqa: S311 - jitter, no secret
                now = time.monotonic()
                if now + pause + max(ENOUGH, 1.5 * (now - began)) >= until:
                    raise given_up(told, unsure=unsure, seconds=seconds) from error
            tries += 1
            time.sleep(pause)

    @contextmanager
    def queue(self, key: object, seconds: float) -> Iterator[float]:
        """Wait for one's turn among those with the same key; yields the seconds that are left."""
        until = time.monotonic() + seconds
        with self._gate:
            queue = self._queues.setdefault(key, _Queue())
            queue.length += 1
        try:
            if not queue.turn.acquire(timeout=seconds):
                raise NotApplied(crowded(seconds))
            try:
                yield max(0.0, until - time.monotonic())
            finally:
                queue.turn.release()
        finally:
            with self._gate:
                queue.length -= 1
                if not queue.length:
                    self._queues.pop(key, None)

    def where(self, tag: Tag, seconds: float) -> Address:
        """Return the server that has a shard."""
        self._look(time.monotonic() + seconds)
        return self.places.of(tag)

    def close(self) -> None:
        """Close every connection that is not in use; those in use are closed when they come back."""
        with self._gate:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def connect(self, address: Address, until: float) -> Any:
        """Return a new connection to a server that may keep sessions."""
        left = until - time.monotonic()
        if left <= 0:
            raise exceptions.TimeoutError
        kind, options = self.places.options(address, awaited=False)
        link = kind(**{**options, **waiting(left), "retry": Retry(NoBackoff(), 0)})
        try:
            link.connect()
            if not self.places.is_sentinel(address):
                link.send_packed_command(link.pack_commands(GREETING), check_health=False)
                answers = [read(link, until) for _ in GREETING]
                greet(answers, address, clustered=self.places.clustered)
        except BaseException:
            link.disconnect()
            raise
        return link

    def _look(self, until: float) -> None:
        """Find out where the primaries are, if we do not know or were told that we are wrong."""
        places, now = self.places, time.monotonic()
        if places.known and not (places.wrong and now - self._looked_at > LOOK_EVERY):
            return
        self._looked_at = now
        try:
            self._drive(places.find(), until, share=0.5)
        except StoreError:
            if not places.known:
                raise

    def _drive(self, steps: Steps[T], until: float, share: float = 1.0) -> T:
        try:
            asks = next(steps)
            while True:
                left = until - time.monotonic()
                asks = steps.send(self._ask(asks, time.monotonic() + left * share))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _ask(self, asks: Sequence[Ask], until: float) -> Sequence[Answers]:
        only = self._only(asks)
        came = None if only is None else self._go(only, asks[0].commands, until)
        if isinstance(came, list) and not has_refusal(came):
            return [came]  # most rounds need no more: one server, which answered
        trip = Trip(self.places, asks)
        for _ in range(HOPS):
            due = trip.due()
            if not due:
                break
            for address, pieces in due.items():
                _book(trip, pieces, came or self._go(address, commands_of(pieces), until))
                came = None
        return trip.answers()

    def _only(self, asks: Sequence[Ask]) -> Address | None:
        """Return the server that has all of it, if nobody can send us elsewhere."""
        if len(asks) != 1 or self.places.clustered:
            return None
        where = asks[0].where
        return where if isinstance(where, tuple) else self.places.maybe(where)

    def _go(self, address: Address, commands: Sequence[Command], until: float) -> list[Any] | _Failure:
        """Ask one server, and return its answers, or why there are none."""
        pool = self._pools.get(address) or self._pool(address)
        if not pool.enter(until):
            return _Failure(faults.busy(address, self._size), asked=False, sent=False)
        link, sent = None, False
        try:
            link = pool.take() or self.connect(address, until)
            packed = [packed_of(commands)]
            hurry(link, until)
            sent = True
            link.send_packed_command(packed, check_health=False)
            answers = [read(link, until) for _ in commands]
        except (exceptions.RedisError, StoreError, OSError) as error:
            pool.spoil(link)
            return _Failure(error, asked=True, sent=sent)
        except BaseException:
            pool.spoil(link)
            raise
        else:
            pool.give(link)
            return answers
        finally:
            pool.leave()

    def _pool(self, address: Address) -> _Pool:
        with self._gate:
            return self._pools.setdefault(address, _Pool(self._size))


class _Failure(NamedTuple):
    """Why a server did not answer: whether it was asked at all, and may have heard."""

    error: Exception
    asked: bool
    sent: bool


def _book(trip: Trip, pieces: Sequence[Piece], came: list[Any] | _Failure) -> None:
    if isinstance(came, list):
        trip.came(pieces, came)
    elif came.asked:
        trip.lost(pieces, came.error, sent=came.sent)
    elif isinstance(came.error, StoreError):
        trip.fail(pieces, came.error)


class _Queue:
    """Those who commit something about one subject."""

    def __init__(self) -> None:
        self.turn, self.length = threading.Lock(), 0


class _Pool:
    """The connections to one server."""

    def __init__(self, size: int) -> None:
        self._idle: list[Any] = []
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()  # the quickest semaphore that Python has
        for _ in range(size):
            self._free.put(None)
        self._closed = False

    def enter(self, until: float) -> bool:
        """Wait until one more connection may be in use."""
        free = self._free
        try:
            free.get_nowait()
        except queue.Empty:
            try:
                free.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
        return True

    def leave(self) -> None:
        self._free.put(None)

    def take(self) -> Any | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give(self, link: Any) -> None:
        self._idle.append(link)
        if self._closed:
            self.close()

    def spoil(self, link: Any | None) -> None:
        """Close a connection that failed, and all idle ones: they are as old, and likely as dead."""
        if link is not None:
            link.disconnect()
            self.close(last=False)

    def close(self, *, last: bool = True) -> None:
        self._closed = self._closed or last
        while (link := self.take()) is not None:
            link.disconnect()


def read(link: Any, until: float) -> Any:
    """Return the next answer; a refusal is an answer, too."""
    hurry(link, until)
    try:
        return link.read_response()
    except exceptions.ResponseError as refusal:
        return refusal


def hurry(link: Any, until: float) -> None:
    """Let a connection wait no longer than `until`; raise TimeoutError if that is over."""
    left = until - time.monotonic()
    if left <= 0:
        raise exceptions.TimeoutError
    socket = link._sock  # noqa: SLF001 - its own way to wait sets the timeout twice for each answer
    if socket is not None:
        waits = socket.gettimeout()
        if waits is None or not left * SHORT <= waits <= left:
            socket.settimeout(left * (SHORT + 1) / 2)


def crowded(seconds: float) -> str:
    """Return what is said to somebody whose turn did not come."""
    return f"too many commits about one subject were waiting for {seconds:g} s; nothing was written; try again"


def given_up(error: StoreError, *, unsure: bool, seconds: float) -> StoreError:
    """Return the last error as that of all tries: if one of them may have been applied, so may the whole."""
    kind = Unknown if unsure else type(error)
    return kind(f"{error} (tried for {seconds:g} s)")


def waiting(left: float) -> dict[str, Any]:
    """Return how every connection waits: at most so long."""
    # health checks and time-outs are ours; RESP2 because that is the same in every release of server and library
    return {
        "socket_timeout": left,
        "socket_connect_timeout": left,
        "protocol": 2,
        "health_check_interval": 0,
        "socket_keepalive": True,
    }
