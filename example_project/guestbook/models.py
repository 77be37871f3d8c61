"""What people write."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Entry(models.Model):
    """One line in the guestbook."""

    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="entries")
    text = models.CharField(max_length=280)
    written = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-written", "-pk")
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return self.text
