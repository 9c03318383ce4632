"""Rows of part K: what is told of sessions, in which words, and what never is."""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Callable, Iterable
from time import monotonic, sleep
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from ...core import exports, facts
from ...core.audit import MARGIN, SEALED, faults
from ...core.model import Client, Event
from ...core.roots import Roots
from ...flow.audit import Audit
from .devices import Device
from .provider import CLIENT, ISSUER, Outlet, event_token, logout_token
from .registry import row
from .rows_cookies import life
from .rows_csrf import everything_logged
from .site import ELSEWHERE, Site
from .verdicts import expect

NASTY = "a\r\nsession_created handle=x \x1b[31mred\x1b[0m \u2028next \u202ereversed"
"""What somebody would like to see in a log."""

OCSF_NEEDS = {"activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata", "user"}
"""Members that an event of OCSF's class 3002 must have, besides `service` or `dst_endpoint`."""


def whole_day(site: Site) -> list[Event]:
    """Return the events of a day on which everything happens: logins, ends, refusals, replays."""
    for _ in life(site):
        pass
    alice = site.logged_in()
    thief = alice.twin()
    site.clock.wind(16 * 60)
    alice.get("/me")
    alice.get("/me")
    site.clock.wind(400)
    thief.get("/me")
    bob = site.logged_in("bob")
    site.clock.wind(8000)
    bob.get("/me")
    carol = site.logged_in("carol")
    site.control.registry.revoke_all("carol", because="operator")
    site.clock.wind(120)
    carol.get("/me")
    carol.post("/echo", site="cross-site", origin=ELSEWHERE)
    site.ask("GET", "/me", cookies=f"{site.cookie}=c1.{'A' * 18}.{'B' * 24}.{'C' * 24}")
    site.ask("GET", "/me", cookies=f"{site.cookie}=a; {site.cookie}=b")
    site.told("csrf_denied")
    return site.events()


def _facts(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if not event.noise]


@row("LOG-01")
def test_who_when_where_what(site: Site) -> None:
    """Each event names time, event, level, session, user, address, agent, request, method, path, machine and reason."""
    told = whole_day(site)
    for event in _facts(told):
        plain = exports.plain(event)
        missing = [name for name in ("time", "event", "level", "realm", "session", "user", "node") if not plain[name]]
        anonymous = event.name in ("session_created", "session_expired") and event.subject is None
        many = event.name == "sessions_revoked"  # all of a subject's
        expect(f"what {event.name} does not say", missing, ["user"] if anonymous else ["session"] if many else [])
        if "revoked" not in event.name:  # an operator's act is nobody's request
            expect(f"where {event.name} came from", (plain["ip"], plain["user_agent"]), ("192.0.2.7", "Probe/1"))
            expect(f"the request of {event.name}", all(plain[one] for one in ("request_id", "method")), wanted=True)
            expect(f"the path of {event.name}", str(plain["path"]).partition("?")[::2], (plain["path"], ""))
        if event.name in _WITH_REASON:
            expect(f"the reason of {event.name}", bool(plain["detail"].keys() & {"reason", "because"}), wanted=True)
    for event in told:
        if event.noise:
            expect(f"what {event.name} counts by", event.detail["networks"], {"192.0.2.0/24": event.detail["count"]})
            last = event.detail["last"]
            expect(f"the query in {event.name}", "?" in last["path"], wanted=False)
            expect(f"what {event.name} says of the last", all(last[one] for one in _OF_THE_LAST), wanted=True)
            expect(f"the machine of {event.name}", bool(exports.plain(event)["node"]), wanted=True)
    _ids(site)


_WITH_REASON = ("session_expired", "session_revoked", "sessions_revoked", "session_use_after_expire")
_OF_THE_LAST = ("method", "path", "agent", "request_id")


def _ids(site: Site) -> None:
    """A request has one id; a listed proxy's is taken over, nobody else's, and none that could break a log."""
    behind = site.with_settings(trusted_proxies=["192.0.2.7"], request_id="X-Request-Id", node="web-3")
    taken = {"7f3d.a-b:c": True, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": True}
    taken |= {
        "": False,
        "x y": False,
        "a,b": False,
        "a" * 129: False,
        '"quoted"': False,
        "a%0Ab": False,
        "-dash": False,
    }
    for one, wanted in taken.items():
        behind.browser().post("/login", {"user": "alice"}, headers={"x-request-id": one})
        traces = [event.trace for event in behind.events() if event.name != "session_context_changed"][-2:]
        ids = {trace.request_id for trace in traces if trace is not None}
        expect("ids of one request", len(ids), 1)
        expect(f"whether {one:.40} is taken over", ids == {one}, wanted)
        expect("the machine", {trace.node for trace in traces if trace is not None}, {"web-3"})
    for apart in (site, site.with_settings(request_id="X-Request-Id")):
        apart.browser().post("/login", {"user": "dave"}, headers={"x-request-id": "stranger"})
        trace = apart.events("session_created")[-1].trace
        expect(
            "whether a stranger names his request", trace is not None and trace.request_id == "stranger", wanted=False
        )


@row("LOG-02")
def test_moments(site: Site) -> None:
    """Every exported moment is UTC and says so."""
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    for event in whole_day(site):
        for form, field in (("plain", "time"), ("owasp", "datetime"), ("ecs", "@timestamp")):
            said = exports.FORMS[form](event)[field]  # type: ignore[index]
            expect(f"whether {said!r} is UTC", bool(moment.fullmatch(said)), wanted=True)


@row("LOG-03")
def test_common_forms(site: Site) -> None:
    """Every event is one line of JSON that parses, in each of the four forms; OCSF's has what its class requires."""
    told = whole_day(site)
    expect("kinds of events", len({event.name for event in told}) >= 10, wanted=True)
    for event in told:
        for form in exports.FORMS:
            line = exports.line(event, form)
            expect(f"lines of {event.name} as {form}", len(line.splitlines()), 1)
            parsed = json.loads(line)
            if form == "ocsf":
                expect(f"members of {event.name}", OCSF_NEEDS - parsed.keys(), set())
                expect("its service", parsed["service"]["name"], site.cookie)


@row("LOG-04")
def test_no_secret_is_told(site: Site) -> None:
    """No token, form token, proof or logout token is in a log of any level, a traceback, event, repr, or the store."""
    bound = site.with_settings(binding="opportunistic")
    with everything_logged() as lines:
        browser = bound.browser()
        secrets = []
        for what in ("/data?write=k", "/?do=login", "/reauth", "/?do=renew", "/?do=login-remember"):
            browser.post(what)
            secrets += (browser.token or "").split(".")[2:]
        form = browser.get("/form").text
        crashed = browser.post("/?do=write&then=raise", {"csrf_token": form})
        device = Device(bound, "bob").bind()
        proof = device.proof(device.challenge)
        device.refresh()
        bound.trouble.fail("load")
        browser.get("/me")
        bound.trouble.fail(None)
        browser.get("/look?how=iter")
        secrets += _logout_tokens(bound)
        if crashed.error is not None:
            lines.extend(traceback.format_exception(crashed.error))
    bound.told("csrf_denied")
    secrets += [form, proof, *device.browser.jar.values()]
    secrets += (device.browser.token or "").split(".")[2:]
    shown = "\n".join(
        [*lines, *(repr(event) + facts.line(event) for event in bound.events()), *map(repr, _reprs(bound))]
    )
    expect("secrets that were told", [one for one in secrets if one and one in shown], [])
    expect("whether anything was logged at all", bool(lines), wanted=True)
    # what a database logs of its statements is at most what it is given: that holds no secret either
    given = repr(to_builtins([bound.trouble.commits, bound.trouble.loaded], builtin_types=(bytes,), enc_hook=repr))
    expect("secrets that the store was given", [one for one in secrets if one and one in given], [])
    handles = {record.handle for record in bound.records(live=False) if record.realm == bound.cookie}
    expect("whether what it was given was looked at", all(one in given for one in handles), wanted=True)


def _logout_tokens(site: Site) -> list[str]:
    """Have a provider end sessions, once by a good token and once by a bad one; return what both consist of."""
    with Outlet(site) as outlet:
        outlet.logged_in("ann", "sub-1")
        site.clock.wind(5)
        good, bad = (logout_token(site.clock(), sub="sub-1", aud=one) for one in (CLIENT, "other"))
        subject = {"format": "iss_sub", "iss": ISSUER, "sub": "sub-1"}
        event = event_token(site.clock(), subject)
        outlet.logout(good)
        outlet.logout(bad)
        outlet.event(event)
    return [part for token in (good, bad, event) for part in (token, *token.split(".")[1:])]


def _reprs(site: Site) -> list[Any]:
    return [*site.records(live=False), site.control.manager.cookie, site.control.manager.settings]


@row("LOG-05")
def test_authentication_is_told(site: Site) -> None:
    """Login, second proof and logout are events with methods and level."""
    browser = site.logged_in()
    browser.post("/reauth")
    browser.post("/logout")
    logins = site.events("authn_login_success")
    expect("how they authenticated", [event.detail["methods"] for event in logins][1], ["pwd", "otp"])
    expect("how surely", [event.detail["level"] for event in logins], [10, 20])
    expect("who logged out", [event.subject for event in site.events("session_logout")], ["alice"])


@row("LOG-06")
def test_refusals_are_told(site: Site) -> None:
    """A request of another site, a token of nobody, and a missing bound cookie are told."""
    site.ask("POST", "/echo", site="cross-site", origin=ELSEWHERE)
    site.ask("GET", "/me", cookies=f"{site.cookie}=c1.{'A' * 18}.{'B' * 24}.{'C' * 24}")
    for kind in ("csrf_denied", "session_unknown_token"):
        expect(f"summaries of {kind}", len(site.told(kind)), 1)
    bound = site.with_settings(binding="opportunistic")
    device = Device(bound).bind()
    del device.browser.jar[device.bound_cookie]
    bound.clock.wind(61)
    device.browser.get("/me")
    expect("missing bound cookies", [event.subject for event in bound.events("dbsc_binding_missing")], ["alice"])


@row("LOG-07")
def test_attempts_are_told(site: Site) -> None:
    """Unknown, malformed, doubled, ended and replaced tokens, other sites and bad proofs are each told by name."""
    names = {event.name for event in whole_day(site)}
    bound = site.with_settings(binding="opportunistic")
    device, other = Device(bound).bind(), Device(bound, "bob").bind()
    headers = {"sec-secure-session-id": device.name}
    for proof in (other.proof(device.challenge), device.proof("A" * 75)):
        device.browser.post("/coatcheck/device/refresh", headers={**headers, "secure-session-response": proof})
    bound.clock.wind(61)
    mixed = device.browser.twin()
    mixed.jar[device.bound_cookie] = other.browser.jar[device.bound_cookie]
    mixed.get("/me")
    bound.told("dbsc_signature_invalid")
    names |= {event.name for event in bound.events()}
    wanted = {
        *("session_unknown_token", "session_use_after_expire", "session_token_reuse", "session_cookie_ambiguous"),
        *("csrf_denied", "dbsc_signature_invalid", "dbsc_challenge_stale", "dbsc_binding_missing"),
    }
    expect("what was not told", wanted - names, set())


@row("LOG-08")
def test_failures_are_told(site: Site) -> None:
    """A failure of the store, or of a provider's keys, is an event: logged and told at once, kept when it can be."""
    heard: list[Event] = []
    shop = site.with_settings(on_event=[heard.append])
    browser = shop.logged_in()
    for verb, target in (("load", "/me"), ("commit", "/data?write=k")):
        with everything_logged() as lines:
            shop.trouble.fail(verb)  # type: ignore[arg-type]
            answer = browser.get(target)
            shop.trouble.fail(None)
        ours = [line for line in lines if line.startswith("coatcheck ERROR session_backend_error ")]
        expect(f"events while {verb} fails", len(ours), 1)
        named = answer.header("x-request-id") or "none"
        expect("whether it names the request that was refused", f"request={named}" in ours[0], wanted=True)
        secrets = (browser.token or "").split(".")[2:]
        expect("secrets in it", [one for one in secrets if one in ours[0]], [])
    (kept,) = shop.told("session_backend_error")
    expect("how many the store knows of", kept.detail["count"], 2)
    _until(lambda: any(event.name == "session_backend_error" for event in heard))
    told = [event for event in heard if event.name == "session_backend_error" and not event.noise]
    expect("how often a listener heard of it at once", len(told), 1)

    def unreachable() -> Any:
        message = "certificate verify failed"
        raise OSError(message)

    with everything_logged() as lines, Outlet(site, unreachable) as outlet:
        answer = outlet.logout(logout_token(site.clock(), sub="sub-1"))
        expect("the answer without the provider's keys", answer.status >= 400, wanted=True)
    ours = [line for line in lines if "session_backend_error" in line and "certificate verify failed" in line]
    expect("events for keys that cannot be fetched", len(ours) >= 1, wanted=True)


def _until(done: Callable[[], bool]) -> None:
    """Wait until a listener, in its own thread, has heard something."""
    until = monotonic() + 10
    while not done():
        if monotonic() > until:
            message = "a listener did not hear of it"
            raise AssertionError(message)
        sleep(0.002)


@row("LOG-09")
def test_no_line_is_forged(site: Site) -> None:
    """An agent, a subject and a path with line breaks, colours and turned text stay one line of what they are."""
    browser = site.browser()
    browser.login(NASTY)
    browser.post("/logout")
    event = Event(name="session_created", at=site.clock(), subject=NASTY, client=Client("192.0.2.7", NASTY))
    for one in (*site.events(), event):
        told = [facts.line(one), *(exports.line(one, form) for form in exports.FORMS)]
        for line in told:
            expect("lines", len(line.splitlines()), 1)
            expect("colours", "\x1b" in line, wanted=False)
        expect("whether the log line is plain ASCII", told[0].isascii(), wanted=True)


@row("LOG-10")
def test_altered_events_are_seen(site: Site) -> None:
    """A sealed event that is changed, taken out or added is found; the seals are made by a key that no store has."""
    secret = os.urandom(32)
    roots = Roots([secret], os.urandom)
    trail = Audit(site.control.plain, roots)
    expect("whether a first seal is made", trail.seal() is not None, wanted=True)
    whole_day(site)
    site.clock.wind(2 * MARGIN)
    sealed = trail.seal()
    expect("what the seal covers", sealed is not None and sealed.count > 10, wanted=True)
    expect("what does not fit", trail.verify("" if sealed is None else sealed.name).faults, ())
    expect(
        "whether a seal tells an address or a name", "alice" in repr(sealed) or "192.0.2" in repr(sealed), wanted=False
    )
    told = _facts(site.events())
    kept = [one for one in told if one.name == SEALED]
    victim = next(one for one in told if one.name == "session_logout" or one.detail.get("reason") == "operator")
    added = Event(name="authn_login_success", at=victim.at, subject="mallory")
    changed = [one if one is not victim else replace(one, subject="nobody") for one in told]
    for what, altered in {
        "changed": changed,
        "out": [one for one in told if one is not victim],
        "in": [*told, added],
    }.items():
        expect(f"faults with one fact {what}", len(faults(kept, altered, roots)), 1)
    expect("faults with a seal out", len(faults(kept[:1], told, roots, "" if sealed is None else sealed.name)), 1)
    expect("whether the key is in what the store has", secret.hex() in site.control.dump(), wanted=False)


@row("LOG-11")
def test_owasp(site: Site) -> None:
    """Our events have OWASP's names, arguments and levels; use after the end and a replayed token are critical."""
    told = {str(one["event"]).partition(":")[0]: one for one in map(exports.owasp, whole_day(site))}
    wanted = {
        "session_created": ("session_created:alice", "INFO"),
        "session_renewed": ("session_renewed:alice", "INFO"),
        "session_use_after_expire": ("session_use_after_expire:carol", "CRITICAL"),
    }
    for name, (event, level) in wanted.items():
        found = told.get(name, {})
        expect(f"the level of {name}", found.get("level"), level)
        expect(
            f"{name} begins as", str(found.get("event")).partition(",")[0].partition(":")[0], event.partition(":")[0]
        )
    expect("the level of authn_token_reuse", told["authn_token_reuse"]["level"], "CRITICAL")
    expect("the level of malicious_csrf", told["malicious_csrf"]["level"], "CRITICAL")
    ended = Event(name="session_expired", at=site.clock(), subject="alice", detail={"reason": "idle"})
    expect("an end", exports.owasp(ended)["event"], "session_expired:alice,idle")
    quoted = Event(name="session_created", at=site.clock(), subject="a,b")
    expect("a comma in a name", exports.owasp(quoted)["event"], "session_created:a\\,b")


@row("LOG-12")
def test_ocsf(site: Site) -> None:
    """A login is OCSF's Logon, an end its Logoff with the reason, everything else its Other."""
    told = [(event, exports.ocsf(event)) for event in whole_day(site)]
    for event, one in told:
        kind = {"authn_login_success": 1, "session_logout": 2, "session_expired": 2}
        kind |= {"session_revoked": 2, "sessions_revoked": 2}
        activity = kind.get(event.name, 99)
        found = (one["category_uid"], one["class_uid"], one["activity_id"], one["type_uid"])
        expect(f"the class of {event.name}", found, (3, 3002, activity, 300200 + activity))
        expect("the time", one["time"], int(event.at * 1000))
        expect("the session", one["session"]["uid"], event.handle)
    second = next(one for event, one in told if event.detail.get("methods") == ["pwd", "otp"])
    expect("whether two factors are told", second["session"]["is_mfa"], wanted=True)
    reasons = {one["session"].get("expiration_reason") for _, one in told}
    expect("reasons", reasons >= {"idle", "operator", "logout"}, wanted=True)


@row("LOG-13")
def test_ecs(site: Site) -> None:
    """A login is ECS's authentication, a session's begin and end its session, with outcome, address, user and agent."""
    for event in whole_day(site):
        one = exports.ecs(event)
        said = one["event"]
        wanted = {
            "session_created": (["session"], ["start"], "success"),
            "authn_login_success": (["authentication"], ["start"], "success"),
            "session_logout": (["session"], ["end"], "success"),
            "session_expired": (["session"], ["end"], "success"),
            "csrf_denied": (["session"], ["info"], "failure"),
            "session_token_reuse": (["session"], ["info"], "failure"),
        }.get(event.name)
        if wanted is not None:
            expect(f"{event.name} as ECS", (said["category"], said["type"], said["outcome"]), wanted)
        expect("the kind", said["kind"], "event")
        client = event.client or Client()
        found = (one["source"]["ip"], one["user"]["id"], one["user_agent"]["original"])
        expect("where and who", found, (client.address, event.subject, client.agent))
