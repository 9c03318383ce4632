"""`coatcheck sessions revoke`: ends sessions by handle, by subject, by tenant, by age, or all of them.

Rules
- Nothing ends without a yes: from a person at a terminal, or as --yes.
- What would end is found first and shown; what has to hold for logins under way, too, is the registry's to see to.
- Subjects of different realms are different people: where a subject is known in several, the realm must be named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

import typer

from ..core.errors import ConfigError
from ..core.ledger import authenticated
from ..core.model import Because, Handle, Instant, Record
from . import terminal, views
from .asking import agreed, need_somebody
from .door import AsJson, Door, ManyHandles, RealmName, StoreUrl, actor, handle, opened
from .views import State
from .when import When, iso, relative, when

_SHOWN: Final = 20


class Reason(StrEnum):
    """The reasons that an operator may have, as the record and its event will say."""

    operator = "operator"
    account_disabled = "account_disabled"
    factor_change = "factor_change"
    role_change = "role_change"
    policy = "policy"
    theft = "theft"


_REASONS: Final = (
    "Why, for the audit trail: operator (if none is given), account_disabled, factor_change, role_change, policy or "
    "theft."
)


@dataclass(slots=True)
class Plan:
    """What a command means: which sessions end, and how wide the act is."""

    whose: str
    realm: str | None
    subject: str | None = None
    tenant: str | None = None
    keep: Handle | None = None
    before: Instant | None = None
    found: list[tuple[Record, State]] = field(default_factory=list)
    missing: list[Handle] = field(default_factory=list)
    over: list[tuple[Record, State]] = field(default_factory=list)


def revoke(
    handles: ManyHandles = None,
    subject: Annotated[str | None, typer.Option(metavar="S", help="Every session of this subject.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="T", help="Every session of this tenant.")] = None,
    keep: Annotated[
        Handle | None, typer.Option(parser=handle, metavar="HANDLE", help="With --subject: all but this one.")
    ] = None,
    before: Annotated[
        When | None,
        typer.Option(
            parser=when,
            metavar="WHEN",
            help="Who logged in before then: 2h, 7d, 2026-11-24T18:00Z. Alone, or with --subject or --tenant.",
        ),
    ] = None,
    realm: RealmName = None,
    *,
    everyone: Annotated[bool, typer.Option("--all", help="Every session of everyone (of the realm).")] = False,
    reason: Annotated[Reason, typer.Option(metavar="REASON", show_default=False, help=_REASONS)] = Reason.operator,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would end, and end nothing.")] = False,
    as_json: AsJson = False,
    store: StoreUrl = "",
) -> None:
    """End sessions: by handle, of a subject, of a tenant, older than a moment, or all. Shows them and asks first.

    Example: coatcheck sessions revoke --subject alice --reason account_disabled

    Example: coatcheck sessions revoke --before 7d --dry-run
    """
    _check(handles or [], subject, tenant, keep, before, everyone=everyone)
    asked = not (yes or dry_run)
    if asked:
        need_somebody("ends sessions", look=True)
    with opened(store, realm) as door:
        plan = _plan(door, handles or [], subject, tenant, keep, before, everyone=everyone)
        if asked or (dry_run and not as_json):
            _show(plan, door, aside=asked)
        if asked and _acts(plan):
            agreed(f"End {_counted(plan)}?", "nothing was ended")
        if everyone or (tenant is not None and before is None):
            # whoever logged in while the question stood there is meant, too
            plan.before = door.store.epochs().store_now
        if not dry_run:
            _act(plan, door, reason.value)
        _report(plan, door, reason.value, dry_run=dry_run, as_json=as_json)


def _check(
    handles: list[Handle],
    subject: str | None,
    tenant: str | None,
    keep: Handle | None,
    before: When | None,
    *,
    everyone: bool,
) -> None:
    """Refuse a command that does not say one thing."""
    named = [subject is not None, tenant is not None]
    targets = [bool(handles), *named, before is not None and not any(named), everyone]
    if sum(targets) != 1:
        found = "several are given" if sum(targets) else "none is given"
        message = f"say once whose sessions end ({found}): HANDLE..., --subject S, --tenant T, --before WHEN or --all"
        raise ConfigError(message)
    if keep is not None and (subject is None or before is not None):
        message = "--keep goes with --subject, and not with --before"
        raise ConfigError(message)


# -- deciding ----------------------------------------------------------------------------------------------------------


def _plan(
    door: Door,
    handles: list[Handle],
    subject: str | None,
    tenant: str | None,
    keep: Handle | None,
    before: When | None,
    *,
    everyone: bool,
) -> Plan:
    if handles:
        return _by_handle(door, handles)
    moment = None if before is None else before(door.now)
    if everyone or (tenant is not None and moment is None):
        moment = door.now
    if moment is not None and moment > door.now:
        message = f"{iso(moment)} is in the future: logins would be refused until then; name a moment in the past"
        raise ConfigError(message)
    whose = f" of tenant {tenant}" if tenant is not None else "" if subject is None else f" of {subject}"
    since = "" if before is None or moment is None else f" from before {iso(moment)}"
    plan = Plan(whose + since, door.realm, subject, tenant, keep, moment)
    if subject is not None and plan.realm is None:
        plan.realm = _realm_of(door, subject)
    for record, state in door.each(subject):
        if tenant not in (None, record.tenant):
            continue
        if moment is None or authenticated(record) < moment:
            plan.found.append((record, state))
    if keep is not None:
        _keep(plan, keep)
    return plan


def _by_handle(door: Door, handles: list[Handle]) -> Plan:
    """Find sessions by name; one that was replaced (at a login or step-up) lives on under its successor's."""
    plan = Plan("", door.realm)
    for name in dict.fromkeys(handles):
        record = door.get(name)
        met: set[Handle] = set()
        while record is not None and record.ended_because == "replaced" and record.successor and name not in met:
            met.add(record.handle)
            successor = None if record.successor in met else door.get(record.successor)
            if successor is None:
                break
            record = successor
        if record is None:
            plan.missing.append(name)
            continue
        bucket = plan.found if record.ended_at is None else plan.over
        if all(record.handle != one.handle for one, _ in bucket):
            bucket.append((record, door.state(record)))
    return plan


def _realm_of(door: Door, subject: str) -> str | None:
    """Return the one realm that knows the subject, or None; raise ConfigError where several do."""
    realms = sorted({record.realm for record, _ in door.each(subject, live=False)})
    if len(realms) > 1:
        message = f"{subject!r} is known in {len(realms)} realms ({', '.join(realms)}); say which with --realm"
        raise ConfigError(message)
    return realms[0] if realms else None


def _keep(plan: Plan, keep: Handle) -> None:
    """Leave one out; a name that is not among them is a mistake that would log its owner out."""
    left = [(record, state) for record, state in plan.found if record.handle != keep]
    if len(left) == len(plan.found):
        terminal.complain(f"{keep} is no live session of {plan.subject}, so it cannot be kept; nothing was ended")
        raise typer.Exit(1)
    plan.found = left


def _acts(plan: Plan) -> bool:
    """Tell whether there is something to do: epochs hold for logins under way, with no session in sight."""
    if plan.subject is not None:
        return plan.realm is not None
    return bool(plan.found) or plan.before is not None


# -- acting ------------------------------------------------------------------------------------------------------------


def _act(plan: Plan, door: Door, because: Because) -> None:
    if not _acts(plan):
        return
    registry, who = door.registry(plan.realm), actor()
    if plan.before is not None:
        registry.revoke_before(plan.before, subject=plan.subject, tenant=plan.tenant, because=because, actor=who)
    elif plan.subject is not None:
        registry.revoke_all(plan.subject, keep=plan.keep, because=because, actor=who)
    else:
        plan.found = [one for one in plan.found if registry.revoke(one[0].handle, because, actor=who)]


# -- telling -----------------------------------------------------------------------------------------------------------


def _show(plan: Plan, door: Door, *, aside: bool) -> None:
    if plan.found:
        terminal.table(*views.record_table(plan.found[:_SHOWN], door.now), aside=aside)
    if len(plan.found) > _SHOWN:
        terminal.say(f"... and {len(plan.found) - _SHOWN} more", aside=aside)


def _report(plan: Plan, door: Door, reason: str, *, dry_run: bool, as_json: bool) -> None:
    for name in plan.missing:
        terminal.complain(f"there is no session {name}")
    for record, state in plan.over:
        terminal.complain(f"{record.handle} ended before: {state.because}, {relative(state.at, door.now)}")
    if as_json:
        terminal.document(_document(plan, reason, dry_run=dry_run))
    elif plan.found or not (plan.missing or plan.over):
        terminal.say(_sentence(plan, reason, dry_run=dry_run))
    if not plan.found or plan.missing or plan.over:
        raise typer.Exit(1)


def _sentence(plan: Plan, reason: str, *, dry_run: bool) -> str:
    if dry_run:
        return f"Would end {_counted(plan)} (reason: {reason}); nothing was changed."
    if plan.found:
        return f"Ended {_counted(plan)} (reason: {reason})."
    if plan.subject is not None and plan.realm is None:
        return f"{plan.subject} is not known here; to refuse a login that is under way, too, say --realm."
    rest = "; logins under way are refused" if _acts(plan) else ""
    return f"There was no live session{plan.whose}{rest}."


def _counted(plan: Plan) -> str:
    realm = "" if plan.realm is None else f" in realm {plan.realm}"
    kept = "" if plan.keep is None else f", all but {plan.keep}"
    return f"{terminal.plural(len(plan.found), 'session')}{plan.whose}{realm}{kept}"


def _document(plan: Plan, reason: str, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "reason": reason,
        "realm": plan.realm,
        "subject": plan.subject,
        "tenant": plan.tenant,
        "before": iso(plan.before),
        "kept": plan.keep,
        "ended": _names(plan.found),
        "ended_before": _names(plan.over),
        "missing": plan.missing,
    }


def _names(found: Iterable[tuple[Record, State]]) -> list[Handle]:
    return [record.handle for record, _ in found]
