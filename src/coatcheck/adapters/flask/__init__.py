"""Sessions for Flask: `Coatcheck(app, store=...)`, and `flask.session` is our Session.

extension  Coatcheck, `session_of`, `exchange_of` and `require_login`
interface  the session interface: where an exchange begins and is settled; the signal `coatcheck_ended`
mapping    what stands in `flask.session`
settings   what of Flask's own settings is honoured, and what is refused
login      Flask-Login's login, logout and remember-me, translated into ours
commands   `flask coatcheck list` and `revoke`
"""

from .extension import Coatcheck, exchange_of, refusal_response, require_login, session_of
from .interface import Sessions, coatcheck_ended
from .mapping import FlaskSession, NoSession, session
from .settings import OWN_KEYS

__all__ = [
    "OWN_KEYS",
    "Coatcheck",
    "FlaskSession",
    "NoSession",
    "Sessions",
    "coatcheck_ended",
    "exchange_of",
    "refusal_response",
    "require_login",
    "session",
    "session_of",
]
