"""A Tornado application as users write it, for the type checkers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from coatcheck import AsyncRegistry, Session, Typed
from coatcheck.adapters.tornado import SessionMixin, Sessions, exchange_of, require_login, session_of, setup


@dataclass
class Cart:
    """The application's own data."""

    items: list[int] = field(default_factory=list)


class Login(SessionMixin, RequestHandler):
    """A form's target."""

    def post(self) -> None:
        """Log in."""
        session: Session = self.session
        session.login("alice")
        self.redirect("/", status=303)


class Account(SessionMixin, RequestHandler):
    """A guarded page."""

    @require_login(within=timedelta(minutes=10))
    async def get(self) -> None:
        """Answer."""
        cart: Typed[Cart] = session_of(self, Cart)
        cart.data.items.append(7)
        await exchange_of(self).save(self.session)
        self.write(self.session.subject or "")


class Chat(SessionMixin, WebSocketHandler):
    """A socket."""

    @require_login
    def prepare(self) -> None:
        """Write."""
        self.session["chats"] = 1

    async def on_message(self, message: str | bytes) -> None:
        """Answer."""
        await self.write_message(f"{self.session.subject} said {message!r}")


app = Application([("/login", Login), ("/account", Account), ("/chat", Chat)])
sessions: Sessions = setup(app, store="sqlite:///sessions.db", login_url="/login")
registry: AsyncRegistry = sessions.registry
