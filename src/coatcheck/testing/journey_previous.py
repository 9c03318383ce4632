"""Rows of the journey about the day of the change: browsers come with the cookie of the library before ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ..core.legacy import AS_SET, Old, Shown, Source
from ..core.model import Level, Record

if TYPE_CHECKING:
    from .browser import Browser, Received
    from .clock import Clock
    from .journey import House

OLD = "previous"
MONTH = 30 * 86400.0


class PreviousLibrary(Source):
    """A library whose cookie names a session in its own store; told to forget one, it notes what we have by then."""

    library: ClassVar[str] = "previous"

    def __init__(self, clock: Clock) -> None:
        """Begin with an empty store."""
        until = datetime.fromtimestamp(clock() + MONTH, UTC)
        super().__init__(cookie=OLD, subject="user", until=until, attributes=AS_SET, lifetime=None)
        self.kept: dict[str, Old] = {}
        self.witness: Callable[[], list[Record]] = list
        self.witnessed: list[list[Record]] = []
        self._clock, self._numbers = clock, count()

    def begun(self, **data: Any) -> str:
        """Begin a session; return what its browser has in the cookie."""
        key = f"key-{next(self._numbers)}"
        self.kept[key] = Old(data, self._clock() - 60, self._clock() + MONTH)
        return key

    def read(self, value: bytes, now: float) -> Shown | None:
        """Return the key that a cookie names."""
        return self.of_key(value.decode("latin-1"))

    def fetch(self, key: str, now: float) -> Old | None:
        """Return a session."""
        return self.kept.get(key)

    def forget(self, key: str) -> None:
        """Delete a session."""
        self.witnessed.append(self.witness())
        self.kept.pop(key, None)


class PreviousRows:
    """Row 60: what rows 3, 7, 9, 10 and 24 say, of a browser with the old cookie and none of ours."""

    @pytest.fixture
    def previous(self, clock: Clock) -> PreviousLibrary:
        """Return the library that was there before."""
        return PreviousLibrary(clock)

    @pytest.fixture
    def moved(self, serve: Callable[..., House], previous: PreviousLibrary) -> House:
        """Return the application, the day after the change."""
        house = serve(legacy=[previous], carry={"cart"})
        previous.witness = lambda: _sessions(house)
        return house

    def test_the_first_write_makes_the_old_session_ours(self, moved: House, previous: PreviousLibrary) -> None:
        """Rows 60 and 3: a record, our cookie, the data of both; the old copy went when ours was stored."""
        browser = _comes(moved, previous, cart=[7])
        answer = browser.get("/data?write=k&value=v")
        assert _set(answer) == [browser.cookie, f"{OLD} gone"]
        assert answer.header("cache-control") == "no-store"
        assert browser.jar.keys() == {browser.cookie}
        assert browser.get("/data").json() == {"cart": [7], "k": "v"}
        assert [len(records) for records in previous.witnessed] == [1]
        assert previous.kept == {}
        assert len(_sessions(moved)) == 1

    def test_what_cannot_be_stored_leaves_the_old_session_where_it_is(
        self, moved: House, previous: PreviousLibrary
    ) -> None:
        """Rows 60 and 3: a 503 takes nothing from a browser, and the next request makes it good."""
        browser = _comes(moved, previous, user="ann", cart=[7])
        moved.trouble.fail("commit")
        answer = browser.get("/data?write=k")
        assert (answer.status, answer.cookies) == (503, [])
        assert previous.witnessed == []
        assert len(previous.kept) == 1
        moved.trouble.fail(None)
        assert browser.get("/me").json()["user"] == "ann"
        assert browser.get("/data").json() == {"user": "ann", "cart": [7]}
        assert previous.kept == {}

    def test_a_login_ends_the_old_session_and_takes_what_is_carried(
        self, moved: House, previous: PreviousLibrary
    ) -> None:
        """Rows 60 and 7: a new session, surer than the old one; the old cookie opens nothing any more."""
        browser = _comes(moved, previous, cart=[7], theme="dark")
        before = browser.twin()
        answer = browser.login()
        assert _set(answer) == [browser.cookie, f"{OLD} gone"]
        assert browser.jar.keys() == {browser.cookie}
        shown = browser.get("/me").json()
        assert (shown["user"], shown["level"]) == ("alice", Level.AAL1)
        assert browser.get("/data").json() == {"cart": [7]}
        assert [len(records) for records in previous.witnessed] == [1]
        late = before.get("/me")
        assert (late.status, late.cookies) == (401, [])
        assert before.get("/data").json() == {}

    @pytest.mark.parametrize("end", ["", "?then=raise", "?status=503"])
    def test_a_logout_is_final_for_the_old_cookie(self, moved: House, previous: PreviousLibrary, end: str) -> None:
        """Rows 60, 9 and 10: whatever becomes of the response, and though the old store may have kept its copy."""
        browser = _comes(moved, previous, user="ann")
        before, copies = browser.twin(), dict(previous.kept)
        answer = browser.post(f"/logout{end}")
        if end == "":
            assert f"{OLD} gone" in _set(answer)
            assert browser.jar == {}
        assert [one.ended_because for one in _sessions(moved)] == ["logout"]
        previous.kept.update(copies)
        for _ in range(2):
            late = before.get("/me")
            assert (late.status, late.cookies) == (401, [])
            moved.clock.wind(301)
        assert len(_sessions(moved)) == 1

    @pytest.mark.parametrize("slow", ["/me", "/data?write=slow"])
    def test_an_old_cookies_answer_that_arrives_last_does_not_wipe_the_login(
        self, moved: House, previous: PreviousLibrary, slow: str
    ) -> None:
        """Rows 60 and 24 (F2): the slow request took the session over, and its answer would bring that one's cookie."""
        browser = _comes(moved, previous, cart=[7])
        before = browser.twin()
        flight = browser.start("GET", f"{slow}{'&' if '?' in slow else '?'}hold=slow")
        moved.control.gate("slow").wait_until_reached()
        browser.login()
        moved.control.gate("slow").open()
        assert flight.land().cookies == []
        assert browser.get("/me").json()["user"] == "alice"
        assert before.start("GET", "/me").wait().cookies == []


def _comes(house: House, previous: PreviousLibrary, **data: Any) -> Browser:
    """Return a browser that knows the old application only."""
    browser = house.browser()
    browser.jar[OLD] = previous.begun(**data)
    return browser


def _set(answer: Received) -> list[str]:
    """Return the names of the cookies that an answer sets, and of those that it takes away."""
    lines = [line.split("; ") for line in answer.cookies]
    return [f"{pair.partition('=')[0]}{' gone' * ('Max-Age=0' in rest)}" for pair, *rest in lines]


def _sessions(house: House) -> list[Record]:
    """Return our sessions, without the marks of what was taken over."""
    return [record for record in house.control.records() if record.realm == house.control.manager.realm]
