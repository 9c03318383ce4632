"""The command line: it operates on a store from outside, and starts the demo.

app        the commands' common options, the way out of every error
sessions   list, show and revoke
upkeep     purge and events
render     tables and JSON: what came from outside cannot act on a terminal
when       moments as people write them
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `coatcheck` and exit with its code."""
    try:
        from .app import run
    except ModuleNotFoundError as missing:
        sys.exit(f'coatcheck: the command line needs {missing.name}; pip install "coatcheck[cli]"')
    sys.exit(run())
