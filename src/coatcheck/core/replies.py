"""The answers that coatcheck gives in the handler's place: short, without a secret, never cached."""

from __future__ import annotations

from typing import Final, get_args
from urllib.parse import quote

import msgspec

from .errors import Refusal
from .model import Because, Reply, Request
from .stepup import target_of

_NO_STORE = (b"cache-control", b"no-store")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_VARY_CSRF = (b"vary", b"Sec-Fetch-Site, Origin")

REASONS: Final = frozenset(get_args(Because))
"""Why a session may have ended, as a login page can be told; an application's policy has words of its own."""

UNAVAILABLE = Reply(
    503,
    (_TEXT, _NO_STORE, (b"retry-after", b"1")),
    b"The session store does not answer. Nothing was changed; please try again in a moment.\n",
)
"""Promise 8: when the store is away we refuse; we never hand out a fresh session over the user's cookie."""

FAULT = Reply(
    500,
    (_TEXT, _NO_STORE),
    b"Something went wrong on our side; please try again in a moment.\n",
)
"""A fault in our code, or in a policy, detector or store of the application's: what it was, only the log says."""

TOO_LARGE = Reply(431, (_TEXT, _NO_STORE), b"The Cookie header is too large.\n")

PLAIN_HTTP = Reply(403, (_TEXT, _NO_STORE), b"This application is used over https only.\n")

EMBEDDED = Reply(
    403,
    (_TEXT, _NO_STORE, (b"vary", b"Cookie, Sec-Fetch-Site, Sec-Fetch-Dest, Origin")),
    b"Another site's page asked for this in a frame, an image or a script; it was refused.\n",
)


def too_many(seconds: int) -> Reply:
    """Return the 429 for a cookie of ours that opens nothing, out of a network that sent many of those (RFC 6585)."""
    body = b"Too many cookies that open no session came from your network; please try again later.\n"
    return Reply(429, (_TEXT, _NO_STORE, (b"retry-after", b"%d" % seconds)), body)


def busy(seconds: int) -> Reply:
    """Return the same for the endpoints of device binding: after a 429 a browser would give its key up (DBS-08)."""
    body = b"Too many requests that prove nothing came from your network; please try again later.\n"
    return Reply(503, (_TEXT, _NO_STORE, (b"retry-after", b"%d" % seconds)), body)


TOO_MANY_SOCKETS = Reply(
    429,
    (_TEXT, _NO_STORE, (b"retry-after", b"5")),
    b"This session has too many open connections; close one of them and try again.\n",
)


def misconfigured(sentence: str) -> Reply:
    """Return the 500 that tells an operator what to set."""
    return Reply(500, (_TEXT, _NO_STORE), f"coatcheck: {sentence}\n".encode())


def cross_origin() -> Reply:
    """Return the 403 for a request that another site caused."""
    body = b"This request came from another site and was refused (cross-site request forgery).\n"
    return Reply(403, (_TEXT, _NO_STORE, _VARY_CSRF), body)


def forbidden(error: str, sentence: str) -> Reply:
    """Return a 403 with a machine-readable error."""
    return Reply(403, (_JSON, _NO_STORE), msgspec.json.encode({"error": error, "message": sentence}))


def conflict(error: str, sentence: str) -> Reply:
    """Return a 409 with a machine-readable error."""
    return Reply(409, (_JSON, _NO_STORE), msgspec.json.encode({"error": error, "message": sentence}))


def challenge(
    request: Request,
    realm: str,
    login_url: str | None,
    *,
    reauthenticate: bool,
    within: float | None,
    ended: str | None = None,
) -> Refusal:
    """Return the refusal that asks for a login: 303 to the login page for a browser, 401 with a challenge otherwise.

    RFC 9110 section 15.5.2 wants a challenge with every 401; 303 turns whatever was sent into a GET (15.4.4).
    `ended`: why the session that was presented is over. The page that asks for a login is told, by a word of REASONS.
    """
    why = ended if ended is None or ended in REASONS else "policy"
    error = "reauth_required" if reauthenticate else "login_required"
    vary = (b"vary", b"Cookie, Accept")
    if login_url is not None and _wants_html(request):
        location = login_url + _next_of(request, "&" if "?" in login_url else "?")
        if why is not None:
            location += f"{'&' if '?' in location else '?'}why={why}"
        return Refusal(Reply(303, (_TEXT, _NO_STORE, vary, (b"location", location.encode("ascii", "ignore")))), error)
    body: dict[str, object] = {"error": error}
    if within is not None:
        body["max_age"] = within
    if why is not None:
        body["why"] = why
    header = f'Session realm="{realm}", error="{error}"'.encode()
    return Refusal(
        Reply(401, (_JSON, _NO_STORE, vary, (b"www-authenticate", header)), msgspec.json.encode(body)), error
    )


def _wants_html(request: Request) -> bool:
    return b"text/html" in request.header(b"accept") and request.kind == "http"


def _next_of(request: Request, joint: str) -> str:
    """Return where to go after the login: this page, if it is one that may be asked for again by itself."""
    target = target_of(request) if request.method == "GET" else None
    return "" if target is None else f"{joint}next={quote(target, safe='/')}"
