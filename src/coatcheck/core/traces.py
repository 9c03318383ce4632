"""Which request an event belongs to, and which machine served it: what an operator needs to find it in other logs.

Rules
- An id is made when somebody first asks for it: an event, an answer of ours that says "no". Most requests have none.
- One that came with the request is believed only from a listed proxy, and only in the header that the operator named:
  anybody else could write into the logs, or give many requests one id (OWASP Logging cheat sheet, CWE-117).
- The path is kept without its query, since secrets travel there (OWASP Logging "Data to exclude"), and cleaned: one
  that no store can keep would take the events along, and what ends a session with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec.structs import force_setattr, replace

from .clients import printable
from .model import Change, EndOthers, Entropy, Event, Reply, Request, Trace

MOST_PATH: Final = 200
MOST_METHOD: Final = 20

_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:;/+=@-]{0,127}").fullmatch
"""What proxies write: a UUID, a traceparent (W3C Trace Context), a load balancer's `Root=1-...`; no blank, no comma."""

C = TypeVar("C", bound=Change)


class Traces:
    """Says of a request which it is and where it was served. `node` is the machine's name; the flow sets it."""

    __slots__ = ("_entropy", "_header", "_proxied", "node")

    def __init__(
        self, header: str | None, node: str | None, proxied: Callable[[Request], bool], entropy: Entropy
    ) -> None:
        """Take the header that proxies write their ids into, and who knows whether a proxy of ours sent a request."""
        self._header = None if header is None else header.lower().encode()
        self._proxied = proxied
        self._entropy = entropy
        self.node = node

    def id_of(self, request: Request) -> str:
        """Return the id of a request; the same one whenever it is asked for."""
        if not request.id:
            force_setattr(request, "id", self._brought(request) or self._entropy(8).hex())
        return request.id

    def of(self, request: Request | None) -> Trace:
        """Return where a request happens, or what no request caused."""
        if request is None:
            return Trace(self.node)
        method, path = printable(request.method[:MOST_METHOD]), printable(request.path[:MOST_PATH])
        return Trace(self.node, self.id_of(request), method, path)

    def on(self, request: Request | None, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """Return changes whose events say in which request they happened."""
        for change in changes:
            if change.events or isinstance(change, EndOthers):
                trace = self.of(request)
                return tuple([_traced(one, trace) for one in changes])
        return changes

    def answered(self, request: Request, reply: Reply) -> Reply:
        """Return an answer that names its request: in a header, and in a last line that people can read out."""
        name = self.id_of(request).encode()
        return replace(
            reply, headers=(*reply.headers, (b"x-request-id", name)), body=reply.body + b"Request: %b\n" % name
        )

    def _brought(self, request: Request) -> str:
        if self._header is None or not self._proxied(request):
            return ""
        value = request.header(self._header)
        return value.decode("ascii") if _ID(value) else ""


def _traced(change: C, trace: Trace) -> C:
    events = tuple([event if event.trace is not None else replace(event, trace=trace) for event in change.events])
    if isinstance(change, EndOthers):
        return replace(change, events=events, trace=change.trace or trace)
    return replace(change, events=events) if events else change


def placed(event: Event, node: str | None) -> Event:
    """Return an event that no request caused, with the machine on which it happened."""
    return replace(event, trace=Trace(node))
