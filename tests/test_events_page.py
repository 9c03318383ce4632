"""docs/events.md lists every event of the vocabulary, as loud as it is there."""

import re
from pathlib import Path

from coatcheck.core import exports, facts
from coatcheck.core.model import Event
from coatcheck.core.vocabulary import FACTS, NOISE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "events.md"


def listed() -> dict[str, str]:
    """Return the events of the page, each with the heading of its table."""
    found, heading = {}, ""
    for line in PAGE.read_text("utf-8").partition("## The names")[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] in ("info", "warning", "critical", "noise"):
            heading = cells[0]
        elif line.startswith("| "):
            found |= dict.fromkeys(re.findall(r"`([a-z_]+)`", cells[0]), heading)
    return found


def test_every_event_is_listed_and_nothing_else() -> None:
    assert listed().keys() == FACTS.keys() | NOISE.keys()
    assert {name for name, heading in listed().items() if heading == "noise"} == set(NOISE)


def test_each_is_as_loud_as_the_page_says() -> None:
    loud = {name: facts.severity(Event(name=name, at=0.0)) for name in FACTS}
    assert {name: loud[name] for name in FACTS if listed()[name] != loud[name]} == {}


def test_who_sorts_events_by_name_knows_no_others() -> None:
    known = {*facts._SEVERE, *exports._OWASP, *exports._BEGINS, *exports._ENDS, *exports._REFUSES}
    assert known - listed().keys() == set()
