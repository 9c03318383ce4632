"""Whoever is logged in by another library stays so when coatcheck takes its place: each library's own, at work."""

import asyncio
import datetime as dt
import io
import json
import logging
import sqlite3
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from coatcheck import MemoryStore, Registry
from coatcheck.adapters import asgi, wsgi
from coatcheck.core.model import EventQuery, Level
from coatcheck.legacy import (
    CachelibFolder,
    DjangoCache,
    DjangoCookie,
    DjangoDatabase,
    FlaskCookie,
    FlaskSession,
    LitestarCookie,
    LitestarFolder,
    LitestarStore,
    RedisShelf,
    Source,
    StarletteCookie,
    StarsessionsCookie,
    StarsessionsStore,
    Table,
)
from tests.support.servers import redis as servers
from tests.support.servers.base import NoServerError

SECRET = "s" * 32
UNTIL = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
Old = tuple[dict[str, str], Source]
DATA = {"user": "ann", "cart": ["tea", 2]}


def jar_of(set_cookies: list[str]) -> dict[str, str]:
    """Return what a browser would send back: values as they were set."""
    pairs = [line.partition(";")[0].partition("=") for line in set_cookies]
    return {name: value for name, _, value in pairs}


def flask_jar(app: Any) -> dict[str, str]:
    answer = app.test_client().get("/login")
    assert answer.status_code == 200
    return jar_of(answer.headers.getlist("Set-Cookie"))


def flask_app(**settings: Any) -> Any:
    import flask

    app = flask.Flask("old")
    app.config.update(SECRET_KEY=SECRET, **settings)

    @app.route("/login")
    def login() -> str:
        flask.session.update(DATA)
        return "in"

    return app


def flask_cookie(_: Path) -> Old:
    return flask_jar(flask_app()), FlaskCookie(["new key", SECRET], subject="user", until=UNTIL)


def quart_cookie(_: Path) -> Old:
    import quart

    app = quart.Quart("old")
    app.secret_key = SECRET

    @app.route("/login")
    async def login() -> str:
        quart.session.update(DATA)
        return "in"

    async def jar() -> dict[str, str]:
        answer = await app.test_client().get("/login")
        assert answer.status_code == 200
        return jar_of(answer.headers.getlist("Set-Cookie"))

    return asyncio.run(jar()), FlaskCookie(SECRET, subject="user", until=UNTIL)


def flask_session_sql(place: Path) -> Old:
    from flask_session import Session
    from flask_sqlalchemy import SQLAlchemy

    app = flask_app(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI=f"sqlite:///{place}/old.db")
    app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    Session(app)
    url = f"sqlite:///{place}/old.db"
    shelf = Table(url, "sessions", key="session_id", data="data", ends="expiry", prefix="session:")
    return flask_jar(app), FlaskSession(shelf, subject="user", until=UNTIL)


@pytest.fixture(scope="module")
def redis_url() -> Any:
    try:
        server = servers.single()
    except NoServerError as error:
        pytest.skip(str(error))
    yield server.url
    server.stop()


def flask_session_redis(url: str, written: str, *, signer: bool) -> Old:
    import redis
    from flask_session import Session

    more = {"SESSION_USE_SIGNER": True} if signer else {}
    app = flask_app(
        SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(url), SESSION_SERIALIZATION_FORMAT=written, **more
    )
    Session(app)
    shelf = RedisShelf(url, prefix="session:")
    return flask_jar(app), FlaskSession(shelf, subject="user", until=UNTIL, signed_by=SECRET if signer else ())


def starlette_jar(*middleware: Any) -> dict[str, str]:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    async def login(request: Any) -> Any:
        request.session.update(DATA)
        return PlainTextResponse("in")

    app = Starlette(routes=[Route("/login", login)], middleware=list(middleware))
    with TestClient(app, base_url="https://testserver") as client:
        return jar_of(client.get("/login").headers.get_list("set-cookie"))


def starlette_cookie(_: Path) -> Old:
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    jar = starlette_jar(Middleware(SessionMiddleware, secret_key=SECRET))
    return jar, StarletteCookie(SECRET, subject="user", until=UNTIL)


def starsessions_of(store: Any, **more: Any) -> dict[str, str]:
    from starlette.middleware import Middleware
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware

    return starlette_jar(Middleware(SessionMiddleware, store=store, **more), Middleware(SessionAutoloadMiddleware))


def starsessions_cookie(_: Path) -> Old:
    from starsessions import CookieStore

    jar = starsessions_of(CookieStore(SECRET), lifetime=3600)
    return jar, StarsessionsCookie(SECRET, subject="user", until=UNTIL, lifetime=3600)


def starsessions_redis(url: str) -> Old:
    from redis.asyncio import Redis
    from starsessions.stores.redis import RedisStore

    jar = starsessions_of(RedisStore(connection=Redis.from_url(url)), lifetime=3600)
    return jar, StarsessionsStore(RedisShelf(url, prefix="starsessions."), subject="user", until=UNTIL)


def litestar_jar(config: Any, **stores: Any) -> dict[str, str]:
    from litestar import Litestar, Request, get
    from litestar.testing import TestClient

    @get("/login")
    async def login(request: Request[Any, Any, Any]) -> str:
        request.set_session(dict(DATA))
        return "in"

    login.fn.__annotations__["request"] = Request
    app = Litestar([login], middleware=[config.middleware], stores=stores, logging_config=None)
    with TestClient(app, base_url="https://testserver") as client:
        return jar_of(client.get("/login").headers.get_list("set-cookie"))


def litestar_cookie(_: Path) -> Old:
    from litestar.middleware.session.client_side import CookieBackendConfig

    jar = litestar_jar(CookieBackendConfig(secret=SECRET.encode()))
    return jar, LitestarCookie(SECRET.encode(), subject="user", until=UNTIL)


def litestar_files(place: Path) -> Old:
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.file import FileStore

    jar = litestar_jar(ServerSideSessionConfig(), sessions=FileStore(place / "kept"))
    return jar, LitestarStore(LitestarFolder(place / "kept"), subject="user", until=UNTIL)


def litestar_redis(url: str) -> Old:
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.redis import RedisStore

    jar = litestar_jar(ServerSideSessionConfig(), sessions=RedisStore.with_client(url))
    return jar, LitestarStore(RedisShelf(url, prefix="LITESTAR:"), subject="user", until=UNTIL)


def django(engine: str, place: Path) -> str:
    """Log in by Django's own session engine and return the cookie's value."""
    import django as installed
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            SECRET_KEY=SECRET,
            INSTALLED_APPS=["django.contrib.sessions"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(place / "django.db")}},
            USE_TZ=True,
        )
        installed.setup()
    from importlib import import_module

    from django.core.management import call_command
    from django.db import connections
    from django.test import override_settings

    database = {"default": {**connections["default"].settings_dict, "NAME": str(place / "django.db")}}
    with override_settings(SECRET_KEY=SECRET):
        connections["default"].close()
        connections["default"].settings_dict["NAME"] = database["default"]["NAME"]
        if engine.endswith("db"):
            call_command("migrate", verbosity=0)
        session = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore()
        session.update({"_auth_user_id": "ann", "_auth_user_hash": "abc", **DATA})
        session.save()
        connections["default"].close()
        return str(session.session_key)


def django_cookie(place: Path) -> Old:
    return {"sessionid": django("signed_cookies", place)}, DjangoCookie(SECRET, until=UNTIL)


def django_db(place: Path) -> Old:
    jar = {"sessionid": django("db", place)}
    return jar, DjangoDatabase(f"sqlite:///{place}/django.db", SECRET, until=UNTIL)


def django_cached_db(place: Path) -> Old:
    jar = {"sessionid": django("cached_db", place)}
    return jar, DjangoDatabase(f"sqlite:///{place}/django.db", SECRET, until=UNTIL)


def django_cache(place: Path) -> Old:
    jar = {"sessionid": django("cache", place)}
    from django.core.cache import caches

    return jar, DjangoCache(caches["default"], until=UNTIL)


LOCAL = [
    *(flask_cookie, quart_cookie, flask_session_sql),
    *(starlette_cookie, starsessions_cookie, litestar_cookie, litestar_files),
    *(django_cookie, django_db, django_cached_db, django_cache),
]
IN_REDIS: list[Callable[[str], Old]] = [
    lambda url: flask_session_redis(url, "msgpack", signer=False),
    lambda url: flask_session_redis(url, "json", signer=False),
    lambda url: flask_session_redis(url, "msgpack", signer=True),
    starsessions_redis,
    litestar_redis,
]


class Site:
    """The application after the change, behind one of our two middlewares: /me tells whose and what, /logout ends."""

    def __init__(self, kind: str, source: Source, store: Any, **settings: Any) -> None:
        self.kind, self.store = kind, store
        wrap: Any = asgi.SessionMiddleware if kind == "asgi" else wsgi.SessionMiddleware
        app: Any = self._asgi if kind == "asgi" else self._wsgi
        self.app = wrap(app, store=store, origins=["https://app.test"], legacy=[source], **settings)

    def get(self, jar: dict[str, str], path: str = "/me", method: str = "GET") -> tuple[dict[str, Any], list[str]]:
        header = "; ".join(f"{name}={value}" for name, value in jar.items())
        lines = [("host", "app.test"), ("cookie", header), ("sec-fetch-site", "same-origin")]
        body, headers = (
            asyncio.run(self._ask_asgi(path, method, lines))
            if self.kind == "asgi"
            else self._ask_wsgi(path, method, lines)
        )
        return json.loads(body), [value for name, value in headers if name.lower() == "set-cookie"]

    @staticmethod
    def _answer(session: Any, path: str) -> bytes:
        if path == "/logout":
            session.logout()
            return b"{}"
        found = {"subject": session.subject, "level": session.level, **session.copy()}
        return json.dumps(found, default=str).encode()

    async def _asgi(self, scope: Any, _receive: Any, send: Any) -> None:
        body = self._answer(asgi.session_of(scope), scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def _wsgi(self, environ: Any, start: Any) -> list[bytes]:
        body = self._answer(wsgi.session_of(environ), environ["PATH_INFO"])
        start("200 OK", [])
        return [body]

    async def _ask_asgi(self, path: str, method: str, lines: list[tuple[str, str]]) -> tuple[bytes, list[Any]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        headers = [(name.encode(), value.encode()) for name, value in lines]
        scope = {"type": "http", "method": method, "path": path, "scheme": "https", "headers": headers}
        await self.app({**scope, "query_string": b"", "client": ("192.0.2.7", 1)}, receive, send)
        pairs = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        return b"".join(part.get("body", b"") for part in sent[1:]), pairs

    def _ask_wsgi(self, path: str, method: str, lines: list[tuple[str, str]]) -> tuple[bytes, list[Any]]:
        started: list[Any] = []
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in lines}
        environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.7"}
        body = self.app({**environ, "wsgi.input": io.BytesIO()}, lambda _status, headers, *_: started.append(headers))
        return b"".join(body), started[0]


def taken(jar: dict[str, str], lines: list[str]) -> None:
    """Do to a jar what a browser does with Set-Cookie lines."""
    for line in lines:
        ((name, morsel),) = SimpleCookie(line).items()
        if morsel["max-age"] == "0":
            jar.pop(name, None)
        else:
            jar[name] = morsel.value


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("make", LOCAL)
def test_a_browser_stays_logged_in(make: Callable[[Path], Old], kind: str, tmp_path: Path) -> None:
    stays_logged_in(*make(tmp_path), kind)


@pytest.mark.parametrize("number", range(len(IN_REDIS)))
def test_a_browser_stays_logged_in_by_redis(number: int, kind: str, redis_url: str) -> None:
    stays_logged_in(*IN_REDIS[number](redis_url), kind)


def stays_logged_in(jar: dict[str, str], source: Source, kind: str) -> None:
    before = dict(jar)
    assert before
    store = MemoryStore()
    site = Site(kind, source, store)
    found, lines = site.get(jar)
    assert found["subject"] == "ann"
    assert found["level"] == Level.REMEMBERED
    assert found["cart"] == ["tea", 2]
    taken(jar, lines)
    assert set(jar) == {"__Host-coat"}
    assert any(line.startswith("__Host-coat=") and "Secure; HttpOnly; SameSite=Lax" in line for line in lines)
    assert site.get(jar)[0]["subject"] == "ann"
    taken(jar, site.get(jar, "/logout", "POST")[1])
    found, lines = site.get(before)
    assert (found["subject"], lines) == (None, [])
    events = store.events(EventQuery(name="session_converted")).items
    assert [event.detail["source"] for event in events] == [source.library]


@pytest.mark.parametrize("make", [flask_session_sql, litestar_files, django_db])
def test_the_old_store_forgets_what_was_taken_over(make: Callable[[Path], Old], kind: str, tmp_path: Path) -> None:
    jar, source = make(tmp_path)
    (value,) = jar.values()
    Site(kind, source, MemoryStore()).get(jar)
    assert source.fetch(value, dt.datetime.now(dt.UTC).timestamp()) is None


@pytest.mark.parametrize("make", LOCAL)
def test_what_is_no_old_cookie_is_anonymous(make: Callable[[Path], Old], kind: str, tmp_path: Path) -> None:
    """Every byte of it changed, cut, forged, too long: no session, no 5xx, nothing written."""
    jar, source = make(tmp_path)
    store = MemoryStore()
    site = Site(kind, source, store)
    ((name, value),) = jar.items()
    middle = len(value) // 2
    other = "A" if value[middle] != "A" else "B"
    for bad in (value[:middle] + other + value[middle + 1 :], value[:middle], "", "x", "x" * 5000, "a.b.c", "null"):
        found, lines = site.get({name: bad})
        assert (found["subject"], lines) == (None, []), bad
    assert store.events(EventQuery(noise=False)).items == ()


def test_one_token_has_one_spelling(kind: str, tmp_path: Path) -> None:
    """Base64 spells a signature in several ways that decode alike: a converted token is not new in another."""
    jar, source = flask_cookie(tmp_path)
    site = Site(kind, source, MemoryStore())
    ours: dict[str, str] = dict(jar)
    taken(ours, site.get(jar)[1])
    site.get(ours, "/logout", "POST")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet:
        assert site.get({"session": jar["session"][:-1] + last})[0]["subject"] is None


def test_an_old_cookie_beside_ours_is_ignored(kind: str, tmp_path: Path) -> None:
    jar, source = flask_cookie(tmp_path)
    site = Site(kind, source, MemoryStore())
    assert site.get({**jar, "__Host-coat": "anything"})[0]["subject"] is None


def test_after_the_cut_off_nothing_counts(kind: str, tmp_path: Path) -> None:
    jar, _ = flask_cookie(tmp_path)
    over = FlaskCookie(SECRET, subject="user", until=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert Site(kind, over, MemoryStore()).get(jar)[0]["subject"] is None


def test_a_session_past_its_old_lifetime_is_over(kind: str, tmp_path: Path) -> None:
    jar, _ = flask_cookie(tmp_path)
    later = dt.datetime.now(dt.UTC).timestamp() + 7200
    short = FlaskCookie(SECRET, subject="user", until=UNTIL, lifetime=3600)
    store = MemoryStore(clock=lambda: later)
    from coatcheck import SessionManager

    site = Site(kind, short, store)
    manager = SessionManager(clock=lambda: later, origins=["https://app.test"], legacy=[short])
    wrap: Any = asgi.SessionMiddleware if kind == "asgi" else wsgi.SessionMiddleware
    site.app = wrap(site._asgi if kind == "asgi" else site._wsgi, store=store, manager=manager)
    assert site.get(jar)[0]["subject"] is None


def test_a_pickled_session_is_refused_and_never_unpickled(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    from cachelib import FileSystemCache
    from flask_session import Session

    app = flask_app(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(str(tmp_path / "kept")))
    Session(app)
    jar = flask_jar(app)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    source = FlaskSession(CachelibFolder(tmp_path / "kept"), subject="user", until=UNTIL)
    with caplog.at_level(logging.WARNING):
        found, lines = Site(kind, source, MemoryStore()).get(jar)
    assert (found["subject"], lines) == (None, [])
    assert "it is pickled" in caplog.text


def test_an_old_store_that_is_away_is_no_reason_to_forget_anybody(kind: str, tmp_path: Path) -> None:
    source = DjangoDatabase(f"sqlite:///{tmp_path}/none.db", SECRET, until=UNTIL)
    with pytest.raises(json.JSONDecodeError):  # 503, in plain text
        Site(kind, source, MemoryStore()).get({"sessionid": "k" * 32})


def test_a_session_from_before_its_subjects_epoch_is_refused(kind: str, tmp_path: Path) -> None:
    jar, source = flask_session_sql(tmp_path)
    db = sqlite3.connect(tmp_path / "old.db")
    db.execute("update sessions set expiry = datetime(expiry, '-1 hour')")
    db.commit()
    db.close()
    store = MemoryStore()
    Registry(store, "__Host-coat").revoke_all("ann")
    assert Site(kind, source, store).get(jar)[0]["subject"] is None
