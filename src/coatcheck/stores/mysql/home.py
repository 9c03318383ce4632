"""What both faces of a MySQL store know: where it is, its statements, its listeners, and what the server said.

After a fork the child forgets whatever belongs to the parent, without closing it: see `Forgetful`.
"""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ...core.errors import ConfigError, StoreError
from ...core.model import Event, Instant
from .. import sql
from ..rounds import Rounds
from . import address, schema, words

OLDEST_MYSQL: Final = (8, 0, 17)
OLDEST_MARIADB: Final = (10, 6, 0)

_log: Final = logging.getLogger("coatcheck")


class Home:
    """The state of one store in one process; nothing in it belongs to a connection, a thread or a loop."""

    def __init__(
        self,
        parameters: address.Parameters | None,
        prefix: str,
        migrate: bool,
        clock: Callable[[], Instant] | None,
        tombstone: float,
        pool_size: int,
    ) -> None:
        """Check what was given; no parameters: somebody else makes the connections."""
        sql.check_prefix(prefix)
        if pool_size < 1:
            message = f"pool_size is at least 1 (found {pool_size})"
            raise ConfigError(message)
        self.parameters: address.Parameters = {} if parameters is None else parameters
        self.place = "MySQL" if parameters is None else address.place_of(parameters)
        self.prefix, self._migrate = prefix, migrate
        self.rounds = Rounds(words.DIALECT, prefix, clock, tombstone)
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        self.ready = False
        self._warned = False

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the listeners what was written."""
        if events:
            for listener in self.listeners:
                listener(events)

    def must_migrate(self, look: schema.Look) -> bool:
        """Judge what was found: refuse it, warn of it, or tell whether tables have to be changed."""
        version, flush, logs, sync = look.server
        self._refuse_old(str(version))
        if not self._warned and (int(flush) != 1 or (int(logs) and int(sync) != 1)):
            self._warned = True
            _log.warning(
                "%s may lose acknowledged logins and logouts in a power cut (innodb_flush_log_at_trx_commit = %s, "
                "sync_binlog = %s); set both to 1",
                self.place,
                flush,
                sync,
            )
        if look.version == len(schema.MIGRATIONS):
            return False
        if not self._migrate:
            raise schema.behind(look.version, self.prefix)
        return True

    def _refuse_old(self, version: str) -> None:
        maria = "mariadb" in version.lower()
        oldest = OLDEST_MARIADB if maria else OLDEST_MYSQL
        # MariaDB may put 5.5.5- in front, for the sake of old replicas.
        numbers = re.findall(r"\d+", version.removeprefix("5.5.5-"))[:3]
        if tuple(int(number) for number in numbers) < oldest:
            name, least = "MariaDB" if maria else "MySQL", ".".join(str(number) for number in oldest)
            message = f"{self.place} is {name} {version}; coatcheck needs {name} {least} or later"
            raise StoreError(message)


class Forgetful(Protocol):
    """Something that holds what must not be used in a forked child."""

    def forget(self) -> None:
        """Forget it, but keep it alive, lest its end closes anything."""
        ...


_forgetful: Final[weakref.WeakSet[Forgetful]] = weakref.WeakSet()


def forgets(one: Forgetful) -> None:
    """Have something forget after each fork, in the child."""
    _forgetful.add(one)


def _forget() -> None:
    for one in list(_forgetful):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
