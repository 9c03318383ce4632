"""What a dump shows when data is kept secret: no value, through a whole life; and no value is lost (D62)."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.core import codec, tokens
from coatcheck.core.codec import SEALED, UnknownVersion
from coatcheck.core.errors import Unknown
from coatcheck.core.model import Update
from coatcheck.core.secrecy import Secrecy
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

from .conftest import Build
from .house import House, Visitor
from .test_secrets_stay_secret import builtins_of

RENEW = 901.0
MARK = "MARKED"


def dump(store: Any, folder: Path) -> bytes:
    """Return every byte that the store holds."""
    if isinstance(store, MemoryStore):
        return repr(builtins_of(vars(store._shelf))).encode()
    files = [path for path in folder.iterdir() if path.name.startswith("sessions.db")]
    return b"".join(path.read_bytes() for path in files)


class Owner(Visitor):
    """A browser whose owner writes marked values, and knows what ought to be there."""

    def begin(self) -> "Owner":
        self.wrote: dict[str, str] = {}
        return self

    def write(self, key: str, headers: Any = None) -> None:
        value = f"{MARK}-{key}-{len(self.wrote)}"
        self.wrote[key] = value
        answer = self.get(f"/data?write={key}&value={value}")
        assert answer.json == self.wrote

    def check(self) -> None:
        assert self.get("/data").json == self.wrote


def test_no_value_of_a_whole_life_is_in_a_dump_and_none_is_lost(
    build: Build, store: Any, clock: Clock, tmp_path: Path
) -> None:
    """D62: renewals, lost answers, a login in between, step-up, renew, one-time values, parallel and late writes."""
    house = build(secrecy=True, carry={"cart"})
    ann = Owner(house).begin()
    ann.write("cart")
    ann.login("ann")
    ann.check()
    for turn in range(4):
        ann.write(f"turn{turn}")
        former = ann.token
        clock.wind(RENEW)
        house.ask(ann.prepare("GET", f"/data?write=lost&value={MARK}-lost"))  # renewed, and the answer is lost
        ann.wrote["lost"] = f"{MARK}-lost"
        ann.check()
        ann.write(f"former{turn}")  # by the token whose successor was not seen
        clock.wind(RENEW)
        ann.check()  # the successor is handed out again
        assert ann.token != former
        ann.write(f"after{turn}")
        Visitor(house, former).get(f"/data?write=grace&value={MARK}-grace")
        ann.wrote["grace"] = f"{MARK}-grace"
        ann.check()
    before = ann.token
    assert ann.post("/reauth").status == 200
    ann.check()
    ann.get("/data?do=renew")
    ann.check()
    assert ann.token.split(".")[1] != before.split(".")[1]
    assert ann.post("/bump?key=n").json == {"count": 1}
    assert ann.post("/take?key=cart").json == {"taken": ann.wrote.pop("cart")}
    assert ann.post("/save").status == 200
    assert ann.get("/stream?body=write&before=1").status == 200
    house.control.trouble.fail("commit", Unknown, times=1)
    kept = {"n": 1, "saved": "yes", "before": "yes", "k": ann.get("/data").json["k"]}
    asks = [ann.prepare("GET", f"/data?write=parallel{n}&value={MARK}-p") for n in range(8)]
    assert {answer.status for answer in house.ask_all(asks, parallel=True)} == {200}
    kept |= {f"parallel{n}": f"{MARK}-p" for n in range(8)}
    assert ann.get("/data").json == ann.wrote | kept
    assert house.record(ann.token).data[:1] == SEALED
    found = dump(store, tmp_path)
    assert b"ann" in found
    assert len(found) > 5000
    assert MARK.encode() not in found
    assert b"parallel" not in found, "nor a name"


def test_the_same_life_without_secrecy_shows_every_value(build: Build, store: Any, tmp_path: Path) -> None:
    """So the search above can find what it looks for."""
    ann = Owner(build()).begin()
    ann.write("cart")
    assert f"{MARK}-cart-0".encode() in dump(store, tmp_path)


def test_a_dump_and_the_cookies_of_others_do_not_open_it(build: Build, store: Any, clock: Clock) -> None:
    """D62: with the whole store, and any token but one of this session's."""
    house = build(secrecy=True)
    ann, bob = Owner(house).begin(), Owner(house).begin()
    for one, name in ((ann, "ann"), (bob, "bob")):
        one.login(name)
        one.write("note")
    record = house.record(ann.token)
    reader = Secrecy(record.realm.encode(), bytes, on=True)
    mine, theirs = tokens.parse(ann.token.encode()), tokens.parse(bob.token.encode())
    assert codec.decode(reader.read(mine, record.data)) == ann.wrote, "any token of the session opens it: that is said"
    for value in (theirs.family, record.family_proof, record.turn_proof, record.handle.encode(), mine.turn):
        with pytest.raises(UnknownVersion):
            reader.read(replace(mine, family=value), record.data)


def test_data_of_one_session_cannot_be_put_into_another(build: Build, store: Any) -> None:
    """Whoever can write the store shows nobody else's data to himself."""
    house = build(secrecy=True)
    ann, eve = Owner(house).begin(), Owner(house).begin()
    for one, name in ((ann, "ann"), (eve, "eve")):
        one.login(name)
        one.write("note")
    mine = house.record(eve.token)
    planted = replace(mine, data=house.record(ann.token).data, version=mine.version + 1)
    assert store.commit(b"planted", (Update(record=planted, was=mine.version),), durable=False) is None
    answer = eve.get("/data")
    assert answer.json == {}
    assert MARK.encode() not in answer.body
    assert [event.name for event in house.events("session_unreadable")] == ["session_unreadable"]
    ann.check()


def test_switching_it_on_seals_at_the_next_write_and_off_unseals(
    build: Build, store: Any, tmp_path: Path, clock: Clock
) -> None:
    off: House = build()
    ann = Owner(off).begin()
    ann.write("first")
    ann.house = build(secrecy=True)
    ann.check()
    assert off.record(ann.token).data[:1] != SEALED
    ann.write("second")
    assert off.record(ann.token).data[:1] == SEALED
    ann.house = off
    ann.check()
    ann.write("third")
    assert codec.decode(off.record(ann.token).data) == ann.wrote


def test_what_sqlite_overwrote_does_not_stay_in_the_file(build: Build, store: Any, tmp_path: Path) -> None:
    """Nothing that was ever written was plain, so neither freed pages nor the log hold a value."""
    if isinstance(store, MemoryStore):
        return
    house = build(secrecy=True)
    ann = Owner(house).begin()
    for number in range(60):
        ann.write(f"key{number}")
    ann.post("/logout")
    with sqlite3.connect(store._file.path) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    db.close()
    assert MARK.encode() not in dump(store, tmp_path)
