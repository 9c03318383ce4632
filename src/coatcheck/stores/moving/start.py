"""What is known of a move as a whole: whether it has begun, and the epochs of both stores.

Rules
- The new store says that the move has begun, from the old store's generation; the old one says that it is being left.
  Both say so by the name of a scope among their epochs, which all workers read each second.
- Until then sessions are created in the old store, where workers look that do not know the new one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ...core.errors import StoreError
from ...core.model import MOVED, Epochs, Instant, RaiseEpoch
from .steps import NEW, OLD, Ask, Script, Side, committed, part

MOST_SKEW: Final = 30.0
"""Seconds by which the clocks of the two stores may differ."""

FROM: Final = "moving:"
"""How the scope begins by which the new store says that sessions are moved into it, and from which generation."""
AWAY: Final = f"{MOVED}:"
"""How the scope begins by which the old store says that its sessions are moved away, and to which generation."""


class State(msgspec.Struct):
    """What is known of the move."""

    began: bool = False
    salt: bytes | None = None


def epochs(state: State) -> Script[Epochs]:
    """Return what both stores say: the clock of the new one, the later epochs; learn whether the move has begun."""
    new: Epochs = yield Ask(NEW, "epochs")
    old: Epochs = yield Ask(OLD, "epochs")
    if new.generation == old.generation:
        message = "the two stores of a move are one and the same; name the store that sessions are to move to"
        raise StoreError(message)
    if abs(new.store_now - old.store_now) > MOST_SKEW:
        apart = abs(new.store_now - old.store_now)
        message = f"the clocks of the two stores differ by {apart:.0f} s (at most {MOST_SKEW:.0f}); set them"
        raise StoreError(message)
    if old.salt and new.salt and new.salt != old.salt:
        message = (
            "both stores have shards, but not of one key; copy the old one's key before the new one is first opened"
        )
        raise StoreError(message)
    state.salt = new.salt
    state.began = state.began or FROM + old.generation in new.scopes
    scopes = {scope: at for scope, at in new.scopes.items() if _is_epoch(scope)}
    for scope, at in old.scopes.items():
        if _is_epoch(scope):
            scopes[scope] = max(at, scopes.get(scope, at))
    return Epochs(new.store_now, scopes, f"{new.generation}/{old.generation}", new.salt or old.salt)


def begin(state: State) -> Script[None]:
    """Let the move begin: copy the epochs, then tell both stores. Raises StoreError where that cannot be."""
    yield from epochs(state)
    new: Epochs = yield Ask(NEW, "epochs")
    old: Epochs = yield Ask(OLD, "epochs")
    for scope in new.scopes:
        if scope.startswith(AWAY):
            message = (
                "sessions were moved away from the new store once, so it holds the marks of those; "
                "move to an empty one: another file, schema, database or prefix"
            )
            raise StoreError(message)
    for scope in old.scopes:
        if scope.startswith(AWAY) and scope != AWAY + new.generation:
            message = "the sessions of the old store are being moved to another new one; finish that move first"
            raise StoreError(message)
    for scope, at in sorted(old.scopes.items()):
        if _is_epoch(scope):
            yield from _raised(NEW, scope, at)
    yield from _raised(NEW, FROM + old.generation, None)
    yield from _raised(OLD, AWAY + new.generation, None)
    state.began = True


def _is_epoch(scope: str) -> bool:
    return not scope.startswith((FROM, AWAY))


def _raised(side: Side, scope: str, before: Instant | None) -> Script[None]:
    yield from committed(side, part(scope.encode(), side), (RaiseEpoch(scope=scope, before=before),), durable=True)


def has_begun(state: State) -> Script[bool]:
    """Tell whether the move has begun; that never goes back."""
    if not state.began:
        yield from epochs(state)
    return state.began


def salt_of(state: State) -> Script[bytes]:
    """Return the key of the new store's shards; empty if it has none."""
    if state.salt is None:
        yield from epochs(state)
    return state.salt or b""
