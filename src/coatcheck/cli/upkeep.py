"""`coatcheck purge` and `coatcheck events`: what a timer runs, and what an auditor reads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import typer

from ..core.model import Event, EventPage, Handle, Instant
from . import terminal, views
from .door import PAGE, AsJson, Door, RealmName, StoreUrl, Subject, handle, opened
from .when import When, when

FOLLOW_EVERY: Final = 1.0
_LATE: Final = 5.0
"""Seconds for which an event may be written after one that is younger."""


def purge(
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100_000,
    *,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """End overdue sessions and forget those that ended long ago.

    Applications do this by themselves, after responses; run it where they are quiet. Finding nothing is no failure.

    Example: coatcheck purge --store sqlite:////var/lib/shop/sessions.db
    """
    with opened(store) as door:
        number = door.registry(None).purge(limit)
    if as_json:
        terminal.document({"purged": number})
    else:
        terminal.say(f"Purged {terminal.plural(number, 'session')}.")


def events(
    subject: Subject = None,
    session: Annotated[
        Handle | None, typer.Option("--handle", parser=handle, metavar="HANDLE", help="Only this session's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this name: session_revoked ...")
    ] = None,
    since: Annotated[
        When | None, typer.Option(parser=when, metavar="WHEN", help="Only since then: 2h, 7d, 2026-11-24T18:00Z.")
    ] = None,
    realm: RealmName = None,
    *,
    noise: Annotated[
        bool | None, typer.Option("--noise/--no-noise", help="Only what anyone can cause, or all but that.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many, the newest.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens, until Ctrl-C.")] = False,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """Show what happened, oldest first. As JSON: one object a line.

    Example: coatcheck events --subject alice --since 24h

    Example: coatcheck events --follow --no-noise
    """
    with opened(store, realm) as door:
        asked = _Asked(door, subject, session, name, since, noise=noise)
        found = asked.newest(limit)
        _print(found, as_json=as_json)
        if follow:
            try:
                _follow(asked, found, as_json=as_json)
            except KeyboardInterrupt:
                return
        if not found:
            terminal.complain("no event matches")
            raise typer.Exit(1)


class _Asked:
    """The events that a command asks for."""

    def __init__(
        self,
        door: Door,
        subject: str | None,
        session: Handle | None,
        name: str | None,
        since: When | None,
        *,
        noise: bool | None,
    ) -> None:
        self.now = door.now
        self._registry = door.registry(door.realm)
        self._subject, self._handle, self._name, self._noise = subject, session, name, noise
        self._since = None if since is None else since(door.now)

    def newest(self, limit: int) -> list[Event]:
        """Return the newest ones, oldest first."""
        found: list[Event] = []
        for page in self._pages(self._since, limit):
            found += page.items
            if len(found) >= limit:
                break
        return found[limit - 1 :: -1] if len(found) > limit else found[::-1]

    def after(self, moment: Instant) -> list[Event]:
        """Return all from a moment on, oldest first."""
        return [event for page in self._pages(moment, PAGE) for event in page.items][::-1]

    def _pages(self, since: Instant | None, limit: int) -> Iterator[EventPage]:
        cursor = None
        while True:
            page = self._registry.events(
                subject=self._subject,
                handle=self._handle,
                name=self._name,
                noise=self._noise,
                since=since,
                limit=min(limit, PAGE),
                cursor=cursor,
            )
            yield page
            cursor = page.cursor
            if cursor is None:
                return


def _follow(asked: _Asked, shown: list[Event], *, as_json: bool) -> None:
    """Look each second; a little back each time, since commits may arrive out of order."""
    last = max((event.at for event in shown), default=asked.now)
    seen = {repr(event): event.at for event in shown}
    if not shown:
        seen = {repr(event): event.at for event in asked.after(last - _LATE)}
    while True:
        time.sleep(FOLLOW_EVERY)
        fresh = [event for event in asked.after(last - _LATE) if repr(event) not in seen]
        _print(fresh, as_json=as_json)
        last = max([last, *(event.at for event in fresh)])
        seen |= {repr(event): event.at for event in fresh}
        seen = {key: at for key, at in seen.items() if at >= last - _LATE}


def _print(found: Iterable[Event], *, as_json: bool) -> None:
    if as_json:
        for event in found:
            terminal.document(views.event_json(event))
    else:
        terminal.entries(views.event_entries(found))
