"""The circuit breaker decides on a clock: when a store that fails is left alone, and when one request may try it."""

from typing import Any

import pytest

from coatcheck import ConfigError, SessionManager
from coatcheck.core.breaker import Breaker, Circuit


def opened(**limits: Any) -> Circuit:
    circuit = Circuit(Breaker(failures=3, pause=2.0, longest=6.0, **limits))
    for _ in range(3):
        circuit.failed(100.0)
    return circuit


def test_only_failures_in_a_row_open_it() -> None:
    circuit = Circuit(Breaker(failures=3))
    told = []
    for number in range(20):
        told += [circuit.failed(number), circuit.failed(number)]
        assert circuit.worked(number) is None
    assert not any(told)
    assert not circuit.is_open
    assert [circuit.failed(50.0) for _ in range(3)] == [False, False, True]
    assert circuit.is_open


def test_nothing_is_asked_during_the_pause_and_one_after_it() -> None:
    circuit = opened()
    assert [circuit.wait(at) for at in (100.0, 101.0, 101.75)] == [2.0, 1.0, 0.25]
    assert circuit.wait(102.0) == 0.0  # the probe
    assert circuit.wait(102.0) > 0.0
    assert circuit.wait(103.9) > 0.0


def test_a_failed_probe_doubles_the_pause_up_to_the_longest() -> None:
    circuit, now, pauses = opened(), 102.0, []
    for _ in range(4):
        assert circuit.wait(now) == 0.0
        assert circuit.failed(now) is False  # it was open before
        pauses.append(circuit.wait(now))
        now += pauses[-1]
    assert pauses == [4.0, 6.0, 6.0, 6.0]


def test_a_probe_that_never_comes_back_lets_another_one_try() -> None:
    circuit = opened()
    assert circuit.wait(102.0) == 0.0
    assert circuit.wait(104.0) == 0.0


def test_what_was_under_way_when_it_opened_does_not_lengthen_the_pause() -> None:
    circuit = opened()
    for _ in range(50):
        circuit.failed(100.5)
    assert circuit.wait(102.0) == 0.0
    circuit.failed(102.0)
    for _ in range(50):
        circuit.failed(102.5)
    assert circuit.wait(102.5) == 3.5


def test_a_probe_that_proved_nothing_is_handed_on() -> None:
    circuit = opened()
    assert circuit.wait(102.0) == 0.0
    circuit.returned(102.5)
    assert circuit.is_open
    assert [circuit.wait(102.5), circuit.wait(102.5)] == [0.0, 2.0]
    healthy = Circuit(Breaker(failures=2))
    healthy.failed(1.0)
    healthy.returned(1.0)
    assert healthy.failed(1.0) is True


def test_a_good_answer_closes_it_and_says_how_long_it_was_open() -> None:
    circuit = opened()
    circuit.wait(102.0)
    assert circuit.worked(102.5) == 2.5
    assert not circuit.is_open
    assert circuit.wait(102.5) == 0.0
    assert [circuit.failed(103.0) for _ in range(3)] == [False, False, True]
    assert circuit.wait(103.0) == 2.0  # as the first time


def test_a_clock_that_goes_back_ends_the_pause() -> None:
    assert opened().wait(40.0) == 0.0


def test_slow_is_what_took_longer() -> None:
    circuit = opened(slow=1.0)
    assert [circuit.is_slow(took) for took in (0.5, 1.0, 1.1)] == [False, False, True]
    assert not opened().is_slow(1e9)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"failures": 0}, "failures is a number of at least 1"),
        ({"failures": 2.5}, "failures is a number of at least 1"),
        ({"pause": 0}, "pause is a number of seconds above 0"),
        ({"longest": float("inf")}, "longest is a number of seconds above 0"),
        ({"slow": "1"}, "slow is a number of seconds above 0"),
        ({"pause": 60.0}, "longest must not be under pause"),
    ],
)
def test_what_cannot_be_meant_is_refused(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SessionManager(breaker=Breaker(**limits), origins=["https://app.test"])
