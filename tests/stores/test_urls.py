"""A store's URL names its kind, its place and one option; everything else is refused with a sentence."""

from pathlib import Path

import pytest

from coatcheck.core.errors import ConfigError
from coatcheck.stores.memory import AsyncMemoryStore, MemoryStore
from coatcheck.stores.sqlite import AsyncSqliteStore, SqliteStore
from coatcheck.stores.urls import open_async_store, open_store


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
        ("redis://localhost", "no store is known for 'redis'; this version knows 'memory:' and 'sqlite:///"),
        ("sessions.db", "no store is known for 'sessions.db'"),
        ("", "no store is known for ''"),
        ("sqlite:", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite://sessions.db", "three slashes"),
        ("sqlite:///s.db#x", "three slashes"),
        ("sqlite:///s.db?synchronous=off", "one option"),
        ("sqlite:///s.db?mode=ro", "one option"),
        ("sqlite:///s.db?synchronous=full&synchronous=normal", "one option"),
        ("sqlite:///:memory:", "use MemoryStore"),
        ("memory:sessions", "no name and no options"),
        ("memory:?most=1", "no name and no options"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(url: str, words: str) -> None:
    for opened in (open_store, open_async_store):
        with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
            opened(url)
