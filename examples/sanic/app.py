"""A small Sanic application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[sanic]", then: sanic app:app
"""

from html import escape

from sanic import Sanic, html, redirect

from coatcheck.adapters.sanic import Coatcheck, require_login, session_of

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your own database

app = Sanic("example")
coatcheck = Coatcheck(
    app,
    store="sqlite:///sessions.db",
    login_url="/login",
    allow_insecure_http=True,  # localhost only; in earnest: origins=["https://shop.example"]
)

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
    return html(f"<!doctype html><title>Example</title>{notices}{body}")


def tell(request, text):
    session_of(request).setdefault("notices", []).append(text)


@app.get("/")
async def home(request):
    session = session_of(request)
    session["visits"] = session.get("visits", 0) + 1
    shown = LOGGED_IN if session.subject else STRANGER
    return page(request, shown.format(user=escape(session.subject or ""), visits=session["visits"]))


@app.route("/login", methods=["GET", "POST"])
async def login(request):
    if request.method == "POST":
        user = request.form["user"][0]
        if USERS.get(user) == request.form["password"][0]:
            session_of(request).login(user, remember="remember" in request.form)
            tell(request, "Welcome back.")
            return redirect("/", status=303)
        tell(request, "That is not the password.")
    return page(request, LOGIN)


@app.post("/logout")
async def logout(request):
    session_of(request).logout()
    tell(request, "Good bye.")
    return redirect("/", status=303)


@app.get("/sessions")
@require_login
async def sessions(request):
    session = session_of(request)
    lines = []
    for one in (await coatcheck.registry.find(session.subject)).items:
        about = {"agent": escape(one.client.agent or ""), "address": one.client.address, "handle": one.handle}
        lines.append("<li>this one" if one.handle == session.handle else ONE.format(**about))
    return page(request, f'<ul>{"".join(lines)}</ul><a href="/">Back</a>')


@app.post("/sessions/<handle:str>/revoke")
@require_login
async def revoke(request, handle):
    await coatcheck.registry.revoke(handle, "owner", subject=session_of(request).subject)
    return redirect("/sessions", status=303)
