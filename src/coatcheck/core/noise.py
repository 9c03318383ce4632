"""Noise: what anybody on the network can cause is counted in bounded memory, never written as it comes.

A fixed table of networks per kind (space-saving: when it is full, the smallest count makes room), one summary event
per kind and minute. So a flood of made-up tokens costs a few counters, and cannot wash the audit trail away.
"""

from __future__ import annotations

from ipaddress import ip_address

from .model import Event, Instant

MOST_NETWORKS = 4096
EVERY = 60.0
_SHOWN = 5


class Noise:
    """Counts by kind and network, until a summary is taken."""

    __slots__ = ("_counts", "_samples", "_since", "_totals", "totals")

    def __init__(self) -> None:
        """Start with empty tables."""
        self._counts: dict[tuple[str, str], int] = {}
        self._totals: dict[str, int] = {}
        self._samples: dict[str, dict[str, str]] = {}
        self._since: Instant | None = None
        self.totals: dict[str, int] = {}

    def count(self, kind: str, address: str | None, now: Instant, **sample: str) -> None:
        """Count one; `sample` (method, path, reason ...) of the last one goes into the summary."""
        if self._since is None:
            self._since = now
        self._totals[kind] = self._totals.get(kind, 0) + 1
        self.totals[kind] = self.totals.get(kind, 0) + 1
        if sample:
            self._samples[kind] = {name: value[:200] for name, value in sample.items()}
        key = (kind, network_of(address))
        counts = self._counts
        if key not in counts and len(counts) >= MOST_NETWORKS:
            smallest = min(counts, key=counts.__getitem__)
            counts[key] = counts.pop(smallest)
        counts[key] = counts.get(key, 0) + 1

    def due(self, now: Instant) -> bool:
        """Tell whether a minute has passed since the first one counted."""
        return self._since is not None and now >= self._since + EVERY

    def summaries(self, realm: str, now: Instant) -> tuple[Event, ...]:
        """Return one event per kind and start anew."""
        since, totals, samples = self._since, self._totals, self._samples
        networks: dict[str, list[tuple[int, str]]] = {}
        for (kind, network), number in self._counts.items():
            networks.setdefault(kind, []).append((number, network))
        self._counts, self._totals, self._samples, self._since = {}, {}, {}, None
        return tuple(
            Event(
                name=kind,
                at=now,
                realm=realm,
                noise=True,
                detail={
                    "count": number,
                    "since": since,
                    "networks": {net: n for n, net in sorted(networks.get(kind, ()), reverse=True)[:_SHOWN]},
                    **({"last": samples[kind]} if kind in samples else {}),
                },
            )
            for kind, number in totals.items()
        )


def network_of(address: str | None) -> str:
    """Return the /24 (IPv4) or /48 (IPv6) of an address: coarse enough to count, and to keep."""
    if not address:
        return "unknown"
    try:
        ip = ip_address(address)
    except ValueError:
        return "unknown"
    if ip.version == 4:
        return f"{address.rsplit('.', 1)[0]}.0/24"
    return ":".join(ip.exploded.split(":")[:3]) + "::/48"
