"""What lies in a store beside the sessions of a realm: records that no token opens, in realms of their own."""

from __future__ import annotations

from typing import Final

CONVERTED: Final = "/converted"
"""What follows the realm in that of its marks: which sessions of another library became ours (core/converter.py)."""
LINKS: Final = "/links"
"""... and in that of its links: which sessions an identity provider's names stand for (core/links.py)."""

_BESIDE: Final = (CONVERTED, LINKS)


def is_beside(realm: str) -> bool:
    """Tell whether what lies in a realm are no sessions; who wants to see it anyway names that realm."""
    return realm.endswith(_BESIDE)
