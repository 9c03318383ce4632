"""Where a MySQL or MariaDB is and how to log in: URLs, and what else may be handed in.

mysql://user:password@host:3306/database
mysql://user:password@host/database?ssl=true            encrypted; the certificate must be known to this system
mysql://user:password@host/database?ssl_ca=/ca.pem      encrypted; the certificate must be signed by that one
mysql://user@/database?unix_socket=/run/mysqld/mysqld.sock

`mariadb://` is the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from ...core.errors import ConfigError

Parameters: TypeAlias = Mapping[str, Any]

_SCHEMES: Final = ("mysql", "mariadb")
_SHAPE: Final = "mysql://user:password@host:3306/database"
_OPTIONS: Final = "?ssl=true, ?ssl_ca=/path/to/ca.pem and ?unix_socket=/path"


def parameters_of(given: object) -> dict[str, Any]:
    """Return what a driver's `connect` takes; raise ConfigError for a URL or for parameters that lack something."""
    if not isinstance(given, (str, Mapping)):
        kind = type(given).__name__
        message = f"a MySQL store takes a URL or the parameters of a connection (found {kind}); write {_SHAPE}"
        raise ConfigError(message)
    found = _parsed(given) if isinstance(given, str) else dict(given)
    if not found.get("database"):
        message = f"the database is not named; write {_SHAPE}, or give database=..."
        raise ConfigError(message)
    return found


def place_of(parameters: Parameters) -> str:
    """Return how sentences speak of the server: never with the password."""
    socket = parameters.get("unix_socket")
    where = socket or f"{parameters.get('host') or 'localhost'}:{parameters.get('port') or 3306}"
    return f"the database {_text(parameters.get('database'))} of MySQL at {_text(where)}"


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else f"{value}"


def _parsed(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        message = f"a MySQL URL cannot be read ({error}); write {_SHAPE}, special characters as %40"
        raise ConfigError(message) from None
    if parts.scheme not in _SCHEMES:
        message = f"a MySQL URL begins with mysql:// or mariadb:// (found {parts.scheme or 'none'!r}); write {_SHAPE}"
        raise ConfigError(message)
    database = unquote(parts.path[1:])
    if parts.fragment or not database or "/" in database:
        message = f"a MySQL URL ends with the name of one database; write {_SHAPE}, special characters as %40"
        raise ConfigError(message)
    found: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": port or 3306,
        "user": unquote(parts.username or ""),
        # the drivers would take text for latin-1
        "password": unquote(parts.password or "").encode(),
        "database": database,
    }
    return {**found, **_options(parts.query)}


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "unix_socket" and value:
            found["unix_socket"] = value
        elif name == "ssl" and value == "true":
            found["ssl"] = _context(None)
        elif name == "ssl_ca" and value:
            found["ssl"] = _context(value)
        else:
            message = f"MySQL URLs know {_OPTIONS} (found {name}={value}); remove the rest"
            raise ConfigError(message)
    return found


def _context(authority: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        message = f"ssl_ca names {authority}, which holds no certificate that can be read ({error}); name another file"
        raise ConfigError(message) from error
    # The certificates that MySQL makes for itself lack what Python asks for since 3.13.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
