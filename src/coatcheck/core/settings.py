"""What an application chooses, checked once when it is built: unsafe or contradictory choices are refused by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

import msgspec

from . import codec, typed
from .breaker import Breaker
from .cookies import PREFIXES, CookieSpec, SameSite
from .csrf import check_origin
from .dbsc import WELL_KNOWN, DeviceBinding, Mode
from .detectors import Detector, problems
from .errors import ConfigError, DataError
from .floods import Floods
from .legacy import Source
from .model import Event, Limit
from .policies import Policy, SessionLimit, Timeouts, timeouts
from .providers import Provider
from .providers import problems as listed
from .sealed import Sealed, canonical
from .transport import strictness
from .visit import All, Carry, is_reserved

LOCAL = ("localhost", "127.0.0.1", "[::1]", "testserver", "testserver.local")


class Keywords(TypedDict, total=False):
    """The settings as keywords; every adapter takes them. `Settings` says what each means."""

    name: str
    realm: str | None
    origins: Collection[str]
    trusted_origins: Collection[str]
    csrf: Literal["refuse", "report", "off"]
    csrf_exempt: Collection[str]
    missing_headers: Literal["allow", "deny"]
    timeouts: Timeouts | str
    policies: Sequence[Policy]
    limit: SessionLimit | int | None
    carry: Carry
    data: type[Any] | None
    secrecy: bool
    trusted_proxies: Iterable[str]
    allow_insecure_http: bool
    same_site: SameSite
    cookie_reason: str
    domain: str | None
    path: str
    partitioned: bool
    comma_joined: bool
    exclude: Sequence[str]
    fresh: Sequence[str]
    passive: Collection[str]
    on_theft: Literal["end", "note"]
    clear_site_data: Collection[str]
    https: Literal["assumed", "checked"]
    hsts: str
    isolate: bool
    proof_pages: Collection[str]
    store_down: Literal["refuse", "anonymous"]
    generation: str | None
    login_url: str | None
    sealed: Sealed | None
    legacy: Sequence[Source]
    binding: DeviceBinding | Mode
    on_event: Sequence[Callable[[Event], Any]]
    detectors: Sequence[Detector]
    new_devices: Literal["ignore", "tell"]
    providers: Sequence[Provider]
    floods: Floods
    breaker: Breaker | None
    request_id: str | None
    node: str | None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The choices; the defaults are the secure ones.

    - name: the cookie's. realm: the audience a session is for (default: that name); another realm's token is garbage.
    - origins: what this application is called from outside ("https://shop.example"): the one truth for Origin.
      trusted_origins: other sites that may post here.
    - csrf: what happens to requests that other sites caused; "report" counts them, for frameworks that refuse
      (websockets are refused all the same: none of those looks at a handshake). csrf_exempt: exact paths that need no
      check (webhooks). missing_headers: what an unsafe request with neither Sec-Fetch-Site nor Origin may do.
    - timeouts: `timeouts(...)` or a preset's name. limit: live sessions a subject may have. policies: your own rules.
    - carry: keys of an anonymous session that move into a login. data: the type of the session's data.
    - secrecy: data lies in the store encrypted; only the session's own cookie opens it (docs/why/keys.md).
    - trusted_proxies: whose X-Forwarded-For is believed. comma_joined: the server joins split Cookie headers by commas
      (gunicorn behind some HTTP/2 proxies); the price: a sibling host can then plant a cookie of our name.
    - allow_insecure_http: plain http, on localhost only, under another cookie name.
    - same_site, domain, path, partitioned: the cookie's attributes. cookie_reason: why they are weaker.
    - exclude: path prefixes without sessions. fresh: path prefixes whose sessions never come from a near copy.
      passive: exact paths whose requests are no activity.
    - on_theft: what a replayed old token does: it ends the session, or its holder is asked for proof again ("note").
    - clear_site_data: what a logout has the browser forget besides our cookie: "cache", "storage", ... "cookies" takes
      those of the whole registrable domain along, other applications' too (W3C Clear Site Data section 3.1).
    - https: "checked" refuses what came over plain http, by its connection or by the X-Forwarded-Proto of a trusted
      proxy; "assumed" leaves that to the proxy. hsts: the Strict-Transport-Security that answers over TLS go out with.
    - isolate: what is asked for with a session is for this origin alone: another site's frame, image or script gets 403
      instead, and answers that looked at a session say so (Cross-Origin-Resource-Policy).
    - proof_pages: exact paths of pages that ask for a proof: no other site can frame them (docs/https.md).
    - store_down: what happens to requests while the store is away.
    - generation: the store's, as `coatcheck restored` prints it: with any other (emptied, restored, another store), all
      tokens are refused.
    - login_url: where browsers are sent to log in.
    - binding: sessions are bound to the device that logged in, where its browser can ("opportunistic"), or must be
      ("required"); see `DeviceBinding`.
    - sealed: the session lies encrypted in its own cookie, see `Sealed`; None: behind the counter, in the store.
    - on_event: who is told of each event that was committed: functions or coroutines of one event, after it, not on
      the request's time.
    - detectors: what looks for differences between a request and its session's login; what follows is for `policies`.
    - new_devices: "tell" knows each browser that logged in by a cookie of its own, and writes an event for one that its
      subject has not used before, authn_new_device, for `on_event` to tell (docs/detection.md).
    - providers: the identity providers whose logins become sessions here, for `policy show` and for receivers.
    - floods: what one network may do in a while; see `Floods` (docs/floods.md).
    - breaker: when a store that fails is no longer asked, and for how long; see `Breaker` (docs/events.md).
    - request_id: the header in which a listed proxy names a request ("X-Request-Id"): events name it so, too. Without
      one, and from anybody else, each request that is told of gets an id of ours. node: this machine's name in events.
    - legacy: where sessions of other libraries are, which become ours when their browsers come (docs/coming-from.md).
    """

    name: str = "__Host-coat"
    realm: str | None = None
    origins: Collection[str] = ()
    trusted_origins: Collection[str] = ()
    csrf: Literal["refuse", "report", "off"] = "refuse"
    csrf_exempt: Collection[str] = ()
    missing_headers: Literal["allow", "deny"] = "allow"
    timeouts: Timeouts | str = Timeouts()
    policies: Sequence[Policy] = ()
    limit: SessionLimit | int | None = None
    carry: Carry = ()
    data: type[Any] | None = None
    secrecy: bool = False
    trusted_proxies: Iterable[str] = ()
    allow_insecure_http: bool = False
    same_site: SameSite = "Lax"
    cookie_reason: str = ""
    domain: str | None = None
    path: str = "/"
    partitioned: bool = False
    comma_joined: bool = False
    exclude: Sequence[str] = ()
    fresh: Sequence[str] = ()
    passive: Collection[str] = ()
    on_theft: Literal["end", "note"] = "end"
    clear_site_data: Collection[str] = ()
    https: Literal["assumed", "checked"] = "assumed"
    hsts: str = ""
    isolate: bool = False
    proof_pages: Collection[str] = ()
    store_down: Literal["refuse", "anonymous"] = "refuse"
    generation: str | None = None
    login_url: str | None = None
    sealed: Sealed | None = None
    legacy: Sequence[Source] = ()
    binding: DeviceBinding | Mode = "off"
    on_event: Sequence[Callable[[Event], Any]] = ()
    detectors: Sequence[Detector] = ()
    new_devices: Literal["ignore", "tell"] = "ignore"
    providers: Sequence[Provider] = ()
    floods: Floods = Floods()
    breaker: Breaker | None = Breaker()
    request_id: str | None = None
    node: str | None = None

    @property
    def device_binding(self) -> DeviceBinding | None:
        """How sessions are bound to their device; None: they are not, or there is only plain http to do it over."""
        if self.binding == "off" or self.allow_insecure_http:
            return None
        return DeviceBinding(mode=self.binding) if isinstance(self.binding, str) else self.binding

    @property
    def clocks(self) -> Timeouts:
        """The timeouts, a preset's name resolved."""
        chosen = timeouts(self.timeouts) if isinstance(self.timeouts, str) else self.timeouts
        chosen.check()
        return chosen

    @property
    def cookie(self) -> CookieSpec:
        """The cookie, renamed and without Secure where plain http is allowed."""
        spec = CookieSpec(
            name=insecure_name(self.name) if self.allow_insecure_http else self.name,
            path=self.path,
            domain=self.domain,
            secure=not self.allow_insecure_http,
            same_site=self.same_site,
            partitioned=self.partitioned,
            reason=self.cookie_reason,
        )
        spec.check()
        return spec

    @property
    def most(self) -> Limit | None:
        """The session limit, as stores apply it."""
        if self.limit is None:
            return None
        limit = SessionLimit(self.limit) if isinstance(self.limit, int) else self.limit
        limit.check()
        return Limit(limit.most, refuse=limit.on_limit == "refuse")

    @property
    def canonical_origin(self) -> str:
        """The origin that sealed tokens are bound to."""
        return canonical([check_origin(origin) for origin in self.origins])

    def check(self) -> None:
        """Raise ConfigError for the first thing that is wrong."""
        for problem in self._problems():
            raise ConfigError(problem)

    def _problems(self) -> Iterable[str]:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                yield f"{field} is {' or '.join(map(repr, known))} (found {getattr(self, field)!r})"
        for field in _LISTS:
            if isinstance(getattr(self, field), str):
                found = getattr(self, field)
                yield f"{field} is a list, not a text (found {found!r}); write [{found!r}]"
        if self.realm is not None and (not self.realm or not self.realm.isprintable() or {*'"\\'} & {*self.realm}):
            yield f"the realm is a name, printable and without quotation mark or backslash (found {self.realm!r:.40})"
        if self.allow_insecure_http and any(origin.startswith("https:") for origin in self.origins):
            yield "allow_insecure_http is for http://localhost, but origins name https; drop one of them"
        if not isinstance(self.carry, All):
            for key in filter(is_reserved, self.carry):
                yield f"{key!r} never moves into a login: whoever planted it would choose where the user goes"
        for path in (*self.csrf_exempt, *self.exclude, *self.fresh, *self.passive, *self.proof_pages):
            if not path.startswith("/"):
                yield f"paths start with / (found {path!r})"
        yield from self._ill_carried()
        yield from self._ill_told()
        if self.data is not None:
            yield from _untyped(self.data)
        if self.sealed is not None:
            yield from self._ill_sealed(self.sealed)
        yield from self._ill_converted()
        if self.binding != "off":
            yield from self._ill_bound()

    def _ill_carried(self) -> Iterable[str]:
        if self.https == "checked" and self.allow_insecure_http:
            yield "https='checked' refuses plain http, and allow_insecure_http asks for it; drop one of them"
        if self.hsts and (not self.hsts.isprintable() or strictness(self.hsts) is None):
            yield f"hsts is the header's value, such as 'max-age=31536000; includeSubDomains' (found {self.hsts!r:.80})"

    def _ill_told(self) -> Iterable[str]:
        yield from problems(self.detectors)
        yield from self.floods.problems()
        yield from listed(self.providers)
        if self.breaker is not None:
            yield from self.breaker.problems()
        for field, pattern in (("request_id", _FIELD), ("node", _NODE)):
            value = getattr(self, field)
            if value is not None and not pattern(value):
                yield f"{field} is {_NAMED[field]} (found {value!r:.40})"
        if not isinstance(self.on_event, Sequence) or not all(map(callable, self.on_event)):
            yield f"on_event is a list of functions, each called with an event (found {self.on_event!r:.80})"
        for kind in self.clear_site_data:
            if kind not in SITE_DATA:
                yield f"clear_site_data holds any of {', '.join(SITE_DATA)} (found {kind!r:.40})"

    def _ill_bound(self) -> Iterable[str]:
        if isinstance(self.binding, str) and self.binding not in ("opportunistic", "required"):
            yield f"binding is 'off', 'opportunistic' or 'required' (found {self.binding!r:.40})"
            return
        chosen = DeviceBinding() if isinstance(self.binding, str) else self.binding
        yield from chosen.problems()
        named = (*chosen.relying_origins, *chosen.registering_origins, chosen.provider_origin)
        for origin in named:
            if origin is not None and not _is_https(origin):
                yield f"binding: other origins are 'https://host', as browsers spell them (found {origin!r:.80})"
        if self.sealed is not None:
            yield "device binding is kept in the store's records, and sealed tokens are their own; drop one of them"
        if self.domain is not None:
            yield f"a device binding covers one origin, and Domain={self.domain} hands the session to others; drop one"
        if self.partitioned:
            yield "browsers bind no Partitioned cookie; drop partitioned or the device binding"
        if not chosen.path.startswith(self.path.rstrip("/") + "/"):
            yield f"the endpoints of the device binding must lie below the cookie's path {self.path!r}"
        for prefix in self.exclude:
            known = (WELL_KNOWN,) if chosen.well_known is not None else ()
            if any(path.startswith(prefix) for path in (chosen.register_path, chosen.refresh_path, *known)):
                yield f"exclude has {prefix!r}, and the endpoints of the device binding lie below it"

    def _ill_sealed(self, sealed: Sealed) -> Iterable[str]:
        yield from sealed.problems()
        if self.secrecy:
            yield "sealed sessions keep no data in the store, so secrecy has nothing to seal there; drop one of them"
        if len(self.origins) > 1 and not isinstance(self.origins, Sequence):
            yield "with sealed tokens origins is a list that keeps its order: the first one is sealed into each"
        if self.limit is not None and sealed.unsafe_irrevocable:
            yield "a session limit needs a store that counts, and unsafe_irrevocable says that there is none"
        if self.new_devices == "tell" and sealed.unsafe_irrevocable:
            yield "new devices are found in the store's events, and unsafe_irrevocable says that there is no store"

    def _ill_converted(self) -> Iterable[str]:
        if self.legacy and self.sealed is not None:
            yield "legacy sessions become records of the store, and sealed sessions have none; drop one of them"
        names = [source.cookie for source in self.legacy]
        ours = insecure_name(self.name) if self.allow_insecure_http else self.name
        for name in names:
            if name == ours or names.count(name) > 1:
                yield f"two cookies are named {name!r}, and nobody could tell them apart; rename ours with name=..."


SITE_DATA = ("cache", "cookies", "storage", "executionContexts", "clientHints")
"""What W3C Clear Site Data knows; its "*" is left out, since nobody can say what that will take along one day."""
_LISTS = (
    "origins", "trusted_origins", "csrf_exempt", "exclude", "fresh", "passive", "carry", "trusted_proxies",
    "clear_site_data", "proof_pages",
)  # fmt: skip
_FIELD = re.compile(r"[A-Za-z0-9-]{1,64}").fullmatch
_NODE = re.compile(r"[A-Za-z0-9._:-]{1,100}").fullmatch
_NAMED = {
    "request_id": "the name of a header, such as 'X-Request-Id'",
    "node": "the name of a machine, such as 'web-3'",
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "csrf": ("refuse", "report", "off"),
    "missing_headers": ("allow", "deny"),
    "https": ("assumed", "checked"),
    "new_devices": ("ignore", "tell"),
    "on_theft": ("end", "note"),
    "store_down": ("refuse", "anonymous"),
}


def settings_of(keywords: Mapping[str, Any]) -> Settings:
    """Return checked settings; raise ConfigError for a name that does not exist or a choice that is refused."""
    unknown = sorted(keywords.keys() - set(Settings.__struct_fields__))
    if unknown:
        close = difflib.get_close_matches(unknown[0], Settings.__struct_fields__, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(Settings.__struct_fields__)}"
        message = f"there is no setting {unknown[0]!r}; {advice}"
        raise ConfigError(message)
    settings = Settings(**keywords)
    settings.check()
    return settings


def carrying(keywords: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Return settings that also let a framework's own keys move into a login, whatever `carry` says."""
    carry = keywords.get("carry", ())
    if isinstance(carry, Mapping):
        return {**keywords, "carry": {**dict.fromkeys(own, _anything), **carry}}
    if isinstance(carry, All | str):  # everything anyway, or a mistake that check() tells
        return dict(keywords)
    return {**keywords, "carry": {*carry, *own}}


def _is_https(origin: str) -> bool:
    try:
        return origin.startswith("https://") and check_origin(origin) == origin
    except ConfigError:
        return False


def _anything(_: Any) -> bool:
    return True


def checked_origins(origins: Collection[str], *, insecure: bool) -> frozenset[str]:
    """Return origins as browsers spell them; plain http counts on localhost only."""
    found = frozenset(check_origin(origin) for origin in origins)
    for origin in found:
        if origin.startswith("http:") and not (insecure and is_local(origin.removeprefix("http://"))):
            message = (
                f"origin {origin!r} is plain http: its cookies travel readable; use https, "
                "or allow_insecure_http=True on localhost"
            )
            raise ConfigError(message)
    return found


def login_page(settings: Settings) -> str | None:
    """Return the path of the login page, if it is ours; None where all is made to be framed (SameSite=None)."""
    url = settings.login_url or ""
    own = urlsplit(url).path if url.startswith("/") and not url.startswith("//") else ""
    return own if own and settings.same_site != "None" else None


def is_local(host: str) -> bool:
    """Tell whether a Host header names this machine or a test client (RFC 6761: localhost and test are reserved)."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.lower()
    return name in LOCAL or name.endswith((".localhost", ".test"))


def insecure_name(name: str) -> str:
    """Return the cookie's name over plain http: without a prefix, so that the secure mode never reads it."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return f"{name}-insecure"


def _untyped(kind: type[Any]) -> Iterable[str]:
    """Yield why `kind` cannot be the type of a session's data: a new session starts from its defaults."""
    try:
        codec.encode(typed.from_type(typed.to_type({}, kind)))
    except DataError as error:
        yield f"data={kind.__qualname__}: every field needs a default that a session can keep ({error})"
