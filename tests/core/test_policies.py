"""Clocks end sessions at their exact moment, presets hold their source's figures, contradictions are refused.

Standards: TMO-01, TMO-02, TMO-04, TMO-05, TMO-08, TMO-11, section 3.3.
"""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.errors import ConfigError, Refusal
from coatcheck.core.manager import Absent, SessionManager
from coatcheck.core.model import Level, Record, Request
from coatcheck.core.policies import (
    KEEP,
    PRESETS,
    Action,
    Policy,
    SessionLimit,
    Timeouts,
    Verdict,
    beyond,
    over,
    timeouts,
)
from coatcheck.core.presets import preset

FIGURES = {
    "nist-aal1": (None, 2_592_000),
    "nist-aal2": (3600, 86_400),
    "nist-aal3": (900, 43_200),
    "nist-63b-3-aal2": (1800, 43_200),
    "pci": (900, 43_200),
    "owasp-low-risk": (1800, 28_800),
    "owasp-high-value": (300, 14_400),
}


@pytest.mark.parametrize(("preset", "figures"), FIGURES.items())
def test_a_preset_holds_its_sources_figures(preset, figures):
    """TMO-05, TMO-11."""
    clocks = timeouts(preset)
    assert (clocks.idle, clocks.absolute) == figures
    assert clocks == PRESETS[preset]
    assert beyond(clocks, preset) == []


def test_each_preset_is_tested():
    assert FIGURES.keys() == PRESETS.keys()


LEVELS = {
    "nist-aal1": Level.AAL1,
    "nist-aal2": Level.AAL2,
    "nist-aal3": Level.AAL3,
    "nist-63b-3-aal2": Level.AAL2,
    "pci": Level.AAL2,
    "owasp-low-risk": Level.AAL1,
    "owasp-high-value": Level.AAL2,
}


@pytest.mark.parametrize(("name", "level"), LEVELS.items())
def test_a_preset_says_how_sure_one_must_be(name, level):
    """PCI DSS v4 8.4.2 wants several factors; the others say so by their names."""
    assert preset(name).level is level


@pytest.mark.parametrize("name", PRESETS)
def test_each_figure_of_a_preset_names_its_source(name):
    for figure in preset(name).figures:
        assert figure.source.startswith(("NIST SP 800-63B", "PCI DSS", "OWASP"))
        assert getattr(PRESETS[name], figure.clock) == figure.most
    assert preset(name).most("absolute") is not None
    assert (PRESETS[name].remember is not None) is preset(name).remembers


@pytest.mark.parametrize("preset", ["nist-aal3", "pci", "owasp-high-value"])
def test_where_much_is_at_stake_nobody_is_remembered(preset):
    assert timeouts(preset).remember is None


def test_the_defaults_are_sound():
    clocks = timeouts()
    assert clocks == Timeouts()
    assert (clocks.idle, clocks.absolute, clocks.renew, clocks.grace) == (3600, 86_400, 900, 60)


def test_clocks_are_given_in_seconds_or_as_timedeltas():
    clocks = timeouts(idle=timedelta(minutes=10), absolute=timedelta(hours=2), renew=None)
    assert (clocks.idle, clocks.absolute, clocks.renew) == (600.0, 7200.0, None)


def test_a_lower_absolute_timeout_takes_idle_down():
    assert timeouts(absolute=600).idle == 600
    assert timeouts("nist-aal2", absolute=timedelta(minutes=30)).idle == 1800
    assert timeouts("nist-aal1", absolute=600).idle is None
    assert timeouts(absolute=7200).idle == 3600
    with pytest.raises(ConfigError, match="idle must not exceed absolute"):
        timeouts(absolute=600, idle=3600)


CONTRADICTIONS = [
    ({"idle": 90_000}, "idle must not exceed absolute"),
    ({"idle": 0}, "idle must be a number"),
    ({"idle": -1}, "idle must be a number"),
    ({"idle": float("nan")}, "idle must be a number"),
    ({"idle": float("inf")}, "idle must be a number"),
    ({"idle": "1h"}, "idle must be a number"),
    ({"idle": True}, "idle must be a number"),
    ({"absolute": None}, "absolute must be a number of seconds above 0 or a timedelta \\(found None"),
    ({"absolute": 0}, "absolute must be a number"),
    ({"absolute": float("inf")}, "absolute must be a number"),
    ({"absolute": 401 * 86_400, "remember": None}, "absolute must not exceed 400 days"),
    ({"remember": 3600}, "remember must lie between absolute"),
    ({"remember": 401 * 86_400}, "remember must lie between absolute"),
    ({"absolute": 60 * 86_400}, "remember=None remembers nobody"),
    ({"remember_idle": 31 * 86_400}, "remember_idle must not exceed remember"),
    ({"remember_idle": 0}, "remember_idle must be a number"),
    ({"renew": 0}, "renew must be a number"),
    ({"renew": 239}, "renew must be at least 4 times grace"),
    ({"grace": 226}, "renew must be at least 4 times grace"),
    ({"grace": None}, "grace must be a number"),
    ({"grace": -1, "why": "because"}, "grace must be a number"),
    ({"grace": float("nan"), "why": "because"}, "grace must be a number"),
    ({"grace": 59.9}, "logs out honest users"),
    ({"why": 5}, "why must be text"),
    ({"idel": 5}, "unknown timeout 'idel'"),
]


@pytest.mark.parametrize(("changes", "fault"), CONTRADICTIONS)
def test_clocks_that_contradict_each_other_are_refused(changes, fault):
    with pytest.raises(ConfigError, match=fault):
        timeouts(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"idle": None},
        {"idle": 86_400},
        {"renew": None, "grace": 0},
        {"renew": 240},
        {"grace": 225},
        {"grace": 30, "why": "all our clients are in one hall"},
        {"grace": 0, "why": "a test"},
        {"remember": None},
        {"remember": 86_400, "remember_idle": None},
        {"remember": 400 * 86_400},
        {"absolute": 400 * 86_400, "remember": None},
    ],
)
def test_clocks_at_their_bounds_pass(changes):
    timeouts(**changes)


def test_an_unknown_preset_is_refused_with_a_list():
    with pytest.raises(ConfigError, match="there are nist-aal1"):
        timeouts("nist")


@pytest.mark.parametrize(
    ("preset", "changes", "name"),
    [
        ("nist-aal3", {"absolute": 43_201}, "absolute is 43201 s"),
        ("pci", {"idle": 901}, "idle is 901 s"),
        ("pci", {"idle": None}, "idle is off"),
        ("nist-63b-3-aal2", {"idle": 1801}, "idle is 1801 s"),
        ("nist-63b-3-aal2", {"absolute": 43_201}, "absolute is 43201 s"),
    ],
)
def test_what_a_source_demands_cannot_be_exceeded_under_its_name(preset, changes, name):
    """TMO-05: AAL3 SHALL end after 12 hours; TMO-11."""
    with pytest.raises(ConfigError, match=name):
        timeouts(preset, **changes)


def test_what_a_source_recommends_is_exceeded_with_a_warning():
    """TMO-05."""
    clocks = timeouts("nist-aal2", idle=7200, absolute=100_000)
    assert beyond(clocks, "nist-aal2") == [
        "idle is 7200 s, nist-aal2 has 3600 s at most",
        "absolute is 100000 s, nist-aal2 has 86400 s at most",
    ]
    assert beyond(timeouts("nist-aal3", idle=None), "nist-aal3") == ["idle is off, nist-aal3 has 900 s at most"]
    assert beyond(timeouts(idle=60, absolute=60), "nist-aal3") == []


@pytest.mark.parametrize(
    ("idle", "every"), [(300, 15), (900, 45), (3600, 180), (6000, 300), (86_400, 300), (None, 300)]
)
def test_activity_is_written_every_20th_of_the_idle_timeout(idle, every):
    assert Timeouts(idle=idle).touch_every == every


# -- over --------------------------------------------------------------------------------------------------------------


def record(**changes):
    fields = {
        "realm": "r",
        "handle": "A" * 18,
        "family_proof": b"",
        "turn_proof": b"",
        "used_at": 1000.0,
        "handed_at": 1000.0,
        "created_at": 1000.0,
        "seen_at": 1000.0,
        "idle_for": 60.0,
        "expires_at": 1100.0,
    }
    return Record(**{**fields, **changes})


class Ends(Policy):
    """A rule that ends sessions at a moment."""

    def __init__(self, at):
        self.at = at

    def expires_at(self, record):
        return self.at


OVER = {
    "just begun": ({}, (), 1000.0, None),
    "before idle": ({}, (), 1059.999, None),
    "at idle": ({}, (), 1060.0, "idle"),
    "idle, looked at after the absolute end": ({}, (), 5000.0, "idle"),
    "seen again": ({"seen_at": 1050.0}, (), 1099.999, None),
    "at the absolute end": ({"seen_at": 1050.0}, (), 1100.0, "absolute"),
    "active to the end": ({"seen_at": 1099.0}, (), 1100.0, "absolute"),
    "both at once": ({"seen_at": 1040.0}, (), 1100.0, "absolute"),
    "never idle": ({"idle_for": None}, (), 1099.999, None),
    "never idle, at the absolute end": ({"idle_for": None}, (), 1100.0, "absolute"),
    "a policy ends it sooner": ({}, (Ends(1030.0),), 1030.0, "absolute"),
    "just before the policy": ({}, (Ends(1030.0),), 1029.999, None),
    "a policy ends it before idle would": ({}, (Ends(1030.0),), 1070.0, "absolute"),
    "a policy cannot lengthen": ({"idle_for": None}, (Ends(9999.0),), 1100.0, "absolute"),
    "a policy without opinion": ({}, (Policy(), Ends(None)), 1059.0, None),
    "the earliest policy counts": ({}, (Ends(1050.0), Ends(1020.0), Ends(1040.0)), 1020.0, "absolute"),
    "a clock set back": ({}, (), 0.0, None),
}


@pytest.mark.parametrize(("changes", "policies", "now", "why"), OVER.values(), ids=OVER.keys())
def test_a_session_is_over_at_its_exact_moment_and_for_the_first_reason(changes, policies, now, why):
    """TMO-01, TMO-02: a deadline has passed at its moment, not after it."""
    assert over(record(**changes), policies, now) == why


moments = st.floats(0, 1e10)


@given(moments, st.none() | st.floats(1, 1e6), moments, moments)
def test_over_agrees_with_the_records_own_deadline(seen_at, idle_for, expires_at, now):
    kept = record(seen_at=seen_at, idle_for=idle_for, expires_at=expires_at)
    assert (over(kept, (), now) is not None) is (now >= kept.deadline)
    assert over(kept, (), now) == over(kept, (), now)


@given(moments, st.floats(0, 1e6))
def test_who_is_over_stays_over(now, later):
    """No jitter, no way back."""
    if over(record(), (), now):
        assert over(record(), (), now + later)


# -- verdicts and limits -----------------------------------------------------------------------------------------------


def test_the_severest_verdict_is_the_greatest():
    assert Action.KEEP < Action.RENEW < Action.STEP_UP < Action.END
    assert max([Verdict(Action.RENEW, "a"), Verdict(Action.END, "b"), KEEP], key=lambda v: v.action).because == "b"


def test_a_policy_has_no_opinion_by_default():
    policy = Policy()
    assert policy.expires_at(record()) is None
    assert policy.judge(record(), (), 0.0) is KEEP
    assert tuple(policy.on_login(record())) == ()


@pytest.mark.parametrize("limit", [SessionLimit(1), SessionLimit(5, "refuse")])
def test_a_limit_of_one_or_more_passes(limit):
    limit.check()


@pytest.mark.parametrize("fields", [(0,), (-1,), (True,), (1.5,), ("3",), (3, "evict")])
def test_a_limit_that_means_nothing_is_refused(fields):
    with pytest.raises(ConfigError, match="a session limit is"):
        SessionLimit(*fields).check()


def test_settings_do_not_change_afterwards():
    with pytest.raises(AttributeError):
        timeouts().idle = 1
    assert msgspec.structs.replace(timeouts(), idle=1.0).idle == 1.0


def test_a_remembered_login_is_not_recent_even_in_the_request_that_made_it():
    request = Request("GET", "https", "/", ((b"host", b"testserver"),))
    session = SessionManager().open(request, Absent.NO_COOKIE, None)
    session.login("alice", level=Level.REMEMBERED)
    assert session.require_login() == "alice"
    with pytest.raises(Refusal):
        session.require_login(within=600)
