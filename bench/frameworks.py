"""Measure our sessions beside a framework's own best, inside that framework: `python -m bench.frameworks [ROW ...]`.

A row is a framework and a kind of store; its peers keep the same data on the same kind of store. Each runs in a process
of its own with the same application three times: without sessions, with theirs, with ours; requests go to its own entry
(the WSGI or ASGI application), in alternating blocks. The figure is CPU microseconds of the process added to the
application without sessions, client library included; servers are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import itertools
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.applications import DATA, HEADERS, OTHERS

PATHS = ("read", "write")
_numbers = itertools.count()


def fill(session: Any) -> None:
    """Put the data of a visitor into a session."""
    session.update(DATA)


def read(session: Any) -> None:
    """Read one value, and see that it is there."""
    if session["user_id"] != DATA["user_id"]:
        message = "the session was not read"
        raise RuntimeError(message)


def write(session: Any) -> None:
    """Write one value."""
    session["visits"] = next(_numbers)


ACTS: dict[str, Callable[[Any], None]] = {"fill": fill, "read": read, "write": write}


class Wsgi:
    """A WSGI application, and the cookies of its visitor."""

    def __init__(self, app: Any) -> None:
        """Begin without a cookie."""
        self._app, self._cookies = app, OTHERS.decode()

    def begin(self) -> None:
        """Fill a session and keep its cookie."""
        for name, value in self._request("/fill"):
            if name.lower() == "set-cookie":
                self._cookies += "; " + value.partition(";")[0].strip()  # Django writes a space before it

    def close(self) -> None:
        """Leave it; nothing runs beside it."""

    def block(self, path: str, rounds: int) -> float:
        """Return the CPU seconds of one request, on average."""
        gc.collect()
        began = time.process_time()
        for _ in range(rounds):
            self._request(path)
        return (time.process_time() - began) / rounds

    def _request(self, path: str) -> list[tuple[str, str]]:
        started: list[Any] = []
        environ = {
            **_ENVIRON,
            "PATH_INFO": path,
            "HTTP_COOKIE": self._cookies,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
        }
        response = self._app(environ, lambda status, headers, _=None: started.append((status, headers)))
        b"".join(response)
        if hasattr(response, "close"):
            response.close()
        status, headers = started[-1]
        if not status.startswith("200"):
            message = f"{path} answered {status}"
            raise RuntimeError(message)
        return list(headers)


_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "443",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.7",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "https",
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in HEADERS},
}


class Asgi:
    """An ASGI application on an event loop of its own, and the cookies of its visitor."""

    def __init__(self, app: Any) -> None:
        """Start the application (its lifespan)."""
        self._app, self._cookies = app, OTHERS
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    def begin(self) -> None:
        """Fill a session and keep its cookie."""
        for name, value in self._loop.run_until_complete(self._request("/fill")):
            if name.lower() == b"set-cookie":
                self._cookies += b"; " + value.partition(b";")[0]

    def block(self, path: str, rounds: int) -> float:
        """Return the CPU seconds of one request, on average."""

        async def requests() -> None:
            for _ in range(rounds):
                await self._request(path)

        gc.collect()
        began = time.process_time()
        self._loop.run_until_complete(requests())
        return (time.process_time() - began) / rounds

    def close(self) -> None:
        """Stop the application."""
        self._lifespan.cancel()
        self._loop.run_until_complete(asyncio.wait([self._lifespan]))
        self._loop.close()

    async def _start(self) -> None:
        messages = iter([{"type": "lifespan.startup"}])
        started = asyncio.Event()

        async def receive() -> Any:
            found = next(messages, None)
            if found is None:
                await asyncio.Event().wait()
            return found

        async def send(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set()

        self._lifespan = asyncio.ensure_future(self._app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send))
        await asyncio.wait_for(started.wait(), 10)

    async def _request(self, path: str) -> list[tuple[bytes, bytes]]:
        started: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [*HEADERS, (b"cookie", self._cookies)],
            "client": ("192.0.2.7", 40000),
            "server": ("localhost", 443),
            "state": {},
        }
        await self._app(scope, receive, send)
        if started[0]["status"] != 200:
            message = f"{path} answered {started[0]['status']}"
            raise RuntimeError(message)
        return list(started[0]["headers"])


# Flask.


def flask_app(session_of: Callable[[], Any] | None) -> Any:
    """Return the Flask application; without sessions, none is touched."""
    import flask

    app = flask.Flask("bench")
    app.secret_key = secrets.token_hex(32)

    @app.get("/<name>")
    def page(name: str) -> str:
        if session_of is not None:
            ACTS[name](session_of())
        return "ok"

    return app


def flask_bare() -> Any:
    """Return the Flask application with a session interface that does nothing."""
    import flask
    from flask.sessions import SessionInterface

    class Nothing(SessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            return flask.sessions.SecureCookieSession()

        def save_session(self, app: Any, session: Any, response: Any) -> None:
            pass

    app = flask_app(None)
    app.session_interface = Nothing()
    return Wsgi(app)


def flask_ours(store: Any, **settings: Any) -> Any:
    """Return the Flask application with our sessions."""
    from coatcheck.adapters.flask import Coatcheck, session

    app = flask_app(lambda: session)
    Coatcheck(app, store=store, origins=["https://localhost"], **settings)
    return Wsgi(app)


def flask_cookie() -> dict[str, Any]:
    """Return Flask's signed cookie beside our sealed one."""
    import flask

    from coatcheck import Key, Keyring, Sealed

    keys = Keyring([Key("2026-11", os.urandom(32))], os.urandom)
    sealed = Sealed(keyring=keys, unsafe_irrevocable=True)
    theirs = flask_app(lambda: flask.session)
    return {"bare": flask_bare(), "theirs": Wsgi(theirs), "ours": flask_ours(None, sealed=sealed)}


def flask_session_redis() -> dict[str, Any]:
    """Return Flask-Session on Redis (not refreshing on every request: its best) beside ours on the same Redis."""
    import flask
    import flask_session
    from redis import Redis

    from tests.support.servers import redis

    url = redis.single().url
    theirs = flask_app(lambda: flask.session)
    theirs.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(url), SESSION_REFRESH_EACH_REQUEST=False)
    flask_session.Session(theirs)
    return {"bare": flask_bare(), "theirs": Wsgi(theirs), "ours": flask_ours(url)}


# Django.


def django_cases(engine: str, store: str, **settings: Any) -> dict[str, Any]:
    """Return Django with one of its engines beside ours."""
    import django
    from django.conf import settings as configuration
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command
    from django.http import HttpResponse
    from django.test.utils import override_settings
    from django.urls import path

    def page(request: Any, name: str) -> Any:
        session = getattr(request, "session", None)
        if session is not None:
            ACTS[name](session)
        return HttpResponse(b"ok")

    global urlpatterns  # noqa: PLW0603 - Django looks for it here
    urlpatterns = [path("<name>", page)]
    configuration.configure(
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_hex(32),
        INSTALLED_APPS=["django.contrib.sessions", "coatcheck.adapters.django"],
        MIDDLEWARE=[],
        USE_TZ=True,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_NAME="__Host-session",
        COATCHECK={"STORE": store, "ORIGINS": ["https://localhost"]},
        **settings,
    )
    django.setup()
    if "DATABASES" in settings:
        call_command("migrate", verbosity=0)
    bare = WSGIHandler()
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ):
        theirs = WSGIHandler()
    with override_settings(
        SESSION_ENGINE="coatcheck.adapters.django",
        MIDDLEWARE=["coatcheck.adapters.django.SessionMiddleware"],
    ):
        ours = WSGIHandler()
    return {"bare": Wsgi(bare), "theirs": Wsgi(theirs), "ours": Wsgi(ours)}


urlpatterns: list[Any] = []


def django_locmem() -> dict[str, Any]:
    """Return Django's cache engine in memory beside our memory store."""
    caches = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    return django_cases("cache", "memory:", CACHES=caches)


def django_redis() -> dict[str, Any]:
    """Return Django's cache engine on Redis beside ours on the same Redis."""
    from tests.support.servers import redis

    url = redis.single().url
    caches = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}
    return django_cases("cache", url, CACHES=caches)


def django_db() -> dict[str, Any]:
    """Return Django's db engine on SQLite beside our store on Django's own connection."""
    return _django_on_sqlite("django")


def django_sqlite() -> dict[str, Any]:
    """Return Django's db engine on SQLite beside our own SQLite store."""
    return _django_on_sqlite(f"sqlite:///{_folder()}/ours.db")


def _django_on_sqlite(store: str) -> dict[str, Any]:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder()}/theirs.db", "CONN_MAX_AGE": None}
    return django_cases("db", store, DATABASES={"default": database})


def _folder() -> str:
    return tempfile.mkdtemp(dir=os.environ["BENCH_FOLDER"])


# Litestar.


def litestar_memory() -> dict[str, Any]:
    """Return Litestar's server-side sessions in memory beside our memory store."""
    from litestar import Litestar, Request, get
    from litestar.middleware.session.server_side import ServerSideSessionConfig

    from coatcheck import MemoryStore
    from coatcheck.adapters.litestar import CoatcheckPlugin

    @get("/{name:str}")
    async def bare(name: str) -> str:  # noqa: ARG001 - the path has it
        return "ok"

    @get("/{name:str}")
    async def page(name: str, request: Request[Any, Any, Any]) -> str:
        ACTS[name](request.session)
        return "ok"

    plugin = CoatcheckPlugin(store=MemoryStore().as_async(), origins=["https://localhost"])
    return {
        "bare": Asgi(Litestar([bare], openapi_config=None)),
        "theirs": Asgi(Litestar([page], openapi_config=None, middleware=[ServerSideSessionConfig().middleware])),
        "ours": Asgi(Litestar([page], openapi_config=None, plugins=[plugin])),
    }


# Sanic.


class SanicCase(Asgi):
    """A Sanic application, and what its start made of Sanic's own methods, which it rewrites for its signals."""

    def __init__(self, app: Any) -> None:
        """Start the application, and keep what it made of Sanic."""
        super().__init__(app)
        from sanic.touchup.service import TouchUp

        self._made = [(where, name, getattr(where, name)) for where, name in TouchUp._registry]  # noqa: SLF001

    def begin(self) -> None:
        """Fill a session and keep its cookie."""
        self._take_turn()
        super().begin()

    def block(self, path: str, rounds: int) -> float:
        """Return the CPU seconds of one request, on average."""
        self._take_turn()
        return super().block(path, rounds)

    def _take_turn(self) -> None:
        for where, name, method in self._made:
            setattr(where, name, method)


def sanic_memory() -> dict[str, Any]:
    """Return sanic-sessions in memory beside our memory store: Sanic and sanic-ext have none of their own."""
    import sanic_sessions
    from sanic import Request, Sanic, text
    from sanic.response import HTTPResponse

    from coatcheck import MemoryStore
    from coatcheck.adapters.sanic import Coatcheck

    Sanic.test_mode = True  # or the second application of a process does not start

    def application(name: str, *, session: bool = True) -> Any:
        app: Any = Sanic(name, configure_logging=False)

        @app.get("/<name:str>")
        async def page(request: Request, name: str) -> HTTPResponse:
            if session:
                ACTS[name](request.ctx.session)
            return text("ok")

        return app

    bare, theirs, ours = application("bare", session=False), application("theirs"), application("ours")
    sanic_sessions.Session(theirs, sanic_sessions.InMemorySessionInterface(secure=True, samesite="Lax"))
    Coatcheck(ours, store=MemoryStore().as_async(), origins=["https://localhost"])
    return {"bare": SanicCase(bare), "theirs": SanicCase(theirs), "ours": SanicCase(ours)}


# Starlette.


def starlette_app(session: bool, middleware: Any) -> Any:
    """Return the Starlette application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def page(request: Request) -> Response:
        if session:
            ACTS[request.path_params["name"]](request.session)
        return Response("ok")

    return Asgi(Starlette(routes=[Route("/{name}", page)], middleware=middleware))


def starlette_cookie() -> dict[str, Any]:
    """Return Starlette's signed cookie beside our sealed one."""
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware as Theirs

    from coatcheck import Key, Keyring, Sealed
    from coatcheck.adapters.starlette import SessionMiddleware

    keys = Keyring([Key("2026-11", os.urandom(32))], os.urandom)
    sealed = Sealed(keyring=keys, unsafe_irrevocable=True)
    return {
        "bare": starlette_app(session=False, middleware=[]),
        "theirs": starlette_app(session=True, middleware=[Middleware(Theirs, secret_key=secrets.token_hex(32))]),
        "ours": starlette_app(
            session=True, middleware=[Middleware(SessionMiddleware, sealed=sealed, origins=["https://localhost"])]
        ),
    }


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    "django cache, memory": django_locmem,
    "django cache, redis": django_redis,
    "django db, sqlite": django_db,
    "django db, sqlite (our own store)": django_sqlite,
    "flask cookie": flask_cookie,
    "flask-session, redis": flask_session_redis,
    "litestar, memory": litestar_memory,
    "sanic, memory": sanic_memory,
    "starlette cookie": starlette_cookie,
}


def measured(row: str, blocks: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return what theirs and ours add to a read and to a write, in microseconds."""
    cases = ROWS[row]()
    times: dict[tuple[str, str], list[float]] = {(name, path): [] for name in cases for path in PATHS}
    for name, case in cases.items():
        if name != "bare":
            case.begin()
    for number in range(blocks + 1):
        for path in PATHS:
            for name, case in cases.items():
                took = case.block(f"/{path}", rounds)
                if number:
                    times[name, path].append(took)
    for case in cases.values():
        case.close()
    middle = {key: statistics.median(found) * 1e6 for key, found in times.items()}
    return {
        name: {path: round(middle[name, path] - middle["bare", path], 1) for path in PATHS}
        for name in ("theirs", "ours")
    }


def main() -> None:
    """Measure and print; each row in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.frameworks", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("rows", nargs="*", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--blocks", type=int, default=25, help="blocks of each case (25)")
    parser.add_argument("--rounds", type=int, default=200, help="requests in a block (200)")
    parser.add_argument("--here", action="store_true", help="measure one row in this process, and print JSON")
    chosen = parser.parse_args()
    if chosen.here:
        print(json.dumps(measured(chosen.rows[0], chosen.blocks, chosen.rounds)))
        return
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; CPU us added to a request"
    )
    print(f"{'':36} {'read':>16} {'write':>18}")
    print(f"{'':36} {'theirs':>8} {'ours':>8}  {'theirs':>8} {'ours':>8}", flush=True)
    for row in chosen.rows or ROWS:
        command = [sys.executable, "-m", "bench.frameworks", row, "--here"]
        command += ["--blocks", str(chosen.blocks), "--rounds", str(chosen.rounds)]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command, env={**os.environ, "BENCH_FOLDER": folder}, stdout=subprocess.PIPE, text=True, check=True
            )
        found = json.loads(done.stdout.splitlines()[-1])
        theirs, ours = found["theirs"], found["ours"]
        dearer = [path for path in PATHS if ours[path] >= theirs[path]]
        mark = f"  ours is dearer: {', '.join(dearer)}" if dearer else ""
        numbers = "  ".join(f"{theirs[path]:8.1f} {ours[path]:8.1f}" for path in PATHS)
        print(f"{row:36} {numbers}{mark}", flush=True)
    print(f"({Path(__file__).name}: theirs is the framework's own or best known session on the same kind of store)")


if __name__ == "__main__":
    main()
