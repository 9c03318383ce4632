"""The herald of a blocking store, who tells other processes of changes, and the watcher, who hears of them.

Rules
- Changes are told after the commit, in a transaction of their own: NOTIFY holds up other commits, and a full queue
  fails the one that it belongs to. What could not be told is logged, no more: watchers also look by themselves.
- The watcher has a connection of its own. After every reconnect it says None: something may have gone unheard.
- A pooler between us and the server may swallow notices without a word. So the watcher first sends itself one; if it
  does not arrive, it says None every second instead, and logs that once.
- Both are daemon threads, and a forked child has none.
"""

from __future__ import annotations

import math
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final

import psycopg

from ...core.errors import ConfigError, StoreError
from ...core.model import Handle
from ..keeping import jittered
from .blocking import Desk, Link, dialled
from .errors import OverdueError
from .house import EVERYTHING, MANY, House, log
from .words import literal

HEARD_WITHIN: Final = 2.0
POLL_EVERY: Final = 1.0
PING_EVERY: Final = 15.0
LOOK_EVERY: Final = 0.25
RETRY_AFTER: Final = 0.5

_TEST: Final = "?"
"""What the payload of a notice to oneself begins with; no handle does."""


class Herald:
    """One thread that tells of changes, several at a time if they come fast."""

    def __init__(self, house: House, desk: Desk) -> None:
        """Start the thread at the first change."""
        self._house, self._desk = house, desk
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child."""
        self._gate = threading.Lock()
        self._queue: queue.SimpleQueue[Sequence[Handle] | None] | None = None
        self._thread: threading.Thread | None = None

    def tell(self, changed: Sequence[Handle]) -> None:
        """Tell of these, soon."""
        if not changed:
            return
        begun = None
        with self._gate:
            if self._queue is None:
                # made with the thread that waits for it: gevent, which comes after a fork, cannot wait for an older one
                self._queue = queue.SimpleQueue()
                begun = self._thread = threading.Thread(
                    target=_announce, args=(self._queue, self._house, self._desk), daemon=True, name="coatcheck-herald"
                )
            self._queue.put(changed if len(changed) <= MANY else [EVERYTHING])
        if begun is not None:
            begun.start()  # not within the gate: where greenlets stand for threads, it runs at once

    def close(self) -> None:
        """Tell what is left, and end."""
        with self._gate:
            thread, waiting = self._thread, self._queue
            self._thread = self._queue = None
        if waiting is not None:
            waiting.put(None)
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(self._house.commit_deadline)


def _announce(changes: queue.SimpleQueue[Sequence[Handle] | None], house: House, desk: Desk) -> None:
    going = True
    while going:
        told: list[Handle] = []
        changed = changes.get()
        while changed is not None:
            told += changed
            if changes.empty():
                break
            changed = changes.get()
        going = changed is not None
        if told:
            try:
                desk.run(partial(house.telling, told), house.commit_deadline)
            except StoreError as error:
                log.warning("watchers were not told of a change: %s", error)


class Watcher:
    """One thread that listens while somebody watches."""

    def __init__(self, house: House) -> None:
        """Start the thread with the first one who watches."""
        self._house = house
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child."""
        self._gate = threading.Lock()
        self._notices: dict[object, Callable[[Handle | None], None]] = {}
        self._ear: _Ear | None = None

    def add(self, notice: Callable[[Handle | None], None]) -> Callable[[], None]:
        """Begin to call `notice`; return once we listen (or cannot, for now), with what ends it."""
        if not self._house.dsn:
            message = "a pool does not listen; to watch a store, give it the server's URL beside pool="
            raise ConfigError(message)
        key, begun = object(), None
        with self._gate:
            self._notices[key] = notice
            if self._ear is None:
                self._ear = begun = _Ear(self._house, self._say)
            ear = self._ear
        if begun is not None:
            begun.start()  # not within the gate, as the herald's thread
        ear.settled.wait(self._house.commit_deadline + HEARD_WITHIN)
        return lambda: self._remove(key)

    def close(self) -> None:
        """Watch no more."""
        with self._gate:
            self._notices.clear()
            ear, self._ear = self._ear, None
        if ear is not None:
            ear.stop()

    def _remove(self, key: object) -> None:
        with self._gate:
            self._notices.pop(key, None)
            ear = None
            if not self._notices:
                ear, self._ear = self._ear, None
        if ear is not None:
            ear.stop()

    def _say(self, handle: Handle | None) -> None:
        for notice in list(self._notices.values()):
            try:
                notice(handle)
            except Exception:  # noqa: BLE001 - it is the application's; the others must hear too
                log.exception("a watcher of the session store failed")


class _Ear:
    """The connection that listens, made again whenever it breaks."""

    def __init__(self, house: House, say: Callable[[Handle | None], None]) -> None:
        self._house, self._say = house, say
        self._stopped, self.settled = threading.Event(), threading.Event()
        self._deaf = False
        self._thread = threading.Thread(target=self._live, name="coatcheck-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(HEARD_WITHIN)

    def _live(self) -> None:
        before = False
        while not self._stopped.is_set():
            try:
                link = Link(dialled(self._house, monotonic() + self._house.commit_deadline))
            except StoreError as error:
                log.warning("cannot listen for changes of sessions: %s", error)
            else:
                try:
                    self._listen(link, again=before)
                except (psycopg.Error, OverdueError) as error:
                    log.warning("the connection that listens for changes of sessions broke (%s)", error)
                finally:
                    link.close()
            before = True
            self._stopped.wait(jittered(RETRY_AFTER))
        self.settled.set()

    def _listen(self, link: Link, *, again: bool) -> None:
        link.until = monotonic() + self._house.commit_deadline
        link.connection.execute(literal(f'listen "{self._house.names.channel}"'))
        if again:
            self._say(None)
        hears = self._hears_itself(link)
        self.settled.set()
        if not hears:
            self._poll()
        ping_at = monotonic() + PING_EVERY
        while not self._stopped.is_set():
            if self._heard(link, LOOK_EVERY):
                ping_at = monotonic() + PING_EVERY
            elif monotonic() > ping_at:
                link.until, ping_at = monotonic() + self._house.commit_deadline, monotonic() + PING_EVERY
                link.connection.execute("select 1")

    def _hears_itself(self, link: Link) -> bool:
        """Send a notice to ourselves and wait for it."""
        token, until = _TEST + secrets.token_hex(8), monotonic() + HEARD_WITHIN
        link.connection.execute("select pg_notify(%s, %s)", (self._house.names.channel, token))
        while not self._stopped.is_set() and monotonic() < until:
            if token in self._heard(link, 0.05):
                return True
        return False

    def _heard(self, link: Link, within: float) -> list[str]:
        """Pass on what arrives now, and return it."""
        link.until = math.inf
        payloads = [notify.payload for notify in link.connection.notifies(timeout=within, stop_after=1)]
        for payload in payloads:
            if not payload.startswith(_TEST):
                self._say(None if payload == EVERYTHING else payload)
        return payloads

    def _poll(self) -> None:
        """Say every second that something may have happened."""
        if not self._deaf:
            self._deaf = True
            log.warning(
                "%s does not pass NOTIFY on (a pooler?); watchers look every second instead; "
                "name the server itself to spare that",
                self._house.place,
            )
        while not self._stopped.wait(POLL_EVERY):
            self._say(None)
