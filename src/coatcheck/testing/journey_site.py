"""Rows of the journey about the site: who may ask, what is refused and how, and whose address it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from .needs import needs

if TYPE_CHECKING:
    from .journey import House

OURS = "https://testserver"
EVIL = "https://evil.example"

VECTORS: list[tuple[str, str, dict[str, Any], dict[str, Any], int]] = [
    ("a page of ours", "POST", {"site": "same-origin"}, {}, 200),
    ("the address bar", "POST", {"site": "none"}, {}, 200),
    ("another site", "POST", {"site": "cross-site"}, {}, 403),
    ("a sibling", "POST", {"site": "same-site"}, {}, 403),
    ("an unknown word", "POST", {"site": "elsewhere"}, {}, 403),
    ("two words", "POST", {"site": "same-origin, cross-site"}, {}, 403),
    ("another site, PUT", "PUT", {"site": "cross-site"}, {}, 403),
    ("another site, PATCH", "PATCH", {"site": "cross-site"}, {}, 403),
    ("another site, DELETE", "DELETE", {"site": "cross-site"}, {}, 403),
    ("another site, an unknown method", "TRACE", {"site": "cross-site"}, {}, 403),
    ("another site, reading", "GET", {"site": "cross-site"}, {}, 200),
    ("an older browser of ours", "POST", {"site": None, "origin": OURS}, {}, 200),
    ("an older browser elsewhere", "POST", {"site": None, "origin": EVIL}, {}, 403),
    ("an opaque origin", "POST", {"site": None, "origin": "null"}, {}, 403),
    ("our host under http", "POST", {"site": None, "origin": "http://testserver"}, {}, 403),
    ("our host, another port", "POST", {"site": None, "origin": f"{OURS}:8443"}, {}, 403),
    ("our name inside another", "POST", {"site": None, "origin": "https://testserver.evil.example"}, {}, 403),
    ("no browser", "POST", {"site": None}, {}, 200),
    ("no browser where that is denied", "POST", {"site": None}, {"missing_headers": "deny"}, 403),
    ("a trusted site", "POST", {"site": "cross-site", "origin": EVIL}, {"trusted_origins": [EVIL]}, 200),
    ("an exempt path", "POST", {"site": "cross-site"}, {"csrf_exempt": ["/"]}, 200),
    ("a path below an exempt one", "POST", {"site": "cross-site"}, {"csrf_exempt": ["/webhook"]}, 403),
    ("another site, only reported", "POST", {"site": "cross-site"}, {"csrf": "report"}, 200),
    ("another site, not checked", "POST", {"site": "cross-site"}, {"csrf": "off"}, 200),
    ("fetch metadata against Origin", "POST", {"site": "same-origin", "origin": EVIL}, {}, 200),
    ("a configured origin", "POST", {"site": None, "origin": "https://shop.example"},
     {"origins": ["https://shop.example"]}, 200),
    ("the Host header, with a configured origin", "POST", {"site": None, "origin": OURS},
     {"origins": ["https://shop.example"]}, 403),
]  # fmt: skip
"""Name, method, what the browser says, the settings, and the status that follows."""

ADDRESSES: list[tuple[str, list[str], list[str], str]] = [
    ("192.0.2.7", [], [], "192.0.2.7"),
    ("192.0.2.7", ["198.51.100.1"], [], "192.0.2.7"),
    ("10.0.0.1", ["198.51.100.1"], ["10.0.0.1"], "198.51.100.1"),
    ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], ["10.0.0.1"], "198.51.100.1"),
    ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.0.0.2"], ["10.0.0.0/8"], "198.51.100.1"),
    ("10.0.0.1", ["not an address"], ["10.0.0.1"], "10.0.0.1"),
    ("198.51.100.1", ["203.0.113.9, 198.51.100.1"], ["10.0.0.1"], "198.51.100.1"),
    ("2001:db8::1", [], [], "2001:db8::1"),
]
"""The peer, X-Forwarded-For, the trusted proxies, and the address that a session remembers."""


class SiteRows:
    """Rows 14, 29 to 32, 40, 49, 52 and 53."""

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_an_unrouted_path_is_a_404_with_or_without_a_session(self, house: House, method: str) -> None:
        """Row 14."""
        browser = house.browser()
        assert browser.request(method, "/nowhere").status in (404, 405)
        browser.login()
        answer = browser.request(method, "/nowhere")
        assert (answer.status in (404, 405), answer.cookies) == (True, [])

    def test_an_excluded_path_works_while_the_store_is_away(self, serve: Callable[..., House]) -> None:
        """Row 14 (F32)."""
        house = serve(exclude=["/health"])
        browser = house.browser()
        browser.login()
        house.trouble.fail("load")
        assert (browser.get("/health").text, browser.get("/").status) == ("well", 503)

    def test_an_excluded_path_still_refuses_other_sites(self, serve: Callable[..., House]) -> None:
        """Row 14: what is excluded is the session, not the screen."""
        browser = serve(exclude=["/health"]).browser()
        assert browser.post("/health", site="cross-site").status == 403

    @pytest.mark.parametrize(
        ("name", "method", "says", "settings", "status"), VECTORS, ids=[vector[0] for vector in VECTORS]
    )
    def test_a_request_is_judged_by_the_site_that_caused_it(
        self,
        serve: Callable[..., House],
        name: str,
        method: str,
        says: dict[str, Any],
        settings: dict[str, Any],
        status: int,
    ) -> None:
        """Rows 29 and 30: a refused one runs no handler and touches no store."""
        house = serve(**settings)
        answer = house.browser().request(method, "/", **says)
        if status == 200:
            assert answer.status in (200, 404, 405)
        else:
            assert answer.status == 403
            assert answer.header("cache-control") == "no-store"
            assert "Sec-Fetch-Site" in (answer.header("vary") or "")
            assert house.control.probe.seen == []
            assert house.trouble.calls == []
            assert house.control.manager.noise.totals["csrf_denied"] == 1

    @pytest.mark.parametrize("path", ["/login", "/nowhere", "/account/email"])
    def test_a_cross_site_post_is_refused_wherever_it_goes(self, house: House, path: str) -> None:
        """Row 30: an unrouted path is no way in, nor out."""
        browser = house.browser()
        browser.login()
        house.control.probe.seen.clear()
        house.trouble.calls.clear()
        answer = browser.post(path, {"user": "mallory"}, site="cross-site")
        assert (answer.status, answer.cookies) == (403, [])
        assert (house.control.probe.seen, house.trouble.calls) == ([], [])
        assert browser.get("/me").json()["user"] == "alice"

    def test_a_login_needs_evidence_of_where_it_came_from(self, house: House) -> None:
        """Row 29: login CSRF; a form's token is evidence, too."""
        browser = house.browser()
        assert browser.post("/login", {"user": "mallory"}, site=None).status == 403
        token = browser.get("/form").text
        assert browser.post("/login", {"user": "alice", "csrf_token": token}, site=None).status == 303
        assert browser.get("/me").json()["user"] == "alice"

    def test_a_token_counts_in_a_header_and_in_a_form_field(self, house: House) -> None:
        """Row 29: each spelling is fresh, all of them are good, and another session's is not."""
        browser, other = house.browser(), house.browser()
        one, two = browser.get("/form").text, browser.get("/form").text
        assert one != two
        for token in (one, two):
            assert browser.post("/echo?token=required", {"csrf_token": token}).json()["csrf"] is True
            assert browser.post("/echo?token=required", headers={"x-csrf-token": token}).status == 200
        stranger = other.get("/form").text
        assert browser.post("/echo?token=required", {"csrf_token": stranger}).status == 403
        assert browser.post("/echo?token=required", {"csrf_token": ""}).status == 403
        browser.login()
        assert browser.post("/echo?token=required", {"csrf_token": one}).status == 403

    def test_a_token_survives_a_renewal(self, house: House) -> None:
        """Row 29: an open form is still good."""
        browser = house.browser()
        browser.login()
        token = browser.get("/form").text
        house.clock.wind(16 * 60)
        assert len(browser.get("/").cookies) == 1
        assert browser.post("/echo?token=required", {"csrf_token": token}).status == 200

    @pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
    def test_a_program_is_told_to_log_in(self, serve: Callable[..., House], accept: str) -> None:
        """Row 31."""
        answer = serve(login_url="/login").browser().get("/private", headers={"accept": accept})
        assert answer.status == 401
        assert answer.header("www-authenticate") == 'Session realm="__Host-coat", error="login_required"'
        assert "no-store" in (answer.header("cache-control") or "")
        assert "Cookie" in (answer.header("vary") or "")

    def test_a_browser_is_sent_to_the_login_page_and_back(self, serve: Callable[..., House]) -> None:
        """Row 31."""
        browser = serve(login_url="/login").browser()
        html = {"accept": "text/html,*/*"}
        answer = browser.get("/private?a=1&b=2", headers=html)
        assert (answer.status, answer.header("location")) == (303, "/login?next=/private%3Fa%3D1%26b%3D2")
        assert browser.post("/private", headers=html).header("location") == "/login"

    def test_a_login_can_be_too_old_or_too_weak(self, house: House) -> None:
        """Row 31, within and level."""
        browser = house.browser()
        browser.login()
        assert browser.get("/private?within=600").status == 200
        house.clock.wind(601)
        stale = browser.get("/private?within=600")
        assert (stale.status, stale.json()) == (401, {"error": "reauth_required", "max_age": 600.0})
        assert browser.get("/private?level=20").json()["error"] == "reauth_required"
        assert browser.post("/pay").status == 401
        browser.post("/reauth")
        assert browser.get("/private?within=600&level=20").json() == {"user": "alice"}
        assert browser.post("/pay").status == 200

    def test_a_step_up_is_good_for_what_was_asked_once(self, serve: Callable[..., House]) -> None:
        """Row 31, a proof for one request (M5): another subject, a changed body and a second time are refused."""
        house = serve(login_url="/login")
        browser, money, html = house.browser(), {"to": "bob", "amount": "10"}, {"accept": "text/html"}
        browser.login()
        house.clock.wind(1)
        sent = browser.post("/transfer", money, headers=html)
        assert (sent.status, sent.header("location")) == (303, "/login")
        house.clock.wind(1)
        browser.login("mallory")
        assert browser.get("/resume?next=//evil.example").json() == {"go": "/home"}
        assert browser.post("/transfer", money).status == 401
        house.clock.wind(1)
        assert browser.post("/reauth").status == 200
        assert browser.post("/transfer", {**money, "amount": "99"}).status == 401
        house.clock.wind(1)
        assert browser.post("/reauth").status == 200
        assert browser.get("/resume").json()["again"]["shown"] == {**money, "amount": "99"}
        assert browser.post("/transfer", {**money, "amount": "99"}).status == 200
        assert browser.post("/transfer", {**money, "amount": "99"}).status == 401
        assert house.control.probe.done == ["mallory: 99 to bob"]

    @pytest.mark.parametrize(("peer", "forwarded", "trusted", "address"), ADDRESSES)
    def test_the_address_is_that_before_our_own_proxies(
        self, serve: Callable[..., House], peer: str, forwarded: list[str], trusted: list[str], address: str
    ) -> None:
        """Row 32 (F27)."""
        house = serve(trusted_proxies=trusted)
        headers = [("x-forwarded-for", value) for value in forwarded]
        house.browser().post("/login", json={"user": "alice"}, peer=peer, headers=headers)
        client = house.control.records()[0].client
        assert client is not None
        assert (client.address, client.agent) == (address, "Probe/1")

    @pytest.mark.parametrize("origin", ["https://testserver", "http://testserver"])
    def test_behind_a_proxy_that_ends_tls_a_post_of_ours_is_no_strangers(self, house: House, origin: str) -> None:
        """Row 32: an older browser, and the scheme that we see is the proxy's."""
        browser = house.browser("http://testserver")
        assert browser.post("/echo", {"a": "1"}, site=None, origin=origin).status == 200

    def test_an_unknown_host_is_told_to_the_operator(self, serve: Callable[..., House]) -> None:
        """Row 52: outside of tests an application says what it is called."""
        answer = serve().browser().get("/", host="shop.example")
        assert answer.status == 500
        assert "origins" in answer.text
        named = serve(origins=["https://shop.example"])
        assert named.browser().get("/", host="shop.example").status == 200

    def test_sessions_of_one_realm_are_garbage_in_another(self, serve: Callable[..., House]) -> None:
        """Row 40: two applications in one process and one store."""
        shop, staff = serve(realm="shop"), serve(realm="staff")
        browser = shop.browser()
        browser.login()
        visitor = staff.browser()
        visitor.jar = dict(browser.jar)
        assert (visitor.get("/me").status, browser.get("/me").status) == (401, 200)
        assert staff.control.manager.noise.totals == {"session_garbage_token": 1}

    def test_nothing_stored_or_logged_lets_anybody_in(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        """Row 49 (F36)."""
        caplog.set_level("DEBUG")
        browser = house.browser()
        secrets: list[str] = []
        for step in ("/data?write=k", "/?do=login", "/?do=renew", "/?then=raise"):
            browser.get(step)
            secrets += (browser.token or "").split(".")[2:]
        house.clock.wind(16 * 60)
        old = browser.twin()
        browser.get("/me")
        secrets += (browser.token or "").split(".")[2:]
        browser.get("/me")
        house.clock.wind(600)
        old.get("/me")
        assert len(set(secrets)) > 4
        written = house.control.dump() + caplog.text + json.dumps([repr(record) for record in house.control.records()])
        assert [secret for secret in secrets if secret in written] == []

    def test_plain_http_on_localhost_works_under_another_name(self, serve: Callable[..., House]) -> None:
        """Row 53."""
        house = serve(allow_insecure_http=True)
        browser = house.browser("http://localhost:8000")
        answer = browser.login()
        assert answer.cookies[0].startswith("coat-insecure=")
        assert "Secure" not in answer.cookies[0]
        assert browser.get("/me").json()["user"] == "alice"

    @pytest.mark.parametrize(
        "bad",
        [
            {"host": "shop.example"},
            {"headers": {"x-forwarded-proto": "https"}},
            {"headers": {"forwarded": "proto=https"}},
        ],
    )
    def test_plain_http_is_refused_anywhere_else(self, serve: Callable[..., House], bad: dict[str, Any]) -> None:
        """Row 53."""
        answer = serve(allow_insecure_http=True).browser("http://localhost:8000").get("/", **bad)
        assert (answer.status, answer.cookies) == (500, [])

    @needs("socket")
    @pytest.mark.parametrize(
        ("origin", "cookie", "accepted"),
        [
            (OURS, True, True),
            (EVIL, True, False),
            ("null", True, False),
            ("https://testserver.evil.example", True, False),
            (None, True, False),
            (None, False, True),
            (EVIL, False, False),
        ],
    )
    def test_a_socket_is_judged_by_its_origin(
        self, house: House, origin: str | None, cookie: bool, accepted: bool
    ) -> None:
        """Row 42: before it is accepted, and before the store is asked."""
        browser = house.browser()
        if cookie:
            browser.login()
        house.trouble.calls.clear()
        socket = browser.connect("/ws", origin=origin)
        if accepted:
            assert socket.denial is None
            socket.close()
        else:
            assert socket.denial is not None
            assert socket.denial.status == 403
            assert house.trouble.calls == []
