"""What a server or a connection can fail with, as errors of the contract: one table.

NotApplied   nothing was written: a refusal of the server, a connection that was never made, a slot that moves
Unknown      a script was sent and no answer came
StoreError   it would fail the same way again: wrong password, not a Redis, a setting that sessions do not survive
"""

from __future__ import annotations

from typing import Final

from redis import exceptions

from ...core.errors import NotApplied, StoreError, Unknown
from .steps import Address


class Late(NotApplied):
    """Time was over before an answer came; an earlier failure, if there was one, says more."""


_BEFOREHAND: Final = {
    "CLUSTERDOWN": "its Cluster has no primary for that slot now",
    "TRYAGAIN": "that slot is on its way to another server",
    "MASTERDOWN": "it has lost its primary",
    "LOADING": "it is still loading its data",
    "READONLY": "it is a replica now",
    "NOREPLICAS": "it has too few replicas to accept writes (min-replicas-to-write)",
    "MISCONF": "it cannot write its data to its disk and so refuses writes; look into its log",
    "BUSY": "it is busy with somebody's script",
    "OOM": "it has no memory left; give it more (maxmemory), or let old sessions expire sooner",
    "MAXCLIENTS": "it accepts no more clients (maxclients)",
    "NOSCRIPT": "it forgot a script twice",
    "UNBLOCKED": "it changed its role",
    "PAUSED": "it pauses its clients",
}
"""By the first word of a refusal: nothing was done, and a little later it may go."""

_FOR_GOOD: Final = {
    "NOAUTH": "it wants a password; put one into the URL, as in redis://:password@host",
    "WRONGPASS": "it does not accept this user name and password; correct them in the URL",
    "NOPERM": "this user may not do what a store needs; let it use the store's keys and channel, EVALSHA and EVAL",
    "NOPROTO": "it does not speak this protocol; use Redis 6.2 or later, or Valkey",
}

_CLASSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.NoScriptError, "NOSCRIPT"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.MaxConnectionsError, "MAXCLIENTS"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.AuthenticationError, "WRONGPASS"),
)
"""The client library takes the first word off some refusals, and gives them a class instead."""


def code_of(error: Exception) -> str:
    """Return the first word of a refusal, the reason that the server gives."""
    if isinstance(error, exceptions.AuthenticationError) and "required" in str(error).lower():
        return "NOAUTH"
    for kind, code in _CLASSES:
        if isinstance(error, kind):
            return code
    text = str(error)
    if "max number of clients" in text:
        return "MAXCLIENTS"
    if "non local key" in text:
        return "TRYAGAIN"
    for code in _BEFOREHAND:
        # an error inside a script comes with the script's name before or after the reason
        if text.startswith(code + " ") or f"-{code} " in text or f": {code} " in text:
            return code
    return text.partition(" ")[0]


def refusal(error: Exception, address: Address) -> StoreError | None:
    """Return what a refusal means; None if it is the command's own and not the server's state."""
    code = code_of(error)
    if code in _BEFOREHAND:
        return NotApplied(f"{shown(address)} refuses: {_BEFOREHAND[code]}; nothing was written")
    if code in _FOR_GOOD:
        return StoreError(f"{shown(address)} refuses: {_FOR_GOOD[code]}")
    return None


def broken(error: BaseException, address: Address, *, sent: bool, decides: bool) -> StoreError:
    """Return what a connection's failure means; `sent`: a command may have reached the server."""
    where = shown(address)
    refused = refusal(error, address) if isinstance(error, exceptions.RedisError) else None
    if refused is not None:
        return refused
    if isinstance(error, exceptions.InvalidResponse):
        return StoreError(f"{where} does not speak as Redis does; check host and port, and rediss:// for TLS")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(f"{where} shows no certificate that we trust; name its authority: ?ssl_ca_certs=/path/ca.pem")
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        what = f"{where} did not answer in time"
        if not (sent and decides):
            return Late(f"{what}; check that it is up")
    elif isinstance(error, (exceptions.ConnectionError, OSError)):
        what = f"the connection to {where} failed ({_short(error)})"
    else:
        return StoreError(f"{where}: {error}")
    if sent and decides:
        return Unknown(f"{what}; the commit may have been applied; try again with the same id")
    return NotApplied(f"{what}; check that it is up")


def busy(address: Address, size: int) -> NotApplied:
    """Return what it means that no connection became free."""
    return NotApplied(f"all {size} connections to {shown(address)} were busy; nothing was written; raise pool_size")


def shown(address: Address) -> str:
    """Return an address as a sentence shows it."""
    host, port = address
    return f"redis at {host}:{port}" if port else f"redis at {host}"


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:200] or type(error).__name__
