"""What both faces know of one store: where it lies, how connections to it are made, and what is asked of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ...core.errors import ConfigError
from ...core.model import Event, Handle, Instant
from ..rounds import Ask, Round, Rounds, Steps
from . import schema
from .words import DIALECT, Names

MANY: Final = 50
"""So many changes of one commit are told one by one; more are told as EVERYTHING."""
EVERYTHING: Final = ""
MIGRATION_DEADLINE: Final = 60.0

_TELL: Final = "select pg_notify(%s, told) from unnest(%s::text[]) as told"

log: Final = logging.getLogger("coatcheck")


class House:
    """The settings of one store, checked; it opens nothing."""

    def __init__(  # noqa: PLR0913 - settings
        self,
        dsn: str | None,
        pool: Any,
        names: Names,
        *,
        migrate: bool,
        load_deadline: float,
        commit_deadline: float,
        pool_size: int,
        clock: Callable[[], Instant] | None,
        tombstone: float,
    ) -> None:
        """Check where the store lies; raise ConfigError for what cannot be."""
        if dsn is None and pool is None:
            message = "PostgresStore needs a URL (postgresql://user:password@host/name) or pool=; give one of them"
            raise ConfigError(message)
        self.pool, self.names, self.migrate = pool, names, migrate
        self.load_deadline, self.commit_deadline = load_deadline, commit_deadline
        _check(load_deadline=load_deadline, commit_deadline=commit_deadline, pool_size=pool_size)
        self.dsn = dsn if dsn is not None else _dsn_of(pool)
        self._given = _parsed(self.dsn)
        self.place = _place(self._given)
        self.rounds = Rounds(DIALECT, names.tables, clock, tombstone)
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        self.ready = False

    def check(self) -> Steps[bool]:
        """Return what looks whether the tables are of our version."""
        return schema.check(self.names, self.place, migrate=self.migrate)

    def make(self) -> Steps[None]:
        """Return what makes or migrates them."""
        return schema.make(self.names, self.place)

    def telling(self, changed: Sequence[Handle]) -> Steps[None]:
        """Return what tells every listening process of changed records."""
        yield Round([Ask(_TELL, (self.names.channel, list(dict.fromkeys(changed))))])

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the listeners what was written."""
        if events:
            for listener in self.listeners:
                listener(events)

    def connecting(self) -> dict[str, Any]:
        """Return the parameters of a connection of our own: what the URL says, and what it leaves to us."""
        limit = int(self.commit_deadline * 1000)
        settings = {
            "synchronous_commit": "off",
            "default_transaction_isolation": r"read\ committed",
            "statement_timeout": limit,
            "lock_timeout": limit,
            "idle_in_transaction_session_timeout": 2 * limit,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        defaults = {
            "application_name": "coatcheck",
            "target_session_attrs": "read-write",
            "connect_timeout": math.ceil(self.commit_deadline) + 1,
            "tcp_user_timeout": limit,
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        # In a database without an encoding, text would come as bytes.
        ours = {"client_encoding": "UTF8", "options": f"{options} {self._given.get('options') or ''}".strip()}
        return {**defaults, **self._given, **ours}


def _check(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            message = f"{name} is more than 0 (found {value!r}); leave it out for a good default"
            raise ConfigError(message)


def _dsn_of(pool: Any) -> str:
    found = getattr(pool, "conninfo", "")
    return found if isinstance(found, str) else ""


def _parsed(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except ProgrammingError as error:
        # Its text may quote the URL, and with it the password.
        message = "the URL of the PostgreSQL store does not read; write postgresql://user:password@host:5432/name"
        raise ConfigError(message) from error.with_traceback(None)


def _place(given: dict[str, Any]) -> str:
    where = f"{given.get('host') or 'its usual place'}{':' + str(given['port']) if given.get('port') else ''}"
    return f"PostgreSQL at {where}{'/' + str(given['dbname']) if given.get('dbname') else ''}"
