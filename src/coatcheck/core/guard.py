"""What stands before something delicate: is the proof fresh and sure enough, and what was interrupted to ask for it?

`require_login` asks for a state, which holds until it is too old; `may_once` for a permission for this very request,
which is spent (core/stepup.py has the rules of both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from . import replies, stepup
from .errors import ConfigError, Refusal
from .model import Level
from .presence import Presence
from .visit import Visit


class Guard(Presence):
    """Who is there, and whether that is enough."""

    __slots__ = ()

    def require_login(
        self,
        *,
        within: timedelta | float | None = None,
        level: int | None = None,
        fresh: bool = False,
        shown: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the subject, or raise Refusal: nobody, not surely enough, or not recently enough (seconds).

        `fresh`: a near copy of the session is not good enough; it is read from the store itself. A handler on an event
        loop awaits `exchange.confirm(session)` before; raises ConfigError where it did not.
        `shown`: what `resume()` can show again after the login, where this request is one that must be confirmed.
        """
        visit = self._looked()
        if fresh and visit.copied:
            _confirmed(self)
        subject = self.subject
        seconds = within.total_seconds() if isinstance(within, timedelta) else within
        if subject is None:
            raise visit.counter.challenge(visit, reauthenticate=False, within=seconds)
        if visit.doubted and visit.login is None:
            raise visit.counter.challenge(visit, reauthenticate=True, within=seconds)
        if within is None and level is None:
            return subject
        self._bound(visit)
        if not self._fresh(visit, seconds, level):
            refusal = visit.counter.challenge(visit, reauthenticate=True, within=seconds)
            if refusal.reply.status == 303 and visit.request.method not in stepup.SAFE:
                self._note(visit, shown or {}, grants=False)
            raise refusal
        if stepup.KEY in visit.data and stepup.is_done(visit.data[stepup.KEY], visit.request):
            del self[stepup.KEY]
        return subject

    # -- once, for this very request -----------------------------------------------------------------------------------

    def may_once(self, of: stepup.Of, level: int | None = None) -> Callable[[dict[str, Any]], bool]:
        """Return what takes the permission for this very request out of the session's data, and tells if it was there.

        For `exchange.require_step_up`, which has it committed at once. Raises Refusal where nobody is logged in.
        """
        visit = self._looked()
        if self.subject is None:
            raise visit.counter.challenge(visit, reauthenticate=False, within=None)
        self._bound(visit)

        def take(data: dict[str, Any]) -> bool:
            record, now = visit.record, visit.counter.now()
            if record is None or visit.login is not None or not self._fresh(visit, stepup.FOR, level):
                return False
            good = stepup.permits(data.get(stepup.KEY), record, visit.request, of, now)
            if good:
                del data[stepup.KEY]
            return good

        return take

    def interrupted(self, of: stepup.Of) -> Refusal:
        """Return the refusal that asks for a proof for this very request, and note the request in the session."""
        visit = self._looked()
        self._note(visit, of, grants=True)
        return visit.counter.challenge(visit, reauthenticate=True, within=0.0)

    # -- what a proof interrupted --------------------------------------------------------------------------------------

    def resume(self, wanted: str | None = None, default: str = "/") -> stepup.Resume:
        """Return what comes after a login: `GoTo` a page of this site, or `AskAgain` for what the login interrupted.

        `wanted` is the `next` that the login page was called with; where it names another site's page, or none, the
        session tells what was interrupted; without that it is `default`.
        """
        visit = self._looked()
        target = stepup.own_target(wanted)
        if target is not None:
            return stepup.GoTo(target)
        found = stepup.resumed(visit.data.get(stepup.KEY), self.subject, visit.counter.now())
        return stepup.GoTo(default) if found is None else found

    def _note(self, visit: Visit, of: stepup.Of, *, grants: bool) -> None:
        record = visit.record
        if record is None or visit.login is not None or visit.logout or visit.request.kind == "websocket":
            return
        note = stepup.noted(record, visit.request, of, visit.counter.now(), grants=grants)
        if note is not None:
            self[stepup.KEY] = note

    # -- what is enough ------------------------------------------------------------------------------------------------

    def _bound(self, visit: Visit) -> None:
        """Raise Refusal where the session must be bound to its device, and is not: nothing delicate is done by it."""
        if visit.unbound and visit.login is None:
            sentence = "This needs a session that is bound to its device; your browser has not done that (yet)."
            raise Refusal(replies.forbidden("binding_required", sentence), "binding_required")

    def _fresh(self, visit: Visit, within: float | None, level: int | None) -> bool:
        if self.level <= Level.REMEMBERED or (visit.step_up and visit.login is None):
            return False
        if level is not None and self.level < level:
            return False
        since = self.authenticated_at
        return within is None or (since is not None and visit.counter.now() - since <= within)


def _confirmed(session: Guard) -> None:
    """Read the record of a copied session, where that can be done without being awaited."""
    confirm = session.visit.confirm
    waiting = None if confirm is None else confirm(session)
    if waiting is not None:
        waiting.close()
        message = (
            "require_login(fresh=True) cannot read the session from inside an event loop; before it, "
            "`await exchange_of(request).confirm(session)`, or name the path in the setting fresh=[...]"
        )
        raise ConfigError(message)
