"""Whose sessions end as one: scopes, and the moments before which what was authenticated in them no longer counts.

A scope is everyone, a realm, or a tenant (of one realm, or of all). A store keeps one moment for each that was ever
raised; so ending a million sessions is one small write, which every process sees within a second. A subject's sessions
lie together and are ended by name instead (EndOthers, docs/why/token.md).

A tenant's moment is forgotten when no session can be older any more: there may be any number of tenants, and each read
of a store's epochs brings them all. Everyone's and a realm's stay: they are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .model import Instant, Record
from .presets import DAY, MOST_LASTING

EVERYONE: Final = "*"
MOST_TENANT: Final = 128
KEPT: Final = MOST_LASTING + 30 * DAY
"""Seconds for which a store keeps a tenant's moment (430 days). It hangs on nobody's settings, so a node with other or
older ones is safe, too: none lets a session, remembered or not, live longer than 400 days from its authentication, and
no handler lengthens one beyond. A month more is for clocks that were wrong."""
TENANT: Final = "tenant:"
"""How the scopes of tenants begin, and no others."""


def scope_of(realm: str | None, tenant: str | None = None) -> str:
    """Return the scope of a realm (None: of all), or of a tenant in it."""
    if tenant is not None:
        name = realm or ""
        return f"{TENANT}{len(name)}:{name}:{tenant}"  # the length: either may hold a colon
    return EVERYONE if realm is None else f"realm:{realm}"


def is_tenant(name: object) -> bool:
    """Tell whether a tenant may be called so."""
    return type(name) is str and 0 < len(name) <= MOST_TENANT and name.isprintable()


def is_over(scope: str, at: Instant, now: Instant) -> bool:
    """Tell whether a scope's moment may be forgotten: it is a tenant's, and no session from before can live."""
    return scope.startswith(TENANT) and at < now - KEPT


def floor_of(scopes: Mapping[str, Instant], realm: str) -> Instant:
    """Return the moment before which nothing of a realm counts."""
    return max(scopes.get(EVERYONE, 0.0), scopes.get(scope_of(realm), 0.0))


def tenants_of(scopes: Mapping[str, Instant], realm: str) -> dict[str, Instant]:
    """Return the moments before which nothing of a tenant counts in a realm."""
    found: dict[str, Instant] = {}
    for prefix in (scope_of(None, ""), scope_of(realm, "")):
        for scope, at in scopes.items():
            if scope.startswith(prefix):
                name = scope.removeprefix(prefix)
                found[name] = max(at, found.get(name, at))
    return found


def floor_for(scopes: Mapping[str, Instant], record: Record) -> Instant:
    """Return the moment before which a record no longer counts."""
    floor = floor_of(scopes, record.realm)
    if record.tenant is None:
        return floor
    return max(floor, *(scopes.get(scope_of(realm, record.tenant), 0.0) for realm in (None, record.realm)))
