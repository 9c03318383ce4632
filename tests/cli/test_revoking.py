"""What `sessions revoke` does beyond what its script shows: asking, successors, realms, and following events."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from coatcheck import Registry
from coatcheck.cli import upkeep
from coatcheck.core.model import Event, Note, Record
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock

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
def test_what_began_after_the_preview_does_not_end(
    put: Callable[..., Record],
    clock: Clock,
    run: Callable[..., Ran],
    typing: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D71: by the time of the answer it matches, but nobody was shown it."""
    put("latecomer-00000006", "carol", 14)

    def thought_about(*_: object, **__: object) -> bool:
        put("newcomer-000000007", "alice", 0)
        clock.wind(120)
        return True

    monkeypatch.setattr("typer.confirm", thought_about)
    typing("")
    ran = run("sessions", "revoke", "--before", "15m", "--store", URL)
    assert "latecomer" not in ran.err
    left = {
        "latecomer-00000006",
        "newcomer-000000007",
        "-bob-desktop-00003",
        "somebody-000000004",
        "admin-desk-0000005",
    }
    assert (ran.code, live(run)) == (0, left)


@pytest.mark.usefixtures("sessions")
def test_a_command_that_was_killed_goes_on_where_it_was(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D71, "kill and resume": what was ended stays so, with its first reason, and the rest ends; nobody else does."""
    named = ("alice-laptop-00001", "alice-phone-000002", "somebody-000000004")
    command = ("sessions", "revoke", *named, "--yes", "--store", URL)
    revoke, ended = Registry.revoke, []

    def killed(self: Registry, handle: str, *given: Any, **more: Any) -> bool:
        if ended:
            raise KeyboardInterrupt
        ended.append(handle)
        return revoke(self, handle, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "revoke", killed)
        assert run(*command).code != 0
    assert len(live(run)) == 4
    assert run(*command, "--reason", "theft").code == 1, "one of them ended before"
    assert live(run) == {"-bob-desktop-00003", "admin-desk-0000005"}
    shown = json.loads(run("sessions", "show", ended[0], "--json", "--store", URL).out)
    assert shown["ended_because"] == "operator"


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
