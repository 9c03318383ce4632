"""The command line, as scripts that read like documentation: a command, what it prints, how it exits.

A line `$ coatcheck ...` is a command, the lines below it are its whole output; `[..]` stands for anything on a line, a
last line `[exit N]` for the exit code (0 where it is left out). `{alice}` and `{bob}` are handles of the prepared file.
"""

import re
import shlex
from pathlib import Path

import pytest

from coatcheck import SessionManager, open_store
from coatcheck.cli.app import run
from coatcheck.testing import Clock, sign_in

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Prepare sessions.db in an empty folder: alice twice, bob once; return their handles by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COATCHECK_STORE", raising=False)
    monkeypatch.setattr("sys.stdin", Path("/dev/null").open())  # nobody to ask
    store = open_store("sqlite:///sessions.db")
    found = {}
    for name, subject in (("alice", "alice"), ("alice2", "alice"), ("bob", "bob")):
        _, value = sign_in(store, subject, data={"cart": ["a secret gift"]})
        found[name] = value.split(".")[1]
    store.close()
    return found


def cases(text: str) -> list[tuple[str, str, int]]:
    """Return the commands of a script with their expected output and exit code."""
    found = []
    for part in re.split(r"^\$ coatcheck ?", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        expected = [line for line in output.rstrip("\n").split("\n") if not line.startswith("#")]
        code = 0
        if expected and (match := re.fullmatch(r"\[exit (\d+)\]", expected[-1])):
            code = int(match[1])
            expected.pop()
        found.append((command, "\n".join(expected).strip("\n"), code))
    return found


def matches(expected: str, printed: str) -> bool:
    pattern = "[^\n]*".join(re.escape(part) for part in expected.split("[..]"))
    lines = "\n".join(line.rstrip() for line in printed.rstrip("\n").split("\n"))
    return re.fullmatch(pattern, lines) is not None


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_command_line_prints_and_exits_as_the_script_says(
    path: Path, names: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    told = cases(path.read_text())
    assert told
    for command, expected, code in told:
        exited = run(shlex.split(command.format_map(names)))
        printed = capfd.readouterr()
        output = printed.out + printed.err
        assert matches(expected.format_map(names) if expected else "", output), f"$ coatcheck {command}\n{output}"
        assert exited == code, command
        assert "Traceback" not in output


def test_no_secret_and_no_value_is_ever_printed(names: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    store = open_store("sqlite:///sessions.db")
    _, value = sign_in(store, "carol", data={"card": "4111-1111"})
    record = store.load(value.split(".")[1])
    store.close()
    assert record is not None
    for command in (
        "sessions list",
        "sessions list --json",
        f"sessions show {record.handle}",
        "events",
        "events --json",
    ):
        run([*command.split(), "--store", "sqlite:///sessions.db"])
    printed = capfd.readouterr().out
    secrets = [*value.split(".")[2:], record.family_proof.hex(), str(record.turn_proof), "4111-1111"]
    assert record.handle in printed
    assert [secret for secret in secrets if secret in printed] == []


HOSTILE = ["<script>alert(1)</script>", "[link=file:///etc/passwd]x[/link]", "[red]", "=HYPERLINK(1)", "{{7*7}}"]


@pytest.mark.parametrize("subject", HOSTILE)
def test_what_came_from_outside_is_plain_text_to_a_terminal(
    subject: str, names: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """D68: markup of any kind shows as it was written."""
    store = open_store("sqlite:///sessions.db")
    sign_in(store, subject)
    store.close()
    assert run(["sessions", "list", "--subject", subject, "--store", "sqlite:///sessions.db"]) == 0
    assert subject in capfd.readouterr().out


def test_control_and_bidirectional_characters_never_reach_a_terminal() -> None:
    """D68: ESC sequences, line breaks and overrides become a replacement character."""
    from coatcheck.cli.render import clean

    assert clean("a\x1b[31mb\r\nc\u202ed\u2066e\u0085f") == "a\ufffd[31mb\ufffd\ufffdc\ufffdd\ufffde\ufffdf"


def test_looking_creates_no_file(names: dict[str, str], tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    assert run(["sessions", "list", "--store", "sqlite:///other.db"]) == 3
    assert set(tmp_path.iterdir()) == before


def test_an_ended_session_is_told_apart_from_a_live_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coatcheck.cli.render import record_row

    clock = Clock()
    store = open_store("memory:")
    name, value = sign_in(store, "alice", manager=SessionManager(clock=clock))
    record = store.load(value.split(".")[1])
    assert name == "__Host-coat"
    assert record is not None
    assert record_row(record)["state"] == "live"
    assert record_row(record)["created_at"] == "2027-01-15T08:00:00Z"
