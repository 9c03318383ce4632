"""The options that commands share, and the store that they open: looking at a store creates nothing.

Every moment is by the store's clock: it is the one that judges.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from ..core import epochs
from ..core.errors import ConfigError, StoreError
from ..core.model import Handle, Instant, Record
from ..core.tokens import is_handle
from ..flow.registry import Registry
from ..flow.store import Store
from ..stores.urls import file_of, is_shared, open_store
from .views import State, state_of

PAGE: Final = 500
EXITS: Final = (
    "Exit codes: 0 done; 1 nothing matched, or not found; 2 a mistake in the command; "
    "3 the store cannot be reached; 70 a fault of coatcheck's own (COATCHECK_DEBUG=1 shows where)."
)


def handle(text: str) -> Handle:
    """Return a handle; raise BadParameter for what is none (an unknown option gets here, too)."""
    if is_handle(text):
        return text
    if text.startswith("-"):
        message = f"there is no option {text}"
        raise typer.BadParameter(message)
    message = f"{text!r} is no handle: 18 letters, digits, - and _, as listings and logs show it"
    raise typer.BadParameter(message)


StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="COATCHECK_STORE",
        metavar="URL",
        show_default=False,
        help="Where the sessions lie: sqlite:///relative.db, sqlite:////absolute.db, postgresql://..., redis://...",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
RealmName = Annotated[str | None, typer.Option("--realm", metavar="R", help="Only sessions for this audience.")]
Subject = Annotated[str | None, typer.Option("--subject", metavar="S", help="Only this subject's.")]
OneHandle = Annotated[
    Handle, typer.Argument(parser=handle, metavar="HANDLE", show_default=False, help="A session's public name.")
]
ManyHandles = Annotated[
    list[Handle] | None,
    typer.Argument(parser=handle, metavar="HANDLE", show_default=False, help="Sessions, by their public names."),
]

#: handles may begin with a dash; `handle` tells them from mistyped options
TAKES_HANDLES: Final = {"ignore_unknown_options": True}


class Door:
    """An open store, and the moment at which it was opened."""

    def __init__(self, store: Store, realm: str | None) -> None:
        """Ask the store for its clock and its epochs."""
        told = store.epochs()
        self.store, self.realm = store, realm
        self.now: Instant = told.store_now
        self._scopes = told.scopes

    def registry(self, realm: str | None) -> Registry:
        """Return the registry of one realm, or of all (None)."""
        return Registry(self.store, realm, clock=lambda: self.store.epochs().store_now)

    def state(self, record: Record) -> State:
        """Return what a record is at this moment."""
        return state_of(record, self.now, epochs.floor_for(self._scopes, record))

    def get(self, handle: Handle) -> Record | None:
        """Return a record by its handle, ended or not."""
        return next(iter(self.registry(self.realm).find(handle=handle, live=False, limit=1).items), None)

    def each(self, subject: str | None = None, *, live: bool = True) -> Iterator[tuple[Record, State]]:
        """Yield records with their states, oldest first, page by page."""
        registry, cursor = self.registry(self.realm), None
        while True:
            page = registry.find(subject, live=live, limit=PAGE, cursor=cursor)
            for record in page.items:
                state = self.state(record)
                if state.live or not live:
                    yield record, state
            cursor = page.cursor
            if cursor is None:
                return


@contextmanager
def opened(url: str, realm: str | None = None) -> Iterator[Door]:
    """Open a store that is there already; raise ConfigError or StoreError where none is."""
    if not url:
        message = "no store is named; give --store sqlite:///path/to/sessions.db, or set COATCHECK_STORE"
        raise ConfigError(message)
    if not is_shared(url):
        message = "a memory store is seen by its own process only; name one in a file: --store sqlite:///path"
        raise ConfigError(message)
    path = file_of(url)
    if path is not None and not path.exists():
        message = f"there is no file {str(path)!r}; check --store (three slashes: relative, four: absolute)"
        raise StoreError(message)
    store = open_store(url, create=False)
    try:
        yield Door(store, realm)
    finally:
        store.close()


def actor() -> str:
    """Return who acts, for the audit trail."""
    try:
        return f"cli:{os.environ.get('SUDO_USER') or getpass.getuser()}"
    except (KeyError, OSError):  # a container may have no name for its user
        return "cli"
