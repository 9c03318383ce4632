"""WSGI: the session by its environ; the registry; tests of users."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

from coatcheck import Key, Keyring, MemoryStore, Registry, Sealed, SessionManager, near
from coatcheck.adapters.wsgi import SessionMiddleware, exchange_of, session_of
from coatcheck.testing import Clock, sign_in

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count visits."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    session = session_of(environ)
    session["visits"] = session.get("visits", 0) + 1
    coupon = exchange_of(environ).take(session, "coupon")
    return [f"{session['visits']} {coupon}".encode()]


clock = Clock()
store = near(MemoryStore(clock=clock), max_stale=2.0)
app = SessionMiddleware(hello, store=store, manager=SessionManager(clock=clock, origins=["https://shop.example"]))
name, value = sign_in(store, "alice", data={"visits": 6})
assert [record.subject for record in Registry(store, clock=clock).find("alice").items] == ["alice"]
keyring = Keyring([Key("2026-11", os.urandom(32))], os.urandom)
sealed = SessionMiddleware(hello, store=store, sealed=Sealed(keyring=keyring, monotonic=["credit"], store_down="reads"))
alone = SessionMiddleware(hello, sealed=Sealed(keyring=keyring, unsafe_irrevocable=True), limit=None)
server = make_server("127.0.0.1", 8000, app)
