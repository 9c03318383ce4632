"""D39 and D41 to D43: revocations that may silently vanish: emptied stores, backups, keys that rotate, moves."""

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import Registry
from coatcheck.cli import app, door
from coatcheck.core.model import End, Epochs, Query
from coatcheck.core.tokens import shard_of
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.moving import DualStore
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.face import TOMBSTONE
from coatcheck.testing.flaky import FlakyStore

from .conftest import Build
from .house import COOKIE, House


def refused(house: House, token: str) -> None:
    """See that a token is refused, and its cookie left alone."""
    visitor = house.visitor(token)
    answer = visitor.get("/me")
    assert answer.status in (401, 503)
    assert answer.status == 401 or answer.set_cookies == []


# D39: the marks of revocations are gone.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "counter.db"


@pytest.fixture
def on_disk(file: Path, clock: Clock) -> Iterator[SqliteStore]:
    store = SqliteStore(file, clock=clock)
    yield store
    store.close()


def statements(file: Path, *texts: str) -> None:
    with sqlite3.connect(file) as db:
        for text in texts:
            db.execute(text)
    db.close()


FORGET = ("delete from coatcheck_epochs", "delete from coatcheck_meta where name = 'generation'")
EMPTY = (
    "delete from coatcheck_sessions",
    "delete from coatcheck_subjects",
    "delete from coatcheck_epochs",
    "update coatcheck_meta set value = 'another' where name = 'generation'",
)
ANEW = ("delete from coatcheck_epochs", "update coatcheck_meta set value = 'another' where name = 'generation'")


@pytest.mark.parametrize("loss", [FORGET, EMPTY, ANEW], ids=["marks deleted", "emptied", "marks made anew"])
def test_d39_where_the_marks_are_gone_nobody_is_silently_valid(
    build: Build, on_disk: SqliteStore, file: Path, clock: Clock, loss: tuple[str, ...], caplog: Any
) -> None:
    running = build(store=on_disk)
    revoked = running.visitor().login("alice")
    clock.wind(2)
    Registry(on_disk, clock=clock).revoke_before(clock.now)
    kept, unseen = running.visitor().login("bob"), running.visitor().login("carol")
    clock.wind(2)
    assert running.visitor(kept).user == "bob"
    statements(file, *loss)
    clock.wind(2)
    for token in (revoked, kept):
        refused(running, token)
    assert any(record.levelno >= logging.ERROR for record in caplog.records), "it must be said loudly"
    started_later = build(store=on_disk)
    for token in (revoked, kept, unseen):
        refused(started_later, token)
    clock.wind(2)
    if loss is FORGET:
        assert started_later.visitor(kept).get("/me").status == 503, "a store without its marks is not believed at all"
        on_disk.renew_generation()
        Registry(on_disk, realm=None, clock=clock).revoke_before(clock.now)
        clock.wind(2)
    assert running.visitor().login("alice")
    for house in (running, started_later):
        for token in (revoked, kept):
            refused(house, token)


def test_d39_the_epochs_of_a_running_process_never_go_back(build: Build, on_disk: SqliteStore, file: Path) -> None:
    house = build(store=on_disk)
    token = house.visitor().login()
    house.clock.wind(2)
    Registry(on_disk, clock=house.clock).revoke_before(house.clock.now)
    house.clock.wind(2)
    on_disk.load(token.split(".")[1])
    refused(house, house.visitor().login("bob") and token)
    statements(file, "delete from coatcheck_epochs")
    house.clock.wind(2)
    refused(house, token)


# D41: yesterday's backup.


@pytest.fixture
def restored(file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what an operator runs after a restore."""
    monkeypatch.setattr(door, "open_store", lambda url, create: SqliteStore(file, clock=clock))

    def run() -> None:
        assert app.run(["restored", "--yes", "--store", f"sqlite:///{file}"]) == 0

    return run


def test_d41_a_token_that_was_logged_out_after_the_backup_stays_dead(
    build: Build, on_disk: SqliteStore, file: Path, clock: Clock, restored: Callable[[], None], caplog: Any
) -> None:
    visitor = build(store=on_disk).visitor()
    token = visitor.login()
    backup = backed_up(file)
    clock.wind(7200)
    visitor = build(store=on_disk).visitor(visitor.token)
    token = visitor.token
    visitor.post("/logout")
    refused(build(store=on_disk), token)
    put_back(on_disk, backup, file)
    caplog.clear()
    house = build(store=on_disk)
    house.visitor().get("/me", headers=(("cookie", f"{COOKIE}={token}"),))
    assert "the newest event of the session store is 2 h old; if it was restored from a backup" in caplog.text
    restored()
    clock.wind(2)
    for again in (house, build(store=on_disk)):
        refused(again, token)
    assert house.visitor().login()


def test_d41_a_store_that_is_not_the_one_in_the_settings_is_refused(
    build: Build, on_disk: SqliteStore, file: Path, clock: Clock, restored: Callable[[], None], caplog: Any
) -> None:
    on_disk.epochs()
    backup = backed_up(file)
    restored()
    generation = on_disk.epochs().generation
    clock.wind(2)
    house = build(store=on_disk, generation=generation)
    token = house.visitor().login()
    assert house.visitor(token).user == "alice"
    put_back(on_disk, backup, file)
    clock.wind(2)
    assert build(store=on_disk, generation=generation).visitor(token).get("/me").status == 503
    assert house.visitor(token).get("/me").status == 503
    assert f"the settings say {generation!r}: it was emptied, restored, or is another one" in caplog.text


def backed_up(file: Path) -> Path:
    copy = file.with_name("backup.db")
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    return copy


def put_back(store: SqliteStore, backup: Path, file: Path) -> None:
    store.close()
    for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        name.unlink(missing_ok=True)
    shutil.copy(backup, file)


# D42: keys that rotate.


class Sharded(MemoryStore):
    """A memory store with a key of shards."""

    sharded = True
    salt = b"the store's own"

    def epochs(self) -> Epochs:
        return replace(super().epochs(), salt=self.salt)

    def as_async(self) -> Any:
        face = super().as_async()
        blocking = self

        async def epochs() -> Epochs:
            return blocking.epochs()

        face.epochs, face.sharded = epochs, True
        return face


def test_d42_revoke_all_finds_every_session_whatever_was_rotated(build: Build, clock: Clock) -> None:
    store = Sharded(clock=clock)
    tokens = []
    for _ in range(3):  # each house is a deployment of its own: other processes, other keys of the application
        tokens.append(build(store=store).visitor().login("alice"))
        clock.wind(1)
    shards = {token.split(".")[1][:2] for token in tokens}
    assert shards == {shard_of(store.salt, COOKIE, "alice")}
    Registry(store, clock=clock).revoke_all("alice")
    house = build(store=store)
    for token in tokens:
        refused(house, token)


def test_d42_a_store_whose_own_key_changed_is_refused(build: Build, clock: Clock) -> None:
    store = Sharded(clock=clock)
    house = build(store=store)
    token = house.visitor().login("alice")
    assert house.visitor(token).user == "alice"
    store.salt = b"another"
    clock.wind(2)
    assert house.visitor(token).get("/me").status == 503


# D43: a move.


def test_d43_what_ended_in_the_new_store_is_not_found_in_the_old_one(build: Build, clock: Clock) -> None:
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    before = build(store=old).visitor()
    before.login()
    asked = FlakyStore(old)
    dual = DualStore(new, asked)
    house = build(store=dual)
    visitor = house.visitor(before.token)
    assert visitor.user == "alice"
    dual.begin()
    assert dual.move(before.token.split(".")[1]) == "moved"
    assert visitor.user == "alice"
    token = visitor.token
    visitor.post("/logout")
    asked.trouble.calls.clear()
    refused(house, token)
    assert "load" not in asked.trouble.calls, "the old store was asked for a handle that the new one has seen"
    clock.wind(TOMBSTONE + 1)
    dual.purge(100)
    refused(house, token)
    refused(build(store=new), token)


@pytest.mark.parametrize("heard", [True, False], ids=["knows of the move", "has not heard of it"])
def test_d43_a_worker_that_was_left_on_the_old_store_answers_503(build: Build, clock: Clock, heard: bool) -> None:
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    forgotten = build(store=old)
    token = forgotten.visitor().login()
    dual = DualStore(new, old)
    dual.begin()
    if heard:
        clock.wind(2)  # that sessions move, although not yet this one
    else:
        dual.move(token.split(".")[1])
        old._shelf.scopes.clear()
    answer = forgotten.visitor(token).get("/me")
    assert (answer.status, answer.set_cookies) == (503, [])
    assert build(store=dual).visitor(token).user == "alice"


def test_d43_an_operator_at_both_stores_ends_what_lies_in_either(build: Build, clock: Clock) -> None:
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    tokens = [build(store=old).visitor().login(name) for name in ("alice", "alice", "bob")]
    dual = DualStore(new, old)
    dual.begin()
    dual.move(tokens[0].split(".")[1])
    house = build(store=dual)
    Registry(dual, clock=clock).revoke_all("alice")
    for token in tokens[:2]:
        refused(house, token)
    assert house.visitor(tokens[2]).user == "bob"
    handle = tokens[2].split(".")[1]
    assert Registry(dual, clock=clock).revoke(handle)
    refused(house, tokens[2])
    assert dual.find(Query()).items == ()
    assert dual.commit(os.urandom(16), [End(handle=handle, because="owner")], durable=True) is None
    assert house.record(tokens[2]).ended_because == "operator"
