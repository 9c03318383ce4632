"""The Cloakroom: a small shop that shows every part of coatcheck at work, written as one writes a real application.

app        puts it together: settings, routes, the two middlewares
door       which hosts are answered, and the headers that every response wears
desk       what handlers share: pages, forms, who is at the other end
accounts   names and password hashes
goods      what is on the rail, and the arithmetic of a cart
shop       handlers: catalogue, cart, checkout
entry      handlers: create an account, sign in and out, change the password
tickets    handlers: your sessions, the timeout, what just happened
words      sessions in plain words: why one ended, what an event means, which device
serving    runs it on this machine
"""

from __future__ import annotations

from pathlib import Path

from coatcheck import ConfigError

__all__ = ["serve"]


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    folder: Path = Path(),
    fast: bool = False,
    open_browser: bool = False,
) -> None:
    """Serve the Cloakroom on this machine until Ctrl-C; raise ConfigError, in one sentence, where it cannot be.

    Sessions and accounts lie in `coatcheck-demo.db` in `folder`. With `fast` a session ends after a minute of silence.
    A port that is taken gives way to the next free one.
    """
    try:
        from .serving import run
    except ModuleNotFoundError as missing:
        message = f"the demo needs {missing.name}, which is not installed; pip install 'coatcheck[demo]'"
        raise ConfigError(message) from missing
    run(host, port, folder, fast=fast, open_browser=open_browser)
