"""`coatcheck keys list`, `rotate` and `revoke`: the keys in a store, with the root secret that wraps them.

Keys rotate by themselves; these are for those who want to see that, and for the day on which one leaked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..core.errors import ConfigError
from ..core.model import Event, Instant, Note
from ..core.roots import Roots
from ..core.rotation import Kept, KeptKey, state_of, works_until
from ..flow.keys import Keys
from ..flow.sources import ROOT, roots_from_environment, roots_from_file
from . import terminal
from .asking import agreed, need_somebody
from .door import EXITS, AsJson, Door, StoreUrl, actor, opened
from .terminal import Column, cell
from .when import iso, relative, span

group = typer.Typer(no_args_is_help=True, help="Look at the keys in a store, rotate and revoke them.", epilog=EXITS)

RootFile = Annotated[
    Path | None,
    typer.Option(
        "--root-file",
        metavar="PATH",
        show_default=False,
        help=f"The file with the root secret that wraps the keys; without it, {ROOT} spells the secret.",
    ),
]
_COLUMNS: Final = (Column("Key"), Column("State"), Column("Made", "made"), Column("Works", "works"))
_STYLES: Final = {"pending": "yellow", "active": "green", "expired": "dim", "revoked": "bold red"}


@group.command("list", epilog=EXITS)
def listed(root_file: RootFile = None, *, as_json: AsJson = False, store: StoreUrl = "") -> None:
    """List the keys, oldest first; never what is secret of them.

    Example: coatcheck keys list --root-file /run/secrets/coatcheck-root
    """
    with _keys(store, root_file) as (_, keys):
        kept, now = keys.peek()
        if as_json:
            terminal.document([] if kept is None else [_json(kept, key, now) for key in kept.keys])
        elif kept is not None:
            terminal.table(_COLUMNS, [_cells(kept, key, now) for key in kept.keys])
        if kept is None:
            terminal.complain("there are no keys in this store; the application makes them when it starts")
            raise typer.Exit(1)


@group.command("rotate", epilog=EXITS)
def rotate(root_file: RootFile = None, *, as_json: AsJson = False, store: StoreUrl = "") -> None:
    """Make a new key now instead of when it is due; it works once every process has seen it. Logs nobody out.

    Example: coatcheck keys rotate --root-file /run/secrets/coatcheck-root
    """
    with _keys(store, root_file) as (door, keys):
        made = keys.rotate()
        kept, now = keys.peek()
        newest = None if kept is None else max(kept.keys, key=lambda key: key.active_at)
        if made is not None:
            _note(door, "key_made", made)
        if as_json:
            works = None if newest is None else iso(newest.active_at)
            terminal.document({"made": made, "newest": newest and newest.kid, "works_at": works})
        elif made is not None and newest is not None:
            works = "now" if newest.active_at <= now else relative(newest.active_at, now)
            terminal.say(f"Made key {made}; it works {works}.")
        if made is None and newest is not None:
            works = relative(newest.active_at, now)
            terminal.complain(f"key {newest.kid} is pending already and works {works}; nothing was changed")
            raise typer.Exit(1)


@group.command("revoke", no_args_is_help=True, epilog=EXITS)
def revoke(
    kids: Annotated[list[str], typer.Argument(metavar="KEY", show_default=False, help="Keys, by their ids.")],
    root_file: RootFile = None,
    *,
    end: Annotated[
        str | None,
        typer.Option("--end", metavar="R", help="End the sessions of this audience, too, that it may have sealed."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """Refuse all that a key made, for ever: it leaked. Whoever holds something that it sealed has to log in again.

    With --end, lists of sessions and the events say so as well: each ends for the reason key_rotation.

    Example: coatcheck keys revoke 4f1c09ab --root-file /run/secrets/coatcheck-root
    """
    if not yes:
        need_somebody("logs out whoever holds something that the key sealed")
    with _keys(store, root_file) as (door, keys):
        kept, now = keys.peek()
        found = [] if kept is None else [key for key in kept.keys if key.kid in kids and key.revoked_at is None]
        if kept is not None and found and not yes:
            terminal.table(_COLUMNS, [_cells(kept, key, now) for key in found], aside=True)
            agreed(f"Revoke {terminal.plural(len(found), 'key')}?", "nothing was revoked")
        done = [key.kid for key in found if keys.revoke(key.kid)]
        ended = 0
        for key in found:
            if key.kid in done:
                _note(door, "key_revoked", key.kid)
                if end is not None and kept is not None:
                    until = works_until(kept, key)
                    ended += door.registry(end).revoke_sealed(key.active_at, until, actor=actor())
        missing = [kid for kid in dict.fromkeys(kids) if kid not in done]
        for kid in missing:
            terminal.complain(f"there is no key {kid}, or it was revoked before")
        if as_json:
            terminal.document({"revoked": done, "missing": missing} | ({} if end is None else {"ended": ended}))
        elif done:
            within = span(keys.schedule.every)
            terminal.say(f"Revoked {' and '.join(done)}; every process refuses what that made within {within}.")
            if end is not None:
                terminal.say(f"Ended {terminal.plural(ended, 'session')} of {end}.")
        if missing:
            raise typer.Exit(1)


def roots_of(root_file: Path | None) -> Roots:
    """Return the root secrets of a file, or of the environment."""
    if root_file is not None:
        return roots_from_file(root_file)
    if os.environ.get(ROOT):
        return roots_from_environment()
    message = f"keys in a store are wrapped by a root secret; name its file by --root-file, or set {ROOT}"
    raise ConfigError(message)


@contextmanager
def _keys(url: str, root_file: Path | None) -> Iterator[tuple[Door, Keys]]:
    roots = roots_of(root_file)
    with opened(url) as door:
        yield door, Keys(door.store, roots, clock=lambda: door.now)  # type: ignore[arg-type]


def _note(door: Door, name: str, kid: str) -> None:
    at = door.store.epochs().store_now
    event = Event(name=name, at=at, detail={"key": kid, "actor": actor()})
    door.store.commit(os.urandom(16), (Note(events=(event,)),), durable=True)


def _cells(kept: Kept, key: KeptKey, now: Instant) -> list[Any]:
    state = state_of(kept, key, now)
    works = f"until {relative(key.revoked_at, now)}" if key.revoked_at is not None else relative(key.active_at, now)
    return [cell(key.kid), cell(state, _STYLES[state]), cell(relative(key.made_at, now)), cell(works)]


def _json(kept: Kept, key: KeptKey, now: Instant) -> dict[str, Any]:
    return {
        "key": key.kid,
        "state": state_of(kept, key, now),
        "made_at": iso(key.made_at),
        "active_at": iso(key.active_at),
        "revoked_at": iso(key.revoked_at),
    }
