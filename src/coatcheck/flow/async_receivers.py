"""The receivers, awaiting: an identity provider's logout tokens and security events, verified, then done, once.

Order: check that it was not done before, do it, remember it. What fails half-way is not remembered, so it can be sent
again; everything that is done may be done twice. Its twin differs in the words async and await, as the flow's do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..core import facts, jose, links, notices, providers, replies
from ..core.errors import CoatcheckError, ConfigError, Refusal, StoreError
from ..core.ledger import authenticated
from ..core.manager import SessionManager
from ..core.model import Change, End, EndOthers, Event, Handle, Instant, Note, Query, RaiseEpoch, Record, Reply, Request
from ..core.notices import Issuer, Notice, Stream, Target
from ..core.session import Session
from ..core.traces import placed
from .async_store import AsyncStore
from .journal import here, log_events, logger
from .loops import Lock
from .troubles import Troubles

KEYS_AGAIN, KEYS_FOR, KEYS_FAILED = 300.0, 3600.0, 30.0
"""Seconds between fetches of a key set: for an unknown kid, in any case, and after one that failed."""
KEYS_KEPT = 86400.0
"""Seconds for which keys still count while they cannot be fetched anew."""
WEEK = 604800.0


class AsyncKeySet:
    """The keys of one party: given, or fetched by a function of the application's, never more often than said above."""

    def __init__(
        self, keys: Any, clock: Callable[[], Instant], failed: Callable[[None, Exception], None] | None = None
    ) -> None:
        """Take a JWKS, or the function that fetches one, and who is told when it fails; fetches nothing yet."""
        self._fetch = keys if callable(keys) else None
        self._keys: Sequence[jose.Jwk] = () if callable(keys) else jose.key_set(keys)
        self._clock = clock
        self._failed = failed
        self._tried_at = self._good_at = float("-inf")
        self._lock = Lock()

    async def verified(self, token: str, algorithms: Sequence[str], typ: str | None) -> dict[str, Any]:
        """Return the claims of a token that one of the keys signed; raise Refused, or StoreError without keys."""
        if self._fetch is not None:
            await self._look(KEYS_FOR)
        try:
            return jose.verified(token, self._keys, algorithms, typ)
        except jose.UnknownKey:
            if self._fetch is None or not await self._look(KEYS_AGAIN):
                raise
            return jose.verified(token, self._keys, algorithms, typ)

    async def _look(self, after: float) -> bool:
        """Fetch the keys if the last fetch is that long ago; tell whether there are new ones."""
        async with self._lock:
            now, fetch = self._clock(), self._fetch
            failed = self._good_at < self._tried_at
            if fetch is None or now - self._tried_at < (KEYS_FAILED if failed else after):
                new = False
            else:
                before, self._tried_at = self._tried_at, now
                try:
                    new = await self._fetched(fetch, now)
                except BaseException:  # who asked went away: no try, or anybody could keep us from the keys
                    self._tried_at = before
                    raise
            if now - self._good_at > KEYS_KEPT:
                message = "the issuer's keys cannot be fetched; make sure that its JWKS can be reached from here"
                raise StoreError(message)
            return new

    async def _fetched(self, fetch: Callable[[], Any], now: Instant) -> bool:
        try:
            self._keys = jose.key_set(await fetch())
        except Exception as error:  # noqa: BLE001 - whatever an HTTP client raises, it has no keys for us
            logger.warning("keys of an issuer could not be fetched: %s", error)
            if self._failed is not None:
                self._failed(None, error)
            return False
        self._good_at = now
        return True


class AsyncReceiver:
    """Ends the sessions that an identity provider says are over, and remembers at login which those would be."""

    def __init__(
        self,
        manager: SessionManager,
        store: AsyncStore,
        *,
        issuers: Sequence[Issuer] = (),
        streams: Sequence[Stream] = (),
    ) -> None:
        """Join the sessions' manager and store to those whose word counts. Raises ConfigError; opens nothing."""
        if not getattr(store, "keeps", True):
            message = "sealed sessions without a store cannot be ended from outside; name a store"
            raise ConfigError(message)
        for issuer in issuers:
            issuer.check()
        for stream in streams:
            stream.check()
        providers.check_listed(manager.settings.providers, "back-channel", (one.issuer for one in issuers))
        providers.check_listed(manager.settings.providers, "caep", (one.issuer for one in streams))
        self._manager, self._store = manager, store
        manager.traces.node = manager.traces.node or here()
        self._troubles = troubles = Troubles(manager, None)
        failed = troubles.store_failed
        self._issuers = {one.issuer: (one, AsyncKeySet(one.keys, manager.now, failed)) for one in issuers}
        self._streams = {one.issuer: (one, AsyncKeySet(one.keys, manager.now, failed)) for one in streams}
        if len(self._issuers) < len(issuers) or len(self._streams) < len(streams):
            message = "two issuers or two streams have one name; each is told from the others by its issuer"
            raise ConfigError(message)
        clocks = manager.clocks
        self._lifetime = max(clocks.absolute, clocks.remember or 0.0)
        self._realm = manager.realm
        if log_events not in store.listeners:
            store.listeners.append(log_events)

    async def link(
        self, session: Session, issuer: str, *, sub: str, sid: str | None = None, issued_at: Instant | None = None
    ) -> None:
        """Remember which session of a provider this one stands on; call it directly after `session.login`.

        `issued_at` is the ID token's `iat`. Raises Refusal where the provider has ended that session meanwhile, and
        StoreError: then let the request fail, for a session that is not linked cannot be ended from there.
        """
        handle, subject = session.handle, session.subject
        if handle is None or subject is None:
            message = "link() remembers whose session this is; call session.login() before it"
            raise ConfigError(message)
        manager, now = self._manager, self._manager.now()
        salt = await self._salt()
        to = links.Link(handle, subject, issuer, sub, sid)
        names = [("sub", sub)] if sid is None else [("sub", sub), ("sid", sid)]
        for kind, name in names:
            key = links.key_of(kind, issuer, name)
            await self._write(links.link(self._realm, salt, key, to, now, now + self._lifetime, manager.entropy))
        for kind, name in names:
            key = links.key_of(f"{kind}!", issuer, name)
            since = now if issued_at is None else issued_at
            passage = links.passage(self._realm, salt, key, since, now, manager.entropy)
            if not await self._write(*passage):
                sentence = "The identity provider has ended this session; log in again."
                raise Refusal(replies.forbidden("login_required", sentence), "the provider logged out before us")

    async def logout(self, request: Request, body: bytes) -> Reply:
        """Answer a provider's back-channel logout request."""
        reply = notices.not_even(request, body)
        if reply is not None:
            return reply
        try:
            token = notices.logout_token_of(request, body)
            found = self._issuers.get(_issuer_of(token))
            if found is None:
                raise jose.Refused("invalid_issuer", "This issuer is not known here.")  # noqa: TRY301 - one place answers
            issuer, keys = found
            claims = await keys.verified(token, issuer.algorithms, "logout+jwt" if issuer.require_typ else None)
            notice = notices.logout_notice(claims, issuer, self._manager.now())
            if await self._done(request, notice):
                raise jose.Refused("invalid_request", "This token was used before.")  # noqa: TRY301 - as above
        except jose.Refused as error:
            await self._heard("logout_token_refused", request, error)
            return notices.refused_logout(error)
        except StoreError as error:
            logger.error("a logout token could not be served: %s", error)
            self._troubles.store_failed(request, error)
            return notices.failed_logout()
        return notices.LOGGED_OUT

    async def event(self, request: Request, body: bytes) -> Reply:
        """Answer a transmitter that pushes a security event; one that comes again is accepted, and not done again."""
        reply = notices.not_even(request, body)
        if reply is not None:
            return reply
        try:
            token = notices.event_token_of(request, body)
            found = self._streams.get(_issuer_of(token))
            if found is None:
                raise jose.Refused("invalid_issuer", "This issuer is not known here.")  # noqa: TRY301 - one place answers
            stream, keys = found
            notices.check_authorization(request, stream)
            claims = await keys.verified(token, stream.algorithms, "secevent+jwt")
            await self._done(request, notices.event_notice(claims, stream, self._manager.now()))
        except jose.Refused as error:
            await self._heard("security_event_refused", request, error)
            return notices.refused_event(error)
        except StoreError as error:
            logger.error("a security event could not be served: %s", error)
            self._troubles.store_failed(request, error)
            return notices.failed_event()
        return notices.ACCEPTED

    async def _done(self, request: Request, notice: Notice) -> bool:
        """Do what a notice says and remember it; tell whether it was done before."""
        manager = self._manager
        if await self._store.load(links.jti_handle(self._realm, notice.issuer, notice.jti)) is not None:
            return True
        ended = 0
        for target in notice.targets:
            ended += await self._end(target, notice)
        detail = {"issuer": notice.issuer, "because": notice.because, "sessions": ended, **notice.detail}
        trace = manager.traces.of(request)
        event = Event(name="identity_provider_notice", at=manager.now(), realm=self._realm, detail=detail, trace=trace)
        remembered = links.remembered(self._realm, notice.issuer, notice.jti, manager.now(), manager.entropy)
        return not await self._write(*remembered, Note(events=(event,)))

    async def _end(self, target: Target, notice: Notice) -> int:
        """End the sessions of a target; return how many were found by their links."""
        if target.everyone:
            await self._commit(RaiseEpoch(scope=f"realm:{self._realm}", before=notice.before))
            return 0
        if target.sid is None and target.subject is not None:
            await self._end_all(target.subject, notice)
            return 0
        kind, name = ("sub", target.sub) if target.sid is None else ("sid", target.sid)
        if name is None:
            return 0
        key, gate = links.key_of(kind, target.issuer, name), links.key_of(f"{kind}!", target.issuer, name)
        until = self._manager.now() + links.GATED if notice.before is None else notice.before
        where = links.realm_of(self._realm)
        await self._commit(EndOthers(realm=where, subject=gate, because=notice.because, before=until))
        ended = 0
        for record in await self._linked(where, key):
            link = links.opened(record)
            if target.sub not in (None, link.sub) or target.subject not in (None, link.subject):
                continue
            if await self._end_linked(link, record, notice):
                ended += 1
        return ended

    async def _linked(self, realm: str, key: str) -> list[Record]:
        found: list[Record] = []
        cursor: str | None = None
        while True:
            page = await self._store.find(Query(realm=realm, subject=key, cursor=cursor))
            found.extend(page.items)
            cursor = page.cursor
            if cursor is None:
                return found

    async def _end_linked(self, link: links.Link, record: Record, notice: Notice) -> bool:
        """End the session of a link, whatever handle it has by now; tell whether it is over now because of that."""
        manager = self._manager
        session = await self._live_end(link.handle)
        if session is None:
            age = manager.now() - record.created_at
            if age < links.YOUNG and (notice.before is None or record.created_at < notice.before):
                # it was announced, and its login is about to be stored
                planted = links.planted(self._realm, link.handle, manager.now(), manager.entropy, notice.because)
                if await self._write(*planted):
                    await self._commit(End(handle=record.handle, because=notice.because))
                    return True
                session = await self._live_end(link.handle)
            elif age > WEEK:  # its trace is gone, and it may live on under the handle that a step-up gave it
                await self._end_all(link.subject, notice)
        if session is None or session.ended_at is not None or session.realm != self._realm:
            await self._commit(End(handle=record.handle, because=notice.because))
            return False
        if notice.before is not None and authenticated(session) >= notice.before:
            return False
        event = facts.about("session_revoked", session, manager.now(), None, reason=notice.because, actor=notice.issuer)
        await self._commit(
            End(handle=session.handle, because=notice.because, events=(placed(event, manager.traces.node),)),
            End(handle=record.handle, because=notice.because),
        )
        return True

    async def _live_end(self, handle: Handle) -> Record | None:
        """Return the record that a session has by now: a step-up gave it another handle."""
        record = await self._store.load(handle)
        while record is not None and record.ended_because == "replaced" and record.successor is not None:
            record = await self._store.load(record.successor)
        return record

    async def _end_all(self, subject: str, notice: Notice) -> None:
        await self._commit(
            EndOthers(
                realm=self._realm,
                subject=subject,
                because=notice.because,
                before=notice.before,
                trace=self._manager.traces.of(None),
            )
        )

    async def _commit(self, *changes: Change) -> None:
        await self._store.commit(os.urandom(16), changes, durable=True)

    async def _write(self, *changes: Change) -> bool:
        """Commit what creates a record; tell whether it was not refused."""
        return (await self._store.commit(os.urandom(16), changes, durable=True)) is None

    async def _salt(self) -> bytes:
        """Return the key of a store that spreads subjects over shards, b"" elsewhere."""
        if not getattr(self._store, "sharded", False):
            return b""
        epochs = await self._store.epochs()
        return epochs.salt

    async def _heard(self, kind: str, request: Request, error: jose.Refused) -> None:
        """Count what was refused: anybody can send it, so it is never written as it comes (H4)."""
        manager = self._manager
        named = manager.traces.id_of(request)
        manager.noise.count(
            kind, manager.client(request).address, manager.now(), reason=error.sentence, request_id=named
        )
        if manager.noise.due(manager.now()):
            summaries = manager.noise.summaries(manager.realm, manager.now())
            try:
                await self._commit(Note(events=tuple([placed(one, manager.traces.node) for one in summaries])))
            except CoatcheckError as trouble:
                logger.warning("session store: %s", trouble)
                manager.noise.put_back(summaries, manager.now())


def _issuer_of(token: str) -> str:
    """Return whose token this claims to be, to choose by whose keys it is judged."""
    _, claims = jose.peek(token)
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else ""
