"""Renewal, step-up and logout in every interleaving of a small world (`world.py`): what holds, and what would break it.

COATCHECK_MODEL=long walks larger worlds: three parallel requests, a thief beside two, workers whose clocks differ.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core import ledger, tokens
from coatcheck.core.judge import Judge
from coatcheck.core.settler import Settler
from coatcheck.core.tokens import TokenClass

from . import world
from .world import BrokenError, Rules, walk

LONG = os.environ.get("COATCHECK_MODEL") == "long"

UNIT = (75.0,)
"""One jump: all longer ones are made of it, and more happens on the way."""

HONEST = Rules(assume=True, jumps=UNIT, turns=3, flaky=True)
WRITING = HONEST._replace(acts=("write",), turns=2, flaky=False, delivered_within=225.0, first_sight_within=300.0)
SLOW = HONEST._replace(turns=2, delivered_within=300.0, first_sight_within=225.0)
SKEWED = HONEST._replace(turns=2, skews=(0.0, 4.0))
THIEF = Rules(parallel=1, thief=("read",), jumps=UNIT, turns=2, refused=True)
NOTING = THIEF._replace(on_theft="note", turns=3)
LOGOUT = Rules(acts=("read", "logout"), jumps=UNIT, turns=2, refused=True)
STEPS = Rules(
    acts=("step_up", "logout"), thief=("renew",), operator=("revoke",), sessions=2, jumps=(600.0,), refused=True
)
GRACE_STEPS = Rules(
    acts=("step_up", "read"), operator=("revoke", "revoke_all"), sessions=2, jumps=(600.0,), refused=True
)

# name, rules, how many states there must be at least, and which checks must have been asked
SHORT: list[tuple[str, Rules, int, set[str]]] = [
    ("honest", HONEST, 20_000, {"one successor", "two turns", "superseded", "honest", "handed out", "garbage"}),
    ("honest, writing", WRITING, 20_000, {"one successor", "superseded", "honest"}),
    ("a thief, policy end", THIEF, 10_000, {"recognised", "evidence", "theft ends", "theft ended", "superseded"}),
    ("a thief, policy note", NOTING, 25_000, {"recognised", "evidence", "theft noted", "superseded"}),
    ("logout", LOGOUT, 25_000, {"logout", "handed out", "deletion", "evidence"}),
    ("step-ups, revoked", STEPS, 15_000, {"one session", "revocation", "logout", "evidence"}),
    ("step-ups within the grace", GRACE_STEPS, 15_000, {"one session", "revocation", "superseded"}),
]
LARGE: list[tuple[str, Rules, int, set[str]]] = [
    ("honest, 3 turns, slow first sights", SLOW._replace(turns=3), 15_000, {"honest"}),
    ("honest, clocks apart", SKEWED, 60_000, {"honest"}),
    ("honest, reading and writing", WRITING._replace(acts=("read", "write")), 60_000, {"honest"}),
    ("honest, 3 parallel", HONEST._replace(parallel=3, turns=3), 150_000, {"honest"}),
    ("a thief, 3 turns", THIEF._replace(turns=3), 40_000, {"theft ended"}),
    ("a thief who writes", THIEF._replace(acts=("write",), thief=("write",)), 50_000, {"theft ended"}),
    ("a thief beside two requests", THIEF._replace(parallel=2), 200_000, {"theft ended"}),
    ("a thief, clocks apart", THIEF._replace(skews=(0.0, 4.0)), 100_000, {"theft ended"}),
    ("3 parallel step-ups", STEPS._replace(parallel=3, jumps=()), 15_000, {"revocation"}),
    ("all kinds of step-up", GRACE_STEPS._replace(acts=("step_up", "renew", "read")), 150_000, {"revocation"}),
]


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize(
    ("name", "rules", "least", "asked"), SHORT + LARGE * LONG, ids=[row[0] for row in SHORT + LARGE * LONG]
)
def test_in_every_interleaving_all_promises_hold(
    name: str, rules: Rules, least: int, asked: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = walk(rules, doubt=101)
    with capsys.disabled():
        print(f"\nmodel: {name}: {found.states:,} states, {found.stores} of the store, {found.steps:,} steps")
    assert found.states >= least, "the model has shrunk"
    assert asked <= found.asked.keys(), "a check was never asked"


# What breaks it: each change undoes one rule, and the model must say so.

Patch = Callable[[pytest.MonkeyPatch], Any]


def _class_of_a_former(judge: Callable[..., TokenClass]) -> Patch:
    return lambda patch: patch.setattr(tokens, "_former", judge)


def _graced_from_issue(record: Any, arrived: float, grace: float) -> TokenClass:
    since = arrived - record.handed_at
    return TokenClass.FORMER_GRACE if since < grace + tokens.SKEW else TokenClass.STRAGGLER


def _judged_as(instead: dict[TokenClass, TokenClass]) -> Patch:
    judge = tokens.judge

    def misjudge(*arguments: Any) -> Any:
        standing, proof = judge(*arguments)
        return instead.get(standing, standing), proof

    return lambda patch: patch.setattr(tokens, "judge", misjudge)


def _random_successor(patch: pytest.MonkeyPatch) -> None:
    turns = iter(range(10**6))
    patch.setattr(tokens, "next_turn", lambda nonce, ticket: b"%024d" % next(turns))


def _quiet_first_sight(patch: pytest.MonkeyPatch) -> None:
    """Neither raise the version at a first sight, nor keep it from an Update that knew nothing of it (finding 1b)."""
    touched, updated = ledger.touched, ledger.updated

    def quiet(stored: Any, change: Any, now: float) -> Any:
        return replace(touched(stored, change, now), version=stored.version)

    def forgetful(stored: Any, record: Any, commit_id: bytes, now: float) -> Any:
        merged = updated(stored, record, commit_id, now)
        return replace(merged, used_at=record.used_at, nonce=record.nonce)

    patch.setattr(ledger, "touched", quiet)
    patch.setattr(ledger, "updated", forgetful)


def _due_at_first_sight(patch: pytest.MonkeyPatch) -> None:
    def due(_: Any, visit: Any, record: Any) -> bool:
        return record.used_at is not None and visit.standing == TokenClass.CURRENT

    patch.setattr(Settler, "_renewal_due", due)


def _handed_again_unasked(patch: pytest.MonkeyPatch) -> None:
    """Hand a lost successor out again without asking the store whether it may still be."""
    settle = Settler._settle_known

    def unasked(self: Any, visit: Any, record: Any) -> Any:
        outcome = settle(self, visit, record)
        again = outcome.cookies and visit.standing == TokenClass.FORMER_OPEN
        return replace(outcome, changes=()) if again else outcome

    patch.setattr(Settler, "_settle_known", unasked)


def _upserting(patch: pytest.MonkeyPatch) -> None:
    """Write whatever comes, as stores do whose contract does not say: an ended session comes back."""

    def upsert(table: Any, change: Any, commit_id: bytes, now: float) -> None:
        table.put(ledger.updated(table.get(change.record.handle), change.record, commit_id, now))

    patch.setattr(ledger, "_update", upsert)


def _unconditional_rotation(patch: pytest.MonkeyPatch) -> None:
    """Rotate by Insert and End, as most libraries do."""
    patch.setattr(Settler, "_is_step_up", lambda *_: False)


def _weak_in_grace(patch: pytest.MonkeyPatch) -> None:
    right = Settler._is_step_up

    def weak(self: Any, visit: Any, old: Any, subject: str) -> bool:
        return right(self, visit, old, subject) and visit.standing != TokenClass.FORMER_GRACE

    patch.setattr(Settler, "_is_step_up", weak)


def _any_successor(patch: pytest.MonkeyPatch) -> None:
    """Let a second step-up follow a first one whatever became of that one's session."""
    patch.setattr(ledger, "_unseen_successor", lambda table, old: old.successor and table.get(old.successor))


def _forgiving(patch: pytest.MonkeyPatch) -> None:
    """Refuse the presenter of an old token, and leave it at that."""
    patch.setattr(Judge, "_replayed", lambda *_: None)


_GARBAGE, _STALE, _LATE = TokenClass.GARBAGE, TokenClass.STALE, TokenClass.LATE

MUTANTS: list[tuple[str, Patch, Rules, set[str]]] = [
    ("grace_counted_from_issue", _class_of_a_former(_graced_from_issue), HONEST, {"honest"}),
    ("former_honoured_for_ever", _class_of_a_former(lambda *_: TokenClass.FORMER_GRACE), HONEST, {"superseded"}),
    ("former_refused_at_once", _class_of_a_former(lambda *_: TokenClass.STRAGGLER), HONEST, {"honest"}),
    ("random_second_successor", _random_successor, HONEST, {"one successor"}),
    ("first_sight_not_raising_the_version", _quiet_first_sight, WRITING, {"superseded", "two turns"}),
    ("renewal_due_at_first_sight", _due_at_first_sight, HONEST, {"honest"}),
    ("stale_treated_as_garbage", _judged_as({_STALE: _GARBAGE}), NOTING, {"recognised"}),
    ("garbage_treated_as_theft", _judged_as({_GARBAGE: _STALE}), THIEF, {"garbage"}),
    ("late_treated_as_current", _judged_as({_LATE: TokenClass.CURRENT}), THIEF, {"superseded", "one successor"}),
    ("theft_without_consequence", _forgiving, THIEF, {"evidence"}),
    ("update_that_revives", _upserting, LOGOUT, {"logout", "one successor", "superseded"}),
    ("successor_handed_out_unasked", _handed_again_unasked, LOGOUT, {"handed out"}),
    ("step_up_by_insert_and_end", _unconditional_rotation, STEPS, {"one session", "revocation"}),
    ("step_up_in_the_grace_past_a_revocation", _weak_in_grace, GRACE_STEPS, {"one session", "revocation"}),
    ("second_step_up_over_an_ended_successor", _any_successor, STEPS, {"revocation", "logout"}),
    (
        "revocation_that_stops_at_a_tombstone",
        lambda patch: patch.setattr(ledger, "_live_end", lambda _, record: record),
        STEPS,
        {"revocation", "theft ended"},
    ),
]


@pytest.mark.parametrize(("change", "rules", "checks"), [row[1:] for row in MUTANTS], ids=[row[0] for row in MUTANTS])
def test_the_model_catches(change: Patch, rules: Rules, checks: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch)
    with pytest.raises(BrokenError) as broken:
        walk(rules)
    assert broken.value.check in checks, str(broken.value)


def test_a_violation_tells_how_it_came_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_former", lambda *_: TokenClass.STRAGGLER)
    with pytest.raises(
        BrokenError, match=r"honest: the browser is refused \(STRAGGLER\)\n  1. the browser is logged in\n"
    ):
        walk(HONEST)


def test_a_key_that_says_too_little_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk doubts its own merging: if what a loaded request wants were no part of its key, it would find out."""
    right = world._flight_key

    def blind(state: Any, flight: Any, *more: Any) -> Any:
        key = right(state, flight, *more)
        return (*key[:2], "", *key[3:]) if flight.phase == world.READY else key

    monkeypatch.setattr(world, "_flight_key", blind)
    with pytest.raises(BrokenError, match="one key"):
        walk(LOGOUT, doubt=1)
