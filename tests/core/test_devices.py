"""What is remembered of a subject's browsers: little, for a while, and nothing that a dump of the store could use."""

from msgspec.structs import replace

from coatcheck.core.cookies import CookieSpec
from coatcheck.core.devices import DAY, KNOWN_FOR, MOST_DEVICES, NOTED_EVERY, Devices, Sighting
from coatcheck.core.model import Insert, Record, Request, Update

NOW = 1_800_000_000.0


class Dice:
    """Entropy that never repeats."""

    def __init__(self) -> None:
        self.thrown = 0

    def __call__(self, count: int) -> bytes:
        self.thrown += 1
        return self.thrown.to_bytes(count)


def devices(realm: str = "shop") -> Devices:
    return Devices(CookieSpec(), realm, Dice())


def seen(
    known: Devices, cookie: bytes, memory: Record | None = None, subject: str = "alice", at: float = NOW
) -> Sighting:
    headers = [(b"cookie", cookie)] if cookie else []
    return known.sighted(Request("POST", "https", "/login", headers), subject, memory, at)


def brought(sighting: Sighting) -> bytes:
    return b"__Host-coat-d=" + sighting.value


def noted(known: Devices, sighting: Sighting, at: float = NOW) -> Record:
    change = known.noted(sighting, at)
    assert change is not None
    return change.record


def test_a_browser_is_new_once_and_known_for_a_year_after_its_last_login() -> None:
    known = devices()
    first = seen(known, b"")
    assert (first.is_new, first.known) == (True, {})
    memory = noted(known, first)
    assert not seen(known, brought(first), memory).is_new
    assert not seen(known, brought(first), memory, at=NOW + KNOWN_FOR - 1).is_new
    assert seen(known, brought(first), memory, at=NOW + KNOWN_FOR).is_new
    again = noted(known, seen(known, brought(first), memory, at=NOW + 40 * DAY), NOW + 40 * DAY)
    assert not seen(known, brought(first), again, at=NOW + KNOWN_FOR + 39 * DAY).is_new


def test_a_known_browser_is_noted_again_after_a_month_and_not_before() -> None:
    known = devices()
    first = seen(known, b"")
    insert = known.noted(first, NOW)
    assert isinstance(insert, Insert)
    later = seen(known, brought(first), insert.record)
    assert known.noted(later, NOW + NOTED_EVERY - 1) is None
    update = known.noted(later, NOW + NOTED_EVERY)
    assert isinstance(update, Update)
    assert (update.was, update.record.version) == (1, 2)
    assert update.record.expires_at == NOW + NOTED_EVERY + KNOWN_FOR


def test_the_newest_browsers_are_remembered_and_no_more() -> None:
    known = devices()
    memory: Record | None = None
    sightings = []
    for number in range(MOST_DEVICES + 5):
        sighting = seen(known, b"", memory, at=NOW + number)
        memory = noted(known, sighting, NOW + number)
        sightings.append(sighting)
    still = [not seen(known, brought(one), memory, at=NOW + 99).is_new for one in sightings]
    assert still == [False] * 5 + [True] * MOST_DEVICES
    assert memory is not None
    assert len(memory.data) < 40 * MOST_DEVICES


def test_what_is_kept_is_no_cookie_and_says_nothing_of_other_accounts() -> None:
    known = devices()
    alice = seen(known, b"")
    bob = seen(known, brought(alice), subject="bob")
    elsewhere = seen(devices("console"), brought(alice))
    assert alice.value == bob.value == elsewhere.value
    assert len({alice.device, bob.device, elsewhere.device}) == 3
    record = noted(known, alice)
    kept = repr((record.data, record.handle, record.realm, record.family_proof, record.turn_proof)).encode()
    assert alice.value not in kept
    assert b"alice" not in kept
    assert (record.subject, record.client, record.realm) == (None, None, "shop/devices")
    assert known.handle_of("alice") == record.handle != known.handle_of("bob")
    assert known.handle_of("alice") != devices("console").handle_of("alice")


def test_what_is_no_cookie_of_ours_is_another_browser() -> None:
    known = devices()
    first = seen(known, b"")
    memory = noted(known, first)
    for cookie in (
        b"__Host-coat-d=",
        b"__Host-coat-d=" + first.value[:-1],
        b"__Host-coat-d=" + first.value + b"A",
        b"__Host-coat-d=" + first.value[:-1] + b"!",
        b"__Host-coat=" + first.value,
        brought(first) + b"; __Host-coat-d=" + b"A" * 24,
    ):
        other = seen(known, cookie, memory)
        assert (other.is_new, other.value != first.value, len(other.value)) == (True, True, 24), cookie


def test_a_memory_that_ended_or_is_empty_knows_nobody() -> None:
    known = devices()
    first = seen(known, b"")
    memory = noted(known, first)
    assert seen(known, brought(first), replace(memory, ended_at=NOW, ended_because="absolute")).is_new
    assert seen(known, brought(first), replace(memory, data=b"")).is_new


def test_the_cookie_is_for_one_host_for_a_year_and_for_no_script() -> None:
    known = devices()
    first = seen(known, b"")
    record = replace(noted(known, first), subject="alice")
    events, line = known.told(first, record, ())
    assert line == b"%b; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=31536000" % brought(first)
    assert [(one.name, one.detail) for one in events] == [("authn_new_device", {"first": True})]
    later = seen(known, brought(first), record)
    assert known.told(later, record, ()) == ((), line)
