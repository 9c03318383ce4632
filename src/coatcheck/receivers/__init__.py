"""What an identity provider says of its sessions, heard: back-channel logout (OpenID) and session-revoked (CAEP).

Needs joserfc (docs/receivers.md).
"""

from ..core.jose import Refused
from ..core.notices import Issuer, Stream
from ..flow.async_receivers import AsyncReceiver
from ..flow.receivers import Receiver
from .endpoints import asgi_endpoint, wsgi_endpoint

__all__ = ["AsyncReceiver", "Issuer", "Receiver", "Refused", "Stream", "asgi_endpoint", "wsgi_endpoint"]
