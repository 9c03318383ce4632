"""Requests of Django at the same time, over HTTP and on PostgreSQL by Django's own connections: promises hold.

Each view waits until all requests of its round have come, so all have loaded their session before any is committed.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest

from tests.conftest import server_or_skip
from tests.support.servers import postgres

from .django_site import ready

ready()

from django.contrib.auth import get_user_model, login, logout, user_logged_in  # noqa: E402
from django.contrib.auth.models import update_last_login  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from coatcheck import Registry, SessionLimit  # noqa: E402
from coatcheck.adapters.django import SessionStore, exchange_of, session_of  # noqa: E402
from coatcheck.adapters.django.site import site  # noqa: E402
from coatcheck.flow import sync  # noqa: E402

COOKIE = "__Host-session"
ALIAS = "parallel"
MANY = 6
PATIENCE = 20.0

gate = threading.Barrier(MANY)
"""Where the requests of a round meet."""


def act(request: HttpRequest, what: str, name: str) -> HttpResponse:
    """Do something at the same time as all others."""
    session: Any = request.session
    session.get("loaded")
    gate.wait(PATIENCE)
    if what == "login":
        login(request, get_user_model().objects.get(username=name))
    elif what == "logout":
        logout(request)
    elif what == "put":
        session[name] = name
    elif what == "take":
        return HttpResponse(str(exchange_of(request).take(session_of(request), name)))
    elif what == "bump":
        return HttpResponse(str(exchange_of(request).bump(session_of(request), name)))
    return HttpResponse("done")


urlpatterns = [path("<str:what>/<str:name>", act)]


class ToOne:
    """A router that has everything on one database."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return ALIAS

    db_for_write = db_for_read


class Quiet(WSGIRequestHandler):
    """Django's own, without a word."""

    def log_message(self, *_more: Any) -> None:
        pass


@pytest.fixture(scope="module", params=["read committed", "serializable"])
def level(request: pytest.FixtureRequest) -> str:
    """Return how the database's transactions are isolated."""
    return str(request.param)


@pytest.fixture(scope="module")
def database(level: str) -> Iterator[None]:
    """Let everything of the project lie on a PostgreSQL database, whose transactions are isolated like that."""
    url = server_or_skip(postgres.server).url
    parts = urlsplit(url)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"drop database if exists {ALIAS}")
        admin.execute(f"create database {ALIAS}")
    connections.settings[ALIAS] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.postgresql",
        "NAME": ALIAS,
        "USER": parts.username,
        "PASSWORD": (parts.password or "").replace("%20", " "),
        "HOST": parts.hostname,
        "PORT": str(parts.port),
        "OPTIONS": {"isolation_level": psycopg.IsolationLevel[level.replace(" ", "_").upper()]},
        "ATOMIC_REQUESTS": True,
    }
    chosen = override_settings(DATABASE_ROUTERS=[ToOne()], ROOT_URLCONF=__name__)
    chosen.enable()
    user_logged_in.disconnect(update_last_login, dispatch_uid="update_last_login")  # all write one row: Django's race
    try:
        for app in ("contenttypes", "auth", "coatcheck"):
            call_command("migrate", app, database=ALIAS, verbosity=0)
        get_user_model().objects.create_user("ann")
        yield
    finally:
        user_logged_in.connect(update_last_login, dispatch_uid="update_last_login")
        chosen.disable()
        connections[ALIAS].close()
        del connections.settings[ALIAS]
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"drop database {ALIAS} with (force)")


class Site:
    """The project behind Django's own server of threads."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.subject = str(get_user_model().objects.get(username="ann").pk)
        self.registry = Registry(site().store, site().manager.realm)

    def all_at_once(self, *asked: tuple[str, str | None]) -> list[Any]:
        """Send requests (a path and a cookie), all under way before any is answered; return their answers."""
        assert len(asked) == MANY

        def one(what: tuple[str, str | None]) -> Any:
            target, token = what
            headers = {} if token is None else {"Cookie": f"{COOKIE}={token}"}
            return client.get(self.base + target, headers=headers)

        with httpx2.Client(timeout=PATIENCE, verify=False) as client, ThreadPoolExecutor(MANY) as pool:
            return list(pool.map(one, asked))

    def live(self) -> set[str]:
        """Return the handles of the sessions that ann has."""
        return {one.handle for one in self.registry.find(self.subject).items}


@pytest.fixture
def served(request: pytest.FixtureRequest, database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Run the project with a limit, if the test names one; what must be tried again may take its time."""
    monkeypatch.setattr(sync, "COMMIT_DEADLINE", PATIENCE)
    chosen = override_settings(COATCHECK={"STORE": "django", "LIMIT": getattr(request, "param", None)})
    chosen.enable()
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(get_wsgi_application())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        found = Site(f"http://127.0.0.1:{server.server_port}/")
        found.registry.revoke_all(found.subject)
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        chosen.disable()


def begun(**data: Any) -> str:
    """Return the cookie of a stored session."""
    session = SessionStore()
    session.update(data)
    session.save()
    return str(session.session_key)


def handed(answer: Any) -> str | None:
    """Return the cookie that an answer sets."""
    return answer.cookies.get(COOKIE)


LOGIN = ("login/ann", None)


def test_who_logs_in_everywhere_at_once_is_logged_in_everywhere(served: Site) -> None:
    answers = served.all_at_once(*[LOGIN] * MANY)
    tokens = [str(handed(answer)) for answer in answers]
    assert {token.split(".")[1] for token in tokens} == served.live()
    assert len(served.live()) == MANY


@pytest.mark.parametrize("served", [2], indirect=True)
def test_a_limit_is_one_however_many_come_at_once(served: Site) -> None:
    answers = served.all_at_once(*[LOGIN] * MANY)
    assert [answer.status_code for answer in answers] == [200] * MANY
    assert len(served.live()) == 2
    assert served.live() <= {str(handed(answer)).split(".")[1] for answer in answers}


@pytest.mark.parametrize("served", [SessionLimit(2, on_limit="refuse")], indirect=True)
def test_a_limit_that_refuses_lets_in_that_many(served: Site) -> None:
    answers = served.all_at_once(*[LOGIN] * MANY)
    assert Counter(answer.status_code for answer in answers) == {200: 2, 403: MANY - 2}
    entered = {str(handed(answer)).split(".")[1] for answer in answers if answer.status_code == 200}
    assert served.live() == entered
    assert [handed(answer) for answer in answers if answer.status_code == 403] == [None] * (MANY - 2)


def test_of_one_anonymous_session_a_double_click_makes_one_login_and_no_way_back(served: Site) -> None:
    before = begun(cart=1)
    answers = served.all_at_once(*[("login/ann", before)] * MANY)
    assert not SessionStore().exists(before)
    tokens = [token for token in map(handed, answers) if token]
    assert {token.split(".")[1] for token in tokens} == served.live()
    assert len(tokens) == len(served.live()) >= 1
    assert [SessionStore(token).get("cart") for token in tokens] == [1] * len(tokens)


def test_who_writes_different_keys_loses_none(served: Site) -> None:
    token = begun()
    answers = served.all_at_once(*[(f"put/k{number}", token) for number in range(MANY)])
    assert [answer.status_code for answer in answers] == [200] * MANY
    assert {f"k{number}" for number in range(MANY)} <= set(SessionStore(token).keys())


def test_what_must_happen_once_does(served: Site, level: str) -> None:
    """In a view's transaction that is serializable some fail, as any write of the view's may; none happens twice."""
    token = begun(ticket="gold", n=1)
    half = MANY // 2
    answers = served.all_at_once(*[("take/ticket", token)] * half, *[("bump/n", token)] * half)
    done = sorted(answer.text for answer in answers if answer.status_code == 200)
    stored = SessionStore(token)
    assert stored["n"] == 1 + sum(text.isdigit() for text in done) == max([1, *map(int, filter(str.isdigit, done))])
    assert done.count("gold") == ("ticket" not in stored)
    if level == "read committed":
        assert done == ["2", "3", "4", "None", "None", "gold"]


def test_a_logout_wins_over_all_that_write_beside_it(served: Site) -> None:
    token = begun()
    answers = served.all_at_once(("logout/x", token), *[(f"put/k{number}", token) for number in range(MANY - 1)])
    assert [answer.status_code for answer in answers] == [200] * MANY
    assert not SessionStore().exists(token)
    assert [handed(answer) for answer in answers[1:]] == [None] * (MANY - 1)
