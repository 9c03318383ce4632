"""Rows 1.C: tokens that hold their own session (sealed ones), and those of others that are signed (JWS)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import msgspec

from ...core import sealed as sealing
from ...core.jose import Refused, verified
from ...core.keyring import Key, Keyring
from ...core.sealed import Sealed
from ..browser import Browser
from .provider import Outlet, curve_key, key_set, logout_token, signed
from .registry import row
from .rows_secrets import sealed_site
from .rows_tokens import NOBODY, token_of
from .site import Site
from .verdicts import expect

CLAIMS = {"iss": "https://op.example", "sub": "u1"}
EXPIRES_AT = 5
"""Where in a sealed token its end stands (model.Held)."""


def _sealed(site: Site, **settings: Any) -> Site:
    ours = {name: settings.pop(name) for name in ("monotonic", "most_chunks") if name in settings}
    keys = Keyring([Key("k1", os.urandom(32))], os.urandom)
    return sealed_site(site, Sealed(keyring=keys, **ours), **settings)


def _refused(what: str, token: str, algorithms: tuple[str, ...] = ("RS256", "ES256")) -> None:
    """Fail unless a signed token of somebody else's is refused."""
    try:
        verified(token, key_set()["keys"], algorithms, "logout+jwt")
    except Refused:
        return
    message = f"a signed token with {what} was believed"
    raise AssertionError(message)


def _header(**more: Any) -> dict[str, Any]:
    return {"alg": "RS256", "kid": "one", "typ": "logout+jwt", **more}


@row("SCT-01")
def nothing_is_read_before_the_seal_holds(site: Site) -> None:
    """Whatever is altered, cut or signed by zeros is nobody's, and what it holds is not even parsed."""
    curve = _header(alg="ES256", kid="curve")
    expect("a good signature", verified(signed(CLAIMS, curve, curve_key()), key_set()["keys"], ["ES256"], None), CLAIMS)
    text = signed(CLAIMS, curve, curve_key()).rpartition(".")[0]
    for what, signature in (("r and s of zero", "A" * 86), ("no signature", ""), ("half a signature", "A" * 43)):
        _refused(what, f"{text}.{signature}")
    shop = _sealed(site)
    owner = shop.logged_in()
    token = token_of(owner)
    with _counted("_decode") as parsed:
        for place in range(len(token)):
            altered = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
            expect(f"who a sealed token is that is altered at {place}", shop.user_of(altered), None)
        for cut in (token[:-1], token[:-4], token[:40], f"{token}AAAA", token + token):
            expect("who a sealed token of another length is", shop.user_of(cut), None)
    expect("how often the content of such a token was parsed", parsed(), 0)
    with _counted("_decode") as parsed:
        expect("who the owner is", owner.get("/me").json()["user"], "alice")
    expect("how often the content of a good one was parsed", parsed(), 1)


@contextmanager
def _counted(name: str) -> Iterator[Callable[[], int]]:
    with mock.patch.object(sealing, name, side_effect=getattr(sealing, name)) as spy:
        yield lambda: int(spy.call_count)


@row("SCT-02")
def only_the_algorithms_that_were_chosen_count(site: Site) -> None:
    """No `none`, no shared secret, none that the token names: sealed tokens have one, signed ones those registered."""
    for none in ("none", "None", "nOnE", "NONE", ""):
        _refused(f"alg {none}", signed(CLAIMS, _header(alg=none), None))
    public = json.dumps(key_set()["keys"][0]).encode()
    for secret in (public, b"secret", b""):
        _refused("HS256", signed(CLAIMS, _header(alg="HS256"), secret))
        _refused("HS256", signed(CLAIMS, _header(alg="HS256"), secret), ("RS256", "HS256"))
    for unknown in ("RS1", "XX256", "RS256 ", 256, None, ["RS256"]):
        _refused(f"alg {unknown!r}", signed(CLAIMS, _header(alg=unknown)))
    _refused(
        "an alg that was not registered", signed(CLAIMS, _header(alg="ES256", kid="curve"), curve_key()), ("RS256",)
    )
    shop = _sealed(site)
    token = token_of(shop.logged_in())
    for version in ("s0", "s2", "S1", "none", "c1", "", "s1.s1"):
        expect(f"who a token of the kind {version!r} is", shop.user_of(version + token[2:]), None)


@row("SCT-03")
def no_token_brings_its_own_key(site: Site) -> None:
    """What a header holds or points to is no key; a key's id is looked up as it stands, in no file and no store."""
    numbers = key_set()["keys"][1]
    own = {"jwk": {**numbers}, "jku": "https://evil.example/keys", "x5u": "https://evil.example/cert"}
    for name, value in own.items():
        _refused(name, signed(CLAIMS, _header(**{name: value}), "evil"))
        _refused(f"{name} and another kid", signed(CLAIMS, _header(**{name: value, "kid": "mine"}), "evil"))
    strange = ("../../dev/null", "/etc/passwd", "' or '1'='1", "k1; drop table keys", "K1", "k1 ", "", "k" * 300)
    for kid in strange:
        _refused(f"the kid {kid:.20}", signed(CLAIMS, _header(kid=kid), b""), ("RS256", "ES256"))
        _refused(f"the kid {kid:.20}", signed(CLAIMS, _header(kid=kid), "evil"))
    shop = _sealed(site)
    token = token_of(shop.logged_in())
    asked = list(shop.trouble.calls)
    with mock.patch("builtins.open", side_effect=AssertionError("a key's id was taken for a file")):
        for kid in strange:
            expect(f"who a token is that names the key {kid:.20}", shop.user_of(f"s1.{kid}{token[5:]}"), None)
    loads = [verb for verb in shop.trouble.calls[len(asked) :] if verb != "epochs"]
    expect("what the store was asked", loads, [])
    expect("who the token is as it was", shop.user_of(token), "alice")


@row("SCT-04")
def a_token_counts_within_its_time_only(site: Site) -> None:
    """Past its end, before its beginning, or with an end that is missing or no number, it is nobody's."""
    ends: list[tuple[str, Any]] = [("no exp", ...), ("an exp that is text", "never"), ("an exp that is true", True)]
    for what, end in ends:
        with Outlet(site) as outlet:
            answer = outlet.logout(logout_token(site.clock(), sub="u1", exp=end))
            expect(f"a logout token with {what}", answer.status, 400)
    for change in (-91, -61):
        with Outlet(site) as outlet:
            late = outlet.logout(logout_token(site.clock(), sub="u1", exp=site.clock() + change))
            expect(f"a logout token whose exp is {change} s from now", late.status, 400)
            early = outlet.logout(logout_token(site.clock(), sub="u1", nbf=site.clock() - change))
            expect(f"a logout token whose nbf is {-change} s from now", early.status, 400)
    shop = _sealed(site)
    browser = shop.logged_in()
    token = token_of(browser)
    expect("who a token is that was sealed again unchanged", shop.user_of(_again(shop, token, lambda _: None)), "alice")
    for what, end in (("text", "never"), ("nothing", None), ("a list", [1]), ("a flag", True)):
        altered = _again(shop, token, partial(_with_end, end))
        expect(f"who a token is whose end is {what}", shop.user_of(altered), None)
    cut = _again(shop, token, lambda held: held.__delitem__(slice(EXPIRES_AT, None)))
    expect("who a token without an end is", shop.user_of(cut), None)
    shop.clock.wind(-61)
    expect("who a token is before its beginning", shop.user_of(token), None)
    shop.clock.wind(61)
    expect("who it is in its time", shop.user_of(token), "alice")
    for _ in range(48):
        shop.clock.wind(1800)
        browser.get("/me")
    shop.clock.wind(1)
    for kept in (token, token_of(browser) if browser.token else token):
        expect("who it is after its end", shop.user_of(kept), None)


def _with_end(end: Any, held: list[Any]) -> None:
    held[EXPIRES_AT] = end


def _again(shop: Site, token: str, change: Callable[[list[Any]], None]) -> str:
    """Return a sealed token with something else in it, under a good seal: as a faulty release might have made it."""
    sealer = shop.control.manager._sealer
    assert sealer is not None, "this site has no sealed tokens"
    ticket = sealer.open(f"{shop.cookie}={token}".encode(), token.encode())
    assert ticket is not None, "a good token does not open"
    held: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(ticket.held))
    change(held)
    raw = msgspec.msgpack.encode(held)
    plain = sealing._Hidden(bytes(-(len(raw) + sealing._OVERHEAD) % 3) + raw)
    return sealer._sealed("k1", ticket.handle, plain, sealer._bound, 1).raw.decode()


@row("SCT-05")
def a_token_of_one_purpose_is_none_of_another(site: Site) -> None:
    """CSRF tokens, the cookie that notes activity, logout and ID tokens are no session, nor the other way round."""
    now = site.clock()
    shop = _sealed(site)
    browser = shop.logged_in()
    form = browser.get("/form").text
    shop.clock.wind(600)
    browser.get("/me")
    seen = browser.jar.get(f"{shop.cookie}-seen")
    assert seen, "there is no cookie that notes activity"
    opaque = token_of(site.logged_in())
    id_token = logout_token(now, header={"typ": "JWT"}, nonce="n", sub="u1")
    others = {"CSRF token": form, "note of activity": seen, "logout token": logout_token(now, sub="u1")}
    for what, token in {**others, "ID token": id_token, "token of the store": opaque}.items():
        expect(f"who a {what} is", shop.ask("GET", "/me", cookies=f"{shop.cookie}={token}").status, NOBODY)
    with Outlet(shop) as outlet:
        for what, token in (("session", token_of(browser)), ("ID", id_token), ("CSRF", form)):
            expect(f"a logout by a {what} token", outlet.logout(token).status, 400)
    answer = browser.post("/echo?token=required", headers={"x-csrf-token": token_of(browser)})
    expect("a session token in place of the CSRF token", answer.status, 403)
    expect("who the session is after all that", browser.get("/me").json()["user"], "alice")


@row("SCT-06")
def a_token_for_one_audience_is_none_for_another(site: Site) -> None:
    """By the same key and on the same store, another origin, realm or cookie name does not open it."""
    shop = _sealed(site)
    token = token_of(shop.logged_in())
    expect("who it is in another process of the application", shop.beside().user_of(token), "alice")
    elsewhere: list[dict[str, Any]] = [
        {"origins": ["https://blog.example"]},
        {"realm": "console"},
        {"name": "__Host-blog"},
        {"name": "__Host-blog", "realm": shop.cookie},
    ]
    for settings in elsewhere:
        expect(f"who it is where {settings} holds", shop.beside(**settings).user_of(token), None)


@row("SCT-07")
def a_sealed_session_can_be_taken_back(site: Site) -> None:
    """A logout, an operator's end of one or of all, and a password change: refused at once, in every process."""
    shop = _sealed(site)
    workers = [shop, shop.beside(), shop.beside()]
    registry = shop.control.registry
    for what, end in (
        ("a logout", lambda browser: browser.post("/logout")),
        ("a logout everywhere", lambda browser: browser.post("/logout?everywhere=1")),
        ("the end of one", lambda browser: registry.revoke(token_of(browser).split(".")[2])),
        ("the end of all of a subject", lambda _: registry.revoke_all("alice")),
    ):
        browser, other = shop.logged_in(), shop.logged_in("bob")
        token = token_of(browser)
        expect("who it is", [worker.user_of(token) for worker in workers], ["alice"] * 3)
        end(browser)
        expect(f"who it is after {what}", [worker.user_of(token) for worker in workers], [None] * 3)
        expect("who somebody else is", other.get("/me").json()["user"], "bob")
    here, there = shop.logged_in(), shop.logged_in()
    before = token_of(here)
    here.post("/account/password")
    expect("who the others are after a password change", shop.user_of(there.token), None)
    expect("who the former token is", shop.user_of(before), None)
    expect("who changed it", here.get("/me").json()["user"], "alice")


@row("SCT-08")
def an_older_copy_of_the_state_is_refused(site: Site) -> None:
    """Once a key that must not go back has changed, no older cookie counts; the others can be replayed, as is said."""
    shop = _sealed(site, monotonic=["credit"])
    browser = shop.logged_in()
    browser.get("/data?write=credit&value=10")
    rich = _cookies(browser)
    browser.get("/data?write=theme&value=dark")
    plain = _cookies(browser)
    expect("the data of a cookie that is only older", shop.ask("GET", "/data", cookies=rich).json(), {"credit": "10"})
    browser.get("/data?write=credit&value=0")
    for kept in (rich, plain):
        expect("the data of a cookie from before the change", shop.ask("GET", "/data", cookies=kept).json(), {})
        expect("who it is", shop.ask("GET", "/me", cookies=kept).status, NOBODY)
    expect("the data of the newest", browser.get("/data").json(), {"credit": "0", "theme": "dark"})


def _cookies(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.jar.items())
