"""Secrets from the environment, from files and from functions: read strictly, refused when weak, never shown."""

import os
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256

import pytest

from coatcheck.core.errors import ConfigError
from coatcheck.flow.sources import (
    keyring_from_environment,
    keyring_from_file,
    roots_from,
    roots_from_environment,
    roots_from_file,
)

ONE, TWO = sha256(b"one").digest(), sha256(b"two").digest()


def spelt(secret: bytes) -> str:
    return b64encode(secret).decode()


def private(path, text: str, mode: int = 0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_keyring_from_the_environment():
    text = f" old:expired:{spelt(ONE)},\n new:{spelt(TWO)} "
    ring = keyring_from_environment(environment={"COATCHECK_KEYS": text})
    assert ring.newest.kid == "new"
    assert ring.newest.secret == TWO
    assert {kid: (key.secret, key.state) for kid, key in ring._keys.items()} == {
        "old": (ONE, "expired"),
        "new": (TWO, "active"),
    }


def test_a_keyring_from_a_file_one_key_a_line(tmp_path):
    text = f"# made in spring\nold:pending:{spelt(ONE)}\n\nnew:{spelt(TWO)}  # and this one works\n"
    ring = keyring_from_file(private(tmp_path / "keys", text))
    assert [(key.kid, key.state) for key in ring._keys.values()] == [("old", "pending"), ("new", "active")]


@pytest.mark.parametrize("write", [spelt, lambda raw: urlsafe_b64encode(raw).decode().rstrip("=")])
def test_either_alphabet_padded_or_not(write):
    secret = b"\xfb\xff\xfe" + os.urandom(30)
    assert keyring_from_environment(environment={"COATCHECK_KEYS": f"k:{write(secret)}"}).newest.secret == secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666, 0o610])
@pytest.mark.parametrize("read", [keyring_from_file, roots_from_file])
def test_a_file_that_others_may_open_is_refused(tmp_path, mode, read):
    path = private(tmp_path / "keys", f"k:{spelt(ONE)}", mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}.*chmod 600"):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none cannot be read"):
        keyring_from_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "COATCHECK_KEYS is not set.*openssl rand"),
        ("  \n", "COATCHECK_KEYS is not set"),
        (spelt(ONE), "entry 1 is no key"),
        (f":{spelt(ONE)}", "entry 1 is no key"),
        ("k:", "entry 1 is no key"),
        (f"k:working:{spelt(ONE)}", "entry 1 is no key"),
        (f"k:active:active:{spelt(ONE)}", "entry 1 is no key"),
        (f"k:{spelt(ONE)},j:not*base64", "entry 2 is not written in base64"),
        ("k:A", "entry 1 is not written in base64"),
        (f"k:{spelt(ONE[:16])}", "has 16 bytes"),
        (f"k:{spelt(b'changeme' * 5)}", "looks like a sample"),
        (f"k:{spelt(b'a' * 32)}", "looks like a sample"),
        (f"k:{spelt(ONE)},k:{spelt(TWO)}", "two keys are named"),
        (f"k:{spelt(ONE)},j:{spelt(ONE)}", "new secret"),
        (f"k:expired:{spelt(ONE)}", "no active key"),
        (f"a.b:{spelt(ONE)}", "its id must be"),
    ],
)
def test_a_faulty_keyring_is_refused_without_showing_it(text, fault):
    with pytest.raises(ConfigError, match=fault) as caught:
        keyring_from_environment(environment={"COATCHECK_KEYS": text})
    assert spelt(ONE) not in str(caught.value)


def test_roots_current_first_then_the_former(tmp_path):
    path = private(tmp_path / "root", f"{spelt(TWO)}\n{spelt(ONE)}  # the former\n")
    both = roots_from_file(path)
    assert both.is_former(roots_from_environment(environment={"COATCHECK_ROOT_SECRET": spelt(ONE)}).wrap("x", b""))
    assert not both.is_former(both.wrap("x", b""))
    assert roots_from(lambda: TWO).unwrap("x", both.wrap("x", b"plain")) == b"plain"
    assert roots_from(lambda: [ONE, TWO]).unwrap("x", both.wrap("x", b"plain")) == b"plain"


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "COATCHECK_ROOT_SECRET is not set"), ("***", "not written in base64"), (spelt(ONE[:8]), "has 8 bytes")],
)
def test_a_faulty_root_is_refused(text, fault):
    with pytest.raises(ConfigError, match=fault):
        roots_from_environment(environment={"COATCHECK_ROOT_SECRET": text})


def test_what_a_function_raises_passes():
    def away() -> bytes:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        roots_from(away)
