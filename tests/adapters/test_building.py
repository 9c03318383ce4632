"""Building and holding: settings refused at the start, exchanges settled once, secrets in no repr, WSGI in WSGI."""

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from coatcheck import AsyncRegistry, ConfigError, Key, Keyring, MemoryStore, Registry, Sealed, SessionManager
from coatcheck.adapters import asgi, wsgi
from coatcheck.adapters.awaited import Awaited
from coatcheck.core.model import Reply, Request
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.flow.sync import Exchange
from coatcheck.stores.memory import AsyncMemoryStore
from coatcheck.testing import (
    Clock,
    FlakyStore,
    asgi_probe,
    async_sign_in,
    async_sign_in_cookies,
    sign_in,
    sign_in_cookies,
    wsgi_probe,
)
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver

BUILDERS: list[Any] = [asgi.SessionMiddleware, wsgi.SessionMiddleware]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "__Host-coat", "domain": "shop.example"}, "forbids Domain"),
    ({"name": "__Host-coat", "path": "/app"}, "needs Path=/"),
    ({"name": "coat"}, "any sibling host can plant it"),
    ({"name": "__host-coat"}, "write it __Host-coat"),
    ({"name": "a b"}, "RFC 9110 token"),
    ({"same_site": "None"}, "say why"),
    ({"allow_insecure_http": True, "origins": ["https://shop.example"]}, "drop one of them"),
    ({"origins": ["http://shop.example"]}, "plain http"),
    ({"origins": "https://shop.example"}, "a list, not a text"),
    ({"trusted_origins": ["shop.example"]}, "https://shop.example"),
    ({"exclude": ["health"]}, "paths start with /"),
    ({"timeouts": "nist-aal9"}, "nist-aal9"),
    ({"carry": {"next"}}, "'next' never moves into a login"),
    ({"carry": {"cart", "_state_op_x"}}, "'_state_op_x' never moves into a login"),
    ({"csrf": "maybe"}, "csrf is"),
    ({"trusted_proxies": ["proxy.example"]}, "proxy.example"),
    ({"tiemouts": "pci"}, "did you mean 'timeouts'"),
]


@pytest.mark.parametrize("build", BUILDERS, ids=["asgi", "wsgi"])
@pytest.mark.parametrize(("settings", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_unsafe_is_refused_by_name_when_it_is_built(build: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(None, store="memory://", **settings)


@pytest.mark.parametrize("build", BUILDERS, ids=["asgi", "wsgi"])
def test_a_manager_and_settings_together_are_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match="the manager or settings"):
        build(None, store="memory://", manager=SessionManager(), csrf="off")


def test_a_store_of_the_wrong_face_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="needs an async adapter"):
        wsgi.SessionMiddleware(None, store=AsyncMemoryStore())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="store is a URL"):
        asgi.SessionMiddleware(None, store=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("build", BUILDERS, ids=["asgi", "wsgi"])
def test_building_opens_nothing(build: Any, tmp_path: Any) -> None:
    build(None, store=f"sqlite:///{tmp_path / 'sessions.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_session_where_there_is_no_middleware_says_what_is_missing() -> None:
    for session_of, request in ((asgi.session_of, {"path": "/x"}), (wsgi.session_of, {"PATH_INFO": "/x"})):
        with pytest.raises(ConfigError, match="there is no session on /x"):
            session_of(request)


# -- one face of a settled exchange (rows 17 and 38) -------------------------------------------------------------------

POST = Request("POST", "https", "/", ((b"host", b"testserver"), (b"sec-fetch-site", b"same-origin")))


def test_finishing_twice_commits_once_and_gives_the_same_cookie() -> None:
    store = FlakyStore(MemoryStore())
    exchange = Exchange(SessionManager(), store)
    session = exchange.begin(POST)
    assert not isinstance(session, Reply)
    session.login("alice")
    first, second = exchange.finish(session, 200, ()), exchange.finish(session, 500, ((b"x", b"y"),))
    assert not isinstance(first, Reply)
    assert not isinstance(second, Reply)
    assert [one for one in first if one[0] == b"set-cookie"] == [one for one in second if one[0] == b"set-cookie"]
    assert len(store.trouble.commits) == 1


async def test_an_error_page_after_a_failed_commit_is_the_same_503() -> None:
    store = FlakyStore(MemoryStore()).as_async()
    exchange = AsyncExchange(SessionManager(), store)
    session = await exchange.begin(POST)
    assert not isinstance(session, Reply)
    session.login("alice")
    store.trouble.fail("commit")
    answers = [await exchange.finish(session, 200, ()), await exchange.finish(session, 500, ())]
    store.trouble.fail(None)
    await exchange.close(session)
    assert [one.status for one in answers if isinstance(one, Reply)] == [503, 503]
    assert store.trouble.calls.count("commit") == 1


@pytest.mark.parametrize("status", [200, 503])
def test_what_was_refused_or_dropped_is_not_written_when_the_exchange_closes(status: int) -> None:
    """Promise 9: the answer said that nothing was changed."""
    clock = Clock()
    store = FlakyStore(MemoryStore(clock=clock))
    manager = SessionManager(clock=clock)
    name, value = sign_in(store, "alice", manager=manager, data={"k": 1})
    exchange = Exchange(manager, store)
    cookie = (b"cookie", f"{name}={value}".encode())
    session = exchange.begin(Request("POST", "https", "/", (*POST.headers, cookie)))
    assert not isinstance(session, Reply)
    session["k"] = 2
    if status == 200:
        store.trouble.fail("commit")
    exchange.finish(session, status, ())
    store.trouble.fail(None)
    store.trouble.commits.clear()
    exchange.close(session)
    assert store.trouble.commits == []


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["read", "login", "renew", "renewal"])
def test_no_repr_of_what_a_handler_can_reach_shows_a_token(act: str) -> None:
    """Row 49 (F36): debug pages and error trackers print what they find."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    manager = SessionManager(clock=clock)
    name, value = sign_in(store, "alice", manager=manager)
    if act == "renewal":
        clock.wind(16 * 60)
    exchange = Exchange(manager, store)
    cookie = (b"cookie", f"{name}={value}".encode())
    session = exchange.begin(Request("POST", "https", "/", (*POST.headers, cookie)))
    assert not isinstance(session, Reply)
    if act == "login":
        session.login("alice")
    elif act == "renew":
        session.renew()
    headers = exchange.finish(session, 200, ())
    assert not isinstance(headers, Reply)
    secrets = [part.encode() for part in value.split(".")[2:]]
    secrets += [part for key, line in headers if key == b"set-cookie" for part in line.split(b";")[0].split(b".")[2:]]
    visit = session.visit
    kept = [getattr(visit, name) for name in dir(visit) if not name.startswith("_")]
    # what is bytes, or a tuple of them, is what came in and goes out; everything with a name of its own is checked
    reachable = [session, visit, visit.counter, exchange, *(one for one in kept if not isinstance(one, tuple | bytes))]
    shown = "\n".join(f"{one!r} {one!s}" for one in reachable)
    assert [secret for secret in secrets if secret.decode() in shown] == []


# -- signing in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [asgi_probe, wsgi_probe], ids=["asgi", "wsgi"])
def test_sign_in_needs_no_form(probe: Callable[..., Any]) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    served = probe(store, clock)
    driver: Any = AsgiDriver(served.app) if probe is asgi_probe else WsgiDriver(served.app)
    browser = Browser(driver)
    browser.jar.update([sign_in(store, "alice", data={"cart": [7]}, level=20, methods=("pwd", "otp"))])
    assert browser.get("/me").json()["level"] == 20
    assert browser.get("/data").json() == {"cart": [7]}
    assert len(Registry(store).find("alice").items) == 1
    driver.close()


async def test_async_sign_in_does_the_same() -> None:
    store = AsyncMemoryStore()
    name, value = await async_sign_in(store, "alice", remember=True)
    found = (await AsyncRegistry(store).find("alice")).items
    assert (name, value.split(".")[1]) == ("__Host-coat", found[0].handle)
    assert found[0].persistent


def test_sign_in_follows_the_settings_of_the_application() -> None:
    store = MemoryStore()
    manager = SessionManager(name="__Host-staff", timeouts="pci")
    name, _ = sign_in(store, "alice", manager=manager)
    assert name == "__Host-staff"
    assert Registry(store, "__Host-staff").find("alice").items[0].idle_for == 900


async def test_signing_in_to_a_session_of_several_cookies_gives_them_all() -> None:
    store = MemoryStore()
    manager = SessionManager(sealed=Sealed(keyring=Keyring([Key("k1", os.urandom(32))], os.urandom), most_chunks=3))
    data = {"notes": "x" * 5000}
    with pytest.raises(ConfigError, match="sign_in_cookies"):
        sign_in(store, "alice", manager=manager, data=data)
    for cookies in (
        sign_in_cookies(store, "alice", manager=manager, data=data),
        await async_sign_in_cookies(store.as_async(), "alice", manager=manager, data=data),
    ):
        assert len(cookies) == 2
        header = (b"cookie", "; ".join(map("=".join, cookies.items())).encode())
        session = Exchange(manager, store).begin(Request("GET", "https", "/", ((b"host", b"localhost"), header)))
        assert not isinstance(session, Reply)
        assert (session.subject, session["notes"]) == ("alice", data["notes"])


def test_signing_in_takes_no_unknown_words() -> None:
    with pytest.raises(TypeError, match="remeber"):
        sign_in(MemoryStore(), "alice", remeber=True)  # type: ignore[call-arg]


# -- going -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False], ids=["a URL", "a store"])
async def test_an_application_that_goes_writes_what_is_left_and_closes_what_it_opened(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Awaited(store=f"sqlite:///{tmp_path}/sessions.db" if given else MemoryStore())
    done: list[str] = []

    def noting(name: str) -> Callable[[object], Awaitable[None]]:
        async def note(_self: object) -> None:
            done.append(name)

        return note

    monkeypatch.setattr(type(sessions.exchange), "flush", noting("flush"))
    monkeypatch.setattr(type(sessions.store), "close", noting("close"))
    await sessions.shut()
    assert done == (["flush", "close"] if given else ["flush"])


# -- one WSGI application in another (F14) -----------------------------------------------------------------------------


def _page(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    session = wsgi.session_of(environ)
    session.login("alice")
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"in"]


def test_the_same_wsgi_middleware_twice_is_one_session() -> None:
    outer, inner = MemoryStore(), MemoryStore()
    app = wsgi.SessionMiddleware(wsgi.SessionMiddleware(_page, store=inner), store=outer)
    driver = WsgiDriver(app)
    answer = Browser(driver).post("/")
    driver.close()
    assert len(answer.cookies) == 1
    assert (len(Registry(outer).find("alice").items), len(Registry(inner).find("alice").items)) == (1, 0)


def test_a_wsgi_middleware_of_another_name_inside_has_its_own_session() -> None:
    outer, inner = MemoryStore(), MemoryStore()

    def both(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        session = wsgi.session_of(environ)
        session["outer"] = 1
        body = staff(environ, start)
        assert wsgi.session_of(environ) is session
        return body

    staff = wsgi.SessionMiddleware(_page, store=inner, name="__Host-staff")
    driver = WsgiDriver(wsgi.SessionMiddleware(both, store=outer))
    answer = Browser(driver).post("/")
    driver.close()
    assert [line.partition("=")[0] for line in answer.cookies] == ["__Host-staff", "__Host-coat"]


def test_settings_have_one_vocabulary() -> None:
    from coatcheck.core.settings import Keywords, Settings

    assert set(Keywords.__annotations__) == set(Settings.__struct_fields__)
