"""A MariaDB for the tests: a server of our own, or the one that the environment names.

In this order: COATCHECK_TEST_MYSQL=mysql://user:password@host:port/ (MySQL or MariaDB; its user may do everything); a
mariadbd on PATH; one that an earlier run unpacked into .cache; then apt-get (see packages.py).
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import subprocess
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.err import MySQLError

from tests.support.packages import NoPackageError, Packages

from .base import NoServerError, Server, as_user, directory, free_port, named

HOW_TO = "install mariadb-server, or name a server in COATCHECK_TEST_MYSQL=mysql://user:password@host:3306/"
PACKAGES = Packages("MariaDB", "mariadb", ("mariadb-server-core", "mariadb-client-core"), HOW_TO)
USER, PASSWORD = "warden", "open:se/same@1"

# No flush, no double write: a machine that loses power may lose these files. Everything else is as in production,
# innodb_flush_log_at_trx_commit = 1 too.
OPTIONS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=32M",
    "--innodb-buffer-pool-size=64M",
    "--performance-schema=0",
    "--skip-log-bin",
    "--max-connections=200",
)


class MySql:
    """A server that answers, and what the tests ask of it beside the store."""

    def __init__(self, *, user: str, password: str, host: str, port: int, server: Server | None = None) -> None:
        """Remember where it is; `server` is its process, if it is ours."""
        self.user, self.password, self.host, self.port = user, password, host, port
        self.server = server
        self._names = (f"coatcheck_test_{os.getpid()}_{number}" for number in itertools.count(1))
        self._made: list[str] = []
        self._links: dict[str | None, Any] = {}

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        password = "".join(f"%{byte:02X}" for byte in self.password.encode())
        return f"mysql://{self.user}:{password}@{self.host}:{self.port}/{database}"

    def database(self) -> str:
        """Make a new, empty database and return its name."""
        name = next(self._names)
        # A default unlike what the store needs: it must ask for what it relies on.
        self.ask(f"create database {name} character set latin1 collate latin1_swedish_ci")
        self._made.append(name)
        return name

    def ask(self, statement: str, *values: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        """Do one statement, as the one who may do everything."""
        link = self._links.get(database)
        if link is None or not link.open:
            link = self._links[database] = self.connect(database)
        with link.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def connect(self, database: str | None = None) -> Any:
        """Return a new connection, as an application would make one."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            autocommit=True,
            connect_timeout=5,
            ssl_disabled=True,
        )

    def empty(self, database: str) -> str:
        """Empty the tables of a store, where there are any, but for its version; return the database's URL."""
        for (table,) in self.ask("show tables", database=database):
            kept = " where name like 'keys:%%'" if table.endswith("meta") else ""
            self.ask(f"delete from {table}{kept}", database=database)
        return self.url(database)

    def connections(self, database: str) -> list[int]:
        """Return the ids of the connections that work in a database, without our own."""
        found = self.ask("select id from information_schema.processlist where db = %s", database)
        ours = {link.thread_id() for link in self._links.values() if link.open}
        return sorted({int(one) for (one,) in found} - ours)

    def kill_all(self, database: str) -> int:
        """Kill every connection that works in a database, wait until they are gone, and return how many there were."""
        ids = self.connections(database)
        for one in ids:
            self.ask(f"kill {one}")
        until = time.monotonic() + 5
        while set(self.connections(database)) & set(ids):
            if time.monotonic() > until:
                raise TimeoutError(ids)
            time.sleep(0.005)
        return len(ids)

    def stop(self) -> None:
        """Drop what was made, and end the server if it is ours."""
        if self.server is not None:
            self.server.stop()
            return
        while self._made:
            self.ask(f"drop database {self._made.pop()}")


@cache
def shared() -> tuple[MySql, str]:
    """Return one server for all tests of this process, and a database on it."""
    server = start()
    atexit.register(server.stop)
    return server, server.database()


def start() -> MySql:
    """Start a server of our own, or return the one that the environment names."""
    url = named("COATCHECK_TEST_MYSQL")
    return own() if url is None else _named(url)


def own(*more: str) -> MySql:
    """Start a server of our own, with more options."""
    place = directory("mariadb", owner=_user())
    port = free_port()
    daemon, environment = program()
    data, socket, log = place / "data", place / "s", place / "log"
    base = Path(daemon).parents[1]
    _install_database(base, data, environment)
    where = (f"--basedir={base}", f"--datadir={data}", f"--socket={socket}", f"--port={port}")
    command = as_user(_user(), [daemon, "--no-defaults", *where, *OPTIONS, *more])
    server = Server(command, lambda: _first_login(socket), log=log, environment=environment)
    return MySql(user=USER, password=PASSWORD, host="127.0.0.1", port=port, server=server)


def _named(url: str) -> MySql:
    parts = urlsplit(url)
    user, password = unquote(parts.username or "root"), unquote(parts.password or "")
    server = MySql(user=user, password=password, host=parts.hostname or "127.0.0.1", port=parts.port or 3306)
    try:
        server.ask("select 1")
    except MySQLError as problem:
        message = f"the server in COATCHECK_TEST_MYSQL does not answer ({problem})"
        raise NoServerError(message) from problem
    return server


def _install_database(base: Path, data: Path, environment: dict[str, str]) -> None:
    script = next(path for path in (base / "bin", base / "scripts") if (path / "mariadb-install-db").exists())
    command = [
        str(script / "mariadb-install-db"),
        "--no-defaults",
        f"--basedir={base}",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]
    done = subprocess.run(
        as_user(_user(), command),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        message = f"mariadb-install-db failed:\n{(done.stdout + done.stderr)[-2000:]}"
        raise NoServerError(message)


def _first_login(socket: Path) -> None:
    with closing(pymysql.connect(unix_socket=str(socket), user="root")) as link, link.cursor() as cursor:
        cursor.execute(f"create or replace user {USER}@'%%' identified by %s", (PASSWORD,))
        cursor.execute(f"grant all on *.* to {USER}@'%' with grant option")


@cache
def _user() -> str:
    """Return as whom a server runs that root starts."""
    known = {one.pw_name for one in pwd.getpwall()}
    return "mysql" if "mysql" in known else "nobody"


# Where the program comes from.


@cache
def program() -> tuple[str, dict[str, str]]:
    """Return the path of a mariadbd that runs and what it needs in its environment, or raise NoServerError."""
    try:
        return PACKAGES.get(_present)
    except NoPackageError as problem:
        raise NoServerError(str(problem)) from problem


def _present() -> tuple[str, dict[str, str]] | None:
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    unpacked = PACKAGES.tree / "usr" / "sbin" / "mariadbd"
    ours = {"LD_LIBRARY_PATH": PACKAGES.libraries()}
    for path, environment in ((shutil.which("mariadbd", path=places), {}), (str(unpacked), ours)):
        if path and _runs(path, environment):
            return path, environment
    return None


def _runs(path: str, environment: dict[str, str]) -> bool:
    command = [path, "--no-defaults", "--version"]
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
