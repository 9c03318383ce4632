"""Sessions for Django: an engine, a middleware that takes the place of Django's own, checks, and a store.

site        the settings, as a manager and an exchange
engine      SessionStore: Django's session class over ours
middleware  SessionMiddleware, `session_of`, `exchange_of` and `refusal_response`
guards      `require_login` and RequireLoginMixin
store       sessions in Django's own database connection; `tables` makes them
checks      what `manage.py check` says about insecure settings
"""

from .engine import SessionStore
from .guards import RequireLoginMixin, require_login
from .middleware import SessionMiddleware, exchange_of, refusal_response, session_of

__all__ = [
    "RequireLoginMixin",
    "SessionMiddleware",
    "SessionStore",
    "exchange_of",
    "refusal_response",
    "require_login",
    "session_of",
]
