"""A small Flask application to copy: login, logout, a page that counts, and "your sessions".

pip install "coatcheck[flask]", then: flask --app app run
"""

from flask import Flask, flash, redirect, render_template_string, request, url_for

from coatcheck.adapters.flask import Coatcheck, require_login, session

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your own database

app = Flask(__name__)
app.config.update(
    COATCHECK_STORE="sqlite:///sessions.db",
    COATCHECK_LOGIN_URL="/login",
    COATCHECK_ALLOW_INSECURE_HTTP=True,  # localhost only; in earnest: COATCHECK_ORIGINS=["https://shop.example"]
)
coatcheck = Coatcheck(app)

PAGE = """<!doctype html><title>Example</title>
{% for message in get_flashed_messages() %}<p><em>{{ message }}</em>{% endfor %}
{% if session.subject %}
  <p>Hello {{ session.subject }}, visit {{ session.visits }}. <a href="{{ url_for('sessions') }}">Your sessions</a>
  <form method="post" action="{{ url_for('logout') }}"><button>Log out</button></form>
{% else %}
  <p>Hello stranger, visit {{ session.visits }}. <a href="{{ url_for('login') }}">Log in</a>
{% endif %}
"""
LOGIN = """<!doctype html><title>Log in</title>
{% for message in get_flashed_messages() %}<p><em>{{ message }}</em>{% endfor %}
<form method="post"><input name="user" autocomplete="username" required>
<input name="password" type="password" autocomplete="current-password" required>
<label><input type="checkbox" name="remember"> Remember me</label> <button>Log in</button></form>
"""
SESSIONS = """<!doctype html><title>Your sessions</title><ul>
{% for one in found %}<li>{{ one.client.agent }} ({{ one.client.address }})
  {% if one.handle == session.handle %}this one{% else %}
  <form method="post" action="{{ url_for('revoke', handle=one.handle) }}"><button>End it</button></form>{% endif %}
{% endfor %}</ul><a href="{{ url_for('home') }}">Back</a>
"""


@app.get("/")
def home():
    session["visits"] = session.get("visits", 0) + 1
    return render_template_string(PAGE)


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        user = request.form["user"]
        if USERS.get(user) == request.form["password"]:
            session.login(user, remember="remember" in request.form)
            flash("Welcome back.")
            return redirect(url_for("home"), 303)
        flash("That is not the password.")
    return render_template_string(LOGIN)


@app.post("/logout")
def logout():
    session.logout()
    flash("Good bye.")
    return redirect(url_for("home"), 303)


@app.get("/sessions")
@require_login
def sessions():
    return render_template_string(SESSIONS, found=coatcheck.registry.find(session.subject).items)


@app.post("/sessions/<handle>/revoke")
@require_login
def revoke(handle):
    coatcheck.registry.revoke(handle, "owner", subject=session.subject)
    return redirect(url_for("sessions"), 303)
