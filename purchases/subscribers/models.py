"""Who wants to hear of events, and each event on its way to one of them."""

import base64
import secrets
import uuid
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.utils import timezone

from offers.models import Organization

# Of random bytes; the convention asks for 24 to 64.
SECRET_BYTES = 32


def new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def new_message_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


class WebhookEndpoint(models.Model):
    """An address of an organization's that gets its events.

    The row is also a queue's (``offers.row_queue``): who sends to it holds it for a while, so that
    one process at a time does, and ``attempts`` counts the turns since it last answered.
    """

    # What a form writes. The rest is the sender's, or changed under the row's lock.
    EDITABLE: ClassVar = ("organization", "url", "description", "event_types", "is_active")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="webhook_endpoints"
    )
    url = models.URLField("URL", max_length=2000)
    description = models.CharField(max_length=200, blank=True)
    event_types = models.JSONField(
        default=list, blank=True, help_text="Which events it gets; none chosen: all."
    )
    is_active = models.BooleanField(
        "active",
        default=True,
        help_text="Otherwise it is told of nothing; what waits for it, waits until it is again.",
    )
    disabled_reason = models.CharField(max_length=300, blank=True, editable=False)
    secret = models.CharField(max_length=100, default=new_secret, editable=False)
    previous_secret = models.CharField(max_length=100, blank=True, editable=False)
    previous_secret_until = models.DateTimeField(
        null=True, editable=False, help_text="Until then events are signed with both."
    )
    attempts = models.PositiveIntegerField(default=0, editable=False)
    due_at = models.DateTimeField(
        default=timezone.now, editable=False, help_text="Being sent to, or left alone, until then."
    )
    failing_since = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        # Not the whole address: some have a key in their path.
        return self.description or urlsplit(self.url).netloc

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store it; of a row that exists, only what a form writes: no secret, and no failure."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            kwargs["update_fields"] = self.EDITABLE
        super().save(*args, **kwargs)

    def wants(self, event_type: str) -> bool:
        return not self.event_types or event_type in self.event_types

    def secrets_at(self, now: datetime) -> list[str]:
        """What events are signed with: the secret, and the one before while it is replaced."""
        until = self.previous_secret_until
        return [self.secret, self.previous_secret] if until and now < until else [self.secret]


class WebhookDelivery(models.Model):
    """One event on its way to one endpoint: the row is the queue, and afterwards the log."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DELIVERED = "delivered"
        GIVEN_UP = "given_up"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # No index of its own: it is the first column of the one that makes an event unique.
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False
    )
    message_id = models.CharField(
        max_length=40,
        unique=True,
        default=new_message_id,
        help_text="The header webhook-id: the same for every attempt.",
    )
    key = models.TextField(help_text="The occasion, which is told of once.")
    type = models.CharField(max_length=50)
    payload = models.JSONField(encoder=DjangoJSONEncoder)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(help_text="Claimed, or put off after a failure, until then.")
    response_status = models.PositiveSmallIntegerField(null=True)
    response_body = models.TextField(blank=True, help_text="How the last answer began.")
    error = models.TextField(blank=True)
    duration_ms = models.PositiveIntegerField(
        "duration", null=True, help_text="Milliseconds, of the last attempt."
    )
    created_at = models.DateTimeField()
    last_attempt_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "webhook deliveries"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["endpoint", "key"], name="webhook_once_an_occasion"),
            models.CheckConstraint(
                condition=~Q(state="delivered") | Q(delivered_at__isnull=False),
                name="webhook_delivered_at_some_time",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["endpoint", "due_at"], condition=Q(state="waiting"), name="webhook_unsent"
            ),
            models.Index(fields=["created_at"], name="webhook_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.message_id}"
