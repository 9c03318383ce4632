"""A thousand interleavings of a refresh with what ends, replaces or changes its session (D31; M14, E9, TOK-10).

Every wait of the flow is a step, and a random schedule says who takes the next one: so any two requests meet at any
two places, and a schedule that fails is the same the next time.
"""

import random
from collections.abc import Coroutine, Generator, Sequence
from typing import Any

import pytest

from coatcheck.core import dbsc
from coatcheck.core.model import Change, Conflict, Epochs, EventPage, EventQuery, Record, Reply, Request
from coatcheck.core.session import Session
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

from .house import COOKIE, ORIGIN, House, Snapshot
from .test_device_binding import BOUND, REFRESH, Browser

SCHEDULES = 200
"""Schedules of each of the five rivals: a thousand in all."""

OURS = ((b"host", b"app.test"), (b"sec-fetch-site", b"same-origin"), (b"origin", ORIGIN.encode()))


class Step:
    """A wait for one's turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Stepped:
    """A store each of whose verbs waits for its turn; `applied` are the commits in their order."""

    def __init__(self, store: MemoryStore) -> None:
        self._store, self.listeners = store, store.listeners
        self.applied: list[Change] = []

    async def load(self, handle: str) -> Record | None:
        await Step()
        return self._store.load(handle)

    async def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        await Step()
        conflict = self._store.commit(commit_id, changes, durable)
        if conflict is None:
            self.applied += changes
        return conflict

    async def epochs(self) -> Epochs:
        await Step()
        return self._store.epochs()

    async def events(self, query: EventQuery) -> EventPage:
        return self._store.events(query)


def played(chance: random.Random, actors: dict[str, Coroutine[Any, Any, Any]]) -> dict[str, Any]:
    """Let the actors take steps in a random order; return what each came to."""
    left, said = dict(actors), {}
    while left:
        name = chance.choice(sorted(left))
        try:
            left[name].send(None)
        except StopIteration as done:
            said[name] = done.value
            del left[name]
    return said


class Stage:
    """One bound session, put back before each schedule, and the acts that can happen to it."""

    def __init__(self, rival: str, clock: Clock) -> None:
        self.store = MemoryStore(clock=clock)
        house = House("wsgi", self.store, clock, binding="opportunistic")
        self.browser = Browser(house).bind()
        clock.wind(70)  # requests without the bound cookie are no longer on their way
        self.proof = self.browser.key.proof(self.browser.challenge)
        self.was = Snapshot(self.store)
        self.manager, self.rival = house.control.manager, rival

    def play(self, seed: int) -> tuple[dict[str, Any], Stepped]:
        self.was.restore()
        stepped = Stepped(self.store)
        exchange = AsyncExchange(self.manager, stepped)  # type: ignore[arg-type]
        actors = {
            "refresh": self.refresh(exchange),
            "again": self.refresh(exchange),
            "page": self.page(exchange, lambda session: session.update(k="v")),
            "rival": self.page(exchange, RIVALS[self.rival], "POST"),
        }
        return played(random.Random(f"{self.rival} {seed}"), actors), stepped

    def request(self, method: str, path: str, cookies: dict[str, str], *more: tuple[bytes, bytes]) -> Request:
        line = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return Request(method, "https", path, (*OURS, (b"cookie", line.encode()), *more), peer="192.0.2.7")

    async def refresh(self, exchange: AsyncExchange) -> Any:
        said = (
            (b"sec-secure-session-id", self.browser.name.encode()),
            (b"secure-session-response", self.proof.encode()),
        )
        return await exchange.begin(self.request("POST", REFRESH, self.browser.jar, *said))

    async def page(self, exchange: AsyncExchange, act: Any, method: str = "GET") -> Any:
        session = await exchange.begin(self.request(method, "/x", self.browser.jar))
        if isinstance(session, Reply) or session.subject is None:
            return ()
        act(session)
        return await exchange.finish(session, 200, ())

    def user(self, cookies: dict[str, str]) -> Any:
        """Return who comes with these cookies, when all is over."""
        exchange = AsyncExchange(self.manager, Stepped(self.store))  # type: ignore[arg-type]

        async def looked() -> Any:
            session = await exchange.begin(self.request("GET", "/x", cookies))
            assert isinstance(session, Session)
            return session.subject

        return played(random.Random(0), {"looked": looked()})["looked"]


RIVALS = {
    "logout": lambda session: session.logout(),
    "login": lambda session: session.login("bob"),
    "step up": lambda session: session.login("alice", methods=("pwd", "otp"), level=20),
    "logout everywhere": lambda session: session.logout(everywhere=True),
    "renew": lambda session: session.renew(),
}


def handed(answer: Any, name: str) -> str | None:
    """Return the value that an answer sets a cookie to."""
    headers = answer.headers if isinstance(answer, Reply) else answer
    lines = [value.decode() for key, value in headers if key == b"set-cookie"]
    found = [line.partition("=")[2].partition(";")[0] for line in lines if line.startswith(f"{name}=")]
    return found[0] if found else None


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    async def turn(_seconds: float) -> None:
        await Step()

    monkeypatch.setattr("coatcheck.flow.async_.sleep", turn)


@pytest.mark.parametrize("rival", [rival for rival in RIVALS if rival != "renew"])
def test_no_refresh_outlives_what_ended_its_session(rival: str) -> None:
    """D31: whoever commits first; after the end no bound cookie goes out, none counts, and no proof counts twice."""
    clock = Clock()
    stage = Stage(rival, clock)
    old, seen = dict(stage.browser.jar), set()
    for seed in range(SCHEDULES):
        said, stepped = stage.play(seed)
        kinds = [type(change).__name__ for change in stepped.applied]
        refreshed = [handed(said[name], BOUND) for name in ("refresh", "again")]
        cookies = [value for value in refreshed if value]
        assert len(cookies) <= 1, f"one proof, two cookies (schedule {seed})"
        ended = min((kinds.index(kind) for kind in ("End", "Replace", "EndOthers") if kind in kinds), default=None)
        assert ended is not None, f"the {rival} did not happen (schedule {seed}: {kinds})"
        rebound = [at for at, kind in enumerate(kinds) if kind == "Update" and at > ended]
        assert not (cookies and rebound), f"a bound cookie after the end (schedule {seed}: {kinds})"
        for value in (old[BOUND], *cookies):
            assert stage.user({COOKIE: old[COOKIE], BOUND: value}) is None, f"alive (schedule {seed}: {kinds})"
        for name in ("refresh", "again"):
            assert said[name].status in (200, 403, 404)
            seen.add((said[name].status, handed(said[name], BOUND) is not None))
        late = played(random.Random(0), {"late": stage.refresh(AsyncExchange(stage.manager, stepped))})["late"]  # type: ignore[arg-type]
        assert handed(late, BOUND) is None
        assert late.status == 404 or b'"continue":false' in late.body
        new = handed(said["rival"], COOKIE)
        if rival in ("login", "step up"):
            assert stage.user({COOKIE: new or ""}) == ("bob" if rival == "login" else "alice")
            assert not dbsc.is_bound(stage.store.load((new or "").split(".")[1]).binding)  # type: ignore[union-attr]
    assert (200, True) in seen, "sometimes the refresh was first"
    assert {(200, False), (404, False)} & seen, "and sometimes not"


def test_a_secret_renewed_by_hand_meanwhile_loses_no_binding_and_no_cookie() -> None:
    """D31's honest side: whichever commits first, the cookie that a refresh handed out opens the renewed session."""
    clock = Clock()
    stage = Stage("renew", clock)
    seen = set()
    for seed in range(SCHEDULES):
        said, _ = stage.play(seed)
        refreshed = [handed(said[name], BOUND) for name in ("refresh", "again")]
        cookies = [value for value in refreshed if value]
        renewed = handed(said["rival"], COOKIE)
        assert len(cookies) == 1, f"one proof, one cookie (schedule {seed})"
        assert renewed, f"no new secret (schedule {seed})"
        assert stage.user({COOKIE: renewed, BOUND: cookies[0]}) == "alice", f"lost (schedule {seed})"
        assert stage.user({COOKIE: renewed}) is None, f"unbound (schedule {seed})"
        record = stage.store.load(renewed.split(".")[1])
        assert record is not None
        assert dbsc.is_bound(record.binding)
        seen.add(refreshed.index(cookies[0]))
    assert seen == {0, 1}
