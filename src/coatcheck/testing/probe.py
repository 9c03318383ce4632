"""The probe: one small application that uses everything a session can do, for every adapter to serve.

It knows no protocol: `Probe.answer` takes a `Call` and is a generator that yields what must be waited for, which `run`
and `run_async` drive (calls.py). `serving.py` serves it raw over ASGI and WSGI; for a framework, a
handler of a dozen lines makes a Call of its request and a response of the Answer.

Any request may carry these in its query: `do` (an act of acts.py), `hold` (wait at that gate first), `status`, `cache`,
`vary`, `cookie`, `header=name:value` (of the response), `keep`, `then=raise` or `then=refuse` (after the act).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..core.errors import SettledError
from ..core.model import Client, Level, Record
from ..core.session import Session
from ..core.stepup import GoTo
from .acts import ACTS, CHANGES, LOOKS
from .calls import JSON, TEXT, Answer, Call, Steps, as_json, run, run_async, text
from .flaky import Gate

__all__ = ["ACTS", "CHANGES", "JSON", "LOOKS", "ROUTES", "TEXT", "Answer", "Call", "Cart", "Handler", "Probe",
           "ProbeError", "Steps", "run", "run_async"]  # fmt: skip


class ProbeError(Exception):
    """What the probe raises when it was asked to."""


@dataclass
class Cart:
    """The type of the probe's typed data."""

    items: list[int] = field(default_factory=list)
    note: str = ""


Handler: TypeAlias = Callable[["Probe", Call], Steps]


class Probe:
    """The application. `gates` are the places where a request with `hold=<name>` waits."""

    def __init__(self) -> None:
        """Start without a gate."""
        self.gates: dict[str, Gate] = {}
        self.seen: list[str] = []
        self.done: list[str] = []
        self.late: list[str] = []

    def gate(self, name: str) -> Gate:
        """Return the gate of that name."""
        return self.gates.setdefault(name, Gate())

    def answer(self, call: Call) -> Steps:
        """Answer a call; what is yielded is waited for, if it can be."""
        self.seen.append(f"{call.method} {call.path}")
        if "hold" in call.query:
            yield self.gate(call.query["hold"])
        if "do" in call.query:
            ACTS[call.query["do"]](call.session)
        handler = _handler_of(call)
        answer = _not_found() if handler is None else (yield from handler(self, call))
        if "keep" in call.query:
            call.session.keep()
        if call.query.get("then") == "raise":
            message = "the probe was asked to raise"
            raise ProbeError(message)
        if call.query.get("then") == "refuse":
            call.session.require_login(level=Level.AAL3)
        return _modified(answer, call.query)

    # -- pages -------------------------------------------------------------------------------------------------------

    def home(self, call: Call) -> Steps:
        """Greet, without a look at the session."""
        yield from ()
        return text("hello")

    def look(self, call: Call) -> Steps:
        """Look at the session in one way only."""
        yield from ()
        return as_json({"found": LOOKS[call.query["how"]](call.session)})

    def data(self, call: Call) -> Steps:
        """Show the data, or with PUT (or `write` in the query) change it."""
        yield from ()
        if "write" in call.query:
            call.session[call.query["write"]] = call.query.get("value", "1")
        return as_json(call.session.copy())

    def change(self, call: Call) -> Steps:
        """Change the data in one way."""
        yield from ()
        CHANGES[call.query["how"]](call.session)
        return as_json(call.session.copy())

    def replace(self, call: Call) -> Steps:
        """Put the body's mapping in place of the data."""
        yield from ()
        call.session.replace(call.form)
        return as_json(call.session.copy())

    def form_page(self, call: Call) -> Steps:
        """Show a form's token, or with `late` in the query, stream it."""
        yield from ()
        if "late" in call.query:
            return Answer(200, [TEXT], chunks=lambda: _late_token(call.session))
        return text(call.session.csrf_token())

    # -- who is there ------------------------------------------------------------------------------------------------

    def login(self, call: Call) -> Steps:
        """Log in whoever says a name; a form is redirected, JSON is told."""
        yield from ()
        form, session = call.form, call.session
        token = form.get("csrf_token") or call.headers.get("x-csrf-token")
        if token:
            session.check_csrf(token)
        remember, level = _yes(form.get("remember")), int(form.get("level", Level.AAL1))
        session.login(form["user"], remember=remember, level=level, tenant=form.get("tenant"))
        if "cart" in form:
            session["cart"] = form["cart"]
        if call.headers.get("content-type", "").startswith(JSON):
            return as_json({"user": session.subject, "handle": session.handle})
        return Answer(303, [TEXT, ("location", call.query.get("to", "/me"))])

    def callback(self, call: Call) -> Steps:
        """Come back from an identity provider: logs in by the state that this browser began with, once, or 400."""
        began = yield call.exchange.take(call.session, "state")
        if began is None or began != call.query.get("state"):
            return as_json({"error": "state"}, 400)
        call.session.login(call.query.get("user", "alice"))
        return Answer(303, [TEXT, ("location", "/me")])

    def logout(self, call: Call) -> Steps:
        """Log out: here, or everywhere."""
        yield from ()
        call.session.logout(everywhere="everywhere" in call.query)
        return Answer(303, [TEXT, ("location", "/")])

    def me(self, call: Call) -> Steps:
        """Say who is logged in, or 401."""
        yield from ()
        session = call.session
        if session.subject is None:
            return as_json({"error": "anonymous", "why": session.ended_because}, 401)
        return as_json({"user": session.subject, "handle": session.handle, "level": session.level})

    def private(self, call: Call) -> Steps:
        """Require a login, as recent, as sure and as fresh as the query says; with `confirm`, after confirming it."""
        within, level = call.query.get("within"), call.query.get("level")
        if "confirm" in call.query:
            yield call.exchange.confirm(call.session)
        subject = call.session.require_login(
            within=None if within is None else float(within),
            level=None if level is None else int(level),
            fresh="fresh" in call.query,
        )
        return as_json({"user": subject})

    def reauth(self, call: Call) -> Steps:
        """Take a second proof from whoever is logged in."""
        yield from ()
        session = call.session
        session.login(session.require_login(), methods=("pwd", "otp"), level=Level.AAL2)
        return as_json({"user": session.subject, "level": session.level})

    def echo(self, call: Call) -> Steps:
        """Return what was posted; with `token=required`, only for a good CSRF token (header or form field)."""
        yield from ()
        session, form = call.session, call.form
        if call.query.get("token") == "required":
            session.require_csrf(form.get("csrf_token"))
        good = session.check_csrf(call.headers.get("x-csrf-token")) or session.check_csrf(form.get("csrf_token"))
        return as_json({"form": form, "csrf": good})

    def email(self, call: Call) -> Steps:
        """Change an address: asks for a proof of the last ten minutes."""
        yield from ()
        call.session.require_login(within=600)
        call.session["email"] = call.form.get("email", "")
        return as_json({"email": call.session["email"]})

    def password(self, call: Call) -> Steps:
        """Change a password: a factor changes, so this session is renewed and the others end."""
        yield from ()
        call.session.require_login(within=600)
        call.session.password_changed()
        return as_json({"changed": True})

    def roles(self, call: Call) -> Steps:
        """Take another role: this session goes on under another name, the others end."""
        yield from ()
        call.session.require_login()
        call.session.roles_changed()
        return as_json({"changed": True})

    def pay(self, call: Call) -> Steps:
        """Pay: asks for two factors, of the last five minutes."""
        yield from ()
        call.session.require_login(within=300, level=Level.AAL2)
        return as_json({"paid": True})

    def transfer(self, call: Call) -> Steps:
        """Move money: asks for a proof for this very transfer, by its fields, or with `whole` by its body."""
        of = call.body if "whole" in call.query else {**call.query, **call.form}
        level = call.query.get("level")
        subject = yield call.exchange.require_step_up(call.session, of, level=None if level is None else int(level))
        self.done.append(f"{subject}: {call.form.get('amount')} to {call.form.get('to')}")
        return as_json({"moved": call.form.get("amount")})

    def raise_level(self, call: Call) -> Steps:
        """Take one more factor from whoever is logged in."""
        yield from ()
        session = call.session
        session.stepped_up(*call.query.get("with", "otp").split())
        return as_json({"level": session.level, "methods": session.methods})

    def resume(self, call: Call) -> Steps:
        """Say what comes after the login."""
        yield from ()
        found = call.session.resume(call.query.get("next"), default="/home")
        if isinstance(found, GoTo):
            return as_json({"go": found.target})
        return as_json({"again": {"method": found.method, "target": found.target, "shown": found.shown}})

    # -- sessions of an account --------------------------------------------------------------------------------------

    def sessions(self, call: Call) -> Steps:
        """List the subject's sessions."""
        subject = call.session.require_login()
        page = yield call.registry.find(subject)
        return as_json({"sessions": [_shown(one, call.session.handle) for one in page.items]})

    def end_session(self, call: Call) -> Steps:
        """End one of the subject's sessions; with `within`, only with a proof that is as recent."""
        within = call.query.get("within")
        subject = call.session.require_login(within=None if within is None else float(within))
        handle = call.path.rpartition("/")[2]
        found = yield call.registry.revoke(handle, "owner", subject=subject)
        return as_json({"ended": found}, 200 if found else 404)

    def end_others(self, call: Call) -> Steps:
        """End the subject's other sessions."""
        subject = call.session.require_login()
        yield call.registry.revoke_all(subject, keep=call.session.handle, because="owner")
        return as_json({"ended": True})

    def status(self, call: Call) -> Steps:
        """Say when the session ends (a path to list as `passive`: asking is no activity)."""
        yield from ()
        session = call.session
        shown = {"user": session.subject, "ends_at": session.ends_at, "idle_ends_at": session.idle_ends_at}
        return as_json({**shown, "why": session.ended_because})

    # -- when things are written -------------------------------------------------------------------------------------

    def save(self, call: Call) -> Steps:
        """Write a key and save it now, whatever becomes of the response."""
        call.session["saved"] = "yes"
        try:
            yield call.exchange.save(call.session)
        except SettledError as error:
            return as_json({"error": str(error)}, 409)
        return as_json(call.session.copy())

    def take(self, call: Call) -> Steps:
        """Take a key: of all who ask, one gets it."""
        taken = yield call.exchange.take(call.session, call.query["key"])
        return as_json({"taken": taken})

    def bump(self, call: Call) -> Steps:
        """Count."""
        count = yield call.exchange.bump(call.session, call.query["key"])
        return as_json({"count": count})

    def stream(self, call: Call) -> Steps:
        """Stream three chunks; the act in `body` is done between the first and the second."""
        yield from ()
        session, act = call.session, call.query.get("body", "read")

        def chunks() -> Iterator[bytes]:
            if "before" in call.query:
                session["before"] = "yes"
            yield b"one "
            yield self._tried(act, session)
            yield b"three"

        return Answer(200, [TEXT], chunks=chunks)

    def afterwards(self, call: Call) -> Steps:
        """Answer, then act in the background."""
        yield from ()
        act = call.query["act"]
        return Answer(200, [TEXT], b"soon", after=lambda: self.late.append(self._tried(act, call.session).decode()))

    def _tried(self, act: str, session: Session) -> bytes:
        try:
            ACTS[act](session)
        except SettledError:
            return b"too late "
        return f"{session.get('k', '-')} ".encode()

    def typed(self, call: Call) -> Steps:
        """Keep a cart as a typed value."""
        yield from ()
        cart = call.session.as_type(Cart)
        if "add" in call.query:
            cart.data.items.append(int(call.query["add"]))
        return as_json({"items": cart.data.items, "why": call.session.ended_because})


def _shown(record: Record, current: str | None) -> dict[str, Any]:
    """Return what a user is shown of a session of theirs."""
    client = record.client or Client()
    return {
        "handle": record.handle,
        "current": record.handle == current,
        "created_at": record.created_at,
        "seen_at": record.seen_at,
        "methods": record.methods,
        "level": record.level,
        "address": client.address,
        "agent": client.agent,
    }


def _late_token(session: Session) -> Iterator[bytes]:
    yield b"token: "
    try:
        yield session.csrf_token().encode()
    except SettledError:
        yield b"too late"


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/"): Probe.home,
    ("POST", "/"): Probe.home,
    ("GET", "/look"): Probe.look,
    ("GET", "/data"): Probe.data,
    ("POST", "/data"): Probe.data,
    ("POST", "/change"): Probe.change,
    ("POST", "/replace"): Probe.replace,
    ("GET", "/form"): Probe.form_page,
    ("POST", "/login"): Probe.login,
    ("GET", "/callback"): Probe.callback,
    ("POST", "/logout"): Probe.logout,
    ("GET", "/me"): Probe.me,
    ("GET", "/private"): Probe.private,
    ("POST", "/private"): Probe.private,
    ("POST", "/reauth"): Probe.reauth,
    ("POST", "/echo"): Probe.echo,
    ("POST", "/account/email"): Probe.email,
    ("POST", "/account/password"): Probe.password,
    ("POST", "/account/roles"): Probe.roles,
    ("POST", "/pay"): Probe.pay,
    ("GET", "/transfer"): Probe.transfer,
    ("POST", "/transfer"): Probe.transfer,
    ("POST", "/stepup"): Probe.raise_level,
    ("GET", "/resume"): Probe.resume,
    ("GET", "/account/sessions"): Probe.sessions,
    ("POST", "/account/sessions/revoke-others"): Probe.end_others,
    ("GET", "/session/status"): Probe.status,
    ("POST", "/save"): Probe.save,
    ("GET", "/take"): Probe.take,
    ("POST", "/take"): Probe.take,
    ("POST", "/bump"): Probe.bump,
    ("GET", "/stream"): Probe.stream,
    ("GET", "/after"): Probe.afterwards,
    ("GET", "/typed"): Probe.typed,
    ("POST", "/typed"): Probe.typed,
}
"""What the probe answers; DELETE /account/sessions/<handle> besides. Sockets and event streams are the server's."""


def _handler_of(call: Call) -> Handler | None:
    if call.method == "DELETE" and call.path.startswith("/account/sessions/"):
        return Probe.end_session
    return ROUTES.get(("GET" if call.method in ("HEAD", "OPTIONS") else call.method, call.path))


def _modified(answer: Answer, query: dict[str, str]) -> Answer:
    if "status" in query:
        answer.status = int(query["status"])
        if answer.status in (204, 304):
            answer.body = b""
            answer.headers = [(name, value) for name, value in answer.headers if name != "content-type"]
    if "cache" in query:
        answer.headers.append(("cache-control", query["cache"]))
    if "vary" in query:
        answer.headers.append(("vary", query["vary"]))
    if "cookie" in query:
        answer.headers.append(("set-cookie", query["cookie"]))
    if "header" in query:
        name, _, value = query["header"].partition(":")
        answer.headers.append((name, value))
    return answer


def _not_found() -> Answer:
    return Answer(404, [TEXT], b"not found")


def _yes(value: Any) -> bool:
    return value in (True, "1", "on", "true", "yes")
