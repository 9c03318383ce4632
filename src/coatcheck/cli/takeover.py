"""`coatcheck migrate` from another library: its sessions become ours before their browsers come (docs/coming-from.md).

The rules of work.py hold; and it looks through the old store until a whole look finds nothing that it could take.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from ..core.errors import ConfigError
from ..core.legacy import Source
from ..core.manager import SessionManager
from ..flow.takeover import Fate, Takeover
from ..legacy.urls import is_library, source_of
from ..stores.urls import is_shared, open_store
from . import terminal
from .terminal import Column, cell
from .work import AT_ONCE, Manner, Question, carry_out, paced

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*").fullmatch


def is_foreign(old: str) -> bool:
    """Tell whether `--from` names sessions of another library: by a URL, or by the manager of an application."""
    return is_library(old) or _NAMED(old) is not None


def take_over(old: str, new: str, manner: Manner) -> None:
    """Do what `coatcheck migrate` does for sessions of another library; see there."""
    with _opened(old, new) as taking:
        carry_out(taking, manner)


# -- taking over -------------------------------------------------------------------------------------------------------


@dataclass
class Taking:
    """What is taken over, as far as this run has come."""

    takeover: Takeover
    sources: tuple[Source, ...]
    listed: Counter[str] = field(default_factory=Counter)
    fit: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    over: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    proofs: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    unlisted: int = 0

    name = "Taking over"

    @property
    def total(self) -> int:
        """How many sessions there are to take."""
        return self.fit.total()

    @property
    def unfinished(self) -> bool:
        """Whether some were refused, cannot be listed, or are in neither store."""
        return bool(self.refused or self.proofs["missing"] or self.unlisted)

    def question(self) -> Question:
        """Return what to ask before it begins."""
        question = (
            f"Take {terminal.plural(self.total, 'session')} over? They leave the old store, so the old application "
            "loses them: it should be stopped, and ours running."
        )
        return Question("takes sessions over", question, "nothing was taken over")

    def count(self, *, dry_run: bool) -> None:
        """Look what there is to take; write nothing."""
        for source in self.sources:
            self.unlisted += source.unlisted()
            for key in source.listed():
                self.listed[source.library] += 1
                self._noted(source, self.takeover.look(source, key), self.fit)

    def go(self, rate: int, took_one: Callable[[], None]) -> None:
        """Take everything that can be taken, look after look: somebody may still write to the old store."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            while self._look(threads, rate, took_one):
                continue

    def _look(self, threads: ThreadPoolExecutor, rate: int, took_one: Callable[[], None]) -> int:
        before = self.taken.total()
        for counter in (self.over, self.refused, self.reasons):
            counter.clear()
        pairs = ((source, key) for source in self.sources for key in source.listed())
        for (source, _), fate in paced(threads, rate, pairs, self._one):
            self._noted(source, fate, self.taken)
            if fate.name == "taken":
                took_one()
        return self.taken.total() - before

    def _noted(self, source: Source, fate: Fate, taken: Counter[str]) -> None:
        counters = {"taken": taken, "over": self.over, "refused": self.refused}
        counters[fate.name][source.library] += 1
        if fate.why:
            self.reasons[fate.why] += 1

    def _one(self, pair: tuple[Source, str]) -> Fate:
        return self.takeover.take(*pair)

    def verify(self) -> None:
        """Look up every session that was ever taken over."""
        for proof in self.takeover.proofs():
            self.proofs[proof.name] += 1
            if proof.name == "ended":
                self.ended[proof.why] += 1

    # -- telling -------------------------------------------------------------------------------------------------------

    def table(self, *, dry_run: bool) -> tuple[list[Column], list[list[Text]]] | None:
        """Return the counts, a library a row."""
        if not self.listed:
            return None
        done = ("To take", self.fit) if dry_run else ("Taken over", self.taken)
        shown = {"Were in old": self.listed, done[0]: done[1], "Over": self.over, "Refused": self.refused}
        rows = [[cell(name), *(cell(str(counter[name])) for counter in shown.values())] for name in sorted(self.listed)]
        return [Column("Library"), *(Column(title) for title in shown)], rows

    def sentences(self, *, dry_run: bool) -> Iterator[str]:
        """Yield what became of them."""
        if dry_run:
            yield f"Would take {terminal.plural(self.total, 'session')} over; nothing was changed."
        else:
            proofs = self.proofs
            yield f"Took {terminal.plural(self.taken.total(), 'session')} over."
            since = ", ".join(f"{reason} {number}" for reason, number in sorted(self.ended.items()))
            ended = f", {self.ended.total()} ended there since ({since})" if since else ""
            forgotten = f", {proofs['forgotten']} ended and are forgotten" if proofs["forgotten"] else ""
            yield (
                f"Looked up all that were ever taken over: {proofs['live'] + proofs['waits']} live in the new store "
                f"({proofs['waits']} wait for their browser){ended}{forgotten}, {proofs['missing']} missing."
            )
        for reason, number in sorted(self.reasons.items()):
            yield f"{terminal.plural(number, 'session')} cannot be kept: {reason}."
        if self.unlisted:
            yield (
                f"{terminal.plural(self.unlisted, 'file')} of cachelib before 0.14 cannot be matched with a cookie "
                "from here; leave the folder where it is, and each is taken over when its browser comes."
            )
        if not (dry_run or self.refused or self.unlisted):
            off = "say moved=True of the source, and switch it off"
            yield f"Nothing is left in the old store that could be taken: {off}."

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """Return all of it, for programs."""
        libraries = {
            name: {
                "listed": self.listed[name],
                "to_take" if dry_run else "taken": (self.fit if dry_run else self.taken)[name],
                "over": self.over[name],
                "refused": self.refused[name],
            }
            for name in sorted(self.listed)
        }
        verified: dict[str, Any] | None = None
        if not dry_run:
            verified = {name: self.proofs[name] for name in ("waits", "live", "forgotten", "missing")}
            verified["ended"] = dict(sorted(self.ended.items()))
        return {
            "dry_run": dry_run,
            "libraries": libraries,
            "reasons": dict(sorted(self.reasons.items())),
            "unlisted": self.unlisted,
            "verified": verified,
        }


# -- opening -----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(old: str, new: str) -> Iterator[Taking]:
    if not is_shared(new):
        message = "a memory store is seen by its own process only; --to takes another"
        raise ConfigError(message)
    manager = SessionManager(legacy=[source_of(old)]) if is_library(old) else _manager(old)
    sources = tuple(manager.settings.legacy)
    if not sources:
        message = f"the manager {old} names no sessions of another library; give it legacy=[...]"
        raise ConfigError(message)
    gone = [source.library for source in sources if source.moved]
    if gone:
        message = (
            f"the source {gone[0]} says moved=True, so its old store is not asked; drop that until all are taken over"
        )
        raise ConfigError(message)
    listable = tuple(source for source in sources if _lists(source, alone=len(sources) == 1))
    store = open_store(new)
    try:
        yield Taking(Takeover(manager, store), listable)
    finally:
        store.close()


def _lists(source: Source, *, alone: bool) -> bool:
    """Tell whether a source can be listed; say why not, where it is one of several."""
    try:
        next(iter(source.listed()), None)
    except ConfigError as error:
        if alone:
            raise
        terminal.say(f"{str(error)[:1].upper()}{str(error)[1:]}.", aside=True)
        return False
    return True


def _manager(name: str) -> SessionManager:
    """Return the manager that `module:name` names, or whose `manager` it is; modules are found as by ASGI servers."""
    module, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        message = f"--from {name} cannot be imported here ({error}); give module:name of a SessionManager"
        raise ConfigError(message) from error
    found = getattr(found, "manager", found)
    if not isinstance(found, SessionManager):
        message = f"--from {name} is a {type(found).__name__}; it takes a SessionManager, or what has one as `manager`"
        raise ConfigError(message)
    return found
