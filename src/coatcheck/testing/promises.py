"""What every store promises of one record: the precondition and the effect of each change, and of each race."""
# ruff: noqa: D102 - a test says what it is about in its name

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from ..core.ledger import MAX_SKEW
from ..core.model import (
    Conflict,
    End,
    EndOthers,
    Insert,
    Limit,
    Replace,
    Touch,
    Update,
)
from .clock import Clock
from .face import TOMBSTONE, TURN, Face, chain, event, full, make


class RecordPromises:
    """The changes, one by one; part of StoreContract."""

    # Records: what is kept.

    def test_what_was_never_inserted_is_none(self, face: Face) -> None:
        assert face.load("nobody") is None

    def test_a_record_comes_back_field_by_field(self, face: Face, clock: Clock) -> None:
        record = full(clock)
        face.done(Insert(record=record), commit_id=b"mine")
        assert face.load("h") == replace(record, version=1, by=b"mine")

    def test_an_empty_record_comes_back_too(self, face: Face, clock: Clock) -> None:
        record = make("h", clock, subject=None, client=None, idle_for=None, data=b"")
        face.done(Insert(record=record))
        assert replace(face.have("h"), by=b"") == record

    def test_insert_begins_at_version_1(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock, version=9)))
        assert face.have("h").version == 1

    def test_load_returns_expired_records_unjudged(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        clock.wind(10 * 86400)
        assert face.have("h").ended_at is None

    def test_large_data_and_odd_text_come_back(self, face: Face, clock: Clock) -> None:
        record = make("h", clock, subject="Ünï\0'\"; drop --", data=bytes(range(256)) * 400)
        face.done(Insert(record=record))
        assert (face.have("h").subject, face.have("h").data) == (record.subject, record.data)

    # Insert.

    def test_an_insert_that_is_sent_again_is_applied_once(self, face: Face, clock: Clock) -> None:
        insert = Insert(record=make("h", clock), events=(event("session_created", clock),))
        face.done(insert, commit_id=b"c")
        face.done(insert, commit_id=b"c")
        assert face.have("h").version == 1
        assert len(face.named("session_created")) == 1

    def test_an_insert_over_a_stranger_conflicts(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        conflict = face.commit(Insert(record=make("h", clock, family_proof=b"another" * 4)))
        assert conflict == Conflict(face.have("h"), "exists")

    def test_an_insert_never_revives_an_ended_record(self, face: Face, clock: Clock) -> None:
        insert = Insert(record=make("h", clock))
        face.done(insert, commit_id=b"c")
        face.done(End(handle="h", because="logout"))
        assert face.commit(insert, commit_id=b"c") == Conflict(face.have("h"), "ended")

    def test_a_login_from_before_the_subjects_epoch_is_refused(self, face: Face, clock: Clock) -> None:
        slow = make("slow", clock)
        clock.wind(1)
        face.done(EndOthers(realm="", subject="ann", because="operator"))
        assert face.commit(Insert(record=slow)) == Conflict(None, "epoch")
        assert face.load("slow") is None
        face.done(Insert(record=make("later", clock)))

    def test_the_epoch_of_a_subject_binds_no_one_else(self, face: Face, clock: Clock) -> None:
        others = [make("bob", clock, subject="bob"), make("anonymous", clock, subject=None)]
        others.append(make("elsewhere", clock, realm="admin"))
        clock.wind(1)
        face.done(EndOthers(realm="", subject="ann", because="operator"))
        for record in others:
            face.done(Insert(record=record))

    # Update.

    def test_an_update_writes_and_counts(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        changed = replace(full(clock), subject="ann", realm="")
        face.done(Update(record=changed, was=1), commit_id=b"u")
        assert face.have("h") == replace(changed, version=2, by=b"u")

    def test_an_update_of_another_version_conflicts_with_what_is_stored(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        mine, theirs = (replace(face.have("h"), data=data) for data in (b"mine", b"theirs"))
        face.done(Update(record=theirs, was=1))
        assert face.commit(Update(record=mine, was=1)) == Conflict(face.have("h"), "version")
        assert face.have("h").data == b"theirs"

    def test_an_update_never_creates(self, face: Face, clock: Clock) -> None:
        assert face.commit(Update(record=make("h", clock), was=1)) == Conflict(None, "gone")
        assert face.load("h") is None

    @pytest.mark.parametrize("idle_for", [None, 1800.0])
    def test_an_update_never_resurrects_an_ended_record(self, face: Face, clock: Clock, idle_for: float | None) -> None:
        face.done(Insert(record=make("h", clock, idle_for=idle_for)))
        slow = face.have("h")
        face.done(End(handle="h", because="logout"))
        conflict = face.commit(Update(record=replace(slow, data=b"late"), was=face.have("h").version))
        assert conflict == Conflict(face.have("h"), "ended")
        assert face.have("h").ended_because == "logout"

    def test_an_update_after_everything_was_purged_conflicts(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        slow = face.have("h")
        face.done(End(handle="h", because="logout"))
        clock.wind(TOMBSTONE + 1)
        assert face.purge() == 1
        assert face.commit(Update(record=slow, was=1)) == Conflict(None, "gone")

    @pytest.mark.parametrize("changed", [{"subject": "bob"}, {"subject": None}, {"realm": "admin"}])
    def test_an_update_never_changes_whose_session_it_is(self, face: Face, clock: Clock, changed: Any) -> None:
        face.done(Insert(record=make("h", clock)))
        conflict = face.commit(Update(record=replace(face.have("h"), **changed), was=1))
        assert conflict == Conflict(face.have("h"), "subject")

    def test_an_update_that_is_sent_again_is_applied_once(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        update = Update(record=replace(face.have("h"), data=b"x"), was=1, events=(event("session_renewed", clock),))
        face.done(update, commit_id=b"u")
        face.done(Touch(handle="h", seen_at=clock.wind(1)))
        face.done(update, commit_id=b"u", durable=True)
        assert face.have("h").version == 2
        assert len(face.named("session_renewed")) == 1

    def test_an_update_that_is_sent_again_brings_nothing_else_with_it(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(Insert(record=make("other", clock)))
        update = Update(record=replace(face.have("h"), data=b"x"), was=1)
        face.done(update, commit_id=b"u")
        face.done(update, End(handle="other", because="logout"), commit_id=b"u")
        assert face.have("other").ended_at is None

    def test_an_update_keeps_the_later_sight(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        slow = face.have("h")
        face.done(Touch(handle="h", seen_at=clock.wind(60)))
        face.done(Update(record=replace(slow, data=b"x"), was=1))
        assert face.have("h").seen_at == clock.now

    def test_an_update_keeps_the_first_sight_of_the_same_turn_only(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock, used_at=clock.now)))
        later = replace(face.have("h"), used_at=clock.now + 1)
        face.done(Update(record=later, was=1))
        assert face.have("h").used_at == clock.now
        face.done(Update(record=replace(later, used_at=None, nonce=b"n"), was=2))
        assert (face.have("h").used_at, face.have("h").nonce) == (clock.now, None)
        face.done(Update(record=replace(later, turn_proof=b"next", used_at=None, nonce=b"n"), was=3))
        assert (face.have("h").used_at, face.have("h").nonce) == (None, b"n")

    def test_of_two_updates_of_one_version_one_wins(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        base = face.have("h")
        results = [face.commit(Update(record=replace(base, data=data), was=1)) for data in (b"1", b"2")]
        assert [result is None for result in results] == [True, False]

    # Touch, and the first sight of a turn.

    def test_a_touch_moves_only_the_sight(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)), commit_id=b"c")
        before = face.have("h")
        face.done(Touch(handle="h", seen_at=clock.wind(60)))
        assert face.have("h") == replace(before, seen_at=clock.now)

    def test_a_touch_never_moves_back(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(Touch(handle="h", seen_at=clock.now - 60))
        assert face.have("h").seen_at == clock.now

    def test_a_touch_from_a_clock_ahead_is_clamped(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock, used_at=None)))
        face.done(Touch(handle="h", seen_at=clock.now + 86400, turn_proof=TURN))
        assert (face.have("h").seen_at, face.have("h").used_at) == (clock.now + MAX_SKEW, clock.now + MAX_SKEW)

    def test_the_first_sight_of_a_turn_counts_and_erases_the_nonce(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock, used_at=None, nonce=b"n")), commit_id=b"c")
        before = face.have("h")
        face.done(Touch(handle="h", seen_at=clock.wind(1), turn_proof=TURN))
        assert face.have("h") == replace(before, seen_at=clock.now, used_at=clock.now, nonce=None, version=2)
        face.done(Touch(handle="h", seen_at=clock.wind(1), turn_proof=TURN))
        assert (face.have("h").used_at, face.have("h").version) == (clock.now - 1, 2)

    def test_a_touch_with_a_former_turn_does_not_mark_its_successor_as_seen(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock, used_at=clock.now)))
        fresh = replace(face.have("h"), turn_proof=b"next", former_proof=TURN, used_at=None, nonce=b"n")
        face.done(Update(record=fresh, was=1))
        face.done(Touch(handle="h", seen_at=clock.wind(1), turn_proof=TURN))
        assert (face.have("h").used_at, face.have("h").nonce, face.have("h").seen_at) == (None, b"n", clock.now)

    def test_an_update_planned_on_an_unseen_turn_conflicts_after_its_first_sight(
        self, face: Face, clock: Clock
    ) -> None:
        face.done(Insert(record=make("h", clock, used_at=None)))
        planned = replace(face.have("h"), turn_proof=b"next", former_proof=TURN)
        face.done(Touch(handle="h", seen_at=clock.wind(1), turn_proof=TURN))
        conflict = face.commit(Update(record=planned, was=1))
        assert conflict == Conflict(face.have("h"), "version")
        assert face.have("h").used_at == clock.now

    def test_a_touch_never_creates_nor_revives(self, face: Face, clock: Clock) -> None:
        face.done(Touch(handle="h", seen_at=clock.now))
        assert face.load("h") is None
        face.done(Insert(record=make("h", clock)))
        face.done(End(handle="h", because="logout"))
        before = face.have("h")
        face.done(Touch(handle="h", seen_at=clock.wind(1), turn_proof=TURN))
        assert face.have("h") == before

    # End.

    def test_an_end_leaves_a_tombstone_without_secrets_or_data(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=full(clock)))
        before = face.have("h")
        clock.wind(5)
        face.done(End(handle="h", because="logout"), durable=True)
        erased = {"turn_proof": None, "former_proof": None, "nonce": None, "data": b""}
        expected = replace(before, **erased, ended_at=clock.now, ended_because="logout", version=2)
        assert face.have("h") == expected

    def test_the_first_reason_stays(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(End(handle="h", because="logout"))
        before = face.have("h")
        clock.wind(1)
        face.done(End(handle="h", because="theft", events=(event("session_token_reuse", clock),)))
        assert face.have("h") == before
        assert face.named("session_token_reuse") == []

    def test_an_end_of_nothing_does_nothing(self, face: Face, clock: Clock) -> None:
        face.done(End(handle="nobody", because="logout", events=(event("session_revoked", clock),)))
        assert face.load("nobody") is None
        assert face.named("session_revoked") == []

    def test_an_end_judged_from_a_clock_spares_a_session_seen_since(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        judged = face.have("h")
        face.done(Touch(handle="h", seen_at=clock.wind(1700)))
        clock.wind(200)
        face.done(End(handle="h", because="idle", if_seen_at=judged.seen_at))
        assert face.have("h").ended_at is None
        clock.wind(1800)
        face.done(End(handle="h", because="idle", if_seen_at=judged.seen_at))
        assert face.have("h").ended_at is None

    def test_an_end_judged_from_a_clock_ahead_is_not_believed(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        seen_at = face.have("h").seen_at
        face.done(End(handle="h", because="idle", if_seen_at=seen_at))
        assert face.have("h").ended_at is None
        clock.wind(1800)
        face.done(End(handle="h", because="idle", if_seen_at=seen_at))
        assert face.have("h").ended_because == "idle"

    def test_an_end_follows_a_replaced_session_to_its_live_end(self, face: Face, clock: Clock) -> None:
        chain(face, clock, "h0", "h1", "h2")
        face.done(End(handle="h0", because="operator", events=(event("session_revoked", clock),)))
        assert [face.have(handle).ended_because for handle in ("h0", "h1", "h2")] == [
            "replaced",
            "replaced",
            "operator",
        ]
        assert len(face.named("session_revoked")) == 1

    def test_an_end_judged_from_a_clock_follows_nobody(self, face: Face, clock: Clock) -> None:
        chain(face, clock, "h0", "h1")
        face.done(End(handle="h0", because="idle", if_seen_at=face.have("h0").seen_at))
        assert face.have("h1").ended_at is None

    # Replace.

    def test_a_replace_ends_the_old_and_names_its_successor(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        clock.wind(1)
        face.done(Replace(record=make("h1", clock), old="h0", was=1), commit_id=b"r", durable=True)
        old, new = face.have("h0"), face.have("h1")
        assert (old.ended_because, old.ended_at, old.successor, old.version) == ("replaced", clock.now, "h1", 2)
        assert (old.data, old.turn_proof) == (b"", None)
        assert (new.ended_at, new.version, new.by) == (None, 1, b"r")

    def test_a_replace_never_slips_past_a_revocation(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        face.done(End(handle="h0", because="operator"))
        conflict = face.commit(Replace(record=make("h1", clock), old="h0", was=1))
        assert conflict == Conflict(face.have("h0"), "ended")
        assert face.load("h1") is None

    @pytest.mark.parametrize("was", [1, 3])
    def test_a_replace_of_another_version_conflicts(self, face: Face, clock: Clock, was: int) -> None:
        face.done(Insert(record=make("h0", clock)))
        face.done(Update(record=face.have("h0"), was=1))
        conflict = face.commit(Replace(record=make("h1", clock), old="h0", was=was))
        assert conflict == Conflict(face.have("h0"), "version")

    def test_a_replace_of_nothing_or_of_another_subject_conflicts(self, face: Face, clock: Clock) -> None:
        assert face.commit(Replace(record=make("h1", clock), old="h0", was=1)) == Conflict(None, "gone")
        face.done(Insert(record=make("h0", clock, subject=None)))
        conflict = face.commit(Replace(record=make("h1", clock), old="h0", was=1))
        assert conflict == Conflict(face.have("h0"), "subject")
        assert face.load("h1") is None

    def test_a_replace_that_is_sent_again_is_applied_once(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        change = Replace(record=make("h1", clock), old="h0", was=1, events=(event("session_renewed", clock),))
        face.done(change, commit_id=b"r")
        before = (face.have("h0"), face.have("h1"))
        face.done(change, commit_id=b"r", durable=True)
        assert (face.have("h0"), face.have("h1")) == before
        assert len(face.named("session_renewed")) == 1

    def test_a_second_replace_takes_over_from_a_successor_that_nobody_saw(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        face.done(Replace(record=make("lost", clock, used_at=None), old="h0", was=1))
        second = Replace(record=make("h2", clock, used_at=None), old="h0", was=1)
        face.done(second, commit_id=b"second")
        face.done(second, commit_id=b"second")
        lost = face.have("lost")
        assert (lost.ended_because, lost.successor) == ("replaced", "h2")
        assert face.have("h2").ended_at is None
        face.done(End(handle="h0", because="operator"))
        assert face.have("h2").ended_because == "operator"

    def test_a_second_replace_conflicts_when_the_successor_was_seen_or_revoked(self, face: Face, clock: Clock) -> None:
        for name, change in (
            ("seen", Touch(handle="seen-1", seen_at=clock.now, turn_proof=TURN)),
            ("revoked", End(handle="revoked-1", because="operator")),
        ):
            face.done(Insert(record=make(f"{name}-0", clock)))
            face.done(Replace(record=make(f"{name}-1", clock, used_at=None), old=f"{name}-0", was=1))
            face.done(change)
            conflict = face.commit(Replace(record=make(f"{name}-2", clock), old=f"{name}-0", was=1))
            assert conflict == Conflict(face.have(f"{name}-0"), "ended")
            assert face.load(f"{name}-2") is None

    def test_a_session_that_was_kept_can_still_be_replaced(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        login = clock.now
        clock.wind(60)
        face.done(EndOthers(realm="", subject="ann", keep=("h0",), because="owner"))
        face.done(Replace(record=make("h1", clock, authenticated_at=login), old="h0", was=1))

    # Limits.

    def test_a_limit_evicts_the_longest_authenticated(self, face: Face, clock: Clock) -> None:
        for number in range(4):
            face.done(Insert(record=make(f"h{number}", clock), limit=Limit(3)))
            clock.wind(1)
        assert [face.have(f"h{number}").ended_because for number in range(4)] == ["limit", None, None, None]
        (evicted,) = face.named("excess_sessions_exceeded")
        assert (evicted.handle, evicted.subject, evicted.detail["most"]) == ("h0", "ann", 3)
        assert (evicted.detail["because"], evicted.detail["by"]) == ("limit", "h3")

    def test_a_limit_orders_by_authentication_not_by_sight_and_then_by_handle(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("b", clock)))
        face.done(Insert(record=make("a", clock)))
        face.done(Touch(handle="a", seen_at=clock.wind(9)))
        face.done(Insert(record=make("c", clock), limit=Limit(2)))
        assert [face.have(handle).ended_because for handle in "abc"] == ["limit", None, None]

    def test_a_limit_never_evicts_the_new_session(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("late", clock)))
        face.done(Insert(record=make("early", clock, authenticated_at=clock.now - 60), limit=Limit(1)))
        assert face.have("early").ended_at is None
        assert face.have("late").ended_because == "limit"

    def test_a_limit_that_refuses_leaves_everything_as_it_was(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        new = Insert(record=make("h1", clock), limit=Limit(1, refuse=True), events=(event("session_created", clock),))
        assert face.commit(new, End(handle="h0", because="logout")) == Conflict(None, "limit")
        assert face.have("h0").ended_at is None
        assert face.load("h1") is None
        assert face.named("session_created") == []

    def test_a_limit_counts_live_sessions_of_the_subject_in_the_realm_only(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("ended", clock)))
        face.done(End(handle="ended", because="logout"))
        face.done(Insert(record=make("overdue", clock)))
        clock.wind(1800)
        face.done(Insert(record=make("elsewhere", clock, realm="admin")))
        face.done(Insert(record=make("bob", clock, subject="bob")))
        face.done(Insert(record=make("h", clock), limit=Limit(1, refuse=True)))

    def test_a_replace_does_not_count_the_session_that_leaves(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h0", clock)))
        face.done(Replace(record=make("h1", clock), old="h0", was=1, limit=Limit(1, refuse=True)))
        assert face.named("excess_sessions_exceeded") == []
