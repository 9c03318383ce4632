"""The adapter journey with sealed tokens and a store: every row holds but those named here, each with its reason."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coatcheck import Key, Keyring, Sealed, SessionManager
from coatcheck.testing import Clock, Control
from coatcheck.testing.journey import AdapterJourney, House

from .stores import OnMemory, OnSqlite
from .test_journey import Asgi, StarletteInside, Wsgi

NOT_SEALED = {
    # a write needs a cookie: none can follow the start of a response, and a websocket carries none
    "test_a_background_write_is_kept": "late",
    "test_a_client_that_leaves_in_the_body_stops_nothing_that_was_stored": "late",
    "test_a_message_that_a_stream_shows_is_shown_once": "late",
    "test_a_socket_and_requests_beside_it_lose_nothing_of_each_other": "late",
    "test_a_stream_can_read_and_write_in_its_body": "late",
    "test_what_a_denied_socket_did_is_committed": "late",
    "test_what_a_socket_saves_is_kept_at_once": "late",
    "test_what_a_socket_wrote_is_kept_when_it_closes": "late",
    "test_the_cookie_goes_out_only_once": "a write is a cookie",
    # a write needs no commit, so none can fail
    "test_a_stream_whose_write_cannot_be_stored_is_a_503": "no commit",
    # promise 2: of two cookies the last one wins; of parallel counts one does, the others are refused
    "test_two_tabs_that_change_different_keys_both_win": "promise 2",
    "test_parallel_counting_loses_no_count_and_a_taken_key_goes_to_one": "promise 2",
    # promise 4: no renewal by time
    "test_a_renewal_hands_out_a_new_secret_and_the_old_one_works_for_a_while": "no renewal",
    "test_a_renewal_waits_for_an_answer_that_may_carry_it": "no renewal",
    "test_fifty_parallel_requests_at_renewal_get_one_successor": "no renewal",
    # activity is a cookie
    "test_reading_for_days_keeps_a_session_alive_without_a_cookie": "the small cookie",
    # sealed sessions have no record that another library's could become, and refuse the setting
    "test_a_login_ends_the_old_session_and_takes_what_is_carried": "row 60",
    "test_a_logout_is_final_for_the_old_cookie": "row 60",
    "test_an_old_cookies_answer_that_arrives_last_does_not_wipe_the_login": "row 60",
    "test_the_first_write_makes_the_old_session_ours": "row 60",
    "test_what_cannot_be_stored_leaves_the_old_session_where_it_is": "row 60",
    # these take an opaque token apart; tests/core/test_sealed.py and the drills D49 to D54 stand in for them
    "test_a_token_that_is_none_of_ours_is_nobody_and_is_never_answered": "the format",
    "test_login_changes_handle_and_secrets_and_the_old_session_is_dead": "the format",
    "test_nothing_stored_or_logged_lets_anybody_in": "the format",
    "test_sessions_of_one_realm_are_garbage_in_another": "the format",
}


def _only(name: str, *which: Any) -> Any:
    """Return a row of the journey with fewer cases than it has."""
    row = getattr(AdapterJourney, name)
    kept = [mark for mark in row.pytestmark if mark.name != "parametrize"]

    def fewer(self: Any, *arguments: Any, **named: Any) -> None:
        row(self, *arguments, **named)

    fewer.__name__, fewer.__doc__, fewer.__wrapped__ = name, row.__doc__, row  # type: ignore[attr-defined]
    fewer.pytestmark = [*kept, *(mark.mark for mark in which)]  # type: ignore[attr-defined]
    return fewer


ENDS = ["status=200", "status=302", "status=404", "status=500", "status=503", "then=raise"]


class Sealing:
    """Serves with sealed tokens, and leaves out what they do not promise."""

    test_what_is_kept_of_an_act_follows_the_status = _only(
        "test_what_is_kept_of_an_act_follows_the_status",
        pytest.mark.parametrize("end", ENDS),
        pytest.mark.parametrize("act", ["login", "login-others", "renew", "logout", "logout-login"]),
    )
    test_what_must_be_stored_and_cannot_is_a_503 = _only(
        "test_what_must_be_stored_and_cannot_is_a_503",
        pytest.mark.parametrize("target", ["/form", "/data?do=login", "/data?do=renew"]),
    )

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name in NOT_SEALED:
            setattr(cls, name, None)

    @pytest.fixture
    def serve(self, store: Any, clock: Clock) -> Iterator[Callable[..., House]]:
        made = []
        keys = Keyring([Key("k1", os.urandom(32))], os.urandom)

        def build(**settings: Any) -> House:
            control = Control(store, clock, SessionManager(clock=clock, sealed=Sealed(keyring=keys), **settings))
            driver = self.drive(control)  # type: ignore[attr-defined]
            made.append(driver)
            return House(control, driver)

        yield build
        for driver in made:
            driver.close()
        store.close()


class TestSealedAsgiOnMemory(Sealing, OnMemory, Asgi):
    """Raw ASGI on memory."""


class TestSealedAsgiOnSqlite(Sealing, OnSqlite, Asgi):
    """Raw ASGI on SQLite."""


class TestSealedStarletteOnMemory(Sealing, OnMemory, StarletteInside):
    """Starlette on memory."""


class TestSealedWsgiOnMemory(Sealing, OnMemory, Wsgi):
    """WSGI on memory."""


class TestSealedWsgiOnSqlite(Sealing, OnSqlite, Wsgi):
    """WSGI on SQLite."""


def test_every_row_that_is_left_out_exists() -> None:
    assert [name for name in NOT_SEALED if not callable(getattr(AdapterJourney, name, None))] == []


@pytest.fixture(params=[Asgi, Wsgi], ids=["asgi", "wsgi"])
def house(request: pytest.FixtureRequest, clock: Clock) -> Iterator[House]:
    """A sealed house behind either door."""
    from coatcheck import MemoryStore

    keys = Keyring([Key("k1", os.urandom(32))], os.urandom)
    manager = SessionManager(clock=clock, sealed=Sealed(keyring=keys))
    control = Control(MemoryStore(clock=clock), clock, manager)
    driver = request.param.drive(None, control)
    yield House(control, driver)
    driver.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("end", ENDS)
def test_a_write_goes_out_with_the_response_unless_that_is_a_5xx(house: House, end: str) -> None:
    """Row 11, for a write that is a cookie."""
    browser = house.browser()
    browser.login("alice", cart=[7])
    kept = end in ("status=200", "status=302", "status=404")
    answer = browser.post(f"/?do=write&{end}")
    assert len(answer.cookies) == kept
    assert browser.get("/data").json() == ({"cart": [7], "k": "written"} if kept else {"cart": [7]})


def test_kept_writes_go_out_with_a_5xx_too(house: House) -> None:
    browser = house.browser()
    browser.login("alice")
    assert len(browser.post("/?do=write&status=500&keep=1").cookies) == 1
    assert browser.get("/data").json() == {"k": "written"}


@pytest.mark.parametrize("target", ["/stream?body=write", "/after?act=write"])
def test_what_is_written_after_the_start_is_lost_and_said_so(
    house: House, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 18: no cookie can be sent any more."""
    browser = house.browser()
    browser.login("alice")
    browser.get(target)
    assert browser.get("/data").json() == {}
    assert "after the response started" in caplog.text


def test_a_stream_shows_what_was_written_before_it_began(house: House) -> None:
    browser = house.browser()
    browser.login("alice")
    browser.get("/stream?do=write")
    assert browser.get("/data").json() == {"k": "written"}


def test_saving_at_once_is_refused_by_name(house: House) -> None:
    browser = house.browser()
    browser.login("alice")
    answer = browser.post("/save")
    assert answer.status == 409
    assert "needs a cookie" in answer.json()["error"]


def test_a_nested_change_is_a_write(house: House) -> None:
    """Promise 10."""
    browser = house.browser()
    browser.login("alice")
    browser.post("/change?how=start")
    browser.post("/change?how=nested")
    assert browser.get("/data").json()["nested"] == {"list": [1, 2, 3]}
    assert browser.get("/data").cookies == []


def test_typed_data_travels_as_well(house: House) -> None:
    browser = house.browser()
    browser.login("alice")
    browser.post("/typed?add=3")
    browser.post("/typed?add=4")
    answer = browser.get("/typed")
    assert answer.json()["items"] == [3, 4]
    assert answer.cookies == []


def test_what_a_socket_wrote_is_lost_and_said_so(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Rows 41 and 44; what ends a session works there."""
    from coatcheck import MemoryStore

    keys = Keyring([Key("k1", os.urandom(32))], os.urandom)
    control = Control(MemoryStore(clock=clock), clock, SessionManager(clock=clock, sealed=Sealed(keyring=keys)))
    driver = Asgi().drive(control)
    browser = House(control, driver).browser()
    browser.login("alice")
    denial = browser.connect("/ws?write=x&deny=1").denial
    assert denial is not None
    assert denial.cookies == []
    assert browser.get("/data").json() == {}
    assert "by a websocket" in caplog.text
    assert browser.connect("/ws?logout=1&deny=1").denial is not None
    assert browser.get("/me").json()["why"] == "logout"
    driver.close()
