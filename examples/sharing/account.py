"""The account pages beside the shop (shop.py): a Django project, which logs out whom Flask logged in.

pip install "coatcheck[django]", then in the shop's folder:
  python account.py runserver 9000
"""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line

from coatcheck import timeouts

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="change me before anybody else sees this",
    ALLOWED_HOSTS=["localhost"],
    MIDDLEWARE=["coatcheck.adapters.django.SessionMiddleware"],
    SESSION_ENGINE="coatcheck.adapters.django",
    # what all must agree on: the store, the host, the cookie's name, the realm (by itself that name, as it is over
    # https), and the timeouts (Django's own are two weeks)
    SESSION_COOKIE_NAME="coat-insecure",
    SESSION_COOKIE_SECURE=False,
    COATCHECK={
        "STORE": "sqlite:///sessions.db",
        "REALM": "__Host-coat",
        "TIMEOUTS": timeouts(),
        "ALLOW_INSECURE_HTTP": True,
    },
)

from django.contrib.auth import logout  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import redirect  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402

from coatcheck.adapters.django import session_of  # noqa: E402


def home(request):
    return HttpResponse(f"{session_of(request).subject or 'nobody'} has {request.session.get('items', [])}")


@require_POST
def leave(request):
    logout(request)
    return redirect("/")


urlpatterns = [path("", home), path("logout", leave)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
