"""The third servant of a SQLite file: the watcher, who tells whoever listens which sessions changed.

Rules
- What changed stands in table `changes`, written by triggers: so it is heard whichever process, or hand, did it. They
  write only while table `watchers` names somebody; a watcher is there before it begins to listen, and says now and then
  that it still is. One that finds itself forgotten (its process stood still for minutes) returns there, and says None.
- One daemon thread, started with the first listener, gone with the last (or the store), unknown to a forked child.
- Other processes are heard within POLL; this one wakes the watcher when it has written.
- It reads from the last change that it knows: if that is gone, something went unheard, and it says None.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

from ...core.errors import NotApplied, StoreError
from ...core.model import Handle
from . import rows, threads
from .file import COMMIT_DEADLINE, File, Here

Notice: TypeAlias = Callable[[Handle | None], None]

POLL: Final = 0.25
GATHER: Final = 0.005
"""Seconds in which the commits of this process are gathered into one look."""
LEASE: Final = 300.0
"""Seconds after which a watcher that says nothing may be forgotten; it says something three times in that."""

_log: Final = logging.getLogger("coatcheck")


def watch(file: File, here: Here, notice: Notice) -> Callable[[], None]:
    """Tell `notice` from now on; return what ends that."""
    while True:
        # made outside of the gate, as the keeper is: a thread that starts lets others run, where they are greenlets
        begun = None if isinstance(file.watcher, Watcher) else Watcher(file, *_begun(file, here))
        with file.gate:
            watcher = file.watcher
            if not isinstance(watcher, Watcher) and begun is not None:
                file.watcher = file.servants["watcher"] = watcher = begun
                begun = None
            if isinstance(watcher, Watcher):
                watcher.notices = (*watcher.notices, notice)
        if begun is not None:  # another thread was faster
            begun.leave()
            threads.in_turn(file, here, partial(rows.end_watch, name=begun.name), COMMIT_DEADLINE)
        if isinstance(watcher, Watcher):
            return partial(_unwatch, weakref.ref(file), watcher, notice)


def _begun(file: File, here: Here) -> tuple[str, int]:
    """Have changes noted; return under which name, and the number of the last one before."""
    name = secrets.token_hex(8)
    threads.in_turn(file, here, partial(rows.begin_watch, name=name, until=time.time() + LEASE), COMMIT_DEADLINE)
    with file.errors:
        link = file.take(here)
        try:
            return name, rows.last_change(link)
        finally:
            link.busy = False


def _unwatch(file_of: weakref.ref[File], watcher: Watcher, notice: Notice) -> None:
    file = file_of()
    if file is None:
        return
    with file.gate:
        watcher.notices = tuple(one for one in watcher.notices if one is not notice)
        idle = not watcher.notices and file.watcher is watcher
        if idle:
            file.watcher = None
            file.servants.pop("watcher", None)
    if idle:
        watcher.leave()


class Watcher:
    """One thread that looks for changes."""

    def __init__(self, file: File, name: str, since: int) -> None:
        """Start at once; changes are noted for this name, and what was changed up to `since` is known."""
        self.notices: tuple[Notice, ...] = ()
        self.name, self.last = name, since
        self._say_at = time.monotonic() + LEASE / 3
        self._woken = threading.Event()
        self._stopped = False
        weakref.finalize(file, self.leave)
        self._thread = threading.Thread(
            target=self._work, args=(weakref.ref(file),), name="coatcheck-sqlite-watcher", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Look soon: this process has written."""
        self._woken.set()

    def stop(self) -> None:
        """End, after the look at hand, and wait for that."""
        self.leave()
        if self._thread is not threading.current_thread():
            self._thread.join(COMMIT_DEADLINE)

    def leave(self) -> None:
        """End, after the look at hand."""
        self._stopped = True
        self._woken.set()

    def _work(self, file_of: weakref.ref[File]) -> None:
        here, deaf = Here(0.1), False
        while not self._stopped:
            if self._woken.wait(POLL):
                time.sleep(GATHER)
                self._woken.clear()
            file = file_of()
            if file is None:
                return
            if self._stopped:
                break
            try:
                self._tell(self._look(file, here))
                deaf = False
            except StoreError as error:
                if not deaf:
                    _log.warning("changes of the session store go unheard: %s", error)
                deaf = True
            del file
        file, link = file_of(), here.link
        if file is not None and link is not None and link.era is file.era:  # else the next keeper forgets us
            with suppress(StoreError):
                threads.in_turn(file, here, partial(rows.end_watch, name=self.name), 0.1)

    def _look(self, file: File, here: Here) -> list[Handle | None]:
        with file.errors:
            link = file.take(here)
            try:
                known = rows.is_watching(link, self.name)
                last, handles = rows.changes_since(link, self.last)
            finally:
                link.busy = False
        if not known:
            self._say(file, here)
            handles = [None]  # what changed meanwhile was not noted
        elif time.monotonic() >= self._say_at:
            with suppress(NotApplied):  # somebody else is writing; there is time
                self._say(file, here)
        self.last = last
        return handles

    def _say(self, file: File, here: Here) -> None:
        """Say that this watcher is there."""
        until = time.time() + LEASE
        threads.in_turn(file, here, partial(rows.begin_watch, name=self.name, until=until), 0.1)
        self._say_at = time.monotonic() + LEASE / 3

    def _tell(self, handles: list[Handle | None]) -> None:
        for notice in self.notices if handles else ():
            try:
                for handle in handles:
                    notice(handle)
            except Exception:  # noqa: BLE001 - a listener is the application's; the others must hear
                _log.exception("a listener for changes of the session store failed")
