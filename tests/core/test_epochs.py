"""What epochs mean to a process: they only rise, and none is forgotten before every session that it ended."""

import pytest
from msgspec.structs import replace

from coatcheck.core import epochs, records
from coatcheck.core.errors import ConfigError
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Record, Request
from coatcheck.core.policies import timeouts
from coatcheck.core.presets import DAY
from coatcheck.core.session import Session
from coatcheck.core.visit import Lasting, Login
from coatcheck.testing.clock import Clock


class Desk:
    """A manager and a login."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.manager = SessionManager(clock=self.clock, origins=["https://app.test"], realm="shop")
        self.ticket = self.manager.mint()
        who = Login("ann", ("pwd",), 10, remember=False, ticket=self.ticket, tenant="acme")
        self.record = records.made("shop", self.ticket, who, self.manager.clocks, self.clock.now, None, b"")
        self.clock.wind(1)

    def why(self, record: Record | None = None, floor: float = 0.0) -> str | None:
        """Return why the session is over, if it is."""
        request = Request("GET", "https", "/", ())
        session = self.manager.open(request, self.ticket, record or self.record, floor=floor)
        assert isinstance(session, Session)
        assert (session.visit.record is None) == (session.ended_because is not None)
        return session.ended_because


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("realm", [None, "shop"])
def test_a_tenants_epoch_ends_what_is_older(desk: Desk, realm: str | None) -> None:
    scope, at = epochs.scope_of(realm, "acme"), desk.record.created_at
    desk.manager.learn({scope: at})
    assert desk.why() is None, "authenticated at that very moment"
    desk.manager.learn({scope: at + 0.5})
    assert desk.why() == "epoch"
    assert desk.why(replace(desk.record, authenticated_at=at + 0.5)) is None, "logged in again"
    assert desk.why(replace(desk.record, authenticated_at=None)) == "epoch", "it counts from its beginning"
    assert desk.why(replace(desk.record, tenant="b")) is None
    assert desk.why(replace(desk.record, tenant=None)) is None
    assert desk.why(replace(desk.record, tenant=None), floor=at + 0.5) == "epoch"
    assert desk.why(replace(desk.record, tenant="b"), floor=at) is None
    assert desk.why(floor=at - 100.0) == "epoch", "the later of the two"


def test_what_was_learned_of_a_tenant_stays(desk: Desk) -> None:
    """A store that failed over may have lost what was raised last; who has heard of it lets nobody back in."""
    acme, other, at = epochs.scope_of("shop", "acme"), epochs.scope_of("shop", "b"), desk.clock.now
    for told in ({acme: at}, {}, {other: at}, {acme: at - 100.0}, {other: at + 1.0}):
        desk.manager.learn(told)
        assert desk.why() == "epoch", told


def test_no_clock_lasts_as_long_as_an_epoch_is_kept(desk: Desk) -> None:
    longest = timeouts(idle=None, absolute=400 * DAY, remember=400 * DAY, remember_idle=None)
    for more in ({"absolute": 400 * DAY + 1, "remember": None}, {"remember": 400 * DAY + 1}):
        with pytest.raises(ConfigError, match="400 days"):
            timeouts(**more)
    for remember in (False, True):
        who = Login("ann", ("pwd",), 10, remember=remember, ticket=desk.ticket)
        record = records.made("shop", desk.ticket, who, longest, desk.clock.now, None, b"")
        lengthened = records.lasting(record, Lasting(until=1e12, idle=1e12), longest)
        assert lengthened.expires_at - record.created_at <= 400 * DAY < epochs.KEPT


def test_only_a_tenants_epoch_is_ever_forgotten() -> None:
    now = 10 * epochs.KEPT
    old, tenants = now - epochs.KEPT - 1.0, [epochs.scope_of(realm, "acme") for realm in (None, "shop", "a:b")]
    assert all(epochs.is_over(scope, old, now) for scope in tenants)
    assert not any(epochs.is_over(scope, now - epochs.KEPT, now) for scope in tenants)
    others = ("*", "realm:shop", "realm:tenant:", "moved:01", "moving:01")
    assert not any(epochs.is_over(scope, 0.0, now) for scope in others)
