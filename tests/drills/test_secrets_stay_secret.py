"""No part of a token stands anywhere but in the cookie: no log, traceback, repr or store (LOG-04, TOK-09, L7, D45)."""

import base64
import logging
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

import coatcheck
from coatcheck.adapters import asgi, wsgi
from coatcheck.core.errors import StoreError, Unknown
from coatcheck.core.model import Event, EventQuery, Query, Ticket
from coatcheck.core.tokens import value_of
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.probe import ROUTES, Call, Probe, ProbeError

from .conftest import Build
from .house import COOKIE, OURS, Answer, Ask, House, Visitor

PACKAGE = str(Path(coatcheck.__file__).parent)
RENEW = 901.0


class Secrets:
    """Every secret that a house handed out, in every spelling that could be found again."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.csrf: set[str] = set()

    @property
    def parts(self) -> set[str]:
        return {part for token in self.tokens for part in token.split(".")[2:]}

    def found_in(self, text: str | bytes) -> set[str]:
        """Return the parts that stand in a text, plain, as hex, or decoded from their base64."""
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        found = set()
        for part in self.parts | self.csrf:
            decoded = base64.urlsafe_b64decode(part) if len(part) == 24 else part.encode()
            spellings = (part.encode(), decoded, decoded.hex().encode(), part.encode().hex().encode())
            found |= {part for spelling in spellings if spelling in raw}
        return found


def a_whole_life(house: House, clock: Clock) -> Secrets:
    """Live through everything that a session can meet, and remember every secret of it."""
    secrets = Secrets()

    def keep(answer: Answer) -> Answer:
        if answer.token:
            secrets.tokens.add(answer.token)
        return answer

    class Remembering(Visitor):
        def keep(self, answer: Answer) -> Answer:
            return super().keep(keep(answer))

    def visitor(token: str | None = None) -> Visitor:
        return Remembering(house, token)

    trouble = house.control.trouble
    ann = visitor()
    ann.get("/data?write=cart&value=1")
    secrets.csrf.add(ann.get("/form").body.decode())
    ann.login("ann", remember="1")
    secrets.csrf.add(ann.get("/form").body.decode())
    ann.post("/change?how=start")
    old = ann.token
    clock.wind(RENEW)
    keep(house.ask(ann.prepare("GET", "/me")))  # lost
    clock.wind(RENEW)
    ann.get("/me")
    ann.get("/me")
    visitor(old).get("/me")  # in its grace
    clock.wind(100)
    visitor(old).get("/me")  # a straggler
    ann.post("/reauth")
    ann.get("/data?do=renew")
    visitor(old).get("/me")  # replaced
    for target in ("/bump?key=n", "/take?key=gone", "/save", "/account/password", "/echo?token=required"):
        ann.post(target)
    with suppress(ProbeError):
        ann.get("/data?write=lost&then=raise")
    with suppress(ProbeError):
        ann.get("/data?do=login&then=raise")
    ann.get("/data?write=lost&status=500")
    ann.get("/data?do=renew&then=refuse")
    with suppress(coatcheck.DataError):
        ann.get("/me?do=unkeepable")
    ann.get("/nothing", headers=(("accept", "text/html"), *OURS))
    for verb in ("load", "commit", "epochs"):
        trouble.fail(verb)
        clock.wind(6)
        ann.get("/data?write=x")
        trouble.fail(None)
    trouble.fail("commit", Unknown, times=1)
    ann.get("/data?write=x")
    house.ask(Ask("GET", "/me", (("cookie", f"{COOKIE}={ann.token}; {COOKIE}={old}"), *OURS)))
    house.ask(Ask("GET", f"/me?sid={ann.token}", (("cookie", f"{COOKIE}=junk"), *OURS)))
    house.ask(ann.prepare("POST", "/logout", (("origin", "https://evil.test"),)))
    old = ann.token
    clock.wind(RENEW)
    ann.get("/me")
    ann.get("/me")
    clock.wind(400)
    visitor(old).get("/me")  # a thief
    ann.get("/me")
    bob = visitor()
    bob.login("bob")
    clock.wind(3601)
    bob.get("/me")  # idle
    bob.login("bob")
    bob.post("/logout")
    clock.wind(61)
    house.flush()
    house.control.registry.purge()
    assert len(secrets.tokens) >= 10
    assert {event.name for event in house.events()} >= {
        "session_created",
        "session_renewed",
        "session_expired",
        "session_logout",
        "session_token_reuse",
        "session_use_after_expire",
        "session_cookie_ambiguous",
        "session_malformed_token",
        "csrf_denied",
    }
    return secrets


class Spy(logging.Handler):
    """Keeps everything that a handler could show of a record, tracebacks with their locals included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.lines.append(repr(vars(record)))
        event = getattr(record, "event", None)
        if event is not None:
            self.lines.append(repr(msgspec.to_builtins(event)))
        if record.exc_info and record.exc_info[1] is not None:
            shown = traceback.TracebackException.from_exception(record.exc_info[1], capture_locals=True)
            self.lines.extend(shown.format())


@pytest.fixture
def spy() -> Iterator[Spy]:
    root, spy = logging.getLogger(), Spy()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(spy)
    yield spy
    root.removeHandler(spy)
    root.setLevel(level)


def test_no_log_line_of_a_whole_life_holds_a_secret(build: Build, clock: Clock, spy: Spy) -> None:
    """LOG-04, CSR-07: everything at DEBUG, of every logger, with the whole record behind each line."""
    secrets = a_whole_life(build(timeouts="nist-aal2"), clock)
    assert len(spy.lines) > 20
    for line in spy.lines:
        assert secrets.found_in(line) == set(), line


def test_no_stored_byte_is_a_secret(build: Build, store: Any, clock: Clock, tmp_path: Path) -> None:
    """TOK-09, P1: every record, index and event of memory; every byte of the SQLite file and its write-ahead log."""
    house = build(timeouts="nist-aal2")
    secrets = a_whole_life(house, clock)
    assert secrets.found_in(house.control.dump()) == set()
    if isinstance(store, MemoryStore):
        assert secrets.found_in(repr(builtins_of(vars(store._shelf)))) == set()
        return
    files = [path for path in tmp_path.iterdir() if path.name.startswith("sessions.db")]
    assert sum(path.stat().st_size for path in files) > 10_000
    for path in files:
        assert secrets.found_in(path.read_bytes()) == set(), path.name
        assert path.stat().st_mode & 0o077 == 0, "nobody else may read it"


def builtins_of(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: builtins_of(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {repr(key): builtins_of(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [builtins_of(each) for each in value]
    return value if isinstance(value, str | bytes | int | float | None) else repr(type(value))


def test_nothing_that_is_stored_opens_a_session(build: Build, store: Any, clock: Clock) -> None:
    """D45 (TOK-09): every stored value as cookie, family and turn; raw, in hex, in base64; on a live handle."""
    house = build(on_theft="note")
    ann = house.visitor()
    ann.login("ann")
    ann.post("/change?how=start")
    clock.wind(RENEW)
    ann.get("/me")
    record = house.record(ann.token or "")
    assert record.nonce, "the state in which the store knows most"
    values: set[bytes] = set()
    for one in (*house.control.records(), *house.events()):
        values |= set(leaves(msgspec.to_builtins(one, builtin_types=(bytes,))))
    if not isinstance(store, MemoryStore):
        with sqlite3.connect(store._file.path) as db:
            for (table,) in db.execute("select name from sqlite_schema where type = 'table'").fetchall():
                values |= set(leaves(db.execute(f"select * from {table}").fetchall()))
        db.close()
    assert {record.family_proof, record.turn_proof, record.former_proof, record.nonce} <= values
    cookies = set()
    for value in values:
        for spelt in (value, value.hex().encode(), base64.urlsafe_b64encode(value), base64.b64encode(value)):
            short = (spelt + b"A" * 24)[:24]
            handle = record.handle.encode()
            cookies |= {spelt, b"c1.%b.%b.%b" % (handle, short, short), b"c1.%b.%b" % (handle, spelt)}
    cookies = {cookie for cookie in cookies if not set(cookie) & set(b"\r\n;")}
    assert len(cookies) > 200
    before = house.record(ann.token or "")
    asks = (Ask("GET", "/me", ((b"cookie", f"{COOKIE}=".encode() + cookie), *OURS)) for cookie in cookies)
    assert {answer.status for answer in house.ask_all(asks)} == {401}
    assert house.record(ann.token or "") == before
    assert ann.user == "ann"


def leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, bytes):
        yield value
    elif value is not None:
        yield str(value).encode()


# Everything that a debugger, an error page or an error tracker could print.

WIRE = {"scope", "environ", "message", "headers", "answer", "dressed", "raw", "ask"}
"""Locals that hold what the server itself read or is about to send; it has them, too."""


def of_ours(value: Any) -> bool:
    return type(value).__module__.startswith("coatcheck.")


def reachable(*roots: Any) -> Iterator[Any]:
    """Yield everything of ours that can be reached, and every container that holds some of it."""
    todo, met = list(roots), set()
    while todo:
        value = todo.pop()
        if id(value) in met or isinstance(value, str | bytes | int | float | type | None):
            continue
        met.add(id(value))
        yield value
        if isinstance(value, msgspec.Struct):
            todo += [getattr(value, name) for name in value.__struct_fields__ if name not in ("headers", "cookies")]
        elif isinstance(value, dict):
            todo += [each for key, each in value.items() if key not in ("headers", "HTTP_COOKIE")]
        elif isinstance(value, list | tuple | set):
            todo += value
        elif of_ours(value):
            names = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
            names |= set(getattr(value, "__dict__", ()))
            todo += [getattr(value, name) for name in names - {"headers", "__weakref__"} if hasattr(value, name)]


def shown(*roots: Any) -> Iterator[str]:
    for value in reachable(*roots):
        if of_ours(value) and "testing" not in type(value).__module__:
            yield repr(value)
            yield str(value)
            yield f"{[value]!r} { ({'value': value})!r}"


MOMENTS = ("read", "write", "login", "logout", "renew", "logout-login", "lasting")


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_that_a_handler_can_reach_shows_a_secret(
    build: Build, clock: Clock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """L7: from the session, its exchange and what the middleware left, before, during and after each act."""
    house, secrets, seen = build(), Secrets(), []
    ann = house.visitor()
    secrets.tokens.add(ann.login("ann"))
    clock.wind(RENEW)
    secrets.tokens.add(ann.get("/me").token or "")
    sessions = []

    def looking(probe: Probe, call: Call) -> Any:
        yield from ()
        sessions.append(call.session)
        visit = call.session.visit
        for ticket in (visit.ticket, visit.planned, visit.renew, visit.login.ticket if visit.login else None):
            if ticket is not None:
                secrets.tokens.add(f"c1.{ticket.handle}.{ticket.family.decode()}.{ticket.turn.decode()}")
        seen.extend(shown(call.session, call.exchange, visit, visit.request))
        return (yield from Probe.me(probe, call))

    monkeypatch.setitem(ROUTES, ("GET", "/me"), looking)
    answer = ann.get(f"/me?do={moment}")
    secrets.tokens |= {answer.token} if answer.token else set()
    assert len(sessions) == 1
    assert sessions[0].visit.outcome is not None
    seen.extend(shown(sessions[0], sessions[0].visit.outcome))
    assert len(seen) > 20
    for text in seen:
        assert secrets.found_in(text) == set(), text


def test_what_the_middleware_leaves_in_a_request_shows_no_secret() -> None:
    """L7: of `scope` and `environ` all but the server's own header lines."""
    seen: list[str] = []
    token = f"c1.{'h' * 18}.{'f' * 24}.{'t' * 24}"

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        asgi.session_of(scope)["k"] = 1
        seen.extend(shown({key: value for key, value in scope.items() if key != "headers"}))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        wsgi.session_of(environ)["k"] = 1
        seen.extend(shown(dict(environ)))
        start_response("200 OK", [])
        return [b""]

    clock = Clock()
    for kind, wrapped in (("asgi", asgi.SessionMiddleware), ("wsgi", wsgi.SessionMiddleware)):
        house = House(kind, MemoryStore(clock=clock), clock)
        app = asgi_app if kind == "asgi" else wsgi_app
        house.served.app = wrapped(app, store=house.control.store, manager=house.control.manager)
        assert house.visitor(token).get("/").status == 200
        house.close()
    assert len(seen) > 30
    secrets = Secrets()
    secrets.tokens.add(token)
    for text in seen:
        assert secrets.found_in(text) == set(), text


FAILING = [
    # where it breaks, while what is asked
    ("handler", "/me?then=raise"),
    ("handler", "/data?do=login&then=raise"),
    ("handler", "/me?do=unkeepable"),
    ("load", "/me"),
    ("commit", "/data?write=k"),
    ("commit", "/data?do=login"),
    ("commit", "/data?do=renew"),
    ("commit", "/me"),
    ("epochs", "/me"),
    ("judge", "/me"),
    ("decode", "/data"),
    ("settle", "/data?do=login"),
]


class BrokenError(Exception):
    """Something that nobody expected."""


@pytest.mark.parametrize(("where", "target"), FAILING)
def test_a_traceback_with_its_locals_shows_no_secret(
    build: Build,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    target: str,
) -> None:
    """L7, LOG-04: raised or logged, as an error tracker would send it, from every frame of ours."""
    house, secrets = build(), Secrets()
    ann = house.visitor()
    secrets.tokens.add(ann.login("ann"))
    clock.wind(RENEW)

    def spelt(ticket: Ticket) -> bytes:
        value = value_of(ticket)
        secrets.tokens.add(value.decode())
        return value

    monkeypatch.setattr("coatcheck.core.tokens.value_of", spelt)
    if where in ("load", "commit", "epochs"):
        house.control.trouble.fail(where, BrokenError)  # type: ignore[arg-type]
    elif where == "judge":
        monkeypatch.setattr("coatcheck.core.tokens.turn_proof", _broken)
    elif where == "decode":
        monkeypatch.setattr("coatcheck.core.codec.decode", _broken)
    elif where == "settle":
        monkeypatch.setattr("coatcheck.core.cookies.CookieWriter.write", _broken)
    caplog.clear()
    error: BaseException | None
    try:
        assert ann.get(target).status == 500
    except (BrokenError, ProbeError, coatcheck.DataError) as raised:
        error = raised
    else:
        (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, (BrokenError, ProbeError, coatcheck.DataError))
    frames = 0
    for frame in _frames(error):
        if not frame.f_code.co_filename.startswith(PACKAGE) or "/testing/" in frame.f_code.co_filename:
            continue
        frames += 1
        for name, value in frame.f_locals.items():
            if name not in WIRE:
                assert secrets.found_in(repr(value)) == set(), f"{frame.f_code.co_qualname}: {name}"
    assert frames > 0
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert "".join(lines)


def _broken(*_: Any, **__: Any) -> Any:
    message = "broken on purpose"
    raise BrokenError(message)


def _frames(error: BaseException | None) -> Iterator[Any]:
    """Yield the frames of an error, and of those that it came from."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def test_an_error_of_the_store_tells_a_client_nothing(build: Build, clock: Clock) -> None:
    """CCH-05: a plain 503, without token, name or path, and without a cookie."""
    house = build()
    ann = house.visitor()
    token = ann.login("ann")
    house.control.trouble.fail("load", StoreError)
    answer = house.ask(ann.prepare("GET", "/me"))
    assert (answer.status, answer.set_cookies) == (503, [])
    whole = answer.body + repr(answer.headers).encode()
    for word in (*token.split(".")[1:], "ann", "sqlite", "Error", "Traceback", "/"):
        assert word.encode() not in answer.body.replace(b"text/plain", b"")
        assert word == "/" or word.encode() not in whole


def test_a_session_cannot_be_pickled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """L7: it would carry its secret into a queue or a cache."""
    import copy
    import pickle

    refused = []

    def pickling(probe: Probe, call: Call) -> Any:
        for act in (pickle.dumps, copy.copy, copy.deepcopy):
            try:
                act(call.session)
            except TypeError as error:
                refused.append(str(error))
        return (yield from Probe.me(probe, call))

    monkeypatch.setitem(ROUTES, ("GET", "/me"), pickling)
    ann = house.visitor()
    ann.login("ann")
    ann.get("/me")
    assert len(refused) == 3


def test_events_hold_what_a_log_may_hold(house: House, clock: Clock) -> None:
    """LOG-01: who, when, which session; and not the agent's whole kilobyte."""
    ann = house.visitor()
    ann.get("/me", headers=(("user-agent", "x" * 9000), *OURS))
    ann.login("ann")
    for event in house.control.plain.events(EventQuery(limit=100)).items:
        assert isinstance(event, Event)
        assert event.handle
        assert event.at == clock.now
        assert event.client is None or len(event.client.agent or "") <= 512
    assert len(house.control.plain.find(Query()).items) == 1
