"""A copied jar: what its holder gets, what the owner gets, and what is told (D07, D08; security.md 2.4, 2.5, L5)."""

from collections.abc import Callable
from typing import Any

import pytest

from coatcheck.core import facts
from coatcheck.core.model import Update
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import OURS, House, Visitor

RENEW = 900.0
THIEFS = "203.0.113.66"
FIREFOX = (*OURS, ("user-agent", "Firefox/156"))
CURL = (("user-agent", "curl/8"), ("sec-fetch-site", "none"))


def after_renewal(owner: Visitor, clock: Clock, age: float) -> str:
    """Let the owner log in, and the secret be renewed and seen so many seconds ago; return the one of before."""
    owner.post("/login", FIREFOX, user="alice")
    old = owner.token or ""
    clock.wind(RENEW)
    assert owner.get("/me", FIREFOX).token
    assert owner.get("/me", FIREFOX).status == 200
    clock.wind(age)
    return old


@pytest.mark.parametrize(("age", "kind", "loud"), [(100, "straggler", "info"), (400, "late", "critical")])
@pytest.mark.parametrize("on_theft", ["end", "note"])
def test_an_event_names_who_presents_and_who_holds(
    build: Build, clock: Clock, on_theft: str, age: float, kind: str, loud: str
) -> None:
    """2.5: both contexts; the holder's is that of the last renewal, not of the login."""
    house = build(on_theft=on_theft)
    owner = house.visitor(peer="192.0.2.7")
    owner.post("/login", OURS, user="alice")
    owner.peer = "2001:db8::7"  # the owner has walked into another network
    old = owner.token
    clock.wind(RENEW)
    owner.get("/me", FIREFOX)
    owner.get("/me")
    clock.wind(age)
    house.visitor(old, peer=THIEFS).get("/me", CURL)
    (told,) = house.events("session_token_reuse")
    assert told.client is not None
    assert (told.client.address, told.client.agent) == (THIEFS, "curl/8")
    assert (told.detail["known_address"], told.detail["known_agent"]) == ("2001:db8::7", "Firefox/156")
    assert (told.detail["kind"], told.detail["superseded_for"]) == (kind, age)
    assert told.detail.get("ended", False) == (on_theft == "end" and kind == "late"), "others may be told of the end"
    assert facts.severity(told) == loud
    assert told.subject == "alice"


def test_before_any_renewal_the_holder_is_who_logged_in(house: House, clock: Clock) -> None:
    visitor = house.visitor()
    visitor.post("/login", FIREFOX, user="alice")
    record = house.record(visitor.token or "")
    event = facts.reuse(record, clock.now, house.control.manager.client(_request()), "stale")
    assert (event.detail["known_address"], event.detail["known_agent"]) == (visitor.peer, "Firefox/156")


def test_tolerating_refuses_the_presenter_and_asks_the_holder_again(build: Build, clock: Clock) -> None:
    """2.5: refuse the presenter, keep the current holder, raise a question for him; only fresh proof answers it."""
    house = build(on_theft="note")
    owner = house.visitor()
    old = after_renewal(owner, clock, 400)
    assert owner.get("/private?within=99999").status == 200
    thief = house.visitor(old, peer=THIEFS)
    answer = thief.get("/me")
    assert (answer.status, answer.token, answer.json["why"]) == (401, None, None)
    assert thief.get("/private?within=99999").json["error"] == "login_required"
    assert owner.user == "alice", "the holder goes on"
    asked = owner.get("/private?within=99999")
    assert (asked.status, asked.json["error"]) == (401, "reauth_required")
    owner.get("/data?do=renew")
    assert owner.get("/private?level=10").json["error"] == "reauth_required", "a renewal proves nothing"
    owner.login("alice")
    assert owner.get("/private?within=99999").status == 200
    clock.wind(61)
    assert thief.get("/me").status == 401
    assert owner.get("/private?within=99999").status == 200, "what was answered is not asked again"
    assert [event.detail["kind"] for event in house.events("session_token_reuse")] == ["late"]


def test_the_question_is_put_once_and_told_once_a_minute(build: Build, clock: Clock) -> None:
    house = build(on_theft="note")
    owner = house.visitor()
    old = after_renewal(owner, clock, 400)
    clock.now = clock.now // 60 * 60 + 60
    written = house.commits
    for _ in range(20):
        house.visitor(old, peer=THIEFS).get("/me")
    made = house.control.trouble.commits[written:]
    assert sum(isinstance(change, Update) for changes in made for change in changes) == 1
    assert len(house.events("session_token_reuse")) == 1
    since = house.record(old).suspected_at
    clock.wind(60)
    house.visitor(old, peer=THIEFS).get("/me")
    assert len(house.events("session_token_reuse")) == 2
    assert house.record(old).suspected_at == since == clock.now - 60


def test_a_question_does_not_undo_what_a_parallel_request_wrote(build: Build, clock: Clock) -> None:
    house = build(on_theft="note")
    owner = house.visitor()
    old = after_renewal(owner, clock, 400)
    gate = house.control.trouble.hold("commit", "before")
    pending = house.start(house.visitor(old, peer=THIEFS).prepare("GET", "/me"))
    gate.wait_until_reached()  # it was judged, and is about to be noted
    owner.get("/data?write=k&value=kept")
    gate.open()
    (answer,) = pending.answers()
    assert answer.status == 401
    assert house.record(owner.token or "").suspected_at is not None
    assert owner.get("/data").json == {"k": "kept"}
    clock.wind(RENEW)
    owner.get("/me")
    assert house.record(owner.token or "").suspected_at is not None, "nor does a renewal undo it"


def test_a_straggler_asks_nothing_and_ends_nothing(build: Build, clock: Clock) -> None:
    for on_theft in ("note", "end"):
        house = build(on_theft=on_theft)
        owner = house.visitor()
        old = after_renewal(owner, clock, 100)
        assert house.visitor(old).get("/me").status == 401
        assert house.record(old).suspected_at is None
        assert owner.get("/private?within=99999").status == 200


@pytest.mark.parametrize("state", ["current", "in grace", "answer lost"])
def test_evidence_costs_a_read_no_round_trip(house: House, clock: Clock, state: str) -> None:
    """Issue 5, costs: an honest request that writes nothing is one load, whichever of its tokens it brings."""
    owner = house.visitor()
    if state == "answer lost":
        owner.login()
        clock.wind(RENEW)
        token = owner.token
        owner.get("/me")
    else:
        old = after_renewal(owner, clock, 30)
        token = owner.token if state == "current" else old
    clock.wind(0.1)
    house.visitor(token).get("/me")  # also looks at the epochs, once a second
    before = len(house.control.trouble.calls)
    for _ in range(5):
        assert house.visitor(token).get("/me").status == 200
    assert house.control.trouble.calls[before:] == ["load"] * 5


def test_who_is_one_too_many_is_told_who_came(build: Build, clock: Clock) -> None:
    """L5: a phisher who logs in often evicts the owner; the event says from where, and the owner's page why."""
    house = build(limit=1)
    owner, phisher = house.visitor(), house.visitor(peer=THIEFS)
    owner.post("/login", FIREFOX, user="alice")
    clock.wind(1)
    phisher.post("/login", CURL, user="alice")
    assert owner.get("/me").json["why"] == "limit"
    (told,) = house.events("excess_sessions_exceeded")
    assert told.client is not None
    assert (told.client.address, told.client.agent) == (THIEFS, "curl/8")
    assert (told.detail["known_address"], told.detail["known_agent"]) == (owner.peer, "Firefox/156")
    assert told.detail["by"] == (phisher.token or "").split(".")[1]
    assert facts.severity(told) == "warning"


# Why it ended, on the page after.

HTML = (("accept", "text/html,*/*;q=0.8"), ("sec-fetch-site", "none"))


def ended_as_one(house: House, owner: Visitor) -> None:
    house.clock.wind(1)
    house.control.registry.revoke_everyone()
    house.clock.wind(2)


ENDS: dict[str, Callable[[House, Visitor], Any]] = {
    "idle": lambda house, owner: house.clock.wind(3601),
    "operator": lambda house, owner: house.control.registry.revoke_all("alice"),
    "role_change": lambda house, owner: house.control.registry.revoke_all("alice", because="role_change"),
    "theft": lambda house, owner: house.control.registry.revoke((owner.token or "").split(".")[1], "theft"),
    "epoch": ended_as_one,
}


@pytest.mark.parametrize("why", ENDS)
def test_the_login_page_hears_why_the_session_ended(build: Build, why: str) -> None:
    """Field 14: over the redirect, by a word of a closed list, and by the session, without any cookie."""
    house = build(login_url="/login?plain=1")
    owner = house.visitor()
    owner.login()
    ENDS[why](house, owner)
    answer = owner.get("/private", HTML)
    assert (answer.status, answer.set_cookies) == (303, [])
    assert answer.header("location") == f"/login?plain=1&next=/private&why={why}"
    assert owner.get("/private").json == {"error": "login_required", "why": why}
    assert owner.get("/look?how=ended_because").json == {"found": why}, "the page itself hears it, too"
    stranger = house.visitor(f"c1.{(owner.token or '').split('.')[1]}.{'A' * 24}.{'A' * 24}")
    assert stranger.get("/private", HTML).header("location") == "/login?plain=1&next=/private", "told to nobody else"
    assert house.visitor().get("/private").json == {"error": "login_required"}


def test_a_reauthentication_is_not_told_as_an_end(build: Build, clock: Clock) -> None:
    house = build(login_url="/login")
    owner = house.visitor()
    owner.login()
    clock.wind(601)
    assert owner.get("/private?within=600", HTML).header("location") == "/login?next=/private%3Fwithin%3D600"


def test_what_a_policy_calls_its_end_never_reaches_a_location(build: Build, clock: Clock) -> None:
    """A word of the application's own may hold anything; the page is told "policy"."""
    from coatcheck import Action, Policy, Verdict

    class Odd(Policy):
        def judge(self, record: Any, signals: Any, now: float) -> Verdict:
            return Verdict(Action.END if now > record.created_at + 5 else Action.KEEP, "x&next=//evil\r\n")

    house = build(login_url="/login", policies=[Odd()])
    owner = house.visitor()
    owner.login()
    clock.wind(6)
    assert owner.get("/private", HTML).header("location") == "/login?next=/private&why=policy"


# What a logout takes along.


@pytest.mark.parametrize(
    ("kinds", "target", "expected"),
    [
        ((), "/logout", None),
        (["cache", "storage"], "/logout", '"cache", "storage"'),
        (["cache", "cookies"], "/logout", '"cache", "cookies"'),
        (["cookies", "storage"], "/logout?do=flash", '"cookies", "storage"'),
        (["cache"], "/logout?header=Clear-Site-Data:%22storage%22", '"storage"'),
        (["cache"], "/me", None),
        (["cache"], "/login?do=logout", None),
    ],
)
def test_a_logout_clears_what_was_chosen_and_no_more(
    build: Build, kinds: Any, target: str, expected: str | None
) -> None:
    """TRM-08, L4: opt-in; a handler that sets its own is let have its way; a login is no goodbye."""
    house = build(clear_site_data=kinds)
    owner = house.visitor()
    owner.login()
    answer = owner.post(target, user="bob")
    found = [value.decode() for name, value in answer.headers if name == b"clear-site-data"]
    assert found == ([] if expected is None else [expected])


def test_a_new_session_is_not_cleared_with_the_old(build: Build) -> None:
    house = build(clear_site_data=["cookies", "storage"])
    owner = house.visitor()
    owner.login()
    answer = owner.post("/data?do=logout-flash")
    assert answer.header("clear-site-data") == '"storage"'
    assert owner.get("/data").json == {"flashes": ["saved"]}


def _request() -> Any:
    from coatcheck.core.model import Request

    return Request("GET", "https", "/", ((b"host", b"app.test"),), peer=THIEFS)
