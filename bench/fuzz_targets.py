"""What is fuzzed: the readers of cookies, tokens, sealed tokens, data, CSRF tokens, header blocks, logout tokens.

A target is a function that returns a `Target`; bench/fuzz.py names it in `TARGETS`. Device binding's lie in
fuzz_device.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coatcheck import Key, Keyring, Sealed, SessionManager
from coatcheck.core import codec, csrf, records, tokens
from coatcheck.core.cookies import CookieSpec, CookieWriter
from coatcheck.core.errors import CoatcheckError, DataError
from coatcheck.core.model import Request, Ticket
from coatcheck.core.policies import Timeouts
from coatcheck.core.sealed import Sealer
from coatcheck.core.visit import Login

NAME, REALM, ORIGIN = b"__Host-coat", "__Host-coat", "https://shop.example"
SECRET = struct.pack("!4Q", 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)


@dataclass
class Target:
    """Something that reads what anybody sends. `good` are inputs to begin from; `read` tells whether one is accepted.

    `forged`: whether an input that is accepted, and is none of `good`, is a forgery.
    """

    name: str
    good: Sequence[bytes]
    read: Callable[[bytes], bool]
    declared: tuple[type[Exception], ...] = ()
    forged: bool = True


def cookies() -> Target:
    """The cookie parser: what it finds under our name stands in the header as such."""
    writer = CookieWriter(CookieSpec(name=NAME.decode()))
    value = tokens.value_of(tokens.mint(os.urandom))

    def read(header: bytes) -> bool:
        found = writer.find(header)
        if not isinstance(found, bytes):
            return False
        pairs = [part.strip(b" \t").partition(b"=") for part in header.split(b";")]
        # a value ends at a comma: a server may have joined two headers by one, and no cookie value of ours has any
        if found not in [
            text.partition(b",")[0].strip(b" \t") for name, _, text in pairs if name.strip(b" \t") == NAME
        ]:
            message = "a value that is not under our name"
            raise AssertionError(message)
        return True

    good = [b"a=1; " + NAME + b"=" + value + b"; b=2", NAME + b"=" + value, NAME + b"=x; " + NAME + b"=x", b"a=b"]
    return Target("cookies", good, read, forged=False)


def opaque() -> Target:
    """The opaque token: only the one spelling of the one token opens the session."""
    realm, now = REALM.encode(), 1_800_000_000.0
    tickets = [tokens.mint(os.urandom) for _ in range(4)]
    kept = {one.handle: records.made(REALM, one, None, Timeouts(), now, records.Client(), b"") for one in tickets}

    def read(value: bytes) -> bool:
        ticket = tokens.parse(value)
        record = None if ticket is None else kept.get(ticket.handle)
        if ticket is None or record is None:
            return False
        standing, _ = tokens.judge(realm, record, ticket, now, 60.0)
        return standing is tokens.CURRENT

    return Target("token", [tokens.value_of(one) for one in tickets], read)


def sealed() -> Target:
    """The sealed token, whole and in pieces: what opens is what was sealed."""
    keys = Keyring([Key("k1", SECRET)], os.urandom)
    spec = CookieSpec(name=NAME.decode())
    sealer = Sealer(Sealed(keyring=keys, most_chunks=3), REALM, spec, ORIGIN, comma_joined=False)
    ask = Request("GET", "https", "/", [])
    good, held = [], set()
    for size in (10, 3000, 6000):
        ticket = tokens.mint(os.urandom)
        login = Login("ann", ("pwd",), 10, remember=False, ticket=ticket)
        data = codec.encode({"v": os.urandom(size)})
        record = records.made(REALM, ticket, login, Timeouts(), 1_800_000_000.0, records.Client(), data)
        lines = sealer.write(ticket, record, None, ask)
        pairs = [line.partition(b";")[0] for line in lines]
        good.append(b"; ".join(pair for pair in pairs if not pair.endswith(b"=")))
        held.add((ticket.handle, ticket.family, ticket.turn, data))
    writer = CookieWriter(spec)

    def read(header: bytes) -> bool:
        first = writer.find(header)
        ticket = sealer.open(header, first) if isinstance(first, bytes) else None
        if ticket is None or ticket.held is None:
            return False
        if (ticket.handle, ticket.family, ticket.turn, ticket.held.data) not in held:
            message = "a forged sealed token"
            raise AssertionError(message)
        return True

    return Target("sealed", good, read, forged=False)


def encoded() -> Target:
    """The codec: whatever it decodes, it encodes again."""
    values: list[dict[str, object]] = [
        {"cart": [1, 2, {"n": "x" * 40}], "f": 1.5, "s": {1, 2}, "t": (1, 2), "b": b"raw", "none": None, "yes": True},
        {"big": 2**90, "deep": {"a": {"b": {"c": [[[[1]]]]}}}},
    ]

    def read(raw: bytes) -> bool:
        codec.encode(codec.decode(raw))
        return True

    return Target("codec", [codec.encode(one) for one in values], read, (DataError, codec.UnknownVersion), forged=False)


def csrf_tokens() -> Target:
    """CSRF tokens: no mutation is a token, but another mask of the same one."""
    key, sid = os.urandom(32), "A" * 18
    plain = csrf.token(key, sid, os.urandom(32))
    good = [plain.encode(), csrf.masked(plain, os.urandom).encode()]

    def read(raw: bytes) -> bool:
        text = raw.decode("latin-1")
        if not csrf.verify(key, sid, text):
            return False
        shown = csrf._unmasked(text) if text.startswith("m.") else text  # noqa: SLF001 - a flip of both halves is a mask
        return shown != plain or raw in good

    return Target("csrf token", good, read)


def requests() -> Target:
    """Whole header blocks, as the manager meets them first: Host, Origin, Fetch metadata, cookies, proxies."""
    manager = SessionManager(origins=[ORIGIN], trusted_proxies=["10.0.0.0/8"])
    value = NAME + b"=" + tokens.value_of(tokens.mint(os.urandom))
    good = [
        b"host: shop.example\norigin: https://shop.example\nsec-fetch-site: same-origin\ncookie: " + value,
        b"host: shop.example\nsec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: document",
        b"host: shop.example\nforwarded: for=192.0.2.1\nx-forwarded-for: 192.0.2.1, 10.0.0.1\norigin: null",
    ]

    def read(raw: bytes) -> bool:
        lines = [line.partition(b":") for line in raw.split(b"\n")]
        headers = [(name.strip().lower(), text.strip()) for name, _, text in lines]
        found = manager.identify(Request("POST", "https", "/x", headers, peer="10.0.0.2"))
        return isinstance(found, Ticket)

    return Target("headers", good, read, forged=False)


def notices() -> Target:
    """Logout tokens, where joserfc is installed: none but the good one is verified."""
    import json

    from joserfc import jws
    from joserfc.jwk import ECKey

    from coatcheck.core import jose

    key = ECKey.generate_key("P-256", {"kid": "one"})
    keys = jose.key_set({"keys": [key.as_dict(private=False)]})
    claims = json.dumps({"iss": ORIGIN, "aud": "shop", "iat": 1, "jti": "j", "sid": "s", "events": {"x": {}}})
    good = jws.serialize_compact({"alg": "ES256", "kid": "one", "typ": "logout+jwt"}, claims, key).encode()
    signed = good.rpartition(b".")[0]

    def read(raw: bytes) -> bool:
        text = raw.decode("latin-1")
        jose.verified(text, keys, ("ES256",), "logout+jwt")
        return raw.rpartition(b".")[0] != signed  # another spelling of the signature is the same signature

    return Target("logout token", [good], read, (CoatcheckError,))
