"""Requests that another site caused, and the tokens that are no excuse (D59, D64; CSR-01 to CSR-09)."""

import pytest

from coatcheck.core import csrf
from coatcheck.core.tokens import csrf_key
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, FORM, ORIGIN, Ask, House, Pairs, Visitor

EVIL = "https://evil.test"

SHAPES: list[tuple[str, Pairs, int]] = [
    ("our form", (("sec-fetch-site", "same-origin"), ("origin", ORIGIN)), 303),
    ("our form in an old browser", (("origin", ORIGIN),), 303),
    ("typed by hand", (("sec-fetch-site", "none"),), 303),
    ("evil form", (("sec-fetch-site", "cross-site"), ("origin", EVIL), ("sec-fetch-mode", "navigate")), 403),
    ("evil form in an old browser", (("origin", EVIL),), 403),
    ("evil form, referrer off", (("sec-fetch-site", "cross-site"), ("origin", "null")), 403),
    ("evil fetch", (("sec-fetch-site", "cross-site"), ("origin", EVIL), ("sec-fetch-mode", "cors")), 403),
    ("evil fetch, no-cors", (("sec-fetch-site", "cross-site"), ("origin", EVIL), ("sec-fetch-mode", "no-cors")), 403),
    (
        "evil sandboxed iframe",
        (("sec-fetch-site", "cross-site"), ("origin", "null"), ("sec-fetch-dest", "iframe")),
        403,
    ),
    ("sibling", (("sec-fetch-site", "same-site"), ("origin", "https://blog.app.test")), 403),
    ("sibling says it is us", (("sec-fetch-site", "same-site"), ("origin", ORIGIN)), 403),
    ("plain http twin", (("origin", "http://app.test"),), 403),
    ("an unknown word", (("sec-fetch-site", "future-value"), ("origin", ORIGIN)), 403),
    ("two words", (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"), ("origin", ORIGIN)), 403),
    ("two origins", (("origin", ORIGIN), ("origin", EVIL)), 403),
    ("mis-cased word", (("sec-fetch-site", "Same-Origin"), ("origin", EVIL)), 403),
    ("no header at all", (), 403),
    ("no header but a referer", (("referer", f"{ORIGIN}/login"),), 403),
    ("empty headers", (("sec-fetch-site", ""), ("origin", "")), 403),
]


@pytest.mark.parametrize(("what", "headers", "status"), SHAPES, ids=[row[0] for row in SHAPES])
@pytest.mark.parametrize("method", ["POST", "PUT", "TRACE", "post", "PROPFIND"])
def test_nobody_is_logged_in_by_another_site(house: House, what: str, headers: Pairs, status: int, method: str) -> None:
    """D59 (CSR-08, M4): with the attacker's valid credentials, whatever the method; no cookie in the refusal."""
    ask = Ask(method, "/login" if method == "POST" else "/data?do=login", (*headers, FORM), b"user=mallory")
    answer = house.ask(ask)
    if status == 403:
        assert answer.status == 403
        assert answer.set_cookies == []
        assert house.control.records() == []
        assert house.control.manager.noise.totals == {"csrf_denied": 1}
    else:
        assert answer.status == (303 if method == "POST" else 404)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "dest", ["iframe", "frame", "image", "script", "object", "empty", "Document", "document, image"]
)
def test_no_frame_and_no_image_of_another_site_logs_anybody_in(house: House, site: str, dest: str) -> None:
    """D59 (FED-02): a callback that comes by GET, with the attacker's own code; who is sent here is let in."""
    where, go = ("sec-fetch-site", site), "/data?do=login"
    answer = house.ask(Ask("GET", go, (where, ("sec-fetch-dest", dest))))
    assert (answer.status, answer.set_cookies, house.control.records()) == (403, [], [])
    assert house.control.manager.noise.totals == {"csrf_denied": 1}
    for headers in (
        (where, ("sec-fetch-dest", "document")),
        (("sec-fetch-site", "same-origin"), ("sec-fetch-dest", dest)),
    ):
        answer = house.ask(Ask("GET", go, headers))
        assert (answer.status, len(answer.set_cookies)) == (200, 1)


def test_without_headers_the_token_of_the_pre_session_logs_in_once(house: House) -> None:
    """D59 (M4): and it dies with it."""
    visitor = house.visitor()
    token = visitor.get("/form").body.decode()
    pre_session = visitor.token
    assert house.visitor().post("/login", headers=(), user="alice", csrf_token=token).status == 403
    assert house.visitor(pre_session).post("/login", headers=(), user="alice").status == 403
    answer = visitor.post("/login", headers=(), user="alice", csrf_token=token)
    assert answer.status == 303
    assert visitor.user == "alice"
    assert house.visitor(pre_session).post("/login", headers=(), user="bob", csrf_token=token).status == 403
    assert visitor.post("/echo?token=required", csrf_token=token).status == 403


def test_a_refused_request_reaches_neither_handler_nor_store(house: House) -> None:
    """CSR-01, H3: also with the victim's cookie on it."""
    victim = house.visitor()
    victim.login()
    house.control.probe.seen.clear()
    calls = len(house.control.trouble.calls)
    evil = (("sec-fetch-site", "cross-site"), ("origin", EVIL))
    for target in ("/logout", "/account/password", "/pay", "/nothing", "/login"):
        answer = house.ask(victim.prepare("POST", target, evil))
        assert (answer.status, answer.set_cookies) == (403, [])
    assert house.control.probe.seen == []
    assert len(house.control.trouble.calls) == calls
    assert victim.user == "alice"


def _of_another_session(victim: Visitor) -> str:
    other = victim.house.visitor()
    other.login("mallory")
    return other.get("/form").body.decode()


def _of_the_same_subject(victim: Visitor) -> str:
    other = victim.house.visitor()
    other.login()
    return other.get("/form").body.decode()


def _anonymous(victim: Visitor) -> str:
    return victim.house.visitor().get("/form").body.decode()


def _of_its_handle(victim: Visitor) -> str:
    return (victim.token or "").split(".")[1]


FOREIGN = [
    _of_another_session,
    _of_the_same_subject,
    _anonymous,
    _of_its_handle,
    lambda victim: "",
    lambda victim: "0" * 64 + "." + "0" * 64,
    lambda victim: "m." + "A" * 344,
    lambda victim: victim.get("/form").body.decode()[:-1],
    lambda victim: victim.get("/form").body.decode() + "A",
    lambda victim: victim.get("/form").body.decode().swapcase(),
]


@pytest.mark.parametrize("forge", FOREIGN)
@pytest.mark.parametrize("where", ["form", "header"])
def test_a_csrf_token_that_is_not_this_sessions_is_refused(house: House, forge: object, where: str) -> None:
    """D64 (CSR-06)."""
    victim = house.visitor()
    victim.login()
    token = forge(victim)  # type: ignore[operator]
    if where == "form":
        answer = victim.post("/echo?token=required", csrf_token=token)
    else:
        answer = victim.post("/echo?token=required", headers=(("origin", ORIGIN), ("x-csrf-token", token)))
    assert answer.status == 403


def test_a_csrf_token_of_before_the_login_is_dead(house: House) -> None:
    """D64."""
    visitor = house.visitor()
    before = visitor.get("/form").body.decode()
    assert visitor.post("/echo?token=required", csrf_token=before).status == 200
    visitor.login()
    assert visitor.post("/echo?token=required", csrf_token=before).status == 403
    after = visitor.get("/form").body.decode()
    visitor.post("/reauth")
    assert visitor.post("/echo?token=required", csrf_token=after).status == 403


@pytest.mark.parametrize("headers", [(), (("origin", ORIGIN),)])
def test_a_csrf_token_counts_in_form_and_header_only(build: Build, headers: Pairs) -> None:
    """D64 (CSR-06, CSR-07): in the query or a cookie it is nothing; and without Origin nothing else lets a form in."""
    house = build(missing_headers="deny")
    visitor = house.visitor()
    visitor.login()
    token = visitor.get("/form").body.decode()
    assert visitor.post(f"/echo?token=required&csrf_token={token}", headers=headers).status == 403
    cookies = (("cookie", f"csrf_token={token}; x-csrf-token={token}"), *headers)
    assert house.ask(visitor.prepare("POST", "/echo?token=required", cookies)).status == 403
    assert visitor.post("/echo?token=required", headers=(*headers, ("x-csrf-token", token))).status == 200


def test_a_csrf_token_survives_a_hundred_renewals(build: Build, clock: Clock) -> None:
    """D64: in a page left open for a day; the session's family has not changed."""
    house = build(timeouts="nist-aal1")
    visitor = house.visitor()
    visitor.login()
    tokens = {visitor.token}
    page = visitor.get("/form").body.decode()
    for _ in range(100):
        clock.wind(901)
        visitor.get("/me")
        visitor.get("/me")
        tokens.add(visitor.token)
    assert len(tokens) == 101
    assert visitor.post("/echo?token=required", csrf_token=page).status == 200
    assert len({visitor.get("/form").body for _ in range(10)}) == 10, "spelt anew each time (BREACH)"


SPENT = ["idle", "revoked", "logged out elsewhere", "never issued", "malformed"]


def _spend(house: House, clock: Clock, visitor: Visitor, how: str) -> None:
    """Leave the browser with a cookie that opens nothing; it stays there until the next login (H3)."""
    if how == "idle":
        clock.wind(3601)
    elif how == "revoked":
        house.control.registry.revoke((visitor.token or "").split(".")[1])
    elif how == "logged out elsewhere":
        house.control.registry.revoke_all("alice", because="owner")
    else:
        visitor.token = f"c1.{'A' * 18}.{'B' * 24}.{'C' * 24}" if how == "never issued" else "of another library"


@pytest.mark.parametrize("how", SPENT)
def test_a_browser_with_a_spent_cookie_gets_a_token_that_logs_in(house: House, clock: Clock, how: str) -> None:
    """M4: it is given no new session over its cookie, so its login form's token belongs to that cookie."""
    visitor = house.visitor()
    visitor.login()
    of_the_session = visitor.get("/form").body.decode()
    _spend(house, clock, visitor, how)
    spent, count = visitor.token, len(house.control.records())
    token = visitor.get("/form").body.decode()
    form = {"user": "alice", "csrf_token": token}
    assert visitor.last is not None
    assert visitor.last.set_cookies == []
    assert visitor.post("/echo?token=required", csrf_token=token).status == 200
    assert visitor.post("/echo?token=required", csrf_token=of_the_session).status == 403, "TRM-12: it died with it"
    assert house.visitor().post("/echo?token=required", csrf_token=token).status == 403
    assert house.visitor(f"c1.{'A' * 18}.{'B' * 24}.{'D' * 24}").post("/login", (), **form).status == 403
    assert len(house.control.records()) == count
    assert visitor.post("/login", (), user="alice").status == 403
    assert visitor.post("/login", (), **form).status == 303
    assert visitor.user == "alice"
    assert visitor.post("/echo?token=required", csrf_token=token).status == 403, "it died with the login"
    assert house.visitor(spent).user is None


def test_two_cookies_of_our_name_get_no_token_that_counts(house: House) -> None:
    """D20: whose it would be is not known."""
    mallory, alice = house.visitor().login("mallory"), house.visitor().login()
    both = (("cookie", f"{COOKIE}={mallory}; {COOKIE}={alice}"), ("origin", ORIGIN))
    token = house.ask(Ask("GET", "/form", both)).body
    answer = house.ask(Ask("POST", "/echo?token=required", (*both, FORM), b"csrf_token=" + token))
    assert (answer.status, answer.set_cookies) == (403, [])


def test_the_page_that_a_logout_answers_with_may_hold_a_form(house: House) -> None:
    """Beyond D64: its token belongs to the session that the same answer begins."""
    visitor = house.visitor()
    visitor.login()
    token = visitor.get("/form?do=logout").body.decode()
    assert visitor.user is None
    assert visitor.post("/echo?token=required", csrf_token=token).status == 200


@pytest.mark.parametrize("act", ["logout", "login", "logout-login"])
@pytest.mark.parametrize("how", ["idle", "never issued"])
def test_the_page_that_takes_a_spent_cookie_away_may_hold_a_form(
    house: House, clock: Clock, how: str, act: str
) -> None:
    """Beyond D64: the same answer replaces the cookie, so the token is not bound to it."""
    visitor = house.visitor()
    visitor.login()
    _spend(house, clock, visitor, how)
    spent = visitor.token
    token = visitor.get(f"/form?do={act}").body.decode()
    assert visitor.token not in (spent, None)
    assert visitor.post("/echo?token=required", csrf_token=token).status == 200


def test_the_token_of_a_session_that_was_just_ended_counts_no_more(house: House) -> None:
    """D64 (TRM-12): within the request that ends it."""
    visitor = house.visitor()
    visitor.login()
    token = visitor.get("/form").body.decode()
    assert visitor.post("/echo?token=required&do=logout", csrf_token=token).status == 403


def test_a_token_forged_for_no_cookie_at_all_logs_nobody_in(house: House) -> None:
    """M4, D64: its key would be known to everybody."""
    key = csrf_key(house.control.manager.realm.encode(), b"")
    for sid in ("spent", ""):
        for cookie in ((), (("cookie", "theme=dark"),), (("cookie", f"{COOKIE}="),)):
            body = f"user=mallory&csrf_token={csrf.token(key, sid, bytes(32))}".encode()
            answer = house.ask(Ask("POST", "/login", (*cookie, FORM), body))
            assert (answer.status, answer.set_cookies) == (403, [])


def test_a_token_that_no_cookie_can_follow_is_not_made(house: House) -> None:
    """A form in a stream: a session cannot begin any more, so asking breaks the page rather than lie."""
    visitor = house.visitor()
    assert visitor.get("/form?late=1").body == b"token: too late"
    visitor.login()
    token = visitor.get("/form?late=1").body.decode().removeprefix("token: ")
    assert visitor.post("/echo?token=required", csrf_token=token).status == 200
    house.control.registry.revoke_all("alice", because="owner")  # a spent cookie's token begins nothing
    token = visitor.get("/form?late=1").body.decode().removeprefix("token: ")
    assert visitor.post("/echo?token=required", csrf_token=token).status == 200


def test_a_route_that_requires_a_token_does_so_whatever_else_holds(build: Build) -> None:
    """CSR-06, M9: `csrf="off"`, an exempt path, headers of our own page, and a GET change nothing."""
    for settings in ({"csrf": "off"}, {"csrf": "report"}, {"csrf_exempt": ["/echo"]}, {}):
        visitor = build(**settings).visitor()
        visitor.login()
        answer = visitor.post("/echo?token=required")
        assert (answer.status, answer.json["error"]) == (403, "csrf")
        assert answer.header("cache-control") == "no-store"
        token = visitor.get("/form").body.decode()
        assert visitor.post("/echo?token=required", csrf_token=token).status == 200


@pytest.mark.parametrize(("csrf", "status"), [("refuse", 403), ("report", 303), ("off", 303)])
def test_a_login_without_evidence_is_left_to_a_framework_that_checks(build: Build, csrf: str, status: int) -> None:
    """M4: as with every other refusal, `csrf` says who refuses."""
    answer = build(csrf=csrf).visitor().post("/login", headers=(), user="alice")
    assert answer.status == status


def test_a_missing_token_is_noted(house: House) -> None:
    """CSR-09: as noise, with method and path, and without the token that came."""
    visitor = house.visitor()
    visitor.post("/echo?token=required", csrf_token="0123456789" * 6)
    assert house.control.manager.noise.totals == {"csrf_denied": 1}
    house.flush()
    (event,) = house.events("csrf_denied")
    assert "0123456789" not in repr(event)
