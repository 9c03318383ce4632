"""The settings of a Django project as one manager and one exchange, built on first use and again when settings change.

Rules
- What Django has a setting for is read from there: SESSION_COOKIE_NAME, _DOMAIN, _PATH, _SAMESITE, _AGE, the exact
  names in ALLOWED_HOSTS (our origins), CSRF_TRUSTED_ORIGINS. What it has none for stands in COATCHECK, in capitals:
  {"STORE": "django", "LIMIT": 5}.
- Renewal by time is off unless COATCHECK names timeouts: Django applications keep `session_key`.
- What a session carries into a login is everything, as Django says; other sites' requests are reported, not refused,
  where Django's own CSRF middleware, with its exemptions, is at work. Where it is not, they are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

import django  # type: ignore[import-untyped]
import msgspec
from django.conf import settings  # type: ignore[import-untyped]
from django.core.signals import setting_changed  # type: ignore[import-untyped]
from django.middleware.csrf import CsrfViewMiddleware  # type: ignore[import-untyped]
from django.utils.module_loading import import_string  # type: ignore[import-untyped]

from ...core.errors import ConfigError
from ...core.manager import SessionManager
from ...core.policies import Timeouts
from ...core.presets import DAY
from ...core.settings import insecure_name, is_local
from ...core.visit import ALL
from ...flow.store import Store
from ...flow.sync import Exchange
from ...stores.faces import store_of
from .store import DjangoStore

OURS: Final = frozenset({"STORE", "DATABASE", "MANAGER", "WATCH_EVERY", "WATCH_RECHECK"})
"""Keys of COATCHECK that are no settings of the manager."""


class Site(msgspec.Struct, frozen=True):
    """One project: its manager, its store and their exchange; `persistent`: whether cookies outlive the browser."""

    manager: SessionManager
    store: Store
    exchange: Exchange
    persistent: bool | None


_CSRF: Final = "django.middleware.csrf.CsrfViewMiddleware"
_gate: Final = threading.Lock()
_built: list[Site] = []


def site() -> Site:
    """Return what the settings say; raises ConfigError, naming the setting."""
    built = _built
    if not built:
        with _gate:
            if not built:
                built.append(_build())
    return built[0]


def manager_of_project() -> SessionManager:
    """Return what the settings say outside of a server, as a management command would begin."""
    django.setup()
    return site().manager


_READ: Final = frozenset(
    {"ALLOWED_HOSTS", "COATCHECK", "CSRF_TRUSTED_ORIGINS", "DATABASES", "DATABASE_ROUTERS", "MIDDLEWARE"}
)
"""Settings that a site is made of, beside all that begin with SESSION_."""


def _forget(*, setting: str, **_more: Any) -> None:
    if setting in _READ or setting.startswith("SESSION_"):
        _built.clear()


setting_changed.connect(_forget, dispatch_uid="coatcheck")


def chosen() -> dict[str, Any]:
    """Return COATCHECK, or raise ConfigError for what it is instead."""
    given = getattr(settings, "COATCHECK", None)
    if not isinstance(given, Mapping):
        message = f'settings.COATCHECK is a dict such as {{"STORE": "django"}} (found {given!r:.60})'
        raise ConfigError(message)
    return dict(given)


def _build() -> Site:
    given = chosen()
    manager = given.get("MANAGER")
    others = sorted(given.keys() - OURS)
    if manager is not None and others:
        message = f"COATCHECK has a MANAGER and settings of its own, not both (found {', '.join(others)})"
        raise ConfigError(message)
    persistent = None
    if manager is None:
        manager = SessionManager(**keywords_of(given))
        persistent = not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE
        if manager.cookie.name != settings.SESSION_COOKIE_NAME:
            message = (
                f"with ALLOW_INSECURE_HTTP the cookie is named {manager.cookie.name!r}; set SESSION_COOKIE_NAME to "
                f"that (found {settings.SESSION_COOKIE_NAME!r}), lest Django's debug pages show it"
            )
            raise ConfigError(message)
    if manager.settings.sealed is not None:
        message = "sealed tokens have no session_key, which Django needs; use a store (drop SEALED from COATCHECK)"
        raise ConfigError(message)
    named = given.get("STORE")
    if named is None:
        message = 'COATCHECK names no store; add "STORE": "django", or a URL such as "sqlite:///sessions.db"'
        raise ConfigError(message)
    store = DjangoStore(given.get("DATABASE")) if named == "django" else store_of(named, manager.now)
    return Site(manager, store, Exchange(manager, store), persistent)


def has_own_check() -> bool:
    """Tell whether Django's CSRF middleware, or a kind of it, is among MIDDLEWARE."""
    return _CSRF in settings.MIDDLEWARE or any(map(_is_csrf, settings.MIDDLEWARE))


def _is_csrf(name: str) -> bool:
    try:
        found = import_string(name)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, CsrfViewMiddleware)


def keywords_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manager's settings, out of COATCHECK and Django's own."""
    keywords = {name.lower(): value for name, value in given.items() if name not in OURS}
    name = settings.SESSION_COOKIE_NAME
    insecure = bool(keywords.get("allow_insecure_http"))
    if insecure and name == insecure_name(name.removesuffix("-insecure")):
        name = name.removesuffix("-insecure")
    if not (settings.SESSION_COOKIE_SECURE or insecure):
        message = (
            "SESSION_COOKIE_SECURE is False: the session would travel in clear text; set it to True, or for http on "
            'localhost COATCHECK = {"ALLOW_INSECURE_HTTP": True}'
        )
        raise ConfigError(message)
    if not settings.SESSION_COOKIE_HTTPONLY:
        message = "SESSION_COOKIE_HTTPONLY is False: the first injected script steals the session; set it to True"
        raise ConfigError(message)
    base = {
        "name": name,
        "domain": settings.SESSION_COOKIE_DOMAIN,
        "path": settings.SESSION_COOKIE_PATH,
        "same_site": settings.SESSION_COOKIE_SAMESITE,
        "carry": ALL,
        "csrf": "report" if has_own_check() else "refuse",
    }
    if not insecure:
        exact = [host for host in settings.ALLOWED_HOSTS if not host.startswith((".", "*")) and not is_local(host)]
        base["origins"] = [f"https://{host}" for host in exact]
    base["trusted_origins"] = [
        origin for origin in settings.CSRF_TRUSTED_ORIGINS if origin.startswith("https://") and "*" not in origin
    ]
    if "timeouts" not in keywords:
        age = float(settings.SESSION_COOKIE_AGE)
        longest = max(30 * DAY, age)
        base["timeouts"] = Timeouts(
            idle=age,
            absolute=age,
            remember=longest,
            remember_idle=longest,
            renew=None,
            why="as SESSION_COOKIE_AGE says",
        )
    return {**base, **keywords}
