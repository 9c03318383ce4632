"""Every one of the 73 drills is accounted for: a test that plays it, or what it waits for."""

import ast
import re
from pathlib import Path

import pytest

from . import test_on_every_framework as everywhere

HERE = Path(__file__).parent

PLAYED = {
    "test_guessing.py": "D01 D02 D03 D11",
    "test_lineage.py": "D04 D05 D06 D07 D08 D13",
    "test_realms.py": "D09 D10",
    "test_login.py": "D12 D16 D17 D73",
    "test_chromium.py": "D14 D15 D18 D59 D63",
    "test_cookie_tricks.py": "D19 D20",
    "test_once.py": "D21 D22",
    "test_device_binding.py": "D23 D24 D25 D26 D27 D28 D29 D30 D31 D45",
    "test_device_races.py": "D31",
    "test_floods.py": "D32 D33 D34",
    "test_moving.py": "D39 D41 D42 D43",
    "test_emptied_databases.py": "D39",
    "test_emptied_redis.py": "D39",
    "test_revoking_everywhere.py": "D40",
    "test_coming_from.py": "D44",
    "test_server_dumps.py": "D45 D62",
    "test_keys.py": "D45 D46",
    "test_sealed.py": "D49 D50 D51 D52 D53 D54",
    "test_hosts.py": "D57 D58",
    "test_cross_site.py": "D59 D64",
    "plays.py": "D01 D04 D08 D22 D33 D34 D45 D61",
    "test_at_rest.py": "D62",
    "test_sockets.py": "D63",
    "../receivers/test_receivers.py": "D65 D66 D67",
    "test_logs.py": "D68",
    "test_your_sessions.py": "D70",
}
"""By file of this folder: the drills that its tests play, each named in the file."""

WAITING = {
    "D35": "statistical detection",
    "D36": "statistical detection",
    "D37": "statistical detection",
    "D38": "statistical detection: so far nothing has a budget that could be used up",
    "D47": "the console; test_hosts.py has the rule for applications without origins",
    "D48": "the console",
    "D55": "forward-auth",
    "D56": "forward-auth",
    "D60": "resuming a request after a step-up",
    "D69": "the export to CSV",
    "D71": "bulk acts of the console",
    "D72": "erasure of a subject",
}
"""What cannot be played yet, and for want of what. (D68 and D70 are played; their halves in the console wait.)"""


def played() -> set[str]:
    return {number for numbers in PLAYED.values() for number in numbers.split()}


def test_all_73_are_accounted_for_once() -> None:
    every = {f"D{number:02}" for number in range(1, 74)}
    assert played() | WAITING.keys() == every
    assert not played() & WAITING.keys()


@pytest.mark.parametrize("file", PLAYED)
def test_what_is_said_to_play_a_drill_is_there(file: str) -> None:
    text = (HERE / file).read_text("utf-8")
    tree = ast.parse(text)
    assert any(isinstance(node, ast.FunctionDef) for node in tree.body)
    for number in PLAYED[file].split():
        assert number in text or _within(number, text), f"{file} does not say that it plays {number}"


def _within(number: str, text: str) -> bool:
    """Tell whether a text names a row of drills with this one in it: D04-D08, D23 to D31."""
    spans = re.findall(r"D(\d\d)(?:-| to )D(\d\d)", text)
    return any(int(first) <= int(number[1:]) <= int(last) for first, last in spans)


def test_what_frameworks_play_is_among_them() -> None:
    assert {drill.number for drill in everywhere.DRILLS if drill.number.startswith("D")} <= played()
