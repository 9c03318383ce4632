"""Rows 1.B: how tokens are made, which of them count, and that none outlives what it was made for.

Statistics and rotation of keys stand in rows_secrets.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ...core.floods import Floods
from ...core.model import Query
from ..browser import Browser, Received
from .registry import row
from .site import Site
from .verdicts import expect
from .walks import logged, walk

RENEW, GRACE, LATE = 15 * 60.0, 60.0, 300.0
UNKNOWN = f"c1.{'Z' * 18}.{'Y' * 24}.{'X' * 24}"
NOBODY = 401

FINGERPRINTS = {
    *("sessionid", "session", "phpsessid", "jsessionid", "connect.sid", "asp.net_sessionid", "aspsessionid"),
    *("cfid", "cftoken", "csrftoken", "laravel_session", "_session_id", "rack.session", "django", "flask", "sid"),
}
"""Cookie names that tell which framework stands behind them (OWASP Session Management)."""

FLAGS = ("logged_in=1", "authenticated=true", "user=alice", "role=admin", "admin=1", "valid=yes", "level=30")
"""What an application that trusts its client would believe."""


def token_of(browser: Browser) -> str:
    """Return the token in a browser's jar, which must be there."""
    assert browser.token, "there is no session cookie in the jar"
    return browser.token


def is_nobody(answer: Received) -> bool:
    """Tell whether /me was refused."""
    return answer.status == NOBODY


@row("TOK-01")
def an_altered_token_opens_nothing(site: Site) -> None:
    """Each character of the token is changed in turn; flags of the client's own say nothing."""
    shop = site.with_settings(on_theft="note")  # whoever has all but the last secret may end a session, by default
    owner = shop.logged_in()
    token = token_of(owner)
    for place, character in enumerate(token):
        for other in {"A" if character != "A" else "B", character.swapcase(), "\x00", "!"} - {character}:
            altered = token[:place] + other + token[place + 1 :]
            expect(f"who a token is that is altered at {place}", shop.user_of(altered), None)
    for flag in FLAGS:
        expect(f"who the cookie {flag!r} is", shop.ask("GET", "/me", cookies=flag).status, NOBODY)
    headers = {"x-user": "alice", "x-authenticated": "true", "remote-user": "alice"}
    expect("what headers of the client's own do", shop.ask("GET", "/me", headers=headers).status, NOBODY)
    expect("who the owner is after all that", owner.get("/me").json()["user"], "alice")


@row("TOK-02")
def tokens_are_made_for_each_login(site: Site) -> None:
    """Two logins, another process and a fresh start give tokens that have nothing in common; a fixed key opens none."""
    processes = (site, site, site.beside(), site.with_settings())
    tokens = [token_of(process.logged_in()) for process in processes]
    for place, one in enumerate(tokens):
        for other in tokens[:place]:
            expect("parts that two logins share", set(one.split(".")[1:]) & set(other.split(".")[1:]), set())
    handle = tokens[0].split(".")[1]
    for key in ({"authorization": f"Bearer {handle}"}, {"x-api-key": handle}):
        expect("what a fixed key opens", site.ask("GET", "/me", headers=key).status, NOBODY)


@row("TOK-04")
def whoever_authenticates_gets_another_token(site: Site) -> None:
    """At login, re-authentication, a change of privileges and the next login: the old token is dead at once."""
    browser = site.browser()
    browser.get("/data?write=k")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("a login", browser.login),
        ("a re-authentication", lambda: browser.post("/reauth")),
        ("a change of privileges", lambda: browser.post("/data?do=renew")),
        ("another login", lambda: browser.login("bob")),
    ]
    for what, step in steps:
        before = token_of(browser)
        step()
        assert token_of(browser) != before, f"{what} left the token as it was"
        expect(f"what the token from before {what} opens", site.user_of(before), None)
        assert browser.get("/me").status == 200, f"{what} left nobody logged in"
    before = token_of(browser)
    browser.post("/logout")
    browser.login("bob")
    assert token_of(browser) != before, "after a logout, the next login took the token up again"
    expect("what the token from before the logout opens", site.user_of(before), None)
    anonymous = site.browser()
    anonymous.get("/data?write=k")
    planted = token_of(anonymous)
    anonymous.login()
    expect(
        "the data that a planted token shows",
        site.browser().get("/data", cookies=f"{site.cookie}={planted}").json(),
        {},
    )


@row("TOK-05")
def a_token_that_was_never_issued_is_not_adopted(site: Site) -> None:
    """A well-formed one is nobody's on every page, is never handed back, and is told as session_unknown_token."""
    for page in ("/me", "/data?write=k", "/form"):
        answer = site.ask("GET", page, cookies=f"{site.cookie}={UNKNOWN}")
        assert page != "/me" or is_nobody(answer), "a token that was never issued opened a session"
        assert not any(UNKNOWN in line for line in answer.cookies), "the token that came was handed back"
    expect("the sessions that exist now", site.records(live=False), [])
    expect("how many unknown tokens were counted", site.noise("session_unknown_token"), 3)
    site.clock.wind(61)
    site.logged_in()
    told = [event.detail["count"] for event in site.events("session_unknown_token")]
    expect("the summary of unknown tokens", told, [3])


@row("TOK-06")
def a_token_is_a_strangers_word(site: Site) -> None:
    """Whatever stands in the cookie: no fault, no look into the store, and nothing of it appears anywhere."""
    mark = "zebra7crossing"
    values = (
        *("", mark, f"{mark}{'x' * 8192}", f"{mark}\x00", f"{mark}\r\nSet-Cookie: a=b", f"{mark}\xff\xe9\u00df"),
        *(f"{mark}' or 1=1 --", f'{mark}{{"$gt": ""}}', f"../../{mark}", f"%00{mark}", f"{mark}*)(uid=*"),
        *(f"c1.{mark}.{'a' * 24}.{'b' * 24}", f"{UNKNOWN}{mark}", f"<script>{mark}</script>", f"{mark}{{{{7*7}}}}"),
    )
    headers = [f"{site.cookie}={value}" for value in values]
    headers.append("; ".join(f"c{number}={mark}" for number in range(100)))
    headers.append("; ".join(f"{site.cookie}={mark}{number}" for number in range(100)))
    for line in headers:
        with logged() as lines:
            answers = [site.ask(method, "/me", cookies=line) for method in ("GET", "HEAD")]
        for answer in answers:
            assert answer.status < 500, f"a strange cookie was answered with {answer.status}"
            assert mark not in answer.text, "a page repeats the cookie"
            assert not any(mark in value for _, value in answer.headers), "a header repeats the cookie"
        if all(answer.status == 400 for answer in answers):
            continue  # what is no HTTP a server refuses before any application, and logs as it likes (Tornado)
        assert not any(mark in one.getMessage() for one in lines), "a log line repeats the cookie"
    expect("what the store was asked", [verb for verb in site.trouble.calls if verb != "epochs"], [])
    site.clock.wind(61)
    site.logged_in()
    assert mark not in site.control.dump(), "the store keeps what stood in the cookie"


@row("TOK-07")
def a_token_says_nothing(site: Site) -> None:
    """It decodes to nothing that is known of its user, and two of one user share nothing but the prefix."""
    from base64 import b32decode, urlsafe_b64decode
    from binascii import Error

    user = "margaret.hamilton@example.com"
    one, other = (token_of(site.logged_in(user, cart=[4711])) for _ in range(2))
    for word in (user, "margaret", "example.com", "4711"):
        for part in (one, *one.split(".")):
            readings = [part.encode(), part[::-1].encode()]
            for decode in (urlsafe_b64decode, b32decode, bytes.fromhex):
                try:
                    readings.append(decode(part + "=" * (-len(part) % 8) if decode is b32decode else _padded(part)))
                except (ValueError, Error):
                    continue
            assert not any(word.encode() in text.lower() for text in readings), f"the token tells {word!r}"
    shared = {one[at : at + 5] for at in range(3, len(one) - 4)} & {other[at : at + 5] for at in range(len(other) - 4)}
    expect("what two tokens of one user share", shared, set())


def _padded(part: str) -> str:
    return part + "=" * (-len(part) % 4)


@row("TOK-08")
def a_token_counts_in_the_cookie_only(site: Site) -> None:
    """In no query, path, body or other header; and no answer has it anywhere but in Set-Cookie."""
    token = token_of(site.logged_in())
    for target in (f"/me?sid={token}", f"/me?{site.cookie}={token}", f"/me;sid={token}", f"/{token}/me"):
        answer = site.ask("GET", target)
        assert answer.status in (NOBODY, 404), f"{target[:12]}... opened the session"
    for header in ("authorization", "x-session-id", "x-session-token", "set-cookie", "cookie2"):
        said = f"Bearer {token}" if header == "authorization" else f"{site.cookie}={token}"
        expect(f"what the header {header} opens", site.ask("GET", "/me", headers={header: said}).status, NOBODY)
    for how in ({"form": {"sid": token, site.cookie: token}}, {"json": {"sid": token, site.cookie: token}}):
        expect("what a body opens", site.ask("POST", "/private", **how).status, NOBODY)
    seen = walk(site)
    assert len(seen.tokens) > 3, "the walk met too few tokens"
    for answer in seen.answers:
        for each in seen.tokens:
            assert each not in answer.text, "a page shows a token"
            shown = [name for name, value in answer.headers if each in value and name.lower() != "set-cookie"]
            expect("the headers that show a token", shown, [])


@row("TOK-10")
def the_cookies_name_tells_no_framework(site: Site) -> None:
    """Neither the session cookie nor any other cookie of a whole visit."""
    names = {line.partition("=")[0].strip() for answer in walk(site).answers for line in answer.cookies}
    assert names, "no cookie was ever set"
    plain = {name.lower().removeprefix("__host-").removeprefix("__secure-").removeprefix("http-") for name in names}
    expect("names that tell a framework", plain & FINGERPRINTS, set())


@row("TOK-12")
def what_came_before_a_login_is_gone(site: Site) -> None:
    """Only the keys that were named move into it; the session from before is over."""
    shop = site.with_settings(carry=("cart",))
    browser = shop.browser()
    browser.post("/replace", json={"cart": [7], "theme": "dark", "next": "https://evil.example/"})
    before = token_of(browser)
    (old,) = shop.records()
    browser.login()
    expect("what moved into the login", browser.get("/data").json(), {"cart": [7]})
    expect("the sessions that live", [one.subject for one in shop.records()], ["alice"])
    expect(
        "what became of the one before",
        [one.ended_because for one in shop.records(live=False) if one.handle == old.handle],
        ["superseded"],
    )
    shown = shop.browser().get("/data", cookies=f"{shop.cookie}={before}").json()
    expect("what the token from before still shows", shown, {})
    browser.login("bob")
    expect("what the next user finds of this one's", browser.get("/data").json(), {})


@row("TOK-13")
def a_renewed_token_leaves_a_short_overlap(site: Site) -> None:
    """The former one counts until a minute after its successor was first seen (docs/promises.md, 4), then no more."""
    browser = site.logged_in()
    first = token_of(browser)
    site.clock.wind(RENEW + 1)
    assert browser.get("/me").cookies, "no renewal came when it was due"
    second = token_of(browser)
    assert second != first, "the renewal handed the same token out"
    expect("who the former token is before its successor was seen", site.user_of(first), "alice")
    expect("who the successor is", browser.get("/me").json()["user"], "alice")
    site.clock.wind(GRACE - 1)
    expect("who the former token is within its grace", site.user_of(first), "alice")
    site.clock.wind(7)
    expect("who the former token is after its grace", site.user_of(first), None)
    expect("who the successor is then", site.user_of(second), "alice")


@row("TOK-14")
def a_renewal_is_one_however_many_ask(site: Site) -> None:
    """Fifty requests at once with a token that is due: all are served, and there is exactly one successor."""
    browser = site.logged_in()
    site.clock.wind(RENEW + 1)
    gate = site.control.gate("renewal")
    flights = [browser.start("GET", "/me?hold=renewal") for _ in range(50)]
    gate.wait_until_reached(50)
    gate.open()
    answers = [flight.wait() for flight in flights]
    expect("the answers", {answer.status for answer in answers}, {200})
    handed = {line.partition(";")[0] for answer in answers for line in answer.cookies}
    expect("how many successors were handed out", len(handed), 1)
    (record,) = site.records()
    successor = handed.pop().partition("=")[2]
    expect("who the successor is", site.user_of(successor), "alice")
    expect("the handle of the only session", record.handle, successor.split(".")[1])
    expect("how often it was renewed", len(site.events("session_renewed")), 1)


@row("TOK-15")
def a_superseded_token_is_a_sign_of_theft(site: Site) -> None:
    """Shown after its grace it is nobody's, and told; with the default policy the whole session ends."""
    for policy, survives in (("end", None), ("note", "alice")):
        shop = site.with_settings(on_theft=policy)
        browser = shop.logged_in()
        first = token_of(browser)
        shop.clock.wind(RENEW + 1)
        browser.get("/me")
        browser.get("/me")
        shop.clock.wind(LATE + 1)
        expect("who a superseded token is", shop.user_of(first, peer="198.51.100.66"), None)
        (event,) = shop.events("session_token_reuse")
        expect("whose token it says was used again", (event.subject, event.detail["kind"]), ("alice", "late"))
        assert event.client is not None, "the event does not say who showed it"
        told = (event.client.address, event.detail["known_address"])
        expect("both sides of the theft", told, ("198.51.100.66", "192.0.2.7"))
        expect(f"who the owner is under the policy {policy!r}", shop.user_of(browser.token), survives)


@row("TOK-16")
def nobody_ever_gets_anothers_session(site: Site) -> None:
    """Two users, five hundred requests each, interleaved in threads or tasks as the adapter runs them."""
    browsers = {user: site.logged_in(user) for user in ("alice", "bob")}
    order = ("alice", "bob")
    for _ in range(20):
        flights = [(user, browsers[user].start("GET", "/me")) for _ in range(25) for user in order]
        for user, flight in flights:
            expect(f"who {user} is among others", flight.wait().json()["user"], user)
    with ThreadPoolExecutor(1) as one:  # the same thread serves one after the other: nothing may be left in it
        expect("who is left after a request", one.submit(lambda: site.ask("GET", "/me").status).result(), NOBODY)


@row("TOK-18")
def twins_and_lookalikes_displace_nobody(site: Site) -> None:
    """Two values under the name are nobody's, and told; another case of the name is another cookie."""
    alice, bob = token_of(site.logged_in("alice")), token_of(site.logged_in("bob"))
    for pair in ((alice, bob), (bob, alice), (alice, "")):
        header = "; ".join(f"{site.cookie}={value}" for value in pair)
        answer = site.ask("GET", "/me", cookies=header)
        expect("what two values are answered with", (answer.status, answer.cookies), (NOBODY, []))
    expect("how many such were counted", site.noise("session_cookie_ambiguous"), 3)
    for name in (site.cookie.lower(), site.cookie.upper(), site.cookie.swapcase(), f" {site.cookie}x"):
        expect(f"who the cookie {name!r} is", site.ask("GET", "/me", cookies=f"{name}={alice}").status, NOBODY)
        both = site.ask("GET", "/me", cookies=f"{name}={bob}; {site.cookie}={alice}")
        expect(f"who ours is beside {name!r}", both.json()["user"], "alice")


@row("TOK-21")
def guessing_is_noticed(site: Site) -> None:
    """Many tokens that open nothing, of one network in a minute, are told with their count; by choice they get 429."""
    expect("guesses of a minute that are told, unless chosen otherwise", Floods().suspect, 300)
    for refuse in (None, 8):
        shop = site.with_settings(floods=Floods(suspect=5, refuse=refuse))
        owner = shop.logged_in()
        handle = token_of(owner).split(".")[1]
        guesses = ("made-up", UNKNOWN, f"c1.{handle}.{'Y' * 24}.{'X' * 24}")
        answers = [_guess(shop, guesses[which % 3], GUESSER) for which in range(12)]
        most = refuse or 12
        statuses = [answer.status for answer in answers]
        expect("the answers to guesses", statuses, [NOBODY] * most + [429] * (12 - most))
        waits = [int(answer.header("retry-after") or 0) for answer in answers[most:]]
        expect("whether they say when to come back", all(0 < seconds <= 60 for seconds in waits), wanted=True)
        expect("a guess of another network", _guess(shop, UNKNOWN, "192.0.2.7").status, NOBODY)
        expect("who comes from there with a good token", shop.user_of(owner.token, peer=GUESSER), "alice")
        (event,) = shop.told("session_bruteforce_suspected")
        told = (event.detail["count"], event.detail["last"]["guesses"], event.detail["last"]["network"])
        expect("what is told", told, (8, "12", "198.51.100.0/24"))
        expect("a guess in the next minute", _guess(shop, UNKNOWN, GUESSER).status, NOBODY)


GUESSER = "198.51.100.9"


def _guess(site: Site, token: str, peer: str) -> Received:
    return site.ask("GET", "/me", cookies=f"{site.cookie}={token}", peer=peer)


@row("TOK-22")
def no_header_is_ever_too_long(site: Site) -> None:
    """A megabyte of data stays in the store, behind a cookie of the ordinary length."""
    browser = site.logged_in()
    small = max(len(line) for line in browser.post("/reauth").cookies)
    answer = browser.post("/replace", json={"page": "x" * 1_048_576})
    expect("how a large session is answered", answer.status, 200)
    site.clock.wind(RENEW + 1)
    renewed = browser.get("/me")
    assert renewed.cookies, "no renewal came when it was due"
    for line in (*answer.cookies, *renewed.cookies):
        assert len(line) <= small + 8 < 4096, f"a cookie of {len(line)} bytes"
    expect("how much of it is kept", len(browser.get("/data").json()["page"]), 1_048_576)
    page = site.control.plain.find(Query(subject="alice"))
    assert len(page.items[0].data) > 1_000_000, "the data is not where it should be"
