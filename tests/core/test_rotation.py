"""Keys in a store, as time goes by: their states, what is due, and that no rotation logs anybody out (D53, TOK-19)."""

import os
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import rotation
from coatcheck.core.errors import ConfigError, StoreError
from coatcheck.core.keyring import Keyring
from coatcheck.core.rotation import DAY, Kept, KeptKey, Schedule

PURPOSE, CONTEXT = "sealed token", b"realm\0handle"
NOW = 1_800_000_000.0
SCHEDULE = Schedule()


def key(kid: str, active_at: float, **fields) -> KeptKey:
    return KeptKey(kid, os.urandom(32), active_at - SCHEDULE.delay, active_at, **fields)


def states(kept: Kept, now: float) -> dict[str, str]:
    return {one.kid: rotation.state_of(kept, one, now) for one in kept.keys}


def ring(kept: Kept, now: float) -> Keyring:
    return Keyring(rotation.keys_of(kept, now), os.urandom)


def sealed(kept: Kept, now: float) -> bytes:
    return ring(kept, now).seal(PURPOSE, b"text", CONTEXT)


def opens(kept: Kept, now: float, made: bytes) -> bool:
    return ring(kept, now).open(PURPOSE, made, CONTEXT) == b"text"


THREE = Kept(7, (key("one", NOW - 100), key("two", NOW), key("three", NOW + 100)))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - 200, ["active", "pending", "pending"]),  # this clock is behind, and the first key works all the same
        (NOW - 100, ["active", "pending", "pending"]),
        (NOW - 0.1, ["active", "pending", "pending"]),
        (NOW, ["expired", "active", "pending"]),
        (NOW + 99.9, ["expired", "active", "pending"]),
        (NOW + 100, ["expired", "expired", "active"]),
        (NOW + 4000 * DAY, ["expired", "expired", "active"]),
    ],
)
def test_a_keys_state_follows_from_its_date_and_its_neighbours(now, expected):
    assert list(states(THREE, now).values()) == expected


@pytest.mark.parametrize("skew", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("now", [NOW - 150, NOW - 15, NOW, NOW + 15, NOW + 85, NOW + 115])
def test_nodes_that_disagree_about_the_time_understand_each_other(now, skew):
    """D53: 30 seconds apart, with keys in each state."""
    assert opens(THREE, now + skew, sealed(THREE, now))
    assert opens(THREE, now, sealed(THREE, now + skew))


def test_a_revoked_key_opens_nothing_at_once_and_for_ever():
    made = sealed(THREE, NOW)
    kept = rotation.revoked(THREE, "two", NOW, os.urandom)
    assert kept is not None
    assert states(kept, NOW) == {"one": "active", "two": "revoked", "three": "pending"}
    for now in (NOW, NOW + 1, NOW + 100, NOW + 1000 * DAY):
        assert not opens(kept, now, made)
    assert kept.of("two").secret == b""
    assert kept.edition == THREE.edition + 1
    assert rotation.revoked(kept, "two", NOW, os.urandom) is None
    assert rotation.revoked(kept, "four", NOW, os.urandom) is None


def test_whatever_is_revoked_some_key_works():
    kept = THREE
    for kid in ("three", "one", "two"):
        kept = rotation.revoked(kept, kid, NOW, os.urandom)
        assert list(states(kept, NOW).values()).count("active") == 1
        assert opens(kept, NOW, sealed(kept, NOW))
    assert len(kept.keys) == 4


def test_only_the_pending_key_is_left_and_works_although_its_time_has_not_come():
    kept = rotation.revoked(rotation.revoked(THREE, "one", NOW, os.urandom), "two", NOW, os.urandom)
    assert states(kept, NOW)["three"] == "active"
    assert len(kept.keys) == 3


def test_a_new_key_is_made_so_early_that_it_works_when_the_old_one_has_lived():
    kept = rotation.begun(NOW, os.urandom)
    assert states(kept, NOW) == {kept.keys[0].kid: "active"}
    made = NOW + SCHEDULE.life - SCHEDULE.delay
    assert rotation.due(kept, SCHEDULE, made - 0.1, os.urandom) is None
    after = rotation.due(kept, SCHEDULE, made, os.urandom)
    assert [one.active_at for one in after.keys] == [NOW, NOW + SCHEDULE.life]
    assert after.edition == 2
    assert rotation.due(after, SCHEDULE, made, os.urandom) is None
    assert len({one.secret for one in after.keys} | {one.kid for one in after.keys}) == 4


def test_who_sleeps_past_the_date_still_gives_a_new_key_its_delay():
    kept = rotation.begun(NOW, os.urandom)
    late = NOW + 3 * SCHEDULE.life
    after = rotation.due(kept, SCHEDULE, late, os.urandom)
    assert after.keys[-1].active_at == late + SCHEDULE.delay
    assert list(states(after, late).values()) == ["active", "pending"]


def test_a_key_is_removed_when_nothing_that_it_sealed_can_be_alive():
    kept = Kept(1, (key("one", NOW), key("two", NOW + DAY)))
    made = sealed(kept, NOW + DAY - 1)
    over = NOW + DAY + SCHEDULE.retention
    calm = Schedule(life=10_000 * DAY)
    assert rotation.due(kept, calm, over - 1, os.urandom) is None
    assert opens(kept, over - 1, made)
    after = rotation.due(kept, calm, over, os.urandom)
    assert [one.kid for one in after.keys] == ["two"]
    assert rotation.ends_at(kept, kept.keys[0], calm) == over
    assert rotation.ends_at(kept, kept.keys[1], calm) is None


def test_a_revoked_key_is_remembered_for_a_while():
    kept = Kept(1, (key("one", NOW, revoked_at=NOW), key("two", NOW)))
    calm = Schedule(life=10_000 * DAY)
    assert rotation.due(kept, calm, NOW + SCHEDULE.retention - 1, os.urandom) is None
    assert [one.kid for one in rotation.due(kept, calm, NOW + SCHEDULE.retention, os.urandom).keys] == ["two"]


def test_what_the_older_key_sealed_after_a_revocation_lives_as_long_as_anything():
    """It works again: its retention begins when the next one takes over, not when the revoked one did."""
    kept = Kept(1, (key("one", NOW), key("two", NOW + DAY)))
    kept = rotation.revoked(kept, "two", NOW + 50 * DAY, os.urandom)
    kept = rotation.due(kept, SCHEDULE, NOW + 100 * DAY, os.urandom)
    assert rotation.ends_at(kept, kept.keys[0], SCHEDULE) == NOW + 100 * DAY + SCHEDULE.delay + SCHEDULE.retention


def test_rotating_by_hand_makes_one_pending_key():
    kept = rotation.begun(NOW, os.urandom)
    after = rotation.rotated(kept, SCHEDULE, NOW + 5, os.urandom)
    assert list(states(after, NOW + 5).values()) == ["active", "pending"]
    assert after.keys[-1].active_at == NOW + 5 + SCHEDULE.delay
    assert rotation.rotated(after, SCHEDULE, NOW + 6, os.urandom) is None
    assert rotation.rotated(after, SCHEDULE, NOW + 5 + SCHEDULE.delay, os.urandom) is not None


class Node:
    """A process that looks at the store once a minute, with a clock of its own, and takes what it saw."""

    def __init__(self, skew: float, phase: float) -> None:
        self.skew, self.next = skew, phase
        self.kept: Kept | None = None

    def at(self, now: float, store: list[Kept]) -> None:
        while self.next <= now:
            mine = self.next + self.skew
            changed = rotation.due(store[-1], BUSY, mine, os.urandom)
            if changed is not None:
                store.append(changed)
            self.kept, self.next = store[-1], self.next + BUSY.every
            self.ring = ring(self.kept, mine)


BUSY = Schedule(delay=120.0, life=600.0, retention=DAY)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(0, 59.9)), min_size=2, max_size=4), st.integers(0, 1000))
def test_no_rotation_logs_anybody_out(nodes, offset):
    """D53: nodes a minute apart and a minute behind; whatever one seals, at any time, each other opens."""
    store = [rotation.begun(NOW, os.urandom)]
    met = [Node(*node) for node in nodes]
    last = 0.0
    kids = set()
    for step in range(160):
        now = NOW + 59.9 + offset / 100 + step * 7.3
        for node in met:
            node.next = node.next if node.kept is not None else NOW + node.next
            node.at(now, store)
        for one, other in product(met, met):
            made = one.ring.seal(PURPOSE, b"text", CONTEXT)
            kids.add(made[:8])
            assert other.ring.open(PURPOSE, made, CONTEXT) == b"text"
        last = now
    assert len(kids) >= 2, "keys rotated meanwhile"
    assert last > NOW + BUSY.life


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"delay": 119.0}, "delay must be at least 120 s"),
        ({"every": 600.0}, "delay must be at least 660 s"),
        ({"life": 599.0}, "life must not be under delay"),
        ({"retention": 3600.0}, "a day at least"),
        ({"every": 0.0}, "every is a number of seconds above 0"),
        ({"life": float("inf")}, "life is a number"),
        ({"delay": True}, "delay is a number"),
    ],
)
def test_a_schedule_that_would_log_people_out_is_refused(fields, fault):
    with pytest.raises(ConfigError, match=fault):
        Schedule(**fields).check()


def test_the_default_schedule_is_good():
    Schedule().check()
    BUSY.check()


def test_keys_come_out_of_their_bytes_as_they_went_in():
    kept = rotation.revoked(THREE, "two", NOW, os.urandom)
    assert rotation.unpacked(rotation.packed(kept)) == kept
    for broken in (b"", b"\x00", rotation.packed(kept)[:-1], b"\x92\x01\x91\x91\xa1x"):
        with pytest.raises(StoreError, match="newer coatcheck"):
            rotation.unpacked(broken)


def test_a_kept_key_shows_its_name_only():
    assert repr(THREE.keys[0]) == str(THREE.keys[0]) == "KeptKey('one')"
    assert THREE.keys[0].secret.hex() not in repr(THREE)
    assert repr(THREE.keys[0].secret) not in repr(THREE)
