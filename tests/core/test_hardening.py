"""What goes out with answers, and what is refused before a cookie is looked at: the rules, one by one."""

from datetime import UTC, datetime

import pytest

from coatcheck.core.clients import Clients
from coatcheck.core.errors import ConfigError
from coatcheck.core.hardening import Hardening, hardening_of
from coatcheck.core.lint import findings, rows
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Reply, Request
from coatcheck.core.providers import Provider
from coatcheck.core.settings import Settings, settings_of
from coatcheck.core.transport import strictness
from coatcheck.legacy.starlette import StarletteCookie

HSTS = "max-age=31536000; includeSubDomains"


def asked(path: str = "/", scheme: str = "https", kind: str = "http") -> Request:
    return Request("GET", scheme, path, [], kind=kind)  # type: ignore[arg-type]


def secure(request: Request) -> bool:
    return request.scheme == "https"


def guard(**settings: object) -> Hardening:
    made = hardening_of(settings_of({"origins": ["https://a.example"], **settings}), secure)
    assert made is not None
    return made


def test_an_application_that_asks_for_nothing_has_no_guard() -> None:
    assert hardening_of(Settings(), secure) is None
    assert hardening_of(Settings(login_url="https://login.example/"), secure) is None
    assert hardening_of(Settings(login_url="//login.example/in"), secure) is None
    assert hardening_of(Settings(login_url="/in", same_site="None", cookie_reason="frames"), secure) is None


def test_what_is_there_stays_as_it_is_and_alone() -> None:
    made = guard(hsts=HSTS, isolate=True, proof_pages=["/in"])
    given = [
        (b"Strict-Transport-Security", b"max-age=5"),
        (b"Cross-Origin-Resource-Policy", b"same-site"),
        (b"Cross-Origin-Opener-Policy", b"unsafe-none"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"no-referrer"),
        (b"Content-Security-Policy", b"Frame-Ancestors https://partner.example"),
    ]
    assert made.hardened(asked("/in"), given, private=True) is given


def test_our_own_answers_are_guarded_as_well() -> None:
    reply = Reply(403, ((b"content-type", b"text/plain"),), b"no")
    guarded = guard(hsts=HSTS).hardened(asked(), reply, private=False)
    assert guarded == Reply(403, (*reply.headers, (b"strict-transport-security", HSTS.encode())), b"no")


def test_nothing_is_said_over_plain_http_to_sockets_or_of_what_is_public() -> None:
    made = guard(hsts=HSTS, isolate=True, login_url="/in")
    assert made.hardened(asked(scheme="http"), (), private=False) == ()
    assert made.hardened(asked("/in", kind="websocket"), (), private=True) == ()
    assert made.hardened(asked("/in/", scheme="http"), (), private=False) == ()


def test_a_login_page_that_nobody_named_leaves_the_policy_to_whoever_writes_it() -> None:
    made = guard(login_url="/in?from=a", proof_pages=["/proof"])
    assert made.hardened(asked("/in"), (), private=False) == [(b"x-frame-options", b"DENY")]
    sameorigin = [(b"X-Frame-Options", b"SAMEORIGIN")]
    assert made.hardened(asked("/in"), sameorigin, private=False) is sameorigin
    policy = [(b"content-security-policy", b"frame-ancestors https://partner.example")]
    assert made.hardened(asked("/in"), policy, private=False) is policy
    named = {name for name, _ in made.hardened(asked("/proof"), (), private=False)}
    assert b"content-security-policy" in named
    assert not named & {b"strict-transport-security", b"x-frame-options"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HSTS, (31536000, True)),
        ('Max-Age="63072000" ; preload', (63072000, False)),
        ("max-age=0", (0, False)),
        ("includeSubDomains", None),
        ("max-age", None),
        ("max-age=1; max-age=1", None),
        ("max-age=-1", None),
        ("max-age=٣", None),
        ("max-age=1; includeSubDomains=1", None),
        ("max-age=1; made-up", None),
        ("max-age=1;", None),
        ("", None),
    ],
)
def test_a_header_says_what_rfc_6797_lets_it_say(text: str, says: tuple[int, bool] | None) -> None:
    assert strictness(text) == says


@pytest.mark.parametrize("text", ["forever", "max-age=1\nx", "max-age=1\u2028"])
def test_a_header_that_browsers_would_drop_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="hsts is the header's value"):
        settings_of({"hsts": text})


@pytest.mark.parametrize(
    ("peer", "scheme", "said", "is_secure"),
    [
        ("10.0.0.1", "http", ["https"], True),
        ("10.0.0.1", "http", [" HTTPS "], True),
        ("10.0.0.1", "ws", ["wss"], True),
        ("10.0.0.1", "http", ["https,https"], True),
        ("10.0.0.1", "http", ["https", "http"], False),
        ("10.0.0.1", "https", ["http"], False),
        ("10.0.0.1", "https", [], True),
        ("10.0.0.1", "http", [""], False),
        ("::ffff:10.0.0.1", "http", ["https"], True),
        ("10.0.0.2", "http", ["https"], False),
        ("10.0.0.2", "https", ["http"], True),
        (None, "http", ["https"], False),
    ],
)
def test_who_may_say_that_a_request_came_over_tls(
    peer: str | None, scheme: str, said: list[str], is_secure: bool
) -> None:
    headers = [(b"x-forwarded-proto", word.encode()) for word in said]
    request = Request("GET", scheme, "/", headers, peer=peer)
    assert Clients(["10.0.0.1"]).is_secure(request) is is_secure
    assert Clients().is_secure(request) is (scheme in ("https", "wss"))


def test_a_page_without_sessions_is_served_over_plain_http_too() -> None:
    manager = SessionManager(origins=["https://a.example"], https="checked")
    request = Request("GET", "http", "/health", [(b"host", b"a.example")])
    assert manager.screen(request) is None
    found = manager.identify(request)
    assert isinstance(found, Reply)
    assert found.status == 403
    assert manager.noise.totals == {"session_plain_http": 1}
    crossed = Request("POST", "http", "/health", [(b"sec-fetch-site", b"cross-site")])
    assert manager.screen(crossed) is not None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, True),
        ({"sec-fetch-site": "same-site", "sec-fetch-dest": "empty"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty", "origin": "https://b.example"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty", "origin": "https://c.example"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-origin", "sec-fetch-dest": "image"}, False),
        ({"sec-fetch-site": "none", "sec-fetch-dest": "image"}, False),
        ({}, False),
    ],
)
def test_what_another_site_embeds_is_refused_where_a_cookie_of_ours_comes(
    headers: dict[str, str], refused: bool
) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    ours = (b"cookie", b"__Host-coat=c1.%b.%b.%b" % (b"A" * 18, b"B" * 24, b"C" * 24))
    manager = SessionManager(origins=["https://a.example"], isolate=True, trusted_origins=["https://b.example"])
    assert isinstance(manager.identify(Request("GET", "https", "/", [*pairs, ours])), Reply) is refused
    assert not isinstance(manager.identify(Request("GET", "https", "/", pairs)), Reply)
    calm = SessionManager(origins=["https://a.example"])
    assert not isinstance(calm.identify(Request("GET", "https", "/", [*pairs, ours])), Reply)


def test_a_proxy_on_a_unix_socket_may_say_it_too() -> None:
    request = Request("GET", "http", "/", [(b"x-forwarded-proto", b"https")], peer=None)
    assert Clients(["unix"]).is_secure(request)


@pytest.mark.parametrize(
    ("choice", "rule", "severity"),
    [
        ({}, "CKE-13", "note"),
        ({"https": "checked"}, "CKE-13", None),
        ({}, "CKE-15", "note"),
        ({"hsts": "max-age=86400"}, "CKE-15", "warning"),
        ({"hsts": "max-age=31536000"}, "CKE-15", "note"),
        ({"hsts": HSTS}, "CKE-15", None),
        ({}, "CSR-04", None),
        ({"same_site": "None", "cookie_reason": "frames"}, "CSR-04", "warning"),
        ({"same_site": "None", "cookie_reason": "frames", "isolate": True}, "CSR-04", None),
        ({}, "CSR-14", "note"),
        ({"login_url": "/in"}, "CSR-14", "note"),
        ({"proof_pages": ["/in"]}, "CSR-14", None),
    ],
)
def test_what_is_missing_is_told_by_its_row(choice: dict[str, object], rule: str, severity: str | None) -> None:
    found = findings(settings_of({"origins": ["https://a.example"], **choice}))
    assert next((one.severity for one in found if one.rule == rule), None) == severity


def test_what_is_left_to_others_is_never_told_as_fulfilled() -> None:
    left = rows(settings_of({"origins": ["https://a.example"]}))
    assert {rule: left[rule] for rule in ("CKE-15", "CSR-14", "DOC-03")} == dict.fromkeys(
        ("CKE-15", "CSR-14", "DOC-03"), "yours to do"
    )
    providers = [Provider(issuer="https://op.example", lifetime=86400.0, logouts=["caep"])]
    chosen = settings_of(
        {"origins": ["https://a.example"], "hsts": HSTS, "proof_pages": ["/in"], "providers": providers}
    )
    assert {rows(chosen)[rule] for rule in ("CKE-15", "CSR-14", "DOC-03")} == {"yes"}


def test_a_socket_is_judged_by_its_origin_alone() -> None:
    ours = (b"cookie", b"__Host-coat=c1.%b.%b.%b" % (b"A" * 18, b"B" * 24, b"C" * 24))
    said = [(b"origin", b"https://a.example"), (b"sec-fetch-site", b"same-site"), (b"sec-fetch-dest", b"websocket")]
    manager = SessionManager(origins=["https://a.example"], isolate=True)
    handshake = Request("GET", "wss", "/ws", [*said, ours], kind="websocket")
    assert not isinstance(manager.identify(handshake), Reply)


def test_a_device_is_bound_and_proved_over_tls_only() -> None:
    manager = SessionManager(origins=["https://a.example"], https="checked", binding="opportunistic")
    for path in manager.device_paths:
        refused = manager.device_named(Request("POST", "http", path, [(b"sec-secure-session-id", b"A" * 42)]))
        assert isinstance(refused, Reply)
        assert (refused.status, b"https only" in refused.body) == (403, True)


def test_the_cookie_of_a_session_that_is_to_become_ours_is_guarded_as_ours() -> None:
    source = StarletteCookie("a secret that is long enough for this", until=datetime(2030, 1, 1, tzinfo=UTC))
    embedded = [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"image")]
    theirs = (b"cookie", b"%b=whatever" % source.cookie.encode())
    manager = SessionManager(origins=["https://a.example"], isolate=True, legacy=[source])
    assert isinstance(manager.identify(Request("GET", "https", "/", [*embedded, theirs])), Reply)
