"""docs/events.md lists every event that there is, as loud as it is; what the exporters know are events as well."""

import ast
import re
from pathlib import Path

from coatcheck.core import exports, facts
from coatcheck.core.model import Event

ROOT = Path(__file__).resolve().parents[1]
MAKERS = {"about", "_heard", "heard", "_tell", "_guessed", "_event", "Event", "_note"}
"""Functions whose first argument, or `name`, is an event's name."""
NAMED_ELSEWHERE = {
    *("session_backend_error", "session_internal_error", "session_backend_recovered"),  # constants of flow/troubles.py
    "audit_sealed",  # a constant of core/audit.py
    "dbsc_rebind_refused",  # chosen in core/binder.py
}
NAME = re.compile(r"[a-z]+(_[a-z]+)+").fullmatch


def made() -> set[str]:
    """Return the names of the events that the source makes."""
    found = set()
    for path in [one for room in ("core", "flow", "cli") for one in (ROOT / "src" / "coatcheck" / room).glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if called in MAKERS:
                    given = [*node.args[:2], *(one.value for one in node.keywords if one.arg == "name")]
                    words = [one.value for one in given if isinstance(one, ast.Constant)]
                    found |= {word for word in words if isinstance(word, str) and NAME(word)}
    return found | NAMED_ELSEWHERE


def listed() -> dict[str, str]:
    """Return the events of the page, each with the heading of its table."""
    text = (ROOT / "docs" / "events.md").read_text("utf-8").partition("## The names")[2]
    found, heading = {}, ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] in ("info", "warning", "critical", "noise"):
            heading = cells[0]
        elif line.startswith("| "):
            found |= dict.fromkeys(re.findall(r"`([a-z_]+)`", cells[0]), heading)
    return found


def test_every_event_is_listed_and_nothing_else() -> None:
    assert listed().keys() == made()


def test_each_is_as_loud_as_the_page_says() -> None:
    loud = {name: facts.severity(Event(name=name, at=0.0)) for name in listed()}
    assert {name: heading for name, heading in listed().items() if heading not in ("noise", loud[name])} == {}


def test_who_sorts_events_by_name_knows_no_others() -> None:
    known = {*facts._SEVERE, *exports._OWASP, *exports._BEGINS, *exports._ENDS, *exports._REFUSES}
    assert known - listed().keys() == set()
