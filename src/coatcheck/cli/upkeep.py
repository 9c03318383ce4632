"""`coatcheck purge` and `coatcheck events`: what a cron job runs, and what an auditor reads."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..core.model import Event, EventPage
from . import app as common
from . import render
from .when import moment

_FOLLOW_EVERY = 1.0


def register(app: typer.Typer) -> None:
    """Add the commands, once."""
    if any(one.name == "purge" for one in app.registered_commands):
        return
    app.command("purge", epilog="Example: coatcheck purge --store sqlite:///sessions.db")(purge)
    app.command("events", epilog="Example: coatcheck events --subject alice --since 2h --store sqlite:///sessions.db")(
        events
    )


def purge(
    store: common.StoreUrl = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 100_000,
    *,
    as_json: common.AsJson = False,
) -> None:
    """End overdue sessions and forget old tombstones, in batches. Stores purge by themselves; this hurries them."""
    number = common.registry_of(store, None).purge(limit)
    if as_json:
        render.as_json({"purged": number})
    else:
        render.say(f"{number} row{'' if number == 1 else 's'} purged.")


def events(
    store: common.StoreUrl = "",
    subject: Annotated[str | None, typer.Option(help="Only this subject's.")] = None,
    handle: Annotated[str | None, typer.Option(help="Only this session's.")] = None,
    name: Annotated[str | None, typer.Option(help="Only events of this name.")] = None,
    since: Annotated[str | None, typer.Option(help="Only since then (2h, 7d, or a moment).")] = None,
    realm: common.RealmName = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 100,
    *,
    noise: Annotated[
        bool | None, typer.Option("--noise/--no-noise", help="Only, or without, what anybody can cause.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what comes, until Ctrl-C.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Print what happened, oldest first; with --json one line of JSON an event."""
    registry = common.registry_of(store, realm)
    start = None if since is None else moment(since, common.now())

    def page(at: float | None) -> EventPage:
        return registry.events(subject=subject, handle=handle, name=name, since=at, noise=noise, limit=limit)

    found = list(reversed(page(start).items))
    _print(found, as_json=as_json)
    if not follow:
        if not found and not as_json:
            render.say("No event matches.")
        common.done(found=bool(found))
    seen = dict.fromkeys(map(repr, found))
    last = found[-1].at if found else common.now()
    while True:
        time.sleep(_FOLLOW_EVERY)
        fresh = [event for event in reversed(page(last).items) if repr(event) not in seen]
        _print(fresh, as_json=as_json)
        seen.update(dict.fromkeys(map(repr, fresh)))
        last = fresh[-1].at if fresh else last


def _print(found: list[Event], *, as_json: bool) -> None:
    if not as_json:
        render.lines(found)
        return
    for event in found:
        render.as_json(render.event_row(event))
