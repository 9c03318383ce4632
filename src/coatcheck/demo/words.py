"""Sessions in plain words: why one ended, what an event means, which device it was. It decides nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from coatcheck import Event, Level, Record, Timeouts


@dataclass(frozen=True, slots=True)
class Told:
    """Something told: a headline, a sentence or two, and how it sounds ("good", "plain", "end" or "alarm")."""

    title: str
    text: str
    tone: str = "plain"


# -- why a session is over ---------------------------------------------------------------------------------------------

_WHY: Final = {
    "logout": Told("You signed out", "This ticket was handed back. Sign in again whenever you like."),
    "absolute": Told(
        "The counter closes tickets after a while",
        "A ticket does not last for ever, however busy its owner: its absolute timeout has passed.",
    ),
    "limit": Told(
        "Too many tickets", "You signed in on one more device than an account may have; the oldest ticket was ended."
    ),
    "operator": Told("Ended at the counter", "Whoever runs this shop ended your session."),
    "owner": Told(
        "Ended from another device",
        "This session was ended in another browser, on the page “Your sessions”. If that was not you, sign in and "
        "change your password.",
    ),
    "theft": Told(
        "Somebody else had a copy of this ticket",
        "A secret that had already been replaced was presented once more. Only a copy can do that, so the counter "
        "ended the session for everybody who holds it. If that was not you trying it out, change your password.",
    ),
    "superseded": Told("Replaced by a newer ticket", "This browser signed in again; the ticket it had before is void."),
    "replaced": Told("Replaced by a newer ticket", "This session goes on under a new ticket; the old one is void."),
    "factor_change": Told(
        "The password was changed", "It was changed from another browser, and that ends every other session."
    ),
    "account_disabled": Told("The account was closed", "Its sessions ended with it."),
    "epoch": Told(
        "Everything from before was ended", "All tickets up to a certain moment were declared void at the counter."
    ),
    "policy": Told("Ended by a rule of this shop", "One of the rules for sessions no longer holds for this one."),
}


def why(because: str, clocks: Timeouts) -> Told:
    """Return in human words why a session is over."""
    if because == "idle":
        silence = "a while" if clocks.idle is None else span(clocks.idle)
        text = f"Nothing was heard from this browser for {silence}, so the counter closed your ticket."
        return Told("You were away", text, "end")
    told = _WHY.get(because, Told("Your session is over", f"The counter's reason is “{because}”."))
    return Told(told.title, told.text, "alarm" if because == "theft" else "end")


STRANGER: Final = Told(
    "The counter does not know this ticket",
    "Your browser shows a ticket that was never issued here, or was forgotten long ago.",
    "end",
)


# -- what happened -----------------------------------------------------------------------------------------------------


def story(event: Event, clocks: Timeouts) -> Told:
    """Return what an event means to the person whose session it is."""
    detail = event.detail
    match event.name:
        case "session_created":
            told = _created(event)
        case "authn_login_success":
            told = Told(f"{event.subject} signed in", f"Proved by: {methods(detail.get('methods', ()))}.", "good")
        case "session_renewed":
            told = _renewed(detail, clocks)
        case "session_expired" | "session_revoked":
            told = _ended(detail, clocks)
        case "session_logout":
            told = Told("Signed out", "The ticket was handed back; whoever kept a copy of it has nothing.", "end")
        case "session_token_reuse":
            told = _reused(event)
        case "session_use_after_expire":
            text = f"The ticket had ended before (“{detail.get('because')}”), so the request was nobody's."
            told = Told("An ended ticket was presented", text, "plain" if detail.get("expected") else "alarm")
        case "sessions_revoked":
            text = why(str(detail.get("reason", "policy")), clocks).text
            told = Told("Many tickets were ended at once", text, "end")
        case "excess_sessions_exceeded":
            text = (
                f"An account may have {detail.get('most', 'so many')} at a time; the oldest made room for the newest."
            )
            told = Told("One ticket too many", text, "end")
        case "session_write_dropped":
            text = "The session had ended while a request was under way; nothing was revived."
            told = Told("A write came too late", text)
        case name:
            told = Told(name.replace("_", " ").capitalize(), "")
    return told


def _created(event: Event) -> Told:
    if event.subject is None:
        text = (
            "A page wanted to remember something: a cart, or the guard of a form. Nobody is signed in on this ticket."
        )
        return Told("A first ticket was written", text)
    before = event.detail.get("instead_of")
    ended = f" The one before it ({before}) ended in the same step." if before else ""
    lasts = "It outlives the browser window." if event.detail.get("persistent") else "It goes when the browser closes."
    text = f"Signing in always means a new number and new secrets, so a planted ticket is worth nothing.{ended} {lasts}"
    return Told("A new ticket was written", text, "good")


def _renewed(detail: dict[str, Any], clocks: Timeouts) -> Told:
    if "instead_of" in detail:
        return Told("Moved to a new ticket", f"The ticket {detail['instead_of']} goes on under this number.", "good")
    text = (
        "Same number, new secret: the browser got it with an ordinary page. The former secret is honoured for "
        f"{span(clocks.grace)} more, for requests that were under way; after that it is evidence of a copy."
    )
    return Told("The secret was replaced", text, "good")


def _ended(detail: dict[str, Any], clocks: Timeouts) -> Told:
    told = why(str(detail.get("reason") or detail.get("because") or "policy"), clocks)
    by = f" Done by {detail['actor']}." if detail.get("actor") else ""
    return Told(f"Ended: {told.title[0].lower()}{told.title[1:]}", told.text + by, told.tone)


def _reused(event: Event) -> Told:
    detail, client = event.detail, event.client
    if detail.get("kind") == "straggler":
        text = "A request came with the former secret, a little too late. It was refused; nothing was ended."
        return Told("A late request", text)
    text = (
        f"A secret from earlier in this session was presented once more. The session began in "
        f"{device(detail.get('known_agent'))} at {detail.get('known_address') or 'an unknown address'}; this request "
        f"came from {device(client.agent if client else None)}. The session was ended for everybody who holds it."
    )
    return Told("An old secret was replayed", text, "alarm")


# -- what a store keeps ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: its name, what is in it (never a secret), and why it may lie there."""

    name: str
    shown: str
    why: str


def fields(record: Record) -> list[Field]:
    """Return what a store keeps of a session, and why whoever steals the file cannot use it."""
    return [
        Field("handle", record.handle, "the public name: good for logs and for ending a session, not for entering one"),
        Field("realm", record.realm, "which application the ticket is for; it is hashed into both proofs"),
        Field("family_proof", _hash(record.family_proof), "the SHA-256 of a 144-bit secret: recognises, never reveals"),
        Field("turn_proof", _hash(record.turn_proof), "the same for the secret that changes at every renewal"),
        Field(
            "former_proof", _hash(record.former_proof), "the hash of the secret before it, honoured for the grace only"
        ),
        Field("nonce", _hash(record.nonce), "makes the next secret out of the present one; useless without that one"),
        Field("subject", record.subject or "nobody", "who is signed in"),
        Field("methods, level", f"{methods(record.methods)} · {level(record.level)}", "how surely we know"),
        Field("data", f"{len(record.data)} bytes", "what the handlers remember: here the cart and the welcome ticket"),
        Field("created_at", at(record.created_at), "when the record was made"),
        Field("seen_at", at(record.seen_at), "last activity; written now and then, not at every click"),
        Field("used_at", at(record.used_at), "first sight of the present secret: the grace counts from here"),
        Field("idle_for", "never" if record.idle_for is None else span(record.idle_for), "allowed silence"),
        Field("expires_at", at(record.expires_at), "the end, whatever happens"),
        Field("persistent", "yes" if record.persistent else "no", "whether the cookie outlives the browser"),
        Field("client", device(record.client.agent if record.client else None), "who signed in, for this very page"),
        Field("version", str(record.version), "no two requests overwrite each other unseen"),
    ]


def _hash(value: bytes | None) -> str:
    return "empty" if value is None else f"{len(value)} bytes"


# -- small words -------------------------------------------------------------------------------------------------------

_METHODS: Final = {"pwd": "a password", "otp": "a one-time code", "hwk": "a security key", "swk": "a passkey"}


def methods(names: tuple[str, ...] | list[str]) -> str:
    """Return how somebody authenticated (RFC 8176 names), in words."""
    return ", ".join(_METHODS.get(name, name) for name in names) or "nothing"


def level(number: int) -> str:
    """Return an assurance level in words."""
    return {Level.ANONYMOUS: "nobody", Level.REMEMBERED: "remembered only"}.get(Level(number), Level(number).name)


def span(seconds: float) -> str:
    """Return a duration in words, in its largest whole unit."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            number = round(seconds / size, 1)
            return f"{number:g} {unit}{'' if number == 1 else 's'}"
    return "a moment"


def ago(seconds: float) -> str:
    """Return how long ago something was."""
    return "just now" if seconds < 10 else f"{span(_whole(seconds))} ago"


def _whole(seconds: float) -> float:
    size = next(size for size in (86400, 3600, 60, 1) if seconds >= size)
    return seconds // size * size


def at(moment: float | None) -> str:
    """Return a moment as it is written."""
    return "not yet" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%d %b %Y, %H:%M:%S UTC")


_BROWSERS: Final = (
    ("Edge", r"\bEdgA?/"),
    ("Opera", r"\bOPR/"),
    ("Samsung Internet", r"\bSamsungBrowser/"),
    ("Firefox", r"\b(?:Firefox|FxiOS)/"),
    ("Chrome", r"(?:Headless)?Chrom(?:e|ium)/|\bCriOS/"),
    ("Safari", r"\bVersion/\S+ (?:Mobile/\S+ )?Safari/"),
    ("curl", r"^curl/"),
    ("a Python program", r"^(?:python|httpx|aiohttp)|\btestclient\b"),
)
_SYSTEMS: Final = (
    ("iPhone", r"\biPhone\b"),
    ("iPad", r"\biPad\b"),
    ("Android", r"\bAndroid\b"),
    ("Windows", r"\bWindows\b"),
    ("ChromeOS", r"\bCrOS\b"),
    ("macOS", r"\bMac OS X\b|\bMacintosh\b"),
    ("Linux", r"\bLinux\b|\bX11\b"),
)


def device(agent: str | None) -> str:
    """Return a browser's own claim about itself in two words: honest ones tell it, others may say anything."""
    if not agent:
        return "an unnamed browser"
    browser = next((name for name, sign in _BROWSERS if re.search(sign, agent)), "")
    system = next((name for name, sign in _SYSTEMS if re.search(sign, agent)), "")
    return " on ".join(filter(None, (browser, system))) or "an unknown browser"


def bars(handle: str) -> list[tuple[int, int]]:
    """Return the bars of a ticket, (x, width) each: a picture of its public number, four strokes a character."""
    found, x = [], 0
    for character in handle:
        for stroke in range(4):
            width = 1 + (ord(character) >> stroke & 1) * 2
            if stroke % 2 == 0:
                found.append((x, width))
            x += width
    return found
