"""The probe's socket and its event stream as consumers of Channels, awaited and in threads, beside Django's pages."""

from typing import Any
from urllib.parse import parse_qsl

from .django_site import ready

ready()

from channels.auth import login  # noqa: E402
from channels.generic.http import AsyncHttpConsumer  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from coatcheck.adapters.django.channels import AuthMiddlewareStack, session_of  # noqa: E402
from coatcheck.testing import Control, Probe  # noqa: E402

from .probe_django import asgi_probe  # noqa: E402

DENIED = [
    {"type": "websocket.http.response.start", "status": 403, "headers": []},
    {"type": "websocket.http.response.body", "body": b"denied"},
]


class Awaited(AsyncWebsocketConsumer):
    """What the raw probe's socket does, in Channels' words."""

    probe: Probe

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe

    async def connect(self) -> None:
        query = dict(parse_qsl(self.scope["query_string"].decode()))
        session = self.scope["session"]
        if "write" in query:
            session["ws"] = query["write"]
        if "logout" in query:
            await session.aflush()
        if "deny" in query:
            for message in DENIED:
                await self.base_send(message)
        elif "close" in query:
            await self.close(1000)
        else:
            await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        text, session = text_data or "", self.scope["session"]
        if text.startswith(("write ", "save ")):
            session["ws"] = text.partition(" ")[2]
        if text.startswith("save "):
            await session.asave()
        elif text == "login":
            try:
                await login(self.scope, User(pk=7, username="mallory"))
            except Exception as error:  # noqa: BLE001 - its name is the answer
                text = type(error).__name__
        await self.send(f"{session_of(self).subject}: {text}")

    async def disconnect(self, code: int) -> None:
        self.probe.late.append(f"ws {code}")


class InThreads(WebsocketConsumer):
    """The same, blocking."""

    probe: Probe

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe

    def connect(self) -> None:
        query = dict(parse_qsl(self.scope["query_string"].decode()))
        session = self.scope["session"]
        if "write" in query:
            session["ws"] = query["write"]
        if "logout" in query:
            session.flush()
        if "deny" in query:
            for message in DENIED:
                self.base_send(message)
        elif "close" in query:
            self.close(1000)
        else:
            self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        text, session = text_data or "", self.scope["session"]
        if text.startswith(("write ", "save ")):
            session["ws"] = text.partition(" ")[2]
        if text.startswith("save "):
            session.save()
        elif text == "login":
            try:
                session["_auth_user_id"] = "7"
            except Exception as error:  # noqa: BLE001 - its name is the answer
                text = type(error).__name__
        self.send(f"{session_of(self).subject}: {text}")

    def disconnect(self, code: int) -> None:
        self.probe.late.append(f"ws {code}")


class Events(AsyncHttpConsumer):
    """Server-sent events: one at the start, then silence until the client goes or the session is over."""

    async def http_request(self, message: Any) -> None:
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        await self.send_body(f"data: {session_of(self).subject}\n\n".encode(), more_body=True)


def channels_probe(control: Control, consumer: Any) -> Any:
    """Return the probe as a project of Channels: sockets and events are consumers, the rest are Django's views."""
    return ProtocolTypeRouter(
        {
            "http": URLRouter([path("sse", AuthMiddlewareStack(Events.as_asgi())), re_path("", asgi_probe(control))]),
            "websocket": AuthMiddlewareStack(URLRouter([path("ws", consumer.as_asgi(probe=control.probe))])),
        }
    )
