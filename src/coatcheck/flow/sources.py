"""Where secrets come from, but for a store: the environment, a file, or a function of the application's (a KMS).

Written as text
- a keyring: `kid:base64` or `kid:state:base64`, oldest first; state is pending, active (if none is said), expired or
  revoked. Separated by commas or white space; in a file one a line, where # begins a remark.
- root secrets: base64, the current one first, then (while it is being rotated) the former.

Everything is read once, when it is asked for. A file that others can read is refused. No text is ever shown.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, get_args

from ..core.errors import ConfigError
from ..core.keyring import Key, Keyring, State
from ..core.model import Entropy
from ..core.roots import Roots

KEYS: Final = "COATCHECK_KEYS"
ROOT: Final = "COATCHECK_ROOT_SECRET"

_STATES: Final[Mapping[str, State]] = {state: state for state in get_args(State)}
_MOST_BYTES: Final = 65536


def keyring_from_environment(
    name: str = KEYS, environment: Mapping[str, str] = os.environ, *, entropy: Entropy = os.urandom
) -> Keyring:
    """Return the keyring that a variable spells; raise ConfigError for a missing, malformed or weak one."""
    return Keyring(_keys(_variable(name, environment, "a keyring"), f"the variable {name}"), entropy)


def keyring_from_file(path: str | os.PathLike[str], *, entropy: Entropy = os.urandom) -> Keyring:
    """Return the keyring that a file spells; raise ConfigError for one that others can read, or as above."""
    return Keyring(_keys(_private(path), str(Path(path))), entropy)


def roots_from_environment(
    name: str = ROOT, environment: Mapping[str, str] = os.environ, *, entropy: Entropy = os.urandom
) -> Roots:
    """Return the root secrets that a variable spells; raise ConfigError for missing, malformed or weak ones."""
    return Roots(_secrets(_variable(name, environment, "a root secret"), f"the variable {name}"), entropy)


def roots_from_file(path: str | os.PathLike[str], *, entropy: Entropy = os.urandom) -> Roots:
    """Return the root secrets that a file spells; raise ConfigError for one that others can read, or as above."""
    return Roots(_secrets(_private(path), str(Path(path))), entropy)


def roots_from(fetch: Callable[[], bytes | Sequence[bytes]], *, entropy: Entropy = os.urandom) -> Roots:
    """Return the root secrets that a function answers (one, or the current and the former); what it raises passes."""
    found = fetch()
    return Roots([found] if isinstance(found, bytes) else list(found), entropy)


def _variable(name: str, environment: Mapping[str, str], what: str) -> str:
    text = environment.get(name, "").strip()
    if not text:
        message = f"{name} is not set; it spells {what}: 32 random bytes in base64 (openssl rand -base64 32)"
        raise ConfigError(message)
    return text


def _private(path: str | os.PathLike[str]) -> str:
    """Return the text of a file that only its owner can read."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); name a file that this process may read"
        raise ConfigError(message) from error
    if os.name == "posix" and mode & 0o077:
        message = f"{path} holds secrets, and others than its owner may open it (mode {mode & 0o777:o}); chmod 600 it"
        raise ConfigError(message)
    lines = raw.decode("ascii", "replace").splitlines()
    return "\n".join(line.partition("#")[0] for line in lines)


def _keys(text: str, where: str) -> Iterator[Key]:
    for number, entry in enumerate(_entries(text), 1):
        parts = entry.split(":")
        state = _STATES.get(parts[1]) if len(parts) == 3 else "active"
        if not 2 <= len(parts) <= 3 or not all(parts) or state is None:
            message = f"{where}: entry {number} is no key; write kid:base64 or kid:state:base64 ({', '.join(_STATES)})"
            raise ConfigError(message)
        yield Key(parts[0], _decoded(parts[-1], f"{where}: entry {number}"), state)


def _secrets(text: str, where: str) -> list[bytes]:
    return [_decoded(entry, f"{where}: secret {number}") for number, entry in enumerate(_entries(text), 1)]


def _entries(text: str) -> list[str]:
    return [entry for entry in re.split(r"[\s,]+", text) if entry]


def _decoded(text: str, where: str) -> bytes:
    """Return what base64 spells, in either alphabet, padded or not."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (NotBase64, ValueError):
        message = f"{where} is not written in base64 (openssl rand -base64 32 writes a good one)"
        raise ConfigError(message) from None
