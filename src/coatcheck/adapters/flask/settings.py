"""What of Flask's settings is honoured, what is refused, and what is ours: `COATCHECK_STORE`, `COATCHECK_<SETTING>`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

from ...core.errors import ConfigError
from ...core.manager import SessionManager, manager_of
from ...core.policies import timeouts
from ...core.presets import DAY
from ...core.settings import Keywords, carrying

OWN_KEYS = frozenset({"_flashes", "csrf_token", "_user_id", "_id"})
"""Keys of Flask, Flask-WTF and Flask-Login that move into a login, whatever `carry` says."""

_HONOURED = {
    "SESSION_COOKIE_NAME": "name",
    "SESSION_COOKIE_DOMAIN": "domain",
    "SESSION_COOKIE_PATH": "path",
    "SESSION_COOKIE_SAMESITE": "same_site",
    "SESSION_COOKIE_PARTITIONED": "partitioned",
    "PERMANENT_SESSION_LIFETIME": "timeouts",
}
_REFUSED = {
    "SESSION_COOKIE_HTTPONLY": (False, "a session readable by scripts is stolen by the first injected one; drop it"),
    "SESSION_REFRESH_EACH_REQUEST": (
        False,
        "idle time is counted in the store, and the cookie is never sent again for it; drop it and choose timeouts",
    ),
}


def configured(
    config: Mapping[str, Any], defaults: Mapping[str, Any], keywords: Keywords
) -> tuple[Any, dict[str, Any]]:
    """Return the store and the settings that a configuration names, laid over the extension's keywords.

    Raises ConfigError, naming the key, for what cannot be honoured or says two things.
    """
    settings: dict[str, Any] = dict(keywords)
    own = {key.removeprefix("COATCHECK_").lower(): value for key, value in config.items() if key[:10] == "COATCHECK_"}
    store = own.pop("store", None)
    settings.update(own)
    for key, (unsafe, why) in _REFUSED.items():
        if config.get(key, True) is unsafe:
            message = f"{key}={unsafe}: {why}"
            raise ConfigError(message)
    if config.get("SESSION_COOKIE_SECURE") and settings.get("allow_insecure_http"):
        message = "SESSION_COOKIE_SECURE=True and allow_insecure_http=True contradict each other; drop one of them"
        raise ConfigError(message)
    for key, name in _HONOURED.items():
        value = config.get(key)
        if value is None or value == defaults.get(key, False):
            continue
        chosen = _translated(key, value)
        if settings.get(name, chosen) != chosen:
            message = f"{key} and {name} (COATCHECK_{name.upper()}) say two things; drop one of them"
            raise ConfigError(message)
        settings[name] = chosen
    return store, settings


def _translated(key: str, value: Any) -> Any:
    if key == "SESSION_COOKIE_SAMESITE":
        return str(value).title()
    if key != "PERMANENT_SESSION_LIFETIME":
        return value
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    try:
        # Flask counts it from the last request: up to a day it is an idle timeout, above it the remembered one
        return timeouts(idle=seconds) if seconds <= DAY else timeouts(remember=seconds, remember_idle=seconds)
    except ConfigError as error:
        message = f"PERMANENT_SESSION_LIFETIME={value!r}: {error}"
        raise ConfigError(message) from error


def managed(manager: SessionManager | None, settings: dict[str, Any]) -> SessionManager:
    """Return the manager that is meant; one of our making carries Flask's own keys into a login, too."""
    chosen = settings if manager is not None else carrying(settings, OWN_KEYS)
    return manager_of(manager, cast("Keywords", chosen))
