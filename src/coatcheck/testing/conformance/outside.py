"""The rows that can be judged from outside, on anybody's application, and the one way to run them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from ...core.errors import ConfigError
from .checklist import CHECKLIST, find_row
from .registry import failed, shown
from .report import Report
from .stranger import ELSEWHERE, SetCookie, Stranger, Unseen, cookies_of
from .verdicts import Finding, Partly, Verdict, expect, partly, unfit
from .wire import OutOfReach

Look: TypeAlias = Callable[[Stranger], Partly | None]

_LOOKS: dict[str, Look] = {}
UNSEEN = "It cannot be seen from outside; the suite in your own tests judges it on an adapter."
YEAR = 31_536_000
KNOWN = frozenset(
    {
        *("sessionid", "session", "phpsessid", "jsessionid", "connect.sid", "asp.net_sessionid", "csrftoken"),
        *("laravel_session", "sid", "_session_id", "rack.session", "cfid", "cftoken"),
    }
)
HOSTILE = ("", "a" * 7000, "' or 1=1 --", "../../etc/passwd", '{"$gt":""}', "%00%0d%0a", "\x7f", "é" * 20, "=" * 50)


def outside(id: str) -> Callable[[Look], Look]:  # noqa: A002 - what it is called everywhere
    """Register a function that judges a row from outside."""

    def register(look: Look) -> Look:
        find_row(id)
        _LOOKS[id] = look
        return look

    return register


def judge_stranger(stranger: Stranger) -> Report:
    """Judge every row on an application; raise ConfigError where it cannot be logged in to as it was said."""
    for path in filter(None, ("/", stranger.way.form_path or stranger.way.login_path)):
        stranger.visitor().see(path)
    if stranger.way.login_path:
        try:
            _ = stranger.session_cookies, stranger.begun
        except AssertionError as error:
            raise ConfigError(str(error)) from error
    return Report(stranger.wire.origin, tuple(_judged(one.id, stranger) for one in CHECKLIST))


def _judged(id: str, stranger: Stranger) -> Finding:  # noqa: A002 - what it is called everywhere
    wanted, look = find_row(id), _LOOKS.get(id)
    if look is None:
        return Finding(id, Verdict.YOURS, wanted.yours) if wanted.fit == "no" else Finding(id, Verdict.OPEN, UNSEEN)
    try:
        answer = look(stranger)
    except Unseen as missing:
        return Finding(id, Verdict.OPEN, f"Not judged: {missing}.")
    except OutOfReach:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a row meets is a finding
        return failed(wanted, error)
    if wanted.fit == "no" and answer is None:
        return Finding(id, Verdict.PASS, (look.__doc__ or "").partition("\n")[0])
    return shown(wanted, answer, look.__doc__)


# -- cookies -----------------------------------------------------------------------------------------------------------


def _each(stranger: Stranger, wrong: Callable[[SetCookie], str]) -> None:
    lines = stranger.lines()
    if not lines:
        unfit("No cookie of a session was seen.")
    for one in lines:
        problem = wrong(one)
        if problem:
            message = f"cookie {one.name}: {problem}"
            raise AssertionError(message)


@outside("CKE-01")
def _secure(stranger: Stranger) -> Partly | None:
    """Every session cookie is Secure and carries a prefix."""
    _each(stranger, lambda one: "" if one.has("secure") else "found no Secure, expected it on every cookie")
    bare = [one.name for one in stranger.lines() if not one.name.startswith(("__Host-", "__Secure-"))]
    return partly(f"Secure, but without the prefix __Host-: {bare[0]}.") if bare else None


@outside("CKE-02")
def _same_site(stranger: Stranger) -> None:
    """Every session cookie says SameSite=Lax or Strict."""
    good = ("Lax", "Strict")
    _each(
        stranger,
        lambda one: (
            ""
            if one.attributes.get("samesite") in good
            else f"found SameSite {one.attributes.get('samesite')!r}, expected Lax or Strict"
        ),
    )


@outside("CKE-03")
def _one_host(stranger: Stranger) -> None:
    """Every session cookie is for this host only."""
    _each(stranger, lambda one: f"found Domain={one.attributes['domain']}, expected none" if one.has("domain") else "")


@outside("CKE-04")
def _http_only(stranger: Stranger) -> None:
    """Every session cookie is HttpOnly, and no page and no echo shows its value."""
    _each(stranger, lambda one: "" if one.has("httponly") else "found no HttpOnly, expected it")
    values = [one.value for one in stranger.lines() if len(one.value) >= 16]
    pages = [heard.path for heard in stranger.heard if any(value in heard.text for value in values)]
    expect("pages that show a session's cookie", pages[:3], [])
    traced = stranger.visitor().ask("TRACE", "/", cookies="trace=0123456789abcdef")
    expect("whether TRACE echoes cookies", "0123456789abcdef" in traced.text, wanted=False)


@outside("CKE-05")
def _size(stranger: Stranger) -> None:
    """No session cookie is longer than browsers keep."""
    _each(stranger, lambda one: f"found {_size_of(one)} bytes, expected at most 4096" if _size_of(one) > 4096 else "")


def _size_of(one: SetCookie) -> int:
    return len(one.name) + len(one.value)


@outside("CKE-14")
def _quiet(stranger: Stranger) -> None:
    """Twenty pages that are only read set no session cookie."""
    stranger.needs_login()
    visitor = stranger.logged_in()
    sent = [one.name for _ in range(20) for one in cookies_of(visitor.ask("GET", stranger.way.probe))]
    expect("session cookies of twenty reads", [one for one in sent if one in stranger.session_cookies], [])


@outside("CKE-15")
def _hsts(stranger: Stranger) -> Partly | None:
    """Browsers are told to use https for a year at least."""
    stranger.needs_tls()
    said = stranger.visitor().ask("GET", "/").header("strict-transport-security").lower()
    ages = [part.strip().removeprefix("max-age=") for part in said.split(";") if "max-age=" in part]
    seconds = int(ages[0].strip('"')) if ages and ages[0].strip('"').isdigit() else 0
    if seconds < YEAR:
        message = f"Strict-Transport-Security: found {said or 'none'!r}, expected max-age of {YEAR} at least"
        raise AssertionError(message)
    return None


# -- tokens ------------------------------------------------------------------------------------------------------------


@outside("TOK-01")
def _altered(stranger: Stranger) -> None:
    """No altered token opens a session."""
    stranger.needs_login()
    visitor = stranger.living()
    value = visitor.jar[stranger.cookie]
    for at in sorted({round(n * (len(value) - 1) / 15) for n in range(16)}):
        changed = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        opened = stranger.knows(stranger.visitor(), stranger.with_cookie(visitor, changed))
        expect(f"whether the token opens a session with character {at} changed", opened, wanted=False)


@outside("TOK-03")
def _entropy(stranger: Stranger) -> Partly:
    """Tokens of many logins are all different, and long enough."""
    stranger.needs_login()
    values = [visitor.jar[stranger.cookie] for visitor in stranger.begun]
    expect("tokens that came twice", len(values) - len(set(values)), 0)
    bits = sum(_bits([value[at] for value in values]) for at in range(min(map(len, values))))
    if bits < 128:
        message = f"tokens of {len(values)} logins: found at most {bits:.0f} bits that vary, expected 128"
        raise AssertionError(message)
    return partly(f"{len(values)} tokens differ in about {bits:.0f} bits; whether they are random, only code can show.")


def _bits(column: list[str]) -> float:
    """Return how many bits a position may hold, judged by the characters seen there: none, unless they vary a lot."""
    seen = set(column)
    if len(seen) < min(len(column), 8) / 2:
        return 0.0
    alphabet = 10 if all(c.isdigit() for c in seen) else 16 if seen <= set("0123456789abcdefABCDEF") else 64
    return math.log2(alphabet)


@outside("TOK-04")
def _fixation(stranger: Stranger) -> Partly:
    """A login makes a new token; what was in the cookie before, ours or made up, opens nothing."""
    stranger.needs_login()
    name = stranger.cookie
    for planted in (None, "planted-by-somebody-else-0123456789"):
        visitor = stranger.visitor()
        stranger.hidden(visitor, stranger.way.form_path or stranger.way.login_path)
        if planted is not None:
            visitor.jar[name] = planted
        before = visitor.jar.get(name)
        stranger.log_in(visitor)
        if before is not None:
            expect("whether the login kept the token of before", visitor.jar.get(name) == before, wanted=False)
            opened = stranger.knows(stranger.visitor(), f"{name}={before}")
            expect("whether the token of before opens the session", opened, wanted=False)
    return partly("A login makes a new token; a second proof and a change of roles were not tried.")


@outside("TOK-06")
def _fuzz(stranger: Stranger) -> None:
    """No malformed cookie causes an error or is echoed; a header of 20 kB is refused."""
    name = stranger.cookie if stranger.way.login_path else "session"
    path = stranger.way.probe or "/"
    for value in (*HOSTILE, "b" * 20_000):
        heard = stranger.visitor().ask("GET", path, cookies=f"{name}={value}".encode())
        expect(f"whether {value[:20]!r} causes an error", heard.status >= 500, wanted=False)
        echoed = len(value) > 8 and value in heard.text
        expect(f"whether {value[:20]!r} is echoed", echoed, wanted=False)


@outside("TOK-08")
def _in_address(stranger: Stranger) -> None:
    """A token in an address opens nothing, and none stands in a redirect."""
    stranger.needs_login()
    value = stranger.living().jar[stranger.cookie]
    for target in (
        f"{stranger.way.probe}?{stranger.cookie}={value}",
        f"{stranger.way.probe};{stranger.cookie}={value}",
    ):
        opened = stranger.knows(stranger.visitor(), "nothing=0", target)
        expect("whether a token in the address opens a session", opened, wanted=False)
    # an application that leads back to the address that it was asked at tells nothing that we did not tell it
    told = [heard.path for heard in stranger.heard if value in heard.header("location") and value not in heard.path]
    expect("redirects with a token in them", told[:3], [])


@outside("TOK-10")
def _name(stranger: Stranger) -> None:
    """The name of the session cookie does not tell what made it."""
    stranger.needs_login()
    expect(f"whether {stranger.cookie} is a framework's own name", stranger.cookie.lower() in KNOWN, wanted=False)


@outside("TOK-18")
def _tossed(stranger: Stranger) -> None:
    """Two different cookies of one name open nothing, in neither order."""
    stranger.needs_login()
    visitor, name = stranger.living(), stranger.cookie
    value = visitor.jar[name]
    rest = stranger.without(visitor, name)
    for pair in (f"{name}={value}; {name}=tossed", f"{name}=tossed; {name}={value}"):
        opened = stranger.knows(stranger.visitor(), f"{rest}; {pair}")
        expect("whether a session opens beside another cookie of its name", opened, wanted=False)


@outside("TMO-08")
def _persistent(stranger: Stranger) -> None:
    """A session cookie dies with its browser."""
    stranger.needs_login()
    _each(
        stranger,
        lambda one: (
            "found Max-Age or Expires, expected none unless the user asked for it"
            if one.has("max-age") or one.has("expires")
            else ""
        ),
    )


# -- the end -----------------------------------------------------------------------------------------------------------


@outside("TRM-01")
def _ended(stranger: Stranger) -> None:
    """A token that was copied before the logout opens nothing after it."""
    stranger.needs_logout()
    visitor = stranger.logged_in()
    copied = stranger.with_cookie(visitor, visitor.jar[stranger.cookie])
    stranger.log_out(visitor)
    opened = stranger.knows(stranger.visitor(), copied)
    expect("whether the copied token opens the session after the logout", opened, wanted=False)


@outside("TRM-02")
def _cleared(stranger: Stranger) -> None:
    """A logout takes the session cookie away."""
    stranger.needs_logout()
    visitor = stranger.logged_in()
    before = visitor.jar[stranger.cookie]
    stranger.log_out(visitor)
    expect("whether the cookie stays in the browser", visitor.jar.get(stranger.cookie) == before, wanted=False)


@outside("TRM-07")
def _logout_by_get(stranger: Stranger) -> None:
    """Neither a GET nor another site's POST logs anybody out."""
    stranger.needs_logout()
    visitor = stranger.logged_in()
    cookies = stranger.without(visitor, "")
    visitor.ask("GET", stranger.way.logout_path, cookies=cookies)
    expect("whether a GET logs out", stranger.knows(visitor, cookies), wanted=True)
    visitor.post(stranger.way.logout_path, {}, site="cross-site", origin=ELSEWHERE, cookies=cookies)
    expect("whether the session survives another site's POST", stranger.knows(visitor, cookies), wanted=True)


# -- other sites and caches --------------------------------------------------------------------------------------------


@outside("CSR-01")
def _cross_site(stranger: Stranger) -> Partly:
    """Another site's POST with the session's cookie is refused."""
    stranger.needs_logout()
    visitor = stranger.logged_in()
    cookies = stranger.without(visitor, "")
    for site in ("cross-site", None):
        heard = visitor.post(stranger.way.logout_path, {}, site=site, origin=ELSEWHERE, cookies=cookies)
        expect("whether another site's POST had its effect", stranger.knows(visitor, cookies), wanted=True)
        expect("whether it was refused (4xx)", 400 <= heard.status < 500, wanted=True)
    return partly("Another site's POST to the logout is refused; your other unsafe pages were not tried.")


@outside("CSR-08")
def _login_csrf(stranger: Stranger) -> None:
    """Another site's form logs nobody in."""
    stranger.needs_login()
    visitor = stranger.visitor()
    way = stranger.way
    visitor.post(way.login_path, way.fields, as_json=way.as_json, site="cross-site", origin=ELSEWHERE)
    expect("whether another site's form logs a user in", stranger.knows(visitor), wanted=False)


@outside("CSR-10")
def _vary(stranger: Stranger) -> None:
    """A private page varies by Cookie, or is not stored at all."""
    stranger.needs_login()
    heard = stranger.living().ask("GET", stranger.way.probe)
    told = "cookie" in heard.header("vary").lower() or "no-store" in heard.header("cache-control").lower()
    expect("whether caches know that the page depends on the cookie", told, wanted=True)


@outside("CSR-13")
def _cors(stranger: Stranger) -> None:
    """Another origin is not granted to read answers with credentials."""
    heard = stranger.visitor().ask("GET", stranger.way.probe or "/", site="cross-site", origin=ELSEWHERE)
    granted = ELSEWHERE in heard.header("access-control-allow-origin")
    granted = granted and heard.header("access-control-allow-credentials").lower() == "true"
    expect("whether any origin may read with credentials", granted, wanted=False)


@outside("CCH-01")
def _stored(stranger: Stranger) -> None:
    """Every answer that sets a session cookie says no-store."""
    names = {one.name for one in stranger.lines()}
    for heard in stranger.heard:
        if names & {one.name for one in cookies_of(heard)}:
            told = "no-store" in heard.header("cache-control").lower()
            expect(f"whether {heard.path[:60]} with its session cookie is kept from caches", told, wanted=True)


@outside("CCH-02")
def _private(stranger: Stranger) -> None:
    """A private page is not stored."""
    stranger.needs_login()
    said = stranger.living().ask("GET", stranger.way.probe).header("cache-control").lower()
    expect(f"whether Cache-Control {said!r} keeps it from caches", "no-store" in said or "private" in said, wanted=True)


@outside("CCH-03")
def _deception(stranger: Stranger) -> None:
    """A private page is not found under the name of a static file."""
    stranger.needs_login()
    visitor = stranger.living()
    opened = stranger.knows(visitor, stranger.without(visitor, ""), f"{stranger.way.probe}/x.css")
    expect("whether the private page answers as x.css", opened, wanted=False)


@outside("CCH-05")
def _errors(stranger: Stranger) -> None:
    """No error page that was seen shows a trace."""
    shown_by = [heard.path[:60] for heard in stranger.heard if "Traceback (most recent call last)" in heard.text]
    expect("pages with a trace", shown_by[:3], [])
