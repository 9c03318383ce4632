"""The names of keys: which of them share a slot, and which slot a session belongs to.

All keys of a shard carry its tag in braces, so a Redis Cluster keeps them together. Without shards there is one tag.

    {tag}:s:<handle>    a record                         {tag}:d    what falls due, by time
    {tag}:l:<subject>   a subject's live sessions        {tag}:f    facts, by time
    {tag}:e:<subject>   ... and its ended ones           {tag}:n    noise, by time
    {tag}:m:<subject>   ... its epoch and stamp          {tag}:w    written so that there is something to wait for
    {tag}:c:<commit>    a commit that was applied        {.}:k      the keeper's turn
    {.}:store           epochs, generation, salt         {.}:keys   wrapped keys: these two never expire
"""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import product
from typing import Final, TypeAlias

import msgspec

from ...core.errors import ConfigError, StoreError
from ...core.model import Handle, Record
from ...core.tokens import shard_of
from ..draft import Subject

Tag: TypeAlias = str

COMMON: Final[Tag] = "."
"""The tag of what belongs to no shard; no handle can begin with it."""
SHARDS: Final = 4096
EPOCH: Final = "epoch:"
"""How the fields of the common hash begin that hold epochs."""

_ALPHABET: Final = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_encode: Final = msgspec.msgpack.Encoder().encode


class Keys:
    """Names every key of one store."""

    def __init__(self, prefix: str, shards: int) -> None:
        """Check both; `shards` is 1 or 4096."""
        if not _PREFIX(prefix):
            message = f"prefix is 1 to 64 letters, digits and any of _.:- (found {prefix!r}); choose such a one"
            raise ConfigError(message)
        if shards not in (1, SHARDS):
            message = f"shards is 1 or {SHARDS} (found {shards!r}); leave it out, and a Cluster gets {SHARDS}"
            raise ConfigError(message)
        self.prefix, self.sharded = prefix, shards != 1
        self.store = f"{prefix}:{{{COMMON}}}:store"
        self.keyring = f"{prefix}:{{{COMMON}}}:keys"
        self.keeper = f"{prefix}:{{{COMMON}}}:k"
        self.channel = f"{prefix}:notices"
        self.pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + ":{*}:s:*"
        self.tags: tuple[Tag, ...] = (COMMON,)
        if self.sharded:
            self.tags += tuple(map("".join, product(_ALPHABET, repeat=2)))

    def tag(self, handle: Handle) -> Tag:
        """Return the tag of a session's shard."""
        return handle[:2] if self.sharded else COMMON

    def tag_of(self, salt: bytes, subject: Subject) -> Tag:
        """Return the tag of a subject's shard."""
        return shard_of(salt, *subject) if self.sharded else COMMON

    def sound(self, handle: Handle) -> bool:
        """Tell whether a handle can be part of a key; whatever else somebody asks for does not exist."""
        return _HANDLE(handle) is not None and len(handle) > self.sharded

    def check(self, salt: bytes, record: Record) -> None:
        """Refuse a record that does not lie in the shard of its subject: revocations would miss it."""
        if not self.sharded or record.subject is None:
            return
        shard = shard_of(salt, record.realm, record.subject)
        if record.handle[:2] != shard:
            message = (
                f"session {record.handle!r} lies outside the shard {shard!r} of its subject; mint its handle with the "
                "salt of this store, and never give two stores one prefix"
            )
            raise StoreError(message)

    def record(self, handle: Handle) -> str:
        """Return the key of a record."""
        return f"{self.prefix}:{{{self.tag(handle)}}}:s:{handle}"

    def of(self, tag: Tag, kind: str) -> str:
        """Return the key of one of a shard's own sets."""
        return f"{self.prefix}:{{{tag}}}:{kind}"

    def about(self, tag: Tag, kind: str, subject: Subject) -> str:
        """Return the key of something of a subject; a hash, so that no name shows in it."""
        return f"{self.prefix}:{{{tag}}}:{kind}:{sha256(_encode(subject)).hexdigest()[:32]}"

    def commit(self, tag: Tag, commit_id: bytes) -> str:
        """Return the key that tells that a commit was applied."""
        return f"{self.prefix}:{{{tag}}}:c:{commit_id.hex()}"
