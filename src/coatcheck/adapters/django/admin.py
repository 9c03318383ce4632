"""The admin's list of sessions: who is logged in since when, and an action that ends them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin  # type: ignore[import-untyped]
from django.db.models import QuerySet  # type: ignore[import-untyped]
from django.http import HttpRequest  # type: ignore[import-untyped]

from .models import StoredSession


@admin.register(StoredSession)
class StoredSessionAdmin(admin.ModelAdmin):  # type: ignore[misc]
    """Shows sessions; deleting one revokes it."""

    list_display = ("handle", "subject", "began", "seen", "ended_because")
    list_filter = ("ended_because",)
    search_fields = ("handle", "subject")
    actions: ClassVar[list[Any]] = ["revoke"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Sessions are begun by browsers."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing of a session is changed by hand."""
        return False

    def delete_model(self, request: HttpRequest, obj: StoredSession) -> None:
        """Revoke instead."""
        obj.revoke()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[StoredSession]) -> None:
        """Revoke instead."""
        for one in queryset:
            one.revoke()

    @admin.action(description="Revoke the selected sessions", permissions=["delete"])  # type: ignore[untyped-decorator]
    def revoke(self, request: HttpRequest, queryset: QuerySet[StoredSession]) -> None:
        """Revoke the selected sessions."""
        self.delete_queryset(request, queryset)
