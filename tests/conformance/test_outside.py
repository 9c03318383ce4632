"""`coatcheck conform` on an application that does everything wrong, and on our own."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from coatcheck import ConfigError, MemoryStore
from coatcheck.adapters.wsgi import SessionMiddleware
from coatcheck.cli.app import run
from coatcheck.testing import Probe
from coatcheck.testing.conformance.wire import Wire
from coatcheck.testing.serving import WsgiProbe

LOGIN = ["--login-path", "/login", "--field", "user=alice", "--probe", "/me", "--logout-path", "/logout"]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def insecure() -> Any:
    """An application with a predictable id, kept at login, readable by scripts, taken from the address, never ended."""
    numbers, users = itertools.count(1000), {}

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        cookie = dict(part.strip().partition("=")[::2] for part in environ.get("HTTP_COOKIE", "").split(";"))
        query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        sid = query.get("sid") or cookie.get("sid") or ""
        path, headers, body, status = environ["PATH_INFO"], [("Content-Type", "text/plain")], f"hello {sid}", "200 OK"
        headers.append(("Access-Control-Allow-Origin", environ.get("HTTP_ORIGIN", "*")))
        headers.append(("Access-Control-Allow-Credentials", "true"))
        if path == "/login" and environ["REQUEST_METHOD"] == "POST":
            sid = sid or str(next(numbers))
            users[sid] = "alice"
            headers.append(("Set-Cookie", f"sid={sid}; Domain=localhost; Max-Age=86400"))
        elif path == "/logout":
            headers.append(("Set-Cookie", "sid=0; Max-Age=0"))
        elif path.startswith("/me"):
            status = "200 OK" if sid in users else "401 Unauthorized"
        start(status, headers)
        return [body.encode("latin-1", "replace")]

    return app


def report(capsys: pytest.CaptureFixture[str], url: str, *more: str) -> tuple[int, dict[str, Any]]:
    code = run(["conform", url, *LOGIN, "--samples", "6", "--format", "json", *more])
    out, err = capsys.readouterr()
    assert out, err
    told = json.loads(out)
    return code, {row["id"]: row for row in told["rows"]}


def test_everything_that_is_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with served(insecure()) as url:
        code, rows = report(capsys, url)
    assert code == 1
    assert len(rows) == 162
    failing = {name for name, row in rows.items() if row["verdict"] == "fail"}
    assert failing >= {
        *("CKE-01", "CKE-02", "CKE-03", "CKE-04", "TOK-03", "TOK-04", "TOK-06", "TOK-08", "TOK-10", "TOK-18"),
        *("TMO-08", "TRM-01", "CSR-08", "CSR-10", "CSR-13", "CCH-01", "CCH-02", "CCH-03"),
    }
    assert "HttpOnly" in rows["CKE-04"]["why"]
    assert all(row["why"] for row in rows.values())


def test_our_own_passes_but_for_plain_http(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryStore()
    app = SessionMiddleware(WsgiProbe(Probe()), store=store, allow_insecure_http=True)
    with served(app) as url:
        code, rows = report(capsys, url)
    assert code == 1
    failing = {name: row["why"] for name, row in rows.items() if row["verdict"] == "fail"}
    assert failing.keys() == {"CKE-01", "CCH-02"}, failing
    assert rows["TRM-01"]["verdict"] == "pass"
    assert rows["TOK-09"]["verdict"] == "open", "what cannot be seen is not passed"


def test_without_a_login_nothing_is_passed_that_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    with served(insecure()) as url:
        run(["conform", url, "--format", "json"])
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["TRM-01"]["verdict"] == rows["TOK-03"]["verdict"] == "open"
    assert "--login-path" in rows["TOK-03"]["why"]


@pytest.mark.parametrize(
    ("url", "others", "word"),
    [
        ("http://169.254.169.254/latest", True, "metadata"),
        ("http://[fe80::1]/", True, "link-local"),
        ("http://0.0.0.0:8000", True, "no host"),
        ("http://192.0.2.1", False, "--i-may-test-this"),
        ("http://user@localhost", False, "http(s)"),
        ("ftp://localhost", False, "http(s)"),
        ("http://[::ffff:169.254.169.254]/", True, "metadata"),
    ],
)
def test_what_is_never_asked(url: str, others: bool, word: str) -> None:
    with pytest.raises(ConfigError, match=r".*" + word.replace("(", r"\(").replace(")", r"\)")):
        Wire(url, others=others)
