"""Rows of the journey about who is there: tokens that count or do not, login, logout, and slow requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ..core.visit import ALL
from .needs import needs

if TYPE_CHECKING:
    from .browser import Browser, Flight
    from .journey import House

RENEW = 16 * 60.0

OK = (200, 302, 404)


def _handle_only(token: str) -> str:
    return token.split(".")[1]


def _forged(token: str) -> str:
    version, handle, family, turn = token.split(".")
    return f"{version}.{handle}.{family[::-1]}.{turn}"


BAD_TOKENS: dict[str, tuple[Callable[[str], str], str]] = {
    "unknown": (lambda _: f"c1.{'Z' * 18}.{'Y' * 24}.{'X' * 24}", "session_unknown_token"),
    "malformed": (lambda _: "ABC123", "session_malformed_token"),
    "quoted": (lambda token: f'"{token}"', "session_malformed_token"),
    "cut": (lambda token: token[:-1], "session_malformed_token"),
    "handle only": (_handle_only, "session_malformed_token"),
    "forged": (_forged, "session_garbage_token"),
    "empty": (lambda _: "", "session_malformed_token"),
}
"""What may stand in our cookie that is not a token of ours, and what is counted for it."""


class LoginRows:
    """Rows 5 to 7, 9 to 11, 13, 22 to 25 and 48."""

    @pytest.mark.parametrize("kind", BAD_TOKENS)
    @pytest.mark.parametrize("page", ["/me", "/data?write=k", "/form"])
    def test_a_token_that_is_none_of_ours_is_nobody_and_is_never_answered(
        self, house: House, kind: str, page: str
    ) -> None:
        """Row 5."""
        owner = house.browser()
        owner.login()
        spoil, counted = BAD_TOKENS[kind]
        before = len(house.control.records())
        attacker = house.browser()
        attacker.jar[attacker.cookie] = spoil(owner.token or "")
        answer = attacker.get(page)
        assert answer.cookies == []
        assert answer.status == (401 if page == "/me" else 200)
        assert len(house.control.records()) == before
        assert house.control.manager.noise.totals == {counted: 1}
        assert owner.get("/me").status == 200

    def test_an_ended_session_is_nobody_and_says_why(self, house: House) -> None:
        """Row 5, ended."""
        browser = house.browser()
        browser.login()
        house.control.registry.revoke_all("alice")
        house.clock.wind(120)
        answer = browser.get("/me")
        assert answer.json() == {"error": "anonymous", "why": "operator"}
        assert answer.cookies == []
        assert [one.detail["because"] for one in house.control.events("session_use_after_expire")] == ["operator"]

    def test_an_expired_session_is_ended_for_its_reason(self, house: House) -> None:
        """Row 5, expired."""
        browser = house.browser()
        browser.login()
        house.clock.wind(3601)
        answer = browser.get("/me")
        assert answer.json()["why"] == "idle"
        assert answer.cookies == []
        assert house.control.records()[0].ended_because == "idle"
        assert browser.get("/data?write=k").cookies == []

    def test_two_different_values_of_our_cookie_are_nobody(self, house: House) -> None:
        """Row 6."""
        browser, thief = house.browser(), house.browser()
        browser.login("alice")
        thief.login("mallory")
        both = f"{browser.cookie}={browser.token}; {browser.cookie}={thief.token}"
        answer = browser.get("/me", cookies=both)
        assert (answer.status, answer.cookies) == (401, [])
        same = f"{browser.cookie}={browser.token}; {browser.cookie}={browser.token}"
        assert browser.get("/me", cookies=same).status == 200

    def test_our_cookie_is_found_among_others(self, house: House) -> None:
        """Row 6."""
        browser = house.browser()
        browser.login()
        ours = f"{browser.cookie}={browser.token}"
        others = "; ".join(f"c{number}=v{number}" for number in range(5))
        assert browser.get("/me", cookies=f"{others}; {ours}; {others}").status == 200
        assert browser.get("/me", cookies=f"x{ours}; y={ours}").status == 401

    @needs("split")
    def test_cookies_in_several_headers_are_one(self, house: House) -> None:
        """Row 6, HTTP/2 crumbs."""
        browser = house.browser()
        browser.login()
        ours = ("cookie", f"{browser.cookie}={browser.token}")
        crumbs = [("cookie", "theme=dark"), ours, ("cookie", "b=1")]
        assert browser.get("/me", cookies="", headers=crumbs).status == 200
        double = [*crumbs, ("cookie", f"{browser.cookie}=c1.{'Z' * 18}.{'Y' * 24}.{'X' * 24}")]
        assert browser.get("/me", cookies="", headers=double).status == 401

    def test_login_changes_handle_and_secrets_and_the_old_session_is_dead(self, house: House) -> None:
        """Row 7."""
        browser = house.browser()
        browser.get("/data?write=k")
        before, old = browser.twin(), browser.token
        answer = browser.login()
        assert len(answer.cookies) == 1
        assert answer.header("cache-control") == "no-store"
        assert all(a != b for a, b in zip(old.split(".")[1:], browser.token.split(".")[1:], strict=True))  # type: ignore[union-attr]
        assert browser.get("/me").json()["user"] == "alice"
        assert before.get("/me").json() == {"error": "anonymous", "why": "superseded"}
        assert before.get("/data").json() == {}

    def test_who_planted_an_anonymous_session_gets_nothing_of_the_login(self, house: House) -> None:
        """Row 7: fixation."""
        attacker = house.browser()
        attacker.get("/data?write=k&value=planted")
        victim = house.browser()
        victim.jar = dict(attacker.jar)
        victim.login("victim")
        assert attacker.get("/me").status == 401
        assert victim.get("/data").json() == {}

    @pytest.mark.parametrize(
        ("carry", "moved"),
        [((), set()), ({"cart"}, {"cart"}), ({"cart", "theme"}, {"cart", "theme"}), (ALL, {"cart", "theme", "junk"})],
    )
    def test_only_named_keys_move_into_a_login(
        self, serve: Callable[..., House], carry: object, moved: set[str]
    ) -> None:
        """Row 7, what is carried; `next` never is."""
        browser = serve(carry=carry).browser()
        browser.post("/replace", json={"cart": [7], "theme": "dark", "junk": 1, "next": "/evil"})
        browser.login()
        assert set(browser.get("/data").json()) == moved

    def test_nothing_of_one_user_reaches_the_next(self, serve: Callable[..., House]) -> None:
        """Row 7: alice, then bob in the same browser."""
        browser = serve(carry=ALL).browser()
        browser.login("alice")
        browser.get("/data?write=secret")
        before = browser.twin()
        browser.login("bob")
        assert browser.get("/data").json() == {}
        assert before.get("/me").status == 401

    def test_the_same_user_again_rotates_and_keeps_the_data(self, house: House) -> None:
        """Row 7: step-up."""
        browser = house.browser()
        browser.login()
        browser.get("/data?write=k")
        before = browser.twin()
        answer = browser.post("/reauth")
        assert answer.json() == {"user": "alice", "level": 20}
        assert len(answer.cookies) == 1
        assert browser.get("/data").json() == {"k": "1"}
        assert before.get("/me").status == 401

    def test_a_login_is_listed_and_can_be_ended_from_another_browser(self, house: House) -> None:
        """Row 7, the registry; row 9, from outside."""
        here, there = house.browser(), house.browser()
        here.login()
        there.login()
        shown = here.get("/account/sessions").json()["sessions"]
        assert [one["current"] for one in shown].count(True) == 1
        assert len(shown) == 2
        other = next(one["handle"] for one in shown if not one["current"])
        assert house.browser().request("DELETE", f"/account/sessions/{other}").status == 401
        assert here.request("DELETE", f"/account/sessions/{other}").status == 200
        assert there.get("/me").json()["why"] == "owner"
        assert here.get("/me").status == 200

    def test_a_password_change_ends_the_other_sessions(self, house: House) -> None:
        """Row 7, `end_others`."""
        here, there = house.browser(), house.browser()
        here.login()
        there.login()
        before = here.twin()
        assert here.post("/account/password").status == 200
        assert there.get("/me").json()["why"] == "factor_change"
        assert (before.get("/me").status, here.get("/me").status) == (401, 200)

    def test_logout_ends_the_session_and_clears_the_cookie_as_it_was_set(self, house: House) -> None:
        """Row 9."""
        browser = house.browser()
        set_by = browser.login().cookies[0]
        before = browser.twin()
        cleared = browser.post("/logout").cookies
        assert len(cleared) == 1
        assert set(cleared[0].split("; ")[1:]) == {*set_by.split("; ")[1:], "Max-Age=0"}
        assert browser.token is None
        assert before.get("/me").json()["why"] == "logout"
        assert house.control.records()[0].ended_because == "logout"

    def test_logout_everywhere_ends_all(self, house: House) -> None:
        """Row 9, everywhere."""
        here, there = house.browser(), house.browser()
        here.login()
        there.login()
        here.post("/logout?everywhere=1")
        assert there.get("/me").status == 401

    def test_a_logout_counts_when_the_handler_then_raises(self, house: House) -> None:
        """Row 10 (F1)."""
        browser = house.browser()
        browser.login()
        before = browser.twin()
        assert browser.post("/logout?then=raise").status == 500
        assert before.get("/me").json()["why"] == "logout"

    def test_a_logout_counts_when_the_handler_then_refuses(self, house: House) -> None:
        """Row 10, by a Refusal."""
        browser = house.browser()
        browser.login()
        before = browser.twin()
        assert browser.post("/logout?then=refuse").status == 401
        assert before.get("/me").json()["why"] == "logout"

    @pytest.mark.parametrize(
        "end", ["status=200", "status=302", "status=404", "status=500", "status=503", "then=raise"]
    )
    @pytest.mark.parametrize("act", ["write", "login", "login-others", "renewal", "renew", "logout", "logout-login"])
    def test_what_is_kept_of_an_act_follows_the_status(self, house: House, act: str, end: str) -> None:
        """Row 11 (F16): a 5xx drops everything but an end; what a login caused falls as one."""
        browser, other = house.browser(), house.browser()
        browser.login("alice", cart=[7])
        other.login("alice")
        browser.get("/me")
        if act == "renewal":
            house.clock.wind(RENEW)
        before = browser.twin()
        answer = browser.post(f"/?{end}" if act == "renewal" else f"/?do={act}&{end}")
        kept = end in {f"status={number}" for number in OK}
        old = before.get("/me").status
        now = browser.get("/me")
        if act == "write":
            assert answer.cookies == []
            assert browser.get("/data").json().get("k") == ("written" if kept else None)
        elif act == "renewal":
            assert len(answer.cookies) == kept
            assert (old, now.status) == (200, 200)
        elif act in ("login", "login-others", "renew"):
            assert len(answer.cookies) == kept
            assert old == (401 if kept else 200)
            assert now.json()["user"] == "alice"
            assert browser.get("/data").json() == {"cart": [7]}
        elif act == "logout":
            assert old == 401
            if end != "then=raise":  # then it depends on whose error page it is
                assert len(answer.cookies) == 1
        else:
            assert old == 401
            assert now.json().get("user") == ("second" if kept else None)
        assert other.get("/me").status == (401 if act == "login-others" and kept else 200)

    def test_a_deliberate_error_page_may_keep_its_writes(self, house: House) -> None:
        """Row 11, `keep`."""
        browser = house.browser()
        browser.login()
        browser.post("/?do=write&status=503&keep=1")
        assert browser.get("/data").json() == {"k": "written"}

    def test_an_anonymous_cart_survives_a_login_that_failed(self, house: House) -> None:
        """Row 11, out of an anonymous session."""
        browser = house.browser()
        browser.get("/data?write=cart")
        assert browser.post("/?do=login&status=500").cookies == []
        assert browser.get("/data").json() == {"cart": "1"}

    def test_a_login_on_a_redirect_is_found_by_the_page_it_leads_to(self, house: House) -> None:
        """Row 13."""
        browser = house.browser()
        answer = browser.post("/login", {"user": "alice"})
        assert (answer.status, answer.header("location"), len(answer.cookies)) == (303, "/me", 1)
        assert browser.get("/me").json()["user"] == "alice"

    def test_a_renewal_hands_out_a_new_secret_and_the_old_one_works_for_a_while(self, house: House) -> None:
        """Row 23, one by one."""
        browser = house.browser()
        browser.login()
        handle = browser.get("/me").json()["handle"]
        old = browser.twin()
        house.clock.wind(RENEW)
        assert len(browser.get("/me").cookies) == 1
        assert browser.token != old.token
        assert browser.get("/me").json()["handle"] == handle
        house.clock.wind(30)
        grace = old.get("/me")
        assert (grace.status, grace.cookies) == (200, [])
        house.clock.wind(600)
        assert old.get("/me").json()["why"] == "theft"
        assert browser.get("/me").json()["why"] == "theft"

    def test_fifty_parallel_requests_at_renewal_get_one_successor(self, house: House) -> None:
        """Row 23."""
        browser = house.browser()
        browser.login()
        house.clock.wind(RENEW)
        flights = [browser.start("GET", "/me?hold=crowd") for _ in range(50)]
        house.control.gate("crowd").wait_until_reached(50)
        house.control.gate("crowd").open()
        answers = [one.wait() for one in flights]
        assert {one.status for one in answers} == {200}
        assert len({cookie for one in answers for cookie in one.cookies}) == 1
        for flight in reversed(flights):
            flight.land()
        assert browser.get("/me").status == 200

    def test_a_lost_renewal_costs_nobody_the_session(self, house: House) -> None:
        """Row 23: the answer with the new secret never arrives."""
        browser = house.browser()
        browser.login()
        for _ in range(4):
            house.clock.wind(RENEW)
            browser.start("GET", "/me").wait()
            answer = browser.get("/me")
            assert answer.status == 200
        house.clock.wind(RENEW)
        assert browser.get("/me").status == 200

    @pytest.mark.parametrize("slow", ["/me", "/data?write=slow", "/data?do=pop", "/form"])
    def test_an_old_answer_that_arrives_last_does_not_wipe_the_login(self, house: House, slow: str) -> None:
        """Row 24 (F2)."""
        browser = house.browser()
        browser.get("/data?write=k")
        flight = _held(house, browser, "GET", slow)
        browser.login()
        house.control.gate("slow").open()
        assert flight.land().cookies == []
        assert browser.get("/me").json()["user"] == "alice"

    @pytest.mark.parametrize("late", ["/me", "/data?write=late"])
    def test_a_request_that_left_with_the_old_cookie_does_not_wipe_the_login(self, house: House, late: str) -> None:
        """Row 24, sent before and met after."""
        browser = house.browser()
        browser.get("/data?write=k")
        before = browser.twin()
        browser.login()
        assert before.start("GET", late).wait().cookies == []

    @pytest.mark.parametrize("slow", ["/data?write=slow", "/me", "/data?write=slow&status=303", "/?do=end-others"])
    @pytest.mark.parametrize("end", ["logout", "revoke", "logout and login"])
    def test_a_slow_request_revives_nothing(self, house: House, slow: str, end: str) -> None:
        """Row 25."""
        browser = house.browser()
        browser.login()
        handle = house.control.records()[0].handle
        flight = _held(house, browser, "GET", slow)
        if end == "revoke":
            house.control.registry.revoke(handle)
        else:
            browser.post("/logout")
        if end == "logout and login":
            browser.login()
        house.control.gate("slow").open()
        answer = flight.land()
        assert answer.status < 500
        assert answer.cookies == []
        record = next(one for one in house.control.records() if one.handle == handle)
        assert record.ended_at is not None
        assert record.data == b""
        assert browser.get("/me").status == (200 if end == "logout and login" else 401)
        if "write" in slow:
            assert len(house.control.events("session_write_dropped")) == 1

    @pytest.mark.parametrize("act", ["reauth", "renew"])
    def test_a_slow_step_up_does_not_slip_past_a_logout(self, house: House, act: str) -> None:
        """Row 25: it is refused, and nothing of it lives."""
        browser = house.browser()
        browser.login()
        path = "/reauth" if act == "reauth" else "/?do=renew"
        flight = _held(house, browser, "POST", path)
        browser.post("/logout")
        house.control.gate("slow").open()
        answer = flight.land()
        assert (answer.status, answer.cookies) == (401, [])
        assert house.control.records(live=True) == []


def _held(house: House, browser: Browser, method: str, target: str) -> Flight:
    joint = "&" if "?" in target else "?"
    flight = browser.start(method, f"{target}{joint}hold=slow")
    house.control.gate("slow").wait_until_reached()
    return flight
