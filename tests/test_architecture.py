"""The house keeps its shape: who imports whom, what the core may not touch, and what stands nowhere.

docs/design.md, section 2, says why. Each rule is a table here; `faults` applies them all to one file's source, and the
last tests plant a fault of each kind to prove that it is seen.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "coatcheck"
SOURCES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
TEMPLATES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in {".html", ".jinja", ".j2", ".svg"})

# Which rooms, or single files of a room, a room may enter besides itself. "" stands for the package's own __init__, the
# public names. Nobody enters `testing`; `demo` is an application like a user's, so it may use the public names.
ENTERS = {
    "": {"core", "flow", "stores"},
    "core": set(),
    "flow": {"core"},
    "stores": {"core"},
    # an application may name its store by a URL: faces and urls know the stores for it
    "adapters": {"core", "flow", "stores.faces", "stores.urls"},
    "legacy": {"core"},
    # the probe application stands inside our own two middlewares, and the conformance suite judges the receivers
    "testing": {"core", "flow", "adapters.asgi", "adapters.wsgi", "notify.transmitter", "receivers"},
    "receivers": {"core", "flow"},
    "notify": {"core"},
    "console": {"core", "flow"},
    # `coatcheck conform` is the outside part of the conformance suite; `policy` asks Django's settings for what they
    # mean, which no application object holds
    "cli": {"", "adapters.django", "testing.conformance", "console", "core", "demo", "flow", "legacy.urls", "stores"},
    "demo": {"", "adapters", "core", "flow", "stores"},
}

# Django's own connection is a store in the adapter's folder, which speaks the SQL of the others.
ALSO = {"adapters/django/": {"stores.sql", "stores.rounds", "stores.postgres", "stores.mysql"}}

# The floors inside the core, from the ground up. A file uses lower floors only.
FLOORS = (
    {"errors"},
    {"model"},
    {"presets", "stepup"},
    {
        *("agents", "breaker", "clients", "codec", "cookies", "epochs", "facts", "jose", "keyring", "ledger", "markup"),
        *("noise", "paging", "proofs", "providers", "realms", "replies", "transport", "typed", "visit"),
        "vocabulary",
    },
    {
        *("csrf", "dbsc", "detectors", "devices", "exports", "floods", "mapping", "notices", "policies"),
        *("roots", "rotation", "sealed", "secrecy", "tokens", "traces"),
    },
    {"announcements", "audit", "legacy", "presence"},
    {"binder", "guard", "links", "records", "settings"},
    {"handing", "hardening", "lint", "screen", "session"},
    {"settler"},
    {"aftermath", "converter", "judge"},
    {"manager"},
)

# Stores do not know each other; these know them all. What is SHARED, without a driver, is known to any.
DOORS = {"__init__", "faces", "urls"}
SHARED = {"sql", "rounds", "draft", "batches", "keeping"}

# What is imported in these places and nowhere else. A trailing slash names a folder.
ONLY_IN = {
    "aiohttp": ("adapters/aiohttp.py",),
    "django": ("adapters/django/",),
    "fastapi": ("adapters/fastapi.py",),
    "flask": ("adapters/flask/",),
    "flask_login": ("adapters/flask/",),
    "werkzeug": ("adapters/flask/",),
    "quart": ("adapters/quart.py",),
    "litestar": ("adapters/litestar.py",),
    "pyramid": ("adapters/pyramid.py",),
    "zope": ("adapters/pyramid.py",),
    "tornado": ("adapters/tornado.py",),
    "sanic": ("adapters/sanic.py",),
    "channels": ("adapters/django/",),
    "asgiref": ("adapters/django/",),
    "itsdangerous": ("legacy/",),
    "starlette": ("adapters/starlette.py", "demo/"),
    "sqlite3": ("stores/sqlite/", "legacy/shelves.py", "demo/accounts.py"),
    "psycopg": ("stores/postgres/", "legacy/shelves.py"),
    "psycopg_pool": ("stores/postgres/",),
    "asyncpg": ("stores/postgres/",),
    "pymysql": ("stores/mysql/", "legacy/shelves.py"),
    "asyncmy": ("stores/mysql/",),
    "redis": ("stores/redis/", "legacy/shelves.py"),
    # the conformance suite signs as browsers and identity providers do
    "cryptography": (
        "core/",
        "legacy/litestar.py",
        *(f"testing/conformance/{one}.py" for one in ("devices", "provider")),
    ),
    "httpx2": ("testing/conformance/wire.py",),
    "joserfc": ("core/jose.py",),
    "ua_parser": ("core/agents.py",),
    "smtplib": ("notify/mail.py",),
    "urllib.request": ("notify/webhook.py",),
    "argon2": ("demo/",),
    "jinja2": ("console/", "demo/", "testing/conformance/"),
    "uvicorn": ("cli/", "demo/"),
    "rich": ("cli/", "demo/", "testing/conformance/"),
    "typer": ("cli/", "demo/"),
    "pytest": ("testing/",),
}

# What the core never imports, since it would wait or look around.
WORLD = {
    *("asyncio", "concurrent", "http", "logging", "multiprocessing", "queue", "random", "select", "selectors"),
    *("socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "urllib.request"),
}
# What the core never asks ...
SURROUNDINGS = {("os", "environ"), ("os", "environb"), ("os", "getenv")}
# ... and what it names at most as the default of an argument, for its caller to replace.
CLOCKS = {
    *(("time", name) for name in ("monotonic", "monotonic_ns", "perf_counter", "sleep", "time", "time_ns")),
    *(("datetime", "now"), ("datetime", "today"), ("datetime", "utcnow"), ("date", "today")),
    *(("os", "urandom"), ("secrets", "token_bytes"), ("secrets", "token_hex"), ("secrets", "token_urlsafe")),
}
# The names under which a framework's request goes: its `.cookies` comes from a lenient parser.
REQUESTS = {"conn", "connection", "req", "request", "websocket"}

# Code that a byte string could make run.
PICKLES = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle", "jsonpickle", "joblib"}


def faults(file: str, source: str) -> list[str]:
    """Return what in a file's source breaks a rule; `file` is its path below src/coatcheck."""
    return [f"{file}:{line}: {fault}" for line, fault in sorted(_faults(file, ast.parse(source)))]


def _faults(file: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    room = room_of(file)
    type_only = _type_only(tree)
    for line, module, name in imports(file, tree):
        top = module.split(".")[0]
        if top == "coatcheck":
            if not (room == "core" and line in type_only):
                yield from ((line, fault) for fault in _inside(file, module, name))
            continue
        places = ONLY_IN.get(top)
        if places and not any(file == place or (place.endswith("/") and file.startswith(place)) for place in places):
            yield line, f"{top} is imported in {' and '.join(places)} only"
        if top in PICKLES:
            yield line, f"{top} can run what it reads"
        if room in ("core", "adapters") and module.startswith("http.cookies"):
            yield line, "http.cookies is a lenient parser; core.cookies reads raw bytes"
        if room == "core" and (
            top in WORLD or module.startswith("urllib.request") or (module, name) in CLOCKS | SURROUNDINGS
        ):
            yield line, f"the core does not touch {module}"
    functions = [node.args for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    defaults = {default for arguments in functions for default in (*arguments.defaults, *arguments.kw_defaults)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        base = ast.unparse(node.value).split(".")[-1]
        named = (base, node.attr)
        if room == "core" and (named in SURROUNDINGS or (named in CLOCKS and node not in defaults)):
            yield node.lineno, f"the core does not read {base}.{node.attr}; it is told"
        if room in ("core", "adapters") and (node.attr == "COOKIES" or (node.attr == "cookies" and base in REQUESTS)):
            yield node.lineno, f"{base}.{node.attr} comes from a lenient parser; core.cookies reads raw bytes"


def _inside(file: str, module: str, name: str) -> Iterator[str]:
    """Judge an import of our own: `module` is absolute, `name` what is taken from it ("" for the module itself)."""
    room = room_of(file)
    target = module.removeprefix("coatcheck").strip(".").split(".")
    if len(target) == 1 and name and _is_module(*filter(None, target), name):
        target = [*filter(None, target), name]
    if target[0] != room:
        entered = ENTERS[room].union(*(rooms for folder, rooms in ALSO.items() if file.startswith(folder)))
        if not {target[0], ".".join(target[:2])} & entered:
            yield f"{room or 'coatcheck/__init__'} does not import {target[0] or 'the public names'}"
    elif room == "core" and len(target) > 1:
        own = PurePosixPath(file).stem
        if own != "__init__" and _floor(target[1]) >= _floor(own):
            yield f"core/{own} does not know core/{target[1]}: imports point to lower floors"
    elif room == "stores" and len(target) > 1:
        own = PurePosixPath(PurePosixPath(file).parts[1]).stem
        if own not in (target[1], *DOORS) and target[1] not in SHARED:
            yield f"stores/{own} does not know stores/{target[1]}"


def imports(file: str, tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield (line, absolute module, name) of each import of a file."""
    package = ["coatcheck", *PurePosixPath(file).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def room_of(file: str) -> str:
    """Return the room that a file stands in, "" for the package's own files."""
    parts = PurePosixPath(file).parts
    if len(parts) > 1:
        return parts[0]
    return PurePosixPath(file).stem if PurePosixPath(file).stem in ENTERS else ""


def _is_module(*parts: str) -> bool:
    where = PACKAGE.joinpath(*parts)
    return where.is_dir() or where.with_suffix(".py").is_file()


def _floor(name: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if name in names), -1)


def _type_only(tree: ast.Module) -> set[int]:
    """Return the lines that stand under `if TYPE_CHECKING:`."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def template_faults(text: str) -> list[str]:
    """Return what in a template switches escaping off."""
    return re.findall(r"\|\s*safe\b|\bautoescape\s+false\b|\bMarkup\(", text)


@pytest.mark.parametrize("file", SOURCES)
def test_a_file_imports_and_calls_only_what_its_room_may(file: str) -> None:
    assert faults(file, (PACKAGE / file).read_text()) == []


def test_every_room_and_every_file_of_the_core_is_in_the_tables() -> None:
    assert {room_of(file) for file in SOURCES} <= set(ENTERS)
    core = {PurePosixPath(file).stem for file in SOURCES if file.startswith("core/")} - {"__init__"}
    assert core <= set().union(*FLOORS)


def test_no_template_switches_escaping_off() -> None:
    assert {path.name: found for path in TEMPLATES if (found := template_faults(path.read_text()))} == {}


def test_importing_coatcheck_imports_no_framework_and_no_driver() -> None:
    program = "import sys; old = set(sys.modules); import coatcheck; print(*set(sys.modules) - old)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.split(".")[0] for name in shown.stdout.split()}
    assert loaded & (set(ONLY_IN) - {"cryptography"}) == set()


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("core/session.py", "from ..flow.sync import Store", "core does not import flow"),
        ("core/session.py", "from .. import flow", "core does not import flow"),
        ("core/session.py", "from coatcheck import SessionManager", "core does not import the public names"),
        ("core/session.py", "from .manager import SessionManager", "core/session does not know core/manager"),
        ("core/session.py", "from . import manager", "core/session does not know core/manager"),
        ("core/policies.py", "from .csrf import check", "core/policies does not know core/csrf"),
        ("core/codec.py", "import asyncio", "the core does not touch asyncio"),
        ("core/codec.py", "from time import time", "the core does not touch time"),
        ("core/codec.py", "from os import environ", "the core does not touch os"),
        ("core/codec.py", "import os\nos.environ['X']", "the core does not read os.environ"),
        ("core/codec.py", "import datetime\ndatetime.datetime.now()", "the core does not read datetime.now"),
        ("core/codec.py", "import time\ndef f(now=time.time()): ...", "the core does not read time.time"),
        ("core/codec.py", "import os\nos.urandom(8)", "the core does not read os.urandom"),
        ("core/cookies.py", "from http.cookies import SimpleCookie", "http.cookies is a lenient parser"),
        ("core/codec.py", "def f():\n    import sqlite3", "sqlite3 is imported in stores/sqlite/ and legacy/"),
        ("flow/sync.py", "import coatcheck.stores.memory", "flow does not import stores"),
        ("stores/sqlite/file.py", "from ..memory import MemoryStore", "stores/sqlite does not know stores/memory"),
        ("stores/sqlite/file.py", "from ...flow.sync import Store", "stores does not import flow"),
        ("stores/memory.py", "import pickle", "pickle can run what it reads"),
        ("adapters/asgi.py", "from ..stores.memory import MemoryStore", "adapters does not import stores"),
        ("adapters/asgi.py", "from starlette.requests import Request", "starlette is imported in"),
        ("adapters/starlette.py", "request.cookies", "request.cookies comes from a lenient parser"),
        ("adapters/django/middleware.py", "request.COOKIES", "request.COOKIES comes from a lenient parser"),
        ("cli/main.py", "from ..testing.clock import Clock", "cli does not import testing"),
        ("cli/main.py", "from ..adapters import asgi", "cli does not import adapters"),
        ("demo/app.py", "from ..cli import main", "demo does not import cli"),
        ("demo/app.py", "from fastapi import FastAPI", "fastapi is imported in adapters/fastapi.py only"),
    ],
)
def test_a_planted_fault_is_seen(file: str, source: str, fault: str) -> None:
    assert fault in "\n".join(faults(file, source))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/manager.py", "from .session import Session\nfrom . import errors, tokens"),
        ("core/errors.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .model import Reply"),
        ("core/manager.py", "from . import cookies\ncookies.parse(b'')"),
        ("core/manager.py", "import time\ndef f(*, clock=time.time): ..."),
        (
            "stores/sqlite/file.py",
            "import sqlite3\nfrom .. import sql\nfrom ...core.model import Record",
        ),
        ("adapters/fastapi.py", "import fastapi\nfrom .starlette import load"),
        ("demo/app.py", "from starlette.routing import Route\nfrom coatcheck import SessionManager"),
    ],
)
def test_what_is_allowed_is_not_a_fault(file: str, source: str) -> None:
    assert faults(file, source) == []


@pytest.mark.parametrize("text", ["{{ name | safe }}", "{{ name|safe}}", "{% autoescape false %}"])
def test_a_planted_unescaped_value_is_seen(text: str) -> None:
    assert template_faults(text)
