"""The shapes of a WSGI answer (PEP 3333): late, repeated or no start_response, write(), generators, empty, close."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from coatcheck import MemoryStore, Refusal, SettledError
from coatcheck.adapters.wsgi import SessionMiddleware, request_of, session_of
from coatcheck.testing import Clock, FlakyStore, sign_in
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import WsgiDriver

TEXT = [("Content-Type", "text/plain")]
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Served:
    """One WSGI application under test, with a browser that is logged in."""

    def __init__(self, app: App, **how: Any) -> None:
        self.clock = Clock()
        self.plain = MemoryStore(clock=self.clock)
        self.store = FlakyStore(self.plain)
        self.app = SessionMiddleware(app, store=self.store)
        self.app.manager.now = self.clock
        self.driver = WsgiDriver(self.app, **how)
        self.browser = Browser(self.driver)
        name, value = sign_in(self.plain, "alice", data={"n": 0})
        self.browser.jar[name] = value

    @property
    def data(self) -> dict[str, Any]:
        from coatcheck.core import codec

        return codec.decode(self.plain.find(_any()).items[0].data)


def _fail() -> None:
    raise KeyError


def _any() -> Any:
    from coatcheck.core.model import Query

    return Query(live=False)


def test_a_change_after_start_response_is_kept_when_a_list_is_returned() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", TEXT)
        session_of(environ)["n"] = 1
        return [b"x"]

    served = Served(app)
    assert served.browser.get("/").text == "x"
    assert served.data == {"n": 1}
    assert len(served.store.trouble.commits) == 1


def test_a_login_after_start_response_gets_its_cookie() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", TEXT)
        session_of(environ).login("bob")
        yield b""
        yield b"in"

    served = Served(app)
    answer = served.browser.get("/")
    assert (answer.text, len(answer.cookies)) == ("in", 1)


def test_both_halves_of_a_generator_are_kept() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        session = session_of(environ)
        start("200 OK", TEXT)
        session["first"] = 1
        yield b"a"
        session["second"] = 2
        yield b"b"

    served = Served(app)
    assert served.browser.get("/").text == "ab"
    assert served.data == {"n": 0, "first": 1, "second": 2}


def test_a_generator_that_starts_late_gets_its_session_all_the_same() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        def chunks() -> Iterator[bytes]:
            session_of(environ)["n"] = 1
            start("200 OK", TEXT)
            yield b"x"

        return chunks()

    served = Served(app)
    assert served.browser.get("/").text == "x"
    assert served.data == {"n": 1}


@pytest.mark.parametrize("chunks", [(), (b"",), (b"", b"")])
def test_an_empty_body_is_settled_all_the_same(chunks: tuple[bytes, ...]) -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        start("204 No Content", [])
        session_of(environ)["n"] = 1
        yield from chunks

    served = Served(app)
    assert (served.browser.get("/").status, served.data) == (204, {"n": 1})


@pytest.mark.parametrize("shape", [list, tuple, iter])
def test_an_empty_iterable_is_settled_all_the_same(shape: Callable[[Any], Any]) -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("204 No Content", [])
        session_of(environ)["n"] = 1
        return shape(())

    served = Served(app)
    assert (served.browser.get("/").status, served.data) == (204, {"n": 1})


def test_write_starts_the_response() -> None:
    late: list[str] = []

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        session = session_of(environ)
        write = start("200 OK", TEXT)
        session.login("bob")
        write(b"a")
        try:
            session.login("mallory")
        except SettledError:
            late.append("late")
        write(b"b")
        return [b"c"]

    served = Served(app)
    answer = served.browser.get("/")
    assert (answer.text, len(answer.cookies), late) == ("abc", 1, ["late"])


def test_an_error_page_replaces_the_recorded_start_and_commits_once() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", TEXT)
        session_of(environ)["n"] = 1
        try:
            _fail()
        except KeyError:
            start("500 Internal Server Error", TEXT, sys.exc_info())
        return [b"sorry"]

    served = Served(app)
    assert served.browser.get("/").status == 500
    assert served.data == {"n": 0}
    assert served.store.trouble.commits == []


def test_an_error_after_the_first_byte_is_raised_on() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", TEXT)
        session_of(environ)["n"] = 1
        yield b"a"
        try:
            _fail()
        except KeyError:
            start("500 Internal Server Error", TEXT, sys.exc_info())

    served = Served(app)
    answer = served.browser.get("/")
    assert (answer.status, answer.text, type(answer.error)) == (200, "a", KeyError)
    assert served.data == {"n": 1}


@pytest.mark.parametrize("again", [False, True])
def test_a_wrong_use_of_start_response_is_the_applications_error(again: bool) -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        for _ in range(2 if again else 0):
            start("200 OK", TEXT)
        return [b"x"]

    served = Served(app, validate=False)
    answer = served.browser.get("/")
    assert (answer.status, type(answer.error)) == (500, AssertionError)


def test_close_runs_always_and_then_the_exchange_is_closed() -> None:
    closed: list[str] = []

    class Chunks:
        def __init__(self, environ: dict[str, Any]) -> None:
            self.session = session_of(environ)
            self.left = [b"b", b"a"]

        def __iter__(self) -> "Chunks":
            return self

        def __next__(self) -> bytes:
            if not self.left:
                raise StopIteration
            return self.left.pop()

        def close(self) -> None:
            closed.append("closed")
            self.session["n"] = 2

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", TEXT)
        return Chunks(environ)

    served = Served(app)
    flight = served.browser.start("GET", "/")
    assert flight.wait().text == "ab"
    assert (closed, served.data) == (["closed"], {"n": 2})


def test_a_client_that_leaves_before_the_first_chunk_leaves_the_store_as_it_was() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        session_of(environ)["n"] = 1
        start("200 OK", TEXT)
        yield b"x"

    served = Served(app)
    body: Any = served.app(_environ(served), lambda *_: lambda _: None)
    body.close()
    assert served.data == {"n": 0}


def test_a_logout_before_a_client_left_is_kept() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        session_of(environ).logout()
        start("200 OK", TEXT)
        return iter([b"x"])

    served = Served(app)
    body: Any = served.app(_environ(served), lambda *_: lambda _: None)
    body.close()
    assert served.plain.find(_any()).items[0].ended_because == "logout"


def test_lists_and_files_pass_through_unwrapped() -> None:
    held = [b"x"]
    file = FileWrapper(io.BytesIO(b"file"))

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        start("200 OK", TEXT)
        return held if environ["PATH_INFO"] == "/" else file

    served = Served(app)
    environ = {**_environ(served), "wsgi.file_wrapper": FileWrapper}
    assert served.app(dict(environ), lambda *_: lambda _: None) is held
    assert served.app({**environ, "PATH_INFO": "/file"}, lambda *_: lambda _: None) is file


@pytest.mark.parametrize("shape", ["list", "generator", "late generator"])
def test_a_refusal_is_answered_whatever_the_shape(shape: str) -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        session = session_of(environ)
        if shape == "list":
            session.require_login(level=30)

        def chunks() -> Iterator[bytes]:
            if shape == "generator":
                session.require_login(level=30)
            start("200 OK", TEXT)
            yield b""
            session.require_login(level=30)
            yield b"secret"

        return chunks()

    answer = Served(app).browser.get("/")
    assert (answer.status, answer.error) == (401, None)
    assert "secret" not in answer.text


def test_a_refusal_after_the_first_byte_is_raised_on() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", TEXT)
        yield b"a"
        session_of(environ).require_login(level=30)

    answer = Served(app).browser.get("/")
    assert (answer.text, type(answer.error)) == ("a", Refusal)


@pytest.mark.parametrize("shape", ["list", "generator", "write"])
def test_a_failed_commit_replaces_every_shape(shape: str) -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        session_of(environ)["n"] = 1
        write = start("200 OK", [*TEXT, ("X-Theirs", "1")])
        if shape == "write":
            write(b"secret")
            return []
        return [b"secret"] if shape == "list" else iter([b"secret", b"more"])

    served = Served(app)
    served.store.trouble.fail("commit")
    answer = served.browser.get("/")
    assert (answer.status, answer.header("x-theirs"), answer.error) == (503, None, None)
    assert "The session store does not answer" in answer.text
    assert "secret" not in answer.text


def test_wsgiref_validates_what_stands_inside_us_too() -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        session_of(environ)["n"] = 1
        start("200 OK", TEXT)
        return [b"x"]

    served = Served(validator(app))
    assert served.browser.get("/").error is None
    assert served.data == {"n": 1}


def _environ(served: Served) -> dict[str, Any]:
    from coatcheck.testing.drivers import WsgiRequest

    return WsgiRequest(served.driver, served.browser.sent("GET", "/"))._environ()


def test_the_headers_of_an_environ_are_spelled_as_they_were_sent() -> None:
    environ = {
        "HTTP_HOST": "localhost",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1",
        "HTTP_X_OF_ITS_OWN": "\xe9",
        "HTTP_COOKIE": "a=1; b=2",
        "CONTENT_TYPE": "text/plain",
        "wsgi.url_scheme": "https",
        "REQUEST_METHOD": "GET",
    }
    request = request_of(environ)
    found = request.headers
    assert list(found) == [
        (b"host", b"localhost"),
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-of-its-own", b"\xe9"),
        (b"cookie", b"a=1; b=2"),
    ]
    assert (len(found), found[0], found[1:2]) == (4, (b"host", b"localhost"), [(b"x-forwarded-for", b"192.0.2.1")])
    assert request.cookie == request.header(b"cookie") == b"a=1; b=2"
    assert request.header(b"x-of-its-own") == b"\xe9"
