"""What may be shown of a record and of an event: no proof, no value of its data, and of the data's keys only on `show`.

Each thing has a JSON view (a dict, times in ISO 8601 with Z) and a view for people (cells, times from now).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from rich.text import Text

from ..core import codec, facts, ledger
from ..core.dbsc import is_bound
from ..core.model import Client, Event, Instant, Level, Record, Trace
from .terminal import Column, cell, clean
from .when import iso, relative, span

_LOUD: Final = {"critical": "bold red", "warning": "yellow", "info": "bold"}
_LEVELS: Final = {level.value: level.name if level.name.startswith("AAL") else level.name.lower() for level in Level}


class State(NamedTuple):
    """What a record is now: live until `at`, or ended (or over, or refused) since `at`, and why."""

    because: str | None
    at: Instant

    @property
    def live(self) -> bool:
        """Whether its token still counts."""
        return self.because is None


def state_of(record: Record, now: Instant, floor: Instant) -> State:
    """Return what a record is; `floor` is the epoch before which authentications no longer count."""
    if record.ended_at is not None:
        return State(record.ended_because or "unknown", record.ended_at)
    if ledger.authenticated(record) < floor:
        return State("epoch", min(floor, now))
    if now >= record.deadline:
        return State("absolute" if record.deadline == record.expires_at else "idle", record.deadline)
    return State(None, record.deadline)


# -- records -----------------------------------------------------------------------------------------------------------


def record_json(record: Record, state: State) -> dict[str, Any]:
    """Return what a listing may tell of a record."""
    client = record.client or Client()
    return {
        "handle": record.handle,
        "realm": record.realm,
        "subject": record.subject,
        "tenant": record.tenant,
        "live": state.live,
        "ended_because": state.because,
        "ended_at": None if state.live else iso(state.at),
        "ends_at": iso(state.at) if state.live else None,
        "level": record.level,
        "methods": list(record.methods),
        "created_at": iso(record.created_at),
        "authenticated_at": iso(record.authenticated_at),
        "seen_at": iso(record.seen_at),
        "persistent": record.persistent,
        "successor": record.successor,
        "address": client.address,
        "agent": client.agent,
    }


def detailed_json(record: Record, state: State) -> dict[str, Any]:
    """Return all that may be told of one record: the keys of its data too."""
    return record_json(record, state) | {
        "idle_seconds": record.idle_for,
        "expires_at": iso(record.expires_at),
        "bound": is_bound(record.binding),
        "version": record.version,
        "data_bytes": len(record.data),
        "data_keys": _keys(record),
    }


def record_table(found: Sequence[tuple[Record, State]], now: Instant) -> tuple[list[Column], list[list[Text]]]:
    """Return records as a table; the realm is a column only where there are several."""
    realms = len({record.realm for record, _ in found}) > 1
    columns = [
        Column("Handle"),
        Column("Subject"),
        Column("Seen", "seen"),
        Column("State"),
        *([Column("Realm", "realm")] if realms else []),
        Column("Address", "from"),
        Column("Agent", cut=True),
    ]
    return columns, [_cells(record, state, now, realms=realms) for record, state in found]


def _cells(record: Record, state: State, now: Instant, *, realms: bool) -> list[Text]:
    client = record.client or Client()
    return [
        cell(record.handle, "" if state.live else "dim"),
        cell(record.subject, "bold" if state.live else ""),
        cell(relative(record.seen_at, now)),
        cell(_ends(state, now), _style(state)),
        *([cell(record.realm)] if realms else []),
        cell(client.address),
        cell(client.agent, "dim"),
    ]


def record_pairs(record: Record, state: State, now: Instant) -> Iterator[tuple[str, Text]]:
    """Yield the properties of one record, each with its label."""
    client = record.client or Client()
    keys = _keys(record)
    yield "handle", cell(record.handle, "bold")
    yield (
        "state",
        cell(f"live, {_ends(state, now)}" if state.live else f"ended: {_ends(state, now)}", _style(state)),
    )
    if record.successor is not None:
        yield "lives on as", cell(record.successor, "bold")
    yield "subject", cell(record.subject, "bold")
    yield "realm", cell(record.realm)
    if record.tenant is not None:
        yield "tenant", cell(record.tenant)
    yield "level", cell(_level(record))
    yield "created", _moment(record.created_at, now)
    yield "authenticated", _moment(record.authenticated_at, now)
    yield "last seen", _moment(record.seen_at, now)
    yield "idle timeout", cell(None if record.idle_for is None else span(record.idle_for))
    yield "absolute end", _moment(record.expires_at, now)
    yield "persistent", cell("yes" if record.persistent else "no")
    yield "device-bound", cell("yes" if is_bound(record.binding) else "no")
    if record.suspected_at is not None:
        yield "suspected", _moment(record.suspected_at, now)
    yield "address", cell(client.address)
    yield "agent", cell(client.agent)
    if record.seen_from not in (None, record.client):
        yield "lately from", cell(" ".join(filter(None, (record.seen_from.address, record.seen_from.agent))))
    yield "data", cell(f"{len(record.data)} bytes")
    sealed = record.data[:1] == codec.SEALED
    unread = "sealed; only the session's own cookie opens it" if sealed else "written by another version"
    yield "keys", cell(unread if keys is None else ", ".join(keys))


def _ends(state: State, now: Instant) -> str:
    return f"ends {relative(state.at, now)}" if state.because is None else f"{state.because}, {relative(state.at, now)}"


def _style(state: State) -> str:
    if state.because is None:
        return "green"
    return "bold red" if state.because == "theft" else "yellow"


def _level(record: Record) -> str:
    name = _LEVELS.get(record.level, str(record.level))
    return f"{name} ({', '.join(record.methods)})" if record.methods else name


def _moment(at: Instant | None, now: Instant) -> Text:
    return cell(None) if at is None else cell(f"{iso(at)}  {relative(at, now)}")


def _keys(record: Record) -> list[str] | None:
    try:
        return sorted(map(str, codec.decode(record.data)))
    except codec.UnknownVersion:
        return None


# -- events ------------------------------------------------------------------------------------------------------------


def event_json(event: Event) -> dict[str, Any]:
    """Return an event as one flat object."""
    client, trace = event.client or Client(), event.trace or Trace()
    return {
        "at": iso(event.at),
        "name": event.name,
        "severity": facts.severity(event),
        "realm": event.realm,
        "handle": event.handle,
        "subject": event.subject,
        "address": client.address,
        "agent": client.agent,
        "request_id": trace.request_id,
        "method": trace.method,
        "path": trace.path,
        "node": trace.node,
        "noise": event.noise,
        "detail": event.detail,
    }


def event_entries(events: Iterable[Event]) -> Iterator[tuple[Text, Text]]:
    """Yield events as log entries: when, and a line that no value can break or forge."""
    for event in events:
        name, _, rest = facts.line(event).partition(" ")
        told = Text(clean(name), style=_LOUD[facts.severity(event)])
        told.append(f"  {clean(rest)}" if rest else "", style="not bold default")
        yield Text(iso(event.at) or "", style="dim"), told
