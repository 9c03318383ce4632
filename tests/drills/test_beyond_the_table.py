"""Attacks that no table named: each was tried against this house, some of them got in, and now none does."""

import logging
import random
import threading
import types
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from coatcheck import ConfigError, SessionManager
from coatcheck.core import facts
from coatcheck.core.model import Client, Event
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, HOST, OURS, Ask, House, path_of

HTML = (("accept", "text/html"), *OURS)

ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\n/evil.example",
    "/\t\\evil.example",
    "/ /evil.example",
    "/\0/evil.example",
    "/\u2028/evil.example",
    "/.//evil.example",
    "/%2f/evil.example",
    "/@evil.example",
    "/ünï",
    "https://evil.example/",
]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_the_way_back_from_a_login_leads_to_our_own_pages(build: Build, path: str) -> None:
    """`next` is followed as it is: browsers drop tabs and line breaks, and read a backslash as a slash."""
    house = build(login_url="/login")
    answer = house.ask(Ask("GET", f"{path_of(path)}?do=read&then=refuse&q=%0d%0aSet-Cookie:x=1", HTML))
    assert answer.status in (303, 404)
    location = answer.header("location") or ""
    assert "\r" not in location
    assert "\n" not in location
    target = urlsplit(location)
    assert (target.scheme, target.netloc, target.path) == ("", "", "/login") or not location
    for way in parse_qs(target.query).get("next", []):
        seen = "".join(letter for letter in way if letter not in "\t\r\n").replace("\\", "/")
        assert seen.startswith("/")
        assert not seen.startswith("//")
        assert way.isprintable()


FORGED = "x\nCRITICAL coatcheck session_token_reuse subject=forged"


@pytest.mark.parametrize(
    "ask",
    [
        Ask("GET", f"{path_of('/' + FORGED)}?do=write", (("cookie", f"{COOKIE}=gone"), *OURS)),
        Ask("POST", path_of("/" + FORGED), (("origin", "https://evil.test"),)),
        Ask("GET", "/me", (("cookie", f"{COOKIE}=a; {COOKIE}=b"), ("user-agent", FORGED.replace("\n", "\x85")), *OURS)),
        Ask("POST", "/login", (("user-agent", "\x1b[31m\x85\xa0" + "x" * 9000), *OURS), b"user=alice"),
    ],
)
def test_nothing_that_a_client_sends_forges_a_line_of_the_log(
    house: House, clock: Clock, caplog: pytest.LogCaptureFixture, ask: Ask
) -> None:
    """LOG-09 (CWE-117)."""
    caplog.set_level(logging.DEBUG, "coatcheck")
    house.ask(ask)
    clock.wind(61)
    house.flush()
    for line in caplog.messages:
        assert line.isprintable(), line
        assert len(line) < 2000


@pytest.mark.parametrize(
    "subject", ["a\nb", "a\r\nSet-Cookie: x=1", "\x1b[31m", "a\u202eb", "a\u2028b", "a" * 256, "\0"]
)
def test_a_subject_that_could_break_a_line_is_refused(house: House, subject: str) -> None:
    """LOG-09: at the login, not at the log."""
    visitor = house.visitor()
    with pytest.raises(Exception, match="printable"):
        visitor.post("/login", user=subject)
    assert house.control.records() == []


@pytest.mark.parametrize("detail", [{"path": "a b=c"}, {"why": "x\ny"}, {"networks": {"1\n2": 3}}, {"kind": "\u2028"}])
def test_a_line_about_an_event_stays_one_line(detail: dict[str, Any]) -> None:
    """LOG-09."""
    event = Event(name="csrf_denied", at=0, subject="x y=z\n", client=Client("1\n2", "a\rb"), detail=detail)
    assert facts.line(event).isprintable()


ATTRIBUTES: list[dict[str, Any]] = [
    {"path": "/; Domain=evil.example", "name": "__Secure-coat"},
    {"path": "/\r\nSet-Cookie: x=1", "name": "__Secure-coat"},
    {"domain": "evil.example; SameSite=None", "name": "__Secure-coat", "same_site_reason": "x"},
    {"name": "__Host-coat; Domain=evil.example"},
    {"name": "__Host-coat=x"},
    {"name": "__host-coat"},
    {"name": "coat\r\nSet-Cookie"},
    {"same_site": "Lax; Domain=evil.example"},
    {"same_site": "None"},
    {"realm": "a\0b"},
    {"realm": ""},
    {"realm": 'shop", error="ok'},
    {"realm": "shop\\"},
    {"realm": "shop\r\nSet-Cookie: x=1"},
    {"origins": ["https://app.test/\r\nX: y"]},
    {"origins": ["https://app.test@evil.example"]},
    {"origins": ["http://app.test"]},
    {"origins": ["null"]},
    {"origins": ["*"]},
    {"trusted_origins": ["null"]},
    {"carry": ["next"]},
    {"csrf_exempt": ["hook"]},
]


@pytest.mark.parametrize("settings", ATTRIBUTES)
def test_settings_that_would_break_out_of_their_header_are_refused(settings: dict[str, Any]) -> None:
    """CKE-05, CKE-06: by name, when the application is built."""
    with pytest.raises(ConfigError):
        SessionManager(**settings)


METHODS = ("get", "Get", "GET ", "", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "\u0130", "G" * 5000, "PRI")


@pytest.mark.parametrize("method", METHODS)
def test_a_strange_method_is_an_unsafe_one(house: House, method: str) -> None:
    """3.1 (g): only GET, HEAD and OPTIONS, so spelt, pass without a look at the origin."""
    answer = house.ask(Ask(method, "/me", (("origin", "https://evil.test"), ("sec-fetch-site", "cross-site"))))
    assert (answer.status == 403) == (method not in ("GET", "HEAD", "OPTIONS"))
    assert answer.set_cookies == []


def test_an_override_of_the_method_is_not_ours_to_believe(house: House) -> None:
    """A POST stays a POST, whatever a header or a field calls it."""
    visitor = house.visitor()
    visitor.login()
    evil = (("origin", "https://evil.test"), ("x-http-method-override", "GET"), ("x-method-override", "GET"))
    assert house.ask(visitor.prepare("POST", "/logout?_method=GET", evil)).status == 403
    assert visitor.user == "alice"


EXEMPT = [
    ("/hook", 404),
    ("/hook/", 403),
    ("/hook/../pay", 403),
    ("/HOOK", 403),
    ("/hook;x", 403),
    ("//hook", 403),
    ("/hook%00", 403),
    ("/%68ook", 404),
    ("/pay?/hook", 403),
]


@pytest.mark.parametrize(("target", "status"), EXEMPT)
def test_only_the_exact_path_is_exempt_from_the_cross_site_check(build: Build, target: str, status: int) -> None:
    house = build(csrf_exempt=["/hook"])
    assert house.ask(Ask("POST", target, (("origin", "https://evil.test"),))).status == status


def test_an_excluded_path_is_still_refused_to_other_sites(build: Build) -> None:
    """No session, but no back door either."""
    house = build(exclude=["/static"])
    assert house.ask(Ask("POST", "/static/x", (("origin", "https://evil.test"),))).status == 403


def test_a_clock_that_goes_back_hides_no_revocation(build: Build, clock: Clock) -> None:
    """TMO-13: everyone's sessions are refused within a second, also in a process whose clock was set back meanwhile."""
    house = build()
    visitor = house.visitor()
    visitor.login()
    clock.wind(600)
    assert visitor.user == "alice"
    clock.wind(-595)
    house.control.registry.revoke_before(clock.now)
    assert visitor.user is None


def test_notes_are_bounded_and_safe_between_threads(clock: Clock) -> None:
    """DoS by notes: thousands of tombstones, presented in parallel, cost a bounded table and no error."""
    manager = SessionManager(clock=clock)
    errors: list[BaseException] = []

    def present(number: int) -> None:
        try:
            for tombstone in range(6000):
                visit = types.SimpleNamespace(notes=(), copied=False)
                event = Event(name="session_use_after_expire", at=clock.now, handle=f"{number}-{tombstone}")
                manager.judge.once(visit, event, 3600.0)  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=present, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(manager.judge.noted) <= 4096 + len(threads)


def test_who_presents_ended_tokens_over_and_over_writes_once_an_hour(house: House, clock: Clock) -> None:
    """DoS by notes and by first sights: 300 requests of a thief with old tokens, two writes."""
    visitor = house.visitor()
    old = visitor.login()
    clock.wind(901)
    visitor.get("/me")
    visitor.get("/me")
    clock.wind(400)
    thief = house.visitor(old)
    before = house.commits
    house.ask_all([thief.prepare("GET", "/me")] * 100)
    assert house.commits - before == 2, "one End, one use after it"
    clock.wind(1)
    house.ask_all([thief.prepare("GET", "/me")] * 100)
    house.ask_all([house.visitor(visitor.token).prepare("GET", "/me")] * 100)
    assert house.commits - before == 2


def test_a_first_sight_is_written_once(house: House, clock: Clock) -> None:
    """DoS by first sights: of a hundred requests with a new turn, one writes."""
    visitor = house.visitor()
    visitor.login()
    clock.wind(901)
    visitor.get("/me")
    before = house.commits
    house.ask_all([visitor.prepare("GET", "/me")] * 100)
    assert house.commits - before == 1


def test_no_cookie_of_the_applications_own_is_touched(house: House) -> None:
    """CKE-07: only a cookie of our name gives way; what merely begins like it stays."""
    visitor = house.visitor()
    visitor.login()
    answer = visitor.get(f"/data?do=renew&cookie={COOKIE}2=theirs")
    assert len(answer.set_cookies) == 2
    answer = visitor.get(f"/data?do=renew&cookie={COOKIE}=planted")
    assert len(answer.set_cookies) == 1
    assert visitor.user == "alice"


def test_random_requests_never_crash_the_door_and_never_log_anybody_in(build: Build) -> None:
    """TOK-06: 400 requests of noise (seeded) in headers, methods and paths."""
    house = build(trusted_proxies=["192.0.2.0/24"])
    rng = random.Random(7)
    names = ["cookie", "origin", "sec-fetch-site", "host", "x-forwarded-for", "x-csrf-token", "user-agent", "accept"]
    pieces = [COOKIE, "=", ";", ",", " ", "\t", "c1.", "A" * 18, "A" * 24, ".", "https://", HOST, "\xff", '"', "%00"]
    for _ in range(400):
        headers = tuple(
            (rng.choice(names), "".join(rng.choice(pieces) for _ in range(rng.randrange(12))))
            for _ in range(rng.randrange(6))
        )
        ask = Ask(rng.choice(["GET", "POST", "PUT"]), rng.choice(["/me", "/nothing", "/data"]), headers)
        answer = house.ask(ask)
        assert answer.status < 500
        assert b'"user"' not in answer.body
    assert house.control.records() == []
