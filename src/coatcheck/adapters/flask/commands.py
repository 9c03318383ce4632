"""`flask coatcheck list` and `flask coatcheck revoke`: the sessions of an application, seen and ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from ...core.model import Record
from .interface import installed

commands = AppGroup("coatcheck", help="List and end sessions.")


@commands.command("list")
@click.argument("subject")
def _list(subject: str) -> None:
    """List the live sessions of SUBJECT."""
    for record in _each(subject):
        client = record.client
        agent = "" if client is None else ascii(client.agent or "")
        address = "-" if client is None else client.address or "-"
        seen = datetime.fromtimestamp(record.seen_at, UTC).isoformat(timespec="seconds")
        click.echo(f"{record.handle}  {seen}  {address}  {agent}")


@commands.command("revoke")
@click.argument("handles", nargs=-1)
@click.option("--subject", help="End every session of this subject.")
@click.option("--keep", help="With --subject: all but this one.")
def _revoke(handles: tuple[str, ...], subject: str | None, keep: str | None) -> None:
    """End sessions by their HANDLES, or all of a subject."""
    registry = installed().registry
    if bool(handles) == (subject is not None) or (keep is not None and subject is None):
        message = "say once whose sessions end: HANDLES, or --subject (with --keep, all but one)"
        raise click.UsageError(message)
    if subject is not None:
        ended = sum(record.handle != keep for record in _each(subject))
        registry.revoke_all(subject, keep=keep)
        click.echo(f"ended {ended}")
        return
    missing = [handle for handle in handles if not registry.revoke(handle)]
    click.echo(f"ended {len(handles) - len(missing)}")
    if missing:
        message = f"no live session {', '.join(map(ascii, missing))}"
        raise click.ClickException(message)


def _each(subject: str) -> Iterator[Record]:
    registry, cursor = installed().registry, None
    while True:
        page = registry.find(subject, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
