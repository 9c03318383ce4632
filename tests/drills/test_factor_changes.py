"""A password or a role changes: what was opened with the old one is worth nothing afterwards (D40, M10; TRM-04)."""

import contextlib
from typing import Any

import pytest

from coatcheck import ConfigError, SettledError
from coatcheck.core.model import Request
from coatcheck.testing.clock import Clock
from coatcheck.testing.probe import ProbeError

from .conftest import Build
from .house import House, Visitor

CHANGES = {"/account/password": "factor_change", "/account/roles": "role_change"}


def two(house: House) -> tuple[Visitor, Visitor]:
    owner, phone = house.visitor(), house.visitor(peer="203.0.113.66")
    owner.login("alice", level="20")
    phone.login("alice")
    house.clock.wind(1)
    return owner, phone


@pytest.mark.parametrize("target", CHANGES)
def test_one_commit_ends_the_others_and_gives_this_one_another_name(house: House, target: str) -> None:
    owner, phone = two(house)
    old = owner.token or ""
    owner.get("/data?write=k")
    before = house.commits
    assert owner.post(target).status == 200
    assert house.commits == before + 1, "one commit: no moment at which only half of it is true"
    assert not set((owner.token or "").split(".")[1:]) & set(old.split(".")[1:]), "handle, family and turn are new"
    assert owner.get("/data").json == {"k": "1"}
    assert owner.get("/me").json["level"] == 20, "as it was"
    assert phone.get("/me").json["why"] == CHANGES[target]
    assert house.visitor(old).get("/me").status == 401, "a copy of this very session is out, too"
    assert len(house.control.records(live=True)) == 1


def test_a_password_change_is_a_login_and_a_role_change_is_none(house: House, clock: Clock) -> None:
    """M10; who proves nothing new is not taken for somebody who has just done so, nor does the absolute end move."""
    owner, _ = two(house)
    clock.wind(500)
    first = house.record(owner.token or "")
    owner.post("/account/roles")
    second = house.record(owner.token or "")
    assert (second.authenticated_at, second.expires_at) == (first.authenticated_at, first.expires_at)
    owner.post("/account/password")
    third = house.record(owner.token or "")
    assert (third.authenticated_at, third.methods) == (clock.now, first.methods)


@pytest.mark.parametrize("do", ["password-changed", "roles-changed", "end-others", "reset"])
@pytest.mark.parametrize("then", ["status=500", "then=raise"])
def test_the_others_end_whatever_becomes_of_the_response(house: House, do: str, then: str) -> None:
    """Promise 9: the application has stored the change by then; its failure must not leave a thief inside."""
    owner, phone = two(house)
    token = owner.token
    asks = house.visitor() if do == "reset" else owner
    with contextlib.suppress(ProbeError):
        asks.get(f"/data?do={do}&{then}")
    assert owner.token == token
    assert phone.user is None
    assert (owner.user is None) is (do == "reset"), "nobody is kept but who asked"
    assert asks is owner or asks.token is None, "no login comes of a page that failed"


def test_what_a_login_asked_for_falls_with_it(house: House) -> None:
    owner, phone = two(house)
    assert house.ask(owner.prepare("GET", "/data?do=login-others&status=500")).token is None
    assert phone.user == "alice"


@pytest.mark.parametrize(("do", "status"), [("password-changed", 200), ("roles-changed", 503)])
def test_a_former_token_in_its_grace_ends_the_others_too(house: House, clock: Clock, do: str, status: int) -> None:
    """2.5: fresh proof takes the session along; what has none leaves it to the newer token, to be tried again."""
    owner, phone = two(house)
    late = house.visitor(owner.token)
    clock.wind(900)
    owner.get("/me")
    owner.get("/me")
    before = late.token
    assert late.post(f"/data?do={do}").status == status
    assert (late.token != before) is (status == 200)
    assert phone.user is None
    assert (late if status == 200 else owner).user == "alice"
    assert len(house.control.records(live=True)) == 1


def test_a_reset_by_mail_is_a_login_and_the_end_of_the_others_in_one_commit(house: House) -> None:
    _, phone = two(house)
    fresh = house.visitor()
    before = house.commits
    assert fresh.get("/data?do=reset").status == 200
    assert house.commits == before + 1
    assert fresh.user == "alice"
    assert phone.get("/me").json["why"] == "factor_change"
    assert len(house.control.records(live=True)) == 1


def test_a_password_that_changed_elsewhere_ends_them_all(house: House) -> None:
    owner, phone = two(house)
    house.control.registry.revoke_all("alice", because="factor_change", actor="root")
    assert [one.get("/me").json["why"] for one in (owner, phone)] == ["factor_change"] * 2
    late = house.visitor()
    late.login("alice")
    assert late.user == "alice"


@pytest.mark.parametrize("verb", ["password_changed", "roles_changed"])
def test_it_is_about_who_is_logged_in(build: Build, verb: str) -> None:
    house = build(kind="wsgi")
    exchange = house.served.app.exchange
    with pytest.raises(ConfigError, match="nobody is"):
        getattr(exchange.begin(request()), verb)()
    owner, _ = two(house)
    cookie = f"__Host-coat={owner.token}".encode()
    socket = exchange.begin(request((b"cookie", cookie), kind="websocket"))
    with pytest.raises(SettledError, match="websocket"):
        getattr(socket, verb)()
    session = exchange.begin(request((b"cookie", cookie)))
    exchange.finish(session, 200, ())
    with pytest.raises(SettledError, match="response started"):
        getattr(session, verb)()


def request(*more: tuple[bytes, bytes], kind: Any = "http") -> Request:
    headers = ((b"host", b"app.test"), (b"origin", b"https://app.test"), *more)
    return Request("GET", "https", "/", headers, kind=kind)
