"""Whoever does not hold the whole token holds nothing (D01, D02, D03, D11; TOK-01, TOK-05, TOK-06, TOK-08)."""

import gc
import os
import secrets
import string
import tracemalloc

import pytest

from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, OURS, Ask, House

FULL = os.environ.get("COATCHECK_DRILLS") == "full"
GUESSES = 100_000 if FULL else 2_000


def presenting(token: str | bytes) -> Ask:
    value = token if isinstance(token, bytes) else token.encode()
    return Ask("GET", "/me", ((b"cookie", f"{COOKIE}=".encode() + value), *OURS))


def guessed(handle: str) -> str:
    return f"c1.{handle}.{secrets.token_urlsafe(18)}.{secrets.token_urlsafe(18)}"


@pytest.mark.timeout(900)
def test_guesses_at_a_known_handle_are_answered_like_unknown_tokens_and_write_nothing(house: House) -> None:
    """D01 (TOK-05, H4, P2)."""
    victim = house.visitor()
    handle = victim.login().split(".")[1]
    unknown = house.ask(presenting(guessed("A" * 18)))
    assert unknown.status == 401
    house.ask_all(presenting(guessed(handle)) for _ in range(200))
    gc.collect()
    tracemalloc.start()
    commits, before = house.commits, tracemalloc.get_traced_memory()[0]
    answers: set[object] = set()
    for _ in range(0, GUESSES, 500):
        answers |= set(house.ask_all(presenting(guessed(handle)) for _ in range(500)))
    house.control.trouble.calls.clear()
    house.control.probe.seen.clear()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert answers == {unknown}, "some guess was answered in other bytes"
    assert house.commits == commits, "a guess was written down"
    assert grown < 64 * 1024, f"{grown} bytes stayed"
    assert victim.user == "alice"
    assert house.control.manager.noise.totals["session_garbage_token"] >= GUESSES


@pytest.mark.parametrize(
    "stolen",
    [
        "c1.{handle}.{wrong}.{turn}",
        "c1.{handle}.{turn}.{turn}",
        "c1.{handle}.{turn}.{family}",
        "c1.{other}.{family}.{turn}",
    ],
)
def test_the_right_parts_in_the_wrong_places_are_garbage(house: House, stolen: str) -> None:
    """D02."""
    victim, other = house.visitor(), house.visitor()
    _, handle, family, turn = victim.login().split(".")
    parts = {"handle": handle, "family": family, "turn": turn, "wrong": "A" * 24}
    other_handle = other.login("bob").split(".")[1]
    record, commits = house.record(victim.token or ""), house.commits
    assert house.ask(presenting(stolen.format(other=other_handle, **parts))).status == 401
    assert house.control.manager.noise.totals == {"session_garbage_token": 1}
    assert (house.record(victim.token or ""), house.commits) == (record, commits)
    assert victim.user == "alice"


def test_a_guess_at_an_ended_session_is_no_evidence_of_anything(house: House, clock: Clock) -> None:
    """D03 (TRM-13: the tombstone speaks to whoever proves the family, to nobody else)."""
    victim = house.visitor()
    token = victim.login()
    victim.post("/logout")
    unknown = house.ask(presenting(guessed("A" * 18)))
    commits = house.commits
    assert house.ask(presenting(guessed(token.split(".")[1]))) == unknown
    assert house.commits == commits
    assert house.events("session_use_after_expire") == []
    clock.wind(61)
    assert house.ask(presenting(token)).json["why"] == "logout"
    assert house.events("session_use_after_expire")[0].detail["because"] == "logout"


TURN = len("c1.") + 18 + 1 + 24 + 1


def test_every_flipped_bit_of_a_token_makes_it_nobodys(house: House) -> None:
    """D11 (TOK-01, M1): 8 bits of 71 bytes, none of them a session, none of them a crash.

    The last 24 bytes come last: who shows the right family with a wrong turn holds a token of this session, and is met
    as its thief (D07).
    """
    victim = house.visitor()
    token = victim.login().encode()

    def refused(places: range) -> None:
        flips = [
            token[:place] + bytes([token[place] ^ 1 << bit]) + token[place + 1 :]
            for place in places
            for bit in range(8)
        ]
        answers = house.ask_all(map(presenting, flips))
        assert {answer.status for answer in answers} == {401}
        assert {answer.token for answer in answers} == {None}

    refused(range(TURN))
    assert victim.user == "alice"
    refused(range(TURN, len(token)))
    assert len(house.control.records()) == 1


ALPHABET = string.ascii_letters + string.digits + "-_"


@pytest.mark.parametrize("end", [TURN - 27, TURN - 2, TURN + 23])
def test_a_part_has_one_spelling(build: Build, end: int) -> None:
    """D11 (M1): every other last character of a part; a decoder would take four of the 64 for the same."""
    house = build(on_theft="note")
    victim = house.visitor()
    token = victim.login()
    others = [token[:end] + letter + token[end + 1 :] for letter in ALPHABET if letter != token[end]]
    assert {answer.status for answer in house.ask_all(map(presenting, others))} == {401}
    assert victim.user == "alice"


JUNK = (b"!", b"\n", b"\r\n", b"\0", b"=", b"==", b"%00", b" ", b"\t", b'"', b"\\", b"+", b"/", b"\xff", b"A", b".")


@pytest.mark.parametrize("junk", JUNK)
def test_junk_anywhere_in_a_token_makes_it_nobodys(house: House, junk: bytes) -> None:
    """D11: in front, behind, and in each part; only space and tab around a value are not part of it."""
    victim = house.visitor()
    token = victim.login().encode()
    outside = [] if junk in (b" ", b"\t") else [junk + token, token + junk]
    inside = [token[:at] + junk + token[at:] for at in (2, 3, 10, 21, 22, 40, 46, 47, 60)]
    for answer in house.ask_all(map(presenting, outside + inside)):
        assert answer.status == 401
        assert answer.token is None
    assert victim.user == "alice"


FED = (
    b"",
    b"x" * 8000,
    b"\0" * 71,
    b"c1." + b"\xf0\x9f\xa7\xa5" * 17,
    b"' or 1=1 --",
    b'{"$ne": null}',
    b"../../etc/passwd",
    b"*" * 71,
    b"c1.%s.%s.%s" % (b"A" * 18, b"A" * 24, b"A" * 25),
    b"c2.%s.%s.%s" % (b"A" * 18, b"A" * 24, b"A" * 24),
    b"C1.%s.%s.%s" % (b"A" * 18, b"A" * 24, b"A" * 24),
    b'"c1.%s.%s.%s"' % (b"A" * 18, b"A" * 24, b"A" * 24),
    b"undefined",
)


@pytest.mark.parametrize("value", FED)
def test_what_is_no_token_reaches_no_store_and_is_not_reflected(house: House, value: bytes) -> None:
    """TOK-06."""
    answer = house.ask(presenting(value))
    assert answer.status == 401
    assert house.control.trouble.calls == []
    assert house.commits == 0
    if value:
        assert value not in answer.body + b"".join(line for pair in answer.headers for line in pair)


@pytest.mark.parametrize(
    "ask",
    [
        lambda token: Ask("GET", f"/me?{COOKIE}={token}", OURS),
        lambda token: Ask("GET", f"/me?sid={token}", OURS),
        lambda token: Ask("GET", "/me", (("authorization", f"Bearer {token}"), *OURS)),
        lambda token: Ask("GET", "/me", (("x-session", token), ("set-cookie", f"{COOKIE}={token}"), *OURS)),
        lambda token: Ask("GET", "/me", (("cookie2", f"{COOKIE}={token}"), *OURS)),
    ],
)
def test_a_token_counts_in_the_cookie_only(house: House, ask: object) -> None:
    """TOK-08."""
    token = house.visitor().login()
    assert house.ask(ask(token)).status == 401  # type: ignore[operator]


def test_a_new_visitor_is_never_given_the_token_that_he_brought(build: Build) -> None:
    """TOK-05, promise 3: strict."""
    house = build()
    brought = guessed("A" * 18)
    visitor = house.visitor(brought)
    assert visitor.get("/data?write=k").token is None, "H3: no cookie over the one that came"
    assert house.control.records() == []
    token = visitor.login()
    assert not set(brought.split(".")[1:]) & set(token.split(".")[1:])
