"""`coatcheck audit`, and the sessions that a leaked key takes along: what is printed, and with which code."""

import json
import os
import sqlite3
from collections.abc import Callable

import pytest

from coatcheck.core.audit import MARGIN
from coatcheck.core.model import Event, Note, Record
from coatcheck.stores.sqlite import SqliteStore
from coatcheck.testing import Clock

from .conftest import NOON, URL, Ran

AT = ("--store", URL, "--root-file", "root.key")


def happens(store: SqliteStore, clock: Clock, number: int = 2) -> None:
    for one in range(number):
        event = Event(name="session_logout", at=clock(), realm="__Host-coat", subject=f"u{one}")
        store.commit(os.urandom(16), (Note(events=(event,)),), durable=True)
    clock.wind(MARGIN + 1)


def test_a_trail_is_sealed_and_verified(store: SqliteStore, clock: Clock, run: Callable[..., Ran]) -> None:
    ran = run("audit", "verify", *AT)
    assert (ran.code, ran.out) == (1, "")
    assert "there is no seal in this store" in ran.err
    assert run("audit", "seal", *AT).code == 0
    assert run("audit", "seal", *AT).code == 1
    happens(store, clock)
    remembered = run("audit", "seal", *AT).out.strip()
    assert remembered.startswith("2:")
    ran = run("audit", "verify", "--seal", remembered, *AT)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 seals, from number 1 on, until ")
    assert run("audit", "verify", "--seal", "9:beef", *AT).code == 1
    connection = sqlite3.connect("sessions.db")
    connection.execute("update coatcheck_events set subject = 'mallory' where subject = 'u1'")
    connection.commit()
    connection.close()
    ran = run("audit", "verify", "--json", *AT)
    assert ran.code == 1
    told = json.loads(ran.out)
    assert (told["good"], [one["seal"] for one in told["faults"]]) == (False, [2])
    assert "was altered" in run("audit", "verify", *AT).err


def test_without_the_root_secret_nothing_is_sealed(store: SqliteStore, run: Callable[..., Ran]) -> None:
    ran = run("audit", "seal", "--store", URL)
    assert (ran.code, ran.out) == (2, "")
    assert not store.events(_all()).items


@pytest.mark.usefixtures("sessions")
def test_a_leaked_key_ends_what_it_may_have_sealed(
    put: Callable[..., Record], store: SqliteStore, run: Callable[..., Ran]
) -> None:
    day = 86400.0
    put("A" * 18, "before", seen_at=NOON - 12 * day, handed_at=NOON - 12 * day, expires_at=NOON + day, idle_for=None)
    put("B" * 18, "meanwhile", seen_at=NOON - 5 * day, handed_at=NOON - 11 * day, expires_at=NOON + day, idle_for=None)
    put("C" * 18, "elsewhere", realm="other", expires_at=NOON + day)
    ran = run("keys", "revoke", "4f1c09ab", "--end", "__Host-coat", "--yes", *AT)
    assert ran.code == 0
    live = {one.handle[0] for one in store.find(_live()).items if one.handle[0] == one.handle[1]}
    assert live == {"A", "C"}
    ended = store.load("B" * 18)
    assert ended is not None
    assert ended.ended_because == "key_rotation"
    told = json.loads(run("events", "--handle", "B" * 18, "--name", "session_revoked", "--json", "--store", URL).out)
    assert told["detail"]["reason"] == "key_rotation"
    assert told["detail"]["actor"].startswith("cli:")


def _all() -> object:
    from coatcheck.core.model import EventQuery

    return EventQuery()


def _live() -> object:
    from coatcheck.core.model import Query

    return Query(limit=1000)
