"""Old stores by URL, for the command line: the library's name, a plus sign, and where it keeps its sessions.

flask-session+redis://localhost/0?prefix=session:
flask-session+postgresql://user:password@host/database?table=sessions     also sqlite:/// and mysql://
flask-session+file:///var/lib/shop/flask_session
django+sqlite:///db.sqlite3?table=django_session                          also postgresql:// and mysql://
starsessions+redis://localhost/0?prefix=starsessions.
litestar+redis://localhost/0?prefix=LITESTAR:
litestar+file:///var/lib/shop/sessions

Options of ours follow a question mark, among those of the driver: `subject` (the key of the data that says whose a
session is), `lifetime` (seconds), `prefix`, `table`. What the old application signed with is a secret, and stands in
the environment: COATCHECK_OLD_SECRET, one a line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ..core.errors import ConfigError
from ..core.legacy import Source
from .django import SUBJECT, DjangoDatabase
from .flask import LIFETIME
from .flask_session import FlaskSession
from .litestar import AGE, LitestarStore
from .shelves import CachelibFolder, LitestarFolder, RedisShelf, Shelf, Table
from .starsessions import StarsessionsStore

SECRET: Final = "COATCHECK_OLD_SECRET"  # noqa: S105 - the name of a variable
COOKIES: Final = timedelta(days=400)
"""How long browsers keep a cookie at most (RFC 6265bis, section 5.5): so long an old one may come back."""
IN_COOKIES: Final = ("flask", "starlette", "fastapi", "django-cookie", "litestar-cookie", "starsessions-cookie")
OURS: Final = ("subject", "lifetime", "prefix", "table")

Options = dict[str, str]


def is_library(url: str) -> bool:
    """Tell whether a URL names the store of another library."""
    name = url.partition(":")[0].partition("+")[0]
    return name in _LIBRARIES or name in IN_COOKIES or name.startswith("django")


def source_of(url: str) -> Source:
    """Return where the sessions of a library lie, to be listed; raises ConfigError for a URL that is not understood."""
    library, _, rest = url.partition("+")
    library = library.partition(":")[0]
    if library in IN_COOKIES:
        message = (
            f"the sessions of {library} lie in cookies, which nobody can list; name the source in `legacy` instead, "
            "and each is taken over when its browser comes (docs/coming-from.md)"
        )
        raise ConfigError(message)
    if library not in _LIBRARIES or not rest:
        message = (
            f"no old store is known for {url.partition(':')[0]!r:.60}; there are {', '.join(_LIBRARIES)}, each with "
            "where it lies: flask-session+redis://localhost/0. What has no URL (a Django cache) is named by the "
            "application's manager: --from shop.sessions:manager"
        )
        raise ConfigError(message)
    base, options = _split(rest)
    return _LIBRARIES[library](base, options, datetime.now(UTC) + COOKIES)


def _flask_session(url: str, options: Options, until: datetime) -> Source:
    prefix = options.get("prefix", "session:")
    shelf: Shelf
    if url.startswith("file:"):
        shelf = CachelibFolder(_folder(url), prefix=prefix)
    elif _is_redis(url):
        shelf = RedisShelf(url, prefix=prefix)
    else:
        table = options.get("table", "sessions")
        shelf = Table(url, table, key="session_id", data="data", ends="expiry", prefix=prefix)
    subject = options.get("subject", "_user_id")
    return FlaskSession(shelf, until=until, subject=subject, lifetime=_seconds(options, LIFETIME))


def _django(url: str, options: Options, until: datetime) -> Source:
    table, subject = options.get("table", "django_session"), options.get("subject", SUBJECT)
    return DjangoDatabase(url, _secrets("SECRET_KEY"), until=until, table=table, subject=subject)


def _starsessions(url: str, options: Options, until: datetime) -> Source:
    shelf = RedisShelf(url, prefix=options.get("prefix", "starsessions."))
    return StarsessionsStore(shelf, until=until, subject=options.get("subject"))


def _litestar(url: str, options: Options, until: datetime) -> Source:
    shelf: Shelf
    if url.startswith("file:"):
        shelf = LitestarFolder(_folder(url))
    else:
        shelf = RedisShelf(url, prefix=options.get("prefix", "LITESTAR:"))
    return LitestarStore(shelf, until=until, subject=options.get("subject"), max_age=_seconds(options, AGE))


_LIBRARIES: Final[Mapping[str, Callable[[str, Options, datetime], Source]]] = {
    "flask-session": _flask_session,
    "django": _django,
    "starsessions": _starsessions,
    "litestar": _litestar,
}


def _split(url: str) -> tuple[str, Options]:
    """Return the URL without the options that are ours, and those."""
    base, question, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = "&".join(f"{quote(name, safe='')}={quote(text, safe='/:,')}" for name, text in pairs if name not in OURS)
    return base + (question + kept if kept else ""), {name: text for name, text in pairs if name in OURS}


def _is_redis(url: str) -> bool:
    return url.partition(":")[0] in ("redis", "rediss", "valkey", "valkeys", "unix")


def _folder(url: str) -> Path:
    path = unquote(urlsplit(url).path)
    folder = Path(path) if url.startswith("file:////") or not url.startswith("file:///") else Path(path[1:])
    if not folder.is_dir():
        message = f"there is no folder {str(folder)!r}; check --from (three slashes: relative, four: absolute)"
        raise ConfigError(message)
    return folder


def _secrets(name: str) -> list[str]:
    found = [line.strip() for line in os.environ.get(SECRET, "").splitlines() if line.strip()]
    if not found:
        message = f"the old application's {name} checks what it signed; set {SECRET} (its fallbacks too, one a line)"
        raise ConfigError(message)
    return found


def _seconds(options: Options, usual: float) -> float:
    text: Any = options.get("lifetime", usual)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        message = f"lifetime is a number of seconds above 0 (found {text!r})"
        raise ConfigError(message)
    return seconds
