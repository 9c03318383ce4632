"""What a response hands out, and to whom: the cookie of a session, once more or anew, and what is taken away with it.

A secret goes only where the browser that asked will read it, and nobody between keeps it: a response that a shared
cache may store, or that no page sees, carries none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from msgspec.structs import replace

from . import tokens
from .cookies import CookieWriter
from .model import Headers, Instant, Outcome, Record, Request, Ticket
from .policies import Timeouts
from .sealed import Sealer
from .settings import Settings
from .visit import Visit

_SKIP_RENEWAL = frozenset({204, 206, 304})


class Handing:
    """Hands out the cookies of one application's sessions."""

    __slots__ = ("_cookie", "_legacy", "_now", "_passive", "_renew", "_same_site", "_sealer", "_site_data")

    def __init__(
        self,
        settings: Settings,
        clocks: Timeouts,
        cookie: CookieWriter,
        sealer: Sealer | None,
        *,
        now: Callable[[], Instant],
    ) -> None:
        """Take what the manager checked."""
        self._legacy = tuple(settings.legacy)
        self._passive = frozenset(settings.passive)
        self._same_site = settings.same_site
        self._site_data = settings.clear_site_data
        self._renew = inf if clocks.renew is None else clocks.renew
        self._cookie = cookie
        self._sealer = sealer
        self._now = now

    def write(self, visit: Visit, record: Record, ticket: Ticket, now: Instant) -> tuple[bytes, ...]:
        """Return the cookie, or the pieces of a sealed one, that opens a session."""
        age = record.expires_at - now if record.persistent else None
        if self._sealer is None:
            return (self._cookie.write(tokens.value_of(ticket), age),)
        visit.sent = record.data
        return self._sealer.write(ticket, record, age, visit.request)

    def again(self, visit: Visit, record: Record) -> tuple[bytes, ...]:
        """Return the successor's cookie once more: the answer that first carried it may have been lost."""
        ticket = visit.ticket
        if record.nonce is None or ticket is None:
            return ()
        if visit.arrived < record.handed_at + self._renew or not self.may_renew(visit):
            return ()
        following = Ticket(ticket.handle, ticket.family, tokens.next_turn(record.nonce, ticket))
        return self.write(visit, record, following, self._now())

    def resealed(self, visit: Visit, record: Record, ticket: Ticket, data: bytes) -> tuple[bytes, ...]:
        """Return the pieces of a sealed cookie that says what is true now, of the data and of the activity."""
        now = self._now()
        seen_at = record.seen_at if visit.request.path in self._passive else max(record.seen_at, now)
        return self.write(visit, replace(record, data=data, seen_at=seen_at), ticket, now)

    def clear(self, visit: Visit) -> tuple[bytes, ...]:
        """Return what takes the cookie, or the pieces that came, away."""
        return (self._cookie.clear(),) if self._sealer is None else self._sealer.clear(visit.request)

    def may_renew(self, visit: Visit) -> bool:
        """Tell whether this response may carry a renewed secret: private, final, and read by the browser that asked."""
        if visit.request.kind != "http" or visit.request.method in ("HEAD", "OPTIONS"):
            return False
        if visit.status < 200 or visit.status in _SKIP_RENEWAL or visit.status >= 500:
            return False
        return is_private(visit.headers)

    def may_begin(self, visit: Visit) -> bool:
        """Tell whether a new anonymous session may be handed out (H3): never over a cookie that may be there."""
        return visit.bare and visit.request.kind == "http" and may_hand_out(visit.request, self._same_site)

    def without_old(self, visit: Visit, outcome: Outcome) -> Outcome:
        """Hand out the cookie of a session that another library's just became; with it, or a logout, the old one goes.

        A response without our cookie leaves the old one: it may be all that the browser has.
        """
        cookies, record = outcome.cookies, visit.record
        if visit.following is not None and record is not None and not (cookies or visit.logout or visit.login):
            cookies = self.write(visit, record, visit.following, self._now()) if is_private(visit.headers) else ()
            visit.unguarded = bool(cookies)
        if not cookies and not visit.logout:
            return outcome
        header = visit.request.header(b"cookie")
        gone = tuple(cookie for source in self._legacy for cookie in source.clears(header))
        return replace(outcome, cookies=(*cookies, *gone))

    def site_data(self, visit: Visit) -> tuple[tuple[bytes, bytes], ...]:
        """Return what has a browser forget more than our cookie; nothing, where the handler says what."""
        named = self._site_data
        if not named or any(name.lower() == b"clear-site-data" for name, _ in visit.headers):
            return ()
        # a new anonymous session, with the flash that says goodbye, is not to be taken along
        kinds = [kind for kind in named if kind != "cookies" or not visit.data]
        return ((b"clear-site-data", ", ".join(f'"{kind}"' for kind in kinds).encode("ascii")),) if kinds else ()


def may_hand_out(request: Request, same_site: str) -> bool:
    """Tell whether a request without our cookie comes from a browser that has none (H3): another site cannot tell."""
    site = request.header(b"sec-fetch-site")
    if site in (b"", b"none", b"same-origin", b"same-site"):
        return True
    # a cross-site page saw no Strict cookie, and no Lax one but on a top-level navigation
    top = request.header(b"sec-fetch-mode") == b"navigate" and request.header(b"sec-fetch-dest") == b"document"
    return request.method == "GET" and top and same_site == "Lax"


def is_private(headers: Headers) -> bool:
    """Tell whether a response is for the browser that asked only, as far as its Cache-Control says."""
    for name, value in headers:
        if name.lower() == b"cache-control":
            words = value.lower()
            if b"public" in words or b"s-maxage" in words or b"immutable" in words:
                return False
    return True
