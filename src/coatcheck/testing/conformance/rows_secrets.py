"""Rows 1.B, the other half: randomness, what a store gives away, keys that rotate, data that plays a login."""

from __future__ import annotations

import os
import re
import uuid
from base64 import b64encode, urlsafe_b64encode
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from ...core import tokens
from ...core.errors import ConfigError
from ...core.keyring import Key, Keyring
from ...core.manager import SessionManager
from ...core.model import Request
from ...core.roots import Roots
from ...core.sealed import Sealed
from ...core.session import Session
from .devices import Device
from .randomness import weaknesses
from .registry import row
from .rows_tokens import NOBODY, token_of
from .site import Site
from .verdicts import expect, unfit


def sealed_site(site: Site, sealed: Sealed, **settings: Any) -> Site:
    """Return a site with sealed tokens; where the adapter has none, their rows do not apply: opaque ones need none."""
    try:
        shop = site.with_settings(sealed=sealed, **settings)
        assert shop.driver is not None
    except ConfigError as error:
        unfit(f"{site.adapter.name} has opaque tokens only, which need no key: {error}.")
    return shop


@row("TOK-03")
def tokens_are_random(site: Site) -> None:
    """A million are made without a repeat, no place is fixed or uneven, and they come from the system's generator."""
    expect("what is weak about a million tokens", _of_a_million(), [])
    expect("where its randomness comes from", site.control.manager.entropy, os.urandom)
    counted = iter(range(1, 1000))

    def counting(length: int) -> bytes:
        return next(counted).to_bytes(length, "little")

    first, second = (tokens.value_of(tokens.mint(counting)).decode() for _ in range(2))
    assert first != second, "the token does not depend on the generator"
    shop = site.with_settings()
    shop.control.manager.entropy = counting
    handed = token_of(shop.logged_in())
    expect(
        "a token that a counter made",
        handed,
        tokens.value_of(tokens.mint(lambda length: (3).to_bytes(length, "little"))).decode(),
    )
    secrets = ["".join(token_of(site.logged_in()).split(".")[1:]) for _ in range(200)]
    expect("characters of a token that holds 324 bits and more", {len(secret) for secret in secrets}, {66})
    assert weaknesses([uuid.uuid4().hex for _ in range(1000)]), "this test finds nothing wrong with UUIDs"


@lru_cache(maxsize=1)
def _of_a_million() -> list[str]:
    """Return what is weak about a million tokens; every adapter takes them from the same place, so once is enough."""
    made = [tokens.value_of(tokens.mint(os.urandom)) for _ in range(10_000)]
    found = weaknesses([each.decode().replace(".", "")[2:] for each in made])
    seen = {token for _ in range(1_000_000) for token in (tokens.mint(os.urandom).family,)}
    return found if len(seen) == 1_000_000 else [*found, "some are repeated"]


@row("TOK-09")
def a_store_gives_no_token_away(site: Site) -> None:
    """Nothing that lies in the store is a token or a secret of one, in any spelling, or opens a session as a cookie."""
    owner = site.logged_in()
    site.clock.wind(16 * 60)
    owner.get("/me")
    token = token_of(owner)
    _, handle, family, turn = token.split(".")
    stored = repr(to_builtins([*site.records(live=False), *site.events()], builtin_types=(bytes,), enc_hook=repr))
    for secret in (token, family, turn):
        raw = secret.encode()
        for spelling in (secret, raw.hex(), b64encode(raw).decode(), urlsafe_b64encode(raw).decode().rstrip("=")):
            assert spelling not in stored, "the store holds a secret of the token"
    (record,) = site.records()
    proofs = [proof for proof in (record.family_proof, record.turn_proof, record.former_proof, record.nonce) if proof]
    assert len(proofs) >= 3, "the store holds fewer proofs than there are to try"
    parts = [urlsafe_b64encode(proof).decode()[:24] for proof in proofs]
    tries = [handle, *parts, *(f"c1.{handle}.{one}.{other}" for one in parts for other in parts)]
    for value in tries:
        expect("who a value of the store is", site.user_of(value), None)
    expect("who the owner is", owner.get("/me").json()["user"], "alice")


@row("TOK-11")
def cookies_that_belong_together_count_together(site: Site) -> None:
    """The session cookie of one and the bound cookie of another are nobody's, and told; so is either of them alone."""
    shop = site.with_settings(binding="opportunistic")
    alice, bob = Device(shop, "alice").bind(), Device(shop, "bob").bind()
    ours, bound = shop.cookie, alice.bound_cookie
    shop.clock.wind(61)  # what was under way when the bound cookie first came has arrived
    own = f"{ours}={alice.browser.token}; {bound}={alice.browser.jar[bound]}"
    expect("who a whole pair is", shop.ask("GET", "/me", cookies=own).json().get("user"), "alice")
    mixed = f"{ours}={alice.browser.token}; {bound}={bob.browser.jar[bound]}"
    expect("what a mixed pair opens", shop.ask("GET", "/me", cookies=mixed).status, NOBODY)
    for alone in (f"{ours}={alice.browser.token}", f"{bound}={alice.browser.jar[bound]}"):
        expect("what one cookie opens alone", shop.ask("GET", "/me", cookies=alone).status, NOBODY)
    told = [(event.subject, event.detail["kind"]) for event in shop.events("dbsc_binding_missing")]
    assert ("alice", "foreign") in told, f"no event tells of the mixed pair: {told}"


@row("TOK-17")
def data_logs_nobody_in(site: Site) -> None:
    """Whatever a session's data says, it is nobody's until login() was called; what a login knows is read-only."""
    names = ("subject", "user", "user_id", "level", "methods", "authenticated_at", "_auth_user_id", "is_admin")
    browser = site.browser()
    browser.post("/replace", json=dict.fromkeys(names, "admin"))
    expect("the data", browser.get("/data").json()["subject"], "admin")
    expect("who it is", browser.get("/me").status, NOBODY)
    expect("what is private", browser.get("/private").status, NOBODY)
    (record,) = site.records()
    expect("what the record knows of it", (record.subject, record.level), (None, 0))
    browser.login("alice")
    browser.post("/replace", json=dict.fromkeys(names, "admin"))
    expect("who alice is then", browser.get("/me").json()["user"], "alice")
    expect("how sure that is", browser.get("/private?level=20").status, NOBODY)
    session: Session = SessionManager(origins=["https://app.test"]).blank(_request())
    for name in ("subject", "level", "methods", "authenticated_at", "handle"):
        try:
            setattr(session, name, "admin")
        except AttributeError:
            continue
        message = f"session.{name} can be written"
        raise AssertionError(message)


@row("TOK-19")
def keys_rotate_without_logging_anybody_out(site: Site) -> None:
    """Sealed tokens of the former key count while it is kept, later ones name the new one, a retired key opens none."""
    old, new = Key("old", os.urandom(32)), Key("new", os.urandom(32))
    ring = Keyring([old], os.urandom)
    shop = sealed_site(site, Sealed(keyring=ring))
    browser = shop.logged_in()
    former = token_of(browser)
    expect("the key that a token names", former.split(".")[1], "old")
    ring.replace([Key("old", old.secret, "expired"), new])
    expect("who a token of the former key is", shop.user_of(former), "alice")
    browser.get("/data?write=k")
    expect("the key of what is written now", token_of(browser).split(".")[1], "new")
    expect("the key of a new login", token_of(shop.logged_in()).split(".")[1], "new")
    expect("who the former token is still", shop.user_of(former), "alice")
    for retired in ([new], [Key("old", old.secret, "revoked"), new]):
        ring.replace(retired)
        expect("who a token of a retired key is", shop.user_of(former), None)
        expect("who a token of the new key is", shop.user_of(browser.token), "alice")


@row("TOK-20")
def weak_secrets_are_refused(_site: Site) -> None:
    """Empty, short, counting and sample keys are refused at the start, and the package brings none along."""
    weak = (b"", b"short", b"x" * 31, b"x" * 32, bytes(range(64)), b"changeme" * 8, b"insecure-development-secret-key!")
    for secret in weak:
        for make in (lambda s: Keyring([Key("k", s)], os.urandom), lambda s: Roots([s], os.urandom)):
            try:
                make(secret)
            except ConfigError:
                continue
            message = f"a key of {len(secret)} bytes was taken that nobody should use"
            raise AssertionError(message)
    package = Path(tokens.__file__).parents[1]
    marks = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|Key\([^)]*, b?[\"']|\"d\": ?\"[A-Za-z0-9_-]{30,}\"")
    for path in package.rglob("*.py"):
        found = marks.search(path.read_text("utf-8")) if path != Path(__file__) else None
        expect(f"key material in {path.name}", found and found[0], None)


def _request() -> Request:
    return Request("GET", "https", "/", ((b"host", b"app.test"),))
