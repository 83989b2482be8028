"""What staff asked to be done to many rows, and what became of each: the rows are the queue."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from offers.models import Organization


class BulkJob(models.Model):
    """One action of a person's on many objects. Written by ``purchases.bulk`` alone.

    Without ``started_at`` it is a draft: what was chosen, before the question was answered.
    Without an ``organization`` it is a superuser's, over several of them.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # No index of its own: it is the first column of one below.
    organization = models.ForeignKey(
        Organization, null=True, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    kind = models.CharField(max_length=40)
    parameters = models.JSONField(default=dict)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    asked_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    stopped_at = models.DateTimeField(null=True)
    stopped_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    due_at = models.DateTimeField(help_text="Left alone until then, while Stripe is away.")
    setbacks = models.PositiveIntegerField(
        default=0, help_text="How often in a row it had to be left alone."
    )
    total = models.PositiveIntegerField(default=0)
    # As they were when a worker last counted.
    done = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = "bulk action"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(finished_at=None) | Q(started_at__isnull=False),
                name="bulk_job_finished_once_started",
            ),
            models.CheckConstraint(
                condition=Q(total__gte=F("done") + F("refused") + F("failed")),
                name="bulk_job_counts_at_most_its_total",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["due_at"],
                condition=Q(started_at__isnull=False, finished_at=None),
                name="bulk_job_unfinished",
            ),
            models.Index(fields=["organization", "-asked_at"], name="bulk_job_of_organization"),
            models.Index(fields=["-asked_at"], name="bulk_job_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.total:,}"

    @property
    def state(self) -> str:
        if self.stopped_at is not None:
            return "stopped"
        if self.finished_at is not None:
            return "finished"
        return "paused" if self.setbacks else "running"


class BulkItem(models.Model):
    """One object of a job, and what became of it."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DONE = "done"
        REFUSED = "refused"
        FAILED = "failed"
        LEFT = "left", "not begun"

    # No index of its own: it is the first column of those below.
    job = models.ForeignKey(BulkJob, on_delete=models.CASCADE, related_name="items", db_index=False)
    object_id = models.UUIDField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    reason = models.CharField(max_length=500, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    is_begun = models.BooleanField(
        default=False,
        help_text="A worker has tried it, so that it may be done. Unlike attempts never undone.",
    )
    due_at = models.DateTimeField(help_text="Claimed, or put off after a failure, until then.")
    settled_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "object_id"], name="bulk_item_once_a_job"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["job", "due_at"], condition=Q(state="waiting"), name="bulk_item_waiting"
            ),
            models.Index(fields=["job", "state", "id"], name="bulk_item_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.object_id}: {self.state}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a save that isn't told its fields: rows are shared with other processes."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise TypeError("Items are written by purchases.bulk, with update_fields.")
        super().save(*args, **kwargs)
