"""A database that lost its marks, or everything, lets nobody in silently (D39; H7); SQLite and Redis have their own."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from coatcheck.stores.mysql import MySqlStore
from coatcheck.stores.postgres import PostgresStore
from coatcheck.testing.clock import Clock
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres

from .house import House

LOSSES = {
    "marks deleted": ("delete from {}epochs", "delete from {}meta where name = 'generation'"),
    "marks made anew": ("delete from {}epochs", "update {}meta set value = 'another' where name = 'generation'"),
    "emptied": (
        "delete from {}sessions",
        "delete from {}epochs",
        "update {}meta set value = 'another' where name = 'generation'",
    ),
}

Lose = Callable[[tuple[str, ...]], None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["postgresql", "mysql"])
def kept(request: pytest.FixtureRequest, clock: Clock) -> Iterator[tuple[Any, Lose]]:
    """Lend a store, and what takes rows away from under it."""
    store: Any
    if request.param == "postgresql":
        server = server_or_skip(postgres.server)
        for prefix in postgres.a_prefix(server.url):
            store = PostgresStore(server.url, prefix=prefix, clock=clock)

            def lose(statements: tuple[str, ...], prefix: str = prefix) -> None:
                with psycopg.connect(server.url, autocommit=True) as admin:
                    for statement in statements:
                        admin.execute(statement.format(prefix))  # type: ignore[call-overload]

            yield store, lose
            store.close()
        return
    mariadb, _ = server_or_skip(mysql.shared)
    name = mariadb.database()  # what is lost here shall be nobody else's
    store = MySqlStore(mariadb.url(name), clock=clock)

    def lose_there(statements: tuple[str, ...]) -> None:
        for statement in statements:
            mariadb.ask(statement.format("coatcheck_"), database=name)

    yield store, lose_there
    store.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_d39_where_the_marks_are_gone_nobody_is_silently_valid(
    kept: tuple[Any, Lose], clock: Clock, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one whom an epoch refused stays refused: by a 503 or as nobody, in every process, and it is said."""
    store, lose = kept
    running = House("wsgi", store, clock)
    revoked = running.visitor().login("alice")
    clock.wind(2)
    running.control.registry.revoke_before(clock.now)
    bob = running.visitor().login("bob")
    clock.wind(2)
    assert running.visitor(bob).user == "bob"
    lose(LOSSES[loss])
    clock.wind(2)
    started_later = House("wsgi", store, clock)
    for house in (running, started_later):
        for token in (revoked, bob):
            answer = house.visitor(token).get("/me")
            assert answer.status in (401, 503)
            assert answer.set_cookies == []
    assert any(record.levelname in ("ERROR", "CRITICAL") for record in caplog.records), "it must be said loudly"
    if loss != "marks deleted":
        assert running.visitor().login("carol")
