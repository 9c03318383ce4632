"""`coatcheck policy show`, `lint` and `events`: what settings mean, what is weak about them, which events go where.

The judgement is core/lint.py's, the standards are core/presets.py's; here they are put into words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Final, Literal

import typer
from rich.text import Text

from ..core import providers, vocabulary
from ..core.cookies import CookieWriter
from ..core.lint import SEVERITIES, Finding, findings, rows
from ..core.policies import Timeouts, exceeded
from ..core.presets import DAY, HOUR, MINUTE, STANDARDS, Preset, preset
from ..core.settings import Settings, login_page
from ..core.stepup import FOR
from . import terminal
from .door import EXITS
from .target import settings_at
from .terminal import cell

group = typer.Typer(no_args_is_help=True, help="Say what settings mean, and what is weak about them.", epilog=EXITS)

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        show_default=False,
        help="module:attribute of a SessionManager, an application or a middleware, such as shop.web:app; "
        "module:make_app(); django:shop.settings; or a preset's name. Its code is imported, so it runs.",
    ),
]
Standard = Annotated[
    str | None,
    typer.Option(metavar="NAME", show_default=False, help=f"Hold them against this preset: {', '.join(STANDARDS)}."),
]
Format = Annotated[Literal["table", "json"], typer.Option(help="How to print.")]

_STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "dim"}
_MET: Final = {"yes": "green", "less well": "yellow", "no": "bold red"}


@group.command("show", no_args_is_help=True, epilog=EXITS)
def show(target: Target, standard: Standard = None, format: Format = "table") -> None:  # noqa: A002
    """Say what the settings of an application mean.

    Example: coatcheck policy show shop.web:app
    """
    against = STANDARDS if standard is None else {standard: preset(standard)}
    settings = settings_at(target)
    if format == "json":
        terminal.document(_json(target, settings, against.values()))
        return
    told = [(label, cell(value)) for label, value in _told(settings)]
    for one in against.values():
        met, why = _held(settings.clocks, one)
        text = Text(met, style=_MET[met])
        told.append((f"Meets {one.name}", text.append(f": {'; '.join(why)}" if why else "", style="")))
    terminal.pairs(told)


@group.command("lint", no_args_is_help=True, epilog=EXITS)
def lint(target: Target, standard: Standard = None, format: Format = "table") -> None:  # noqa: A002
    """Say what is weak or contradictory in the settings of an application, by its rule, and what to do.

    Example: coatcheck policy lint shop.web:app --standard pci

    Exit code 1: something is an error.
    """
    settings = settings_at(target)
    found = findings(settings, standard)
    if format == "json":
        listed = [{"rule": one.rule, "severity": one.severity, "sentence": one.sentence} for one in found]
        terminal.document(
            {"target": target, "standard": standard, "findings": listed, "rows": rows(settings, standard)}
        )
    else:
        terminal.entries(_entry(one) for one in found)
        sums = [terminal.plural(number, one) for one in SEVERITIES if (number := _number(found, one))]
        terminal.say(f"{target}: {', '.join(sums) or 'nothing to be said'}.")
    if _number(found, "error"):
        raise typer.Exit(1)


@group.command("events", no_args_is_help=True, epilog=EXITS)
def events(target: Target, format: Format = "table") -> None:  # noqa: A002
    """List every event that is written, with its levels and what it holds, and where the events of an application go.

    Example: coatcheck policy events shop.web:app
    """
    sinks = vocabulary.sinks(settings_at(target).on_event)
    kinds = {**vocabulary.FACTS, **vocabulary.NOISE}
    if format == "json":
        terminal.document(
            {
                "target": target,
                "events": [
                    {
                        "event": name,
                        "levels": kind.levels,
                        "fields": kind.fields,
                        "noise": kind.noise,
                        "says": kind.says,
                    }
                    for name, kind in kinds.items()
                ],
                "sinks": [{"kind": one.kind, "name": one.name, "gets": one.gets} for one in sinks],
            }
        )
        return
    terminal.entries((cell(name), cell(_kind(kind))) for name, kind in kinds.items())
    terminal.say("")
    terminal.entries((cell(f"{one.kind} {one.name}"), cell(one.gets)) for one in sinks)


def _kind(kind: vocabulary.Kind) -> str:
    holds = f": {', '.join(kind.fields)}" if kind.fields else ""
    return f"{' to '.join([*dict.fromkeys([kind.levels[0], kind.levels[-1]])])}; {kind.says}{holds}"


def _entry(one: Finding) -> tuple[Text, Text]:
    return Text(f"{one.severity:7}  {one.rule}", style=_STYLES[one.severity]), cell(one.sentence)


def _number(found: Collection[Finding], severity: str) -> int:
    return sum(one.severity == severity for one in found)


# -- in words ----------------------------------------------------------------------------------------------------------


def _told(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what each group of settings means; what is not chosen, and changes nothing, is left out."""
    yield from _clocks(settings)
    cookie = CookieWriter(settings.cookie)
    yield "Cookie", f"{cookie.name}; {cookie.attributes}"
    if settings.cookie_reason:
        yield "Because", settings.cookie_reason
    if settings.allow_insecure_http:
        yield "Origins", "http on localhost only; every other host is answered with 500"
    else:
        yield "Origins", _list(settings.origins) or "none: any host but localhost is answered with 500"
    yield from _https(settings)
    yield from _csrf(settings)
    if settings.isolate:
        yield "Embedded", "what has a session is for this origin alone"
    if settings.proof_pages or login_page(settings):
        yield "Never framed", _list(sorted({*settings.proof_pages, login_page(settings) or ""} - {""}))
    yield "Step-up", _step_up(settings)
    yield "Sessions", _limit(settings)
    yield "Kept", _kept(settings)
    yield "Device", _device(settings)
    if settings.new_devices == "tell":
        yield "New device", "a login from one is told (authn_new_device), and known for a year after its last login"
    yield "Theft", "ends the session" if settings.on_theft == "end" else "is refused and noted; the session goes on"
    down = "answered with 503" if settings.store_down == "refuse" else "served, and everybody is a stranger"
    yield "Store away", f"requests are {down}"
    yield "Login page", settings.login_url or "none: browsers, too, are answered with 401"
    for one in settings.providers:
        yield "Provider", providers.said(one)
    for label, values in (
        ("No sessions", settings.exclude),
        ("Always fresh", settings.fresh),
        ("No activity", settings.passive),
        ("Proxies", [*settings.trusted_proxies]),
        ("Detectors", [type(one).__name__ for one in settings.detectors]),
        ("Policies", [type(one).__name__ for one in settings.policies]),
    ):
        if values:
            yield label, _list(values)


def _clocks(settings: Settings) -> Iterator[tuple[str, str]]:
    clocks = settings.clocks
    yield "Idle", "never" if clocks.idle is None else f"ends after {_long(clocks.idle)} without a request"
    yield "Absolute", f"ends {_long(clocks.absolute)} after the login, whatever happens"
    if clocks.remember is None:
        yield "Remembered", "no: a login with remember=True is refused"
    else:
        idle = "" if clocks.remember_idle is None else f", or {_long(clocks.remember_idle)} without a request"
        yield "Remembered", f"if asked for, {_long(clocks.remember)}{idle}"
    if clocks.renew is None:
        yield "Renewal", "the secret is never renewed by time"
    else:
        grace = f"the former counts for {_long(clocks.grace)} more"
        yield "Renewal", f"a new secret every {_long(clocks.renew)}; {grace}"
    if clocks.why:
        yield "Because", clocks.why


def _https(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.https == "checked":
        yield "HTTPS", "what comes over plain http is refused"
    elif not settings.allow_insecure_http:
        yield "HTTPS", "left to your proxy"
    if settings.hsts:
        yield "HSTS", f"{settings.hsts}, on answers over TLS"


def _csrf(settings: Settings) -> Iterator[tuple[str, str]]:
    what = {
        "refuse": "what other sites cause is refused",
        "report": "what other sites cause is counted and let in, for the framework to refuse",
        "off": "what other sites cause is let in",
    }[settings.csrf]
    if settings.csrf == "refuse":
        let_in = settings.missing_headers == "allow"
        what += f"; without Origin and Sec-Fetch-Site, a request is {'let in' if let_in else 'refused'}"
    yield "CSRF", what
    if settings.csrf_exempt:
        yield "Exempt", _list(settings.csrf_exempt)
    if settings.trusted_origins:
        yield "Trusted", _list(settings.trusted_origins)


def _step_up(settings: Settings) -> str:
    """Say what counts where the application asks for more than a login; where it does, only its own pages say."""
    chosen = STANDARDS[settings.timeouts] if isinstance(settings.timeouts, str) else None
    counts = f"a proof counts for {_long(FOR)}, once, for what it was asked for"
    if chosen is None:
        return f"{counts}; where, and at what level, your pages say"
    within = "" if chosen.within is None else f", within {_long(chosen.within)} before what is delicate"
    return f"{counts}; {chosen.name} is for {chosen.level.name}{within}"


def _limit(settings: Settings) -> str:
    most = settings.most
    if most is None:
        return "any number for an account"
    return f"{most.most} for an account; one more {'is refused' if most.refuse else 'ends the oldest'}"


def _kept(settings: Settings) -> str:
    if settings.sealed is None:
        return "in the store, encrypted by each session's cookie" if settings.secrecy else "in the store"
    also = "; nothing ends a copy" if settings.sealed.unsafe_irrevocable else "; revocable by the store"
    return f"sealed in the cookie{also}"


def _device(settings: Settings) -> str:
    binding = settings.device_binding
    if binding is None:
        return "not bound: whoever has the cookie has the session"
    where = "where the browser can" if binding.mode == "opportunistic" else "or ended after 5 min"
    return f"bound, {where}; a copied cookie counts for {_long(binding.lifetime)}"


def _held(clocks: Timeouts, standard: Preset) -> tuple[str, list[str]]:
    """Return how clocks meet a standard, and where they do not."""
    over = exceeded(clocks, standard.name)
    refused = any(figure.word == "SHALL" for figure, _ in over)
    why = [sentence for _, sentence in over]
    if clocks.remember is not None and not standard.remembers:
        refused = True
        why.append("logins may be remembered")
    return "no" if refused else "less well" if why else "yes", why


def _json(target: str, settings: Settings, against: Collection[Preset]) -> dict[str, Any]:
    clocks, most = settings.clocks, settings.most
    return {
        "target": target,
        "preset": settings.timeouts if isinstance(settings.timeouts, str) else None,
        "clocks": {name: getattr(clocks, name) for name in clocks.__struct_fields__},
        "cookie": {"name": settings.cookie.name, "attributes": CookieWriter(settings.cookie).attributes},
        "origins": [*settings.origins],
        "providers": [
            {**{name: getattr(one, name) for name in one.__struct_fields__}, "logouts": sorted(one.logouts)}
            for one in settings.providers
        ],
        "limit": None if most is None else {"most": most.most, "refuse": most.refuse},
        "standards": {
            one.name: {"met": met, "why": why, "level": one.level.name}
            for one in against
            for met, why in [_held(clocks, one)]
        },
        "words": [{"about": label, "means": value} for label, value in _told(settings)],
    }


def _list(values: Collection[str]) -> str:
    return ", ".join(values if isinstance(values, (list, tuple)) else sorted(values))


def _long(seconds: float) -> str:
    """Return a duration exactly, in the longest unit that divides it: 24 h, 90 min, 30 d."""
    for unit, name, least in ((DAY, "d", 2 * DAY), (HOUR, "h", HOUR), (MINUTE, "min", MINUTE)):
        if seconds >= least and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
