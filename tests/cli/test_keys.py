"""`coatcheck keys` beyond what its script shows: the root secret, asking, events, JSON, and nothing secret printed."""

import json
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.core.roots import Roots
from coatcheck.flow.keys import Keys
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock

from .conftest import KEPT, ROOT, URL, Ran

AT = ("--store", URL, "--root-file", "root.key")


def listed(run: Callable[..., Ran]) -> dict[str, str]:
    return {one["key"]: one["state"] for one in json.loads(run("keys", "list", "--json", *AT).out)}


@pytest.mark.usefixtures("sessions")
def test_the_environment_may_hold_the_root_secret(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = run("keys", "list", "--store", URL)
    assert ran.code == 2
    assert "name its file by --root-file, or set COATCHECK_ROOT_SECRET" in ran.err
    monkeypatch.setenv("COATCHECK_ROOT_SECRET", b64encode(ROOT).decode())
    assert run("keys", "list", "--store", URL).code == 0
    monkeypatch.setenv("COATCHECK_ROOT_SECRET", b64encode(os.urandom(32)).decode())
    ran = run("keys", "list", "--store", URL)
    assert ran.code == 2
    assert "root secret that was not given" in ran.err
    (tmp_path / "root.key").chmod(0o644)
    ran = run("keys", "list", *AT)
    assert ran.code == 2
    assert "chmod 600" in ran.err


def test_a_store_without_keys_says_so_and_rotate_begins(store: SqliteStore, run: Callable[..., Ran]) -> None:
    ran = run("keys", "list", *AT)
    assert (ran.out, ran.code) == ("", 1)
    assert "there are no keys in this store" in ran.err
    assert json.loads(run("keys", "list", "--json", *AT).out) == []
    assert run("keys", "revoke", "4f1c09ab", "--yes", *AT).code == 1
    assert store.keys() == {}
    ran = run("keys", "rotate", *AT)
    assert ran.code == 0
    assert ran.out.endswith("; it works now.\n")
    assert list(listed(run).values()) == ["active"]


@pytest.mark.usefixtures("sessions")
def test_a_person_is_shown_the_keys_and_asked(run: Callable[..., Ran], typing: Callable[[str], None]) -> None:
    typing("n\n")
    ran = run("keys", "revoke", "4f1c09ab", *AT)
    assert (ran.code, ran.out.strip()) == (1, "")
    assert "4f1c09ab  active" in ran.err
    assert "Revoke 1 key? [y/N]" in ran.err
    assert listed(run)["4f1c09ab"] == "active"
    typing("y\n")
    assert run("keys", "revoke", "4f1c09ab", *AT).code == 0
    assert listed(run) == {"0b5e77d2": "active", "4f1c09ab": "revoked"}


@pytest.mark.usefixtures("sessions")
def test_what_a_command_revokes_an_application_refuses(
    run: Callable[..., Ran], store: SqliteStore, clock: Clock
) -> None:
    keys = Keys(store, Roots([ROOT], os.urandom), clock=clock)
    keys.look()
    sealed = keys.ring.seal("purpose", b"text", b"")
    assert run("keys", "revoke", keys.ring.newest.kid, "--yes", *AT).code == 0
    clock.wind(60)
    keys.look()
    assert keys.ring.open("purpose", sealed, b"") is None


@pytest.mark.usefixtures("sessions")
def test_acts_are_in_the_audit_trail_and_json_is_for_programs(run: Callable[..., Ran]) -> None:
    made = json.loads(run("keys", "rotate", "--json", *AT).out)
    assert made == {"made": made["newest"], "newest": made["made"], "works_at": "2027-01-15T12:10:00Z"}
    again = run("keys", "rotate", "--json", *AT)
    assert json.loads(again.out) == {**made, "made": None}
    assert again.code == 1
    gone = run("keys", "revoke", "4f1c09ab", "none", "--yes", "--json", *AT)
    assert json.loads(gone.out) == {"revoked": ["4f1c09ab"], "missing": ["none"]}
    assert gone.code == 1
    told = [json.loads(line) for line in run("events", "--json", "--store", URL).out.splitlines()]
    acts = [(one["name"], one["detail"]) for one in told if one["name"].startswith("key_")]
    assert acts == [
        ("key_made", {"key": made["made"], "actor": "cli:operator"}),
        ("key_revoked", {"key": "4f1c09ab", "actor": "cli:operator"}),
    ]


@pytest.mark.usefixtures("sessions")
def test_no_secret_is_printed(run: Callable[..., Ran]) -> None:
    text = ""
    for command in (("list",), ("list", "--json"), ("rotate",), ("revoke", "4f1c09ab", "--yes"), ("list",)):
        ran = run("keys", *command, *AT)
        text += ran.out + ran.err
    for secret in (ROOT, *(key.secret for key in KEPT.keys)):
        for spelling in (repr(secret)[2:-1], secret.hex(), b64encode(secret).decode()):
            assert spelling not in text


def test_looking_makes_no_keys(store: SqliteStore, run: Callable[..., Ran]) -> None:
    for command in (("list",), ("revoke", "4f1c09ab", "--yes")):
        run("keys", *command, *AT)
    assert store.keys() == {}


def test_a_sealed_record_is_shown_as_one(put: Callable[..., object], run: Callable[..., Ran]) -> None:
    put("sealed-00000000001", "ann", data=b"\x03" + bytes(40))
    ran = run("sessions", "show", "sealed-00000000001", "--store", URL)
    assert ran.code == 0
    assert "sealed; only the session's own cookie opens it" in ran.out
    assert json.loads(run("sessions", "show", "sealed-00000000001", "--json", "--store", URL).out)["data_keys"] is None
