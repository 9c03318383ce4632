"""A small Django project in one file: a counter, login and logout, and "your sessions" with revoke.

python app.py migrate
python app.py createsuperuser
python app.py runserver        then open http://localhost:8000
"""

import sys
from pathlib import Path

from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(
    BASE_DIR=Path.cwd(),
    DEBUG=True,
    SECRET_KEY="change me before anybody else sees this",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path.cwd() / "site.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    LOGIN_URL="/login/",
    LOGIN_REDIRECT_URL="/",
    LOGOUT_REDIRECT_URL="/",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "coatcheck.adapters.django",
    ],
    MIDDLEWARE=[
        "coatcheck.adapters.django.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    SESSION_ENGINE="coatcheck.adapters.django",
    # For http on localhost only. In production: "__Host-session", True, and no ALLOW_INSECURE_HTTP.
    SESSION_COOKIE_NAME="session-insecure",
    SESSION_COOKIE_SECURE=False,
    COATCHECK={"STORE": "django", "ALLOW_INSECURE_HTTP": True},
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {
                            "home.html": """<p>Hello {{ user.username|default:"stranger" }}, visit {{ visits }}.</p>
{% for message in messages %}<p>{{ message }}</p>{% endfor %}
{% if user.is_authenticated %}<p><a href="/sessions/">Your sessions</a></p>
<form method="post" action="/logout/">{% csrf_token %}<button>Log out</button></form>
{% else %}<p><a href="/login/">Log in</a></p>{% endif %}""",
                            "registration/login.html": """<form method="post">{% csrf_token %}{{ form }}
<button>Log in</button></form>""",
                            "sessions.html": """<ul>{% for one in sessions %}<li>{{ one.client.agent }}
{% if one.handle == handle %}(this one){% else %}
<form method="post" action="/sessions/{{ one.handle }}/revoke/">{% csrf_token %}<button>End it</button></form>
{% endif %}</li>{% endfor %}</ul>""",
                        },
                    )
                ],
            },
        }
    ],
)

import django  # noqa: E402

django.setup()

from django.contrib import messages  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.views import LoginView, LogoutView  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.shortcuts import redirect, render  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402

from coatcheck import Registry  # noqa: E402
from coatcheck.adapters.django import exchange_of, session_of  # noqa: E402


def home(request: HttpRequest) -> HttpResponse:
    """Count visits."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return render(request, "home.html", {"visits": request.session["visits"]})


@login_required
def sessions(request: HttpRequest) -> HttpResponse:
    """List the user's sessions."""
    session = session_of(request)
    found = registry(request).find(session.require_login()).items
    return render(request, "sessions.html", {"sessions": found, "handle": session.handle})


@require_POST
@login_required
def revoke(request: HttpRequest, handle: str) -> HttpResponse:
    """End one of the user's sessions."""
    registry(request).revoke(handle, "owner", subject=session_of(request).require_login())
    messages.info(request, "That session is over.")
    return redirect("/sessions/")


def registry(request: HttpRequest) -> Registry:
    """Return the list of all sessions."""
    exchange = exchange_of(request)
    return Registry(exchange.store, exchange.manager.realm)


urlpatterns = [
    path("", home),
    path("login/", LoginView.as_view()),
    path("logout/", LogoutView.as_view()),
    path("sessions/", sessions),
    path("sessions/<str:handle>/revoke/", revoke),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
