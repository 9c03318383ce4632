"""Measure what a session on a server over the network costs a busy worker: `python -m bench.network`.

CPU seconds of this process (ours and the client library's together) a request, less those of the bare application,
with 64 requests at a time in one event loop, as an asyncio worker has them. Beside us, in the same run and in turns:
starsessions on the same Redis; and Django's `cache` (Redis) and `db` (PostgreSQL) engines, one request after another,
as a sync worker has them (these come with `pip install -e ".[bench]"`). The servers are started for this and stopped
afterwards; their CPU is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import os
import platform
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import django
import msgspec
import starsessions
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as CacheSessions
from django.contrib.sessions.backends.db import SessionStore as DbSessions
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import HttpResponse
from django.test.utils import override_settings
from django.urls import path
from redis.asyncio import Redis
from starsessions.stores.redis import RedisStore as StarRedis

from bench.applications import DATA, HEADERS, OTHERS, read, signed_in, untouched
from coatcheck import SessionManager, open_async_store
from coatcheck.adapters.asgi import SessionMiddleware
from tests.support.servers import postgres, redis

CONCURRENT = 64
GOALS = {"coatcheck redis": 25.0, "coatcheck postgresql": 30.0}
"""Microseconds of CPU that a read may add, client included."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class AsyncCase:
    """An ASGI application and the cookies of 64 visitors."""

    def __init__(self, name: str, app: App, cookies: list[bytes], expect: bytes = b"") -> None:
        """Prepare the scopes; the response must carry the header `expect`."""
        self.name, self._app, self._expect = name, app, expect
        self._headers = [[*HEADERS, (b"cookie", OTHERS + b"; " + cookie)] for cookie in cookies]

    async def block(self, rounds: int) -> float:
        """Return the CPU seconds of one request, on average."""
        bad: list[Any] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = [name.lower() for name, _ in message["headers"]]
                if message["status"] != 200 or (self._expect and self._expect not in names):
                    bad.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def visitor(headers: list[tuple[bytes, bytes]]) -> None:
            for _ in range(rounds):
                scope = {
                    "type": "http",
                    "method": "GET",
                    "scheme": "https",
                    "path": "/",
                    "raw_path": b"/",
                    "query_string": b"",
                    "headers": headers,
                    "client": ("192.0.2.7", 40000),
                    "server": ("localhost", 443),
                }
                await self._app(scope, receive, send)

        gc.collect()
        began = time.process_time()
        await asyncio.gather(*map(visitor, self._headers))
        took = time.process_time() - began
        if bad:
            message = f"{self.name} did not do its work: {bad[0]}"
            raise RuntimeError(message)
        return took / (rounds * len(self._headers))


class SyncCase:
    """A Django application, one request after another."""

    def __init__(self, name: str, handler: WSGIHandler, cookie: str, where: str = "/") -> None:
        """Prepare the environ."""
        self.name, self._handler = name, handler
        self._environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": where,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "443",
            "wsgi.url_scheme": "https",
            "HTTP_COOKIE": f"{OTHERS.decode()}; sessionid={cookie}",
            **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in HEADERS},
        }

    async def block(self, rounds: int) -> float:
        """Return the CPU seconds of one request, on average."""
        statuses: set[str] = set()
        gc.collect()
        began = time.process_time()
        for _ in range(rounds * 8):
            environ = {**self._environ, "wsgi.input": io.BytesIO()}
            response = self._handler(environ, lambda status, _: statuses.add(status))
            b"".join(response)
            response.close()
        took = time.process_time() - began
        if statuses != {"200 OK"}:
            message = f"{self.name} did not do its work: {statuses}"
            raise RuntimeError(message)
        return took / (rounds * 8)


async def coatcheck_case(name: str, url: str) -> AsyncCase:
    """Return the application with our sessions in the store of a URL."""
    manager = SessionManager(origins=["https://localhost"])
    store = open_async_store(url)
    app = SessionMiddleware(read, store=store, manager=manager)
    await app.exchange.begin(_request())  # learns what the store has to say of itself
    cookies = []
    for _ in range(CONCURRENT):
        cookie, insert = signed_in(manager)
        await store.commit(secrets.token_bytes(16), (insert,), durable=True)
        cookies.append(cookie)
    return AsyncCase(name, app, cookies, b"vary")


def _request() -> Any:
    from coatcheck.core.model import Request

    return Request("GET", "https", "/", ((b"host", b"localhost"),))


async def starsessions_case(url: str) -> AsyncCase:
    """Return the application with starsessions on the same Redis."""
    connection = Redis.from_url(url)
    cookies = []
    for _ in range(CONCURRENT):
        name = secrets.token_hex(16)
        await connection.set(f"starsessions.{name}", msgspec.json.encode(DATA))
        cookies.append(b"session=" + name.encode())
    inner = starsessions.SessionAutoloadMiddleware(read)
    app = starsessions.SessionMiddleware(inner, store=StarRedis(connection=connection), lifetime=3600)
    return AsyncCase("starsessions redis", app, cookies)


def _view(request: Any) -> HttpResponse:
    if request.session.get("user_id") != DATA["user_id"]:
        message = "the session was not read"
        raise RuntimeError(message)
    return HttpResponse(b"ok")


def _bare(_request: Any) -> HttpResponse:
    return HttpResponse(b"ok")


urlpatterns = [path("", _view), path("bare", _bare)]


def django_cases(redis_url: str, postgres_url: str) -> list[SyncCase]:
    """Return Django bare, with its cache engine on Redis and with its db engine on PostgreSQL."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(postgres_url)
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_hex(32),
        INSTALLED_APPS=["django.contrib.sessions"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_url}},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts.get("dbname"),
                "USER": parts.get("user"),
                "PASSWORD": parts.get("password", ""),
                "HOST": parts.get("host"),
                "PORT": parts.get("port"),
                "CONN_MAX_AGE": None,
            }
        },
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    )
    django.setup()
    call_command("migrate", verbosity=0)
    found = []
    for name, engine, kind in (
        ("django cache redis", "cache", CacheSessions),
        ("django db postgresql", "db", DbSessions),
    ):
        session = kind()
        session.update(DATA)
        session.create()
        with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
            found.append(SyncCase(name, WSGIHandler(), session.session_key))
    with override_settings(MIDDLEWARE=[]):
        bare = SyncCase("django bare", WSGIHandler(), "none", "/bare")
    return [bare, *found]


async def measure(rounds: int, blocks: int) -> dict[str, list[float]]:
    """Return the block times of each case, in turns."""
    redis_server, postgres_server = redis.single(), postgres.server()
    # Django's connections belong to the thread that made them, and its set-up refuses a running loop
    djangos = await asyncio.to_thread(django_cases, redis_server.url, postgres_server.url)
    cases: list[Any] = [
        AsyncCase("bare", untouched, [b"x=y"] * CONCURRENT),
        await coatcheck_case("coatcheck redis", redis_server.url),
        await coatcheck_case("coatcheck postgresql", postgres_server.url),
        await starsessions_case(redis_server.url),
    ]
    times: dict[str, list[float]] = {case.name: [] for case in [*cases, *djangos]}
    for number in range(blocks + 1):
        for case in cases:
            took = await case.block(rounds)
            if number:
                times[case.name].append(took)
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    for number in range(blocks + 1):
        for case in djangos:
            took = await case.block(rounds)
            if number:
                times[case.name].append(took)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=40, help="requests of each of the 64 visitors in a block (40)")
    parser.add_argument("--blocks", type=int, default=15, help="blocks of each case (15)")
    chosen = parser.parse_args()
    times = asyncio.run(measure(chosen.rounds, chosen.blocks))
    medians = {name: statistics.median(found) * 1e6 for name, found in times.items()}
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; {CONCURRENT} at a time")
    print(f"{'CPU added to a read':26} {'us':>7} {'goal':>6}")
    for name, median in medians.items():
        if "bare" in name:
            continue
        base = medians["django bare" if name.startswith("django") else "bare"]
        goal = GOALS.get(name)
        mark = "" if goal is None else f"{goal:6g}  {'ok' if median - base <= goal else 'ABOVE'}"
        print(f"{name:26} {median - base:7.1f} {mark}")
    print(f"(bare ASGI: {medians['bare']:.1f} us; bare Django: {medians['django bare']:.1f} us)")


if __name__ == "__main__":
    main()
