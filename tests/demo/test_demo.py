"""The Cloakroom keeps its word: flows, refusals, and what it says to whom."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from coatcheck import ConfigError, Event
from coatcheck.demo import serve, words
from coatcheck.demo.accounts import AccountError, Accounts
from coatcheck.demo.app import CLOCKS, FAST_CLOCKS
from coatcheck.demo.goods import GOODS, is_cart, lines_of, price, total_of, with_count
from coatcheck.demo.serving import greeting, listen
from coatcheck.testing.clock import Clock
from tests.demo.visiting import CHEAP, FIREFOX, PASSWORD, Visitor, cloakroom


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> Starlette:
    return cloakroom(tmp_path, clock)


@pytest.fixture
def visit(app: Starlette) -> Callable[..., Visitor]:
    return lambda agent=FIREFOX: Visitor(app, agent)


@pytest.fixture
def alice(visit: Callable[..., Visitor]) -> Visitor:
    visitor = visit()
    assert visitor.sign_up("alice").status_code == 200
    return visitor


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_who_signs_up_is_signed_in_under_another_ticket(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.see("/signup")
    before = visitor.handle
    visitor.send("/signup", name="Alice", password=PASSWORD)
    assert "Welcome, alice!" in visitor.text
    assert visitor.handle not in ("", before)


@pytest.mark.parametrize(
    ("name", "password", "sentence"),
    [
        ("alice", "short", "at least 8 characters (this one has 5)"),
        ("alice", "password", "among the first that anybody would try"),
        ("alice", "aaaaaaaaaaaa", "among the first that anybody would try"),
        ("alicealice", "AliceAlice", "among the first that anybody would try"),
        ("alice", "x" * 257, "at most 256"),
        ("", PASSWORD, "A name is 1 to 32"),
        ("<b>alice</b>", PASSWORD, "A name is 1 to 32"),
    ],
)
def test_an_account_that_cannot_be_is_refused_in_a_sentence(
    visit: Callable[..., Visitor], name: str, password: str, sentence: str
) -> None:
    visitor = visit()
    assert visitor.sign_up(name, password).status_code == 422
    assert sentence in visitor.text
    assert "<b>alice" not in visitor.page
    assert f'value="{password}"' not in visitor.page


def test_a_name_is_given_once(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    other = visit()
    assert other.sign_up("ALICE").status_code == 422
    assert "The name alice is taken" in other.text


@pytest.mark.parametrize(("name", "password"), [("alice", "three blue hats"), ("nobody", PASSWORD)])
def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(
    alice: Visitor, visit: Callable[..., Visitor], name: str, password: str
) -> None:
    visitor = visit()
    assert visitor.sign_in(name, password).status_code == 422
    assert "That is not the password that we know, or the name is another." in visitor.text


async def test_an_unknown_name_is_hashed_for_too(tmp_path: Path) -> None:
    class Counting:
        verified = 0

        def verify(self, kept: str, password: str) -> bool:
            self.verified += 1
            return CHEAP.verify(kept, password)

        hash = staticmethod(CHEAP.hash)
        check_needs_rehash = staticmethod(CHEAP.check_needs_rehash)

    hasher = Counting()
    accounts = Accounts(tmp_path / "accounts.db", hasher)
    await accounts.create("alice", PASSWORD)
    assert await accounts.verify("Alice", PASSWORD) == "alice"
    assert await accounts.verify("bob", PASSWORD) is None
    assert hasher.verified == 2


async def test_a_password_is_kept_as_its_hash_only(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.db", CHEAP)
    await accounts.create("alice", PASSWORD)
    kept = (tmp_path / "accounts.db").read_bytes()
    assert PASSWORD.encode() not in kept
    assert b"$argon2id$" in kept
    assert (tmp_path / "accounts.db").stat().st_mode & 0o077 == 0


async def test_a_bad_password_is_refused_at_a_change_too(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.db", CHEAP)
    with pytest.raises(AccountError, match="at least 8"):
        await accounts.change_password("alice", "short")


# -- cart and order ----------------------------------------------------------------------------------------------------


def test_the_cart_survives_the_login(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.see("/")
    visitor.send("/cart", good="trench")
    visitor.send("/cart", good="trench")
    visitor.sign_up("alice")
    visitor.see("/cart")
    assert "The Turncoat" in visitor.text
    assert "€ 498.00" in visitor.text


@pytest.mark.parametrize("planted", [{"trench": 1000}, {"trench": "1"}, {"gold": 1}, ["trench"], {"trench": True}])
def test_a_planted_cart_is_no_cart(planted: object) -> None:
    assert not is_cart(planted)


def test_the_arithmetic_of_a_cart() -> None:
    cart = with_count(with_count({}, "bowler", 2), "beanie", 99)
    assert cart == {"bowler": 2, "beanie": 9}
    assert with_count(cart, "beanie", 0) == {"bowler": 2}
    assert total_of(lines_of(cart)) == 2 * GOODS["bowler"].cents + 9 * GOODS["beanie"].cents
    assert total_of(lines_of({"bowler": 1}), 10) == 8010
    assert price(8010) == "€ 80.10"


def test_what_is_not_on_the_rail_cannot_be_bought(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.see("/")
    assert visitor.send("/cart", good="gold").status_code == 404
    visitor.see("/")
    assert visitor.send("/cart", good="trench", count="-1").status_code == 404


def test_an_order_takes_the_cart_and_the_welcome_ticket_once(alice: Visitor) -> None:
    alice.see("/")
    alice.send("/cart", good="bowler")
    alice.see("/checkout")
    token = alice.csrf
    alice.send("/checkout")
    assert "Paid € 80.10" in alice.text
    alice.send("/checkout", csrf=token)
    assert "That order was placed already" in alice.text
    alice.see("/")
    alice.send("/cart", good="bowler")
    alice.see("/checkout")
    alice.send("/checkout")
    assert "Paid € 89.00" in alice.text


def test_paying_asks_an_anonymous_visitor_to_sign_in_and_comes_back(
    alice: Visitor, visit: Callable[..., Visitor]
) -> None:
    visitor = visit()
    visitor.see("/")
    visitor.send("/cart", good="beanie")
    response = visitor.see("/checkout")
    assert str(response.url).endswith("/login?next=/checkout")
    response = visitor.send("/login", name="alice", password=PASSWORD, next="/checkout")
    assert response.url.path == "/checkout"
    assert "The Warm Cache" in visitor.text


def test_who_is_only_remembered_must_show_the_password_to_pay(visit: Callable[..., Visitor], clock: Clock) -> None:
    visitor = visit()
    visitor.sign_up("alice", remember="1")
    visitor.see("/")
    visitor.send("/cart", good="beanie")
    clock.wind(3 * 86400)
    visitor.see("/cart")
    assert "The Warm Cache" in visitor.text
    assert "remembered" in visitor.text
    response = visitor.see("/checkout")
    assert response.url.path == "/login"
    assert "Is it still you, alice?" in visitor.text
    visitor.send("/login", name="alice", password=PASSWORD, next="/checkout")
    assert "The Warm Cache" in visitor.text
    assert "Proved by a password" in visitor.text


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_the_page_lists_each_device_and_marks_this_one(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    phone = visit("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile/15E148 Safari/604.1")
    phone.sign_in("alice", remember="1")
    alice.see("/sessions")
    assert re.search(r"Firefox on Linux this one .*Safari on iPhone|Safari on iPhone remembered .*this one", alice.text)
    assert alice.page.count("this one") == 1
    assert f'title="{FIREFOX}"' in alice.page


def test_ending_one_session_tells_its_browser_why(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    phone = visit()
    phone.sign_in("alice")
    alice.see("/sessions")
    alice.send("/sessions/end", handle=phone.handle)
    assert "That session is ended" in alice.text
    phone.see("/sessions")
    assert "Ended from another device" in phone.text
    assert phone.see("/").headers.get("set-cookie") is None
    phone.send("/logout")
    assert "A fresh start" in phone.text
    phone.send("/cart", good="beanie")
    assert "is in your cart" in phone.text


def test_a_handle_of_somebody_else_is_not_found(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    bob = visit()
    bob.sign_up("bob")
    alice.see("/sessions")
    token = alice.csrf
    assert alice.send("/sessions/end", csrf=token, handle=bob.handle).status_code == 404
    assert alice.send("/sessions/end", csrf=token, handle="x" * 18).status_code == 404
    assert alice.send("/sessions/end", csrf=token, handle="").status_code == 404
    bob.see("/sessions")
    assert "Your sessions" in bob.text
    assert alice.handle not in bob.page


def test_one_may_end_all_the_others(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    others = [visit(), visit()]
    for other in others:
        other.sign_in("alice")
    alice.see("/sessions")
    alice.send("/sessions/end-others")
    assert alice.page.count("Ticket no.") == 2  # the strip and the one that is left
    for other in others:
        other.see("/")
        assert "Ended from another device" in other.text


def test_ending_this_one_signs_out(alice: Visitor) -> None:
    alice.see("/sessions")
    alice.send("/sessions/end", handle=alice.handle)
    assert "You are signed out" in alice.text


def test_signing_out_everywhere_ends_all(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    other = visit()
    other.sign_in("alice")
    alice.see("/sessions")
    alice.send("/logout", everywhere="1")
    assert "signed out everywhere" in alice.text
    other.see("/")
    assert "You signed out" in other.text


def test_a_changed_password_ends_the_others_and_moves_this_one(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    other = visit()
    other.sign_in("alice")
    before = alice.handle
    alice.see("/password")
    alice.send("/password", password="four green hats", again="four green hats")
    assert "Your password is changed" in alice.text
    assert alice.handle not in ("", before)
    other.see("/")
    assert "The password was changed" in other.text
    assert visit().sign_in("alice").status_code == 422
    assert visit().sign_in("alice", "four green hats").status_code == 200


def test_a_changed_password_keeps_a_remembered_session_remembered(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.sign_up("alice", remember="1")
    visitor.see("/password")
    visitor.send("/password", password="four green hats", again="four green hats")
    assert ">remembered<" in visitor.page


@pytest.mark.parametrize(
    ("password", "again", "sentence"),
    [("short", "short", "at least 8"), ("four green hats", "four green cats", "The two are not the same")],
)
def test_a_bad_new_password_is_refused(alice: Visitor, password: str, again: str, sentence: str) -> None:
    alice.see("/password")
    assert alice.send("/password", password=password, again=again).status_code == 422
    assert sentence in alice.text


def test_changing_the_password_needs_a_recent_login_and_comes_back(alice: Visitor, clock: Clock) -> None:
    clock.wind(301)
    response = alice.see("/password")
    assert str(response.url).endswith("/login?next=/password")
    assert "Is it still you, alice?" in alice.text
    before = alice.handle
    # the name in the form is decoration: it is this session's subject who is asked
    assert alice.send("/login", name="bob", password="wrong password").status_code == 422
    response = alice.send("/login", name="bob", password=PASSWORD, next="/password")
    assert response.url.path == "/password"
    assert alice.handle != before


def test_a_form_that_was_open_too_long_leads_back_to_itself(alice: Visitor, clock: Clock) -> None:
    alice.see("/password")
    clock.wind(301)
    response = alice.send("/password", password="four green hats", again="four green hats")
    assert str(response.url).endswith("/login?next=/password")


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_status_counts_down_and_asking_keeps_nothing_alive(alice: Visitor, clock: Clock) -> None:
    for _ in range(5):
        clock.wind(179)
        status = alice.see("/session/status").json()
        assert status["alive"]
    assert status["idle_left"] == 5
    assert status["left"] == CLOCKS.absolute - 5 * 179
    clock.wind(6)
    status = alice.see("/session/status").json()
    assert not status["alive"]
    assert status["title"] == "You were away"
    assert "15 minutes" in status["text"]


def test_i_am_still_here_is_activity(alice: Visitor, clock: Clock) -> None:
    alice.see("/sessions")
    clock.wind(800)
    assert alice.client.post("/session/stay", data={"csrf": alice.csrf}, headers={"x-asked-by": "script"}).text == ""
    clock.wind(800)
    assert alice.see("/session/status").json()["alive"]
    alice.see("/sessions")
    assert alice.send("/session/stay", next="/trail").url.path == "/trail"


def test_after_silence_the_next_page_says_why_and_one_can_sign_in_again(alice: Visitor, clock: Clock) -> None:
    clock.wind(901)
    alice.see("/")
    assert "You were away" in alice.text
    assert "Start afresh" in alice.text
    assert alice.send("/sessions/end-others").status_code == 403
    assert "belonged to a ticket that is void" in alice.text
    assert alice.sign_in("alice").status_code == 200
    assert "Welcome back, alice." in alice.text


def test_a_void_ticket_may_begin_a_new_cart(alice: Visitor, clock: Clock) -> None:
    alice.see("/")
    alice.send("/cart", good="trench")
    clock.wind(901)
    before = alice.handle
    alice.see("/")
    alice.send("/cart", good="beanie")
    assert "You were away, so this is a new cart. The Warm Cache is in your cart." in alice.text
    assert "Cart (1)" in alice.text
    assert alice.handle not in ("", before)
    assert "alice" not in alice.page


def test_the_absolute_timeout_is_told_apart(alice: Visitor, clock: Clock) -> None:
    for _ in range(49):
        clock.wind(600)
        alice.see("/trail")
    assert "does not last for ever" in alice.text


def test_a_replayed_ticket_ends_the_session_for_both_and_says_so(tmp_path: Path, clock: Clock) -> None:
    app = cloakroom(tmp_path, clock, timeouts=FAST_CLOCKS)
    alice, thief = Visitor(app), Visitor(app, "curl/8.5.0")
    alice.sign_up("alice")
    thief.client.cookies = dict(alice.client.cookies)
    for _ in range(3):
        clock.wind(31)
        alice.see("/trail")
        alice.see("/trail")
    assert "The secret was replaced" in alice.text
    thief.see("/trail")
    assert "Somebody else had a copy of this ticket" in thief.text
    alice.see("/trail")
    assert "Somebody else had a copy of this ticket" in alice.text
    alice.sign_in("alice")
    alice.see("/trail")
    assert "An old secret was replayed" in alice.text
    assert "came from curl" in alice.text


def test_a_ticket_that_nobody_issued_can_be_handed_back(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.client.cookies.set("__Host-coat", f"c1.{'x' * 18}.{'y' * 24}.{'z' * 24}", domain="testserver.local")
    assert visitor.see("/").headers.get("set-cookie") is None
    assert "does not know this ticket" in visitor.text
    visitor.send("/logout")
    assert "A fresh start" in visitor.text


# -- what just happened ------------------------------------------------------------------------------------------------


def test_the_trail_tells_the_story_and_shows_no_secret(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.see("/trail")
    assert "You have no session" in visitor.text
    assert visitor.ticket == ""
    visitor.see("/")
    first = visitor.handle
    visitor.see("/trail")
    assert "A first ticket was written" in visitor.text
    visitor.sign_up("alice")
    visitor.see("/trail")
    assert f"The one before it ({first}) ended" in visitor.text
    for title in ("alice signed in", "A new ticket was written", "A first ticket was written", "family_proof"):
        assert title in visitor.text
    handle, family, turn = visitor.ticket.split(".")[1:]
    assert handle in visitor.page
    assert family not in visitor.page
    assert turn not in visitor.page


@pytest.mark.parametrize(
    ("name", "detail", "title"),
    [
        ("session_renewed", {"instead_of": "abc"}, "Moved to a new ticket"),
        ("session_logout", {}, "Signed out"),
        ("session_revoked", {"reason": "owner", "actor": "alice"}, "Ended: ended from another device"),
        ("session_token_reuse", {"kind": "straggler"}, "A late request"),
        ("session_use_after_expire", {"because": "idle"}, "An ended ticket was presented"),
        ("sessions_revoked", {"reason": "operator"}, "Many tickets were ended at once"),
        ("excess_sessions_exceeded", {"most": 8}, "One ticket too many"),
        ("session_write_dropped", {}, "A write came too late"),
        ("something_new", {}, "Something new"),
    ],
)
def test_every_event_has_its_words(name: str, detail: dict[str, str], title: str) -> None:
    assert words.story(Event(name=name, at=0.0, detail=detail), CLOCKS).title == title


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert "“moved”" in words.why("moved", CLOCKS).text


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/150.0 Safari/537.36 Edg/150.0", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 16) Chrome/150.0 Mobile Safari/537.36", "Chrome on Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 15_0) Version/19.0 Safari/605.1.15", "Safari on macOS"),
        ("curl/8.5.0", "curl"),
        ("<script>alert(1)</script>", "an unknown browser"),
        (None, "an unnamed browser"),
    ],
)
def test_a_device_is_named_in_two_words(agent: str | None, shown: str) -> None:
    assert words.device(agent) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "a moment"), (1, "1 second"), (90, "1.5 minutes"), (86400, "1 day"), (1e6, "11.6 days")],
)
def test_a_duration_in_words(seconds: float, shown: str) -> None:
    assert words.span(seconds) == shown


def test_a_hostile_user_agent_is_only_text(visit: Callable[..., Visitor]) -> None:
    visitor = visit('"><script>alert(1)</script>')
    visitor.sign_up("alice")
    for path in ("/sessions", "/trail"):
        visitor.see(path)
        assert "<script>alert" not in visitor.page


# -- refusals ----------------------------------------------------------------------------------------------------------

POSTS = [
    "/cart",
    "/checkout",
    "/password",
    "/sessions/end",
    "/sessions/end-others",
    "/session/stay",
    "/logout",
    "/login",
]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("token", ["", "m." + "A" * 344, "another session's"])
def test_a_form_without_this_sessions_token_is_refused(
    alice: Visitor, visit: Callable[..., Visitor], path: str, token: str
) -> None:
    other = visit()
    other.see("/login")
    alice.see("/sessions")
    response = alice.send(path, csrf=other.csrf if token == "another session's" else token, password=PASSWORD)
    assert response.status_code == 403
    assert "Nothing was changed" in alice.text
    assert alice.see("/sessions").status_code == 200


def test_a_form_from_another_site_is_refused_whatever_it_carries(alice: Visitor) -> None:
    alice.see("/sessions")
    hostile = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    response = alice.client.post("/sessions/end-others", data={"csrf": alice.csrf}, headers=hostile)
    assert response.status_code == 403
    assert "set-cookie" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_browser_without_cookies_is_told_so(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    assert visitor.send("/cart", good="beanie").status_code == 403
    assert "Does it refuse cookies?" in visitor.text


ELSEWHERE = (
    *("//evil.example", "/\\evil.example", "https://evil.example/", "evil.example", "javascript:alert(1)", ""),
    *("/\t/evil.example", "/a\nb", "/login", "/logout?x", "/" + "a" * 3000, "\\\\evil.example"),
)


def test_only_our_own_pages_come_next(visit: Callable[..., Visitor]) -> None:
    visitor, shown = visit(), re.compile(r'name="next" value="([^"]*)"').search
    for target in (*ELSEWHERE, "/cart", "/password?x=1"):
        visitor.see("/login", params={"next": target})
        found = shown(visitor.page.partition("<main")[2])
        assert found is not None
        assert found.group(1) == ("/" if target in ELSEWHERE else target)


def test_a_login_leads_nowhere_else(alice: Visitor, visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.see("/login?next=//evil.example")
    assert "evil.example" not in visitor.page
    response = visitor.send("/login", name="alice", password=PASSWORD, next="//evil.example/x")
    assert str(response.url) == "https://testserver/"


def test_a_foreign_host_is_not_answered(app: Starlette) -> None:
    visitor = Visitor(app)
    response = visitor.see("/", headers={"host": "evil.test"})
    assert response.status_code == 421
    assert "Cloakroom" not in response.text


@pytest.mark.parametrize("path", ["/", "/login", "/trail", "/nothing", "/session/status", "/static/cloakroom.css"])
def test_every_response_wears_the_security_headers(visit: Callable[..., Visitor], path: str) -> None:
    headers = visit().see(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/static/nothing", 404), ("/session/stay", 405)])
def test_what_is_not_there_is_said_so(visit: Callable[..., Visitor], path: str, status: int) -> None:
    visitor = visit()
    assert visitor.see(path).status_code == status


def test_pages_of_a_subject_ask_for_a_login(visit: Callable[..., Visitor]) -> None:
    for path in ("/sessions", "/password", "/receipt"):
        assert visit().see(path).url.path == "/login"


def test_nothing_to_check_out_and_no_receipt_lead_to_the_cart(alice: Visitor) -> None:
    assert alice.see("/checkout").url.path == "/cart"
    assert alice.see("/receipt").url.path == "/cart"


# -- serving -----------------------------------------------------------------------------------------------------------


def test_a_taken_port_gives_way_to_the_next() -> None:
    with listen("127.0.0.1", 0) as first:
        taken = first.getsockname()[1]
        with listen("127.0.0.1", taken) as second:
            assert second.getsockname()[1] > taken


def test_only_this_machine_is_served() -> None:
    with pytest.raises(ConfigError, match="for this machine only"):
        listen("0.0.0.0", 8000)
    with pytest.raises(ConfigError, match="a port is a number"):
        listen("127.0.0.1", 70000)


def test_a_port_that_may_not_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigError, match=r"port 80 or the 19 after it \(Permission denied\)"):
        listen("127.0.0.1", 80)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*missing/coatcheck-demo.db \(No such file or directory\)"):
        serve(folder=tmp_path / "missing", port=0)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "coatcheck-demo.db").write_bytes(b"this is a shopping list\n" * 100)
    with pytest.raises(ConfigError, match=r"coatcheck-demo.db \(file is not a database\)"):
        serve(folder=tmp_path, port=0)


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "a folder? 100%"
    folder.mkdir()
    program = f"from pathlib import Path; from coatcheck.demo import serve; serve(port=0, folder=Path({str(folder)!r}))"
    serving = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    try:
        url = serving.stdout.readline().split()[-1]
        assert "Hang up your coat" in httpx2.get(url).text
        assert httpx2.get(url, headers={"host": "evil.test"}).status_code == 421
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=20)
    assert serving.returncode == 0
    assert [path.name for path in folder.glob("*.db")] == ["coatcheck-demo.db"]


def test_the_greeting_names_the_place_and_three_things_to_try(tmp_path: Path) -> None:
    shown = greeting("http://127.0.0.1:8001/", tmp_path / "coatcheck-demo.db", asked=8000, found=8001, fast=True)
    assert "http://127.0.0.1:8001/" in shown
    assert "port 8000 is taken" in shown
    assert "60 seconds" in shown
    assert "  3. " in shown
    assert "15 minutes" in greeting("http://x/", tmp_path, asked=8000, found=8000, fast=False)
