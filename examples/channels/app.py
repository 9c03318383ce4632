"""Django Channels in one file: who is logged in may chat, until the session is over.

pip install "coatcheck[django]" "channels[daphne]", then in this folder:
  python app.py migrate
  python app.py createsuperuser
  daphne app:application          then open http://localhost:8000
"""

import sys
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line

settings.configure(
    DEBUG=True,
    SECRET_KEY="change me before anybody else sees this",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path.cwd() / "site.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    LOGIN_URL="/login/",
    LOGIN_REDIRECT_URL="/",
    LOGOUT_REDIRECT_URL="/login/",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "channels", "coatcheck.adapters.django"],
    MIDDLEWARE=[
        "coatcheck.adapters.django.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="coatcheck.adapters.django",
    # For http on localhost only. In production: "__Host-session", True, and no ALLOW_INSECURE_HTTP.
    SESSION_COOKIE_NAME="session-insecure",
    SESSION_COOKIE_SECURE=False,
    COATCHECK={"STORE": "django", "ALLOW_INSECURE_HTTP": True},
    # for one process; several need channels_redis
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {
                            "registration/login.html": """<form method="post">{% csrf_token %}{{ form }}
<button>Log in</button></form>""",
                            "chat.html": """<p>You are {{ request.user }}.</p><ul></ul><input autofocus>
<form method="post" action="/logout/">{% csrf_token %}<button>Log out</button></form>
<script>
  const [list, input] = [document.querySelector("ul"), document.querySelector("input")]
  const shown = (text) => { list.append(Object.assign(document.createElement("li"), { textContent: text })) }
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat")
  socket.onmessage = ({ data }) => shown(JSON.parse(data).text)
  socket.onclose = ({ code }) => shown(code == 4401 ? "You are logged out." : "The connection is lost.")
  input.onchange = () => { socket.send(JSON.stringify({ text: input.value })); input.value = "" }
</script>""",
                        },
                    )
                ],
            },
        }
    ],
)

pages = get_asgi_application()  # before anything that needs the models

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.views import LoginView, LogoutView  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.urls import path  # noqa: E402

from coatcheck.adapters.django.channels import AuthMiddlewareStack, session_of  # noqa: E402


class Chat(AsyncJsonWebsocketConsumer):
    """One room for everybody who is logged in."""

    groups = ("room",)

    async def connect(self):
        """Let nobody else in."""
        session_of(self).require_login()
        await self.accept()

    async def receive_json(self, content):
        """Tell everybody, and count in the session."""
        session = self.scope["session"]
        session["said"] = session.get("said", 0) + 1
        await session.asave()
        text = f"{self.scope['user'].username} ({session['said']}): {content['text']}"
        await self.channel_layer.group_send("room", {"type": "told", "text": text})

    async def told(self, event):
        """Pass on what somebody said."""
        await self.send_json({"text": event["text"]})


@login_required
def home(request):
    """Show the room."""
    return render(request, "chat.html")


urlpatterns = [path("", home), path("login/", LoginView.as_view()), path("logout/", LogoutView.as_view())]

application = ProtocolTypeRouter(
    {"http": pages, "websocket": AuthMiddlewareStack(URLRouter([path("chat", Chat.as_asgi())]))}
)

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
