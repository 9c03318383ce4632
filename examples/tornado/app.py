"""A small Tornado application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[tornado]", then: python app.py
"""

import asyncio
import sys

from tornado.template import Template
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from coatcheck.adapters.tornado import SessionMixin, require_login, setup

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your own database

HOME = """<!doctype html><title>Example</title><p><em>{{ note }}</em>
{% if current_user %}
  <p>Hello {{ current_user }}, visit {{ visits }}. <a href="/sessions">Your sessions</a>
  <form method="post" action="/logout"><button>Log out</button></form>
{% else %}
  <p>Hello stranger, visit {{ visits }}. <a href="/login">Log in</a>
{% end %}
"""
LOGIN = """<!doctype html><title>Log in</title><p><em>{{ note }}</em>
<form method="post"><input name="user" autocomplete="username" required>
<input name="password" type="password" autocomplete="current-password" required>
<label><input type="checkbox" name="remember"> Remember me</label> <button>Log in</button></form>
"""
SESSIONS = """<!doctype html><title>Your sessions</title><ul>
{% for one in found %}<li>{{ one.client.agent }} ({{ one.client.address }})
  {% if one.handle == here %}this one{% else %}
  <form method="post" action="/sessions/{{ one.handle }}/revoke"><button>End it</button></form>{% end %}
{% end %}</ul><a href="/">Back</a>
"""


class Page(SessionMixin, RequestHandler):
    def show(self, template, **values):
        self.finish(
            self.application.settings["templates"][template].generate(**self.get_template_namespace(), **values)
        )


class Home(Page):
    def get(self):
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.show("home", note=self.session.pop("note", ""), visits=self.session["visits"])


class Login(Page):
    def get(self):
        self.show("login", note=self.session.pop("note", ""))

    def post(self):
        user = self.get_body_argument("user")
        if USERS.get(user) != self.get_body_argument("password"):
            self.session["note"] = "That is not the password."
            self.redirect("/login", status=303)
            return
        self.session.login(user, remember=bool(self.get_body_argument("remember", "")))
        self.session["note"] = "Welcome back."
        self.redirect("/", status=303)


class Logout(Page):
    def post(self):
        self.session.logout()
        self.session["note"] = "Good bye."
        self.redirect("/", status=303)


class Sessions(Page):
    @require_login
    async def get(self):
        found = await self.settings["coatcheck"].registry.find(self.session.subject)
        self.show("sessions", found=found.items, here=self.session.handle)


class Revoke(Page):
    @require_login
    async def post(self, handle):
        await self.settings["coatcheck"].registry.revoke(handle, "owner", subject=self.session.subject)
        self.redirect("/sessions", status=303)


class Chat(SessionMixin, WebSocketHandler):
    @require_login
    def prepare(self):
        pass

    def on_message(self, message):  # until its session ends: then the socket is closed with code 4401
        self.write_message(f"{self.session.subject} said {message}")


def make_app():
    app = Application(
        [
            ("/", Home),
            ("/login", Login),
            ("/logout", Logout),
            ("/sessions", Sessions),
            ("/sessions/([^/]+)/revoke", Revoke),
            ("/chat", Chat),
        ],
        templates={"home": Template(HOME), "login": Template(LOGIN), "sessions": Template(SESSIONS)},
    )
    setup(
        app,
        store="sqlite:///sessions.db",
        login_url="/login",
        allow_insecure_http=True,  # localhost only; in earnest: origins=["https://shop.example"]
    )
    return app


async def main(port):
    app = make_app()
    app.listen(port, address="127.0.0.1")
    try:
        await asyncio.Event().wait()
    finally:
        await app.settings["coatcheck"].shut()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
