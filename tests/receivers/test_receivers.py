"""Back-channel logout and session-revoked: every vector of the specifications, on both faces (BCL, SSF; D65-D67)."""

import asyncio
import inspect
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from coatcheck import ConfigError, MemoryStore, Refusal, SessionManager, StoreError
from coatcheck.core.model import Reply, Request
from coatcheck.flow.async_ import AsyncExchange
from coatcheck.flow.async_receivers import AsyncKeySet
from coatcheck.flow.sync import Exchange
from coatcheck.receivers import AsyncReceiver, Issuer, Receiver, Stream, asgi_endpoint, wsgi_endpoint
from coatcheck.stores.memory import AsyncMemoryStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.testing.clock import Clock

from . import provider as op
from .provider import CAEP, CLIENT, ISSUER, JWKS, event_token, form, logout_token, push

ORIGIN = ((b"host", b"app.test"), (b"sec-fetch-site", b"same-origin"))


class Shop:
    """An application whose users come from a provider, on one face."""

    def __init__(self, store: Any, clock: Clock, **settings: Any) -> None:
        self.clock, self.store = clock, store
        self.manager = SessionManager(clock=clock, origins=["https://app.test"])
        self.waits = "Async" in type(store).__name__
        issuer = {"issuer": ISSUER, "audience": CLIENT, "keys": JWKS, **settings.pop("issuer", {})}
        stream = {"issuer": ISSUER, "audience": CAEP, "keys": JWKS, **settings.pop("stream", {})}
        make = AsyncReceiver if self.waits else Receiver
        second = Issuer(issuer="https://other.example", audience=CLIENT, keys=JWKS)
        self.receiver = make(self.manager, store, issuers=[Issuer(**issuer), second], streams=[Stream(**stream)])
        self.exchange = (AsyncExchange if self.waits else Exchange)(self.manager, store)
        self.runner = asyncio.Runner() if self.waits else None

    def run(self, value: Any) -> Any:
        return self.runner.run(value) if self.runner is not None and inspect.iscoroutine(value) else value

    def begin(self, token: bytes = b"", method: str = "POST") -> Any:
        headers = [*ORIGIN, *([(b"cookie", b"__Host-coat=" + token)] if token else [])]
        return self.run(self.exchange.begin(Request(method, "https", "/x", headers)))

    def finish(self, session: Any) -> Any:
        return self.run(self.exchange.finish(session, 200, []))

    def login(self, subject: str = "ann", token: bytes = b"", **link: Any) -> bytes:
        session = self.begin(token)
        session.login(subject)
        if link:
            self.run(self.receiver.link(session, link.pop("issuer", ISSUER), **link))
        return self.token(self.finish(session))

    @staticmethod
    def token(headers: Any) -> bytes:
        cookies = [value for name, value in headers if name == b"set-cookie"]
        return cookies[0].partition(b"=")[2].partition(b";")[0]

    def user(self, token: bytes) -> str | None:
        return self.begin(token, "GET").subject

    def logout(self, *args: Any, **claims: Any) -> Reply:
        return self.run(self.receiver.logout(*form(logout_token(self.clock(), *args, **claims))))

    def out(self, token: str) -> Reply:
        return self.run(self.receiver.logout(*form(token)))

    def event(self, sub_id: Any, **more: Any) -> Reply:
        return self.run(self.receiver.event(*push(event_token(self.clock(), sub_id, **more))))


@pytest.fixture(params=["memory", "async memory", "sqlite", "async sqlite"])
def shop(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Any:
    return made(request.param, clock, tmp_path)


def made(kind: str, clock: Clock, tmp_path: Path, **settings: Any) -> Shop:
    makers: dict[str, Callable[[], Any]] = {
        "memory": lambda: MemoryStore(clock=clock),
        "async memory": lambda: AsyncMemoryStore(clock=clock),
        "sqlite": lambda: SqliteStore(tmp_path / "s.db", clock=clock),
        "async sqlite": lambda: AsyncSqliteStore(tmp_path / "s.db", clock=clock),
    }
    return Shop(makers[kind](), clock, **settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plain(clock: Clock, tmp_path: Path) -> Shop:
    return made("memory", clock, tmp_path)


def refused(reply: Reply) -> str:
    assert reply.status == 400
    assert (b"cache-control", b"no-store") in reply.headers
    assert (b"content-type", b"application/json") in reply.headers
    said = json.loads(reply.body)
    return str(said.get("error") or said["err"])


def test_a_sid_ends_its_session_only(shop: Shop) -> None:
    """BCL-02."""
    one, two = shop.login(sub="u1", sid="s1"), shop.login(sub="u1", sid="s2")
    reply = shop.logout(sid="s1")
    assert (reply.status, reply.body, dict(reply.headers)[b"cache-control"]) == (200, b"", b"no-store")
    assert (shop.user(one), shop.user(two)) == (None, "ann")
    assert shop.begin(one, "GET").ended_because == "sso_logout"


def test_a_sub_ends_all_of_its_sessions_of_that_issuer(shop: Shop) -> None:
    """BCL-02."""
    one, two = shop.login(sub="u1", sid="s1"), shop.login(sub="u1")
    bob, other, own = shop.login("bob", sub="u2"), shop.login(sub="u1", issuer="https://other.example"), shop.login()
    shop.clock.wind(5)
    assert shop.logout(sub="u1").status == 200
    assert [shop.user(each) for each in (one, two, bob, other, own)] == [None, None, "bob", "ann", "ann"]


def test_both_end_what_both_fit(shop: Shop) -> None:
    one, two = shop.login(sub="u1", sid="s1"), shop.login("bob", sub="u2", sid="s2")
    assert shop.logout(sub="u1", sid="s2").status == 200
    assert (shop.user(one), shop.user(two)) == ("ann", "bob")
    assert shop.logout(sub="u1", sid="s1").status == 200
    assert (shop.user(one), shop.user(two)) == (None, "bob")


def test_an_unknown_sid_is_well(shop: Shop) -> None:
    assert shop.logout(sid="nobody").status == 200


def test_a_session_that_was_stepped_up_is_found_under_its_new_handle(shop: Shop) -> None:
    one = shop.login(sub="u1", sid="s1")
    two = shop.login(token=one)
    assert shop.user(two) == "ann"
    shop.logout(sid="s1")
    assert shop.user(two) is None


def test_a_session_whose_first_trace_is_gone_ends_with_its_subject(plain: Shop) -> None:
    """Fail closed: after a week nothing tells any more under which handle a stepped-up session lives on."""
    session = plain.begin()
    session.login("ann", remember=True)
    plain.receiver.link(session, ISSUER, sub="u1", sid="s1")
    one = plain.token(plain.finish(session))
    bob = plain.login("bob", sub="u2", sid="s2")
    again = plain.begin(one)
    again.login("ann", remember=True)
    two = plain.token(plain.finish(again))
    plain.clock.wind(8 * 86400)
    while plain.store.purge(100):
        pass
    assert plain.store.load(session.handle) is None
    bob = plain.login("bob", sub="u2", sid="s3")
    assert plain.user(two) == "ann"
    assert plain.logout(sid="s1").status == 200
    assert (plain.user(two), plain.user(bob)) == (None, "bob")


def test_a_login_that_never_came_ends_nobody(plain: Shop) -> None:
    session = plain.begin()
    session.login("ann")
    plain.receiver.link(session, ISSUER, sub="u1", sid="s1")
    one = plain.login()
    plain.clock.wind(700)
    assert plain.logout(sid="s1").status == 200
    assert plain.user(one) == "ann"


def test_of_two_that_bring_one_token_at_once_one_is_refused(plain: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    token = logout_token(plain.clock(), sub="u1")
    monkeypatch.setattr(plain.store, "load", lambda _handle: None)  # neither sees that the other is there
    assert plain.out(token).status == 200
    assert refused(plain.out(token)) == "invalid_request"


def test_a_form_with_two_good_tokens_is_refused(plain: Shop) -> None:
    request, first = form(logout_token(plain.clock(), sid="s1"))
    _, second = form(logout_token(plain.clock(), sid="s2"))
    assert refused(plain.receiver.logout(request, first + b"&" + second)) == "invalid_request"


def test_a_critical_header_is_refused(plain: Shop) -> None:
    head = b'{"alg":"RS256","kid":"one","typ":"logout+jwt","crit":["b64"],"b64":true}'
    for extra in ({"crit": ["b64"], "b64": True}, {"b64": True}):
        claims = {
            "iss": ISSUER,
            "aud": CLIENT,
            "iat": plain.clock(),
            "exp": plain.clock() + 9,
            "jti": "x",
            "sid": "s",
            "events": {op.LOGOUT: {}},
        }
        said = json.loads(head) | extra
        said = said if "crit" in extra else {name: value for name, value in said.items() if name != "crit"}
        assert refused(plain.out(op.by_hand(said, claims))) == "invalid_request"
    good = {"alg": "RS256", "kid": "one", "typ": "logout+jwt"}
    assert plain.out(op.by_hand(good, claims)).status == 200


def test_a_token_counts_once(shop: Shop) -> None:
    """BCL-04, D65."""
    token = logout_token(shop.clock(), sub="u1")
    assert shop.out(token).status == 200
    shop.clock.wind(5)
    one = shop.login(sub="u1")
    shop.clock.wind(5)
    assert refused(shop.out(token)) == "invalid_request"
    assert shop.user(one) == "ann"


def bad_tokens(now: float) -> dict[str, str]:
    public = json.dumps(op.KEY.as_dict(private=False)).encode()
    sub = {"sub": "u1"}
    return {
        "typ JWT": logout_token(now, header={"typ": "JWT"}, **sub),
        "no typ": logout_token(now, header={"typ": ...}, **sub),
        "alg none": op.unsigned(now),
        "HS256 by a client secret": op.by_secret(now),
        "HS256 by the public key": op.by_secret(now, public),
        "another alg of the same key": logout_token(now, header={"alg": "PS256"}, **sub),
        "an alg that was not registered": logout_token(now, op.CURVE, {"alg": "ES256"}, **sub),
        "bad signature": logout_token(now, op.OTHER, **sub),
        "cut signature": logout_token(now, **sub)[:-8],
        "small key": logout_token(now, op.SMALL, **sub),
        "unknown kid": logout_token(now, header={"kid": "nine"}, **sub),
        "no kid, two keys": logout_token(now, header={"kid": ...}, **sub),
        "wrong iss": logout_token(now, iss="https://evil.example", **sub),
        "iss of another issuer's stream": logout_token(now, iss=ISSUER + "/", **sub),
        "no iss": logout_token(now, iss=..., **sub),
        "wrong aud": logout_token(now, aud="blog", **sub),
        "aud without us": logout_token(now, aud=["blog", "forum"], **sub),
        "aud that begins as ours": logout_token(now, aud=CLIENT + "s", **sub),
        "no aud": logout_token(now, aud=..., **sub),
        "iat 10 minutes old": logout_token(now, iat=now - 600, **sub),
        "iat 151 s old": logout_token(now, iat=now - 151, **sub),
        "iat in the future": logout_token(now, iat=now + 31, **sub),
        "iat is text": logout_token(now, iat=str(now), **sub),
        "iat is true": logout_token(now, iat=True, **sub),
        "exp past": logout_token(now, exp=now - 31, **sub),
        "nbf in the future": logout_token(now, nbf=now + 31, **sub),
        "nbf is text": logout_token(now, nbf="soon", **sub),
        "no exp": logout_token(now, exp=..., **sub),
        "no sub, no sid": logout_token(now),
        "sub is null": logout_token(now, sub=None),
        "sub is empty": logout_token(now, sub=""),
        "sub is long": logout_token(now, sub="x" * 256),
        "sid is a number": logout_token(now, sid=7),
        "no events": logout_token(now, events=..., **sub),
        "events is a list": logout_token(now, events=[op.LOGOUT], **sub),
        "event is text": logout_token(now, events={op.LOGOUT: "yes"}, **sub),
        "another event": logout_token(now, events={op.REVOKED: {}}, **sub),
        "nonce": logout_token(now, nonce="n", **sub),
        "nonce is null": logout_token(now, nonce=None, **sub),
        "no jti": logout_token(now, jti=..., **sub),
        "nothing": "",
        "junk": "a.b.c",
        "five parts": "a.b.c.d.e",
        "8 KiB": "a" * 8193,
        "not ASCII": "\u00e9.a.b",
    }


@pytest.mark.parametrize("name", list(bad_tokens(0.0)))
def test_a_bad_token_does_nothing(plain: Shop, name: str) -> None:
    """BCL-01, D65."""
    one = plain.login(sub="u1", sid="s1")
    plain.clock.wind(40)
    token = bad_tokens(plain.clock())[name]
    assert refused(plain.out(token)) == "invalid_request"
    assert plain.user(one) == "ann"
    assert plain.manager.noise.totals == {"logout_token_refused": 1}


@pytest.mark.parametrize(
    "claims", [{"aud": ["blog", CLIENT]}, {"iat": 0.5, "exp": 100}, {"nbf": 29}, {"events": {op.LOGOUT: {"x": 1}}}]
)
def test_what_is_odd_but_right_counts(plain: Shop, claims: dict[str, Any]) -> None:
    one = plain.login(sub="u1", sid="s1")
    now = plain.clock()
    moved = {name: now + value if name in ("iat", "exp", "nbf") else value for name, value in claims.items()}
    assert plain.logout(sid="s1", **moved).status == 200
    assert plain.user(one) is None


def test_old_providers_by_switch(clock: Clock, tmp_path: Path) -> None:
    shop = made("memory", clock, tmp_path, issuer={"require_typ": False, "require_exp": False})
    assert shop.logout(header={"typ": "JWT"}, exp=..., sid="s1").status == 200
    assert refused(shop.logout(header={"typ": "JWT"}, exp=clock() - 60, sid="s1"))


def test_a_logout_that_overtakes_its_login(shop: Shop) -> None:
    """D66: before the links, between the links and the session, and with the ID token's own time for a sub."""
    shop.logout(sid="s1")
    with pytest.raises(Refusal):
        shop.login(sub="u1", sid="s1")
    late = shop.begin()
    late.login("ann")
    shop.run(shop.receiver.link(late, ISSUER, sub="u1", sid="s2"))
    shop.logout(sid="s2")
    answer = shop.finish(late)
    assert isinstance(answer, Reply)
    assert answer.status == 401
    issued_at = shop.clock() - 3
    shop.logout(sub="u1")
    with pytest.raises(Refusal):
        shop.login(sub="u1", issued_at=issued_at)
    shop.clock.wind(40)
    assert shop.user(shop.login(sub="u1", sid="s3")) == "ann"


@pytest.mark.parametrize(
    ("method", "kind", "body", "status"),
    [
        ("GET", b"", b"", 405),
        ("POST", b"application/json", b"{}", 400),
        ("POST", b"application/x-www-form-urlencoded", b"", 400),
        ("POST", b"application/x-www-form-urlencoded", b"logout_token=a&logout_token=b", 400),
        ("POST", b"application/x-www-form-urlencoded", b"&".join([b"a=b"] * 20), 400),
        ("POST", b"application/x-www-form-urlencoded", b"\xff", 400),
        ("POST", b"application/x-www-form-urlencoded", b"a" * 12289, 413),
    ],
)
def test_a_request_of_another_shape(plain: Shop, method: str, kind: bytes, body: bytes, status: int) -> None:
    for receive in (plain.receiver.logout, plain.receiver.event):
        reply = receive(Request(method, "https", "/out", [(b"content-type", kind)]), body)
        assert reply.status == status
        assert (b"cache-control", b"no-store") in reply.headers


@pytest.mark.parametrize(
    "subject",
    [
        {"format": "opaque", "id": "s1"},
        {"format": "iss_sub", "iss": ISSUER, "sub": "u1"},
        {"format": "email", "email": "ann@example.org"},
        {"format": "complex", "session": {"format": "opaque", "id": "s1"}, "tenant": {"format": "opaque", "id": "t"}},
        {"format": "complex", "user": {"format": "iss_sub", "iss": ISSUER, "sub": "u1"}, "device": {"format": "x"}},
        {
            "format": "complex",
            "session": {"format": "opaque", "id": "s1"},
            "user": {"format": "email", "email": "ann@example.org"},
        },
        {"format": "aliases", "identifiers": [{"format": "opaque", "id": "none"}, {"format": "opaque", "id": "s1"}]},
    ],
    ids=lambda subject: str(subject)[11:40],
)
@pytest.mark.parametrize("kind", ["memory", "async sqlite"])
def test_session_revoked(clock: Clock, tmp_path: Path, kind: str, subject: dict[str, Any]) -> None:
    """SSF-01."""
    shop = made(kind, clock, tmp_path, stream={"subject_of": lambda said: said["email"].partition("@")[0]})
    one, bob = shop.login(sub="u1", sid="s1"), shop.login("bob", sub="u2", sid="s2")
    clock.wind(5)
    reply = shop.event(subject)
    assert (reply.status, reply.body) == (202, b"")
    assert (shop.user(one), shop.user(bob)) == (None, "bob")
    assert shop.begin(one, "GET").ended_because == "caep"


@pytest.mark.parametrize(
    "subject", [{"format": "opaque", "id": "s1"}, {"format": "iss_sub", "iss": ISSUER, "sub": "u1"}]
)
def test_a_late_event_ends_no_newer_login(shop: Shop, subject: dict[str, Any]) -> None:
    """D67."""
    when = shop.clock() - 100
    one = shop.login(sub="u1", sid="s1")
    assert shop.event(subject, event={"event_timestamp": when}).status == 202
    assert shop.user(one) == "ann"


def test_a_stream_speaks_for_its_own_issuer_only(clock: Clock, tmp_path: Path) -> None:
    shop = made("memory", clock, tmp_path)
    one = shop.login(sub="u1", issuer="https://other.example")
    clock.wind(5)
    theirs = {"format": "iss_sub", "iss": "https://other.example", "sub": "u1"}
    assert refused(shop.event(theirs)) == "access_denied"
    assert refused(shop.event({"format": "complex", "user": theirs})) == "access_denied"
    assert refused(shop.event({"format": "aliases", "identifiers": [theirs, 7]})) == "invalid_request"
    assert shop.user(one) == "ann"
    agreed = made("memory", clock, tmp_path, stream={"provider": "https://other.example"})
    two = agreed.login(sub="u1", issuer="https://other.example")
    clock.wind(5)
    email = {"format": "email", "email": "ann@example.org"}
    assert agreed.event({"format": "aliases", "identifiers": [email, theirs]}).status == 202
    assert agreed.user(two) is None


def test_a_whole_tenant_only_where_it_was_said(clock: Clock, tmp_path: Path) -> None:
    """D67."""
    tenant = {"format": "complex", "tenant": {"format": "opaque", "id": "t"}}
    shop = made("memory", clock, tmp_path)
    one = shop.login(sub="u1")
    clock.wind(5)
    for subject in (tenant, {"format": "complex"}, {"format": "complex", "device": {"format": "opaque", "id": "d"}}):
        assert refused(shop.event(subject)) == "access_denied"
    assert shop.user(one) == "ann"
    wide = made("memory", clock, tmp_path, stream={"wide": True})
    two = wide.login(sub="u1")
    clock.wind(5)
    assert wide.event(tenant).status == 202
    clock.wind(2)
    assert wide.user(two) is None
    assert wide.user(wide.login()) == "ann"


def test_events_that_are_refused(plain: Shop) -> None:
    """SSF-02."""
    now, who = plain.clock(), {"format": "opaque", "id": "s1"}
    one = plain.login(sub="u1", sid="s1")
    plain.clock.wind(5)
    expected = [
        ("invalid_key", {"key": op.OTHER}),
        ("invalid_key", {"header": {"kid": "nine"}}),
        ("invalid_issuer", {"iss": "https://evil.example"}),
        ("invalid_audience", {"aud": "https://blog.example"}),
        ("invalid_request", {"header": {"typ": "JWT"}}),
        ("invalid_request", {"header": {"typ": "logout+jwt"}}),
        ("invalid_request", {"exp": now + 100}),
        ("invalid_request", {"sub": "u1"}),
        ("invalid_request", {"iat": now + 100}),
        ("invalid_request", {"iat": now - 2 * 86400}),
        ("invalid_request", {"events": {op.REVOKED: {}, op.LOGOUT: {}}}),
        ("invalid_request", {"events": {op.REVOKED: 1}}),
        ("invalid_request", {"event": {"event_timestamp": now + 100}}),
        ("invalid_request", {"event": {"event_timestamp": now * 1000}}),
        ("invalid_request", {"event": {"event_timestamp": now - 2 * 86400}}),
        ("invalid_request", {"jti": ...}),
    ]
    for code, wrong in expected:
        assert refused(plain.event(who, **wrong)) == code, wrong
    for subject in (..., None, {}, {"format": "email", "email": "a@b.c"}, {"format": "opaque"}, {"format": "aliases"}):
        assert refused(plain.event(subject)) == "invalid_request", subject
    assert plain.user(one) == "ann"
    assert plain.event(who).status == 202
    assert plain.user(one) is None


def test_a_logout_token_is_no_event_and_an_event_no_logout_token(plain: Shop) -> None:
    now = plain.clock()
    assert refused(plain.out(event_token(now, {"format": "opaque", "id": "s1"}))) == "invalid_request"
    assert refused(plain.receiver.event(*push(logout_token(now, sub="u1")))) == "invalid_request"


def test_an_event_that_comes_again_is_accepted_and_not_done_again(plain: Shop) -> None:
    token = event_token(plain.clock(), {"format": "iss_sub", "iss": ISSUER, "sub": "u1"})
    assert plain.receiver.event(*push(token)).status == 202
    one = plain.login(sub="u1")
    assert plain.receiver.event(*push(token)).status == 202
    assert plain.user(one) == "ann"


def test_a_verification_of_the_stream_is_accepted(plain: Shop) -> None:
    kind = "https://schemas.openid.net/secevent/ssf/event-type/verification"
    assert plain.event({"format": "opaque", "id": "stream"}, events={kind: {"state": "x"}}).status == 202


def test_the_streams_credential(clock: Clock, tmp_path: Path) -> None:
    shop = made("memory", clock, tmp_path, stream={"authorization": "Bearer let-me-in"})
    token = event_token(clock(), {"format": "opaque", "id": "s1"})
    for headers in ((), ((b"authorization", b"Bearer let-me"),)):
        assert refused(shop.receiver.event(*push(token, *headers))) == "authentication_failed"
    assert shop.receiver.event(*push(token, (b"authorization", b"Bearer let-me-in"))).status == 202


class Broken:
    """A store that is away."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def away(*_args: Any, **_more: Any) -> Any:
            raise StoreError("away")

        return away


def test_without_the_store_nothing_is_said_to_be_done(plain: Shop) -> None:
    """BCL-03: and what failed can be sent again."""
    one = plain.login(sub="u1", sid="s1")
    store, plain.receiver._store = plain.receiver._store, Broken()
    token = logout_token(plain.clock(), sid="s1")
    assert refused(plain.out(token)) == "temporarily_unavailable"
    reply = plain.event({"format": "opaque", "id": "s1"})
    assert (reply.status, dict(reply.headers)[b"retry-after"]) == (503, b"10")
    plain.receiver._store = store
    assert plain.out(token).status == 200
    assert plain.user(one) is None


def test_keys_are_fetched_on_whatever_loop_asks(clock: Clock) -> None:
    """F12: test clients make a loop for each request; two that wait for each other on one do not bind it."""
    fetched: list[int] = []

    async def fetch() -> Any:
        fetched.append(1)
        await asyncio.sleep(0)
        return JWKS

    keys = AsyncKeySet(fetch, clock)

    async def three() -> list[Any]:
        token = logout_token(clock())
        return await asyncio.gather(*(keys.verified(token, ["RS256"], None) for _ in range(3)))

    for _ in range(3):
        assert {claims["iss"] for claims in asyncio.run(three())} == {ISSUER}
        clock.wind(3601)
    assert len(fetched) == 3


async def test_who_waits_for_keys_in_vain_leaves_nobody_waiting(clock: Clock) -> None:
    """A request that is cancelled while it waits for its turn, or while it fetches, does not keep the others out."""
    gate = asyncio.Event()

    async def fetch() -> Any:
        await gate.wait()
        return JWKS

    keys = AsyncKeySet(fetch, clock)
    token = logout_token(clock())
    asked = [asyncio.create_task(keys.verified(token, ["RS256"], None)) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    asked[1].cancel()
    gate.set()
    done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert [type(one) for one in done] == [asyncio.CancelledError, asyncio.CancelledError, dict]
    assert keys._lock._queues == {}


@pytest.mark.parametrize("waits", [False, True])
def test_keys_are_fetched_seldom(clock: Clock, tmp_path: Path, waits: bool) -> None:
    """D65: a flood of unknown kids causes one fetch in five minutes; a new key is found; without any, nothing goes."""
    fetched: list[float] = []
    answer: list[Any] = [JWKS]

    def fetch() -> Any:
        fetched.append(clock())
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    async def awaited() -> Any:
        return fetch()

    shop = made("async memory" if waits else "memory", clock, tmp_path, issuer={"keys": awaited if waits else fetch})
    assert shop.logout(sid="s1").status == 200
    for _ in range(50):
        refused(shop.logout(header={"kid": "nine"}, sid="s1"))
    assert len(fetched) == 1
    clock.wind(301)
    for _ in range(50):
        refused(shop.logout(header={"kid": "nine"}, sid="s1"))
    assert len(fetched) == 2
    answer[0] = {"keys": [{**op.OTHER.as_dict(private=False), "kid": "two"}]}
    clock.wind(301)
    assert shop.logout(op.OTHER, {"kid": "two"}, sid="s1").status == 200
    assert refused(shop.logout(sid="s1"))
    answer[0] = OSError("no way there")
    clock.wind(3700)
    assert shop.logout(op.OTHER, {"kid": "two"}, sid="s1").status == 200
    clock.wind(86400)
    assert refused(shop.logout(op.OTHER, {"kid": "two"}, sid="s1")) == "temporarily_unavailable"


def test_settings_that_believe_too_much(plain: Shop) -> None:
    for wrong in ({"algorithms": ["none"]}, {"algorithms": ["HS256"]}, {"algorithms": []}, {"algorithms": "RS256"},
                  {"audience": ""}, {"keys": {}}, {"keys": "[]"}, {"keys": "x" * 70000}):  # fmt: skip
        with pytest.raises(ConfigError):
            Receiver(
                plain.manager,
                plain.store,
                issuers=[Issuer(**{"issuer": ISSUER, "audience": CLIENT, "keys": JWKS, **wrong})],
            )
    one = Issuer(issuer=ISSUER, audience=CLIENT, keys=JWKS)
    with pytest.raises(ConfigError):
        Receiver(plain.manager, plain.store, issuers=[one, one])
    with pytest.raises(ConfigError):
        plain.receiver.link(plain.begin(), ISSUER, sub="u1")


def test_the_endpoints(clock: Clock, tmp_path: Path) -> None:
    plain, waiting = made("memory", clock, tmp_path), made("async memory", clock, tmp_path)
    _, body = form(logout_token(clock(), sid="s1"))
    kind = "application/x-www-form-urlencoded"
    started: list[Any] = []
    app = wsgi_endpoint(plain.receiver.logout)

    class Input:
        def read(self, _most: int) -> bytes:
            return body

    environ = {"REQUEST_METHOD": "POST", "wsgi.url_scheme": "https", "PATH_INFO": "/out", "CONTENT_TYPE": kind,
               "CONTENT_LENGTH": str(len(body)), "wsgi.input": Input()}  # fmt: skip
    app(environ, lambda *said: started.append(said))
    app({**environ, "CONTENT_LENGTH": "12289", "wsgi.input": None}, lambda *said: started.append(said))
    app({**environ, "CONTENT_LENGTH": "-1", "wsgi.input": None}, lambda *said: started.append(said))
    assert [said[0] for said in started] == ["200 OK"] + ["413 Request Entity Too Large"] * 2
    assert ("Cache-Control", "no-store") in started[0][1]

    async def asked(length: int | None, chunks: list[bytes]) -> tuple[int, int]:
        sent: list[Any] = []
        read = 0

        async def receive() -> Any:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": chunks[read - 1], "more_body": read < len(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", kind.encode())]
        headers += [] if length is None else [(b"content-length", str(length).encode())]
        scope = {"type": "http", "method": "POST", "path": "/out", "headers": headers}
        await asgi_endpoint(waiting.receiver.logout)(scope, receive, send)
        return sent[0]["status"], read

    assert waiting.runner is not None
    assert waiting.runner.run(asked(len(body), [body[:9], body[9:]])) == (200, 2)
    assert waiting.runner.run(asked(99999, [body])) == (413, 0)
    assert waiting.runner.run(asked(None, [b"a" * 8000] * 9)) == (413, 2)


def test_every_answer_of_a_receiver_is_one_that_wsgiref_validates(plain: Shop) -> None:
    """PEP 3333's reference checks the answers of an application: the empty ones have a type, too."""

    def asked(receive: Any, request: Request, body: bytes) -> int:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "QUERY_STRING": "",
            "CONTENT_TYPE": request.header(b"content-type").decode(),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
        }
        setup_testing_defaults(environ)
        statuses: list[str] = []

        def start(status: str, headers: Any, error: Any = None) -> Any:
            statuses.append(status)
            return bytes

        answer = validator(wsgi_endpoint(receive))(environ, start)
        sent = b"".join(answer)
        answer.close()
        assert bool(sent) == (statuses[0][:3] == "400")
        return int(statuses[0][:3])

    logout, event = plain.receiver.logout, plain.receiver.event
    by_session = {"format": "opaque", "id": "s1"}
    token = form(logout_token(plain.clock(), sid="s1"))
    get = Request("GET", "https", "/out", [])
    assert [asked(logout, *token), asked(logout, *token)] == [200, 400]
    assert asked(event, *push(event_token(plain.clock(), by_session))) == 202
    assert asked(event, *push("no token")) == 400
    assert [asked(logout, get, b""), asked(event, get, b"")] == [405, 405]
    assert asked(logout, token[0], b"a" * 12289) == 413
    plain.receiver._store = Broken()
    assert asked(logout, *form(logout_token(plain.clock(), sid="s1"))) == 400
    assert asked(event, *push(event_token(plain.clock(), by_session))) == 503
