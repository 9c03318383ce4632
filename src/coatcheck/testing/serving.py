"""Serves the probe raw: as an ASGI and as a WSGI application, each inside our SessionMiddleware, with its controls."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Unpack
from urllib.parse import parse_qsl

from msgspec import to_builtins

from ..adapters import asgi, wsgi
from ..core.manager import SessionManager
from ..core.model import Event, EventQuery, Query, Record
from ..core.settings import Keywords
from ..flow.registry import Registry
from .calls import obeyed
from .clock import Clock
from .flaky import FlakyStore, Gate
from .probe import TEXT, Answer, Call, Probe, run, run_async

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


HEALTH = "/health"
"""A page that never asks for its session: an application may exclude it."""


class Control:
    """The strings by which a test moves a served probe: its clock, its store and the store's troubles."""

    def __init__(self, store: Any, clock: Clock, manager: SessionManager, probe: Probe | None = None) -> None:
        """Take a blocking store that has an async face, too (`as_async`), and the manager of the application."""
        self.clock = clock
        self.manager = manager
        self.probe = probe or Probe()
        self.plain = store
        self.store = FlakyStore(store)
        self.trouble = self.store.trouble
        self.registry = Registry(store, manager.realm, clock)

    @property
    def cookie(self) -> str:
        """The name of the session cookie."""
        return self.manager.cookie.name

    def gate(self, name: str) -> Gate:
        """Return the gate at which requests with `hold=<name>` wait."""
        return self.probe.gate(name)

    def records(self, *, live: bool = False) -> list[Record]:
        """Return the stored records, oldest first."""
        page = self.plain.find(Query(live=live, limit=1000))
        return list(page.items)

    def events(self, name: str | None = None) -> list[Event]:
        """Return what happened, oldest first."""
        page = self.plain.events(EventQuery(name=name, limit=1000))
        return list(reversed(page.items))

    def dump(self) -> str:
        """Return everything that is stored, as text: what a thief of the store would read."""
        everything = {"records": self.records(), "events": self.events()}
        return json.dumps(to_builtins(everything, enc_hook=repr, builtin_types=(bytes,)), default=repr)


class Served:
    """A probe that is served: `app` is the application, `control` moves it."""

    def __init__(self, app: Any, control: Control) -> None:
        """Hold the two together."""
        self.app = app
        self.control = control


def asgi_probe(store: Any, clock: Clock, *, watch_every: float = 0.1, **settings: Unpack[Keywords]) -> Served:
    """Return the probe as an ASGI application over a store that has both faces.

    Its sockets look every `watch_every` seconds, whatever the store tells: no store hears of a clock that is wound.
    """
    control = Control(store, clock, SessionManager(clock=clock, **settings))
    app = asgi.SessionMiddleware(
        AsgiProbe(control.probe),
        store=control.store,
        manager=control.manager,
        watch_every=watch_every,
        watch_recheck=watch_every,
    )
    return Served(app, control)


def wsgi_probe(store: Any, clock: Clock, **settings: Unpack[Keywords]) -> Served:
    """Return the probe as a WSGI application over a blocking store that has an async face, too."""
    control = Control(store, clock, SessionManager(clock=clock, **settings))
    app = wsgi.SessionMiddleware(WsgiProbe(control.probe), store=control.store, manager=control.manager)
    return Served(app, control)


class AsgiProbe:
    """The probe as a plain ASGI application, without any middleware; /ws and /sse are here."""

    def __init__(self, probe: Probe) -> None:
        """Take the probe to serve."""
        self.probe = probe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await socket(self.probe, scope, receive, send)
        elif scope["path"] == "/sse":
            await event_stream(scope, receive, send)
        elif scope["path"] == HEALTH:
            await send_answer(send, Answer(200, [TEXT], b"well"))
        else:
            body = await _body(receive)
            await send_answer(send, await run_async(self.probe.answer(call_of(scope, body))))


class WsgiProbe:
    """The probe as a plain WSGI application, without any middleware; `as_list` returns whole answers as lists."""

    def __init__(self, probe: Probe, *, as_list: bool = True) -> None:
        """Take the probe to serve."""
        self.probe = probe
        self.as_list = as_list

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        if environ.get("PATH_INFO") == HEALTH:
            start_response("200 OK", [TEXT, ("Content-Length", "4")])
            return [b"well"]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        call = Call(
            environ["REQUEST_METHOD"],
            environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
            dict(parse_qsl(environ.get("QUERY_STRING", ""))),
            _wsgi_headers(environ),
            environ["wsgi.input"].read(length) if length else b"",
            wsgi.session_of(environ),
            wsgi.exchange_of(environ),
        )
        answer = run(self.probe.answer(call))
        headers = list(answer.headers)
        if answer.chunks is None and answer.status not in (204, 304):
            headers.append(("Content-Length", str(len(answer.body))))
        start_response(f"{answer.status} Probed", headers)
        if self.as_list and answer.chunks is None and answer.after is None:
            return [b"" if call.method == "HEAD" else answer.body]
        return Sending(answer)


class Sending:
    """A WSGI answer on its way: chunk by chunk, with what comes after it in `close`."""

    def __init__(self, answer: Answer) -> None:
        """Take the answer."""
        self._chunks = answer.chunks() if answer.chunks else iter([answer.body])
        self._after = answer.after

    def __iter__(self) -> Iterator[bytes]:
        """Return the iterator, this."""
        return self

    def __next__(self) -> bytes:
        """Return the next chunk."""
        return next(self._chunks)

    def close(self) -> None:
        """Do what is to be done after the answer."""
        if self._after is not None:
            self._after()


def call_of(scope: Scope, body: bytes) -> Call:
    """Return an ASGI request as a call."""
    return Call(
        scope["method"],
        scope["path"],
        dict(parse_qsl(scope["query_string"].decode("latin-1"))),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body,
        asgi.session_of(scope),
        asgi.exchange_of(scope),
    )


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer over ASGI."""
    headers = [(name.encode("latin-1").lower(), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    for chunk in answer.chunks() if answer.chunks else ():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": answer.body})
    if answer.after is not None:
        answer.after()


async def socket(probe: Probe, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a websocket: `deny` in the path's query refuses it, texts are commands; each is answered by a text."""
    session, exchange = asgi.session_of(scope), asgi.exchange_of(scope)
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    await receive()
    if "write" in query:
        session["ws"] = query["write"]
    if "logout" in query:
        session.logout()
    if "deny" in query:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"denied"})
        return
    if "close" in query:
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            probe.late.append(f"ws {message.get('code')}")
            break
        text = message["text"]
        await send({"type": "websocket.send", "text": await obeyed(text, session, exchange)})


async def event_stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve server-sent events: one at the start, then silence until the client goes (or the session is over)."""
    session = asgi.session_of(scope)
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"data: {session.subject}\n\n".encode(), "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return body


def _wsgi_headers(environ: dict[str, Any]) -> dict[str, str]:
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    return headers
