"""Tells people and other systems what happened to sessions: signed webhooks, and e-mail.

What is here are listeners, for the setting `on_event`: each is called with one event after it was committed, in a
thread of its own.
"""

from .mail import Mail, Mailer, Smtp
from .webhook import Webhook

__all__ = ["Mail", "Mailer", "Smtp", "Webhook"]
