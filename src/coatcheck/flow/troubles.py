"""What becomes of a failure: it is logged, told and counted; and when a store fails too often, it is no longer asked.

Rules
- Each failure of the store that a request meets is the event `session_backend_error`, each fault of our own code or of
  a policy, detector or store of the application's `session_internal_error`: in the log at once, with its request's id.
- The store cannot keep the news of its own failure: it is counted as noise, and written in sum once the store is back.
- Listeners hear of the first failure, and then once a minute; of an opened circuit, and of the recovery, at once.
- What an exception says goes into the log, never into an answer (OWASP ASVS 16.5.1).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from ..core import facts, replies
from ..core.breaker import Circuit
from ..core.errors import NotAsked, Unreadable
from ..core.manager import SessionManager
from ..core.model import Event, Instant, Reply, Request, Trace
from .journal import log_events, logger

if TYPE_CHECKING:
    from .telling import Telling

BACKEND: Final = "session_backend_error"
INTERNAL: Final = "session_internal_error"
RECOVERED: Final = "session_backend_recovered"
TOLD_EVERY: Final = 60.0
_MOST_SAID: Final = 300


class Troubles:
    """The failures of one application with one store."""

    def __init__(self, manager: SessionManager, telling: Telling | None, *, sharded: bool = False) -> None:
        """Take whose they are, and who tells the listeners; `use` is set where a guard can be put before the store.

        Of a store with shards one may be away alone; who sends tokens of that one must not close the others.
        """
        breaker = None if sharded else manager.settings.breaker
        self._manager = manager
        self._telling = telling
        self._told_at: dict[str, Instant] = {}
        self.circuit = None if breaker is None else Circuit(breaker)
        self.always = breaker is not None and (breaker.slow is not None or breaker.failures == 1)
        self.guarded = self.always
        self.use: Callable[[bool], None] = _nothing

    def store_failed(
        self, request: Request | None, error: Exception, say: Literal["error", "warning"] = "error"
    ) -> None:
        """Take note of a failure of the store; `say`: how loud the log is, "warning" if nobody was refused for it."""
        now, circuit = self._manager.now(), self.circuit
        trace = self._manager.traces.of(request)
        self._count(BACKEND, trace, now, error)
        if isinstance(error, NotAsked):
            return  # told when the circuit was opened
        if circuit is not None and not self.guarded:
            circuit.failed(now)  # the first: more than one are needed, or the guard is there already
            self._guard(on=True)
        event = self._event(BACKEND, trace, now, error=f"{error}"[:_MOST_SAID], kind=type(error).__name__)
        (logger.error if say == "error" else logger.warning)("%s", facts.line(event), extra={"event": event})
        self._tell(event)

    def broke(self, request: Request, error: Exception) -> Reply:
        """Take note of a fault of ours, or of the application's own rules; return the answer to its request."""
        now = self._manager.now()
        trace = self._manager.traces.of(request)
        self._count(INTERNAL, trace, now, error)
        event = self._event(INTERNAL, trace, now, kind=type(error).__qualname__)
        logger.error("%s", facts.line(event), extra={"event": event}, exc_info=error)
        self._tell(event)
        return self._manager.traces.answered(request, replies.FAULT)

    def asking(self, *, proves: bool = True) -> Asking:
        """Return what a guarded call is made in; `proves`: a good answer to it shows that the store is well."""
        return Asking(self, proves)

    # -- a guarded call ----------------------------------------------------------------------------------------------

    def may_ask(self) -> Instant:
        """Return the time, or raise NotAsked."""
        now = self._manager.now()
        wait = 0.0 if self.circuit is None else self.circuit.wait(now)
        if wait > 0.0:
            message = f"the session store failed too often just now, and is not asked for another {wait:.1f} s"
            raise NotAsked(message)
        return now

    def answered(self, began: Instant, proves: bool) -> None:
        """Take note of a good answer; a slow one is none."""
        circuit, now = self.circuit, self._manager.now()
        if circuit is None:
            return
        if circuit.is_slow(now - began):
            self._failed(now)
            return
        if not proves:
            circuit.returned(now)
            return
        down = circuit.worked(now)
        if not self.always:
            self._guard(on=False)
        if down is not None:
            event = self._event(RECOVERED, self._manager.traces.of(None), now, down_for=round(down, 3))
            log_events((event,))
            self._told_at.clear()
            self._tell(event)

    def failed(self) -> None:
        """Take note of a guarded call that failed."""
        self._failed(self._manager.now())

    def _failed(self, now: Instant) -> None:
        if self.circuit is not None and self.circuit.failed(now):
            self._opened(now)

    def _opened(self, now: Instant) -> None:
        breaker = self._manager.settings.breaker
        pause = 0.0 if breaker is None else breaker.pause
        event = self._event(BACKEND, self._manager.traces.of(None), now, circuit="open", pause=pause)
        log_events((event,))
        self._tell(event, at_once=True)

    def _guard(self, *, on: bool) -> None:
        self.guarded = on
        self.use(on)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _event(self, name: str, trace: Trace, now: Instant, **detail: Any) -> Event:
        return Event(name=name, at=now, realm=self._manager.realm, detail=detail, trace=trace)

    def _count(self, kind: str, trace: Trace, now: Instant, error: Exception) -> None:
        sample = {"request_id": trace.request_id, "method": trace.method, "path": trace.path}
        said = {name: value for name, value in sample.items() if value is not None}
        self._manager.noise.count(kind, None, now, error=type(error).__qualname__, **said)

    def _tell(self, event: Event, *, at_once: bool = False) -> None:
        if self._telling is None:
            return
        last = self._told_at.get(event.name)
        if at_once or last is None or not 0.0 <= event.at - last < TOLD_EVERY:
            self._told_at[event.name] = event.at
            self._telling((event,))


class Asking:
    """One guarded call: refused while the circuit is open; what becomes of it is learned from."""

    __slots__ = ("_began", "_proves", "_troubles")

    def __init__(self, troubles: Troubles, proves: bool) -> None:
        """Ask nothing yet."""
        self._troubles, self._proves = troubles, proves
        self._began: Instant = 0.0

    def __enter__(self) -> None:
        """Begin, or raise NotAsked."""
        self._began = self._troubles.may_ask()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Learn from what happened; a caller that was cancelled says nothing of the store."""
        if error is None or isinstance(error, Unreadable):
            self._troubles.answered(self._began, self._proves)
        elif isinstance(error, Exception):
            self._troubles.failed()


def _nothing(_on: bool) -> None:
    """Guard nothing: there is no breaker."""
