"""One session during one exchange: what came in, what the handler asked for, what is still to be committed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import msgspec

from . import stepup
from .errors import Refusal
from .model import (
    Change,
    Client,
    Event,
    Handle,
    Headers,
    Instant,
    Outcome,
    Record,
    Reply,
    Request,
    Signal,
    Ticket,
)

if TYPE_CHECKING:
    from .devices import Sighting
    from .session import Typed


class All:
    """The type of ALL: every key of an anonymous session moves into the login."""


ALL: Final = All()

Carry: TypeAlias = Collection[str] | Mapping[str, Callable[[Any], bool]] | All
"""Which keys of an anonymous session move into a login: names, names with a validator each, or ALL."""

RESERVED: Final = frozenset(
    {
        *("next", "state", "nonce", "code_verifier", "oauth_state", "oidc_state", "oidc_nonce", stepup.KEY),
        *("oidc_states", "oidc_login_next", "socialaccount_states"),  # mozilla-django-oidc, django-allauth
    }
)
"""Keys that never move: whoever planted an anonymous session would choose where its victim goes after login."""
RESERVED_BEGINNINGS, RESERVED_ENDS = ("_state_",), ("_oauth_state",)
"""Nor do those that begin or end so: authlib and flask-dance keep a login that was begun under a provider's name."""

MOST_SUBJECT = 255


def is_reserved(key: str) -> bool:
    """Tell whether a key never moves into a login."""
    return key in RESERVED or key.startswith(RESERVED_BEGINNINGS) or key.endswith(RESERVED_ENDS)


def carried(data: dict[str, Any], chosen: Carry) -> dict[str, Any]:
    """Return the chosen keys; a validator may refuse a value, reserved keys never move."""
    if isinstance(chosen, All):
        return {key: value for key, value in data.items() if not is_reserved(key)}
    kept = {key: data[key] for key in chosen if key in data and not is_reserved(key)}
    if isinstance(chosen, Mapping):
        return {key: value for key, value in kept.items() if chosen[key](value)}
    return kept


class Login(msgspec.Struct, frozen=True):
    """A login that the handler asked for."""

    subject: str
    methods: tuple[str, ...]
    level: int
    remember: bool
    ticket: Ticket
    tenant: str | None = None


class Lasting(msgspec.Struct, frozen=True):
    """How long the handler wants a session to last: seconds, a moment, whether its cookie outlives the browser."""

    idle: float | None = None
    until: Instant | None = None
    browser_only: bool | None = None


class Visit(msgspec.Struct, eq=False):
    """One session during one exchange: what came in, what the handler asked for, what is still to be committed.

    It is the manager's and the flow's; handlers have no business here.
    """

    counter: Counter
    request: Request
    arrived: Instant

    # what came in
    record: Record | None = None  # believed: its ticket is good and the session is live
    ticket: Ticket | None = None
    standing: int = 0  # its tokens.TokenClass
    presented: Record | None = None  # the family of this record was proved, whatever became of it
    presented_as: int = 0
    copied: bool = False  # the record is a near copy, which may be a little old
    owes: bool = False  # there is something to note, which a copy may not
    confirm: Callable[[Any], Any] | None = None  # reads the record itself: at once, or an awaitable that will
    bare: bool = False  # no cookie of ours came: an anonymous session may be handed out
    level: int = 0
    step_up: bool = False
    doubted: bool = False  # ... before anything that asks for a login
    due: bool = False  # a policy wants the secret renewed
    signals: tuple[Signal, ...] = ()  # what the detectors saw
    moved: Client | None = None  # where the session lives from the renewal on that is due
    origin_proved: bool = True
    ended_because: str | None = None
    bound: bool = False  # the browser showed the cookie that only its device can renew
    unbound: bool = False  # it should have, and has not yet
    confirmed: bytes | None = None  # the binding, now that its cookie came back for the first time
    answer: Reply | None = None  # replaces the handler's response
    base: bytes = b""  # the data as it was loaded, encoded and never sealed
    data: dict[str, Any] = {}  # a Struct makes a new one for each visit

    # what the handler asked for
    consulted: bool = False
    asked: bool = False  # for anything but the plain data
    wrote: bool = False  # a key was set or deleted
    lent: bool = False  # the handler holds a value that it could change without us
    login: Login | None = None
    logout: Literal["", "here", "everywhere"] = ""
    renew: Ticket | None = None
    end_others: str = ""
    wanted: bool = False
    planned: Ticket | None = None
    lasting: Lasting | None = None
    kept: bool = False
    typed: Typed[Any] | None = None

    following: Ticket | None = None  # of the session that another library's just became: to be handed out

    # what is to be committed before the handler runs
    urgent: tuple[Change, ...] = ()
    urgent_required: bool = False
    notes: tuple[tuple[bytes, Event], ...] = ()

    sighting: Sighting | None = None  # of the browser that logs in; None: nobody looked

    # what was settled
    status: int = 0
    headers: Headers = ()
    dropped: str = ""
    offered: bytes = b""  # the data as it was last put into a change, encoded and not yet sealed
    outcome: Outcome | None = None
    unguarded: bool = False  # no primary change goes with the cookie, that would be refused were the session over

    # sealed tokens
    reads_only: bool = False  # the store is away: what came in the cookie may be read, nothing may be done
    reseal: bool = False  # the cookie that was presented no longer says what is true
    turned: Ticket | None = None  # a monotonic key is about to change: the ticket that will open the session then
    sent: bytes | None = None  # the data in the cookie that goes out

    @property
    def ticket_to_be(self) -> Ticket | None:
        """What the session goes by once this exchange is over."""
        if self.login is not None:
            return self.login.ticket
        return self.renew or (self.planned if self.record is None or self.logout else self.ticket)

    def __repr__(self) -> str:
        """Show no secret."""
        return f"<Visit of {self.record!r}>"

    __str__ = __repr__


class Counter(Protocol):
    """What a session asks of its manager."""

    def mint(self, subject: str | None = None, instead_of: Handle | None = None) -> Ticket:
        """Return a ticket for a new session of a subject, or for one that takes another's place."""
        ...

    def client(self, request: Request) -> Client:
        """Return who is at the other end."""
        ...

    def allow_login(self, visit: Visit) -> None:
        """Raise Refusal where this request may not log anybody in (login CSRF)."""
        ...

    def need_store(self, act: str) -> None:
        """Raise ConfigError for what cannot be done without a store."""
        ...

    def carried(self, data: dict[str, Any], carry: Carry | None) -> dict[str, Any]:
        """Return what moves out of an anonymous session into a login."""
        ...

    def csrf_token(self, visit: Visit) -> str:
        """Return a fresh spelling of the session's token."""
        ...

    def check_csrf(self, visit: Visit, token: object) -> bool:
        """Tell whether the token is one of this session's."""
        ...

    def spent(self, visit: Visit) -> bytes:
        """Return the cookie of ours that came and opens no session, or b""."""
        ...

    def csrf_refusal(self, visit: Visit) -> Refusal:
        """Return the refusal of a request without this session's token."""
        ...

    def challenge(self, visit: Visit, *, reauthenticate: bool, within: float | None) -> Refusal:
        """Return the refusal that asks the user to log in (again)."""
        ...

    def now(self) -> Instant:
        """Return the time."""
        ...
