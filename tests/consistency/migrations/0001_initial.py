from __future__ import annotations

from typing import ClassVar

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Something to read for a while, and a parent for the tables that a conflict storm drops under its readers.
NOISE = """
    CREATE TABLE consistency_noise (id int, value int);
    INSERT INTO consistency_noise SELECT n, n FROM generate_series(1, 600) n;
"""


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations: ClassVar = [
        migrations.CreateModel(
            name="Token",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("token", models.CharField(max_length=40)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.RunSQL(NOISE, "DROP TABLE consistency_noise CASCADE"),
    ]
