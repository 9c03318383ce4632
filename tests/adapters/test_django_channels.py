"""Django Channels: consumers, awaited and in threads, with our session and Django's user, and what ends them."""

import asyncio
import itertools
import json
import sys
import threading
import unittest
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, ClassVar

import pytest

from coatcheck.testing.flaky import FlakyStore

from .django_site import ready

ready()

from asgiref.sync import async_to_sync, sync_to_async  # noqa: E402
from channels import auth as theirs  # noqa: E402
from channels.generic.http import AsyncHttpConsumer  # noqa: E402
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from channels.sessions import SessionMiddlewareStack as TheirSessions  # noqa: E402
from channels.testing import HttpCommunicator, WebsocketCommunicator  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from coatcheck import Floods, MemoryStore, Registry  # noqa: E402
from coatcheck.adapters.django import SessionStore  # noqa: E402
from coatcheck.adapters.django import channels as ours  # noqa: E402
from coatcheck.adapters.django.channels import (  # noqa: E402
    ENDED_CODE,
    AuthMiddleware,
    AuthMiddlewareStack,
    RequireLogin,
    SessionMiddlewareStack,
    exchange_of,
    session_of,
)
from coatcheck.adapters.django.models import StoredSession  # noqa: E402
from coatcheck.adapters.django.site import site  # noqa: E402
from coatcheck.adapters.django.store import DjangoStore  # noqa: E402
from coatcheck.core.errors import ConfigError, SettledError  # noqa: E402

from .test_django import written  # noqa: E402

COOKIE = "__Host-session"
HERE = "https://testserver"


class Chat(AsyncJsonWebsocketConsumer):
    """What users write: a consumer on the event loop."""

    codes: ClassVar[list[int]] = []

    async def receive_json(self, content: Any, **more: Any) -> None:
        session, said = self.scope["session"], None
        try:
            if "write" in content:
                session["said"] = content["write"]
            if "save" in content:
                await session.asave()
            if "count" in content:
                said = await exchange_of(self).bump(session_of(self), "n")
            if "login" in content:
                await theirs.login(self.scope, await get_user_model().objects.aget(username=content["login"]))
            if "logout" in content:
                await theirs.logout(self.scope)
            if "expiry" in content:
                await session.aset_expiry(content["expiry"])
        except Exception as error:  # noqa: BLE001 - what it says is the answer
            said = f"{type(error).__name__}: {error}"
        await self.send_json({"said": said, **seen(self.scope)})

    async def disconnect(self, code: int) -> None:
        Chat.codes.append(code)


class ChatInThreads(JsonWebsocketConsumer):
    """The same, blocking."""

    def receive_json(self, content: Any, **more: Any) -> None:
        session, said = self.scope["session"], None
        try:
            if "write" in content:
                session["said"] = content["write"]
            if "save" in content:
                session.save()
            if "count" in content:
                said = session.exchange.bump(session.inner, "n")
            if "login" in content:
                async_to_sync(theirs.login)(self.scope, get_user_model().objects.get(username=content["login"]))
            if "logout" in content:
                async_to_sync(theirs.logout)(self.scope)
            if "expiry" in content:
                session.set_expiry(content["expiry"])
        except Exception as error:  # noqa: BLE001 - what it says is the answer
            said = f"{type(error).__name__}: {error}"
        self.send_json({"said": said, **seen(self.scope)})

    def disconnect(self, code: int) -> None:
        Chat.codes.append(code)


def seen(scope: Any) -> dict[str, Any]:
    """Return what a consumer finds in its scope; of the session, what is not Django's."""
    data = {key: value for key, value in scope["session"].items() if key[0] != "_"}
    return {"user": str(scope["user"]), "data": data, "cookies": sorted(scope["cookies"])}


def line(app: Any, token: str | None = None, *, at: str = "/chat", origin: str | None = HERE) -> WebsocketCommunicator:
    """Return the client's end of a socket, as a browser with that cookie opens it from a page of an origin."""
    headers = [(b"host", b"testserver")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if token is not None:
        headers.append((b"cookie", f"other=1; {settings.SESSION_COOKIE_NAME}={token}".encode()))
    return WebsocketCommunicator(app, at, headers=headers)


@asynccontextmanager
async def connected(*arguments: Any, **named: Any) -> AsyncIterator[Callable[[Any], Any]]:
    """Open a socket, and yield a function that says something and returns the answer."""
    open_line = line(*arguments, **named)
    assert (await open_line.connect(timeout=10))[0]

    async def ask(**content: Any) -> Any:
        await open_line.send_json_to(content)
        return json.loads(await open_line.receive_from(timeout=10))

    ask.line = open_line  # type: ignore[attr-defined]
    yield ask
    if not open_line.future.done():
        await open_line.disconnect(timeout=10)


async def closed(open_line: WebsocketCommunicator) -> int:
    """Wait for a socket's end; return its code."""
    message = await open_line.receive_output(timeout=10)
    assert message["type"] == "websocket.close"
    await open_line.wait(timeout=10)
    return int(message["code"])


class Someone:
    """Somebody who is logged in: the user, a browser, and its cookie."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self.name = f"ann{next(self.numbers)}"
        self.user = get_user_model().objects.create_user(self.name)
        self.client = Client()
        self.client.force_login(self.user)
        self.token = self.client.cookies[COOKIE].value

    async def get(self, target: str) -> Any:
        return await sync_to_async(self.client.get)(target)

    async def data(self) -> dict[str, Any]:
        """Return what is stored in the session."""
        return await SessionStore(self.token).aload()

    async def lives(self) -> bool:
        return bool(await SessionStore().aexists(self.token))


@pytest.fixture(scope="module")
def database() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture
def ann(database: None) -> Someone:
    return Someone()


@pytest.fixture(params=["awaited", "in threads"])
def app(request: pytest.FixtureRequest) -> Any:
    """Return the same consumer on the event loop, and in Django's thread, over the "django" store."""
    consumer = Chat if request.param == "awaited" else ChatInThreads
    Chat.codes.clear()
    return AuthMiddlewareStack(URLRouter([path("chat", consumer.as_asgi())]))


async def test_it_knows_the_session_and_the_user(app: Any, ann: Someone) -> None:
    await ann.get("/count/")
    async with connected(app, ann.token) as ask:
        assert await ask() == {"user": ann.name, "said": None, "data": {"n": 1}, "cookies": [COOKIE, "other"]}
    assert Chat.codes == [1000]


async def test_a_stranger_is_nobody_and_a_socket_hands_out_no_session(app: Any, ann: Someone) -> None:
    before = await StoredSession.objects.acount()
    async with connected(app) as ask:
        assert (await ask())["user"] == "AnonymousUser"
        assert (await ask(write="x", save=1))["said"].startswith("SettledError: saving this session needs a cookie")
        assert (await ask(logout=1))["said"] is None
    forged = ann.token[:-1] + ("A" if ann.token[-1] != "A" else "B")
    async with connected(app, forged) as ask:
        assert (await ask())["user"] == "AnonymousUser"
    assert await StoredSession.objects.acount() == before


async def test_a_save_before_the_socket_is_accepted_counts_and_begins_no_session(ann: Someone) -> None:
    class Early(Chat):
        async def connect(self) -> None:
            self.scope["session"]["said"] = "early"
            await self.scope["session"].asave()
            await self.scope["session"].asave()
            await super().connect()

    async with connected(AuthMiddlewareStack(Early.as_asgi()), ann.token) as ask:
        assert (await ann.data())["said"] == "early"
        assert (await ask(write="late", save=1))["said"] is None
    assert (await ann.data())["said"] == "late"
    before = await StoredSession.objects.acount()

    async def connects() -> Any:
        return {"type": "websocket.connect"}

    with pytest.raises(SettledError):
        await AuthMiddlewareStack(Early.as_asgi())(line(None).scope, connects, None)
    assert await StoredSession.objects.acount() == before


async def test_what_it_saves_is_there_at_once_and_the_rest_when_it_closes(app: Any, ann: Someone) -> None:
    async with connected(app, ann.token) as ask:
        await ask(write="a", save=1)
        assert (await ann.data())["said"] == "a"
        await ann.get("/count/")
        await ask(write="b")
        assert (await ann.data())["said"] == "a"
        assert (await ask(count=1))["said"] == 2
    data = await ann.data()
    assert (data["said"], data["n"]) == ("b", 2)


async def test_it_closes_when_its_session_is_revoked_and_revives_nothing(app: Any, ann: Someone) -> None:
    async with connected(app, ann.token) as ask:
        await ask(write="x")
        registry = Registry(site().store, site().manager.realm)
        await sync_to_async(registry.revoke_all)(str(ann.user.pk))
        assert await closed(ask.line) == ENDED_CODE
    assert Chat.codes == [ENDED_CODE]
    assert not await ann.lives()


async def test_a_save_that_meets_the_end_says_so_and_the_socket_closes(app: Any, ann: Someone) -> None:
    async with connected(app, ann.token) as ask:
        await sync_to_async(SessionStore(ann.token).delete)()
        assert (await ask(write="x", save=1))["said"].startswith("UpdateError: the session was ended")
        assert await closed(ask.line) == ENDED_CODE


async def test_a_logout_in_it_is_one_at_once(app: Any, ann: Someone) -> None:
    async with connected(app, ann.token) as ask:
        answer = await ask(logout=1)
        assert (answer["user"], answer["said"]) == ("AnonymousUser", None)
        assert not await ann.lives()
        assert await closed(ask.line) == ENDED_CODE
    ended = await StoredSession.objects.aget(pk=ann.token.split(".")[1])
    assert ended.ended_because == "logout"


async def test_a_login_in_it_is_refused_in_a_sentence(app: Any, ann: Someone) -> None:
    async with connected(app) as ask:
        said = (await ask(login=ann.name))["said"]
        assert said == "SettledError: a websocket cannot call renew(): it cannot hand out a cookie; do it by a request"


async def test_how_long_a_session_lasts_is_not_said_in_it(app: Any, ann: Someone) -> None:
    async with connected(app, ann.token) as ask:
        assert "SettledError" in (await ask(expiry=60))["said"]
        await ask(save=1)
    assert "_session_expiry" not in await ann.data()


async def test_another_sites_page_does_not_get_in(app: Any, ann: Someone) -> None:
    guarded = [*settings.MIDDLEWARE, "django.middleware.csrf.CsrfViewMiddleware"]
    with override_settings(MIDDLEWARE=guarded):
        assert site().manager.settings.csrf == "report"
        for origin in ("https://evil.example", "null", None):
            assert await line(app, ann.token, origin=origin).connect(timeout=10) == (False, 1008)
    assert Chat.codes == []


async def test_after_a_new_secret_key_a_handshake_logs_nobody_out(app: Any, ann: Someone) -> None:
    old, before = settings.SECRET_KEY, await ann.data()
    with override_settings(SECRET_KEY="another one", SECRET_KEY_FALLBACKS=[old]):
        async with connected(app, ann.token) as ask:
            assert (await ask())["user"] == ann.name
        assert (await ann.data())["_auth_user_hash"] != before["_auth_user_hash"]
        assert (await ann.get("/who/")).json()["user"] == ann.name
    with override_settings(SECRET_KEY="another one"):
        async with connected(app, ann.token) as ask:
            assert (await ask())["user"] == ann.name


async def test_after_a_new_password_an_old_session_opens_nothing(app: Any, ann: Someone) -> None:
    ann.user.set_password("another")
    await ann.user.asave()
    async with connected(app, ann.token) as ask:
        assert (await ask())["user"] == "AnonymousUser"
    assert not await ann.lives()


# Channels' own middleware, with our engine and inside of ours.


async def test_its_own_stack_with_our_engine_reads_session_and_user(ann: Someone) -> None:
    async with connected(theirs.AuthMiddlewareStack(Chat.as_asgi()), ann.token) as ask:
        await ask(write="x", save=1)
        assert (await ask())["user"] == ann.name
    assert (await ann.data())["said"] == "x"


async def test_its_own_session_and_user_inside_of_ours(ann: Someone) -> None:
    for inner in (theirs.AuthMiddleware(Chat.as_asgi()), theirs.AuthMiddlewareStack(Chat.as_asgi())):
        async with connected(SessionMiddlewareStack(inner), ann.token) as ask:
            assert (await ask(write="x", save=1))["user"] == ann.name


async def test_a_stack_inside_of_a_stack_is_one_session(ann: Someone) -> None:
    async with connected(AuthMiddlewareStack(AuthMiddlewareStack(Chat.as_asgi())), ann.token) as ask:
        await ask(write="x")
    assert (await ann.data())["said"] == "x"


async def test_our_user_needs_our_session(ann: Someone) -> None:
    for app in (AuthMiddleware(Chat.as_asgi()), TheirSessions(AuthMiddleware(Chat.as_asgi()))):
        with pytest.raises(ConfigError, match="put SessionMiddleware around it"):
            await app(line(app, ann.token).scope, None, None)  # type: ignore[arg-type]


# HTTP through our stack: consumers, and the whole of Django.


class Page(AsyncHttpConsumer):
    """A page of a consumer's: it logs in, out, and writes."""

    async def handle(self, body: bytes) -> None:
        session, (act, _, name) = self.scope["session"], self.scope["path"].strip("/").partition("/")
        if act == "login":
            await theirs.login(self.scope, await get_user_model().objects.aget(username=name))
        elif act == "logout":
            await theirs.logout(self.scope)
        elif act == "saved":
            session["saved"] = 1
            await session.asave()
        headers = [(b"Content-Type", b"text/plain"), (b"Cache-Control", b"public, max-age=60")]
        await self.send_response(200, str(self.scope["user"]).encode(), headers=headers)


def cookies(headers: Any) -> dict[str, str]:
    """Return what a response sets: the value of each cookie; fail where one is set twice."""
    lines = [value.decode().partition(";")[0] for name, value in headers if name.lower() == b"set-cookie"]
    found = dict(one.split("=", 1) for one in lines)
    assert len(found) == len(lines)
    return found


async def get(app: Any, target: str, token: str | None = None) -> Any:
    headers = [(b"host", b"testserver")]
    if token is not None:
        headers.append((b"cookie", f"{COOKIE}={token}".encode()))
    return await HttpCommunicator(app, "GET", target, headers=headers).get_response(timeout=10)


async def test_a_consumer_logs_in_and_out(ann: Someone) -> None:
    app = AuthMiddlewareStack(Page.as_asgi())
    assert (await get(app, "/", ann.token))["body"] == ann.name.encode()
    answer = await get(app, f"/login/{ann.name}")
    token = cookies(answer["headers"])[COOKIE]
    caching = [value for name, value in answer["headers"] if name == b"cache-control"]
    assert (answer["body"], caching) == (ann.name.encode(), [b"no-store"])
    assert (await SessionStore(token).aload())["_auth_user_id"] == str(ann.user.pk)
    assert b"Max-Age=1209600" in dict(answer["headers"])[b"set-cookie"]
    assert cookies((await get(app, "/logout", token))["headers"]) == {COOKIE: ""}
    assert not await SessionStore().aexists(token)


async def test_the_cookie_of_an_explicit_save_goes_out(ann: Someone) -> None:
    answer = await get(AuthMiddlewareStack(Page.as_asgi()), "/saved")
    assert (await SessionStore(cookies(answer["headers"])[COOKIE]).aload())["saved"] == 1


async def test_django_inside_of_a_stack_is_one_exchange(ann: Someone) -> None:
    app = AuthMiddlewareStack(URLRouter([re_path("", get_asgi_application())]))
    final = await get(app, f"/login/?user={ann.name}")
    token = cookies(final["headers"])[COOKIE]
    assert final["body"].decode() == token
    assert json.loads((await get(app, "/who/", token))["body"])["user"] == ann.name
    saved = await get(app, "/savedtwice/", token)
    assert cookies(saved["headers"]) == {}
    assert (await SessionStore(token).aload())["n"] == 1
    assert cookies((await get(app, "/alogout/", token))["headers"]) == {COOKIE: ""}
    assert not await SessionStore().aexists(token)


async def test_django_inside_of_channels_own_stack_keeps_its_own_exchange(ann: Someone) -> None:
    app = theirs.AuthMiddlewareStack(URLRouter([re_path("", get_asgi_application())]))
    token = cookies((await get(app, f"/login/?user={ann.name}"))["headers"])[COOKIE]
    assert json.loads((await get(app, "/who/", token))["body"])["user"] == ann.name


# Without users, on stores of other kinds.


class Blocking:
    """A store that knows no awaiting, as those of PostgreSQL and Redis."""

    def __init__(self) -> None:
        self.flaky = FlakyStore(MemoryStore())
        self.trouble = self.flaky.trouble
        self.tells = True

    def __getattr__(self, name: str) -> Any:
        if name == "as_async" or (name == "watch" and not self.tells):
            raise AttributeError(name)
        return getattr(self.flaky, name)


@pytest.fixture
def store() -> Blocking:
    """The project's store."""
    return Blocking()


def project(store: Any, **more: Any) -> Any:
    return override_settings(COATCHECK={"STORE": store, **more})


def begun(store: Any) -> str:
    """Return the cookie of a session on a store that is the project's now."""
    session = SessionStore()
    session["n"] = 1
    session.save()
    return str(session.session_key)


async def test_a_socket_hears_of_its_end_from_a_blocking_store_that_tells(store: Any) -> None:
    with project(store, WATCH_EVERY=60, WATCH_RECHECK=60):
        token = begun(store)
        async with connected(SessionMiddlewareStack(Mute.as_asgi()), token) as ask:
            async with asyncio.timeout(10):
                while (looks := store.trouble.calls.count("load")) < 2:  # noqa: ASYNC110 - the store has no event
                    await asyncio.sleep(0.01)
            SessionStore(token).delete()
            assert await closed(ask.line) == ENDED_CODE
            assert store.trouble.calls.count("load") <= looks + 3


async def test_how_often_a_store_is_asked_that_tells_nothing_is_a_setting(store: Any) -> None:
    store.tells = False
    with project(store, WATCH_EVERY=0.02, WATCH_RECHECK=7):
        watching = ours._door().watching
        assert (watching.every, watching.recheck) == (0.02, 7)
        token = begun(store)
        async with connected(SessionMiddlewareStack(Mute.as_asgi()), token) as ask:
            SessionStore(token).delete()
            assert await closed(ask.line) == ENDED_CODE


async def test_a_store_that_is_away_lets_nobody_in(store: Any) -> None:
    with project(store):
        token = begun(store)
        store.trouble.fail("load")
        assert await line(SessionMiddlewareStack(Mute.as_asgi()), token).connect(timeout=10) == (False, 1008)


async def test_sockets_are_counted_over_all_stacks_of_a_process(store: Any) -> None:
    with project(store, FLOODS=Floods(sockets=1)):
        token, other = begun(store), begun(store)
        one, two = SessionMiddlewareStack(Mute.as_asgi()), SessionMiddlewareStack(Mute.as_asgi())
        async with connected(one, token):
            assert await line(two, token).connect(timeout=10) == (False, 1008)
            async with connected(two, other):
                pass
        async with connected(two, token):
            pass


async def test_nothing_is_said_over_a_socket_whose_session_is_over(store: Any) -> None:
    """A group's message that arrives behind the end is for nobody."""
    with project(store, WATCH_EVERY=60):
        token = begun(store)
        async with connected(SessionMiddlewareStack(Mute.as_asgi()), token) as ask:
            consumer = Mute.last
            SessionStore(token).delete()
            assert await closed(ask.line) == ENDED_CODE
            await consumer.send_json({"secret": 1})
            assert await ask.line.receive_nothing(timeout=0.05)


class Mute(AsyncJsonWebsocketConsumer):
    """A consumer that answers with what it counted."""

    last: ClassVar[Any]

    async def connect(self) -> None:
        Mute.last = self
        if self.scope["path"] == "/private":
            session_of(self).require_login()
        await super().connect()


class MuteInThreads(JsonWebsocketConsumer):
    """The same, blocking."""

    def connect(self) -> None:
        if self.scope["path"] == "/private":
            session_of(self).require_login()
        super().connect()


@pytest.mark.parametrize("consumer", [Mute, MuteInThreads])
async def test_who_must_be_logged_in_is_not_let_in(store: Any, consumer: Any) -> None:
    with project(store):
        token = begun(store)
        app = SessionMiddlewareStack(consumer.as_asgi())
        assert await line(app, token, at="/private").connect(timeout=10) == (False, 1008)
        guarded = SessionMiddlewareStack(RequireLogin(consumer.as_asgi(), within=600))
        assert await line(guarded, token).connect(timeout=10) == (False, 1008)
        session = await sync_to_async(SessionStore)(token)
        await session.aset("_auth_user_id", "7")
        await session.asave()
        for more in ({"level": 2}, {"within": 0}):
            strict = SessionMiddlewareStack(RequireLogin(consumer.as_asgi(), **more))
            assert await line(strict, session.session_key).connect(timeout=10) == (False, 1008)
        for one, at in ((app, "/private"), (guarded, "/chat")):
            async with connected(one, session.session_key, at=at):
                pass


async def test_an_excluded_path_has_no_session_and_says_so(store: Any) -> None:
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((scope["session"], scope["user"]))
        await receive()
        await send({"type": "websocket.accept"})

    with project(store, EXCLUDE=["/open"]):
        token = begun(store)
        assert (await line(AuthMiddlewareStack(app), token, at="/open").connect(timeout=10))[0]
        (session, user) = found[0]
        assert user.is_anonymous
        with pytest.raises(ConfigError, match="EXCLUDE"):
            session.get("n")
        assert await line(AuthMiddlewareStack(app), token, at="/open", origin="https://evil.example").connect(
            timeout=10
        ) == (False, 1008)


async def test_a_stack_follows_the_settings(store: Any) -> None:
    app = SessionMiddlewareStack(Mute.as_asgi())
    for one in (store, MemoryStore()):
        with project(one):
            async with connected(app, begun(one)):
                assert isinstance(ours._door().store, ours.AwaitedStore) == (one is store)
                assert Mute.last.scope["session"]["n"] == 1
                assert Mute.last.scope["cookies"]["other"] == "1"


async def test_djangos_own_connection_is_used_in_djangos_thread_and_nothing_else_is() -> None:
    class Noting(DjangoStore):
        def load(self, handle: str) -> Any:
            return threading.get_ident()

    class Other:
        listeners: ClassVar[list[Any]] = []
        sharded = True
        load = Noting.load

    djangos = await sync_to_async(threading.get_ident)()
    assert await ours.AwaitedStore(Noting()).load("h") == djangos
    assert await ours.AwaitedStore(Other()).load("h") != djangos
    assert [ours.AwaitedStore(one).sharded for one in (Noting(), Other())] == [False, True]


async def test_what_is_no_connection_goes_through() -> None:
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope)

    await ours.SessionMiddleware(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert heard == [{"type": "lifespan"}]


def test_what_the_document_says_works(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer, the application and the test of docs/frameworks/django.md."""
    consumers = ModuleType("consumers")
    exec(written("consumers.py"), vars(consumers))
    monkeypatch.setitem(sys.modules, "consumers", consumers)
    names: dict[str, Any] = {"__name__": "document"}
    exec(written("asgi.py"), names)
    exec(written("test_chat.py"), names)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["ChatTest"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
