"""Rows of part H: the cookies."""

from __future__ import annotations

from .registry import row
from .site import Site
from .verdicts import expect


@row("CKE-10")
def test_prefix_is_exact(site: Site) -> None:
    """The name goes out as __Host-coat, and a token under any other case logs nobody in."""
    browser = site.logged_in()
    expect("the name", site.cookie, "__Host-coat")
    expect("who has the token", site.user_of(browser.token), "alice")
    for name in ("__host-coat", "__HOST-coat", "__Host-Coat"):
        answer = site.ask("GET", "/me", cookies=f"{name}={browser.token}")
        expect(f"the answer to the token under {name}", answer.status, 401)
