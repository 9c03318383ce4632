"""The client's address is believed hop by hop, and what it says of itself cannot harm a log.

Drills: D58; edge.md F27.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.clients import MOST_AGENT, MOST_FORWARDED, Clients
from coatcheck.core.errors import ConfigError
from coatcheck.core.model import Client, Request


def asked(peer, *forwarded, agent=b""):
    """Return a request; each of `forwarded` is an X-Forwarded-For header of its own."""
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return Request(method="GET", scheme="https", path="/", headers=(*headers, (b"user-agent", agent)), peer=peer)


ours = Clients(["10.0.0.0/8", "2001:db8:1::/48", "203.0.113.9"])

CHAINS = {
    "nobody forwards": ("198.51.100.7", (), "198.51.100.7"),
    "one proxy": ("10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
    "two proxies": ("10.0.0.1", ("198.51.100.7, 10.0.0.2",), "198.51.100.7"),
    "a proxy by address": ("203.0.113.9", ("198.51.100.7",), "198.51.100.7"),
    "its neighbour is none": ("203.0.113.10", ("198.51.100.7",), "203.0.113.10"),
    "spoofed, through our proxy": ("10.0.0.1", ("1.1.1.1, 198.51.100.7",), "198.51.100.7"),
    "spoofed as our proxy": ("10.0.0.1", ("1.1.1.1, 10.0.0.9, 198.51.100.7, 10.0.0.2",), "198.51.100.7"),
    "spoofed, no proxy at all": ("198.51.100.7", ("1.1.1.1",), "198.51.100.7"),
    "a foreign proxy behind ours": ("10.0.0.1", ("198.51.100.7, 192.0.2.5",), "192.0.2.5"),
    "IPv6 client": ("10.0.0.1", ("2001:db8:9::7",), "2001:db8:9::7"),
    "IPv6 client with port": ("10.0.0.1", ("[2001:db8:9::7]:4711",), "2001:db8:9::7"),
    "IPv6 client in brackets": ("10.0.0.1", ("[2001:db8:9::7]",), "2001:db8:9::7"),
    "IPv6 written at length": ("10.0.0.1", ("2001:0DB8:0009:0:0:0:0:0007",), "2001:db8:9::7"),
    "IPv6 proxy": ("2001:db8:1::2", ("198.51.100.7",), "198.51.100.7"),
    "IPv4 client with port": ("10.0.0.1", ("198.51.100.7:4711",), "198.51.100.7"),
    "IPv4-mapped peer": ("::ffff:10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
    "IPv4-mapped hop of ours": ("10.0.0.1", ("198.51.100.7, ::ffff:10.0.0.2",), "198.51.100.7"),
    "IPv4-mapped client": ("10.0.0.1", ("::ffff:198.51.100.7",), "198.51.100.7"),
    "IPv4-mapped stranger as peer": ("::ffff:198.51.100.7", ("1.1.1.1",), "198.51.100.7"),
    "link-local peer with a zone": ("fe80::1%eth0", (), "fe80::1"),
    "garbage": ("10.0.0.1", ("garbage",), "10.0.0.1"),
    "garbage before a good hop": ("10.0.0.1", ("garbage, 198.51.100.7",), "198.51.100.7"),
    "garbage before a hop of ours": ("10.0.0.1", ("garbage, 10.0.0.2",), "10.0.0.2"),
    "unknown, as RFC 7239 says it": ("10.0.0.1", ("unknown",), "10.0.0.1"),
    "a zone with markup": ("10.0.0.1", ("fe80::1%<script>",), "10.0.0.1"),
    "a zone in brackets": ("10.0.0.1", ("[fe80::1%<script>]:1",), "10.0.0.1"),
    "junk after brackets": ("10.0.0.1", ("[2001:db8:9::7]x",), "10.0.0.1"),
    "an open bracket": ("10.0.0.1", ("[2001:db8:9::7",), "10.0.0.1"),
    "IPv4 in brackets": ("10.0.0.1", ("[198.51.100.7]",), "10.0.0.1"),
    "no port after the colon": ("10.0.0.1", ("198.51.100.7:",), "10.0.0.1"),
    "a port in letters": ("10.0.0.1", ("198.51.100.7:http",), "10.0.0.1"),
    "leading zeros": ("10.0.0.1", ("198.051.100.007",), "10.0.0.1"),
    "a number": ("10.0.0.1", ("3325256711",), "10.0.0.1"),
    "a no-break space": ("10.0.0.1", ("\xa0198.51.100.7",), "10.0.0.1"),
    "an empty header": ("10.0.0.1", ("",), "10.0.0.1"),
    "an empty hop": ("10.0.0.1", ("198.51.100.7,",), "10.0.0.1"),
    "no header": ("10.0.0.1", (), "10.0.0.1"),
    "two headers": ("10.0.0.1", ("1.1.1.1", "198.51.100.7, 10.0.0.2"), "198.51.100.7"),
    "tabs and spaces": ("10.0.0.1", ("1.1.1.1 ,\t198.51.100.7\t",), "198.51.100.7"),
    "ours to the end": ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
    "walked already by the server": ("198.51.100.7", ("198.51.100.7, 10.0.0.2",), "198.51.100.7"),
    "a test client's name": ("testclient", ("1.1.1.1",), "testclient"),
    "a socket, not listed": (None, ("198.51.100.7",), None),
    "an empty peer": ("", ("198.51.100.7",), None),
}


@pytest.mark.parametrize(("peer", "forwarded", "address"), CHAINS.values(), ids=CHAINS.keys())
def test_an_address_is_believed_as_far_as_our_proxies_reach(peer, forwarded, address):
    """D58, F27."""
    assert ours.address(asked(peer, *forwarded)) == address


@pytest.mark.parametrize(("peer", "forwarded", "_"), CHAINS.values(), ids=CHAINS.keys())
def test_without_listed_proxies_the_header_is_not_read(peer, forwarded, _):
    spoken, silent = Clients().address(asked(peer, *forwarded)), Clients().address(asked(peer))
    assert spoken == silent


def test_a_unix_socket_can_be_listed():
    local = Clients(["unix", "10.0.0.0/8"])
    assert local.address(asked(None, "1.1.1.1, 198.51.100.7, 10.0.0.1")) == "198.51.100.7"
    assert local.address(asked("", "198.51.100.7")) == "198.51.100.7"
    assert local.address(asked(None)) is None
    assert local.address(asked("198.51.100.7", "1.1.1.1")) == "198.51.100.7"


def test_an_endless_chain_ends():
    assert ours.address(asked("10.0.0.1", "198.51.100.7, " + ", ".join(["10.0.0.2"] * 10_000))) == "10.0.0.2"


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_header_yields_an_address(text):
    address = ours.address(asked("10.0.0.1", text))
    assert address is not None
    assert set(address) <= set("0123456789abcdef.:")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.internal", "", "*", "10.0.0.0/33", "Unix"])
def test_a_proxy_is_an_address_or_a_network(text):
    with pytest.raises(ConfigError, match="trusted_proxies lists addresses"):
        Clients([text])


# -- the user agent ----------------------------------------------------------------------------------------------------


def agent_of(raw):
    return ours.of(asked("198.51.100.7", agent=raw)).agent


def test_a_client_is_an_address_and_an_agent():
    assert ours.of(asked("198.51.100.7", agent=b"curl/8")) == Client("198.51.100.7", "curl/8")
    assert ours.of(asked("198.51.100.7")) == Client("198.51.100.7", None)


def test_an_agent_is_cut():
    assert agent_of(b"a" * 10_000) == "a" * MOST_AGENT


@given(st.binary(max_size=600))
def test_an_agent_is_printable(raw):
    """D68: no escape sequence, no line break, no soft hyphen."""
    agent = agent_of(raw)
    assert agent is None or agent.isprintable()


def test_what_is_not_printable_is_shown_as_such():
    assert agent_of(b"a\x1b[31m\r\nb\x85\xad\x7f") == "a\ufffd[31m\ufffd\ufffdb\ufffd\ufffd\ufffd"


def test_a_long_chain_is_looked_at_from_its_end_only():
    """D34: what is cut off in the middle is no address, though it may look like one."""
    tail = ", 10.0.0.2" * (MOST_FORWARDED // 10)  # 2,040 bytes
    assert ours.address(asked("10.0.0.1", "1.1.1.1, 198.51.100.7" + tail[:100])) == "198.51.100.7"
    padding = " " * (MOST_FORWARDED - len("2.0.2.7,10.0.0.2"))
    assert ours.address(asked("10.0.0.1", f"192.0.2.7,{padding}10.0.0.2")) == "10.0.0.2"
    near = " " * (MOST_FORWARDED - len(",192.0.2.7,10.0.0.2"))
    assert ours.address(asked("10.0.0.1", f"1.1.1.1,192.0.2.7,{near}10.0.0.2")) == "192.0.2.7"
    assert ours.address(asked("10.0.0.1", "9" * 1_000_000 + ",198.51.100.7")) == "198.51.100.7"
    assert ours.address(asked("10.0.0.1", "9" * 1_000_000)) == "10.0.0.1"
