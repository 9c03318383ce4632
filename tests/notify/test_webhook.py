"""Webhooks: signed as Standard Webhooks says, tried again, never elsewhere; over a real HTTP server."""

import json
import logging
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from coatcheck import ConfigError, Event, MemoryStore, SessionManager
from coatcheck.core.model import Client
from coatcheck.flow.sync import Exchange
from coatcheck.notify import Webhook
from coatcheck.notify.delivery import Delivery, TryAgain
from coatcheck.notify.webhook import signature
from tests.flow.test_telling import LOGIN, PATIENCE, telling_in

SECRET = "whsec_" + b64encode(b"k" * 32).decode()
FORMER = "whsec_" + b64encode(b"f" * 32).decode()


@dataclass
class Place:
    """A receiver: what it got, and what it answers, one after the other; then 204."""

    url: str
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def place() -> Iterator[Place]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = found.answers.pop(0) if found.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Place(f"http://127.0.0.1:{server.server_address[1]}/hook?key=hidden")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def event(name: str = "session_token_reuse", **more: Any) -> Event:
    client = Client("198.51.100.9", "Firefox")
    known = {"realm": "shop", "handle": "h" * 18, "subject": "alice", "client": client, "detail": {"kind": "late"}}
    return Event(**{"name": name, "at": 1_700_000_000.25, **known, **more})


def impatient(tries: int = 5) -> tuple[Delivery, list[float]]:
    """Return a delivery that does not wait, and the pauses that it would have made."""
    pauses: list[float] = []
    return Delivery(tries, pause=pauses.append, jitter=lambda low, high: (low + high) / 2), pauses


def test_the_vector_of_the_specification() -> None:
    """standardwebhooks.com, reference libraries: the signature of a known message."""
    body = b'{"test": 2432232314}'
    key = Webhook("https://x.test", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")._secrets[0]
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_is_posted_and_the_reference_library_believes_it(place: Place) -> None:
    Webhook(place.url, SECRET)(event())
    ((path, headers, body),) = place.got
    assert path == "/hook?key=hidden"
    assert Verifier(SECRET).verify(body, headers) == {
        "type": "session_token_reuse",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "data": {
            "severity": "critical",
            "realm": "shop",
            "handle": "h" * 18,
            "subject": "alice",
            "address": "198.51.100.9",
            "agent": "Firefox",
            "request_id": None,
            "detail": {"kind": "late"},
        },
    }
    assert headers["content-type"] == "application/json"
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(SECRET).verify(body + b" ", headers)
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(FORMER).verify(body, headers)


def test_while_a_secret_is_replaced_both_sign(place: Place) -> None:
    Webhook(place.url, [SECRET, FORMER])(event())
    (_, headers, body) = place.got[0]
    assert Verifier(SECRET).verify(body, headers) == Verifier(FORMER).verify(body, headers)


def test_a_failed_attempt_is_repeated_with_its_id_and_a_new_time(place: Place) -> None:
    place.answers = [(500, {}), (429, {"retry-after": "30"}), (503, {"retry-after": "99999"}), (404, {})]
    delivery, pauses = impatient()
    times = iter([100.0, 200.0, 300.0, 400.0, 500.0])
    Webhook(place.url, SECRET, delivery=delivery, clock=lambda: next(times))(event())
    assert pauses == [1.0, 30.0, 60.0, 60.0], "growing, as asked for, but never longer than a minute"
    assert len({headers["webhook-id"] for _, headers, _ in place.got}) == 1
    assert [headers["webhook-timestamp"] for _, headers, _ in place.got] == ["100", "200", "300", "400", "500"]
    assert len({headers["webhook-signature"] for _, headers, _ in place.got}) == 5
    assert len({body for _, _, body in place.got}) == 1


def test_pauses_are_spread() -> None:
    """Many processes that found the receiver away do not come back at the same moment."""
    pauses: list[float] = []
    failing = Delivery(4, pause=pauses.append)
    assert not failing.deliver(_fail, "it")
    assert 0.5 <= pauses[0] <= 1.5
    assert 2.0 <= pauses[1] <= 6.0
    assert 8.0 <= pauses[2] <= 24.0
    assert len({round(pause, 6) for pause in pauses}) == 3


def _fail() -> None:
    raise TryAgain("no")


def test_a_receiver_that_is_away_costs_one_attempt_an_event_until_it_is_back(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.answers = [(500, {})] * 6
    delivery, pauses = impatient(3)
    webhook = Webhook(place.url, SECRET, delivery=delivery)
    for _ in range(4):
        webhook(event())
    assert len(place.got) == 6, "3, 1, 1 and 1: a queue behind it moves on"
    assert len(pauses) == 2
    assert caplog.text.count("given up") == 4
    assert "after 3 tries: it answered 500" in caplog.text
    assert "hidden" not in caplog.text, "a query may hold a key"
    place.answers = [(204, {}), (500, {})]
    webhook(event())
    webhook(event())
    assert len(place.got) == 9, "it is back: then it is tried again as before"


def test_a_receiver_that_is_gone_hears_nothing_more(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.answers = [(410, {})]
    webhook = Webhook(place.url, SECRET)
    webhook(event())
    webhook(event())
    assert len(place.got) == 1
    assert "is gone (410)" in caplog.text


def test_a_pause_that_is_no_number_of_seconds_is_ours(place: Place) -> None:
    """RFC 9110 section 10.2.3 allows a date, too."""
    place.answers = [(503, {"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}), (503, {"retry-after": "-5"})]
    delivery, pauses = impatient(3)
    Webhook(place.url, SECRET, delivery=delivery)(event())
    assert pauses == [1.0, 4.0]


def test_an_answer_that_is_no_http_is_an_attempt_that_failed() -> None:
    def answer() -> None:
        for _ in range(2):
            there, _ = server.accept()
            with there:
                there.recv(65536)
                there.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        delivery, pauses = impatient(2)
        Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", SECRET, delivery=delivery)(event())
        thread.join(PATIENCE)
    assert len(pauses) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(place: Place, status: int) -> None:
    place.answers = [(status, {"location": "/elsewhere"})]
    delivery, _ = impatient(1)
    Webhook(place.url, SECRET, delivery=delivery)(event())
    assert [path for path, _, _ in place.got] == ["/hook?key=hidden"]


def test_nobody_there_is_an_attempt_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = server.server_address[1]
    server.server_close()
    delivery, pauses = impatient(2)
    Webhook(f"http://127.0.0.1:{port}/", SECRET, delivery=delivery)(event())
    assert len(pauses) == 1
    assert "given up after 2 tries" in caplog.text


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        ({}, ["session_token_reuse", "csrf_denied"]),
        ({"at_least": "critical"}, ["session_token_reuse"]),
        ({"at_least": "info"}, ["session_token_reuse", "csrf_denied", "session_created"]),
        ({"names": ["session_created"]}, ["session_created"]),
    ],
)
def test_only_what_is_worth_it_is_posted(place: Place, choice: Any, taken: list[str]) -> None:
    webhook = Webhook(place.url, SECRET, **choice)
    for name in ("session_token_reuse", "csrf_denied", "session_created"):
        webhook(event(name))
    assert [json.loads(body)["type"] for _, _, body in place.got] == taken


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Webhook("http://shop.example/hook", SECRET), "goes to https://"),
        (lambda: Webhook("file:///etc/passwd", SECRET), "goes to https://"),
        (lambda: Webhook("https://x.test", "whsec_" + b64encode(b"k" * 23).decode()), "found 23 bytes"),
        (lambda: Webhook("https://x.test", "whsec_" + b64encode(b"k" * 65).decode()), "found 65 bytes"),
        (lambda: Webhook("https://x.test", "whsec_!"), "found 0 bytes"),
        (lambda: Webhook("https://x.test", f"{SECRET[:20]} {SECRET[20:]}"), "found 0 bytes"),
        (lambda: Webhook("https://x.test", []), "found none"),
        (lambda: Webhook("https://x.test", SECRET, names="session_created"), r"write \['session_created'\]"),
        (lambda: Webhook("https://x.test", SECRET, at_least="loud"), "at_least is info, warning, critical"),
        (lambda: Delivery(0), "tries is a whole number above 0"),
    ],
)
def test_what_is_unsafe_or_makes_no_sense_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_no_secret_is_shown() -> None:
    shown = repr(Webhook("https://user:pass@x.test/hook?key=hidden", SECRET))
    assert shown == "<Webhook to https://x.test/hook>"


def test_from_a_login_to_the_receiver(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The whole way: a committed event, off the request's time, to another system."""
    caplog.set_level(logging.ERROR)
    manager = SessionManager(
        origins=["https://app.test"], on_event=[Webhook(place.url, SECRET, names=["authn_login_success"])]
    )
    exchange = Exchange(manager, MemoryStore())
    session = exchange.begin(LOGIN)
    session.login("alice")  # type: ignore[union-attr]
    exchange.finish(session, 200, ())  # type: ignore[arg-type]
    assert telling_in(exchange).drained(PATIENCE)
    ((_, headers, body),) = place.got
    assert Verifier(SECRET).verify(body, headers)["data"]["subject"] == "alice"
