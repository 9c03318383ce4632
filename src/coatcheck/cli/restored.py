"""`coatcheck restored`: what has to be done after a store came back from a backup (docs/moving.md).

A backup knows nothing of the logouts and revocations since it was made: with it, they are undone. So everybody logs in
once more, and the store gets another generation where it can, by which applications know it from its former self.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError
from ..core.ledger import authenticated
from ..core.model import Event, Instant, RaiseEpoch
from . import terminal
from .asking import agreed, need_somebody
from .door import AsJson, Door, StoreUrl, actor, opened
from .when import When, iso, when


def restored(
    at: Annotated[
        When | None,
        typer.Option(
            parser=when, metavar="WHEN", help="When it was restored, if others logged in since: 2h, 2026-11-24T18:00Z."
        ),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """After a store was restored from a backup: end every session from before, so that no logout is undone.

    Example: coatcheck restored --store sqlite:////var/lib/shop/sessions.db
    """
    with opened(store) as door:
        moment = door.now if at is None else at(door.now)
        if moment > door.now:
            message = f"{iso(moment)} is in the future: logins would be refused until then; name a moment in the past"
            raise ConfigError(message)
        number = sum(authenticated(record) < moment for record, _ in door.each())
        if not yes:
            need_somebody("ends sessions")
            agreed(f"End {terminal.plural(number, 'session')}, everybody's?", "nothing was ended")
        if at is None:
            moment = door.store.epochs().store_now
        _raise(door, moment)
        generation = _renewed(door.store)
    if as_json:
        terminal.document({"ended": number, "before": iso(moment), "generation": generation})
        return
    terminal.say(
        f"Ended {terminal.plural(number, 'session')} from before {iso(moment)}; all workers know it within a second."
    )
    if generation is not None:
        terminal.say(f"The store is of generation {generation} now: where settings name one, name this.")


def _raise(door: Door, moment: Instant) -> None:
    event = Event(name="store_restored", at=door.now, detail={"actor": actor(), "before": moment})
    change = RaiseEpoch(scope="*", before=moment, events=(event,))
    door.store.commit(os.urandom(16), (change,), durable=True)


def _renewed(store: Any) -> str | None:
    """Return the store's new generation, or None if it cannot change it."""
    renew = getattr(store, "renew_generation", None)
    return None if renew is None else str(renew())
