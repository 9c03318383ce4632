"""The values that travel between the rooms: frozen, small, and free of behaviour.

Times are `Instant`s: seconds since 1970-01-01 UTC, as floats. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

Instant: TypeAlias = float
Handle: TypeAlias = str
Entropy: TypeAlias = Callable[[int], bytes]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

Because: TypeAlias = Literal[
    "logout", "idle", "absolute", "limit", "operator", "owner", "theft", "superseded", "replaced",
    "factor_change", "role_change", "account_disabled", "epoch", "policy", "sso_logout", "caep", "key_rotation",
    "moved", "unbound", "context",
]  # fmt: skip
MOVED: Final = "moved"
"""Why a session ended in a store from which it was moved to another: it lives on there."""


class Level(IntEnum):
    """How surely we know who is there (NIST SP 800-63B-4 assurance levels, with gaps for what comes)."""

    ANONYMOUS = 0
    REMEMBERED = 5
    AAL1 = 10
    AAL2 = 20
    AAL3 = 30


class Request(msgspec.Struct, frozen=True):
    """What an adapter must say of a request: raw, and without any belief in what it says.

    `headers` have lower-case names; `peer` is the address of the connection, `scheme` that of the connection.
    `kind` is "websocket" for a handshake: then nothing can be renewed. `cookie` is the Cookie header, where an adapter
    has it at hand: then most requests are answered without a look at the others.
    """

    method: str
    scheme: str
    path: str
    headers: Headers
    query: str = ""
    peer: str | None = None
    kind: Literal["http", "websocket"] = "http"
    cookie: bytes | None = None
    id: str = ""  # made or found when it is first asked for (core/traces.py)

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, repeated ones joined by a comma (cookies: a semicolon), or b""."""
        found = [value for key, value in self.headers if key == name]
        if len(found) == 1:
            return found[0]
        return (b"; " if name == b"cookie" else b",").join(found)

    def __repr__(self) -> str:
        """Show what a log may show: no header."""
        return f"Request({self.method} {self.path!r})"

    __str__ = __repr__


class Client(msgspec.Struct, frozen=True, gc=False):
    """Who is at the other end, as far as the network tells: an address and a user agent (cut at 512)."""

    address: str | None = None
    agent: str | None = None


class Trace(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where an event happened: in which request, and on which machine; never the query, since secrets travel there."""

    node: str | None = None
    request_id: str | None = None
    method: str | None = None
    path: str | None = None


class Signal(msgspec.Struct, frozen=True, gc=False):
    """What a detector saw: its short name, 1 to 100 points, and a sentence that an operator understands."""

    name: str
    score: int
    reason: str


class Held(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a sealed token holds: its secrets, the data, and the record as it was when it was sealed.

    Its order is the format: new fields go to the end, with a default.
    """

    family: bytes
    turn: bytes
    data: bytes
    seen_at: Instant
    created_at: Instant
    expires_at: Instant
    idle_for: float | None
    subject: str | None
    authenticated_at: Instant | None
    methods: tuple[str, ...]
    level: int
    persistent: bool
    client: Client | None = None
    tenant: str | None = None

    def __repr__(self) -> str:
        """Show what a log may show: no secret, no value."""
        return f"Held(subject={self.subject!r}, {len(self.data)} bytes)"

    __str__ = __repr__


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """A parsed, not yet believed token; what it holds, if it is sealed. Its secrets have no repr."""

    handle: Handle
    family: bytes
    turn: bytes
    held: Held | None = None

    def __repr__(self) -> str:
        """Show the public handle only."""
        return f"Ticket({self.handle!r})"

    __str__ = __repr__


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One fact (or one summary of noise): what, when, about which session and whom. Never a secret."""

    name: str
    at: Instant
    realm: str = ""
    handle: Handle | None = None
    subject: str | None = None
    client: Client | None = None
    detail: dict[str, Any] = {}
    noise: bool = False
    trace: Trace | None = None


class Record(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A session at rest: everything that a store keeps of it (contract: docs/stores.md)."""

    realm: str
    handle: Handle
    family_proof: bytes
    turn_proof: bytes | None
    used_at: Instant | None
    former_proof: bytes | None = None
    nonce: bytes | None = None
    handed_at: Instant
    data: bytes = b""
    created_at: Instant
    seen_at: Instant
    idle_for: float | None
    expires_at: Instant
    subject: str | None = None
    authenticated_at: Instant | None = None
    methods: tuple[str, ...] = ()
    level: int = 0
    persistent: bool = False
    client: Client | None = None
    binding: bytes | None = None
    ended_at: Instant | None = None
    ended_because: str | None = None
    successor: Handle | None = None
    version: int = 1
    by: bytes = b""
    tenant: str | None = None  # of its subject, where an application has several: they can be ended as one
    seen_from: Client | None = None  # who was handed its secret last; None: who logged in (client)
    suspected_at: Instant | None = None  # an old token of it was presented: its holder is asked for proof again

    @property
    def deadline(self) -> Instant:
        """The moment after which this record is over: the earlier of the idle and absolute ends."""
        if self.idle_for is None:
            return self.expires_at
        return min(self.expires_at, self.seen_at + self.idle_for)

    def __repr__(self) -> str:
        """Show what a log may show."""
        state = f"ended: {self.ended_because}" if self.ended_at is not None else "live"
        return f"Record({self.handle!r}, subject={self.subject!r}, version={self.version}, {state})"

    __str__ = __repr__


class Limit(msgspec.Struct, frozen=True, gc=False):
    """How many live sessions a subject may have, and what happens to one more."""

    most: int
    refuse: bool = False


class Insert(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Create a record; the only way, beside Replace, in which one comes to be."""

    record: Record
    limit: Limit | None = None
    events: tuple[Event, ...] = ()


class Update(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Write a live record that is still at version `was`."""

    record: Record
    was: int
    events: tuple[Event, ...] = ()


class Replace(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Create the successor of `old` (same subject) and end `old`, in one step."""

    record: Record
    old: Handle
    was: int
    limit: Limit | None = None
    events: tuple[Event, ...] = ()


class Touch(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Note activity, and the first sight of the turn whose proof is given."""

    handle: Handle
    seen_at: Instant
    turn_proof: bytes | None = None
    events: tuple[Event, ...] = ()


class End(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """End one session; with `if_seen_at`, only if it was not seen since (an end judged from a clock)."""

    handle: Handle
    because: str
    if_seen_at: Instant | None = None
    events: tuple[Event, ...] = ()


class EndOthers(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """End every live session of a subject but `keep`; with `before`, those authenticated earlier."""

    realm: str
    subject: str
    keep: tuple[Handle, ...] = ()
    because: str
    before: Instant | None = None
    events: tuple[Event, ...] = ()
    trace: Trace | None = None  # of the event that each of them is worth


class RaiseEpoch(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Refuse everything in `scope` that was authenticated before `before` (None: before now)."""

    scope: str
    before: Instant | None = None
    events: tuple[Event, ...] = ()


class Note(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Write events that hang on no other change."""

    events: tuple[Event, ...]


Change: TypeAlias = Insert | Update | Replace | Touch | End | EndOthers | RaiseEpoch | Note
Primary: TypeAlias = Insert | Update | Replace


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """Why a primary change was not applied, with the record as it is stored now, if there is one."""

    current: Record | None
    why: Literal["gone", "ended", "version", "exists", "limit", "epoch", "subject"]


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A whole response that replaces the handler's."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What settles an exchange: the changes to commit, and the headers to send once they are.

    `required`: when the commit fails, the response must not go out (503); otherwise only the cookies are missing.
    `reply`: an answer that replaces the handler's response, once the changes are committed.
    `headers`: more of them, for a response that brings cookies.
    """

    changes: tuple[Change, ...] = ()
    durable: bool = False
    required: bool = False
    cookies: tuple[bytes, ...] = ()
    vary: tuple[str, ...] = ()
    reply: Reply | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __repr__(self) -> str:
        """Show what a log may show: no cookie, since it spells the token."""
        return f"Outcome({len(self.changes)} changes, {len(self.cookies)} cookies, reply={self.reply!r})"

    __str__ = __repr__


class Epochs(msgspec.Struct, frozen=True, gc=False):
    """The store's clock, and the instants before which sessions of a scope no longer count.

    `generation` names this store's lifetime: another one means that it was emptied or restored. `salt` is the key of a
    store whose handles must begin with their subject's shard (tokens.shard_of); empty elsewhere.
    """

    store_now: Instant
    scopes: dict[str, Instant]
    generation: str = ""
    salt: bytes = b""


class Query(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Which records `find` returns, in the order (created_at, handle)."""

    realm: str | None = None
    subject: str | None = None
    handle: Handle | None = None
    live: bool = True
    limit: int = 100
    cursor: str | None = None


class EventQuery(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Which events `events` returns, newest first."""

    realm: str | None = None
    handle: Handle | None = None
    subject: str | None = None
    name: str | None = None
    since: Instant | None = None
    noise: bool | None = None
    limit: int = 100
    cursor: str | None = None


class RecordPage(msgspec.Struct, frozen=True, gc=False):
    """A page of records; `cursor` is None on the last one."""

    items: tuple[Record, ...]
    cursor: str | None = None
    as_of: Instant = 0.0


class EventPage(msgspec.Struct, frozen=True, gc=False):
    """A page of events; `cursor` is None on the last one."""

    items: tuple[Event, ...]
    cursor: str | None = None
