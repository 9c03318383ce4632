"""The store on Django's own database connection keeps the contract: on SQLite, PostgreSQL and MySQL."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
import pytest

from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from tests.conftest import server_or_skip
from tests.support.servers import mysql, postgres

from ..adapters.django_site import ready

ready()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from coatcheck.adapters.django import tables  # noqa: E402
from coatcheck.adapters.django.store import DjangoStore  # noqa: E402

TABLES = ("sessions", "subjects", "epochs", "events")


def emptied(alias: str) -> None:
    """Empty the tables."""
    with connections[alias].cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"delete from coatcheck_{table}")


def named(alias: str, engine: str, url: str) -> None:
    """Let Django know another database, and make the tables there anew."""
    parts = urlsplit(url)
    connections.settings[alias] = {
        **connections.settings["default"],
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {},
    }
    tables.drop(connections[alias])
    tables.make(connections[alias])


class TestDjangoStore(StoreContract):
    """On SQLite."""

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[DjangoStore]:
        call_command("migrate", verbosity=0)
        emptied("default")
        yield DjangoStore(clock=clock)
        connections.close_all()


class OnAServer(StoreContract):
    """On a server, under an alias of its own."""

    alias = ""

    @pytest.fixture
    def store(self, clock: Clock, database: Any) -> Iterator[DjangoStore]:
        emptied(self.alias)
        yield DjangoStore(self.alias, clock=clock)
        connections.close_all()


class TestDjangoStoreOnPostgresql(OnAServer):
    """On PostgreSQL."""

    alias = "postgresql"

    @pytest.fixture(scope="class")
    def database(self) -> Iterator[None]:
        server = server_or_skip(postgres.server)
        named(self.alias, "postgresql", server.url)
        yield
        tables.drop(connections[self.alias])
        connections.close_all()
        del connections.settings[self.alias]


class TestDjangoStoreOnMysql(OnAServer):
    """On MySQL, through PyMySQL in the place of mysqlclient."""

    alias = "mysql"

    @pytest.fixture(scope="class")
    def database(self) -> Iterator[None]:
        pymysql.install_as_MySQLdb()
        server = server_or_skip(mysql.shared)[0]
        named(self.alias, "mysql", server.url(server.database()))
        yield
        tables.drop(connections[self.alias])
        connections.close_all()
        del connections.settings[self.alias]
