"""Django: views, the typed session, guards, typed data, what commits at once, and a middleware that refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import msgspec
from django.contrib.auth import login  # type: ignore[import-untyped]
from django.contrib.auth.models import User  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]

from coatcheck import Exchange, Handle, Refusal, Registry, Session, Typed
from coatcheck.adapters.django import SessionMiddleware, SessionStore, exchange_of, refusal_response, session_of


class Cart(msgspec.Struct):
    """The application's own data."""

    items: list[str] = []


class OurSessionMiddleware(SessionMiddleware):
    """Stands in MIDDLEWARE in the place of ours."""


def log_in(request: HttpRequest) -> HttpResponse:
    """Log in as Django does, and look at the key."""
    login(request, User.objects.get(username="ann"))
    session: Session = session_of(request)
    handle: Handle | None = session.handle
    store = SessionStore()
    token: str | None = store.session_key
    return HttpResponse(f"{handle} {token is None} {store.exists(token)}".encode())


def home(request: HttpRequest) -> HttpResponse:
    """Read what is there."""
    who: str = session_of(request).require_login(within=timedelta(minutes=10))
    typed: Typed[Cart] = session_of(request, Cart)
    typed.data.items.append("hat")
    exchange: Exchange = exchange_of(request)
    tries: int = exchange.bump(session_of(request), "tries")
    return HttpResponse(f"{who} {tries}".encode())


def end(request: HttpRequest) -> HttpResponse:
    """End the other sessions."""
    exchange, session = exchange_of(request), session_of(request)
    registry = Registry(exchange.store, exchange.manager.realm)
    registry.revoke_all(session.require_login(), keep=session.handle)
    return HttpResponse(b"ended")


async def later(_request: HttpRequest) -> HttpResponse:
    """Use Django's awaited session."""
    store = SessionStore()
    await store.aset("n", 1)
    await store.asave()
    return HttpResponse(b"kept")


def guarded(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse in a middleware."""

    def guard(request: HttpRequest) -> HttpResponse:
        try:
            session_of(request).require_login()
        except Refusal as refusal:
            return refusal_response(refusal)
        return get_response(request)

    return guard
