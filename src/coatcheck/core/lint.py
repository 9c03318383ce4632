"""What a reviewer would say of an application's settings: each weak or contradictory choice, by its rule.

The rules are the rows of the standards' checklist that settings decide (OWASP ASVS 5.0, NIST SP 800-63B-4, PCI DSS v4,
OWASP cheat sheets, RFC 6265bis). What is unsafe beyond doubt is refused when the application is built
(core/settings.py); here is told what is allowed, and has a price.

An error is a row that these settings cannot fulfil; a warning one that they fulfil less well than they could, or a
deviation that wants a reason; a note is what one should know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from .policies import Timeouts, exceeded
from .presets import DAY, STANDARDS, Preset, preset
from .settings import Settings, login_page
from .transport import YEAR, strictness
from .visit import All

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")

ROWS: Final[Mapping[str, str]] = {
    "DOC-01": "idle and absolute timeouts are set, fit the risk, and deviations are justified (ASVS 7.1.1)",
    "DOC-02": "how many sessions an account may have is decided (ASVS 7.1.2)",
    "DOC-03": "providers of logins are listed, with their lifetimes and how their logouts reach us (ASVS 7.1.3)",
    "DOC-04": "what happens without a browser feature is decided (ASVS 3.1.1, 3.7.5)",
    "TOK-01": "each page that needs a session checks it on the server (ASVS 7.2.1)",
    "TOK-10": "the cookie's name does not tell the framework (OWASP Session Management)",
    "TOK-12": "a login takes over nothing that was not named (OWASP Session Management, CSRF)",
    "TOK-13": "secrets are renewed, with a short overlap (OWASP Session Management)",
    "TOK-15": "a superseded secret is evidence of theft (ASVS 10.4.5 by analogy)",
    "TOK-18": "a sibling host cannot displace the session (RFC 6265bis section 8.6)",
    "SCT-07": "a session can be revoked (ASVS 7.4.1)",
    "SCT-08": "an older state of a session cannot be played again (RFC 6265bis section 8.3)",
    "TMO-05": "the timeouts are those of the assurance level (NIST SP 800-63B-4 section 2)",
    "TMO-08": "bearer cookies do not outlive the browser unless asked for (NIST SP 800-63B-4 section 5.1)",
    "TMO-11": "15 minutes without activity need an authentication (PCI DSS v4.0.1 8.2.8)",
    "TMO-12": "background traffic is no activity (NIST SP 800-63B-4 section 5.2)",
    "TMO-14": "a remembered login has an absolute end (ASVS 10.4.8)",
    "TMO-15": "a remembered browser does not stand for an authentication (NIST SP 800-63B-4 section 5.1)",
    "TRM-01": "an end is an end, on the server and everywhere (ASVS 7.4.1)",
    "ABU-03": "what is highly sensitive needs a further factor (ASVS 7.5.3)",
    "ABU-06": "the limit of sessions is kept (ASVS 7.1.2)",
    "CKE-01": "Secure, and a name that browsers guard (ASVS 3.3.1)",
    "CKE-02": "SameSite is Lax or Strict (ASVS 3.3.2)",
    "CKE-03": "the cookie is for this host alone (ASVS 3.3.3)",
    "CKE-09": "Partitioned only where it means something (CHIPS)",
    "CKE-13": "no session over plain http (RFC 6265bis section 8.3; NIST SP 800-63B-4 section 5.1)",
    "CKE-15": "browsers are told to use https only (ASVS 3.4.1)",
    "CSR-01": "requests that other sites caused are refused (ASVS 3.5.1)",
    "CSR-04": "private answers cannot be embedded by other sites (ASVS 3.5.8)",
    "CSR-05": "a request without Fetch metadata falls back to Origin or a token (OWASP CSRF)",
    "CSR-14": "pages that ask for a proof cannot be framed (ASVS 3.4.6)",
    "CCH-04": "who must log in is told how, and is sent to our own page (RFC 9110; ASVS 3.7.2)",
    "CCH-06": "when the store fails, nobody is let in (ASVS 16.5.2, 16.5.3)",
    "LOG-01": "an event says from where (ASVS 16.2.1)",
}
"""The rows that settings decide, and one that only the application's own pages can."""
YOURS: Final = frozenset({"ABU-03"})

_FRAMEWORKS: Final = frozenset({"session", "sessionid", "connect.sid", "PHPSESSID", "JSESSIONID", "ASP.NET_SessionId"})


class Finding(msgspec.Struct, frozen=True):
    """One choice that is weak or contradictory: its rule, how bad it is, and a sentence that says what to do."""

    rule: str
    severity: Severity
    sentence: str


def findings(settings: Settings, standard: str | None = None) -> list[Finding]:
    """Return what is to be said of checked settings, the worst first; `standard` is the preset that they must meet.

    Without one they are judged by the preset that `timeouts` names, or by the longest that any standard allows.
    """
    named = standard or (settings.timeouts if isinstance(settings.timeouts, str) else None)
    chosen = None if named is None else preset(named)
    found = [one for rule in _RULES for one in rule(settings)]
    found += _of_clocks(settings.clocks, chosen)
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def rows(settings: Settings, standard: str | None = None) -> dict[str, str]:
    """Return each row, with how these settings meet it: "yes", "less well" (a warning), "no", or "yours to do"."""
    worst: dict[str, Severity] = {}
    for one in reversed(findings(settings, standard)):
        worst[one.rule] = one.severity
    said: dict[Severity | None, str] = {"error": "no", "warning": "less well"}
    yours = YOURS | _left(settings)
    return {rule: "yours to do" if rule in yours else said.get(worst.get(rule), "yes") for rule in ROWS}


def _left(settings: Settings) -> frozenset[str]:
    """Return the rows that these settings leave to whoever stands around: your proxy, your framework, your own list."""
    unset = {"CKE-15": settings.hsts, "CSR-14": settings.proof_pages, "DOC-03": settings.providers}
    return frozenset(rule for rule, value in unset.items() if not value)


# -- the clocks --------------------------------------------------------------------------------------------------------


def _of_clocks(clocks: Timeouts, chosen: Preset | None) -> Iterator[Finding]:
    yield from _too_long(clocks, chosen)
    if clocks.idle is None and not clocks.why and (chosen is None or chosen.most("idle") is not None):
        yield Finding(
            "DOC-01",
            "error",
            "sessions are never idle: whoever finds the browser open goes on; set idle, or say why='...' in timeouts",
        )
    if clocks.remember is not None:
        yield from _of_remembering(clocks, clocks.remember, chosen)
    if clocks.renew is None or clocks.renew >= clocks.absolute:
        yield Finding(
            "TOK-13",
            "warning",
            "the secret is never renewed: a copied cookie works as long as the session, and its use beside the owner's "
            "is never noticed; set renew=900",
        )
    if clocks.grace < 60.0:
        yield Finding("TOK-13", "note", f"a grace of {clocks.grace:g} s, because: {clocks.why}")


def _too_long(clocks: Timeouts, chosen: Preset | None) -> Iterator[Finding]:
    standard = chosen or STANDARDS["nist-aal1"]
    for figure, sentence in exceeded(clocks, standard.name):
        rule = "TMO-11" if figure.source.startswith("PCI") and figure.clock == "idle" else "TMO-05"
        rule = "DOC-01" if chosen is None else rule
        if figure.word == "SHALL":
            yield Finding(rule, "error", f"{sentence}, and {figure.source} demands it; shorten it")
        elif clocks.why:
            yield Finding(rule, "note", f"{sentence} ({figure.source}); because: {clocks.why}")
        else:
            severity: Severity = "error" if chosen is None else "warning"
            yield Finding(rule, severity, f"{sentence} ({figure.source}); shorten it, or say why='...' in timeouts")


def _of_remembering(clocks: Timeouts, remember: float, chosen: Preset | None) -> Iterator[Finding]:
    if chosen is not None and not chosen.remembers:
        yield Finding("TMO-15", "error", f"logins may be remembered, which is nothing for {chosen.name}; remember=None")
    elif remember > 90 * DAY:
        days = f"{remember / DAY:g} days"
        yield Finding("TMO-14", "warning", f"a login may be remembered for {days}; 30 days are usual (remember=...)")
    if clocks.remember_idle is None:
        yield Finding(
            "TMO-14",
            "warning",
            "a remembered login is never idle: a browser that was given away still knows its user; set remember_idle",
        )


# -- the cookie --------------------------------------------------------------------------------------------------------


def _of_the_cookie(settings: Settings) -> Iterator[Finding]:
    cookie, because = settings.cookie, f" (because: {settings.cookie_reason})" if settings.cookie_reason else ""
    if settings.allow_insecure_http:
        yield Finding(
            "CKE-13",
            "error",
            "allow_insecure_http is for localhost: the cookie travels readable, and every other host is answered with "
            "500; drop it, and set origins=['https://...']",
        )
    elif not cookie.name.startswith("__"):
        yield Finding(
            "CKE-01", "error", f"browsers guard names that begin with __Host-, and {cookie.name!r} does not{because}"
        )
    elif not cookie.name.startswith("__Host-"):
        yield Finding(
            "CKE-03", "warning", f"only __Host- keeps sibling hosts from planting the cookie{because}; rename it"
        )
    if settings.domain is not None:
        yield Finding(
            "CKE-03",
            "warning",
            f"Domain={settings.domain} hands the session to every host below it{because}; each is as safe as the "
            "weakest of them",
        )
    if settings.path != "/":
        yield Finding("CKE-03", "note", f"Path={settings.path} keeps no other page of this host from the cookie")
    if cookie.name.removeprefix("__Host-").removeprefix("__Secure-") in _FRAMEWORKS:
        yield Finding("TOK-10", "note", f"the name {cookie.name!r} tells what framework this is")
    if settings.same_site == "None":
        yield Finding(
            "CKE-02",
            "warning",
            f"SameSite=None sends the session along with other sites' requests{because}; Lax is enough for links",
        )
    if settings.partitioned:
        if settings.same_site != "None":
            yield Finding(
                "CKE-09",
                "warning",
                f"Partitioned is for frames in other sites, where SameSite={settings.same_site} is not sent; drop it, "
                "or set same_site='None'",
            )
        yield Finding("CKE-09", "note", "Partitioned: a session in each site around us, and none is device bound")
    if settings.comma_joined:
        yield Finding(
            "TOK-18",
            "warning",
            "comma_joined lets a sibling host plant a cookie of our name; drop it unless your server joins headers",
        )


def _of_https(settings: Settings) -> Iterator[Finding]:
    if settings.allow_insecure_http:
        return
    if settings.https == "assumed":
        yield Finding(
            "CKE-13",
            "note",
            "https='assumed': your proxy alone keeps plain http away; https='checked' refuses it here, too (list the "
            "proxy in trusted_proxies, and have it set X-Forwarded-Proto)",
        )
    said = strictness(settings.hsts) if settings.hsts else None
    if said is None:
        yield Finding(
            "CKE-15",
            "note",
            "hsts is not set: your proxy or framework must send Strict-Transport-Security, or set "
            "hsts='max-age=31536000; includeSubDomains'",
        )
        return
    seconds, subdomains = said
    if seconds < YEAR:
        yield Finding("CKE-15", "warning", f"hsts says {seconds / DAY:g} days; ASVS asks for a year (max-age={YEAR})")
    elif not subdomains:
        yield Finding("CKE-15", "note", "hsts leaves subdomains out; ASVS level 2 asks for includeSubDomains")


def _of_frames(settings: Settings) -> Iterator[Finding]:
    if not settings.isolate and settings.same_site == "None":
        yield Finding(
            "CSR-04",
            "warning",
            "SameSite=None, and isolate is not set: other sites' images and scripts may ask for what is private; set "
            "isolate=True, or Cross-Origin-Resource-Policy on your private answers",
        )
    if not settings.proof_pages:
        known = "no page that asks for a proof is known here"
        if login_page(settings) is not None:
            known = "X-Frame-Options alone keeps the login page out of frames"
        advice = "name those that ask for a proof in proof_pages, unless your own policy names frame-ancestors"
        yield Finding("CSR-14", "note", f"{known}; {advice}")


# -- who may ask -------------------------------------------------------------------------------------------------------


def _of_origins(settings: Settings) -> Iterator[Finding]:
    if not settings.origins and not settings.allow_insecure_http:
        yield Finding(
            "CSR-01",
            "error",
            "origins are missing: any host but localhost is answered with 500; set origins=['https://your.host']",
        )
    for origin in settings.trusted_origins:
        plain = origin.startswith("http:")
        yield Finding(
            "CSR-01",
            "error" if plain else "warning",
            f"{origin} may do anything in a user's name; " + ("and plain http is anybody's" if plain else "list few"),
        )
    if settings.csrf == "off":
        yield Finding("CSR-01", "error", "csrf='off': any page that a user visits acts in their name; use 'refuse'")
    elif settings.csrf == "report":
        yield Finding(
            "CSR-01",
            "warning",
            "csrf='report' counts what other sites cause, and lets it in; that is for a framework whose own check "
            "refuses it (Django, Pyramid, Litestar), or for a first week",
        )
    for path in settings.csrf_exempt:
        yield Finding(
            "CSR-01", "warning", f"{path} needs no evidence of its origin; its handler must check a signature"
        )
    if settings.same_site == "None" and settings.missing_headers == "allow":
        yield Finding(
            "CSR-05",
            "warning",
            "SameSite=None and missing_headers='allow': a client that sends neither Origin nor Sec-Fetch-Site is let "
            "in with its cookie; set missing_headers='deny'",
        )
    for name in settings.trusted_proxies:
        if name != "unix" and _is_wide(name):
            yield Finding(
                "LOG-01",
                "error",
                f"trusted_proxies has {name}: whoever is in there writes the address of our logs; name the proxies",
            )


def _is_wide(name: str) -> bool:
    network = ip_network(name, strict=False)
    return network.prefixlen < (8 if network.version == 4 else 32)


def _of_paths(settings: Settings) -> Iterator[Finding]:
    if "/" in settings.exclude:
        yield Finding("TOK-01", "error", "exclude has '/', so no page has a session; name the prefixes of your assets")
    for rule, setting in (("TRM-01", "fresh"), ("TMO-12", "passive")):
        for path in getattr(settings, setting):
            if path.startswith(tuple(settings.exclude)):
                yield Finding(rule, "warning", f"{setting} has {path!r}, and exclude says that there is no session")
    if "/" in settings.passive:
        yield Finding("TMO-12", "warning", "passive has '/': a user who reads the first page all day is logged out")
    url = settings.login_url
    if url is None:
        yield Finding("CCH-04", "note", "login_url is not set: browsers, too, are answered with 401")
    elif url.startswith("http:"):
        yield Finding("CCH-04", "error", f"login_url {url!r} is plain http: passwords travel readable")
    elif not url.startswith("/") or url.startswith("//"):
        host = urlsplit(url).netloc or url
        yield Finding("CCH-04", "warning", f"login_url leads to {host}, which is told where the user was going")


# -- what a session is good for ----------------------------------------------------------------------------------------


def _of_trust(settings: Settings) -> Iterator[Finding]:
    if settings.on_theft == "note":
        yield Finding(
            "TOK-15",
            "warning",
            "on_theft='note': who replays an old token is refused, but thief and owner go on; use 'end', or act on "
            "session_token_reuse",
        )
    if isinstance(settings.carry, All):
        yield Finding(
            "TOK-12",
            "warning",
            "carry=ALL: who planted an anonymous session chooses what its victim finds after login; name the keys",
        )
    elif settings.carry and not isinstance(settings.carry, Mapping):
        names = ", ".join(sorted(settings.carry))
        yield Finding("TOK-12", "note", f"{names} move into a login unchecked; carry={{name: validator}} checks them")
    if settings.limit is None:
        yield Finding("DOC-02", "warning", "an account may have any number of sessions; set limit=5, or whatever fits")
    elif (most := settings.most) is not None and not most.refuse:
        sentence = "one session too many ends the oldest: who has the password can log the owner out (say so to them)"
        yield Finding("ABU-06", "note", sentence)
    if settings.store_down == "anonymous":
        yield Finding(
            "CCH-06",
            "warning",
            "store_down='anonymous': while the store is away everybody is a stranger, and may do what strangers may",
        )
    if settings.generation is None and settings.sealed is None:
        yield Finding(
            "TRM-01",
            "note",
            "generation is not set: a store restored while no worker ran goes unnoticed (`coatcheck restored`)",
        )
    for source in settings.legacy:
        yield Finding(
            "TRM-01",
            "note",
            f"sessions of {source.library or 'another library'} still become ours, until their cut-off",
        )


def _of_providers(settings: Settings) -> Iterator[Finding]:
    for one in settings.providers:
        if not one.logouts and not one.why:
            yield Finding(
                "DOC-03",
                "error",
                f"a logout at {one.issuer} does not reach us: who is shut out there goes on here; receive its logouts "
                "(docs/receivers.md), or say why='...' in Provider",
            )
        elif not one.logouts:
            yield Finding("DOC-03", "note", f"a logout at {one.issuer} does not reach us; because: {one.why}")
        if one.lifetime is None:
            yield Finding(
                "DOC-03", "warning", f"how long a session at {one.issuer} lasts is not said; ask, and set lifetime"
            )
        elif one.lifetime < settings.clocks.absolute:
            sentence = f"our sessions outlast those of {one.issuer} ({one.lifetime:g} s)"
            yield Finding("DOC-03", "note", f"{sentence}; lasting(until=...) at the login ends both at once")


def _of_sealed_tokens(settings: Settings) -> Iterator[Finding]:
    sealed = settings.sealed
    if sealed is None:
        return
    if sealed.unsafe_irrevocable:
        yield Finding(
            "SCT-07", "error", "unsafe_irrevocable: no logout and no operator ends a copied cookie; add a store"
        )
    if sealed.store_down == "reads":
        yield Finding("SCT-07", "warning", "store_down='reads': while the store is away, revoked sessions still read")
    if not sealed.monotonic and not sealed.unsafe_irrevocable:
        yield Finding(
            "SCT-08",
            "note",
            "monotonic is empty: an older cookie brings its older data back; name what must not go back",
        )


def _of_binding(settings: Settings) -> Iterator[Finding]:
    binding = settings.device_binding
    if binding is None:
        if settings.sealed is None and settings.domain is None and not settings.partitioned:
            yield Finding(
                "DOC-04",
                "note",
                "sessions are not bound to their device: a copied cookie counts until a renewal gives it away; "
                "binding='opportunistic' changes nothing for browsers that cannot",
            )
        return
    if binding.mode == "required":
        sentence = "binding='required': for the first 5 minutes after a login the cookie alone counts, for reading only"
        yield Finding("DOC-04", "note", f"{sentence}; browsers that cannot bind are logged out then")
    if binding.lifetime > 600.0:
        yield Finding(
            "DOC-04",
            "warning",
            f"a copied jar counts for {binding.lifetime / 60:g} min; 10 min are usual (lifetime=600)",
        )


_RULES: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    _of_the_cookie,
    _of_https,
    _of_frames,
    _of_origins,
    _of_paths,
    _of_trust,
    _of_providers,
    _of_sealed_tokens,
    _of_binding,
)
