"""Whoever can write into the store alters the past: it is seen, for he lacks the root secret (LOG-10)."""

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import Event, MemoryStore, StoreError
from coatcheck.core.audit import MARGIN, SEALED, event_of, faults, seal_of
from coatcheck.core.model import Client, Note, Trace
from coatcheck.core.roots import Roots
from coatcheck.flow.audit import Audit
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock

SECRET = sha256(b"a root secret of the tests").digest()
ROOTS = Roots([SECRET], os.urandom)


class Trail:
    """A store in which something happens, and is sealed."""

    def __init__(self, store: Any, clock: Clock, roots: Roots = ROOTS) -> None:
        self.store, self.clock = store, clock
        self.audit = Audit(store, roots)

    def happens(self, number: int, **fields: Any) -> None:
        for one in range(number):
            client = Client("192.0.2.7", "Probe/1")
            known = {"subject": f"u{one}", "client": client, "trace": Trace("web-3", "7f3d", "GET", "/")} | fields
            event = Event(name="session_logout", at=self.clock(), detail={"reason": "logout", "at": 0.1 * one}, **known)
            self.store.commit(os.urandom(16), (Note(events=(event,)),), durable=True)
            self.clock.wind(1.0)

    def seals(self, times: int) -> None:
        self.audit.seal()
        for _ in range(times):
            self.happens(3)
            self.clock.wind(MARGIN)
            assert self.audit.seal() is not None

    @property
    def facts(self) -> list[Event]:
        return list(self.audit._facts())

    def found(self, facts: list[Event], remembered: str = "", roots: Roots = ROOTS) -> list[str]:
        kept = [one for one in facts if one.name == SEALED]
        return [one.sentence for one in faults(kept, facts, roots, remembered)]


@pytest.fixture(params=["memory", "sqlite"])
def trail(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    clock = Clock()
    store: Any = MemoryStore(clock=clock)
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "sessions.db", clock=clock)
    yield Trail(store, clock)
    store.close()


def test_an_untouched_trail_fits(trail: Trail) -> None:
    trail.seals(4)
    trail.happens(2)
    report = trail.audit.verify()
    assert report.faults == ()
    assert [one.number for one in report.seals] == [1, 2, 3, 4, 5]
    assert [one.count for one in report.seals] == [0, 4, 4, 4, 4]  # the seals are facts as well
    assert report.unsealed == 3
    assert trail.audit.verify(report.seals[2].name).faults == ()


def test_whatever_is_done_to_a_fact_is_seen(trail: Trail) -> None:
    trail.seals(3)
    facts = trail.facts
    assert trail.found(facts) == []
    victim = next(one for one in reversed(facts) if one.subject == "u1")
    rest = [one for one in facts if one is not victim]
    for change in (
        {"name": "session_created"},
        {"subject": "mallory"},
        {"realm": "other"},
        {"handle": "h"},
        {"client": Client("192.0.2.8", "Probe/1")},
        {"detail": {"reason": "theft"}},
        {"trace": None},
        {"at": victim.at + 0.001},
    ):
        assert len(trail.found([*rest, replace(victim, **change)])) == 1, change
    assert len(trail.found(rest)) == 1
    assert len(trail.found([*facts, victim])) == 1
    assert len(trail.found([*rest, replace(victim, at=victim.at + MARGIN)])) == 2  # moved into another stretch


def test_a_seal_that_is_taken_out_changed_or_made_up_is_seen(trail: Trail) -> None:
    trail.seals(4)
    facts = trail.facts
    seals = sorted((one for one in facts if one.name == SEALED), key=lambda one: one.detail["number"])
    assert any("missing" in one for one in trail.found([one for one in facts if one is not seals[2]]))
    for change in ({"count": 2}, {"since": 0.0}, {"until": 1e12}, {"before": "x"}, {"number": 7}, {"facts": "a.b"}):
        altered = replace(seals[2], detail={**seals[2].detail, **change})
        assert trail.found([*(one for one in facts if one is not seals[2]), altered]) != []
    nonsense = replace(seals[2], detail={"number": "three"})
    assert "not made with the root secret" in trail.found([*(one for one in facts if one is not seals[2]), nonsense])[0]


def test_who_lacks_the_secret_cannot_seal_anew(trail: Trail) -> None:
    trail.seals(2)
    other = Roots([os.urandom(32)], os.urandom)
    report = Audit(trail.store, other).verify()
    assert (report.seals, len(report.faults)) == ((), 3)
    both = Roots([os.urandom(32), SECRET], os.urandom)
    assert Audit(trail.store, both).verify().faults == ()  # rotated: the former one still counts
    trail.happens(1)
    trail.clock.wind(MARGIN)
    assert Audit(trail.store, both).seal() is not None
    assert Audit(trail.store, both).verify().faults == ()


def test_a_made_up_seal_neither_stops_the_sealing_nor_stays_unseen(trail: Trail) -> None:
    trail.seals(1)
    last = trail.audit.verify().seals[-1]
    for change in ({"number": 10**9, "until": 1e12}, {"number": 3, "mac": "\ud800"}):
        forged = event_of(last, trail.clock())
        forged = replace(forged, detail={**forged.detail, **change})
        assert any("root secret" in one for one in trail.found([*trail.facts, forged]))
    forged = replace(
        event_of(last, trail.clock()), detail={**event_of(last, 0.0).detail, "number": 10**9, "until": 1e12}
    )
    trail.store.commit(os.urandom(16), (Note(events=(forged,)),), durable=True)
    trail.happens(1)
    trail.clock.wind(MARGIN)
    made = trail.audit.seal()
    assert made is not None
    assert made.number == 3
    assert len(trail.audit.verify().faults) == 1


def test_an_end_that_was_cut_off_is_seen_by_who_remembers_it(trail: Trail) -> None:
    trail.seals(3)
    last = trail.audit.verify().seals[-1]
    cut = [one for one in trail.facts if one.at <= last.since]
    assert trail.found(cut) == []
    assert "was cut or replaced" in trail.found(cut, last.name)[0]
    assert "was cut or replaced" in trail.found(trail.facts, f"{last.number}:{'0' * 64}")[0]
    assert trail.found(trail.facts, last.name) == []


def test_what_is_forgotten_by_age_is_no_fault(trail: Trail) -> None:
    trail.seals(6)
    moments = sorted(one.at for one in trail.facts)
    for moment in moments[:-12]:
        trail.store.forget_events(moment + 0.5, 1000)
        if any(one.number == 1 for one in trail.audit.verify().seals):
            continue
        assert trail.audit.verify().faults == (), moment


def test_nothing_is_sealed_that_may_still_be_written(trail: Trail) -> None:
    trail.seals(0)
    trail.happens(1)
    assert trail.audit.seal() is not None  # a stretch of a second, ten minutes ago: empty
    assert trail.audit.seal() is None
    trail.clock.wind(MARGIN / 2)
    late = Event(name="session_logout", at=trail.clock() - MARGIN / 2, subject="late")
    trail.audit.seal()
    trail.store.commit(os.urandom(16), (Note(events=(late,)),), durable=True)
    trail.clock.wind(MARGIN)
    trail.audit.seal()
    assert trail.audit.verify().faults == ()


def test_of_two_timers_at_once_one_seal_is_kept(trail: Trail) -> None:
    trail.seals(1)
    trail.happens(1)
    trail.clock.wind(MARGIN)
    once = list(trail.audit._facts(name=SEALED))
    trail.audit.seal()
    slow = Audit(trail.store, ROOTS)
    listed = slow._facts
    slow._facts = lambda name=None, since=None: iter(once) if name else listed(name, since)  # type: ignore[method-assign]
    trail.clock.wind(1)
    slow.seal()
    assert [one.number for one in trail.audit.verify().seals] == [1, 2, 3]
    assert trail.audit.verify().faults == ()


def test_a_seal_tells_nothing_of_what_it_covers(trail: Trail) -> None:
    trail.seals(1)
    seal = trail.audit.verify().seals[-1]
    assert re.fullmatch(r"2:[0-9a-f]{16}\.[0-9a-f]{64}", seal.name)
    assert seal_of(event_of(seal, 1.0)) == seal
    with_other_key = Roots([b"\x07" + os.urandom(31)], os.urandom)
    assert with_other_key.sign(b"x") != ROOTS.sign(b"x")


def test_a_store_without_events_is_refused() -> None:
    with pytest.raises(StoreError, match="keeps no events"):
        Audit(object(), ROOTS)  # type: ignore[arg-type]
