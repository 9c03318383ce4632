"""Who has an account: names and password hashes, in a table of their own beside the sessions.

Rules
- A password is kept as its Argon2id hash only (argon2-cffi's defaults, RFC 9106). Hashing takes 64 MB and some tens of
  milliseconds: it runs in two threads of its own, so neither the event loop nor the memory suffers under many logins.
- An unknown name costs the same work as a wrong password, and both get the same answer.
- Names are lower case and never change, so a name can be the subject of sessions.
- What this demo leaves out: a limit on attempts per name and address. Put one in front before people come.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")

SHORTEST, LONGEST = 8, 256
"""Characters of a password (NIST SP 800-63B-4 asks for 8 where it is not the only factor); no other rules."""
COMMON = frozenset(
    (
        *(
            "00000000",
            "11111111",
            "12345678",
            "123456789",
            "1234567890",
            "abcd1234",
            "baseball",
            "changeme",
            "football",
        ),
        *("iloveyou", "letmein1", "passw0rd", "password", "password1", "princess", "qwerty123", "qwertyui", "sunshine"),
        *("superman", "trustno1", "welcome1"),
    )
)

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?").fullmatch
_TABLE = """create table if not exists cloakroom_accounts (
    name text primary key, password text not null, created_at real not null
) strict, without rowid"""


class AccountError(Exception):
    """What is wrong with a name or a password, as a sentence for the form's field."""

    def __init__(self, field: str, sentence: str) -> None:
        """Keep the field beside the sentence."""
        super().__init__(sentence)
        self.field = field


class Accounts:
    """The accounts of one SQLite file.

    File and table are created at once; OSError says that they could not be.
    """

    def __init__(
        self, path: str | os.PathLike[str], hasher: PasswordHasher | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the file; `hasher` and `clock` are for tests."""
        self._path = Path(path)
        self._hasher = hasher or PasswordHasher()
        self._clock = clock
        self._threads = ThreadPoolExecutor(2, "accounts")
        self._nobodys = self._hasher.hash(os.urandom(16))
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with self._db() as db:
                db.execute(_TABLE)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    async def create(self, name: str, password: str) -> str:
        """Create an account and return its name as it is kept, or raise AccountError."""
        name = known_as(name)
        _check_name(name)
        check_password(password, name)

        def add() -> bool:
            hashed = self._hasher.hash(password)
            with self._db() as db:
                row = (name, hashed, self._clock())
                return db.execute("insert or ignore into cloakroom_accounts values (?, ?, ?)", row).rowcount == 1

        if not await self._in_thread(add):
            field, sentence = "name", f"The name {name} is taken; choose another one."
            raise AccountError(field, sentence)
        return name

    async def verify(self, name: str, password: str) -> str | None:
        """Return the account's name if this is its password, else None; an unknown name takes as long."""
        name = known_as(name)
        return name if await self._in_thread(lambda: self._is(name, password)) else None

    async def change_password(self, name: str, password: str) -> None:
        """Give an account another password, or raise AccountError."""
        check_password(password, name)

        def change() -> None:
            self._keep(name, self._hasher.hash(password))

        await self._in_thread(change)

    def _is(self, name: str, password: str) -> bool:
        with self._db() as db:
            row = db.execute("select password from cloakroom_accounts where name = ?", (name,)).fetchone()
        kept = self._nobodys if row is None else str(row[0])
        try:
            self._hasher.verify(kept, password[: LONGEST + 1])
        except (VerificationError, InvalidHashError):
            return False
        if row is None:
            return False
        if self._hasher.check_needs_rehash(kept):
            self._keep(name, self._hasher.hash(password))
        return True

    def _keep(self, name: str, hashed: str) -> None:
        with self._db() as db:
            db.execute("update cloakroom_accounts set password = ? where name = ?", (hashed, name))

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5.0)) as db, db:
            yield db

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)


def known_as(name: str) -> str:
    """Return a name as it is kept: people write it in any case."""
    return name.strip().lower()


def _check_name(name: str) -> None:
    if not _NAME(name):
        field = "name"
        sentence = "A name is 1 to 32 letters (a to z) or digits; dots, dashes and underscores may stand between them."
        raise AccountError(field, sentence)


def check_password(password: str, name: str) -> None:
    """Raise AccountError for a password that is too short, too long, or among the first that anybody would try."""
    field = "password"
    if len(password) < SHORTEST:
        sentence = f"A password has at least {SHORTEST} characters (this one has {len(password)})."
        raise AccountError(field, sentence)
    if len(password) > LONGEST:
        sentence = f"A password has at most {LONGEST} characters."
        raise AccountError(field, sentence)
    if password.lower() in COMMON or password.lower() == name or len(set(password)) == 1:
        sentence = "This password is among the first that anybody would try; three unrelated words make a good one."
        raise AccountError(field, sentence)
