"""A small Pyramid application with sessions: log in, count visits, see and end your sessions. Run it: python app.py.

It serves http://localhost:6543 (or the port given); on a host of your own drop `allow_insecure_http` and set
`coatcheck.origins = https://your.host`.
"""

import sys
from html import escape
from wsgiref.simple_server import make_server

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response
from pyramid.security import forget, remember

from coatcheck import Registry
from coatcheck.adapters.pyramid import exchange_of, session_of

USERS = {"alice": "wonderland", "bob": "builder"}  # in earnest: hashes, in your database


def home(request):
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    said = "".join(f"<p>{escape(message)}</p>" for message in session.pop_flash())
    token = session.get_csrf_token()
    name = escape(session.subject or "nobody")
    return Response(
        f"{said}<h1>{name}, visit {session['visits']}</h1>"
        f'<form method=post action=/login><input type=hidden name=csrf_token value="{token}">'
        "<input name=user><input name=password type=password><button>Log in</button></form>"
        f'<form method=post action=/logout><input type=hidden name=csrf_token value="{token}">'
        "<button>Log out</button></form><a href=/sessions>Your sessions</a>"
    )


def login(request):
    user = request.POST.get("user", "")
    if USERS.get(user) != request.POST.get("password"):
        request.session.flash("That is not right.")
        return HTTPSeeOther("/")
    headers = remember(request, user)
    request.session.flash(f"Welcome, {user}.")
    return HTTPSeeOther("/", headers=headers)


def logout(request):
    return HTTPSeeOther("/", headers=forget(request))


def registry_of(request):
    exchange = exchange_of(request)
    return Registry(exchange.store, exchange.manager.realm)


def sessions(request):
    subject = session_of(request).require_login()
    token = request.session.get_csrf_token()
    rows = "".join(
        f'<form method=post action="/sessions/{one.handle}"><input type=hidden name=csrf_token value="{token}">'
        f"{one.handle}{' (this one)' if one.handle == request.session.handle else ''}<button>End</button></form>"
        for one in registry_of(request).find(subject).items
    )
    return Response(f"<h1>Your sessions</h1>{rows}")


def end(request):
    subject = session_of(request).require_login()
    registry_of(request).revoke(request.matchdict["handle"], "owner", subject=subject)
    return HTTPSeeOther("/sessions")


def make_app(**settings):
    with Configurator(settings={f"coatcheck.{name}": value for name, value in settings.items()}) as config:
        config.include("coatcheck.adapters.pyramid")
        config.set_default_csrf_options(require_csrf=True)
        for name, path, view, method in (
            ("home", "/", home, "GET"),
            ("login", "/login", login, "POST"),
            ("logout", "/logout", logout, "POST"),
            ("sessions", "/sessions", sessions, "GET"),
            ("end", "/sessions/{handle}", end, "POST"),
        ):
            config.add_route(name, path)
            config.add_view(view, route_name=name, request_method=method)
        return config.make_wsgi_app()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6543
    make_server(
        "127.0.0.1", port, make_app(store="sqlite:///sessions.db", allow_insecure_http=True, login_url="/")
    ).serve_forever()
