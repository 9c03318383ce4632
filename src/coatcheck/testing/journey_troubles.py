"""Rows of the journey about troubles: a store that is away, fails late or loses answers, and clients that go away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ..core.errors import NotApplied, Unknown
from .needs import needs

if TYPE_CHECKING:
    from .browser import Received
    from .journey import House


class TroubleRows:
    """Rows 15, 16 and 22."""

    def test_a_login_that_cannot_be_stored_is_a_503_and_nothing_else(self, house: House) -> None:
        """Row 15 (F3)."""
        browser = house.browser()
        house.trouble.fail("commit")
        _assert_unavailable(browser.login(), without="alice")
        house.trouble.fail(None)
        assert browser.get("/me").status == 401
        assert house.control.records() == []

    @pytest.mark.parametrize("target", ["/data?write=secret", "/?do=renew", "/?do=logout", "/?do=end-others", "/form"])
    def test_what_must_be_stored_and_cannot_is_a_503(self, house: House, target: str) -> None:
        """Row 15, in a session that was there."""
        browser = house.browser()
        if target != "/form":
            browser.login()
        token = browser.token
        house.trouble.fail("commit")
        _assert_unavailable(browser.get(target), without="secret")
        assert browser.token == token

    @needs("stream")
    def test_a_stream_whose_write_cannot_be_stored_is_a_503(self, house: House) -> None:
        """Row 15, streamed: before the first byte."""
        browser = house.browser()
        browser.login()
        house.trouble.fail("commit")
        _assert_unavailable(browser.get("/stream?do=write"), without="three")

    def test_a_read_passes_although_its_activity_cannot_be_noted(self, house: House) -> None:
        """Row 15: a touch is not worth a 503."""
        browser = house.browser()
        browser.login()
        house.clock.wind(400)
        house.trouble.fail("commit")
        assert browser.get("/me").status == 200

    def test_a_renewal_that_cannot_be_stored_is_left_for_later(self, house: House) -> None:
        """Row 15: the page passes without a cookie."""
        browser = house.browser()
        browser.login()
        house.clock.wind(16 * 60)
        house.trouble.fail("commit")
        answer = browser.get("/me")
        assert (answer.status, answer.cookies) == (200, [])
        house.trouble.fail(None)
        assert len(browser.get("/me").cookies) == 1

    @pytest.mark.parametrize("error", [NotApplied, Unknown])
    def test_a_commit_is_tried_again_where_that_is_safe(self, house: House, error: type[NotApplied | Unknown]) -> None:
        """Row 15: nobody notices."""
        browser = house.browser()
        house.trouble.fail("commit", error, times=2)
        assert browser.login().status == 200
        assert browser.get("/me").json()["user"] == "alice"
        assert len(house.control.records()) == 1

    def test_a_lost_answer_of_the_store_does_not_apply_a_login_twice(self, house: House) -> None:
        """Row 15: it was applied, and nobody knew."""
        browser = house.browser()
        house.trouble.lose_answers(2)
        assert browser.login().status == 200
        assert browser.get("/me").json()["user"] == "alice"
        assert len(house.control.records()) == 1
        assert len(house.control.events("authn_login_success")) == 1

    def test_a_store_that_is_away_refuses_and_touches_no_cookie(self, house: House) -> None:
        """Row 16 (promise 8)."""
        browser = house.browser()
        browser.login()
        house.control.probe.seen.clear()
        house.trouble.fail("load")
        _assert_unavailable(browser.get("/data?write=k"), without="{")
        assert house.control.probe.seen == []
        house.trouble.fail(None)
        assert browser.get("/me").json()["user"] == "alice"

    def test_visitors_without_a_cookie_do_not_notice_that_the_store_is_away(self, house: House) -> None:
        """Row 16."""
        house.trouble.fail("load")
        house.trouble.fail("commit")
        assert house.browser().get("/me").status == 401

    def test_an_application_may_go_on_anonymously_while_the_store_is_away(self, serve: Callable[..., House]) -> None:
        """Row 16, `store_down="anonymous"`: nothing is stored over the user's cookie."""
        house = serve(store_down="anonymous")
        browser = house.browser()
        browser.login()
        house.trouble.fail("load")
        answer = browser.get("/data?write=k")
        assert (answer.status, answer.json(), answer.cookies) == (200, {"k": "1"}, [])
        house.trouble.fail(None)
        assert browser.get("/me").json()["user"] == "alice"
        assert browser.get("/data").json() == {}

    @pytest.mark.parametrize("target", ["/?do=login", "/data?write=k", "/?do=login-others"])
    def test_a_client_that_leaves_before_the_answer_leaves_all_or_nothing(self, house: House, target: str) -> None:
        """Row 22."""
        browser = house.browser()
        joint = "&hold=slow"
        flight = browser.start("POST", target + joint)
        house.control.gate("slow").wait_until_reached()
        flight.pending.disconnect()
        house.control.gate("slow").open()
        flight.wait()
        assert len(house.control.records(live=True)) <= 1

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_client_that_leaves_during_the_commit_leaves_all_or_nothing(self, house: House, when: str) -> None:
        """Row 22."""
        browser = house.browser()
        browser.get("/data?write=cart")
        gate = house.trouble.hold("commit", when)  # type: ignore[arg-type]
        flight = browser.start("POST", "/?do=login")
        gate.wait_until_reached()
        flight.pending.disconnect()
        gate.open()
        flight.wait()
        live = house.control.records(live=True)
        assert len(live) == 1
        assert live[0].subject in (None, "alice")

    @needs("stream")
    def test_a_client_that_leaves_in_the_body_stops_nothing_that_was_stored(self, house: House) -> None:
        """Row 22."""
        browser = house.browser()
        browser.login()
        flight = browser.start("GET", "/stream?body=write&do=write")
        flight.pending.disconnect()
        flight.wait()
        assert browser.get("/data").json() == {"k": "written"}


def _assert_unavailable(answer: Received, without: str) -> None:
    assert answer.status == 503
    assert answer.header("retry-after") is not None
    assert answer.cookies == []
    assert without not in answer.text
    assert answer.header("cache-control") == "no-store"
