"""A step-up is good for what it was asked for: once, by the same subject, and no other site's page (D25, D60; M5)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from coatcheck.core.model import Level
from coatcheck.core.stepup import KEY
from coatcheck.core.visit import ALL
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import OURS, Answer, Ask, House, Visitor, opened

HTML = (*OURS, ("accept", "text/html"))


def moved(visitor: Visitor, to: str = "bob", amount: str = "10", query: str = "") -> Answer:
    """Ask for a transfer."""
    return visitor.post(f"/transfer{query}", to=to, amount=amount)


def proved(visitor: Visitor, clock: Clock) -> None:
    """Step up, a moment later."""
    clock.wind(1)
    assert visitor.post("/reauth").status == 200


def done(house: House) -> list[str]:
    return house.control.probe.done


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Any]:
    """Return a memory store, or what a test asks for: only where things happen at once does the kind matter."""
    with opened(getattr(request, "param", "memory"), tmp_path, clock) as store:
        yield store


@pytest.fixture
def alice(house: House, clock: Clock) -> Visitor:
    """Alice, who logged in just now: that is no proof for a transfer that nobody knew of then."""
    visitor = house.visitor()
    visitor.login("alice")
    clock.wind(1)
    return visitor


def test_a_proof_is_asked_for_each_transfer_and_counts_once(alice: Visitor, house: House, clock: Clock) -> None:
    """D60, the honest way: asked, proved, shown again, confirmed; a second click moves nothing."""
    asked = moved(alice)
    assert (asked.status, asked.json) == (401, {"error": "reauth_required", "max_age": 0.0})
    assert moved(alice).status == 401, "asking twice is no proof"
    proved(alice, clock)
    again = alice.get("/resume").json["again"]
    assert again == {"method": "POST", "target": "/transfer", "shown": {"to": "bob", "amount": "10"}}
    assert done(house) == [], "nothing that was sent is sent again by us"
    assert moved(alice, **again["shown"]).status == 200
    assert alice.get("/resume").json == {"go": "/home"}
    assert moved(alice, **again["shown"]).status == 401, "resume twice"
    assert done(house) == ["alice: 10 to bob"]


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
def test_of_parallel_confirmations_one_counts(house: House, clock: Clock) -> None:
    """D60, "once": the permission is taken by a commit of its own (H13)."""
    alice = house.visitor()
    alice.login("alice")
    house.control.gate("go").open()
    moved(alice, query="?hold=go")
    house.control.probe.gates.clear()
    proved(alice, clock)
    form = ("content-type", "application/x-www-form-urlencoded")
    ask = alice.prepare("POST", "/transfer?hold=go", (*OURS, form), b"to=bob&amount=10")
    pending = house.start(*[ask] * 12)
    house.control.gate("go").wait_until_reached(12)
    house.control.gate("go").open()
    assert sorted(answer.status for answer in pending.answers()) == [200] + [401] * 11
    assert done(house) == ["alice: 10 to bob"]


OTHERS = [
    ("/transfer", {"to": "mallory", "amount": "10"}),
    ("/transfer", {"to": "bob", "amount": "1000"}),
    ("/transfer", {"to": "bob", "amount": "10", "also": "this"}),
    ("/transfer", {"to": "bob"}),
    ("/transfer", {"to": "10", "amount": "bob"}),
    ("/transfer?again=1", {"to": "bob", "amount": "10"}),
    ("/transfer?whole=1", {"to": "bob", "amount": "10"}),
]


@pytest.mark.parametrize(("target", "form"), OTHERS)
def test_a_changed_request_is_another_one(
    alice: Visitor, house: House, clock: Clock, target: str, form: dict[str, str]
) -> None:
    """D60, "changed body": what was not asked for is asked for anew; and the answer to that is good for it only."""
    moved(alice)
    proved(alice, clock)
    assert alice.post(target, **form).status == 401
    assert done(house) == []
    assert moved(alice).status == 401, "one at a time: the second question took the place of the first"


def test_a_changed_body_is_another_one_to_the_byte(alice: Visitor, house: House, clock: Clock) -> None:
    """D60: bound to the body, nothing of which is kept."""
    alice.post("/transfer?whole=1", to="bob", amount="10")
    proved(alice, clock)
    assert alice.get("/resume").json["again"]["shown"] == {}
    assert alice.post("/transfer?whole=1", to="bob", amount="10").status == 200
    alice.post("/transfer?whole=1", to="bob", amount="10")
    proved(alice, clock)
    assert alice.post("/transfer?whole=1", to="bob", amount="11").status == 401
    assert done(house) == ["alice: 10 to bob"]


def test_another_method_is_another_request(alice: Visitor, house: House, clock: Clock) -> None:
    """D60: what was asked for as a GET is no permission to POST."""
    assert alice.get("/transfer").status == 401
    proved(alice, clock)
    assert alice.get("/resume").json == {"go": "/transfer"}, "what only looks goes on by itself"
    assert alice.post("/transfer").status == 401
    assert done(house) == []


@pytest.mark.parametrize("carry", [(), ALL])
def test_a_step_up_as_somebody_else_is_a_login(build: Build, clock: Clock, carry: Any) -> None:
    """D60: nothing is executed for the other, and nothing of the interrupted request is shown to them."""
    house = build(carry=carry)
    alice = house.visitor()
    alice.login("alice")
    moved(alice)
    clock.wind(1)
    alice.login("mallory")
    assert alice.get("/data").json == {}
    assert alice.get("/resume").json == {"go": "/home"}
    assert moved(alice).status == 401
    clock.wind(1)
    alice.login("alice")
    assert moved(alice).status == 401
    assert done(house) == []


@pytest.mark.parametrize("carry", [(), ALL])
def test_a_planted_question_moves_into_no_login(build: Build, clock: Clock, carry: Any) -> None:
    """D12 and D60: who planted an anonymous session cannot choose what its victim is asked to confirm."""
    house = build(carry=carry)
    victim = house.visitor()
    note = {"subject": "alice", "method": "POST", "target": "/transfer", "digest": "x", "asked_at": clock.now}
    victim.post("/data?write=k")
    _written(victim, {KEY: note})
    clock.wind(1)
    victim.login("alice")
    assert KEY not in victim.get("/data").json
    assert victim.get("/resume").json == {"go": "/home"}


def test_a_forged_note_is_no_proof(alice: Visitor, house: House, clock: Clock) -> None:
    """TOK-17: assurance is what the record says, never something in the data, whoever could write there."""
    moved(alice)
    note = alice.get("/data").json[KEY]
    clock.wind(600)
    forged = {KEY: {**note, "asked_at": clock.now, "proved_at": 0.0}}
    _written(alice, forged)
    assert moved(alice).status == 401
    assert done(house) == []


def test_a_question_is_forgotten_after_five_minutes(alice: Visitor, house: House, clock: Clock) -> None:
    """M5, "5 min": from the question on."""
    moved(alice)
    clock.wind(290)
    alice.post("/reauth")
    clock.wind(11)
    assert alice.get("/resume").json == {"go": "/home"}
    assert moved(alice).status == 401
    proved(alice, clock)
    clock.wind(299)
    assert moved(alice).status == 200
    assert len(done(house)) == 1


def test_a_renewal_is_no_proof(alice: Visitor, house: House, clock: Clock) -> None:
    """A new handle and secret say nothing about who holds them."""
    moved(alice)
    clock.wind(1)
    alice.get("/?do=renew")
    assert moved(alice).status == 401
    assert done(house) == []


def test_the_owners_proof_does_not_serve_a_thief(alice: Visitor, house: House, clock: Clock) -> None:
    """A copied cookie asks, the owner proves: the copy is worth nothing from then on, and the owner must confirm."""
    thief = house.visitor(alice.token)
    moved(thief, to="mallory", amount="999")
    proved(alice, clock)
    assert moved(thief, to="mallory", amount="999").status == 401
    assert alice.get("/resume").json["again"]["shown"] == {"to": "mallory", "amount": "999"}
    assert done(house) == []


def test_a_remembered_session_proves_nothing(build: Build, clock: Clock) -> None:
    """TMO-15: a proof that was given before does not outlive the drop to `remembered`."""
    house = build()
    alice = house.visitor()
    alice.login("alice", remember="1")
    clock.wind(3 * 3600)
    assert alice.get("/me").json["level"] == Level.REMEMBERED
    moved(alice)
    assert alice.post("/stepup?with=otp").json == {"level": Level.AAL1, "methods": ["otp"]}, (
        "the password counts no more"
    )
    clock.wind(1)
    assert moved(alice).status == 200


def test_a_transfer_that_needs_two_factors_is_not_moved_by_one(alice: Visitor, house: House, clock: Clock) -> None:
    moved(alice, query="?level=20")
    clock.wind(1)
    alice.login("alice")
    assert moved(alice, query="?level=20").status == 401
    clock.wind(1)
    alice.post("/stepup?with=otp")
    assert moved(alice, query="?level=20").status == 200
    assert len(done(house)) == 1


def test_nobody_is_asked_for_a_login(house: House) -> None:
    visitor = house.visitor()
    answer = moved(visitor)
    assert (answer.status, answer.json) == (401, {"error": "login_required"})
    assert answer.set_cookies == []


# -- what a plain `require_login(within=...)` interrupts ---------------------------------------------------------------


def test_only_what_looks_goes_on_by_itself(build: Build, clock: Clock) -> None:
    """M5: a GET is in `next`; of a POST the login page gets nothing, and the session knows what to show again."""
    house = build(login_url="/login")
    alice = house.visitor()
    alice.login("alice")
    clock.wind(601)
    looked = alice.get("/private?within=600", HTML)
    assert looked.header("location") == "/login?next=" + quote("/private?within=600", safe="/")
    assert KEY not in alice.get("/data").json
    posted = alice.post("/account/email", HTML, email="a@b.example")
    assert (posted.status, posted.header("location")) == (303, "/login")
    proved(alice, clock)
    assert alice.get("/resume").json == {"again": {"method": "POST", "target": "/account/email", "shown": {}}}
    assert alice.post("/account/email", email="a@b.example").status == 200
    assert alice.get("/resume").json == {"go": "/home"}, "what was done is not asked for again"


def test_a_program_gets_no_note_of_what_it_can_send_again(alice: Visitor, house: House, clock: Clock) -> None:
    clock.wind(601)
    assert alice.post("/account/email", email="a@b.example").status == 401
    assert KEY not in alice.get("/data").json


WRONG = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/a\\b",
    "/\x00",
    "/\x7f",
    "/\x85/evil.example",
    "/\u2028x",
    "https://evil.example/",
    "https:/evil.example",
    "javascript:alert(1)",
    "evil.example",
    "?x",
    "#x",
    "",
    "/" + "x" * 2048,
]


@pytest.mark.parametrize("wanted", WRONG)
def test_next_leads_to_our_own_pages_only(build: Build, wanted: str) -> None:
    """D60, `next=//evil`."""
    house = build(kind="wsgi")
    assert house.visitor().get(f"/resume?next={quote(wanted, safe='')}").json == {"go": "/home"}


RIGHT = ["/", "/me?a=1&b=%2F", "/a/b#c", "/.//evil.example", "/@evil.example", "/a b", "/ünï", "/a//b", "/?next=//evil"]


@pytest.mark.parametrize("wanted", RIGHT)
def test_next_leads_to_any_of_our_own_pages(build: Build, wanted: str) -> None:
    found = build(kind="wsgi").visitor().get(f"/resume?next={quote(wanted, safe='')}").json["go"]
    assert found == quote(wanted, safe="/?&=%#@.")
    assert (urlsplit(found).scheme, urlsplit(found).netloc) == ("", "")


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "/%09/evil.example"])
def test_a_request_with_a_strange_path_is_not_asked_for_again(build: Build, clock: Clock, path: str) -> None:
    """A form whose action is `//evil.example/x` would send what was interrupted there."""
    house = build()
    alice = house.visitor()
    alice.login("alice")
    clock.wind(1)
    answer = house.ask(Ask("POST", quote(path, safe="/%"), (*alice.prepare("POST", "/").headers,)))
    assert answer.status == 404
    assert KEY not in alice.get("/data").json


def test_the_way_back_is_spelled_as_it_was(build: Build, clock: Clock) -> None:
    """A path with an escaped question mark must not turn into one with a query."""
    house = build(login_url="/login")
    answer = house.ask(Ask("GET", "/a%3Fb%25?c=%26&then=refuse&do=read", HTML))
    target = parse_qs(urlsplit(answer.header("location") or "").query).get("next")
    assert target is None or target == ["/a%3Fb%25?c=%26&then=refuse&do=read"]


# -- the second factor -------------------------------------------------------------------------------------------------


def test_a_second_factor_raises_the_session_and_kills_its_old_cookie(
    alice: Visitor, house: House, clock: Clock
) -> None:
    """TOK-04: new handle and family, no grace; the data stays, and so does the overall end."""
    alice.get("/data?write=cart&value=hat")
    before = house.record(alice.token or "")
    thief = house.visitor(alice.token)
    clock.wind(1800)
    assert alice.post("/stepup?with=otp").json == {"level": Level.AAL2, "methods": ["pwd", "otp"]}
    after = house.record(alice.token or "")
    assert before.handle != after.handle
    assert (before.family_proof != after.family_proof, after.subject) == (True, "alice")
    assert after.expires_at == before.expires_at, "one factor does not move the overall end"
    assert after.authenticated_at == clock.now
    assert alice.get("/data").json == {"cart": "hat"}
    assert thief.get("/me").status == 401
    assert house.record(alice.token or "").ended_at is None


# -- sensitive actions before a binding (D25) --------------------------------------------------------------------------


def test_no_transfer_by_a_session_that_must_be_bound_and_is_not(build: Build, clock: Clock) -> None:
    """D25: five minutes are a bearer's, and nothing delicate is done in them."""
    house = build(binding="required")
    alice = house.visitor()
    alice.login("alice")
    clock.wind(1)
    answer = moved(alice)
    assert (answer.status, answer.json["error"]) == (403, "binding_required")
    assert KEY not in alice.get("/data").json
    clock.wind(301)
    assert alice.get("/me").json["why"] == "unbound"


def _written(visitor: Visitor, data: dict[str, Any]) -> None:
    """Put data into a session, as an application with a fault might."""
    headers = (*OURS, ("content-type", "application/json"))
    answer = visitor.keep(visitor.house.ask(visitor.prepare("POST", "/replace", headers, json.dumps(data).encode())))
    assert answer.json == data
