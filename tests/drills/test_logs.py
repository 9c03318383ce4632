"""What a visitor says of himself is one inert line in a log (D68; M12, LOG-12)."""

import logging
import re

import pytest

from coatcheck.core.model import Client, Event, Request
from coatcheck.flow.journal import log_events
from coatcheck.testing.clock import Clock

from .house import OURS, Ask, House

HOSTILE = {
    "markup": "<script>{{7*7}}</script>[link=file:///etc/passwd]x[/link]",
    "escape": "\x1b[31mred\x1b[0m\x1b]8;;http://evil\x07\x9b2J",
    "lines": "a\r\n2027-01-15 CRITICAL coatcheck session_logout\x85\u2028\u2029\x00",
    "bidi": "\u202eevil\u2066\u200f\u061c\ufeff\u200b",
    "pairs": "x because=operator actor=root",
    "surrogate": "\udcff\ud800",
}
LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200b-\u200f\u061c\ufeff]*")


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_event_is_one_line_of_plain_characters(hostile: str, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """D68: in every field that anybody else writes; no second line, no colour, no direction, no forged pair."""
    client = Client(address=hostile, agent=hostile)
    event = Event(
        name="session_token_reuse",
        at=clock.now,
        handle=hostile,
        subject=hostile,
        client=client,
        detail={"kind": hostile, "path": hostile},
    )
    with caplog.at_level(logging.DEBUG, "coatcheck"):
        log_events([event])
    (record,) = [one for one in caplog.records if one.name == "coatcheck"]
    said = record.getMessage()
    assert LINE.fullmatch(said), repr(said)
    said.encode("utf-8")
    assert " because=" not in re.sub(r"'[^']*'", "", said), "what is quoted is no pair"


def test_no_header_path_or_query_writes_a_line_of_its_own(
    house: House, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """D68: through the door; user agents, paths, queries and cookies of whoever likes."""
    with caplog.at_level(logging.DEBUG, "coatcheck"):
        for hostile in ("\x1b[31mred", "a\tb", "\x9b2J\x85", "<script>", "=HYPERLINK(1)"):
            headers = (("user-agent", hostile), *OURS)
            house.ask(Ask("POST", "/login", headers, b"user=ann"))
            house.ask(Ask("GET", f"/%0d%0a%1b[31m{'x' * 3000}", (("cookie", f"__Host-coat={hostile}"), *headers)))
            house.ask(Ask("POST", "/login?%0a", (("user-agent", hostile), ("origin", "https://evil.test")), b"user=a"))
        clock.wind(61)
        house.ask(Ask("GET", "/me", OURS))
        house.flush()
    lines = [one.getMessage() for one in caplog.records if one.name == "coatcheck"]
    assert len(lines) > 5
    for line in lines:
        assert LINE.fullmatch(line), repr(line)
        assert len(line) < 2000


def test_what_is_kept_of_an_agent_is_short_and_printable(house: House) -> None:
    """M12: cut at the write, not at the reading."""
    house.ask(Ask("POST", "/login", (("user-agent", "A\x1b[31m" * 5000), *OURS), b"user=ann"))
    (record,) = house.control.records()
    assert record.client is not None
    assert len(record.client.agent or "") <= 512
    assert (record.client.agent or "").isprintable()
    assert isinstance(house.control.manager.client(Request("GET", "https", "/", ())), Client)
