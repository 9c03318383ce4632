"""Keys: each for a purpose, rotated without logging anybody out, refused when weak.

Standards: TOK-19, TOK-20; drills: D46, D53.
"""

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.errors import ConfigError, StoreError
from coatcheck.core.keyring import Key, Keyring, _derived

ONE, TWO = os.urandom(32), os.urandom(48)
PURPOSE, CONTEXT = "sealed token", b"realm\0handle"


def ring(*keys):
    return Keyring(keys, os.urandom)


both = ring(Key("one", ONE), Key("two", TWO))


@given(st.binary(max_size=200), st.binary(max_size=40), st.text(max_size=20))
def test_what_is_sealed_opens_and_what_is_signed_verifies(plain, context, purpose):
    assert both.open(purpose, both.seal(purpose, plain, context), context) == plain
    assert both.verify(purpose, plain, both.sign(purpose, plain))


def test_the_same_seals_differently_each_time():
    sealed = {both.seal(PURPOSE, b"text", CONTEXT) for _ in range(100)}
    assert len(sealed) == 100
    assert not any(b"text" in one for one in sealed)


def test_purpose_context_and_kind_are_kept_apart():
    sealed, signed = both.seal(PURPOSE, b"text", CONTEXT), both.sign(PURPOSE, b"text")
    assert both.open("other", sealed, CONTEXT) is None
    assert both.open(PURPOSE, sealed, b"realm\0other") is None
    assert both.open(PURPOSE, sealed, b"") is None
    assert not both.verify("other", b"text", signed)
    assert not both.verify(PURPOSE, b"texts", signed)
    assert both.open(PURPOSE, signed, CONTEXT) is None
    assert not both.verify(PURPOSE, b"text", sealed)


def test_each_key_act_and_purpose_has_a_key_of_its_own():
    keys = [_derived(Key(kid, ONE), act, purpose) for kid in "ab" for act in ("seal", "sign") for purpose in ("p", "q")]
    assert len(set(keys)) == 8
    assert ONE not in keys


def test_no_flipped_bit_opens_or_verifies():
    sealed, signed = both.seal(PURPOSE, b"text", CONTEXT), both.sign(PURPOSE, b"text")
    for at in range(len(sealed)):
        assert both.open(PURPOSE, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], CONTEXT) is None
    for at in range(len(signed)):
        assert not both.verify(PURPOSE, b"text", signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :])


@pytest.mark.parametrize(
    "made", [b"", b".", b"two", b"two.", b"two." + bytes(27), b"two." + bytes(28), b"no.x", b"\xff."]
)
def test_what_we_did_not_make_is_refused(made):
    assert both.open(PURPOSE, made, CONTEXT) is None
    assert not both.verify(PURPOSE, b"text", made)


@given(st.binary(max_size=120))
def test_noise_is_refused_without_an_error(made):
    assert both.open(PURPOSE, b"two." + made, CONTEXT) is None
    assert not both.verify(PURPOSE, b"text", made)


def test_the_newest_active_key_works():
    assert both.newest.kid == "two"
    assert both.seal(PURPOSE, b"", b"").startswith(b"two.")
    assert both.sign(PURPOSE, b"").startswith(b"two.")
    assert (
        ring(Key("one", ONE), Key("two", TWO, "expired"), Key("three", os.urandom(32), "pending")).newest.kid == "one"
    )


@pytest.mark.parametrize(
    ("state", "opens"), [("active", True), ("expired", True), ("pending", True), ("revoked", False)]
)
def test_a_keys_state_says_whether_it_still_opens(state, opens):
    """TOK-19, D53."""
    old = ring(Key("one", ONE))
    sealed, signed = old.seal(PURPOSE, b"text", CONTEXT), old.sign(PURPOSE, b"text")
    now = ring(Key("one", ONE, state), Key("two", TWO))
    assert (now.open(PURPOSE, sealed, CONTEXT) == b"text") is opens
    assert now.verify(PURPOSE, b"text", signed) is opens


def test_a_removed_key_opens_nothing():
    sealed = ring(Key("one", ONE)).seal(PURPOSE, b"text", CONTEXT)
    assert ring(Key("two", TWO)).open(PURPOSE, sealed, CONTEXT) is None


def test_a_rotation_node_by_node_logs_nobody_out():
    """D53: in each of the steps some nodes are a step behind, and each opens what the other sealed."""
    steps = [
        ring(Key("one", ONE)),
        ring(Key("one", ONE), Key("two", TWO, "pending")),
        ring(Key("one", ONE), Key("two", TWO)),
        ring(Key("one", ONE, "expired"), Key("two", TWO)),
    ]
    for behind, ahead in pairwise(steps):
        assert behind.open(PURPOSE, ahead.seal(PURPOSE, b"text", CONTEXT), CONTEXT) == b"text"
        assert ahead.open(PURPOSE, behind.seal(PURPOSE, b"text", CONTEXT), CONTEXT) == b"text"


def test_a_revoked_key_is_not_reborn_under_another_name():
    """What one key made cannot be passed off as another's, were their secrets the same."""
    sealed, signed = ring(Key("one", ONE)).seal(PURPOSE, b"text", CONTEXT), ring(Key("one", ONE)).sign(PURPOSE, b"text")
    renamed = ring(Key("two", ONE))
    assert renamed.open(PURPOSE, sealed.replace(b"one.", b"two."), CONTEXT) is None
    assert not renamed.verify(PURPOSE, b"text", signed.replace(b"one.", b"two."))
    with pytest.raises(ConfigError, match="new secret"):
        ring(Key("one", ONE, "revoked"), Key("two", ONE))


WEAK = {
    "empty": b"",
    "short": os.urandom(31),
    "one byte": b"\0" * 32,
    "one letter": b"a" * 64,
    "counting": bytes(range(32)),
    "counting by letters": b"abcdefghijklmnopqrstuvwxyz012345",
    "digits": b"1234567890" * 4,
    "a repeated block": b"Xk29fjQe" * 4,
    "a sample": b"django-insecure-h3k9s8d7f6g5h4j3k2l1",
    "changeme": b"ChangeMe-9f8a7s6d5f4g3h2j1k0lqwert",
    "a password": b"my-super-Password-1984-for-production",
}


@pytest.mark.parametrize("secret", WEAK.values(), ids=WEAK.keys())
def test_a_weak_secret_is_refused_and_not_shown(secret):
    """TOK-20."""
    with pytest.raises(ConfigError, match="openssl rand") as caught:
        ring(Key("one", secret))
    assert not secret or secret.decode("latin-1") not in str(caught.value)


def test_random_secrets_pass_however_they_are_written():
    for _ in range(300):
        for secret in (os.urandom(32), os.urandom(32).hex().encode(), os.urandom(16).hex().encode()):
            Key("one", secret).check()


@pytest.mark.parametrize("kid", ["", "a.b", "a b", "ä", "a" * 33, "a\n"])
def test_a_keys_id_is_a_plain_word(kid):
    with pytest.raises(ConfigError, match="its id must be"):
        ring(Key(kid, ONE))


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ([], "no active key"),
        ([Key("one", ONE, "expired")], "no active key"),
        ([Key("one", ONE), Key("one", TWO)], "two keys are named"),
    ],
)
def test_a_ring_that_cannot_work_is_refused(keys, fault):
    with pytest.raises(ConfigError, match=fault):
        ring(*keys)


def test_a_key_shows_its_name_only():
    assert repr(Key("one", ONE)) == str(Key("one", ONE)) == "Key('one', active)"


def test_a_ring_that_was_not_read_yet_says_so_instead_of_refusing_everybody():
    sealed, signed = both.seal(PURPOSE, b"text", CONTEXT), both.sign(PURPOSE, b"text")
    unread = Keyring.unread(os.urandom)
    acts = [
        lambda: unread.seal(PURPOSE, b"", b""),
        lambda: unread.sign(PURPOSE, b""),
        lambda: unread.open(PURPOSE, sealed, CONTEXT),
        lambda: unread.verify(PURPOSE, b"text", signed),
    ]
    for act in acts:
        with pytest.raises(StoreError, match="not been read"):
            act()
    unread.replace([Key("one", ONE), Key("two", TWO)])
    assert unread.open(PURPOSE, sealed, CONTEXT) == b"text"
    unread.forget()
    with pytest.raises(StoreError, match="not been read"):
        unread.open(PURPOSE, sealed, CONTEXT)


def test_keys_are_replaced_by_good_ones_only():
    now = ring(Key("one", ONE))
    for worse in ([], [Key("two", b"short")], [Key("two", TWO, "expired")]):
        with pytest.raises(ConfigError):
            now.replace(worse)
        assert now.newest.kid == "one"
