"""A browser as far as sessions need one: a jar with the browsers' rules, Fetch metadata, answers late or lost."""

from __future__ import annotations

import json as json_codec
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

Pairs = list[tuple[str, str]]

PATIENCE = 15.0
"""Seconds that a test waits for an answer before it fails."""


@dataclass
class Sent:
    """A request on the wire; `headers` keep their order and may repeat."""

    method: str
    target: str
    scheme: str
    headers: Pairs
    body: bytes = b""
    peer: str = "192.0.2.7"

    @property
    def path(self) -> str:
        """The path, without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """The query, without its question mark."""
        return urlsplit(self.target).query


@dataclass
class Received:
    """A response as it came; `error` is what the application let escape, which a server answers with 500."""

    status: int
    headers: Pairs = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def cookies(self) -> list[str]:
        """The Set-Cookie headers, in their order."""
        return self.all("set-cookie")

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json_codec.loads(self.body)

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name: str) -> str | None:
        """Return the only value of a header, or None; fail when it came twice."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class Pending(Protocol):
    """A request under way."""

    def result(self, timeout: float = PATIENCE) -> Received:
        """Wait for the end of the response."""
        ...

    def disconnect(self) -> None:
        """Go away, as a browser that was closed."""
        ...

    def cancel(self) -> None:
        """Have the server cancel the application, as some do when a client went away."""
        ...

    def chunk(self, timeout: float = PATIENCE) -> bytes | None:
        """Wait for the next part of the body; None is its end."""
        ...


class Socket(Protocol):
    """A websocket under way; a denied one has a `denial`."""

    denial: Received | None

    def send(self, text: str) -> None:
        """Send a text."""
        ...

    def receive(self, timeout: float = PATIENCE) -> str | int:
        """Wait for a text, or for the code of the close."""
        ...

    def close(self, timeout: float = PATIENCE) -> None:
        """Go away, and wait until the application has noticed."""
        ...


class Driver(Protocol):
    """How requests reach an application through one adapter."""

    def start(self, sent: Sent) -> Pending:
        """Begin a request."""
        ...

    def connect(self, sent: Sent) -> Socket:
        """Open a websocket; return when it is accepted or denied."""
        ...

    def close(self) -> None:
        """Stop everything."""
        ...


class Flight:
    """One request of a browser whose answer the test delivers when it likes, or never."""

    def __init__(self, browser: Browser, pending: Pending) -> None:
        """Take off."""
        self._browser = browser
        self.pending = pending

    def wait(self) -> Received:
        """Wait for the answer without giving it to the browser."""
        return self.pending.result()

    def land(self) -> Received:
        """Wait for the answer and give it to the browser."""
        answer = self.wait()
        self._browser.take_in(answer)
        return answer


class Browser:
    """One browser: its jar, and where it is looking."""

    def __init__(self, driver: Driver, base: str = "https://testserver", *, cookie: str = "__Host-coat") -> None:
        """Start with an empty jar; `cookie` is the name of the session cookie."""
        self._driver = driver
        self.base = base
        self.cookie = cookie
        self.jar: dict[str, str] = {}
        self.agent = "Probe/1"

    @property
    def token(self) -> str | None:
        """The session cookie's value."""
        return self.jar.get(self.cookie)

    def twin(self) -> Browser:
        """Return another browser with a copy of the jar: a second tab's view, or a thief."""
        twin = Browser(self._driver, self.base, cookie=self.cookie)
        twin.jar = dict(self.jar)
        return twin

    def get(self, target: str, **how: Any) -> Received:
        """Get a page and take its cookies in."""
        return self.start("GET", target, **how).land()

    def post(self, target: str, form: Mapping[str, Any] | None = None, **how: Any) -> Received:
        """Post a form from one of our own pages."""
        return self.start("POST", target, form=form, **how).land()

    def request(self, method: str, target: str, **how: Any) -> Received:
        """Send any other method."""
        return self.start(method, target, **how).land()

    def login(self, user: str = "alice", **fields: Any) -> Received:
        """Log in by JSON."""
        return self.post("/login", json={"user": user, **fields})

    def start(self, method: str, target: str, **how: Any) -> Flight:
        """Begin a request; see `sent`."""
        return Flight(self, self._driver.start(self.sent(method, target, **how)))

    def connect(self, target: str, **how: Any) -> Socket:
        """Open a websocket from one of our own pages."""
        how.setdefault("origin", self.base)
        how.setdefault("site", None)
        sent = self.sent("GET", target, **how)
        sent.scheme = "wss" if self.base.startswith("https") else "ws"
        return self._driver.connect(sent)

    def sent(  # noqa: PLR0913 - a request has many parts
        self,
        method: str,
        target: str,
        *,
        form: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | Pairs = (),  # type: ignore[assignment]
        site: str | None = "same-origin",
        origin: str | None = None,
        cookies: str | None = None,
        host: str | None = None,
        peer: str = "192.0.2.7",
    ) -> Sent:
        """Return a request as this browser writes it.

        `site` is Sec-Fetch-Site (None: an older browser), `origin` is sent when given; `cookies` replaces the jar's.
        """
        scheme, _, authority = self.base.partition("://")
        pairs: Pairs = [("host", host or authority), ("user-agent", self.agent)]
        if site is not None:
            pairs.append(("sec-fetch-site", site))
        if origin is not None:
            pairs.append(("origin", origin))
        carried = "; ".join(f"{name}={value}" for name, value in self.jar.items()) if cookies is None else cookies
        if carried:
            pairs.append(("cookie", carried))
        body = b""
        if form is not None:
            body = urlencode(form).encode()
            pairs.append(("content-type", "application/x-www-form-urlencoded"))
        elif json is not None:
            body = json_codec.dumps(json).encode()
            pairs.append(("content-type", "application/json"))
        if body:
            pairs.append(("content-length", str(len(body))))
        pairs.extend(headers.items() if isinstance(headers, Mapping) else headers)
        return Sent(method, target, scheme, pairs, body, peer)

    def take_in(self, answer: Received) -> None:
        """Keep or drop the cookies of an answer, in their order, as browsers do (RFC 6265bis section 5.7)."""
        for line in answer.cookies:
            self._store(line)

    def _store(self, line: str) -> None:
        pair, *rest = (part.strip() for part in line.split(";"))
        name, _, value = pair.partition("=")
        attributes = {key.lower(): text for key, _, text in (part.partition("=") for part in rest)}
        if "secure" in attributes and not self.base.startswith("https:"):
            return
        if name.startswith("__Host-") and (
            "secure" not in attributes or "domain" in attributes or attributes.get("path") != "/"
        ):
            return
        if attributes.get("max-age", "1").lstrip("-").isdigit() and int(attributes.get("max-age", "1")) <= 0:
            self.jar.pop(name, None)
        else:
            self.jar[name] = value
