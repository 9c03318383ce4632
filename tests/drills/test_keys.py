"""With the whole store in hand, wrapped keys included: nothing is forged without the root secret (C2, D45, D46)."""

import base64
import itertools
import os
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from coatcheck.core import csrf, rotation, tokens
from coatcheck.core.errors import ConfigError, StoreError
from coatcheck.core.keyring import Key, Keyring
from coatcheck.core.roots import Roots
from coatcheck.flow.keys import NAME, Keys
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, OURS, Ask
from .test_secrets_stay_secret import builtins_of, leaves

ROOT = sha256(b"a root secret of this drill").digest()
PURPOSE, CONTEXT = "sealed token", b"realm\0handle"


@pytest.fixture
def keys(store: Any, clock: Clock) -> Keys:
    """Return keys in this test's store, some of them in each state."""
    keys = Keys(store, Roots([ROOT], os.urandom), clock=clock)
    keys.look()
    for _ in range(3):
        keys.rotate()
        clock.wind(601)
        keys.look()
    kept, _ = keys.peek()
    keys.revoke(kept.keys[1].kid)
    keys.rotate()
    kept, now = keys.peek()
    assert {rotation.state_of(kept, key, now) for key in kept.keys} == {"pending", "active", "expired", "revoked"}
    return keys


def stolen(store: Any) -> set[bytes]:
    """Return every value that the store holds, whole and unwrapped from its text."""
    if isinstance(store, MemoryStore):
        found = set(leaves(builtins_of(vars(store._shelf))))
    else:
        found = set()
        with sqlite3.connect(store._file.path) as db:
            for (table,) in db.execute("select name from sqlite_schema where type = 'table'").fetchall():
                found |= set(leaves(db.execute(f"select * from {table}").fetchall()))
        db.close()
    return found | {decoded for value in found if (decoded := unspelt(value)) is not None}


def unspelt(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return None


def secrets_in(values: set[bytes]) -> Iterator[bytes]:
    """Yield whatever of a dump could be a secret of 24 bytes or more: each value, and each part of a long one."""
    for value in values:
        yield value
        for length in (24, 32, 48):
            yield from (value[at : at + length] for at in range(len(value) - length + 1))


def test_no_key_stands_in_the_store(keys: Keys, store: Any) -> None:
    """C2: in no spelling; and no id of one either."""
    kept, _ = keys.peek()
    dump = b"\n".join(stolen(store))
    for key in kept.keys:
        assert key.kid.encode() not in dump
        for spelling in (key.secret, key.secret.hex().encode(), base64.b64encode(key.secret)):
            assert not key.secret or spelling not in dump
    assert store.keys()[NAME] in stolen(store), "the dump is whole"


def test_nothing_that_is_stored_forges_what_is_sealed_or_signed(keys: Keys, store: Any) -> None:
    """D46: every stored value, and every window of it, as the root secret and as each key."""
    kept, _ = keys.peek()
    ring, wrapped = keys.ring, store.keys()[NAME]
    sealed, signed = ring.seal(PURPOSE, b"admin", CONTEXT), ring.sign(PURPOSE, b"admin")
    tried = 0
    for secret in secrets_in(stolen(store)):
        if len(secret) < 32:
            continue
        try:
            roots = Roots([secret], os.urandom)
        except ConfigError:
            continue
        tried += 1
        with pytest.raises((ConfigError, StoreError)):
            roots.unwrap(NAME, wrapped)
        for kid in (key.kid for key in kept.keys):
            forger = Keyring([Key(kid, secret)], os.urandom)
            assert ring.open(PURPOSE, forger.seal(PURPOSE, b"admin", CONTEXT), CONTEXT) is None
            assert not ring.verify(PURPOSE, b"admin", forger.sign(PURPOSE, b"admin"))
            assert forger.open(PURPOSE, sealed, CONTEXT) is None
            assert forger.sign(PURPOSE, b"admin") != signed
            if tried > 40:
                break  # one id for the rest: they differ in the derivation only
    assert tried > 100


def test_no_writer_of_the_store_takes_a_revocation_back(keys: Keys, store: Any, clock: Clock) -> None:
    """C2: neither by flipping a bit of what is wrapped, nor by an older copy, nor by another store's."""
    good = store.keys()[NAME]
    for at in range(len(good)):
        forged = good[:at] + bytes([good[at] ^ 0x01]) + good[at + 1 :]
        with pytest.raises((ConfigError, StoreError)):
            Roots([ROOT], os.urandom).unwrap(NAME, forged)
    assert store.put_key(NAME, good[:-1] + b"\0", good)
    clock.wind(60 * 5)
    with pytest.raises(StoreError):
        keys.look()
    with pytest.raises(StoreError, match="not been read"):
        keys.ring.seal(PURPOSE, b"", b"")


def test_no_csrf_token_can_be_made_of_what_is_stored(keys: Keys, build: Build, store: Any) -> None:
    """D46: CSRF tokens need no server key; what they need is in the cookie only."""
    house = build()
    ann = house.visitor()
    ann.login("ann")
    good = ann.get("/form").body.decode()
    record = house.record(ann.token or "")
    handle, realm = record.handle, record.realm.encode()
    headers = (*OURS, ("content-type", "application/x-www-form-urlencoded"))

    def accepted(token: str) -> bool:
        ask = ann.prepare("POST", "/echo?token=required", headers, f"csrf_token={token}".encode())
        return house.ask(ask).status == 200

    assert accepted(good)
    values = stolen(store) | set(leaves(builtins_of(record)))
    assert {record.family_proof, record.turn_proof} <= values
    short = {(value + b"A" * 24)[:24] for value in values} | values
    for value in itertools.islice(sorted(short), 400):
        for key in (value, tokens.csrf_key(realm, value)):
            token = csrf.token(key, handle, bytes(32))
            assert not csrf.verify(tokens.csrf_key(realm, tokens.parse(ann.token.encode()).family), handle, token)
    assert not accepted(csrf.token(tokens.csrf_key(realm, record.family_proof), handle, bytes(32)))


def test_the_wrapped_keys_open_no_session(keys: Keys, build: Build, store: Any) -> None:
    """D45: the key table as cookie, family and turn, on a live handle."""
    house = build()
    ann = house.visitor()
    ann.login("ann")
    handle = house.record(ann.token or "").handle.encode()
    wrapped = store.keys()[NAME]
    cookies = set()
    for value in secrets_in({wrapped, base64.b64encode(wrapped)}):
        for spelt in (value, value.hex().encode(), base64.urlsafe_b64encode(value)):
            cookies |= {spelt[:200], b"c1.%b.%b.%b" % (handle, spelt[:24], spelt[:24])}
    cookies = {cookie for cookie in cookies if not set(cookie) & set(b"\r\n;")}
    assert len(cookies) > 200
    asks = (Ask("GET", "/me", ((b"cookie", f"{COOKIE}=".encode() + cookie), *OURS)) for cookie in cookies)
    assert {answer.status for answer in house.ask_all(asks)} == {401}
    assert ann.user == "ann"


def test_the_store_never_meets_an_unwrapped_key(store: Any, clock: Clock) -> None:
    """C2: "there is no unwrapped form": everything that is ever written, watched at the door of the store."""
    written: list[bytes] = []

    class Watched:
        def keys(self) -> dict[str, bytes]:
            return store.keys()

        def put_key(self, name: str, value: bytes, was: bytes | None) -> bool:
            written.append(value)
            return store.put_key(name, value, was)

        def epochs(self) -> Any:
            return store.epochs()

    holder = Keys(Watched(), Roots([ROOT], os.urandom), clock=clock)
    secrets: set[bytes] = set()
    for _ in range(12):
        holder.look()
        kept, _ = holder.peek()
        secrets |= {key.secret for key in kept.keys if key.secret}
        holder.rotate()
        clock.wind(50 * 86400)
    assert len(secrets) >= 5
    assert len(written) >= 5
    for value in written:
        assert not any(secret in value for secret in secrets)
        with pytest.raises(msgspec.DecodeError):
            msgspec.msgpack.decode(value)
