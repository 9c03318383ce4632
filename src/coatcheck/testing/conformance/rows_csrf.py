"""Rows of part I: requests that another site caused, by form, by fetch, by socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from ...core import csrf
from ..browser import Browser
from .devices import REFRESH, REGISTER, Device
from .registry import row
from .site import ELSEWHERE, ORIGIN, Site
from .verdicts import expect

FRIEND = "https://idp.example"
HOOK = "/hook"
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")

JUDGED: tuple[tuple[str, str, str | None, str | None, bool], ...] = (
    ("GET", "/", "cross-site", ELSEWHERE, True),
    ("HEAD", "/", "cross-site", None, True),
    ("OPTIONS", "/", "cross-site", ELSEWHERE, True),
    ("*", "/x", "same-origin", ORIGIN, True),
    ("*", "/x", "none", None, True),
    ("*", "/x", "same-site", "https://blog.testserver", False),
    ("*", "/x", "cross-site", ELSEWHERE, False),
    ("*", "/x", None, None, True),
    ("*", "/x", None, ORIGIN, True),
    ("*", "/x", None, ELSEWHERE, False),
    ("*", "/x", None, "null", False),
    ("*", "/x", None, "http://testserver", False),
    ("*", "/x", None, f"{ORIGIN}:8443", False),
    ("*", "/x", None, f"{ORIGIN}.evil.example", False),
    ("*", "/x", "cross-site", FRIEND, True),
    ("*", "/x", "same-site", FRIEND, True),
    ("*", HOOK, "cross-site", ELSEWHERE, True),
    ("*", "/x", "cross-site", None, False),
    ("*", "/x", "future-value", ORIGIN, False),
)
"""Method ("*": every unsafe one), path, Sec-Fetch-Site, Origin, and whether the request may pass.

After Go's net/http CrossOriginProtection, with scheme and port compared, and a sibling host counted as another site.
"""


_REFUSED: dict[str, tuple[str, str | None, str | None]] = {
    "fetch_site": ("/echo?secret=1", "cross-site", ELSEWHERE),
    "origin": ("/echo?secret=1", None, ELSEWHERE),
    "login_no_evidence": ("/login?secret=1", None, None),
}
"""Where a request goes, its Sec-Fetch-Site and Origin, by the word that the event has for its refusal."""


def _passes(site: Site, method: str, path: str, said: str | None, origin: str | None, **how: object) -> bool:
    answer = site.ask(method, path, site=said, origin=origin, **how)
    expect(f"whether {method} is answered with 403, or as what is not there", answer.status < 500, wanted=True)
    return answer.status != 403


@row("CSR-01")
def test_the_table(site: Site) -> None:
    """Twenty kinds of requests by every unsafe method: those that another site caused are refused."""
    strict = site.with_settings(trusted_origins=[FRIEND], csrf_exempt=[HOOK])
    for method, path, said, origin, wanted in JUDGED:
        for one in UNSAFE if method == "*" else (method,):
            found = _passes(strict, one, path, said, origin)
            expect(f"whether {one} {path} passes, Sec-Fetch-Site {said}, Origin {origin}", found, wanted)
    for headers in ([("sec-fetch-site", "cross-site")], [("origin", ELSEWHERE)]):
        said, origin = ("same-origin", ORIGIN) if headers[0][0] == "sec-fetch-site" else (None, ORIGIN)
        found = _passes(strict, "POST", "/x", said, origin, headers=headers)
        expect(f"whether POST passes with {headers[0][0]} twice", found, wanted=False)
    expect("requests that were counted as refused", strict.noise("csrf_denied") > 30, wanted=True)


@row("CSR-02")
def test_every_content_type(site: Site) -> None:
    """Another site's POST is refused with each type that needs no preflight, with JSON, and without a type."""
    browser = site.logged_in()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/x"):
        headers = {"content-type": kind} if kind else {}
        answer = browser.post("/echo", headers=headers, site="cross-site", origin=ELSEWHERE)
        expect(f"the answer to {kind or 'no type'}", answer.status, 403)
    expect("the answer to JSON", browser.post("/echo", json={}, site="cross-site", origin=ELSEWHERE).status, 403)


@row("CSR-03")
def test_no_change_by_get(site: Site) -> None:
    """Every endpoint of ours that changes something answers GET with 405 and changes nothing."""
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound).bind()
    before = bound.records()
    for path in (REGISTER, REFRESH):
        for method in ("GET", "HEAD"):
            answer = device.browser.request(method, path, headers={"sec-secure-session-id": device.name})
            expect(f"the answer to {method} {path}", (answer.status, answer.header("allow")), (405, "POST"))
    expect("whether a record changed", bound.records() == before, wanted=True)
    expect("who is logged in", device.browser.get("/me").status, 200)


RESOURCE = "cross-origin-resource-policy"


@row("CSR-04")
def test_no_embedding(site: Site) -> None:
    """Where `isolate` is set, another site's frame, image, script or fetch gets no private answer, and each says so."""
    shop = site.with_settings(isolate=True, trusted_origins=[FRIEND], csrf_exempt=[HOOK])
    browser = shop.logged_in()
    for said in ("cross-site", "same-site"):
        for kind in ("image", "script", "style", "iframe", "embed", "object", "audio", "empty"):
            answer = browser.get("/me", site=said, headers={"sec-fetch-dest": kind})
            expect(f"the answer to a {said} {kind}", (answer.status, answer.cookies), (403, []))
            expect("whether somebody is named in it", "alice" in answer.text, wanted=False)
    for said, kind, path, origin, status in (
        ("same-origin", "image", "/me", None, 200),
        ("none", "document", "/me", None, 200),
        ("cross-site", "document", "/me", None, 200),
        ("cross-site", "empty", "/me", FRIEND, 200),
        ("cross-site", "empty", "/me", ELSEWHERE, 403),
        ("cross-site", "image", HOOK, None, 404),
    ):
        answer = browser.get(path, site=said, origin=origin, headers={"sec-fetch-dest": kind})
        expect(f"the answer to a {said} {kind} at {path}, Origin {origin}", answer.status, status)
    public = shop.ask("GET", "/", site="cross-site", headers={"sec-fetch-dest": "image"})
    expect("an image of a visitor without a cookie", (public.status, public.header(RESOURCE)), (200, None))
    expect("what a private answer says", browser.get("/me").header(RESOURCE), "same-origin")
    own = browser.get(f"/me?header={RESOURCE}:cross-origin")
    expect("what an application says by itself", own.header(RESOURCE), "cross-origin")
    (event,) = shop.told("session_embedding_refused")
    expect("how often that was told", event.detail["count"], 17)
    expect("what is said where it is not set", site.logged_in().get("/me").header(RESOURCE), None)


@row("CSR-05")
def test_fallback_to_origin(site: Site) -> None:
    """Without Sec-Fetch-Site the Origin decides, by scheme, host and port; with neither it is as chosen."""
    for origin, wanted in (
        (ORIGIN, True),
        (ELSEWHERE, False),
        ("null", False),
        ("http://testserver", False),
        (f"{ORIGIN}:8443", False),
        (f"{ORIGIN}.evil.example", False),
    ):
        expect(f"whether Origin {origin} passes", _passes(site, "POST", "/echo", None, origin), wanted)
    expect("whether neither passes", _passes(site, "POST", "/echo", None, None), wanted=True)
    strict = site.with_settings(missing_headers="deny")
    expect("whether neither passes, denied", _passes(strict, "POST", "/echo", None, None), wanted=False)


KEY, SID, RAND = bytes(range(32)), "sid-internal-01", bytes(range(0x20, 0x40))
TOKEN = (
    "12194b6fa4e079ae663fe0ac8eb706e28c10927ecc502a6bd402e722ee7e0238"
    ".202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
)


@row("CSR-06")
def test_form_token(site: Site) -> None:
    """The token is the published construction, counts for its session only, and from header or form only."""
    expect("the token of the vector", csrf.token(KEY, SID, RAND), TOKEN)
    mac, _, text = TOKEN.partition(".")
    for sid, key, presented in (
        ("sid-internal-02", KEY, TOKEN),
        (SID, bytes(32), TOKEN),
        (SID, KEY, f"{mac}.{text[:-2]}ff"),
        (SID, KEY, mac + text),
        (SID, KEY, f"{mac}.{text}."),
        (SID, KEY, f"{mac.upper()}.{text}"),
        (SID, KEY, ""),
        (SID, KEY, "a" * 1_000_000),
    ):
        expect(f"whether {presented[:20]!r} is a token of {sid}", csrf.verify(key, sid, presented), wanted=False)
    browser, other = site.logged_in(), site.logged_in("bob")
    token, foreign = browser.get("/form").text, other.get("/form").text
    expect("the answer to a token in the header", _echo(browser, token), 200)
    expect("the answer to a token in the form", browser.post("/echo?token=required", {"csrf_token": token}).status, 200)
    expect("the answer to another session's", _echo(browser, foreign), 403)
    expect("the answer to one in the address", browser.post(f"/echo?token=required&csrf_token={token}").status, 403)
    cookies = f"{site.cookie}={browser.token}; csrf_token={token}; x-csrf-token={token}"
    expect("the answer to one in a cookie", browser.post("/echo?token=required", cookies=cookies).status, 403)
    before = browser.get("/form").text
    browser.post("/reauth")
    expect("the answer to one of before the login", _echo(browser, before), 403)


def _echo(browser: Browser, token: str) -> int:
    return browser.post("/echo?token=required", headers={"x-csrf-token": token}).status


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    """Collect every line that is logged meanwhile, at every level, tracebacks and all."""
    lines: list[str] = []
    spy = logging.Handler(logging.DEBUG)
    spy.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    spy.emit = lambda record: lines.append(spy.format(record))  # type: ignore[method-assign]
    root = logging.getLogger()
    ours = logging.getLogger("coatcheck")
    levels = root.level, ours.level
    root.addHandler(spy)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(spy)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


@row("CSR-07")
def test_form_token_is_not_told(site: Site) -> None:
    """A form's token stands in no header, no event and no log line, also when it is refused; each page spells anew."""
    browser = site.logged_in()
    with everything_logged() as lines:
        pages = [browser.get("/form") for _ in range(2)]
        tokens = [page.text for page in pages]
        browser.post("/echo?token=required", {"csrf_token": tokens[0]})
        browser.post("/echo?token=required", {"csrf_token": tokens[0] + "x"})
        refused = browser.post("/echo", {"csrf_token": tokens[1]}, site="cross-site", origin=ELSEWHERE)
    expect("the answer to another site", refused.status, 403)
    expect("whether two pages spell it alike", tokens[0] == tokens[1], wanted=False)
    headers = [value for page in (*pages, refused) for _, value in page.headers]
    site.told("csrf_denied")
    told = "\n".join([*lines, *headers, *(repr(event) for event in site.events())])
    expect("tokens that were told", [one for one in tokens if one in told], [])


@row("CSR-08")
def test_login_from_elsewhere(site: Site) -> None:
    """Another site's form, fetch and frame log nobody in; without any evidence a login needs the form's token."""
    for said, origin in (("cross-site", ELSEWHERE), ("same-site", "https://blog.testserver"), (None, ELSEWHERE)):
        answer = site.ask("POST", "/login", form={"user": "mallory"}, site=said, origin=origin)
        expect(f"the answer to a login from {origin}", (answer.status, answer.cookies), (403, []))
    bare = site.browser()
    expect("the answer to one that says nothing", bare.post("/login", {"user": "mallory"}, site=None).status, 403)
    visitor = site.browser()
    token = visitor.get("/form?write=k").text
    answer = visitor.post("/login", {"user": "alice", "csrf_token": token}, site=None)
    expect("the answer with the form's token", answer.status, 303)
    expect("who is logged in", visitor.get("/me").json()["user"], "alice")


@row("CSR-09")
def test_refusals_are_told(site: Site) -> None:
    """A refusal is counted, and told within a minute with reason, method, path, origin and network, without a token."""
    browser = site.logged_in()
    for reason, (target, said, origin) in _REFUSED.items():
        answer = browser.post(target, {"user": "alice"}, site=said, origin=origin)
        expect("the answer", answer.status, 403)
        (event,) = site.told("csrf_denied")[-1:]
        expect("how often", event.detail["count"], 1)
        last = event.detail["last"]
        expect("the reason", last["reason"], reason)
        expect("the method and path", (last["method"], last["path"]), ("POST", target.partition("?")[0]))
        expect("the origin", last.get("origin"), origin)
        expect("the network", event.detail["networks"], {"192.0.2.0/24": 1})
        secrets = (browser.token or "").split(".")[2:]
        expect("secrets in the event", [one for one in [*secrets, "secret=1"] if one in repr(event)], [])


@row("CSR-10")
def test_vary(site: Site) -> None:
    """A refusal varies by Sec-Fetch-Site and Origin, a page that looked at the session by Cookie, others by nothing."""
    refused = site.ask("POST", "/echo", site="cross-site", origin=ELSEWHERE)
    varies = {word.strip().lower() for word in (refused.header("vary") or "").split(",")}
    expect("what a refusal varies by", varies >= {"sec-fetch-site", "origin"}, wanted=True)
    expect("what a private page varies by", "Cookie" in (site.logged_in().get("/me").header("vary") or ""), wanted=True)
    expect("what an untouched page varies by", site.ask("GET", "/").header("vary"), None)


@row("CSR-11")
def test_sockets_from_elsewhere(site: Site) -> None:
    """A handshake from another origin is refused, and one without Origin that brings a cookie, too."""
    site.needs("socket")
    browser = site.logged_in()
    for origin in (ELSEWHERE, "null", "http://testserver", "https://blog.testserver"):
        denial = browser.connect("/ws", origin=origin).denial
        expect(f"the answer to a socket from {origin}", denial and denial.status, 403)
    denial = browser.connect("/ws", origin=None).denial
    expect("the answer to a socket without Origin", denial and denial.status, 403)
    socket = browser.connect("/ws")
    expect("the answer to our own", socket.denial, None)
    socket.close()


@row("CSR-12")
def test_sockets_follow_the_session(site: Site) -> None:
    """A socket is opened over TLS, by our own page, with the session itself and no other token, and ends with it."""
    site.needs("socket")
    shop = site.with_settings(https="checked")
    browser = shop.logged_in()
    denial = browser.connect("/ws", origin="http://testserver").denial
    expect("the answer to a page on plain http", denial and denial.status, 403)
    plain = shop.browser("http://testserver")
    denial = plain.connect("/ws", origin=ORIGIN, cookies=f"{shop.cookie}={browser.token}").denial
    expect("the answer to ws://, with the session's cookie", denial and denial.status, 403)
    unchecked = site.browser("http://testserver")
    expect("cookies that a browser would send over ws://", (unchecked.login().status, unchecked.jar), (200, {}))
    for ticket in (f"?ticket={browser.token}", f"?token={browser.token}"):
        socket = shop.browser().connect(f"/ws{ticket}")
        if socket.denial is None:
            socket.send("hello")
            expect("who comes with a token in the address", "alice" in str(socket.receive()), wanted=False)
            socket.close()
    socket = browser.connect("/ws")
    socket.send("hello")
    expect("what the socket says", socket.receive(), "alice: hello")
    shop.control.registry.revoke_all("alice")
    expect("how it ends when the session is revoked", socket.receive(), 4401)
    again = browser.connect("/ws")
    if again.denial is None:
        again.send("hello")
        expect("who a revoked session is", "alice" in str(again.receive()), wanted=False)
        again.close()


@row("CSR-14")
def test_pages_that_ask_for_a_proof_cannot_be_framed(site: Site) -> None:
    """The pages that are named, the login page and the one page that we make ourselves forbid every frame."""
    shop = site.with_settings(login_url="/login?from=shop", proof_pages=["/form", "/nowhere"])
    asked = shop.ask("GET", "/private", headers={"accept": "text/html"})
    expect("where a browser is sent for a proof", (asked.header("location") or "").partition("?")[0], "/login")
    browser = shop.logged_in()
    for path in ("/nowhere", "/form", "/form?write=k"):
        page = browser.get(path)
        found = {name: page.header(name) for name in UNFRAMED}
        expect(f"what {path} says", found, UNFRAMED)
    expect("what the login page says, not named", browser.get("/login").header("x-frame-options"), "DENY")
    page = browser.get("/login?header=content-security-policy:frame-ancestors+'self'")
    expect("what it says beside a policy of its own", page.header("x-frame-options"), None)
    expect("what another page says", browser.get("/data").header("content-security-policy"), None)
    own = "default-src 'self'; frame-ancestors 'self'"
    page = browser.get(f"/form?header=content-security-policy:{quote(own)}")
    expect("what an application says by itself", page.all("content-security-policy"), [own])
    page = browser.get("/form?header=content-security-policy:default-src+'self'")
    said = ", ".join(page.all("content-security-policy"))
    expect("what it says of frames, beside its own", said, "default-src 'self', frame-ancestors 'none'")
    page = browser.get("/form?header=referrer-policy:no-referrer")
    expect("its own word on referrers", page.header("referrer-policy"), "no-referrer")
    framed = site.with_settings(login_url="/login", same_site="None", cookie_reason="embedded")
    expect("the login of what is made to be framed", framed.ask("GET", "/login").header("x-frame-options"), None)
    _bounce(site)


UNFRAMED = {
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def _bounce(site: Site) -> None:
    """Come back from another site with a bound session: the page of ours that waits for the browser's proof."""
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound).bind()
    bound.clock.wind(601)
    arrives = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    page = device.browser.get("/me", site="cross-site", headers=arrives)
    expect("the answer", page.status, 200)
    policy = "default-src 'none'; frame-ancestors 'none'"
    expect("its policy", page.header("content-security-policy"), policy)
    expect("whether it is stored", page.header("cache-control"), "no-store")
    expect("whether private data is in it", "alice" in page.text, wanted=False)


@row("CSR-15")
def test_device_binding_passes(site: Site) -> None:
    """A browser's own refresh passes, also as same-site with the site's Origin; its signature guards it."""
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound).bind()
    bound.clock.wind(500)
    for said, origin in (("same-site", "https://example.test"), ("cross-site", ELSEWHERE), (None, None)):
        headers = {"sec-secure-session-id": device.name}
        answer = device.browser.post(REFRESH, headers=headers, site=said, origin=origin)
        challenge = answer.header("secure-session-challenge")
        expect(f"whether a refresh from {origin} reaches the endpoint", (answer.status, bool(challenge)), (403, True))
    expect("the answer to a proof", device.refresh().status, 200)
