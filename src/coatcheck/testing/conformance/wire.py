"""The only way to somebody's application: one request at a time, to the host that was named, within limits.

Rules (docs/conformance.md names the reason of each)
- Nobody's host but this machine's is asked, unless its tester says that he may. Link-local and metadata addresses are
  never asked, nor what is no host at all.
- The address that was checked is the one that is dialled: a name that turns to another address (DNS rebinding) is not
  followed.
- A redirect is followed to the same origin only, and five times. What an answer may cost is bounded: a megabyte, ten
  seconds each, and a time for all of them.
- No proxy, no credentials and no cookie jar of this machine's user is used.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urljoin, urlsplit

import httpx2
import msgspec

from ...core.csrf import check_origin
from ...core.errors import ConfigError, StoreError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_BODY: Final = 1_048_576
MOST_REDIRECTS: Final = 5
EACH: Final = 10.0
"""Seconds for one answer."""

METADATA: Final = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")))
"""Where clouds answer whoever asks from inside."""


class OutOfReach(StoreError):  # noqa: N818 - what it is
    """The application does not answer; its text says how."""


class Heard(msgspec.Struct, frozen=True):
    """One answer: status, header lines in their order (names in lower case), and the first megabyte of its body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    path: str

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str:
        """Return the values of a header in one line; "" if it is not there."""
        return ", ".join(self.all(name))


class Wire:
    """Requests to one origin."""

    def __init__(
        self, url: str, *, others: bool = False, ca: Path | None = None, whole: float = 300.0, most: int = 3000
    ) -> None:
        """Check the address, and raise ConfigError where it is not to be asked.

        `others`: the tester may test hosts that are not this machine. `ca`: certificates that are trusted besides.
        `whole`: seconds for all requests together; `most`: how many there may be.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            message = f"an application's address is http(s)://host[:port] (found {url!r:.100})"
            raise ConfigError(message)
        self.origin = check_origin(f"{parts.scheme}://{parts.netloc}")
        self.base = parts.path.rstrip("/")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self._port = parts.port or (443 if self.secure else 80)
        self._address = _checked(self.host, _resolved(self.host, self._port), others=others)
        self._until = time.monotonic() + whole
        self._left = most
        trusted = ssl.create_default_context()
        if ca is not None:
            trusted.load_verify_locations(ca)
        self._client = httpx2.Client(
            transport=httpx2.HTTPTransport(verify=trusted, trust_env=False),
            timeout=EACH,
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def ask(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str | bytes]] = (),
        body: bytes = b"",
    ) -> Heard:
        """Send one request, follow nothing; `target` lies below the address that was given."""
        left = self._until - time.monotonic()
        self._left -= 1
        if left <= 0 or self._left < 0:
            message = f"{self.origin} was asked for as long, or as often, as it may be; test a faster instance of it"
            raise OutOfReach(message)
        authority = self.origin.partition("://")[2]
        lines: list[tuple[bytes, bytes]] = [(b"host", authority.encode()), (b"connection", b"close")]
        lines += [(name.encode(), _bytes(value)) for name, value in headers]
        dialled = f"[{self._address}]" if self._address.version == 6 else str(self._address)
        path = target if target.startswith("/") else f"/{target}"
        extensions: dict[str, Any] = {"sni_hostname": self.host} if self.secure else {}
        request = httpx2.Request(
            method,
            httpx2.URL(f"{self.origin.partition('://')[0]}://{dialled}:{self._port}/").copy_with(
                raw_path=(self.base + path).encode("ascii", "replace")
            ),
            headers=lines,
            content=body or None,
            extensions={**extensions, "timeout": httpx2.Timeout(min(EACH, left)).as_dict()},
        )
        try:
            return self._heard(request, path)
        except (httpx2.HTTPError, OSError) as error:
            message = f"{self.origin} does not answer {method} {path:.80}: {type(error).__name__} {error}"
            raise OutOfReach(message) from error

    def _heard(self, request: httpx2.Request, path: str) -> Heard:
        until = time.monotonic() + EACH
        response = self._client.send(request, stream=True)
        try:
            body = b""
            for chunk in response.iter_raw():
                body += chunk
                if len(body) >= MOST_BODY or time.monotonic() > until:
                    break
        finally:
            response.close()
        lines = tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in response.headers.raw)
        return Heard(response.status_code, lines, body[:MOST_BODY], path)

    def onward(self, heard: Heard) -> str | None:
        """Return where a redirect leads on this application, or None: it is none, or leads elsewhere."""
        location = heard.header("location")
        if heard.status not in (301, 302, 303, 307, 308) or not location:
            return None
        whole = urlsplit(urljoin(self.origin + self.base + heard.path, location))
        if f"{whole.scheme}://{whole.netloc}" != self.origin or not whole.path.startswith(self.base):
            return None
        return (whole.path[len(self.base) :] or "/") + (f"?{whole.query}" if whole.query else "")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8")


def _resolved(host: str, port: int) -> Sequence[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"there is no host {host!r:.100}: {error}"
        raise ConfigError(message) from error
    return list(dict.fromkeys(ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found))


def _checked(host: str, addresses: Sequence[Address], *, others: bool) -> Address:
    """Return the address to dial; raise ConfigError for one that is not to be asked."""
    for address in addresses:
        plain = getattr(address, "ipv4_mapped", None) or address
        if plain in METADATA or plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain.is_reserved:
            message = f"{host} is {address}, where no application of yours is: link-local, metadata, or no host at all"
            raise ConfigError(message)
        if not plain.is_loopback and not others:
            message = (
                f"{host} is {address}, not this machine: the check logs in and out and sends hostile requests; "
                "if you may test it, say so with --i-may-test-this"
            )
            raise ConfigError(message)
    return addresses[0]
