"""Who is at the other end: the address behind our own proxies, the user agent, cut and cleaned, and whether over TLS.

Rules
- X-Forwarded-For is believed only hop by hop from the right, as long as the hop is one of our listed proxies. So it
  makes no difference whether a server (uvicorn, gunicorn) or a middleware (ProxyFix) has walked it already.
- An address has one spelling: IPv4 for a mapped one (::ffff:192.0.2.1), no zone (%eth0), no port. What is no address
  ends the walk at the hop before it: a client cannot write into our logs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .errors import ConfigError
from .model import Client, Request

MOST_AGENT = 512
MOST_HOPS = 32
MOST_FORWARDED = 2048
"""Bytes of X-Forwarded-For that are looked at, from its end: 32 addresses of 45 characters, with ports and spaces."""


class Clients:
    """Reads the client of a request, given the proxies that the operator listed."""

    __slots__ = ("_proxies", "_trusted", "_unix")

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        """Take addresses or networks ("10.0.0.0/8"), or "unix" for a socket; raise ConfigError for anything else."""
        listed = list(trusted_proxies)
        self._unix = "unix" in listed
        self._proxies = [_network(text) for text in listed if text != "unix"]
        # few peers come again and again; a flood of others only turns the cache over
        self._trusted = lru_cache(maxsize=1024)(self._lists)

    def of(self, request: Request) -> Client:
        """Return the client of a request."""
        return Client(self.address(request), self.agent(request))

    def agent(self, request: Request) -> str | None:
        """Return the user agent, cut and cleaned."""
        return printable(request.header(b"user-agent")[:MOST_AGENT].decode("latin-1")) or None

    def proxied(self, request: Request) -> bool:
        """Tell whether a request comes from one of our proxies."""
        return self._speaks(_unmapped(request.peer) if request.peer else None)

    def address(self, request: Request) -> str | None:
        """Return the nearest address that is not one of our proxies, or the peer's."""
        peer = _unmapped(request.peer) if request.peer else None
        if not self._speaks(peer):
            return peer
        line = request.header(b"x-forwarded-for")
        if len(line) > MOST_FORWARDED:  # what is cut off in the middle is no address
            line = line[-MOST_FORWARDED:].partition(b",")[2]
        address, rest = peer, line.decode("latin-1")
        for _ in range(MOST_HOPS):
            rest, _, hop = rest.rpartition(",")
            plain = _plain(hop)
            if plain is None:
                break
            address = plain
            if not self._trusted(plain):
                break
        return address

    def is_secure(self, request: Request) -> bool:
        """Tell whether a request came over TLS: by the word of one of our proxies, or else by its connection.

        A client may have begun the list of an X-Forwarded-Proto, so every word of it must say so.
        """
        said = request.header(b"x-forwarded-proto")
        if said and self._speaks(_unmapped(request.peer) if request.peer else None):
            return all(word.strip(b" \t").lower() in (b"https", b"wss") for word in said.split(b","))
        return request.scheme in ("https", "wss")

    def _speaks(self, peer: str | None) -> bool:
        """Tell whether a peer is one of our proxies, which may say who is behind it."""
        return self._unix if peer is None else bool(self._proxies) and self._trusted(peer)

    def _lists(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip.version == network.version and ip in network for network in self._proxies)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        message = (
            f"trusted_proxies lists addresses or networks such as '10.0.0.0/8', or 'unix' (found {text!r}: {error})"
        )
        raise ConfigError(message) from error


def _unmapped(address: str) -> str:
    """Return a peer's address in its one spelling; what is no address (a test client's name) stays as it is."""
    if ":" not in address:
        return address
    return _spelled(address) or address


def _plain(hop: str) -> str | None:
    """Return the address of one X-Forwarded-For entry, which may carry a port, or None."""
    text = hop.strip(" \t")
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in text or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    return None if "%" in text else _spelled(text)


def _is_port(text: str) -> bool:
    return text[0] == ":" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6


def _spelled(text: str) -> str | None:
    try:
        ip: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str((ip.version == 6 and ip.ipv4_mapped) or ip)


def printable(text: str) -> str:
    """Return a text in which what cannot be printed is replaced."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
