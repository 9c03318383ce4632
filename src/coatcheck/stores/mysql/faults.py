"""What goes wrong with MySQL and MariaDB, as errors of the contract: one table of codes for both drivers.

Rules
- A driver's error is known by its code: the server's (1000 and up) or the client's (2000 and up), its first argument.
- An error that leaves the connection in doubt is `lost`: nobody may use it again.
"""

from __future__ import annotations

from typing import Final

from ...core.errors import NotApplied, StoreError, Unknown


class Contended(NotApplied):
    """Others were faster, or a connection had died unseen: worth trying again at once."""


_LOST: Final = {
    *(1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184),  # shutting down, or the network failed
    *(1927, 3169, 4031),  # killed, or idle for too long
    *(2006, 2013, 2014, 2027, 2055),  # the client's own words for it
}
_NEVER_SENT: Final = 2006  # the driver could not even hand over the last byte: no server acts on a part of a packet
_UNREACHABLE: Final = {2001, 2002, 2003, 2005, 2009}

_CONTENDED: Final = {
    *(1020, 1062, 1205, 1206, 1213, 1412, 1614, 1615, 3058, 3101, 3572),
    *(1317, 1969, 3024),  # interrupted; the statement was rolled back
}
_NOT_APPLIED: Final = {
    1021: "the disk of the database is full; nothing was written; free some space",
    1040: "the database has too many connections; nothing was written; lower pool_size or raise max_connections",
    1041: "the database ran out of memory; nothing was written; try again",
    1047: "this node of the database cluster accepts no queries now; nothing was written; try again",
    1114: "a table of the database is full; nothing was written; free some space",
    1203: "this user has too many connections; nothing was written; lower pool_size or raise max_user_connections",
    1226: "this user has used up a limit of his; nothing was written; lower pool_size or raise the limit",
    1290: "the database is read only; nothing was written; connect to the primary server",
    1792: "the database is read only; nothing was written; connect to the primary server",
    1836: "the database is read only; nothing was written; connect to the primary server",
}
_READ_ONLY: Final = {1290, 1792, 1836}

_REFUSED: Final = {
    1044: "this user may not use the database ({said}); grant it, or name another user or database",
    1045: "the user name or the password is wrong ({said}); check both",
    1049: "there is no such database ({said}); create it, or name another",
    1129: "the database blocks this host ({said}); let its administrator flush hosts",
    1130: "the database accepts no connection from this host ({said}); create the user for it",
    1142: "this user lacks a right ({said}); grant it (create, select, insert, update, delete; alter for upgrades)",
    1143: "this user lacks a right ({said}); grant it (create, select, insert, update, delete; alter for upgrades)",
    1146: "a table is missing ({said}); run what `coatcheck schema mysql` prints, or use migrate=True",
    1153: "a session is larger than the database takes ({said}); keep less in it, or raise max_allowed_packet",
    1227: "this user lacks a right ({said}); grant it",
    1251: "the database asks for a way to log in that the driver does not know ({said}); give the user another",
    1366: "a text is not Unicode that can be stored ({said}); nothing was written; store other text",
    1370: "this user lacks a right ({said}); grant it",
    1406: "a value is longer than its column ({said}); nothing was written; store a shorter one",
    1698: "the user name or the password is wrong ({said}); check both",
    2059: "the database asks for a way to log in that the driver does not know ({said}); give the user another",
    2061: "the database refused the way to log in ({said}); check user and password, or use TLS (?ssl=true)",
    3159: "the database takes encrypted connections only ({said}); add ?ssl=true or ?ssl_ca=/path to the URL",
}


def code_of(error: BaseException) -> int:
    """Return the code of a driver's error, or 0."""
    code = error.args[0] if error.args else 0
    return code if type(code) is int else 0


def lost(error: BaseException) -> bool:
    """Tell whether the connection may not be used again: it is broken, in doubt, or one to the wrong server."""
    code = code_of(error)
    return code < 1000 or code in _LOST or code in _READ_ONLY


def named(error: Exception, place: str, *, decides: bool, driver: type[Exception]) -> StoreError:
    """Return the contract's error for what was raised while a round was sent; the driver's are of `driver`."""
    code = code_of(error) if isinstance(error, driver) else 0
    said = _said(error)
    if isinstance(error, TimeoutError):
        return late(place, decides=decides)
    if code in _UNREACHABLE or (code == 0 and isinstance(error, OSError)):
        return unreachable(place, said)
    if code in _LOST or (code == 0 and isinstance(error, driver)):
        if decides and code != _NEVER_SENT:
            message = f"the connection to {place} broke; the commit may have been applied or not"
            return Unknown(message)
        return Contended(f"the connection to {place} broke; nothing was written; try again")
    if code in _CONTENDED:
        return Contended(f"{place} was busy with others ({said}); nothing was written; try again")
    if code in _NOT_APPLIED:
        return NotApplied(f"{place}: {_NOT_APPLIED[code]}")
    if code in _REFUSED:
        return StoreError(f"{place}: {_REFUSED[code].format(said=said)}")
    return StoreError(f"{place}: {said}")


def late(place: str, *, decides: bool) -> StoreError:
    """Return the error for an answer that did not come in time."""
    if decides:
        return Unknown(f"{place} did not answer in time; the commit may have been applied or not")
    return NotApplied(
        f"{place} did not answer in time; nothing was written; check that it is up, or raise the deadline"
    )


def exhausted(place: str, size: int) -> StoreError:
    """Return the error for a pool none of whose connections became free in time."""
    return NotApplied(f"all {size} connections to {place} stayed busy; nothing was written; raise pool_size")


def unreachable(place: str, said: str) -> StoreError:
    """Return the error for a server that cannot be reached."""
    return NotApplied(f"{place} cannot be reached ({said}); check that it is up, and host and port")


def _said(error: BaseException) -> str:
    words = error.args[1] if len(error.args) > 1 else str(error)
    return f"{words}".strip().rstrip(".") or type(error).__name__
