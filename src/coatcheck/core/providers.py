"""With whom logins are shared: each identity provider, how long its sessions last, how its logouts reach us.

It is an inventory (ASVS 5.0 7.1.3): `coatcheck policy show` prints it, `policy lint` tells where a logout does not
reach us, and a receiver believes nobody who is not listed, as soon as anybody is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from .errors import ConfigError

Channel: TypeAlias = Literal["back-channel", "front-channel", "caep"]
"""How a logout comes: by a logout token, by a page of ours in a frame of theirs, or as a security event."""
CHANNELS: Final = frozenset(get_args(Channel))


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """An identity provider whose logins become sessions here.

    issuer: as its tokens spell it. lifetime: seconds that a session of its own lasts; None: it does not say.
    max_age: seconds after which it is asked for a new authentication (OpenID Connect Core section 3.1.2.1).
    logouts: how the end of a session there reaches ours. why: why it does not.
    """

    issuer: str
    lifetime: float | None = None
    max_age: float | None = None
    logouts: Collection[Channel] = ()
    why: str = ""

    def problems(self) -> Iterable[str]:
        """Yield what is wrong with it."""
        if not self.issuer or not self.issuer.isprintable():
            yield f"a provider's issuer is what its tokens say it is (found {self.issuer!r:.80})"
        for name in ("lifetime", "max_age"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                yield f"{name} of the provider {self.issuer!r:.80} is a number of seconds (found {value!r:.40})"
        if isinstance(self.logouts, str) or not set(self.logouts) <= CHANNELS:
            listed = ", ".join(sorted(CHANNELS))
            yield f"logouts of the provider {self.issuer!r:.80} is a list of {listed} (found {self.logouts!r:.80})"


def problems(providers: Sequence[Provider]) -> Iterable[str]:
    """Yield what is wrong with a list of providers."""
    seen: set[str] = set()
    for one in providers:
        if not isinstance(one, Provider):
            yield f"providers is a list of Provider(issuer=...) (found {one!r:.80})"
            continue
        yield from one.problems()
        if one.issuer in seen:
            yield f"the provider {one.issuer!r:.80} is listed twice; name all of its channels at once"
        seen.add(one.issuer)


def check_listed(providers: Sequence[Provider], channel: Channel, issuers: Iterable[str]) -> None:
    """Raise ConfigError for one whose logouts are believed, and who is not listed with that channel."""
    listed = {one.issuer for one in providers if channel in one.logouts}
    for issuer in issuers:
        if providers and issuer not in listed:
            message = (
                f"logouts of {issuer!r:.80} are believed, and providers does not list it with {channel!r}; "
                "add it there, so that the list is whole"
            )
            raise ConfigError(message)


def said(one: Provider) -> str:
    """Return what an inventory says of a provider."""
    lasts = "how long its sessions last is not said"
    if one.lifetime is not None:
        lasts = f"its sessions last {one.lifetime:g} s"
    asked = "never asked for a new proof" if one.max_age is None else f"asked for a new proof after {one.max_age:g} s"
    ends = f"its logouts come by {', '.join(sorted(one.logouts))}" if one.logouts else "its logouts do not reach us"
    because = f" (because: {one.why})" if one.why else ""
    return f"{one.issuer}: {lasts}; {asked}; {ends}{because}"
