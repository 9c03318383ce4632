"""What `sessions revoke` does beyond what its script shows: asking, successors, realms, and following events."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from coatcheck.cli import upkeep
from coatcheck.core.model import Event, Note, Record
from coatcheck.stores.sqlite import SqliteStore

from .conftest import NOON, URL, Ran

ALICE = ("sessions", "revoke", "--subject", "alice", "--store", URL)


def live(run: Callable[..., Ran]) -> set[str]:
    return {one["handle"] for one in json.loads(run("sessions", "list", "--json", "--store", URL).out)}


def test_a_person_is_shown_what_would_end_and_asked(
    sessions: None, run: Callable[..., Ran], typing: Callable[[str], None]
) -> None:
    typing("n\n")
    ran = run(*ALICE)
    assert (ran.code, ran.out.strip()) == (1, "")
    assert "alice-laptop-00001" in ran.err
    assert "End 2 sessions of alice in realm __Host-coat? [y/N]" in ran.err
    assert "alice-laptop-00001" in live(run)
    typing("y\n")
    assert run(*ALICE).out.lstrip() == "Ended 2 sessions of alice in realm __Host-coat (reason: operator).\n"
    assert "alice-laptop-00001" not in live(run)


def test_no_answer_is_a_no(sessions: None, run: Callable[..., Ran], typing: Callable[[str], None]) -> None:
    typing("")
    assert run(*ALICE).code == 1
    assert "alice-laptop-00001" in live(run)


def test_a_subject_of_two_realms_needs_the_realm(
    sessions: None, put: Callable[..., Record], run: Callable[..., Ran]
) -> None:
    put("alice-admin-000006", "alice", realm="admin")
    ran = run(*ALICE, "--yes")
    assert ran.code == 2
    assert "'alice' is known in 2 realms (__Host-coat, admin); say which with --realm" in ran.err
    assert run(*ALICE, "--yes", "--realm", "admin").code == 0
    assert live(run) >= {"alice-laptop-00001", "alice-phone-000002"}
    assert "alice-admin-000006" not in live(run)


def test_a_replaced_session_ends_under_the_name_it_lives_on_by(
    put: Callable[..., Record], run: Callable[..., Ran]
) -> None:
    put("after-step-up-0001", "alice")
    gone = {"ended_at": NOON - 60, "ended_because": "replaced"}
    put("before-step-up-001", "alice", successor="after-step-up-0001", **gone)
    assert run("sessions", "revoke", "before-step-up-001", "--yes", "--store", URL).code == 0
    assert live(run) == set()


def test_successors_in_a_circle_end(put: Callable[..., Record], run: Callable[..., Ran]) -> None:
    gone = {"ended_at": NOON - 60, "ended_because": "replaced"}
    put("circle-00000000001", "alice", successor="circle-00000000002", **gone)
    put("circle-00000000002", "alice", successor="circle-00000000001", **gone)
    assert run("sessions", "revoke", "circle-00000000001", "--yes", "--store", URL).code == 1


@pytest.mark.usefixtures("sessions")
def test_before_a_moment_spares_who_logged_in_later(run: Callable[..., Ran]) -> None:
    assert run("sessions", "revoke", "--before", "15m", "--yes", "--store", URL).code == 0
    assert live(run) == {"-bob-desktop-00003", "somebody-000000004", "admin-desk-0000005"}


@pytest.mark.usefixtures("sessions")
def test_a_subjects_older_logins_end_alone(run: Callable[..., Ran]) -> None:
    assert run(*ALICE, "--before", "30m", "--yes").code == 0
    assert "alice-phone-000002" in live(run)
    assert "alice-laptop-00001" not in live(run)


@pytest.mark.usefixtures("sessions")
def test_following_prints_each_event_once(
    store: SqliteStore, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(range(3))

    def wait(seconds: float) -> None:
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        late = Event(name=f"late_{turn}", at=NOON - turn, realm="__Host-coat")
        store.commit(f"late {turn}".encode(), (Note(events=(late,)),), durable=False)

    monkeypatch.setattr(upkeep.time, "sleep", wait)
    ran = run("events", "--follow", "--limit", "1", "--json", "--store", URL)
    names = [json.loads(line)["name"] for line in ran.out.splitlines()]
    assert ran.code == 0
    assert names == ["csrf_denied", "late_0", "late_1", "late_2"]


def test_without_its_libraries_the_command_line_says_how_to_get_them() -> None:
    program = "import sys; sys.modules['typer'] = None\nfrom coatcheck.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == 'coatcheck: the command line needs typer; pip install "coatcheck[cli]"\n'
