"""`coatcheck conform`: judges somebody's application from outside, row by row, and says what was found."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from ..core.errors import ConfigError
from . import terminal

if TYPE_CHECKING:
    from ..testing.conformance import Report

_STYLES = {"pass": "green", "fail": "bold red", "partial": "yellow"}


def conform(  # noqa: PLR0917 - an option of a command is an argument of its function
    url: Annotated[str, typer.Argument(metavar="URL", show_default=False, help="The application's address.")],
    login_path: Annotated[str, typer.Option(metavar="PATH", help="Where the login is posted.")] = "",
    field: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What is posted; @VARIABLE is read from there.")
    ] = None,
    probe: Annotated[str, typer.Option(metavar="PATH", help="A page for logged-in users only.")] = "",
    says: Annotated[str, typer.Option(metavar="TEXT", help="What that page shows to them.")] = "",
    logout_path: Annotated[str, typer.Option(metavar="PATH", help="Where the logout is posted.")] = "",
    form_path: Annotated[str, typer.Option(metavar="PATH", help="The page with the login's form, if another.")] = "",
    cookie: Annotated[str, typer.Option(metavar="NAME", help="The session cookie, if it is not found out.")] = "",
    samples: Annotated[int, typer.Option(metavar="N", help="Logins whose tokens are compared.")] = 20,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust besides the system's.")] = None,
    format: Annotated[Literal["table", "json", "html"], typer.Option(help="The form of the report.")] = "table",  # noqa: A002
    output: Annotated[Path | None, typer.Option(help="The file to write it to (a table: as JSON).")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json-login", help="Post the login as JSON, not as a form.")] = False,
    others: Annotated[
        bool, typer.Option("--i-may-test-this", help="It is not on this machine, and you may test it.")
    ] = False,
) -> None:
    """Judge an application from outside: it is logged in to, logged out of, and sent hostile requests.

    Example: coatcheck conform http://localhost:8000 --login-path /login --field username=ann --field password=@PASSWORD
    --probe /me --logout-path /logout

    Exit code 1: a row failed.
    """
    try:
        from ..testing.conformance import outside, shown, stranger, wire
    except ModuleNotFoundError as missing:
        message = f"coatcheck conform needs {missing.name}; pip install 'coatcheck[conform]'"
        raise ConfigError(message) from missing
    if format == "html":
        shown.environment()
    way = stranger.Way(
        login_path=login_path,
        fields=_fields(field or []),
        as_json=as_json,
        form_path=form_path,
        probe=probe,
        says=says,
        logout_path=logout_path,
        cookie=cookie,
        samples=samples,
    )
    way.check()
    with closing(wire.Wire(url, others=others, ca=ca)) as line:
        report = outside.judge_stranger(stranger.Stranger(line, way))
    written = shown.as_html(report) if format == "html" else report.as_json() + "\n"
    if output is not None:
        _write(output, written)
    if format == "json":
        terminal.document({"about": report.about, "sums": report.sums, "rows": report.rows()})
    elif format == "html" and output is None:
        typer.echo(written, nl=False)
    else:
        if format == "table":
            _table(report)
        terminal.say(shown.in_short(report))
    if report.failed:
        raise typer.Exit(1)


def _table(report: Report) -> None:
    columns = [terminal.Column("Row"), terminal.Column("Verdict"), terminal.Column("Why")]
    rows = [[Text(one.id), _verdict(one.verdict), terminal.cell(one.why)] for one in report.findings]
    terminal.table(columns, rows)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        message = f"the report cannot be written to {path}: {error.strerror}"
        raise ConfigError(message) from error


def _verdict(verdict: str) -> Text:
    return Text(str(verdict), style=_STYLES.get(verdict, "dim"))


def _fields(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            message = f"a field is name=value (found {one!r:.60})"
            raise ConfigError(message)
        found[name] = os.environ.get(value[1:], "") if value.startswith("@") else value
    return found
