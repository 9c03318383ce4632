"""Events to people: a plain-text e-mail for each, to the owner of the session or to an operator."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Collection
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from typing import Literal, Protocol

from ..core.errors import ConfigError
from ..core.model import Event
from . import words
from .delivery import Choice, Delivery, TryAgain, logger

SECONDS = 30.0
"""What an SMTP server may take to answer."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NEVER = range(500, 600)  # RFC 5321 section 4.2.1: the same message will be refused again


class Mailer(Protocol):
    """What hands a message over; raises TryAgain or OSError where it should be tried again."""

    def send(self, message: EmailMessage) -> None:
        """Hand a message over."""
        ...


class Mail:
    """Writes e-mails about events; a listener for `on_event`."""

    def __init__(
        self,
        mailer: Mailer,
        sender: str,
        to: str | Callable[[Event], str | None],
        *,
        names: Collection[str] | None = None,
        at_least: str = "critical",
        headline: Callable[[Event], str] = words.headline,
        text: Callable[[Event], str] = words.text,
        delivery: Delivery | None = None,
    ) -> None:
        """Take who writes to whom: an address, or a function that returns the owner's for an event, or None.

        Written are the events named, or all from a severity on. Raises ConfigError for what is no address.
        """
        self._mailer, self._sender, self._to = mailer, _address(sender), to
        self._fixed = _address(to) if isinstance(to, str) else None
        self._choice = Choice(names, at_least)
        self._headline, self._text = headline, text
        self._delivery = delivery or Delivery()

    def __call__(self, event: Event) -> None:
        """Write about an event, if it is worth it and somebody is to know."""
        if not self._choice.takes(event):
            return
        to = self._fixed
        if callable(self._to):
            found = self._to(event)
            to = None if found is None else _address(found)
        if to is not None:
            message = self.written(event, to)
            self._delivery.deliver(lambda: self._send(message, event), f"e-mail about {event.name}")

    def written(self, event: Event, to: Address) -> EmailMessage:
        """Return the message about an event."""
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = to
        message["Subject"] = " ".join(self._headline(event).split())
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = make_msgid(domain=self._sender.domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's out-of-office answers it
        message.set_content(self._text(event))
        return message

    def _send(self, written: EmailMessage, event: Event) -> None:
        try:
            self._mailer.send(written)
        except smtplib.SMTPResponseException as refused:
            if refused.smtp_code not in _NEVER:
                message = f"the server answered {refused.smtp_code}"
                raise TryAgain(message) from refused
            logger.error("e-mail about %s was refused: the server answered %d", event.name, refused.smtp_code)
        except smtplib.SMTPRecipientsRefused as refused:
            logger.error("e-mail about %s was refused: %s", event.name, _codes(refused))
        except OSError as error:  # smtplib's other errors are of this kind, too
            raise TryAgain(str(error) or type(error).__name__) from error


class Smtp:
    """Hands messages to an SMTP server, each over a connection of its own."""

    def __init__(
        self,
        host: str,
        port: int = 587,
        *,
        user: str | None = None,
        password: str = "",
        tls: Literal["starttls", "implicit", "unsafe_plain"] = "starttls",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Take the server; raise ConfigError for a password over plain text to anywhere but this machine.

        tls: "starttls" (port 587), "implicit" (port 465, RFC 8314), or "unsafe_plain" for a relay that one trusts the
        way to.
        """
        if tls not in ("starttls", "implicit", "unsafe_plain"):
            message = f"tls is 'starttls', 'implicit' or 'unsafe_plain' (found {tls!r:.40})"
            raise ConfigError(message)
        if user is not None and tls == "unsafe_plain" and host not in _LOOPBACK:
            message = f"the password would travel to {host} in clear text; use tls='starttls' or 'implicit'"
            raise ConfigError(message)
        self._host, self._port, self._tls = host, port, tls
        self._user, self._password = user, password
        self._context = context

    def send(self, message: EmailMessage) -> None:
        """Hand a message over; raises what smtplib raises."""
        with self._connected() as server:
            if self._tls == "starttls":
                server.starttls(context=self._context or ssl.create_default_context())
            if self._user is not None:
                server.login(self._user, self._password)
            server.send_message(message)

    def __repr__(self) -> str:
        """Show no password."""
        return f"<Smtp {self._host}:{self._port}>"

    def _connected(self) -> smtplib.SMTP:
        if self._tls == "implicit":
            context = self._context or ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=SECONDS, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=SECONDS)


def _address(text: str) -> Address:
    try:
        found = Address(addr_spec=text)
    except (ValueError, IndexError, MessageError):  # the standard library's parser raises any of them
        found = None
    if found is None or not found.domain or not text.isprintable():
        raise _no_address(text)
    return found


def _no_address(text: str) -> ConfigError:
    return ConfigError(f"an e-mail address is name@host (found {text!r:.80})")


def _codes(refused: smtplib.SMTPRecipientsRefused) -> str:
    return ", ".join(str(code) for code, _ in refused.recipients.values())
