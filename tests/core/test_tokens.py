"""The opaque token: one spelling, one judgement, and nothing done for who does not prove `family`.

Standards: TOK-01, TOK-03, TOK-06, TOK-07, TOK-09; drills: D01, D02, D07, D08, D09, D11.
"""

import os
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core import tokens
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Record, Ticket
from coatcheck.core.tokens import (
    TokenClass,
    family_proof,
    is_handle,
    judge,
    mint,
    next_turn,
    parse,
    shard_of,
    turn_proof,
    value_of,
)

REALM = b"__Host-coat"
TICKET = Ticket("A" * 18, b"B" * 24, b"C" * 24)
NONCE = bytes(range(32))
FORMER = Ticket(TICKET.handle, TICKET.family, b"F" * 24)
VALUE = b"c1." + b"A" * 18 + b"." + b"B" * 24 + b"." + b"C" * 24


def record(**changes):
    """Return a live record of TICKET, whose turn was first seen at 1,000."""
    fields = {
        "realm": REALM.decode(),
        "handle": TICKET.handle,
        "family_proof": family_proof(REALM, TICKET.handle, TICKET.family),
        "turn_proof": turn_proof(REALM, TICKET.handle, TICKET.family, TICKET.turn),
        "former_proof": turn_proof(REALM, TICKET.handle, TICKET.family, FORMER.turn),
        "used_at": 1000.0,
        "handed_at": 990.0,
        "created_at": 0.0,
        "seen_at": 1000.0,
        "idle_for": None,
        "expires_at": 1e9,
    }
    return Record(**{**fields, **changes})


def test_the_derivations_match_the_published_vector():
    """security.md 2.2."""
    assert family_proof(REALM, TICKET.handle, TICKET.family).hex() == (
        "efef40615d6c099c64018128e2fb3501581a39f2b0e9372820f530ed2b93f23e"
    )
    assert turn_proof(REALM, TICKET.handle, TICKET.family, TICKET.turn).hex() == (
        "09582b939d79955fdec2c9e4beff58deea5462ded54ac8799c5b0af94bb213f5"
    )
    assert next_turn(NONCE, TICKET) == b"vZuKgMjUG7GG_swOvhwSNTw0"


# -- spelling ----------------------------------------------------------------------------------------------------------


def test_a_token_reads_back():
    assert parse(VALUE) == TICKET
    assert value_of(TICKET) == VALUE
    assert len(VALUE) == 71


@given(st.binary(min_size=51, max_size=51))
def test_every_minted_token_reads_back(raw):
    ticket = mint(lambda size: raw[:size])
    assert parse(value_of(ticket)) == ticket
    assert tokens.is_handle(ticket.handle)


def variants():
    """Yield the token with each bit of each byte flipped."""
    for at in range(len(VALUE)):
        for bit in range(8):
            yield VALUE[:at] + bytes([VALUE[at] ^ 1 << bit]) + VALUE[at + 1 :]


def test_no_flipped_bit_leaves_a_session():
    """TOK-01, D11, M1: one spelling only."""
    for value in variants():
        ticket = parse(value)
        if ticket is not None and ticket.handle == TICKET.handle:
            assert judge(REALM, record(), ticket, 1000.0, 60.0)[0] in (TokenClass.GARBAGE, TokenClass.STALE)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"c1",
        b"c1...",
        VALUE + b"\n",
        VALUE + b"=",
        VALUE + b"\0",
        b" " + VALUE,
        VALUE[:-1],
        VALUE + b"C",
        VALUE.replace(b"c1", b"C1"),
        VALUE.replace(b"c1", b"c2"),
        VALUE.replace(b"C", b"!", 1),
        VALUE.replace(b"C", b"+", 1),
        VALUE.replace(b"C", b"/", 1),
        VALUE.replace(b"C", b"%", 1),
        VALUE.replace(b"C", b"\xff", 1),
        VALUE.replace(b".", b":"),
        VALUE + b"." + b"D" * 24,
        b"A" * 18,
        b"A" * 8192,
        b"' or 1=1 --",
        b"../../etc/passwd",
    ],
)
def test_anything_else_is_malformed(value):
    """TOK-06."""
    assert parse(value) is None


@pytest.mark.parametrize("text", ["", "A" * 17, "A" * 19, "A" * 17 + "\n", "A" * 18 + "\n", "A" * 17 + ".", "Ä" * 18])
def test_only_18_characters_of_the_alphabet_are_a_handle(text):
    assert not tokens.is_handle(text)


# -- minting -----------------------------------------------------------------------------------------------------------


def test_tokens_do_not_repeat_and_no_place_is_constant():
    """TOK-03: 50,000 tokens; unique in each part, every place of every part takes every character."""
    minted = [mint(os.urandom) for _ in range(50_000)]
    for part in ([t.handle.encode() for t in minted], [t.family for t in minted], [t.turn for t in minted]):
        assert len(set(part)) == len(minted)
        for place in range(len(part[0])):
            seen = Counter(text[place] for text in part)
            expected = len(minted) / 64
            assert len(seen) == 64
            # chi squared with 63 degrees of freedom: above 180 once in 10^12
            assert sum((number - expected) ** 2 / expected for number in seen.values()) < 180


def test_every_secret_bit_comes_from_the_source():
    """TOK-03: 51 bytes are asked for once; a change in any of the used 396 bits changes the token."""
    asked = []

    def source(size):
        asked.append(size)
        return bytes(size)

    zero = mint(source)
    assert asked == [51]
    changed = {
        value_of(mint(lambda size, n=n: (1 << n).to_bytes(size, "big"))) for n in range(51 * 8) if n >= 51 * 8 - 396
    }
    assert value_of(zero) not in changed
    assert len(changed) == 396


def test_parts_share_no_text():
    """TOK-07: nothing of the secret parts shows in the public one."""
    counter = count()
    ticket = mint(lambda size: bytes(next(counter) % 256 for _ in range(size)))
    assert ticket.family not in ticket.handle.encode()
    assert len({ticket.handle[:18].encode(), ticket.family[:18], ticket.turn[:18]}) == 3


def test_a_ticket_shows_its_handle_only():
    """L7."""
    assert repr(TICKET) == str(TICKET) == f"Ticket('{TICKET.handle}')"


# -- proofs ------------------------------------------------------------------------------------------------------------


def test_every_input_of_a_proof_counts():
    """TOK-09, D02, D09: realm, handle and family are in each hash; parts cannot be shifted into each other."""
    proofs = [
        family_proof(REALM, "A" * 18, b"B" * 24),
        family_proof(b"__Host-console", "A" * 18, b"B" * 24),
        family_proof(REALM, "a" * 18, b"B" * 24),
        family_proof(REALM, "A" * 18, b"b" * 24),
        turn_proof(REALM, "A" * 18, b"B" * 24, b"C" * 24),
        turn_proof(b"__Host-console", "A" * 18, b"B" * 24, b"C" * 24),
        turn_proof(REALM, "a" * 18, b"B" * 24, b"C" * 24),
        turn_proof(REALM, "A" * 18, b"b" * 24, b"C" * 24),
        turn_proof(REALM, "A" * 18, b"B" * 24, b"c" * 24),
        family_proof(REALM + b"A", "A" * 17, b"B" * 24),
        turn_proof(REALM, "A" * 18, b"B" * 23, b"BC" + b"C" * 23),
        tokens.csrf_key(REALM, b"B" * 24),
        tokens.csrf_key(b"__Host-console", b"B" * 24),
    ]
    assert len(set(proofs)) == len(proofs)
    assert {len(proof) for proof in proofs} == {32}


def test_a_successor_depends_on_all_and_is_the_same_each_time():
    """security.md 2.4: re-handing computes the same value."""
    other = [
        next_turn(NONCE[::-1], TICKET),
        next_turn(NONCE, FORMER),
        next_turn(NONCE, Ticket("a" * 18, TICKET.family, TICKET.turn)),
        next_turn(NONCE, Ticket(TICKET.handle, b"b" * 24, TICKET.turn)),
    ]
    assert next_turn(NONCE, TICKET) not in other
    assert len(set(other)) == 4
    assert parse(value_of(Ticket(TICKET.handle, TICKET.family, other[0])))


# -- judgement ---------------------------------------------------------------------------------------------------------

STRANGER = Ticket(TICKET.handle, b"X" * 24, TICKET.turn)
ANCIENT = Ticket(TICKET.handle, TICKET.family, b"Z" * 24)
TOMBSTONE = {"ended_at": 1.0, "ended_because": "logout", "turn_proof": None, "former_proof": None, "used_at": None}

CLASSES = {
    "current": (TICKET, {}, 0.0, 60.0, TokenClass.CURRENT),
    "current, long after": (TICKET, {}, 1e6, 60.0, TokenClass.CURRENT),
    "current, not yet seen": (TICKET, {"used_at": None}, 0.0, 60.0, TokenClass.CURRENT),
    "right turn, wrong family": (STRANGER, {}, 0.0, 60.0, TokenClass.GARBAGE),
    "right turn, wrong family, ended": (STRANGER, TOMBSTONE, 0.0, 60.0, TokenClass.GARBAGE),
    "ended": (TICKET, TOMBSTONE, 0.0, 60.0, TokenClass.ENDED),
    "ended, whatever turn": (ANCIENT, TOMBSTONE, 0.0, 60.0, TokenClass.ENDED),
    "former, successor unseen": (FORMER, {"used_at": None}, 0.0, 60.0, TokenClass.FORMER_OPEN),
    "former, successor unseen for an hour": (FORMER, {"used_at": None}, 3600.0, 60.0, TokenClass.FORMER_OPEN),
    "former, at first sight": (FORMER, {}, 0.0, 60.0, TokenClass.FORMER_GRACE),
    "former, arrived before it": (FORMER, {}, -30.0, 60.0, TokenClass.FORMER_GRACE),
    "former, in the grace": (FORMER, {}, 59.0, 60.0, TokenClass.FORMER_GRACE),
    "former, in the allowance for skew": (FORMER, {}, 64.999, 60.0, TokenClass.FORMER_GRACE),
    "former, grace and allowance over": (FORMER, {}, 65.0, 60.0, TokenClass.STRAGGLER),
    "former, just under five minutes": (FORMER, {}, 299.999, 60.0, TokenClass.STRAGGLER),
    "former, five minutes": (FORMER, {}, 300.0, 60.0, TokenClass.LATE),
    "former, a year": (FORMER, {}, 3e7, 60.0, TokenClass.LATE),
    "former, a grace beyond five minutes": (FORMER, {}, 604.999, 600.0, TokenClass.FORMER_GRACE),
    "former, after such a grace": (FORMER, {}, 605.0, 600.0, TokenClass.LATE),
    "older than former": (ANCIENT, {}, 0.0, 60.0, TokenClass.STALE),
    "older than former, successor unseen": (ANCIENT, {"used_at": None}, 0.0, 60.0, TokenClass.STALE),
    "no former kept": (FORMER, {"former_proof": None}, 0.0, 60.0, TokenClass.STALE),
    "no current kept": (TICKET, {"turn_proof": None}, 0.0, 60.0, TokenClass.STALE),
}


@pytest.mark.parametrize(("ticket", "changes", "since", "grace", "expected"), CLASSES.values(), ids=CLASSES.keys())
def test_a_token_is_classed_at_its_exact_bounds(ticket, changes, since, grace, expected):
    """security.md 2.5; D07, D08."""
    standing, proof = judge(REALM, record(**changes), ticket, 1000.0 + since, grace)
    assert standing is expected
    believed = standing not in (TokenClass.GARBAGE, TokenClass.ENDED)
    assert proof == (turn_proof(REALM, ticket.handle, ticket.family, ticket.turn) if believed else b"")


def test_a_token_of_another_realm_is_garbage():
    """C3, D09, D10."""
    assert judge(b"__Host-console", record(), TICKET, 1000.0, 60.0) == (TokenClass.GARBAGE, b"")


def test_a_turn_counts_only_under_its_own_family():
    """P2: the proof of a turn covers its family, so whoever knows only a handle, or a turn besides, has nothing."""
    borrowed = Ticket(TICKET.handle, STRANGER.family, TICKET.turn)
    for presented in (STRANGER, borrowed):
        assert judge(REALM, record(), presented, 1000.0, 60.0) == (TokenClass.GARBAGE, b"")
    assert judge(REALM, record(**TOMBSTONE), borrowed, 1000.0, 60.0) == (TokenClass.GARBAGE, b"")
    assert judge(REALM, record(**TOMBSTONE), TICKET, 1000.0, 60.0) == (TokenClass.ENDED, b"")


def test_guesses_with_a_known_handle_are_all_garbage():
    """D01."""
    known = record()
    for _ in range(2000):
        guess = mint(os.urandom)
        ticket = Ticket(TICKET.handle, guess.family, guess.turn)
        assert judge(REALM, known, ticket, 1000.0, 60.0)[0] is TokenClass.GARBAGE


def test_every_former_generation_is_recognised():
    """D07, P3: 500 renewals, three stored proofs, and no token ever issued is garbage."""
    chain = [TICKET]
    for number in range(500):
        chain.append(Ticket(TICKET.handle, TICKET.family, next_turn(number.to_bytes(32, "big"), chain[-1])))
    now = record(
        turn_proof=turn_proof(REALM, TICKET.handle, TICKET.family, chain[-1].turn),
        former_proof=turn_proof(REALM, TICKET.handle, TICKET.family, chain[-2].turn),
    )
    classes = [judge(REALM, now, ticket, 2000.0, 60.0)[0] for ticket in chain]
    assert classes == [TokenClass.STALE] * 499 + [TokenClass.LATE, TokenClass.CURRENT]


# Shards.


def test_a_subjects_shard_depends_on_salt_realm_and_subject_and_has_the_shape_of_a_handles_start() -> None:
    shards = {shard_of(salt, realm, subject) for salt in (b"a", b"b") for realm in ("x", "y") for subject in ("1", "2")}
    assert len(shards) == 8
    assert all(is_handle(shard + "A" * 16) for shard in shards)
    assert shard_of(b"a", "x", "1") == shard_of(b"a", "x", "1")


def test_shards_are_spread_over_all_4096() -> None:
    found = Counter(shard_of(b"salt", "", str(number)) for number in range(40_960))
    assert len(found) > 4_080
    assert max(found.values()) < 40


def test_a_manager_with_a_salt_mints_a_subject_into_its_shard() -> None:
    manager = SessionManager(realm="r")
    manager.salt = b"salt"
    shard = shard_of(b"salt", "r", "ann")
    assert {manager.mint("ann").handle[:2] for _ in range(50)} == {shard}
    assert len({manager.mint().handle[:2] for _ in range(50)}) > 10
    assert {manager.mint(None, "zz" + "A" * 16).handle[:2] for _ in range(50)} == {"zz"}
    assert {manager.mint("ann", "zz" + "A" * 16).handle[:2] for _ in range(50)} == {shard}
