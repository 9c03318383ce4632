"""Who is at the other end: the address behind our own proxies, and the user agent, cut and cleaned.

X-Forwarded-For is believed only hop by hop from the right, as long as the hop is one of our listed proxies.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from .errors import ConfigError
from .model import Client, Request

MOST_AGENT = 512


class Clients:
    """Reads the client of a request, given the proxies that the operator listed."""

    __slots__ = ("_proxies",)

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        """Take addresses or networks ("10.0.0.0/8"); raise ConfigError for anything else."""
        self._proxies: list[IPv4Network | IPv6Network] = []
        for text in trusted_proxies:
            try:
                self._proxies.append(ip_network(text))
            except ValueError as error:
                message = f"trusted_proxies lists addresses or networks such as '10.0.0.0/8' (found {text!r})"
                raise ConfigError(message) from error

    def of(self, request: Request) -> Client:
        """Return the client of a request."""
        agent = request.header(b"user-agent")[:MOST_AGENT].decode("latin-1")
        return Client(self.address(request), _printable(agent) or None)

    def address(self, request: Request) -> str | None:
        """Return the nearest address that is not one of our proxies, or the peer's."""
        if not self._proxies or request.peer is None or not self._trusted(request.peer):
            return request.peer
        address = request.peer
        for hop in reversed(request.header(b"x-forwarded-for").decode("latin-1").split(",")):
            plain = _plain(hop)
            if plain is None:
                break
            address = plain
            if not self._trusted(plain):
                break
        return address

    def _trusted(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip.version == network.version and ip in network for network in self._proxies)


def _plain(hop: str) -> str | None:
    """Return the address of one X-Forwarded-For entry, which may carry a port, or None."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
