"""Template tags for the session's CSRF token: `{% csrf_field %}` in a form, `{% csrf_meta %}`, `{% csrf_htmx %}`.

They are for views that call `session_of(request).require_csrf(...)`; Django's own check has its own `{% csrf_token %}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template  # type: ignore[import-untyped]

from ....core.errors import ConfigError
from ....core.markup import Markup
from ....core.session import Session
from ..middleware import session_of

register = template.Library()


@register.simple_tag(takes_context=True)  # type: ignore[untyped-decorator]
def csrf_field(context: Mapping[str, Any]) -> Markup:
    """Return a form's hidden field."""
    return _session_in(context).csrf_field()


@register.simple_tag(takes_context=True)  # type: ignore[untyped-decorator]
def csrf_meta(context: Mapping[str, Any]) -> Markup:
    """Return a meta tag, for scripts."""
    return _session_in(context).csrf_meta()


@register.simple_tag(takes_context=True)  # type: ignore[untyped-decorator]
def csrf_htmx(context: Mapping[str, Any]) -> Markup:
    """Return htmx's attribute, for the body's tag."""
    return _session_in(context).csrf_htmx()


def _session_in(context: Mapping[str, Any]) -> Session:
    request = context.get("request")
    if request is None:
        message = (
            "the template has no request to take a CSRF token from; render it by render(request, ...), with "
            "django.template.context_processors.request among the context_processors"
        )
        raise ConfigError(message)
    return session_of(request)
