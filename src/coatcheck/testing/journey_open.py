"""Rows of the journey about what stays open: websockets and event streams, and what ends them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from .drivers import until
from .needs import needs

if TYPE_CHECKING:
    from .journey import House

ENDED = 4401
SOON = 1.0


class OpenRows:
    """Rows 41 and 43 to 45; row 42 stands with the site's."""

    @needs("socket")
    def test_a_socket_has_the_session_of_its_handshake(self, house: House) -> None:
        """Row 41."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        socket.send("hello")
        assert socket.receive() == "alice: hello"
        socket.close()

    @needs("socket")
    def test_what_a_socket_saves_is_kept_at_once(self, house: House) -> None:
        """Row 41."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        socket.send("save now")
        socket.receive()
        assert browser.get("/data").json() == {"ws": "now"}
        socket.close()

    @needs("socket")
    def test_what_a_socket_wrote_is_kept_when_it_closes(self, house: House) -> None:
        """Row 41."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        socket.send("write later")
        socket.receive()
        assert browser.get("/data").json() == {}
        socket.close()
        assert browser.get("/data").json() == {"ws": "later"}

    @needs("socket")
    def test_a_socket_and_requests_beside_it_lose_nothing_of_each_other(self, house: House) -> None:
        """Row 41, with row 26."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        browser.get("/data?write=k")
        socket.send("save now")
        socket.receive()
        browser.get("/data?write=l")
        socket.close()
        assert browser.get("/data").json() == {"k": "1", "l": "1", "ws": "now"}

    @needs("socket")
    def test_a_socket_logs_nobody_in(self, house: House) -> None:
        """Row 41: it has no cookie to hand out."""
        browser = house.browser()
        socket = browser.connect("/ws")
        socket.send("login")
        assert socket.receive() == "None: SettledError"
        socket.close()
        assert house.control.records() == []

    @needs("socket")
    @pytest.mark.parametrize("end", ["revoke", "logout", "idle"])
    def test_a_socket_closes_when_its_session_ends(self, house: House, end: str) -> None:
        """Row 43."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        since = time.monotonic()
        _end(house, end)
        assert socket.receive() == ENDED
        assert time.monotonic() - since < SOON
        until(lambda: house.control.probe.late)
        assert house.control.probe.late == [f"ws {ENDED}"]

    @needs("socket")
    def test_what_an_ended_socket_writes_is_dropped(self, house: House) -> None:
        """Row 43: nothing is revived."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        socket.send("write x")
        socket.receive()
        _end(house, "revoke")
        assert socket.receive() == ENDED
        socket.close()
        assert house.control.records()[0].data == b""

    @needs("socket")
    def test_a_socket_survives_a_store_that_is_away_for_a_while(self, house: House) -> None:
        """Row 43: no answer is no reason."""
        browser = house.browser()
        browser.login()
        socket = browser.connect("/ws")
        house.trouble.fail("load")
        looks = len(house.trouble.calls)
        until(lambda: len(house.trouble.calls) >= looks + 2)
        house.trouble.fail(None)
        socket.send("still here")
        assert socket.receive() == "alice: still here"
        socket.close()

    @needs("events")
    @pytest.mark.parametrize("end", ["revoke", "logout", "idle"])
    def test_an_event_stream_ends_when_its_session_ends(self, house: House, end: str) -> None:
        """Row 43."""
        browser = house.browser()
        browser.login()
        flight = browser.start("GET", "/sse")
        assert flight.pending.chunk() == b"data: alice\n\n"
        since = time.monotonic()
        _end(house, end)
        assert flight.pending.chunk() is None
        assert time.monotonic() - since < SOON
        answer = flight.wait()
        assert (answer.status, answer.error) == (200, None)

    @needs("events")
    def test_an_event_stream_that_the_client_leaves_ends_quietly(self, house: House) -> None:
        """Row 43, the other way."""
        browser = house.browser()
        browser.login()
        flight = browser.start("GET", "/sse")
        flight.pending.chunk()
        flight.pending.disconnect()
        error = flight.wait().error
        assert error is None or "Disconnect" in type(error).__name__  # what Starlette tells a server that asks for it
        assert browser.get("/me").status == 200

    @needs("socket")
    @pytest.mark.parametrize("how", ["deny", "close"])
    def test_what_a_denied_socket_did_is_committed(self, house: House, how: str) -> None:
        """Row 44."""
        browser = house.browser()
        browser.login()
        assert browser.connect(f"/ws?write=x&{how}=1").denial is not None
        assert browser.get("/data").json() == {"ws": "x"}
        assert browser.connect(f"/ws?logout=1&{how}=1").denial is not None
        assert browser.get("/me").json()["why"] == "logout"

    @needs("socket")
    def test_a_handshake_never_renews(self, house: House) -> None:
        """Row 45."""
        browser = house.browser()
        browser.login()
        house.clock.wind(16 * 60)
        socket = browser.connect("/ws")
        socket.send("hello")
        assert socket.receive() == "alice: hello"
        socket.close()
        record = house.control.records()[0]
        assert record.former_proof is None
        assert len(browser.get("/me").cookies) == 1


def _end(house: House, how: str) -> None:
    if how == "idle":
        house.clock.wind(3601)
    elif how == "logout":
        house.control.registry.revoke_all("alice", because="logout")
    else:
        house.control.registry.revoke(house.control.records()[0].handle)
