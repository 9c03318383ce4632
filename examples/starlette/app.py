"""A small Starlette application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[starlette]" python-multipart uvicorn, then: uvicorn app:app
"""

from html import escape

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

from coatcheck import AsyncRegistry, Refusal, open_async_store
from coatcheck.adapters.starlette import SessionMiddleware, refusal_response, session_of

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


def page(request, body):
    notices = "".join(f"<p><em>{escape(text)}</em>" for text in session_of(request).pop("notices", []))
    return HTMLResponse(f"<!doctype html><title>Example</title>{notices}{body}")


def tell(request, text):
    session_of(request).setdefault("notices", []).append(text)


async def home(request):
    session = session_of(request)
    session["visits"] = session.get("visits", 0) + 1
    shown = LOGGED_IN if session.subject else STRANGER
    return page(request, shown.format(user=escape(session.subject or ""), visits=session["visits"]))


async def login(request):
    if request.method == "POST":
        form = await request.form()
        if USERS.get(form["user"]) == form["password"]:
            session_of(request).login(form["user"], remember="remember" in form)
            tell(request, "Welcome back.")
            return RedirectResponse("/", 303)
        tell(request, "That is not the password.")
    return page(request, LOGIN)


async def logout(request):
    session_of(request).logout()
    tell(request, "Good bye.")
    return RedirectResponse("/", 303)


async def sessions(request):
    session = session_of(request)
    session.require_login()
    lines = []
    for one in (await registry.find(session.subject)).items:
        about = {"agent": escape(one.client.agent or ""), "address": one.client.address, "handle": one.handle}
        lines.append("<li>this one" if one.handle == session.handle else ONE.format(**about))
    return page(request, f'<ul>{"".join(lines)}</ul><a href="/">Back</a>')


async def revoke(request):
    subject = session_of(request).require_login()
    await registry.revoke(request.path_params["handle"], "owner", subject=subject)
    return RedirectResponse("/sessions", 303)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/sessions", sessions),
        Route("/sessions/{handle}/revoke", revoke, methods=["POST"]),
    ],
    middleware=[
        Middleware(
            SessionMiddleware,
            store=store,
            login_url="/login",
            allow_insecure_http=True,  # localhost only; in earnest: origins=["https://shop.example"]
        )
    ],
    exception_handlers={Refusal: refusal_response},
)
