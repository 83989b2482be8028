"""The queue of letters about accounts."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q


class AccountLetter(models.Model):
    """Somebody asked for a letter to ``address``; ``letters`` sends it, or finds nothing to send.

    Nothing in it opens anything: the link is signed while the message is made. A registration's row
    stays until its link is used or too old, because the row is the right to register; any other is
    gone once its letter is sent.
    """

    class Kind(models.TextChoices):
        REGISTRATION = "registration"
        PASSWORD_RESET = "password_reset"  # noqa: S105 - no password

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    address = models.CharField(max_length=254, help_text="As addresses.normal writes it.")
    name = models.CharField(max_length=150, blank=True)
    next = models.TextField(blank=True, help_text="The page that the visitor was on the way to.")
    language = models.CharField(max_length=10, help_text="The visitor's, when they asked for it.")
    site = models.CharField(max_length=300, help_text="What the link begins with.")
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["due_at"], condition=Q(sent_at=None), name="letter_unsent"),
            models.Index(fields=["address"], name="letter_address"),
            models.Index(fields=["created_at"], name="letter_created"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
