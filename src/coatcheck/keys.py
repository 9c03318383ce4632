"""Keys, for what travels or lies outside the store: from the environment, a file, or kept in a store and rotated there.

Opaque sessions, the default, need none (docs/why/keys.md).
"""

from .core.keyring import Key, Keyring
from .core.roots import Roots
from .core.rotation import Schedule
from .flow.async_keys import AsyncKeys
from .flow.keys import Keys
from .flow.sources import (
    keyring_from_environment,
    keyring_from_file,
    roots_from,
    roots_from_environment,
    roots_from_file,
)

__all__ = [
    "AsyncKeys",
    "Key",
    "Keyring",
    "Keys",
    "Roots",
    "Schedule",
    "keyring_from_environment",
    "keyring_from_file",
    "roots_from",
    "roots_from_environment",
    "roots_from_file",
]
