"""A token counts for the audience it was made for, and nowhere else (D09, D10; C3)."""

import pytest

from .conftest import Build
from .house import OURS, Ask


@pytest.mark.parametrize("handler", ["/me", "/private", "/data"])
def test_a_shop_token_opens_no_console(build: Build, handler: str) -> None:
    """D09: the shop's `admin` is not the console's, though both keep their sessions in one store."""
    shop, console = build(), build(name="__Host-console")
    token = shop.visitor().login("admin")
    commits = console.commits
    answer = console.ask(Ask("GET", handler, (("cookie", f"__Host-console={token}"), *OURS)))
    assert answer.status in (200, 401)
    assert b"admin" not in answer.body
    assert console.control.manager.noise.totals == {"session_garbage_token": 1}
    assert console.commits == commits
    assert shop.visitor(token).user == "admin"


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ({"realm": "shop"}, {"realm": "blog"}, False),
        ({"realm": "shop"}, {"realm": "Shop"}, False),
        ({"realm": "shop"}, {}, False),
        ({"realm": "both"}, {"realm": "both"}, True),
        ({}, {"realm": "__Host-coat"}, True),
    ],
)
def test_two_apps_on_one_store_share_a_session_only_in_one_realm(
    build: Build, one: dict[str, str], two: dict[str, str], shared: bool
) -> None:
    """D10."""
    here, there = build(**one), build(**two)
    token = here.visitor().login("ann")
    assert there.visitor(token).user == ("ann" if shared else None)
    assert here.visitor(token).user == "ann"


def test_a_logout_everywhere_ends_nobody_of_the_same_name_in_another_realm(build: Build) -> None:
    """D09: subjects are compared as (realm, subject)."""
    shop, console = build(), build(realm="console")
    customer, operator = shop.visitor(), console.visitor()
    customer.login("admin")
    operator.login("admin")
    customer.post("/logout?everywhere=1")
    assert operator.user == "admin"
    operator.post("/account/sessions/revoke-others")
    assert operator.user == "admin"


def test_a_csrf_token_of_another_realm_is_none(build: Build) -> None:
    """D10, D64: the key of a CSRF token has the realm in it."""
    shop, blog = build(realm="shop"), build(realm="blog")
    ours, theirs = shop.visitor(), blog.visitor()
    ours.login("ann")
    theirs.login("ann")
    foreign = theirs.get("/form").body.decode()
    assert ours.post("/echo?token=required", csrf_token=foreign).status == 403
