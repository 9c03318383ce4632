"""A live move, end to end: an application under load, `coatcheck migrate` beside it, killed and run again."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from coatcheck import SessionManager, open_store
from coatcheck.adapters import wsgi
from coatcheck.cli import migrate, work
from coatcheck.core.errors import NotApplied
from coatcheck.core.model import Insert, Query, Record
from coatcheck.stores.moving import DualStore, is_copy
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock, Probe
from coatcheck.testing.browser import Browser
from coatcheck.testing.drivers import WsgiDriver, until
from coatcheck.testing.face import make
from coatcheck.testing.serving import WsgiProbe

from .conftest import Ran

COMMAND = [sys.executable, "-c", "from coatcheck.cli import main; main()", "migrate", "--yes", "--json"]


def moving(folder: Path) -> str:
    """Return the URL of both stores."""
    return f"moving+sqlite:///{folder}/new.db?from={quote(f'sqlite:///{folder}/old.db', safe='')}"


def copier(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start to move."""
    stores = ["--from", f"sqlite:///{folder}/old.db", "--to", f"sqlite:///{folder}/new.db"]
    return subprocess.Popen([*COMMAND, *stores, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str], code: int = 0) -> Any:
    """Return what a copier reported when it was done."""
    out, err = process.communicate(timeout=90)
    assert process.returncode == code, err
    return json.loads(out)


def filled(folder: Path, number: int) -> SqliteStore:
    """Return the old store, with sessions that nobody uses at the moment."""
    store, clock = SqliteStore(folder / "old.db"), Clock(time.time())
    for one in range(number):
        record = make(f"sleeping-{one:09}", clock, subject=f"s{one % 50}", realm="__Host-coat", idle_for=None)
        store.commit(os.urandom(16), [Insert(record=record)], durable=False)
    return store


def has_moved(store: SqliteStore) -> int:
    return sum(record.ended_because == "moved" for record in store.find(Query(live=False, limit=100_000)).items)


class Person:
    """Somebody who uses the application all the time, and counts; each complaint is a promise that was broken."""

    def __init__(self, driver: WsgiDriver, name: str, habit: str) -> None:
        self.browser, self.name, self.habit = Browser(driver), name, habit
        self.count, self.complaints, self.dead = 0, [], ""
        self.thread = threading.Thread(target=self.live)
        self.stop = threading.Event()
        assert self.browser.login(name).status == 200

    def live(self) -> None:
        chance = random.Random(self.name)
        while not self.stop.is_set() and not self.complaints:
            try:
                self.act(chance)
            except Exception as error:  # noqa: BLE001 - told where it is asserted
                self.complaints.append(repr(error))

    def act(self, chance: random.Random) -> None:
        if self.dead:
            status = Browser.get(self.dead, "/me").status
            if status != 401:
                self.complaints.append(f"a token that was logged out is answered {status}")
        answer = self.browser.get("/me")
        if answer.status != 200 or answer.json()["user"] != self.name:
            self.complaints.append(f"logged out: {answer.status} {answer.text}")
            return
        counted = self.browser.post("/bump?key=n")
        self.count += 1
        if counted.status != 200 or counted.json()["count"] != self.count:
            self.complaints.append(f"counted {self.count}, told {counted.status} {counted.text}")
        if self.habit == "steps up" and chance.random() < 0.2 and self.browser.post("/reauth").status != 200:
            self.complaints.append("a step-up was refused")
        if self.habit == "comes and goes" and chance.random() < 0.1:
            self.dead = self.browser.twin()
            self.browser.post("/logout")
            assert self.browser.login(self.name).status == 200
            self.count = 0


@pytest.mark.timeout(180)
def test_nobody_notices_that_the_store_changes_under_the_application(tmp_path: Path) -> None:
    """Issue: live, resumable, nobody logged out, verified counts; the copier is killed in the middle."""
    old = filled(tmp_path, 700)
    store = open_store(moving(tmp_path))
    app = wsgi.SessionMiddleware(WsgiProbe(Probe()), store=store, manager=SessionManager())
    driver = WsgiDriver(app, validate=False)
    habits = ["reads and writes", "steps up", "comes and goes"]
    people = [Person(driver, f"person {number}", habits[number % 3]) for number in range(6)]
    for person in people:
        person.thread.start()
    first = copier(tmp_path, "--rate", "200")
    until(lambda: has_moved(old) >= 100, 60)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert 100 <= has_moved(old) < 700
    report = told(copier(tmp_path))
    stop(people)
    counts = report["realms"]["__Host-coat"]
    assert counts["left"] == report["verified"]["missing"] == 0
    live = store.new.find(Query(limit=10_000)).items
    assert len(live) == 700 + len(people)
    assert abs(counts["in_new"] - len(live)) <= 4  # they were counted while people came, went and stepped up
    assert not [record for record in live if is_copy(record)]
    assert old.find(Query()).items == ()
    # the cut-over: the new store alone
    alone = wsgi.SessionMiddleware(WsgiProbe(Probe()), store=f"sqlite:///{tmp_path}/new.db")
    for person in people:
        person.browser._driver = WsgiDriver(alone, validate=False)
        assert person.browser.get("/me").json()["user"] == person.name
        assert person.browser.post("/bump?key=n").json()["count"] == person.count + 1
        if person.dead:
            person.dead._driver = person.browser._driver
            assert person.dead.get("/me").status == 401
    # a worker that was forgotten on the old store refuses, and touches no cookie
    forgotten = people[0].browser.twin()
    forgotten._driver = WsgiDriver(wsgi.SessionMiddleware(WsgiProbe(Probe()), store=f"sqlite:///{tmp_path}/old.db"))
    answer = forgotten.get("/me")
    assert (answer.status, answer.cookies) == (503, [])


def stop(people: list[Person]) -> None:
    for person in people:
        person.stop.set()
    for person in people:
        person.thread.join(30)
    assert [(person.name, person.complaints) for person in people if person.complaints] == []
    assert all(person.count or person.habit == "comes and goes" for person in people)


@pytest.mark.timeout(180)
def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path) -> None:
    old = filled(tmp_path, 400)
    chance = random.Random(7)
    kills = 0
    while kills < 3:
        before, process = has_moved(old), copier(tmp_path, "--rate", "150")
        until(lambda before=before: has_moved(old) > before, 60)
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        kills += 1
    report = told(copier(tmp_path))
    assert report["verified"] == {"live": 400, "ended": {}, "missing": 0}
    found = SqliteStore(tmp_path / "new.db").find(Query(limit=10_000)).items
    assert len(found) == len({record.handle for record in found}) == 400
    assert not [record for record in found if is_copy(record)]


# In one process: what the scripts do not show.


@pytest.fixture
def both(store: SqliteStore, clock: Clock) -> DualStore:
    return DualStore(SqliteStore("new.db", clock=clock), store)


ARGUMENTS = ("migrate", "--from", "sqlite:///sessions.db", "--to", "sqlite:///new.db")


def test_a_person_is_asked_once(
    sessions: None, run: Callable[..., Ran], typing: Callable[[str], None], both: DualStore
) -> None:
    typing("n\n")
    ran = run(*ARGUMENTS)
    assert ran.code == 1
    assert "Move 5 sessions?" in ran.err
    assert "workers that were not started with the moving+ URL answer 503" in ran.err
    assert both.new.find(Query()).items == ()
    typing("y\n")
    assert "Moved 5 sessions." in run(*ARGUMENTS).out
    typing("")
    assert run(*ARGUMENTS).code == 0


def test_what_ends_meanwhile_is_counted_apart(
    put: Callable[..., Record], run: Callable[..., Ran], both: DualStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("idle-0000000000001", "alice", 59)
    put("live-0000000000002", "bob", 1)
    begin = DualStore.begin
    monkeypatch.setattr(DualStore, "begin", lambda self: (clock.wind(90), begin(self)))
    report = json.loads(run(*ARGUMENTS, "--yes", "--json").out)
    assert report["realms"]["__Host-coat"] == {"before": 2, "cannot_move": 0, "moved": 1, "left": 0, "in_new": 1}


def test_a_store_that_stumbles_is_asked_again(
    sessions: None, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    move, stumbles = DualStore.move, iter(range(3))

    def stumbling(self: DualStore, handle: str) -> Any:
        if next(stumbles, None) is not None:
            message = "busy"
            raise NotApplied(message)
        return move(self, handle)

    monkeypatch.setattr(DualStore, "move", stumbling)
    assert run(*ARGUMENTS, "--yes").code == 0
    monkeypatch.setattr(work, "TRIES", 2)
    stumbles = iter(range(99))
    monkeypatch.chdir("..")
    assert run("migrate", "--from", "sqlite:///none.db", "--to", "sqlite:///new.db", "--yes").code == 3


def test_what_slips_behind_the_listing_is_found_by_the_next_one(
    sessions: None,
    put: Callable[..., Record],
    run: Callable[..., Ran],
    both: DualStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step-up in the old store has the age of the session that it replaces."""
    move, slips = DualStore.move, iter([1])

    def slipping(self: DualStore, handle: str) -> Any:
        if handle == "admin-desk-0000005" and next(slips, None):
            put("late-but-old-00001", "alice", 58)
        return move(self, handle)

    monkeypatch.setattr(DualStore, "move", slipping)
    assert "Moved 6 sessions." in run(*ARGUMENTS, "--yes").out
    assert both.old.find(Query()).items == ()


def test_it_waits_for_workers_that_have_not_heard_of_it_yet(
    sessions: None,
    put: Callable[..., Record],
    run: Callable[..., Ran],
    both: DualStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate, "SETTLED_AFTER", 1.0)
    monkeypatch.setattr(migrate, "WAIT", 0.1)
    begin = DualStore.begin

    def beginning(self: DualStore) -> None:
        begin(self)
        threading.Timer(0.7, put, ("straggler-00000001", "alice", 1)).start()

    monkeypatch.setattr(DualStore, "begin", beginning)
    assert "Moved 6 sessions." in run(*ARGUMENTS, "--yes").out
    assert both.old.find(Query()).items == ()


def test_what_stays_is_said_with_its_time_and_its_reason(
    sessions: None, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DualStore, "move", lambda self, handle: "stays")
    ran = run(*ARGUMENTS, "--yes")
    assert ran.code == 1
    assert "5 sessions cannot move: the new store keeps each subject in a shard" in ran.out
    assert "until they end, the last at 2027-01-16T11:57:00Z at the latest" in ran.out
    assert json.loads(run(*ARGUMENTS, "--yes", "--json").out)["left_until"] == "2027-01-16T11:57:00Z"


def test_a_session_that_is_missing_is_a_failure(
    sessions: None, run: Callable[..., Ran], both: DualStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*ARGUMENTS, "--yes").code == 0
    both.new._file.release()
    Path("new.db").unlink()
    for name in Path().glob("new.db-*"):
        name.unlink()
    ran = run(*ARGUMENTS, "--yes")
    assert ran.code == 3
    assert "being moved to another new one" in ran.err


def test_stopped_by_hand_nothing_is_lost(
    sessions: None, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate.Move, "go", interrupt)
        ran = run(*ARGUMENTS, "--yes")
    assert (ran.code, ran.err) == (1, "coatcheck: stopped; nothing is lost: run it again to go on\n")
    assert run(*ARGUMENTS, "--yes").code == 0


def test_the_rate_is_kept(put: Callable[..., Record], run: Callable[..., Ran]) -> None:
    for number in range(12):
        put(f"session-{number:010}", "alice", 1)
    started = time.monotonic()
    assert run(*ARGUMENTS, "--yes", "--rate", "10").code == 0
    assert time.monotonic() - started > 1.1
