"""A dump of a database or of Redis opens no session, and with secrecy shows who and when, not what (D45, D62)."""

import base64
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from redis import Redis

from coatcheck.stores.mysql import MySqlStore
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres
from tests.support.servers import redis as redis_servers

from .house import COOKIE, OURS, Ask, House
from .test_secrets_stay_secret import leaves

RENEW = 901.0
TABLES = ("sessions", "subjects", "epochs", "events", "meta")


class Kept(NamedTuple):
    """A store, and what steals everything that it holds."""

    store: Any
    stolen: Callable[[], set[bytes]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["postgresql", "mysql", "redis"])
def kept(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Kept]:
    yield from {"postgresql": in_postgresql, "mysql": in_mysql, "redis": in_redis}[request.param](clock)


def in_postgresql(clock: Clock) -> Iterator[Kept]:
    server = server_or_skip(postgres.server)
    store = PostgresStore(server.url, prefix="dumped_", clock=clock)
    store.epochs()
    with psycopg.connect(server.url, autocommit=True) as admin:
        for table in TABLES[:4]:
            admin.execute(f"delete from dumped_{table}")

        def stolen() -> set[bytes]:
            rows = [row for table in TABLES for row in admin.execute(f"select * from dumped_{table}").fetchall()]
            return set(leaves(rows))

        yield Kept(store, stolen)
    store.close()


def in_mysql(clock: Clock) -> Iterator[Kept]:
    server, name = server_or_skip(mysql.shared)
    store = MySqlStore(server.empty(name), clock=clock)

    def stolen() -> set[bytes]:
        tables = [table for (table,) in server.ask("show tables", database=name)]
        return set(leaves([row for table in tables for row in server.ask(f"select * from {table}", database=name)]))

    yield Kept(store, stolen)
    store.close()


def in_redis(clock: Clock) -> Iterator[Kept]:
    server = server_or_skip(redis_servers.single)
    store = RedisStore(server.url, clock=clock)
    with Redis.from_url(server.url) as admin:

        def stolen() -> set[bytes]:
            found: set[bytes] = set()
            for key in admin.keys("*"):
                found.add(key)
                found |= {value for kind in READ for value in leaves(read(admin, kind, key))}
            return found

        yield Kept(store, stolen)
    store.close()
    server.stop()


READ = {"string": ("GET",), "hash": ("HGETALL",), "zset": ("ZRANGE", 0, -1), "set": ("SMEMBERS",)}


def read(admin: Any, kind: str, key: bytes) -> Any:
    if admin.type(key).decode() != kind:
        return None
    name, *rest = READ[kind]
    return admin.execute_command(name, key, *rest)


def pieces(values: set[bytes]) -> set[bytes]:
    """Return each value, and the parts of those that hold several things."""
    cut = {value[at : at + 32] for value in values if len(value) > 32 for at in range(len(value) - 31)}
    return values | cut


def test_nothing_that_a_server_holds_opens_a_session(kept: Kept, clock: Clock) -> None:
    """D45 (TOK-09): every stored value, and every window of 32 bytes, as cookie, family and turn of a live handle."""
    house = House("wsgi", kept.store, clock, on_theft="note")
    ann = house.visitor()
    ann.login("ann")
    ann.post("/change?how=start")
    clock.wind(RENEW)
    ann.get("/me")
    record = house.record(ann.token or "")
    assert record.nonce, "the state in which the store knows most"
    values = pieces(kept.stolen())
    assert {record.family_proof, record.turn_proof, record.former_proof, record.nonce} <= values
    handle, cookies = record.handle.encode(), set()
    for value in values:
        for spelt in (value, value.hex().encode(), base64.urlsafe_b64encode(value)):
            short = (spelt + b"A" * 24)[:24]
            cookies |= {spelt, b"c1.%b.%b.%b" % (handle, short, short)}
    cookies = {cookie for cookie in cookies if not set(cookie) & set(b"\r\n;")}
    assert len(cookies) > 500
    asks = (Ask("GET", "/me", ((b"cookie", f"{COOKIE}=".encode() + cookie), *OURS)) for cookie in cookies)
    assert {answer.status for answer in house.ask_all(asks)} == {401}
    assert house.record(ann.token or "") == record
    assert ann.user == "ann"


@pytest.mark.parametrize("secrecy", [False, True])
def test_with_secrecy_a_dump_shows_who_and_when_but_not_what(kept: Kept, clock: Clock, secrecy: bool) -> None:
    """D62: through a renewal, a lost answer and a step-up; nothing is lost. Without secrecy the value is found."""
    house = House("wsgi", kept.store, clock, secrecy=secrecy)
    ann = house.visitor()
    ann.login("ann")
    ann.get("/data?write=note&value=MARKED-secret")
    clock.wind(RENEW)
    lost = ann.prepare("GET", "/me")
    house.ask(lost)  # the answer with the successor never arrives
    clock.wind(RENEW)
    assert ann.get("/data").json["note"] == "MARKED-secret"
    ann.get("/data?do=renew")
    assert ann.get("/data").json["note"] == "MARKED-secret"
    dump = b"\n".join(kept.stolen())
    assert b"ann" in dump
    assert (b"MARKED" in dump) is not secrecy
