"""The third servant of a SQLite file: the watcher, who tells whoever listens which sessions changed.

Rules
- What changed stands in table `changes`, written by triggers: so it is heard whichever process, or hand, did it.
- One daemon thread, started with the first listener, gone with the last (or the store), unknown to a forked child.
- Other processes are heard within POLL; this one wakes the watcher when it has written.
- It reads from the last change that it knows: if that is gone, something went unheard, and it says None.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from ...core.errors import StoreError
from ...core.model import Handle
from . import rows
from .file import COMMIT_DEADLINE, File, Here

Notice: TypeAlias = Callable[[Handle | None], None]

POLL: Final = 0.25
GATHER: Final = 0.005
"""Seconds in which the commits of this process are gathered into one look."""

_log: Final = logging.getLogger("coatcheck")


def watch(file: File, here: Here, notice: Notice) -> Callable[[], None]:
    """Tell `notice` from now on; return what ends that."""
    with file.errors:
        link = file.take(here)
        try:
            since = rows.last_change(link)
        finally:
            link.busy = False
    begun = None if isinstance(file.watcher, Watcher) else Watcher(file, since)  # not within the gate, as the keeper
    with file.gate:
        watcher = file.watcher
        if not isinstance(watcher, Watcher):
            watcher, begun = begun or Watcher(file, since), None
            file.watcher = file.servants["watcher"] = watcher
        watcher.notices = (*watcher.notices, notice)
    if begun is not None:
        begun.leave()
    return partial(_unwatch, weakref.ref(file), watcher, notice)


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

    def __init__(self, file: File, since: int) -> None:
        """Start at once; what was changed up to `since` is known."""
        self.notices: tuple[Notice, ...] = ()
        self.last = since
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
            if file is None or self._stopped:
                return
            try:
                self._tell(self._look(file, here))
                deaf = False
            except StoreError as error:
                if not deaf:
                    _log.warning("changes of the session store go unheard: %s", error)
                deaf = True
            del file

    def _look(self, file: File, here: Here) -> list[Handle | None]:
        with file.errors:
            link = file.take(here)
            try:
                self.last, handles = rows.changes_since(link, self.last)
            finally:
                link.busy = False
        return handles

    def _tell(self, handles: list[Handle | None]) -> None:
        for notice in self.notices if handles else ():
            try:
                for handle in handles:
                    notice(handle)
            except Exception:  # noqa: BLE001 - a listener is the application's; the others must hear
                _log.exception("a listener for changes of the session store failed")
