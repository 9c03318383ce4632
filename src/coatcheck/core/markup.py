"""The HTML that carries a session's CSRF token: a form's field, a page's meta tag, htmx's attribute.

Template engines that escape ask `__html__` first (Jinja, Mako and Chameleon as MarkupSafe does, and Django), so they
take `Markup` as it is. Whatever is made of it, by `+`, `%` or a slice, is plain text again and gets escaped.
"""

from __future__ import annotations

import json
from html import escape

FIELD = "csrf_token"
"""The name of the form field."""
HEADER = "X-CSRF-Token"
"""The header that scripts send the token in (OWASP, CSRF Prevention cheat sheet)."""
META = "csrf-token"
"""The name of the meta tag, where scripts find it."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return it: there is nothing left to escape."""
        return str(self)


def field(token: str) -> Markup:
    """Return a hidden field, for a form that is posted to this site."""
    return Markup(f'<input type="hidden" name="{FIELD}" value="{escape(token)}">')


def meta(token: str) -> Markup:
    """Return a meta tag, for a page's head; `fetch` reads it there and sends it as a header."""
    return Markup(f'<meta name="{META}" content="{escape(token)}">')


def htmx(token: str) -> Markup:
    """Return htmx's attribute, for the body: what htmx sends from below it carries the header.

    htmx 4 hands an attribute down only under its longer name; older ones do not know that name.
    """
    headers = escape(json.dumps({HEADER: token}))
    return Markup(f'hx-headers="{headers}" hx-headers:inherited="{headers}"')
