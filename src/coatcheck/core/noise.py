"""Noise: what anybody on the network can cause is counted in bounded memory, never written as it comes.

One fixed table of networks (Misra and Gries 1982: when it is full, the median count is taken off every row and half of
them go), one summary event per kind and minute. So a flood of made-up tokens costs a few counters, and cannot wash the
audit trail away. Totals are exact; a network's figure is what it caused at least, short by at most 1 in 2,048 of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any, TypeVar

from .model import Event, Instant

MOST_NETWORKS = 4096
EVERY = 60.0
UNKNOWN = "unknown"
_SHOWN = 5
_MOST_SAMPLE = 200

K = TypeVar("K")


class Noise:
    """Counts by kind and network, until a summary is taken.

    Threads may share one without a lock: at worst a count is lost.
    """

    __slots__ = ("_counts", "_not_before", "_samples", "_totals", "since", "totals")

    def __init__(self) -> None:
        """Start with empty tables; `totals` since the start are for metrics."""
        self._counts: dict[tuple[str, str], int] = {}
        self._totals: dict[str, int] = {}
        self._samples: dict[str, dict[str, str]] = {}
        self.since: Instant | None = None
        self._not_before: Instant = 0.0
        self.totals: dict[str, int] = {}

    def count(self, kind: str, address: str | None, now: Instant, **sample: str) -> None:
        """Count one; `sample` (method, path, reason ...) of the last one goes into the summary."""
        if self.since is None:
            self.since = now
        self._totals[kind] = self._totals.get(kind, 0) + 1
        self.totals[kind] = self.totals.get(kind, 0) + 1
        if sample:
            self._samples[kind] = {name: value[:_MOST_SAMPLE] for name, value in sample.items()}
        counts = self._counts
        key = (kind, network_of(address))
        if key not in counts and len(counts) >= MOST_NETWORKS:
            counts = self._counts = thinned(counts)
        counts[key] = counts.get(key, 0) + 1

    def due(self, now: Instant) -> bool:
        """Tell whether a minute has passed since the first one counted, and since a store last would not keep it."""
        return self.since is not None and now >= max(self.since + EVERY, self._not_before)

    def summaries(self, realm: str, now: Instant) -> tuple[Event, ...]:
        """Return one event per kind and start anew."""
        since, totals, samples, counts = self.since, self._totals, self._samples, self._counts
        self.since, self._totals, self._samples, self._counts = None, {}, {}, {}
        networks: dict[str, list[tuple[int, str]]] = {}
        for (kind, network), number in list(counts.items()):
            networks.setdefault(kind, []).append((number, network))
        events = []
        for kind, number in list(totals.items()):
            loudest = sorted(networks.get(kind, ()), reverse=True)[:_SHOWN]
            detail: dict[str, Any] = {"count": number, "since": since, "networks": {net: n for n, net in loudest}}
            if kind in samples:
                detail["last"] = samples[kind]
            events.append(Event(name=kind, at=now, realm=realm, noise=True, detail=detail))
        return tuple(events)

    def put_back(self, summaries: Iterable[Event], now: Instant) -> None:
        """Count again what a store would not keep, for the next minute; but the networks that were not shown."""
        self._not_before = now + EVERY
        for event in summaries:
            kind, detail = event.name, event.detail
            self.since = min(detail["since"], now if self.since is None else self.since)
            self._totals[kind] = self._totals.get(kind, 0) + detail["count"]
            if "last" in detail:
                self._samples.setdefault(kind, detail["last"])
            for network, number in detail["networks"].items():
                key = (kind, network)
                self._counts[key] = self._counts.get(key, 0) + number


def thinned(counts: dict[K, int]) -> dict[K, int]:
    """Return the louder half of a full table: one sort per 2,048 newcomers, so each of them costs next to nothing."""
    rows = list(counts.items())
    median = sorted(number for _, number in rows)[len(rows) // 2]
    return {key: number - median for key, number in rows if number > median}


def network_of(address: str | None) -> str:
    """Return the /24 (IPv4) or /48 (IPv6) of an address: coarse enough to count, and to keep."""
    if not address:
        return UNKNOWN
    try:
        ip = ip_address(address)
    except ValueError:
        return UNKNOWN
    if ip.version == 6:
        if ip.ipv4_mapped is None:
            return f"{IPv6Address(int(ip) >> 80 << 80)}/48"
        ip = ip.ipv4_mapped
    return f"{str(ip).rpartition('.')[0]}.0/24"
