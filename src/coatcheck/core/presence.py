"""Who is there: what a handler may know of its session, as the record says it and its own acts changed it since."""

from __future__ import annotations

from .mapping import Data
from .model import Handle, Instant, Level, Signal


class Presence(Data):
    """The data, and who it belongs to: read only."""

    __slots__ = ()

    @property
    def subject(self) -> str | None:
        """Who is logged in, or None."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.subject
        return None if visit.logout or visit.record is None else visit.record.subject

    @property
    def handle(self) -> Handle | None:
        """The session's public name, for logs and revocation; None until something is stored or somebody logs in."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.ticket.handle
        if visit.renew is not None:
            return visit.renew.handle
        return None if visit.logout or visit.record is None else visit.record.handle

    @property
    def level(self) -> int:
        """How surely we know who is there: a `Level`."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.level
        return Level.ANONYMOUS if visit.logout else visit.level

    @property
    def methods(self) -> tuple[str, ...]:
        """How the subject authenticated (RFC 8176 names such as "pwd", "otp", "hwk")."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.methods
        return () if visit.logout or visit.record is None else visit.record.methods

    @property
    def authenticated_at(self) -> Instant | None:
        """When the subject last authenticated (seconds since 1970, UTC), or None."""
        visit = self._looked()
        if visit.login is not None:
            return visit.arrived
        return None if visit.logout or visit.record is None else visit.record.authenticated_at

    @property
    def tenant(self) -> str | None:
        """Of which tenant the subject is, as `login` was told; None: of none."""
        visit = self._looked()
        if visit.login is not None:
            return visit.login.tenant
        return None if visit.logout or visit.record is None else visit.record.tenant

    @property
    def suspected_at(self) -> Instant | None:
        """When an old token of this session was presented (`on_theft="note"`); a login answers the question."""
        visit = self._looked()
        return None if visit.logout or visit.login is not None or visit.record is None else visit.record.suspected_at

    @property
    def idle_ends_at(self) -> Instant | None:
        """When the session ends if nobody comes, as stored when this request came; None: never, or no session."""
        record = self._looked().record
        if record is None or record.idle_for is None:
            return None
        return record.seen_at + record.idle_for

    @property
    def ends_at(self) -> Instant | None:
        """When the session ends whatever happens; None: no session."""
        record = self._looked().record
        return None if record is None else record.expires_at

    @property
    def is_new(self) -> bool:
        """Whether this request came without a session that still counts."""
        return self._looked().record is None

    @property
    def ended_because(self) -> str | None:
        """Why the session that this browser presented is over ("idle", "logout", "theft" ...), or None."""
        return self._looked().ended_because

    @property
    def is_bound(self) -> bool:
        """Whether this request showed that it comes from the device that logged in (docs/dbsc.md)."""
        visit = self._looked()
        return visit.bound and visit.login is None and not visit.logout

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What differs between this request and the session's login, as the detectors saw it."""
        return self._looked().signals
