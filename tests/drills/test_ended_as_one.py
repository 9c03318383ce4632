"""Ending what belongs together, in one write: a tenant's sessions, everybody's, those from before a moment (REV-02)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from coatcheck import AsyncRegistry, ConfigError, DataError
from coatcheck.core.model import RaiseEpoch
from coatcheck.core.policies import timeouts
from coatcheck.core.presets import DAY
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import House, Visitor


@pytest.fixture(params=["blocking", "awaited"])
def ending(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a call of a registry's verb, in either face: `ending(house, verb, *arguments)`."""

    def end(house: House, verb: str, *arguments: Any, realm: str | None = "__Host-coat", **named: Any) -> None:
        store, clock = house.control.store, house.clock
        if request.param == "awaited":
            asyncio.run(getattr(AsyncRegistry(store.as_async(), realm, clock), verb)(*arguments, **named))
        else:
            registry = type(house.control.registry)(store, realm, clock)
            getattr(registry, verb)(*arguments, **named)

    return end


def of_tenants(house: House, *tenants: str | None) -> list[Visitor]:
    """Log somebody in for each tenant."""
    visitors = []
    for number, tenant in enumerate(tenants):
        visitor = house.visitor()
        visitor.login(f"user{number}", **({} if tenant is None else {"tenant": tenant}))
        visitors.append(visitor)
    house.clock.wind(2)
    return visitors


def alive(visitors: list[Visitor]) -> list[bool]:
    return [visitor.user is not None for visitor in visitors]


def test_a_tenants_sessions_end_and_nobody_elses(build: Build, ending: Callable[..., None]) -> None:
    house = build()
    visitors = of_tenants(house, "acme", "Acme", "acme2", None, "acme", "0::acme")
    anonymous = house.visitor()
    anonymous.get("/data?write=cart")
    before = house.commits
    ending(house, "revoke_tenant", "acme", because="account_disabled", actor="root")
    (changes,) = house.control.trouble.commits[before:]
    assert [type(change) for change in changes] == [RaiseEpoch], "one write, however many there are"
    house.clock.wind(1)
    assert alive(visitors) == [False, True, True, True, False, True]
    assert visitors[0].get("/me").json["why"] == "epoch"
    assert anonymous.get("/data").json == {"cart": "1"}
    (told,) = house.events("sessions_revoked")
    assert (told.detail["tenant"], told.detail["reason"], told.detail["actor"]) == ("acme", "account_disabled", "root")
    house.clock.wind(1)
    visitors[0].login("user0", tenant="acme")
    house.clock.wind(2)
    assert visitors[0].user == "user0", "who logs in afterwards is let in"


def test_a_tenant_ends_in_one_realm_or_in_all(build: Build, ending: Callable[..., None]) -> None:
    shop, desk = build(realm="shop"), build(realm="shop:desk")
    mine, theirs = of_tenants(shop, "desk:acme", "acme"), of_tenants(desk, "acme", "b")
    ending(shop, "revoke_tenant", "desk:acme", realm="shop")
    shop.clock.wind(1)
    assert alive(mine) == [False, True]
    assert alive(theirs) == [True, True], "a realm and a tenant are not told apart by a colon"
    ending(shop, "revoke_tenant", "acme", realm=None)
    shop.clock.wind(1)
    assert alive(mine) == [False, False]
    assert alive(theirs) == [False, True]


def test_everyone_ends_at_once(build: Build, ending: Callable[..., None]) -> None:
    house, other = build(), build(realm="other")
    visitors, strangers = of_tenants(house, "acme", None), of_tenants(other, None)
    anonymous = house.visitor()
    anonymous.get("/data?write=cart")
    house.clock.wind(1)
    before = house.commits
    ending(house, "revoke_everyone")
    assert len(house.control.trouble.commits) == before + 1
    house.clock.wind(1)
    assert alive(visitors) == [False, False]
    assert anonymous.get("/data").json == {}
    assert alive(strangers) == [True]


def test_before_a_moment_of_the_past(build: Build, ending: Callable[..., None]) -> None:
    house = build()
    early = of_tenants(house, "acme", "b", None)
    house.clock.wind(60)
    moment = house.clock.now
    house.clock.wind(60)
    late = of_tenants(house, "acme", "b")
    ending(house, "revoke_before", moment, tenant="acme")
    house.clock.wind(1)
    assert alive([*early, *late]) == [False, True, True, True, True]
    ending(house, "revoke_before", moment - 3600, tenant="b")
    house.clock.wind(1)
    assert alive([*early, *late]) == [False, True, True, True, True]
    ending(house, "revoke_before", moment)
    house.clock.wind(1)
    assert alive([*early, *late]) == [False, False, False, True, True]
    with pytest.raises(ConfigError, match="past"):
        ending(house, "revoke_before", house.clock.now + 60, tenant="acme")
    with pytest.raises(ConfigError, match="a subject or a tenant"):
        ending(house, "revoke_before", moment, tenant="acme", subject="user0")


def test_an_epoch_never_goes_back(build: Build, ending: Callable[..., None]) -> None:
    house = build()
    (visitor,) = of_tenants(house, "acme")
    ending(house, "revoke_tenant", "acme")
    ending(house, "revoke_before", house.clock.now - 3600, tenant="acme")
    house.clock.wind(1)
    assert alive([visitor]) == [False]


def test_the_oldest_session_there_can_be_is_dead_before_its_epoch_is_forgotten(
    build: Build, ending: Callable[..., None]
) -> None:
    """With the longest clocks, remembered or not; each time a purge comes first, and a process that knows nothing."""
    longest = timeouts(idle=None, absolute=400 * DAY, remember=400 * DAY, remember_idle=None)
    house = build(timeouts=longest)
    visitors = of_tenants(house, "acme", "acme")
    visitors[0].login("user0", tenant="acme", remember="1")
    house.clock.wind(1)
    ending(house, "revoke_tenant", "acme")
    for days in (1, 398, 1, 1, 28, 2):
        house.clock.wind(days * DAY)
        house.control.plain.purge(1)
        there = build(timeouts=longest)
        assert alive([there.visitor(one.token) for one in visitors]) == [False, False]
    assert house.control.plain.epochs().scopes == {}, "forgotten"


def test_another_process_hears_within_a_second(build: Build, ending: Callable[..., None]) -> None:
    """Contract 1.3: each process looks once a second; both that looked before the end, and one that starts later."""
    here, there = build(), build()
    (visitor,) = of_tenants(here, "acme")
    copy = there.visitor(visitor.token)
    assert copy.user == "user0"
    ending(here, "revoke_tenant", "acme")
    there.clock.wind(1)
    assert copy.user is None
    assert build().visitor(visitor.token).user is None


def test_a_tenant_stays_with_its_session(build: Build, clock: Clock) -> None:
    """A renewal, a step-up and a password change keep it; a login for another tenant starts with nothing."""
    house = build()
    (visitor,) = of_tenants(house, "acme")
    for target in ("/reauth", "/account/password", "/account/roles"):
        assert visitor.post(target).status == 200
        assert house.record(visitor.token or "").tenant == "acme"
    visitor.get("/data?do=renew&write=k")
    clock.wind(900)
    visitor.get("/data")
    assert house.record(visitor.token or "").tenant == "acme"
    visitor.login("user0")
    assert house.record(visitor.token or "").tenant == "acme", "the same subject's is as it was"
    assert visitor.get("/data").json == {"k": "1"}
    visitor.login("user0", tenant="b")
    assert house.record(visitor.token or "").tenant == "b"
    assert visitor.get("/data").json == {}, "what one tenant's session held is not for another"
    visitor.login("user1")
    assert house.record(visitor.token or "").tenant is None


@pytest.mark.parametrize("name", ["", "a" * 129, "a\nb", 7])
def test_what_cannot_name_a_tenant_is_refused(build: Build, name: Any) -> None:
    house = build(kind="wsgi")
    with pytest.raises(DataError, match="a tenant is 1 to 128 printable characters"):
        house.control.registry.revoke_tenant(name)
    session = house.served.app.exchange.begin(house_request())
    with pytest.raises(DataError, match="a tenant is"):
        session.login("alice", tenant=name)


def house_request() -> Any:
    from coatcheck.core.model import Request

    return Request("POST", "https", "/", ((b"host", b"app.test"), (b"sec-fetch-site", b"same-origin")))
