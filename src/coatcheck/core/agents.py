"""What a user agent says it is: the family of the browser, its major version, the platform. A claim, never a proof.

ua-parser reads it (the extra `detection`), loaded with the first agent; ours is only what makes two names of one thing
the same: phones have a "desktop site" switch, and one browser engine has several names on them.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

import msgspec

from .errors import ConfigError
from .model import Request

MOST_PARSED = 256
"""Characters of an agent that are looked at: nothing that tells browsers apart stands further back."""
_SAME_BROWSER = (" Mobile WebView", " Mobile iOS", " Mobile", " iOS", " WebView", " UI/WKWebView")
_PLATFORMS = {"Windows", "Mac OS X", "Android", "iOS", "Chrome OS"}
_LINUXES = {"Linux", "Ubuntu", "Debian", "Fedora", "Arch Linux", "Red Hat", "SUSE", "Gentoo", "Mint", "FreeBSD"}
_HINTED = {"macOS": "Mac OS X", "Chromium OS": "Chrome OS"}


class Agent(msgspec.Struct, frozen=True, gc=False):
    """A browser, as far as it tells; "" and None for what it does not."""

    family: str = ""
    major: int | None = None
    platform: str = ""


def check_parser() -> None:
    """Raise ConfigError where the library that reads user agents is not installed."""
    if find_spec("ua_parser") is None:
        message = "detectors of browsers and platforms need ua-parser; install coatcheck[detection]"
        raise ConfigError(message)


@lru_cache(maxsize=1024)
def parsed(agent: str | None) -> Agent:
    """Return what a User-Agent header says."""
    if not agent:
        return Agent()
    from ua_parser import parse_os, parse_user_agent  # it reads its rules now, a tenth of a second

    text = agent[:MOST_PARSED]
    browser, system = parse_user_agent(text), parse_os(text)
    family = "" if browser is None else _family(browser.family)
    major = browser.major if browser is not None else None
    platform = "" if system is None else _platform(system.family)
    return Agent(family, int(major) if major and major.isdecimal() else None, platform)


def hinted(request: Request) -> str:
    """Return the platform that a request's Sec-CH-UA-Platform names (Chromium only), or ""."""
    value = request.header(b"sec-ch-ua-platform")[:64].decode("latin-1").strip('" ')
    return _platform(_HINTED.get(value, value))


def _family(name: str) -> str:
    for ending in _SAME_BROWSER:
        name = name.removesuffix(ending)
    return name.removeprefix("Mobile ")


def _platform(name: str) -> str:
    if name in _PLATFORMS:
        return name
    return "Linux" if name in _LINUXES else ""
