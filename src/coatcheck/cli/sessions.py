"""`coatcheck sessions list` and `show`: who is logged in where."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from . import terminal, views
from .door import EXITS, TAKES_HANDLES, AsJson, OneHandle, RealmName, StoreUrl, Subject, opened
from .revoke import revoke

group = typer.Typer(no_args_is_help=True, help="Look at sessions, and end them.", epilog=EXITS)
group.command("revoke", context_settings=TAKES_HANDLES, epilog=EXITS)(revoke)


@group.command("list", epilog=EXITS)
def listed(
    subject: Subject = None,
    realm: RealmName = None,
    *,
    ended: Annotated[bool, typer.Option("--all", help="Ended ones too, as long as they are remembered.")] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """List live sessions, oldest first.

    Example: coatcheck sessions list --subject alice --all
    """
    with opened(store, realm) as door:
        found = list(islice(door.each(subject, live=not ended), limit + 1))
        more, found = len(found) > limit, found[:limit]
        if as_json:
            terminal.document([views.record_json(record, state) for record, state in found])
        elif found:
            terminal.table(*views.record_table(found, door.now))
        if not found:
            terminal.complain("no session matches" if ended else "no live session matches; --all shows ended ones too")
            raise typer.Exit(1)
        if more:
            terminal.say(f"There are more; --limit shows more than {limit}.", aside=True)


@group.command("show", context_settings=TAKES_HANDLES, no_args_is_help=True, epilog=EXITS)
def show(
    handle: OneHandle,
    realm: RealmName = None,
    *,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """Show one session: who, when, from where, and the keys of its data (never the values).

    Example: coatcheck sessions show 4PXyVb9_hkQ2mZtR0s
    """
    with opened(store, realm) as door:
        record = door.get(handle)
        if record is None:
            terminal.complain(f"there is no session {handle}")
            raise typer.Exit(1)
        state = door.state(record)
        if as_json:
            terminal.document(views.detailed_json(record, state))
        else:
            terminal.pairs(views.record_pairs(record, state, door.now))
