"""Sessions of other libraries, one file a library: what their cookies show, and where the rest of them lies.

None of these libraries is imported. What they signed is checked by itsdangerous, what they sealed by cryptography;
where sessions lie in a server or a folder, shelves.py reads and deletes them. docs/coming-from.md shows each.
"""

from ..core.legacy import Old, OldCookie, Shown, Source
from .django import DjangoCache, DjangoCookie, DjangoDatabase
from .flask import FlaskCookie
from .flask_session import FlaskSession
from .litestar import LitestarCookie, LitestarStore
from .shelves import CachelibFolder, LitestarFolder, RedisShelf, Table
from .starlette import StarletteCookie
from .starsessions import StarsessionsCookie, StarsessionsStore

__all__ = [
    "CachelibFolder",
    "DjangoCache",
    "DjangoCookie",
    "DjangoDatabase",
    "FlaskCookie",
    "FlaskSession",
    "LitestarCookie",
    "LitestarFolder",
    "LitestarStore",
    "Old",
    "OldCookie",
    "RedisShelf",
    "Shown",
    "Source",
    "StarletteCookie",
    "StarsessionsCookie",
    "StarsessionsStore",
    "Table",
]
