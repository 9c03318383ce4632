"""Root secrets: what they wrap can be read, changed or moved by nobody who lacks them (C2, D46)."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.errors import ConfigError, StoreError
from coatcheck.core.roots import Roots

OLD, NEW = os.urandom(32), os.urandom(48)
PLAIN = b"what is wrapped"


def roots(*secrets: bytes) -> Roots:
    return Roots(secrets, os.urandom)


@given(st.binary(max_size=300), st.text(max_size=20))
def test_what_is_wrapped_comes_out_again(plain, name):
    wrapped = roots(OLD).wrap(name, plain)
    assert roots(OLD).unwrap(name, wrapped) == plain
    assert plain not in wrapped or len(plain) < 4


def test_the_same_is_wrapped_differently_each_time():
    assert len({roots(OLD).wrap("ring", PLAIN) for _ in range(100)}) == 100


def test_the_former_secret_still_unwraps_and_the_current_one_wraps():
    before = roots(OLD).wrap("ring", PLAIN)
    both = roots(NEW, OLD)
    assert both.unwrap("ring", before) == PLAIN
    assert both.is_former(before)
    after = both.wrap("ring", PLAIN)
    assert not both.is_former(after)
    assert roots(NEW).unwrap("ring", after) == PLAIN


def test_another_root_is_named_as_the_fault():
    with pytest.raises(ConfigError, match="root secret that was not given"):
        roots(NEW).unwrap("ring", roots(OLD).wrap("ring", PLAIN))


def test_no_flipped_bit_no_cut_and_no_other_name_unwraps():
    wrapped = roots(OLD).wrap("ring", PLAIN)
    for at in range(len(wrapped)):
        with pytest.raises((StoreError, ConfigError)):
            roots(OLD).unwrap("ring", wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :])
        with pytest.raises((StoreError, ConfigError)):
            roots(OLD).unwrap("ring", wrapped[:at])
    with pytest.raises(StoreError, match="changed by somebody"):
        roots(OLD).unwrap("other", wrapped)
    with pytest.raises(StoreError, match="upgrade"):
        roots(OLD).unwrap("ring", b"\x02" + wrapped[1:])


@pytest.mark.parametrize(
    ("secrets", "fault"),
    [
        ([], "one root secret"),
        ([OLD, NEW, os.urandom(32)], "one root secret"),
        ([b""], "current root secret: it has 0 bytes"),
        ([OLD[:31]], "it has 31 bytes"),
        ([b"a" * 32], "looks like a sample"),
        ([OLD, b"changeme-changeme-changeme-changeme"], "former root secret: it looks like a sample"),
        ([OLD, OLD], "give it once"),
    ],
)
def test_weak_and_contradictory_roots_are_refused(secrets, fault):
    with pytest.raises(ConfigError, match=fault):
        roots(*secrets)


def test_roots_show_nothing():
    shown = repr(roots(OLD, NEW))
    assert shown == "<Roots: 2>"
