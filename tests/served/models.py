"""What the load reads and writes."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Register(models.Model):
    """A user's own number, which only grows: whoever reads less than they know of has read the past."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    value = models.PositiveIntegerField(default=0)
