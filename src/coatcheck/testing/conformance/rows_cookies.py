"""Rows of part H, the cookies: what they look like, when they are sent, what happens without them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain

from ...core.cookies import MOST_COOKIE, CookieSpec
from ...core.errors import ConfigError, DataError
from ...core.lint import findings
from ...core.manager import SessionManager
from ..browser import Received
from .devices import Device
from .registry import row
from .site import ELSEWHERE, ORIGIN, Site, refused
from .verdicts import expect

PLAIN, PROXY, STRANGER = "http://testserver", "10.0.0.1", "192.0.2.7"
WEB_STORAGE = re.compile(r"localStorage|sessionStorage|indexedDB|document\.cookie|\bcaches\b")
"""By which a script keeps, or reads, what a token must not be in."""


def attributes(line: str) -> dict[str, str]:
    """Return the attributes of a Set-Cookie, names in lower case; frameworks write them in an order of their own."""
    parts = (part.strip().partition("=") for part in line.split(";")[1:])
    return {name.lower(): value for name, _, value in parts}


def is_for_one_host(line: str) -> bool:
    """Tell whether no other host can set this cookie, and no script read it (RFC 6265bis §4.1.3.2)."""
    said = attributes(line)
    wanted = said.keys() >= {"secure", "httponly", "samesite"} and said.get("path") == "/" and "domain" not in said
    return wanted and line.startswith("__Host-") and said["samesite"] in ("Lax", "Strict")


GRAMMAR = re.compile(
    r"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?P<quote>\"?)(?P<value>[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*)(?P=quote)"
    r"(?P<attributes>(?:; [A-Za-z-]+(?:=[\x20-\x3a\x3c-\x7e]*)?)*)"
)
"""Set-Cookie, as RFC 6265bis §4.1.1 has it."""


def life(site: Site) -> Iterable[Received]:
    """Live a whole life in one browser: anonymous, logged in, renewed, proved anew, remembered, logged out."""
    browser = site.browser()
    yield browser.get("/data?write=cart&value=tea")
    yield browser.login()
    site.clock.wind(16 * 60)
    yield browser.get("/me")
    yield browser.post("/reauth")
    yield browser.get("/data?do=renew")
    yield browser.login("alice", remember=True)
    yield browser.post("/logout")


def handed_out(site: Site) -> list[str]:
    """Return every Set-Cookie of such a life, and of one that is bound to its device."""
    lines = [line for answer in life(site) for line in answer.cookies]
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound).bind()
    bound.clock.wind(590)
    lines += [*device.refresh().cookies, *device.browser.post("/logout").cookies]
    expect("that cookies were set", len(lines) >= 10, wanted=True)
    return lines


@row("CKE-01")
def test_secure_and_prefixed(site: Site) -> None:
    """Every cookie of a whole life is Secure and named __Host-; a name without prefix is refused."""
    for line in handed_out(site):
        expect(f"Secure in {line!r}", "; Secure" in line, wanted=True)
        expect(f"the prefix of {line!r}", line.startswith("__Host-"), wanted=True)
    expect("a name without prefix is refused", "__Host-" in refused(name="session"), wanted=True)


@row("CKE-02")
def test_same_site_is_said(site: Site) -> None:
    """Every cookie of a whole life says SameSite=Lax; None is refused without a reason."""
    for line in handed_out(site):
        expect(f"SameSite of {line!r}", re.findall(r"(?i)samesite=(\w+)", line), ["Lax"])
    strict = site.with_settings(same_site="Strict").browser().login()
    expect("SameSite, set to Strict", "; SameSite=Strict" in strict.cookies[0], wanted=True)
    expect("None is refused without a reason", "SameSite=None" in refused(same_site="None"), wanted=True)


@row("CKE-03")
def test_one_host_only(site: Site) -> None:
    """Every cookie of a whole life is for this host and all of its paths; sharing needs another name and a reason."""
    for line in handed_out(site):
        expect(f"whether {line!r} is for this host only", is_for_one_host(line), wanted=True)
    refused(domain="shop.example")
    refused(name="__Secure-coat", domain="shop.example")
    shared = CookieSpec(name="__Secure-coat", domain="shop.example", reason="one login for all of its hosts")
    shared.check()


@row("CKE-04")
def test_no_script_can_read_it(site: Site) -> None:
    """Every cookie is HttpOnly, and no page, JSON or other header holds a token."""
    browser = site.browser()
    answers = [browser.login(), *(browser.get(page) for page in ("/me", "/form", "/data", "/account/sessions"))]
    for line in handed_out(site):
        expect(f"HttpOnly in {line!r}", "; HttpOnly" in line, wanted=True)
    secrets = (browser.token or "").split(".")[2:]
    for answer in answers:
        others = [value for name, value in answer.headers if name.lower() != "set-cookie"]
        shown = "\n".join([answer.text, *others])
        expect("that a secret part of the token stands elsewhere", [one for one in secrets if one in shown], [])


@row("CKE-05")
def test_no_cookie_that_browsers_drop(site: Site) -> None:
    """4,096 bytes of name and value are written, one more is refused; so is a longer attribute than browsers take."""
    writer = site.control.manager.cookie
    room = MOST_COOKIE - len(writer.name)
    expect("the size of the largest cookie", writer.write(b"x" * room).index(b";") - 1, MOST_COOKIE)
    try:
        writer.write(b"x" * (room + 1))
    except DataError:
        pass
    else:
        raise AssertionError("a cookie of 4,097 bytes was written")  # noqa: EM101, TRY003
    refused(name="__Secure-coat", path="/" + "x" * 1024)
    big = site.logged_in().post("/replace", json={"basket": "x" * 1_000_000})
    expect("a megabyte of data is kept", (big.status, big.cookies), (200, []))


@row("CKE-06")
def test_grammar(site: Site) -> None:
    """Every Set-Cookie is what the grammar says, and a value outside of it is refused, not repaired."""
    for line in handed_out(site):
        found = GRAMMAR.fullmatch(line)
        expect(f"whether {line!r} is well formed", found is not None, wanted=True)
        names = [part.partition("=")[0].lower() for part in (found["attributes"] if found else "").split("; ")[1:]]
        expect(f"attributes that come twice in {line!r}", len(names) - len(set(names)), 0)
    writer = site.control.manager.cookie
    for value in (b"a b", b"a,b", b'a"b', b"a;b", b"a\\b", b"a\x00b", b"a\x7fb", b"a\r\nb", "ä".encode()):
        try:
            writer.write(value)
        except DataError:
            continue
        expect(f"what becomes of the value {value!r}", "written", "refused")
    for name in ("", "a b", "a;b", "a=b", "__Host-ä"):
        refused(name=name)


@row("CKE-07")
def test_once_a_response(site: Site) -> None:
    """Login, logout and renewal together, and a cookie of our name that a handler set, make one Set-Cookie."""
    browser = site.logged_in()
    site.clock.wind(16 * 60)
    for target in (
        "/?do=logout-login",
        "/login?do=write",
        "/reauth?do=renew",
        "/data?do=login&write=a",
        f"/login?cookie={site.cookie}%3Dtheirs",
    ):
        answer = browser.post(target, {"user": "alice"})
        names = [line.partition("=")[0] for line in answer.cookies]
        expect(f"cookies set by POST {target}", names, [site.cookie])


@row("CKE-08")
def test_none_needs_secure(site: Site) -> None:
    """SameSite=None is Secure where it is taken; without Secure it is refused, with a reason too."""
    embedded = site.with_settings(same_site="None", cookie_reason="embedded")
    said = attributes(embedded.browser().login().cookies[0])
    expect("SameSite and Secure", (said["samesite"], "secure" in said), ("None", True))
    _refused_cookie(CookieSpec(same_site="None", secure=False, name="coat-insecure", reason="embedded"), "Secure")
    refused(same_site="None", cookie_reason="embedded", allow_insecure_http=True)


@row("CKE-09")
def test_partitioned(site: Site) -> None:
    """Partitioned is written where chosen, refused without Secure, and refused beside device binding."""
    settings = {"partitioned": True, "same_site": "None", "cookie_reason": "embedded by partners"}
    line = site.with_settings(**settings).browser().login().cookies[0]
    wanted = {"path": "/", "secure": "", "httponly": "", "samesite": "None", "partitioned": ""}
    expect("the attributes", attributes(line), wanted)
    _refused_cookie(CookieSpec(partitioned=True, secure=False, name="coat-insecure"), "Partitioned")
    expect("why it is refused", "binding" in refused(**settings, binding="opportunistic"), wanted=True)


def _refused_cookie(spec: CookieSpec, word: str) -> None:
    try:
        spec.check()
    except ConfigError as error:
        expect(f"whether {word} is named in {str(error)!r}", word in str(error), wanted=True)
        return
    expect(f"what becomes of {spec}", "taken", "refused")


@row("CKE-10")
def test_prefix_is_exact(site: Site) -> None:
    """The name goes out as __Host-coat, and a token under any other case logs nobody in."""
    browser = site.logged_in()
    expect("the name", site.cookie, "__Host-coat")
    expect("who has the token", site.user_of(browser.token), "alice")
    for name in ("__host-coat", "__HOST-coat", "__Host-Coat"):
        answer = site.ask("GET", "/me", cookies=f"{name}={browser.token}")
        expect(f"the answer to the token under {name}", answer.status, 401)
    expect("a name in another case is refused", "__Host-" in refused(name="__host-coat"), wanted=True)


@row("CKE-11")
def test_few_and_dispensable(site: Site) -> None:
    """There are at most two cookies; without either there is a 401, no error and no loop, and a login helps."""
    expect("the cookies of a session", len(site.logged_in().jar), 1)
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound).bind()
    expect("the cookies of a bound session", len(device.browser.jar), 2)
    bound.clock.wind(61)
    for lost in list(device.browser.jar):
        browser = device.browser.twin()
        del browser.jar[lost]
        for _ in range(3):
            expect(f"the answer without {lost}", browser.get("/me").status, 401)
        browser.login()
        expect("the answer after another login", browser.get("/me").status, 200)


@row("CKE-12")
def test_host_http(site: Site) -> None:
    """The name __Host-Http-coat works as any other, with what its prefix asks for."""
    other = site.with_settings(name="__Host-Http-coat")
    browser = other.browser()
    line = browser.login().cookies[0]
    expect("whether its prefix is kept", line.startswith("__Host-Http-coat="), wanted=True)
    expect("whether it is for one host", is_for_one_host(line), wanted=True)
    expect("who is logged in", browser.get("/me").json()["user"], "alice")


@row("CKE-13")
def test_never_over_plain_http(site: Site) -> None:
    """A browser keeps nothing from plain http; where https is checked, nothing is taken there, and that is told."""
    plain = site.browser(PLAIN)
    plain.login()
    expect("cookies that a browser keeps from plain http", plain.jar, {})
    for name, value in (("x-forwarded-proto", "https"), ("forwarded", "proto=https"), ("x-forwarded-ssl", "on")):
        answer = plain.post("/login", json={"user": "alice"}, headers={name: value})
        expect(f"whether each cookie is Secure, with {name}", all("; Secure" in c for c in answer.cookies), wanted=True)
    _checked_https(site)
    local = site.with_settings(allow_insecure_http=True, origins=[])
    expect("its name on localhost", local.cookie, "coat-insecure")
    secure = site.logged_in()
    mixed = local.browser("http://localhost:8000").get("/me", cookies=f"{site.cookie}={secure.token}")
    expect("the answer to the secure name there", mixed.status, 401)
    for how in ({"host": "shop.example"}, {"headers": {"x-forwarded-for": "192.0.2.1"}}):
        expect("the answer elsewhere than localhost", local.ask("GET", "/me", **how).status, 500)


def _checked_https(site: Site) -> None:
    """Log in, and use the session, over plain http: by its connection, and by the word of a proxy and of a stranger."""
    shop = site.with_settings(https="checked", trusted_proxies=[PROXY])
    token = f"{shop.cookie}={shop.logged_in().token}"
    plain, secure = shop.browser(PLAIN), shop.browser()
    answer = plain.login()
    expect("the answer to a login over plain http", (answer.status, answer.cookies), (403, []))
    for browser, peer, said, status in (
        (plain, STRANGER, None, 403),
        (plain, STRANGER, "https", 403),
        (plain, PROXY, None, 403),
        (plain, PROXY, "https", 200),
        (plain, PROXY, "https, http", 403),
        (plain, PROXY, "http", 403),
        (secure, STRANGER, None, 200),
        (secure, STRANGER, "http", 200),
        (secure, PROXY, "http", 403),
    ):
        headers = {} if said is None else {"x-forwarded-proto": said}
        found = browser.get("/me", cookies=token, peer=peer, headers=headers)
        what = f"the answer to {browser.base} from {peer}, which says {said}"
        expect(what, (found.status, found.cookies), (status, []))
    (event,) = shop.told("session_plain_http")
    expect("how often that was told", event.detail["count"], 7)
    both = refused(https="checked", allow_insecure_http=True)
    expect("whether both are refused", "allow_insecure_http" in both, wanted=True)


@row("CKE-14")
def test_only_when_something_changed(site: Site) -> None:
    """A hundred pages that read set no cookie, for an anonymous, a logged-in and a remembered user."""
    anonymous = site.browser()
    anonymous.get("/data?write=cart&value=tea")
    remembered = site.browser()
    remembered.login(remember=True)
    for browser in (anonymous, site.logged_in(), remembered):
        sent = chain.from_iterable(browser.get("/data").cookies for _ in range(100))
        expect("cookies of a hundred reads", list(sent), [])


HSTS = "max-age=31536000; includeSubDomains"


@row("CKE-15")
def test_https_for_a_year(site: Site) -> None:
    """Where it is set, every answer over TLS says so, errors and refusals too; the application's own word counts."""
    header = "strict-transport-security"
    shop = site.with_settings(hsts=HSTS)
    browser = shop.logged_in()
    for answer in (
        browser.get("/"),
        browser.get("/me"),
        shop.ask("GET", "/private"),
        browser.get("/nowhere"),
        browser.post("/login", {"user": "alice"}),
        browser.post("/echo", site="cross-site", origin=ELSEWHERE),
    ):
        expect(f"what an answer {answer.status} says", answer.header(header), HSTS)
    shop.trouble.fail("load")
    away = browser.get("/me")
    shop.trouble.fail(None)
    expect("what is said while the store is away", (away.status, away.header(header)), (503, HSTS))
    expect("what is said over plain http", shop.browser(PLAIN).get("/").header(header), None)
    own = browser.get(f"/?header={header}:max-age%3D1")
    expect("what an application says by itself", own.header(header), "max-age=1")
    expect("what is said where nothing is set", site.ask("GET", "/").header(header), None)
    for wrong in ("forever", "max-age=", "max-age=1; max-age=2", "includeSubDomains", "max-age=1\r\nx: y"):
        expect(f"whether {wrong!r} is refused", "hsts" in refused(hsts=wrong), wanted=True)
    for value, severity in (("", "note"), ("max-age=86400", "warning"), ("max-age=31536000", "note")):
        found = findings(SessionManager(origins=[ORIGIN], hsts=value).settings)
        expect(f"how loudly {value!r} is told", [one.severity for one in found if one.rule == "CKE-15"], [severity])


@row("CKE-16")
def test_set_cookie_on_errors(site: Site) -> None:
    """Neither a refused login nor an error page sets a session cookie; a login that is answered 418 does."""
    browser = site.browser()
    for answer in (
        browser.get("/private"),
        browser.post("/login", {"user": "alice"}, site="cross-site", origin=ELSEWHERE),
        browser.post("/login", {"user": "alice"}, site=None),
        browser.post("/?do=login&then=raise"),
        browser.post("/login?status=500", {"user": "alice"}),
    ):
        expect(f"cookies of an answer {answer.status}", answer.cookies, [])
        expect("whether that is an error", answer.status >= 400, wanted=True)
    expect("sessions that came to be", site.records(), [])
    expect("cookies of a login answered 418", len(browser.post("/login?status=418", {"user": "alice"}).cookies), 1)


@row("CKE-17")
def test_no_token_where_scripts_read(site: Site) -> None:
    """In a whole life, bound to a device too, a token leaves in HttpOnly cookies alone; no script of ours is there."""
    bound = site.with_settings(binding="opportunistic", login_url="/login")
    device = Device(bound).bind()
    answers, secrets = list(life(site)), set[str]()
    browser = device.browser
    answers += [browser.get(page) for page in ("/me", "/form", "/data", "/account/sessions", "/session/status")]
    answers += [device.refresh(), browser.get("/nowhere"), browser.post("/transfer", {"to": "bob"})]
    answers += [browser.post("/echo", site="cross-site", origin=ELSEWHERE), browser.post("/logout")]
    for line in (line for answer in answers for line in answer.cookies):
        name, _, value = line.partition(";")[0].partition("=")
        secrets |= {part for part in value.split(".")[2 if name == site.cookie else 0 :] if part}
        expect(f"whether a script can read {name}", "; HttpOnly" in line, wanted=True)
    expect("that secrets were handed out", len(secrets) >= 6, wanted=True)
    for answer in answers:
        others = (f"{name}: {value}" for name, value in answer.headers if name.lower() != "set-cookie")
        shown = "\n".join([answer.text, *others])
        expect(f"secrets in an answer {answer.status}", [one for one in secrets if one in shown], [])
        expect(f"scripts in an answer {answer.status}", "<script" in answer.text.lower(), wanted=False)
    scripts = {path: one for path, one in _files(files("coatcheck")) if path.endswith((".js", ".mjs", ".ts"))}
    expect("scripts that the package brings, but for its demo", [one for one in scripts if "/demo/" not in one], [])
    storage = [path for path, one in scripts.items() if WEB_STORAGE.search(one.read_text("utf-8"))]
    expect("scripts of the demo that keep anything", storage, [])


def _files(folder: Traversable, above: str = "") -> Iterable[tuple[str, Traversable]]:
    for one in folder.iterdir():
        if one.is_dir():
            yield from _files(one, f"{above}/{one.name}")
        else:
            yield f"{above}/{one.name}", one
