"""What the site keeps."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Register(models.Model):
    """A number that its user raises: what a read shows of it tells which writes it has seen."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="register")
    value = models.IntegerField(default=0)


class Post(models.Model):
    """What a user has written, for everybody."""

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="posts")
    text = models.TextField()
    written_at = models.DateTimeField(auto_now_add=True)


class Message(models.Model):
    """What one user has written to another."""

    recipient = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="messages_received")
    text = models.TextField()
    is_read = models.BooleanField(default=False)
