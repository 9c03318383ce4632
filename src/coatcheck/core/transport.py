"""What Strict-Transport-Security says: for how long a browser asks for a host by https only (RFC 6797)."""

from __future__ import annotations

from typing import Final

YEAR: Final = 31_536_000
"""The least max-age of ASVS 5.0 3.4.1, in seconds."""

_DIRECTIVES: Final = frozenset({"max-age", "includesubdomains", "preload"})


def strictness(hsts: str) -> tuple[int, bool] | None:
    """Return max-age and whether subdomains are meant, or None: no such header (RFC 6797 section 6.1)."""
    found: dict[str, str] = {}
    for part in hsts.split(";"):
        name, equals, value = (text.strip(" ") for text in part.partition("="))
        name = name.lower()
        if name in found or name not in _DIRECTIVES or bool(equals) != (name == "max-age"):
            return None
        found[name] = value.strip('"')
    age = found.get("max-age", "")
    if not (age.isascii() and age.isdigit() and len(age) <= 10):
        return None
    return int(age), "includesubdomains" in found
