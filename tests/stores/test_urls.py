"""A store's URL names its kind, its place and one option; everything else is refused with a sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coatcheck.core.errors import ConfigError
from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.stores.urls import is_shared, open_async_store, open_store


def test_memory_has_two_faces() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_async_store("memory://"), AsyncMemoryStore)


def test_sqlite_has_two_faces_and_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_store("sqlite:///s.db"), SqliteStore)
    assert isinstance(open_async_store("sqlite:///s.db"), AsyncSqliteStore)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "path", "full"),
    [
        ("sqlite:///s.db", "{here}/s.db", False),
        ("sqlite:///var/s.db", "{here}/var/s.db", False),
        ("sqlite:////var/lib/app/s.db", "/var/lib/app/s.db", False),
        ("sqlite:///my%20coats.db", "{here}/my coats.db", False),
        ("sqlite:///s.db?synchronous=full", "{here}/s.db", True),
        ("sqlite:///s.db?synchronous=normal", "{here}/s.db", False),
    ],
)
def test_a_sqlite_url_names_a_file(
    url: str, path: str, *, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert (store._file.path, store._file.full) == (path.format(here=tmp_path), full)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "oracle://localhost",
            "no store is known for 'oracle'; this version knows memory:, sqlite:///path, postgresql://",
        ),
        ("redsi://localhost", "no store is known for 'redsi'; did you mean 'redis'?"),
        ("sessions.db", "no store is known for 'sessions.db'"),
        ("", "no store is known for ''"),
        ("sqlite:", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite://sessions.db", "three slashes"),
        ("sqlite:///s.db#x", "three slashes"),
        ("sqlite:///s.db?synchronous=off", "one option"),
        ("sqlite:///s.db?mode=ro", "one option"),
        ("sqlite:///s.db?synchronous=full&synchronous=normal", "synchronous twice"),
        ("sqlite:///:memory:", "use MemoryStore"),
        ("memory:sessions", "no name and no options"),
        ("memory:?most=1", "no name and no options"),
        ("postgresql://h/db?pool_size=many", "pool_size is a whole number (found 'many')"),
        ("postgresql://h/db?load_deadline=0", "load_deadline is a number of seconds above 0 (found '0')"),
        ("postgresql://h/db?migrate=maybe", "migrate is yes or no (found 'maybe')"),
        ("postgresql://h/db?schema=a.b", "a.b"),
        ("postgresql://h/db?prefix=1", "'1'"),
        ("mysql://h/db?schema=x", "schema=x"),
        ("mysql://h", "database"),
        ("redis://h?colour=red", "colour"),
        ("redis://a,b", "names one server (found 2)"),
        ("redis+sentinel://a,b", "ends with the name of the primary"),
        ("redis+cluster://a/3", "one database"),
        ("moving+sqlite:///new.db", "names the old store"),
        ("moving+sqlite:///new.db?from=x", "no store is known for 'x'"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(url: str, words: str) -> None:
    for opened in (open_store, open_async_store):
        with pytest.raises(ConfigError, match=re.escape(words)):
            opened(url)


SERVERS = [
    ("postgresql://u:p@h:5432/db?sslmode=require", "PostgresStore"),
    (
        "postgres://h/db?schema=sessions&prefix=app_&pool_size=3&load_deadline=0.2&commit_deadline=1&migrate=no",
        "PostgresStore",
    ),
    ("mysql://u:p@h/db", "MySqlStore"),
    ("mariadb://h/db?prefix=app_&migrate=no&pool_size=3", "MySqlStore"),
    ("redis://h", "RedisStore"),
    ("rediss://u:p@h:6380/2?prefix=app&wait_replicas=1", "RedisStore"),
    ("valkey+sentinel://a:26379,b:26379/main", "RedisStore"),
    ("valkeys+cluster://a:1,b:2", "RedisStore"),
    ("unix:///run/redis.sock", "RedisStore"),
    ("moving+redis://h?from=sqlite%3A%2F%2F%2Fold.db", "DualStore"),
]


@pytest.mark.parametrize(("url", "name"), SERVERS)
def test_a_server_has_two_faces_and_nobody_calls_it_before_it_is_used(url: str, name: str) -> None:
    assert type(open_store(url)).__name__ == name
    assert type(open_async_store(url)).__name__ == f"Async{name}"


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("postgresql://h/db", "psycopg", "postgresql"),
        ("mysql://h/db", "pymysql", "mysql"),
        ("redis://h", "redis", "redis"),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(url: str, driver: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{driver!r}] = None
from coatcheck import ConfigError, open_store
try:
    open_store({url!r}).epochs()
except ConfigError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'coatcheck[{extra}]'" in said.stdout, said.stderr


def test_a_memory_store_is_nobody_elses() -> None:
    assert not is_shared("memory:")
    assert is_shared("sqlite:///s.db")
    assert is_shared("redis://h")
