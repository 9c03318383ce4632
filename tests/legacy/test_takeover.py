"""Sessions of other libraries, taken over in bulk: the old store is switched off, and whoever comes is still in."""

import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import MemoryStore, Registry, SessionManager
from coatcheck.cli import app as cli
from coatcheck.core import tokens
from coatcheck.core.errors import ConfigError
from coatcheck.core.model import EventQuery, Level, Query
from coatcheck.core.policies import Timeouts
from coatcheck.flow.takeover import Fate, Takeover
from coatcheck.legacy import CachelibFolder, FlaskCookie, FlaskSession, Source, StarletteCookie
from coatcheck.stores.sqlite import SqliteStore
from tests.legacy import test_libraries as libraries
from tests.legacy.test_libraries import DATA, SECRET, UNTIL, Old, Site, flask_app, flask_jar, taken
from tests.support.servers import redis as servers
from tests.support.servers.base import NoServerError

ON_DISK = [
    *(libraries.flask_session_sql, libraries.litestar_files, libraries.django_db, libraries.django_cached_db),
]
COAT = "__Host-coat"


def django_cache(place: Path) -> Old:
    """Return a session in Django's cache, which is empty but for it."""
    libraries.django("cache", place)
    from django.core.cache import caches

    caches["default"].clear()
    return libraries.django_cache(place)


def flask_session_folder(place: Path) -> Old:
    """Return a session of Flask-Session in cachelib's folder, written by a serializer that is no pickle."""
    import msgspec
    from cachelib import FileSystemCache
    from flask_session import Session

    class Msgpack:
        def dump(self, value: Any, file: Any) -> None:
            file.write(msgspec.msgpack.encode(value))

        def load(self, file: Any) -> Any:
            return msgspec.msgpack.decode(file.read())

    class Kept(FileSystemCache):
        serializer = Msgpack()

    app = flask_app(SESSION_TYPE="cachelib", SESSION_CACHELIB=Kept(str(place / "kept")))
    Session(app)
    return flask_jar(app), FlaskSession(CachelibFolder(place / "kept"), subject="user", until=UNTIL)


@pytest.fixture(scope="module")
def redis_url() -> Any:
    try:
        server = servers.single()
    except NoServerError as error:
        pytest.skip(str(error))
    yield server.url
    server.stop()


def move(source: Source, store: Any, **settings: Any) -> list[Fate]:
    """Take everything over, as the command does, and switch the old store off."""
    work = Takeover(SessionManager(legacy=[source], **settings), store)
    fates = [work.take(source, key) for key in source.listed()]
    source.moved = True
    source.fetch = source.forget = None  # type: ignore[method-assign,assignment] # whoever asks it fails
    return fates


def mine(store: Any) -> Any:
    (record,) = Registry(store, COAT).find("ann").items
    return record


def comes_back(jar: dict[str, str], source: Source, kind: str) -> None:
    before, store = dict(jar), MemoryStore()
    assert Fate("taken") in move(source, store)
    record = mine(store)
    assert (record.level, record.ended_at) == (Level.REMEMBERED, None)
    site = Site(kind, source, store)
    found, lines = site.get(jar)
    expected = {"subject": "ann", "level": Level.REMEMBERED, **DATA}
    assert {key: found[key] for key in expected} == expected
    taken(jar, lines)
    assert set(jar) == {COAT}
    assert mine(store).handle == record.handle
    assert site.get(jar)[0]["subject"] == "ann"
    assert site.get(jar)[0]["subject"] == "ann"
    taken(jar, site.get(jar, "/logout", "POST")[1])
    assert site.get(before) == ({**site.get({})[0]}, [])
    assert len(store.events(EventQuery(name="session_converted")).items) == 1
    unknown = dict.fromkeys(before, "k" * 43)
    assert site.get(unknown) == site.get({}), "the old store is asked no more"


@pytest.mark.parametrize("make", [*ON_DISK, django_cache, flask_session_folder])
def test_a_browser_finds_its_session_after_the_old_store_is_gone(make: Callable[[Path], Old], tmp_path: Path) -> None:
    comes_back(*make(tmp_path), "wsgi")


def test_a_browser_finds_its_session_where_the_flow_awaits(tmp_path: Path) -> None:
    comes_back(*flask_session_folder(tmp_path), "asgi")


@pytest.mark.parametrize("number", range(len(libraries.IN_REDIS)))
def test_a_browser_finds_its_session_after_the_old_redis_is_gone(number: int, redis_url: str) -> None:
    import redis

    redis.Redis.from_url(redis_url).flushdb()
    jar, source = libraries.IN_REDIS[number](redis_url)
    comes_back(jar, source, "wsgi")
    assert redis.Redis.from_url(redis_url).dbsize() == 0


@pytest.fixture
def one(tmp_path: Path) -> Old:
    return libraries.flask_session_sql(tmp_path)


def test_a_session_is_revoked_before_its_browser_comes(one: Old) -> None:
    jar, source = one
    store = MemoryStore()
    move(source, store)
    assert Registry(store, COAT).revoke(mine(store).handle)
    site = Site("wsgi", source, store)
    found, lines = site.get(jar)
    assert (found["subject"], lines) == (None, [])


def test_everybody_revoked_are_those_too_that_wait(one: Old) -> None:
    jar, source = one
    store = MemoryStore()
    move(source, store)
    Registry(store, COAT).revoke_all("ann")
    assert Site("wsgi", source, store).get(jar)[0]["subject"] is None


def test_a_session_from_before_its_subjects_epoch_is_not_taken(one: Old, tmp_path: Path) -> None:
    _, source = one
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.execute("update sessions set expiry = datetime(expiry, '-1 hour')")
    db.close()
    store = MemoryStore()
    Registry(store, COAT).revoke_all("ann")
    assert move(source, store) == [Fate("over")]
    assert Registry(store, COAT).find("ann").items == ()


def test_it_is_handed_out_once_and_waits_for_a_request_that_may_have_it(one: Old) -> None:
    jar, source = one
    store = MemoryStore()
    move(source, store)
    site = Site("wsgi", source, store)
    found, lines = site.get(jar, method="HEAD")
    assert (found["subject"], lines) == ("ann", [])
    found, lines = site.get(jar)
    assert len(lines) == 2
    assert [site.get(jar) for _ in range(3)] == [(found, [])] * 3
    ours = dict(jar)
    taken(ours, lines)
    assert site.get(ours)[0]["subject"] == "ann"


def test_its_idle_time_begins_when_its_browser_comes(one: Old) -> None:
    """Nobody is logged out who was not before: of the old lifetime, nothing is lost by waiting."""
    jar, source = one
    now = [dt.datetime.now(dt.UTC).timestamp()]
    store = MemoryStore(clock=lambda: now[0])
    clocks = Timeouts(idle=600.0, remember_idle=900.0)
    work = Takeover(SessionManager(clock=lambda: now[0], legacy=[source], timeouts=clocks), store)
    (fate,) = [work.take(source, key) for key in source.listed()]
    assert fate.name == "taken"
    source.moved = True
    site = later(source, store, now, timeouts=clocks)
    now[0] += 86400
    store.purge(100)
    found, lines = site.get(jar)
    assert found["subject"] == "ann"
    assert mine(store).idle_for == 900.0
    assert mine(store).client.address == "192.0.2.7"
    taken(jar, lines)
    now[0] += 899
    assert site.get(jar)[0]["subject"] == "ann"
    now[0] += 901
    assert site.get(jar)[0]["subject"] is None


def later(source: Source, store: Any, now: list[float], **settings: Any) -> Site:
    """Return the application at another time."""
    from coatcheck.adapters import wsgi

    site = Site("wsgi", source, store)
    manager = SessionManager(clock=lambda: now[0], legacy=[source], origins=["https://app.test"], **settings)
    site.app = wsgi.SessionMiddleware(site._wsgi, store=store, manager=manager)
    return site


class Dies:
    """A store that answers so many commits, and then none."""

    def __init__(self, store: Any, after: int, *, applied: bool) -> None:
        self._store, self._left, self._applied = store, after, applied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, *arguments: Any, **named: Any) -> Any:
        if self._left == 0:
            if self._applied:
                self._store.commit(*arguments, **named)
            raise KeyboardInterrupt
        self._left -= 1
        return self._store.commit(*arguments, **named)


@pytest.mark.parametrize("comes", [False, True])
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("make", [libraries.flask_session_sql, libraries.litestar_files])
def test_killed_anywhere_and_run_again(
    make: Callable[[Path], Old], after: int, applied: bool, comes: bool, tmp_path: Path
) -> None:
    """Also a week later, and also if the browser comes before it is run again."""
    jar, source = make(tmp_path)
    now = [dt.datetime.now(dt.UTC).timestamp()]
    store = MemoryStore(clock=lambda: now[0])
    manager = SessionManager(clock=lambda: now[0], legacy=[source])
    (key,) = source.listed()
    with pytest.raises(KeyboardInterrupt):
        Takeover(manager, Dies(store, after, applied=applied)).take(source, key)
    assert list(source.listed()) == [key]
    now[0] += 7 * 86400
    store.purge(100)
    if comes:
        site = later(source, store, now)
        found, lines = site.get(jar)
        assert found["subject"] == "ann"
        taken(jar, lines)
        assert COAT in jar
    work = Takeover(manager, store)
    assert [work.take(source, key) for key in source.listed()] in ([Fate("taken")], [])
    assert [work.take(source, key) for key in source.listed()] == []
    assert mine(store).subject == "ann"
    assert [proof.name for proof in work.proofs()] == (["live"] if comes else ["waits"])
    if comes:
        assert site.get(jar)[0]["subject"] == "ann"


def test_what_ended_is_not_made_again_from_a_copy_that_stayed(one: Old) -> None:
    """The old store's copy could not be deleted; the session ends, and nothing is left of it but its mark."""
    jar, source = one
    now = [dt.datetime.now(dt.UTC).timestamp()]
    store = MemoryStore(clock=lambda: now[0])
    work = Takeover(SessionManager(clock=lambda: now[0], legacy=[source]), store)
    (key,) = source.listed()
    forget = source.forget
    source.forget = lambda key: None  # type: ignore[method-assign]
    assert work.take(source, key).name == "taken"
    Registry(store, COAT).revoke(mine(store).handle)
    now[0] += 20 * 86400
    store.purge(100)
    source.forget = forget  # type: ignore[method-assign]
    assert work.look(source, key) == work.take(source, key) == Fate("over")
    assert list(source.listed()) == []
    assert Registry(store, COAT).find("ann").items == ()
    assert [proof.name for proof in work.proofs()] == ["forgotten"]
    assert later(source, store, now).get(jar)[0]["subject"] is None


def test_a_browser_that_comes_first_and_the_run_make_one_session(one: Old) -> None:
    jar, source = one
    store = MemoryStore()
    (key,) = source.listed()
    taken(jar, Site("wsgi", source, store).get(jar)[1])
    assert Takeover(SessionManager(legacy=[source]), store).take(source, key).name == "taken"
    assert mine(store).handed_at > 0
    assert Site("wsgi", source, store).get(jar)[0]["subject"] == "ann"


def test_a_browser_that_loses_the_race_for_the_mark_is_still_in(one: Old) -> None:
    """Its request saw no mark, then the run wrote it: it finds the session that the run made."""
    jar, source = one
    store = MemoryStore()
    (key,) = source.listed()
    work = Takeover(SessionManager(legacy=[source]), store)
    fetch = source.fetch

    def fetched(key: str, now: float) -> Any:
        old = fetch(key, now)
        source.fetch = fetch  # type: ignore[method-assign]
        work.take(source, key)
        return old

    source.fetch = fetched  # type: ignore[method-assign]
    site = Site("wsgi", source, store)
    assert site.get(jar)[0]["subject"] == "ann"
    taken(jar, site.get(jar)[1])
    assert site.get(jar)[0]["subject"] == "ann"
    assert mine(store).handle
    assert key


def test_a_browser_that_loses_the_race_for_its_cookie_is_still_in(one: Old) -> None:
    """Two requests come at once, and the other is faster: one answer has the cookie, both have the session."""
    jar, source = one
    store = MemoryStore()
    move(source, store)
    others = []

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def commit(self, *arguments: Any, **named: Any) -> Any:
            if not others:
                others.append(Site("wsgi", source, store).get(jar))
            return store.commit(*arguments, **named)

    found, lines = Site("wsgi", source, Slow()).get(jar)
    ((other, theirs),) = others
    assert (found["subject"], other["subject"], lines, len(theirs)) == ("ann", "ann", [], 2)


def test_two_runs_make_different_secrets(one: Old, tmp_path: Path) -> None:
    """They hang on a salt that only the new store has."""
    _, source = one
    (key,) = source.listed()
    source.forget = lambda key: None  # type: ignore[method-assign]
    stores = MemoryStore(), MemoryStore()
    for store in stores:
        Takeover(SessionManager(legacy=[source]), store).take(source, key)
    assert mine(stores[0]).handle != mine(stores[1]).handle


def test_the_name_of_a_file_opens_nothing(tmp_path: Path) -> None:
    """Whoever may list the old folder sees a hash of the cookie; nothing of ours can be computed from that alone."""
    _, source = libraries.litestar_files(tmp_path)
    (name,) = source.listed()
    store = MemoryStore()
    manager = SessionManager(legacy=[source])
    claim = manager.converting.claim_of(source, source.of_key(name))
    Takeover(manager, store).take(source, name)
    record = mine(store)
    site = Site("wsgi", source, store)
    ticket = replace(claim.forebear, handle=record.handle)
    assert tokens.judge(b"__Host-coat", record, ticket, 0.0, 60.0)[0] is tokens.TokenClass.GARBAGE
    assert site.get({COAT: tokens.value_of(ticket).decode()})[0]["subject"] is None
    assert site.get({"session": name})[0]["subject"] is None


def test_what_cannot_be_kept_stays_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    from cachelib import FileSystemCache
    from flask_session import Session

    app = flask_app(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(str(tmp_path / "kept")))
    Session(app)
    flask_jar(app)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    source = FlaskSession(CachelibFolder(tmp_path / "kept"), until=UNTIL)
    keys = list(source.listed())
    work = Takeover(SessionManager(legacy=[source]), MemoryStore())
    fates = [work.take(source, key) for key in keys]
    assert [fate.name for fate in fates].count("refused") >= 1
    assert any("it is pickled" in fate.why for fate in fates)
    assert list(source.listed()) == keys


def test_a_folder_of_an_older_cachelib_is_left_to_its_browsers(tmp_path: Path) -> None:
    for name in ("a" * 32, "2029240f6d1128be89ddc32729463129", "b" * 64):
        (tmp_path / name).write_bytes(b"")
    source = FlaskSession(CachelibFolder(tmp_path), until=UNTIL)
    assert list(source.listed()) == ["#" + "b" * 64]
    assert source.unlisted() == 1


@pytest.mark.parametrize("source", [FlaskCookie(SECRET, until=UNTIL), StarletteCookie(SECRET, until=UNTIL)])
def test_what_lies_in_cookies_cannot_be_listed(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"lie in cookies, which nobody can list.*until 2100-01-01"):
        next(source.listed())


def test_a_cache_that_lists_nothing_says_so() -> None:
    class Memcached:
        def get(self, key: str) -> Any: ...
        def delete(self, key: str) -> Any: ...

    from coatcheck.legacy import DjangoCache

    with pytest.raises(ConfigError, match="kind Memcached lists no keys"):
        next(DjangoCache(Memcached(), until=UNTIL).listed())


def test_many_are_listed_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coatcheck.legacy import Table, shelves

    monkeypatch.setattr(shelves, "PAGE", 7)
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.execute("create table kept (name text, data blob, ends text)")
        names = [f"{prefix}:{number:03}" for number in range(20) for prefix in ("other", "session")]
        db.executemany("insert into kept values (?, '', '')", [(name,) for name in names])
    db.close()
    table = Table(f"sqlite:///{tmp_path}/old.db", "kept", key="name", data="data", ends="ends", prefix="session:")
    assert list(table.listed()) == [f"{number:03}" for number in range(20)]


def test_a_prefix_is_no_pattern(redis_url: str) -> None:
    import redis

    from coatcheck.legacy import RedisShelf

    client = redis.Redis.from_url(redis_url)
    client.mset({"a*[x]?:1": "", "a\\*[x]?:2": "", "abx:3": "", "ab[x]c:4": ""})
    assert list(RedisShelf(redis_url, prefix="a*[x]?:").listed()) == ["1"]
    client.flushdb()


# -- the command -------------------------------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert cli.run(["migrate", *arguments, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_the_command_takes_over_what_lies_in_a_table(
    one: Old, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jar, source = one
    places = [
        "--from",
        f"flask-session+sqlite:///{tmp_path}/old.db?subject=user",
        "--to",
        f"sqlite:///{tmp_path}/new.db",
    ]
    looked = told(capsys, *places, "--dry-run")
    assert looked["libraries"] == {"flask-session": {"listed": 1, "to_take": 1, "over": 0, "refused": 0}}
    assert looked["verified"] is None
    assert len(list(source.listed())) == 1
    done = told(capsys, *places, "--yes")
    assert done["libraries"] == {"flask-session": {"listed": 1, "taken": 1, "over": 0, "refused": 0}}
    assert done["verified"] == {"waits": 1, "live": 0, "forgotten": 0, "missing": 0, "ended": {}}
    again = told(capsys, *places, "--yes")
    assert (again["libraries"], again["verified"]["waits"]) == ({}, 1)
    (tmp_path / "old.db").unlink()
    source.moved = True
    site = Site("wsgi", source, SqliteStore(tmp_path / "new.db"))
    found, lines = site.get(jar)
    assert found["subject"] == "ann"
    taken(jar, lines)
    assert site.get(jar)[0]["cart"] == ["tea", 2]


def test_the_command_speaks_to_people(one: Old, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [
        "--from",
        f"flask-session+sqlite:///{tmp_path}/old.db?subject=user",
        "--to",
        f"sqlite:///{tmp_path}/new.db",
    ]
    assert cli.run(["migrate", *places, "--yes"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Library        Were in old  Taken over  Over  Refused",
        "flask-session  1            1           0     0",
        "Took 1 session over.",
        "Looked up all that were ever taken over: 1 live in the new store (1 wait for their browser), 0 missing.",
        "Nothing is left in the old store that could be taken: say moved=True of the source, and switch it off.",
    ]
    assert cli.run(["migrate", *places]) == 2
    assert "add --yes (or look first: --dry-run)" in capsys.readouterr().err


def test_the_command_takes_djangos_and_asks_for_its_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jar, source = libraries.django_db(tmp_path)
    places = ["--from", f"django+sqlite:///{tmp_path}/django.db", "--to", f"sqlite:///{tmp_path}/new.db", "--yes"]
    assert cli.run(["migrate", *places]) == 2
    assert "set COATCHECK_OLD_SECRET" in capsys.readouterr().err
    monkeypatch.setenv("COATCHECK_OLD_SECRET", f"a newer one\n{SECRET}\n")
    assert told(capsys, *places)["verified"]["waits"] == 1
    source.moved = True
    assert Site("asgi", source, MemoryStore()).get(jar)[0]["subject"] is None
    found, _ = Site("wsgi", source, SqliteStore(tmp_path / "new.db")).get(jar)
    assert found["subject"] == "ann"


@pytest.mark.parametrize("kind", ["starsessions", "litestar", "flask-session"])
def test_the_command_takes_over_what_lies_in_redis(
    kind: str, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    makes = {"starsessions": libraries.starsessions_redis, "litestar": libraries.litestar_redis}
    make = makes.get(kind, lambda url: libraries.flask_session_redis(url, "msgpack", signer=True))
    jar, source = make(redis_url)
    places = ["--from", f"{kind}+{redis_url}?subject=user", "--to", f"sqlite:///{tmp_path}/new.db", "--yes"]
    assert told(capsys, *places)["verified"]["waits"] == 1
    source.moved = True
    found, _ = Site("wsgi", source, SqliteStore(tmp_path / "new.db")).get(jar)
    assert (found["subject"], found["cart"]) == ("ann", ["tea", 2])


def test_the_command_takes_an_applications_own_settings(
    one: Old, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_settings.py").write_text(
        "from datetime import UTC, datetime\n"
        "from coatcheck import SessionManager\n"
        "from coatcheck.legacy import FlaskCookie, FlaskSession, Table\n"
        "until = datetime(2100, 1, 1, tzinfo=UTC)\n"
        f"table = Table('sqlite:///{tmp_path}/old.db', 'sessions', key='session_id', data='data', ends='expiry',"
        " prefix='session:')\n"
        "legacy = [FlaskSession(table, until=until, subject=lambda data: data['user'].upper()),"
        " FlaskCookie('key', cookie='signed', until=until)]\n"
        "manager = SessionManager(name='__Host-shop', legacy=legacy)\n"
        "class Extension:\n"
        "    def __init__(self): self.manager = manager\n"
        "extension = Extension()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for name in ("manager", "extension"):
        assert told(capsys, "--from", f"shop_settings:{name}", "--to", "sqlite:///new.db", "--yes")
    (record,) = SqliteStore(tmp_path / "new.db").find(Query(realm="__Host-shop")).items
    assert record.subject == "ANN"
    for name, sentence in {
        "none": "cannot be imported here",
        "until": "is a datetime; it takes a SessionManager",
    }.items():
        assert cli.run(["migrate", "--from", f"shop_settings:{name}", "--to", "sqlite:///new.db", "--yes"]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "sentence"),
    [
        ("flask", "the sessions of flask lie in cookies, which nobody can list"),
        ("starlette+anything", "lie in cookies"),
        ("django-cookie", "lie in cookies"),
        ("django-cache+redis://x", "no old store is known for 'django-cache+redis'"),
        ("flask-session", "each with where it lies"),
        ("flask-session+oracle://x", "old sessions are read from sqlite, postgresql, mysql"),
        ("flask-session+file:///none", "there is no folder 'none'"),
        ("litestar+redis://x?lifetime=never", "lifetime is a number of seconds above 0 (found 'never')"),
    ],
)
def test_what_the_command_does_not_understand(
    old: str, sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["migrate", "--from", old, "--to", f"sqlite:///{tmp_path}/new.db", "--yes"]) == 2
    assert sentence in capsys.readouterr().err


def test_an_old_store_that_does_not_answer_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--from", f"flask-session+sqlite:///{tmp_path}/none.db", "--to", f"sqlite:///{tmp_path}/new.db", "--yes"]
    assert cli.run(["migrate", *places]) == 3
    assert "the table with the old sessions does not answer" in capsys.readouterr().err


def test_the_command_fails_while_something_is_left_and_counts_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pickle, a file that no cookie can be matched with, and a session that is taken, so that it looks twice."""
    flask_session_folder(tmp_path)
    kept = tmp_path / "kept"
    (kept / ("a" * 32)).write_bytes(b"")
    (kept / ("b" * 64)).write_bytes(b"\x00" * 4 + b"\x80\x04N.")
    places = ["--from", f"flask-session+file:///{kept}?subject=user", "--to", f"sqlite:///{tmp_path}/new.db", "--yes"]
    done = told(capsys, *places, code=1)
    found = done["libraries"]["flask-session"]
    assert (found["taken"], found["refused"], done["unlisted"]) == (1, 1, 1)
    (kept / ("b" * 64)).unlink()
    assert told(capsys, *places, code=1)["unlisted"] == 1
    (kept / ("a" * 32)).unlink()
    assert told(capsys, *places)["unlisted"] == 0
