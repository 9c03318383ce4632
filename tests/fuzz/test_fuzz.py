"""200,000 hostile inputs: no crash, no forgery, nothing slow. Nightly: `python -m bench.fuzz` with millions."""

import random
import time

import pytest

from bench import fuzz
from bench.fuzz import Target

SHARE = 23_000


@pytest.mark.parametrize("target", fuzz.targets(), ids=lambda target: target.name)
def test_hostile_inputs_do_no_harm(target: Target) -> None:
    result = fuzz.fuzz(target, SHARE, seed=5)
    assert result.faults == []
    assert result.refused > SHARE // 10


@pytest.mark.parametrize("target", fuzz.targets(), ids=lambda target: target.name)
def test_what_the_mutations_begin_from_is_accepted(target: Target) -> None:
    """Else nothing near it would be tried. (Logout tokens: their accepted input counts as no forgery.)"""
    if target.name == "logout token":
        assert target.read(target.good[0]) is False  # verified, without an error
        with pytest.raises(target.declared):
            target.read(target.good[0][1:])
        return
    assert any(target.read(good) for good in target.good)


def test_the_shares_are_200_000_inputs() -> None:
    assert SHARE * len(fuzz.targets()) >= 200_000


def test_mutations_are_the_same_for_one_seed_and_differ_from_each_other() -> None:
    first, again = (
        [fuzz.mutated(chance, [b"abcdefgh" * 4]) for _ in range(500)] for chance in (random.Random(1), random.Random(1))
    )
    assert first == again
    assert len(set(first)) > 400


def crash(raw: bytes) -> bool:
    raise KeyError(raw)


def slow(raw: bytes) -> bool:
    until = time.thread_time() + 0.011
    while time.thread_time() < until:
        pass
    return False


@pytest.mark.parametrize(("read", "said"), [(crash, "KeyError"), (slow, "ms for"), (lambda _raw: True, "accepted")])
def test_a_planted_fault_is_seen(read: object, said: str) -> None:
    result = fuzz.fuzz(Target("planted", [b"abc"], read), 20, seed=1)  # type: ignore[arg-type]
    assert said in result.faults[0]
