"""A small Litestar application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[litestar]" uvicorn, then: uvicorn app:app
"""

from html import escape

from litestar import Litestar, Request, get, post
from litestar.enums import MediaType
from litestar.response import Redirect

from coatcheck import AsyncRegistry, open_async_store
from coatcheck.adapters.litestar import CoatcheckPlugin, require_login, session_of

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your own database

store = open_async_store("sqlite:///sessions.db")
registry = AsyncRegistry(store)

LOGIN = """<form method="post"><input name="user" autocomplete="username" required>
<input name="password" type="password" autocomplete="current-password" required>
<label><input type="checkbox" name="remember"> Remember me</label> <button>Log in</button></form>"""
LOGGED_IN = """<p>Hello {user}, visit {visits}. <a href="/sessions">Your sessions</a>
<form method="post" action="/logout"><button>Log out</button></form>"""
STRANGER = """<p>Hello stranger, visit {visits}. <a href="/login">Log in</a>"""
ONE = """<li>{agent} ({address})
<form method="post" action="/sessions/{handle}/revoke"><button>End it</button></form>"""


def page(request: Request, body: str) -> str:
    notices = "".join(f"<p><em>{escape(text)}</em>" for text in session_of(request).pop("notices", []))
    return f"<!doctype html><title>Example</title>{notices}{body}"


def tell(request: Request, text: str) -> None:
    session_of(request).setdefault("notices", []).append(text)


@get("/", media_type=MediaType.HTML)
async def home(request: Request) -> str:
    session = session_of(request)
    session["visits"] = session.get("visits", 0) + 1
    shown = LOGGED_IN if session.subject else STRANGER
    return page(request, shown.format(user=escape(session.subject or ""), visits=session["visits"]))


@get("/login", media_type=MediaType.HTML)
async def login_form(request: Request) -> str:
    return page(request, LOGIN)


@post("/login")
async def login(request: Request) -> Redirect:
    form = await request.form()
    if USERS.get(form["user"]) != form["password"]:
        tell(request, "That is not the password.")
        return Redirect("/login", status_code=303)
    session_of(request).login(form["user"], remember="remember" in form)
    tell(request, "Welcome back.")
    return Redirect("/", status_code=303)


@post("/logout")
async def logout(request: Request) -> Redirect:
    session_of(request).logout()
    tell(request, "Good bye.")
    return Redirect("/", status_code=303)


@get("/sessions", media_type=MediaType.HTML, guards=[require_login()])
async def sessions(request: Request) -> str:
    session = session_of(request)
    lines = []
    for one in (await registry.find(session.subject)).items:
        about = {"agent": escape(one.client.agent or ""), "address": one.client.address, "handle": one.handle}
        lines.append("<li>this one" if one.handle == session.handle else ONE.format(**about))
    return page(request, f'<ul>{"".join(lines)}</ul><a href="/">Back</a>')


@post("/sessions/{handle:str}/revoke")
async def revoke(request: Request, handle: str) -> Redirect:
    subject = session_of(request).require_login()
    await registry.revoke(handle, "owner", subject=subject)
    return Redirect("/sessions", status_code=303)


app = Litestar(
    [home, login_form, login, logout, sessions, revoke],
    plugins=[
        CoatcheckPlugin(
            store=store,
            login_url="/login",
            allow_insecure_http=True,  # localhost only; in earnest: origins=["https://shop.example"]
        )
    ],
)
