"""`coatcheck migrate`: moves the sessions of one store to another while applications use both (docs/moving.md).

Rules
- Nothing is kept beside the stores: killed at any moment and run again, it goes on where it was.
- It may say that nothing is left only after it has looked at a moment at which nobody created sessions in the old
  store any more.
- What it counts at the end it has looked up, session by session.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..core.errors import ConfigError, NotApplied, StoreError, Unknown
from ..core.model import MOVED, Instant, Query, Record
from ..flow.sync import Store
from ..stores.moving import DualStore, Moved, is_copy
from ..stores.urls import file_of, is_shared, open_store
from . import terminal
from .door import AsJson
from .takeover import is_foreign, take_over
from .terminal import Column, cell
from .when import iso

SETTLED_AFTER: Final = 5.0
"""Seconds after the beginning within which a worker may still create a session in the old store."""
WAIT: Final = 2.0
AT_ONCE: Final = 4
CHUNK: Final = 64
PAGE: Final = 5000
"""Records a listing; a store that has no order of its own (Redis) looks through everything for each."""
TRIES: Final = 8


def migrate(
    old: Annotated[
        str, typer.Option("--from", metavar="URL", help="The store, or old library, that has the sessions.")
    ],
    new: Annotated[str, typer.Option("--to", metavar="URL", help="The store to which they move; empty at first.")],
    rate: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many sessions a second.")] = 1_000_000,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be moved, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move all sessions to another store, while applications run; nobody is logged out.

    All workers must have been started with moving+NEW?from=OLD before; those that were not answer 503 from now on.
    Stopped or killed, run it again: it goes on where it was. Exits with 1 while sessions are left in the old store.

    Sessions of another library become ours before their browsers come: --from flask-session+redis://localhost/0 (also
    django+, starsessions+, litestar+), or --from shop.sessions:manager, whose `legacy` names them; docs/coming-from.md.

    Example: coatcheck migrate --from sqlite:///sessions.db --to postgresql://db/shop
    """
    if is_foreign(old):
        take_over(old, new, rate, yes=yes, dry_run=dry_run, as_json=as_json)
        return
    with _opened(old, new) as move:
        move.count(dry_run=dry_run)
        if dry_run:
            _report(move, as_json=as_json, dry_run=True)
            return
        if not (yes or move.begun):
            _ask(move)
        try:
            with _bar(move.before.total(), shown=not as_json) as moved_one:
                move.go(rate, moved_one)
        except KeyboardInterrupt:
            terminal.complain("stopped; nothing is lost: run it again to go on")
            raise typer.Exit(1) from None
        move.verify()
        _report(move, as_json=as_json, dry_run=False)
        if move.left or move.missing:
            raise typer.Exit(1)


def _ask(move: Move) -> None:
    if not sys.stdin.isatty():
        message = "this begins to move sessions, and nobody is there to ask; add --yes (or look first: --dry-run)"
        raise ConfigError(message)
    sentence = (
        f"Move {terminal.plural(move.before.total(), 'session')}? "
        "From now on, workers that were not started with the moving+ URL answer 503."
    )
    if not typer.confirm(sentence, err=True):
        terminal.complain("nothing was moved")
        raise typer.Exit(1)


# -- moving ------------------------------------------------------------------------------------------------------------


@dataclass
class Move:
    """A move, as far as this run has come; counts are by realm."""

    dual: DualStore
    before: Counter[str] = field(default_factory=Counter)
    unfit: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Why sessions ended in the new store after they had been moved."""
    alive: int = 0
    missing: int = 0
    until: Instant = 0.0
    began_at: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether an earlier run began to move."""
        return self.dual.begun

    def count(self, *, dry_run: bool) -> None:
        """Count what there is to move. In a dry run, a new store without shards is not even opened."""
        if not dry_run or self.dual.sharded:
            self.dual.epochs()
        for record in _each(self.dual.old):
            self.before[record.realm] += 1
            if not self.dual.fits(record):
                self.unfit[record.realm] += 1

    def go(self, rate: int, moved_one: Callable[[], None]) -> None:
        """Move everything, pass after pass: others write meanwhile."""
        self.dual.begin()
        self.began_at = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            while True:
                settled = time.monotonic() - self.began_at >= SETTLED_AFTER
                outcomes = self._pass(threads, rate, moved_one)
                if not outcomes.keys() - {"stays"} and settled:
                    return
                if not outcomes["moved"]:
                    time.sleep(WAIT)

    def _pass(self, threads: ThreadPoolExecutor, rate: int, moved_one: Callable[[], None]) -> Counter[Moved]:
        outcomes: Counter[Moved] = Counter()
        self.left.clear()
        start, done = time.monotonic(), 0
        for chunk in _chunks(_each(self.dual.old), min(CHUNK, rate)):
            for record, outcome in zip(chunk, threads.map(self._one, chunk), strict=True):
                outcomes[outcome] += 1
                if outcome == "moved":
                    self.moved[record.realm] += 1
                    moved_one()
                elif outcome == "stays":
                    self.left[record.realm] += 1
                    self.until = max(self.until, record.expires_at)
            done += len(chunk)
            time.sleep(max(0.0, start + done / rate - time.monotonic()))
        return outcomes

    def _one(self, record: Record) -> Moved:
        for number in range(TRIES):
            try:
                return self.dual.move(record.handle)
            except (NotApplied, Unknown):
                if number == TRIES - 1:
                    raise
                time.sleep(0.05 * 2**number)
        raise AssertionError

    def verify(self) -> None:
        """Look up every session that was moved, and count what lives in the new store."""
        for record in _each(self.dual.old, live=False):
            if record.ended_because != MOVED:
                continue
            found = self.dual.load(record.handle)
            if found is None:
                self.missing += 1
            elif found.ended_at is None:
                self.alive += 1
            else:
                self.ended[found.ended_because or "unknown"] += 1
        for record in _each(self.dual.new):
            if not is_copy(record) or self.dual.move(record.handle) == "moved":
                self.now[record.realm] += 1


def _each(store: Store, *, live: bool = True) -> Iterator[Record]:
    cursor = None
    while True:
        page = store.find(Query(live=live, limit=PAGE, cursor=cursor))
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def _chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# -- opening and telling -----------------------------------------------------------------------------------------------


@contextmanager
def _opened(old: str, new: str) -> Iterator[Move]:
    """Open both stores: the old one must be there, the new one is made when something is moved."""
    for option, url in (("--from", old), ("--to", new)):
        if not is_shared(url):
            message = f"a memory store is seen by its own process only; {option} takes another"
            raise ConfigError(message)
    path = file_of(old)
    if path is not None and not path.exists():
        message = f"there is no file {str(path)!r}; check --from (three slashes: relative, four: absolute)"
        raise StoreError(message)
    dual = DualStore(open_store(new), open_store(old, create=False))
    try:
        yield Move(dual)
    finally:
        dual.close()


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yield what moves it on by one."""
    console = Console(stderr=True)
    columns = (TextColumn("Moving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _report(move: Move, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        terminal.document(_document(move, dry_run=dry_run))
        return
    if move.before or move.now:
        terminal.table(*_table(move, dry_run=dry_run))
    for sentence in _sentences(move, dry_run=dry_run):
        terminal.say(sentence)


def _table(move: Move, *, dry_run: bool) -> tuple[list[Column], list[list[Any]]]:
    titles = ["Realm", "To move", "Cannot move"]
    counters = [move.before, move.unfit]
    if not dry_run:
        titles = ["Realm", "Were in old", "Moved", "Ended", "Left in old", "Are in new"]
        over = Counter({realm: move.before[realm] - move.moved[realm] - move.left[realm] for realm in move.before})
        counters = [move.before, move.moved, +over, move.left, move.now]
    realms = sorted({*move.before, *move.now})
    rows = [[cell(realm), *(cell(str(counter[realm])) for counter in counters)] for realm in realms]
    return [Column(title) for title in titles], rows


def _sentences(move: Move, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        yield f"Would move {terminal.plural((move.before - move.unfit).total(), 'session')}; nothing was changed."
    else:
        yield f"Moved {terminal.plural(move.moved.total(), 'session')}."
        since = ", ".join(f"{reason} {number}" for reason, number in sorted(move.ended.items()))
        ended = f", {move.ended.total()} ended there since ({since})" if since else ""
        yield f"Looked up all that were ever moved: {move.alive} live in the new store{ended}, {move.missing} missing."
    stay = move.unfit if dry_run else move.left
    if stay:
        until = "" if dry_run else f", the last at {iso(move.until)} at the latest"
        yield (
            f"{terminal.plural(stay.total(), 'session')} cannot move: the new store keeps each subject in a shard, and "
            f"their handles name none. They live on in the old store until they end{until}. Keep both stores, and run "
            "this again."
        )
    elif not dry_run:
        yield "Nothing is left in the old store: start the workers with the new one alone."


def _document(move: Move, *, dry_run: bool) -> dict[str, Any]:
    realms = sorted({*move.before, *move.now})
    found: dict[str, Any] = {
        realm: {
            "before": move.before[realm],
            "cannot_move": move.unfit[realm],
            "moved": move.moved[realm],
            "left": move.left[realm],
            "in_new": move.now[realm],
        }
        for realm in realms
    }
    verified = (
        None if dry_run else {"live": move.alive, "ended": dict(sorted(move.ended.items())), "missing": move.missing}
    )
    left_until = iso(move.until) if move.left else None
    return {"dry_run": dry_run, "realms": found, "verified": verified, "left_until": left_until}
