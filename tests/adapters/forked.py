"""What gunicorn serves in test_gunicorn.py: the probe in a WSGI framework, used once before the server forks.

gunicorn --preload "tests.adapters.forked:application('flask')"   (the store's URL is in PROBE_STORE)
"""

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from coatcheck import SessionManager, open_store
from coatcheck.adapters import wsgi
from coatcheck.testing import Probe
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import WsgiDriver
from coatcheck.testing.serving import WsgiProbe

COOKIE = "coat-insecure"


def raw(probe: Probe, **how: Any) -> Any:
    """Return the probe as a plain WSGI application."""
    return wsgi.SessionMiddleware(WsgiProbe(probe), **how)


def flask(probe: Probe, **how: Any) -> Any:
    """Return the probe as a Flask application."""
    from .probe_flask import flask_probe

    return flask_probe(probe, **how)


def pyramid(probe: Probe, **how: Any) -> Any:
    """Return the probe as a Pyramid application."""
    from .probe_pyramid import pyramid_probe

    return pyramid_probe(probe, **how)


def application(framework: str) -> Any:
    """Return the application, with a connection of this process open: a user logged in before the fork."""
    probe = Probe()
    store = open_store(os.environ["PROBE_STORE"])
    made = {"wsgi": raw, "flask": flask, "pyramid": pyramid}[framework](
        probe, store=store, manager=SessionManager(allow_insecure_http=True)
    )
    Browser(WsgiDriver(made), "http://localhost", cookie=COOKIE).login("preloaded")
    return Signed(made)


class Signed:
    """Says with each answer which process gave it; /process tells what runs there."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        if environ["PATH_INFO"] == "/process":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(told()).encode()]

        def starting(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("x-process", str(os.getpid()))], *more)

        return self.app(environ, starting)


def told() -> dict[str, Any]:
    """Return what this process is made of."""
    from threading import Lock

    return {
        "process": os.getpid(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "lock": type(Lock()).__module__,
    }
