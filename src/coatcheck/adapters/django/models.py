"""The stored sessions as a model: for the admin, for routers, and for those who ask by query; read only.

Deleting a row would leave no trace of the session's end: `revoke` ends it as a logout does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django.db import models  # type: ignore[import-untyped]


class StoredSession(models.Model):  # type: ignore[misc]
    """One session, without its secrets and without its data."""

    handle: Any = models.CharField(max_length=64, primary_key=True)
    realm: Any = models.CharField(max_length=255)
    subject: Any = models.CharField(max_length=255, null=True)  # noqa: DJ001 - nobody is not the empty name
    created_at: Any = models.FloatField()
    seen_at: Any = models.FloatField()
    expires_at: Any = models.FloatField()
    ended_at: Any = models.FloatField(null=True)
    ended_because: Any = models.CharField(max_length=64, null=True)  # noqa: DJ001 - it has not ended

    class Meta:
        """The table is made by the migration's own statements."""

        managed = False
        db_table = "coatcheck_sessions"
        verbose_name = "session"
        ordering: ClassVar[list[str]] = ["-created_at"]

    def __str__(self) -> str:
        """Show the public name."""
        return str(self.handle)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.ended_at is None

    @property
    def began(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(self.created_at, UTC)

    @property
    def seen(self) -> datetime:
        """When it was last seen."""
        return datetime.fromtimestamp(self.seen_at, UTC)

    def revoke(self) -> None:
        """End the session: its next request is anonymous."""
        from ...flow.registry import Registry
        from .site import site

        store = site()
        Registry(store.store, self.realm, store.manager.now).revoke(self.handle, "operator")
