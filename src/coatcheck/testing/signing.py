"""Signs a user in without a login form: stores a logged-in session and returns what presents it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from ..core.errors import ConfigError, StoreError
from ..core.manager import Absent, SessionManager
from ..core.model import Conflict, Instant, Level, Outcome, Reply, Request
from ..flow.async_store import AsyncStore
from ..flow.store import Store


class Login(TypedDict, total=False):
    """How somebody logs in, where it is not as by default."""

    data: Mapping[str, Any]
    manager: SessionManager
    methods: tuple[str, ...]
    level: int
    remember: bool


def sign_in(store: Store, subject: str, **how: Unpack[Login]) -> tuple[str, str]:
    """Return name and value of a cookie under which `subject` is logged in: `client.cookies.set(*sign_in(...))`.

    `manager` is the application's own, where it has other settings than the defaults (a cookie name, timeouts);
    without one the session begins at the store's own time.
    """
    return _only(sign_in_cookies(store, subject, **how))


def sign_in_cookies(store: Store, subject: str, **how: Unpack[Login]) -> dict[str, str]:
    """Return all cookies of such a session by their names: a sealed one may fill several (`most_chunks`)."""
    now = None if how.get("manager") else store.epochs().store_now
    outcome = _login(now, subject, **how)
    return _cookies(store.commit(os.urandom(16), outcome.changes, outcome.durable), outcome)


async def async_sign_in(store: AsyncStore, subject: str, **how: Unpack[Login]) -> tuple[str, str]:
    """Return what `sign_in` returns, for a store that is awaited."""
    return _only(await async_sign_in_cookies(store, subject, **how))


async def async_sign_in_cookies(store: AsyncStore, subject: str, **how: Unpack[Login]) -> dict[str, str]:
    """Return what `sign_in_cookies` returns, for a store that is awaited."""
    now = None if how.get("manager") else (await store.epochs()).store_now
    outcome = _login(now, subject, **how)
    return _cookies(await store.commit(os.urandom(16), outcome.changes, outcome.durable), outcome)


def _login(
    now: Instant | None,
    subject: str,
    *,
    data: Mapping[str, Any] | None = None,
    manager: SessionManager | None = None,
    methods: tuple[str, ...] = ("pwd",),
    level: int = Level.AAL1,
    remember: bool = False,
) -> Outcome:
    counter = manager or SessionManager(clock=lambda: now or 0.0)
    request = Request("POST", "https", "/", ((b"sec-fetch-site", b"same-origin"),))
    session = counter.open(request, Absent.NO_COOKIE, None)
    if isinstance(session, Reply):
        raise AssertionError(session.body)  # noqa: TRY004 - a request from our own site is never refused
    session.login(subject, methods=methods, level=level, remember=remember)
    session.update(data or {})
    return counter.settle(session, 200, ())


def _cookies(conflict: Conflict | None, outcome: Outcome) -> dict[str, str]:
    if conflict is not None:
        message = f"the store refused the login: {conflict.why} (a session limit, or a revocation in the future?)"
        raise StoreError(message)
    pairs = (line.partition(b";")[0].decode("ascii").partition("=") for line in outcome.cookies)
    return {name: value for name, _, value in pairs}


def _only(cookies: dict[str, str]) -> tuple[str, str]:
    if len(cookies) > 1:
        message = f"the session fills {len(cookies)} cookies, and sign_in returns one; call sign_in_cookies instead"
        raise ConfigError(message)
    return next(iter(cookies.items()))
