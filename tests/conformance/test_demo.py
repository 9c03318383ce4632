"""`coatcheck conform` on the demo, under uvicorn, over plain http and over TLS: judged is what its users get."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from coatcheck import MemoryStore
from coatcheck.cli.app import run
from coatcheck.demo.accounts import Accounts
from coatcheck.demo.app import make_app
from coatcheck.demo.serving import listen
from tests.demo.visiting import CHEAP, PASSWORD
from tests.support.certificates import self_signed

LOGIN = ["--login-path", "/login", "--field", "name=ann", "--field", "password=@PASSWORD", "--probe", "/sessions"]


@contextmanager
def demo(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    listening = listen("127.0.0.1", 0)
    host = f"localhost:{listening.getsockname()[1]}"
    accounts = Accounts(folder / "accounts.db", CHEAP)
    asyncio.run(accounts.create("ann", PASSWORD))
    how: dict[str, Any] = {"origins": [f"https://{host}"]} if certificate else {"allow_insecure_http": True}
    app = make_app(MemoryStore().as_async(), accounts=accounts, hosts=[host], **how)
    files = {"ssl_certfile": certificate[0], "ssl_keyfile": str(certificate[1])} if certificate else {}
    config = uvicorn.Config(app, log_level="critical", proxy_headers=False, timeout_graceful_shutdown=1, **files)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://{host}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def judged(capsys: pytest.CaptureFixture[str], url: str, *more: str) -> dict[str, Any]:
    run(["conform", url, *LOGIN, "--logout-path", "/logout", "--samples", "9", "--format", "json", *more])
    out, err = capsys.readouterr()
    assert out, err
    return {row["id"]: row for row in json.loads(out)["rows"]}


def failing(rows: dict[str, Any]) -> dict[str, str]:
    return {name: row["why"] for name, row in rows.items() if row["verdict"] == "fail"}


def test_the_demo_fails_for_plain_http_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", PASSWORD)
    with demo(tmp_path) as url:
        rows = judged(capsys, url)
    assert failing(rows).keys() == {"CKE-01"}, failing(rows)


def test_the_demo_over_tls_lacks_nothing_but_what_its_proxy_adds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", PASSWORD)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    self_signed(cert, key, "localhost")
    with demo(tmp_path, (cert, key)) as url:
        rows = judged(capsys, url, "--ca", str(cert))
        assert run(["conform", url]) == 3, "a certificate that nobody vouches for is not believed"
    assert failing(rows).keys() == {"CKE-15"}, failing(rows)
    for name in ("CKE-01", "CKE-02", "CKE-03", "CKE-04", "TOK-01", "TRM-01", "TRM-02", "TRM-07", "CSR-08", "CCH-01"):
        assert rows[name]["verdict"] in {"pass", "partial"}, rows[name]
