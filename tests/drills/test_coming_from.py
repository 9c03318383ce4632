"""An old cookie of another library becomes one session of ours, once, and a logout of that is final (D44; H14)."""

from datetime import UTC, datetime
from typing import Any

import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner as Stamped

from coatcheck.core.model import Level, RaiseEpoch
from coatcheck.core.visit import ALL
from coatcheck.legacy import FlaskCookie, OldCookie
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import COOKIE, OURS, Answer, Ask, House

SECRET = "the old application's"
DAY = 86400.0


def cookie(clock: Clock, age: float = 0.0, **data: Any) -> str:
    """Return what Flask would have signed `age` seconds ago."""

    class Then(Stamped):
        def get_timestamp(self) -> int:
            return int(clock() - age)

    writer = URLSafeTimedSerializer(
        SECRET, salt="cookie-session", signer=Then, signer_kwargs={"key_derivation": "hmac"}
    )
    value = writer.dumps({"_user_id": "ann", **data})
    return value if isinstance(value, str) else value.decode()


@pytest.fixture
def house(build: Build, clock: Clock) -> House:
    until = datetime.fromtimestamp(clock() + 40 * DAY, UTC)
    return build(legacy=[FlaskCookie(SECRET, subject="_user_id", until=until, attributes=OldCookie(domain="app.test"))])


def ask(target: str, old: str, *more: tuple[str, str], method: str = "GET", **other: Any) -> Ask:
    return Ask(method, target, (("cookie", f"session={old}"), *(more or OURS)), **other)


def subject(answer: Answer) -> Any:
    assert answer.status in (200, 401)
    return answer.json.get("user")


def test_an_old_cookie_becomes_one_session_and_goes(house: House, clock: Clock) -> None:
    answer = house.ask(ask("/me", cookie(clock, 3600)))
    assert subject(answer) == "ann"
    assert answer.token
    assert "session=; Path=/; Domain=app.test; HttpOnly; SameSite=Lax; Max-Age=0" in answer.set_cookies
    record = house.record(answer.token)
    assert record.level == Level.REMEMBERED
    assert record.created_at == record.authenticated_at == int(clock() - 3600)
    assert record.expires_at <= clock() - 3600 + 30 * DAY
    (event,) = house.events("session_converted")
    assert (event.subject, event.detail["source"]) == ("ann", "flask")
    assert house.visitor(answer.token).user == "ann"


def test_after_a_logout_the_old_cookie_is_refused_for_good(house: House, clock: Clock) -> None:
    """D44, also past the tombstone of the session: the mark stays to the cut-off."""
    old = cookie(clock)
    visitor = house.visitor(house.ask(ask("/me", old)).token)
    assert visitor.user == "ann"
    visitor.post("/logout")
    for later in (0, 61, 301, 8 * DAY, 20 * DAY):
        clock.wind(later)
        house.control.plain.purge(1000)
        answer = house.ask(ask("/me", old))
        assert (subject(answer), answer.set_cookies) == (None, [])
    assert len(house.events("session_converted")) == 1


def test_before_its_subjects_epoch_it_is_refused(house: House, clock: Clock) -> None:
    old = cookie(clock, 60)
    house.control.registry.revoke_all("ann")
    assert subject(house.ask(ask("/me", old))) is None
    clock.wind(5)
    assert subject(house.ask(ask("/me", cookie(clock)))) == "ann"


def test_twenty_at_once_make_one_session(house: House, clock: Clock) -> None:
    old = cookie(clock)
    answers = house.ask_all([ask("/me", old)] * 20, parallel=True)
    assert [subject(answer) for answer in answers] == ["ann"] * 20
    assert len([answer for answer in answers if answer.token]) == 1
    assert len([record for record in house.control.records() if record.subject == "ann"]) == 1
    assert len(house.events("session_converted")) == 1


def test_a_lost_answer_logs_nobody_out(house: House, clock: Clock) -> None:
    """The old cookie opens the same session until the new one is seen, and gets it again after a renewal's time."""
    old = cookie(clock)
    first = house.ask(ask("/me", old))
    clock.wind(300)
    assert subject(house.ask(ask("/me", old))) == "ann"
    clock.wind(900)
    again = house.ask(ask("/me", old))
    assert again.token == first.token
    assert house.visitor(again.token).user == "ann"
    clock.wind(66)
    assert subject(house.ask(ask("/me", old))) is None


def test_a_thief_with_the_old_cookie_is_out_once_the_owner_logs_in(house: House, clock: Clock) -> None:
    old = cookie(clock)
    thief = house.visitor(house.ask(ask("/me", old)).token)
    assert thief.user == "ann"
    clock.wind(120)
    form = ("content-type", "application/x-www-form-urlencoded")
    owner = house.ask(ask("/login", old, *OURS, form, method="POST", body=b"user=ann"))
    assert owner.token
    assert thief.user is None
    assert house.visitor(owner.token).user == "ann"


def test_nothing_of_who_was_there_reaches_who_logs_in(build: Build, clock: Clock) -> None:
    """Ann's old cookie in bob's hands: even where everything is carried, nothing moves from one user to the next."""
    source = FlaskCookie(SECRET, subject="_user_id", until=datetime.fromtimestamp(clock() + DAY, UTC))
    house = build(legacy=[source], carry=ALL)
    form = ("content-type", "application/x-www-form-urlencoded")
    answer = house.ask(ask("/login", cookie(clock, cart=[7]), *OURS, form, method="POST", body=b"user=bob"))
    bob = house.visitor(answer.token)
    assert bob.user == "bob"
    assert bob.get("/data").json == {}


@pytest.mark.parametrize("slow", ["/me", "/look?how=get", "/form", "/data?write=late"])
def test_a_late_answer_to_the_old_cookie_does_not_wipe_a_login(house: House, clock: Clock, slow: str) -> None:
    """F2: the request that took the session over is slow, and its answer would bring a cookie that is worth nothing."""
    old = cookie(clock)
    form = ("content-type", "application/x-www-form-urlencoded")
    login = ask("/login", old, *OURS, form, method="POST", body=b"user=ann")
    pending = house.start(ask(f"{slow}{'&' if '?' in slow else '?'}hold=slow", old))
    house.control.gate("slow").wait_until_reached()
    owner = house.ask(login)
    house.control.gate("slow").open()
    (late,) = pending.answers()
    assert owner.token
    assert late.set_cookies == []
    assert house.visitor(owner.token).user == "ann"


def test_an_answer_that_comes_after_a_renewal_brings_no_older_secret(house: House, clock: Clock) -> None:
    """Its secret would count as stolen: the browser has had it, and a newer one, while this request was slow."""
    old = cookie(clock)
    pending = house.start(ask("/data?write=late&hold=slow", old))
    house.control.gate("slow").wait_until_reached()
    clock.wind(16 * 60)
    browser = house.visitor(house.ask(ask("/me", old)).token)
    assert browser.user == "ann"
    clock.wind(16 * 60)
    assert browser.user == "ann"
    assert len(house.events("session_renewed")) == 1
    house.control.gate("slow").open()
    (late,) = pending.answers()
    assert late.set_cookies == []
    clock.wind(120)
    assert browser.user == "ann"
    assert browser.get("/data").json["late"] == "1"


def test_it_is_ignored_beside_any_cookie_of_ours(house: House, clock: Clock) -> None:
    both = f"session={cookie(clock)}; {COOKIE}=c1.nothing"
    assert subject(house.ask(Ask("GET", "/me", (("cookie", both), *OURS)))) is None
    assert house.control.records() == []


@pytest.mark.parametrize("site", [("sec-fetch-site", "cross-site")])
def test_another_site_converts_nothing(house: House, clock: Clock, site: tuple[str, str]) -> None:
    """H3: that request may have come without our cookie, though the browser has one."""
    answer = house.ask(ask("/me", cookie(clock), site))
    assert (subject(answer), answer.set_cookies) == (None, [])
    assert house.control.records() == []


@pytest.mark.parametrize("age", [31 * DAY + 60, 30 * DAY + 60, -60.0])
def test_what_is_over_or_from_the_future_is_refused(house: House, clock: Clock, age: float) -> None:
    assert subject(house.ask(ask("/me", cookie(clock, age)))) is None
    assert house.control.records() == []


def test_nothing_is_written_for_what_everybodys_epoch_forbids(house: House, clock: Clock) -> None:
    old = cookie(clock, 60)
    house.control.plain.commit(b"e" * 16, (RaiseEpoch(scope="*"),), durable=True)
    assert subject(house.ask(ask("/me", old))) is None
    assert house.control.records() == []


def test_an_answer_without_body_converts_nothing(house: House, clock: Clock) -> None:
    assert house.ask(ask("/me", cookie(clock), method="HEAD")).set_cookies == []
    assert house.control.records() == []


def test_an_old_cookie_that_no_longer_counts_keeps_nobody_from_a_new_session(house: House, clock: Clock) -> None:
    old = cookie(clock)
    visitor = house.visitor(house.ask(ask("/me", old)).token)
    visitor.post("/logout")
    assert house.ask(ask("/form", old)).token


def test_a_cookie_that_another_key_signed_writes_nothing(house: House, clock: Clock) -> None:
    commits = house.commits
    forged = TimestampSigner("another").sign(cookie(clock)).decode()
    for bad in (forged, cookie(clock)[:-3], "x" * 4000):
        assert subject(house.ask(ask("/me", bad))) is None
    assert house.commits == commits
    assert house.control.manager.noise.totals == {"session_legacy_refused": 3}


def test_a_crash_between_mark_and_session_is_made_good(house: House, clock: Clock) -> None:
    old = cookie(clock)
    house.control.plain.commit(b"m" * 16, (_mark(house, old),), durable=True)
    assert subject(house.ask(ask("/me", old))) == "ann"


def test_a_mark_without_session_is_final_after_a_while(house: House, clock: Clock) -> None:
    old = cookie(clock)
    house.control.plain.commit(b"m" * 16, (_mark(house, old),), durable=True)
    clock.wind(301)
    assert subject(house.ask(ask("/me", old))) is None


def _mark(house: House, old: str) -> Any:
    from coatcheck.core.manager import Absent
    from coatcheck.core.model import Insert, Request

    manager = house.control.manager
    claim = manager.claim(Request("GET", "https", "/", [(b"cookie", f"session={old}".encode())]), Absent.NO_COOKIE)
    assert claim is not None
    return Insert(record=manager.mark_of(claim, claim.forebear.handle))
