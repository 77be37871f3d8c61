"""What the workload writes, beside the registers of the served site."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Token(models.Model):
    """One write, under a name that no other write has. Nothing here keeps it unique: a write that was run twice must show."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=True)
    token = models.CharField(max_length=40)
