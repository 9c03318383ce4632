"""A small world that can be walked exhaustively: one browser, one thief, one session, one store, one clock to jump.

Rules
- Nothing is imitated: identify, open, settle, rebase and committed are the SessionManager's own, load and commit the
  MemoryStore's. Load, the commit before the handler, the commit at the response's start and each retry are separate
  steps; anything may happen between two of them.
- The browser has one jar and at most `parallel` requests under way; an answer is delivered, in any order, or lost.
- The thief presents any token that was ever issued, at any step, and does what a handler lets him.
- Time stands still but for the jumps. All clocks of the manager lie on a lattice of 75 s, so that each boundary is hit
  exactly: grace + 5 s = 150, straggler until 300, renew = 600. Ages at or beyond `renew` behave alike and are one.
- Two states that differ only in secrets, handles and absolute time are one state.
- What must hold is asked of each new state of the store, and of each step (`Checks`).
"""

# ruff: noqa: TRY003 - what broke is the message

from __future__ import annotations

import marshal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from coatcheck.core import codec, tokens
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import (
    Change,
    Conflict,
    End,
    EndOthers,
    Insert,
    Outcome,
    Record,
    Replace,
    Reply,
    Request,
    Ticket,
    Touch,
    Update,
)
from coatcheck.core.policies import DAY, timeouts
from coatcheck.core.session import Session
from coatcheck.core.tokens import TokenClass
from coatcheck.core.visit import Visit
from coatcheck.stores import memory

GRACE, RENEW = 145.0, 600.0
SUPERSEDED = GRACE + tokens.SKEW
START = 1_800_000_000.0
SUBJECT = "ann"

SENT, URGENT, READY, AGAIN = range(4)
"""Where a request is: on its way; loaded, with a commit to make before its handler; loaded; to be committed again."""
CLEARED = -1
NOBODY = -1

EVIL = (TokenClass.LATE, TokenClass.STALE)


class BrokenError(AssertionError):
    """Something that must hold does not: which, and what happened before."""

    def __init__(self, check: str, what: str) -> None:
        super().__init__(f"{check}: {what}")
        self.check = check
        self.what = what
        self.trace: list[str] = []

    def __str__(self) -> str:
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.check}: {self.what}\n{steps}"


class Rules(NamedTuple):
    """How large a world is, and what may happen in it."""

    parallel: int = 2
    acts: tuple[str, ...] = ("read",)
    jumps: tuple[float, ...] = (75.0, 150.0, 300.0, 600.0)
    turns: int = 3
    sessions: int = 1
    thief: tuple[str, ...] = ()
    on_theft: str = "end"
    assume: bool = False
    first_sight_within: float = 75.0
    delivered_within: float = 450.0
    operator: tuple[str, ...] = ()
    skews: tuple[float, ...] = (0.0,)
    """How far the clocks of the workers are ahead of the store's."""
    flaky: bool = False
    """Whether the store may fail to note a first sight (contract 1.3: best effort)."""
    refused: bool = False
    """Whether the browser may be refused: an operator, a thief or its own step-ups are at work."""


class Token(NamedTuple):
    """A token that was issued: the `turn`th of the session number `session`."""

    ticket: Ticket
    proof: bytes
    session: int
    turn: int


class Flight(NamedTuple):
    """A request under way."""

    thief: bool
    act: str
    phase: int
    token: int
    sent: float
    arrived: float = 0.0
    visit: Visit | None = None
    outcome: Outcome | None = None
    skew: float = 0.0


class State(NamedTuple):
    """Everything there is, at one moment."""

    now: float
    records: dict[str, Record]
    of_subject: dict[tuple[str, str], frozenset[str]]
    epochs: dict[tuple[str, str], float]
    tokens: tuple[Token, ...]
    jar: int
    flights: tuple[Flight, ...] = ()
    answers: tuple[tuple[int, float], ...] = ()
    seen: tuple[float | None, ...] = ()
    logged_out: frozenset[str] = frozenset()
    revoked: bool = False


Step = tuple[str, State]


class World:
    """The rules, the real manager and the real store, and the steps that lead from a state to the next ones."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.clock = START
        self._number = 0
        self.manager = SessionManager(
            clock=lambda: self.clock,
            entropy=self._entropy,
            origins=["https://app.example"],
            csrf="off",
            on_theft=rules.on_theft,
            timeouts=timeouts(idle=None, absolute=400 * DAY, remember=None, grace=GRACE, renew=RENEW),
        )
        self.store = memory.MemoryStore(clock=lambda: self.clock)
        self.shelf = self.store._shelf
        self.checks = Checks(self)
        self.asked: Counter[str] = Counter()

    def _entropy(self, size: int) -> bytes:
        self._number += 1
        return blake2b(self._number.to_bytes(8, "big"), digest_size=size).digest()

    def first(self) -> State:
        """Return the state after a login whose answer arrived."""
        self._put(State(START, {}, {}, {}, (), NOBODY))
        session = self.manager.open(_request(None), self.manager.identify(_request(None)), None)
        session.login(SUBJECT)
        session["n"] = False
        outcome = self.manager.settle(session, 200, ())
        assert self.store.commit(b"login", outcome.changes, durable=True) is None
        return self._taken(State(START, {}, {}, {}, (), 0), outcome, 0)

    # -- what may happen next ----------------------------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what may happen next; nothing, where the world grew beyond its rules."""
        rules = self.rules
        if len(state.tokens) > rules.turns or len(state.records) > rules.sessions:
            return
        for jump in rules.jumps:
            if self._in_time(state, jump):
                yield f"{jump:g} s pass", state._replace(now=state.now + jump)
        mine = sum(not flight.thief for flight in state.flights)
        if state.jar >= 0 and mine + len(state.answers) < rules.parallel:
            for act in rules.acts:
                flight = Flight(thief=False, act=act, phase=SENT, token=state.jar, sent=state.now)
                yield f"browser sends {act} with {_name(state, state.jar)}", _more(state, flight)
        if rules.thief and mine == len(state.flights):
            for index in range(len(state.tokens)):
                for act in rules.thief:
                    flight = Flight(thief=True, act=act, phase=SENT, token=index, sent=state.now)
                    yield from self._load(state, flight, "thief")
        for number, flight in enumerate(state.flights):
            if flight in state.flights[:number]:
                continue
            rest = state._replace(flights=state.flights[:number] + state.flights[number + 1 :])
            yield from self._onward(rest, flight)
        for number, (token, _) in enumerate(state.answers):
            rest = state._replace(answers=state.answers[:number] + state.answers[number + 1 :])
            what = "a deletion" if token == CLEARED else _name(state, token)
            yield f"browser gets {what}", rest._replace(jar=token)
            yield f"an answer with {what} is lost", rest
        for act in rules.operator:
            yield from self._operate(state, act)

    def _in_time(self, state: State, jump: float) -> bool:
        """Tell whether everything under way would still be as fast as the assumption says (contract 1.4).

        Without it, requests and answers take as long as they like, and only a commit has a deadline.
        """
        rules, then = self.rules, state.now + jump
        if not rules.assume:
            return all(flight.phase != URGENT or then - flight.arrived < RENEW for flight in state.flights)
        for flight in state.flights:
            if flight.phase == SENT:
                if then - flight.sent >= GRACE - max(rules.skews):
                    return False
            elif then - flight.arrived > (
                rules.first_sight_within if flight.phase == URGENT else rules.delivered_within
            ):
                return False
        return all(then - arrived <= rules.delivered_within for _, arrived in state.answers)

    def _onward(self, state: State, flight: Flight) -> Iterator[Step]:
        who = "thief" if flight.thief else "browser"
        if flight.phase == SENT:
            yield from self._load(state, flight, who)
        elif flight.phase == URGENT:
            yield from self._urgent(state, flight, who)
        elif flight.phase == READY:
            yield from self._finish(state, flight, who)
        else:
            yield from self._commit(state, flight, who, _clone(flight.visit), flight.outcome)

    def _load(self, state: State, flight: Flight, who: str) -> Iterator[Step]:
        """Let a request arrive and load: from now on it is what it was judged to be."""
        for skew in self.rules.skews:
            self._put(state, skew)
            token = state.tokens[flight.token]
            visit = self.open(token.ticket).visit
            said = f"{who}'s {flight.act} with {_name(state, flight.token)} loads"
            loaded = flight._replace(phase=READY, arrived=self.clock, visit=visit, skew=skew)
            self.checks.on_open(visit, flight, self.rules)
            if visit.urgent:
                yield said + " and has something to store", _more(state, loaded._replace(phase=URGENT))
            elif visit.record is None:
                yield said + ": refused", state
            else:
                yield f"{said}: {TokenClass(visit.standing).name}", _more(state, loaded)

    def open(self, ticket: Ticket) -> Session:
        """Return what a request with a ticket gets now."""
        request = _request(tokens.value_of(ticket))
        found = self.manager.identify(request)
        assert found == ticket
        self.manager.judge.noted.clear()
        session = self.manager.open(request, ticket, self.store.load(ticket.handle))
        assert not isinstance(session, Reply)
        return session

    def _urgent(self, state: State, flight: Flight, who: str) -> Iterator[Step]:
        self._put(state, flight.skew)
        visit = flight.visit
        self._copy(state)
        conflict = self.store.commit(self._entropy(16), visit.urgent, durable=visit.urgent_required)
        if conflict is not None:  # the question is put over what is there now, by the request judged once more
            assert visit.presented_as in EVIL, "only a drop to remembered, or a question, can conflict here"
            again = flight._replace(phase=SENT, arrived=0.0, visit=None, skew=0.0)
            yield f"{who}'s {flight.act} meets a newer record, and is judged again", _more(state, again)
            return
        after = self._kept(state)
        self.checks.on_urgent(visit, after, self.rules)
        said = f"{who}'s {flight.act} stores {type(visit.urgent[0]).__name__} before its handler"
        if visit.record is None:
            yield said, after
            return
        yield said, _more(after, flight._replace(phase=READY))
        if self.rules.flaky:
            unsure = _clone(visit)
            self.manager.after.unsighted(Session(unsure))
            yield f"the store fails: {said}", _more(state, flight._replace(phase=READY, visit=unsure))

    def _finish(self, state: State, flight: Flight, who: str) -> Iterator[Step]:
        """Run the handler and commit what it leaves."""
        self._put(state, flight.skew)
        visit = _clone(flight.visit)
        session = Session(visit)
        _HANDLERS[flight.act](session)
        outcome = self.manager.settle(session, 200, ())
        yield from self._commit(state, flight, who, visit, outcome)

    def _commit(self, state: State, flight: Flight, who: str, visit: Visit, outcome: Outcome) -> Iterator[Step]:
        self._put(state, flight.skew)
        said = f"{who}'s {flight.act} ({TokenClass(flight.visit.standing).name}) commits {_said(outcome)}"
        after = state
        if outcome.changes:
            self._copy(state)
            conflict = self.store.commit(self._entropy(16), outcome.changes, durable=outcome.durable)
            if conflict is None:
                self.manager.after.committed(Session(visit), outcome)
                after = self._taken(state, outcome, flight.token)
            else:
                yield from self._rebased(state, flight, visit, conflict, said)
                return
        yield said, self._answered(after, flight, visit, outcome)

    def _rebased(self, state: State, flight: Flight, visit: Visit, conflict: Conflict, said: str) -> Iterator[Step]:
        outcome = self.manager.after.rebase(Session(visit), conflict)
        said = f"{said}: conflict ({conflict.why})"
        if any(not isinstance(change, Touch) for change in outcome.changes):  # activity alone changes nothing here
            yield said, _more(state, flight._replace(phase=AGAIN, visit=visit, outcome=outcome))
        else:
            yield said, self._answered(state, flight, visit, outcome)

    def _answered(self, state: State, flight: Flight, visit: Visit, outcome: Outcome) -> State:
        """Send the answer, if it can change anything: one with a cookie for the browser."""
        self.checks.on_answer(state, flight, visit, outcome, self.rules)
        if not outcome.cookies or flight.thief:
            return state
        (cookie,) = outcome.cookies
        value = cookie.split(b";")[0].partition(b"=")[2]
        index = CLEARED if not value else _index(state, value)
        return state._replace(answers=(*state.answers, (index, flight.arrived)))

    def _operate(self, state: State, act: str) -> Iterator[Step]:
        """End a session, or all of the subject's, from outside."""
        if state.revoked or all(record.ended_at is not None for record in state.records.values()):
            return
        self._put(state)
        for handle in state.records if act == "revoke" else ("",):
            self._copy(state)
            if act == "revoke":
                change: Any = End(handle=handle, because="operator")
            else:
                change = EndOthers(realm=self.manager.realm, subject=SUBJECT, because="operator")
            self.store.commit(self._entropy(16), (change,), durable=True)
            yield f"operator: {act} {handle}", self._kept(state)._replace(revoked=True)

    # -- the store, lent to a state ----------------------------------------------------------------------------------

    def _put(self, state: State, skew: float = 0.0) -> None:
        """Make the real store what it is in a state; the commit that follows must copy first."""
        shelf = self.shelf
        self.clock = state.now + skew
        shelf.records = state.records
        shelf._commits = 0

    def _copy(self, state: State) -> None:
        shelf = self.shelf
        shelf.records = dict(state.records)
        shelf.of_subject = {key: set(handles) for key, handles in state.of_subject.items()}
        shelf.subjects = dict(state.epochs)
        shelf.due = []
        shelf.log = memory._Log()

    def _kept(self, state: State) -> State:
        """Return the state with what the store holds now, and what was seen or logged out for the first time."""
        shelf = self.shelf
        records = shelf.records
        seen = list(state.seen)
        for index, token in enumerate(state.tokens):
            record = records[token.ticket.handle]
            if seen[index] is None and record.turn_proof == token.proof:
                seen[index] = record.used_at
        logged_out = state.logged_out | {one.handle for one in records.values() if one.ended_because == "logout"}
        of_subject = {key: frozenset(handles) for key, handles in shelf.of_subject.items()}
        return state._replace(
            records=records, of_subject=of_subject, epochs=shelf.subjects, seen=tuple(seen), logged_out=logged_out
        )

    def _taken(self, state: State, outcome: Outcome, presented: int) -> State:
        """Return the state after a commit, with the token that it issued, if it did."""
        known = {token.proof for token in state.tokens}
        records = self.shelf.records
        new = [one for one in records.values() if one.turn_proof is not None and one.turn_proof not in known]
        if not new:
            return self._kept(state)
        (record,) = new
        handles = [token.ticket.handle for token in state.tokens]
        handed = [tokens.parse(cookie.split(b";")[0].partition(b"=")[2]) for cookie in outcome.cookies]
        ticket = handed[0] if handed else None
        self.asked["one successor"] += 1
        if ticket is None or not _opens(self.manager, record, ticket):
            what = "a commit stored a turn whose token it did not hand out"
            raise BrokenError("one successor", what)
        if record.handle in handles:
            session = state.tokens[handles.index(record.handle)].session
            turn = sum(handle == record.handle for handle in handles)
            if turn != state.tokens[presented].turn + 1:
                what = f"turn {state.tokens[presented].turn} got a successor beside turn {turn - 1}"
                raise BrokenError("one successor", what)
        else:
            session, turn = len(set(handles)), 0
        token = Token(ticket, record.turn_proof, session, turn)
        return self._kept(state._replace(tokens=(*state.tokens, token), seen=(*state.seen, None)))


def _opens(manager: SessionManager, record: Record, ticket: Ticket) -> bool:
    return record.turn_proof == tokens.turn_proof(manager.realm.encode(), ticket.handle, ticket.family, ticket.turn)


class Checks:
    """What must hold: each check by its name, asked of each new state of the store, or of each step."""

    def __init__(self, world: World) -> None:
        self.world = world

    def of_state(self, state: State) -> None:
        """Ask what every state of the store must answer: who gets in now, and what everybody else is told."""
        world, asked = self.world, self.world.asked
        world._put(state)
        opening = []
        for index, token in enumerate(state.tokens):
            visit = world.open(token.ticket).visit
            if visit.record is not None:
                opening.append(index)
            asked["recognised"] += 1
            if visit.presented is None:
                raise BrokenError("recognised", f"{_name(state, index)} was issued, and is taken for garbage")
        asked["two turns"] += 1
        if len(opening) > 2:
            raise BrokenError("two turns", f"{', '.join(_name(state, one) for one in opening)} all open a session")
        live = [one for one in state.records.values() if one.ended_at is None]
        asked["one session"] += 1
        if len(live) > 1:
            raise BrokenError("one session", f"{len(live)} authenticated sessions live")
        self._superseded(state, opening)
        self._over(state, opening, live)
        self._garbage(state)

    def _superseded(self, state: State, opening: list[int]) -> None:
        for index, token in enumerate(state.tokens):
            for later, seen in zip(state.tokens, state.seen, strict=True):
                over = later.session == token.session and later.turn > token.turn
                if over and seen is not None and state.now - seen >= SUPERSEDED:
                    self.world.asked["superseded"] += 1
                    if index in opening:
                        what = (
                            f"{_name(state, index)} opens {state.now - seen:g} s after the first sight of a later one"
                        )
                        raise BrokenError("superseded", what)

    def _over(self, state: State, opening: list[int], live: Sequence[Record]) -> None:
        if state.revoked:
            self.world.asked["revocation"] += 1
            if live:
                raise BrokenError("revocation", f"{live[0]} lives after its revocation")
        for handle in state.logged_out:
            self.world.asked["logout"] += 1
            if state.records[handle].ended_at is None or any(
                state.tokens[one].ticket.handle == handle for one in opening
            ):
                raise BrokenError("logout", "a session opens after its logout was committed")

    def _garbage(self, state: State) -> None:
        """Present the right handle, and even the right turn, with another family: nothing may come of it."""
        world = self.world
        before = dict(world.shelf.records)
        for token in state.tokens:
            session = world.open(Ticket(token.ticket.handle, b"G" * 24, token.ticket.turn))
            visit = session.visit
            session["n"] = 1
            session.logout()
            outcome = world.manager.settle(session, 200, ())
            world.asked["garbage"] += 1
            if visit.presented is not None or visit.urgent or visit.notes or outcome.changes:
                raise BrokenError("garbage", f"a wrong family changes {_name(state, state.tokens.index(token))}")
        assert world.shelf.records == before

    def on_open(self, visit: Visit, flight: Flight, rules: Rules) -> None:
        """Ask of an arrival: is the browser let in, and does whoever is not leave evidence?"""
        asked = self.world.asked
        if visit.record is not None:
            return
        if not flight.thief and not rules.refused:
            raise BrokenError("honest", f"the browser is refused ({TokenClass(visit.presented_as).name})")
        asked["evidence"] += 1
        if not visit.urgent and not visit.notes:
            raise BrokenError("evidence", f"{TokenClass(visit.presented_as).name} is refused without a trace")
        if visit.presented_as in EVIL and rules.on_theft == "note":
            asked["theft noted"] += 1
            if any(isinstance(change, End) for change in visit.urgent):
                raise BrokenError("theft noted", "an old token ends the session, and only a note was asked for")
        if visit.presented_as in EVIL and rules.on_theft == "end":
            asked["theft ends"] += 1
            if not any(isinstance(change, End) and change.because == "theft" for change in visit.urgent):
                raise BrokenError("theft ends", "an old token does not end the session")

    def on_urgent(self, visit: Visit, state: State, rules: Rules) -> None:
        """Ask after the commit before a handler: is a session over whose old token was presented?"""
        if visit.presented_as in EVIL and rules.on_theft == "end":
            self.world.asked["theft ended"] += 1
            handle: str | None = visit.presented.handle
            while handle is not None:
                record = state.records[handle]
                if record.ended_at is None:
                    raise BrokenError("theft ended", f"{record} lives although an old token was presented")
                handle = record.successor

    def on_answer(self, state: State, flight: Flight, visit: Visit, outcome: Outcome, rules: Rules) -> None:
        """Ask of an answer as it is sent: does its cookie open a session that is live now, and only its newest?"""
        asked = self.world.asked
        if outcome.reply is not None and not flight.thief and not rules.refused:
            raise BrokenError("honest", f"the browser is answered {outcome.reply.status}")
        asked["honest"] += not flight.thief
        for cookie in outcome.cookies:
            value = cookie.split(b";")[0].partition(b"=")[2]
            if not value:
                asked["deletion"] += 1
                if flight.act != "logout":
                    raise BrokenError("deletion", "an answer to something else than a logout takes the cookie away")
                continue
            index = _index(state, value)
            record = state.records[state.tokens[index].ticket.handle]
            asked["handed out"] += 1
            if record.ended_at is not None:
                raise BrokenError("handed out", f"an answer sets the cookie of a session that is over ({record})")
            if record.turn_proof != state.tokens[index].proof:
                raise BrokenError("handed out", f"an answer sets {_name(state, index)}, which is superseded already")


# What a handler does.


def _read(session: Session) -> None:
    session.get("n")


def _write(session: Session) -> None:
    session["n"] = not session.get("n")


def _step_up(session: Session) -> None:
    if session.subject is not None:
        session.login(SUBJECT, methods=("pwd", "otp"), level=20)


def _renew(session: Session) -> None:
    session.renew()


def _logout(session: Session) -> None:
    session.logout()


_HANDLERS: dict[str, Callable[[Session], None]] = {
    "read": _read,
    "write": _write,
    "step_up": _step_up,
    "renew": _renew,
    "logout": _logout,
}


def _request(value: bytes | None) -> Request:
    cookie = () if value is None else ((b"cookie", b"__Host-coat=" + value),)
    return Request("GET", "https", "/", ((b"host", b"app.example"), *cookie))


def _clone(visit: Visit | None) -> Visit:
    """Return a visit that the next steps may change; what it holds is never changed in place but for its data."""
    assert visit is not None
    copy = Visit(visit.counter, visit.request, visit.arrived)
    for name in _SLOTS:
        setattr(copy, name, getattr(visit, name))
    copy.data = dict(visit.data)
    return copy


_SLOTS = tuple(Visit.__slots__)


def _more(state: State, flight: Flight) -> State:
    return state._replace(flights=(*state.flights, flight))


def _index(state: State, value: bytes) -> int:
    for index, token in enumerate(state.tokens):
        if tokens.value_of(token.ticket) == value:
            return index
    what = "an answer hands out a token that is no turn of the session"
    raise BrokenError("one successor", what)


def _name(state: State, index: int) -> str:
    token = state.tokens[index]
    return f"S{token.session}.t{token.turn}"


def _said(outcome: Outcome) -> str:
    changes = "+".join(type(change).__name__ for change in outcome.changes) or "nothing"
    return changes + (" with a cookie" if outcome.cookies else "")


# One state, one key.


def key_of(state: State, *, timed: bool) -> tuple[Any, Any]:
    """Return what tells a state of the store apart, and all the rest; equal keys behave alike for ever.

    `timed`: how long something is under way matters in itself, since the assumption speaks of it.
    """
    now = state.now
    proofs = {token.proof: index for index, token in enumerate(state.tokens)}
    handles: dict[str, int] = {}
    for token in state.tokens:
        handles.setdefault(token.ticket.handle, len(handles))
    store = (
        tuple(_record_key(state.records[handle], now, proofs, handles) for handle in handles),
        tuple(_age(now, seen) for seen in state.seen),
        tuple((token.session, token.turn) for token in state.tokens),
        tuple(sorted(handles[handle] for handle in state.logged_out)),
        state.revoked,
        tuple(_age(now, epoch) for epoch in state.epochs.values()),
    )
    rest = (
        state.jar,
        sorted(_flight_key(state, flight, proofs, handles, timed) for flight in state.flights),
        sorted((token, timed and _age(now, arrived)) for token, arrived in state.answers),
    )
    return store, rest


def _age(now: float, at: float | None) -> float:
    return -1.0e6 if at is None else min(now - at, RENEW)


def _record_key(record: Record, now: float, proofs: dict[bytes, int], handles: dict[str, int]) -> Any:
    return (
        -1 if record.turn_proof is None else proofs[record.turn_proof],
        _age(now, record.used_at),
        -1 if record.former_proof is None else proofs[record.former_proof],
        record.nonce is not None,
        _age(now, record.handed_at),
        record.ended_because or "",
        -1 if record.successor is None else handles[record.successor],
        record.version == 1,
        record.level,
        record.suspected_at is not None,
    )


def _flight_key(state: State, flight: Flight, proofs: dict[bytes, int], handles: dict[str, int], timed: bool) -> Any:
    now = state.now
    visit, outcome = flight.visit, flight.outcome
    if visit is None:
        return (flight.phase, flight.thief, flight.act, flight.token, timed and _age(now, flight.sent))
    # a first sight writes the time of arrival, and a login claims it
    age = (timed or flight.phase == URGENT or flight.act == "step_up") and _age(now, flight.arrived)
    key = (flight.phase, flight.thief, flight.act, flight.token, age, flight.skew)
    if visit.record is None:
        asked = visit.presented  # that an old token was presented is only stored over what was read
        newest = asked is None or asked.version == state.records[asked.handle].version
        return (*key, 0, flight.phase == URGENT and (int(visit.presented_as), newest))
    record = visit.record
    stored = state.records[record.handle]
    believed = _record_key(record, now, proofs, handles)
    return (
        *key,
        1,
        int(visit.standing),
        # the store only counts up: a version that is past stays past
        min(1, stored.version - record.version) if record.version else 1,
        record.used_at is not None and visit.arrived >= record.used_at + RENEW,
        visit.arrived >= record.handed_at + RENEW,
        believed,
        record.used_at == stored.used_at,
        # the one value has two states, and a write turns it: only whether two copies agree can matter
        record.data == stored.data,
        visit.base == record.data,
        visit.data == codec.decode(visit.base),
        [] if outcome is None else [_change_key(change, now, stored) for change in outcome.changes],
        0 if outcome is None else len(outcome.cookies),
    )


def _change_key(change: Change, now: float, stored: Record) -> Any:
    record = change.record if isinstance(change, Insert | Update | Replace) else None
    planned = () if record is None else (_age(now, record.handed_at), _age(now, record.used_at))
    return (
        type(change).__name__,
        getattr(change, "because", ""),
        planned,
        record is None or record.data == stored.data,
    )


class Walk(NamedTuple):
    """What a walk through a world saw."""

    states: int
    stores: int
    steps: int
    asked: Counter[str]


def walk(rules: Rules, most: int = 10_000_000, doubt: int = 0) -> Walk:
    """Visit every state that the rules allow, breadth first; raise BrokenError, with the shortest way there.

    `doubt`: of so many states that look like an earlier one, ask of one whether it also behaves like it.
    """
    world = World(rules)
    first = world.first()
    origins: dict[bytes, tuple[bytes, str]] = {}
    stores: set[bytes] = set()
    waiting: deque[tuple[bytes, State]] = deque()
    kept: dict[bytes, State] = {}
    steps = 0

    def visit(state: State, origin: bytes, said: str) -> None:
        store, rest = key_of(state, timed=rules.assume)
        inner = marshal.dumps(store, 2)
        digest = blake2b(inner + marshal.dumps(rest, 2), digest_size=12).digest()
        if digest in origins:
            if doubt and steps % doubt == 0 and digest in kept:
                _same(world, kept[digest], state)
            return
        if doubt:
            kept[digest] = state
        origins[digest] = (origin, said)
        waiting.append((digest, state))
        if inner not in stores:
            stores.add(inner)
            try:
                world.checks.of_state(state)
            except BrokenError as broken:
                broken.trace = _trace(origins, digest)
                raise

    visit(first, b"", "the browser is logged in")
    while waiting and len(origins) < most:
        digest, state = waiting.popleft()
        try:
            for said, after in world.steps(state):
                steps += 1
                visit(after, digest, said)
        except BrokenError as broken:
            broken.trace = broken.trace or _trace(origins, digest)
            raise
    return Walk(len(origins), len(stores), steps, world.asked)


def _same(world: World, one: State, other: State) -> None:
    """Raise BrokenError if two states with one key can do different things."""
    timed = world.rules.assume
    found = [{repr(key_of(after, timed=timed)) for _, after in world.steps(state)} for state in (one, other)]
    if found[0] != found[1]:
        what = f"two states of one key part: {sorted(found[0] ^ found[1])[:2]}"
        raise BrokenError("one key", what)


def _trace(origins: dict[bytes, tuple[bytes, str]], digest: bytes) -> list[str]:
    found = []
    while digest:
        digest, said = origins[digest]
        found.append(said)
    return found[::-1]
