"""A file of sessions whose clock stands still, and a way to run commands on it."""

import io
import os
import sys
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from coatcheck import Provider, SessionManager
from coatcheck.cli import app, door, migrate
from coatcheck.core import codec, rotation
from coatcheck.core.model import Client, Event, Insert, Note, Record
from coatcheck.core.roots import Roots
from coatcheck.core.rotation import DAY, Kept, KeptKey
from coatcheck.flow.keys import NAME
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock

NOON = 1_800_014_400.0  # 2027-01-15T12:00:00Z
URL = "sqlite:///sessions.db"
SECRET = "a value that stays in the store"
PROOFS = (b"FAMILY-PROOF" * 2, b"TURN-PROOF--" * 2, b"FORMER-PROOF" * 2, b"NONCE-------" * 2)
ROOT = sha256(b"the root secret of these scripts").digest()
KEPT = Kept(
    2,
    (
        KeptKey("0b5e77d2", sha256(b"old").digest(), NOON - 100 * DAY, NOON - 100 * DAY),
        KeptKey("4f1c09ab", sha256(b"new").digest(), NOON - 10 * DAY - 600, NOON - 10 * DAY),
    ),
)


def tell_the_owner(_: Event) -> None:
    """Stand in for what an application tells people by."""


SHARED = SessionManager(
    origins=["https://shop.example"],
    login_url="/login",
    https="checked",
    hsts="max-age=31536000; includeSubDomains",
    isolate=True,
    proof_pages=["/proof"],
    new_devices="tell",
    on_event=[tell_the_owner],
    providers=[
        Provider(issuer="https://op.example", lifetime=28800.0, max_age=3600.0, logouts=["back-channel", "caep"]),
        Provider(issuer="https://old.example"),
    ],
)
"""The settings of an application with all that an inventory asks for."""


class Ran(NamedTuple):
    """What a command printed, and how it exited."""

    out: str
    err: str
    code: int


class Terminal(io.StringIO):
    """A terminal to type on."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def store(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> SqliteStore:
    """Return an empty store; the commands open the same file, with the same clock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2]), *sys.path])  # `policy` adds where it is run
    for name in ("COATCHECK_STORE", "COATCHECK_DEBUG", "COATCHECK_ROOT_SECRET", "DJANGO_SETTINGS_MODULE", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "operator")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(door, "open_store", lambda url, create: SqliteStore(door.file_of(url), clock=clock))
    monkeypatch.setattr(migrate, "open_store", lambda url, create=True: SqliteStore(door.file_of(url), clock=clock))
    monkeypatch.setattr(migrate, "SETTLED_AFTER", 0.0)
    Path("root.key").write_text(b64encode(ROOT).decode())
    Path("root.key").chmod(0o600)
    made = SqliteStore("sessions.db", clock=clock)
    made.epochs()
    return made


@pytest.fixture
def put(store: SqliteStore, clock: Clock) -> Callable[..., Record]:
    """Return a function that stores a session: `minutes` ago, for an hour of silence and a day at most."""

    def put(handle: str, subject: str | None, minutes: float = 5, **fields: object) -> Record:
        at = NOON - minutes * 60
        record = Record(
            realm="__Host-coat",
            handle=handle,
            family_proof=PROOFS[0],
            turn_proof=PROOFS[1],
            former_proof=PROOFS[2],
            nonce=PROOFS[3],
            used_at=at,
            handed_at=at,
            data=codec.encode({"cart": [SECRET], "theme": "dark"}),
            created_at=at,
            seen_at=at,
            idle_for=3600.0,
            expires_at=at + 86400,
            subject=subject,
            authenticated_at=None if subject is None else at,
            methods=() if subject is None else ("pwd",),
            level=0 if subject is None else 10,
            client=Client("203.0.113.7", "Firefox"),
        )
        record = replace(record, **fields)
        clock.now = at
        created = Event(name="session_created", at=at, realm=record.realm, handle=handle, subject=subject)
        assert store.commit(handle.encode(), (Insert(record=record, events=(created,)),), durable=False) is None
        clock.now = NOON
        return record

    return put


@pytest.fixture
def sessions(put: Callable[..., Record], store: SqliteStore) -> None:
    """Store alice twice, bob (whose handle begins with a dash), nobody, another realm's admin, some noise, two keys."""
    put("alice-laptop-00001", "alice", 45)
    put("alice-phone-000002", "alice", 20, client=Client("2001:db8::7", "Safari"))
    put("-bob-desktop-00003", "bob", 10)
    put("somebody-000000004", None, 5, client=None)
    put("admin-desk-0000005", "alice@admin", 3, realm="admin")
    denied = Event(name="csrf_denied", at=NOON - 60, realm="__Host-coat", detail={"count": 7}, noise=True)
    store.commit(b"noise", (Note(events=(denied,)),), durable=False)
    store.put_key(NAME, Roots([ROOT], os.urandom).wrap(NAME, rotation.packed(KEPT)), None)


@pytest.fixture
def run(store: SqliteStore, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        code = app.run(list(arguments))
        printed = capsys.readouterr()
        return Ran(printed.out, printed.err, code)

    return run


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sits somebody at the terminal, who will type the given answer."""

    def typing(answer: str) -> None:
        monkeypatch.setattr(sys, "stdin", Terminal(answer))

    return typing
