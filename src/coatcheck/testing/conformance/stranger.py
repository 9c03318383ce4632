"""A stranger: an application of which we know an address, and perhaps how to log in; visitors with jars come to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import msgspec

from ...core.errors import ConfigError
from .verdicts import unfit
from .wire import MOST_REDIRECTS, Heard, Wire

ELSEWHERE = "https://evil.example"
AGENT = "coatcheck-conform/1 (+https://coatcheck.invalid/conform)"


class Way(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to log in, see that it worked, and log out; what is not given cannot be judged.

    - login_path, fields: where the login is posted, and what. as_json: as a JSON object, not as a form.
      form_path: the page whose hidden fields go with it (login_path, unless it is said).
    - probe: a page that only a logged-in user gets. says: a text that it then shows, where its status says nothing.
    - logout_path: where the logout is posted.
    - cookie: the name of the session cookie, where it cannot be found out.
    - samples: how many sessions are begun to look at their tokens.
    """

    login_path: str = ""
    fields: dict[str, str] = {}
    as_json: bool = False
    form_path: str = ""
    probe: str = ""
    says: str = ""
    logout_path: str = ""
    cookie: str = ""
    samples: int = 20

    def check(self) -> None:
        """Raise ConfigError for what does not fit together."""
        for path in (self.login_path, self.form_path, self.probe, self.logout_path):
            if path and (not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path):
                message = f"paths start with / and are written as in an address (found {path!r:.60})"
                raise ConfigError(message)
        if self.login_path and not (self.fields and self.probe):
            message = (
                "a login needs what to post (--field name=value) and a page that shows whether it worked (--probe)"
            )
            raise ConfigError(message)
        if not 2 <= self.samples <= 1000:
            message = f"samples are 2 to 1000 (found {self.samples})"
            raise ConfigError(message)


class SetCookie(msgspec.Struct, frozen=True):
    """One Set-Cookie line, taken apart as browsers do (RFC 6265bis §5.6)."""

    line: str
    name: str
    value: str
    attributes: dict[str, str]

    def has(self, name: str) -> bool:
        """Tell whether it has an attribute."""
        return name in self.attributes

    @property
    def deletes(self) -> bool:
        """Whether it takes the cookie away."""
        age = self.attributes.get("max-age", "1")
        return (age.lstrip("-").isdigit() and int(age) <= 0) or "1970" in self.attributes.get("expires", "")


def cookies_of(heard: Heard) -> list[SetCookie]:
    """Return the cookies that an answer sets."""
    found = []
    for line in heard.all("set-cookie"):
        pair, *rest = line.split(";")
        name, _, value = pair.partition("=")
        said = (part.strip().partition("=") for part in rest)
        attributes = {key.strip().lower(): text.strip() for key, _, text in said}
        found.append(SetCookie(line, name.strip(), value.strip(), attributes))
    return found


class Visitor:
    """A browser with a jar, on one application."""

    def __init__(self, wire: Wire, heard: list[Heard]) -> None:
        """Start with an empty jar; what is answered is noted in `heard`."""
        self.wire = wire
        self.jar: dict[str, str] = {}
        self._heard = heard

    def ask(  # noqa: PLR0913 - a request has many parts
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        kind: str = "",
        site: str | None = "same-origin",
        origin: str | None = None,
        headers: Iterable[tuple[str, str | bytes]] = (),
        cookies: str | bytes | None = None,
        accept: str = "text/html,application/json;q=0.9,*/*;q=0.8",
    ) -> Heard:
        """Send a request as a browser does, and take its cookies in, unless `cookies` replaces them; follow nothing."""
        lines: list[tuple[str, str | bytes]] = [("user-agent", AGENT), ("accept", accept)]
        if site is not None:
            lines += [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
        if origin is not None:
            lines.append(("origin", origin))
        carried = "; ".join(f"{name}={value}" for name, value in self.jar.items()) if cookies is None else cookies
        if carried:
            lines.append(("cookie", carried))
        if kind:
            lines.append(("content-type", kind))
        heard = self.wire.ask(method, target, [*lines, *headers], body)
        self._heard.append(heard)
        if cookies is None:
            self.take_in(heard)
        return heard

    def see(self, target: str) -> Heard:
        """Get a page, and follow where it leads on this application."""
        heard = self.ask("GET", target)
        for _ in range(MOST_REDIRECTS):
            onward = self.wire.onward(heard)
            if onward is None:
                break
            heard = self.ask("GET", onward)
        return heard

    def post(self, target: str, fields: Mapping[str, str], *, as_json: bool = False, **how: Any) -> Heard:
        """Post fields from one of its own pages, unless `site` and `origin` say otherwise."""
        body = json.dumps(dict(fields)) if as_json else urlencode(dict(fields))
        kind = "application/json" if as_json else "application/x-www-form-urlencoded"
        how.setdefault("origin", self.wire.origin)
        return self.ask("POST", target, body=body.encode(), kind=kind, **how)

    def take_in(self, heard: Heard) -> None:
        """Keep or drop the cookies of an answer."""
        for one in cookies_of(heard):
            if one.deletes:
                self.jar.pop(one.name, None)
            else:
                self.jar[one.name] = one.value


class Stranger:
    """The application, the way to log in, and what is learnt of it once for all rows."""

    def __init__(self, wire: Wire, way: Way) -> None:
        """Take the wire, and the checked way."""
        self.wire = wire
        self.way = way
        self.heard: list[Heard] = []

    def visitor(self) -> Visitor:
        """Return a browser with an empty jar."""
        return Visitor(self.wire, self.heard)

    # -- logging in and out -------------------------------------------------------------------------------------------

    def needs_login(self) -> None:
        """Say that a row cannot be judged where it is not known how to log in."""
        if not self.way.login_path:
            raise Unseen("a login is needed to judge it: --login-path, --field, --probe")  # noqa: EM101, TRY003

    def needs_logout(self) -> None:
        """Say that a row cannot be judged where it is not known how to log out."""
        self.needs_login()
        if not self.way.logout_path:
            raise Unseen("a logout is needed to judge it: --logout-path")  # noqa: EM101, TRY003

    def needs_tls(self) -> None:
        """Say that a row does not apply to plain http."""
        if not self.wire.secure:
            unfit("The application was asked over plain http; judge its https address.")

    def log_in(self, visitor: Visitor, **changed: str) -> Heard:
        """Post the login as a browser does, with the hidden fields of its page; return what it answers."""
        way = self.way
        hidden = self.hidden(visitor, way.form_path or way.login_path)
        fields = {**hidden, **way.fields, **changed}
        return visitor.post(way.login_path, fields, as_json=way.as_json)

    def logged_in(self) -> Visitor:
        """Return a visitor who is logged in; fail where that cannot be done."""
        visitor = self.visitor()
        answer = self.log_in(visitor)
        if not self.knows(visitor):
            message = (
                f"the login was answered with {answer.status}, and {self.way.probe} does not show anybody logged in"
            )
            raise AssertionError(message)
        return visitor

    def log_out(self, visitor: Visitor, **how: Any) -> Heard:
        """Post the logout, with the hidden fields of the page that shows who is logged in."""
        return visitor.post(self.way.logout_path, self.hidden(visitor, self.way.probe), **how)

    def hidden(self, visitor: Visitor, path: str) -> dict[str, str]:
        """Return the hidden fields of a page's forms: what its own CSRF tokens are carried by."""
        page = visitor.see(path)
        reader = _Hidden()
        if "html" in page.header("content-type"):
            reader.feed(page.text)
        return reader.fields

    def knows(self, visitor: Visitor, cookies: str | bytes | None = None, target: str | None = None) -> bool:
        """Tell whether the probe page shows somebody logged in, to the visitor's jar or to other cookies."""
        heard = visitor.ask("GET", target or self.way.probe, cookies=cookies)
        return heard.status == 200 and self.way.says in heard.text

    # -- what is learnt once ------------------------------------------------------------------------------------------

    @cached_property
    def begun(self) -> list[Visitor]:
        """Several logins of the same user, each in a browser of its own."""
        return [self.logged_in() for _ in range(self.way.samples)]

    def living(self) -> Visitor:
        """Return a visitor whose session is alive now: a limit of sessions may have ended the first ones.

        A dead one would pass every row that asks that something opens nothing.
        """
        visitor = self.begun[-1]
        return visitor if self.knows(visitor, self.without(visitor, "")) else self.logged_in()

    @cached_property
    def session_cookies(self) -> tuple[str, ...]:
        """The cookies without which nobody is logged in."""
        if self.knows(self.visitor()):
            message = f"{self.way.probe} answers everybody alike; name a page for users only, or a text of it (--says)"
            raise ConfigError(message)
        if self.way.cookie:
            return (self.way.cookie,)
        visitor = self.logged_in()
        found = [name for name in visitor.jar if not self.knows(visitor, _header(visitor.jar, without=name))]
        if not found:
            message = f"the login works, but by none of its cookies alone ({', '.join(visitor.jar) or 'there is none'})"
            raise ConfigError(message)
        return tuple(found)

    @property
    def cookie(self) -> str:
        """The session cookie: of several, the longest."""
        jar = self.begun[0].jar
        return max(self.session_cookies, key=lambda name: len(jar.get(name, "")))

    def lines(self) -> list[SetCookie]:
        """Return every cookie that was set so far that belongs to a session (all, where that is not known)."""
        names = self.session_cookies if self.way.login_path else ()
        found = [one for heard in self.heard for one in cookies_of(heard) if not one.deletes]
        return [one for one in found if not names or one.name in names]

    def with_cookie(self, visitor: Visitor, value: str, name: str | None = None) -> str:
        """Return a Cookie header with another value under the session cookie's name."""
        return _header({**visitor.jar, name or self.cookie: value})

    def without(self, visitor: Visitor, name: str) -> str:
        """Return a Cookie header without one of the visitor's cookies."""
        return _header(visitor.jar, without=name)


class Unseen(Exception):  # noqa: N818 - what it says
    """The row cannot be judged from outside with what was given; its text says what is missing."""


def _header(jar: Mapping[str, str], without: str = "") -> str:
    # "a=" and not "": an empty Cookie header is none at all, and the jar would be sent instead
    return "; ".join(f"{name}={value}" for name, value in jar.items() if name != without) or "nothing=0"


class _Hidden(HTMLParser):
    """Reads the hidden fields of a page's forms."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "input" and (said.get("type") or "").lower() == "hidden" and said.get("name"):
            self.fields.setdefault(str(said["name"]), said.get("value") or "")
