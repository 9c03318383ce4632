"""Cross-site requests are told by their headers, and a token belongs to one session.

Standards: CSR-01, CSR-05, CSR-06, CSR-11, section 3.1 and 3.2; security.md M3, M9; edge.md F18.
"""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.csrf import Evidence, check_origin, evidence, masked, same_origin, token, verify
from coatcheck.core.errors import ConfigError
from coatcheck.core.model import Request

TRUSTED = frozenset({"https://idp.test"})
EXEMPT = frozenset({"/hook"})


def asked(method="POST", path="/x", *, site=None, origin=None, scheme="https", host="app.test", kind="http", more=()):
    """Return a request with these headers; a tuple of values is a repeated header."""
    headers = [(b"host", host.encode())] if host is not None else []
    for name, found in ((b"sec-fetch-site", site), (b"origin", origin)):
        headers.extend((name, value.encode()) for value in ((found,) if isinstance(found, str) else found or ()))
    return Request(method=method, scheme=scheme, path=path, headers=(*headers, *more), kind=kind)


VECTORS = {
    1: ("GET", "/", "cross-site", "https://evil.test", Evidence.SAFE_METHOD),
    2: ("HEAD", "/", "cross-site", None, Evidence.SAFE_METHOD),
    3: ("OPTIONS", "/", "cross-site", "https://evil.test", Evidence.SAFE_METHOD),
    4: ("POST", "/x", "same-origin", "https://app.test", Evidence.SAME_ORIGIN),
    5: ("POST", "/x", "none", None, Evidence.SAME_ORIGIN),
    6: ("POST", "/x", "same-site", "https://blog.app.test", Evidence.CROSS_ORIGIN),
    7: ("POST", "/x", "cross-site", "https://evil.test", Evidence.CROSS_ORIGIN),
    8: ("POST", "/x", None, None, Evidence.MISSING),
    9: ("POST", "/x", None, "https://app.test", Evidence.SAME_ORIGIN),
    10: ("POST", "/x", None, "https://evil.test", Evidence.CROSS_ORIGIN),
    11: ("POST", "/x", None, "null", Evidence.CROSS_ORIGIN),
    12: ("POST", "/x", None, "http://app.test", Evidence.CROSS_ORIGIN),
    13: ("POST", "/x", None, "https://app.test:8443", Evidence.CROSS_ORIGIN),
    14: ("POST", "/x", None, "https://app.test.evil.test", Evidence.CROSS_ORIGIN),
    15: ("POST", "/x", "cross-site", "https://idp.test", Evidence.EXEMPT),
    16: ("POST", "/x", "same-site", "https://idp.test", Evidence.EXEMPT),
    17: ("POST", "/hook", "cross-site", "https://evil.test", Evidence.EXEMPT),
    18: ("DELETE", "/x", "cross-site", None, Evidence.CROSS_ORIGIN),
    19: ("POST", "/x", "future-value", "https://app.test", Evidence.CROSS_ORIGIN),
    20: ("POST", "/x", ("same-origin", "cross-site"), "https://app.test", Evidence.CROSS_ORIGIN),
}


@pytest.mark.parametrize("origins", [(), ("https://app.test",)], ids=["by Host", "by origins"])
@pytest.mark.parametrize(("method", "path", "site", "origin", "expected"), VECTORS.values(), ids=VECTORS.keys())
def test_the_twenty_vectors(method, path, site, origin, expected, origins):
    """CSR-01, CSR-05: standards 3.1, column cc."""
    request = asked(method, path, site=site, origin=origin)
    assert evidence(request, origins, TRUSTED, EXEMPT) is expected


FURTHER = {
    "PUT": ({"method": "PUT", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "PATCH": ({"method": "PATCH", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "TRACE is unsafe": ({"method": "TRACE", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "CONNECT is unsafe": ({"method": "CONNECT", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "an unknown method is unsafe": ({"method": "BREW", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "a method in lower case is unknown": ({"method": "get", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "the same site twice": ({"site": ("same-origin", "same-origin")}, Evidence.CROSS_ORIGIN),
    "two origins": ({"origin": ("https://app.test", "https://evil.test")}, Evidence.CROSS_ORIGIN),
    "two origins, site good": (
        {"site": "same-origin", "origin": ("https://app.test", "https://evil.test")},
        Evidence.CROSS_ORIGIN,
    ),
    "two origins, one trusted": ({"origin": ("https://idp.test", "https://evil.test")}, Evidence.CROSS_ORIGIN),
    "two sites, origin trusted": (
        {"site": ("same-origin", "cross-site"), "origin": "https://idp.test"},
        Evidence.CROSS_ORIGIN,
    ),
    "an empty site falls back to Origin": ({"site": "", "origin": "https://evil.test"}, Evidence.CROSS_ORIGIN),
    "both empty": ({"site": "", "origin": ""}, Evidence.MISSING),
    "site in capitals": ({"site": "Same-Origin"}, Evidence.CROSS_ORIGIN),
    "null under cross-site": ({"site": "cross-site", "origin": "null"}, Evidence.CROSS_ORIGIN),
    "trusted without a site": ({"origin": "https://idp.test"}, Evidence.EXEMPT),
    "trusted host, other scheme": ({"origin": "http://idp.test"}, Evidence.CROSS_ORIGIN),
    "trusted host, other port": ({"origin": "https://idp.test:444"}, Evidence.CROSS_ORIGIN),
    "below an exempt path": ({"path": "/hook/x", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "exempt path with a slash": ({"path": "/hook/", "site": "cross-site"}, Evidence.CROSS_ORIGIN),
    "Referer says nothing": (
        {"origin": "https://evil.test", "more": ((b"referer", b"https://app.test/"),)},
        Evidence.CROSS_ORIGIN,
    ),
    "X-Forwarded-Host says nothing": (
        {"origin": "https://evil.test", "more": ((b"x-forwarded-host", b"evil.test"),)},
        Evidence.CROSS_ORIGIN,
    ),
    "no Host, empty origin of a scheme": ({"origin": "https://", "host": None}, Evidence.CROSS_ORIGIN),
    "two Hosts": ({"origin": "https://app.test", "more": ((b"host", b"app.test"),)}, Evidence.CROSS_ORIGIN),
    "Host in capitals": ({"origin": "https://app.test", "host": "APP.test"}, Evidence.SAME_ORIGIN),
    "Host with its default port": ({"origin": "https://app.test", "host": "app.test:443"}, Evidence.SAME_ORIGIN),
    "Host with a port": ({"origin": "https://app.test:8443", "host": "app.test:8443"}, Evidence.SAME_ORIGIN),
    "Host with another port": ({"origin": "https://app.test", "host": "app.test:8443"}, Evidence.CROSS_ORIGIN),
    "port 80 under https": ({"origin": "https://app.test", "host": "app.test:80"}, Evidence.CROSS_ORIGIN),
    "plain http, by itself": ({"origin": "http://app.test", "scheme": "http"}, Evidence.SAME_ORIGIN),
    "plain http, default port": (
        {"origin": "http://app.test", "scheme": "http", "host": "app.test:80"},
        Evidence.SAME_ORIGIN,
    ),
    "plain http seen behind TLS": ({"origin": "https://app.test", "scheme": "http"}, Evidence.SAME_ORIGIN),
    "plain http, other host": ({"origin": "http://evil.test", "scheme": "http"}, Evidence.CROSS_ORIGIN),
}


@pytest.mark.parametrize(("request_", "expected"), FURTHER.values(), ids=FURTHER.keys())
def test_what_the_vectors_leave_open(request_, expected):
    """M3, M9, F18."""
    assert evidence(asked(**request_), (), TRUSTED, EXEMPT) is expected


def test_named_origins_are_the_only_truth():
    """M3: a rebound host agrees with its own Origin, and is still not ours."""
    rebound = asked(origin="https://evil.test", host="evil.test")
    assert evidence(rebound, (), (), ()) is Evidence.SAME_ORIGIN
    assert evidence(rebound, ("https://app.test",), (), ()) is Evidence.CROSS_ORIGIN
    internal = asked(origin="https://app.test", host="10.0.0.7:8000", scheme="http")
    assert evidence(internal, ("https://app.test",), (), ()) is Evidence.SAME_ORIGIN
    assert not same_origin(internal, "http://app.test", ("https://app.test",))


SOCKETS = {
    "own origin": ({"origin": "https://app.test"}, Evidence.SAME_ORIGIN),
    "evil": ({"origin": "https://evil.test"}, Evidence.CROSS_ORIGIN),
    "evil that claims a site": ({"origin": "https://evil.test", "site": "same-origin"}, Evidence.CROSS_ORIGIN),
    "null": ({"origin": "null"}, Evidence.CROSS_ORIGIN),
    "none": ({}, Evidence.MISSING),
    "none that claims a site": ({"site": "same-origin"}, Evidence.MISSING),
    "trusted": ({"origin": "https://idp.test"}, Evidence.EXEMPT),
    "exempt": ({"origin": "https://evil.test", "path": "/hook"}, Evidence.EXEMPT),
}


@pytest.mark.parametrize("scheme", ["wss", "https"])
@pytest.mark.parametrize(("request_", "expected"), SOCKETS.values(), ids=SOCKETS.keys())
def test_a_websocket_handshake_is_judged_by_its_origin(request_, expected, scheme):
    """CSR-11: a GET, and not safe."""
    request = asked("GET", kind="websocket", scheme=scheme, **{"path": "/ws", **request_})
    assert evidence(request, (), TRUSTED, EXEMPT) is expected


# -- origins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("https://app.test", "https://app.test"),
        ("https://app.test/", "https://app.test"),
        ("HTTPS://App.Test", "https://app.test"),
        ("https://app.test:443", "https://app.test"),
        ("http://app.test:80", "http://app.test"),
        ("https://app.test:", "https://app.test"),
        ("https://app.test:8443", "https://app.test:8443"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("https://[0:0:0:0:0:0:0:1]", "https://[::1]"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_spelled_as_browsers_send_it(text, spelled):
    assert check_origin(text) == spelled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "app.test",
        "//app.test",
        "https://",
        "https:app.test",
        "ftp://app.test",
        "wss://app.test",
        "https://app.test/path",
        "https://app.test?x",
        "https://app.test#x",
        "https://user@app.test",
        "https://user:pw@app.test",
        "https://app.test:port",
        "https://app.test:99999",
        "https://*.app.test",
        "https://app.test, https://b.test",
        "https://app test",
        "https://app.test\n",
        "https://[::1",
        "https://[::g]",
        "https://bücher.example",
    ],
)
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(ConfigError, match=r"scheme://host"):
        check_origin(text)


def test_a_host_in_other_letters_is_told_about_punycode():
    with pytest.raises(ConfigError, match="punycode"):
        check_origin("https://bücher.example")


# -- token -------------------------------------------------------------------------------------------------------------

KEY, SID, RAND = bytes(range(32)), "sid-internal-01", bytes(range(32, 64))
TOKEN = (
    "12194b6fa4e079ae663fe0ac8eb706e28c10927ecc502a6bd402e722ee7e0238"
    ".202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
)
MAC, _, TEXT = TOKEN.partition(".")


def test_the_token_matches_the_published_vector():
    """CSR-06: standards 3.2."""
    assert token(KEY, SID, RAND) == TOKEN
    assert verify(KEY, SID, TOKEN)


NEGATIVE = {
    "rand changed": TOKEN[:-1] + "0",
    "mac changed": "0" + TOKEN[1:],
    "no dot": MAC + TEXT,
    "two dots": TOKEN + ".",
    "two dots inside": MAC + ".." + TEXT,
    "empty": "",
    "a dot": ".",
    "mac only": MAC,
    "mac and dot": MAC + ".",
    "upper-case mac": MAC.upper() + "." + TEXT,
    "upper-case rand": MAC + "." + TEXT.upper(),
    "1 MiB": "a" * (1 << 20),
    "1 MiB after": TOKEN + "a" * (1 << 20),
    "a newline after": TOKEN + "\n",
    "a space before": " " + TOKEN,
    "wide digits": TOKEN.replace("1", "\uff11"),
    "Arabic digits": TOKEN.replace("1", "\u0661"),
    "a lone surrogate": TOKEN[:-1] + "\ud800",
    "masked prefix only": "m.",
    "masked junk": "m." + "A" * 344,
    "masked, a character short": "m." + "A" * 343,
    "nothing": None,
    "bytes": TOKEN.encode(),
    "an uploaded file": object(),
    "a list": [TOKEN],
}


@pytest.mark.parametrize("presented", NEGATIVE.values(), ids=NEGATIVE.keys())
def test_no_other_text_is_a_token(presented):
    assert verify(KEY, SID, presented) is False


def test_a_token_belongs_to_one_session():
    """D64: of another session, of another key (before login), of a session whose id runs into the length."""
    assert not verify(KEY, "sid-internal-02", TOKEN)
    assert not verify(KEY[::-1], SID, TOKEN)
    assert not verify(KEY, SID + "!64", TOKEN)
    assert token(KEY, "1!2", RAND) != token(KEY, "1", RAND)


def test_masked_tokens_differ_and_verify():
    """BREACH: 200 spellings of one token, no character constant but the prefix."""
    spelled = [masked(TOKEN, os.urandom) for _ in range(200)]
    assert len(set(spelled)) == 200
    assert all(re.fullmatch(r"m\.[A-Za-z0-9_-]{344}", text) for text in spelled)
    assert all(verify(KEY, SID, text) for text in spelled)
    assert all(len({text[place] for text in spelled}) > 1 for place in range(2, 346))
    assert not any(verify(KEY, "sid-internal-02", text) for text in spelled[:5])


@given(st.integers(2, 345), st.sampled_from("ABCxyz019-_"))
def test_a_masked_token_bears_no_change(place, character):
    text = masked(TOKEN, lambda size: b"\x5a" * size)
    changed = text[:place] + character + text[place + 1 :]
    assert verify(KEY, SID, changed) is (changed == text)


@given(st.binary(min_size=32, max_size=32), st.text(max_size=40), st.binary(min_size=32, max_size=32))
def test_every_token_verifies_for_its_session(key, sid, rand):
    plain = token(key, sid, rand)
    assert verify(key, sid, plain)
    assert verify(key, sid, masked(plain, os.urandom))
    assert not verify(key, sid + "x", plain)
