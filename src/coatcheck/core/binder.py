"""Which sessions are bound to a device, and what an unbound request gets: decisions on records, by the rules of dbsc.

Rules (docs/dbsc.md names the attack behind each)
- The offer rides on the answer to a login only, counts once and for 5 minutes; whoever waits with a stolen cookie for
  another one waits in vain.
- Once the bound cookie came back, the session stays bound until somebody authenticates anew. Nothing that a client
  says excuses a missing bound cookie: `Secure-Session-Skipped` is told to people, not to a verdict.
- Nobody ends a session by a bad proof, and nothing is written before a good one. Who goes on sending bad ones for a
  session is told that there is none (H2); a good one counts all the same, and no browser ever makes a bad one.
- A refresh is no activity, and is refused by the same clocks and ends as any other request.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from enum import Enum
from html import escape
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from . import csrf, dbsc, facts, proofs, tokens
from .cookies import CookieSpec, CookieWriter
from .dbsc import Bound, DeviceBinding
from .floods import Crowd
from .model import Client, Entropy, Event, Handle, Instant, Outcome, Record, Reply, Request, Update
from .visit import Visit

_JSON = (b"content-type", b"application/json")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_GUARDED = (
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_PAGE = (
    _HTML,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"vary", b"Cookie, Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest"),
)
_UNKNOWN = Reply(404, (_JSON, *_GUARDED), b'{"error":"unknown_device_session"}')
_REFUSED = Reply(403, (_JSON, *_GUARDED), b'{"error":"binding_refused"}')
_KNOWN = (_JSON, (b"cache-control", b"public, max-age=300"), (b"x-content-type-options", b"nosniff"))
_GET_ONLY = Reply(405, ((b"allow", b"GET, HEAD"), _JSON, *_GUARDED), b'{"error":"method_not_allowed"}')
_POST_ONLY = Reply(405, ((b"allow", b"POST"), _JSON, *_GUARDED), b'{"error":"method_not_allowed"}')
_ROUTE = Reply(
    403,
    (_JSON, (b"cache-control", b"no-store"), (b"vary", b"Cookie")),
    b'{"error":"binding_required","message":"This needs a session that is bound to its device."}',
)


MOST_BAD, BAD_FOR = 10, 600.0
"""Bad proofs for one session, in so many seconds, that are answered by another challenge."""


class Judgement(Enum):
    """What a record's binding says to a request with a good token."""

    ADMITTED = 0
    REFUSED = 1
    OVER = 2


class Binder:
    """The device bindings of one application."""

    __slots__ = (
        *("_bad", "_chosen", "_client", "_cookie", "_entropy", "_heard", "_now", "_once", "_origins", "_realm"),
        *("_says", "_stopped", "paths"),
    )

    def __init__(  # noqa: PLR0913 - what the manager is, without knowing it
        self,
        chosen: DeviceBinding,
        spec: CookieSpec,
        *,
        comma_joined: bool,
        realm: str,
        origins: frozenset[str],
        now: Callable[[], Instant],
        entropy: Entropy,
        client: Callable[[Request], Client],
        once: Callable[[Visit, Event, float], None],
        heard: Callable[[str, Request], None],
        stopped: Callable[[Request], Reply | None],
    ) -> None:
        """Take the checked choice; `once` notes a fact, `heard` counts noise, `stopped` answers a flood of it."""
        self._chosen = chosen
        self._cookie = CookieWriter(replace(spec, name=spec.name + "-b"), comma_joined=comma_joined)
        self._realm = realm
        self._origins = origins
        self._now, self._entropy, self._client, self._once, self._heard = now, entropy, client, once, heard
        self._stopped, self._bad = stopped, Crowd(BAD_FOR)
        self._says = chosen.well_known
        known = () if self._says is None else (dbsc.WELL_KNOWN,)
        self.paths = frozenset({chosen.register_path, chosen.refresh_path, *known})

    # -- a request with a good token ----------------------------------------------------------------------------------

    def judge(self, visit: Visit, record: Record) -> Judgement:
        """Return whether a request may have the session that its token opens."""
        try:
            bound = dbsc.unpacked(record.binding)
        except ValueError:
            return self._missing(visit, record, "unreadable")
        now, request = visit.arrived, visit.request
        required = self._required(record)
        if bound is not None and bound.alg:
            held = self._held(bound, request, now)
            if bound.seen_at is not None:
                self._hear_skipped(visit, record)
                if held != "good" and now >= bound.seen_at + min(dbsc.HONOURED_FOR, self._chosen.lifetime):
                    return self._unproved(visit, record, held)
            elif held == "good":
                visit.confirmed = dbsc.packed(replace(bound, seen_at=now))
            if held == "good":
                return self._admitted(visit)
            required = required or bound.seen_at is not None
        visit.unbound = required
        since = record.created_at if record.authenticated_at is None else record.authenticated_at
        registered = bound is not None and bound.seen_at is not None
        if required and not registered and now >= since + dbsc.OFFER_FOR:
            return Judgement.OVER
        if request.path not in self.paths and _below(request.path, self._chosen.routes):
            visit.answer = self._page(request, seconds=2) if _is_navigation(request) else None
            visit.answer = visit.answer or _ROUTE
            return Judgement.REFUSED
        return Judgement.ADMITTED

    def _admitted(self, visit: Visit) -> Judgement:
        visit.bound = True
        request = visit.request
        if dbsc.BOUNCED in request.query and request.method == "GET" and _is_safe_path(request.path):
            rest = "&".join(part for part in request.query.split("&") if part != dbsc.BOUNCED)
            target = (_quoted(request.path) + (f"?{_quoted(rest)}" if rest else "")).encode()
            visit.answer = Reply(303, (_HTML, (b"cache-control", b"no-store"), (b"location", target)))
            return Judgement.REFUSED
        return Judgement.ADMITTED

    def _unproved(self, visit: Visit, record: Record, held: str) -> Judgement:
        """Answer a bound session without its bound cookie: once by a page that lets the browser fetch one (F1)."""
        request = visit.request
        if _below(request.path, self._chosen.static):
            return Judgement.REFUSED  # nobody asked the browser for a proof here; there is no session either
        if request.header(b"sec-fetch-site") in (b"cross-site", b"same-site") and _is_navigation(request):
            visit.answer = self._page(request, seconds=0)
            if visit.answer is not None:
                return Judgement.REFUSED
        return self._missing(visit, record, held)

    def _missing(self, visit: Visit, record: Record, held: str) -> Judgement:
        visit.ended_because = "unbound"
        event = facts.about("dbsc_binding_missing", record, visit.arrived, self._client(visit.request), kind=held)
        self._once(visit, event, 60.0)
        return Judgement.REFUSED

    def _hear_skipped(self, visit: Visit, record: Record) -> None:
        """Tell people that a browser could not refresh; it is no input to any verdict (H1)."""
        header = visit.request.header(b"secure-session-skipped")
        if header:
            why = " ".join(dbsc.skipped(header)) or "?"
            event = facts.about("dbsc_skipped", record, visit.arrived, self._client(visit.request), kind=why)
            self._once(visit, event, 3600.0)

    def _required(self, record: Record) -> bool:
        chosen, subject = self._chosen, record.subject
        if subject is None:
            return False
        return chosen.mode == "required" or (chosen.subjects is not None and bool(chosen.subjects(subject)))

    def _held(self, bound: Bound, request: Request, now: Instant) -> str:
        """Return "good", or what is wrong with the bound cookie."""
        value = self._cookie.find(request.header(b"cookie"))
        if not isinstance(value, bytes):
            return "missing" if value is None else "ambiguous"
        proof = dbsc.hashed(value)
        for known, until in bound.cookies:
            if hmac.compare_digest(known, proof):
                return "good" if now < until else "aged"
        return "foreign"

    def _page(self, request: Request, *, seconds: int) -> Reply | None:
        """Return the page that comes back by itself, once: then the request is our own, and browsers refresh for it."""
        if request.method != "GET" or dbsc.BOUNCED in request.query or not _is_safe_path(request.path):
            return None
        query = f"{_quoted(request.query)}&{dbsc.BOUNCED}" if request.query else dbsc.BOUNCED
        target = escape(f"{_quoted(request.path)}?{query}")
        body = (
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="{seconds};url={target}">'
            f'<title>One moment</title><p><a href="{target}">One moment</a></p>\n'
        )
        return Reply(200, _PAGE, body.encode())

    # -- a login ------------------------------------------------------------------------------------------------------

    def offered(self, record: Record, request: Request) -> tuple[Record, tuple[tuple[bytes, bytes], ...]]:
        """Return the record of a login with an offer in it, and the header that makes it."""
        if request.kind != "http":
            return record, ()
        bound = Bound(self._entropy(32), self._now())
        header = dbsc.offer(bound, self._chosen, self._now(), self._entropy)
        return replace(record, binding=dbsc.packed(bound)), (header,)

    def cleared(self, request: Request) -> tuple[bytes, ...]:
        """Return what takes the bound cookie away, where it came."""
        return () if self._cookie.find(request.header(b"cookie")) is None else (self._cookie.clear(),)

    # -- the endpoints ------------------------------------------------------------------------------------------------

    def at_once(self, request: Request) -> Reply | None:
        """Return the answer that needs no session: what is well known, or to a method that is not; no CORS grant."""
        if self._says is not None and request.path == dbsc.WELL_KNOWN:
            return Reply(200, _KNOWN, self._says) if request.method in ("GET", "HEAD") else _GET_ONLY
        return None if request.method == "POST" else _POST_ONLY

    def registers(self, request: Request) -> bool:
        """Tell whether a request brings a key, else it proves one."""
        return request.path == self._chosen.register_path

    def named(self, request: Request) -> str | None:
        """Return the session identifier that a refresh names, or None: malformed, and counted."""
        name = dbsc.identifier(request.header(b"sec-secure-session-id"))
        if name is None:
            self._heard("dbsc_unknown_session", request)
        return name

    def unknown(self, request: Request) -> Reply:
        """Return the answer to a refresh of what is not there; a network that goes on with those has to wait."""
        return self._stopped(request) or _UNKNOWN

    def register(self, visit: Visit) -> Outcome:
        """Bind a session to the key that its browser brings, or refuse."""
        record, request, now = visit.record, visit.request, self._now()
        if record is None or record.subject is None:
            self._heard("dbsc_registration_refused", request)
            return Outcome(reply=_REFUSED)
        if visit.step_up:
            return self._refuse(visit, record, "dbsc_registration_refused", "whoever brings it must log in again first")
        bound = dbsc.unpacked(record.binding)
        if bound is not None and bound.alg:
            return self._refuse(visit, record, "dbsc_rebind_refused", "the session has a key already")
        try:
            if bound is None:
                raise proofs.ProofError("nothing is offered")  # noqa: TRY003, TRY301
            key = self._key(bound, request, now)
        except proofs.ProofError as error:
            return self._refuse(visit, record, "dbsc_registration_refused", str(error))
        name = record.handle + dbsc.secret(self._entropy).decode()
        made = replace(
            bound,
            alg=key.alg,
            public=key.der,
            thumbprint=key.thumbprint,
            reference=dbsc.hashed(name.encode()),
            bound_at=now,
        )
        client, known = self._client(request), record.client or Client()
        elsewhere = client.address != known.address or client.agent != known.agent
        event = facts.about("dbsc_bound", record, now, client, alg=key.alg, other_client=elsewhere)
        return self._handed(record, made, name, now, (event,))

    def _key(self, bound: Bound, request: Request, now: Instant) -> proofs.DeviceKey:
        proof = self._proof(request)
        if dbsc.answered(bound, b"register", proof.jti, now, dbsc.OFFER_FOR) is None:
            message = "the challenge is not one of this login's"
            raise proofs.ProofError(message)
        if not hmac.compare_digest((proof.authorization or "").encode(), dbsc.authorization(bound).encode()):
            message = "the authorization is not the offer's"
            raise proofs.ProofError(message)
        key = proofs.key_of(proof)
        proofs.verify(proof, key.alg, key.der)
        return key

    def _proof(self, request: Request) -> proofs.Proof:
        proof = proofs.read(dbsc.unquoted(request.header(b"secure-session-response")))
        if proof.audience is not None:
            origin = proof.audience.removesuffix(request.path)
            if origin == proof.audience or not csrf.same_origin(request, origin, self._origins):
                message = "the proof was made for another endpoint"
                raise proofs.ProofError(message)
        return proof

    def _refuse(self, visit: Visit, record: Record, name: str, why: str) -> Outcome:
        event = facts.about(name, record, visit.arrived, self._client(visit.request), why=why)
        self._once(visit, event, 60.0)
        return Outcome(reply=_REFUSED)

    def refresh(self, request: Request, name: str, record: Record | None, over: str | None) -> Outcome:
        """Answer a browser that proves (or is to prove) that it still has the key of a session."""
        bound = None
        if record is not None and record.realm == self._realm:
            bound = dbsc.unpacked(record.binding)
        if record is None or bound is None or not hmac.compare_digest(bound.reference, dbsc.hashed(name.encode())):
            self._heard("dbsc_unknown_session", request)
            return Outcome(reply=self.unknown(request))
        if over is not None or not self._is_its_cookie(request, (name[:18], record.handle)):
            return Outcome(reply=Reply(200, (_JSON, *_GUARDED), dbsc.over(name)))
        now = self._now()
        if not request.header(b"secure-session-response"):
            return self._asked(bound, name, now)
        try:
            proof = self._proof(request)
            if proof.jwk is not None:
                raise proofs.ProofError("a refresh brings no key")  # noqa: EM101, TRY003, TRY301
            made = dbsc.answered(bound, b"refresh", proof.jti, now, max(dbsc.OFFER_FOR, self._chosen.lifetime))
            if made is None:
                self._heard("dbsc_challenge_stale", request)
                return self._asked(bound, name, now)
            proofs.verify(proof, bound.alg, bound.public)
        except proofs.ProofError:
            self._heard("dbsc_signature_invalid", request)
            last = self._bad.count(name[:18], now) > MOST_BAD
            refused = self.unknown(request) if last else self._stopped(request)
            return self._asked(bound, name, now) if refused is None else Outcome(reply=refused)
        seen_at = now if bound.seen_at is None else bound.seen_at
        return self._handed(record, replace(bound, proved=made, seen_at=seen_at), name, now, ())

    def _is_its_cookie(self, request: Request, handles: tuple[Handle, ...]) -> bool:
        """Tell whether the long cookie, if one came that is well-formed, is this session's: the bound one is shared."""
        name = self._cookie.name.removesuffix("-b").encode() + b"="
        for part in request.header(b"cookie").split(b";"):
            pair = part.strip(b" \t")
            ticket = tokens.parse(pair.removeprefix(name)) if pair.startswith(name) else None
            if ticket is not None and ticket.handle not in handles:
                return False
        return True

    def _asked(self, bound: Bound, name: str, now: Instant) -> Outcome:
        """Ask for a proof; written down is nothing."""
        challenge = dbsc.asked_again(bound, name, now, self._entropy)
        return Outcome(reply=Reply(403, (_JSON, *_GUARDED, challenge), b'{"error":"proof_required"}'))

    def _handed(self, record: Record, bound: Bound, name: str, now: Instant, events: tuple[Event, ...]) -> Outcome:
        """Hand out a new bound cookie, and the challenge for the next time."""
        chosen = self._chosen
        value = dbsc.secret(self._entropy)
        # the browser lets go of it a little before we do: it must never send what we no longer take
        age = max(1.0, chosen.lifetime - min(15.0, chosen.lifetime / 10))
        bound = replace(bound, cookies=((dbsc.hashed(value), now + chosen.lifetime), *bound.cookies[:1]))
        written = replace(record, binding=dbsc.packed(bound), version=record.version + 1)
        headers: list[tuple[bytes, Any]] = [
            _JSON,
            *_GUARDED,
            (b"set-cookie", self._cookie.write(value, age)),
            dbsc.asked_again(bound, name, now, self._entropy),
        ]
        body = dbsc.instructions(name, chosen, self._cookie.name, self._cookie.attributes)
        return Outcome(
            changes=(Update(record=written, was=record.version, events=events),),
            durable=bool(events),
            required=True,
            reply=Reply(200, tuple(headers), body),
        )


def _below(path: str, prefixes: Any) -> bool:
    """Tell whether a path is one of these or lies below it, as the scope of a bound session is read."""
    return any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def _is_navigation(request: Request) -> bool:
    """Tell whether a browser asks for a page to show, on its top level."""
    return request.header(b"sec-fetch-mode") == b"navigate" and request.header(b"sec-fetch-dest") == b"document"


def _is_safe_path(path: str) -> bool:
    r"""Tell whether a path leads nowhere else: browsers read `//` and `/\` as the beginning of another host."""
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()


def _quoted(text: str) -> str:
    """Return a part of a URL with nothing in it that could end a header, an attribute or the part."""
    return quote(text, safe="/?&=%+:@!$'()*,;~-._")
