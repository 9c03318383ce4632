"""`coatcheck schema`: the tables as SQL, for administrators who let no application make its own."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ..core.errors import ConfigError
from ..stores import sql


class Database(StrEnum):
    """The databases that a store can lie in."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    SQLITE = "sqlite"


def schema(
    database: Annotated[
        Database, typer.Argument(metavar="DATABASE", show_default=False, help="postgresql, mysql or sqlite.")
    ],
    where: Annotated[
        str | None, typer.Option("--schema", metavar="S", help="PostgreSQL: the schema, if it is not public.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(metavar="P", help="What the tables' names begin with, if not with coatcheck_.")
    ] = None,
) -> None:
    """Print the tables as SQL, to be run on an empty schema; stores opened with migrate=False expect them.

    Example: coatcheck schema postgresql --schema shop | psql -v ON_ERROR_STOP=1 shop
    """
    if where is not None and database is not Database.POSTGRESQL:
        message = f"--schema is for postgresql; {database.value} knows none, so leave it out"
        raise ConfigError(message)
    if prefix is not None and database is Database.SQLITE:
        message = "a SQLite file is coatcheck's own, and its tables are named coatcheck_...; leave --prefix out"
        raise ConfigError(message)
    typer.echo(_script(database, where or "public", "coatcheck_" if prefix is None else prefix), nl=False)


def _script(database: Database, where: str, prefix: str) -> str:
    """Return the statements of one database; a driver that is missing is named."""
    sql.check_prefix(prefix)
    if database is Database.POSTGRESQL:
        from ..stores.postgres import schema as postgres
        from ..stores.postgres.words import names

        return postgres.script(names(where, prefix))
    if database is Database.MYSQL:
        from ..stores.mysql import schema as mysql

        return mysql.script(prefix)
    from ..stores.sqlite import schema as sqlite

    return sqlite.script()
