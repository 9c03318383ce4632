"""A small aiohttp application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[aiohttp]", then: python app.py
"""

import sys
from html import escape

from aiohttp import web

from coatcheck.adapters.aiohttp import SESSIONS, require_login, session_of, setup

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your own database

routes = web.RouteTableDef()


def page(title: str, body: str) -> web.Response:
    return web.Response(text=f"<!doctype html><title>{title}</title>{body}", content_type="text/html")


@routes.get("/")
async def home(request):
    session = session_of(request)
    session["visits"] = session.get("visits", 0) + 1
    note = session.pop("note", "")
    greeting = f"<p><em>{note}</em><p>Hello {escape(session.subject or 'stranger')}, visit {session['visits']}. "
    if session.subject is None:
        return page("Example", greeting + '<a href="/login">Log in</a>')
    leave = '<form method="post" action="/logout"><button>Log out</button></form>'
    return page("Example", f'{greeting}<a href="/sessions">Your sessions</a>{leave}')


@routes.get("/login")
async def ask(request):
    form = """<form method="post"><input name="user" autocomplete="username" required>
    <input name="password" type="password" autocomplete="current-password" required>
    <label><input type="checkbox" name="remember"> Remember me</label> <button>Log in</button></form>"""
    return page("Log in", f"<p><em>{session_of(request).pop('note', '')}</em>{form}")


@routes.post("/login")
async def login(request):
    form = await request.post()
    session = session_of(request)
    if USERS.get(form["user"]) != form["password"]:
        session["note"] = "That is not the password."
        raise web.HTTPSeeOther("/login")
    session.login(form["user"], remember="remember" in form)
    session["note"] = "Welcome back."
    raise web.HTTPSeeOther("/")


@routes.post("/logout")
async def logout(request):
    session = session_of(request)
    session.logout()
    session["note"] = "Good bye."
    raise web.HTTPSeeOther("/")


@routes.get("/sessions")
@require_login
async def sessions(request):
    session = session_of(request)
    found = await request.app[SESSIONS].registry.find(session.subject)
    rows = "".join(
        f"<li>{escape(one.client.agent)} ({escape(one.client.address)}) "
        + ("this one" if one.handle == session.handle else end_button(one.handle))
        for one in found.items
    )
    return page("Your sessions", f'<ul>{rows}</ul><a href="/">Back</a>')


def end_button(handle: str) -> str:
    return f'<form method="post" action="/sessions/{handle}/revoke"><button>End it</button></form>'


@routes.post("/sessions/{handle}/revoke")
@require_login
async def revoke(request):
    registry = request.app[SESSIONS].registry
    await registry.revoke(request.match_info["handle"], "owner", subject=session_of(request).subject)
    raise web.HTTPSeeOther("/sessions")


@routes.get("/chat")
@require_login
async def chat(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:  # until its session ends: then the socket is closed with code 4401
        await socket.send_str(f"{session_of(request).subject} said {message.data}")
    return socket


def make_app() -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    setup(
        app,
        store="sqlite:///sessions.db",
        login_url="/login",
        allow_insecure_http=True,  # localhost only; in earnest: origins=["https://shop.example"]
    )
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
