"""The flow, awaiting: one request's exchange with its store.

This is the only code that waits: for a load before the handler, for a commit when the response starts. What is decided
is decided by the manager. Its twin differs in the words async and await, and a test holds the two together.
"""

from __future__ import annotations

import os
import random
from asyncio import sleep
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from ..core import replies
from ..core.cookies import dress
from ..core.errors import CoatcheckError, DataError, Refusal, SettledError, StoreError
from ..core.manager import SessionManager
from ..core.model import (
    Change,
    EventQuery,
    Handle,
    Headers,
    Instant,
    Note,
    Outcome,
    RaiseEpoch,
    Record,
    Reply,
    Request,
    Ticket,
)
from ..core.session import Session
from ..core.stepup import Of
from .async_guarded import AsyncGuardedStore
from .async_store import AsyncAuditedStore, AsyncStore
from .journal import here, log_events, logger
from .troubles import Troubles

if TYPE_CHECKING:
    from ..core.converter import Claim
    from ..core.devices import Devices
    from ..core.visit import Visit
    from .async_keys import AsyncKeys
    from .async_legacy import AsyncConversions
    from .telling import Telling

A = TypeVar("A", bound="Session | Reply")
V = TypeVar("V")

DEVICE_TRIES, DEVICE_HOPS = 6, 4
"""How often a binding is tried again where others change the record, and over how many renewed handles it is sought."""
NOTE_TRIES = 3
"""How often the browser of a login is noted again, where parallel logins of its subject note theirs."""
COMMIT_DEADLINE = 2.0
"""Seconds that a commit may take, with everything that it meets: conflicts, retries, waiting for a lock."""
EPOCHS_EVERY, EPOCHS_STALE = 1.0, 5.0
"""Seconds, forward or back, between looks at the epochs; without a good one for EPOCHS_STALE, tokens are refused."""
MOST_SKEW, SKEW_SAID = 30.0, 2.0
"""Seconds between our clock and the store's: refused above the first, said above the second."""
QUIET_SAID = 3600.0
"""Seconds without any event before the start after which it is said that the store may have been restored."""

_LOST = (
    "set a Secure cookie over http: most clients drop it, so every request is a new visitor; use https "
    "(test clients: base_url='https://testserver') or allow_insecure_http=True"
)

_QUIET = (
    "the newest event of the session store is %.0f h old; if it was restored from a backup, logouts since then are "
    "undone: run `coatcheck restored`"
)


class AsyncExchange:
    """The exchanges of one application with one store: adapters call begin, finish or abandon, and close.

    It keeps nothing of a request; what belongs to one travels in its session's visit.
    """

    def __init__(
        self,
        manager: SessionManager,
        store: AsyncStore,
        make: Callable[..., Session] = Session,
        keys: AsyncKeys | None = None,
    ) -> None:
        """Join a manager and a store; `make` builds the sessions (a framework's face). Opens nothing.

        `keys`: what holds the ring that the manager uses; requests have it look, once a minute, whether keys rotated.
        """
        manager.check_store(store)
        self.manager = manager
        self.store = store
        self._keys = keys
        self._conversions = _conversions_of(manager, store) if manager.converts else None
        self._glance: Callable[[Handle], Record | None] | None = getattr(store, "glance", None)
        self._make = make
        self._device_paths = manager.device_paths
        self._hardening = manager.hardening
        self._floor: Instant = 0.0
        self._generation: str | None = None
        self._told = False
        self._epochs_at = float("-inf")
        self._salted = not getattr(store, "sharded", False)
        if log_events not in store.listeners:
            store.listeners.append(log_events)
        self._telling = _telling_of(manager, store) if manager.settings.on_event else None
        manager.traces.node = manager.traces.node or here()
        self.troubles = Troubles(manager, self._telling, sharded=getattr(store, "sharded", False))
        self._guarded = AsyncGuardedStore(store, self.troubles.asking)
        self._at: AsyncStore | AsyncGuardedStore = store  # what requests ask; in trouble, the guarded one
        if self.troubles.circuit is not None:
            self.troubles.use = self._use
            self._use(self.troubles.always)

    async def begin(self, request: Request, *, device: bool = True) -> Session | Reply:
        """Return the session of a request, or the answer that goes out in the handler's place.

        `device`: the endpoints of device binding are answered here.
        """
        if self._device_paths and device and request.path in self._device_paths:
            return self._hardened(request, await self._device(request))
        manager = self.manager
        record = None
        try:
            if self._keys is not None:
                await self._keys.look()
            ticket = manager.identify(request)
            if isinstance(ticket, Ticket):
                if abs(manager.now() - self._epochs_at) >= EPOCHS_EVERY:
                    await self._look_at_epochs()
                if self._glance is not None and (copied := self._copied(request, ticket)) is not None:
                    return copied
                record = await self._at.load(ticket.handle)
            elif isinstance(ticket, Reply):
                return await self._refused(request, ticket)
            elif not self._salted:
                await self._look_at_epochs()  # a login must find its subject's shard
            session = None
            if self._conversions is not None and not isinstance(ticket, Ticket):
                session = await self._converted(request, manager.claim(request, ticket))
            if session is None:
                session = manager.open(request, ticket, record, self._make, self._floor)
            if isinstance(session, Reply):
                return await self._refused(request, session)
            visit = session.visit
            if not visit.notes and not visit.urgent:
                return session
            await self._note(visit)
            return (await self._urgent(request, session, again=True)) if visit.urgent else session
        except StoreError as error:
            return self._away(request, error)
        except CoatcheckError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a rule or a store breaks on: nobody is let in by it
            return self._hardened(request, self.troubles.broke(request, error))

    async def _device(self, request: Request) -> Reply:
        """Answer a browser that binds its session to its device, or proves that it still is: 503 where we are late."""
        manager = self.manager
        try:
            handle = manager.device_named(request)
            if isinstance(handle, Reply):
                return handle
            for _ in range(DEVICE_TRIES):
                if handle is None:
                    session = await self.begin(request, device=False)
                    if isinstance(session, Reply):
                        return session
                    outcome = manager.register(session)
                    notes = session.visit.notes
                else:
                    floor = await self.floor()
                    outcome, notes = manager.refresh(request, await self._successor(handle), floor), ()
                for commit_id, event in notes:
                    await self._try(request, commit_id, (Note(events=(event,)),), durable=False)
                changes = manager.traces.on(request, outcome.changes)
                if not changes or await self._at.commit(os.urandom(16), changes, outcome.durable) is None:
                    return outcome.reply or replies.UNAVAILABLE
        except StoreError as error:
            self.troubles.store_failed(request, error)
        except Exception as error:  # noqa: BLE001 - a browser gives its key up after any other answer than 503
            self.troubles.broke(request, error)
        return self._unavailable(request)

    async def _successor(self, handle: Handle) -> Record | None:
        """Return the record under a handle, or the one that took its place when its secret was renewed by hand."""
        record = await self._at.load(handle)
        for _ in range(DEVICE_HOPS):
            if record is None or record.ended_because != "replaced" or record.successor is None:
                return record
            record = await self._at.load(record.successor)
        return record

    async def confirm(self, session: Session) -> None:
        """Read the session from the store itself, where a near copy was good enough so far; judge it again.

        Data that the handler holds stays as it is. Raises Refusal (503) where the store does not answer.
        """
        visit = session.visit
        try:
            for _ in range(2):
                if not visit.copied or visit.ticket is None:
                    return
                record = await self._at.load(visit.ticket.handle)
                self.manager.confirm(session, record, self._floor)
                await self._note(visit)
                if visit.urgent:
                    changes = self.manager.traces.on(visit.request, visit.urgent)
                    conflict = await self._at.commit(os.urandom(16), changes, visit.urgent_required)
                    visit.copied = conflict is not None
        except StoreError as error:
            self.troubles.store_failed(visit.request, error)
            raise Refusal(
                self._unavailable(visit.request), "the session could not be confirmed: the store is away"
            ) from error

    def finish_read(self, session: Session, status: int, headers: Headers) -> Headers | None:
        """Return the response's headers where the session was read, or not even that; None: `finish` has more to do.

        For adapters that can spare themselves the waiting: `finish` alone does the same.
        """
        visit = session.visit
        if visit.outcome is not None or self._hardening is not None:
            return None
        try:
            visit.outcome = outcome = self.manager.settle_read(session, status, headers)
        except Exception:  # noqa: BLE001 - `finish` meets it again, and tells of it
            return None
        return None if outcome is None else dress(headers, outcome)

    def is_closed(self, session: Session) -> bool:
        """Tell whether `close` has nothing to do."""
        visit = session.visit
        return not (visit.wrote or visit.lent or visit.asked) and self.manager.noise.since is None

    async def finish(self, session: Session, status: int, headers: Headers) -> Reply | Headers:
        """Commit what the exchange leaves and return the response's headers, or the answer that replaces it.

        The first call settles; a later one (an error page) gets the same cookies. Raises DataError.
        """
        visit = session.visit
        if visit.outcome is None:
            devices = None if visit.login is None else self.manager.devices
            try:
                if devices is not None:
                    await self._look_at_device(devices, session)
                outcome = await self._settled(session, status, headers)
                if visit.unguarded:
                    outcome = await self._seen_again(session, outcome)
                if outcome.changes:
                    outcome = await self._commit(session, outcome)
            except DataError as error:  # a value that cannot be kept: the application's own error page answers
                self.troubles.broke(visit.request, error)
                raise
            except CoatcheckError:
                raise
            except Exception as error:  # noqa: BLE001 - nothing was committed, so nothing may look as if it were
                outcome = Outcome(reply=self.troubles.broke(visit.request, error))
            visit.outcome = outcome
            if devices is not None and outcome.reply is None and outcome.cookies:
                await self._note_device(devices, session)
            if visit.dropped:
                logger.info("session data of %r was %s", visit.request.path, visit.dropped)
        outcome = visit.outcome
        if outcome.cookies and not self._told and self.manager.loses_cookie(visit.request):
            self._told = True
            logger.warning(_LOST)
        answer = dress(headers, outcome) if outcome.reply is None else outcome.reply
        if self._hardening is None:
            return answer
        return self._hardening.hardened(visit.request, answer, private=visit.consulted)

    async def _settled(self, session: Session, status: int, headers: Headers) -> Outcome:
        """Return what is to be committed; a refusal where the store, or a sealed token's keys, are out of reach."""
        try:
            if session.visit.login is not None:
                await self.floor()  # by how much our clock is ahead of the store's
            return self.manager.settle(session, status, headers)
        except StoreError as error:
            return self._failed(session, Outcome(required=True), error)

    async def _look_at_device(self, devices: Devices, session: Session) -> None:
        """Have the browser of a login compared with its subject's; where those are out of reach, nothing is told."""
        visit = session.visit
        if visit.login is None:
            return
        subject = visit.login.subject
        try:
            memory = await self._at.load(devices.handle_of(subject))
        except StoreError as error:
            logger.warning("the browser of a login could not be compared with others")
            self.troubles.store_failed(visit.request, error, "warning")
        else:
            visit.sighting = devices.sighted(visit.request, subject, memory, visit.arrived)

    async def _note_device(self, devices: Devices, session: Session) -> None:
        """Remember the browser of a login that is stored, unless that was done not long ago."""
        visit = session.visit
        try:
            for _ in range(NOTE_TRIES):
                change = None if visit.sighting is None else devices.noted(visit.sighting, visit.arrived)
                if change is None or visit.sighting is None:
                    return
                conflict = await self._at.commit(os.urandom(16), (change,), durable=False)
                if conflict is None or conflict.current is None:
                    return
                visit.sighting = devices.again(visit.sighting, conflict.current, visit.arrived)
        except StoreError as error:
            logger.warning("the browser of a login could not be noted")
            self.troubles.store_failed(visit.request, error, "warning")
        except Exception as error:  # noqa: BLE001 - the login is stored, so its answer goes out
            self.troubles.broke(visit.request, error)

    async def abandon(self, session: Session) -> None:
        """Commit ends and activity of an exchange whose response does not pass through us; drop the rest."""
        visit = session.visit
        if visit.outcome is None:
            visit.outcome = outcome = self._left(session)
            if outcome.changes:
                await self._try(visit.request, os.urandom(16), outcome.changes, durable=outcome.durable)

    async def close(self, session: Session) -> None:
        """Commit what was written after the response started, if no cookie is needed; then do a little housework."""
        manager, visit = self.manager, session.visit
        if (visit.wrote or visit.lent or visit.asked) and visit.outcome is not None:
            try:
                outcome = manager.late(session)
            except CoatcheckError as error:
                logger.error("session data written after the response started was lost: %s", error)
                outcome = Outcome()
            except Exception as error:  # noqa: BLE001 - the answer is out; what cannot be kept is told
                self.troubles.broke(visit.request, error)
                outcome = Outcome()
            if outcome.changes:
                await self._commit(session, outcome)
            elif visit.dropped:
                logger.warning("session data of %r was %s", visit.request.path, visit.dropped)
        if manager.noise.since is not None and manager.noise.due(manager.now()):
            await self.flush()

    async def _refused(self, request: Request, reply: Reply) -> Reply:
        """Return an answer after which nobody calls `close`: what is told of a flood must not wait for that."""
        manager = self.manager
        if manager.noise.since is not None and manager.noise.due(manager.now()):
            await self.flush()
        return self._hardened(request, reply)

    def _hardened(self, request: Request, answer: A) -> A:
        """Return an answer of ours with what guards it."""
        if self._hardening is None or not isinstance(answer, Reply):
            return answer
        return self._hardening.hardened(request, answer, private=False)

    async def flush(self) -> None:
        """Write the summaries of the noise counted so far."""
        manager = self.manager
        now = manager.now()
        summaries = manager.noise.summaries(manager.realm, now)
        if summaries and not await self._try(None, os.urandom(16), (Note(events=summaries),), durable=False):
            manager.noise.put_back(summaries, now)

    async def save(self, session: Session) -> None:
        """Commit the data now (a websocket, a stream); raises SettledError where a cookie would be needed.

        If the session ended meanwhile nothing is written, and `session.ended_because` says why.
        """
        visit = session.visit
        if visit.record is None or visit.login is not None or visit.renew is not None or self.manager.settings.sealed:
            message = "saving this session needs a cookie, which only the start of a response can carry"
            raise SettledError(message)
        saved = self.manager.late(session)
        if saved.changes:
            saved = await self._commit(session, saved)
        if saved.reply is not None:
            message = "the session could not be saved: the store does not answer"
            raise StoreError(message)

    async def take(self, session: Session, key: str) -> Any:
        """Remove a key and return its value, or None: of all parallel requests, exactly one gets it."""
        return await self._at_once(session, lambda data: data.pop(key, None))

    async def require_step_up(self, session: Session, of: Of = b"", *, level: int | None = None) -> str:
        """Return the subject, if it authenticated for this very request: since it was first asked for, and once.

        Otherwise raise Refusal, and remember for five minutes what it was: method, target, and `of`, which is the body,
        or the fields that matter (they are shown again). `level`: at least that `Level`.
        """
        if await self._at_once(session, session.may_once(of, level)):
            return session.subject or ""
        raise session.interrupted(of)

    async def bump(self, session: Session, key: str, by: int = 1) -> int:
        """Add to a counter and return it; kept whatever becomes of the response.

        Raises Refusal where the session ended meanwhile: a guess that cannot be counted must not be judged.
        """

        def add(data: dict[str, Any]) -> int:
            data[key] = int(data.get(key, 0)) + by
            return int(data[key])

        count = await self._at_once(session, add)
        if count is None:
            raise self.manager.challenge(session.visit, reauthenticate=False, within=None)
        return count

    async def reason_over(self, session: Session) -> str | None:
        """Return why the session of an open connection is over, or None; read from the store now.

        A store that does not answer is no reason yet: the next look decides.
        """
        reason, _ = await self.look(session)
        return reason

    async def look(self, session: Session) -> tuple[str | None, Instant | None]:
        """Return why the session of an open connection is over, or None and the moment at which it will be.

        Where the store does not answer, both are None.
        """
        record = session.visit.record
        if record is None:
            return None, inf
        try:
            floor = await self.floor()
            stored = await self._at.load(record.handle)
        except StoreError as error:
            self.troubles.store_failed(None, error, "warning")
            return None, None
        return self.manager.over(stored, floor, record), self.manager.ends_at(stored, record)

    async def floor(self) -> Instant:
        """Return the moment before which sessions no longer count, as it was within the last second."""
        if abs(self.manager.now() - self._epochs_at) >= EPOCHS_EVERY:
            await self._look_at_epochs()
        return self._floor

    def _copied(self, request: Request, ticket: Ticket) -> Session | None:
        """Return the session if a near copy of its record can vouch for it."""
        record = None if self._glance is None else self._glance(ticket.handle)
        if record is None:
            return None
        session = self.manager.open_copy(request, ticket, record, self._make, self._floor)
        if session is not None:
            session.visit.confirm = self.confirm
        return session

    async def _converted(self, request: Request, claim: Claim | None) -> Session | Reply | None:
        """Return the session that another library's became, now or before; None: no good cookie of such a one came."""
        if claim is None or self._conversions is None:
            return None
        floor = await self.floor()
        found = await self._conversions.found(request, claim, floor)
        if found.record is None:
            return None
        return self.manager.open_converted(request, found.claim, found.record, found.following, self._make, floor)

    async def _look_at_epochs(self) -> None:
        now = self.manager.now()
        try:
            epochs = await self._at.epochs()
        except StoreError:
            if abs(now - self._epochs_at) >= EPOCHS_STALE:
                raise
            return
        then = self.manager.now()
        skew = abs(epochs.store_now - then)
        if skew > MOST_SKEW:
            message = f"the store's clock and this process's differ by {skew:.0f} s (at most {MOST_SKEW:.0f}); set them"
            raise StoreError(message)
        if skew > SKEW_SAID:
            logger.warning("the store's clock and this process's differ by %.1f s; timeouts are off by as much", skew)
        problem = self.manager.estranged(epochs)
        if problem is not None:
            raise StoreError(problem)
        if self._generation not in (None, epochs.generation):
            logger.critical("the store was emptied or restored: every session begun before now is refused")
            self._floor = now
            await self._try(None, os.urandom(16), (RaiseEpoch(scope="*", before=now),), durable=True)
        if self._generation is None:
            await self._look_back(epochs.store_now)
        self._generation = epochs.generation
        if self.manager.salt not in (b"", epochs.salt):
            message = "the store's shard key changed: sessions of one subject would lie in two shards; restore the key"
            raise StoreError(message)
        self.manager.salt = epochs.salt
        self._salted = True
        if self._telling is not None:
            self._telling.here()
        self._floor = max(self._floor, self.manager.learn(epochs.scopes))
        self.manager.ahead(then - epochs.store_now if now > epochs.store_now else 0.0)
        self._epochs_at = now

    async def _look_back(self, now: Instant) -> None:
        """Say at start that nothing was written for long: a store that came back from a backup looks like that."""
        store = self.store
        if not isinstance(store, AsyncAuditedStore) or not self._salted:
            return
        try:
            newest = await store.events(EventQuery(noise=False, limit=1))
        except StoreError:
            return
        if newest.items and newest.items[0].at < now - QUIET_SAID:
            logger.warning(_QUIET, (now - newest.items[0].at) / 3600)

    def _use(self, guarded: bool) -> None:
        self._at = self._guarded if guarded else self.store

    def _away(self, request: Request, error: StoreError) -> Session | Reply:
        self.troubles.store_failed(request, error)
        answer = self.manager.away(request, self._make, self._floor)
        if isinstance(answer, Reply):
            answer = self._hardened(request, self.manager.traces.answered(request, answer))
        return answer

    def _unavailable(self, request: Request) -> Reply:
        return self.manager.traces.answered(request, replies.UNAVAILABLE)

    async def _urgent(self, request: Request, session: Session, again: bool) -> Session | Reply:
        """Commit what must be stored before the handler runs: a first sight, an end, a drop to "remembered"."""
        visit = session.visit
        try:
            changes = self.manager.traces.on(request, visit.urgent)
            conflict = await self._at.commit(os.urandom(16), changes, visit.urgent_required)
            if conflict is not None and again:
                return await self._reopened(request, session)
        except StoreError as error:
            if visit.urgent_required:
                return self._away(request, error)
            self.troubles.store_failed(request, error, "warning")
            self.manager.after.unsighted(session)
        return session

    async def _reopened(self, request: Request, session: Session) -> Session | Reply:
        ticket = self.manager.identify(request)
        if not isinstance(ticket, Ticket):
            return session
        record = await self._at.load(ticket.handle)
        opened = self.manager.open(request, ticket, record, self._make, self._floor)
        if isinstance(opened, Reply) or not opened.visit.urgent:
            return opened
        return await self._urgent(request, opened, again=False)

    async def _commit(self, session: Session, outcome: Outcome) -> Outcome:
        """Commit an outcome, or what becomes of it where others were faster; without it, no cookie goes out."""
        manager = self.manager
        if self._telling is not None:
            self._telling.here()
        deadline = monotonic() + COMMIT_DEADLINE
        commit_id = os.urandom(16)
        changes = manager.traces.on(session.visit.request, outcome.changes)
        unsure = False
        tries = 0
        while True:
            try:
                conflict = await self._at.commit(commit_id, changes, outcome.durable)
            except StoreError as error:
                patient = error.retry and (outcome.required or outcome.cookies)
                if not patient or monotonic() >= deadline:
                    return self._failed(session, outcome, error)
                unsure = unsure or error.unsure
            else:
                if conflict is None:
                    manager.after.committed(session, outcome)
                    return outcome
                outcome = manager.after.rebase(session, conflict, unsure=unsure)
                if not outcome.changes:
                    return outcome
                if monotonic() >= deadline:
                    return self._failed(session, outcome, StoreError("others kept changing the session"))
                commit_id = os.urandom(16)
                changes = manager.traces.on(session.visit.request, outcome.changes)
            tries += 1
            await sleep(random.uniform(0.0, 0.0005 * 2 ** min(tries, 6)))  # noqa: S311 - jitter, no secret

    async def _seen_again(self, session: Session, outcome: Outcome) -> Outcome:
        """Look whether the session still lives, before a cookie goes out that no commit can refuse."""
        record = session.visit.record
        try:
            stored = None if record is None else await self._at.load(record.handle)
        except StoreError as error:
            return self._failed(session, outcome, error)
        return self.manager.after.seen_again(session, outcome, stored)

    def _failed(self, session: Session, outcome: Outcome, error: StoreError) -> Outcome:
        request = session.visit.request
        if outcome.required:
            self.troubles.store_failed(request, error)
            return Outcome(reply=self._unavailable(request))
        self.troubles.store_failed(request, error, "warning")
        return Outcome(vary=outcome.vary)

    async def _note(self, visit: Visit) -> None:
        """Write the facts that hang on no other change."""
        for commit_id, event in visit.notes:
            await self._try(visit.request, commit_id, (Note(events=(event,)),), durable=False)

    async def _try(
        self, request: Request | None, commit_id: bytes, changes: tuple[Change, ...], *, durable: bool
    ) -> bool:
        """Commit what nobody waits for; tell whether that was done."""
        changes = self.manager.traces.on(request, changes)
        try:
            await self._at.commit(commit_id, changes, durable)
        except StoreError as error:
            self.troubles.store_failed(request, error, "warning")
            return False
        return True

    def _left(self, session: Session) -> Outcome:
        """Return what an exchange leaves that is given up; a fault on top of it must not hide why."""
        try:
            return self.manager.abandon(session)
        except Exception as error:  # noqa: BLE001 - see above
            self.troubles.broke(session.visit.request, error)
            return Outcome()

    async def _at_once(self, session: Session, change: Callable[[dict[str, Any]], V]) -> V | None:
        """Apply a change to the stored data by a commit of its own; None, where the session ended meanwhile."""
        if session.visit.copied:  # what is not in a copy may be in the store
            await self.confirm(session)
            if session.visit.record is None:
                return None
        deadline = monotonic() + COMMIT_DEADLINE
        while True:
            value, update = self.manager.after.edit(session, change)
            if update is None:
                return value
            conflict = await self._at.commit(os.urandom(16), (update,), durable=False)
            if conflict is None:
                self.manager.after.edited(session, change, update)
                return value
            if not self.manager.after.overtaken(session, conflict):
                return None
            if monotonic() >= deadline:
                message = "others kept changing the session"
                raise StoreError(message)
            await sleep(random.uniform(0.0, 0.002))  # noqa: S311 - jitter, no secret


def _conversions_of(manager: SessionManager, store: AsyncStore) -> AsyncConversions:
    """Import what few need only where it is asked for."""
    from .async_legacy import AsyncConversions

    return AsyncConversions(manager, store)


def _telling_of(manager: SessionManager, store: AsyncStore) -> Telling | None:
    """Import threads only where somebody listens."""
    from .telling import telling_of

    return telling_of(manager, store)
