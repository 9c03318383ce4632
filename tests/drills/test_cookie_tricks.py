"""What a sibling host or a strange client can do to a Cookie header (D19, D20; H11, TOK-11, TOK-18)."""

import pytest

from .conftest import Build
from .house import COOKIE, OURS, Ask, House

NAME = COOKIE.encode()

SPELLINGS = [
    # what stands in front of ours, or in its place; `%b` is the name, `%b` again the token
    (b"%b=%b", True),
    (b" \t %b=%b \t", True),
    (b"a=1;%b=%b", True),
    (b"a=1; %b=%b; b=2", True),
    (b"a=1;\t%b=%b", True),
    (b";;; %b=%b;;", True),
    (b'a="x;y"; %b=%b', True),
    (b"\x85%b=%b", False),
    (b"\xa0%b=%b", False),
    (b"\x0b%b=%b", False),
    (b"\x0c%b=%b", False),
    (b"\x1c%b=%b", False),
    (b"\x1f%b=%b", False),
    (b"\xe2\x80\x80%b=%b", False),
    (b"\0%b=%b", False),
    (b"\n%b=%b", False),
    (b"a=1,%b=%b", False),
    (b"a=1, %b=%b", False),
    (b"$Version=1,%b=%b", False),
    (b'$Version="1"; %b=%b; $Path="/"', True),
    (b"x%b=%b", False),
    (b"%b =%b", False),
    (b"%b\t=%b", False),
    (b"%b==%b", False),
    (b'%b="%b"', False),
    (b"%b= %b", True),
    (b"=%b=%b", False),
    (b"a=%b=%b", False),
]


@pytest.mark.parametrize(("spelling", "counts"), SPELLINGS)
def test_only_the_exact_name_after_spaces_and_tabs_counts(house: House, spelling: bytes, counts: bool) -> None:
    """D19."""
    token = house.visitor().login().encode()
    answer = house.ask(Ask("GET", "/me", ((b"cookie", spelling % (NAME, token)), *OURS)))
    assert answer.status == (200 if counts else 401)
    assert answer.token is None


@pytest.mark.parametrize(
    "name", ["__host-coat", "__HOST-COAT", "__Host-Coat", "__Secure-coat", "coat", "coat-insecure"]
)
def test_another_name_is_another_cookie(house: House, name: str) -> None:
    """D19, CKE-10, TOK-18: prefixes in any case, and the name of the insecure mode."""
    token = house.visitor().login()
    assert house.ask(Ask("GET", "/me", (("cookie", f"{name}={token}"), *OURS))).status == 401
    assert house.control.trouble.calls.count("load") == 0


def test_two_different_values_are_nobodys(house: House) -> None:
    """D20 (TOK-18): in either order, in one line or in two; told as noise, answered without a cookie."""
    ann, bob = house.visitor().login("ann"), house.visitor().login("bob")
    commits = house.commits
    one, two = f"{COOKIE}={ann}", f"{COOKIE}={bob}"
    for lines in ([f"{one}; {two}"], [f"{two};{one}"], [one, two], [f"x=1; {one}", f"{COOKIE}=; y=2"]):
        answer = house.ask(Ask("GET", "/me", (*(("cookie", line) for line in lines), *OURS)))
        assert (answer.status, answer.token) == (401, None)
    assert house.control.manager.noise.totals["session_cookie_ambiguous"] == 4
    assert house.commits == commits


def test_the_same_value_twice_and_a_header_in_two_parts_are_one_session(house: House) -> None:
    """D20 (HTTP/2 may split the header, RFC 9113 section 8.2.3)."""
    ann = f"{COOKIE}={house.visitor().login('ann')}"
    for lines in ([f"{ann}; {ann}"], [ann, ann], ["a=1", ann, "b=2"]):
        answer = house.ask(Ask("GET", "/me", (*(("cookie", line) for line in lines), *OURS)))
        assert answer.json["user"] == "ann"


@pytest.mark.parametrize("joined", [",", ", "])
def test_what_a_server_joins_by_commas_cannot_be_planted_through(build: Build, joined: str) -> None:
    """Beyond D20: a value of a sibling's cookie with a comma in it never begins ours."""
    house = build()
    ann, mallory = house.visitor().login("ann"), house.visitor().login("mallory")
    header = f"theme=dark{joined}{COOKIE}={mallory}; {COOKIE}={ann}"
    assert house.ask(Ask("GET", "/me", (("cookie", header), *OURS))).json["user"] == "ann"
    alone = f"theme=dark{joined}{COOKIE}={mallory}"
    assert house.ask(Ask("GET", "/me", (("cookie", alone), *OURS))).status == 401


def test_the_cookie_of_the_insecure_mode_is_not_ours(build: Build) -> None:
    """H11: what http://localhost handed out opens nothing over https, and the other way round."""
    secure = build()
    insecure = build(origins=[], allow_insecure_http=True)
    token = secure.visitor().login()
    here = {"host": "localhost:8000", "scheme": "http"}
    assert insecure.ask(Ask("GET", "/me", (("cookie", f"{COOKIE}={token}"),), **here)).status == 401
    assert insecure.ask(Ask("GET", "/me", (("cookie", f"coat-insecure={token}"),), **here)).status == 200
    assert secure.ask(Ask("GET", "/me", (("cookie", f"coat-insecure={token}"), *OURS))).status == 401
