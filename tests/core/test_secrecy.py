"""Data at rest, sealed with a key that only the cookie holds (M7): the key, what does not open it, and every write."""

import os
import subprocess
import sys

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coatcheck import Level, Policy, SessionManager, timeouts
from coatcheck.core import codec, tokens
from coatcheck.core.codec import SEALED, UnknownVersion
from coatcheck.core.model import Conflict, Insert, Record, Request, Ticket, Update
from coatcheck.core.secrecy import Secrecy, data_key
from coatcheck.testing.clock import Clock

REALM = b"__Host-coat"
TICKET = Ticket("A" * 18, b"B" * 24, b"C" * 24)
RAW = codec.encode({"secret": "MARKED"})


def secrecy(realm: bytes = REALM, *, on: bool = True) -> Secrecy:
    return Secrecy(realm, os.urandom, on=on)


def test_the_key_of_a_sessions_data_is_the_one_that_is_written_down():
    """security.md 2.2; HMAC-SHA256 as any tool computes it."""
    assert data_key(REALM, TICKET).hex() == "035e2d6a0b69a5d198c1a8322dd78400ab37b1680b90cfe2ac4f7e2543cb2007"


def test_what_is_kept_is_aes_gcm_bound_to_realm_handle_and_version():
    """Opened without our code, as docs/why/keys.md describes it."""
    kept = secrecy().kept(TICKET, RAW)
    aead = AESGCM(data_key(REALM, TICKET))
    assert aead.decrypt(kept[1:13], kept[13:], b"__Host-coat\0" + b"A" * 18 + b"\0\x03") == RAW


@given(st.binary(min_size=1, max_size=500))
def test_what_is_kept_is_read_again(raw):
    kept = secrecy().kept(TICKET, raw)
    assert kept[:1] == SEALED
    assert len(kept) == len(raw) + 29
    assert secrecy(on=False).read(TICKET, kept) == raw


def test_the_same_data_lies_there_differently_each_time():
    assert len({secrecy().kept(TICKET, RAW) for _ in range(100)}) == 100


def test_nothing_stays_nothing_and_plain_data_is_read_as_it_is():
    assert secrecy().kept(TICKET, b"") == b""
    assert secrecy().read(TICKET, b"") == b""
    assert secrecy().read(TICKET, RAW) == RAW
    assert secrecy(on=False).kept(TICKET, RAW) == RAW


def test_a_renewed_secret_opens_it_and_no_other_ticket_does():
    kept = secrecy().kept(TICKET, RAW)
    assert secrecy().read(replace(TICKET, turn=b"D" * 24), kept) == RAW
    for other in (replace(TICKET, handle="Z" * 18), replace(TICKET, family=b"Z" * 24)):
        with pytest.raises(UnknownVersion, match="another session, or damaged"):
            secrecy().read(other, kept)
    with pytest.raises(UnknownVersion, match="another session, or damaged"):
        secrecy(b"admin").read(TICKET, kept)


def test_no_flipped_bit_and_no_cut_is_read():
    kept = secrecy().kept(TICKET, RAW)
    for at in range(1, len(kept)):
        with pytest.raises(UnknownVersion):
            secrecy().read(TICKET, kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :])
        with pytest.raises(UnknownVersion):
            secrecy().read(TICKET, kept[:at])


def test_whoever_lacks_the_cookie_reads_an_unknown_version_not_garbage():
    with pytest.raises(UnknownVersion, match="03"):
        codec.decode(secrecy().kept(TICKET, RAW))


# Every write of a manager.


class Life:
    """One record in the hands of managers: what the store holds, and what a handler sees."""

    def __init__(self, **settings) -> None:
        self.clock = Clock()
        self.settings = settings
        self.record: Record | None = None
        self.ticket: Ticket | None = None

    def manager(self, *, secrecy: bool = True) -> SessionManager:
        return SessionManager(clock=self.clock, secrecy=secrecy, **self.settings)

    def open(self, manager: SessionManager, method: str = "GET"):
        headers = [(b"host", b"localhost"), (b"sec-fetch-site", b"same-origin")]
        cookie = b"" if self.ticket is None else tokens.value_of(self.ticket)
        if cookie:
            headers.append((b"cookie", b"__Host-coat=" + cookie))
        request = Request(method, "https", "/", headers)
        return manager.open(request, manager.identify(request), self.record)

    def take(self, outcome) -> None:
        """Store what an outcome holds, and keep its cookie."""
        for change in outcome.changes:
            if hasattr(change, "record"):
                version = 1 if self.record is None else self.record.version + 1
                self.record = replace(change.record, version=version)
        for cookie in outcome.cookies:
            self.ticket = tokens.parse(cookie.partition(b"=")[2].partition(b";")[0])

    def write(self, manager: SessionManager | None = None, **values):
        manager = manager or self.manager()
        session = self.open(manager)
        session.update(values)
        outcome = manager.settle(session, 200, ())
        self.take(outcome)
        manager.after.committed(session, outcome)
        return session, outcome


@pytest.fixture
def life() -> Life:
    life = Life()
    life.write(secret="MARKED", list=[1])
    return life


def test_a_write_is_sealed_and_read_again(life):
    assert life.record.data[:1] == SEALED
    assert b"MARKED" not in life.record.data
    assert dict(life.open(life.manager())) == {"secret": "MARKED", "list": [1]}


def test_reading_is_no_write(life):
    """The plain encodings are compared, not what was made of them."""
    for read in (lambda session: session["secret"], lambda session: session["list"], dict):
        manager = life.manager()
        session = life.open(manager)
        read(session)
        assert manager.settle(session, 200, ()).changes == ()
    manager = life.manager()
    session = life.open(manager)
    session["secret"] = "MARKED"
    assert manager.settle(session, 200, ()).changes == ()


def test_a_nested_change_is_a_write(life):
    manager = life.manager()
    session = life.open(manager)
    session["list"].append(2)
    (change,) = manager.settle(session, 200, ()).changes
    assert change.record.data[:1] == SEALED


def test_after_a_commit_a_late_write_builds_on_it(life):
    manager = life.manager()
    session, _ = life.write(manager, secret="MARKED again")
    assert manager.late(session).changes == ()
    session["late"] = True
    (change,) = manager.late(session).changes
    life.record = change.record
    assert dict(life.open(manager)) == {"secret": "MARKED again", "list": [1], "late": True}


@pytest.mark.parametrize("secret", [True, False], ids=["sealed", "plain"])
def test_what_was_committed_is_what_later_changes_are_laid_on(life, secret):
    """Else a second conflict in one request would bring back what others deleted, or fail."""
    manager = life.manager(secrecy=secret)
    session, _ = life.write(manager, mine=1)
    assert session["list"] == [1]
    assert manager.late(session).changes == (), "a value was lent, and did not change"
    other = life.open(manager)
    del other["secret"]
    life.take(manager.settle(other, 200, ()))
    session["mine"] = 2
    manager.late(session)
    life.take(manager.after.rebase(session, Conflict(life.record, "version")))
    assert dict(life.open(manager)) == {"list": [1], "mine": 2}


@pytest.mark.parametrize("secret", [True, False], ids=["sealed", "plain"])
def test_what_an_edit_stored_is_what_later_changes_are_laid_on(life, secret):
    manager = life.manager(secrecy=secret)
    session = life.open(manager)
    for number in range(3):  # each of them meets a newer record twice
        for value in (-1, number):
            other = life.open(manager)
            other[f"theirs{number}"] = value
            other.pop("secret", None)
            life.take(manager.settle(other, 200, ()))
            assert manager.after.overtaken(session, Conflict(life.record, "version"))
        _, update = manager.after.edit(session, lambda data: data.update(n=data.get("n", 0) + 1))
        manager.after.edited(session, lambda data: data.update(n=data.get("n", 0) + 1), update)
        life.record = update.record
    assert dict(session) == dict(life.open(manager)) == {"list": [1], "n": 3, "theirs0": 0, "theirs1": 1, "theirs2": 2}
    session.visit.wrote = False
    assert manager.settle(session, 200, ()).changes == ()


@pytest.mark.parametrize("secret", [True, False], ids=["sealed", "plain"])
def test_after_a_login_later_changes_are_laid_on_its_record(life, secret):
    manager = life.manager(secrecy=secret)
    session = life.open(manager)
    session.login("ann", carry={"list", "secret"})
    outcome = manager.settle(session, 200, ())
    life.take(outcome)
    manager.after.committed(session, outcome)
    assert session["list"] == [1]
    assert manager.late(session).changes == ()
    other = life.open(manager)
    del other["secret"]
    life.take(manager.settle(other, 200, ()))
    session["mine"] = 2
    manager.late(session)
    life.take(manager.after.rebase(session, Conflict(life.record, "version")))
    assert dict(life.open(manager)) == {"list": [1], "mine": 2}


def test_it_can_be_switched_on_and_off_under_a_live_session(life):
    off = life.manager(secrecy=False)
    assert life.open(off)["secret"] == "MARKED"
    life.write(off, more=1)
    assert codec.decode(life.record.data) == {"secret": "MARKED", "list": [1], "more": 1}
    assert life.open(life.manager())["more"] == 1
    assert life.record.data[:1] != SEALED, "reading writes nothing"
    life.write(more=2)
    assert life.record.data[:1] == SEALED
    assert life.open(off)["more"] == 2


def test_an_edit_reads_and_writes_sealed(life):
    manager = life.manager()
    session = life.open(manager)
    value, update = manager.after.edit(session, lambda data: data.pop("secret"))
    assert value == "MARKED"
    assert update.record.data[:1] == SEALED
    manager.after.edited(session, lambda data: data.pop("secret"), update)
    life.record = update.record
    assert dict(life.open(manager)) == {"list": [1]}
    assert manager.settle(session, 200, ()).changes == ()
    assert manager.after.edit(session, lambda data: data.get("secret")) == (None, None)


def test_a_rebase_lays_plain_on_plain_and_seals_the_result(life):
    manager = life.manager()
    mine = life.open(manager)
    mine["mine"] = 1
    manager.settle(mine, 200, ())
    life.write(theirs=2)
    outcome = manager.after.rebase(mine, Conflict(life.record, "version"))
    life.take(outcome)
    assert life.record.data[:1] == SEALED
    assert dict(life.open(manager)) == {"secret": "MARKED", "list": [1], "mine": 1, "theirs": 2}


def test_who_was_overtaken_reads_what_is_stored_now(life):
    manager = life.manager()
    mine = life.open(manager)
    mine["mine"] = 1
    life.write(theirs=2)
    assert manager.after.overtaken(mine, Conflict(life.record, "version"))
    assert mine["theirs"] == 2
    _, update = manager.after.edit(mine, lambda data: data.update(n=1))
    life.record = replace(update.record, version=update.was + 1)
    assert life.open(manager)["n"] == 1


@pytest.mark.parametrize("act", ["login", "step_up", "renew"])
def test_with_a_new_handle_comes_a_new_key(life, act):
    before, ticket = life.record, life.ticket
    manager = life.manager()
    if act == "step_up":
        session = life.open(manager)
        session.login("ann", carry={"secret", "list"})
        life.take(manager.settle(session, 200, ()))
        before, ticket = life.record, life.ticket
    session = life.open(manager)
    if act == "renew":
        session.renew()
    else:
        session.login("ann", carry={"secret", "list"})
    life.take(manager.settle(session, 200, ()))
    assert life.ticket.handle != ticket.handle
    assert life.record.data[:1] == SEALED
    with pytest.raises(UnknownVersion):
        secrecy().read(ticket, life.record.data)
    with pytest.raises(UnknownVersion):
        secrecy().read(life.ticket, before.data)
    assert dict(life.open(manager)) == {"secret": "MARKED", "list": [1]}


def test_a_timed_renewal_keeps_the_key_and_the_data(life):
    manager, first = life.manager(), life.ticket
    life.clock.wind(901)
    session = life.open(manager)
    outcome = manager.settle(session, 200, ())
    assert not outcome.required, "nothing was written but the turn"
    life.take(outcome)
    assert life.ticket.turn != first.turn
    for ticket in (first, life.ticket):
        life.ticket = ticket
        assert life.open(manager)["secret"] == "MARKED"


def test_what_a_remembered_login_drops_is_dropped_sealed():
    life = Life(timeouts=timeouts(renew=None), carry={"kept"})
    manager = life.manager()
    session = life.open(manager)
    session.update(kept="MARKED", dropped="MARKED")
    session.login("ann", remember=True, carry={"kept", "dropped"})
    life.take(manager.settle(session, 200, ()))
    life.clock.wind(3601)
    session = life.open(manager)
    assert session.level == Level.REMEMBERED
    (urgent,) = session.visit.urgent
    assert isinstance(urgent, Update)
    assert urgent.record.data[:1] == SEALED
    assert dict(session) == {"kept": "MARKED"}
    assert manager.settle(session, 200, ()).changes == ()
    life.record = replace(urgent.record, version=urgent.was + 1)
    assert dict(life.open(manager)) == {"kept": "MARKED"}


class Cart(msgspec.Struct):
    """What an application keeps."""

    items: list[str] = []


def test_typed_data_is_sealed_too():
    life = Life(data=Cart)
    manager = life.manager()
    session = life.open(manager)
    session.as_type(Cart).data.items.append("MARKED")
    life.take(manager.settle(session, 200, ()))
    assert life.record.data[:1] == SEALED
    session = life.open(manager)
    assert session.as_type(Cart).data.items == ["MARKED"]
    assert manager.settle(session, 200, ()).changes == ()


def test_no_policy_sees_what_the_store_may_not_see():
    seen = []

    class Curious(Policy):
        def judge(self, record, signals, now):
            seen.append(record.data)
            return super().judge(record, signals, now)

        def on_login(self, record):
            seen.append(record.data)
            return ()

    life = Life(policies=[Curious()])
    manager = life.manager()
    session = life.open(manager)
    session["secret"] = "MARKED"
    session.login("ann", carry={"secret"})
    life.take(manager.settle(session, 200, ()))
    life.open(manager)
    assert [raw[:1] for raw in seen] == [SEALED, SEALED]


def test_damaged_data_is_no_session_and_a_fact(life):
    life.record = replace(life.record, data=life.record.data[:-1] + bytes([life.record.data[-1] ^ 1]))
    session = life.open(life.manager())
    assert dict(session) == {}
    assert [event.name for _, event in session.visit.notes] == ["session_unreadable"]


def test_a_new_session_after_a_logout_has_its_own_key(life):
    manager, old = life.manager(), life.ticket
    session = life.open(manager)
    session.logout()
    session["flash"] = "MARKED bye"
    outcome = manager.settle(session, 200, ())
    (made,) = [change for change in outcome.changes if isinstance(change, Insert)]
    assert made.record.data[:1] == SEALED
    manager.after.committed(session, outcome)
    life.record = None
    life.take(outcome)
    assert life.ticket.handle != old.handle
    assert dict(life.open(manager)) == {"flash": "MARKED bye"}
    session["late"] = 1
    (change,) = manager.late(session).changes
    assert change.record.data[:1] == SEALED


def test_the_cipher_is_imported_by_those_who_need_it():
    program = "import sys, coatcheck; coatcheck.SessionManager(); print('cryptography' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "False"
