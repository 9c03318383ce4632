"""The command line: looks at a store from outside, ends sessions, and starts the demo.

app        the commands put together, and the way out of every error
door       the options that commands share, and a store opened behind them
sessions   list and show
revoke     sessions revoke
upkeep     purge and events
migrate    from store to store; takeover: from another library
keys       keys list, rotate and revoke;   audit: audit seal and verify
policy     says what settings mean, what is weak about them, and which events go where
target     the settings of the application that a command line names
conform    judges somebody's application from outside
views      what may be shown of a record and of an event: never a proof, never a value
terminal   tables, lines and JSON; what came from outside only shows
when       moments as people write them
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `coatcheck` and exit with its code."""
    try:
        from .app import run
    except ModuleNotFoundError as missing:
        if missing.name not in ("rich", "typer"):
            raise
        sys.exit(f'coatcheck: the command line needs {missing.name}; pip install "coatcheck[cli]"')
    sys.exit(run(sys.argv[1:]))
