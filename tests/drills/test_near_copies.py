"""Near copies under attack: two workers, each with its own, on one store (D13; H8, contract 1.5).

`deaf` workers hear nothing of what the other does (a push that went into a black hole): then age alone is the bound.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coatcheck.core.errors import ConfigError, Refusal, StoreError
from coatcheck.core.model import Record, Request
from coatcheck.stores.near import near
from coatcheck.testing.clock import Clock

from .house import COOKIE, HOST, House, Visitor

RENEW = 900.0
AGES = 60.0
"""Seconds that copies last where a drill needs a stale one."""


class Worker(House):
    """A house with near copies."""

    def __init__(self, kind: str, store: Any, clock: Clock, *, deaf: bool, max_stale: float = AGES, **how: Any) -> None:
        super().__init__(kind, store, clock, **how)
        app, control = self.served.app, self.control
        plain = control.store if kind == "wsgi" else control.store.as_async()
        if deaf:
            plain.watch = _deaf_async if kind == "asgi" else _deaf
        self.near = near(plain, max_stale)
        app.store = self.near
        app.exchange = type(app.exchange)(app.manager, self.near)

    def copy(self, token: str | None) -> Record | None:
        """Return the copy of a token's session that this worker has."""
        return self.near.glance((token or "").split(".")[1])

    @property
    def loads(self) -> int:
        """How often the store was asked for a record."""
        return self.control.trouble.calls.count("load")

    def copied(self, visitor: Visitor) -> Record:
        """Have this worker copy a visitor's session."""
        for _ in range(2):  # the first load begins to listen
            assert self.ask(visitor.prepare("GET", "/me")).status == 200
        copy = self.copy(visitor.token)
        assert copy is not None
        return copy


def _deaf(notice: Any) -> Callable[[], None]:
    return lambda: None


async def _deaf_async(notice: Any) -> Callable[[], None]:
    return lambda: None


@pytest.fixture(params=["asgi", "wsgi"])
def worker(request: pytest.FixtureRequest, store: Any, clock: Clock) -> Iterator[Callable[..., Worker]]:
    """Return a maker of workers on this test's store."""
    made: list[Worker] = []

    def make(*, deaf: bool, clock: Clock = clock, **how: Any) -> Worker:
        made.append(Worker(request.param, store, clock, deaf=deaf, **how))
        return made[-1]

    yield make
    for one in made:
        closed = one.near.close()
        if one._runner is not None:
            one._runner.run(closed)
        one.close()


def at(worker: Worker, visitor: Visitor, target: str = "/me") -> int:
    """Return what a worker answers to this browser; it keeps no cookie."""
    return worker.ask(visitor.prepare("GET", target)).status


def test_a_read_is_answered_from_a_copy_and_asks_the_store_nothing(worker: Any) -> None:
    here = worker(deaf=True)
    visitor = here.visitor()
    visitor.login()
    here.copied(visitor)
    loads = here.loads
    for target in ("/me", "/data", "/private", "/"):
        assert at(here, visitor, target) == 200
    assert here.loads == loads
    assert visitor.post("/echo").status == 200
    assert here.loads == loads + 1, "an unsafe request reads the record itself"


@pytest.mark.parametrize("seen", [False, True])
def test_a_copy_of_before_a_renewal_makes_nobody_a_thief(worker: Any, clock: Clock, seen: bool) -> None:
    """D13: worker 2 holds the record of before the renewal; there the successor is presented, and the former, too."""
    behind = Clock()
    behind.now = clock.now - 4
    one, two = worker(deaf=True), worker(deaf=True, clock=behind)
    owner = one.visitor()
    owner.login()
    behind.now = clock.now
    old = owner.token
    clock.wind(RENEW)
    behind.now = clock.now - 4
    before = two.copied(owner)
    assert owner.get("/me").token, "renewed at worker 1"
    if seen:
        assert owner.get("/me").status == 200
    assert two.copy(old) is before, "which worker 2 did not hear of"
    assert at(two, two.visitor(old)) == 200, "former, to the copy still current"
    loads = two.loads
    assert at(two, two.visitor(owner.token)) == 200, "the successor, stale to the copy: read before it is judged"
    assert two.loads > loads
    for token in (old, owner.token, old):
        assert at(two, two.visitor(token)) == 200
    assert at(one, owner) == 200
    assert two.events("session_token_reuse") == []
    assert two.record(old or "").ended_at is None
    assert two.control.manager.noise.since is None


def test_a_thief_is_recognised_by_the_record_though_a_copy_knows_nothing(worker: Any, clock: Clock) -> None:
    """A turn that is late to the record: no copy older than the grace vouches for it."""
    one, two = worker(deaf=False), worker(deaf=True, max_stale=0.05)
    owner = one.visitor()
    old = owner.login()
    two.copied(owner)
    clock.wind(RENEW)
    owner.get("/me")
    owner.get("/me")
    clock.wind(306)
    time.sleep(0.05)
    assert at(two, two.visitor(old)) == 401
    assert two.record(old).ended_because == "theft"
    assert owner.user is None


def test_with_a_push_into_a_black_hole_a_revoked_session_is_refused_within_max_stale(worker: Any) -> None:
    """D13, contract 16."""
    stale = 0.5
    one, two = worker(deaf=True), worker(deaf=True, max_stale=stale)
    owner = one.visitor()
    token = owner.login()
    two.copied(owner)
    one.control.registry.revoke(token.split(".")[1])
    began = asked = time.monotonic()
    while at(two, owner) == 200:
        assert asked - began < stale, "this request was sent too late for any copy"
        asked = time.monotonic()
    assert at(two, owner) == 401


def test_with_a_push_it_is_refused_in_milliseconds(worker: Any, store: Any) -> None:
    one, two = worker(deaf=False), worker(deaf=False)
    took = []
    for _ in range(5):
        owner = one.visitor()
        token = owner.login()
        two.copied(owner)
        one.control.registry.revoke(token.split(".")[1])
        began = time.monotonic()
        while at(two, owner) == 200:
            assert time.monotonic() - began < 5
        took.append((time.monotonic() - began) * 1000)
    assert sorted(took)[2] < 250, took


def test_what_is_written_here_is_read_here_and_soon_elsewhere(worker: Any) -> None:
    one, two = worker(deaf=False), worker(deaf=False)
    owner = one.visitor()
    owner.login()
    for number in range(5):
        two.copied(owner)
        one.copied(owner)
        owner.post(f"/data?write=k&value={number}")
        assert owner.get("/data").json == {"k": str(number)}
        end = time.monotonic() + 5
        while two.ask(owner.prepare("GET", "/data")).json != {"k": str(number)}:
            assert time.monotonic() < end


def test_a_write_from_a_stale_copy_loses_nothing(worker: Any) -> None:
    """A GET may write, too: its commit conflicts, and is laid on what is stored."""
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    owner.login()
    two.copied(owner)
    owner.post("/data?write=one")
    assert at(two, owner, "/data?write=two") == 200
    assert at(two, owner, "/data?write=three") == 200
    assert two.ask(owner.prepare("POST", "/data")).json == {"one": "1", "two": "1", "three": "1"}


def test_a_stale_copy_revives_nothing(worker: Any) -> None:
    """Promise 1: what a request from a copy writes after the end is dropped."""
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    token = owner.login()
    two.copied(owner)
    owner.post("/logout")
    thief = two.visitor(token)
    answer = two.ask(thief.prepare("GET", "/data?write=x"))
    assert answer.token is None
    assert two.record(token).ended_because == "logout"
    assert two.record(token).data == b""
    assert at(two, thief) == 401, "the commit told this worker"


def test_what_is_taken_is_taken_from_the_store(worker: Any) -> None:
    """A copy that knows nothing of it does not say that there is nothing (an OAuth state, on a GET)."""
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    owner.login()
    two.copied(owner)
    owner.post("/data?write=state&value=s")
    answers = [two.ask(owner.prepare("GET", "/take?key=state")).json["taken"] for _ in range(2)]
    assert answers == ["s", None]
    two.copied(owner)
    owner.post("/logout")
    assert two.ask(owner.prepare("GET", "/take?key=state")).json["taken"] is None


def test_what_is_counted_is_counted_in_the_store(worker: Any, clock: Clock) -> None:
    """A guess that cannot be counted must not be judged, though a copy says that the session lives."""
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    token = owner.login()
    request = Request("GET", "https", "/", [(b"host", HOST.encode()), (b"cookie", f"{COOKIE}={token}".encode())])
    two.copied(owner)
    sessions = [two.exchange("begin", request) for _ in range(3)]
    assert all(session.visit.copied for session in sessions)
    assert one.exchange("bump", one.exchange("begin", request), "n") == 1
    assert two.exchange("bump", sessions[0], "n") == 2
    one.control.registry.revoke(token.split(".")[1])
    with pytest.raises(Refusal):
        two.exchange("bump", sessions[1], "n")
    assert two.exchange("take", sessions[2], "n") is None


def test_what_confirming_finds_over_is_ended(worker: Any, clock: Clock) -> None:
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    token = owner.login()
    two.copied(owner)
    owner.get("/?do=lasting")  # 60 s of idleness, of which worker 2 knows nothing
    clock.wind(100)
    assert at(two, owner) == 200
    assert at(two, owner, "/private?confirm=1") == 401
    assert two.record(token).ended_because == "idle"


def test_an_epoch_holds_over_every_copy_within_a_second(worker: Any, clock: Clock) -> None:
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    owner.login()
    two.copied(owner)
    clock.wind(2)
    one.control.registry.revoke_before(clock.now)
    clock.wind(1)
    assert at(two, owner) == 401
    assert two.record(owner.token or "").ended_because == "epoch"


def test_while_the_store_is_away_copies_still_say_yes_and_nothing_else_does(worker: Any, clock: Clock) -> None:
    """Promise 8: what cannot be read is refused; after five seconds without epochs, copies are, too."""
    here = worker(deaf=True)
    owner = here.visitor()
    owner.login()
    here.copied(owner)
    for verb in ("load", "epochs", "commit"):
        here.control.trouble.fail(verb, StoreError)
    assert at(here, owner) == 200
    assert here.ask(owner.prepare("POST", "/echo")).status == 503
    assert at(here, owner, "/private?fresh=1&confirm=1") == 503
    clock.wind(6)
    assert at(here, owner) == 503


# What must be fresh.


def test_a_handler_that_wants_it_fresh_gets_it_fresh(worker: Any) -> None:
    one, two = worker(deaf=True), worker(deaf=True)
    owner = one.visitor()
    token = owner.login()
    two.copied(owner)
    assert at(two, owner, "/private?fresh=1&confirm=1") == 200
    one.control.registry.revoke(token.split(".")[1])
    assert at(two, owner, "/private") == 200, "a copy says yes"
    assert at(two, owner, "/private?fresh=1&confirm=1") == 401
    assert len(two.events("session_use_after_expire")) == 1, "what the record says is noted as ever"
    assert at(two, owner, "/private") == 401


def test_without_an_await_a_thread_confirms_by_itself_and_a_loop_says_what_to_do(worker: Any) -> None:
    here = worker(deaf=True)
    owner = here.visitor()
    owner.login()
    here.copied(owner)
    loads = here.loads
    if here.kind == "wsgi":
        assert at(here, owner, "/private?fresh=1") == 200
        assert here.loads == loads + 1
    else:
        with pytest.raises(ConfigError, match="confirm"):
            at(here, owner, "/private?fresh=1")
    assert here.ask(owner.prepare("POST", "/private?fresh=1")).status == 200, "it was read for this request"


def test_a_path_that_must_be_fresh_needs_no_word_of_the_handler(worker: Any) -> None:
    one, two = worker(deaf=True), worker(deaf=True, fresh=["/private"])
    owner = one.visitor()
    token = owner.login()
    two.copied(owner)
    assert at(two, owner, "/private?fresh=1") == 200
    one.control.registry.revoke(token.split(".")[1])
    assert at(two, owner, "/private") == 401


def test_confirming_what_needs_none_asks_nothing(worker: Any) -> None:
    here = worker(deaf=True)
    owner = here.visitor()
    owner.login()
    loads = here.loads
    assert here.ask(owner.prepare("POST", "/private?confirm=1")).status == 200
    assert at(here, here.visitor(), "/private?confirm=1") == 401
    assert here.loads == loads + 1
