"""Which requests are answered at all: by their host, and by the site that caused them. No cookie is looked at here."""

from __future__ import annotations

from collections.abc import Callable

from . import csrf, replies
from .model import Reply, Request
from .settings import Settings, checked_origins, is_local


class Screen:
    """Refuses what was not meant for us, or was caused by another site."""

    def __init__(self, settings: Settings, heard: Callable[..., None], secure: Callable[[Request], bool]) -> None:
        """Take the settings, who counts what is refused, and who tells whether a request came over TLS.

        Raises ConfigError for origins that are none.
        """
        self._heard, self._secure = heard, secure
        self._checks_https = settings.https == "checked"
        self._csrf = settings.csrf
        self._insecure = settings.allow_insecure_http
        self.origins = self._origins = checked_origins(settings.origins, insecure=self._insecure)
        self._trusted = frozenset(csrf.check_origin(origin) for origin in settings.trusted_origins)
        self._exempt = frozenset(settings.csrf_exempt)
        if (chosen := settings.device_binding) is not None:  # proved by a signature; its Origin may be the site's (E12)
            self._exempt |= {chosen.register_path, chosen.refresh_path}
        self.any_host = bool(self._origins) and not self._insecure
        self._isolates = settings.isolate
        names = [settings.cookie.name, *(source.cookie for source in settings.legacy)]
        self._cookies = tuple(f"{name}=".encode("ascii") for name in names)
        self.calm = self.any_host and not (self._checks_https or self._isolates)
        self._host_seen: bytes | None = None

    def check(self, request: Request) -> Reply | None:
        """Return the answer to a request that is refused whoever sends it: over plain http, embedded, or not meant."""
        if self._checks_https and not self._secure(request):
            self._heard("session_plain_http", request)
            return replies.PLAIN_HTTP
        if self._isolates and (reply := self._embedded(request)) is not None:
            return reply
        return self.meant(request)

    def meant(self, request: Request) -> Reply | None:
        """Return the answer to a request that was not meant for us: wrong host, or caused by another site."""
        if not self.any_host and (reply := self._wrong_host(request)) is not None:
            return reply
        if request.method in csrf.SAFE_METHODS and request.kind == "http":
            return None
        return self._cross_origin(request)

    def _wrong_host(self, request: Request) -> Reply | None:
        host = request.header(b"host")
        if self._insecure:
            if any(name == b"forwarded" or name.startswith(b"x-forwarded-") for name, _ in request.headers):
                return replies.misconfigured(
                    "allow_insecure_http is for localhost, but this request came through a proxy "
                    "(it has forwarding headers); drop it and set origins=['https://...']"
                )
            if not is_local(host.decode("latin-1")):
                return replies.misconfigured(
                    "allow_insecure_http is honoured on localhost only; drop it and set origins=['https://...']"
                )
            return None
        if host != self._host_seen:
            if not is_local(host.decode("latin-1")):
                return replies.misconfigured(
                    "this application does not say what it is called; set origins=['https://your.host'] "
                    "(only localhost and test hosts are served without)"
                )
            self._host_seen = host
        return None

    def _cross_origin(self, request: Request) -> Reply | None:
        if self._csrf == "off":
            return None
        found = self.evidence(request)
        # a handshake without Origin comes from no browser: refused if it brings cookies all the same (CSR-11)
        rides = found is csrf.Evidence.MISSING and request.kind == "websocket" and request.header(b"cookie") != b""
        if found is not csrf.Evidence.CROSS_ORIGIN and not rides:
            return None
        self._heard("csrf_denied", request, reason=csrf.why(request))
        # "report" leaves the refusing to a framework's own check, and none of those looks at a handshake
        return replies.cross_origin() if self._csrf == "refuse" or request.kind == "websocket" else None

    def _embedded(self, request: Request) -> Reply | None:
        """Return the answer to what another site's frame, image or script asks for with a cookie of ours."""
        if not csrf.is_embedded(request) or request.path in self._exempt:
            return None
        brought = request.cookie or request.header(b"cookie")
        if request.kind != "http" or not any(name in brought for name in self._cookies):
            return None  # a stranger's, of which nothing private comes; a socket is judged by its Origin
        if request.header(b"origin").decode("latin-1") in self._trusted:
            return None
        self._heard("session_embedding_refused", request)
        return replies.EMBEDDED

    def evidence(self, request: Request) -> csrf.Evidence:
        """Return what the request's headers say of the site that caused it."""
        return csrf.evidence(request, self._origins, self._trusted, self._exempt)
