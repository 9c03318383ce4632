"""Sealed tokens under attack: copied, kept, mixed, moved to another host; with a store and without (D49-D54, H9)."""

import os
import struct
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import coatcheck
from coatcheck import ConfigError, DataError, Key, Keyring, Sealed, SessionManager, StoreError
from coatcheck.adapters import asgi, wsgi
from coatcheck.core.facts import severity
from coatcheck.core.model import Level, Request
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.nowhere import NoStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.probe import ROUTES, Call, Probe, ProbeError
from coatcheck.testing.serving import AsgiProbe, Control, Served, WsgiProbe

from .conftest import Build
from .house import COOKIE, FORM, ORIGIN, OURS, Answer, Ask, House
from .test_secrets_stay_secret import PACKAGE, WIRE, BrokenError, Secrets, _broken, _frames, shown

IDLE, DAY = 3600.0, 86400.0
KEYS = Keyring([Key("k1", os.urandom(32))], os.urandom)
Builder = Callable[..., House]


@pytest.fixture
def sealed(build: Build) -> Builder:
    """Return a maker of houses with sealed tokens on this test's store."""

    def made(*, keyring: Keyring = KEYS, **more: Any) -> House:
        ours = {name: more.pop(name) for name in ("monotonic", "store_down", "most_chunks") if name in more}
        return build(sealed=Sealed(keyring=keyring, **ours), **more)

    return made


class Jar:
    """A browser that keeps every cookie of ours, as browsers do."""

    def __init__(self, house: House, cookies: dict[str, str] | None = None) -> None:
        self.house = house
        self.cookies = dict(cookies or {})

    def copy(self, house: House | None = None) -> "Jar":
        """Return a thief with a copy, or the same browser at another house."""
        return Jar(house or self.house, self.cookies)

    def prepare(self, method: str, target: str, headers: Any = OURS, body: bytes = b"") -> Ask:
        line = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        cookie = (("cookie", line),) if line else ()
        return Ask(method, target, (*cookie, *headers), body)

    def ask(self, method: str, target: str, headers: Any = OURS, body: bytes = b"") -> Answer:
        return self.keep(self.house.ask(self.prepare(method, target, headers, body)))

    def get(self, target: str) -> Answer:
        return self.ask("GET", target)

    def post(self, target: str, body: str = "") -> Answer:
        return self.ask("POST", target, (*OURS, FORM), body.encode())

    def keep(self, answer: Answer) -> Answer:
        for line in answer.set_cookies:
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    def login(self, user: str = "alice", **form: Any) -> None:
        body = "&".join(f"{name}={value}" for name, value in {"user": user, **form}.items())
        assert self.post("/login", body).status == 303

    @property
    def user(self) -> str | None:
        answer = self.get("/me")
        return answer.json["user"] if answer.status == 200 else None

    @property
    def why(self) -> str | None:
        answer = self.get("/me")
        assert answer.status == 401
        assert answer.set_cookies == [], "a token that is refused is answered without a cookie"
        why: str | None = answer.json["why"]
        return why

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/data").json
        return found

    @property
    def handle(self) -> str:
        return self.cookies[COOKIE].split(".")[2]


def logged_in(house: House, user: str = "alice", **form: Any) -> Jar:
    jar = Jar(house)
    jar.login(user, **form)
    return jar


# What lies where.


def test_the_store_knows_the_session_but_nothing_of_its_data(sealed: Builder) -> None:
    """H9: a stub; listing, revocation, limits and audit work on it as on any record."""
    house = sealed()
    ann = logged_in(house, "ann", cart="Ptarmigan")
    ann.get("/data?write=word&value=Capercaillie")
    assert ann.data == {"cart": "Ptarmigan", "word": "Capercaillie"}
    (stub,) = house.control.records(live=True)
    assert (stub.subject, stub.handle, stub.data) == ("ann", ann.handle, b"")
    for word in ("Ptarmigan", "Capercaillie"):
        assert word not in house.control.dump()
        assert word not in repr(ann.cookies)
    assert [one["handle"] for one in ann.get("/account/sessions").json["sessions"]] == [ann.handle]
    assert {event.name for event in house.events()} == {"session_created", "authn_login_success"}


def test_a_write_of_data_asks_the_store_for_no_commit(sealed: Builder) -> None:
    house = sealed()
    ann = logged_in(house)
    before = house.commits
    answer = ann.get("/data?write=k&value=v")
    assert house.commits == before
    assert [line.partition("=")[0] for line in answer.set_cookies] == [COOKIE]
    assert answer.header("cache-control") == "no-store"
    assert ann.data == {"k": "v"}


def test_an_anonymous_session_begins_with_its_first_write(sealed: Builder) -> None:
    house = sealed()
    jar = Jar(house)
    assert jar.get("/data").set_cookies == []
    assert house.control.records() == []
    jar.get("/data?write=k&value=v")
    assert len(house.control.records()) == 1
    assert jar.data == {"k": "v"}
    jar.login("ann")
    assert jar.data == {}, "what an anonymous session held moves only where it is named (M4)"


def test_a_csrf_token_holds_for_the_session_however_often_it_is_sealed(sealed: Builder) -> None:
    """CSR-07: and for no other session."""
    house = sealed(monotonic=["n"])
    ann, bob = logged_in(house, "ann"), logged_in(house, "bob")
    token = ann.get("/form").body.decode()
    for number in range(3):
        ann.get(f"/data?write=n&value={number}")
        assert ann.ask("POST", "/echo?token=required", (*OURS, ("x-csrf-token", token))).status == 200
    assert bob.ask("POST", "/echo?token=required", (*OURS, ("x-csrf-token", token))).status == 403


# D49: elsewhere.

ELSEWHERE: list[tuple[str, dict[str, Any], str]] = [
    ("another host", {"origins": ["https://other.test"]}, COOKIE),
    ("another cookie name", {"name": "__Host-other"}, "__Host-other"),
    ("another cookie name, the same realm", {"name": "__Host-other", "realm": COOKIE}, "__Host-other"),
    ("another realm", {"realm": "console"}, COOKIE),
    ("another key of the same id", {"keyring": Keyring([Key("k1", os.urandom(32))], os.urandom)}, COOKIE),
    ("another key id", {"keyring": Keyring([Key("k9", os.urandom(32))], os.urandom)}, COOKIE),
]


@pytest.mark.parametrize(("where", "settings", "name"), ELSEWHERE, ids=[where for where, *_ in ELSEWHERE])
def test_a_sealed_cookie_opens_nothing_at_another_application(
    sealed: Builder, where: str, settings: dict[str, Any], name: str
) -> None:
    """D49: on the same store, with the same keys where they are not the point; the owner notices nothing."""
    here, there = sealed(), sealed(**settings)
    ann = logged_in(here, "ann")
    before = here.control.records()
    moved = Jar(there, {key.replace(COOKIE, name): value for key, value in ann.cookies.items()})
    assert moved.why is None
    assert moved.get("/data?write=k&value=v").set_cookies == []
    assert here.control.records() == before
    assert ann.user == "ann"
    assert there.control.manager.noise.totals["session_malformed_token"] == 2


def test_the_first_of_several_origins_is_the_one_that_counts(sealed: Builder) -> None:
    ann = logged_in(sealed(origins=[ORIGIN, "https://www.app.test"]), "ann")
    assert ann.copy(sealed(origins=[ORIGIN])).user == "ann"
    assert ann.copy(sealed(origins=["https://www.app.test", ORIGIN])).why is None


# D50: kept, and shown again.


def _logout(jar: Jar) -> None:
    assert jar.post("/logout").status == 303


def _everywhere(jar: Jar) -> None:
    assert logged_in(jar.house).post("/logout?everywhere=1").status == 303


def _step_up(jar: Jar) -> None:
    assert jar.post("/reauth").json["level"] == Level.AAL2


def _step_down(jar: Jar) -> None:
    jar.login("alice", level=int(Level.AAL1))


def _another(jar: Jar) -> None:
    jar.login("bob")


def _renewed(jar: Jar) -> None:
    assert jar.get("/data?do=renew").set_cookies


def _revoked(jar: Jar) -> None:
    assert jar.house.control.registry.revoke(jar.handle)


def _all_revoked(jar: Jar) -> None:
    jar.house.control.registry.revoke_all("alice")


def _epoch(jar: Jar) -> None:
    jar.house.clock.wind(2)
    jar.house.control.registry.revoke_before(jar.house.clock.now)
    jar.house.clock.wind(2)


def _purged(jar: Jar) -> None:
    _logout(jar)
    jar.house.clock.wind(8 * DAY)
    while jar.house.control.registry.purge():
        pass
    assert jar.house.control.records() == []


ENDINGS = [_logout, _everywhere, _step_up, _step_down, _another, _renewed, _revoked, _all_revoked, _epoch, _purged]


@pytest.mark.parametrize("act", ENDINGS, ids=[act.__name__.strip("_") for act in ENDINGS])
def test_an_older_cookie_is_refused_once_the_session_is_another(sealed: Builder, act: Callable[[Jar], None]) -> None:
    """D50: after logout, login, step-up, step-down, renewal and revocation, in whatever way."""
    house = sealed(timeouts=coatcheck.timeouts(idle=None, absolute=30 * DAY))
    ann = logged_in(house, level=int(Level.AAL2))
    ann.get("/data?write=k&value=v")
    older = ann.copy()
    act(ann)
    assert older.get("/me").status == 401
    written = older.get("/data?write=k&value=stolen")
    assert written.json == {"k": "stolen"}
    assert written.set_cookies == []
    assert older.get("/private").status == 401


CREDIT = [
    ("set", "/data?write=credit&value=0"),
    ("deleted", "/change?how=clear"),
    ("taken", "/take?key=credit"),
    ("counted", "/bump?key=credit"),
]


@pytest.mark.parametrize(("how", "target"), CREDIT, ids=[how for how, _ in CREDIT])
def test_an_older_cookie_is_refused_once_a_monotonic_key_changed(sealed: Builder, how: str, target: str) -> None:
    """D50 (SCT-08): whatever else it holds; the session lives, and nobody is called a thief."""
    house = sealed(monotonic=["credit"])
    ann = logged_in(house)
    ann.get("/data?write=credit&value=10")
    ann.get("/data?write=other&value=1")
    older = ann.copy()
    assert ann.post(target).status == 200
    older_still = ann.copy()
    ann.get("/data?write=other&value=2")
    now = ann.data
    assert now.get("credit") == {"set": "0", "deleted": None, "taken": None, "counted": 11}[how]
    for _ in range(3):
        assert older.why is None
    assert older.get("/data?write=other&value=3").set_cookies == []
    assert older_still.user == "alice", "a change of other data refuses nothing"
    assert ann.data == now
    (stub,) = house.control.records(live=True)
    assert stub.handle == ann.handle
    (event,) = house.events("session_token_reuse")
    assert (event.detail["kind"], severity(event)) == ("older", "warning")


def test_a_monotonic_key_that_did_not_change_refuses_nothing(sealed: Builder) -> None:
    house = sealed(monotonic=["credit", "absent"])
    ann = logged_in(house)
    ann.get("/data?write=credit&value=10")
    older = ann.copy()
    before = house.commits
    ann.get("/data?write=credit&value=10")
    ann.get("/data?write=other&value=1")
    assert house.commits == before
    assert older.user == "alice"


def test_who_is_left_with_an_older_cookie_can_log_in_again(sealed: Builder) -> None:
    """A lost answer, or answers in another order: that browser is asked to log in, and its old session ends."""
    house = sealed(monotonic=["credit"])
    ann = logged_in(house)
    lost = ann.copy()
    ann.get("/data?write=credit&value=10")
    assert lost.why is None
    lost.login("alice")
    assert lost.user == "alice"
    assert ann.why == "superseded"


def test_parallel_changes_of_a_monotonic_key_have_one_winner(sealed: Builder) -> None:
    """H9: two spend the same credit; the second is told to try again, and gets no cookie."""
    house = sealed(monotonic=["credit"])
    ann = logged_in(house)
    ann.get("/data?write=credit&value=10")
    asks = [ann.prepare("GET", f"/data?write=credit&value={number}&hold=spend") for number in range(4)]
    pending = house.start(*asks)
    house.control.gate("spend").wait_until_reached(4)
    house.control.gate("spend").open()
    answers = pending.answers()
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    assert [len(answer.set_cookies) for answer in answers if answer.status == 409] == [0, 0, 0]
    (won,) = [answer for answer in answers if answer.status == 200]
    ann.keep(won)
    assert ann.data == {"credit": won.json["credit"]}


def test_a_slow_write_of_other_data_does_not_bring_an_older_cookie_back(sealed: Builder) -> None:
    """H9: it would log the browser out, since the key that it also holds has changed meanwhile."""
    house = sealed(monotonic=["credit"])
    ann = logged_in(house)
    pending = house.start(ann.prepare("GET", "/data?write=other&hold=slow"))
    house.control.gate("slow").wait_until_reached(1)
    ann.get("/data?write=credit&value=0")
    house.control.gate("slow").open()
    (slow,) = pending.answers()
    assert (slow.status, slow.set_cookies) == (409, [])
    assert ann.data == {"credit": "0"}


@pytest.mark.parametrize("verb", ["take", "bump"])
def test_of_all_who_take_the_same_key_one_gets_it(sealed: Builder, verb: str) -> None:
    """D21, D22: by cookies that are equal; an older one shown later gets nothing either."""
    house = sealed()
    ann = logged_in(house)
    ann.get("/data?write=otp&value=7")
    older = ann.copy()
    pending = house.start(*(ann.prepare("POST", f"/{verb}?key=otp&hold=go") for _ in range(6)))
    house.control.gate("go").wait_until_reached(6)
    house.control.gate("go").open()
    answers = pending.answers()
    got = {"take": '"taken": "7"', "bump": '"count": 8'}[verb].encode()
    assert sum(got in answer.body for answer in answers) == 1
    (won,) = [answer for answer in answers if got in answer.body]
    ann.keep(won)
    assert ann.data == ({} if verb == "take" else {"otp": 8})
    assert got not in older.post(f"/{verb}?key=otp").body


def test_a_count_is_kept_whatever_becomes_of_the_response(sealed: Builder) -> None:
    """H13: a handler that fails after a wrong guess gives no guess back; its other writes fall."""
    house = sealed()
    ann = logged_in(house)
    older = ann.copy()
    answer = ann.post("/bump?key=tries&status=500&do=write")
    assert answer.status == 500
    assert ann.data == {"tries": 1}
    assert older.why is None


def test_a_remembered_login_is_worth_no_more_than_the_store_says(sealed: Builder, clock: Clock) -> None:
    """D50, D61: stepped down by its clocks, also for who kept a cookie of before, or never got the new one."""
    house = sealed(timeouts=coatcheck.timeouts(idle=IDLE, absolute=DAY), carry=["theme"])
    ann = logged_in(house, "ann", remember="1")
    ann.get("/data?write=secret&value=1")
    ann.get("/data?write=theme&value=Ptarmigan")
    older = ann.copy()
    clock.wind(IDLE + 1)
    brought = ann.get("/me?status=204")
    assert [line.partition("=")[0] for line in brought.set_cookies] == [COOKIE]
    assert ann.get("/me").set_cookies == [], "the new cookie says it, once"
    for jar in (older, ann):  # somebody whom that answer never reached, too
        assert jar.get("/me").json["level"] == Level.REMEMBERED
        assert jar.data == {"theme": "Ptarmigan"}
        assert jar.get("/private?within=99999").status == 401
    assert {(one.level, one.data) for one in house.control.records(live=True)} == {(Level.REMEMBERED, b"")}


def test_older_data_of_the_same_session_can_be_shown_again(sealed: Builder) -> None:
    """Said in docs/why/sealed.md: what must not go back is to be named as monotonic."""
    ann = logged_in(sealed())
    ann.get("/data?write=k&value=1")
    older = ann.copy()
    ann.get("/data?write=k&value=2")
    assert older.data == {"k": "1"}


@pytest.mark.parametrize("build_of", [asgi.SessionMiddleware, wsgi.SessionMiddleware])
def test_without_a_store_it_must_be_called_by_its_name(build_of: Any) -> None:
    """D50: at start, not at the first logout."""
    with pytest.raises(ConfigError, match="unsafe_irrevocable=True"):
        build_of(None, sealed=Sealed(keyring=KEYS), origins=[ORIGIN])
    with pytest.raises(ConfigError, match="there is no store"):
        build_of(None, origins=[ORIGIN])
    with pytest.raises(ConfigError, match="drop one of them"):
        build_of(None, store="memory:", sealed=Sealed(keyring=KEYS, unsafe_irrevocable=True), origins=[ORIGIN])
    build_of(None, sealed=Sealed(keyring=KEYS, unsafe_irrevocable=True), origins=[ORIGIN])


# D51: pieces.


def large(jar: Jar, value: int) -> None:
    """Fill three cookies; what stands in them is different for each value."""
    text = (f"{value}" * 1600)[:1600]
    for key in range(5):
        assert jar.get(f"/data?write=key{key}&value={text}").status == 200
    assert {COOKIE, f"{COOKIE}-1", f"{COOKIE}-2"} <= jar.cookies.keys()


def test_pieces_of_two_own_cookies_open_nothing_together(sealed: Builder) -> None:
    """D51: mixed, dropped, reordered; and what is left over is ignored, then taken away."""
    house = sealed(most_chunks=3)
    ann = logged_in(house)
    large(ann, 1)
    first = ann.copy()
    large(ann, 2)
    second = ann.copy()
    assert first.user == second.user == "alice"
    one, two = f"{COOKIE}-1", f"{COOKIE}-2"
    for name in (COOKIE, one, two):
        mixed = Jar(house, {**second.cookies, name: first.cookies[name]})
        assert mixed.why is None
        dropped = Jar(house, {key: value for key, value in second.cookies.items() if key != name})
        assert dropped.get("/me").status == 401
    swapped = {**second.cookies, one: second.cookies[two], two: second.cookies[one]}
    assert Jar(house, swapped).why is None
    small = ann.post("/change?how=clear")
    assert [line.partition("=")[0] for line in small.set_cookies] == [COOKIE, one, two]
    assert ann.cookies.keys() == {COOKIE}
    left_over = Jar(house, {**second.cookies, **ann.cookies})
    assert left_over.user == "alice"
    assert left_over.data == {}


def test_what_does_not_fit_is_told_when_it_is_written(sealed: Builder) -> None:
    """Nothing goes out, the session stays what it was."""
    house = sealed()
    ann = logged_in(house)
    ann.get("/data?write=k&value=v")
    with pytest.raises(DataError, match=r"session\['big'\].*most_chunks.*store") as told:
        ann.get(f"/data?write=big&value={'x' * 5000}")
    assert told.value.key == "big"
    assert ann.data == {"k": "v"}


def test_logout_takes_every_piece_away(sealed: Builder) -> None:
    house = sealed(most_chunks=3)
    ann = logged_in(house)
    large(ann, 1)
    house.clock.wind(IDLE / 4)
    ann.get("/me")
    assert len(ann.cookies) == 4
    ann.post("/logout")
    assert ann.cookies == {}


# D52: time.


def active(jar: Jar, clock: Clock, seconds: float, every: float = 500.0) -> None:
    """Let somebody be there for a time."""
    while seconds > 0:
        clock.wind(min(every, seconds))
        seconds -= every
        assert jar.user is not None


def test_a_copy_that_lay_unused_for_the_idle_time_is_refused(sealed: Builder, clock: Clock) -> None:
    """D52: although its owner was there all the time; nothing happens to the owner."""
    house = sealed()
    ann = logged_in(house)
    active(ann, clock, 1000)
    copied = ann.copy()
    assert f"{COOKIE}-seen" in copied.cookies
    active(ann, clock, IDLE + 1)
    assert copied.why == "idle"
    assert ann.user == "alice"
    assert copied.why == "idle"
    assert house.control.records()[0].ended_at is None
    (event,) = house.events("session_use_after_expire")
    assert (event.handle, event.detail["because"]) == (ann.handle, "idle")


def test_each_copy_that_is_used_gets_a_clock_of_its_own(sealed: Builder, clock: Clock) -> None:
    """The store's is fresh, since others were here; this browser's cookies are not."""
    house = sealed()
    ann = logged_in(house)
    tab = ann.copy()
    for _ in range(10):
        active(ann, clock, 500)
        assert [line.partition("=")[0] for line in tab.get("/me").set_cookies] == [f"{COOKIE}-seen"]
    assert tab.user == "alice"


def test_a_copy_of_a_cookie_without_the_small_one_is_idle_since_it_was_sealed(sealed: Builder, clock: Clock) -> None:
    house = sealed()
    ann = logged_in(house)
    active(ann, clock, IDLE - 100)
    main_only = Jar(house, {COOKIE: ann.cookies[COOKIE]})
    assert main_only.copy().user == "alice"
    active(ann, clock, 101)
    assert main_only.why == "idle"
    assert ann.user == "alice"


def test_the_small_cookie_of_another_session_prolongs_nothing(sealed: Builder, clock: Clock) -> None:
    """D52: nor does one that was made up."""
    house = sealed()
    ann, bob = logged_in(house, "ann"), logged_in(house, "bob")
    copied = ann.copy()
    for _ in range(8):
        active(ann, clock, 500)
        active(bob, clock, 1)
    for seen in (bob.cookies[f"{COOKIE}-seen"], "s1.k1.AAAAAAAAAAAAAAAAAA.1.AAAA", ann.cookies[COOKIE]):
        assert Jar(house, {**copied.cookies, f"{COOKIE}-seen": seen}).why == "idle"


def test_idle_and_absolute_timeouts_end_it(sealed: Builder, clock: Clock) -> None:
    """TMO-01, TMO-02: in the store, with the reason; no cookie outlives them."""
    house = sealed()
    ann, bob = logged_in(house, "ann"), logged_in(house, "bob")
    clock.wind(IDLE - 1)
    assert ann.user == "ann"
    clock.wind(1)
    assert bob.why == "idle"
    active(ann, clock, DAY - IDLE - 1, every=3000)
    assert ann.user == "ann"
    clock.wind(1)
    assert ann.why == "absolute"
    assert {record.ended_because for record in house.control.records()} == {"idle", "absolute"}


def test_reading_writes_seldom_and_never_the_data(sealed: Builder, clock: Clock) -> None:
    """Contract 13: at most once per twentieth of the idle time, and then the small cookie only."""
    house = sealed()
    ann = logged_in(house)
    sent: list[str] = []
    before = house.commits
    for _ in range(60):
        clock.wind(60)
        sent += ann.get("/me").set_cookies
    assert {line.partition("=")[0] for line in sent} == {f"{COOKIE}-seen"}
    assert len(sent) == house.commits - before <= 20
    assert len(sent) >= 15


def test_writing_is_activity_in_the_store_too(sealed: Builder, clock: Clock) -> None:
    """An application that writes at every request must not find its users idle."""
    house = sealed()
    ann = logged_in(house)
    for number in range(10):
        clock.wind(IDLE / 2)
        assert ann.get(f"/data?write=k&value={number}").status == 200
        assert house.control.records(live=True)[0].seen_at == clock.now
    assert ann.user == "alice"


@pytest.mark.parametrize("target", ["/me?status=204", "/me?status=500", "/nothing"])
def test_activity_is_carried_by_any_answer(sealed: Builder, clock: Clock, target: str) -> None:
    """An application that answers with nothing but 204 must not find its users idle."""
    house = sealed()
    ann = logged_in(house)
    for _ in range(10):
        clock.wind(IDLE / 2)
        ann.get(target)
    assert ann.user == "alice"


def test_what_caches_may_keep_carries_no_activity(sealed: Builder, clock: Clock) -> None:
    house = sealed()
    ann = logged_in(house)
    clock.wind(IDLE / 2)
    answer = ann.get("/?cache=public,max-age=60")
    assert answer.set_cookies == []
    assert answer.header("cache-control") == "public,max-age=60"


def test_a_passive_page_is_no_activity(sealed: Builder, clock: Clock) -> None:
    """TMO-05."""
    house = sealed(passive=["/session/status"])
    ann = logged_in(house)
    for _ in range(3):
        clock.wind(IDLE / 3)
        assert ann.get("/session/status").set_cookies == []
    assert ann.why == "idle"


@pytest.mark.parametrize("order", ["read first", "write first"])
def test_a_read_beside_a_write_loses_nothing(sealed: Builder, clock: Clock, order: str) -> None:
    """Contract 13: both answers set a cookie, in either order; the write stays."""
    house = sealed()
    ann = logged_in(house)
    clock.wind(IDLE / 4)
    reading, writing = house.ask_all([ann.prepare("GET", "/me"), ann.prepare("GET", "/data?write=k&value=v")])
    assert reading.set_cookies
    assert writing.set_cookies
    for answer in (reading, writing) if order == "read first" else (writing, reading):
        ann.keep(answer)
    assert ann.data == {"k": "v"}
    clock.wind(IDLE - 1)
    assert ann.user == "alice"


def test_a_slow_write_sets_no_cookie_once_the_session_is_over(sealed: Builder) -> None:
    """Contract 4: its answer would wipe the new login's cookie. One more look at the store tells."""
    house = sealed()
    ann = logged_in(house)
    pending = house.start(ann.prepare("GET", "/data?write=k&value=slow&hold=slow"))
    house.control.gate("slow").wait_until_reached(1)
    ann.post("/logout")
    ann.login("bob")
    house.control.gate("slow").open()
    (slow,) = pending.answers()
    assert slow.set_cookies == []
    ann.keep(slow)
    assert ann.user == "bob"
    assert house.events("session_write_dropped")


def test_the_last_of_two_parallel_writes_wins(sealed: Builder) -> None:
    """Promise 2 does not hold for sealed data; docs/why/sealed.md says so."""
    house = sealed()
    ann = logged_in(house)
    one, two = house.ask_all([ann.prepare("GET", f"/data?write=k{number}") for number in (1, 2)])
    ann.keep(one)
    ann.keep(two)
    assert ann.data == {"k2": "1"}


def test_a_shortened_session_is_shortened_for_every_copy(sealed: Builder, clock: Clock) -> None:
    ann = logged_in(sealed())
    older = ann.copy()
    assert ann.get("/data?do=lasting").set_cookies
    clock.wind(61)
    assert older.get("/me").status == 401
    assert ann.get("/me").status == 401


# D53: keys.

ONE, TWO = os.urandom(32), os.urandom(32)


def ring(*keys: Key) -> Keyring:
    return Keyring(keys, os.urandom)


def test_a_rotation_node_by_node_logs_nobody_out(sealed: Builder, clock: Clock) -> None:
    """D53: nodes a step (30 s) apart; each opens and seals on, and the session stays the same."""
    steps = [
        ring(Key("one", ONE)),
        ring(Key("one", ONE), Key("two", TWO, "expired")),
        ring(Key("one", ONE), Key("two", TWO)),
        ring(Key("one", ONE, "expired"), Key("two", TWO)),
    ]
    houses = [sealed(keyring=keys, monotonic=["n"]) for keys in steps]
    ann = logged_in(houses[0])
    handle = ann.handle
    for number in range(len(steps) - 1):
        for house in (houses[number], houses[number + 1], houses[number]):
            clock.wind(30)
            ann.house = house
            assert ann.user == "alice"
            ann.get(f"/data?write=n&value={number}")
            assert ann.data == {"n": f"{number}"}
    ann.house = houses[-1]
    ann.get("/data?write=n&value=last")
    assert ann.cookies[COOKIE].startswith("s1.two.")
    assert ann.handle == handle


@pytest.mark.parametrize(("state", "opens"), [("active", True), ("expired", True), ("revoked", False)])
def test_a_cookie_opens_as_the_state_of_its_key_says(sealed: Builder, state: Any, opens: bool) -> None:
    """D53."""
    ann = logged_in(sealed(keyring=ring(Key("one", ONE))))
    later = ann.copy(sealed(keyring=ring(Key("one", ONE, state), Key("two", TWO))))
    assert later.user == ("alice" if opens else None)
    if not opens:
        assert later.get("/data?write=k").set_cookies == []
        later.login("alice")
        assert later.user == "alice"


# D54: the store is away.


@pytest.mark.parametrize("verb", ["load", "epochs"])
@pytest.mark.parametrize("target", ["/me", "/data?write=k&value=v", "/"])
def test_while_the_store_is_away_nobody_is_served(sealed: Builder, clock: Clock, verb: Any, target: str) -> None:
    """D54: the default."""
    house = sealed()
    ann = logged_in(house)
    house.control.trouble.fail(verb)
    clock.wind(6)
    answer = ann.get(target)
    assert (answer.status, answer.set_cookies) == (503, [])
    house.control.trouble.fail(None)
    assert ann.user == "alice"


def test_where_it_was_chosen_the_cookie_alone_may_be_read(sealed: Builder, clock: Clock) -> None:
    """D54: safe requests that only read; everything else waits for the store."""
    house = sealed(store_down="reads")
    ann = logged_in(house, level=int(Level.AAL2))
    ann.get("/data?write=k&value=v")
    house.control.trouble.fail("load")
    clock.wind(600)
    assert ann.get("/me").json == {"user": "alice", "handle": ann.handle, "level": Level.AAL2}
    assert ann.data == {"k": "v"}
    assert ann.get("/private?within=700").status == 200
    for method, target in (
        *(("POST", "/data"), ("POST", "/logout"), ("POST", "/login"), ("POST", "/bump?key=n"), ("POST", "/")),
        *(
            ("GET", "/data?write=k&value=2"),
            ("GET", "/data?do=logout"),
            ("GET", "/me?do=renew"),
            ("GET", "/me?do=lasting"),
        ),
        *(("GET", "/me?do=end-others"), ("GET", "/data?do=login"), ("GET", "/data?do=flash")),
    ):
        answer = ann.ask(method, target, (*OURS, FORM), b"user=alice" if method == "POST" else b"")
        assert (answer.status, answer.set_cookies) == (503, []), (method, target)
    assert ann.get("/me").set_cookies == []
    house.control.trouble.fail(None)
    assert ann.data == {"k": "v"}
    assert ann.user == "alice"


def test_what_is_read_from_the_cookie_alone_has_its_clocks(sealed: Builder, clock: Clock) -> None:
    """D54: over is over; a stranger's cookie, and none, get the 503 or nothing."""
    house = sealed(store_down="reads")
    ann, bob = logged_in(house), logged_in(house, "bob")
    house.control.trouble.fail("load")
    clock.wind(IDLE - 1)
    assert ann.user == "alice"
    clock.wind(1)
    assert bob.why == "idle"
    assert Jar(house).get("/me").status == 401
    noise = Jar(house, {COOKIE: "s1.k1.AAAAAAAAAAAAAAAAAA.1.AAAA"})
    assert noise.why is None
    house.control.trouble.fail(None)
    assert house.control.records()[1].ended_at is None


@pytest.mark.parametrize("verb", ["take", "bump"])
def test_what_must_happen_once_does_not_happen_from_the_cookie_alone(sealed: Builder, verb: str) -> None:
    """D54: nor does it when the store is back before the request is over."""
    house = sealed(store_down="reads")
    ann = logged_in(house)
    ann.get("/data?write=otp&value=7")
    before = house.control.records()
    house.control.trouble.fail("load")
    sent = ann.prepare("GET", "/me")
    session = house.exchange("begin", Request("GET", "https", "/me", sent.lines))
    house.control.trouble.fail(None)
    with pytest.raises(StoreError, match="can only be read"):
        house.exchange(verb, session, "otp")
    assert house.control.records() == before
    assert ann.data == {"otp": "7"}


def test_a_write_whose_second_look_fails_is_a_503(sealed: Builder) -> None:
    """D54, promise 8: the store went away between the two looks."""
    house = sealed()
    ann = logged_in(house)
    pending = house.start(ann.prepare("GET", "/data?write=k&value=v&hold=there"))
    house.control.gate("there").wait_until_reached(1)
    house.control.trouble.fail("load")
    house.control.gate("there").open()
    (answer,) = pending.answers()
    assert (answer.status, answer.set_cookies) == (503, [])
    house.control.trouble.fail(None)
    assert ann.data == {}


class OutOfReach(Keyring):
    """Keys that lie where nobody answers."""

    away = False

    def open(self, purpose: str, sealed: bytes, context: bytes) -> bytes | None:
        self._strike()
        return super().open(purpose, sealed, context)

    def seal(self, purpose: str, plain: bytes, context: bytes) -> bytes:
        self._strike()
        return super().seal(purpose, plain, context)

    def _strike(self) -> None:
        if self.away:
            message = "the keys are out of reach"
            raise StoreError(message)


@pytest.mark.parametrize("store_down", ["refuse", "reads"])
def test_while_the_keys_are_out_of_reach_nobody_is_served(sealed: Builder, store_down: Any) -> None:
    """D54: a cookie that could not be looked at is not taken for a stranger's, nor is one handed out over it."""
    keys = OutOfReach([Key("k1", ONE)], os.urandom)
    house = sealed(keyring=keys, store_down=store_down)
    ann = logged_in(house)
    keys.away = True
    for jar, ask in (
        (ann, ann.prepare("GET", "/me")),
        (ann, ann.prepare("GET", "/data?write=k")),
        (Jar(house), Jar(house).prepare("GET", "/data?write=k")),
        (Jar(house), Jar(house).prepare("POST", "/login", (*OURS, FORM), b"user=bob")),
    ):
        answer = jar.house.ask(ask)
        assert (answer.status, answer.set_cookies) == (503, [])
    assert len(house.control.records()) == 1
    keys.away = False
    assert ann.user == "alice"
    assert ann.data == {}


# Without a store.


@pytest.fixture(params=["asgi", "wsgi"])
def alone(request: pytest.FixtureRequest, clock: Clock) -> Iterator[House]:
    """A house with sealed tokens and no store."""
    manager = SessionManager(
        clock=clock, origins=[ORIGIN], sealed=Sealed(keyring=KEYS, unsafe_irrevocable=True), passive=["/session/status"]
    )
    control = Control(NoStore(clock), clock, manager)
    house = House.__new__(House)
    probe = AsgiProbe(control.probe) if request.param == "asgi" else WsgiProbe(control.probe)
    around = asgi.SessionMiddleware if request.param == "asgi" else wsgi.SessionMiddleware
    app = around(probe, manager=manager)  # type: ignore[arg-type]
    house.__init__(request.param, MemoryStore(clock=clock), clock)  # type: ignore[misc]
    house.served, house.control = Served(app, control), control
    yield house
    house.close()


def test_alone_it_keeps_data_and_knows_who_is_there(alone: House) -> None:
    ann = Jar(alone)
    assert ann.get("/data").set_cookies == []
    ann.get("/data?write=k&value=v")
    assert ann.data == {"k": "v"}
    assert ann.user is None
    ann.login("ann")
    assert ann.user == "ann"
    assert ann.data == {}
    ann.get("/data?write=k&value=2")
    assert ann.data == {"k": "2"}
    assert ann.post("/reauth").json["level"] == Level.AAL2
    assert ann.data == {"k": "2"}
    token = ann.get("/form").body.decode()
    assert ann.ask("POST", "/echo?token=required", (*OURS, ("x-csrf-token", token))).status == 200
    ann.post("/logout")
    assert ann.cookies == {}
    assert ann.user is None


def test_alone_its_clocks_end_it(alone: House, clock: Clock) -> None:
    ann, bob = logged_in(alone, "ann"), logged_in(alone, "bob")
    clock.wind(IDLE)
    assert ann.why == "idle"
    bob = logged_in(alone, "bob")
    active(bob, clock, DAY - 1, every=3000)
    assert bob.user == "bob"
    clock.wind(1)
    assert bob.why == "absolute"
    ann = logged_in(alone, "ann", remember="1")
    clock.wind(IDLE + 1)
    assert ann.get("/me").json["level"] == Level.REMEMBERED
    assert ann.get("/private?within=99999").status == 401


def test_alone_a_passive_page_is_no_activity_and_reading_seldom_sets_a_cookie(alone: House, clock: Clock) -> None:
    ann = logged_in(alone)
    sent = []
    for _ in range(30):
        clock.wind(60)
        sent += ann.get("/me").set_cookies
    assert {line.partition("=")[0] for line in sent} == {f"{COOKIE}-seen"}
    assert 5 < len(sent) <= 10
    for target in ("/session/status", "/session/status?do=write"):
        clock.wind(IDLE / 3)
        assert [line.partition("=")[0] for line in ann.get(target).set_cookies] == [COOKIE] * ("write" in target)
    clock.wind(IDLE / 3)
    assert ann.get("/me").status == 401


def test_alone_an_open_connection_lives_as_long_as_its_session(alone: House, clock: Clock) -> None:
    """There is no record to look at: what it was opened with tells when it is over."""
    ann = logged_in(alone)
    session = alone.exchange("begin", Request("GET", "https", "/sse", ann.prepare("GET", "/sse").lines))
    assert alone.exchange("reason_over", session) is None
    clock.wind(IDLE - 1)
    assert alone.exchange("reason_over", session) is None
    clock.wind(1)
    assert alone.exchange("reason_over", session) == "idle"


def test_alone_a_copy_outlives_the_logout(alone: House) -> None:
    """What unsafe_irrevocable means; the reason why nobody gets it without saying so."""
    ann = logged_in(alone, "ann")
    copied = ann.copy()
    ann.post("/logout")
    assert copied.user == "ann"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/logout?everywhere=1", "logout"),
        ("/me?do=end-others", "end_others"),
        ("/take?key=k", "take and bump"),
        ("/bump?key=k", "take and bump"),
    ],
)
def test_alone_what_needs_a_store_is_refused_by_name(alone: House, target: str, said: str) -> None:
    ann = logged_in(alone)
    ann.get("/data?write=k&value=v")
    with pytest.raises(ConfigError, match=said):
        ann.post(target)
    assert ann.data == {"k": "v"}


def test_alone_nobody_is_listed_or_revoked(alone: House) -> None:
    """A registry that answered "done" would be believed."""
    ann = logged_in(alone)
    registry = alone.control.registry
    for act in (
        lambda: registry.find("alice"),
        lambda: registry.revoke_all("alice"),
        lambda: registry.revoke_before(0.0),
        lambda: registry.revoke_before(0.0, subject="alice"),
        registry.events,
    ):
        with pytest.raises(StoreError):
            act()
    assert registry.revoke(ann.handle) is False
    assert registry.purge() == 0


def test_alone_a_clock_that_went_back_refuses(alone: House, clock: Clock) -> None:
    """TMO-13."""
    ann = logged_in(alone)
    clock.wind(-3)
    assert ann.user == "alice"
    clock.wind(-10)
    assert ann.get("/me").status == 401


def test_alone_what_happens_is_told_to_the_log(alone: House) -> None:
    heard: list[str] = []
    alone.served.app.store.listeners.append(lambda events: heard.extend(event.name for event in events))
    ann = logged_in(alone)
    ann.post("/logout")
    assert heard == ["session_created", "authn_login_success", "session_logout"]


# L7: no secret anywhere but in the cookie.


def secrets_of(jar: Jar, secrets: Secrets) -> Secrets:
    """Take in what the cookies say, and the two secrets within."""
    for value in jar.cookies.values():
        secrets.tokens.add(f"s1.x.{value.split('.')[4]}")
    manager = jar.house.control.manager
    value = jar.cookies[COOKIE].encode()
    ticket = manager._sealer.open(b"", value)
    if ticket is not None:
        secrets.tokens.add(f"c1.{ticket.handle}.{ticket.family.decode()}.{ticket.turn.decode()}")
    return secrets


@pytest.mark.parametrize("moment", ["read", "write", "login", "logout", "renew", "logout-login", "lasting"])
def test_nothing_that_a_handler_can_reach_shows_a_secret(
    sealed: Builder, clock: Clock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """L7: from the session, its exchange and its outcome."""
    house, seen = sealed(monotonic=["k"]), []
    ann = logged_in(house)
    clock.wind(600)
    sessions = []

    def looking(probe: Probe, call: Call) -> Any:
        yield from ()
        sessions.append(call.session)
        visit = call.session.visit
        seen.extend(shown(call.session, call.exchange, visit, visit.request))
        return (yield from Probe.me(probe, call))

    monkeypatch.setitem(ROUTES, ("GET", "/me"), looking)
    secrets = secrets_of(ann, Secrets())
    ann.get(f"/me?do={moment}")
    if COOKIE in ann.cookies:
        secrets_of(ann, secrets)
    seen.extend(shown(sessions[0], sessions[0].visit.outcome))
    assert len(seen) > 20
    assert len(secrets.parts) >= 3
    for text in seen:
        assert secrets.found_in(text) == set(), text


FAILING = [
    ("handler", "/data?write=k&then=raise"),
    ("handler", "/me?do=unkeepable"),
    ("load", "/me"),
    ("commit", "/data?write=k"),
    ("commit", "/data?do=login"),
    ("commit", "/data?do=renew"),
    ("commit", "/me"),
    ("write", "/data?write=k"),
    ("write", "/me"),
    ("seal", "/data?write=k"),
    ("seal", "/me"),
    ("judge", "/me"),
    ("decode", "/data"),
    ("size", "/me"),
]


@pytest.mark.parametrize(("where", "target"), FAILING, ids=[f"{where} {target}" for where, target in FAILING])
def test_a_traceback_with_its_locals_shows_no_secret(
    sealed: Builder,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    target: str,
) -> None:
    """L7: raised or logged, as an error tracker sends it; neither the cookie's text nor the secrets sealed in it."""
    house = sealed(monotonic=["k"])
    ann = logged_in(house)
    clock.wind(600)
    secrets = secrets_of(ann, Secrets())
    if where in ("load", "commit"):
        house.control.trouble.fail(where, BrokenError)  # type: ignore[arg-type]
    elif where == "seal":
        monkeypatch.setattr("coatcheck.core.keyring.Keyring.seal", _broken)
    elif where == "write":
        monkeypatch.setattr("coatcheck.core.cookies.CookieWriter.write", _broken)
    elif where == "judge":
        monkeypatch.setattr("coatcheck.core.tokens.turn_proof", _broken)
    elif where == "decode":
        monkeypatch.setattr("coatcheck.core.codec.decode", _broken)
    elif where == "size":
        target = f"/data?write=big&value={'x' * 5000}"
    caplog.clear()
    error: BaseException | None
    try:
        assert ann.get(target).status == 500
    except (BrokenError, ProbeError, DataError) as raised:
        error = raised
    else:
        (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, (BrokenError, ProbeError, DataError))
    frames = 0
    for frame in _frames(error):
        if not frame.f_code.co_filename.startswith(PACKAGE) or "/testing/" in frame.f_code.co_filename:
            continue
        frames += 1
        for name, value in frame.f_locals.items():
            if name not in WIRE:
                assert secrets.found_in(repr(value)) == set(), f"{frame.f_code.co_qualname}: {name}"
    assert frames > 0
    assert "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_the_small_cookie_holds_a_time_and_nothing_else(sealed: Builder, clock: Clock) -> None:
    house = sealed()
    ann = logged_in(house)
    clock.wind(600)
    ann.get("/me")
    text = ann.cookies[f"{COOKIE}-seen"].split(".")[4]
    assert len(text) == (12 + 16 + struct.calcsize("!d")) / 3 * 4
