"""Our cookie is found exactly or not at all, written as browsers keep it, and dressed so that no cache does.

Standards: CKE-01 to CKE-14, TOK-18, CSR-10; drills: D18, D19, D20, D34.
"""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.cookies import AMBIGUOUS, MOST_AGE, MOST_HEADER, CookieSpec, CookieWriter, added, dress
from coatcheck.core.errors import ConfigError, DataError
from coatcheck.core.model import Outcome

NAME = b"__Host-coat"
ours = CookieWriter(CookieSpec())
plain = CookieWriter(CookieSpec(name="coat", reason="a test"))
joined = CookieWriter(CookieSpec(), comma_joined=True)

# -- find --------------------------------------------------------------------------------------------------------------

FOUND = {
    "alone": (b"__Host-coat=A", b"A"),
    "among others": (b"a=1; __Host-coat=A; b=2", b"A"),
    "first": (b"__Host-coat=A; b=2", b"A"),
    "without a space": (b"a=1;__Host-coat=A;b=2", b"A"),
    "spaces and tabs around": (b"a=1; \t __Host-coat=A \t; b=2", b"A"),
    "leading space": (b" __Host-coat=A", b"A"),
    "many spaces": (b" " * 200 + b"__Host-coat=A", b"A"),
    "many spaces after a pair": (b"a=1;" + b" " * 200 + b"__Host-coat=A", b"A"),
    "empty": (b"__Host-coat=", b""),
    "an equals sign in it": (b"__Host-coat=A=B", b"A=B"),
    "quotes are part of it": (b'__Host-coat="A"', b'"A"'),
    "cut at a comma": (b"__Host-coat=A,b=2; c=3", b"A"),
    "twice the same": (b"__Host-coat=A; __Host-coat=A", b"A"),
    "absent": (b"a=1; b=2", None),
    "nothing": (b"", None),
    "name only": (b"__Host-coat", None),
    "longer name": (b"__Host-coat2=A", None),
    "name that ends with ours": (b"x__Host-coat=A", None),
    "name with ours after a dash": (b"my-__Host-coat=A", None),
    "mis-cased prefix": (b"__host-coat=A", None),
    "mis-cased name": (b"__Host-Coat=A", None),
    "space before the equals sign": (b"__Host-coat =A", None),
    "in a value": (b"a=__Host-coat=A", None),
    "in a value after a space": (b"a=1 __Host-coat=A", None),
    "in a quoted value": (b'a="x, __Host-coat=A"', None),
    "$Version": (b'$Version="1"; $Path="/"; a=1', None),
    "leading U+2000 in UTF-8": (b"a=1; \xe2\x80\x80__Host-coat=A", None),
    "two values": (b"__Host-coat=A; __Host-coat=B", AMBIGUOUS),
    "two values far apart": (b"__Host-coat=A; " + b"x=1; " * 100 + b"__Host-coat=B", AMBIGUOUS),
    "a value and none": (b"__Host-coat=A; __Host-coat=", AMBIGUOUS),
    "a value and its quotation": (b'__Host-coat=A; __Host-coat="A"', AMBIGUOUS),
    "planted by name, ours exact": (b"\xa0__Host-coat=B; __Host-coat=A; __host-coat=C", b"A"),
    "planted by value, ours exact": (b"theme=x,__Host-coat=B; __Host-coat=A", b"A"),
    "planted by value alone": (b"theme=x,__Host-coat=B", None),
}


@pytest.mark.parametrize(("header", "value"), FOUND.values(), ids=FOUND.keys())
def test_our_cookie_is_found_by_its_exact_name_at_the_start_of_a_pair(header, value):
    """TOK-18, CKE-10, D20."""
    assert ours.find(header) == value


@pytest.mark.parametrize("byte", [b for b in range(256) if b not in b" \t;"])
def test_no_other_byte_counts_as_space(byte):
    """D18, D19: 0x85, 0xA0, 0x0B, 0x1C and their like would be stripped from text; a browser keeps them in the name."""
    assert ours.find(b"a=1; " + bytes([byte]) + b"__Host-coat=A") is None
    assert ours.find(bytes([byte]) + b"__Host-coat=A") is None
    assert plain.find(b"a=1; " + bytes([byte]) + b"coat=A") is None


@pytest.mark.parametrize("byte", [b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0", b"\r", b"\n", b"\0"])
def test_no_other_byte_is_trimmed_from_a_value(byte):
    assert ours.find(b"__Host-coat=A" + byte + b"; b=1") == b"A" + byte
    assert ours.find(b"__Host-coat=" + byte + b"A") == byte + b"A"


JOINED = {
    "crumbs": (b"theme=dark,__Host-coat=A,b=1", b"A"),
    "crumbs with spaces": (b"theme=dark, __Host-coat=A , b=1", b"A"),
    "two values across both": (b"a=1,__Host-coat=A; __Host-coat=B", AMBIGUOUS),
    "the same across both": (b"a=1,__Host-coat=A; __Host-coat=A", b"A"),
}


@pytest.mark.parametrize(("header", "value"), JOINED.values(), ids=JOINED.keys())
def test_a_server_that_joins_by_comma_can_be_named(header, value):
    """edge.md F25."""
    assert joined.find(header) == value


def test_a_comma_means_nothing_to_a_name_without_host_prefix():
    lax = CookieWriter(CookieSpec(name="coat", reason="a test"), comma_joined=True)
    assert lax.find(b"theme=x,coat=A") is None
    assert lax.find(b"coat=A,b=1") == b"A,b=1"


def test_neither_mode_reads_the_others_cookie():
    local = CookieWriter(CookieSpec(name="coat-insecure", secure=False))
    both = b"coat-insecure=PLAIN; __Host-coat=SECURE"
    assert ours.find(both) == b"SECURE"
    assert local.find(both) == b"PLAIN"
    assert ours.find(b"coat-insecure=PLAIN; coat=PLAIN") is None


octets = st.text(st.sampled_from([chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\']), max_size=80).map(
    lambda text: text.encode()
)
others = st.lists(
    st.binary(max_size=20)
    .map(lambda raw: raw.replace(b";", b"").replace(b",", b""))
    .filter(lambda raw: NAME not in raw),
    max_size=5,
)


@given(octets, others, others)
def test_what_is_written_is_found(value, before, after):
    pair = ours.write(value).partition(b";")[0]
    assert ours.find(b"; ".join([*before, pair, *after])) == value


@given(st.binary(max_size=60))
def test_any_header_is_answered(header):
    found = ours.find(header)
    assert found is None or found is AMBIGUOUS or isinstance(found, bytes)


HOSTILE = {
    "100 cookies": b"; ".join(b"cookie%d=%s" % (n, b"v" * 60) for n in range(100)),
    "an 8 KiB cookie": b"__Host-coat=" + b"A" * 8180,
    "copies": b"__Host-coat=A;" * 1170,
    "near misses": b"x__Host-coat=" * 1260,
    "spaces": b" " * 16_000 + b"__Host-coat=A",
    "spaces between": b"    __Host-coat=" * 1024,
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_costs_one_scan(header):
    """D34. The bound, in CPU time, is ten times what was measured; a quadratic scan takes seconds."""
    assert len(header) <= MOST_HEADER
    began = time.process_time()
    for _ in range(5):
        ours.find(header)
    assert (time.process_time() - began) / 5 < 0.02


# -- write -------------------------------------------------------------------------------------------------------------

GRAMMAR = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+=[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
    rb"(; (Path=/[^;]*|Domain=[^;]+|Secure|HttpOnly|Partitioned|SameSite=(Lax|Strict|None)|Max-Age=[0-9]+))*"
)


@given(octets, st.none() | st.floats(-10, 1e12))
def test_every_set_cookie_keeps_the_grammar(value, age):
    """CKE-06; RFC 6265bis section 4.1.1."""
    assert GRAMMAR.fullmatch(ours.write(value, age))
    names = [part.partition(b"=")[0] for part in ours.write(value, age).split(b"; ")[1:]]
    assert len(names) == len(set(names))


def test_the_default_is_the_strongest_cookie():
    """CKE-01, CKE-02, CKE-03, CKE-04, TMO-08."""
    assert ours.write(b"A") == b"__Host-coat=A; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_taking_it_away_repeats_the_attributes():
    assert ours.clear() == b"__Host-coat=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
    wide = CookieSpec(name="__Secure-c", domain="a.test", path="/x", same_site="None", partitioned=True, reason="why")
    assert CookieWriter(wide).clear() == (
        b"__Secure-c=; Path=/x; Domain=a.test; Secure; HttpOnly; SameSite=None; Partitioned; Max-Age=0"
    )


@pytest.mark.parametrize(
    ("age", "written"),
    [(0, 0), (-5, 0), (1.9, 1), (3600.0, 3600), (MOST_AGE + 1, MOST_AGE), (float("inf"), MOST_AGE)],
)
def test_max_age_is_whole_and_at_most_400_days(age, written):
    """TMO-09."""
    assert ours.write(b"A", age).endswith(b"; Max-Age=%d" % written)


def test_a_cookie_fills_4096_bytes_and_no_more():
    """CKE-05, TOK-22."""
    most = b"A" * (4096 - len(NAME))
    assert ours.write(most)
    with pytest.raises(DataError, match="browsers keep 4096"):
        ours.write(most + b"A")


@pytest.mark.parametrize("byte", [b for b in range(256) if b <= 0x20 or b >= 0x7F or b in b'",;\\'])
def test_bytes_that_are_no_cookie_octets_are_refused(byte):
    """CKE-06: above all CR, LF and the semicolon."""
    with pytest.raises(DataError, match="octets"):
        ours.write(b"A" + bytes([byte]) + b"B")


# -- check -------------------------------------------------------------------------------------------------------------

GOOD = [
    CookieSpec(),
    CookieSpec(name="__Host-Http-coat"),
    CookieSpec(name="__Http-coat", path="/app"),
    CookieSpec(name="__Secure-coat", path="/app"),
    CookieSpec(name="__Secure-coat", domain="shop.example", reason="one login for shop and help"),
    CookieSpec(same_site="Strict"),
    CookieSpec(same_site="None", partitioned=True, reason="embedded at partners"),
    CookieSpec(name="sessionid", reason="the old name, until the move is done"),
    CookieSpec(name="coat-insecure", secure=False),
]


@pytest.mark.parametrize("spec", GOOD, ids=lambda spec: spec.name)
def test_sound_cookies_pass(spec):
    """CKE-12 among them."""
    spec.check()


BAD = [
    ({"name": ""}, "RFC 9110 token"),
    ({"name": "__Host-a b"}, "RFC 9110 token"),
    ({"name": "__Host-ä"}, "RFC 9110 token"),
    ({"name": "__Host-a\n"}, "RFC 9110 token"),
    ({"name": "__host-coat"}, "write it __Host-coat"),
    ({"name": "__SECURE-coat"}, "write it __Secure-coat"),
    ({"name": "__Host-http-coat"}, "write it __Host-Http-coat"),
    ({"secure": False}, "__Host- needs Secure"),
    ({"name": "__Secure-coat", "secure": False}, "__Secure- needs Secure"),
    ({"domain": "shop.example", "reason": "why"}, "__Host- forbids Domain"),
    ({"path": "/app"}, "__Host- needs Path=/"),
    ({"name": "__Http-coat", "http_only": False}, "__Http- needs HttpOnly"),
    ({"http_only": False}, "http_only must stay True"),
    ({"same_site": "lax"}, "same_site is"),
    ({"same_site": "None"}, "say why with reason"),
    ({"name": "coat-insecure", "secure": False, "same_site": "None", "reason": "why"}, "SameSite=None needs Secure"),
    ({"name": "coat-insecure", "secure": False, "partitioned": True}, "Partitioned needs Secure"),
    ({"name": "coat", "secure": False}, "clear text"),
    ({"name": "coat"}, "name it __Host-coat"),
    ({"name": "__Secure-coat", "domain": "shop.example"}, "hands the session to every host"),
    ({"name": "__Secure-coat", "domain": "example", "reason": "why"}, "host name with a dot"),
    ({"name": "__Secure-coat", "domain": ".shop.example", "reason": "why"}, "host name with a dot"),
    ({"name": "__Secure-coat", "domain": "a.b; Path=/", "reason": "why"}, "host name with a dot"),
    ({"name": "__Secure-coat", "path": "app"}, "must start with /"),
    ({"name": "__Secure-coat", "path": "/a;b"}, "no semicolon"),
    ({"name": "__Secure-coat", "path": "/a\nb"}, "printable ASCII"),
    ({"name": "__Secure-coat", "path": "/" + "a" * 1024}, "must start with /"),
]


@pytest.mark.parametrize(("changes", "fault"), BAD)
def test_a_weak_or_impossible_cookie_is_refused_by_its_fault(changes, fault):
    """CKE-01, CKE-02, CKE-03, CKE-04, CKE-05, CKE-08, CKE-09."""
    with pytest.raises(ConfigError, match=re.escape(fault)) as caught:
        CookieSpec(**changes).check()
    assert str(caught.value).startswith("cookie ")


# -- dress -------------------------------------------------------------------------------------------------------------

COOKIE = b"__Host-coat=A; Path=/"
HTML = (b"content-type", b"text/html")


def dressed(headers, *, cookies=(COOKIE,), vary=("Cookie",)):
    return dress(headers, Outcome(cookies=cookies, vary=vary))


def values(headers, name):
    return [value for key, value in headers if key.lower() == name]


def test_a_response_that_is_dressed_again_says_everything_once():
    """An error page, or a header that a signal added since: no device registers twice, no browser clears twice."""
    more = ((b"clear-site-data", b'"cache"'), (b"secure-session-registration", b'(ES256);path="/x"'))
    outcome = Outcome(cookies=(COOKIE,), vary=("Cookie",), headers=more)
    once = dress([HTML, (b"Vary", b"Accept")], outcome)
    assert dress([*once, (b"X-Since", b"1")], outcome)[-1] == more[-1]
    again = dress([(name.title(), value) for name, value in once], outcome)
    assert sorted((name.lower(), value) for name, value in again) == sorted(
        (name.lower(), value) for name, value in once
    )
    theirs = (b"secure-session-registration", b'(ES256);path="/of-another"')
    assert values(dress([*once, theirs], outcome), theirs[0]) == [theirs[1], more[1][1]]


def test_an_outcome_without_headers_changes_nothing():
    given_headers = [HTML, (b"Cache-Control", b"public"), (b"VARY", b"Accept")]
    assert dress(given_headers, Outcome()) == given_headers


@pytest.mark.parametrize(
    "name",
    [
        b"Cache-Control",
        b"Expires",
        b"Pragma",
        b"Surrogate-Control",
        b"CDN-Cache-Control",
        b"Cloudflare-CDN-Cache-Control",
        b"X-Accel-Expires",
    ],
)
def test_with_a_cookie_nothing_but_no_store_speaks_to_caches(name):
    """CCH-01; RFC 9111 section 7.3, RFC 9213."""
    headers = dressed([HTML, (name, b"public, max-age=60"), (name.lower(), b"60")])
    assert values(headers, b"cache-control") == [b"no-store"]
    assert name.lower() == b"cache-control" or not values(headers, name.lower())
    assert HTML in headers


def test_without_a_cookie_the_applications_caching_stays():
    headers = dressed([(b"Cache-Control", b"private, max-age=60")], cookies=())
    assert values(headers, b"cache-control") == [b"private, max-age=60"]


@pytest.mark.parametrize(
    ("present", "merged"),
    [
        ([], b"Cookie"),
        ([b"Accept-Encoding"], b"Accept-Encoding, Cookie"),
        ([b"Accept-Encoding, Accept", b"Origin"], b"Accept-Encoding, Accept, Origin, Cookie"),
        ([b"cookie"], b"cookie"),
        ([b"Accept,, cookie ,accept"], b"Accept, cookie"),
        ([b""], b"Cookie"),
        ([b"*"], b"*"),
        ([b"Accept, *"], b"*"),
    ],
)
def test_vary_is_merged_into_one_line(present, merged):
    """CSR-10, CCH-03."""
    headers = dressed([(b"Vary", value) for value in present])
    assert values(headers, b"vary") == [merged]


def test_vary_stays_where_only_a_cookie_goes_out():
    assert values(dressed([(b"Vary", b"Accept")], vary=()), b"vary") == [b"Accept"]


def test_one_cookie_of_a_name_goes_out_and_others_stay():
    """CKE-07."""
    headers = dressed(
        [(b"Set-Cookie", b"__Host-coat=OLD"), (b"set-cookie", b"__Host-coat2=1"), (b"Set-Cookie", b"a=1")]
    )
    assert values(headers, b"set-cookie") == [b"__Host-coat2=1", b"a=1", COOKIE]


@given(st.lists(st.tuples(st.sampled_from([b"Vary", b"cache-control", b"x", b"Set-Cookie"]), octets), max_size=6))
def test_dressing_twice_is_dressing_once(headers):
    once = dressed(headers)
    assert dressed(once) == once


def test_what_was_added_is_told_only_where_all_else_stayed():
    before = [(b"Content-Type", b"text/plain"), (b"vary", b"Accept")]
    more = (b"vary", b"Cookie")
    assert added(before, before) == []
    assert added([*before, more], before) == [more]
    assert added([before[0], more], before) is None
    assert added([more], []) == [more]
