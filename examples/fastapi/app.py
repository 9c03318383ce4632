"""A small FastAPI application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[fastapi]" python-multipart uvicorn, then: uvicorn app:app
"""

from datetime import timedelta
from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI, Form
from fastapi.responses import HTMLResponse, RedirectResponse

from coatcheck import AsyncRegistry, Session, open_async_store
from coatcheck.adapters.fastapi import CurrentSession, RequireLogin, SessionMiddleware

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your own database

store = open_async_store("sqlite:///sessions.db")
registry = AsyncRegistry(store)

app = FastAPI(title="Example")
app.add_middleware(
    SessionMiddleware,
    store=store,
    login_url="/login",
    allow_insecure_http=True,  # localhost only; in earnest: origins=["https://shop.example"]
)

LoggedIn = Annotated[Session, Depends(RequireLogin())]
JustLoggedIn = Annotated[Session, Depends(RequireLogin(within=timedelta(minutes=10)))]

LOGIN = """<form method="post"><input name="user" autocomplete="username" required>
<input name="password" type="password" autocomplete="current-password" required>
<label><input type="checkbox" name="remember"> Remember me</label> <button>Log in</button></form>"""
LOGGED_IN = """<p>Hello {user}, visit {visits}. <a href="/sessions">Your sessions</a>
<form method="post" action="/logout"><button>Log out</button></form>"""
STRANGER = """<p>Hello stranger, visit {visits}. <a href="/login">Log in</a>"""
ONE = """<li>{agent} ({address})
<form method="post" action="/sessions/{handle}/revoke"><button>End it</button></form>"""


def page(session: Session, body: str) -> HTMLResponse:
    notices = "".join(f"<p><em>{escape(text)}</em>" for text in session.pop("notices", []))
    return HTMLResponse(f"<!doctype html><title>Example</title>{notices}{body}")


def tell(session: Session, text: str) -> None:
    session.setdefault("notices", []).append(text)


@app.get("/")
async def home(session: CurrentSession) -> HTMLResponse:
    session["visits"] = session.get("visits", 0) + 1
    shown = LOGGED_IN if session.subject else STRANGER
    return page(session, shown.format(user=escape(session.subject or ""), visits=session["visits"]))


@app.get("/login")
async def form(session: CurrentSession) -> HTMLResponse:
    return page(session, LOGIN)


@app.post("/login", response_model=None)
async def login(
    session: CurrentSession,
    user: Annotated[str, Form()],
    password: Annotated[str, Form()],
    remember: Annotated[bool, Form()] = False,
) -> HTMLResponse | RedirectResponse:
    if USERS.get(user) != password:
        tell(session, "That is not the password.")
        return page(session, LOGIN)
    session.login(user, remember=remember)
    tell(session, "Welcome back.")
    return RedirectResponse("/", 303)


@app.post("/logout")
async def logout(session: CurrentSession) -> RedirectResponse:
    session.logout()
    tell(session, "Good bye.")
    return RedirectResponse("/", 303)


@app.get("/sessions")
async def sessions(session: LoggedIn) -> HTMLResponse:
    lines = []
    for one in (await registry.find(session.subject)).items:
        about = {"agent": escape(one.client.agent or ""), "address": one.client.address, "handle": one.handle}
        lines.append("<li>this one" if one.handle == session.handle else ONE.format(**about))
    return page(session, f'<ul>{"".join(lines)}</ul><a href="/">Back</a>')


@app.post("/sessions/{handle}/revoke")
async def revoke(handle: str, session: JustLoggedIn) -> RedirectResponse:
    await registry.revoke(handle, "owner", subject=session.subject)
    return RedirectResponse("/sessions", 303)
