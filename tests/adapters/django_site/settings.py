"""The settings of the test project: ours as the documents say, on a SQLite database."""

import tempfile
from pathlib import Path
from typing import Any

SECRET_KEY = "for tests only, and long enough that nobody complains about it"
ALLOWED_HOSTS = ["*"]
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "coatcheck.adapters.django",
]
MIDDLEWARE = [
    "coatcheck.adapters.django.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "tests.adapters.django_site.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
FOLDER = Path(tempfile.mkdtemp(prefix="coatcheck-django-"))


def _file(name: str) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / name, "OPTIONS": {"timeout": 10}}


DATABASES = {"default": _file("site.db"), "other": _file("other.db")}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SESSION_ENGINE = "coatcheck.adapters.django"
SESSION_COOKIE_NAME = "__Host-session"
SESSION_COOKIE_SECURE = True
COATCHECK = {"STORE": "django"}
