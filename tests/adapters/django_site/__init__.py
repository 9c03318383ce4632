"""A small Django project for the tests: `ready()` configures it, once a process."""

import os

import django
from django import conf


def ready() -> None:
    """Configure Django, if that was not done."""
    if not conf.settings.configured:
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.adapters.django_site.settings"
    django.setup()
