"""The settings of an application that a command line names: it is imported, as its server would, and looked at.

Rules
- The application's own code runs, so it is named by who may run it. What it prints goes to stderr.
- No framework is imported for it: each application says itself where its sessions are.
- Whatever goes wrong in there is one sentence, with what to write instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ..core.errors import ConfigError
from ..core.manager import SessionManager
from ..core.presets import STANDARDS
from ..core.settings import Settings, settings_of

_DEEP: Final = 20
"""Middlewares around an application that are looked through."""
_HOW: Final = frozenset({"store", "manager", "keys", "watch_every", "watch_recheck"})
"""Keywords of a middleware that are no settings."""
_INNER: Final = ("app", "wsgi_app", "asgi_app")
"""Under which names a middleware keeps what it stands around."""
_EXAMPLE: Final = "name your application as its server does, such as shop.web:app"


def settings_at(target: str) -> Settings:
    """Return the settings that a target names; raise ConfigError for one that names none.

    A target is `module:attribute` (a manager, an application, or a middleware around one), `module:make_app()`, which
    is called, `django:`, or the name of a preset: a site of your own with its clocks.
    """
    if target in STANDARDS:
        return settings_of({"timeouts": target, "origins": ["https://your.host"]})
    module, colon, attribute = target.partition(":")
    if module == "django" and colon:
        return _of_django(attribute)
    if "/" in module or module.endswith(".py"):
        message = f"{target!r:.80} is a path; {_EXAMPLE}, from the folder that it is imported from"
        raise ConfigError(message)
    if not module or not attribute:
        message = f"{target!r:.80} names no application; {_EXAMPLE}, or a preset: {', '.join(STANDARDS)}"
        raise ConfigError(message)
    found = _attribute(_imported(module), module, attribute)
    with _theirs(f"looking at {target:.80}"):
        settings = settings_in(found)
    if settings is None:
        raise ConfigError(_not_ours(found, target))
    return settings


def settings_in(found: Any) -> Settings | None:
    """Return the settings of a manager, of an application, or of a middleware around one; None: it has none of ours."""
    for _ in range(_DEEP):
        if isinstance(found, Settings):
            return found
        for place in _PLACES:
            one = place(found)
            if isinstance(one, SessionManager):
                return one.settings
            if isinstance(one, Settings):
                return one
        found = next((one for one in (_of(found, name) for name in _INNER) if one is not None), None)
    return None


# -- where applications keep their sessions ----------------------------------------------------------------------------


def _itself(found: Any) -> Any:
    """Look at a manager, and at what has one: our middlewares, extensions and exchanges."""
    return found if isinstance(found, SessionManager) else _of(found, "manager")


def _extension(found: Any) -> Any:
    """Look at Flask's and Quart's extensions."""
    extensions = _of(found, "extensions")
    return _itself(extensions.get("coatcheck")) if isinstance(extensions, Mapping) else None


def _context(found: Any) -> Any:
    """Look at Sanic's context."""
    return _itself(_of(_of(found, "ctx"), "coatcheck"))


def _setting(found: Any) -> Any:
    """Look at Tornado's settings."""
    settings = _of(found, "settings")
    return _itself(settings.get("coatcheck")) if isinstance(settings, Mapping) else None


def _kept(found: Any) -> Any:
    """Look at what aiohttp's applications keep under their keys."""
    return _first(found.values()) if isinstance(found, Mapping) else None


def _hook(found: Any) -> Any:
    """Look at whose method Litestar calls at the end: our middleware's."""
    hooks = _of(found, "on_shutdown")
    return _first(_of(hook, "__self__") for hook in hooks) if isinstance(hooks, list) else None


def _tween(found: Any) -> Any:
    """Look at the outermost of Pyramid's tweens, which is ours unless others were put over it."""
    return _itself(_of(found, "handle_request"))


def _to_be_built(found: Any) -> Any:
    """Look at Starlette's and FastAPI's middlewares, which are not built before the first request."""
    for one in _of(found, "user_middleware") or ():
        kinds = _of(_of(one, "cls"), "__mro__") or ()
        if any(kind.__name__ == "SessionMiddleware" and kind.__module__.startswith("coatcheck.") for kind in kinds):
            given = dict(one.kwargs)
            return given.get("manager") or settings_of({key: given[key] for key in given.keys() - _HOW})
    return None


def _first(values: Iterable[Any]) -> SessionManager | None:
    return next((one for one in map(_itself, values) if isinstance(one, SessionManager)), None)


def _of(found: Any, name: str) -> Any:
    """Return an attribute; None where there is none now: Sanic's manager, and proxies for what only a request has."""
    try:
        return getattr(found, name, None)
    except Exception:  # noqa: BLE001 - whatever their property raises, it is not where ours are
        return None


_PLACES: Final[tuple[Callable[[Any], Any], ...]] = (
    _itself,
    _extension,
    _context,
    _setting,
    _kept,
    _hook,
    _tween,
    _to_be_built,
)


# -- what is imported --------------------------------------------------------------------------------------------------


def _imported(name: str) -> Any:
    with _theirs(f"importing {name}"):
        try:
            return import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
                raise  # a dependency of the application
            message = f"there is no module {missing.name!r} in {Path.cwd()} or on PYTHONPATH; run this where it is"
            raise ConfigError(message) from missing


def _attribute(module: Any, name: str, attribute: str) -> Any:
    path, call, _ = attribute.partition("()")
    found = module
    for part in path.split("."):
        if not hasattr(found, part):
            ours = next((key for key, value in vars(module).items() if settings_in(value) is not None), None)
            advice = _EXAMPLE if ours is None else f"did you mean {name}:{ours}?"
            message = f"{name} has no {path!r:.60}; {advice}"
            raise ConfigError(message)
        found = getattr(found, part)
    if not call:
        return found
    with _theirs(f"{name}:{path}()"):
        return found()


def _of_django(module: str) -> Settings:
    if module:
        os.environ["DJANGO_SETTINGS_MODULE"] = module
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        message = "DJANGO_SETTINGS_MODULE names no settings; set it, or write django:shop.settings"
        raise ConfigError(message)
    with _theirs("django with these settings"):
        from ..adapters.django.site import manager_of_project

        return manager_of_project().settings


def _not_ours(found: Any, target: str) -> str:
    kind = f"{type(found).__module__}.{type(found).__qualname__}".removeprefix("builtins.")
    if kind.startswith("django."):
        return f"{target!r:.80} is Django's; write django: and set DJANGO_SETTINGS_MODULE, or django:shop.settings"
    if kind == "function":
        return f"{target!r:.80} is a function; if it makes the application, write {target:.80}()"
    return f"{target!r:.80} is a {kind:.80} without sessions of ours; name what the middleware or extension was given"


@contextmanager
def _theirs(doing: str) -> Iterator[None]:
    """Run the application's own code, from the folder we are in; what it raises is a mistake in the command."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        message = f"{doing} failed: {type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(message) from error
