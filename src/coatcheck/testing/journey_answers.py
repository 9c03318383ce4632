"""Rows of the journey about the response: streams, work behind it, caches, methods, and what carries no cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .drivers import until
from .needs import needs

if TYPE_CHECKING:
    from .journey import House

RENEW = 16 * 60.0


class AnswerRows:
    """Rows 18 to 21, 33 and 34."""

    @needs("stream")
    def test_what_a_stream_writes_before_its_first_byte_is_kept_with_a_cookie(self, house: House) -> None:
        """Row 18."""
        browser = house.browser()
        answer = browser.get("/stream?before=1")
        assert answer.text == "one - three"
        assert browser.get("/data").json() == ({"before": "yes"} if answer.cookies else {})
        assert len(house.control.records()) == len(answer.cookies)

    @needs("stream")
    def test_a_stream_can_read_and_write_in_its_body(self, house: House) -> None:
        """Row 18 (F6): kept, as the cookie need not change."""
        browser = house.browser()
        browser.get("/data?write=k&value=v")
        assert browser.get("/stream").text == "one v three"
        assert browser.get("/stream?body=write").text == "one written three"
        assert browser.get("/data").json() == {"k": "written"}

    @needs("stream")
    def test_a_session_that_begins_in_a_body_leaves_no_orphan(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Row 18: no cookie can be sent any more, so nothing is stored and a warning says so."""
        answer = house.browser().get("/stream?body=write")
        assert answer.cookies == []
        assert house.control.records() == []
        assert "/stream" in caplog.text
        assert "after the response started" in caplog.text

    @needs("stream")
    @pytest.mark.parametrize("act", ["login", "renew", "end-others", "lasting"])
    def test_what_needs_a_cookie_comes_too_late_in_a_body(self, house: House, act: str) -> None:
        """Row 18: it raises at once."""
        browser = house.browser()
        browser.login("bob")
        assert browser.get(f"/stream?body={act}").text == "one too late three"
        assert browser.get("/me").json()["user"] == "bob"

    @needs("stream")
    def test_a_logout_in_a_body_counts(self, house: House) -> None:
        """Row 18: an end needs no cookie."""
        browser = house.browser()
        browser.login()
        browser.get("/stream?body=logout")
        assert browser.get("/me").json()["why"] == "logout"

    @needs("after")
    def test_a_background_write_is_kept(self, house: House) -> None:
        """Row 19."""
        browser = house.browser()
        browser.login()
        browser.get("/after?act=write")
        until(lambda: house.control.probe.late)
        assert browser.get("/data").json() == {"k": "written"}

    @needs("after")
    def test_a_login_in_the_background_raises(self, house: House) -> None:
        """Row 19."""
        browser = house.browser()
        browser.get("/data?write=a")
        browser.get("/after?act=login")
        until(lambda: house.control.probe.late)
        assert house.control.probe.late == ["too late "]
        assert browser.get("/me").status == 401
        assert browser.get("/data").json() == {"a": "1"}

    @needs("after")
    def test_a_logout_in_the_background_counts(self, house: House) -> None:
        """Row 19."""
        browser = house.browser()
        browser.login()
        browser.get("/after?act=logout")
        until(lambda: house.control.probe.late)
        assert browser.get("/me").json()["why"] == "logout"

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("GET", "/?status=304"),
            ("GET", "/?status=206"),
            ("GET", "/?status=204"),
            ("HEAD", "/"),
            ("OPTIONS", "/"),
            ("GET", "/?cache=public,+max-age%3D60"),
            ("GET", "/?cache=max-age%3D60,+immutable"),
            ("GET", "/?cache=s-maxage%3D60"),
            ("GET", "/?status=500"),
        ],
    )
    def test_a_renewal_waits_for_an_answer_that_may_carry_it(self, house: House, method: str, target: str) -> None:
        """Rows 20, 21 and 33."""
        browser = house.browser()
        browser.login()
        house.clock.wind(RENEW)
        answer = browser.request(method, target)
        assert answer.cookies == []
        assert answer.header("cache-control") in (None, "public, max-age=60", "max-age=60, immutable", "s-maxage=60")
        assert len(browser.get("/").cookies) == 1

    @pytest.mark.parametrize("target", ["status=206", "status=304", "cache=public,+max-age%3D60", "status=204"])
    def test_a_login_is_never_postponed(self, house: House, target: str) -> None:
        """Rows 20 and 21."""
        browser = house.browser()
        answer = browser.get(f"/?do=login&{target}")
        assert len(answer.cookies) == 1
        assert answer.header("cache-control") == "no-store"
        assert browser.get("/me").json()["user"] == "alice"

    @pytest.mark.parametrize(
        ("theirs", "merged"),
        [("Accept-Encoding", "Accept-Encoding, Cookie"), ("*", "*"), ("cookie", "cookie"), ("Cookie, A", "Cookie, A")],
    )
    def test_vary_is_merged(self, house: House, theirs: str, merged: str) -> None:
        """Row 21."""
        answer = house.browser().get(f"/look?how=get&vary={theirs}")
        assert answer.header("vary") == merged

    def test_the_application_keeps_its_own_cookies(self, house: House) -> None:
        """Row 21."""
        browser = house.browser()
        answer = browser.get("/?do=login&cookie=theme%3Ddark")
        assert [line.partition("=")[0] for line in answer.cookies] == ["theme", browser.cookie]
        assert browser.get("/me").status == 200

    def test_a_page_without_a_new_cookie_keeps_its_cache_headers(self, house: House) -> None:
        """Row 21."""
        browser = house.browser()
        browser.login()
        answer = browser.get("/?cache=public,+max-age%3D60")
        assert (answer.header("cache-control"), answer.cookies) == ("public, max-age=60", [])

    def test_head_is_get_without_the_body(self, house: House) -> None:
        """Row 33."""
        browser = house.browser()
        browser.login()
        got, headed = browser.get("/me"), browser.request("HEAD", "/me")
        for name in ("vary", "cache-control", "set-cookie", "content-type"):
            assert headed.header(name) == got.header(name)
        assert headed.status == got.status

    @pytest.mark.parametrize("with_cookie", [False, True])
    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_a_preflight_never_touches_the_store(self, house: House, with_cookie: bool, site: str) -> None:
        """Row 34 (F31)."""
        browser = house.browser()
        if with_cookie:
            browser.login()
        house.trouble.calls.clear()
        asking = {"access-control-request-method": "POST", "origin": "https://elsewhere.example"}
        answer = browser.request("OPTIONS", "/", site=site, headers=asking)
        assert answer.status < 400
        assert answer.cookies == []
        assert house.trouble.calls == []
