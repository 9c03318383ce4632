"""What `manage.py check` says about the settings: an error for each that is unsafe or out of place, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings  # type: ignore[import-untyped]
from django.core.checks import CheckMessage, Error, Warning  # type: ignore[import-untyped]  # noqa: A004 - their names
from django.utils.module_loading import import_string  # type: ignore[import-untyped]

from ...core.errors import CoatcheckError
from .site import chosen, has_own_check, site

_STOCK = "django.contrib.sessions.middleware.SessionMiddleware"
_OURS = "coatcheck.adapters.django.SessionMiddleware"


def check_settings(**_more: Any) -> list[CheckMessage]:
    """Return every finding."""
    return [*_errors(), *_warnings()]


def _errors() -> Iterable[CheckMessage]:
    if _STOCK in settings.MIDDLEWARE:
        hint = f"Put {_OURS} in its place."
        yield Error(f"MIDDLEWARE has Django's own {_STOCK}.", hint=hint, id="coatcheck.E001")
    elif not any(_is_ours(name) for name in settings.MIDDLEWARE):
        yield Error("MIDDLEWARE has no SessionMiddleware.", hint=f"Add {_OURS}.", id="coatcheck.E002")
    if settings.SESSION_ENGINE != "coatcheck.adapters.django":
        hint = "Set SESSION_ENGINE = 'coatcheck.adapters.django'."
        yield Error(f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}.", hint=hint, id="coatcheck.E003")
    if settings.SESSION_SERIALIZER.endswith("PickleSerializer"):
        hint = "Remove SESSION_SERIALIZER: coatcheck keeps plain values and never unpickles."
        yield Error("SESSION_SERIALIZER can run what it reads.", hint=hint, id="coatcheck.E004")
    try:
        site()
    except CoatcheckError as error:
        yield Error(str(error), id="coatcheck.E005")


def _is_ours(name: str) -> bool:
    try:
        found = import_string(name)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, import_string(_OURS))


def _warnings() -> Iterable[CheckMessage]:
    if settings.SESSION_SAVE_EVERY_REQUEST:
        hint = "Remove it: activity is noted by itself, and no cookie is sent again for it."
        yield Warning("SESSION_SAVE_EVERY_REQUEST has no meaning here.", hint=hint, id="coatcheck.W001")
    try:
        given = chosen()
    except CoatcheckError:
        return
    if _leaves_other_sites_alone():
        hint = "Add django.middleware.csrf.CsrfViewMiddleware, or remove CSRF from COATCHECK: then we refuse."
        yield Warning("Nothing refuses requests that other sites cause.", hint=hint, id="coatcheck.W003")
    if "TIMEOUTS" not in given and "MANAGER" not in given:
        hint = "If nothing keeps session_key between requests, set COATCHECK['TIMEOUTS'] = timeouts(renew=900, ...)."
        yield Warning("The session's secret is not renewed by time.", hint=hint, id="coatcheck.W002")


def _leaves_other_sites_alone() -> bool:
    try:
        return site().manager.settings.csrf != "refuse" and not has_own_check()
    except CoatcheckError:
        return False
