"""`coatcheck conform` on an application that does everything wrong, and on our own."""

import itertools
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from coatcheck import ConfigError, MemoryStore
from coatcheck.adapters.wsgi import SessionMiddleware
from coatcheck.cli.app import run
from coatcheck.testing import Probe, conformance
from coatcheck.testing.conformance import wire
from coatcheck.testing.conformance.stranger import Visitor
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


def crowded() -> Any:
    """An application that keeps two sessions of a user, and looks at the first half of a token only."""
    alive: list[str] = []

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        token = environ.get("HTTP_COOKIE", "").partition("coat=")[2][:16]
        headers, status = [("Content-Type", "text/plain")], "200 OK"
        if environ["PATH_INFO"] == "/login" and environ["REQUEST_METHOD"] == "POST":
            made = secrets.token_hex(16)
            alive[:] = [*alive[-1:], made[:16]]
            headers.append(("Set-Cookie", f"coat={made}; HttpOnly"))
        elif environ["PATH_INFO"] == "/me" and token not in alive:
            status = "401 Unauthorized"
        start(status, headers)
        return [b"hello"]

    return app


def test_rows_are_judged_on_a_session_that_is_alive(capsys: pytest.CaptureFixture[str]) -> None:
    with served(crowded()) as url:
        _, rows = report(capsys, url)
    assert rows["TOK-01"]["verdict"] == "fail", (
        "the first logins were ended by the limit, and a dead token opens nothing"
    )


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


def test_the_page_is_written_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with served(insecure()) as url:
        code = run(["conform", url, "--format", "html", "--output", str(page)])
        told = capsys.readouterr().out
        assert run(["conform", url, "--format", "html"]) == code == 1
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert "1 fail" in told
    assert "<" not in told


def test_a_file_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with served(insecure()) as url:
        code = run(["conform", url, "--output", str(tmp_path / "nowhere" / "report.json")])
    assert code == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["httpx2", "jinja2"])
def test_what_is_missing_is_named_with_its_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for one in ("wire", "outside", "stranger"):
        monkeypatch.delitem(sys.modules, f"coatcheck.testing.conformance.{one}", raising=False)
        monkeypatch.delattr(conformance, one, raising=False)
    assert run(["conform", "http://localhost:1", "--format", "html"]) == 2
    assert f"{missing}; pip install 'coatcheck[conform]'" in capsys.readouterr().err


# -- what one answer may cost ------------------------------------------------------------------------------------------


read_whole: list[str] = []
"""The paths whose long bodies were read to their end."""


def endless(environ: dict[str, Any], start: Any) -> Iterator[bytes]:
    """Answers with a body of 32 MB, with redirects that never end, or elsewhere."""
    path = environ["PATH_INFO"]
    leads = {"/loop": "/loop", "/away": "https://evil.example/", "/port": "http://localhost:1/", "/in": "/page?a=b"}
    start("302 Found" if path in leads else "200 OK", [("Location", leads[path])] if path in leads else [])
    yield b""
    if path == "/endless":
        for _ in range(512):
            yield b"x" * 65_536
        read_whole.append(path)


def test_a_body_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_BODY", 200_000)
    monkeypatch.setattr(wire, "EACH", 100.0)
    read_whole.clear()
    with served(endless) as url, closing(Wire(url)) as line:
        assert len(line.ask("GET", "/endless").body) == 200_000
    assert read_whole == []


def test_a_body_that_trickles_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "EACH", -1.0)
    with served(endless) as url:
        line = Wire(url)
        monkeypatch.setattr(line, "_until", 1e12)
        request = wire.httpx2.Request(
            "GET", f"{url}/endless", extensions={"timeout": wire.httpx2.Timeout(10).as_dict()}
        )
        assert 0 < len(line._heard(request, "/endless").body) < wire.MOST_BODY
        line.close()


def test_neither_time_nor_requests_are_without_end() -> None:
    with served(endless) as url:
        with closing(Wire(url, most=2)) as line:
            line.ask("GET", "/")
            line.ask("GET", "/")
            with pytest.raises(wire.OutOfReach, match="as often"):
                line.ask("GET", "/")
        with closing(Wire(url, whole=0.0)) as line, pytest.raises(wire.OutOfReach, match="as long"):
            line.ask("GET", "/")


def test_a_redirect_is_followed_here_only_and_five_times() -> None:
    with served(endless) as url, closing(Wire(url)) as line:
        seen: list[Any] = []
        visitor = Visitor(line, seen)
        visitor.see("/loop")
        assert len(seen) == 6
        for path in ("/away", "/port"):
            assert line.onward(line.ask("GET", path)) is None
        assert line.onward(line.ask("GET", "/in")) == "/page?a=b"
    assert line._left == 3000 - 9


def test_an_application_that_goes_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with served(endless) as url:
        pass
    assert run(["conform", url]) == 3
    assert "does not answer" in capsys.readouterr().err
