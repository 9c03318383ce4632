"""What the commands may never print, whatever a visitor sent: acts on a terminal, forged lines, and secrets (D68)."""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

from coatcheck.cli import app, terminal
from coatcheck.core.model import Client, Event, Note, Record
from coatcheck.stores.sqlite import SqliteStore

from .conftest import NOON, PROOFS, SECRET, URL, Ran

HOSTILE = {
    "script": "<script>alert(1)</script>{{7*7}}",
    "markup": "[link=file:///etc/passwd]x[/link][bold red]",
    "escape": "\x1b[31mred\x1b[0m\x1b]8;;http://evil\x07\x9b2J",
    "lines": "a\r\n2027-01-15T12:00:00Z  session_logout\x85\u2028\u2029b\tc\x00",
    "bidi": "\u202eevil\u2066\u200f\u061c\ufeff\u200b",
    "emoji": ":smile: \N{GRINNING FACE} é 漢字",
}
COMMANDS = (
    ("sessions", "list", "--all"),
    ("sessions", "show", "hostile-0000000001"),
    ("sessions", "revoke", "--all", "--dry-run"),
    ("events",),
    ("purge",),
)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("wide", [None, "40", "200"], ids=lambda wide: f"terminal {wide}" if wide else "pipe")
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_came_from_outside_only_shows(
    hostile: str,
    wide: str | None,
    as_json: bool,
    put: Callable[..., Record],
    store: SqliteStore,
    run: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if wide is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", wide)
    put("hostile-0000000001", hostile, client=Client(hostile, hostile))
    seen = Event(name="session_token_reuse", at=NOON, subject=hostile, detail={hostile: hostile})
    store.commit(b"hostile", (Note(events=(seen,)),), durable=False)
    for command in COMMANDS:
        ran = run(*command, "--store", URL, *(["--json"] if as_json else []))
        assert ran.code == 0
        unstyled = re.sub(r"\x1b\[[0-9;]*m", "", ran.out) if wide else ran.out
        assert {one for one in unstyled if not one.isprintable()} <= {"\n"}
        assert "\x1b[31m" not in ran.out
        assert "\x1b]" not in ran.out
        if as_json:
            for line in ran.out.splitlines():
                json.loads(line)
        elif wide is not None:
            assert max(map(cell_len, unstyled.splitlines()), default=0) <= int(wide)


def test_json_keeps_what_a_table_replaces(put: Callable[..., Record], run: Callable[..., Ran]) -> None:
    put("hostile-0000000001", HOSTILE["escape"], client=Client("::1", HOSTILE["bidi"]))
    (shown,) = json.loads(run("sessions", "list", "--json", "--store", URL).out)
    assert (shown["subject"], shown["agent"]) == (HOSTILE["escape"], HOSTILE["bidi"])


def test_markup_shows_as_it_was_written(put: Callable[..., Record], run: Callable[..., Ran]) -> None:
    put("hostile-0000000001", HOSTILE["markup"])
    assert HOSTILE["markup"] in run("sessions", "list", "--store", URL).out


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_error_is_one_line_whatever_was_typed(hostile: str, store: SqliteStore, run: Callable[..., Ran]) -> None:
    for command in (["sessions", "show", hostile], ["events", "--since", hostile], [hostile], ["--" + hostile]):
        ran = run(*command)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1
        assert ran.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_no_proof_and_no_value_is_printed(flags: tuple[str, ...], sessions: None, run: Callable[..., Ran]) -> None:
    printed = [run(*command, "--store", URL, *flags) for command in COMMANDS if command[1:2] != ("show",)]
    printed += [run("sessions", "show", "alice-phone-000002", "--store", URL, *flags)]
    printed += [run("sessions", "revoke", "--all", "--yes", "--store", URL, *flags)]
    text = "".join(ran.out + ran.err for ran in printed)
    assert "alice-phone-000002" in text
    assert "cart" in text
    spellings = [spell(proof) for proof in PROOFS for spell in (repr, bytes.hex, b64encode, urlsafe_b64encode)]
    spelled = [
        one.decode() if isinstance(one, bytes) else one.removeprefix("b'").removesuffix("'") for one in spellings
    ]
    assert [secret for secret in (SECRET, "dark", *spelled) if secret in text] == []


@pytest.mark.parametrize("wide", [30, 60, 80, 120])
def test_a_handle_is_never_broken(
    wide: int, sessions: None, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(wide))
    out = run("sessions", "list", "--store", URL).out
    for handle in ("alice-laptop-00001", "alice-phone-000002", "-bob-desktop-00003", "admin-desk-0000005"):
        assert handle in out


def test_a_pipe_gets_one_plain_line_a_row(sessions: None, run: Callable[..., Ran]) -> None:
    out = run("sessions", "list", "--store", URL).out
    assert out.isascii()
    assert len(out.splitlines()) == 6


def test_looking_creates_no_file(store: SqliteStore, tmp_path: Path, run: Callable[..., Ran]) -> None:
    before = set(tmp_path.iterdir())
    for command in COMMANDS:
        assert run(*command, "--store", "sqlite:///other.db").code == 3
    assert set(tmp_path.iterdir()) == before


def test_a_fault_of_ours_is_one_line_and_70(
    store: SqliteStore, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: SqliteStore) -> None:
        message = "\x1b[31mboom\nboom"
        raise RuntimeError(message)

    monkeypatch.setattr(SqliteStore, "epochs", broken)
    ran = run("sessions", "list", "--store", URL)
    assert ran.code == 70
    assert ran.err == (
        "coatcheck: a fault of coatcheck's own, RuntimeError: \ufffd[31mboom\ufffdboom "
        "(COATCHECK_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("COATCHECK_DEBUG", "1")
    with pytest.raises(RuntimeError):
        app.run(["sessions", "list", "--store", URL])


def test_a_cell_of_nothing_is_a_dash() -> None:
    assert (terminal.cell(None).plain, terminal.cell("").plain, terminal.cell(0)) == ("-", "-", Text("0"))
