"""The command line as scripts that read like documentation: a command, all that it prints, and how it exits.

`$ coatcheck ...` is a command; what stands below is what it prints, `! ` before what goes to stderr. `[..]` is anything
on a line, `[exit N]` the exit code where it is not 0, `#` a remark. Each script begins with the same file of sessions
at noon (conftest), and COATCHECK_STORE names it.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import URL, Ran

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


def cases(script: str) -> Iterator[tuple[str, list[str]]]:
    lines = [line for line in script.splitlines() if line and not line.startswith("#")]
    starts = [number for number, line in enumerate(lines) if line.startswith("$ coatcheck")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start].removeprefix("$ coatcheck"), lines[start + 1 : end]


def told(ran: Ran) -> list[str]:
    """Return what a command did, as a script writes it."""
    lines = [*ran.out.splitlines(), *(f"! {line}" for line in ran.err.splitlines())]
    return [line.rstrip() for line in lines if line.strip()] + ([f"[exit {ran.code}]"] if ran.code else [])


def matches(expected: list[str], found: list[str]) -> bool:
    pattern = "\n".join(".*".join(map(re.escape, line.split("[..]"))) for line in expected)
    return re.fullmatch(pattern, "\n".join(found)) is not None


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("sessions")
def test_a_command_prints_and_exits_as_its_script_says(
    path: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_STORE", URL)
    for command, expected in cases(path.read_text()):
        found = told(run(*shlex.split(command)))
        assert matches(expected, found), "\n".join([f"$ coatcheck{command}", *found])
