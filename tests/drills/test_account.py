"""Every one of the 73 drills is accounted for, test by test (account.toml), or says what it waits for."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from . import test_on_every_framework as everywhere

HERE = Path(__file__).parent
TESTS = HERE.parent
ACCOUNT: dict[str, dict[str, Any]] = tomllib.loads((HERE / "account.toml").read_text("utf-8"))
PLAYED = {number: drill["tests"] for number, drill in ACCOUNT.items() if "tests" in drill}
WAITS_FOR = ("statistical detection", "the console", "serve", "erasure of a subject")


@cache
def collected(file: str) -> dict[str, str]:
    """Return what pytest collects from a file: its tests by name, each with its docstring."""
    assert re.fullmatch(r"test_\w+\.py", Path(file).name), f"pytest collects nothing from {file}"
    body = ast.parse((TESTS / file).read_text("utf-8")).body
    found = [one for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    tests = [one for one in found if one.name.startswith("test_")]
    names = [one.name for one in tests]
    assert len(names) == len(set(names)), f"{file} has two tests of one name, and only the last is run"
    return {one.name: ast.get_docstring(one) or "" for one in tests}


def test_all_73_are_accounted_for_in_order() -> None:
    assert list(ACCOUNT) == [f"D{number:02}" for number in range(1, 74)]


@pytest.mark.parametrize("number", ACCOUNT)
def test_a_drill_has_tests_that_exist_or_a_reason_to_wait(number: str) -> None:
    drill = ACCOUNT[number]
    assert ("tests" in drill) != ("waits" in drill)
    if "waits" in drill:
        assert drill["waits"].startswith(WAITS_FOR)
        return
    assert drill["tests"]
    assert len(set(drill["tests"])) == len(drill["tests"])
    for one in drill["tests"]:
        file, _, name = one.partition("::")
        assert name in collected(file), f"{number}: there is no test {one}"


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("test_*.py")))
def test_a_test_that_says_it_is_a_drill_is_in_the_account(file: str) -> None:
    for name, said in collected(f"drills/{file}").items():
        numbers = re.findall(r"D\d\d", re.match(r"(?:D\d\d(?:, | and )?)*", said)[0])  # type: ignore[index]
        numbers += [f"D{one}" for one in re.findall(r"^test_d(\d\d)_", name)]
        for number in numbers:
            assert f"drills/{file}::{name}" in PLAYED.get(number, ()), f"{name} says that it is {number}"


def test_what_frameworks_play_is_among_them() -> None:
    assert {drill.number for drill in everywhere.DRILLS if drill.number.startswith("D")} <= PLAYED.keys()
