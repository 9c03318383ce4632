"""A browser that is new to its subject (ABU-05): what it costs, what is told when things go wrong, on both colours."""

import os
from collections.abc import Iterator
from hashlib import sha256

import pytest

from coatcheck import ConfigError, SessionManager
from coatcheck.core.facts import severity
from coatcheck.core.keyring import Key, Keyring
from coatcheck.core.model import EndOthers, Insert, Update
from coatcheck.core.policies import SessionLimit
from coatcheck.core.sealed import Sealed
from coatcheck.testing.conformance.site import Site
from tests.conformance.adapters import FIVE, adapter

NEW = "authn_new_device"
DEVICE = "__Host-coat-d"


@pytest.fixture(params=FIVE[:2])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with Site.opened(adapter(request.param), new_devices="tell") as opened:
        yield opened


def test_a_read_costs_nothing_and_a_login_from_a_known_browser_one_load(site: Site) -> None:
    browser = site.logged_in()
    calls = site.trouble.calls
    calls.clear()
    browser.get("/me")
    read = calls.count("load"), calls.count("commit")
    assert read[0] == 1
    site.clock.wind(2)
    calls.clear()
    browser.login()
    assert (calls.count("load"), calls.count("commit"), calls.count("find"), calls.count("events")) == (2, 1, 0, 0)
    calls.clear()
    site.browser().login()
    assert (calls.count("load"), calls.count("commit")) == (1, 2)


def test_where_the_memory_is_out_of_reach_the_login_goes_on_and_nothing_is_told(site: Site) -> None:
    browser = site.browser()
    site.trouble.fail("load", times=1)
    assert browser.login().status == 200
    assert (browser.get("/me").json()["user"], DEVICE in browser.jar, site.events(NEW)) == ("alice", False, [])
    browser.login()
    assert [(one.detail["first"], severity(one)) for one in site.events(NEW)] == [(True, "info")]
    assert DEVICE in browser.jar


def test_a_login_that_is_refused_or_fails_neither_tells_nor_remembers(site: Site) -> None:
    full = site.with_settings(new_devices="tell", limit=SessionLimit(1, "refuse"))
    owner, other = full.logged_in(), full.browser()
    assert (other.login().status, other.jar) == (403, {})
    assert other.post("/login?status=500", {"user": "carol"}).status == 500
    full.trouble.fail("commit")
    assert (other.login("bob").status, other.jar) == (503, {})
    full.trouble.fail(None)
    assert [one.subject for one in full.events(NEW)] == ["alice"]
    devices = [one for one in full.records() if one.realm.endswith("/devices")]
    assert len(devices) == 1
    owner.post("/logout")
    assert other.login().status == 200
    assert [(one.detail["first"], severity(one)) for one in full.events(NEW)] == [(True, "info"), (False, "warning")]


def test_browsers_that_log_in_at_the_same_moment_are_all_remembered(site: Site) -> None:
    browsers = [site.browser() for _ in range(3)]
    gate = site.trouble.hold("commit", times=3)  # each has looked, and none has noted its browser
    flights = [one.start("POST", "/login", json={"user": "alice"}) for one in browsers]
    gate.wait_until_reached(3)
    gate.open()
    for flight in flights:
        flight.land()
    told = len(site.events(NEW))
    assert told == 3
    for browser in browsers:
        browser.login()
    assert len(site.events(NEW)) == told


def test_ending_everything_of_a_subject_keeps_what_is_known_and_no_token_opens_it(site: Site) -> None:
    browser = site.logged_in()
    (memory,) = [one for one in site.records() if one.realm.endswith("/devices")]
    site.control.registry.revoke_all("alice")
    browser.login(remember=True)
    browser.post("/logout?everywhere=1")
    browser.login()
    assert len(site.events(NEW)) == 1
    value = browser.jar[DEVICE]
    for family, turn in ((value, value), ("A" * 24, value), (value, "A" * 24)):
        assert site.user_of(f"c1.{memory.handle}.{family}.{turn}") is None
    shown = browser.get("/account/sessions").json()["sessions"]
    assert [one["handle"] for one in shown] != [memory.handle]
    assert browser.request("DELETE", f"/account/sessions/{memory.handle}").status == 404
    changes = [change for commit in site.trouble.commits for change in commit]
    assert not any(isinstance(one, EndOthers) and one.realm.endswith("/devices") for one in changes)
    about = [one for one in changes if isinstance(one, Insert | Update) and one.record.realm.endswith("/devices")]
    assert all(one.record.subject is None and one.record.client is None for one in about)


def test_sealed_sessions_are_told_where_they_have_a_store(site: Site) -> None:
    ring = Keyring([Key("k1", sha256(b"a key").digest())], os.urandom)
    shop = site.with_settings(new_devices="tell", sealed=Sealed(keyring=ring))
    owner = shop.logged_in()
    owner.login()
    shop.browser().login()
    assert [one.detail["first"] for one in shop.events(NEW)] == [True, False]
    alone = Sealed(keyring=ring, unsafe_irrevocable=True)
    with pytest.raises(ConfigError, match="new devices are found"):
        SessionManager(origins=["https://testserver"], new_devices="tell", sealed=alone)


def test_who_shares_one_browser_is_known_each_on_their_own(site: Site) -> None:
    browser = site.logged_in("alice")
    browser.login("bob")
    browser.login("alice")
    browser.login("bob")
    assert [(one.subject, one.detail["first"]) for one in site.events(NEW)] == [("alice", True), ("bob", True)]
    assert browser.jar[DEVICE] not in site.control.dump()
