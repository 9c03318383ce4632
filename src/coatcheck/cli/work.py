"""How a command does long work over stores: it counts, asks, works at a rate, looks everything up, and tells.

Rules
- Nothing is kept beside the stores: killed at any moment and run again, it goes on where it was.
- What it counts at the end it has looked up, session by session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..core.errors import NotApplied, Unknown
from . import terminal
from .asking import agreed, need_somebody
from .terminal import Column

AT_ONCE: Final = 4
CHUNK: Final = 64
TRIES: Final = 8

T = TypeVar("T")
R = TypeVar("R")


class Manner(NamedTuple):
    """How it was asked for: the options that all such commands have."""

    rate: int
    yes: bool
    dry_run: bool
    as_json: bool


class Question(NamedTuple):
    """What is asked before: what this does, in a sentence for who is not there; the question; what a no leaves."""

    what: str
    question: str
    otherwise: str


class Work(Protocol):
    """A piece of work, as far as this run has come."""

    @property
    def name(self) -> str:
        """What stands before the progress bar."""
        ...

    @property
    def total(self) -> int:
        """How many sessions there are to do."""
        ...

    @property
    def unfinished(self) -> bool:
        """Whether something is left, refused or missing: then the command exits with 1."""
        ...

    def count(self, *, dry_run: bool) -> None:
        """Look what there is to do; write nothing."""
        ...

    def question(self) -> Question | None:
        """Return what to ask before it begins; None: it began in an earlier run."""
        ...

    def go(self, rate: int, did_one: Callable[[], None], /) -> None:
        """Do all that can be done."""
        ...

    def verify(self) -> None:
        """Look up every session that was ever done."""
        ...

    def table(self, *, dry_run: bool) -> tuple[list[Column], list[list[Text]]] | None:
        """Return the counts, for people; None: there are none."""
        ...

    def sentences(self, *, dry_run: bool) -> Iterator[str]:
        """Yield what else there is to say."""
        ...

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """Return all of it, for programs."""
        ...


def carry_out(work: Work, manner: Manner) -> None:
    """Do a piece of work as it was asked for, and tell; leave with 1 where something is left."""
    work.count(dry_run=manner.dry_run)
    if manner.dry_run:
        _report(work, manner)
        return
    asked = None if manner.yes else work.question()
    if asked is not None:
        need_somebody(asked.what, look=True)
        agreed(asked.question, asked.otherwise)
    try:
        with _bar(work, shown=not manner.as_json) as did_one:
            work.go(manner.rate, did_one)
    except KeyboardInterrupt:
        terminal.complain("stopped; nothing is lost: run it again to go on")
        raise typer.Exit(1) from None
    work.verify()
    _report(work, manner)
    if work.unfinished:
        raise typer.Exit(1)


def paced(threads: Executor, rate: int, items: Iterable[T], act: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Yield each item with what the act makes of it: several at once, at most `rate` a second."""
    start, done = time.monotonic(), 0
    for chunk in _chunks(items, min(CHUNK, rate)):
        yield from zip(chunk, threads.map(partial(_tried, act), chunk), strict=True)
        done += len(chunk)
        time.sleep(max(0.0, start + done / rate - time.monotonic()))


def _tried(act: Callable[[T], R], item: T) -> R:
    """Act, again where the store did not take it: every act may be done twice."""
    for number in range(TRIES):
        try:
            return act(item)
        except (NotApplied, Unknown):
            if number == TRIES - 1:
                raise
            time.sleep(0.05 * 2**number)
    raise AssertionError


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@contextmanager
def _bar(work: Work, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yield what moves it on by one."""
    console = Console(stderr=True)
    columns = (TextColumn(work.name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("", total=work.total)
        yield lambda: progress.advance(task)


def _report(work: Work, manner: Manner) -> None:
    if manner.as_json:
        terminal.document(work.document(dry_run=manner.dry_run))
        return
    table = work.table(dry_run=manner.dry_run)
    if table is not None:
        terminal.table(*table)
    for sentence in work.sentences(dry_run=manner.dry_run):
        terminal.say(sentence)
