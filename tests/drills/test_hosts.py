"""What a request says of its own host is believed on this machine only (D57, D58; M2, M3, CKE-13)."""

import pytest

from .conftest import Build
from .house import HOST, ORIGIN, OURS, Ask

INSECURE = [
    # host, forwarding headers, expected status
    ("localhost", (), 401),
    ("localhost:8000", (), 401),
    ("127.0.0.1:8000", (), 401),
    ("[::1]:8000", (), 401),
    ("app.localhost", (), 401),
    ("app.example", (), 500),
    ("localhost.app.example", (), 500),
    ("app.example:80", (), 500),
    ("127.0.0.1.nip.io", (), 500),
    ("localhost.", (), 500),
    ("evil@localhost.evil.example", (), 500),
    ("0.0.0.0", (), 500),
    ("2130706433", (), 500),
    ("[::ffff:203.0.113.9]", (), 500),
    ("\xe4pp.example", (), 500),
    ("xn--pp-uia.example", (), 500),
    ("", (), 500),
    (None, (), 500),
    ("localhost", (("x-forwarded-for", "203.0.113.9"),), 500),
    ("localhost", (("x-forwarded-proto", "https"),), 500),
    ("localhost", (("x-forwarded-host", "localhost"),), 500),
    ("localhost", (("x-forwarded-port", "443"),), 500),
    ("localhost", (("forwarded", "for=203.0.113.9"),), 500),
    ("localhost", (("X-FORWARDED-FOR", ""),), 500),
]


@pytest.mark.parametrize(("host", "headers", "status"), INSECURE)
def test_insecure_http_is_served_on_localhost_only(
    build: Build, host: str | None, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    """D57: elsewhere it is refused with one sentence that says what to set, and never with a cookie."""
    house = build(origins=[], allow_insecure_http=True)
    answer = house.ask(Ask("GET", "/me", headers, host=host, scheme="http"))
    assert answer.status == status
    if status == 500:
        assert b"origins=['https://...']" in answer.body
        assert answer.set_cookies == []
        assert house.control.trouble.calls == []


@pytest.mark.parametrize("host", ["app.example", "evil.example:443", "", "203.0.113.9", None])
def test_an_application_without_a_name_is_served_on_test_hosts_only(build: Build, host: str | None) -> None:
    """M3, D47: no rebound name reaches an application that was never told its own."""
    answer = build(origins=[]).ask(Ask("POST", "/login", OURS, b"user=alice", host=host))
    assert (answer.status, answer.token) == (500, None)


FORWARDED = (
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", HOST),
    ("x-forwarded-for", "198.51.100.1"),
    ("forwarded", f"for=198.51.100.1;host={HOST};proto=https"),
    ("x-real-ip", "198.51.100.1"),
    ("x-original-host", HOST),
    ("x-http-method-override", "GET"),
)


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (HOST, ORIGIN, 303),
        ("evil.example", "https://evil.example", 403),
        (HOST, "https://evil.example", 403),
        ("evil.example", ORIGIN, 303),
        (HOST, "http://app.test", 403),
        (HOST, "https://app.test:8443", 403),
        (HOST, "https://app.test.evil.example", 403),
        (HOST, "https://app.test@evil.example", 403),
        (HOST, "null", 403),
        (HOST, f"{ORIGIN}, https://evil.example", 403),
        (HOST, f"{ORIGIN}/", 403),
        (HOST, "https://APP.test", 403),
        (HOST, "https://app.test\u00a0", 403),
        (HOST, "https://xn--pp-uia.test", 403),
    ],
)
def test_forwarded_headers_of_an_unlisted_peer_change_nothing(
    build: Build, host: str, origin: str, status: int
) -> None:
    """D58: `origins` is the one truth; an evil Host with the Origin that fits it is refused."""
    house = build()
    answer = house.ask(Ask("POST", "/login", (*FORWARDED, ("origin", origin)), b"user=alice", host=host))
    assert answer.status == status
    if status == 403:
        assert answer.set_cookies == []
        assert house.control.manager.noise.totals == {"csrf_denied": 1}
        return
    (record,) = house.control.records()
    assert record.client is not None
    assert record.client.address == "192.0.2.7", "the peer, not what it says of itself"


@pytest.mark.parametrize(
    ("hops", "address"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("203.0.113.5, 198.51.100.1", "198.51.100.1"),
        ("203.0.113.5, 192.0.2.9", "203.0.113.5"),
        ("evil\r\nX: y", "192.0.2.7"),
        ("<script>, 198.51.100.1", "198.51.100.1"),
        ("unknown", "192.0.2.7"),
        ("", "192.0.2.7"),
        (", " * 100_000, "192.0.2.7"),
    ],
)
def test_a_listed_proxy_is_believed_hop_by_hop(build: Build, hops: str, address: str) -> None:
    """D58, LOG-09: from the right, through listed hops only; what is no address never gets into a record."""
    house = build(trusted_proxies=["192.0.2.0/24"])
    house.ask(Ask("POST", "/login", (("x-forwarded-for", hops), *OURS), b"user=alice"))
    (record,) = house.control.records()
    assert record.client is not None
    assert record.client.address == address
