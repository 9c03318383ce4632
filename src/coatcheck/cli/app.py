"""The commands' common ground: which store, in which form, and one way out of every error."""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from ..core.errors import CoatcheckError, ConfigError, StoreError
from ..flow.sync import Registry
from ..stores.urls import file_of, open_store

OK, NOTHING, USAGE, AWAY, BUG, STOPPED = 0, 1, 2, 3, 70, 130
EXITS = "Exit codes: 0 done, 1 nothing matched, 2 a mistake in the command, 3 the store does not answer."

app = typer.Typer(
    name="coatcheck",
    help="Sessions for Python web applications, from outside: look at them, end them, read what happened.",
    epilog=EXITS,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StoreUrl = Annotated[
    str,
    typer.Option("--store", envvar="COATCHECK_STORE", help="Where the sessions lie: sqlite:///path/to/sessions.db"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RealmName = Annotated[str | None, typer.Option("--realm", help="Only this audience (by default the cookie's name).")]


def store_of(url: str) -> Any:
    """Return the store of a URL; raise ConfigError where there is none to look at: looking creates nothing."""
    if not url:
        message = "which store? give --store sqlite:///path/to/sessions.db, or set COATCHECK_STORE"
        raise ConfigError(message)
    path = file_of(url)
    if path is None:
        message = "a memory store lives in its own process; give the URL of a store that is shared"
        raise ConfigError(message)
    if not path.is_file():
        message = f"there is no file {str(path)!r}; check the path in --store (three slashes: relative, four: absolute)"
        raise StoreError(message)
    return open_store(url)


def registry_of(url: str, realm: str | None) -> Registry:
    """Return the registry of a store, for one realm or all."""
    return Registry(store_of(url), realm)


def done(*, found: bool) -> None:
    """Leave with the code that says whether anything matched."""
    raise typer.Exit(OK if found else NOTHING)


@app.command(epilog="Example: coatcheck demo --fast")
def demo(
    port: Annotated[int, typer.Option(help="The port to serve on; the next free one if it is taken.")] = 8000,
    folder: Annotated[Path, typer.Option(help="Where coatcheck-demo.db is kept.")] = Path(),
    *,
    fast: Annotated[bool, typer.Option("--fast", help="Short timeouts, to watch a session end.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser on it.")] = False,
) -> None:
    """Serve the demo: a small shop, its sessions explained event by event. On this machine only."""
    from ..demo import serve

    serve("localhost", port, folder, fast=fast, open_browser=open_browser)


@app.callback(invoke_without_command=True)
def root(
    *, shown: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False
) -> None:
    """Sessions for Python web applications, from outside: look at them, end them, read what happened."""
    if shown:
        typer.echo(f"coatcheck {version('coatcheck')}")
        raise typer.Exit


def run(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; no traceback reaches a user (COATCHECK_DEBUG=1 shows it)."""
    from . import sessions, upkeep

    sessions.register(app)
    upkeep.register(app)
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="coatcheck", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return _failed("stopped", STOPPED)
    except typer.BadParameter as error:
        return _failed(error.format_message(), USAGE)
    except TyperException as error:  # an unknown command, a missing argument
        return _failed(str(error), USAGE)
    except ConfigError as error:
        return _failed(str(error), USAGE)
    except StoreError as error:
        return _failed(str(error), AWAY)
    except CoatcheckError as error:
        return _failed(str(error), NOTHING)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if os.environ.get("COATCHECK_DEBUG"):
            raise
        return _failed(f"an unexpected {type(error).__name__}: {error} (COATCHECK_DEBUG=1 shows where)", BUG)
    return code if isinstance(code, int) else OK


def _failed(sentence: str, code: int) -> int:
    from .render import clean

    sys.stderr.write(f"coatcheck: {clean(sentence)}\n")
    return code


def now() -> float:
    """Return the time."""
    return time.time()
