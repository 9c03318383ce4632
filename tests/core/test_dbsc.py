"""Proofs, challenges and the words of Device Bound Session Credentials, as values (standards 2.6 to 2.9)."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coatcheck import ConfigError, DeviceBinding, SessionManager
from coatcheck.core import dbsc, proofs
from coatcheck.core.model import Request
from coatcheck.core.policies import Action
from coatcheck.core.proofs import ProofError
from coatcheck.testing.clock import Clock
from tests.support.devices import DeviceKey, decoded, encoded

from .test_copies import Desk, Rule

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "dbsc-vectors.json").read_text())["vectors"]
BOUND = dbsc.Bound(bytes(range(32)), 1000.0)
NAME = "h" * 18 + "r" * 24


@pytest.mark.parametrize("number", range(len(VECTORS)))
def test_the_proofs_of_a_real_browser_verify(number: int) -> None:
    """Nine proofs by Chromium 156: ES256, RS256, with aud; a refresh is signed by the key registered before it."""
    vector = VECTORS[number]
    proof = proofs.read(vector["secure_session_response"].encode())
    registration = next(
        one
        for one in reversed(VECTORS[: number + 1])
        if one["case"] == vector["case"] and one["path"].endswith("register")
    )
    key = proofs.key_of(proofs.read(registration["secure_session_response"].encode()))
    proofs.verify(proof, key.alg, key.der)
    assert (proof.jwk is not None) == vector["path"].endswith("register")
    assert proof.audience in (None, vector["origin"] + vector["path"])
    with pytest.raises(ProofError):
        proofs.verify(proof, key.alg, proofs.key_of(proofs.read(_other(key.alg))).der)


def _other(alg: str) -> bytes:
    return DeviceKey(alg).proof("x", register=True).encode()


def test_nine_vectors_are_there() -> None:
    assert len(VECTORS) == 9


def test_a_thumbprint_is_that_of_rfc_7638() -> None:
    """The key and digest of RFC 7638 section 3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    proof = proofs.Proof(
        "RS256", {"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "2011-04-29"}, "", None, None, b"", b""
    )
    assert encoded(proofs.key_of(proof).thumbprint) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def _rejoined(text: str, number: int, part: str) -> str:
    parts = text.split(".")
    parts[number] = part
    return ".".join(parts)


def _parts() -> dict[str, Any]:
    key = DeviceKey()
    good = key.proof("c", register=True)
    jwk = key.jwk
    small = DeviceKey("RS256", 1024)
    off_curve = jwk | {"y": encoded((int.from_bytes(decoded(jwk["y"])) ^ 1).to_bytes(32))}
    flipped = bytearray(decoded(good.split(".")[2]))
    flipped[5] ^= 1
    return {
        "no header": "",
        "two headers": f"{good},{good}",
        "over 4 KiB": key.proof("c", register=True, kid="k" * 4000),
        "2 parts": good.rpartition(".")[0],
        "4 parts": good + ".AA",
        "padded": good + "==",
        "header is no JSON": _rejoined(good, 0, encoded(b"not json")),
        "header is a list": _rejoined(good, 0, encoded(b"[]")),
        "header nested too deep": _rejoined(good, 0, encoded(b"[" * 2900)),
        "payload nested too deep": _rejoined(good, 1, encoded(b'{"jti":"c","a":' + b"[" * 2700)),
        "payload with half a character": _rejoined(good, 1, encoded(b'{"jti":"c","authorization":"\\ud800"}')),
        "payload is no JSON": _rejoined(good, 1, encoded(b"\xff")),
        "typ JWT": key.proof("c", register=True, typ="JWT"),
        "typ missing": key.proof("c", register=True, typ=None),
        "alg none": key.proof("c", register=True, alg="none"),
        "alg HS256": key.proof("c", register=True, alg="HS256"),
        "alg not offered": key.proof("c", register=True, alg="ES384"),
        "alg a list": key.proof("c", register=True, alg=["ES256"]),
        "alg of the other key": key.proof("c", register=True, alg="RS256"),
        "crit": key.proof("c", register=True, crit=["exp"]),
        "jwk missing": key.proof("c"),
        "jwk a text": key.proof("c", jwk="none"),
        "jwk private": key.proof("c", jwk=jwk | {"d": jwk["x"]}),
        "jwk symmetric": key.proof("c", jwk=jwk | {"k": "AAAA"}),
        "jwk off the curve": key.proof("c", jwk=off_curve),
        "jwk of another curve": key.proof("c", jwk=jwk | {"crv": "P-384"}),
        "jwk short": key.proof("c", jwk=jwk | {"x": jwk["x"][:20]}),
        "jwk not base64url": key.proof("c", jwk=jwk | {"x": "!" * 43}),
        "jwk RSA 1024": small.proof("c", register=True),
        "jwk RSA with e=3": DeviceKey("RS256").proof("c", jwk={"kty": "RSA", "e": "Aw", "n": encoded(b"\xff" * 256)}),
        "jwk RSA huge": small.proof("c", jwk={"kty": "RSA", "e": "AQAB", "n": encoded(b"\xff" * 513)}),
        "signature flipped": _rejoined(good, 2, encoded(bytes(flipped))),
        "signature in DER": key.proof("c", register=True, der=True),
        "r = s = 0": _rejoined(good, 2, encoded(bytes(64))),
        "r = n": _rejoined(
            good, 2, encoded(bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551") * 2)
        ),
        "signature empty": _rejoined(good, 2, "AA"),
        "another spelling": good[:-1] + chr(ord(good[-1]) + 1),
        "jti missing": key.proof("c", register=True, jti=None),
        "jti a number": key.proof("c", register=True, jti=7),
        "authorization a number": key.proof("c", register=True, authorization=7),
        "aud a list": key.proof("c", register=True, aud=["x"]),
    }


PARTS = _parts()


@pytest.mark.parametrize("name", PARTS)
def test_a_proof_that_is_none_is_refused(name: str) -> None:
    """The negative vectors of standards 2.8 that a reader alone can judge, and more."""
    with pytest.raises(ProofError):
        _registered(PARTS[name])


def test_what_is_ignored_is_ignored() -> None:
    """`kid` and `jku` fetch nothing and unknown claims say nothing (SCT-03)."""
    key = DeviceKey()
    _registered(key.proof("c", register=True, kid="../../dev/null", jku="https://evil.test/", sub="x", iat=1))
    _registered(key.proof("c", jwk=key.jwk | {"alg": "ES256", "use": "sig"}))


def _registered(text: str) -> None:
    proof = proofs.read(text.encode())
    key = proofs.key_of(proof)
    proofs.verify(proof, key.alg, key.der)


def test_a_challenge_counts_once_while_it_is_fresh_and_for_its_purpose() -> None:
    made = dbsc.challenge(BOUND, b"refresh", 1000.0, os.urandom)
    at = dbsc.answered(BOUND, b"refresh", made, 1299.9, 300.0)
    assert at == 1_000_000
    assert dbsc.answered(BOUND, b"refresh", made, 1300.0, 300.0) is None
    assert dbsc.answered(BOUND, b"register", made, 1001.0, 300.0) is None
    other = dbsc.Bound(bytes(32), 1000.0)
    assert dbsc.answered(other, b"refresh", made, 1001.0, 300.0) is None
    used = dbsc.Bound(BOUND.key, 1000.0, proved=at)
    assert dbsc.answered(used, b"refresh", made, 1001.0, 300.0) is None
    for number in range(len(made)):
        changed = made[:number] + ("A" if made[number] != "A" else "B") + made[number + 1 :]
        assert dbsc.answered(BOUND, b"refresh", changed, 1001.0, 300.0) is None, number
    assert dbsc.answered(BOUND, b"refresh", made + "\n", 1001.0, 300.0) is None


def test_a_clock_that_is_behind_still_makes_challenges_that_count() -> None:
    ahead = dbsc.Bound(BOUND.key, 1000.0, proved=2_000_000)
    made = dbsc.challenge(ahead, b"refresh", 1999.0, os.urandom)
    assert dbsc.answered(ahead, b"refresh", made, 1999.0, 300.0) == 2_000_001


@given(st.text())
def test_no_text_is_a_challenge_by_accident(text: str) -> None:
    assert dbsc.answered(BOUND, b"refresh", text, 1000.0, 300.0) is None


@given(st.binary(max_size=200))
def test_no_bytes_are_a_proof_by_accident(raw: bytes) -> None:
    with pytest.raises(ProofError):
        proofs.read(raw)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (NAME.encode(), NAME),
        (f'"{NAME}"'.encode(), NAME),
        (f' \t"{NAME}";x=1'.encode(), NAME),
        (NAME[:-1].encode(), None),
        (f"{NAME},{NAME}".encode(), None),
        (NAME.encode()[:-1] + b"!", None),
        (b"", None),
    ],
)
def test_an_identifier_comes_quoted_or_bare(header: bytes, found: str | None) -> None:
    """The draft has a structured-field string, Chromium 156 sends the bare text."""
    assert dbsc.identifier(header) == found


@pytest.mark.parametrize(
    ("header", "found"),
    [(b"a.b.c", b"a.b.c"), (b'"a.b.c"', b"a.b.c"), (b' "a.b.c" ;p=1', b"a.b.c"), (b'"', b'"'), (b"", b"")],
)
def test_a_proof_comes_quoted_or_bare(header: bytes, found: bytes) -> None:
    assert dbsc.unquoted(header) == found


def test_what_a_browser_says_it_skipped_is_a_few_plain_words() -> None:
    assert dbsc.skipped(b'unreachable;session_identifier="x", quota_exceeded') == ["unreachable", "quota_exceeded"]
    assert dbsc.skipped(b"<script>, \x1b[1m, Upper, " + b"a," * 400) == ["a", "a", "a", "a"]


def test_a_binding_of_a_later_release_is_no_binding_to_guess_at() -> None:
    assert dbsc.unpacked(dbsc.packed(BOUND)) == BOUND
    assert dbsc.unpacked(None) is None
    assert not dbsc.is_bound(dbsc.packed(BOUND)), "an offer binds nobody"
    for raw in (b"", b"\x00key", b"\x01", b"\x02" + dbsc.packed(BOUND)[1:]):
        with pytest.raises(ValueError, match="later release"):
            dbsc.unpacked(raw)
        assert dbsc.is_bound(raw)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"binding": "on"}, "found 'on'"),
        ({"binding": DeviceBinding(lifetime=299.0)}, "why="),
        ({"binding": DeviceBinding(lifetime=1.0, why="test")}, "lifetime"),
        ({"binding": DeviceBinding(path="/d evice")}, "paths start"),
        ({"binding": DeviceBinding(routes="/admin")}, "lists"),
        ({"binding": DeviceBinding(mode="strict")}, "'strict'"),  # type: ignore[arg-type]
        ({"binding": "opportunistic", "exclude": ["/coatcheck"]}, "exclude"),
        (
            {"binding": DeviceBinding(provider_origin="https://op.example"), "exclude": ["/.well-known"]},
            "exclude has '/.well-known'",
        ),
        ({"binding": DeviceBinding(relying_origins="https://a.example")}, "lists of origins"),
        (
            {"binding": "opportunistic", "name": "__Secure-coat", "domain": "app.test", "cookie_reason": "x"},
            "one origin",
        ),
        ({"binding": "opportunistic", "partitioned": True, "same_site": "None", "cookie_reason": "x"}, "Partitioned"),
        ({"binding": "opportunistic", "name": "__Secure-coat", "path": "/shop"}, "cookie's path"),
    ],
)
def test_a_binding_that_cannot_work_is_refused_when_it_is_built(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SessionManager(origins=["https://app.test"], **settings)


def test_binding_is_off_over_plain_http() -> None:
    assert SessionManager(clock=Clock(), allow_insecure_http=True, binding="required").device_paths == frozenset()


def test_the_offer_is_a_list_of_one_inner_list() -> None:
    """DBS-01: algorithms, path, challenge, authorization; quoted as RFC 9651 wants it."""
    name, value = dbsc.offer(BOUND, DeviceBinding(), 1000.0, os.urandom)
    assert name == b"secure-session-registration"
    assert value.startswith(b'(ES256 RS256);path="/coatcheck/device/register";challenge="')
    assert value.count(b'"') == 6


def test_a_repr_shows_no_secret() -> None:
    assert repr(BOUND) == str(BOUND) == "Bound(offered)"


def test_a_near_copy_vouches_for_the_bound_cookie_it_knows_and_for_nothing_else() -> None:
    """H8: a copy says yes, or nothing; a first sight, a missing cookie or an unknown one are looked up."""
    desk = Desk(binding="opportunistic")
    value = b"v" * 24
    state = dbsc.Bound(bytes(32), desk.clock.now, alg="ES256", seen_at=desk.clock.now)
    state = replace(state, cookies=((dbsc.hashed(value), desk.clock.now + 600),))
    request = desk.request()

    def with_cookie(value: bytes) -> Request:
        (name, line), *rest = request.headers
        return replace(request, headers=[(name, line + b"; __Host-coat-b=" + value), *rest])

    copy = replace(desk.record, binding=dbsc.packed(state))
    desk.clock.wind(61)
    found = desk.copied(copy, with_cookie(value))
    assert found is not None
    assert found.is_bound
    assert desk.copied(copy, request) is None
    assert desk.copied(copy, with_cookie(b"w" * 24)) is None
    unseen = replace(desk.record, binding=dbsc.packed(replace(state, seen_at=None)))
    assert desk.copied(unseen, with_cookie(value)) is None, "the first sight is for the store itself"
    assert desk.copied(unseen, request) is not None


@pytest.mark.parametrize("action", [Action.END, Action.KEEP])
def test_a_policy_that_ends_a_session_ends_its_refreshes(action: Action) -> None:
    desk = Desk(binding="opportunistic", policies=[Rule(action)])
    state = dbsc.Bound(bytes(32), desk.clock.now, alg="ES256", seen_at=desk.clock.now)
    name = desk.record.handle + "r" * 24
    record = replace(desk.record, binding=dbsc.packed(replace(state, reference=dbsc.hashed(name.encode()))))
    request = replace(desk.request("POST"), headers=[(b"sec-secure-session-id", name.encode())])
    reply = desk.manager.refresh(request, record).reply
    assert reply is not None
    assert reply.status == (200 if action is Action.END else 403)
