"""The registry, blocking: sessions seen from outside a request, to find them, end them and read what happened.

Its twin differs in the words async and await, as the flow's do.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from time import sleep, time
from typing import Any

from ..core import epochs, facts, realms
from ..core.errors import ConfigError, DataError, StoreError
from ..core.model import (
    Because,
    End,
    EndOthers,
    Event,
    EventPage,
    EventQuery,
    Handle,
    Instant,
    Query,
    RaiseEpoch,
    Record,
    RecordPage,
    Trace,
)
from ..core.traces import placed
from .given import blocking as given
from .journal import here, log_events
from .store import AuditedStore, Store
from .sync import SKEW_SAID

PURGE_ROWS = 100


class Registry:
    """Sessions seen from outside a request: find them, end them, read what happened.

    `realm` narrows everything to one audience; None is every one (for operators), but not what lies beside sessions in
    realms of its own (core/realms.py): name such a realm to see it.
    """

    def __init__(
        self, store: Store | str, realm: str | None = "__Host-coat", clock: Callable[[], Instant] = time
    ) -> None:
        """Look at one store, or at the one that a URL names, to be closed by `close`; `clock` is for tests."""
        self._store: Store = given(store)
        self._owns = isinstance(store, str)
        self._realm = realm
        self._clock = clock
        if log_events not in self._store.listeners:
            self._store.listeners.append(log_events)

    def close(self) -> None:
        """Close a store that was given as a URL; another one is its owner's to close."""
        if self._owns:
            self._store.close()

    def find(
        self,
        subject: str | None = None,
        *,
        handle: Handle | None = None,
        live: bool = True,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RecordPage:
        """Return a page of sessions, oldest first: a subject's, or all.

        A page may be shorter than `limit`; there is more as long as it has a cursor.
        """
        while True:
            query = Query(realm=self._realm, subject=subject, handle=handle, live=live, limit=limit, cursor=cursor)
            page = self._store.find(query)
            if self._realm is not None:
                return page
            items = tuple(record for record in page.items if not realms.is_beside(record.realm))
            if items or page.cursor is None:
                return RecordPage(items, page.cursor, page.as_of)
            cursor = page.cursor

    def revoke(
        self, handle: Handle, because: Because = "operator", *, subject: str | None = None, actor: str | None = None
    ) -> bool:
        """End one session; return whether it was there and live. With `subject`, only if it is that subject's."""
        record = self._store.load(handle)
        while record is not None and record.ended_because == "replaced" and record.successor is not None:
            record = self._store.load(record.successor)  # a step-up gave the session another handle
        if record is None or record.ended_at is not None or self._foreign(record, subject):
            return False
        event = placed(facts.about("session_revoked", record, self._now(), None, reason=because, actor=actor), here())
        ending = End(handle=record.handle, because=because, events=(event,))
        self._store.commit(os.urandom(16), (ending,), durable=True)
        return True

    def revoke_all(
        self, subject: str, *, keep: Handle | None = None, because: Because = "operator", actor: str | None = None
    ) -> None:
        """End every session of a subject, but `keep`; a login that is under way is refused, too."""
        kept = () if keep is None else (keep,)
        event = self._bulk(subject, because, actor)
        change = EndOthers(
            realm=self._one_realm(), subject=subject, keep=kept, because=because, events=(event,), trace=event.trace
        )
        self._store.commit(os.urandom(16), (change,), durable=True)

    def revoke_sealed(self, since: Instant, until: Instant | None = None, *, actor: str | None = None) -> int:
        """End every session whose cookie a key may have sealed that worked then, and leaked; return how many.

        Once the key is revoked its cookies open nothing (`coatcheck keys revoke`); this tells the sessions' owners and
        the audit trail why, and empties the lists of sessions. One commit for each of them.
        """
        from ..core.rotation import may_have_sealed  # it stands on the cipher, which few need

        ended, cursor = 0, None
        while True:
            page = self._store.find(Query(realm=self._one_realm(), cursor=cursor))
            for record in page.items:
                if may_have_sealed(record, since, until):
                    ended += self.revoke(record.handle, "key_rotation", actor=actor)
            cursor = page.cursor
            if cursor is None:
                return ended

    def revoke_tenant(self, tenant: str, *, because: Because = "operator", actor: str | None = None) -> None:
        """End every session of a tenant (see `Session.login`), in one write, however many they are.

        They are refused within a second in every process, and ended as they are met.
        """
        self._raise(tenant, None, self._bulk(None, because, actor, tenant=tenant))

    def revoke_everyone(self, *, because: Because = "operator", actor: str | None = None) -> None:
        """End every session of the realm (of all of them, without one), in one write, as `revoke_tenant` does."""
        self._raise(None, None, self._bulk(None, because, actor))

    def revoke_before(
        self,
        moment: Instant,
        *,
        subject: str | None = None,
        tenant: str | None = None,
        because: Because = "operator",
        actor: str | None = None,
    ) -> None:
        """End what was authenticated before a moment (seconds since 1970, UTC): of a subject, a tenant, or everybody.

        A tenant's and everybody's are refused within a second in every process, and ended as they are met. Raises
        ConfigError for a moment in the future: logins would be refused until then.
        """
        if moment > self._now() + SKEW_SAID:
            message = "revoke_before takes a moment of the past; one in the future would refuse every login until then"
            raise ConfigError(message)
        if subject is None:
            named = {} if tenant is None else {"tenant": tenant}
            self._raise(tenant, moment, self._bulk(None, because, actor, before=moment, **named))
            return
        if tenant is not None:
            message = "revoke_before takes a subject or a tenant: a subject's sessions end whatever tenant they are of"
            raise ConfigError(message)
        realm, event = self._one_realm(), self._bulk(subject, because, actor, before=moment)
        change = EndOthers(
            realm=realm, subject=subject, because=because, before=moment, events=(event,), trace=event.trace
        )
        self._store.commit(os.urandom(16), (change,), durable=True)

    def purge(self, limit: int = 1000) -> int:
        """End overdue sessions and delete old tombstones, in batches; return how many."""
        done = 0
        while done < limit:
            batch = self._store.purge(min(PURGE_ROWS, limit - done))
            done += batch
            if batch == 0:
                break
            sleep(random.uniform(0.005, 0.02))  # noqa: S311 - lets those in who wait for the lock
        return done

    def events(
        self,
        *,
        handle: Handle | None = None,
        subject: str | None = None,
        name: str | None = None,
        since: Instant | None = None,
        noise: bool | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> EventPage:
        """Return a page of what happened, newest first; raises StoreError where the store keeps no events."""
        store = self._store
        if not isinstance(store, AuditedStore):
            message = f"{type(store).__name__} keeps no events; every store of coatcheck's own does"
            raise StoreError(message)
        query = EventQuery(
            realm=self._realm,
            handle=handle,
            subject=subject,
            name=name,
            since=since,
            noise=noise,
            limit=limit,
            cursor=cursor,
        )
        return store.events(query)

    def _raise(self, tenant: str | None, moment: Instant | None, event: Event) -> None:
        if tenant is not None and not epochs.is_tenant(tenant):
            message = f"a tenant is 1 to {epochs.MOST_TENANT} printable characters (found {tenant!r:.60})"
            raise DataError(message, key="tenant", found=type(tenant).__qualname__)
        change = RaiseEpoch(scope=epochs.scope_of(self._realm, tenant), before=moment, events=(event,))
        self._store.commit(os.urandom(16), (change,), durable=True)

    def _foreign(self, record: Record, subject: str | None) -> bool:
        if realms.is_beside(record.realm) if self._realm is None else record.realm != self._realm:
            return True
        return subject is not None and record.subject != subject

    def _one_realm(self) -> str:
        if self._realm is None:
            message = "say which realm: subjects of different realms are different people"
            raise StoreError(message)
        return self._realm

    def _bulk(self, subject: str | None, because: str, actor: str | None, **detail: Any) -> Event:
        return Event(
            name="sessions_revoked",
            at=self._now(),
            realm=self._realm or "",
            subject=subject,
            detail={"reason": because, "actor": actor, **detail},
            trace=Trace(here()),
        )

    def _now(self) -> Instant:
        return self._clock()
