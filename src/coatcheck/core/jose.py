"""Signed tokens of others (JWS, RFC 7515), verified by joserfc: one algorithm list, one key, no guesses.

Rules (RFC 8725, JSON Web Token Best Current Practices)
- The algorithm is one that was registered, always asymmetric; the key is of that algorithm's kind (sections 3.1, 3.2).
- The key is named by `kid`, or is the only one that fits; nothing that a header brings or points to is a key.
- `typ` is compared where the kind of token has one (3.11), and a `crit` header is refused: we extend nothing.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from .errors import CoatcheckError, ConfigError

Jwk: TypeAlias = Mapping[str, Any]

MOST_TOKEN: Final = 8192
MOST_KEYS: Final = 65536
"""Bytes of a token and of a key set that are looked at."""
_LEAST_BITS: Final = 2048

KINDS: Final[Mapping[str, tuple[str, str | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
"""The algorithms that may be registered, and the kind of key each needs. No `none`, and no shared secret."""


class Refused(CoatcheckError):  # noqa: N818 - an answer, not a fault
    """A token that is not believed; `code` is a word of RFC 8935 section 2.4, the message a sentence for its sender."""

    def __init__(self, code: str, sentence: str) -> None:
        """Keep both; neither ever repeats what the token said."""
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class UnknownKey(Refused):
    """No key of the set has the token's `kid`: the issuer may have a new one since the set was fetched."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("invalid_key", "No key of the issuer has this kid.")


def check_algorithms(algorithms: Collection[str]) -> None:
    """Raise ConfigError for algorithms that verify nothing, or by a secret that both sides know."""
    unknown = [name for name in algorithms if name not in KINDS]
    if unknown or not algorithms or isinstance(algorithms, str):
        found = repr(algorithms) if isinstance(algorithms, str) or not algorithms else repr(unknown[0])
        message = f"algorithms is a list of {', '.join(KINDS)} (found {found}); name those that the issuer signs with"
        raise ConfigError(message)


def key_set(value: object) -> tuple[Jwk, ...]:
    """Return the keys of a JWKS (RFC 7517), as an object or as JSON; raise ConfigError for anything else."""
    if isinstance(value, str | bytes):
        if len(value) > MOST_KEYS:
            message = f"a key set of {len(value)} bytes; at most {MOST_KEYS} are read"
            raise ConfigError(message)
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            message = f"a key set is JSON with a list of keys ({error})"
            raise ConfigError(message) from error
    keys = value.get("keys") if isinstance(value, Mapping) else None
    if not isinstance(keys, Sequence) or not all(isinstance(key, Mapping) for key in keys):
        message = f"a key set is an object with a list of keys (found {type(value).__name__}); give the issuer's JWKS"
        raise ConfigError(message)
    return tuple(keys)


class Signer:
    """Signs tokens of ours by RS256 (the CAEP Interoperability Profile asks for it), and says by which keys."""

    def __init__(self, key: Jwk | str | bytes) -> None:
        """Take a private RSA key, as a JWK with its `kid` or as JSON; raise ConfigError for anything weaker."""
        given = key if isinstance(key, Mapping) else _json(key)
        kid = given.get("kid")
        if given.get("kty") != "RSA" or not isinstance(given.get("d"), str) or not isinstance(kid, str) or not kid:
            message = "a signing key is a private RSA key with a kid, as a JWK (found another; make one with joserfc)"
            raise ConfigError(message)
        try:
            bits = _bits(given.get("n"))
            self._key = JWKRegistry.import_key(dict(given)) if bits >= _LEAST_BITS else None
        except (JoseError, ValueError, TypeError):
            message = "the signing key cannot be read; give a private RSA key as a JWK"
            raise ConfigError(message) from None
        if self._key is None:
            message = f"a signing key has at least {_LEAST_BITS} bits (found {bits}); make another"
            raise ConfigError(message)
        self._kid = kid
        self.public = {name: given[name] for name in ("kty", "n", "e")} | {"kid": kid, "use": "sig", "alg": "RS256"}

    def __repr__(self) -> str:
        """Show the name of the key."""
        return f"<Signer {self._kid}>"

    def signed(self, claims: Mapping[str, Any], typ: str) -> str:
        """Return claims as a signed token of that type."""
        header = {"alg": "RS256", "typ": typ, "kid": self._kid}
        return jws.serialize_compact(header, msgspec.json.encode(claims), self._key, algorithms=["RS256"])


def _json(key: str | bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(key)
    except (msgspec.DecodeError, RecursionError):
        found = None
    return found if isinstance(found, Mapping) else {}


def peek(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a token says of itself, header and claims: nothing of it is believed yet."""
    if not token.isascii() or len(token) > MOST_TOKEN:
        raise Refused("invalid_request", f"A token has at most {MOST_TOKEN} ASCII characters.")
    try:
        parsed = jws.extract_compact(token.encode("ascii"))
        claims = msgspec.json.decode(parsed.payload)
        header = parsed.headers()
    except (JoseError, ValueError, TypeError, RecursionError, msgspec.DecodeError):
        raise Refused(
            "invalid_request", "This is no signed token in compact form (encrypted ones are not read)."
        ) from None
    if not isinstance(claims, dict) or not isinstance(header, dict):
        raise Refused("invalid_request", "The claims of a token are a JSON object.")
    return header, claims


def verified(token: str, keys: Sequence[Jwk], algorithms: Collection[str], typ: str | None) -> dict[str, Any]:
    """Return the claims of a token that one of the keys signed, or raise Refused (UnknownKey: fetch the keys anew)."""
    header, claims = peek(token)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in KINDS:
        raise Refused("invalid_key", "The alg of this token is not the one that was registered.")
    if "crit" in header or "b64" in header:
        raise Refused("invalid_request", "This token has critical header fields; none is understood.")
    if typ is not None and _media_type(header.get("typ")) != typ:
        raise Refused("invalid_request", f"The typ of this token is not {typ}.")
    try:
        key = JWKRegistry.import_key(dict(_chosen(keys, header.get("kid"), algorithm)))
        jws.deserialize_compact(token.encode("ascii"), key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError):
        raise Refused("invalid_key", "The signature of this token is not good.") from None
    return claims


def _chosen(keys: Sequence[Jwk], kid: object, algorithm: str) -> Jwk:
    kind, curve = KINDS[algorithm]
    fitting = [
        key
        for key in keys
        if key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and "verify" in key.get("key_ops", ("verify",))
        and (kid is None or key.get("kid") == kid)
    ]
    if not fitting:
        raise UnknownKey
    if len(fitting) > 1:
        raise Refused("invalid_key", "More than one key fits this token; name one by its kid.")
    if kind == "RSA" and _bits(fitting[0].get("n")) < _LEAST_BITS:
        raise Refused("invalid_key", f"An RSA key has at least {_LEAST_BITS} bits.")
    return fitting[0]


def _bits(modulus: object) -> int:
    if not isinstance(modulus, str):
        return 0
    return int.from_bytes(urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)), "big").bit_length()


def _media_type(typ: object) -> str:
    """Return a typ as it is compared: RFC 7515 section 4.1.9 lets `application/` be left out."""
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else ""
