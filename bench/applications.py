"""The applications that are measured: the same handlers bare, under coatcheck, and under Starlette's own sessions."""

from __future__ import annotations

import itertools
import os
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import itsdangerous
import msgspec
from msgspec.structs import replace
from starlette.middleware.sessions import SessionMiddleware as StarletteSessions

from coatcheck import Key, Keyring, MemoryStore, Sealed, SessionManager, open_async_store
from coatcheck.adapters.asgi import SessionMiddleware
from coatcheck.core import codec, records, tokens
from coatcheck.core.model import Client, Insert, Request
from coatcheck.core.sealed import Sealer
from coatcheck.core.secrecy import Secrecy
from coatcheck.core.visit import Login
from coatcheck.stores.near import near

App = Callable[[Any, Any, Any], Awaitable[None]]

DATA = {
    "user_id": 48213,
    "name": "Ada Lovelace",
    "email": "ada@example.test",
    "roles": ["editor", "billing", "support"],
    "locale": "en-GB",
    "theme": "dark",
    "cart": [{"sku": "SKU-00017", "n": 1}, {"sku": "SKU-00231", "n": 2}],
    "last_seen": ["/articles/991234", "/articles/991101", "/authors/lovelace", "/search?q=engine", "/notes/G"],
    "csrf": "d2f1c0a8b7e64f5a9b3c2d1e0f9a8b7c",
    "flags": {"beta": True, "ab": "b", "tour": 3},
    "address": {"street": "12 St James's Square", "city": "London", "zip": "SW1Y 4JH"},
    "visits": 17,
    "ref": "newsletter-2026-11",
}
"""Thirteen keys, about 600 bytes."""

OTHERS = b"; ".join(b"other%d=%s" % (number, b"v" * (12 + number * 3)) for number in range(9))
HEADERS = [
    (b"host", b"localhost"),
    (b"connection", b"keep-alive"),
    (b"accept", b"text/html,application/xhtml+xml;q=0.9"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-GB,en;q=0.8"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
    (b"referer", b"https://localhost/somewhere"),
]


async def answer(send: Any) -> None:
    """Send the smallest response."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def untouched(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer without looking at the session."""
    await answer(send)


async def read(scope: Any, _receive: Any, send: Any) -> None:
    """Read one value."""
    scope["session"].get("user_id")
    await answer(send)


_count = itertools.count()


async def write(scope: Any, _receive: Any, send: Any) -> None:
    """Write one value."""
    scope["session"]["visits"] = next(_count)
    await answer(send)


async def login(scope: Any, _receive: Any, send: Any) -> None:
    """Log somebody in."""
    scope["session"].login(f"user-{next(_count)}")
    await answer(send)


async def starlette_write(scope: Any, _receive: Any, send: Any) -> None:
    """Write one value, as Starlette's session sees it."""
    scope["session"]["visits"] = next(_count)
    await answer(send)


class Case:
    """One application, and the request that is sent to it."""

    def __init__(
        self,
        name: str,
        app: App,
        cookie: bytes = b"",
        method: str = "GET",
        *,
        store: Any = None,
        insert: Insert | None = None,
        expect: bytes = b"",
    ) -> None:
        """Describe a request; `expect` must be a response header's name, `insert` is stored first."""
        self.name, self.app, self._method = name, app, method
        cookies = OTHERS + (b"; " + cookie if cookie else b"")
        self._headers = [*HEADERS, (b"cookie", cookies)]
        self._store, self._insert, self._expect = store, insert, expect

    def scope(self) -> dict[str, Any]:
        """Return the scope of one more request."""
        return {
            "type": "http",
            "method": self._method,
            "scheme": "https",
            "path": "/",
            "query_string": b"",
            "headers": self._headers,
            "client": ("192.0.2.7", 40000),
            "server": ("localhost", 443),
        }

    async def prepare(self) -> None:
        """Store the session that the cookie names."""
        if self._insert is not None:
            await self._store.commit(b"prepared-" + b"0" * 7, (self._insert,), durable=True)

    def check(self, starts: dict[int, Any]) -> None:
        """Refuse to measure an application that did not do its work; `starts` are its last responses, by status."""
        names = [name for start in starts.values() for name, _ in start["headers"]]
        if starts.keys() != {200} or (self._expect and self._expect not in names):
            message = f"{self.name}: statuses {sorted(starts)}, headers {names}"
            raise RuntimeError(message)

    async def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            await self._store.close()


def signed_in(manager: SessionManager) -> tuple[bytes, Insert]:
    """Return the cookie of a stored, logged-in session, and the change that stores it."""
    ticket = manager.mint()
    who = Login("alice", ("pwd",), 10, remember=False, ticket=ticket)
    secrecy = Secrecy(manager.realm.encode(), manager.entropy, on=manager.settings.secrecy)
    data = secrecy.kept(ticket, codec.encode(DATA))
    client = Client("192.0.2.7", "bench")
    record = records.made(manager.realm, ticket, who, manager.clocks, manager.now(), client, data)
    return manager.cookie.name.encode() + b"=" + tokens.value_of(ticket), Insert(record=record)


def ours(name: str, make_store: Callable[[], Any]) -> list[Case]:
    """Return the cases of one store."""
    found = []
    for label, handler in (("no cookie", untouched), ("untouched", untouched), ("read", read), ("write", write)):
        store = make_store()
        manager = SessionManager(origins=["https://localhost"])
        cookie, insert = signed_in(manager)
        cookie = b"" if label == "no cookie" else cookie
        expect = b"vary" if label in ("read", "write") else b""
        app = SessionMiddleware(handler, store=store, manager=manager)
        found.append(Case(f"{name} / {label}", app, cookie, store=store, insert=insert, expect=expect))
    store = make_store()
    app = SessionMiddleware(login, store=store, origins=["https://localhost"])
    found.append(Case(f"{name} / login", app, b"", "POST", store=store, expect=b"set-cookie"))
    return found


def copied(make_store: Callable[[], Any]) -> list[Case]:
    """Return the cases of a store that is read from near copies, as often as it can be; its own name tells which."""
    store = near(make_store())
    name = type(store.store).__name__.removeprefix("Async").removesuffix("Store").lower()
    return [case for case in ours(f"near {name}", lambda: store) if case.name.endswith(("/ read", "/ write"))]


LATER = 600.0
"""Seconds since the last write, after which activity is read in its own small cookie."""


def sealed(name: str, make_store: Callable[[], Any] | None) -> list[Case]:
    """Return the cases of sealed tokens, with a store or alone."""
    keys = Keyring([Key("2026-11", os.urandom(32))], os.urandom)
    found = []
    for label, handler in (
        *(("no cookie", untouched), ("untouched", untouched), ("read", read)),
        *(("read, written long ago", read), ("write", write)),
    ):
        store = None if make_store is None else make_store()
        chosen = Sealed(keyring=keys, unsafe_irrevocable=store is None)
        manager = SessionManager(origins=["https://localhost"], sealed=chosen)
        cookie, insert = sealed_in(manager, chosen, LATER if "long ago" in label else 0.0)
        cookie = b"" if label == "no cookie" else cookie
        expect = {"write": b"set-cookie", "no cookie": b"", "untouched": b""}.get(label, b"vary")
        app = SessionMiddleware(handler, store=store, manager=manager)
        found.append(Case(f"{name} / {label}", app, cookie, store=store, insert=store and insert, expect=expect))
    return found


def sealed_in(manager: SessionManager, chosen: Sealed, ago: float) -> tuple[bytes, Insert]:
    """Return the cookies of a logged-in session whose data was written a while ago, and the change that stores it."""
    ticket = manager.mint()
    now = manager.now()
    who = Login("alice", ("pwd",), 10, remember=False, ticket=ticket)
    record = records.made(manager.realm, ticket, who, manager.clocks, now, Client("192.0.2.7", "bench"), b"")
    settings = manager.settings
    sealer = Sealer(chosen, manager.realm, settings.cookie, settings.canonical_origin, comma_joined=False)
    brought = replace(record, data=codec.encode(DATA), seen_at=now - ago)
    lines = sealer.write(ticket, brought, None, Request("GET", "https", "/", ()))
    if ago:
        lines = (*lines, sealer.write_seen(ticket.handle, now, None))
    return b"; ".join(line.partition(b";")[0] for line in lines), Insert(record=record)


def secret(name: str, make_store: Callable[[], Any]) -> list[Case]:
    """Return the cases of one store that keeps data sealed."""
    found = []
    for label, handler in (("read", read), ("write", write)):
        store = make_store()
        manager = SessionManager(origins=["https://localhost"], secrecy=True)
        cookie, insert = signed_in(manager)
        app = SessionMiddleware(handler, store=store, manager=manager)
        found.append(Case(f"{name}, secrecy / {label}", app, cookie, store=store, insert=insert, expect=b"vary"))
    return found


def starlette() -> list[Case]:
    """Return the cases of Starlette's signed cookie."""
    signer = itsdangerous.TimestampSigner("bench-key-of-no-use-but-here")
    cookie = b"session=" + signer.sign(b64encode(msgspec.json.encode(DATA)))
    return [
        Case("starlette cookie / no cookie", StarletteSessions(untouched, "bench-key-of-no-use-but-here"), b""),
        Case("starlette cookie / read", StarletteSessions(read, "bench-key-of-no-use-but-here"), cookie),
        Case(
            "starlette cookie / write",
            StarletteSessions(starlette_write, "bench-key-of-no-use-but-here"),
            cookie,
            expect=b"set-cookie",
        ),
    ]


def cases(folder: Path) -> list[Case]:
    """Return all cases; the bare application first."""
    numbers = itertools.count()

    def sqlite() -> Any:
        return open_async_store(f"sqlite:///{folder}/{next(numbers)}.db")

    return [
        Case("bare", untouched),
        *ours("memory", lambda: MemoryStore().as_async()),
        *ours("sqlite", sqlite),
        *(case for store in (lambda: MemoryStore().as_async(), sqlite) for case in copied(store)),
        *sealed("sealed alone", None),
        *sealed("sealed, memory", lambda: MemoryStore().as_async()),
        *sealed("sealed, sqlite", sqlite),
        *secret("memory", lambda: MemoryStore().as_async()),
        *secret("sqlite", sqlite),
        *starlette(),
    ]


def finder() -> tuple[Callable[[bytes], object], bytes]:
    """Return the function that finds our cookie, and a header of ten."""
    manager = SessionManager()
    ticket = manager.mint()
    ours_ = manager.cookie.name.encode() + b"=" + tokens.value_of(ticket)
    parts = OTHERS.split(b"; ")
    return manager.cookie.find, b"; ".join([*parts[:5], ours_, *parts[5:]])
