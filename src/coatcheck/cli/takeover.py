"""`coatcheck migrate` from another library: its sessions become ours before their browsers come (docs/coming-from.md).

Rules
- Nothing is kept beside the stores: killed at any moment and run again, it goes on where it was.
- It looks through the old store until a whole look finds nothing that it could take.
- What it counts at the end it has looked up, session by session.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..core.errors import ConfigError, NotApplied, Unknown
from ..core.legacy import Source
from ..core.manager import SessionManager
from ..flow.takeover import Fate, Takeover
from ..legacy.urls import is_library, source_of
from ..stores.urls import is_shared, open_store
from . import terminal
from .terminal import Column, cell

AT_ONCE: Final = 4
CHUNK: Final = 64
TRIES: Final = 8

T = TypeVar("T")

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*").fullmatch


def is_foreign(old: str) -> bool:
    """Tell whether `--from` names sessions of another library: by a URL, or by the manager of an application."""
    return is_library(old) or _NAMED(old) is not None


def take_over(old: str, new: str, rate: int, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Do what `coatcheck migrate` does for sessions of another library; see there."""
    with _opened(old, new) as work:
        work.count()
        if dry_run:
            _report(work, as_json=as_json, dry_run=True)
            return
        if not yes:
            _ask(work)
        try:
            with _bar(work.total, shown=not as_json) as took_one:
                work.go(rate, took_one)
        except KeyboardInterrupt:
            terminal.complain("stopped; nothing is lost: run it again to go on")
            raise typer.Exit(1) from None
        work.verify()
        _report(work, as_json=as_json, dry_run=False)
        if work.refused or work.proofs["missing"] or work.unlisted:
            raise typer.Exit(1)


def _ask(work: Work) -> None:
    if not sys.stdin.isatty():
        message = "this takes sessions over, and nobody is there to ask; add --yes (or look first: --dry-run)"
        raise ConfigError(message)
    sentence = (
        f"Take {terminal.plural(work.total, 'session')} over? They leave the old store, so the old application loses "
        "them: it should be stopped, and ours running."
    )
    if not typer.confirm(sentence, err=True):
        terminal.complain("nothing was taken over")
        raise typer.Exit(1)


# -- taking over -------------------------------------------------------------------------------------------------------


@dataclass
class Work:
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

    @property
    def total(self) -> int:
        """How many sessions there are to take."""
        return self.fit.total()

    def count(self) -> None:
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
        start, done = time.monotonic(), 0
        pairs = ((source, key) for source in self.sources for key in source.listed())
        for chunk in _chunks(pairs, min(CHUNK, rate)):
            for (source, _), fate in zip(chunk, threads.map(self._one, chunk), strict=True):
                self._noted(source, fate, self.taken)
                if fate.name == "taken":
                    took_one()
            done += len(chunk)
            time.sleep(max(0.0, start + done / rate - time.monotonic()))
        return self.taken.total() - before

    def _noted(self, source: Source, fate: Fate, taken: Counter[str]) -> None:
        counters = {"taken": taken, "over": self.over, "refused": self.refused}
        counters[fate.name][source.library] += 1
        if fate.why:
            self.reasons[fate.why] += 1

    def _one(self, pair: tuple[Source, str]) -> Fate:
        for number in range(TRIES):
            try:
                return self.takeover.take(*pair)
            except (NotApplied, Unknown):
                if number == TRIES - 1:
                    raise
                time.sleep(0.05 * 2**number)
        raise AssertionError

    def verify(self) -> None:
        """Look up every session that was ever taken over."""
        for proof in self.takeover.proofs():
            self.proofs[proof.name] += 1
            if proof.name == "ended":
                self.ended[proof.why] += 1


def _chunks(pairs: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# -- opening and telling -----------------------------------------------------------------------------------------------


@contextmanager
def _opened(old: str, new: str) -> Iterator[Work]:
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
        yield Work(Takeover(manager, store), listable)
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


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yield what moves it on by one."""
    console = Console(stderr=True)
    columns = (TextColumn("Taking over"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _report(work: Work, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        terminal.document(_document(work, dry_run=dry_run))
        return
    if work.listed:
        terminal.table(*_table(work, dry_run=dry_run))
    for sentence in _sentences(work, dry_run=dry_run):
        terminal.say(sentence)


def _table(work: Work, *, dry_run: bool) -> tuple[list[Column], list[list[Any]]]:
    done = ("To take", work.fit) if dry_run else ("Taken over", work.taken)
    shown = {"Were in old": work.listed, done[0]: done[1], "Over": work.over, "Refused": work.refused}
    rows = [[cell(name), *(cell(str(counter[name])) for counter in shown.values())] for name in sorted(work.listed)]
    return [Column("Library"), *(Column(title) for title in shown)], rows


def _sentences(work: Work, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        yield f"Would take {terminal.plural(work.total, 'session')} over; nothing was changed."
    else:
        proofs = work.proofs
        yield f"Took {terminal.plural(work.taken.total(), 'session')} over."
        since = ", ".join(f"{reason} {number}" for reason, number in sorted(work.ended.items()))
        ended = f", {work.ended.total()} ended there since ({since})" if since else ""
        forgotten = f", {proofs['forgotten']} ended and are forgotten" if proofs["forgotten"] else ""
        yield (
            f"Looked up all that were ever taken over: {proofs['live'] + proofs['waits']} live in the new store "
            f"({proofs['waits']} wait for their browser){ended}{forgotten}, {proofs['missing']} missing."
        )
    for reason, number in sorted(work.reasons.items()):
        yield f"{terminal.plural(number, 'session')} cannot be kept: {reason}."
    if work.unlisted:
        yield (
            f"{terminal.plural(work.unlisted, 'file')} of cachelib before 0.14 cannot be matched with a cookie from "
            "here; leave the folder where it is, and each is taken over when its browser comes."
        )
    if not (dry_run or work.refused or work.unlisted):
        yield "Nothing is left in the old store that could be taken: say moved=True of the source, and switch it off."


def _document(work: Work, *, dry_run: bool) -> dict[str, Any]:
    libraries = {
        name: {
            "listed": work.listed[name],
            "to_take" if dry_run else "taken": (work.fit if dry_run else work.taken)[name],
            "over": work.over[name],
            "refused": work.refused[name],
        }
        for name in sorted(work.listed)
    }
    verified: dict[str, Any] | None = None
    if not dry_run:
        verified = {name: work.proofs[name] for name in ("waits", "live", "forgotten", "missing")}
        verified["ended"] = dict(sorted(work.ended.items()))
    return {
        "dry_run": dry_run,
        "libraries": libraries,
        "reasons": dict(sorted(work.reasons.items())),
        "unlisted": work.unlisted,
        "verified": verified,
    }
