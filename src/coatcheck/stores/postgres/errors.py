"""What psycopg raises, as errors of the contract: one table, one sentence each, and never a secret in it."""

from __future__ import annotations

from typing import Final, TypeVar

import psycopg

from ...core.errors import NotApplied, StoreError, Unknown

E = TypeVar("E", bound=BaseException)

TRY_AGAIN: Final = {
    "40001": "the commit met another one; nothing was written; try again",
    "40P01": "the commit and another one waited for each other; nothing was written; try again",
    "55P03": "the session is locked by another commit for too long; nothing was written; try again",
    "57014": "the statement took too long and was cancelled; nothing was written; try again",
    "23505": "another commit stored the same at the same moment; nothing was written; try again",
    "25006": "it is a replica, or read-only; nothing was written; name the primary in the URL",
    "53100": "its disk is full; nothing was written; free some space",
    "53200": "it is out of memory; nothing was written; try again",
    "53300": "it has no connection left; lower pool_size or the number of workers, or raise its max_connections",
}
"""Errors of the server after which nothing of the commit lasts, and the same commit may succeed later."""

_HANDED_ROUND: Final = (
    "a pooler hands the connection round ({detail}); let it keep prepared statements (max_prepared_statements), "
    "or hand in a pool that uses none (prepare_threshold=None)"
)
WRONG: Final = {
    "42P01": "the tables of coatcheck are missing ({detail}); run what `coatcheck schema postgresql` prints, "
    "or let the store create them (migrate=True)",
    "42703": "the tables of coatcheck are of another version ({detail}); run `coatcheck schema postgresql`",
    "42501": "its user lacks a right ({detail}); grant it select, insert, update and delete on coatcheck's tables; "
    "to make them, let an administrator run what `coatcheck schema postgresql` prints",
    "26000": _HANDED_ROUND,
    "42P05": _HANDED_ROUND,
    "3F000": "the schema is missing ({detail}); create it, or name another with schema=",
}
"""Errors of the server that stay until somebody does something."""

_REFUSED: Final = (
    ("password authentication failed", "check the user and the password in the URL"),
    ("no password supplied", "put the password into the URL, or into a password file"),
    ("authentication failed", "check the user and the password in the URL"),
    ("no pg_hba.conf entry", "let this host in (pg_hba.conf), or ask for TLS (sslmode=require)"),
    ('role "', "create that user, or name another in the URL"),
    ('database "', "create that database, or name another in the URL"),
    ("permission denied", "grant this user the right to connect"),
    ("unrecognized configuration parameter", "remove that option; behind a pooler, hand in a pool of your own"),
    ("unsupported startup parameter", "hand in a pool of your own (pool=): a pooler does not take our options"),
    (' value: "', "mend that option of the URL"),
    ("certificate", "check sslrootcert and the name in the server's certificate"),
)
"""What a server says when it will say it again, and what to do; in English, though a server may have another tongue."""


_GONE: Final = ("08", "57P", "25P03")
"""The codes with which a connection ends."""


class OverdueError(Exception):
    """An answer did not come in time; the connection was closed."""


class BrokenError(NotApplied):
    """The connection broke before anything was decided; another one may do."""


def named(error: BaseException, where: str, *, decides: bool) -> StoreError:
    """Return the error of the contract; `decides` tells whether something may have lasted without an answer."""
    if isinstance(error, (OverdueError, TimeoutError)):
        sentence = f"{where} did not answer in time; check that it is up and not overloaded"
        return Unknown(sentence) if decides else NotApplied(sentence)
    if not isinstance(error, psycopg.Error):
        return StoreError(f"{where} was given what it cannot keep ({error})")
    code, detail = error.sqlstate, _first_line(error)
    if code in TRY_AGAIN:
        return NotApplied(f"{where}: {TRY_AGAIN[code]}")
    if code is None and not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreError(f"{where} was given what it cannot keep ({detail})")
    if code is None or code.startswith(_GONE):
        sentence = f"the connection to {where} broke ({detail})"
        return Unknown(f"{sentence}; it may have been written") if decides else BrokenError(f"{sentence}; try again")
    if code in WRONG:
        return StoreError(f"{where}: {WRONG[code].format(detail=detail)}")
    return StoreError(f"{where}: {detail} ({code})")


def unreachable(error: BaseException, where: str) -> StoreError:
    """Return the error of a connection that could not be made: nothing was written."""
    if isinstance(error, (OverdueError, TimeoutError)):
        return NotApplied(f"{where} cannot be reached in time; check the host, the port and the network")
    detail = _first_line(error)
    reason = detail.rpartition("FATAL:")[2].rpartition("failed: ")[2].strip() or detail
    if "read-write" in reason or "read-only" in reason or "standby" in reason:
        return NotApplied(f"{where} is a replica or read-only ({reason}); name the primary in the URL")
    if "too many" in reason or "remaining connection slots" in reason:
        return NotApplied(f"{where}: {TRY_AGAIN['53300']} ({reason})")
    for words, advice in _REFUSED:
        if words in reason:
            return StoreError(f"{where} refused us ({reason}); {advice}")
    return NotApplied(f"{where} cannot be reached ({reason}); check that it is up, and the host and port in the URL")


def let_go(error: E) -> E:
    """Return a driver's error without its frames: in them hangs the connection that failed, with an open socket.

    psycopg's own frames refer to the error again, so that they would stay until the garbage collector comes.
    """
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
