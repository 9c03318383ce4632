"""Make the tables of the "django" store."""

from typing import Any, ClassVar

from django.db import migrations, models  # type: ignore[import-untyped]

from coatcheck.adapters.django import tables


def _make(_apps: Any, editor: Any) -> None:
    tables.make(editor.connection)


def _drop(_apps: Any, editor: Any) -> None:
    tables.drop(editor.connection)


class Migration(migrations.Migration):  # type: ignore[misc]
    """The tables of our schema, and the model that shows one of them."""

    initial = True
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [
        migrations.RunPython(_make, _drop, elidable=False),
        migrations.CreateModel(
            name="StoredSession",
            fields=[
                ("handle", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("realm", models.CharField(max_length=255)),
                ("subject", models.CharField(max_length=255, null=True)),
                ("created_at", models.FloatField()),
                ("seen_at", models.FloatField()),
                ("expires_at", models.FloatField()),
                ("ended_at", models.FloatField(null=True)),
                ("ended_because", models.CharField(max_length=64, null=True)),
            ],
            options={
                "verbose_name": "session",
                "db_table": "coatcheck_sessions",
                "ordering": ["-created_at"],
                "managed": False,
            },
        ),
    ]
