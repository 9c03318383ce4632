"""`coatcheck policy` finds the settings of every kind of application, by the name that its server knows it by."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from coatcheck import SessionManager
from coatcheck.adapters import asgi, starlette, wsgi
from coatcheck.cli.target import settings_at, settings_in
from coatcheck.core.errors import ConfigError
from coatcheck.core.settings import Settings
from coatcheck.stores.memory import MemoryStore

from .conftest import Ran

EXAMPLES = ("fastapi.app:app", "litestar.app:app", "quart.app:app", "starlette.app:app")
MADE = ("aiohttp.app:make_app()", "tornado.app:make_app()")
ORIGINS = ["https://shop.example"]
SETTINGS = """
SECRET_KEY = "x"
ALLOWED_HOSTS = ["shop.example"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "coatcheck.adapters.django"]
MIDDLEWARE = ["coatcheck.adapters.django.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
SESSION_ENGINE = "coatcheck.adapters.django"
SESSION_COOKIE_NAME = "__Host-shop"
SESSION_COOKIE_SECURE = True
COATCHECK = {"STORE": "django", "LIMIT": 5}
"""
STARLETTE = """
from starlette.applications import Starlette
from coatcheck.adapters.starlette import SessionMiddleware
app = Starlette()
app.add_middleware(SessionMiddleware, store="memory:", csrff="off")
"""


@pytest.fixture
def module(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that writes `shop.py` into the working folder."""

    def module(source: str) -> None:
        monkeypatch.delitem(sys.modules, "shop", raising=False)
        Path("shop.py").write_text(source)

    return module


@pytest.mark.parametrize("target", [*EXAMPLES, *MADE])
@pytest.mark.usefixtures("store")
def test_the_settings_of_each_example_are_found(target: str) -> None:
    found = settings_at(f"examples.{target}")
    assert isinstance(found, Settings)
    assert found.allow_insecure_http
    assert found.cookie.name == "coat-insecure"


async def _nothing(*_: object) -> None:
    """Answer nothing."""


def test_what_stands_around_is_looked_through() -> None:
    manager = SessionManager(origins=ORIGINS)
    memory = MemoryStore()
    ours = asgi.SessionMiddleware(_nothing, store=memory, manager=manager)
    for found in (
        manager,
        manager.settings,
        ours,
        asgi.RequireLogin(asgi.SessionMiddleware(_nothing, store=memory, manager=manager)),
        wsgi.RequireLogin(wsgi.SessionMiddleware(lambda *_: [], store=memory, manager=manager)),
    ):
        assert settings_in(found) is manager.settings
    assert settings_in(_nothing) is None
    later = Starlette(middleware=[Middleware(starlette.SessionMiddleware, store=memory, manager=manager)])
    assert settings_in(later) is manager.settings


def test_sanic_and_pyramid_are_found() -> None:
    from pyramid.config import Configurator  # type: ignore[import-untyped]
    from sanic import Sanic

    from coatcheck.adapters.sanic import Coatcheck

    app = Sanic("policy-of-a-shop")
    Coatcheck(app, store=MemoryStore(), origins=ORIGINS, limit=3)
    assert settings_in(app).limit == 3  # type: ignore[union-attr]
    given = {"coatcheck.store": MemoryStore(), "coatcheck.origins": ORIGINS[0], "coatcheck.limit": 4}
    with Configurator(settings=given) as config:
        config.include("coatcheck.adapters.pyramid")
        router = config.make_wsgi_app()
    assert settings_in(router).limit == 4  # type: ignore[union-attr]


def test_a_project_of_django_is_found(tmp_path: Path) -> None:
    """In a process of its own: settings are for ever."""
    (tmp_path / "shop_settings.py").write_text(SETTINGS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    program = "from coatcheck.cli import main; main()"
    command = [sys.executable, "-c", program, "policy", "show", "django:shop_settings", "--format", "json"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
    told = json.loads(ran.stdout)
    assert (told["cookie"]["name"], told["limit"]) == ("__Host-shop", {"most": 5, "refuse": False})
    assert told["origins"] == ORIGINS
    assert not (tmp_path / "site.db").exists()


def test_what_an_application_prints_is_no_part_of_the_answer(module: Callable[[str], None], run: Callable[..., Ran]):
    module(
        "print('hello')\nfrom coatcheck import SessionManager\nsessions = SessionManager(origins=['https://a.example'])"
    )
    ran = run("policy", "show", "shop:sessions", "--format", "json")
    assert json.loads(ran.out)["origins"] == ["https://a.example"]
    assert ran.err == "hello\n"


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("import nowhere_at_all", "shop:app", "importing shop failed: ModuleNotFoundError: No module named 'nowhere"),
        ("raise SystemExit(3)", "shop:app", "importing shop failed: SystemExit: 3"),
        ("raise ValueError('one\\ntwo')", "shop:app", "importing shop failed: ValueError: one\n"),
        ("def make(): raise ValueError('no')", "shop:make()", "shop:make() failed: ValueError: no"),
        ("def make(place): ...", "shop:make()", "shop:make() failed: TypeError: make() missing 1 required"),
        ("app = {}", "shop:app", "'shop:app' is a dict without sessions of ours"),
        ("app = {}", "shop:app.deeper", "shop has no 'app.deeper'; name your application"),
        ("from coatcheck import SessionManager\nx = SessionManager(csrff='off')", "shop:x", "did you mean 'csrf'?"),
        (
            STARLETTE,
            "shop:app",
            "there is no setting 'csrff'; did you mean 'csrf'?",
        ),
    ],
)
def test_what_goes_wrong_in_there_is_one_sentence(
    source: str, target: str, said: str, module: Callable[[str], None], run: Callable[..., Ran]
) -> None:
    module(source)
    ran = run("policy", "lint", target)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.usefixtures("store")
def test_each_setting_is_said(module: Callable[[str], None], run: Callable[..., Ran]) -> None:
    module(
        "from coatcheck import DeviceBinding, SessionLimit, SessionManager, timeouts\n"
        "x = SessionManager(name='__Secure-x', domain='shop.example', cookie_reason='sign-on',\n"
        "    origins=['https://shop.example'], timeouts=timeouts(idle=5400, renew=None, why='kiosk'),\n"
        "    csrf='report', csrf_exempt=['/hook'], trusted_origins=['https://pay.example'], secrecy=True,\n"
        "    limit=SessionLimit(2, 'refuse'), store_down='anonymous', on_theft='note', exclude=['/static'],\n"
        "    fresh=['/admin'], passive=['/poll'], trusted_proxies=['10.0.0.1'], login_url='/in')\n"
        "y = SessionManager(origins=['https://shop.example'], binding=DeviceBinding(mode='required', lifetime=300),\n"
        "    timeouts=timeouts(idle=None, remember_idle=None), missing_headers='deny')\n"
    )
    told = {
        one["about"]: one["means"]
        for one in json.loads(run("policy", "show", "shop:x", "--format", "json").out)["words"]
    }
    assert told["Idle"] == "ends after 90 min without a request"
    assert told["Renewal"] == "the secret is never renewed by time"
    assert told["Cookie"] == "__Secure-x; Path=/; Domain=shop.example; Secure; HttpOnly; SameSite=Lax"
    assert told["CSRF"] == "what other sites cause is counted and let in, for the framework to refuse"
    assert told["Sessions"] == "2 for an account; one more is refused"
    assert told["Kept"] == "in the store, encrypted by each session's cookie"
    assert told["Theft"] == "is refused and noted; the session goes on"
    assert told["Store away"] == "requests are served, and everybody is a stranger"
    said = [told[name] for name in ("Exempt", "Trusted", "No sessions", "Always fresh", "No activity", "Proxies")]
    assert said == ["/hook", "https://pay.example", "/static", "/admin", "/poll", "10.0.0.1"]
    out = run("policy", "show", "shop:y").out
    assert "Idle                    never\n" in out
    assert "if asked for, 30 d\n" in out
    assert "bound, or ended after 5 min; a copied cookie counts for 5 min" in out
    assert "without Origin and Sec-Fetch-Site, a request is refused" in out
    assert "Meets nist-aal1         yes" in out
    assert "Meets nist-aal2         less well: idle is off" in out


def test_a_preset_is_a_site_with_its_clocks() -> None:
    assert settings_at("pci").clocks.idle == 900
    with pytest.raises(ConfigError, match="names no application"):
        settings_at("PCI")
