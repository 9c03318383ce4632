"""The application, as INSTALLED_APPS names it."""

from __future__ import annotations

from django.apps import AppConfig  # type: ignore[import-untyped]
from django.core.checks import Tags, register  # type: ignore[import-untyped]


class CoatcheckConfig(AppConfig):  # type: ignore[misc]
    """Registers the system checks; the tables are made by the migrations."""

    name = "coatcheck.adapters.django"
    label = "coatcheck"
    verbose_name = "Sessions"

    def ready(self) -> None:
        """Register the checks."""
        from .checks import check_settings

        register(check_settings, Tags.security)
