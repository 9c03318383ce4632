"""`coatcheck migrate`: moves the sessions of one store to another while applications use both (docs/moving.md).

The rules of work.py hold; and it may say that nothing is left only after it has looked at a moment at which nobody
created sessions in the old store any more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from ..core.errors import ConfigError, StoreError
from ..core.model import MOVED, Instant, Query, Record
from ..flow.store import Store
from ..stores.moving import DualStore, Moved, is_copy
from ..stores.urls import file_of, is_shared, open_store
from . import terminal
from .door import AsJson
from .takeover import is_foreign, take_over
from .terminal import Column, cell
from .when import iso
from .work import AT_ONCE, Manner, Question, carry_out, paced

SETTLED_AFTER: Final = 5.0
"""Seconds after the beginning within which a worker may still create a session in the old store."""
WAIT: Final = 2.0
PAGE: Final = 5000
"""Records a listing; a store that has no order of its own (Redis) looks through everything for each."""


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
    manner = Manner(rate, yes, dry_run, as_json)
    if is_foreign(old):
        take_over(old, new, manner)
        return
    with _opened(old, new) as move:
        carry_out(move, manner)


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

    name = "Moving"

    @property
    def total(self) -> int:
        """How many sessions there are to move."""
        return self.before.total()

    @property
    def unfinished(self) -> bool:
        """Whether sessions are left in the old store, or are in neither."""
        return bool(self.left or self.missing)

    def question(self) -> Question | None:
        """Return what to ask before it begins; None: it began in an earlier run."""
        if self.dual.begun:
            return None
        question = (
            f"Move {terminal.plural(self.total, 'session')}? "
            "From now on, workers that were not started with the moving+ URL answer 503."
        )
        return Question("begins to move sessions", question, "nothing was moved")

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
        for record, outcome in paced(threads, rate, _each(self.dual.old), self._one):
            outcomes[outcome] += 1
            if outcome == "moved":
                self.moved[record.realm] += 1
                moved_one()
            elif outcome == "stays":
                self.left[record.realm] += 1
                self.until = max(self.until, record.expires_at)
        return outcomes

    def _one(self, record: Record) -> Moved:
        return self.dual.move(record.handle)

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

    # -- telling -------------------------------------------------------------------------------------------------------

    def table(self, *, dry_run: bool) -> tuple[list[Column], list[list[Text]]] | None:
        """Return the counts, a realm a row."""
        if not (self.before or self.now):
            return None
        titles = ["Realm", "To move", "Cannot move"]
        counters = [self.before, self.unfit]
        if not dry_run:
            titles = ["Realm", "Were in old", "Moved", "Ended", "Left in old", "Are in new"]
            over = Counter({realm: self.before[realm] - self.moved[realm] - self.left[realm] for realm in self.before})
            counters = [self.before, self.moved, +over, self.left, self.now]
        realms = sorted({*self.before, *self.now})
        rows = [[cell(realm), *(cell(str(counter[realm])) for counter in counters)] for realm in realms]
        return [Column(title) for title in titles], rows

    def sentences(self, *, dry_run: bool) -> Iterator[str]:
        """Yield what became of them."""
        if dry_run:
            yield f"Would move {terminal.plural((self.before - self.unfit).total(), 'session')}; nothing was changed."
        else:
            yield f"Moved {terminal.plural(self.moved.total(), 'session')}."
            since = ", ".join(f"{reason} {number}" for reason, number in sorted(self.ended.items()))
            ended = f", {self.ended.total()} ended there since ({since})" if since else ""
            lives = f"{self.alive} live in the new store{ended}, {self.missing} missing"
            yield f"Looked up all that were ever moved: {lives}."
        stay = self.unfit if dry_run else self.left
        if stay:
            until = "" if dry_run else f", the last at {iso(self.until)} at the latest"
            yield (
                f"{terminal.plural(stay.total(), 'session')} cannot move: the new store keeps each subject in a shard, "
                f"and their handles name none. They live on in the old store until they end{until}. Keep both stores, "
                "and run this again."
            )
        elif not dry_run:
            yield "Nothing is left in the old store: start the workers with the new one alone."

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """Return all of it, for programs."""
        realms = sorted({*self.before, *self.now})
        found: dict[str, Any] = {
            realm: {
                "before": self.before[realm],
                "cannot_move": self.unfit[realm],
                "moved": self.moved[realm],
                "left": self.left[realm],
                "in_new": self.now[realm],
            }
            for realm in realms
        }
        verified = (
            None
            if dry_run
            else {"live": self.alive, "ended": dict(sorted(self.ended.items())), "missing": self.missing}
        )
        left_until = iso(self.until) if self.left else None
        return {"dry_run": dry_run, "realms": found, "verified": verified, "left_until": left_until}


def _each(store: Store, *, live: bool = True) -> Iterator[Record]:
    cursor = None
    while True:
        page = store.find(Query(live=live, limit=PAGE, cursor=cursor))
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


# -- opening -----------------------------------------------------------------------------------------------------------


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
