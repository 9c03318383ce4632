"""`coatcheck sessions list|show|revoke`: who is logged in where, and the end of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import typer

from ..core.errors import ConfigError
from ..core.model import Because, Record
from ..flow.sync import Registry
from . import app as common
from . import render
from .when import moment, spelled

group = typer.Typer(
    help="Look at sessions, and end them.", epilog=common.EXITS, no_args_is_help=True, rich_markup_mode=None
)

Reason: TypeAlias = Literal["operator", "account_disabled", "factor_change", "theft"]

_COLUMNS = {
    "handle": "handle",
    "subject": "subject",
    "state": "state",
    "level": "level",
    "seen_at": "last seen",
    "ends_at": "ends",
    "address": "address",
    "agent": "agent",
}
_PAGE = 500


def register(app: typer.Typer) -> None:
    """Add the group, once."""
    if not any(one.name == "sessions" for one in app.registered_groups):
        app.add_typer(group, name="sessions")


@group.command("list", epilog="Example: coatcheck sessions list --subject alice --store sqlite:///sessions.db")
def listed(
    store: common.StoreUrl = "",
    subject: Annotated[str | None, typer.Option(help="Only this subject's.")] = None,
    realm: common.RealmName = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    *,
    ended: Annotated[bool, typer.Option("--all", help="Those that ended, too (kept for seven days).")] = False,
    as_json: common.AsJson = False,
) -> None:
    """List sessions, oldest first."""
    registry = common.registry_of(store, realm)
    found: list[Record] = []
    more = False
    for record in _each(registry, subject, live=not ended):
        if len(found) == limit:
            more = True
            break
        found.append(record)
    if as_json:
        render.as_json([render.record_row(record) for record in found])
    elif found:
        render.table([render.record_row(record) for record in found], _COLUMNS)
        if more:
            render.say(f"There are more than these {limit}; see --limit.")
    else:
        render.say("No session matches.")
    common.done(found=bool(found))


@group.command("show", epilog="Example: coatcheck sessions show 1GUfed5p5spOn0kzCL --store sqlite:///sessions.db")
def shown(
    handle: Annotated[str, typer.Argument(help="The session's public name, as logs show it.")],
    store: common.StoreUrl = "",
    realm: common.RealmName = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """Show one session: when, where, how; of its data, the names only."""
    page = common.registry_of(store, realm).find(handle=handle, live=False)
    if not page.items:
        render.say(f"There is no session {handle}.")
        common.done(found=False)
    details = render.record_details(page.items[0])
    if as_json:
        render.as_json(details)
    else:
        render.pairs(details)


@group.command(
    "revoke", epilog="Example: coatcheck sessions revoke --subject alice --yes --store sqlite:///sessions.db"
)
def revoked(
    handles: Annotated[list[str] | None, typer.Argument(help="Sessions to end, by handle.")] = None,
    store: common.StoreUrl = "",
    subject: Annotated[str | None, typer.Option(help="End this subject's sessions.")] = None,
    keep: Annotated[str | None, typer.Option(help="... but this one.")] = None,
    before: Annotated[str | None, typer.Option(help="End what was authenticated before (2h, or a moment).")] = None,
    realm: common.RealmName = None,
    reason: Annotated[Reason, typer.Option(help="Why, as events and users are told.")] = "operator",
    *,
    everybody: Annotated[bool, typer.Option("--all", help="End everybody's sessions.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would end.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """End sessions: by handle, of a subject, from before a moment, or everybody's."""
    names = handles or []
    if sum(map(bool, (names, subject, everybody))) + bool(before and not subject and not everybody) != 1:
        message = "say whose sessions end: handles, or --subject, or --before, or --all"
        raise ConfigError(message)
    if keep and not subject:
        message = "--keep goes with --subject"
        raise ConfigError(message)
    since = None if before is None else moment(before, common.now())
    if everybody and since is None:
        since = common.now()
    registry = common.registry_of(store, realm)
    targets = _targets(registry, names, subject, keep, since)
    if dry_run or not targets:
        _tell(targets, as_json=as_json, done=False)
        common.done(found=bool(targets))
    _confirm(len(targets), yes=yes)
    if subject:
        _revoke_subject(store, targets, subject, keep, since, reason)
    elif since is not None:
        registry.revoke_before(since, because=reason, actor="cli")
    for record in targets:
        # by handle too where an epoch already refuses them: their ends then have their reason at once
        registry.revoke(record.handle, reason, actor="cli")
    _tell(targets, as_json=as_json, done=True)


def _targets(
    registry: Registry, handles: list[str], subject: str | None, keep: str | None, since: float | None
) -> list[Record]:
    if handles:
        pages = [registry.find(handle=handle) for handle in dict.fromkeys(handles)]
        return [record for page in pages for record in page.items]
    found = [record for record in _each(registry, subject, live=True) if record.handle != keep]
    return [one for one in found if since is None or (one.authenticated_at or one.created_at) < since]


def _revoke_subject(
    store: str, targets: list[Record], subject: str, keep: str | None, since: float | None, because: Because
) -> None:
    for realm in sorted({record.realm for record in targets}):
        registry = common.registry_of(store, realm)
        if since is None:
            registry.revoke_all(subject, keep=keep, because=because, actor="cli")
        else:
            registry.revoke_before(since, subject=subject, because=because, actor="cli")


def _confirm(number: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        message = f"this would end {number} sessions; there is nobody to ask, so say --yes"
        raise ConfigError(message)
    typer.confirm(f"End {number} session{'' if number == 1 else 's'}?", abort=True)


def _tell(targets: list[Record], *, as_json: bool, done: bool) -> None:
    if as_json:
        render.as_json({"ended": done, "handles": [record.handle for record in targets]})
        return
    if targets and not done:
        render.table([render.record_row(record) for record in targets], _COLUMNS)
    number = "No session" if not targets else f"{len(targets)} session{'' if len(targets) == 1 else 's'}"
    render.say(f"{number} {'ended' if done else 'would end'} ({spelled(common.now())}).")


def _each(registry: Registry, subject: str | None, *, live: bool) -> Iterator[Record]:
    cursor = None
    while True:
        page = registry.find(subject, live=live, limit=_PAGE, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
