"""What every store promises of many records: ends of others, epochs, whole commits, events, listings and purges."""
# ruff: noqa: D102 - a test says what it is about in its name

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from ..core.epochs import KEPT, scope_of
from ..core.errors import CoatcheckError
from ..core.model import (
    Client,
    Conflict,
    End,
    EndOthers,
    Epochs,
    Event,
    Insert,
    Limit,
    Note,
    RaiseEpoch,
    Touch,
    Update,
)
from .clock import Clock
from .face import TOMBSTONE, Face, event, make


class ListingPromises:
    """Everything that is about more than one record; part of StoreContract."""

    # EndOthers and epochs.

    def test_end_others_spares_whom_it_keeps_and_strangers(self, face: Face, clock: Clock) -> None:
        for handle, changed in (("a", {}), ("b", {}), ("keep", {}), ("bob", {"subject": "bob"})):
            face.done(Insert(record=make(handle, clock, **changed)))
        face.done(Insert(record=make("elsewhere", clock, realm="admin")))
        said = event("sessions_revoked", clock)
        face.done(EndOthers(realm="", subject="ann", keep=("keep",), because="owner", events=(said,)), durable=True)
        ended = {handle: face.have(handle).ended_because for handle in ("a", "b", "keep", "bob", "elsewhere")}
        assert ended == {"a": "owner", "b": "owner", "keep": None, "bob": None, "elsewhere": None}
        revoked = face.named("session_revoked")
        assert {(one.handle, one.subject, one.detail["because"]) for one in revoked} == {
            ("a", "ann", "owner"),
            ("b", "ann", "owner"),
        }
        assert len(face.named("sessions_revoked")) == 1

    def test_end_others_before_a_moment_spares_later_logins(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("early", clock)))
        moment = clock.wind(10)
        face.done(Insert(record=make("late", clock)))
        clock.wind(10)
        face.done(EndOthers(realm="", subject="ann", because="factor_change", before=moment))
        assert face.have("early").ended_because == "factor_change"
        assert face.have("late").ended_at is None
        assert face.commit(Insert(record=make("x", clock, authenticated_at=moment - 1))) == Conflict(None, "epoch")
        face.done(Insert(record=make("y", clock, authenticated_at=moment)))

    def test_end_others_sent_again_writes_its_events_once(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        change = EndOthers(realm="", subject="ann", because="owner", events=(event("sessions_revoked", clock),))
        for _ in range(2):
            face.done(change, commit_id=b"e")
        assert len(face.named("sessions_revoked")) == len(face.named("session_revoked")) == 1

    def test_a_subjects_epoch_never_goes_back(self, face: Face, clock: Clock) -> None:
        old = make("old", clock)
        clock.wind(10)
        face.done(EndOthers(realm="", subject="ann", because="owner"))
        face.done(EndOthers(realm="", subject="ann", because="owner", before=clock.now - 9))
        assert face.commit(Insert(record=replace(old, authenticated_at=clock.now - 5))) == Conflict(None, "epoch")

    def test_scopes_have_epochs_that_never_go_back(self, face: Face, clock: Clock) -> None:
        assert face.epochs().scopes == {}
        face.done(RaiseEpoch(scope="*"), durable=True)
        first = clock.now
        face.done(RaiseEpoch(scope="realm:admin", before=first + 5))
        clock.wind(1)
        face.done(RaiseEpoch(scope="*", before=first - 100))
        assert face.epochs().scopes == {"*": first, "realm:admin": first + 5}

    def test_a_tenants_epoch_is_forgotten_when_no_session_can_be_older(self, face: Face, clock: Clock) -> None:
        first, others = clock.now, ("*", "realm:shop", "realm:tenant:")
        mine = [scope_of(realm, "acme") for realm in (None, "shop")]
        for scope in (*others, *mine, scope_of("shop", "late")):
            face.done(RaiseEpoch(scope=scope))
        clock.wind(400 * 86400)
        face.purge()
        assert set(face.epochs().scopes) == {*others, *mine, scope_of("shop", "late")}, "remembered for 400 days"
        face.done(RaiseEpoch(scope=scope_of("shop", "late")))
        clock.wind(first + KEPT - clock.now - 1)
        face.purge()
        assert set(mine) < set(face.epochs().scopes), "and a while longer"
        clock.wind(3600)
        assert face.purge() == 0, "no session was purged"
        assert set(face.epochs().scopes) == {*others, scope_of("shop", "late")}, "what was raised since stays"
        face.done(RaiseEpoch(scope=mine[0]))
        assert face.epochs().scopes[mine[0]] == clock.now

    def test_epochs_tell_the_stores_clock_and_a_generation_that_stays(self, face: Face, clock: Clock) -> None:
        first = face.epochs()
        assert first.store_now == clock.now
        assert first.generation
        clock.wind(60)
        assert face.epochs() == Epochs(clock.now, {}, first.generation)

    # Commits of several changes.

    def test_a_conflict_applies_nothing(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(Insert(record=make("other", clock)))
        before = face.have("other")
        conflict = face.commit(
            Note(events=(event("note", clock),)),
            Touch(handle="other", seen_at=clock.now + 1),
            End(handle="other", because="logout"),
            RaiseEpoch(scope="*"),
            EndOthers(realm="", subject="ann", because="owner"),
            Update(record=face.have("h"), was=7, events=(event("session_renewed", clock),)),
        )
        assert conflict == Conflict(face.have("h"), "version")
        assert (face.have("other"), face.epochs().scopes, face.events().items) == (before, {}, ())

    def test_the_primary_change_comes_first_whatever_the_order(self, face: Face, clock: Clock) -> None:
        login = make("new", clock)
        clock.wind(1)
        face.done(EndOthers(realm="", subject="ann", keep=("new",), because="owner"), Insert(record=login))
        assert face.have("new").ended_at is None

    def test_an_anonymous_session_that_logs_in_is_one_step(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("anonymous", clock, subject=None)))
        face.done(Insert(record=make("h", clock)), End(handle="anonymous", because="superseded"), durable=True)
        assert face.have("anonymous").ended_because == "superseded"
        assert face.have("h").subject == "ann"

    def test_two_primary_changes_are_a_mistake(self, face: Face, clock: Clock) -> None:
        with pytest.raises(ValueError, match="one by one"):
            face.commit(Insert(record=make("a", clock)), Insert(record=make("b", clock)))
        assert face.load("a") is None

    def test_fifty_writers_of_fifty_keys_lose_nothing(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock, data=b"")))
        waiting = list(range(50))
        loaded = {key: face.have("h") for key in waiting}
        while waiting:
            key = waiting.pop(0)
            base = loaded[key]
            if face.commit(Update(record=replace(base, data=base.data + bytes([key])), was=base.version)) is not None:
                loaded[key] = face.have("h")
                waiting.insert(0, key)
        assert sorted(face.have("h").data) == list(range(50))

    # Events.

    def test_events_come_back_newest_first_and_whole(self, face: Face, clock: Clock) -> None:
        whole = Event(
            name="session_created",
            at=clock.now,
            realm="admin",
            handle="h",
            subject="ann",
            client=Client("2001:db8::1", "curl"),
            detail={"methods": ["pwd"], "level": 10, "nested": {"a": None}},
        )
        noise = event("token_unknown", clock, at=clock.now + 1, noise=True)
        face.done(Note(events=(whole,)))
        face.done(Note(events=(noise,)))
        assert face.events().items == (noise, whole)

    def test_a_note_is_written_once_per_commit_and_position(self, face: Face, clock: Clock) -> None:
        note = Note(events=(event("a", clock), event("a", clock)))
        for _ in range(2):
            face.done(note, commit_id=b"n")
        face.done(note, commit_id=b"m")
        assert len(face.named("a")) == 4

    def test_events_are_written_only_if_their_change_took_effect(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(Touch(handle="h", seen_at=clock.now - 1, events=(event("touched", clock),)))
        assert face.named("touched") == []
        face.done(Touch(handle="h", seen_at=clock.now + 1, events=(event("touched", clock),)))
        assert len(face.named("touched")) == 1

    def test_events_are_found_by_what_they_are_about(self, face: Face, clock: Clock) -> None:
        face.done(Note(events=(event("a", clock, handle="h"), event("b", clock, subject="ann", realm="admin"))))
        face.done(Note(events=(event("c", clock, at=clock.now + 5, noise=True),)))

        def names(**query: Any) -> str:
            return "".join(one.name for one in face.events(**query).items)

        assert names(handle="h") == "a"
        assert names(subject="ann") == names(realm="admin") == "b"
        assert names(noise=True) == names(since=clock.now + 1) == "c"
        assert names(noise=False) == "ba"

    def test_events_come_in_pages(self, face: Face, clock: Clock) -> None:
        for number in range(7):
            face.done(Note(events=(event(str(number), clock, at=clock.now + number // 3),)))
        names, cursor = [], None
        while True:
            page = face.events(limit=3, cursor=cursor)
            names += [one.name for one in page.items]
            cursor = page.cursor
            if cursor is None:
                break
            face.done(Note(events=(event("later", clock, at=clock.now + 99),)))
        assert names == list("6543210")

    def test_events_are_forgotten_by_age_facts_and_noise_apart(self, face: Face, clock: Clock) -> None:
        for age in (3, 2, 1):
            for noise in (False, True):
                face.done(Note(events=(event("e", clock, at=clock.now - age, noise=noise),)))
        assert face.forget_events(clock.now - 1, 1) == 1
        assert face.forget_events(clock.now - 1, 100) == 1
        assert face.forget_events(clock.now - 1, 100, noise=True) == 2
        assert [(one.at, one.noise) for one in face.events().items] == [
            (clock.now - 1, True),
            (clock.now - 1, False),
        ]

    def test_listeners_hear_each_event_that_was_written_once(self, face: Face, clock: Clock) -> None:
        heard: list[str] = []
        face.store.listeners.append(lambda events: heard.extend(one.name for one in events))
        insert = Insert(record=make("h", clock), events=(event("session_created", clock),))
        for _ in range(2):
            face.done(insert, commit_id=b"i", durable=True)
            face.done(Note(events=(event("noted", clock),)), commit_id=b"n")
        face.commit(Update(record=make("h", clock), was=9, events=(event("never", clock),)))
        clock.wind(1800)
        face.purge()
        assert heard == ["session_created", "noted", "session_expired"]

    # Find.

    def test_find_orders_by_creation_and_handle_and_pages(self, face: Face, clock: Clock) -> None:
        for number, handle in enumerate("gfedcba"):
            face.done(Insert(record=make(handle, clock, created_at=clock.now + number // 3)))
        found, cursor = "", None
        while True:
            page = face.find(limit=3, cursor=cursor)
            assert page.as_of == clock.now
            found += "".join(one.handle for one in page.items)
            for one in page.items:
                face.done(Touch(handle=one.handle, seen_at=clock.now + 1))
            cursor = page.cursor
            if cursor is None:
                break
        assert found == "efgbcda"

    def test_find_narrows_by_realm_subject_and_handle(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("a", clock)))
        face.done(Insert(record=make("b", clock, subject="bob")))
        face.done(Insert(record=make("c", clock, realm="admin")))

        def handles(**query: Any) -> str:
            return "".join(one.handle for one in face.find(**query).items)

        assert handles(subject="ann") == "ac"
        assert handles(realm="") == "ab"
        assert handles(realm="admin", subject="ann") == handles(handle="c") == "c"
        assert handles(realm="admin", subject="bob") == handles(handle="z") == ""

    def test_find_shows_the_ended_and_the_overdue_only_when_asked(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("ended", clock)))
        face.done(End(handle="ended", because="logout"))
        face.done(Insert(record=make("overdue", clock)))
        clock.wind(1800)
        face.done(Insert(record=make("live", clock)))
        assert [one.handle for one in face.find().items] == ["live"]
        assert [one.handle for one in face.find(live=False).items] == ["ended", "overdue", "live"]

    def test_a_listing_in_progress_does_not_grow(self, face: Face, clock: Clock) -> None:
        for handle in "abc":
            face.done(Insert(record=make(handle, clock)))
        page = face.find(limit=2)
        clock.wind(60)
        face.done(Insert(record=make("d", clock)))
        following = face.find(limit=2, cursor=page.cursor)
        assert ([one.handle for one in following.items], following.cursor) == (["c"], None)

    @pytest.mark.parametrize("cursor", ["", "x", "====", "gqFh", "ü"])
    def test_a_cursor_that_is_not_ours_is_refused(self, face: Face, cursor: str) -> None:
        with pytest.raises(CoatcheckError, match="first page"):
            face.find(cursor=cursor)
        with pytest.raises(CoatcheckError, match="first page"):
            face.events(cursor=cursor)

    # Purge.

    def test_purge_ends_what_is_overdue_by_the_stores_clock_and_says_so(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("idle", clock)))
        face.done(Insert(record=make("absolute", clock, expires_at=clock.now + 60, idle_for=None)))
        face.done(Insert(record=make("fresh", clock, idle_for=None)))
        clock.wind(1799)
        assert face.purge() == 1
        clock.wind(1)
        assert face.purge() == 1
        assert face.purge() == 0
        reasons = {handle: face.have(handle).ended_because for handle in ("idle", "absolute", "fresh")}
        assert reasons == {"idle": "idle", "absolute": "absolute", "fresh": None}
        told = {one.handle: one.detail["reason"] for one in face.named("session_expired")}
        assert told == {"idle": "idle", "absolute": "absolute"}

    def test_purge_spares_what_was_seen_in_the_meantime(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        for _ in range(3):
            clock.wind(1700)
            face.done(Touch(handle="h", seen_at=clock.now))
            assert face.purge() == 0
        assert face.have("h").ended_at is None
        clock.wind(1800)
        assert face.purge() == 1

    def test_purge_finds_a_session_that_was_shortened(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(Update(record=replace(face.have("h"), expires_at=clock.now + 5), was=1))
        clock.wind(5)
        assert face.purge() == 1
        assert face.have("h").ended_because == "absolute"

    def test_purge_deletes_tombstones_when_their_time_is_over(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(End(handle="h", because="logout"))
        clock.wind(TOMBSTONE - 1)
        assert face.purge() == 0
        assert face.have("h").ended_because == "logout"
        clock.wind(1)
        assert face.purge() == 1
        assert face.load("h") is None

    def test_purge_works_in_batches(self, face: Face, clock: Clock) -> None:
        for number in range(5):
            face.done(Insert(record=make(f"h{number}", clock)))
        clock.wind(1800)
        assert [face.purge(2) for _ in range(4)] == [2, 2, 1, 0]

    def test_purge_leaves_events_alone(self, face: Face, clock: Clock) -> None:
        face.done(Note(events=(event("old", clock),)))
        clock.wind(365 * 86400)
        face.purge()
        assert len(face.named("old")) == 1

    def test_a_subject_whose_sessions_were_purged_can_come_back(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        face.done(End(handle="h", because="logout"))
        clock.wind(TOMBSTONE)
        face.purge()
        face.done(Insert(record=make("new", clock), limit=Limit(1, refuse=True)))
        assert [one.handle for one in face.find(subject="ann", live=False).items] == ["new"]

    # Many at once.

    def test_parallel_logins_never_exceed_the_limit(self, face: Face, clock: Clock) -> None:
        logins = [Insert(record=make(f"{number:02}", clock), limit=Limit(3)) for number in range(40)]
        assert face.together(*logins) == [None] * 40
        assert len(face.find(subject="ann").items) == 3
        assert len(face.events(name="excess_sessions_exceeded").items) == 37

    def test_of_parallel_updates_of_one_version_one_wins(self, face: Face, clock: Clock) -> None:
        face.done(Insert(record=make("h", clock)))
        base = face.have("h")
        updates = [Update(record=replace(base, data=bytes([number])), was=1) for number in range(20)]
        results = face.together(*updates)
        assert results.count(None) == 1
        assert face.have("h").data == bytes([results.index(None)])

    def test_a_login_and_a_revocation_at_once_leave_nobody_behind(self, face: Face, clock: Clock) -> None:
        slow = [Insert(record=make(f"{number:02}", clock)) for number in range(20)]
        clock.wind(1)
        revocation = EndOthers(realm="", subject="ann", because="operator")
        face.together(*slow[:10], revocation, *slow[10:])
        assert face.find(subject="ann").items == ()
