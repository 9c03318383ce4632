"""Runs the Cloakroom on this machine: a loopback address only, plain http, and a file that one can see."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Final
from urllib.parse import quote

import uvicorn

from coatcheck import ConfigError, open_async_store

from .accounts import Accounts
from .app import CLOCKS, FAST_CLOCKS, FAST_RECENT, RECENT, make_app

FILE: Final = "coatcheck-demo.db"
TRIES: Final = 20

_HOSTS: Final = {
    "127.0.0.1": (socket.AF_INET, "127.0.0.1"),
    "localhost": (socket.AF_INET, "127.0.0.1"),
    "::1": (socket.AF_INET6, "::1"),
}


def run(host: str, port: int, folder: Path, *, fast: bool, open_browser: bool) -> None:
    """Serve until Ctrl-C; raise ConfigError, in one sentence, where it cannot be."""
    path = folder.absolute() / FILE
    accounts = _accounts(path)
    listening = listen(host, port)
    found = int(listening.getsockname()[1])
    name = f"[{host}]" if ":" in host else host
    store = open_async_store(f"sqlite:///{quote(str(path))}")
    app = make_app(
        store,
        accounts=accounts,
        hosts=[f"localhost:{found}", f"127.0.0.1:{found}", f"[::1]:{found}"],
        recent=FAST_RECENT if fast else RECENT,
        timeouts=FAST_CLOCKS if fast else CLOCKS,
        allow_insecure_http=True,
    )
    url = f"http://{name}:{found}/"
    print(greeting(url, path, asked=port, found=found, fast=fast), flush=True)
    if open_browser:
        # the socket listens already: a browser that is too early waits
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    # nobody stands in front of us, so nobody's X-Forwarded-For is believed
    config = uvicorn.Config(app, log_level="warning", proxy_headers=False, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        asyncio.run(store.close())
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on a loopback address: the port asked for, or the next free one."""
    if host not in _HOSTS:
        message = f"the demo is for this machine only: host is 127.0.0.1, localhost or ::1 (found {host!r})"
        raise ConfigError(message)
    if not 0 <= port <= 65535:
        message = f"a port is a number from 0 (any free one) to 65535 (found {port})"
        raise ConfigError(message)
    family, address = _HOSTS[host]
    problem: OSError | None = None
    for number in range(port, min(port + TRIES, 65536)):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere it would share a port that is taken
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, number))
            listening.listen(128)
            return listening
        except OSError as error:
            listening.close()
            problem = error
            if error.errno != errno.EADDRINUSE:
                break
    reason = problem.strerror if problem is not None else "no port"
    message = (
        f"cannot listen on {address}, port {port} or the {TRIES - 1} after it ({reason}); name another with --port"
    )
    raise ConfigError(message) from problem


def greeting(url: str, path: Path, *, asked: int, found: int, fast: bool) -> str:
    """Return what is printed at the start: where it is, and three things to try."""
    moved = f"\n  (port {asked} is taken; this is the next free one)" if asked not in (0, found) else ""
    clocks = FAST_CLOCKS if fast else CLOCKS
    idle = int(clocks.idle or 0)
    silence = (
        f"Wait {idle} seconds and click: the page says why you are out."
        if fast
        else f"Leave it alone for {idle // 60} minutes and click (or start again with --fast: one minute)."
    )
    return f"""The Cloakroom is open: {url}{moved}
  sessions and accounts lie in {path}

Three things to try
  1. Put a coat into the cart, then create an account: the cart comes along, the ticket's number does not.
  2. Sign in from a second browser; on "Your sessions" end the first one, and click there.
  3. {silence}

Ctrl-C closes it."""


def _accounts(path: Path) -> Accounts:
    try:
        return Accounts(path)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot write {path} ({reason}); start the demo in a folder of yours, or name one with --folder"
        raise ConfigError(message) from error
