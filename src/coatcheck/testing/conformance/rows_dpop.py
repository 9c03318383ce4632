"""Rows 1.M: tokens that are bound to a key by DPoP (RFC 9449). There are none here, and each row says so.

coatcheck hands out cookies, bound to a device by DBSC (rows 1.L); an access token with a `cnf` is an authorization
server's. What can be shown is shown: no Authorization header, with a proof or without, is a session.
"""

from __future__ import annotations

from typing import NoReturn

from .registry import row
from .rows_tokens import NOBODY, token_of
from .site import Site
from .verdicts import expect, unfit


def _none_here(site: Site, what: str) -> NoReturn:
    token = token_of(site.logged_in())
    for scheme in ("DPoP", "Bearer"):
        for proof in ({}, {"dpop": "a.b.c"}):
            answer = site.ask("GET", "/me", headers={"authorization": f"{scheme} {token}", **proof})
            expect(f"what a token as {scheme} opens", answer.status, NOBODY)
    unfit(f"coatcheck hands out no access tokens, so {what}; cookies are bound to a device by DBSC (1.L).")


@row("DPP-01")
def no_proofs_are_taken(site: Site) -> None:
    """There is no request in which a DPoP proof stands for anything."""
    _none_here(site, "no request needs a proof")


@row("DPP-02")
def no_token_is_taken_from_authorization(site: Site) -> None:
    """A session's token in an Authorization header is nobody's, whatever the scheme."""
    _none_here(site, "none is bound to a key; a session's token as Bearer or DPoP is nobody's")


@row("DPP-03")
def no_proofs_are_remembered(site: Site) -> None:
    """There are no proofs that could be shown twice."""
    _none_here(site, "there is no proof to be used twice")


@row("DPP-04")
def no_nonces_are_asked_for(site: Site) -> None:
    """There are no proofs that could hold a nonce."""
    _none_here(site, "there is no proof to hold a nonce")


@row("DPP-05")
def no_thumbprints_are_kept(site: Site) -> None:
    """There is no token that could name a key."""
    _none_here(site, "no token has a cnf.jkt")
