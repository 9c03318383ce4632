"""The store on Django's own database connection keeps the contract."""

from collections.abc import Iterator

import pytest

from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract

from ..adapters.django_site import ready

ready()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402

from coatcheck.adapters.django.store import DjangoStore  # noqa: E402

TABLES = ("sessions", "subjects", "epochs", "events")


def emptied() -> None:
    """Make the tables, or empty them."""
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"delete from coatcheck_{table}")


class TestDjangoStore(StoreContract):
    """On SQLite."""

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[DjangoStore]:
        emptied()
        yield DjangoStore(clock=clock)
        connections.close_all()
