"""Django Channels: a consumer, the typed session, typed data, a guard, and what commits at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from channels.generic.websocket import AsyncJsonWebsocketConsumer  # type: ignore[import-untyped]
from channels.routing import URLRouter  # type: ignore[import-untyped]

from coatcheck import AsyncExchange, Session, Typed
from coatcheck.adapters.django.channels import AuthMiddlewareStack, RequireLogin, exchange_of, session_of


class Said(msgspec.Struct):
    """The application's own data."""

    words: list[str] = []


class Chat(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """What a user writes."""

    async def connect(self) -> None:
        """Let nobody in who is not logged in."""
        session: Session = session_of(self)
        who: str = session.require_login(within=timedelta(minutes=10))
        await self.accept(who)

    async def receive_json(self, content: dict[str, str], **_more: Any) -> None:
        """Keep what was said."""
        said: Typed[Said] = session_of(self, Said)
        said.data.words.append(content["text"])
        exchange: AsyncExchange = exchange_of(self)
        count: int = await exchange.bump(session_of(self), "count")
        await exchange.save(session_of(self))
        await self.send_json({"count": count})


open_to_all = AuthMiddlewareStack(Chat.as_asgi())
application = AuthMiddlewareStack(RequireLogin(URLRouter([]), within=600))
