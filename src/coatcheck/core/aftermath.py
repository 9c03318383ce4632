"""What follows a commit: it is stored, it met a newer record, or it is one change of its own that must happen once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from . import codec, facts, records, replies, tokens, typed
from .errors import DataError, SettledError, StoreError
from .model import Change, Conflict, End, Entropy, Insert, Instant, Level, Note, Outcome, Record, Replace, Update
from .sealed import Sealer
from .session import Session
from .settings import Settings
from .settler import Settler
from .tokens import TokenClass
from .visit import Visit

V = TypeVar("V")


class Aftermath:
    """The rules for what a commit came to."""

    def __init__(
        self,
        settings: Settings,
        realm: str,
        settler: Settler,
        sealer: Sealer | None,
        *,
        now: Callable[[], Instant],
        entropy: Entropy,
    ) -> None:
        """Take the settings, and what plans a commit anew."""
        self._settings, self._realm = settings, realm.encode()
        self._settler, self._sealer, self._secrecy = settler, sealer, settler.secrecy
        self._now, self._entropy = now, entropy

    def rebase(self, session: Session, conflict: Conflict, *, unsure: bool = False) -> Outcome:
        """Return what to commit instead, given what the store holds now; nothing, where the session is over."""
        visit = session.visit
        current = conflict.current
        if conflict.why in ("limit", "epoch") and visit.login is not None:
            return self._login_refused(visit, conflict.why)
        if conflict.why == "exists":  # another session has this handle: once in 2^54 or so
            visit.planned = None
            if visit.renew is not None and visit.record is not None:
                visit.renew = visit.counter.mint(visit.record.subject, visit.record.handle)
            login = visit.login
            visit.login = None if login is None else replace(login, ticket=visit.counter.mint(login.subject))
            return self._settler.settle(visit, visit.status, visit.headers)
        if current is None or current.ended_at is not None or visit.record is None:
            return self._dropped(visit, current)
        if self._sealer is not None:
            return self._settled_again(session, visit.record, current)
        if current.turn_proof != visit.record.turn_proof or current.used_at != visit.record.used_at:
            visit.standing = TokenClass.FORMER_GRACE if visit.login is None and visit.renew is None else visit.standing
            visit.following = None
        if visit.typed is not None:
            visit.data = visit.typed.plain()
            visit.typed = None
        theirs = self._opened(visit, current)
        visit.data, visit.wrote = records.merged(visit.base, visit.data, theirs, unsure=unsure), True
        visit.record, visit.base = current, theirs
        if self._settings.data is not None:
            try:
                typed.to_type(visit.data, self._settings.data)
            except DataError as error:
                visit.data = codec.decode(theirs)
                return Outcome(reply=replies.conflict("conflict", f"a parallel request changed the session: {error}"))
        return self._settler.settle(visit, visit.status, visit.headers)

    def seen_again(self, session: Session, outcome: Outcome, stored: Record | None) -> Outcome:
        """Return what becomes of a cookie that no commit guards, given the record as it is now: nothing, if it is late.

        It is a sealed write, or the first cookie of another library's session, which would wipe a login's (F2).
        """
        visit = session.visit
        visit.unguarded = False
        live = stored is not None and stored.ended_at is None
        if live and visit.record is not None and stored is not None and stored.turn_proof == visit.record.turn_proof:
            return outcome
        if self._sealer is None:
            return replace(outcome, cookies=())
        return self.rebase(session, Conflict(stored, "version" if live else "gone"))

    def _settled_again(self, session: Session, was: Record, current: Record) -> Outcome:
        """Settle on the stub as it is now; where a monotonic key changed meanwhile, what was written is too old."""
        visit = session.visit
        if current.turn_proof != was.turn_proof:
            visit.login = visit.renew = None
            visit.data, visit.typed, visit.wrote, visit.reseal = codec.decode(visit.base), None, False, False
            return Outcome(reply=replies.conflict("conflict", "A parallel request changed the session; try again."))
        visit.record = replace(current, seen_at=min(current.seen_at, was.seen_at))
        return self._settler.settle(visit, visit.status, visit.headers)

    def _login_refused(self, visit: Visit, why: str) -> Outcome:
        visit.login = None
        if why == "limit":
            sentence = "There are too many sessions of this account; end one and log in again."
            return Outcome(reply=replies.forbidden("session_limit", sentence))
        return Outcome(reply=replies.forbidden("login_required", "The account's sessions were ended; log in again."))

    def _dropped(self, visit: Visit, current: Record | None) -> Outcome:
        """Drop what a request wrote to a session that ended meanwhile: nothing is revived, no cookie is touched."""
        was = visit.record
        acted = visit.login is not None or visit.renew is not None or bool(visit.end_others)
        visit.login = visit.renew = None
        visit.end_others = ""
        visit.record, visit.ended_because = None, None if current is None else current.ended_because
        visit.data, visit.base, visit.typed = {}, b"", None
        changes: tuple[Change, ...] = ()
        if was is not None:
            event = facts.about(
                "session_write_dropped",
                was,
                self._now(),
                visit.counter.client(visit.request),
                because=visit.ended_because,
            )
            changes = (Note(events=(event,)),)
        if not acted:
            return Outcome(changes=changes, vary=("Cookie",))
        refusal = visit.counter.challenge(visit, reauthenticate=False, within=None)
        return Outcome(changes=changes, reply=refusal.reply)

    def unsighted(self, session: Session) -> None:
        """Take note that a first sight may not be stored: what this exchange writes is laid on what is stored then."""
        visit = session.visit
        if visit.record is not None:
            visit.record = replace(visit.record, version=0)  # no stored record has it

    def committed(self, session: Session, outcome: Outcome) -> None:
        """Take note that an outcome is stored: what the handler asked for is done, later writes build on it."""
        visit = session.visit
        for change in outcome.changes:
            if isinstance(change, Update):
                visit.record, visit.base = change.record, self._base_of(visit)
            elif isinstance(change, Insert | Replace):
                visit.ticket, visit.standing = visit.ticket_to_be, TokenClass.CURRENT
                visit.record, visit.base = change.record, self._base_of(visit)
                visit.level = change.record.level
            elif isinstance(change, End) and visit.logout and visit.login is None:
                visit.record = visit.presented = visit.ticket = None
                visit.base, visit.level = b"", int(Level.ANONYMOUS)
        visit.login = visit.renew = None
        visit.logout = visit.end_others = ""
        visit.wrote = False

    def _base_of(self, visit: Visit) -> bytes:
        """Return the data that later writes build on."""
        if self._sealer is None:
            return visit.offered
        return visit.base if visit.sent is None else visit.sent

    def edit(self, session: Session, change: Callable[[dict[str, Any]], V]) -> tuple[V, Update | None]:
        """Apply a change to the *stored* data, for one conditional commit of its own: for what must happen once."""
        visit = session.visit
        record = visit.record
        if record is None:
            visit.wrote = True
            return change(visit.data), None
        if self._sealer is not None:
            return self._edit_sealed(visit, record, change)
        base = self._opened(visit, record)
        stored = codec.decode(base)
        value = change(stored)
        data = codec.encode(stored)
        if data == base:
            return value, None
        kept = self._settler.kept(visit, visit.ticket, data)
        return value, Update(record=replace(record, data=kept, version=record.version + 1), was=record.version)

    def _edit_sealed(
        self, visit: Visit, record: Record, change: Callable[[dict[str, Any]], V]
    ) -> tuple[V, Update | None]:
        """Change what the cookie brought, and have every older cookie refused: so of all that present it, one wins."""
        visit.counter.need_store("take and bump")
        if visit.reads_only:
            message = "the store does not answer: until it does, this session can only be read"
            raise StoreError(message)
        if visit.outcome is not None or visit.request.kind == "websocket" or visit.ticket is None:
            message = "a sealed session is changed by a cookie, which only the start of a response can carry"
            raise SettledError(message)
        brought = codec.decode(visit.base)
        value = change(brought)
        if codec.encode(brought) == visit.base:
            return value, None
        visit.turned = tokens.turned(visit.ticket, self._entropy)
        changed = records.turned(self._realm, record, visit.turned, self._now())
        return value, Update(record=replace(changed, version=record.version + 1), was=record.version)

    def edited(self, session: Session, change: Callable[[dict[str, Any]], Any], update: Update) -> None:
        """Take note that an edit is stored: the handler's own data follows, its other changes stay unsaved."""
        visit = session.visit
        change(visit.data)
        visit.lent = True
        if self._sealer is None:
            visit.record, visit.base = update.record, visit.offered
            return
        brought = codec.decode(visit.base)
        change(brought)
        visit.record, visit.base = update.record, codec.encode(brought)
        visit.ticket, visit.turned = visit.turned, None
        visit.asked = visit.reseal = True

    def overtaken(self, session: Session, conflict: Conflict) -> bool:
        """Take in what is stored now; return whether the session still lives."""
        visit = session.visit
        current = conflict.current
        if current is None or current.ended_at is not None:
            return False
        if self._sealer is not None:
            same = visit.record is not None and visit.record.turn_proof == current.turn_proof
            visit.record = current
            return same
        theirs = self._opened(visit, current)
        visit.data, visit.wrote = records.merged(visit.base, visit.data, theirs, unsure=False), True
        visit.record, visit.base = current, theirs
        return True

    def _opened(self, visit: Visit, record: Record) -> bytes:
        """Return the encoded data of this visit's record, as it is stored now."""
        if visit.ticket is None:
            raise AssertionError  # a believed record has its ticket
        return self._secrecy.read(visit.ticket, record.data)
