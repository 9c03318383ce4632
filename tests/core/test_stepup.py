"""A note of what was interrupted counts for its subject alone, for five minutes, and for a proof that is as young."""

from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import AskAgain, GoTo
from coatcheck.core.errors import DataError
from coatcheck.core.model import Level, Record, Request
from coatcheck.core.stepup import FOR, check_methods, level_of, noted, own_target, permits, resumed

NOON = 1_800_014_400.0
PAY = {"to": "bob", "amount": "10"}
RECORD = Record(
    realm="__Host-coat",
    handle="alice-laptop-00001",
    family_proof=b"F" * 24,
    turn_proof=b"T" * 24,
    used_at=NOON,
    handed_at=NOON,
    created_at=NOON - 600,
    seen_at=NOON,
    idle_for=3600.0,
    expires_at=NOON + 86400,
    subject="alice",
    authenticated_at=NOON - 10,
    methods=("pwd",),
    level=Level.AAL1,
)


def asked(method: str = "POST", path: str = "/transfer", query: str = "") -> Request:
    return Request(method, "https", path, (), query)


def proved(at: float) -> Record:
    """Return the record of an authentication at that moment."""
    return replace(RECORD, authenticated_at=at)


@pytest.fixture
def note() -> dict[str, Any]:
    made = noted(RECORD, asked(), PAY, NOON, grants=True)
    assert made is not None
    return made


def test_a_proof_counts_for_five_minutes(note: dict[str, Any]) -> None:
    assert permits(note, proved(NOON + 1), asked(), PAY, NOON + 1)
    assert permits(note, proved(NOON), asked(), PAY, NOON + FOR)
    assert not permits(note, proved(NOON), asked(), PAY, NOON + FOR + 0.1)


def test_a_proof_that_is_older_than_five_minutes_permits_nothing_that_was_noted_since(note: dict[str, Any]) -> None:
    """The note itself is young: one of another node, whose copy of the record said less."""
    young = {**note, "asked_at": NOON + FOR}
    assert permits(young, proved(NOON), asked(), PAY, NOON + FOR)
    assert not permits(young, proved(NOON), asked(), PAY, NOON + FOR + 0.1)
    assert permits(young, proved(NOON + FOR + 5), asked(), PAY, NOON + FOR), "two clocks may differ by five seconds"
    assert not permits(young, proved(NOON + FOR + 5.1), asked(), PAY, NOON + FOR), "no proof is from the future"


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(RECORD, authenticated_at=None),
        replace(proved(NOON + 1), subject="mallory"),
        replace(proved(NOON + 1), subject=None),
        replace(proved(NOON + 1), level=Level.REMEMBERED),
    ],
    ids=["as before", "never", "another", "nobody", "remembered"],
)
def test_no_proof_of_the_subject_no_permission(note: dict[str, Any], record: Record) -> None:
    assert not permits(note, record, asked(), PAY, NOON + 2)


@pytest.mark.parametrize(
    ("request_", "of"),
    [
        (asked(), {**PAY, "amount": "11"}),
        (asked(), b"to=bob&amount=10"),
        (asked("PUT"), PAY),
        (asked(path="/transfers"), PAY),
        (asked(query="now=1"), PAY),
    ],
)
def test_it_is_for_that_alone(note: dict[str, Any], request_: Request, of: Any) -> None:
    assert not permits(note, proved(NOON + 1), request_, of, NOON + 2)


def test_what_was_interrupted_is_told_to_its_subject_alone(note: dict[str, Any]) -> None:
    told = AskAgain(method="POST", target="/transfer", shown=PAY, until=NOON + FOR)
    assert resumed(note, "alice", NOON + 1) == told
    assert resumed(note, "mallory", NOON + 1) is None
    assert resumed(note, None, NOON + 1) is None
    seen = noted(RECORD, asked("GET", "/orders", "page=2"), b"", NOON, grants=False)
    assert resumed(seen, "alice", NOON + 1) == GoTo("/orders?page=2")
    assert resumed(seen, "mallory", NOON + 1) is None


def test_a_note_is_forgotten_after_five_minutes(note: dict[str, Any]) -> None:
    assert resumed(note, "alice", NOON + FOR) is not None
    assert resumed(note, "alice", NOON + FOR + 0.1) is None
    assert resumed(note, "alice", NOON - 5.1) is None


@pytest.mark.parametrize("found", [None, "x", {}, {"subject": "alice"}, {"target": 1}])
def test_what_is_no_note_permits_nothing(found: object) -> None:
    assert resumed(found, "alice", NOON) is None
    assert not permits(found, proved(NOON), asked(), PAY, NOON)


def test_a_note_that_leads_to_another_site_is_none(note: dict[str, Any]) -> None:
    for target in ("//evil.example", "/\t/evil.example", "https://evil.example", "/\\evil.example", ""):
        assert own_target(target) is None
        assert resumed({**note, "method": "GET", "target": target}, "alice", NOON) is None


def test_factors_make_levels() -> None:
    assert level_of(("pwd", "otp")) is level_of(("mfa",)) is level_of(("face", "hwk")) is Level.AAL2
    assert level_of(("pwd", "pin")) is level_of(("otp", "sms")) is level_of(("face", "pwd")) is Level.AAL1
    check_methods(("hwk",), Level.AAL3, ("pwd", "hwk"))
    for methods, level, together in (
        (("otp",), Level.AAL3, ("pwd", "otp")),
        (("otp",), Level.AAL2, ("otp",)),
        (("opt",), None, ("opt",)),
        ((), None, ()),
    ):
        with pytest.raises(DataError):
            check_methods(methods, level, together)
