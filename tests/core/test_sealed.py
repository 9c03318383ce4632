"""The sealed token: one spelling, bound to all that it is for, cut only after it was sealed.

Rules: H9; drills: D49, D51, D53; standards: TOK-01, TOK-19, TOK-20.
"""

import itertools
import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import ConfigError, DataError, Key, Keyring, Sealed, SessionManager
from coatcheck.core import codec, records
from coatcheck.core.cookies import MOST_COOKIE, MOST_HEADER, CookieSpec
from coatcheck.core.model import Client, Held, Record, Request, Ticket
from coatcheck.core.sealed import MOST_CHUNKS, Sealer, canonical, check_store
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.nowhere import NoStore

SECRET = struct.pack("!4Q", 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
KEYS = Keyring([Key("k1", SECRET)], os.urandom)
REALM, ORIGIN, NAME = "__Host-coat", "https://shop.example", "__Host-coat"
TICKET = Ticket("A" * 18, b"B" * 24, b"C" * 24)


def sealer(**changed: Any) -> Sealer:
    """Return a sealer of three cookies; what it is bound to can be changed."""
    keys = changed.pop("keyring", KEYS)
    fields = {"realm": REALM, "spec": CookieSpec(name=changed.pop("name", NAME)), "origin": ORIGIN, **changed}
    chosen = Sealed(keyring=keys, most_chunks=fields.pop("most", 3), unsafe_irrevocable=fields.pop("alone", False))
    return Sealer(chosen, fields["realm"], fields["spec"], fields["origin"], comma_joined=False)


def record(data: dict[str, Any], **changed: Any) -> Record:
    fields = {
        "realm": REALM,
        "handle": TICKET.handle,
        "family_proof": b"",
        "turn_proof": None,
        "used_at": 1000.0,
        "handed_at": 1000.0,
        "data": codec.encode(data),
        "created_at": 1000.0,
        "seen_at": 1500.5,
        "idle_for": 3600.0,
        "expires_at": 87400.0,
        "subject": "alice",
        "authenticated_at": 1000.0,
        "methods": ("pwd", "otp"),
        "level": 20,
        "client": Client("192.0.2.7", "Probe"),
    }
    return Record(**{**fields, **changed})


def asking(header: bytes) -> Request:
    return Request("GET", "https", "/", ((b"cookie", header),))


EMPTY = asking(b"")


def header_of(*lines: bytes) -> bytes:
    """Return the Cookie header of a browser that got these Set-Cookie lines."""
    return b"; ".join(line.partition(b";")[0] for line in lines)


def values_of(lines: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return dict(line.partition(b";")[0].split(b"=", 1) for line in lines)  # type: ignore[misc]


def header_from(values: dict[bytes, bytes]) -> bytes:
    return b"; ".join(name + b"=" + value for name, value in values.items())


def opened(one: Sealer, header: bytes, name: str = NAME) -> Ticket | None:
    """Open what a Cookie header holds, as the manager does."""
    first = one._writers[0].find(header)
    assert isinstance(first, bytes), name
    return one.open(header, first)


LARGE = {f"key {number}": os.urandom(60).hex() for number in range(50)}  # about 7 KB: three cookies
SMALL = {"cart": [1, 2], "who": "ada"}


# The format.


def test_the_format_is_what_plain_cryptography_makes_of_the_rules() -> None:
    """H9, spelled out without any code of ours."""
    nonce = bytes(range(12))
    keys = Keyring([Key("k1", SECRET)], lambda size: bytes(range(size)))
    (cookie,) = sealer(keyring=keys).write(TICKET, record(SMALL), None, EMPTY)
    name, _, value = cookie.partition(b";")[0].partition(b"=")
    assert name == b"__Host-coat"
    content = msgspec.msgpack.encode(
        [
            *(b"B" * 24, b"C" * 24, codec.encode(SMALL), 1500.5, 1000.0, 87400.0, 3600.0),
            *("alice", 1000.0, ["pwd", "otp"], 20, False, None),
        ]
    )
    padded = bytes(-(12 + len(content) + 16) % 3) + content
    info = b"coatcheck/seal/1\0k1\0__Host-coat\0" + b"A" * 18
    key = HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(SECRET)
    context = b"s1\0k1\0__Host-coat\0__Host-coat\0https://shop.example\0" + b"A" * 18 + b"\x001"
    body = nonce + AESGCM(key).encrypt(nonce, padded, context)
    assert value == b"s1.k1." + b"A" * 18 + b".1." + urlsafe_b64encode(body)
    assert b"=" not in value


def test_the_vector() -> None:
    """A key of known bytes, a nonce of known bytes: this text and no other, in every release."""
    keys = Keyring([Key("k1", SECRET)], lambda size: bytes(range(size)))
    (cookie,) = sealer(keyring=keys).write(TICKET, record({"n": 1}), None, EMPTY)
    assert cookie.partition(b";")[0] == VECTOR


def test_the_activity_is_eight_bytes_under_the_same_key_and_another_name() -> None:
    keys = Keyring([Key("k1", SECRET)], lambda size: bytes(range(size)))
    cookie = sealer(keyring=keys).write_seen(TICKET.handle, 1234.5, None)
    name, _, value = cookie.partition(b";")[0].partition(b"=")
    assert name == b"__Host-coat-seen"
    info = b"coatcheck/seal/1\0k1\0__Host-coat\0" + b"A" * 18
    key = HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(SECRET)
    context = b"s1\0k1\0__Host-coat\0__Host-coat-seen\0https://shop.example\0" + b"A" * 18 + b"\x001"
    body = urlsafe_b64decode(value.split(b".")[4])
    assert AESGCM(key).decrypt(body[:12], body[12:], context) == struct.pack("!d", 1234.5)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=300) | st.binary(max_size=300), max_size=9),
    st.none() | st.text(min_size=1, max_size=40),
    st.booleans(),
)
def test_what_is_sealed_opens(data: dict[str, Any], subject: str | None, persistent: bool) -> None:
    one = sealer()
    kept = record(data, subject=subject, persistent=persistent)
    ticket = opened(one, header_of(*one.write(TICKET, kept, None, EMPTY)))
    assert ticket is not None
    assert (ticket.handle, ticket.family, ticket.turn) == (TICKET.handle, TICKET.family, TICKET.turn)
    held = ticket.held
    assert held is not None
    assert codec.decode(held.data) == data
    back = records.held(REALM, ticket, held, held.seen_at)
    fields = ("realm", "handle", "created_at", "seen_at", "idle_for", "expires_at", "subject", "authenticated_at")
    for name in (*fields, "methods", "level", "persistent"):
        assert getattr(back, name) == getattr(kept, name), name


def test_only_a_token_without_store_holds_who_was_at_the_other_end() -> None:
    for alone in (False, True):
        one = sealer(alone=alone)
        ticket = opened(one, header_of(*one.write(TICKET, record(SMALL), None, EMPTY)))
        assert ticket is not None
        assert ticket.held is not None
        assert ticket.held.client == (Client("192.0.2.7", "Probe") if alone else None)


def test_no_length_of_data_leaves_room_for_a_second_spelling() -> None:
    """M1: a multiple of three bytes, so the last character has no spare bits."""
    for length in range(9):
        (cookie,) = sealer().write(TICKET, record({"k": "x" * length}), None, EMPTY)
        text = cookie.partition(b";")[0].split(b".")[4]
        assert len(text) % 4 == 0
        assert not text.endswith(b"=")


def test_the_same_session_is_sealed_differently_each_time_and_shows_nothing() -> None:
    made = {sealer().write(TICKET, record({"word": "Ptarmigan"}), None, EMPTY) for _ in range(50)}
    assert len(made) == 50
    for (cookie,) in made:
        raw = urlsafe_b64decode(cookie.partition(b";")[0].split(b".")[4])
        assert b"Ptarmigan" not in raw
        assert b"alice" not in raw
        assert b"B" * 24 not in raw


# Nothing else opens.


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["one cookie", "three cookies"])
def test_no_flipped_bit_of_any_character_opens(data: dict[str, Any]) -> None:
    """TOK-01: each bit of each byte of each cookie, also those that make another base64 character or none."""
    one = sealer()
    values = values_of(one.write(TICKET, record(data), None, EMPTY))
    assert len(values) == (1 if data is SMALL else 3)
    bits = range(8) if data is SMALL else (0, 5)
    for name, value in values.items():
        for at, bit in itertools.product(range(len(value)), bits):
            spoiled = value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]
            if set(spoiled) & set(b"; \t,"):
                continue  # another cookie header altogether
            assert opened(one, header_from({**values, name: spoiled})) is None, (name, at, bit)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(b"-", b"+", 1),
        lambda text: text.replace(b"_", b"/", 1),
        lambda text: text + b"=",
        lambda text: text + b"====",
        lambda text: text + b"AAAA",
        lambda text: text[:-4],
        lambda text: text[:-1],
        lambda text: text[:9] + b"!" + text[9:],
        lambda text: b"",
        lambda text: b"AAAA",
        lambda text: text[::-1],
    ],
)
def test_no_other_spelling_of_the_same_bytes_opens(spoil: Any) -> None:
    one = sealer()
    while True:
        (cookie,) = one.write(TICKET, record(SMALL), None, EMPTY)
        head, _, text = cookie.partition(b";")[0].rpartition(b".")
        if b"-" in text and b"_" in text:
            break
    assert opened(one, head + b"." + text) is not None
    assert opened(one, head + b"." + spoil(text)) is None


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"s1", b"s1....", b"c1.AAAAAAAAAAAAAAAAAA.BBBBBBBBBBBBBBBBBBBBBBBB.CCCCCCCCCCCCCCCCCCCCCCCC"),
        *(b"s1.k1.AAAAAAAAAAAAAAAAAA.0.AAAA", b"s1.k1.AAAAAAAAAAAAAAAAAA.4.AAAA", b"s1.k1.AAAAAAAAAAAAAAAAAA.01.AAAA"),
        *(b"s1.k1.AAAAAAAAAAAAAAAAAA.1.", b"s1.k1.short.1.AAAA", b"s1.k1.AAAAAAAAAAAAAAAAAA.1.AAAA.AAAA"),
        *(
            b"s2.k1.AAAAAAAAAAAAAAAAAA.1.AAAA",
            b"s1.\xff\xfe.AAAAAAAAAAAAAAAAAA.1.AAAA",
            b"s1.k1.AAAAAAAAAAAAAAAAA\xe9.1.AAAA",
        ),
        b"s1.k1.AAAAAAAAAAAAAAAAAA.1." + b"A" * 16_000,
    ],
)
def test_what_we_did_not_make_is_refused_without_an_error(value: bytes) -> None:
    one = sealer()
    assert one.open(b"__Host-coat=" + value, value) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_noise_is_refused_without_an_error(noise: bytes) -> None:
    one = sealer()
    for value in (noise, b"s1." + noise, b"s1.k1." + b"A" * 18 + b".1." + urlsafe_b64encode(noise).rstrip(b"=")):
        assert one.open(b"", value) is None
        header = b"__Host-coat-seen=" + value
        ticket = Ticket(TICKET.handle, TICKET.family, TICKET.turn, HELD)
        assert one.seen_at(ticket, header) == HELD.seen_at


HELD = Held(b"B" * 24, b"C" * 24, b"", 100.0, 100.0, 900.0, None, None, None, (), 0, persistent=False)

ELSEWHERE: list[tuple[str, dict[str, Any]]] = [
    ("another realm", {"realm": "__Host-console"}),
    ("another cookie name", {"name": "__Host-other"}),
    ("another host", {"origin": "https://admin.example"}),
    ("another scheme", {"origin": "http://shop.example"}),
    ("another port", {"origin": "https://shop.example:8443"}),
    ("no origin", {"origin": ""}),
    ("another secret", {"keyring": Keyring([Key("k1", os.urandom(32))], os.urandom)}),
    ("another id of the same secret", {"keyring": Keyring([Key("k2", SECRET)], os.urandom)}),
]


@pytest.mark.parametrize(("where", "changed"), ELSEWHERE, ids=[where for where, _ in ELSEWHERE])
def test_a_sealed_cookie_is_noise_anywhere_else(where: str, changed: dict[str, Any]) -> None:
    """D49."""
    here, there = sealer(), sealer(**changed)
    for data in (SMALL, LARGE):
        values = list(values_of(here.write(TICKET, record(data), None, EMPTY)).values())
        names = [writer.name.encode() for writer in there._writers]
        header = header_from(dict(zip(names, values, strict=False)))
        assert there.open(header, values[0]) is None
    seen = here.write_seen(TICKET.handle, 500.0, None).partition(b"=")[2].partition(b";")[0]
    ticket = Ticket(TICKET.handle, TICKET.family, TICKET.turn, HELD)
    assert here.seen_at(ticket, b"__Host-coat-seen=" + seen) == 500.0
    assert there.seen_at(ticket, there._activity.name.encode() + b"=" + seen) == HELD.seen_at


@pytest.mark.parametrize("part", [1, 2, 3])
def test_key_id_handle_and_number_of_pieces_are_part_of_what_is_sealed(part: int) -> None:
    keys = Keyring([Key("k1", SECRET), Key("k2", os.urandom(32))], os.urandom)
    one = sealer(keyring=keys)
    (cookie,) = one.write(TICKET, record(SMALL), None, EMPTY)
    parts = cookie.partition(b";")[0].split(b".")
    assert opened(one, b".".join(parts)) is not None
    parts[part] = {1: b"k1", 2: b"A" * 17 + b"B", 3: b"2"}[part]
    assert opened(one, b".".join(parts) + b"; __Host-coat-1=") is None


def test_two_cookies_of_one_session_cannot_stand_for_each_other() -> None:
    """The small cookie as the session, and the session as the small one."""
    one = sealer()
    (cookie,) = one.write(TICKET, record({}), None, EMPTY)
    seen = one.write_seen(TICKET.handle, 9e9, None)
    swapped = b"__Host-coat=" + seen.partition(b"=")[2].partition(b";")[0]
    assert opened(one, swapped) is None
    ticket = Ticket(TICKET.handle, TICKET.family, TICKET.turn, HELD)
    swapped = b"__Host-coat-seen=" + cookie.partition(b"=")[2].partition(b";")[0]
    assert one.seen_at(ticket, swapped) == HELD.seen_at


def test_the_activity_of_another_session_does_not_count() -> None:
    """D52: nor does an older one, nor two different ones."""
    one = sealer()
    ticket = Ticket(TICKET.handle, TICKET.family, TICKET.turn, HELD)
    own, other = one.write_seen(TICKET.handle, 500.0, None), one.write_seen("B" * 18, 900.0, None)
    assert one.seen_at(ticket, header_of(own)) == 500.0
    assert one.seen_at(ticket, header_of(other)) == HELD.seen_at
    assert one.seen_at(ticket, header_of(one.write_seen(TICKET.handle, 50.0, None))) == HELD.seen_at
    assert one.seen_at(ticket, header_of(own, other)) == HELD.seen_at
    assert one.seen_at(ticket, b"") == HELD.seen_at


@pytest.mark.parametrize("state", ["active", "expired", "pending", "revoked"])
def test_a_keys_state_says_whether_it_still_opens(state: Any) -> None:
    """D53: as the keyring has it."""
    cookies = sealer().write(TICKET, record(SMALL), None, EMPTY)
    keys = Keyring([Key("k1", SECRET, state), Key("k2", os.urandom(32))], os.urandom)
    opens = keys.open("purpose", KEYS.seal("purpose", b"", b""), b"") is not None
    assert opens or state not in ("active", "expired")
    assert not (opens and state == "revoked")
    now = sealer(keyring=keys)
    assert (opened(now, header_of(*cookies)) is not None) is opens
    seen = sealer().write_seen(TICKET.handle, 500.0, None)
    held = Ticket(TICKET.handle, TICKET.family, TICKET.turn, HELD)
    assert now.seen_at(held, header_of(seen)) == (500.0 if opens else HELD.seen_at)


# Pieces (D51).


def test_a_text_is_cut_where_browsers_would_cut_it() -> None:
    one = sealer()
    lines = one.write(TICKET, record(LARGE), None, EMPTY)
    values = values_of(lines)
    assert list(values) == [b"__Host-coat", b"__Host-coat-1", b"__Host-coat-2"]
    sizes = [len(name) + len(value) for name, value in values.items()]
    assert sizes[:2] == [MOST_COOKIE, MOST_COOKIE]
    assert 0 < sizes[2] <= MOST_COOKIE
    assert len(header_from(values)) < MOST_HEADER
    assert all(line.endswith(b"; Path=/; Secure; HttpOnly; SameSite=Lax") for line in lines)
    ticket = opened(one, header_from(values))
    assert ticket is not None
    assert ticket.held is not None
    assert codec.decode(ticket.held.data) == LARGE


def test_pieces_mixed_dropped_or_reordered_open_nothing() -> None:
    """D51: every choice of pieces of two cookies of the same session but the two that were made."""
    one = sealer()
    first, second = (values_of(one.write(TICKET, record({**LARGE, "n": n}), None, EMPTY)) for n in (1, 2))
    opening = []
    for chosen in itertools.product([None, *first.values(), *second.values()], repeat=3):
        header = header_from({name: value for name, value in zip(first, chosen, strict=True) if value is not None})
        value = one._writers[0].find(header)
        if isinstance(value, bytes) and one.open(header, value) is not None:
            opening.append(chosen)
    assert opening == [tuple(first.values()), tuple(second.values())]


def test_pieces_left_over_are_ignored_and_taken_away_with_the_next_write() -> None:
    """D51: and only those that are there."""
    one = sealer()
    large = header_of(*one.write(TICKET, record(LARGE), None, EMPTY))
    small = one.write(TICKET, record(SMALL), None, asking(large))
    assert [line.partition(b"=")[0] for line in small] == [b"__Host-coat", b"__Host-coat-1", b"__Host-coat-2"]
    assert [b"Max-Age=0" in line for line in small] == [False, True, True]
    left_over = header_from({**dict(pair.split(b"=", 1) for pair in large.split(b"; ")), **values_of(small[:1])})
    ticket = opened(one, left_over)
    assert ticket is not None
    assert ticket.held is not None
    assert codec.decode(ticket.held.data) == SMALL
    assert len(one.write(TICKET, record(SMALL), None, asking(b"__Host-coat=x; other=y"))) == 1


def test_a_piece_that_came_twice_is_nobodys() -> None:
    one = sealer()
    header = header_of(*one.write(TICKET, record(LARGE), None, EMPTY))
    assert opened(one, header + b"; __Host-coat-2=AAAA") is None


def test_taking_away_takes_all_that_is_there() -> None:
    one = sealer()
    assert [line.partition(b"=")[0] for line in one.clear(asking(b"__Host-coat=x"))] == [b"__Host-coat"]
    header = b"__Host-coat=x; __Host-coat-1=y; __Host-coat-seen=z"
    lines = one.clear(asking(header))
    assert [line.partition(b"=")[0] for line in lines] == [b"__Host-coat", b"__Host-coat-1", b"__Host-coat-seen"]
    assert all(b"Max-Age=0" in line for line in lines)


def test_a_lasting_session_has_lasting_cookies() -> None:
    one = sealer()
    assert b"; Max-Age=60" in one.write(TICKET, record(SMALL), 60.0, EMPTY)[0]
    assert b"; Max-Age=60" in one.write_seen(TICKET.handle, 1.0, 60.0)


# Size.


@pytest.mark.parametrize("most", [1, 2, 3])
def test_what_does_not_fit_is_told_with_size_limit_and_advice(most: int) -> None:
    one = sealer(most=most)
    room = sum(MOST_COOKIE - len(writer.name) for writer in one._writers[:most])
    fits = max(length for length in range((most - 1) * 3000, most * 3100, 37) if fitting(one, {"k": "x" * length}))
    assert most * 2700 < fits < most * 3100 - 37
    with pytest.raises(DataError) as caught:
        one.write(TICKET, record({"small": 1, "large": "x" * (fits + 37)}), None, EMPTY)
    assert caught.value.key == "large"
    for said in (f"{most} cookie(s) hold {room}", "session['large']", "database", "store"):
        assert said in str(caught.value)


def fitting(one: Sealer, data: dict[str, Any]) -> int:
    """Return the size of the only or first cookie, 0 where the data does not fit."""
    try:
        return len(one.write(TICKET, record(data), None, EMPTY)[0].partition(b";")[0]) - 1
    except DataError:
        return 0


def test_the_exact_limit_is_reached() -> None:
    """No byte is given away, none is one too many."""
    one = sealer(most=1)
    largest = max(fitting(one, {"k": "x" * length}) for length in range(2800, 3100))
    assert MOST_COOKIE - 4 < largest <= MOST_COOKIE


# The choice.


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"keyring": "secret"}, "need a Keyring"),
        ({"store_down": "ignore"}, "'refuse' or 'reads'"),
        ({"monotonic": "credit"}, "a list, not a text"),
        ({"most_chunks": 0}, "1 to 3"),
        ({"most_chunks": 4}, "1 to 3"),
        ({"most_chunks": True}, "1 to 3"),
        ({"unsafe_irrevocable": True, "monotonic": ["credit"]}, "monotonic keys need a store"),
        ({"unsafe_irrevocable": True, "store_down": "reads"}, "drop one of them"),
    ],
)
def test_a_choice_that_is_unsafe_or_contradicts_itself_is_refused(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SessionManager(sealed=Sealed(**{"keyring": KEYS, **chosen}))


def test_a_limit_without_a_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="a session limit needs a store"):
        SessionManager(sealed=Sealed(keyring=KEYS, unsafe_irrevocable=True), limit=3)
    SessionManager(sealed=Sealed(keyring=KEYS), limit=3)


def test_the_store_and_the_choice_must_agree() -> None:
    """H9: without a store it must be called by its name."""
    sealed, alone = Sealed(keyring=KEYS), Sealed(keyring=KEYS, unsafe_irrevocable=True)
    check_store(None, MemoryStore())
    check_store(sealed, MemoryStore())
    check_store(alone, NoStore())
    for chosen, store, said in (
        (None, NoStore(), "there is no store"),
        (sealed, NoStore(), "cannot be taken back"),
        (alone, MemoryStore(), "but one was given"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_store(chosen, store)


def test_the_first_origin_is_the_one_that_is_sealed() -> None:
    assert canonical([]) == ""
    assert canonical(["https://shop.example", "https://www.shop.example"]) == "https://shop.example"
    with pytest.raises(ConfigError, match="keeps its order"):
        SessionManager(sealed=Sealed(keyring=KEYS), origins={"https://a.example", "https://b.example"})
    SessionManager(sealed=Sealed(keyring=KEYS), origins={"https://a.example"})


def test_neither_ticket_nor_what_it_holds_shows_a_secret() -> None:
    one = sealer()
    ticket = opened(one, header_of(*one.write(TICKET, record({"pin": "Ptarmigan"}), None, EMPTY)))
    assert ticket is not None
    for shown in (
        repr(ticket),
        str(ticket),
        repr(ticket.held),
        str(ticket.held),
        repr(Sealed(keyring=KEYS)),
        f"{one!r}",
    ):
        for secret in ("BBBB", "CCCC", "Ptarmigan", SECRET.hex(), repr(SECRET)[2:-1]):
            assert secret not in shown


def test_there_are_at_most_three_pieces() -> None:
    assert MOST_CHUNKS * MOST_COOKIE < MOST_HEADER <= (MOST_CHUNKS + 1) * MOST_COOKIE


VECTOR = (
    b"__Host-coat=s1.k1.AAAAAAAAAAAAAAAAAA.1."
    b"AAECAwQFBgcICQoLGFYOv-u783-8oCcHIhDNxMV_69m26iosPshcsUGiR7Dcdct0FcKLw7-3bMnIcuFsC9Ikgg4di6"
    b"HMcE89v_Lv3nbmCi27uFQBMEWMx2I3Ub6G7zx8EOOzsxuK_ym2yF5uXiYYB8cYwGOMmPiYQ50qe5yzbxCK65cv9c0e"
    b"SqMwHHLF_25V5G-95qS-BFVI"
)


def test_secrecy_beside_sealed_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="drop one of them"):
        SessionManager(sealed=Sealed(keyring=Keyring([Key("k", os.urandom(32))], os.urandom)), secrecy=True)
