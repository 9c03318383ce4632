"""Events to another system: a signed POST for each, as Standard Webhooks 1.0.0 says (standardwebhooks.com).

Rules
- Signed are id, time of the attempt and body, by HMAC-SHA256; while a secret is replaced, by both.
- The id stays the same for all attempts, so a receiver can tell what it has seen.
- Anything but 2xx is tried again, 410 never; no redirect is followed: what was signed for one place goes nowhere else.
"""

from __future__ import annotations

import hmac
import os
import time
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from http.client import HTTPException
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

import msgspec

from ..core import facts
from ..core.errors import ConfigError
from ..core.model import Event
from .delivery import Choice, Delivery, TryAgain, logger

LEAST_SECRET, MOST_SECRET = 24, 64
"""Bytes of a secret (Standard Webhooks: 192 to 512 bits)."""
SECONDS = 15.0
"""What an attempt may take (Standard Webhooks: 15 to 30)."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Webhook:
    """Posts events to a URL; a listener for `on_event`."""

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str],
        *,
        names: Collection[str] | None = None,
        at_least: str = "warning",
        delivery: Delivery | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take where to, and the secret ("whsec_" and base64), or the current one and the former while it is replaced.

        Posted are the events named, or all from a severity on ("info", "warning", "critical"). Raises ConfigError for
        plain http to anywhere but this machine, and for a weak secret.
        """
        self._url, self._place = url, place_of(url)
        self._secrets = [_decoded(one) for one in ([secret] if isinstance(secret, str) else secret)]
        if not self._secrets:
            message = "a webhook needs a secret: 'whsec_' and 24 to 64 random bytes in base64 (found none)"
            raise ConfigError(message)
        self._choice = Choice(names, at_least)
        self._delivery = delivery or Delivery()
        self._clock = clock
        self._opener = opener()
        self._gone = False

    def __call__(self, event: Event) -> None:
        """Post an event, if it is worth it."""
        if self._gone or not self._choice.takes(event):
            return
        name, body = f"msg_{os.urandom(16).hex()}", body_of(event)
        self._delivery.deliver(lambda: self._post(name, body), f"webhook {event.name} to {self._place}")

    def __repr__(self) -> str:
        """Show no secret, and no query: it may hold one."""
        return f"<Webhook to {self._place}>"

    def _post(self, name: str, body: bytes) -> None:
        at = int(self._clock())
        headers = {
            "content-type": "application/json",
            "user-agent": "coatcheck",
            "webhook-id": name,
            "webhook-timestamp": str(at),
            "webhook-signature": " ".join(signature(secret, name, at, body) for secret in self._secrets),
        }
        refused = posted(self._opener, self._url, body, headers)
        if refused is not None:
            self._refused(refused)

    def _refused(self, answer: Refusal) -> None:
        if answer.status == 410:
            self._gone = True
            logger.error("the webhook at %s is gone (410): nothing more is posted there", self._place)
            return
        message = f"it answered {answer.status}"
        raise TryAgain(message, answer.after)


class Refusal(NamedTuple):
    """An answer that is not 2xx: its status, the seconds that it asks for, and the beginning of what it says."""

    status: int
    after: float
    body: bytes


def signature(secret: bytes, name: str, at: int, body: bytes) -> str:
    """Return the signature of a message, with its version in front."""
    signed = f"{name}.{at}.".encode() + body
    return "v1," + b64encode(hmac.digest(secret, signed, "sha256")).decode()


def body_of(event: Event) -> bytes:
    """Return an event as the JSON that is posted."""
    client = event.client
    data: dict[str, Any] = {
        "severity": facts.severity(event),
        "realm": event.realm,
        "handle": event.handle,
        "subject": event.subject,
        "address": None if client is None else client.address,
        "agent": None if client is None else client.agent,
        "request_id": None if event.trace is None else event.trace.request_id,
        "detail": event.detail,
    }
    when = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": event.name, "timestamp": when, "data": data})


def place_of(url: str) -> str:
    """Return where a URL leads, as logs may show it; raise ConfigError for plain http to anywhere but this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        message = f"a webhook goes to https://, or to http on this machine (found {url!r:.80})"
        raise ConfigError(message)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def opener() -> OpenerDirector:
    """Return what posts, and follows no redirect."""
    return build_opener(_NoRedirect)


def posted(by: OpenerDirector, url: str, body: bytes, headers: dict[str, str], most: int = 1) -> Refusal | None:
    """Post; return None for 2xx, or the answer that refused it. Raises TryAgain where there was none."""
    request = Request(url, body, headers, method="POST")  # noqa: S310 - the scheme was checked
    try:
        with by.open(request, timeout=SECONDS) as answer:
            answer.read(1)  # nothing in it matters to us
    except HTTPError as refused:
        with refused:
            after = (refused.headers.get("retry-after") if refused.headers is not None else None) or ""
            seconds = float(after) if after.isdecimal() and len(after) < 6 else 0.0
            return Refusal(refused.code, seconds, refused.read(most))
    except (OSError, HTTPException, ValueError) as error:
        raise TryAgain(str(error) or type(error).__name__) from error
    return None


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Follow nobody."""
        return None


def _decoded(secret: str) -> bytes:
    try:
        raw = b64decode(secret.removeprefix("whsec_"), validate=True)
    except (NotBase64, ValueError):
        raw = b""
    if not LEAST_SECRET <= len(raw) <= MOST_SECRET:
        message = (
            f"a webhook's secret is 'whsec_' and {LEAST_SECRET} to {MOST_SECRET} random bytes in base64 "
            f"(found {len(raw)} bytes); openssl rand -base64 32"
        )
        raise ConfigError(message)
    return raw
