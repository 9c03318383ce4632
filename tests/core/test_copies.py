"""What a near copy may say: yes, or nothing; and what becomes of a session that is confirmed (H8)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core import codec, records, tokens
from coatcheck.core.errors import ConfigError, Refusal
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Client, Instant, Record, Request, Ticket
from coatcheck.core.policies import Action, Policy, Verdict
from coatcheck.core.session import Session
from coatcheck.core.visit import Login
from coatcheck.testing.clock import Clock

RENEW, GRACE = 900.0, 60.0
DATA = {"cart": [1, 2], "name": "Ann"}


@dataclass
class Cart:
    cart: list[int] = field(default_factory=list)
    name: str = ""


class Desk:
    """A manager, a login, and a request of it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.manager = SessionManager(clock=self.clock, origins=["https://app.test"], **settings)
        self.ticket = self.manager.mint()
        self.record = self.made()

    def made(self, *, remember: bool = False, data: bytes | None = None) -> Record:
        who = Login("ann", ("pwd",), 10, remember=remember, ticket=self.ticket)
        raw = codec.encode(DATA) if data is None else data
        manager = self.manager
        return records.made(manager.realm, self.ticket, who, manager.clocks, self.clock.now, Client(), raw)

    def request(self, method: str = "GET", path: str = "/", kind: Any = "http") -> Request:
        headers = [(b"cookie", b"__Host-coat=" + tokens.value_of(self.ticket)), (b"origin", b"https://app.test")]
        return Request(method, "https", path, headers, kind=kind)

    def copied(
        self, copy: Record | None = None, request: Request | None = None, floor: Instant = 0.0
    ) -> Session | None:
        found = self.manager.open_copy(request or self.request(), self.ticket, copy or self.record, floor=floor)
        assert found is None or found.visit.copied
        return found

    def opened(self, record: Record) -> Session:
        found = self.manager.open(self.request(), self.ticket, record)
        assert isinstance(found, Session)
        return found

    def renewed(self, record: Record, *, seen: bool) -> tuple[Record, Ticket]:
        """Return the record and the ticket after a renewal a second later."""
        self.clock.wind(1)
        made, ticket = records.renewed(self.manager.realm.encode(), record, self.ticket, os.urandom(32), self.clock.now)
        return replace(made, version=record.version + 1, used_at=self.clock.now if seen else None), ticket


class Rule(Policy):
    """A rule of the application's."""

    def __init__(self, action: Action = Action.KEEP, ends: Instant | None = None) -> None:
        self.action, self.ends = action, ends

    def expires_at(self, record: Record) -> Instant | None:
        return self.ends

    def judge(self, record: Record, signals: Sequence[Any], now: Instant) -> Verdict:
        return Verdict(self.action, "policy")


def test_a_copy_of_a_current_session_says_yes_to_a_safe_request() -> None:
    desk = Desk()
    for method in ("GET", "HEAD"):
        session = desk.copied(request=desk.request(method))
        assert session is not None
        assert (session.subject, dict(session), session.level) == ("ann", DATA, 10)
        assert session.visit.urgent == session.visit.notes == ()


def test_it_says_what_the_record_itself_would_say() -> None:
    desk = Desk()
    copied, opened = desk.copied(), desk.opened(desk.record)
    assert copied is not None
    ours, theirs = copied.visit, opened.visit
    different = {name for name in ours.__struct_fields__ if getattr(ours, name) != getattr(theirs, name)}
    assert different == {"copied"}


def _other_turn(desk: Desk) -> Record:
    return replace(desk.record, turn_proof=b"x" * 32)


def _other_family(desk: Desk) -> Record:
    return replace(desk.record, turn_proof=b"x" * 32, family_proof=b"y" * 32)


def _former(seen: bool, later: float) -> Callable[[Desk], Record]:
    def made(desk: Desk) -> Record:
        record, _ = desk.renewed(desk.record, seen=seen)
        desk.clock.wind(later)
        return record

    return made


def _after(seconds: float, **changed: Any) -> Callable[[Desk], Record]:
    def made(desk: Desk) -> Record:
        desk.clock.wind(seconds)
        return replace(desk.record, seen_at=desk.clock.now, **changed)

    return made


def _lapsed(desk: Desk) -> Record:
    record = desk.made(remember=True)
    desk.clock.wind(3601)
    return replace(record, used_at=desk.clock.now)


SILENT: list[tuple[str, Callable[[Desk], Record], dict[str, Any]]] = [
    ("ended", lambda desk: replace(desk.record, ended_at=desk.clock.now, ended_because="logout"), {}),
    ("ended, its turn erased", lambda desk: replace(desk.record, ended_at=1.0, turn_proof=None), {}),
    ("garbage to it", _other_family, {}),
    ("stale to it: it is the older one", _other_turn, {}),
    ("former, the successor unseen", _former(seen=False, later=1), {}),
    ("former, in its grace", _former(seen=True, later=1), {}),
    ("straggler", _former(seen=True, later=100), {}),
    ("late: theft, says the record; not a copy", _former(seen=True, later=400), {}),
    ("never seen", lambda desk: replace(desk.record, used_at=None), {}),
    ("idle", lambda desk: replace(desk.record, seen_at=desk.clock.now - 3600), {}),
    ("absolute", _after(0, expires_at=0.0), {}),
    ("due for renewal", _after(RENEW), {}),
    ("from the future", lambda desk: replace(desk.record, handed_at=desk.clock.now + 6), {}),
    ("unreadable", lambda desk: replace(desk.record, data=b"\x63"), {}),
    ("of another type", lambda desk: replace(desk.record, data=codec.encode({"cart": "none"})), {"data": Cart}),
    ("lapsed to remembered", _lapsed, {}),
    ("a policy ends it", lambda desk: desk.record, {"policies": [Rule(Action.END)]}),
    ("a policy steps up", lambda desk: desk.record, {"policies": [Rule(Action.STEP_UP)]}),
    ("a policy renews", lambda desk: desk.record, {"policies": [Rule(Action.RENEW)]}),
    ("a policy's own end", lambda desk: desk.record, {"policies": [Rule(ends=1.0)]}),
]


@pytest.mark.parametrize(("what", "copy", "settings"), SILENT, ids=[row[0] for row in SILENT])
def test_a_copy_never_says_no_and_leaves_no_trace(
    what: str, copy: Callable[[Desk], Record], settings: dict[str, Any]
) -> None:
    desk = Desk(**settings)
    record = copy(desk)
    for _ in range(2):
        assert desk.copied(record) is None
    assert desk.manager.noise.since is None
    assert not desk.manager.judge.noted


@pytest.mark.parametrize("settings", [{"data": Cart}, {"policies": [Rule()]}, {"timeouts": "nist-aal1"}])
def test_it_says_yes_where_the_application_has_types_and_rules_that_agree(settings: dict[str, Any]) -> None:
    assert Desk(**settings).copied() is not None


def test_the_last_moments_of_each_clock_are_still_yes() -> None:
    desk = Desk()
    desk.clock.wind(RENEW - 0.1)
    assert desk.copied() is not None
    desk.clock.wind(0.1)
    assert desk.copied() is None


def test_epochs_hold_for_copies() -> None:
    desk = Desk()
    assert desk.copied(floor=desk.clock.now) is not None
    assert desk.copied(floor=desk.clock.now + 1) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "get"])
def test_an_unsafe_request_never_sees_a_copy(method: str) -> None:
    desk = Desk()
    assert desk.copied(request=desk.request(method)) is None


def test_a_handshake_never_sees_a_copy() -> None:
    desk = Desk()
    assert desk.copied(request=desk.request(kind="websocket")) is None


def test_paths_that_must_be_fresh_never_see_a_copy() -> None:
    desk = Desk(fresh=["/admin"])
    assert desk.copied(request=desk.request(path="/admin/users")) is None
    assert desk.copied(request=desk.request(path="/shop")) is not None
    for wrong in ("/admin", ["admin"]):
        with pytest.raises(ConfigError):
            SessionManager(fresh=wrong)


# Confirming.


def confirmed(desk: Desk, record: Record | None, act: Callable[[Session], object] = lambda session: None) -> Session:
    session = desk.copied()
    assert session is not None
    act(session)
    desk.manager.confirm(session, record)
    assert not session.visit.copied
    return session


def newer(desk: Desk, **changed: Any) -> Record:
    data = codec.encode({"cart": [1, 2, 3], "name": "Ann"})
    return replace(desk.record, data=data, version=2, level=20, **changed)


def test_confirming_takes_in_the_newer_record() -> None:
    desk = Desk()
    session = confirmed(desk, newer(desk))
    assert (session["cart"], session.level, session.visit.record) == ([1, 2, 3], 20, newer(desk))
    assert desk.manager.settle(session, 200, []).changes == ()


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.__setitem__("mine", 1),
        lambda session: session["cart"].append(9),
        lambda session: session.as_type(Cart).data.cart.append(9),
    ],
)
def test_confirming_leaves_what_the_handler_holds_to_be_laid_on_the_newer_record(act: Callable[[Session], Any]) -> None:
    desk = Desk()
    session = confirmed(desk, newer(desk), act)
    assert session.level == 20, "but who is there, and how surely, is new"
    (change,) = desk.manager.settle(session, 200, []).changes
    assert change.was == 1, "so it conflicts, and is laid on what is stored"  # type: ignore[union-attr]


def test_a_renewal_between_is_no_theft() -> None:
    desk = Desk()
    for seen in (False, True):
        session = desk.copied()
        assert session is not None
        record, _ = desk.renewed(desk.record, seen=seen)
        desk.manager.confirm(session, record)
        assert session.subject == "ann"
        assert session.visit.urgent == session.visit.notes == ()


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (lambda desk: replace(desk.record, ended_at=desk.clock.now, ended_because="operator"), "operator"),
        (lambda desk: None, None),
        (lambda desk: replace(desk.record, expires_at=desk.clock.now), "absolute"),
        (lambda desk: replace(desk.record, data=b"\x63"), None),
    ],
)
def test_confirming_finds_what_is_over(record: Callable[[Desk], Record | None], why: str | None) -> None:
    desk = Desk()
    session = confirmed(desk, record(desk), lambda session: session.__setitem__("mine", 1))
    assert (session.subject, session.ended_because, dict(session), session.level) == (None, why, {}, 0)
    with pytest.raises(Refusal):
        session.require_login()
    outcome = desk.manager.settle(session, 200, [])
    assert outcome.cookies == ()
    assert outcome.changes == ()


def test_confirming_judges_by_the_epochs() -> None:
    desk = Desk()
    session = desk.copied()
    assert session is not None
    desk.manager.confirm(session, desk.record, desk.clock.now + 1)
    assert session.ended_because == "epoch"
    assert session.visit.urgent_required


def test_confirming_drops_to_remembered_what_has_lapsed() -> None:
    desk = Desk()
    desk.record = desk.made(remember=True)
    session = desk.copied()
    assert session is not None
    desk.manager.confirm(session, replace(desk.record, seen_at=desk.clock.now - 3601))
    assert session.level == 5
    assert session.visit.urgent
    assert dict(session) == {}


@pytest.mark.parametrize("act", [lambda session: session.login("bob"), lambda session: session.logout()])
def test_after_a_login_or_logout_there_is_nothing_to_confirm(act: Callable[[Session], object]) -> None:
    desk = Desk()
    session = confirmed(desk, None, act)
    assert session.ended_because is None
    assert len(desk.manager.settle(session, 200, []).changes) == (2 if session.subject == "bob" else 1)


def test_a_renewal_that_was_asked_for_falls_with_its_session() -> None:
    desk = Desk()
    session = confirmed(desk, None, lambda session: session.renew())
    assert session.handle is None
    assert desk.manager.settle(session, 200, []).changes == ()


# Asking for a fresh one.


def test_what_was_read_for_this_request_is_fresh() -> None:
    desk = Desk()
    assert desk.opened(desk.record).require_login(fresh=True) == "ann"


def test_a_copy_is_confirmed_at_once_where_handlers_may_wait() -> None:
    desk = Desk()
    session = desk.copied()
    assert session is not None
    ended = replace(desk.record, ended_at=desk.clock.now, ended_because="operator")
    session.visit.confirm = lambda session: desk.manager.confirm(session, ended)
    assert session.require_login() == "ann"
    with pytest.raises(Refusal):
        session.require_login(fresh=True)
    assert session.ended_because == "operator"


def test_where_they_may_not_the_error_says_what_to_await(recwarn: pytest.WarningsRecorder) -> None:
    desk = Desk()
    session = desk.copied()
    assert session is not None

    async def confirm(session: Session) -> None:
        raise AssertionError

    session.visit.confirm = confirm
    with pytest.raises(ConfigError, match=r"await exchange_of\(request\).confirm\(session\)"):
        session.require_login(fresh=True)
    assert not recwarn.list, "no coroutine is left unawaited"
