"""The commands put together, and the one way out of every error: a sentence and a code, never a traceback."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version as version_of
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..core.errors import CoatcheckError, ConfigError
from . import audit, conform, keys, migrate, policy, restored, schema, sessions, terminal, upkeep
from .door import EXITS

USAGE, AWAY, FAULT = 2, 3, 70

#: what typer raises for a command line that it does not understand: a class without a public name
_MISTAKE = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

# what a store has to say comes as an error or an event; a log line among the output would be in the way
logging.getLogger("coatcheck").addHandler(logging.NullHandler())


class _InOrder(TyperGroup):
    """Lists the commands as people meet them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [
            "sessions",
            "events",
            "purge",
            "keys",
            "audit",
            "policy",
            "migrate",
            "restored",
            "schema",
            "conform",
            "demo",
            "version",
        ]


app = typer.Typer(
    name="coatcheck",
    cls=_InOrder,
    epilog=EXITS,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(sessions.group, name="sessions")
app.command("events", epilog=EXITS)(upkeep.events)
app.command("purge", epilog=EXITS)(upkeep.purge)
app.add_typer(keys.group, name="keys")
app.add_typer(audit.group, name="audit")
app.add_typer(policy.group, name="policy")
app.command("migrate", epilog=EXITS)(migrate.migrate)
app.command("restored", epilog=EXITS)(restored.restored)
app.command("schema", epilog=EXITS)(schema.schema)
app.command("conform", epilog=EXITS)(conform.conform)


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def root(
    *,
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Look at the sessions of a web application, end them, and read what happened.

    Example: coatcheck sessions list --store sqlite:///sessions.db

    The store may be named once for all commands: export COATCHECK_STORE=sqlite:////var/lib/shop/sessions.db
    """


@app.command(epilog=EXITS)
def demo(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The next free one, if it is taken.")] = 8000,
    folder: Annotated[Path, typer.Option(help="Where its file, coatcheck-demo.db, is kept.")] = Path(),
    *,
    fast: Annotated[bool, typer.Option("--fast", help="Short timeouts, to watch a session end.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Serve the demo on this machine: a small shop that shows what becomes of its sessions.

    Example: coatcheck demo --fast --open
    """
    from ..demo import serve

    serve("127.0.0.1", port, folder, fast=fast, open_browser=open_browser)


@app.command()
def version() -> None:
    """Say which version this is."""
    terminal.say(f"coatcheck {version_of('coatcheck')}")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="coatcheck", standalone_mode=False)
    except typer.Abort:
        terminal.complain("stopped; nothing was changed")
        return 1
    except Exception as error:
        if os.environ.get("COATCHECK_DEBUG") == "1":
            raise
        return _explained(error)
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> int:
    """Say what went wrong in one line, and return the exit code for it."""
    if isinstance(error, CoatcheckError):
        terminal.complain(str(error))
        return USAGE if isinstance(error, ConfigError) else AWAY
    if isinstance(error, _MISTAKE):
        # without arguments the help was shown, and there is nothing to add
        if type(error).__name__ != "NoArgsIsHelpError":
            terminal.complain(_usage(error))
        return USAGE
    terminal.complain(f"a fault of coatcheck's own, {type(error).__name__}: {error} (COATCHECK_DEBUG=1 shows where)")
    return FAULT


def _usage(error: Exception) -> str:
    said = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = getattr(context, "command_path", "coatcheck")
    return f"{said[:1].lower()}{said[1:]} (see {where} --help)"
