"""Rows of the journey about data: when a session comes to be, what is kept, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from .needs import needs
from .probe import CHANGES, LOOKS, Cart

if TYPE_CHECKING:
    from .journey import House

START = {"nested": {"list": [1, 2]}, "gone": "soon", "same": 1}

CHANGED: dict[str, dict[str, Any]] = {
    "nested": {"nested": {"list": [1, 2, 3]}, "gone": "soon", "same": 1},
    "pop": {"nested": {"list": [1, 2]}, "same": 1},
    "popitem": {},
    "del": {"nested": {"list": [1, 2]}, "same": 1},
    "setdefault": START | {"default": [1]},
    "overlay": START | {"overlaid": 1},
    "update": START | {"same": 2},
    "clear": {},
}


class DataRows:
    """Rows 1 to 4, 26, 46 to 48 and 50."""

    @pytest.mark.parametrize("path", ["/", "/nowhere"])
    def test_a_page_that_does_not_look_costs_nothing(self, house: House, path: str) -> None:
        """Row 1."""
        answer = house.browser().get(path)
        assert answer.cookies == []
        assert answer.header("vary") is None
        assert house.trouble.calls == []

    def test_a_page_that_does_not_look_is_the_same_for_who_has_a_session(self, house: House) -> None:
        """Row 1, with a cookie: an asset of a logged-in user stays cacheable for all."""
        browser = house.browser()
        browser.login()
        answer = browser.get("/", site="none")
        assert (answer.cookies, answer.header("vary"), answer.header("cache-control")) == ([], None, None)

    @pytest.mark.parametrize("how", LOOKS)
    def test_every_look_at_a_session_makes_the_page_vary_and_stores_nothing(self, house: House, how: str) -> None:
        """Row 2."""
        answer = house.browser().get(f"/look?how={how}")
        assert answer.status == 200
        assert answer.header("vary") == "Cookie"
        assert answer.cookies == []
        assert house.control.records() == []

    def test_the_first_write_makes_one_record_and_one_cookie(self, house: House) -> None:
        """Row 3."""
        browser = house.browser()
        answer = browser.get("/data?write=k&value=v&status=303&header=location:/data")
        assert len(answer.cookies) == 1
        assert answer.header("cache-control") == "no-store"
        assert answer.header("vary") == "Cookie"
        assert len(house.control.records()) == 1
        assert browser.get("/data").json() == {"k": "v"}
        assert len(house.control.records()) == 1

    def test_the_cookie_goes_out_only_once(self, house: House) -> None:
        """Row 3, the requests after it."""
        browser = house.browser()
        browser.get("/data?write=k")
        assert browser.get("/data").cookies == []
        assert browser.get("/data?write=k&value=2").cookies == []

    def test_the_table_of_changes_is_whole(self) -> None:
        """Row 4, its table."""
        assert set(CHANGED) == set(CHANGES) - {"start"}

    @pytest.mark.parametrize("how", CHANGED)
    def test_every_change_is_kept(self, house: House, how: str) -> None:
        """Row 4."""
        browser = house.browser()
        browser.post("/change?how=start")
        here = browser.post(f"/change?how={how}").json()
        there = browser.get("/data").json()
        assert there == here
        if how != "popitem":
            assert there == CHANGED[how]
        else:
            assert len(there) == len(START) - 1

    def test_data_can_be_replaced_as_a_whole(self, house: House) -> None:
        """Row 4, `replace`."""
        browser = house.browser()
        browser.post("/change?how=start")
        browser.post("/replace", json={"only": [1]})
        assert browser.get("/data").json() == {"only": [1]}

    def test_two_tabs_that_change_different_keys_both_win(self, house: House) -> None:
        """Row 26."""
        browser = house.browser()
        browser.get("/data?write=a&value=0")
        slow = browser.start("GET", "/data?write=b&value=slow&hold=tab")
        house.control.gate("tab").wait_until_reached()
        browser.get("/data?write=c&value=fast")
        house.control.gate("tab").open()
        assert slow.land().status == 200
        assert browser.get("/data").json() == {"a": "0", "b": "slow", "c": "fast"}

    def test_of_two_tabs_that_change_the_same_key_the_later_commit_wins(self, house: House) -> None:
        """Row 26, the same key."""
        browser = house.browser()
        browser.get("/data?write=a&value=0")
        slow = browser.start("GET", "/data?write=a&value=slow&hold=tab")
        house.control.gate("tab").wait_until_reached()
        browser.get("/data?write=a&value=fast")
        house.control.gate("tab").open()
        slow.land()
        assert browser.get("/data").json() == {"a": "slow"}

    def test_parallel_counting_loses_no_count_and_a_taken_key_goes_to_one(self, house: House) -> None:
        """Row 26, what must happen once."""
        browser = house.browser()
        browser.get("/data?write=prize&value=gold")
        counting = [browser.start("POST", "/bump?key=n&hold=count") for _ in range(8)]
        house.control.gate("count").wait_until_reached(8)
        house.control.gate("count").open()
        assert sorted(one.land().json()["count"] for one in counting) == list(range(1, 9))
        taking = [browser.start("POST", "/take?key=prize&hold=take") for _ in range(8)]
        house.control.gate("take").wait_until_reached(8)
        house.control.gate("take").open()
        assert [one.land().json()["taken"] for one in taking].count("gold") == 1

    def test_ten_parallel_first_looks_store_nothing(self, house: House) -> None:
        """Row 2 (F42)."""
        looking = [house.browser().start("GET", "/look?how=get&hold=first") for _ in range(10)]
        house.control.gate("first").wait_until_reached(10)
        house.control.gate("first").open()
        assert [one.land().cookies for one in looking] == [[]] * 10
        assert house.control.records() == []

    def test_typed_data_is_kept_and_an_untouched_default_is_no_write(self, serve: Callable[..., House]) -> None:
        """Row 46."""
        house = serve(data=Cart)
        browser = house.browser()
        assert browser.get("/typed").cookies == []
        assert house.control.records() == []
        assert browser.post("/typed?add=7").json()["items"] == [7]
        assert browser.get("/typed").json()["items"] == [7]

    def test_stored_data_of_another_shape_is_no_session_and_is_told(self, serve: Callable[..., House]) -> None:
        """Row 46, invalid stored data."""
        plain, typed = serve(), serve(data=Cart)
        browser = plain.browser()
        browser.post("/replace", json={"items": "not a list"})
        answer = browser.get("/typed")
        assert answer.status == 500  # the untyped application meets it only where it looks
        typed_browser = typed.browser()
        typed_browser.jar = dict(browser.jar)
        answer = typed_browser.get("/typed")
        assert (answer.status, answer.json()["items"], answer.cookies) == (200, [], [])
        assert len(typed.control.events("session_unreadable")) == 1

    @pytest.mark.parametrize("first", ["/", "/data?write=a"])
    def test_a_value_that_cannot_be_kept_is_named_and_nothing_is_stored(self, house: House, first: str) -> None:
        """Row 47."""
        browser = house.browser()
        browser.get(first)
        before = house.control.dump()
        answer = browser.get("/?do=unkeepable")
        assert answer.status == 500
        assert answer.cookies == []
        error = answer.error
        while isinstance(error, BaseExceptionGroup):  # Quart, from 0.23 on
            (error,) = error.exceptions
        if error is not None:
            assert "'k'" in str(error)
            assert "object" in str(error)
        assert house.control.dump() == before

    def test_a_message_is_shown_once(self, house: House) -> None:
        """Row 50."""
        browser = house.browser()
        browser.get("/?do=flash&status=303")
        assert browser.get("/data?do=read").json() == {"flashes": ["saved"]}
        browser.get("/data?do=flashes")
        assert browser.get("/data").json() == {}

    @needs("stream")
    def test_a_message_that_a_stream_shows_is_shown_once(self, house: House) -> None:
        """Row 50, in a stream."""
        browser = house.browser()
        browser.get("/data?write=k&value=note")
        browser.get("/stream?body=pop")
        assert browser.get("/data").json() == {}

    def test_a_messages_survives_the_login_that_names_it(self, serve: Callable[..., House]) -> None:
        """Row 50, over a login."""
        browser = serve(carry={"flashes"}).browser()
        browser.get("/?do=flash")
        browser.login()
        assert browser.get("/data").json() == {"flashes": ["saved"]}

    def test_cookie_and_record_agree_on_how_long(self, house: House) -> None:
        """Row 48."""
        browser = house.browser()
        plain = browser.login()
        assert "Max-Age" not in plain.cookies[0]
        assert not house.control.records()[-1].persistent
        kept = browser.login(remember=True)
        record = house.control.records(live=True)[-1]
        assert f"Max-Age={int(record.expires_at - house.clock())}" in kept.cookies[0]
        assert record.persistent

    @pytest.mark.parametrize(("act", "remember", "lasts"), [("browser-only", True, False), ("persistent", False, True)])
    def test_a_handler_chooses_whether_the_cookie_outlives_the_browser(
        self, house: House, act: str, remember: bool, lasts: bool
    ) -> None:
        """Row 48: the same with whatever cookie comes next."""
        browser = house.browser()
        browser.login(remember=remember)
        browser.post(f"/?do={act}")
        house.clock.wind(16 * 60)
        renewed = browser.get("/me")
        assert ("Max-Age" in renewed.cookies[0]) is lasts
        assert house.control.records(live=True)[-1].persistent is lasts

    def test_a_handler_may_shorten_a_session(self, house: House) -> None:
        """Row 48, `lasting(idle=60)`."""
        browser = house.browser()
        browser.login()
        browser.post("/?do=lasting")
        house.clock.wind(59)
        assert browser.get("/me").status == 200
        browser.post("/data?write=k")
        house.clock.wind(61)
        assert browser.get("/me").json() == {"error": "anonymous", "why": "idle"}

    def test_reading_for_days_keeps_a_session_alive_without_a_cookie(self, serve: Callable[..., House]) -> None:
        """Row 48 (F29): idle is judged in the record, the cookie is not sent again for it."""
        house = serve(timeouts=_lasting())
        browser = house.browser()
        browser.login()
        for _ in range(26):
            house.clock.wind(43_200)
            answer = browser.get("/me")
            assert (answer.status, answer.cookies) == (200, [])


def _lasting() -> Any:
    from ..core.policies import Timeouts

    return Timeouts(idle=86_400.0, absolute=30 * 86_400.0, renew=None)
