"""Signs a user in without a login form: stores a logged-in session and returns the cookie that presents it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..core.errors import StoreError
from ..core.manager import Absent, SessionManager
from ..core.model import Conflict, Level, Outcome, Reply, Request
from ..flow.async_ import AsyncStore
from ..flow.sync import Store


def sign_in(
    store: Store,
    subject: str,
    *,
    data: Mapping[str, Any] | None = None,
    manager: SessionManager | None = None,
    methods: tuple[str, ...] = ("pwd",),
    level: int = Level.AAL1,
    remember: bool = False,
) -> tuple[str, str]:
    """Return name and value of a cookie under which `subject` is logged in: `client.cookies.set(*sign_in(...))`.

    `manager` is the application's own, where it has other settings than the defaults (a cookie name, timeouts);
    without one the session begins at the store's own time.
    """
    counter = manager or _counter_at(store.epochs().store_now)
    outcome = _login(counter, subject, data or {}, methods, level, remember)
    return _cookie(store.commit(os.urandom(16), outcome.changes, outcome.durable), outcome)


async def async_sign_in(
    store: AsyncStore,
    subject: str,
    *,
    data: Mapping[str, Any] | None = None,
    manager: SessionManager | None = None,
    methods: tuple[str, ...] = ("pwd",),
    level: int = Level.AAL1,
    remember: bool = False,
) -> tuple[str, str]:
    """Return what `sign_in` returns, for a store that is awaited."""
    counter = manager or _counter_at((await store.epochs()).store_now)
    outcome = _login(counter, subject, data or {}, methods, level, remember)
    return _cookie(await store.commit(os.urandom(16), outcome.changes, outcome.durable), outcome)


def _counter_at(now: float) -> SessionManager:
    return SessionManager(clock=lambda: now)


def _login(
    manager: SessionManager,
    subject: str,
    data: Mapping[str, Any],
    methods: tuple[str, ...],
    level: int,
    remember: bool,
) -> Outcome:
    request = Request("POST", "https", "/", ((b"sec-fetch-site", b"same-origin"),))
    session = manager.open(request, Absent.NO_COOKIE, None)
    if isinstance(session, Reply):
        raise AssertionError(session.body)  # noqa: TRY004 - a request from our own site is never refused
    session.login(subject, methods=methods, level=level, remember=remember)
    session.update(data)
    return manager.settle(session, 200, ())


def _cookie(conflict: Conflict | None, outcome: Outcome) -> tuple[str, str]:
    if conflict is not None:
        message = f"the store refused the login: {conflict.why} (a session limit, or a revocation in the future?)"
        raise StoreError(message)
    name, _, value = outcome.cookies[0].partition(b";")[0].partition(b"=")
    return name.decode("ascii"), value.decode("ascii")
