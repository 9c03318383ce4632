"""The house under attack: the probe behind either door, on either store, spoken to byte for byte.

A `House` takes any request that a socket could carry, also those that no browser would send. A `Visitor` is the honest
browser in it: one jar with our cookie, and the headers that a browser adds.
"""

import asyncio
import io
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

from coatcheck.core.model import Event, Record
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.serving import Control, Served, asgi_probe, wsgi_probe

HOST = "app.test"
ORIGIN = f"https://{HOST}"
COOKIE = "__Host-coat"
OURS = (("sec-fetch-site", "same-origin"), ("origin", ORIGIN))
"""What a browser says of a request that our own page made."""

Pairs = Iterable[tuple[str | bytes, str | bytes]]


@dataclass(frozen=True)
class Ask:
    """One request, as bytes on a wire would say it; header values in latin-1."""

    method: str = "GET"
    target: str = "/me"
    headers: tuple[tuple[str | bytes, str | bytes], ...] = ()
    body: bytes = b""
    peer: str = "192.0.2.7"
    host: str | None = HOST
    scheme: str = "https"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def lines(self) -> list[tuple[bytes, bytes]]:
        """The header lines, names in lower case."""
        lines = [] if self.host is None else [(b"host", self.host.encode())]
        lines += [(_bytes(name).lower(), _bytes(value)) for name, value in self.headers]
        if self.body:
            lines.append((b"content-length", str(len(self.body)).encode()))
        return lines


@dataclass(frozen=True)
class Answer:
    """One response, whole."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def set_cookies(self) -> list[str]:
        """Every Set-Cookie line."""
        return [value.decode("latin-1") for name, value in self.headers if name == b"set-cookie"]

    @property
    def token(self) -> str | None:
        """The value that our Set-Cookie hands out; "" takes it away; None: there is no such line."""
        ours = [line for line in self.set_cookies if line.startswith((f"{COOKIE}=", "coat-insecure="))]
        assert len(ours) <= 1, "CKE-07: one Set-Cookie per name"
        return ours[0].partition("=")[2].partition(";")[0] if ours else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name.encode()), None)


class House:
    """A served probe and its door."""

    def __init__(self, kind: str, store: Any, clock: Clock, **settings: Any) -> None:
        """Serve the probe over "asgi" or "wsgi", on a blocking store that has both faces."""
        self.kind, self.clock, self.settings = kind, clock, {"origins": [ORIGIN], **settings}
        serve = asgi_probe if kind == "asgi" else wsgi_probe
        self.served: Served = serve(store, clock, **self.settings)
        self.control: Control = self.served.control
        self._runner = asyncio.Runner() if kind == "asgi" else None

    def ask(self, ask: Ask) -> Answer:
        """Send one request."""
        return self.ask_all([ask])[0]

    def ask_all(self, asks: Iterable[Ask], *, parallel: bool = False) -> list[Answer]:
        """Send many, one after the other or all at once; the answers come in their order."""
        if self._runner is not None:
            return self._runner.run(_asgi_all(self.served.app, list(asks), parallel))
        if not parallel:
            return [_wsgi(self.served.app, ask) for ask in asks]
        requests = list(asks)
        with ThreadPoolExecutor(len(requests)) as threads:
            return list(threads.map(lambda ask: _wsgi(self.served.app, ask), requests))

    def start(self, *asks: Ask) -> "Pending":
        """Send requests in the background (a thread of their own, an event loop of their own)."""
        return Pending(self, asks)

    def visitor(self, token: str | None = None, peer: str = "192.0.2.7") -> "Visitor":
        """Return a new browser."""
        return Visitor(self, token, peer)

    def flush(self) -> None:
        """Write the noise counted so far."""
        flushed = self.served.app.exchange.flush()
        if self._runner is not None:
            self._runner.run(flushed)

    def exchange(self, verb: str, *arguments: Any) -> Any:
        """Call a verb of the exchange."""
        result = getattr(self.served.app.exchange, verb)(*arguments)
        return result if self._runner is None else self._runner.run(_awaited(result))

    def events(self, name: str | None = None) -> list[Event]:
        """Return what was written, noise and facts."""
        return self.control.events(name)

    def record(self, token: str) -> Record:
        """Return what is stored under a token's handle."""
        record = self.control.plain.load(token.split(".")[1])
        assert record is not None
        return record

    @property
    def commits(self) -> int:
        """How many commits the store was asked for."""
        return len(self.control.trouble.commits)

    def close(self) -> None:
        """Close the loop; the store is its maker's."""
        if self._runner is not None:
            self._runner.close()


class Pending:
    """Requests under way."""

    def __init__(self, house: House, asks: tuple[Ask, ...]) -> None:
        self._answers: list[Answer] = []
        self._thread = threading.Thread(target=self._send, args=(house, asks))
        self._thread.start()

    def _send(self, house: House, asks: tuple[Ask, ...]) -> None:
        app = house.served.app
        if house.kind == "asgi":
            self._answers = asyncio.run(_asgi_all(app, list(asks), parallel=True))
        else:
            with ThreadPoolExecutor(len(asks)) as threads:
                self._answers = list(threads.map(lambda ask: _wsgi(app, ask), asks))

    def answers(self) -> list[Answer]:
        """Wait for the answers."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self._answers


@dataclass
class Visitor:
    """An honest browser with one jar."""

    house: House
    token: str | None = None
    peer: str = "192.0.2.7"
    last: Answer | None = field(default=None, repr=False)

    def prepare(self, method: str, target: str, headers: Pairs = OURS, body: bytes = b"", **more: Any) -> Ask:
        """Return the request that this browser would send."""
        cookie = () if self.token is None else (("cookie", f"{COOKIE}={self.token}"),)
        return Ask(method, target, (*cookie, *headers), body, more.pop("peer", self.peer), **more)

    def get(self, target: str, headers: Pairs = OURS, **more: Any) -> Answer:
        """GET a page and keep the cookie that comes."""
        return self.keep(self.house.ask(self.prepare("GET", target, headers, **more)))

    def post(self, target: str, headers: Pairs = OURS, **form: Any) -> Answer:
        """POST a form and keep the cookie that comes."""
        body = urlencode(form).encode()
        return self.keep(self.house.ask(self.prepare("POST", target, (*headers, FORM), body)))

    def keep(self, answer: Answer) -> Answer:
        """Keep the cookie of an answer, as a jar does."""
        self.last = answer
        if answer.token is not None:
            self.token = answer.token or None
        return answer

    def login(self, user: str = "alice", **form: Any) -> str:
        """Log in; return the token."""
        answer = self.post("/login", user=user, **form)
        assert answer.status == 303, answer.body
        assert self.token
        return self.token

    @property
    def user(self) -> str | None:
        """Who /me says it is; this request counts like any other."""
        answer = self.get("/me")
        return answer.json["user"] if answer.status == 200 else None


FORM = ("content-type", "application/x-www-form-urlencoded")


# The doors.


async def _awaited(result: Any) -> Any:
    return await result


async def _asgi_all(app: Any, asks: list[Ask], parallel: bool) -> list[Answer]:
    if parallel:
        return list(await asyncio.gather(*(_asgi(app, ask) for ask in asks)))
    return [await _asgi(app, ask) for ask in asks]


async def _asgi(app: Any, ask: Ask) -> Answer:
    started: dict[str, Any] = {}
    body = io.BytesIO()
    inbox = [{"type": "http.request", "body": ask.body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if inbox:
            return inbox.pop()
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not started, "the response started twice"
            started.update(message)
        elif message["type"] == "http.response.body":
            body.write(message.get("body", b""))

    await app(_scope(ask), receive, send)
    return Answer(
        started["status"], tuple((bytes(k).lower(), bytes(v)) for k, v in started["headers"]), body.getvalue()
    )


def _scope(ask: Ask) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": ask.scheme,
        "path": unquote_to_bytes(ask.path).decode("utf-8", "replace"),
        "raw_path": ask.path.encode(),
        "root_path": "",
        "query_string": ask.query.encode(),
        "headers": ask.lines,
        "client": (ask.peer, 50000),
        "server": (HOST, 443),
        "extensions": {},
    }


def _wsgi(app: Any, ask: Ask) -> Answer:
    started: list[Any] = []
    written = io.BytesIO()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started[:] = [int(status[:3]), tuple((k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers)]
        return written.write

    chunks = app(_environ(ask), start_response)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return Answer(started[0], started[1], written.getvalue() + body)


def _environ(ask: Ask) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": ask.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(ask.path).decode("latin-1"),
        "QUERY_STRING": ask.query,
        "SERVER_NAME": HOST,
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": ask.peer,
        "wsgi.url_scheme": ask.scheme,
        "wsgi.input": io.BytesIO(ask.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in ask.lines:
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        text = value.decode("latin-1")
        joint = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{joint}{text}" if key in environ else text
    return environ


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


# The stores.


@contextmanager
def opened(kind: str, folder: Path, clock: Clock) -> Iterator[MemoryStore | SqliteStore]:
    """Lend a blocking store of a kind, "memory" or "sqlite"."""
    store = MemoryStore(clock=clock) if kind == "memory" else SqliteStore(folder / "sessions.db", clock=clock)
    yield store
    store.close()


class Snapshot:
    """The sessions of a store as they were, to be put back: so that each attack of a table meets the same house."""

    def __init__(self, store: MemoryStore | SqliteStore) -> None:
        self._store = store
        if isinstance(store, MemoryStore):
            self._records = dict(store._shelf.records)
        else:
            self._path = store._file.path
            with sqlite3.connect(self._path) as db:
                self._rows = db.execute("select * from coatcheck_sessions").fetchall()
            db.close()

    def restore(self) -> None:
        if isinstance(self._store, MemoryStore):
            self._store._shelf.records.clear()
            self._store._shelf.records.update(self._records)
            return
        with sqlite3.connect(self._path) as db:
            db.execute("delete from coatcheck_sessions")
            marks = ", ".join("?" * len(self._rows[0]))
            db.executemany(f"insert into coatcheck_sessions values ({marks})", self._rows)
        db.close()


def path_of(text: str) -> str:
    """Return a path, percent-encoded as it travels."""
    return quote(text, safe="/")
