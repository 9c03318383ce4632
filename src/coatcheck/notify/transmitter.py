"""Revocations to other parties: a signed security event token for each, handed to an outbox or pushed (RFC 8935).

Needs joserfc (docs/receivers.md). What is told, and what is not: core/announcements.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..core import announcements
from ..core.errors import ConfigError
from ..core.jose import Jwk, Signer
from ..core.model import Event
from .delivery import Delivery, TryAgain, logger
from .webhook import opener, place_of, posted

_MOST_ANSWER = 1024


class Transmitter:
    """Tells another party of each session that was revoked here; a listener for `on_event`."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        key: Jwk | str | bytes,
        outbox: Callable[[str], Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take who tells whom, the private RSA key (a JWK with a kid), and where each token goes.

        `outbox` is called with a token: a `Push`, or your queue. Raises ConfigError for a weak key.
        """
        if not issuer.startswith("https://") or not audience:
            message = (
                f"a transmitter has an issuer (https://...) and an audience (found {issuer!r:.80}, {audience!r:.80})"
            )
            raise ConfigError(message)
        self._issuer, self._audience = issuer, audience
        self._signer, self._outbox, self._clock = Signer(key), outbox, clock

    @property
    def keys(self) -> dict[str, Any]:
        """The public keys, as your `jwks_uri` shows them (RFC 7517)."""
        return {"keys": [dict(self._signer.public)]}

    def __call__(self, event: Event) -> Any:
        """Tell of an event, if it is a revocation; return what the outbox returns, which may be awaitable."""
        claims = announcements.revoked(
            event, issuer=self._issuer, audience=self._audience, jti=os.urandom(16).hex(), now=self._clock()
        )
        return None if claims is None else self._outbox(self._signer.signed(claims, "secevent+jwt"))

    def __repr__(self) -> str:
        """Show no key."""
        return f"<Transmitter of {self._issuer} to {self._audience}>"


class Push:
    """An outbox that posts each token to its receiver: taken is 202, and a token that is refused is not sent again."""

    def __init__(self, url: str, authorization: str | None = None, *, delivery: Delivery | None = None) -> None:
        """Take where to, and what its Authorization header must say; raise ConfigError for plain http elsewhere."""
        self._url, self._place, self._authorization = url, place_of(url), authorization
        self._delivery, self._opener = delivery or Delivery(), opener()

    def __call__(self, token: str) -> bool:
        """Post a token; return whether it was taken."""
        return self._delivery.deliver(lambda: self._post(token.encode()), f"security event to {self._place}")

    def __repr__(self) -> str:
        """Show no secret, and no query: it may hold one."""
        return f"<Push to {self._place}>"

    def _post(self, body: bytes) -> None:
        headers = {"content-type": "application/secevent+jwt", "accept": "application/json", "user-agent": "coatcheck"}
        if self._authorization is not None:
            headers["authorization"] = self._authorization
        refused = posted(self._opener, self._url, body, headers, _MOST_ANSWER)
        if refused is None:
            return
        if refused.status != 400:
            message = f"it answered {refused.status}"
            raise TryAgain(message, refused.after)
        logger.error("%s refused a security event: %s", self._place, _why(refused.body))


def _why(body: bytes) -> str:
    """Return the word of RFC 8935 section 2.4 in a refusal; what else stands there is not ours to log."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    code = said.get("err") if isinstance(said, dict) else None
    return code if isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum() else "no reason given"
