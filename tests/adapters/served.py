"""The probe as a program of its own, on a SQLite file and a listening socket that its parent hands over.

python -m tests.adapters.served <file> <fd>   a WSGI server of two processes, forked after the application was used
uvicorn tests.adapters.served:app             the ASGI probe (the file's name is in PROBE_FILE)
"""

import os
import signal
import socket
import sys
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from coatcheck import SessionManager
from coatcheck.adapters import asgi, wsgi
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Probe
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import WsgiDriver
from coatcheck.testing.serving import AsgiProbe, WsgiProbe


def app() -> Any:
    """Return the ASGI probe, for plain http on localhost."""
    manager = SessionManager(allow_insecure_http=True)
    store = SqliteStore(os.environ["PROBE_FILE"])
    return asgi.SessionMiddleware(AsgiProbe(Probe()), store=store, manager=manager, watch_every=0.1)


class Server(ThreadingMixIn, WSGIServer):
    """A threading WSGI server on a socket that is listening already."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, application: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()
        self.set_app(application)


class Handler(WSGIRequestHandler):
    """A quiet handler that says which process answered."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
        """Say nothing."""

    def handle(self) -> None:
        """Serve one request, with the process's number in a header."""
        ServerHandler.server_software = f"process {os.getpid()}"
        super().handle()


def main(file: str, fd: int) -> None:
    """Use the application, fork, and serve in both children until told to stop."""
    manager = SessionManager(allow_insecure_http=True)
    store = SqliteStore(file)
    application = wsgi.SessionMiddleware(WsgiProbe(Probe()), store=store, manager=manager)
    # a connection of the parent's is open when it forks (gunicorn --preload)
    Browser(WsgiDriver(application), "http://localhost", cookie="coat-insecure").login("preloaded")
    listening = socket.socket(fileno=fd)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            Server(listening, application).serve_forever()
        children.append(child)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGKILL) for child in children])
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
