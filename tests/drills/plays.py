"""Drills made small, for every framework to stand: guesses, races, replays, oversize headers, dumps as cookies."""

import base64
import secrets
from contextlib import suppress

import msgspec

from coatcheck.core.model import Level
from coatcheck.testing.clock import Clock
from coatcheck.testing.probe import ProbeError

from .conftest import Build
from .house import COOKIE, OURS, Ask, House
from .test_lineage import RENEW, renewed
from .test_secrets_stay_secret import leaves

PARALLEL = 8


def guesses_at_a_handle_are_answered_like_unknown_tokens(house: House) -> None:
    """D01: byte for byte, and nothing is written."""
    victim = house.visitor()
    handle = victim.login().split(".")[1]
    commits = house.commits

    def asked(of: str) -> Ask:
        value = f"c1.{of}.{secrets.token_urlsafe(18)}.{secrets.token_urlsafe(18)}"
        return Ask("GET", "/me", (("cookie", f"{COOKIE}={value}"), *OURS))

    unknown = house.ask(asked("A" * 18))
    assert (unknown.status, unknown.set_cookies) == (401, [])
    assert set(house.ask_all(asked(handle) for _ in range(20))) == {unknown}
    assert house.commits == commits
    assert house.control.manager.noise.totals["session_garbage_token"] == 20
    assert victim.user == "alice"


def parallel_requests_at_renewal_get_one_successor(house: House, clock: Clock) -> None:
    """D04."""
    visitor = house.visitor()
    visitor.login()
    before = house.record(visitor.token or "")
    clock.wind(RENEW)
    pending = house.start(*[visitor.prepare("GET", "/me?hold=go")] * PARALLEL)
    house.control.gate("go").wait_until_reached(PARALLEL)
    house.control.gate("go").open()
    answers = pending.answers()
    assert [answer.status for answer in answers] == [200] * PARALLEL
    (successor,) = [answer.token for answer in answers if answer.token is not None]
    record = house.record(visitor.token or "")
    assert (record.version, record.former_proof) == (before.version + 1, before.turn_proof)
    visitor.token = successor
    assert visitor.user == "alice"
    assert house.events("session_token_reuse") == []


def an_old_turn_from_elsewhere_is_refused_and_then_theft(house: House, clock: Clock) -> None:
    """D08: in its grace, as a straggler, and as a thief, who ends the session that he stole."""
    owner = house.visitor()
    owner.login()
    old = renewed(owner, clock)
    thief = house.visitor(old, peer="203.0.113.66")
    for wait, status, alive in ((59, 200, "alice"), (7, 401, "alice"), (240, 401, None)):
        clock.wind(wait)
        answer = thief.get("/me")
        assert (answer.status, answer.token) == (status, None)
        assert owner.user == alive
    assert [event.detail["kind"] for event in house.events("session_token_reuse")] == ["straggler", "late"]
    (theft,) = [one for one in house.events("session_token_reuse") if one.detail["kind"] == "late"]
    assert theft.client is not None
    assert theft.client.address == "203.0.113.66", "what the adapter says of the peer"
    assert house.record(old).ended_because == "theft"


def a_copied_cookie_is_dead_after_the_logout(house: House) -> None:
    """Promise 1: replay after logout, by a plain page, an unsafe request and a method of its own."""
    owner = house.visitor()
    copied = house.visitor(owner.login(), peer="203.0.113.66")
    assert copied.user == "alice"
    assert owner.post("/logout").token in ("", '""'), "Django quotes what is empty"
    for method, target in (("GET", "/private"), ("POST", "/echo"), ("GET", "/data"), ("DELETE", "/account/sessions/x")):
        answer = house.ask(copied.prepare(method, target))
        assert answer.token is None
        assert answer.status in (401, 200), (target, answer)
        assert b"alice" not in answer.body
    assert copied.user is None
    assert house.control.records(live=True) == []


def a_wrong_guess_is_counted_whatever_becomes_of_its_answer(house: House) -> None:
    """D22: the framework's own error pages, too."""
    visitor = house.visitor()
    visitor.login()
    counted = []
    for spoil in ("status=500", "then=raise", "status=503", "then=refuse"):
        with suppress(ProbeError):
            visitor.post(f"/bump?key=wrong&{spoil}")
        counted.append(visitor.get("/data").json["wrong"])
    assert counted == [1, 2, 3, 4]


def page_loads_without_a_cookie_store_nothing(house: House) -> None:
    """D33: frameworks look at sessions of their own accord; that is no writing."""
    for target in ("/", "/me", "/look?how=get", "/data", "/nothing"):
        assert house.ask(Ask("GET", target, OURS)).token is None
    house.ask(Ask("POST", "/change?how=clear", OURS))
    assert house.commits == 0
    assert house.control.trouble.calls == []


def an_oversize_header_opens_nothing(house: House) -> None:
    """D34: nobody looks for a session in it, and no cookie is answered."""
    token = house.visitor().login()
    commits, loads = house.commits, house.control.trouble.calls.count("load")
    headers = [f"{COOKIE}={'A' * 7000}", f"x={'A' * 20_000}; {COOKIE}={token}", f"{COOKIE}=A; " * 2000]
    for header in headers[: 1 if house.kind in ("aiohttp", "sanic") else None]:  # their servers close at 8 KiB
        answer = house.ask(Ask("GET", "/me", (("cookie", header), *OURS)))
        assert answer.status in (401, 431)
        assert answer.set_cookies == []
        assert b"alice" not in answer.body
    assert (house.commits, house.control.trouble.calls.count("load")) == (commits, loads)
    assert house.visitor(token).user == "alice"


def what_is_stored_is_no_cookie(build: Build, clock: Clock) -> None:
    """D45: the proofs and the nonce of a live record, raw, in hex and in base64, in each place of a token."""
    house = build(on_theft="note")
    ann = house.visitor()
    ann.login("ann")
    clock.wind(RENEW)
    ann.get("/me")
    record = house.record(ann.token or "")
    values = {one for one in leaves(msgspec.to_builtins(record, builtin_types=(bytes,))) if len(one) >= 18}
    assert {record.family_proof, record.turn_proof, record.former_proof, record.nonce} <= values
    cookies = set()
    for value in values:
        for spelt in (value.hex().encode(), base64.urlsafe_b64encode(value)):
            short = (spelt + b"A" * 24)[:24]
            cookies |= {spelt, b"c1.%b.%b.%b" % (record.handle.encode(), short, short)}
    asks = [Ask("GET", "/me", ((b"cookie", f"{COOKIE}=".encode() + cookie), *OURS)) for cookie in cookies]
    assert {answer.status for answer in house.ask_all(asks)} == {401}
    assert ann.user == "ann"


def many_tabs_that_wake_a_remembered_login_have_one_session(build: Build, clock: Clock) -> None:
    """D61 (M6): one record, which asks for a login where it matters; an old secret of it is a thief's."""
    house = build(timeouts="nist-aal2")
    visitor = house.visitor()
    first = visitor.login(remember="1")
    clock.wind(2 * 86_400)
    pending = house.start(*[visitor.prepare("GET", "/me?hold=go")] * PARALLEL)
    house.control.gate("go").wait_until_reached(PARALLEL)
    house.control.gate("go").open()
    for answer in pending.answers():
        assert (answer.status, answer.json["level"]) == (200, Level.REMEMBERED)
        visitor.keep(answer)
    assert len(house.control.records()) == 1
    assert visitor.get("/me").status == 200
    asked = visitor.get("/private?within=600")
    assert (asked.status, asked.json["error"]) == (401, "reauth_required")
    clock.wind(306)
    assert house.visitor(first, peer="203.0.113.66").user is None
    assert visitor.user is None, "the copy and its owner are both out"
