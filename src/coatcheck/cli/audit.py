"""`coatcheck audit seal` and `verify`: what a timer runs, so that an auditor can see whether events were altered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..flow.audit import Audit
from . import terminal
from .door import EXITS, AsJson, StoreUrl, opened
from .keys import RootFile, roots_of
from .when import iso

group = typer.Typer(no_args_is_help=True, help="Seal the events in a store, and verify the seals.", epilog=EXITS)


@group.command("seal", epilog=EXITS)
def seal(root_file: RootFile = None, *, as_json: AsJson = False, store: StoreUrl = "") -> None:
    """Seal what was told since the last time, and print the seal: keep it where nobody who can write here can.

    Example: coatcheck audit seal --root-file /run/secrets/coatcheck-root >> /mnt/elsewhere/seals
    """
    with _audit(store, root_file) as audit:
        made = audit.seal()
        if as_json:
            terminal.document({"seal": made and made.name, "facts": made and made.count})
        elif made is not None:
            terminal.say(made.name)
        if made is None:
            terminal.complain("there is nothing to seal yet: a seal covers what is older than ten minutes")
            raise typer.Exit(1)


@group.command("verify", epilog=EXITS)
def verify(
    remembered: Annotated[
        str, typer.Option("--seal", metavar="SEAL", help="One that was printed before: it has to be there.")
    ] = "",
    root_file: RootFile = None,
    *,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """Look whether events were changed, taken out or added since they were sealed; exit with 1 if so.

    Example: coatcheck audit verify --root-file /run/secrets/coatcheck-root --seal "$(tail -1 /mnt/elsewhere/seals)"
    """
    with _audit(store, root_file) as audit:
        report = audit.verify(remembered)
    seals, faults = report.seals, report.faults
    until = None if not seals else iso(seals[-1].until)
    if as_json:
        told = [{"seal": one.number, "fault": one.sentence} for one in faults]
        terminal.document(
            {"seals": len(seals), "sealed_until": until, "unsealed": report.unsealed, "faults": told, "good": not told}
        )
    elif seals:
        sealed = f"{terminal.plural(len(seals), 'seal')}, from number {seals[0].number} on, until {until}"
        terminal.say(f"{sealed}; {terminal.plural(report.unsealed, 'event')} since.")
    for fault in faults:
        terminal.complain(f"seal {fault.number}: {fault.sentence}" if fault.number else fault.sentence)
    if not seals:
        terminal.complain("there is no seal in this store; let a timer run `coatcheck audit seal`")
    if faults or not seals:
        raise typer.Exit(1)


@contextmanager
def _audit(url: str, root_file: RootFile) -> Iterator[Audit]:
    roots = roots_of(root_file)
    with opened(url) as door:
        yield Audit(door.store, roots)
