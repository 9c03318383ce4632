"""Guarded answers on every framework: https, frames, embedding, a new browser (CKE-13, CKE-15, CSR-04, CSR-14, ABU-05).

The conformance rows drive five frameworks; each of the others puts headers on in a way of its own.
"""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from coatcheck import MemoryStore
from coatcheck.testing import Clock

from .frameworks import FRAMEWORKS, FrameworkHouse
from .house import COOKIE, OURS, Ask

HSTS = "max-age=31536000; includeSubDomains"
PROXY, STRANGER = "10.0.0.1", "192.0.2.7"
IMAGE = (("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "image"))
TWICE = {"flask-awaited", "django-asgi"}
ON_THE_LOOPBACK = ["aiohttp", "tornado", "sanic"]
"""Their servers take no peer and no scheme from a test: a connection is plain http, and comes from this machine."""


@pytest.fixture
def house(request: pytest.FixtureRequest) -> Iterator[FrameworkHouse]:
    clock = Clock()
    house = FrameworkHouse(
        request.param,
        MemoryStore(clock=clock),
        clock,
        https="checked",
        hsts=HSTS,
        isolate=True,
        proof_pages=["/form"],
        new_devices="tell",
        trusted_proxies=[PROXY, "127.0.0.1", "::1"],
    )
    yield house
    house.close()


def said(
    house: FrameworkHouse, target: str, *headers: tuple[str, str], scheme: str = "https", **how: str
) -> dict[str, str]:
    """Return the headers of an answer, repeated ones joined."""
    answer = house.ask(Ask("GET", target, (*OURS, *headers), scheme=scheme, **how))
    found: dict[str, str] = {":status": str(answer.status)}
    for name, value in answer.headers:
        key = name.decode().lower()
        found[key] = f"{found[key]}, {value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found


@pytest.mark.parametrize("house", sorted(FRAMEWORKS.keys() - TWICE), indirect=True)
def test_each_framework_sends_what_guards_an_answer(house: FrameworkHouse) -> None:
    tls = ("x-forwarded-proto", "https")  # the loopback's servers are behind a proxy that ends TLS
    login = house.ask(Ask("POST", "/?do=login", (*OURS, tls), peer=PROXY))
    names = sorted(line.partition("=")[0] for line in login.set_cookies)
    assert names == [COOKIE, f"{COOKIE}-d"]
    assert [one.detail["first"] for one in house.control.events("authn_new_device")] == [True]
    cookie = ("cookie", f"{COOKIE}={login.token}")

    page = said(house, "/form", tls, cookie, peer=PROXY)
    assert (page[":status"], page["strict-transport-security"]) == ("200", HSTS)
    assert page["content-security-policy"] == "frame-ancestors 'none'"
    assert page["cross-origin-opener-policy"] == "same-origin"
    assert page["cross-origin-resource-policy"] == "same-origin"
    both = said(house, f"/form?header={quote('content-security-policy:default-src self')}", tls, cookie, peer=PROXY)
    assert both["content-security-policy"] == "default-src self, frame-ancestors 'none'"
    own = said(house, "/me?header=strict-transport-security:max-age%3D1", tls, cookie, peer=PROXY)
    assert own["strict-transport-security"] == "max-age=1"

    embedded = house.ask(Ask("GET", "/me", (*IMAGE, tls, cookie), peer=PROXY))
    assert (embedded.status, b"alice" in embedded.body, embedded.set_cookies) == (403, False, [])
    assert embedded.header("strict-transport-security") == HSTS
    plain = house.ask(Ask("GET", "/me", (*OURS, cookie, ("x-forwarded-proto", "http")), peer=PROXY))
    assert (plain.status, plain.set_cookies, plain.header("strict-transport-security")) == (403, [], None)
    if house.kind not in ON_THE_LOOPBACK:
        _the_connection_is_what_it_was(house, cookie)


def _the_connection_is_what_it_was(house: FrameworkHouse, cookie: tuple[str, str]) -> None:
    assert said(house, "/me", cookie, peer=STRANGER)[":status"] == "200"
    assert said(house, "/me", cookie, peer=STRANGER, scheme="http")[":status"] == "403"
    lie = ("x-forwarded-proto", "https")
    assert said(house, "/me", cookie, lie, peer=STRANGER, scheme="http")[":status"] == "403"
